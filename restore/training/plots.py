"""Curves as a PNG, drawn with Pillow: a run's losses, learning rate and scores."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from restore.atomic import atomic_output, writing

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 900, 300  # of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 20, 34, 34
_COLOURS = ("#1f6fb2", "#c8501e", "#2e8b57", "#8a4fbf", "#b8860b", "#555555")
_INK, _GRID = "#222222", "#dddddd"
_LEAST_DECADES = 1e-3  # of a logarithmic axis


@dataclass(frozen=True)
class Panel:
    """One diagram: curves over the iteration.

    Attributes:
        title: above it.
        curves: name to points.
        logarithmic: whether the vertical axis is; values have to be above 0.
        least_span: of the vertical axis, where it is not logarithmic; 0: a tenth of the values.
    """

    title: str
    curves: Mapping[str, Points]
    logarithmic: bool = False
    least_span: float = 0.0


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Draw panels one below the other; those without a point are left out, so are infinite values.

    Nothing is written where no panel has a point.

    Raises:
        OutputError: the file cannot be written.
    """
    finite = [
        replace(panel, curves={n: _finite(points) for n, points in panel.curves.items()})
        for panel in panels
    ]
    shown = [panel for panel in finite if any(panel.curves.values())]
    if not shown:
        return
    picture = Image.new("RGB", (_WIDTH, _HEIGHT * len(shown)), "white")
    pen = ImageDraw.Draw(picture)
    for number, panel in enumerate(shown):
        _draw_panel(pen, panel, number * _HEIGHT)
    data = io.BytesIO()
    picture.save(data, "PNG")
    with atomic_output(path) as file, writing(path):
        file.write(data.getvalue())


def _finite(points: Points) -> Points:
    return [point for point in points if math.isfinite(point[1])]


def _draw_panel(pen: ImageDraw.ImageDraw, panel: Panel, top: int) -> None:
    font = ImageFont.load_default()
    points = [point for curve in panel.curves.values() for point in curve]
    x_axis = _Axis([0, *(x for x, _ in points)], _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis(
        [y for _, y in points],
        top + _HEIGHT - _BOTTOM,
        top + _TOP,
        logarithmic=panel.logarithmic,
        least_span=panel.least_span,
    )
    ticks = y_axis.ticks()
    for value, label in zip(ticks, labels(ticks), strict=True):
        y = y_axis(value)
        pen.line([(_LEFT, y), (_WIDTH - _RIGHT, y)], fill=_GRID)
        pen.text((_LEFT - 8, y), label, fill=_INK, font=font, anchor="rm")
    for value in x_axis.ticks(least=1.0):
        x = x_axis(value)
        pen.text(
            (x, top + _HEIGHT - _BOTTOM + 8), f"{value:,.0f}", fill=_INK, font=font, anchor="mt"
        )
    pen.text((_LEFT, top + 10), panel.title, fill=_INK, font=font)
    x = _WIDTH - _RIGHT
    for number, (name, curve) in enumerate(panel.curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        line = [(x_axis(at), y_axis(value)) for at, value in curve]
        if len(line) > 1:
            pen.line(line, fill=colour, width=2)
        for at, value in line if len(line) < 40 else ():
            pen.ellipse([at - 3, value - 3, at + 3, value + 3], fill=colour)
        x -= int(pen.textlength(name, font=font)) + 16
        pen.text((x, top + 10), name, fill=colour, font=font)


def labels(ticks: Sequence[float]) -> list[str]:
    """As few digits, 3 or more, as tell each tick from its neighbours, and where it is."""
    gaps = [abs(b - a) for a, b in itertools.pairwise(ticks)]
    near = [min(pair) for pair in zip([*gaps[:1], *gaps], [*gaps, *gaps[-1:]], strict=True)]
    for digits in range(3, 17):
        found = [f"{tick:.{digits}g}" for tick in ticks]
        if all(abs(float(t) - v) <= g / 20 for t, v, g in zip(found, ticks, near, strict=False)):
            break
    return found


class _Axis:
    """From values to pixels along one direction."""

    def __init__(
        self,
        values: Sequence[float],
        start: float,
        end: float,
        *,
        logarithmic: bool = False,
        least_span: float = 0.0,
    ) -> None:
        self._log = logarithmic and min(values) > 0
        self._start, self._end = start, end
        low, high = self._to(min(values)), self._to(max(values))
        least = _LEAST_DECADES if self._log else least_span or 0.1 * max(abs(high), 1e-6)
        margin = max(0.0, least - (high - low)) / 2
        low, high = low - margin, high + margin
        self._low, self._high = low, high

    def _to(self, value: float) -> float:
        return math.log10(value) if self._log else value

    def __call__(self, value: float) -> float:
        share = (self._to(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self, least: float = 0.0) -> list[float]:
        """3 to 9 round values, at least so far apart; on a logarithmic axis 5, evenly spread."""
        if self._log:
            steps = [self._low + (self._high - self._low) * k / 4 for k in range(5)]
            return [10**step for step in steps]
        rough = max(least, (self._high - self._low) / 8)
        size = 10.0 ** math.floor(math.log10(rough))
        size *= next(k for k in (1, 2, 5, 10) if k * size >= rough)
        first = math.ceil(self._low / size)
        return [k * size for k in range(first, math.floor(self._high / size + 1e-9) + 1)]
