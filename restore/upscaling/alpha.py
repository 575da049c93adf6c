"""Pictures with transparency: colours and alpha each go through the network on their own.

Under transparent pixels a file may hold any colour, most often black; a network would draw it
into the visible edge. So colours are first spread outward from pixels that can be seen. Alpha
goes through the network as a gray picture and is then held between its nearest-neighbour and its
bicubic enlargement, so that it does not ring and opaque and transparent areas stay exactly so.

Shape letters: H, W rows and columns, s scale, C colour channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restore.image_io.row_files import RowSource
from restore.resizing import ResizeWeights, resample, resize_weights
from restore.upscaling.network import Floats, Network
from restore.upscaling.pixels import AnyArray, to_unit
from restore.upscaling.tiling import Tile
from restore.upscaling.workers import Needed, Strip, tile_name

FLAT_MARGIN = 2  # input pixels; the neighbourhood that an enlarged alpha is held to

# Alpha from which a pixel's own colour stands; below it the colours around it count more and more.
# A colour at alpha 4/255 has been rounded to a few levels if it was ever premultiplied.
_TRUSTED = 1 / 16
# Pixels read beyond those asked for. They spread colours the same whichever part is asked for, as
# far as visible pixels are within reach; farther in, nothing depends on the colour.
_REACH = 64


class ColourSource:
    """The colour channels of a source with alpha, spread under its transparent pixels."""

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self.height, self.width = source.height, source.width
        self.channels = source.channels - 1
        self.dtype = np.dtype(np.float32)

    def read(self, y0: int, y1: int) -> AnyArray:
        """Rows y0 .. y1 - 1, float32 [y1 - y0, W, C] in 0..1."""
        first, end = _reached(y0, y1, self.height)
        rows = to_unit(self._source.read(first, end), f"rows {first}..{end - 1}")
        return spread_colours(rows[:, :, :-1], rows[:, :, -1:])[y0 - first : y1 - first]


class AlphaWorker:
    """Pictures with alpha: their colours through one network, their alpha through another.

    Args:
        network: made for the colour channels.
        alpha_network: the same model made for one channel.
        source: the picture.
    """

    def __init__(self, network: Network, alpha_network: Network, source: RowSource) -> None:
        self.network = network
        self._alpha_network = alpha_network
        self._height, self._width = source.height, source.width
        s = self._scale = network.model.scale
        if s > 1:
            self._down, self._across = (
                resize_weights(side, side * s, s) for side in (source.height, source.width)
            )

    def reach(self, y0: int, y1: int) -> tuple[int, int]:
        """The rows, and those that their colours are spread from."""
        return _reached(y0, y1, self._height)

    def outputs(self, strip: Strip, tiles: Sequence[Needed]) -> list[Floats]:
        """See `Worker`. An alpha of one value is handed on without a network."""
        s = self._scale
        colours, alphas = zip(*(self._inputs(strip, need.tile) for need in tiles), strict=True)
        names = [tile_name(need.tile) for need in tiles]
        enlarged = self.network(np.stack(colours), names)  # [B, h * s, w * s, C]
        out = np.empty((*enlarged.shape[:3], enlarged.shape[3] + 1), np.float32)
        out[..., :-1] = enlarged
        shaped = list[int]()  # tiles whose alpha the network has to draw
        for i, (need, alpha) in enumerate(zip(tiles, alphas, strict=True)):
            flat = self._flat_value(alpha, need)
            if s == 1:
                out[i, ..., -1:] = alpha
            elif flat is not None:
                # clamped to its neighbourhood it is that anyway
                out[i, ..., -1] = flat
            else:
                shaped.append(i)
        if shaped:
            drawn = self._alpha_network(
                np.stack([alphas[i] for i in shaped]), [f"the alpha of {names[i]}" for i in shaped]
            )
            out[shaped, ..., -1:] = drawn
        return list(out)

    def _inputs(self, strip: Strip, tile: Tile) -> tuple[Floats, Floats]:
        """A tile's colours [h, w, C], spread, and its alpha [h, w, 1]."""
        row, col = tile.row, tile.col
        top, bottom = _reached(row.read_start, row.read_end, self._height)
        left, right = _reached(col.read_start, col.read_end, self._width)
        region = to_unit(strip.part(top, bottom, left, right), f"rows {top}..{bottom - 1}")
        rows = slice(row.read_start - top, row.read_end - top)
        cols = slice(col.read_start - left, col.read_end - left)
        alpha = region[:, :, -1:]
        return spread_colours(region[:, :, :-1], alpha)[rows, cols], alpha[rows, cols]

    def _flat_value(self, alpha: Floats, need: Needed) -> float | None:
        """The value that all alpha around what is needed of a tile equals, or None.

        Around is FLAT_MARGIN pixels, or the halo where that is narrower.
        """
        s, row, col = self._scale, need.tile.row, need.tile.col
        y0, y1 = need.y0 // s - FLAT_MARGIN, -(-need.y1 // s) + FLAT_MARGIN
        x0, x1 = need.x0 // s - FLAT_MARGIN, -(-need.x1 // s) + FLAT_MARGIN
        region = alpha[
            max(0, y0 - row.read_start) : y1 - row.read_start,
            max(0, x0 - col.read_start) : x1 - col.read_start,
        ]
        value = float(region[0, 0, 0])
        return value if (region == value).all() else None

    def finished(self, block: Floats, top: int, left: int, strip: Strip) -> Floats:
        """Hold the enlarged alpha between its nearest-neighbour and its bicubic enlargement.

        A network makes edges sharper than bicubic does, and rings around them: a light line along
        a cut-out. Between these two it can be as sharp as nearest and as soft as bicubic, and
        areas of one value stay exactly so.
        """
        s = self._scale
        if s == 1:
            return block
        height, width = block.shape[:2]
        y0, y1, x0, x1 = (v // s for v in (top, top + height, left, left + width))
        rows = max(0, y0 - FLAT_MARGIN), min(self._height, y1 + FLAT_MARGIN)
        cols = max(0, x0 - FLAT_MARGIN), min(self._width, x1 + FLAT_MARGIN)
        near = to_unit(strip.part(*rows, *cols)[:, :, -1:], f"rows {rows[0]}..{rows[1] - 1}")
        cubic = resample(near, _taps(self._down, top, height, *rows), np.float64)
        across = _taps(self._across, left, width, *cols)
        cubic = resample(cubic.transpose(1, 0, 2), across, np.float32).transpose(1, 0, 2)
        cubic = np.clip(cubic, 0, 1)
        here = near[y0 - rows[0] : y1 - rows[0], x0 - cols[0] : x1 - cols[0]]
        nearest = here.repeat(s, 0).repeat(s, 1)
        low, high = np.minimum(nearest, cubic), np.maximum(nearest, cubic)
        colours, alpha = block[:, :, :-1], block[:, :, -1:]
        held: Floats = np.concatenate([colours, np.clip(alpha, low, high)], axis=2)
        return held


def _reached(start: int, end: int, length: int) -> tuple[int, int]:
    """What is read along an axis so that colours can be spread into start .. end - 1."""
    # multiples of _REACH: the pyramid's cells then lie alike for all that is read
    first = max(0, start - _REACH) // _REACH * _REACH
    return first, min(length, -(-(end + _REACH) // _REACH) * _REACH)


def _taps(table: ResizeWeights, start: int, n: int, first: int, end: int) -> ResizeWeights:
    """The taps of n output samples over the input samples first .. end - 1."""
    part = slice(start, start + n)
    # taps of no weight may lie beyond what was read
    return ResizeWeights(
        np.clip(table.indices[part] - first, 0, end - first - 1), table.weights[part]
    )


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
