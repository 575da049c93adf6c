"""A picture that shows what restoration changed: before and after, side by side, labelled.

Which part is shown depends on the input alone (where most of its detail is), never on the result.

Shape letters: H, W rows and columns of the input, C channels (1 gray, 2 gray and alpha, 3 RGB,
4 RGB and alpha).
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from restore.image_io.picture import Picture, icc_channels
from restore.image_io.row_files import RowSource
from restore.resizing import ResizeWeights, resample, resize_weights
from restore.upscaling.pixels import AnyArray, from_unit, to_unit

LONGEST_PANEL = 720  # pixels of the result; two of them fit on a common screen
_BAND = 256  # rows read at once in the search for detail
_CELLS = 8  # a panel's side in cells of that search
_GAP = 8  # pixels between the panels and around the labels
_FONT_SIZE = 16
_PAPER, _INK = 255, 32


def comparison(
    before: RowSource, after: RowSource, *, name: str, icc: bytes | None = None
) -> Picture:
    """Show a part of a picture enlarged by bicubic interpolation, and restored.

    Both panels have the size of the result, at most 720 x 720 pixels of it. The part is the one
    with the most detail in the input. Where the sizes are equal (denoising, say) the first panel
    is the input itself. Transparent pixels are laid over white.

    Args:
        before: the input.
        after: the result, of the same channels.
        name: of the model, for the label.
        icc: profile of both.

    Returns:
        8 bits, gray or RGB as the input, without alpha.
    """
    first, second = panels(before, after)
    same = (before.height, before.width) == (after.height, after.width)
    factor = f"x{after.width / before.width:.4g}"
    labels = ("input" if same else f"bicubic, {factor}", name if same else f"{name}, {factor}")
    kept = icc if icc and icc_channels(icc) == first.shape[2] else None
    return Picture(_sheet([first, second], labels), icc=kept)


def panels(
    before: RowSource, after: RowSource, longest: int = LONGEST_PANEL
) -> tuple[AnyArray, AnyArray]:
    """The part with the most detail, enlarged by bicubic interpolation, and of the result.

    Args:
        before: the input.
        after: the result, of the same channels.
        longest: side of the part at most, in pixels of the result.

    Returns:
        Two arrays [h, w, 1 or 3], uint8; transparent pixels are laid over white.
    """
    tall = min(before.height, max(1, longest * before.height // after.height))
    wide = min(before.width, max(1, longest * before.width // after.width))
    y, x = busiest(before, tall, wide)
    rows = _scaled(y, y + tall, before.height, after.height)
    cols = _scaled(x, x + wide, before.width, after.width)
    first = _bicubic(before, after, rows, cols)
    second = on_white(after.read(rows.start, rows.stop)[:, cols.start : cols.stop])
    eight_bits = np.dtype(np.uint8)
    return from_unit(first, eight_bits), from_unit(second, eight_bits)


def busiest(source: RowSource, tall: int, wide: int) -> tuple[int, int]:
    """Top row and left column of the part of tall x wide pixels with the most detail.

    Detail is the sum of differences between neighbours, in every channel, weighted by alpha. The
    part lies on a grid of an eighth of its sides, or at the picture's end.
    """
    down, across = max(1, tall // _CELLS), max(1, wide // _CELLS)
    band = max(1, _BAND // down) * down
    sums = [
        _detail(source, y0, min(source.height, y0 + band), down, across)
        for y0 in range(0, source.height, band)
    ]
    table = np.pad(np.concatenate(sums), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    n, m = min(len(table) - 1, -(-tall // down)), min(table.shape[1] - 1, -(-wide // across))
    within = table[n:, m:] - table[:-n, m:] - table[n:, :-m] + table[:-n, :-m]
    best_row, best_column = np.unravel_index(int(within.argmax()), within.shape)
    return (
        min(int(best_row) * down, source.height - tall),
        min(int(best_column) * across, source.width - wide),
    )


def _detail(source: RowSource, y0: int, y1: int, down: int, across: int) -> AnyArray:
    """Detail of rows y0 .. y1 - 1, float64 [cells, cells]."""
    rows = to_unit(source.read(max(0, y0 - 1), y1), "input")
    colours = rows if rows.shape[2] in (1, 3) else rows[:, :, :-1] * rows[:, :, -1:]
    steps = np.abs(np.diff(colours, axis=1, prepend=colours[:, :1])).sum(2)
    steps[1:] += np.abs(np.diff(colours, axis=0)).sum(2)
    steps = steps[y0 - max(0, y0 - 1) :]
    by_row = np.add.reduceat(steps, np.arange(0, len(steps), down), axis=0, dtype=np.float64)
    cells: AnyArray = np.add.reduceat(by_row, np.arange(0, steps.shape[1], across), axis=1)
    return cells


def _scaled(start: int, end: int, old: int, new: int) -> range:
    """The output pixels of input pixels start .. end - 1 along one axis, at least one."""
    first = min(round(start * new / old), new - 1)
    return range(first, max(first + 1, round(end * new / old)))


def _bicubic(before: RowSource, after: RowSource, rows: range, cols: range) -> AnyArray:
    """What `imresize` would give there for the whole input, without rounding: float32 in 0..1."""
    down = _taps(before.height, after.height, rows)
    across = _taps(before.width, after.width, cols)
    top, bottom = int(down.indices.min()), int(down.indices.max()) + 1
    left, right = int(across.indices.min()), int(across.indices.max()) + 1
    near = on_white(before.read(top, bottom)[:, left:right])
    down = ResizeWeights(down.indices - top, down.weights)
    across = ResizeWeights(across.indices - left, across.weights)
    tall = resample(near, down, np.float64).transpose(1, 0, 2)  # [w, n, C]
    both = resample(np.ascontiguousarray(tall), across, np.float32).transpose(1, 0, 2)
    clipped: AnyArray = np.clip(both, 0, 1)
    return clipped


def _taps(old: int, new: int, part: range) -> ResizeWeights:
    table = resize_weights(old, new, new / old)
    chosen = slice(part.start, part.stop)
    return ResizeWeights(table.indices[chosen], table.weights[chosen])


def on_white(rows: AnyArray) -> AnyArray:
    """[h, w, C] of any depth as float32 [h, w, 1 or 3] in 0..1; transparent pixels become white."""
    unit = to_unit(rows, "picture")
    if unit.shape[2] in (1, 3):
        return unit
    laid: AnyArray = 1 - unit[:, :, -1:] * (1 - unit[:, :, :-1])
    return laid


def _sheet(panels: list[AnyArray], labels: tuple[str, str]) -> AnyArray:
    """The panels side by side under their labels, uint8 [h, w, 1 or 3]."""
    font = ImageFont.load_default(_FONT_SIZE)
    height, width, channels = panels[0].shape
    # a label may be wider than a small panel
    column = max(width, *(int(font.getlength(label)) + 1 for label in labels))
    head = _FONT_SIZE + 2 * _GAP
    sheet = Image.new(
        "L" if channels == 1 else "RGB",
        (2 * column + 3 * _GAP, head + height + _GAP),
        _PAPER if channels == 1 else (_PAPER,) * 3,
    )
    draw = ImageDraw.Draw(sheet)
    for i, (panel, label) in enumerate(zip(panels, labels, strict=True)):
        left = _GAP + i * (column + _GAP)
        ink = _INK if channels == 1 else (_INK,) * 3
        draw.text((left, _GAP), label, fill=ink, font=font)
        sheet.paste(Image.fromarray(panel[:, :, 0] if channels == 1 else panel), (left, head))
    pixels = np.asarray(sheet)
    return pixels[:, :, None] if channels == 1 else pixels
