"""Joining tiles: weights that sum to one.

Where two tiles meet, the border of their cores is the middle of a linear ramp: the first fades
out over it while the second fades in, both inside the halo that each has computed beyond its
core. Weights are multiples of 1/256, so products of a row weight and a column weight, and their
sums, are exact in float32: what the tiles of a plan give to a pixel adds up to exactly 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from restore.upscaling.tiling import Interval

Floats = npt.NDArray[np.float32]

LEVELS = 256
LONGEST_HALF = 16  # input pixels; a longer ramp blurs two guesses over each other without need


@dataclass(frozen=True)
class Share:
    """What one tile gives to an axis: weights [n] for output pixels start .. start + n."""

    start: int
    weights: Floats

    @property
    def end(self) -> int:
        """One past the last output pixel."""
        return self.start + len(self.weights)


def half_overlap(intervals: Sequence[Interval], tile_pad: int) -> int:
    """Half the length of a plan's ramps along one axis, in input pixels.

    A quarter of the halo (rounded up), because the outer pixels of a halo know least of their
    surroundings, and at most half a core, so that no pixel lies in two ramps. 0 is a hard cut.
    """
    if len(intervals) < 2:
        return 0
    shortest = min(interval.size for interval in intervals[:-1])
    return min(-(-tile_pad // 4), shortest // 2, LONGEST_HALF)


def fade_out(length: int, ramp_start: int, ramp: int) -> Floats:
    """Weights [length]: 1 before `ramp_start`, then falling to 0 over `ramp` pixels, then 0.

    Each value is a multiple of 1/256.
    """
    at = np.arange(length, dtype=np.int64) - ramp_start
    if ramp == 0:
        return (at < 0).astype(np.float32)
    # (at + 1/2) / ramp of the way down, to the nearest level, in integers
    down = np.clip((2 * at + 1) * LEVELS + ramp, 0, 2 * ramp * LEVELS) // (2 * ramp)
    return ((LEVELS - down) / LEVELS).astype(np.float32)


def split(left: Floats, ramp_start: int, ramp: int) -> tuple[Floats, Floats]:
    """Divide what is left of each pixel between a tile and those after it.

    Args:
        left: [n], the weight not yet given away, for n pixels in order.
        ramp_start: pixel at which the tile begins to fade out.
        ramp: length of its ramp, 0 for a hard cut.

    Returns:
        The tile's weights [n], and what is left after it [n]. They add up to `left`.
    """
    mine = left * fade_out(len(left), ramp_start, ramp)
    return mine, left - mine


def axis_shares(intervals: Sequence[Interval], half: int, scale: int) -> list[Share]:
    """The weights of each interval of a whole axis, in output pixels.

    Args:
        intervals: as planned, covering an axis from 0.
        half: half the ramps' length in input pixels, from `half_overlap`.
        scale: output pixels per input pixel.
    """
    shares = []
    left = np.ones(0, np.float32)
    for interval in intervals:
        start = max(0, interval.start - half) * scale
        stop = min(interval.end + half, intervals[-1].end) * scale
        left = np.concatenate([left, np.ones(stop - start - len(left), np.float32)])
        last = interval is intervals[-1]
        fade_at = len(left) if last else (interval.end - half) * scale - start
        weights, left = split(left, fade_at, 2 * half * scale)
        shares.append(Share(start, weights))
        left = left[fade_at:]
    return shares
