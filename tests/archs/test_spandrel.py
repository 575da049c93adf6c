"""SwinIR beside spandrel, which reads the same weight files with code of its own."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from spandrel_peer import assert_it_loads_what_we_save, assert_the_same_output, build

from restore.archs import swinir
from restore.model import Model

# its code asks PyTorch for what PyTorch is about to change
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")

CASES: dict[str, dict[str, Any]] = {
    "pixelshuffle x4": {"upsampler": "pixelshuffle", "upscale": 4},
    "pixelshuffle x3, 3conv": {
        "upsampler": "pixelshuffle",
        "upscale": 3,
        "resi_connection": "3conv",
    },
    "pixelshuffledirect x2, gray": {
        "upsampler": "pixelshuffledirect",
        "upscale": 2,
        "in_chans": 1,
    },
    "nearest+conv x4": {"upsampler": "nearest+conv", "upscale": 4},
    "no tail, window 7, range 255": {
        "upsampler": "",
        "upscale": 1,
        "window_size": 7,
        "img_size": 21,
        "img_range": 255.0,
    },
    "no tail, other heads": {
        "upsampler": "",
        "upscale": 1,
        "num_heads": (2, 4),
        "mlp_ratio": 1.5,
    },
}


def small(name: str) -> Model:
    changes = {"img_size": 24, "embed_dim": 24, "depths": (2, 2), "num_heads": (3, 3)}
    return build(swinir.SPEC, {**changes, **CASES[name]})


@pytest.mark.parametrize("shape", [(24, 24), (19, 30)], ids=["whole windows", "padded"])
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
    assert_it_loads_what_we_save(small(name), spandrel, tmp_path / f"net{suffix}", (16, 21))
