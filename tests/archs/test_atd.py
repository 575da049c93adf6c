"""What is peculiar to ATD: categories and their order, the dictionary, padding, settings."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from golden_data import Tiny, image, spec_of, tiny, untold
from torch import Tensor, nn

from restore.archs import atd
from restore.archs.atd import ATD, ATDConfig, DictionaryBranch
from restore.errors import UsageError
from restore.loading import AmbiguousCheckpointWarning, load
from restore.model import Model

NAMES = ("atd_1", "atd_2", "atd_3")
SMALL = ATDConfig(
    embed_dim=12,
    depths=(2, 1),
    num_heads=(2, 3),
    window_size=4,
    category_size=16,
    num_tokens=6,
    reducted_dim=3,
    convffn_kernel_size=3,
)


@pytest.fixture
def small() -> Model:
    torch.manual_seed(0)
    return Model(spec_of("ATD"), SMALL, ATD(SMALL).eval(), name="small")


def loaded(case: Tiny, **options: Any) -> Model:
    return load(case.state, device="cpu", config=untold(case), **options)


class Listener:
    """Passes calls of an op on, and keeps an argument of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, op: str, argument: int) -> None:
        self.heard: list[Tensor] = []
        run = getattr(atd, op)

        def listening(*args: Any, **options: Any) -> Any:
            self.heard.append(args[argument])
            return run(*args, **options)

        monkeypatch.setattr(atd, op, listening)


@pytest.mark.parametrize("dtype", ["fp64", "fp32"])
@pytest.mark.parametrize("name", NAMES)
def test_categories_and_their_order_are_the_published_ones(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = tiny(name)
    categories = Listener(monkeypatch, "category_attention", argument=1)
    model = loaded(case, dtype=dtype)
    for tag in case.inputs:
        categories.heard.clear()
        with torch.inference_mode():
            model(case.image(tag).to(next(model.module.parameters()).dtype))
        assert len(categories.heard) == sum(case.config["depths"])
        for layer, category in enumerate(categories.heard):
            assert torch.equal(category[0], case.tensor(f"category_{tag}/{layer}").long())
            order = category[0].sort(stable=True).indices
            assert torch.equal(order, case.tensor(f"order_{tag}/{layer}").long())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_similarity_is_as_exact_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    branch = DictionaryBranch(SMALL)
    x, dictionary = torch.randn(2, 64, 12), torch.randn(2, 6, 12)
    with torch.no_grad():
        _, wanted = branch(x, dictionary)
        with torch.autocast("cpu", dtype):
            y, similarity = branch(x, dictionary)
    assert y.dtype == dtype
    assert similarity.dtype == torch.float32
    # without autocast a kernel that rounds elsewhere may run; half precision is off by 1e-3
    torch.testing.assert_close(similarity, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(13, 6), (3, 5), (1, 1), (4, 9)], ids=str)
def test_images_are_mirrored_with_their_edge(small: Model, size: tuple[int, int]) -> None:
    h, w = size
    x = image(0, (2, 3, h, w))
    grown = np.pad(x.numpy(), ((0, 0), (0, 0), (0, -h % 4), (0, -w % 4)), mode="symmetric")
    with torch.inference_mode():
        y, whole = small.module(x), small.module(torch.from_numpy(grown))
    assert y.shape == (2, 3, 2 * h, 2 * w)
    assert torch.equal(y, whole[:, :, : 2 * h, : 2 * w])
    assert (small.rule.multiple, small.rule.minimum) == (1, 1)


