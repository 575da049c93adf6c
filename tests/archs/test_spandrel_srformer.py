"""SRFormer beside spandrel_extra_arches, which reads the same weight files with code of its own."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from spandrel_peer import assert_the_same_output, build

from restore.archs import srformer
from restore.model import Model

# its code asks PyTorch for what PyTorch is about to change
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")

CASES: dict[str, dict[str, Any]] = {
    "pixelshuffledirect x2": {},
    "pixelshuffle x3, 3conv": {
        "upsampler": "pixelshuffle",
        "upscale": 3,
        "resi_connection": "3conv",
    },
    "pixelshuffle x4, window 22": {
        "upsampler": "pixelshuffle",
        "upscale": 4,
        "window_size": 22,
        "img_size": 40,
        "num_heads": (2, 4),
    },
    "nearest+conv x4, no bias": {
        "upsampler": "nearest+conv",
        "upscale": 4,
        "qkv_bias": False,
    },
    "no tail, gray": {"upsampler": "", "upscale": 1, "in_chans": 1, "mlp_ratio": 1.5},
    "patches of one window": {"img_size": 8},
}


def small(name: str) -> Model:
    sizes = {"img_size": 24, "window_size": 8, "embed_dim": 24}
    groups = {"depths": (2, 2), "num_heads": (3, 6)}
    return build(srformer.SPECS[0], {**sizes, **groups, **CASES[name]})


@pytest.fixture(scope="module")
def loader(spandrel: ModuleType) -> Any:
    """A loader that knows the networks of the extra package alone, or skip."""
    extra = pytest.importorskip("spandrel_extra_arches")
    return spandrel.ModelLoader("cpu", registry=extra.EXTRA_REGISTRY)


@pytest.mark.parametrize("shape", [(24, 24), (19, 30)], ids=["whole windows", "padded"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_weights_give_the_same_output(
    loader: Any, name: str, shape: tuple[int, int]
) -> None:
    model = small(name)
    theirs = loader.load_from_state_dict(model.official_state_dict())
    assert_the_same_output(model, theirs, shape)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", CASES)
def test_what_we_save_is_loaded(loader: Any, name: str, suffix: str, tmp_path: Path) -> None:
    model = small(name)
    model.save(tmp_path / f"net{suffix}")
    theirs = loader.load_from_file(tmp_path / f"net{suffix}")
    assert_the_same_output(model, theirs, (16, 21))
