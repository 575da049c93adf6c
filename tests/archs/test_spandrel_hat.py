"""HAT beside spandrel, which reads the same weight files with code of its own."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from spandrel_peer import assert_it_loads_what_we_save, assert_the_same_output, build

from restore.archs import hat
from restore.model import Model

# its code asks PyTorch for what PyTorch is about to change
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")

CASES: dict[str, dict[str, Any]] = {
    "x4, other heads": {"num_heads": (3, 2)},
    "x3, gray, no last convolution": {
        "upscale": 3,
        "in_chans": 1,
        "resi_connection": "identity",
    },
    "x1, for pictures of their final size": {"upscale": 1, "depths": (2,), "num_heads": (3,)},
    "x2, window 16 as in the published nets, one group": {
        "upscale": 2,
        "window_size": 16,
        "img_size": 64,
        "depths": (2,),
        "num_heads": (3,),
    },
    "x2, other ratios, no bias": {
        "upscale": 2,
        "window_size": 8,
        "overlap_ratio": 0.25,
        "compress_ratio": 12,
        "squeeze_factor": 24,
        "mlp_ratio": 1.5,
        "qkv_bias": False,
    },
}


def small(name: str) -> Model:
    sizes = {"img_size": 16, "window_size": 4, "embed_dim": 24, "squeeze_factor": 6}
    groups = {"depths": (2, 2), "num_heads": (3, 3)}
    return build(hat.SPEC, {**sizes, **groups, **CASES[name]})


@pytest.mark.parametrize("shape", [(16, 32), (19, 30)], ids=["whole windows", "padded"])
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
    """It takes the sizes of windows from the buffers alone, which are therefore saved."""
    assert_it_loads_what_we_save(small(name), spandrel, tmp_path / f"net{suffix}", (16, 16))
