"""State dicts whose tensors have shapes that no network has: each is refused by its name."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from golden_data import empty_state, image, skeleton, spec_of, tiny, untold, variants
from torch import Tensor

from restore.archs import ARCHS
from restore.archs._spec import LARGEST, MOST_BLOCKS
from restore.checkpoint import Checkpoint
from restore.errors import CheckpointError, UsageError
from restore.loading import load
from restore.recognition import Seen, recognise

# the others take longer and have the same kinds of tensors
FAST = {
    "atd_light_x2",
    "cat_r2_x2",
    "cat_unet_denoise",
    "drct_x2",
    "hat_s_x2",
    "hit_sir_x2",
    "hit_sng_x2",
    "hit_srf_x2",
    "srformer_light_x2",
    "srformerv2_x4",
    "swinir_light_x2",
    "uformer_t",
}
UNREAD = 3  # of the tensors that no setting is read from: so many are tried


def misshapen(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Fewer sides, more sides, and empty ones."""
    empty = [(*shape[:i], 0, *shape[i + 1 :]) for i in range(len(shape))]
    return [(), shape[1:], shape[:-1], (1, *shape), (*shape, 1), (1,) * 6, *empty]


def with_shape(state: Mapping[str, Tensor], key: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
    return {**state, key: torch.zeros((), dtype=state[key].dtype).expand(shape)}


@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=() if v in FAST else pytest.mark.slow) for v in variants()],
)
def test_a_tensor_of_other_sides_is_named(variant: str) -> None:
    official, state = skeleton(variant), empty_state(variant)
    seen = Seen(state)
    spec_of(official["class"]).read_config(seen)
    read = [key for key in seen.asked if official["keys"][key]["kind"] == "param"]
    rng = random.Random(variant)
    for key in [*read, *rng.sample(sorted(state.keys() - set(read)), UNREAD)]:
        shape = rng.choice([s for s in misshapen(tuple(state[key].shape)) if s != state[key].shape])
        damaged = Checkpoint("net.pth", with_shape(state, key, shape), "")
        if official["keys"][key]["kind"] == "buffer":  # never needed
            recognise(damaged, ARCHS, {})
            continue
        with pytest.raises(CheckpointError) as caught:
            recognise(damaged, ARCHS, {})
        text = str(caught.value)
        assert f"{key} is {shape}" in text
        assert "expected" in text


@pytest.mark.parametrize("name", ["swinir_1", "srformer_1", "drct_1", "cat_4"])
def test_a_mask_that_is_none_is_ignored_and_told(name: str) -> None:
    case = tiny(name)
    key = next(k for k, e in case.keys.items() if "attn_mask" in k)
    given = {**untold(case), "img_size": case.config["img_size"]}
    model = load({**case.state, key: torch.zeros(())}, device="cpu", config=given)
    assert any(f"{key} is (), expected 3 sides" in line for line in model.evidence)
    assert not any("ignored" in line for line in load(case.state, config=given).evidence)


def test_settings_that_do_not_go_together_are_told_with_what_they_were_read_from() -> None:
    state = tiny("swinir_1").state
    table = "layers.0.residual_group.blocks.0.attn.relative_position_bias_table"
    with pytest.raises(CheckpointError) as caught:
        load(with_shape(state, table, (49, 7)), device="cpu")
    text = str(caught.value)
    assert "num_heads (7, 2) do not divide embed_dim 24; as read from" in text
    assert f"{table} (49, 7)" in text
    assert "layers.1.residual_group.blocks.0.attn.relative_position_bias_table (49, 2)" in text
    assert "conv_first.weight (24, 3, 3, 3)" in text


def test_a_block_of_an_absurd_number_is_no_reason_to_build_all_before_it() -> None:
    key = f"layers.0.residual_group.blocks.{10**12}.norm1.weight"
    for name in ("swinir_1", "hit_sr_1", "srformer_1", "hat_1"):
        state = {**tiny(name).state, key: torch.ones(24)}
        with pytest.raises(CheckpointError, match=rf"\.{10**12}\.norm1.*fewer than {MOST_BLOCKS}"):
            load(state, device="cpu")


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("swinir_1", {"img_range": 1e30}, r"img_range is 1e\+30; expected 1.5259e-05 to 65535"),
        ("swinir_1", {"img_range": 1e300}, r"img_range is 1e\+300; expected"),
        ("swinir_1", {"img_range": 1e-30}, "img_range is 1e-30; expected"),
        ("swinir_1", {"img_range": 0}, "img_range is 0; expected"),
        ("swinir_1", {"img_range": float("nan")}, "img_range is nan; expected a number"),
        ("swinir_1", {"img_range": float("inf")}, "img_range is inf; expected a number"),
        ("swinir_1", {"img_range": 10**400}, "img_range is 10+; expected a number"),
        ("swinir_1", {"qk_scale": 1e30}, r"qk_scale is 1e\+30; expected 0.0001 to 100"),
        ("cat_1", {"qk_scale": 1e300}, "qk_scale is 1e"),
        ("uformer_1", {"qk_scale": 0.0}, "qk_scale is 0; expected"),
        ("hat_1", {"conv_scale": 1e30}, r"conv_scale is 1e\+30; expected -100 to 100"),
        ("hat_1", {"overlap_ratio": 1e30}, "overlap_ratio is 1e"),
        ("swinir_1", {"mlp_ratio": 1e30}, r"mlp_ratio is 1e\+30; expected 0 to 1000"),
        ("swinir_1", {"img_size": 8193}, "img_size is 8193; expected 1 to 8192"),
        ("swinir_1", {"img_size": [8, 0]}, r"img_size is \(8, 0\); expected 1"),
        ("swinir_1", {"depths": [10**9, 2]}, rf"depths is \[10+, 2\]; expected {LARGEST} at most"),
        ("swinir_1", {"depths": [999, 2]}, f"expected {MOST_BLOCKS} blocks at most"),
        ("uformer_1", {"depths": [200] * 9}, f"expected {MOST_BLOCKS} blocks at most"),
        ("cat_4", {"depth": [999, 2]}, f"expected {MOST_BLOCKS} blocks at most"),
        ("atd_1", {"category_size": 10**9}, f"category_size is 10+; expected {LARGEST} at most"),
        ("hit_sr_1", {"base_win_size": [4096, 8]}, "gives windows .*; expected sides of 1 to 1024"),
        ("hit_sr_1", {"base_win_size": [0, 8]}, "gives windows .*; expected sides of 1"),
        ("swinir_1", {1: 2}, "config has no 1; known: img_size"),
    ],
    ids=str,
)
def test_absurd_settings_are_refused(name: str, config: dict[Any, Any], message: str) -> None:
    case = tiny(name)
    with pytest.raises(UsageError, match=message):
        load(case.state, device="cpu", config={**untold(case), **config})


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("swinir_1", {"img_range": 65535.0}),
        ("swinir_1", {"img_range": 1 / 65535}),
        ("swinir_1", {"qk_scale": 100.0}),
        ("hat_1", {"conv_scale": 100.0}),
        ("hat_1", {"conv_scale": -100.0}),
    ],
    ids=str,
)
def test_the_last_settings_that_are_taken_give_numbers(name: str, config: dict[str, Any]) -> None:
    case = tiny(name)
    model = load(case.state, device="cpu", config={**untold(case), **config})
    with torch.inference_mode():
        assert bool(torch.isfinite(model(image(0, (1, 3, 9, 9)))).all())
