"""PSNR, SSIM and PSNR-B of NumPy images and of batches of tensors.

Sources: BasicSR's conventions (see `pairs`); SSIM: Wang et al., "Image quality assessment: from
error visibility to structural similarity", 2004; PSNR-B: Yim and Bovik, "Quality assessment of
deblocked images", IEEE Transactions on Image Processing 20(1), 2011.

Shape letters: B pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from restore.errors import UsageError
from restore.metrics.pairs import PEAK, AnyArray, Gray, Pair, Strips, pair_of
from restore.metrics.similarity import mean_similarity

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 8  # pixels along a side of JPEG's blocks


@overload
def psnr(
    a: AnyArray,
    b: AnyArray,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
    gray: Gray = "rgb",
) -> float: ...
@overload
def psnr(
    a: Tensor,
    b: Tensor,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
    gray: Gray = "rgb",
) -> Tensor: ...
def psnr(
    a: AnyArray | Tensor,
    b: AnyArray | Tensor,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
    gray: Gray = "rgb",
) -> float | Tensor:
    """Peak signal-to-noise ratio in dB over all pixels and channels; infinite if equal.

    Args:
        a: an image [H, W] or [H, W, C] of NumPy, or tensors [B, C, H, W] on any device with
            float64; C = 1 (gray) or 3 (RGB); uint8, uint16, float32 or float64, of tensors also
            float16 and bfloat16.
        b: the same shape and dtype.
        crop_border: pixels left out at each of the four sides.
        y_channel: count the Y channel alone (BT.601 in 16..235, not rounded), with peak 255.
        data_range: the value of white; 255, 65535 or 1 by dtype if None.
        gray: what Y is of a gray image: of three equal channels, 16 + 219 / 255 * gray ("rgb", as
            BasicSR, which reads every file as RGB); or gray itself ("y", as MATLAB scripts count
            files without colour: 20 log10(255 / 219) = 1.32 dB less).

    Returns:
        A number; of tensors one for each, [B] float64 on their device.

    Raises:
        UsageError: shapes, dtypes or devices differ or are others, a value lies outside
            0..data_range, or the crop leaves nothing.
    """
    pair = pair_of("psnr", a, b, crop_border, y_channel, data_range, gray)
    return _answer(pair, _decibel(pair, _squared_error(pair).mean(1)))


@overload
def ssim(
    a: AnyArray,
    b: AnyArray,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
    gray: Gray = "rgb",
) -> float: ...
@overload
def ssim(
    a: Tensor,
    b: Tensor,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
    gray: Gray = "rgb",
) -> Tensor: ...
def ssim(
    a: AnyArray | Tensor,
    b: AnyArray | Tensor,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
    gray: Gray = "rgb",
) -> float | Tensor:
    """Structural similarity, 1 if equal: the mean over pixels, then over channels.

    Gaussian window of 11 x 11 pixels with sigma 1.5, only where it lies inside the image;
    K1 = 0.01, K2 = 0.03. Arguments, result and errors as for `psnr`; what remains after the crop
    must have at least 11 x 11 pixels.
    """
    pair = pair_of("ssim", a, b, crop_border, y_channel, data_range, gray)
    return _answer(pair, mean_similarity(pair, crop_border))


@overload
def psnr_b(
    a: AnyArray,
    b: AnyArray,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
    gray: Gray = "rgb",
) -> float: ...
@overload
def psnr_b(
    a: Tensor,
    b: Tensor,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
    gray: Gray = "rgb",
) -> Tensor: ...
def psnr_b(
    a: AnyArray | Tensor,
    b: AnyArray | Tensor,
    *,
    crop_border: int = 0,
    y_channel: bool = False,
    data_range: float | None = None,
    gray: Gray = "rgb",
) -> float | Tensor:
    """PSNR that takes off for the edges of JPEG's blocks of 8 x 8 pixels in the first image.

        10 log10(255^2 / (MSE + BEF)),  BEF = log2(8) / log2(min(H, W)) * max(0, D - D')

    with D the mean squared difference of neighbours on two sides of a block's edge, and D' of all
    others. The first image is the restored one, the second the true one: the order matters. Of
    RGB images it is the mean of the channels' values, as tables of colour images count it.

    Arguments, result and errors as for `psnr`, but crop_border must leave blocks whole (a multiple
    of 8) and two of them side by side. Where 8 does not divide a side, W // 8 - 1 edges
    are counted along it and W // 8 summed, as the programs do from which published tables come.
    """
    pair = pair_of("psnr_b", a, b, crop_border, y_channel, data_range, gray)
    if crop_border % _BLOCK:
        raise UsageError(
            f"psnr_b: crop_border={crop_border} cuts blocks; expected a multiple of {_BLOCK}"
        )
    _, _, rows, columns = pair.shape
    if min(rows, columns) < _BLOCK or max(rows, columns) < 2 * _BLOCK:
        raise UsageError(
            f"psnr_b: {rows} x {columns} pixels after crop_border={crop_border}; expected at least "
            f"two blocks of {_BLOCK} x {_BLOCK} pixels side by side"
        )
    return _answer(pair, _decibel(pair, _squared_error(pair) + _blocking(pair)).mean(1))


def _answer(pair: Pair, values: Any) -> float | Tensor:
    """[B] as the caller gets it."""
    return float(values[0]) if pair.xp is np else values


def _decibel(pair: Pair, mse: Any) -> Any:
    """10 log10(255^2 / mse), infinite where mse is 0; black against white is 0, not -0."""
    if pair.xp is np:
        with np.errstate(divide="ignore"):
            return 0.0 - 10 * np.log10(mse / PEAK**2)
    return 0.0 - 10 * pair.xp.log10(mse / PEAK**2)


def _squared_error(pair: Pair) -> Any:
    """The mean over the pixels of each channel, [B, C]."""
    _, _, rows, columns = pair.shape
    step = pair.rows_at_once()
    strips = Strips(pair, step)
    total: Any = 0.0
    for top in range(0, rows, step):
        total = total + strips.squared_error(top, min(top + step, rows))
    return total / (rows * columns)


def _blocking(pair: Pair) -> Any:
    """BEF of the first image, [B, C]."""
    _, _, rows, columns = pair.shape
    x, _ = Strips(pair, rows).planes(0, rows)
    across, down = x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]
    across *= across
    down *= down
    edges = across[..., _BLOCK - 1 :: _BLOCK].sum((2, 3)) + down[..., _BLOCK - 1 :: _BLOCK, :].sum(
        (2, 3)
    )
    others = across.sum((2, 3)) + down.sum((2, 3)) - edges
    count = rows * (columns // _BLOCK - 1) + columns * (rows // _BLOCK - 1)
    beside = rows * (columns - 1) + columns * (rows - 1) - count
    excess = edges / count - others / beside
    scale = math.log2(_BLOCK) / math.log2(min(rows, columns))
    return scale * excess.clip(0)
