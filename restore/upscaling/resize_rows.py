"""`imresize` of a picture that arrives a few rows at a time, with the same result bit for bit.

Shape letters: H, W rows and columns that arrive, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from restore.resizing import AnyArray, ResizeWeights, resample, resize_weights

# of the result: they bound the float64 intermediates
_ROWS_AT_ONCE = 256
_SAMPLES_AT_ONCE = 2**22

Band = tuple[int, AnyArray]  # first row, and rows [n, W, C]


def resized(bands: Iterable[Band], old: tuple[int, int], new: tuple[int, int]) -> Iterator[Band]:
    """Bicubic, antialiased where it shrinks, not clipped.

    Args:
        bands: float32 rows [n, W, C] from the top down.
        old: H and W.
        new: rows and columns of the result.
    """
    rows_first = new[0] / old[0] <= new[1] / old[1]  # imresize's order
    table = resize_weights(old[0], new[0], new[0] / old[0])
    across = resize_weights(old[1], new[1], new[1] / old[1])
    newest = table.indices.max(axis=1)  # input row each output row waits for
    newest = np.maximum.accumulate(newest)
    # input row that neither this output row nor a later one goes back beyond
    oldest = np.minimum.accumulate(table.indices.min(axis=1)[::-1])[::-1]
    held: AnyArray = np.empty((0, 0, 0), np.float32)
    base = done = 0
    for top, rows in bands:
        arrived = rows if rows_first else _columns(rows, across, np.dtype(np.float64))
        held = np.concatenate([held, arrived]) if len(held) else arrived
        ready = int(np.searchsorted(newest, top + len(rows), side="left"))
        widest = max(held.shape[1], new[1]) * rows.shape[2]
        step = max(1, min(_ROWS_AT_ONCE, _SAMPLES_AT_ONCE // widest))
        for first in range(done, ready, step):
            part = slice(first, min(first + step, ready))
            taps = ResizeWeights(table.indices[part] - base, table.weights[part])
            out = resample(held, taps, np.float64 if rows_first else np.float32)
            yield first, _columns(out, across, np.dtype(np.float32)) if rows_first else out
        done = ready
        if done < new[0]:
            keep = max(base, min(int(oldest[done]), top + len(rows)))
            held, base = held[keep - base :].copy(), keep


def _columns(rows: AnyArray, table: ResizeWeights, dtype: np.dtype[np.generic]) -> AnyArray:
    """[n, W, C] to [n, W', C]."""
    turned = np.ascontiguousarray(rows.transpose(1, 2, 0))  # [W, C, n]
    return np.ascontiguousarray(resample(turned, table, dtype).transpose(2, 0, 1))
