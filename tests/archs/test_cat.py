"""What is peculiar to CAT: stripes as long as the map, and windows that only buffers tell."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden_data import (
    Tiny,
    empty_state,
    image,
    parameters,
    skeleton,
    spec_of,
    tiny,
    untold,
    variants,
    with_garbage,
)
from torch import Tensor, nn

from restore.archs import cat
from restore.archs._blocks import Remembered
from restore.archs._cross_aggregation import CrossAggregationBlock, StripeAttention
from restore.archs._spec import PublishedPadding
from restore.archs.cat import CATConfig
from restore.archs.cat_unet import CATUnetConfig
from restore.errors import CheckpointError, UsageError
from restore.loading import AmbiguousCheckpointWarning, load
from restore.model import Model

OFFICIAL = [name for name in variants() if name.startswith("cat_")]


def small(name: str, **changes: Any) -> Model:
    case = tiny(name)
    given = {**untold(case), "img_size": case.config["img_size"], **changes}
    return load(case.state, device="cpu", config=given)


def official_config(variant: str) -> Any:
    official = skeleton(variant)
    return spec_of(official["class"]).config().replaced(official["config"], variant)


def buffers_of(case: Tiny) -> dict[str, Tensor]:
    """The small network's state dict, with buffers whose shapes alone are right."""
    return with_garbage(case.state, case.keys)


def get_v_of(model: Model) -> Any:
    """The first block's convolution of values, and the block."""
    block = next(m for m in model.module.modules() if isinstance(m, CrossAggregationBlock))
    return block, block.get_v


