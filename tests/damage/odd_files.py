"""What tests of odd names and files share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small_models import tiny

from restore.image_io import Picture

SMALL = Picture(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3))


def saved_model(folder: Path) -> Path:
    """A file of a model that is quick."""
    path = folder / "net.safetensors"
    tiny(2).save(path)
    return path
