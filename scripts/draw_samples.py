"""Draw samples/drawing.png: hard edges, thin lines, letters and gradients in 160 x 120 pixels.

A low-resolution picture whose true shapes are known: straight cables, round sun, even stripes.
Every pixel is the mean of 64 points of the scene, so that edges carry what an upscaler can use.

Usage: draw_samples.py [FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.float64]
Point = tuple[float, float]  # x to the right, y down, in pixels of the picture
Colour = tuple[float, float, float]  # red, green, blue in 0..1

WIDTH, HEIGHT = 160, 120
POINTS = 8  # per pixel and axis
HORIZON = 78.0
DECK = 66.0  # the bridge's road

DARK = (0.10, 0.09, 0.16)
TOWER = (0.72, 0.20, 0.16)
PAPER = (0.96, 0.93, 0.84)

# strokes of the letters on a grid of 4 columns and 6 rows
LETTERS: dict[str, Sequence[Sequence[Point]]] = {
    "R": [[(0, 6), (0, 0), (3, 0), (4, 1), (4, 2), (3, 3), (0, 3)], [(2, 3), (4, 6)]],
    "E": [[(4, 0), (0, 0), (0, 6), (4, 6)], [(0, 3), (3, 3)]],
    "S": [[(4, 0), (1, 0), (0, 1), (0, 2), (1, 3), (3, 3), (4, 4), (4, 5), (3, 6), (0, 6)]],
    "T": [[(0, 0), (4, 0)], [(2, 0), (2, 6)]],
    "O": [[(1, 0), (3, 0), (4, 1), (4, 5), (3, 6), (1, 6), (0, 5), (0, 1), (1, 0)]],
}


class Canvas:
    """The scene's points and their colours; every shape paints over the ones before."""

    def __init__(self) -> None:
        steps_x = (np.arange(WIDTH * POINTS) + 0.5) / POINTS
        steps_y = (np.arange(HEIGHT * POINTS) + 0.5) / POINTS
        self.x, self.y = np.meshgrid(steps_x, steps_y)  # each [H * POINTS, W * POINTS]
        self.colours = np.zeros((*self.x.shape, 3))

    def paint(self, inside: npt.NDArray[np.bool_], colour: Colour | Array) -> None:
        """Give the points inside a shape one colour, or each its own from [rows, columns, 3]."""
        whole = np.broadcast_to(np.asarray(colour), self.colours.shape)
        self.colours[inside] = whole[inside]

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A line through the points, with round ends."""
        for (x0, y0), (x1, y1) in pairwise(points):
            dx, dy = x1 - x0, y1 - y0
            along = ((self.x - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy)
            along = np.clip(along, 0.0, 1.0)
            off_x, off_y = self.x - x0 - along * dx, self.y - y0 - along * dy
            self.paint(off_x**2 + off_y**2 <= (width / 2) ** 2, colour)

    def pixels(self) -> npt.NDArray[np.uint8]:
        """[H, W, 3]: the mean of each pixel's points, rounded."""
        grid = self.colours.reshape(HEIGHT, POINTS, WIDTH, POINTS, 3)
        # rounding to 1e-6 first: platforms differ in the last bit of sin
        levels: Array = np.round(grid.mean(axis=(1, 3)) * 255, 6)
        whole: npt.NDArray[np.uint8] = np.rint(levels).astype(np.uint8)
        return whole


def mix(low: Colour, high: Colour, share: Array) -> Array:
    """Colours from `low` (share 0) to `high` (share 1), [..., 3]."""
    share = np.clip(share, 0.0, 1.0)[..., None]
    mixed: Array = (1 - share) * np.asarray(low) + share * np.asarray(high)
    return mixed