def test_every_pixel_has_an_influence_on_every_other(small: Model) -> None:
    """So that no halo makes tiles agree with the whole picture."""
    x = image(0, (1, 3, 40, 40)).requires_grad_()
    small.module(x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert bool(x.grad.ne(0).all())
    assert (small.align, small.halo) == (4, 8)


def test_a_dictionary_ends_with_its_group_and_image(small: Model) -> None:
    x = image(0, (2, 3, 8, 8))
    with torch.inference_mode():
        before = small.module(x)
        small.module(image(5, (2, 3, 8, 8)))
        assert torch.equal(small.module(x), before)
    state = small.module.state_dict()
    refined = sorted(key for key in state if key.endswith((".sigma", ".norm3.weight")))
    start = "layers.0.residual_group.layers.0."  # the other two layers are the last of their groups
    assert refined == [start + "norm3.weight", start + "sigma"]


def test_a_fresh_network_begins_as_the_original_does() -> None:
    torch.manual_seed(0)
    state = ATD(dataclasses.replace(SMALL, embed_dim=48, num_tokens=64)).state_dict()
    values = {key.rpartition("residual_group.")[2]: value for key, value in state.items()}
    assert bool(values["layers.0.attn_atd.scale"].eq(0.5).all())
    assert bool(values["layers.0.sigma"].eq(0).all())
    assert values["layers.0.attn_aca.logit_scale"].item() == pytest.approx(math.log(10))
    assert values["td"].std().item() == pytest.approx(1, abs=0.05)
    assert values["layers.0.attn_atd.wv.weight"].std().item() == pytest.approx(0.02, abs=1e-3)


def test_four_groups_are_recomputed_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    layers: list[nn.Module] = []
    recompute = atd.checkpoint

    def counting(layer: nn.Module, *args: Any, **options: Any) -> Any:
        layers.append(layer)
        return recompute(layer, *args, **options)

    monkeypatch.setattr(atd, "checkpoint", counting)
    config = dataclasses.replace(
        SMALL, depths=(1, 2, 1, 1, 1), num_heads=(2,) * 5, use_checkpoint=True
    )
    net = ATD(config)
    net(image(0, (1, 3, 4, 4))).sum().backward()
    assert len(layers) == 5
    assert not set(layers) & set(net.layers[4].modules())
    net.eval()(image(0, (1, 3, 4, 4)))
    assert len(layers) == 5


def test_parameters_of_half_precision_compute(small: Model) -> None:
    x = image(0, (1, 3, 9, 9))
    with torch.inference_mode():
        exact = small.module(x)
        y = small.module.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert (y.float() - exact).abs().max() <= 0.1 * exact.abs().max()


def test_the_size_of_categories_is_a_guess_for_unknown_networks() -> None:
    case = tiny("atd_2")
    with pytest.warns(AmbiguousCheckpointWarning, match="category_size leaves no trace .* 256"):
        model = load(case.state, device="cpu")
    assert model.config["category_size"] == 256
    assert "embed_dim 20: category_size 256, a guess" in model.evidence
    model = load(case.state, device="cpu", config={"category_size": 64})
    assert model.config["category_size"] == 64


@pytest.mark.parametrize(
    ("changes", "variant", "size"),
    [
        ({}, "ATD-light x2", 128),
        ({"embed_dim": 210, "num_heads": [6] * 4}, "ATD x2", 256),
        ({"upscale": 4, "upsampler": "nearest+conv"}, "ATD-light x4", 128),
        ({"embed_dim": 96}, "ATD-dim96 x2", 256),
    ],
    ids=str,
)
def test_names_and_assumed_sizes(changes: dict[str, Any], variant: str, size: int) -> None:
    spec = spec_of("ATD")
    config = spec.config().replaced(changes, "test")
    with torch.device("meta"):
        reading = spec.read_config(spec.build(config).state_dict())
    assert spec.variant(reading.config) == variant
    assert reading.config["category_size"] == size
    assert bool(reading.doubts) == ("dim" in variant)
    assert dict(reading.config) == {**config, "category_size": size}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"upsampler": "", "upscale": 1}, "upsampler is ''; expected one of .*'nearest.conv'"),
        ({"num_heads": [2, 0]}, r"num_heads \(2, 0\) do not divide embed_dim 20"),
        ({"num_heads": [3, 2]}, r"num_heads \(3, 2\) do not divide embed_dim 20"),
        ({"category_size": 0}, "category_size is 0; expected 1 or more"),
        ({"num_tokens": 0}, "num_tokens is 0; expected 1 or more"),
        ({"reducted_dim": 0}, "reducted_dim is 0; expected 1 or more"),
        ({"window_size": 0}, "window_size is 0; expected 1 or more"),
        ({"convffn_kernel_size": 4}, "convffn_kernel_size is 4; expected an odd number"),
        ({"ape": True}, "ape=True"),
        ({"drop_path_rate": 0.1}, "config has no 'drop_path_rate'"),
    ],
    ids=str,
)
def test_settings_that_name_no_network_are_told(config: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(tiny("atd_2").state, device="cpu", config=config)


def test_one_bias_switch_for_all_projections() -> None:
    with torch.device("meta"):
        keys = ATD(dataclasses.replace(SMALL, qkv_bias=False)).state_dict().keys()
    layer = "layers.0.residual_group.layers.0."
    without = ("wqkv", "attn_atd.wq", "attn_atd.wk", "attn_atd.wv", "attn_aca.proj")
    assert not {f"{layer}{name}.bias" for name in without} & keys
    assert layer + "attn_win.proj.bias" in keys
