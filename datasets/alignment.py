"""How far one picture is shifted against another, to a fraction of a pixel.

Source: phase correlation, Kuglin and Hines, "The phase correlation image alignment method", 1975;
the fine search by evaluating the transform between its samples is that of Guizar-Sicairos et al.,
"Efficient subpixel image registration algorithms", Optics Letters 33 (2008), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_BAND = 0.25  # cycles per pixel; above, noise and aliasing tell more than the picture
_FLOOR = 1e-3  # of the strongest frequency's amplitude; below, a phase means nothing
_STEPS = (0.1, 0.01)  # pixels, of the fine searches
LEAST_SIDE = 24  # pixels; less tells nothing


@dataclass(frozen=True)
class Shift:
    """Where the second picture must be moved to lie on the first.

    Attributes:
        down, right: pixels.
        agreement: 1 if the pictures are the same but for the shift, near 0 if they have nothing
            in common.
    """

    down: float
    right: float
    agreement: float

    @property
    def distance(self) -> float:
        """Pixels."""
        return float(np.hypot(self.down, self.right))


def find_shift(a: NDArray[Any], b: NDArray[Any]) -> Shift | None:
    """The shift between two gray pictures [H, W] of one size, up to half of their sides.

    Returns:
        None where the pictures are too small or too flat to tell.
    """
    if min(a.shape) < LEAST_SIDE:
        return None
    window = np.hanning(a.shape[0])[:, None] * np.hanning(a.shape[1])
    first, second = (_spectrum(picture, window) for picture in (a, b))
    cross = first * second.conj()
    strength = np.abs(cross)
    y, x = (np.asarray(np.fft.fftfreq(n), np.float64) for n in a.shape)
    inside = (np.abs(y)[:, None] <= _BAND) & (np.abs(x) <= _BAND)
    inside &= strength > _FLOOR**2 * strength.max()
    if strength.max() <= 1e-6 or inside.sum() < 16:
        return None
    # half of the way to equal weights: edges count, but noise does not count as much as they
    weight = np.where(inside, np.sqrt(strength), 0)
    phases = np.where(inside, cross / np.maximum(strength, 1e-300), 0) * weight
    surface = np.fft.ifft2(phases).real
    peak = np.unravel_index(int(surface.argmax()), surface.shape)
    down, right = (float(p - n if p > n // 2 else p) for p, n in zip(peak, a.shape, strict=True))
    value = 0.0
    for step in _STEPS:
        steps = np.arange(-10, 11).astype(np.float64) * step
        values = _between(phases, y, x, down + steps, right + steps)
        i, j = np.unravel_index(int(values.argmax()), values.shape)
        down, right, value = down + steps[i], right + steps[j], float(values[i, j])
    return Shift(float(down), float(right), value / float(weight.sum()))


def _spectrum(picture: NDArray[Any], window: FloatArray) -> NDArray[np.complex128]:
    values = picture.astype(np.float64)
    spectrum: NDArray[np.complex128] = np.fft.fft2((values - values.mean()) * window)
    return spectrum


def _between(
    phases: NDArray[np.complex128],
    y: FloatArray,
    x: FloatArray,
    down: FloatArray,
    right: FloatArray,
) -> FloatArray:
    """The correlation at these shifts, [down, right]."""
    rows = np.exp(2j * np.pi * down[:, None] * y)
    columns = np.exp(2j * np.pi * x[:, None] * right)
    values: FloatArray = (rows @ phases @ columns).real
    return values