def sky_and_water(canvas: Canvas) -> None:
    """A dusk sky, a striped sun, two rows of hills, and water that mirrors the light."""
    x, y = canvas.x, canvas.y
    canvas.paint(y < HORIZON, mix((0.16, 0.24, 0.48), (0.98, 0.66, 0.42), y / HORIZON))
    away = np.hypot(x - 84, y - 50)
    canvas.paint(away < 21, mix((1.0, 0.93, 0.62), (0.99, 0.58, 0.36), (y - 29) / 42))
    canvas.paint((away > 24) & (away < 24.8), (1.0, 0.84, 0.62))
    far = 66 - 7 * np.sin(x / 19 + 1) - 3 * np.sin(x / 7)
    near = 73 - 6 * np.sin(x / 27 + 4) - 2 * np.sin(x / 5 + 2)
    canvas.paint(y > far, mix((0.44, 0.38, 0.52), (0.66, 0.46, 0.48), (y - 56) / 22))
    canvas.paint(y > near, (0.25, 0.27, 0.36))
    water = y >= HORIZON
    canvas.paint(water, mix((0.72, 0.50, 0.46), (0.10, 0.16, 0.30), (y - HORIZON) / 42))
    glint = np.sin(np.maximum(y - HORIZON + 3, 0) ** 1.5 * 0.9) > 0.35
    canvas.paint(water & glint & (np.abs(x - 84) < 17 - (y - HORIZON) / 4), (0.99, 0.74, 0.48))


def bridge(canvas: Canvas) -> None:
    """Two towers with bracing, a road, a hanging cable and its hangers."""
    towers = (30.0, 130.0)
    sag = [(30 + 2 * i, 14 + 46 * (1 - ((i - 25) / 25) ** 2)) for i in range(51)]
    for x, top in sag[2:-2:2]:
        canvas.stroke([(x, top), (x, DECK)], 0.5, DARK)
    canvas.stroke(sag, 1.1, DARK)
    for tower, shore in zip(towers, (-14.0, 174.0), strict=True):
        canvas.stroke([(tower, 14), (shore, DECK)], 1.1, DARK)
        for side in (-2.6, 2.6):
            canvas.stroke([(tower + side, 12), (tower + side, 92)], 1.6, TOWER)
        for level in range(12, 92, 8):
            canvas.stroke([(tower - 2.6, level), (tower + 2.6, level + 8)], 0.7, TOWER)
            canvas.stroke([(tower + 2.6, level), (tower - 2.6, level + 8)], 0.7, TOWER)
    canvas.paint(np.abs(canvas.y - DECK) < 1.2, DARK)
    canvas.paint(np.abs(canvas.y - DECK - 4) < 0.5, DARK)
    for i in range(41):
        slant = 2 if i % 2 else -2
        canvas.stroke([(4 * i - slant, DECK), (4 * i + slant, DECK + 4)], 0.5, DARK)


def sign(canvas: Canvas, word: str) -> None:
    """A board at the lower left with a word, and stripes that grow finer to its right."""
    board = (canvas.x > 7) & (canvas.x < 92) & (canvas.y > 97) & (canvas.y < 115)
    frame = (canvas.x > 6) & (canvas.x < 93) & (canvas.y > 96) & (canvas.y < 116)
    canvas.paint(frame, DARK)
    canvas.paint(board, PAPER)
    for place, letter in enumerate(word):
        left, top = 11.0 + 11.5 * place, 100.5
        for points in LETTERS[letter]:
            canvas.stroke([(left + 1.7 * x, top + 1.8 * y) for x, y in points], 1.5, DARK)
    edge, width = 101.0, 3.2
    while width > 1.0:
        canvas.paint(
            (canvas.x > edge) & (canvas.x < edge + width) & (canvas.y > 96) & (canvas.y < 116),
            PAPER,
        )
        edge += 2 * width
        width *= 0.88


def draw() -> npt.NDArray[np.uint8]:
    """The whole scene, [120, 160, 3]."""
    canvas = Canvas()
    sky_and_water(canvas)
    bridge(canvas)
    sign(canvas, "RESTORE")
    return canvas.pixels()


def main() -> int:
    """Write the drawing into the folder named on the command line, or into samples/."""
    own = Path(__file__).resolve().parents[1] / "samples"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else own
    path = folder / "drawing.png"
    Image.fromarray(draw()).save(path, optimize=True)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
