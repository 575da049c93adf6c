"""What is peculiar to Uformer: its windows by size of patch, its modulators, its rectangles."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from golden_data import image, parameters, recipe, skeleton, tiny, untold
from torch import Tensor
from torch.nn import functional as F

from restore.archs import uformer
from restore.archs.uformer import STAGES, LeWinBlock, Uformer, UformerConfig, stage_drop_paths
from restore.errors import CheckpointError, UsageError
from restore.kernels.windows import relative_position_index
from restore.loading import AmbiguousCheckpointWarning, load

SMALL = UformerConfig(
    embed_dim=4, depths=(1,) * 9, num_heads=(1, 2, 2, 4, 4, 4, 4, 2, 2), win_size=4, mlp_ratio=2.0
)


def formula_weights(net: Uformer) -> dict[str, Tensor]:
    return {
        key: torch.from_numpy(recipe(key, tuple(value.shape)))
        for key, value in net.state_dict().items()
    }


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("uformer_t", "Uformer-T"),
        ("uformer_s", "Uformer-S"),
        ("uformer_s_noshift", "Uformer-S noshift"),
        ("uformer_b", "Uformer-B"),
        ("uformer_b_reso256", "Uformer-B"),
    ],
)
def test_names(variant: str, name: str) -> None:
    config = UformerConfig().replaced(skeleton(variant)["config"], "test")
    assert uformer.variant(config) == name
    assert uformer.input_rule(config).multiple == 128


def test_other_sizes_are_named_by_them() -> None:
    assert uformer.variant(SMALL) == "Uformer-dim4"


@pytest.mark.parametrize(
    ("img_size", "expected", "multiple"),
    [
        (256, [(8, 4)] * 5, 128),
        (128, [(8, 4)] * 4 + [(8, 0)], 128),
        (64, [(8, 4)] * 3 + [(8, 0), (4, 0)], 64),
        (32, [(8, 4)] * 2 + [(8, 0), (4, 0), (2, 0)], 32),
    ],
)
def test_windows_by_size_of_the_training_patch(
    img_size: int, expected: list[tuple[int, int]], multiple: int
) -> None:
    config = UformerConfig(img_size=img_size)
    assert config.windows_and_shifts == [*expected, *expected[3::-1]]
    assert config.multiple == multiple
    unshifted = dataclasses.replace(config, shift_flag=False)
    assert unshifted.windows_and_shifts == [(w, 0) for w, _ in config.windows_and_shifts]


@pytest.mark.parametrize("img_size", [16, 32, 64])
def test_a_small_training_patch_is_read_from_the_windows(img_size: int) -> None:
    config = dataclasses.replace(SMALL, img_size=img_size, win_size=8)
    state = formula_weights(Uformer(config))
    reading = uformer.read_config(state)
    assert reading.config["img_size"] == img_size
    assert reading.doubts == ()  # there is one block of each stage, and the first is not shifted
    model = load(state, device="cpu")
    assert model.config == dataclasses.replace(config, win_size=model.config["win_size"])
    x = image(0, (1, 3, img_size, 2 * img_size))
    with torch.inference_mode():
        assert model(x).shape == x.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_projection": "conv"}, "token_projection='conv'; only 'linear', as in all"),
        ({"token_mlp": "ffn"}, "token_mlp='ffn'; only 'leff' or 'fastleff', as in all"),
        ({"cross_modulator": True}, "cross_modulator=True; only False, as in all"),
        ({"attn_drop_rate": 0.1}, r"attn_drop_rate=0\.1; only 0\.0, as in all"),
        ({"depths": (2, 2)}, r"depths is \[2, 2\]; expected 9 numbers above 0"),
        ({"num_heads": (0,) * 9}, "expected 9 numbers above 0"),
        ({"num_heads": (3,) * 9}, "do not divide channels"),
        ({"img_size": 15}, "img_size is 15; expected 16 or more"),
        ({"win_size": 0}, "win_size is 0; expected more than 0"),
        ({"in_chans": 1}, "in_chans is 1; expected 3 with dd_in=3, as the input is added"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
    ],
    ids=str,
)
def test_what_is_no_uformer_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UformerConfig(**changes)
    with pytest.raises(UsageError, match=message):
        load(tiny("uformer_1").state, device="cpu", config=changes)


def test_fastleff_is_the_same_network() -> None:
    case = tiny("uformer_1")
    x = case.image("a")
    with torch.inference_mode():
        one, other = (
            load(case.state, device="cpu", config={**untold(case), "token_mlp": name})(x)
            for name in ("leff", "fastleff")
        )
    assert torch.equal(one, other)


def official_file(variant: str) -> dict[str, Any]:
    """What the training script saves: its own records beside the weights, names with a prefix."""
    official = skeleton(variant)
    state = {"module." + key: value for key, value in parameters(official["keys"]).items()}
    for key, entry in official["keys"].items():
        if entry["kind"] == "buffer":
            state["module." + key] = torch.zeros(entry["shape"], dtype=torch.int64)
    return {"epoch": 250, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}


def test_the_official_file_loads_and_what_it_does_not_tell_is_said() -> None:
    told = (
        r"taken as img_size=128 and shift_flag=True, as in the authors' test scripts; .*"
        r"img_size=256 would also shift those of the bottleneck, shift_flag=False none; "
        r"give either \(in config=, or by --config\)"
    )
    with pytest.warns(AmbiguousCheckpointWarning, match=told) as caught:
        model = load(official_file("uformer_t"), device="cpu")
    assert len(caught) == 1
    assert (model.arch, model.variant, model.scale) == ("Uformer", "Uformer-T", 1)
    assert model.checkpoint_key == "state_dict"
    assert dict(model.config) == skeleton("uformer_t")["config"]


@pytest.mark.parametrize("settles", [{"img_size": 128}, {"shift_flag": True}], ids=str)
def test_the_doubt_is_settled_by_either(settles: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(official_file("uformer_t"), device="cpu", config=settles).config == (
            UformerConfig(embed_dim=16)
        )


def test_the_alternatives_that_are_named_differ() -> None:
    case = tiny("uformer_1")
    with pytest.warns(AmbiguousCheckpointWarning, match="img_size=64 would not shift those of the"):
        assumed = load(case.state, device="cpu")
    x = case.image("a")
    outputs = [assumed(x)]
    for given in ({"img_size": 64}, {"shift_flag": False}):
        outputs.append(load(case.state, device="cpu", config=given)(x))
    assert torch.equal(outputs[0], load(case.state, device="cpu", config={"img_size": 256})(x))
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[1], outputs[2])


@pytest.mark.parametrize(
    ("depths", "fields"),
    [
        ((1,) * 9, []),
        ((1, 1, 1, 1, 2, 1, 1, 1, 1), [("img_size", "shift_flag")]),
        ((1, 2, 1, 1, 1, 1, 1, 1, 1), [("shift_flag",)]),
        ((2,) * 9, [("img_size", "shift_flag")]),
    ],
    ids=str,
)
def test_a_doubt_only_where_it_matters(
    depths: tuple[int, ...], fields: list[tuple[str, ...]]
) -> None:
    state = Uformer(dataclasses.replace(SMALL, depths=depths)).state_dict()
    reading = uformer.read_config(state)
    assert [doubt.fields for doubt in reading.doubts] == fields
    assert reading.config["depths"] == list(depths)


def test_windows_of_one_pixel_have_no_shift_to_doubt() -> None:
    config = dataclasses.replace(SMALL, depths=(2,) * 9, win_size=1)
    assert uformer.read_config(Uformer(config).state_dict()).doubts == ()


def test_windows_longer_than_the_usual_patch_allows() -> None:
    config = dataclasses.replace(SMALL, depths=(2,) * 9, win_size=16, img_size=256)
    reading = uformer.read_config(Uformer(config).state_dict())
    assert reading.config == config
    assert "taken as img_size=256" in reading.doubts[0].text
    assert "img_size=512 would also shift" in reading.doubts[0].text


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("input_proj.proj.0.weight", r"weight is \(5,\); expected \[embed_dim, dd_in, 3, 3\]"),
        ("output_proj.proj.0.weight", r"is \(5,\); expected \[in_chans, 2 embed_dim, 3, 3\]"),
        ("conv.blocks.0.attn.relative_position_bias_table", "nearest family Uformer"),
        ("encoderlayer_0.blocks.0.mlp.linear1.0.weight", "nearest family Uformer"),
        ("decoderlayer_3.blocks.0.modulator.weight", r"modulator\.weight is \(5,\), expected"),
    ],
)
def test_a_damaged_file_is_refused(key: str, message: str) -> None:
    state = {**tiny("uformer_1").state, key: torch.zeros(5)}
    with pytest.raises(CheckpointError, match=message):
        load(state, device="cpu")


def test_a_file_that_lacks_a_stage_is_refused() -> None:
    state = {k: v for k, v in tiny("uformer_1").state.items() if "decoderlayer_2" not in k}
    with pytest.raises(CheckpointError, match=r"lacks 'decoderlayer_2\.blocks\.0\.attn"):
        load(state, device="cpu")


def naive_block(block: LeWinBlock, x: Tensor, window: int, shift: int) -> Tensor:
    """One LeWin block, window by window, from the official order of steps: roll, cut, modulate."""
    attn = block.attn
    _, h, w, c = x.shape
    heads, d = attn.num_heads, c // attn.num_heads
    rolled = torch.roll(block.norm1(x), (-shift, -shift), (1, 2))
    out = torch.zeros_like(rolled)
    piece = torch.zeros(h, w)  # a number for each piece of the image that the roll moved
    piece[h - shift :] += 1
    piece[:, w - shift :] += 2
    index = relative_position_index((window, window))
    bias = attn.relative_position_bias_table[index].permute(2, 0, 1)
    for top in range(0, h, window):
        for left in range(0, w, window):
            part = (slice(top, top + window), slice(left, left + window))
            tokens = rolled[0][part].reshape(-1, c)
            if block.modulator is not None:
                tokens = tokens + block.modulator.weight
            q = attn.qkv.to_q(tokens).view(-1, heads, d).transpose(0, 1)
            k, v = attn.qkv.to_kv(tokens).view(-1, 2, heads, d).permute(1, 2, 0, 3)
            label = piece[part].flatten()
            mask = -100.0 * (label[:, None] != label[None, :])
            weights = (q @ k.transpose(1, 2) * d**-0.5 + bias + mask).softmax(-1)
            tokens = attn.proj((weights @ v).transpose(0, 1).reshape(-1, c))
            out[0][part] = tokens.view(window, window, c)
    x = x + torch.roll(out, (shift, shift), (1, 2))
    mlp = block.mlp
    hidden = F.gelu(F.linear(block.norm2(x), mlp.linear1[0].weight, mlp.linear1[0].bias))
    hidden = hidden.permute(0, 3, 1, 2)
    dw = mlp.dwconv[0]
    hidden = F.gelu(F.conv2d(hidden, dw.weight, dw.bias, padding=1, groups=hidden.shape[1]))
    return x + F.linear(hidden.permute(0, 2, 3, 1), mlp.linear2[0].weight, mlp.linear2[0].bias)


@pytest.mark.parametrize("shifted", [False, True], ids=["still", "shifted"])
@pytest.mark.parametrize("stage", [2, 7], ids=["plain", "modulated"])
def test_a_block_on_a_rectangle(stage: int, shifted: bool) -> None:
    torch.manual_seed(0)
    block = LeWinBlock(SMALL, stage, shifted=shifted, drop_path=0.0).double().eval()
    with torch.no_grad():
        block.attn.relative_position_bias_table.normal_()
    assert (block.modulator is not None) == (stage == 7)
    x = torch.randn(1, 12, 20, SMALL.dims[stage], dtype=torch.float64)
    with torch.no_grad():
        expected = naive_block(block, x, 4, 2 if shifted else 0)
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


def test_the_network_takes_rectangles_and_keeps_directions_apart() -> None:
    net = Uformer(SMALL).eval()
    net.load_state_dict(formula_weights(net))
    unit = SMALL.multiple
    x = image(3, (1, 3, unit, 4 * unit))
    other = x.clone()
    other[..., -unit // 2 :] = 0
    with torch.inference_mode():
        y, z = net(x), net(other)
        turned = net(x.transpose(2, 3).contiguous()).transpose(2, 3)
    assert y.shape == x.shape
    changed = (y != z).any(1)[0].any(0)
    # windows and convolutions of all stages on the way reach 2.5 windows of the bottleneck
    assert not changed[:unit].any()
    assert changed[-unit:].all()
    assert not torch.allclose(turned, y)


def test_the_bare_network_refuses_a_size_that_windows_do_not_divide() -> None:
    with pytest.raises(ValueError, match="does not divide the map"):
        Uformer(SMALL)(torch.zeros(1, 3, SMALL.multiple, SMALL.multiple // 2))


@pytest.mark.parametrize(
    ("dd_in", "in_chans", "adds"), [(3, 3, True), (1, 1, False), (6, 3, False)]
)
def test_what_is_added(dd_in: int, in_chans: int, adds: bool) -> None:
    net = Uformer(dataclasses.replace(SMALL, dd_in=dd_in, in_chans=in_chans)).eval()
    with torch.no_grad():
        for parameter in net.output_proj.parameters():
            parameter.zero_()
        x = image(0, (1, dd_in, 64, 64))
        y = net(x)
    assert y.shape == (1, in_chans, 64, 64)
    assert torch.equal(y, x if adds else torch.zeros_like(y))
    model = load(net.state_dict(), device="cpu")
    assert (model.in_channels, model.out_channels) == (dd_in, in_chans)
    assert model(image(0, (1, dd_in, 30, 70))).shape == (1, in_chans, 30, 70)


def test_paths_are_dropped_most_at_the_bottleneck() -> None:
    config = UformerConfig().replaced(skeleton("uformer_b")["config"], "test")
    rates = stage_drop_paths(config)
    assert [len(stage) for stage in rates] == list(config.depths)
    down = [rate for stage in rates[:4] for rate in stage]
    up = [rate for stage in rates[5:] for rate in stage]
    assert down == pytest.approx(torch.linspace(0, 0.1, 19).tolist())
    assert rates[4] == [0.1, 0.1]
    assert up == down[::-1]
    lopsided = dataclasses.replace(config, depths=(1, 1, 1, 1, 1, 3, 2, 1, 1))
    up = [rate for stage in stage_drop_paths(lopsided)[5:] for rate in stage]
    assert up == sorted(up, reverse=True)
    assert (up[0], up[-1]) == (pytest.approx(0.1), 0.0)


def test_the_rates_are_those_of_the_blocks() -> None:
    config = UformerConfig(embed_dim=16, drop_path_rate=0.5)
    net = Uformer(config)
    rates = [
        [block.drop_path.rate for block in net.get_submodule(stage).blocks] for stage in STAGES
    ]
    assert rates == stage_drop_paths(config)


def test_initial_values() -> None:
    torch.manual_seed(0)
    state = Uformer(UformerConfig(embed_dim=16)).state_dict()
    for key, spread in {
        "conv.blocks.0.attn.qkv.to_kv.weight": 0.02,
        "conv.blocks.0.mlp.linear1.0.weight": 0.02,
        "conv.blocks.0.attn.relative_position_bias_table": 0.02,
        "decoderlayer_0.blocks.0.modulator.weight": 1.0,
    }.items():
        assert state[key].std().item() == pytest.approx(spread, rel=0.05), key
        assert abs(state[key].mean().item()) < 0.05 * spread, key
    assert not state["conv.blocks.0.attn.qkv.to_q.bias"].any()
    assert not state["decoderlayer_2.blocks.1.mlp.linear2.0.bias"].any()
    assert state["dowsample_0.conv.0.bias"].any()


def test_tiles() -> None:
    rule = uformer.input_rule(UformerConfig())
    assert (rule.multiple, rule.minimum, rule.align, rule.halo) == (128, 128, 128, 64)
