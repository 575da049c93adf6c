"""What is peculiar to SRFormer: its two layouts, its patches, and what its settings refuse."""

from __future__ import annotations

import pytest
from golden_data import skeleton, tiny

from restore.archs._swin import SwinBlock
from restore.archs.srformer import SPECS, PermutedBlock, SRFormer, SRFormerConfig, SRFormerv2Config
from restore.errors import UsageError
from restore.loading import AmbiguousCheckpointWarning, load

SMALL = SRFormerConfig(embed_dim=24, depths=(4,), num_heads=(2,), window_size=8)
SMALL_V2 = SRFormerv2Config(
    embed_dim=24, squeeze_dim=6, depths=(4,), num_heads=(2,), window_size=12, upscale=2
)


def layout(net: SRFormer) -> list[str]:
    """What the blocks of the first group are, and by how much they roll."""
    blocks = net.layers[0].residual_group.blocks
    assert all(isinstance(block, (SwinBlock, PermutedBlock)) for block in blocks)
    return [f"{type(block).__name__} {block.attn.shift[0]}" for block in blocks]


def test_every_second_block_is_rolled() -> None:
    assert layout(SRFormer(SMALL)) == ["PermutedBlock 0", "PermutedBlock 4"] * 2


def test_swin_blocks_stand_around_pairs_of_permuted_ones() -> None:
    pair = ["SwinBlock 0", "PermutedBlock 0", "PermutedBlock 6"]
    net = SRFormer(SMALL_V2)
    assert layout(net) == [*pair, *pair, "SwinBlock 0"]
    assert {block.attn.window_size for block in net.layers[0].residual_group.blocks} == {(12, 12)}


def test_patches_of_one_window_are_rolled_by_the_second_network_alone() -> None:
    one = {"img_size": 7}  # grown to the window
    first = SMALL.replaced(one, "test")
    assert layout(SRFormer(first)) == ["PermutedBlock 0"] * 4
    assert SMALL_V2.replaced(one, "test").window_and_shift == (12, 6)
    assert not any(key.endswith("attn_mask") for key in SPECS[0].derived(first))


def test_a_stored_mask_is_that_of_a_patch_grown_to_whole_windows() -> None:
    config = SMALL.replaced({"img_size": [9, 17]}, "test")
    masks = {k: v() for k, v in SPECS[0].derived(config).items() if k.endswith("attn_mask")}
    assert sorted(masks) == [f"layers.0.residual_group.blocks.{j}.attn_mask" for j in (1, 3)]
    assert all(mask.shape == (2 * 3, 64, 16) for mask in masks.values())


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("srformer_x4", "SRFormer x4"),
        ("srformer_div2k_w24_x4", "SRFormer x4"),
        ("srformer_light_x2", "SRFormer-light x2"),
        ("srformer_real_x4", "SRFormer-S real-world x4"),
        ("srformerv2_x4", "SRFormerV2 x4"),
    ],
)
def test_names_of_the_published_models(variant: str, name: str) -> None:
    official = skeleton(variant)
    spec = next(spec for spec in SPECS if spec.name == official["class"])
    assert spec.variant(spec.config().replaced(official["config"], "test")) == name


def test_both_kinds_of_windows_are_told() -> None:
    assert [spec.windows(spec.config()) for spec in SPECS] == ["16", "12, 36"]
    assert SPECS[1].windows(SMALL_V2) == "12"


def test_an_index_without_masks_is_told() -> None:
    """Their absence is what patches of one window look like."""
    case = tiny("srformer_1")
    state = load(case.state, device="cpu", config={"img_size": 64}).official_state_dict()
    bare = {key: value for key, value in state.items() if not key.endswith("attn_mask")}
    with pytest.warns(AmbiguousCheckpointWarning, match="give img_size=8"):
        assert load(bare, device="cpu").config["img_size"] == 64


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("srformer_1", {"window_size": 0}, "window_size is 0; expected an even number"),
        ("srformer_1", {"window_size": 7}, "window_size is 7; expected an even number"),
        ("srformer_1", {"img_size": 0}, "img_size is 0; expected 1 to 8192"),
        ("srformer_1", {"num_heads": [5, 3]}, "do not divide embed_dim 36"),
        ("srformer_1", {"embed_dim": 18}, "embed_dim is 18; expected a multiple of 4"),
        ("srformer_3", {"window_size": 16}, "window_size is 16; expected a multiple of 12"),
        ("srformer_3", {"img_size": 0}, "img_size is 0; expected 1 to 8192"),
        ("srformer_3", {"depths": [3]}, r"depths are \(3,\); expected even numbers"),
        ("srformer_3", {"squeeze_dim": 0}, r"do not divide 4 \* squeeze_dim 0"),
        ("srformer_3", {"num_heads": [3], "squeeze_dim": 5}, r"divide 4 \* squeeze_dim 5"),
        ("srformer_1", {"squeeze_dim": 6}, "config has no 'squeeze_dim'"),
    ],
    ids=str,
)
def test_settings_that_name_no_network_are_told(
    name: str, config: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load(tiny(name).state, device="cpu", config=config)
