"""What is peculiar to HAT: its convolution branch, its overlapping windows and its two buffers."""

from __future__ import annotations

import pytest
import torch
from golden_data import image, skeleton, tiny, untold
from torch import nn

from restore.archs import hat
from restore.archs._branches import DropPath
from restore.archs._swin import WindowAttention
from restore.archs.hat import CAB, HAB, HAT, OCAB, HATConfig
from restore.errors import CheckpointError, UsageError
from restore.loading import load

SMALL = HATConfig(
    img_size=16,
    embed_dim=24,
    depths=(2, 2),
    num_heads=(3, 3),
    window_size=4,
    squeeze_factor=6,
)


def test_the_overlap_of_the_published_nets() -> None:
    assert HATConfig().overlap == 8
    # a ratio read back from the sides of windows is not always exact
    for window in range(2, 40):
        for overlap in range(0, window + 2, 2):
            config = HATConfig(img_size=80, window_size=window, overlap_ratio=overlap / window)
            assert config.overlap == overlap


@pytest.mark.parametrize(
    ("variant", "name"),
    [("hat_x4", "HAT x4"), ("hat_s_x2", "HAT-S x2"), ("hat_l_x3", "HAT-L x3")],
)
def test_names(variant: str, name: str) -> None:
    config = HATConfig().replaced(skeleton(variant)["config"], "test")
    assert hat.variant(config) == name


def test_other_sizes_are_named_by_them() -> None:
    assert hat.variant(SMALL) == "HAT-dim24, 2 groups, x4"


def test_files_without_the_two_buffers_or_with_one() -> None:
    case = tiny("hat_1")
    settings = untold(case)
    buffers = load(case.state, device="cpu", config=settings).official_state_dict()
    x = case.image("b")
    with torch.inference_mode():
        y = load(case.state, device="cpu", config=settings)(x)
        for name in HAT.derived:
            some = {**case.state, name: buffers[name]}
            assert torch.equal(load(some, device="cpu", config=settings)(x), y)


def test_what_weights_do_not_tell_is_said_and_can_be_set() -> None:
    case = tiny("hat_2")
    model = load(case.state, device="cpu")
    assert model.config["conv_scale"] == 0.01
    assert any("if not given, 0.01 and 1" in line for line in model.evidence)
    other = load(case.state, device="cpu", config={"conv_scale": 0.5})
    x = image(0, (1, 1, 16, 16))
    with torch.inference_mode():
        assert not torch.equal(model(x), other(x))


def test_convolutions_are_added_at_their_scale_and_never_dropped() -> None:
    torch.manual_seed(0)
    block = HAB(SMALL, 3, 2, drop_path=0.5)
    nn.init.zeros_(block.mlp.fc2.weight)
    nn.init.zeros_(block.mlp.fc2.bias)
    nn.init.zeros_(block.attn.proj.weight)
    nn.init.zeros_(block.attn.proj.bias)
    x = torch.randn(4, 8, 8, 24)
    with torch.no_grad():
        wanted = x + 0.01 * block.conv_block(block.norm1(x))
        assert torch.equal(block.train()(x), wanted)
        assert torch.equal(block.eval()(x), wanted)


def test_channel_attention_sees_the_whole_map() -> None:
    """So a tile's result is not that of the picture, however large the tile's surroundings."""
    torch.manual_seed(0)
    branch = CAB(SMALL)
    x = torch.randn(1, 16, 16, 24)
    changed = x.clone()
    changed[:, 12:] += 1.0
    with torch.no_grad():
        gates = [
            branch.cab[3].attention(branch.cab[:3](m.permute(0, 3, 1, 2))) for m in (x, changed)
        ]
        y, other = branch(x), branch(changed)
    assert not torch.allclose(y[:, :8], other[:, :8], rtol=1e-4)
    ratio = (gates[1] / gates[0]).permute(0, 2, 3, 1)
    torch.testing.assert_close(other[:, :8], y[:, :8] * ratio, rtol=1e-4, atol=1e-6)


def test_rates_of_dropping_rise_over_the_blocks_and_spare_the_overlapping_ones() -> None:
    net = HAT(SMALL)
    rates = [m.rate for m in net.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.0, 0.1 / 3, 0.2 / 3, 0.1])
    overlapping = [m for m in net.modules() if isinstance(m, OCAB)]
    assert len(overlapping) == 2
    assert not [m for o in overlapping for m in o.modules() if isinstance(m, DropPath)]


@pytest.mark.parametrize(("img_size", "shifts"), [(16, {0, 2}), (4, {0})])
def test_patches_of_one_window_are_not_shifted(img_size: int, shifts: set[int]) -> None:
    config = SMALL.replaced({"img_size": img_size}, "test")
    attentions = [m for m in HAT(config).modules() if isinstance(m, WindowAttention)]
    assert {side for m in attentions for side in m.shift} == shifts


def test_tables_are_drawn_as_the_authors_do() -> None:
    torch.manual_seed(0)
    tables = [p for name, p in HAT(SMALL).named_parameters() if name.endswith("bias_table")]
    assert len(tables) == 6
    drawn = torch.cat([table.flatten() for table in tables])
    assert 0.015 < drawn.std() < 0.025
    assert abs(drawn.mean()) < 0.005


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"upsampler": "nearest+conv"}, r"expected one of \('pixelshuffle',\)"),
        ({"resi_connection": "3conv"}, "resi_connection is '3conv'; expected one of .*identity"),
        ({"overlap_ratio": 0.25}, "0.25 of window_size 4 is 1 pixels; expected an even number"),
        ({"overlap_ratio": -1.0}, "overlap_ratio is -1; expected 0 to 10"),
        ({"compress_ratio": 25}, "compress_ratio is 25; expected 1 to embed_dim 24"),
        ({"squeeze_factor": 0}, "squeeze_factor is 0; expected 1 to embed_dim 24"),
        ({"img_size": 3}, "img_size 3 is below window_size 4"),
        ({"window_size": 0}, "window_size 0 and img_size"),
        ({"num_heads": [5, 3]}, "do not divide embed_dim 24"),
    ],
    ids=str,
)
def test_settings_that_name_no_network_are_told(config: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(tiny("hat_1").state, device="cpu", config=config)


def test_a_net_without_its_overlapping_attention_is_not_taken_for_another() -> None:
    state = {key: v for key, v in tiny("hat_1").state.items() if ".overlap_attn." not in key}
    with pytest.raises(CheckpointError, match=r"nearest family HAT \(HAT\): lacks .*overlap_attn"):
        load(state, device="cpu")
