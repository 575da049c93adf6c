"""Blocks of a result collected to whole rows.

Shape letters: W columns of the result, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from restore.upscaling.engine import Block
from restore.upscaling.pixels import AnyArray, from_unit

_SAMPLES_AT_ONCE = 2**23  # of what is handed on; what is made of it is several times as large


def whole_bands(
    blocks: Iterable[Block], width: int, channels: int, dtype: np.dtype[Any] | None = None
) -> Iterator[tuple[int, AnyArray]]:
    """Rows from side to side: first row, rows [n, W, C].

    Args:
        blocks: in rows from the top down, and in a row from left to right, equally high.
        width: W.
        channels: C.
        dtype: depth to turn each block into at once, see `from_unit`; None keeps float32.
    """
    band: AnyArray = np.empty((0, width, channels))
    for top, left, block in blocks:
        if left == 0:
            band = np.empty((len(block), width, channels), dtype or np.float32)
        right = left + block.shape[1]
        band[:, left:right] = block if dtype is None else from_unit(block, dtype)
        if right == width:
            step = max(1, _SAMPLES_AT_ONCE // (width * channels))
            for y in range(0, len(band), step):
                yield top + y, band[y : y + step]
