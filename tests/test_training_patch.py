"""The training patch: told by masks, the caller or what was published, or a guess that is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_data import (
    Tiny,
    empty_state,
    never_told,
    skeleton,
    spec_of,
    tiny,
    told_by_buffers,
    untold,
    variants,
    with_garbage,
)
from safetensors import safe_open
from torch import Tensor

from restore.archs._spec import ArchConfig
from restore.archs.swinir import SPEC, SwinIRConfig
from restore.loading import load
from restore.model import AssumedPatchWarning
from restore.recognition import with_likely_patch

# the same network was published, or its options were, for two patches
TWO_PATCHES = ("swinir_classical_", "srformer_div2k_w24_x4", "srformer_real_")
MASKED = ["swinir_1", "swinir_3", "srformer_1", "srformer_3", "drct_1", "cat_1", "cat_3", "cat_4"]


def layout(state: dict[str, Tensor]) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in state.items()}


def stored_layout(config: ArchConfig, variant: str) -> dict[str, list[int]]:
    spec = spec_of(skeleton(variant)["class"])
    with torch.device("meta"):
        return layout({key: make() for key, make in spec.derived(config).items()})


@pytest.mark.parametrize("variant", variants())
def test_the_shapes_of_stored_buffers_are_told_without_making_them(variant: str) -> None:
    official = skeleton(variant)
    spec = spec_of(official["class"])
    config = spec.read_config(empty_state(variant)).config
    with torch.device("meta"):
        for buffer in dict.fromkeys(spec.derived(config).values()):
            assert tuple(buffer().shape) == buffer.shape


def without_masks(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if ".attn_mask" not in key}


@pytest.mark.parametrize("variant", variants())
def test_without_masks_it_is_that_of_the_published_models(variant: str) -> None:
    """So the buffers that are saved are those that the authors' strict loader wants."""
    official = skeleton(variant)
    spec, state = spec_of(official["class"]), without_masks(empty_state(variant))
    given = {**never_told(official), **told_by_buffers(official)}
    config = spec.read_config(state).config.replaced(given, "test")
    config, evidence, assumed = with_likely_patch(spec, config, state)
    assert assumed == variant.startswith(TWO_PATCHES)
    masked = len(state) < len(official["keys"])
    assert bool(evidence) == masked
    if not assumed:
        assert dict(config) == official["config"]
        wanted = {k: e["shape"] for k, e in official["keys"].items() if e["kind"] == "buffer"}
        assert stored_layout(config, variant) == wanted


def test_networks_trained_on_48_and_64_are_told_by_their_masks() -> None:
    for side in (48, 64):
        name = f"swinir_classical_s{side}_x2"
        state = empty_state(name)
        config, evidence, assumed = with_likely_patch(SPEC, SPEC.read_config(state).config, state)
        assert (config["img_size"], evidence, assumed) == (side, (), False)


def save(model_of: dict[str, Tensor], path: Path, **given: Any) -> list[str]:
    """Load, save, and what was warned of in saving."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load(model_of, device="cpu", config=given)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.save(path)
    assert all(warning.category is AssumedPatchWarning for warning in caught)
    assert all(warning.filename == __file__ for warning in caught)
    return [str(warning.message) for warning in caught]


def saved(path: Path) -> dict[str, list[int]]:
    if path.suffix == ".pth":
        return layout(torch.load(path, weights_only=True)["params"])
    with safe_open(str(path), framework="pt") as file:
        return {key: list(file.get_tensor(key).shape) for key in file.keys()}  # noqa: SIM118


def wanted(case: Tiny) -> dict[str, list[int]]:
    return {key: entry["shape"] for key, entry in case.keys.items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", MASKED)
def test_where_anything_tells_it_the_authors_strict_loader_takes_the_file(
    name: str, suffix: str, tmp_path: Path
) -> None:
    case, path = tiny(name), tmp_path / f"net{suffix}"
    masked = with_garbage(case.state, case.keys)
    given = {**untold(case), "img_size": case.config["img_size"]}
    by_masks = {k: v for k, v in given.items() if k != "img_size" or case.arch == "SRFormer"}
    assert save(masked, path, **by_masks) == []
    assert saved(path) == wanted(case)
    assert save(case.state, path, **given) == []
    assert saved(path) == wanted(case)


@pytest.mark.parametrize("name", MASKED)
def test_a_guess_is_said_where_it_matters(name: str, tmp_path: Path) -> None:
    case, path = tiny(name), tmp_path / "net.pth"
    given = {key: value for key, value in untold(case).items() if key != "img_size"}
    (told,) = save(case.state, path, **given)
    assert told.startswith(f"{path}: its attn_mask is for training patches of ")
    assert "a guess" in told and "config={'img_size': ...}" in told


@pytest.mark.parametrize("name", ["hat_1", "hit_sr_2", "atd_1", "uformer_1"])
def test_networks_without_masks_have_nothing_to_guess(name: str, tmp_path: Path) -> None:
    case = tiny(name)
    assert save(case.state, tmp_path / "net.safetensors") == []


def test_networks_that_never_shift_have_nothing_to_guess(tmp_path: Path) -> None:
    config = SwinIRConfig(embed_dim=12, depths=(1, 1), num_heads=(2, 2), img_size=48)
    assert save(dict(SPEC.build(config).state_dict()), tmp_path / "net.pth") == []


def test_masks_of_a_rectangle_are_no_square(tmp_path: Path) -> None:
    """Six windows may lie in two ways; the patch has to be given."""
    config = SwinIRConfig(embed_dim=12, depths=(2,), num_heads=(2,), img_size=(16, 24))
    state = dict(SPEC.build(config).state_dict())
    state |= {key: make() for key, make in SPEC.derived(config).items()}
    assert len(save(state, tmp_path / "net.pth")) == 1
    assert save(state, tmp_path / "net.pth", img_size=[16, 24]) == []
    assert saved(tmp_path / "net.pth") == layout(state)
