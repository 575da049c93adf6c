"""PSNR and SSIM as the super-resolution papers count them.

Source: the conventions of BasicSR (github.com/XPixelGroup/BasicSR, basicsr/metrics), which most
published tables follow; SSIM is Wang et al., "Image quality assessment: from error visibility to
structural similarity", 2004. Written anew, in float64 throughout.

A published number has four conventions in it, and each is an argument or stated here: the border
that is cut off (`crop_border`, usually the scale), the channel (`y_channel`), the rounding (compare
uint8 images: a result is rounded before it is counted) and gray images (three equal channels, so
Y = 16 + 219 / 255 * gray).

Shape letters: H rows, W columns, C channels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from restore.errors import UsageError

FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]

_PEAK = 255.0  # every image is brought to 0..255 first, because the Y formula has an offset
_DEFAULT_RANGE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0, "float64": 1.0}
_Y_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255  # of R, G, B in 0..255
_Y_OFFSET = 16.0
_WINDOW = 11
_SIGMA = 1.5
_C1 = (0.01 * _PEAK) ** 2
_C2 = (0.03 * _PEAK) ** 2


def psnr(
    a: AnyArray,
    b: AnyArray,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; infinite if equal.

    Args:
        a: [H, W] or [H, W, C], C = 1 (gray) or 3 (RGB); uint8, uint16, float32 or float64.
        b: the same shape and dtype.
        crop_border: pixels left out at each of the four sides.
        y_channel: count the Y channel alone (BT.601 in 16..235, not rounded), with peak 255.
        data_range: the value of white; 255, 65535 or 1 by dtype if None.

    Raises:
        UsageError: shapes or dtypes differ or are others, a value lies outside 0..data_range,
            or the crop leaves nothing.
    """
    x, y = _prepare("psnr", a, b, crop_border, y_channel, data_range)
    mse = float(np.mean(np.square(x - y)))
    return math.inf if mse == 0 else 10 * math.log10(_PEAK**2 / mse)


def ssim(
    a: AnyArray,
    b: AnyArray,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
) -> float:
    """Structural similarity, 1 if equal: the mean over pixels, then over channels.

    Gaussian window of 11 x 11 pixels with sigma 1.5, only where it lies inside the image;
    K1 = 0.01, K2 = 0.03. Arguments and errors as for `psnr`; what remains after the crop must
    have at least 11 x 11 pixels.
    """
    x, y = _prepare("ssim", a, b, crop_border, y_channel, data_range)
    if min(x.shape[:2]) < _WINDOW:
        raise UsageError(
            f"ssim: {x.shape[0]} x {x.shape[1]} pixels after crop_border={crop_border}; "
            f"the window needs at least {_WINDOW} x {_WINDOW}"
        )
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x * mean_x
    var_y = _blur(y * y) - mean_y * mean_y
    covariance = _blur(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    similarity /= (mean_x * mean_x + mean_y * mean_y + _C1) * (var_x + var_y + _C2)
    return float(similarity.mean())


def mod_crop(image: AnyArray, scale: int) -> AnyArray:
    """Cut rows and columns off the end so that both divide by `scale`; a view.

    Raises:
        UsageError: scale below 1, or larger than a side of the image.
    """
    rows, columns = image.shape[:2]
    if scale < 1 or min(rows, columns) < scale:
        raise UsageError(f"mod_crop: scale={scale} for an image of {rows} x {columns} pixels")
    return image[: rows - rows % scale, : columns - columns % scale]


def rgb_to_y(image: AnyArray) -> FloatArray:
    """[H, W, 3] RGB (or [H, W, 1] gray) in 0..255 to [H, W, 1] Y in 16..235, not rounded."""
    weights = _Y_WEIGHTS if image.shape[2] == 3 else _Y_WEIGHTS.sum(keepdims=True)
    y: FloatArray = image.astype(np.float64) @ weights[:, None] + _Y_OFFSET
    return y


def _prepare(
    name: str,
    a: AnyArray,
    b: AnyArray,
    crop_border: int,
    y_channel: bool,
    data_range: float | None,
) -> tuple[FloatArray, FloatArray]:
    """Check both images, then crop them and bring them to [H, W, C] float64 in 0..255."""
    for image in (a, b):
        if not isinstance(image, np.ndarray):
            raise UsageError(f"{name}: got a {type(image).__name__}; expected NumPy arrays")
    if a.shape != b.shape or a.dtype != b.dtype:
        raise UsageError(
            f"{name}: images differ in kind: {a.shape} {a.dtype} and {b.shape} {b.dtype}"
        )
    if a.dtype.name not in _DEFAULT_RANGE:
        raise UsageError(f"{name}: {a.dtype} images; expected one of {', '.join(_DEFAULT_RANGE)}")
    if a.ndim not in (2, 3) or (a.ndim == 3 and a.shape[2] not in (1, 3)):
        raise UsageError(f"{name}: images are {a.shape}; expected [H, W], [H, W, 1] or [H, W, 3]")
    if crop_border < 0 or min(a.shape[:2]) <= 2 * crop_border:
        raise UsageError(
            f"{name}: crop_border={crop_border} leaves nothing of {a.shape[0]} x {a.shape[1]}"
        )
    white = _DEFAULT_RANGE[a.dtype.name] if data_range is None else data_range
    return (
        _to_255(name, "first", a, crop_border, y_channel, white),
        _to_255(name, "second", b, crop_border, y_channel, white),
    )


def _to_255(
    name: str, which: str, image: AnyArray, crop_border: int, y_channel: bool, white: float
) -> FloatArray:
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= white):
        raise UsageError(
            f"{name}: {which} image has values from {low:g} to {high:g}; expected 0..{white:g}: "
            "clip it, or say what white is with data_range"
        )
    rows, columns = image.shape[:2]
    inner = image[crop_border : rows - crop_border, crop_border : columns - crop_border]
    # one rounding for every value but none for uint8, where the factor is 1
    scaled = inner.astype(np.float64) * (_PEAK / white)
    planes = scaled if scaled.ndim == 3 else scaled[:, :, None]  # [H, W, C]
    return rgb_to_y(planes) if y_channel else planes


def _blur(x: FloatArray) -> FloatArray:
    """Gaussian mean along both axes; [H, W, C] to [H - 10, W - 10, C]."""
    offset = np.arange(_WINDOW) - _WINDOW // 2
    kernel = np.exp(-(offset**2) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    rows, columns = x.shape[0] - _WINDOW + 1, x.shape[1] - _WINDOW + 1
    down = sum((k * x[i : i + rows] for i, k in enumerate(kernel)), np.zeros(()))
    across = sum((k * down[:, i : i + columns] for i, k in enumerate(kernel)), np.zeros(()))
    return across
