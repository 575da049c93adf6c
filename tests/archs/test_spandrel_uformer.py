"""Uformer beside spandrel, which reads the same weight files with code of its own."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from golden_data import image
from spandrel_peer import assert_it_loads_what_we_save, assert_the_same_output, build
from torch.nn import functional as F

from restore.archs import uformer
from restore.model import Model

# its code asks PyTorch for what PyTorch is about to change
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")

CASES: dict[str, dict[str, Any]] = {
    "modulated": {},
    "plain, no bias, other ratio": {"modulator": False, "qkv_bias": False, "mlp_ratio": 1.5},
    "gray, so nothing is added": {"dd_in": 1, "in_chans": 1},
}


def small(name: str) -> Model:
    sizes = {"embed_dim": 8, "depths": (1, 2, 1, 1, 2, 1, 1, 2, 1)}
    heads = {"num_heads": (1, 2, 4, 4, 8, 4, 4, 2, 2)}
    # spandrel assumes training patches of 256 pixels
    return build(uformer.SPEC, {**sizes, **heads, "img_size": 256, **CASES[name]})


@pytest.mark.parametrize("name", CASES)
def test_the_same_weights_give_the_same_output(spandrel: ModuleType, name: str) -> None:
    model = small(name)
    theirs = spandrel.ModelLoader("cpu").load_from_state_dict(model.official_state_dict())
    assert_the_same_output(model, theirs, (128, 128))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_we_save_spandrel_loads(spandrel: ModuleType, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    assert_it_loads_what_we_save(small("modulated"), spandrel, path, (128, 128))


@pytest.mark.parametrize("padding", ["reflect", "published"])
def test_a_rectangle_that_fits_a_square(
    spandrel: ModuleType, padding: Literal["reflect", "published"]
) -> None:
    """Its network takes squares alone, so the square is made by hand."""
    model = small("modulated")
    theirs = spandrel.ModelLoader("cpu").load_from_state_dict(model.official_state_dict())
    x = image(1, (1, 3, 101, 78))
    if padding == "reflect":
        top, left = 0, 0
        square = F.pad(x, (0, 50, 0, 27), mode="reflect")
    else:
        top, left = 13, 25
        square = F.pad(x, (25, 25, 13, 14))
    with torch.inference_mode():
        ours = model(x, padding=padding)
        other = theirs.model.eval()(square)[:, :, top : top + 101, left : left + 78]
    assert (ours - other).abs().max() <= 2e-5 * other.abs().max()
