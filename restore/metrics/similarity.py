"""SSIM (Wang et al., "Image quality assessment: from error visibility to structural similarity",
2004) of a pair of pictures, strip by strip.

It is computed from the sum s and the difference d of both pictures, so that it stays exactly as it
is when they change places. With G the Gaussian mean, C1 = 2 c1 and C2 = 2 c2:

    SSIM = u (G(s^2 - d^2) - u + C1 + C2) / (v (G(s^2 + d^2) - v + C1 + C2)),
    u = G(s)^2 - G(d)^2 + C1,  v = G(s)^2 + G(d)^2 + C1

so four means are needed and not five. A mean is two products with banded matrices, which is the
fastest way to it that NumPy and PyTorch share.

Shape letters: B pictures, C channels, h rows of a strip, W columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from restore.errors import UsageError
from restore.metrics.pairs import PEAK, FloatArray, Pair, Planes, Strips

WINDOW = 11  # pixels; smaller pictures have no SSIM
_EDGE = WINDOW - 1
_SIGMA = 1.5
_C1 = 2 * (0.01 * PEAK) ** 2
_C2 = 2 * (0.03 * PEAK) ** 2
_KINDS = 4  # of planes: s, d, s^2 + d^2, s^2 - d^2
# outputs of one product: few waste less on the zeros of the matrix, but many small ones are slower
_DOWN, _ACROSS = 8, 32
_STEP = 32  # rows of a strip, which needs 10 more


def mean_similarity(pair: Pair, crop_border: int) -> Any:
    """SSIM of each picture, [B]: the mean over the places of the window and the channels.

    Raises:
        UsageError: the window does not fit into what `crop_border` left.
    """
    _, channels, rows, columns = pair.shape
    if min(rows, columns) < WINDOW:
        raise UsageError(
            f"ssim: {rows} x {columns} pixels after crop_border={crop_border}; "
            f"the window needs at least {WINDOW} x {WINDOW}"
        )
    sums = _native_sums(pair)
    if sums is None:
        sums = _sums(pair)
    return sums / (channels * (rows - _EDGE) * (columns - _EDGE))


def _sums(pair: Pair) -> Any:
    """SSIM added up for each picture, [B]: the definition."""
    rows = pair.shape[2] - _EDGE
    step = pair.rows_at_once(_STEP)
    strips = Strips(pair, step + _EDGE)
    room = _Room(pair, step)
    total: Any = 0.0
    for top in range(0, rows, step):
        x, y = strips.planes(top, min(top + step, rows) + _EDGE)
        total = total + room.similarity(x, y).sum((1, 2, 3))
    return total


def _native_sums(pair: Pair) -> Any:
    """The same by the native kernel, or None where it cannot run: 4 times as fast."""
    if not pair.on_cpu:
        return None
    from restore.kernels.native_similarity import SimilaritySum  # imports PyTorch

    count, channels, rows, columns = pair.shape
    try:
        add_up = SimilaritySum(columns, _band(1)[0], _C1, _C2)
    except LookupError:
        return None
    rows, step = rows - _EDGE, pair.rows_at_once(_STEP)
    strips = Strips(pair, step + _EDGE)
    sums = np.zeros(count)
    for top in range(0, rows, step):
        x, y = map(np.asarray, strips.planes(top, min(top + step, rows) + _EDGE))
        for i, j in np.ndindex(count, channels):
            sums[i] += add_up(x[i, j], y[i, j])
    return pair.constant(sums)


class _Room:
    """What a strip of at most `step` rows is computed in."""

    def __init__(self, pair: Pair, step: int) -> None:
        self.xp = pair.xp
        count, channels, _, columns = pair.shape
        shape = (count, channels, step + _EDGE)
        self.planes = pair.empty(*shape, _KINDS, columns)
        self.squares = pair.empty(*shape, columns), pair.empty(*shape, columns)
        self.down = pair.empty(count, channels, step, _KINDS * columns)
        self.across = pair.empty(count, channels, step * _KINDS, columns - _EDGE)
        self.ratio = [pair.empty(count, channels, step, columns - _EDGE) for _ in range(2)]
        self.down_band = pair.constant(_band(_DOWN))
        self.across_band = pair.constant(np.ascontiguousarray(_band(_ACROSS).T))

    def similarity(self, x: Planes, y: Planes) -> Planes:
        """Of every place of the window, [B, C, h, W] twice to [B, C, h - 10, W - 10]."""
        xp, rows = self.xp, x.shape[2]
        planes = self.planes[:, :, :rows]
        s, d, plus, minus = (planes[..., i, :] for i in range(_KINDS))
        s_squared, d_squared = (room[:, :, :rows] for room in self.squares)
        xp.add(x, y, out=s)
        xp.subtract(x, y, out=d)
        xp.multiply(s, s, out=s_squared)
        s_squared += _C1 + _C2  # the window's weights add up to 1: its mean has the constants too
        xp.multiply(d, d, out=d_squared)
        xp.add(s_squared, d_squared, out=plus)
        xp.subtract(s_squared, d_squared, out=minus)
        s, d, plus, minus = self._means(rows)
        u, v = (room[:, :, : rows - _EDGE] for room in self.ratio)
        s *= s
        s += _C1
        d *= d
        xp.subtract(s, d, out=u)
        xp.add(s, d, out=v)
        minus -= u
        plus -= v
        u *= minus
        v *= plus
        u /= v
        return u

    def _means(self, rows: int) -> tuple[Planes, ...]:
        """Of `planes`, [B, C, rows, 4, W], four of [B, C, rows - 10, W - 10]."""
        count, channels, _, kinds, columns = self.planes.shape
        flat = self.planes.reshape(count, channels, -1, kinds * columns)
        rows -= _EDGE
        down = self.down[:, :, :rows]
        for top in range(0, rows, _DOWN):
            n = min(_DOWN, rows - top)
            band = self.down_band[:n, : n + _EDGE]
            part = flat[:, :, top : top + n + _EDGE]
            self.xp.matmul(band, part, out=down[:, :, top : top + n])
        # fresh views: whole rows of `down` become one for each kind
        flat = self.down.reshape(count, channels, -1, columns)[:, :, : rows * kinds]
        across = self.across[:, :, : rows * kinds]
        for left in range(0, columns - _EDGE, _ACROSS):
            n = min(_ACROSS, columns - _EDGE - left)
            band = self.across_band[: n + _EDGE, :n]
            part = flat[..., left : left + n + _EDGE]
            self.xp.matmul(part, band, out=across[..., left : left + n])
        parted = self.across.reshape(count, channels, -1, kinds, columns - _EDGE)
        return tuple(parted[:, :, :rows, i] for i in range(kinds))


def _band(n: int) -> FloatArray:
    """[n, n + 10]: the weights of the window, in each row one place further."""
    offset = np.arange(WINDOW) - WINDOW // 2
    kernel = np.exp(-(offset**2) / (2 * _SIGMA**2))
    band = np.zeros((n, n + _EDGE))
    for row in range(n):
        band[row, row : row + WINDOW] = kernel / kernel.sum()
    return band
