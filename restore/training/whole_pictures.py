"""How whole pictures are restored in tests: at once, in tiles, as a mean over turns.

Shape letters: B pictures, C channels, h, w rows and columns, s scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from restore.model import Model
from restore.padding import Padding
from restore.upscaling import upscale

CHOP = (200, 16)  # tile and tile_pad of `use_chop: true`, as its authors' parts are


@dataclass(frozen=True)
class How:
    """What an option file says of it.

    Attributes:
        tile: longest side of a part, input pixels; 0: whole pictures.
        tile_pad: pixels around a part; None: what the network needs.
        self_ensemble: mean over the 8 mirrored and turned pictures.
        padding: how whole pictures grow to what the network takes, see `restore.Model`.
    """

    tile: int = 0
    tile_pad: int | None = None
    self_ensemble: bool = False
    padding: Padding = "reflect"


def restored_batch(model: Model, x: Tensor, how: How) -> Tensor:
    """[B, C, h, w] in 0..1 to [B, C, h * s, w * s], on the device of x.

    Values are clipped to 0..1 where there are tiles or an ensemble. No gradients are kept there;
    elsewhere the caller says.
    """
    if not how.tile and not how.self_ensemble:
        return model(x, padding=how.padding)
    large = [
        upscale(
            np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()),
            model,
            tile=how.tile,
            tile_pad=how.tile_pad,
            tta=how.self_ensemble,
            padding="reflect" if how.tile else how.padding,
        )
        for image in x
    ]
    return torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2).to(x.device)
