"""ATD beside spandrel, which reads the same weight files with code of its own.

It sorts tokens by category without a rule for equal ones, as the original does. Here its sort is
made stable, and both compute in float64, where no token changes its category by rounding.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from spandrel_peer import assert_it_loads_what_we_save, assert_the_same_output, build
from torch import Tensor

from restore.archs import atd
from restore.model import Model

# its code asks PyTorch for what PyTorch is about to change
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")

CASES: dict[str, dict[str, Any]] = {
    "pixelshuffledirect x2": {},
    "pixelshuffle x3, gray, 3conv": {
        "upsampler": "pixelshuffle",
        "upscale": 3,
        "in_chans": 1,
        "resi_connection": "3conv",
    },
    "nearest+conv x4": {"upsampler": "nearest+conv", "upscale": 4},
    "other heads, no norm, no bias": {
        "num_heads": (2, 4),
        "patch_norm": False,
        "qkv_bias": False,
    },
    "one group of layers, wide MLP": {
        "depths": (3,),
        "num_heads": (3,),
        "mlp_ratio": 2.5,
        "convffn_kernel_size": 5,
    },
}


def small(name: str) -> Model:
    settings = {
        "embed_dim": 24,
        "depths": (2, 2),
        "num_heads": (3, 3),
        "window_size": 8,
        "category_size": 256,  # what spandrel assumes
        "num_tokens": 16,
        "reducted_dim": 6,
    }
    return build(atd.SPEC, {**settings, **CASES[name]})


@pytest.fixture(autouse=True)
def stable_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    sort = torch.sort

    def stably(x: Tensor, dim: int = -1, stable: bool = False) -> tuple[Tensor, Tensor]:
        values, indices = sort(x, dim=dim, stable=True)
        return values, indices

    monkeypatch.setattr(torch, "sort", stably)


@pytest.mark.parametrize(
    "shape", [(16, 16), (24, 32), (29, 19)], ids=["one category", "three", "padded"]
)
@pytest.mark.parametrize("name", CASES)
def test_the_same_weights_give_the_same_output(
    spandrel: ModuleType, name: str, shape: tuple[int, int]
) -> None:
    model = small(name)
    theirs = spandrel.ModelLoader("cpu").load_from_state_dict(model.official_state_dict())
    assert_the_same_output(model, theirs, shape, torch.float64)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", CASES)
def test_what_we_save_spandrel_loads(
    spandrel: ModuleType, name: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"net{suffix}"
    assert_it_loads_what_we_save(small(name), spandrel, path, (16, 21), torch.float64)
