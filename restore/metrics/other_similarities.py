"""SSIM as tables of real noise and of blur count it: two more conventions beside BasicSR's.

- `ssim_volume`: MATLAB's `ssim(A, ref)` of a colour image. An array of three axes is a volume
  there, so the Gaussian window of 11 x 11 x 11 goes over the channels too; the border is repeated
  outside, and every pixel counts. Tables of SIDD have it (Uformer's, CAT's: eval_sidd.m).
- `ssim_uniform`: the default of scikit-image for floating-point colour images before its version
  0.20: a window of 7 x 7 equal weights, the sample covariance, and a range of values of 2, as for
  -1..1, though the images have 0..1. Uformer's tables of GoPro and HIDE have it.

Source: the documentation of MATLAB's ssim and of skimage.metrics.structural_similarity; constants
K1 = 0.01, K2 = 0.03 of Wang et al., 2004. Written anew, in float64.

Shape letters: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from restore.errors import UsageError
from restore.metrics.pairs import PEAK, AnyArray, FloatArray, Gray, Pair, Strips, pair_of

_K1, _K2 = 0.01, 0.03
_REACH, _SIGMA = 5, 1.5  # of the Gaussian window
_SIDE = 7  # of the uniform one
_UNIFORM_RANGE = 2.0  # times white


def ssim_volume(
    a: AnyArray,
    b: AnyArray,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
    gray: Gray = "rgb",
) -> float:
    """Structural similarity as MATLAB's ssim counts a colour image, 1 if equal.

    Arguments, result and errors as for `restore.metrics.psnr`, of NumPy images alone.
    """
    pair = _images("ssim_volume", a, b, crop_border, y_channel, data_range, gray)
    channels = pair.shape[1]
    offset = np.arange(-_REACH, _REACH + 1)
    window = np.exp(-(offset**2) / (2 * _SIGMA**2))
    window /= window.sum()
    # the window over the channels, whose ends are repeated: what each takes of each
    mixing = np.zeros((channels, channels))
    for channel in range(channels):
        np.add.at(mixing[channel], (channel + offset).clip(0, channels - 1), window)

    def blurred(x: FloatArray) -> FloatArray:
        return np.asarray(mixing @ _filtered(x, window).reshape(channels, -1)).reshape(x.shape)

    return _mean(pair, blurred, PEAK, 1.0, 0)


def ssim_uniform(
    a: AnyArray,
    b: AnyArray,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
    gray: Gray = "rgb",
) -> float:
    """Structural similarity as scikit-image counted images of 0..1 by default, 1 if equal.

    Arguments, result and errors as for `restore.metrics.psnr`, of NumPy images alone; what remains
    after the crop must have at least 7 x 7 pixels.
    """
    pair = _images("ssim_uniform", a, b, crop_border, y_channel, data_range, gray)
    _, _, rows, columns = pair.shape
    if min(rows, columns) < _SIDE:
        raise UsageError(
            f"ssim_uniform: {rows} x {columns} pixels after crop_border={crop_border}; the window "
            f"needs at least {_SIDE} x {_SIDE}"
        )
    window = np.full(_SIDE, 1 / _SIDE)
    count = _SIDE**2
    peak = _UNIFORM_RANGE * PEAK
    return _mean(pair, lambda x: _filtered(x, window), peak, count / (count - 1), _SIDE // 2)


def _images(
    name: str,
    a: AnyArray,
    b: AnyArray,
    crop_border: int,
    y_channel: bool,
    data_range: float | None,
    gray: Gray,
) -> Pair:
    pair = pair_of(name, a, b, crop_border, y_channel, data_range, gray)
    if pair.xp is not np:
        raise UsageError(f"{name}: got tensors; expected NumPy images, [H, W] or [H, W, C]")
    return pair


def _mean(
    pair: Pair, blurred: Callable[[FloatArray], FloatArray], peak: float, sample: float, edge: int
) -> float:
    """The mean over pixels and channels.

    Args:
        pair: the pictures.
        blurred: the mean around each pixel, [C, H, W] to the same.
        peak: that the constants are of.
        sample: from a variance within the window to the one that is counted.
        edge: pixels of each side that are not counted.
    """
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    rows, columns = pair.shape[2:]
    inner = np.s_[:, edge : rows - edge, edge : columns - edge]
    x, y = (planes[0] for planes in Strips(pair, rows).planes(0, rows))
    mean_x, mean_y = blurred(x), blurred(y)
    variances = sample * (blurred(x * x + y * y) - mean_x**2 - mean_y**2)
    covariance = sample * (blurred(x * y) - mean_x * mean_y)
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (variances + c2)
    return float((above / below)[inner].mean())


def _filtered(planes: FloatArray, window: FloatArray) -> FloatArray:
    """[C, H, W] under a window along rows and columns; the border is repeated outside."""
    reach = len(window) // 2
    rows, columns = planes.shape[1:]
    wide = np.pad(planes, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    down = np.zeros((planes.shape[0], rows, columns + 2 * reach))
    for i, weight in enumerate(window):
        down += weight * wide[:, i : i + rows]
    across = np.zeros_like(planes)
    for i, weight in enumerate(window):
        across += weight * down[:, :, i : i + columns]
    return across
