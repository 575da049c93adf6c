"""JPEG compression of batches, on any device: what the coder loses, without the file.

Source: ITU-T T.81 (annex A.3, tables K.1 and K.2), JFIF 1.02 (colours), and libjpeg's rule from
quality to tables. As in the differentiable JPEG that Real-ESRGAN uses, colour is halved by means,
brought back by repetition, and tables are scaled without rounding. Written anew.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_COLOUR = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_TO_RGB = ((1, 0, 1.402), (1, -0.344136, -0.714136), (1, 1.772, 0))
_CELL = 16  # pixels of a side: two blocks of 8, since colour is halved


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress.

    Args:
        images: [B, 3, H, W] in 0..1.
        quality: [B], 1 to 100, need not be whole; beyond 99 is 99.

    Returns:
        [B, 3, H, W] in 0..1, not rounded.
    """
    height, width = images.shape[-2:]
    # zeros around it, as the chain's authors have it
    grown = F.pad(images * 255, (0, -width % _CELL, 0, -height % _CELL))
    y, cb, cr = torch.einsum("ij,bjhw->ibhw", _matrix(_TO_YCC, images), grown)
    factor = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).clamp(min=2) / 100
    luminance, colour = _matrix(_LUMINANCE, images), _matrix(_COLOUR, images)
    y = _coded(y - 128, luminance, factor) + 128
    halves = F.avg_pool2d(torch.stack([cb, cr]), 2)
    cb, cr = (
        _coded(plane, colour, factor).repeat_interleave(2, -1).repeat_interleave(2, -2)
        for plane in halves
    )
    back = torch.einsum("ij,jbhw->bihw", _matrix(_TO_RGB, images), torch.stack([y, cb, cr]))
    return back[..., :height, :width].clamp(0, 255) / 255


def _coded(plane: Tensor, table: Tensor, factor: Tensor) -> Tensor:
    """[B, H, W] around 0, its blocks' frequencies rounded to steps of table * factor."""
    batch, height, width = plane.shape
    blocks = plane.reshape(batch, height // 8, 8, width // 8, 8)
    cosines = _cosines(plane)
    frequencies = torch.einsum("ui,bhiwj,vj->bhwuv", cosines, blocks, cosines)
    steps = table * factor[:, None, None, None, None]
    rounded = torch.round(frequencies / steps) * steps
    return torch.einsum("ui,bhwuv,vj->bhiwj", cosines, rounded, cosines).reshape(plane.shape)


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal transform of 8 samples, [frequency, sample]; T.81 A.3.3."""
    rows = [
        [
            (math.sqrt(1 / 8) if u == 0 else 0.5) * math.cos((2 * i + 1) * u * math.pi / 16)
            for i in range(8)
        ]
        for u in range(8)
    ]
    return _matrix(rows, like)


def _matrix(rows: tuple[tuple[float, ...], ...] | list[list[float]], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=like.dtype, device=like.device)
