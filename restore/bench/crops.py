"""A contact sheet, as papers print it: where two models differ most, enlarged beside the truth.

One row a picture: the whole of it with the crop marked, then the crop of the truth, of A and of B,
each pixel enlarged to a square so that nothing is smoothed. Crops are in pixels of the truth.

Shape letters: H rows, W columns, C channels.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from restore.bench.protocols import Bytes
from restore.datasets.cards import some
from restore.datasets.images import Box
from restore.errors import UsageError

_PANEL = 240  # pixels of a side that a crop is enlarged to, about
_GAP = 8
_FONT_SIZE = 14
_PAPER, _INK, _MARK = (255, 255, 255), (32, 32, 32), (220, 30, 30)
_SHARE = 6  # of a picture's shorter side, a crop that is chosen has one
_LEAST = 24  # pixels of a chosen crop's side
_CROP = re.compile(r"(?:(?P<name>.+)=)?(?P<box>\d+(?:,\d+){3})")


@dataclass(frozen=True)
class Wish:
    """A crop that is asked for: of one picture, or of all ("")."""

    picture: str
    box: Box


@dataclass(frozen=True)
class Shown:
    """A row of the sheet.

    Attributes:
        title: above the whole picture.
        truth, a, b: [H, W, C], all of one size.
        labels: below truth, a and b, such as "A 29.38 dB".
        box: the crop.
    """

    title: str
    truth: Bytes
    a: Bytes
    b: Bytes
    labels: tuple[str, str, str]
    box: Box


def crop_wish(text: str) -> Wish:
    """A crop of the command line: "x,y,width,height", or "butterfly=x,y,width,height".

    Raises:
        UsageError: it is neither.
    """
    found = _CROP.fullmatch(text)
    if found is None:
        raise UsageError(
            f"--crops: is {text!r}; expected x,y,width,height in pixels of the truth, or "
            "PICTURE=x,y,width,height"
        )
    x, y, width, height = map(int, found["box"].split(","))
    if min(width, height) < 1:
        raise UsageError(f"--crops {text}: has no pixel; expected a width and height from 1")
    return Wish(found["name"] or "", Box(y, x, height, width))


def is_of(wish: Wish, name: str) -> bool:
    """Whether a crop names this picture, with or without suffix."""
    return wish.picture in (name, name.rsplit(".", 1)[0])


def refuse_impossible(
    wishes: Sequence[Wish], pictures: Iterable[tuple[str, tuple[int, int] | None]]
) -> None:
    """Check crops against the names of pictures and their rows and columns, where these are known.

    Raises:
        UsageError: one names no picture, or reaches beyond one.
    """
    known = list(pictures)
    names = list(dict.fromkeys(name for name, _ in known))
    for wish in wishes:
        if wish.picture and not any(is_of(wish, name) for name in names):
            near = difflib.get_close_matches(wish.picture, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {some(names)}"
            raise UsageError(f"--crops {wish.picture}=...: there is no such picture; {hint}")
    for name, size in known:
        if size is not None:
            crop_of(name, size, wishes)


def crop_of(name: str, size: tuple[int, int], wishes: Sequence[Wish]) -> Box | None:
    """The crop that is asked for a picture, the last where there are several; else None.

    Raises:
        UsageError: it reaches beyond the picture.
    """
    own = [wish.box for wish in wishes if is_of(wish, name)]
    for box in (own or [wish.box for wish in wishes if not wish.picture])[-1:]:
        if box.top + box.height > size[0] or box.left + box.width > size[1]:
            raise UsageError(
                f"--crops: {box.left},{box.top},{box.width},{box.height} reaches beyond {name}, "
                f"which has {size[1]} x {size[0]} pixels; {name}=X,Y,W,H is for it alone"
            )
        return box
    return None


def most_different(truth: Bytes, a: Bytes, b: Bytes) -> Box:
    """The square crop in which the squared errors of two results differ most.

    Its side is a sixth of the shorter side, or 24 pixels where that is more.
    """
    rows, columns = truth.shape[:2]
    side = min(rows, columns, max(_LEAST, min(rows, columns) // _SHARE))
    errors = [np.square(x.astype(np.float64) - truth).sum(2) for x in (a, b)]
    # the better of the two changes from pixel to pixel: what counts is how unlike they are there
    sums = np.pad(errors[0] - errors[1], ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    within = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(int(np.abs(within).argmax()), within.shape)
    return Box(int(top), int(left), side, side)


def contact_sheet(rows: Sequence[Shown], heads: tuple[str, str, str]) -> Bytes:
    """The sheet, [H, W, 3].

    Args:
        rows: of it, at least one.
        heads: above the crops: of the truth, of A and of B.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    bands = [_band(row, heads, font) for row in rows]
    width = max(band.width for band in bands)
    sheet = Image.new("RGB", (width, sum(band.height for band in bands)), _PAPER)
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    return np.asarray(sheet)


def _band(
    row: Shown, heads: tuple[str, str, str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> Image.Image:
    """One row of the sheet."""
    box = row.box
    zoom = max(1, _PANEL // max(box.height, box.width))
    crops = [_enlarged(_image(box.of(x)), zoom) for x in (row.truth, row.a, row.b)]
    line = _FONT_SIZE + _GAP
    whole = _whole(row, crops[0].height)
    panels = [whole, *crops]
    above = [row.title, *heads]
    below = [f"{row.truth.shape[1]} x {row.truth.shape[0]}", *row.labels]
    widths = [
        # a label may be wider than a small panel
        max(panel.width, *(int(font.getlength(text)) + 1 for text in texts))
        for panel, texts in zip(panels, zip(above, below, strict=True), strict=True)
    ]
    tall = max(panel.height for panel in panels)
    band = Image.new(
        "RGB", (sum(widths) + _GAP * (len(panels) + 1), tall + 2 * line + 2 * _GAP), _PAPER
    )
    draw, left = ImageDraw.Draw(band), _GAP
    for panel, width, first, last in zip(panels, widths, above, below, strict=True):
        draw.text((left, _GAP), first, fill=_INK, font=font)
        band.paste(panel, (left, _GAP + line))
        draw.text((left, _GAP + line + tall + _GAP // 2), last, fill=_INK, font=font)
        left += width + _GAP
    return band


def _whole(row: Shown, height: int) -> Image.Image:
    """The whole truth at about a panel's height, the crop marked."""
    picture = _image(row.truth)
    factor = height / picture.height
    size = (max(1, round(picture.width * factor)), height)
    small = picture.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BOX)
    box = row.box
    corners = [(box.left, box.top), (box.left + box.width - 1, box.top + box.height - 1)]
    marked = [(round(x * factor), round(y * factor)) for x, y in corners]
    ImageDraw.Draw(small).rectangle([*marked[0], *marked[1]], outline=_MARK, width=2)
    return small


def _enlarged(picture: Image.Image, zoom: int) -> Image.Image:
    size = (picture.width * zoom, picture.height * zoom)
    return picture.resize(size, Image.Resampling.NEAREST)


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    """[H, W, 1 or 3] as a picture of three channels."""
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))