def test_a_hook_sees_the_values_and_what_it_gives_is_taken() -> None:
    """In inference too, where halves of the channels otherwise run by their weights."""
    model, x = small("cat_4"), torch.rand(1, 3, 8, 8)
    plain = model(x).detach()
    seen: list[torch.Size] = []

    def doubling(module: object, given: object, y: Tensor) -> Tensor:
        seen.append(y.shape)
        return 2 * y

    _, conv = get_v_of(model)
    conv.register_forward_hook(doubling)
    expected = model(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(model(x), expected)
    assert seen == [(1, conv.out_channels, 8, 8)] * 2
    assert not torch.allclose(expected, plain)


def test_queries_that_a_hook_keeps_are_not_overwritten() -> None:
    """Attention's result otherwise lies where they did."""
    model, x = small("cat_4"), torch.rand(1, 3, 8, 8)
    kept: list[Tensor] = []
    copies: list[Tensor] = []

    def keep(module: object, given: tuple[Tensor, ...]) -> None:
        kept.append(given[0])
        copies.append(given[0].clone())

    attention = next(m for m in model.module.modules() if isinstance(m, StripeAttention))
    attention.register_forward_pre_hook(keep)
    with torch.inference_mode():
        model(x)
    assert torch.equal(kept[0], copies[0])


@pytest.mark.parametrize(
    "put",
    [
        nn.Sequential,
        nn.utils.parametrizations.weight_norm,
        lambda conv: nn.Conv2d(conv.in_channels, conv.out_channels, 3, 1, 1),
        lambda conv: nn.Conv2d(
            conv.in_channels, conv.out_channels, 3, 1, 1, groups=conv.groups, bias=False
        ),
    ],
    ids=["wrapped", "parametrised", "across channels", "without a bias"],
)
def test_another_convolution_of_values_computes_as_in_training(
    put: Callable[[nn.Module], nn.Module],
) -> None:
    model, x = small("cat_4"), torch.rand(1, 3, 8, 8)
    block, conv = get_v_of(model)
    block.get_v = put(conv)
    expected = model(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(model(x), expected)


def test_the_last_stripe_alone_is_masked_and_in_two_parts() -> None:
    """Against the rule in words: a stripe's first `split - shift` lines do not see the others."""
    masks = small("cat_4").official_state_dict()
    side, split = 8, 4
    for key, lines_first in (("attn_mask_0", False), ("attn_mask_1", True)):
        mask = masks[f"layers.1.blocks.1.{key}"]
        assert mask.shape == (side // split, side * split, side * split)
        assert not mask[:-1].any()
        for a in range(side * split):
            for b in range(side * split):
                lines = [p // side if lines_first else p % split for p in (a, b)]
                apart = (lines[0] < split - split // 2) != (lines[1] < split - split // 2)
                assert mask[-1, a, b] == (-100.0 if apart else 0.0)


def test_a_stripe_sees_as_far_as_the_picture_goes() -> None:
    """Also where it is longer than any training patch, but not through convolutions alone."""
    model = small("cat_4")
    model.module.double()
    x = image(0, (1, 3, 8, 96)).double()
    changed = x.clone()
    changed[:, :, 0, 0] += 1.0
    with torch.inference_mode():
        far = (model(changed) - model(x))[..., -8:]
    assert bool(far.any())


def test_pictures_of_two_sizes_do_not_get_each_others_biases() -> None:
    model = small("cat_4")
    wide, high = image(0, (1, 3, 8, 24)), image(1, (1, 3, 24, 8))
    with torch.inference_mode():
        for x in (wide, high, wide, high):
            assert torch.equal(model(x), small("cat_4")(x))


def test_an_edit_shows_at_every_size_that_was_seen() -> None:
    model, edited = small("cat_4"), small("cat_4")
    pictures = [image(0, (1, 3, 8, side)) for side in (8, 16, 24)]
    with torch.inference_mode():
        for x in pictures:
            edited(x)
        for net in (model, edited):
            for name, parameter in net.module.named_parameters():
                if name.endswith("pos.pos1.2.weight"):
                    parameter.data.mul_(1.5)
        for x in pictures:
            assert torch.equal(edited(x), model(x))


def test_few_sizes_are_remembered() -> None:
    model = small("cat_4")
    with torch.inference_mode():
        for side in range(8, 48, 4):
            model(image(0, (1, 3, side, side)))
    attention = next(m for m in model.module.modules() if isinstance(m, StripeAttention))
    kept = attention._table._kept
    assert kept is not None
    assert list(kept[1]) == [(side, 2) for side in range(32, 48, 4)]
    assert len(kept[1]) == Remembered.sizes


@pytest.mark.parametrize("name", ["cat_2", "cat_4"])
def test_shapes_of_buffers_tell_the_windows(name: str) -> None:
    case = tiny(name)
    reading = spec_of("CAT").read_config(buffers_of(case))
    assert dict(reading.config) == case.config


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("cat_1", {"split_size_0", "split_size_1"}, r"windows of groups \[1\]"),  # one block
        # 4 x 8 or 8 x 4; without a tail, in colour
        ("cat_2", {"split_size_0", "split_size_1", "img_range"}, r"windows of groups \[0\]"),
        ("cat_3", {"split_size_0"}, r"stripes of levels \[3\]"),  # one block
        ("cat_4", set(), ""),
    ],
)
def test_what_they_do_not_tell_is_said(name: str, settings: set[str], told: str) -> None:
    case = tiny(name)
    state = buffers_of(case)
    reading = spec_of(case.arch).read_config(state)
    assert {field for doubt in reading.doubts for field in doubt.fields} == settings
    if settings:
        given = {"img_range": 1.0} if "img_range" in settings else {}
        with pytest.warns(AmbiguousCheckpointWarning, match=told):
            load(state, device="cpu", config=given)


@pytest.mark.parametrize("name", ["cat_1", "cat_2", "cat_4"])
def test_without_buffers_the_alternatives_are_named(name: str) -> None:
    case = tiny(name)
    with pytest.warns(AmbiguousCheckpointWarning) as told:
        load(case.state, device="cpu")
    text = str(told[0].message)
    for part in ("CAT-A", "CAT-A-2", "CAT-R", "block_name='CATB_regular'", "taken as"):
        assert part in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dict(small(name).config) == case.config


@pytest.mark.parametrize(
    ("variant", "doubtful"),
    [("cat_r_x3", True), ("cat_a2_x2", True), ("cat_r2_x4", False), ("cat_jpeg_gray", False)],
)
def test_published_parameters_that_fit_one_model_are_no_doubt(variant: str, doubtful: bool) -> None:
    keys = {k: e for k, e in skeleton(variant)["keys"].items() if e["kind"] == "param"}
    state = {key: torch.empty(entry["shape"], device="meta") for key, entry in keys.items()}
    assert bool(spec_of("CAT").read_config(state).doubts) == doubtful


def test_another_model_can_be_named_for_files_without_buffers() -> None:
    official = skeleton("cat_r_x3")
    state = parameters(official["keys"])
    given = {
        "block_name": "CATB_regular",
        "split_size_0": [4] * 6,
        "split_size_1": [16] * 6,
    }
    model = load(state, device="cpu", config=given)
    assert dict(model.config) == official["config"]
    assert model.variant == "CAT-R x3"
    with pytest.raises(UsageError, match=r"split_size_1 is .* expected 1 or more"):
        load(state, device="cpu", config={"block_name": "CATB_regular"})


@pytest.mark.parametrize("variant", OFFICIAL)
def test_names_of_official_variants(variant: str) -> None:
    config = official_config(variant)
    spec = spec_of(skeleton(variant)["class"])
    family, _, scale = variant.removeprefix("cat_").partition("_")
    expected = {
        "jpeg": "CAT JPEG artefacts (gray)",
        "unet": "CAT_Unet real denoising",
        "r": f"CAT-R {scale}",
        "r2": f"CAT-R-2 {scale}",
        "a": f"CAT-A {scale}",
        "a2": f"CAT-A-2 {scale}",
    }[family]
    assert spec.variant(config) == expected


@pytest.mark.parametrize(
    ("in_chans", "img_range", "name"),
    [
        (1, 255.0, "CAT JPEG artefacts (gray)"),
        (3, 255.0, "CAT JPEG artefacts (colour)"),
        (1, 1.0, "CAT denoising (gray)"),
        (3, 1.0, "CAT denoising (colour)"),
    ],
)
def test_networks_without_a_tail_are_named_by_their_task(
    in_chans: int, img_range: float, name: str
) -> None:
    config = CATConfig(in_chans=in_chans, img_range=img_range, upscale=1, upsampler="")
    assert cat.variant(config) == name
    assert cat.variant(CATConfig(upscale=1)) == "CAT-A x1"


def test_the_range_of_colour_pictures_that_keep_their_size_is_doubtful() -> None:
    case = tiny("cat_2")
    assert (case.config["in_chans"], case.config["upsampler"]) == (3, "")
    given = {name: value for name, value in untold(case).items() if name != "img_range"}
    with pytest.warns(AmbiguousCheckpointWarning, match="taken as 1; .* give img_range=255"):
        assert load(case.state, device="cpu", config=given).config["img_range"] == 1.0


@pytest.mark.parametrize(
    ("variant", "multiple", "published"),
    [
        ("cat_a_x2", 4, PublishedPadding("symmetric", 4)),
        ("cat_a2_x2", 4, PublishedPadding("symmetric", 4)),
        ("cat_r_x2", 16, PublishedPadding("symmetric", 16)),
        ("cat_jpeg_gray", 4, PublishedPadding("symmetric", 4)),
        ("cat_unet_denoise", 32, None),
    ],
)
def test_sizes_are_multiples_of_the_windows(
    variant: str, multiple: int, published: PublishedPadding | None
) -> None:
    spec, config = spec_of(skeleton(variant)["class"]), official_config(variant)
    rule = spec.input_rule(config)
    assert (rule.multiple, rule.minimum, rule.align) == (multiple,) * 3
    assert rule.halo % multiple == 0
    assert spec.published_padding(config) == published


@pytest.mark.parametrize(("variant", "distinct"), [("cat_unet_denoise", 2), ("cat_a_x4", 4)])
def test_equal_buffers_are_made_once(variant: str, distinct: int) -> None:
    """Those of the CAT_Unet take 1.4 GiB otherwise."""
    spec = spec_of(skeleton(variant)["class"])
    made = spec.derived(official_config(variant))
    assert len(made) > 30
    assert len({id(make) for make in made.values()}) == distinct


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"block_name": "CATB"}, "block_name is 'CATB'; expected"),
        ({"block_name": "CATB_regular"}, r"split_size_1 is .* expected 1 or more for each group"),
        ({"split_size_0": [0, 4]}, "split_size_0 is .* expected 1 or more"),
        ({"split_size_1": [4, 4]}, "split_size_1 is .*'CATB_axial'; expected 0 for each group"),
        ({"split_size_0": [4]}, r"split_size_0 \[4\] does not go with depth \[2, 2\]"),
        ({"num_heads": [6]}, r"num_heads \(6,\) do not go with depths \(2, 2\)"),
        ({"num_heads": [6, 3]}, "has 96 channels and 3 heads; expected .* even number of heads"),
        ({"num_heads": [6, 10]}, "has 96 channels and 10 heads"),
        ({"embed_dim": 24}, "has 24 channels and 4 heads; expected 32 channels or more"),
        ({"split_size_0": [4, 3]}, r"img_size 8 is no multiple .* layers.1.blocks, \(0, 3\)"),
        ({"attn_drop_rate": 0.1}, "attn_drop_rate=0.1; only 0"),
        ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0"),
        ({"upscale": 5}, "upscale is 5"),
        ({"depths": [2, 2]}, "config has no 'depths'; did you mean 'depth'"),
    ],
    ids=str,
)
def test_settings_that_name_no_network_are_told(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        CATConfig().replaced({**tiny("cat_4").config, **config}, "test")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"depth": [1, 1]}, r"depth is \[1, 1\]; expected 4 levels"),
        ({"split_size_1": [0, 0, 4, 0]}, r"split_size_1 is \[0, 0, 4, 0\]; expected zeros"),
        ({"split_size_0": [4, 4, 0, 4]}, r"encoder_level3 has windows of \(0, 0\) pixels"),
        ({"split_size_0": [4, 4]}, r"split_size_0 \[4, 4\] does not go with depth"),
        ({"dual_pixel_task": True}, "dual_pixel_task=True; only False, as in the official model"),
        ({"bias": True}, "bias=True; only False"),
        ({"img_range": 255.0}, "img_range=255.0; only 1.0"),
        ({"num_heads": [2, 2, 4, 7]}, "latent has 384 channels and 7 heads"),
        ({"dim": 16}, "encoder_level1 has 16 channels"),
    ],
    ids=str,
)
def test_settings_that_name_no_unet_are_told(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        CATUnetConfig().replaced(config, "test")


@pytest.mark.parametrize("side", [(4, 5), (7,), (3, 3, 3)], ids=str)
def test_masks_of_odd_shapes_are_no_evidence(side: tuple[int, ...]) -> None:
    case = tiny("cat_4")
    state = case.state
    for key, entry in case.keys.items():
        if entry["kind"] == "buffer":
            state[key] = torch.zeros(side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmbiguousCheckpointWarning)
        assert load(state, device="cpu").config["block_name"] == "CATB_axial"


@pytest.mark.parametrize("gone", [("rpe_biases",), ("rpe_biases", "attn_mask_1")])
@pytest.mark.parametrize("variant", ["cat_r_x4", "cat_r2_x2"])
def test_rectangles_are_known_by_any_of_their_buffers(variant: str, gone: tuple[str, ...]) -> None:
    state = {key: v for key, v in empty_state(variant).items() if not key.endswith(gone)}
    assert dict(cat.SPEC.read_config(state).config) == skeleton(variant)["config"]


def test_masks_of_rectangles_alone_are_told_from_stripes() -> None:
    gone = ("rpe_biases", "relative_position_index")
    state = {key: v for key, v in empty_state("cat_r_x4").items() if not key.endswith(gone)}
    assert dict(cat.SPEC.read_config(state).config) == skeleton("cat_r_x4")["config"]
