"""Pictures with transparency: colours and alpha each go through the network on their own.

Under transparent pixels a file may hold any colour, most often black; a network would draw it
into the visible edge. So colours are first spread outward from pixels that can be seen. Alpha
goes through the network as a gray picture and is then held between its nearest-neighbour and its
bicubic enlargement, so that it does not ring and opaque and transparent areas stay exactly so.

Shape letters: H, W rows and columns, s scale, C colour channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from restore.resizing import ResizeWeights, resample, resize_weights
from restore.upscaling.engine import FLAT_MARGIN, Band, RowSource
from restore.upscaling.network import Floats
from restore.upscaling.pixels import AnyArray, to_unit

# Alpha from which a pixel's own colour stands; below it the colours around it count more and more.
# A colour at alpha 4/255 has been rounded to a few levels if it was ever premultiplied.
_TRUSTED = 1 / 16
# Rows read beyond those asked for. They spread colours the same whichever rows are asked for, as
# far as visible pixels are within reach; farther in, nothing depends on the colour.
_REACH = 64
_ROWS_AT_ONCE = 256


class ColourSource:
    """The colour channels of a source with alpha, spread under its transparent pixels."""

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self.height, self.width = source.height, source.width
        self.channels = source.channels - 1
        self.dtype = np.dtype(np.float32)

    def read(self, y0: int, y1: int) -> AnyArray:
        """Rows y0 .. y1 - 1, float32 [y1 - y0, W, C] in 0..1."""
        # multiples of _REACH: the pyramid's cells then lie alike for every band
        first = max(0, y0 - _REACH) // _REACH * _REACH
        last = min(self.height, -(-(y1 + _REACH) // _REACH) * _REACH)
        rows = to_unit(self._source.read(first, last), f"rows {first}..{last - 1}")
        return spread_colours(rows[:, :, :-1], rows[:, :, -1:])[y0 - first : y1 - first]


class AlphaSource:
    """The alpha channel of a source as a gray picture."""

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self.height, self.width = source.height, source.width
        self.channels = 1
        self.dtype = source.dtype

    def read(self, y0: int, y1: int) -> AnyArray:
        """Rows y0 .. y1 - 1, [y1 - y0, W, 1] in the source's depth."""
        return self._source.read(y0, y1)[:, :, -1:]

    def bands(self) -> Iterator[Band]:
        """The whole of it as it is, float32 in 0..1."""
        for y0 in range(0, self.height, _ROWS_AT_ONCE):
            y1 = min(self.height, y0 + _ROWS_AT_ONCE)
            yield y0, to_unit(self.read(y0, y1), f"rows {y0}..{y1 - 1}")


def spread_colours(colours: Floats, alpha: Floats) -> Floats:
    """Fill in the colours of pixels that are (nearly) transparent from visible ones around them.

    A pyramid: where a level holds little alpha, its colour comes from the level of half the size,
    whose pixels are means weighted by alpha (Gortler et al., "The lumigraph", 1996, section 3.4).
    Pixels of alpha 1/16 and more keep their colour exactly.

    Args:
        colours: [H, W, C], not premultiplied. Not changed.
        alpha: [H, W, 1] in 0..1.

    Returns:
        [H, W, C]; `colours` itself where nothing or everything is transparent.
    """
    if alpha.min() >= _TRUSTED or alpha.max() == 0:
        return colours
    trust = np.minimum(alpha / np.float32(_TRUSTED), 1)
    if max(colours.shape[:2]) == 1:
        return colours
    coarse, coarse_alpha = _half_size(colours, alpha)
    filled = _double_size(spread_colours(coarse, coarse_alpha), *colours.shape[:2])
    spread: Floats = colours * trust + filled * (1 - trust)
    return spread


def _half_size(colours: Floats, alpha: Floats) -> tuple[Floats, Floats]:
    """Means over 2 x 2 pixels weighted by alpha, and the sums of alpha (at most 1)."""
    height, width = alpha.shape[:2]
    edges = ((0, height % 2), (0, width % 2), (0, 0))
    weight = np.pad(alpha, edges)
    weighted = np.pad(colours * alpha, edges)
    total, total_weight = (
        a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2] for a in (weighted, weight)
    )
    tiny = np.float32(np.finfo(np.float32).tiny)
    return total / np.maximum(total_weight, tiny), np.minimum(total_weight, 1)


def _double_size(image: Floats, height: int, width: int) -> Floats:
    """Bilinear, to [height, width, C], borders repeated."""
    for axis, length in ((0, height), (1, width)):
        ends = [(1, 1) if a == axis else (0, 0) for a in range(3)]
        moved = np.moveaxis(np.pad(image, ends, mode="edge"), axis, 0)  # [n + 2, ...]
        out = np.empty((2 * (len(moved) - 2), *moved.shape[1:]), np.float32)
        out[::2] = moved[1:-1] * np.float32(0.75) + moved[:-2] * np.float32(0.25)
        out[1::2] = moved[1:-1] * np.float32(0.75) + moved[2:] * np.float32(0.25)
        image = np.moveaxis(out[:length], 0, axis)
    return image


def clamped(bands: Iterable[Band], source: AlphaSource, scale: int) -> Iterator[Band]:
    """Hold an enlarged alpha between the nearest-neighbour and the bicubic enlargement.

    A network makes edges sharper than bicubic does, and rings around them: a light line along a
    cut-out. Between these two it can be as sharp as nearest and as soft as bicubic, and areas of
    one value stay exactly so.

    Args:
        bands: rows [n, W * s, 1] of the network's output, n and first rows multiples of s.
        source: its input.
        scale: s.
    """
    down, across = (
        resize_weights(side, side * scale, scale) for side in (source.height, source.width)
    )
    for top, rows in bands:
        y0, y1 = top // scale, (top + len(rows)) // scale
        first, last = max(0, y0 - FLAT_MARGIN), min(source.height, y1 + FLAT_MARGIN)
        near = to_unit(source.read(first, last), f"rows {first}..{last - 1}")
        part = slice(top, top + len(rows))
        # taps of no weight may lie beyond the rows that were read
        at = np.clip(down.indices[part] - first, 0, last - first - 1)
        cubic = resample(near, ResizeWeights(at, down.weights[part]), np.float64)  # [n, W, 1]
        cubic = resample(cubic.transpose(1, 0, 2), across, np.float32).transpose(1, 0, 2)
        nearest = near[y0 - first : y1 - first].repeat(scale, 0).repeat(scale, 1)
        cubic = np.clip(cubic, 0, 1)
        yield top, np.clip(rows, np.minimum(nearest, cubic), np.maximum(nearest, cubic))


def joined(colours: Iterable[Band], alpha: Iterable[Band]) -> Iterator[Band]:
    """Colour rows with their alpha as last channel; the two may come in different pieces."""
    coming = iter(alpha)
    rest: Floats | None = None
    for top, rows in colours:
        pieces = [] if rest is None else [rest]
        while sum(map(len, pieces)) < len(rows):
            pieces.append(next(coming)[1])
        ready = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        rest = ready[len(rows) :]
        yield top, np.concatenate([rows, ready[: len(rows)]], axis=2)
