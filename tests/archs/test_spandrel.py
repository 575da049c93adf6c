"""SwinIR beside spandrel, which reads the same weight files with code of its own."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from golden_data import image, recipe
from torch import Tensor

from restore.archs import swinir
from restore.loading import load
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


def build(changes: dict[str, Any]) -> Model:
    """A small network with the formula's weights."""
    settings: dict[str, Any] = {
        "img_size": 24,
        "embed_dim": 24,
        "depths": (2, 2),
        "num_heads": (3, 3),
        **changes,
    }
    config = swinir.SwinIRConfig(**settings)
    net = swinir.SwinIR(config)
    state = {
        key: torch.from_numpy(recipe(key, tuple(value.shape)))
        for key, value in net.state_dict().items()
    }
    return load(state, device="cpu", config=dict(config))


def run(model: Model, theirs: Any, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    x = image(0, (2, model.in_channels, *shape))
    with torch.inference_mode():
        return model(x), theirs.model.cpu().eval()(x)


@pytest.mark.parametrize("shape", [(24, 24), (19, 30)], ids=["whole windows", "padded"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_weights_give_the_same_output(
    spandrel: ModuleType, name: str, shape: tuple[int, int]
) -> None:
    model = build(CASES[name])
    theirs = spandrel.ModelLoader("cpu").load_from_state_dict(model.official_state_dict())
    assert theirs.architecture.id == "SwinIR"
    assert theirs.scale == model.scale
    # what weights do not tell spandrel assumes too; the comparison is of the networks
    theirs.model.img_range = model.config["img_range"]
    ours, other = run(model, theirs, shape)
    # both are within 1e-5 of the exact result, relative to its largest value
    assert (ours - other).abs().max() <= 2e-5 * other.abs().max()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", CASES)
def test_what_we_save_spandrel_loads(
    spandrel: ModuleType, name: str, suffix: str, tmp_path: Path
) -> None:
    model = build(CASES[name])
    model.save(tmp_path / f"net{suffix}")
    theirs = spandrel.ModelLoader("cpu").load_from_file(tmp_path / f"net{suffix}")
    theirs.model.img_range = model.config["img_range"]
    ours, other = run(model, theirs, (16, 21))
    assert (ours - other).abs().max() <= 2e-5 * other.abs().max()
