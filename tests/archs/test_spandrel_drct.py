"""DRCT beside spandrel, which reads the same weight files with code of its own."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from spandrel_peer import assert_it_loads_what_we_save, assert_the_same_output, build

from restore.archs import drct
from restore.model import Model

CASES: dict[str, dict[str, Any]] = {
    "x4, other heads": {"num_heads": (3, 2)},
    "x3, one group, many channels added": {"upscale": 3, "num_heads": (3,), "depths": (6,)},
    "x2, gray, no last convolution": {
        "upscale": 2,
        "in_chans": 1,
        "resi_connection": "identity",
    },
    "x8, window 8, no bias": {"upscale": 8, "window_size": 8, "qkv_bias": False},
    "patches of one window": {"img_size": 4},
}


def small(name: str) -> Model:
    sizes = {"img_size": 16, "window_size": 4, "embed_dim": 18, "gc": 8}
    groups = {"depths": (6, 6), "num_heads": (3, 3)}
    return build(drct.SPEC, {**sizes, **groups, **CASES[name]})


@pytest.mark.parametrize("shape", [(16, 16), (24, 40)], ids=["as in training", "larger"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_weights_give_the_same_output(
    spandrel: ModuleType, name: str, shape: tuple[int, int]
) -> None:
    model = small(name)
    theirs = spandrel.ModelLoader("cpu").load_from_state_dict(model.official_state_dict())
    assert_the_same_output(model, theirs, shape)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", CASES)
def test_what_we_save_spandrel_loads(
    spandrel: ModuleType, name: str, suffix: str, tmp_path: Path
) -> None:
    assert_it_loads_what_we_save(small(name), spandrel, tmp_path / f"net{suffix}", (16, 24))
