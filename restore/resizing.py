"""MATLAB's `imresize(image, scale, 'bicubic')`, to the last bit for integer images.

Source: the documented behaviour of MATLAB's imresize and Keys, "Cubic convolution interpolation
for digital image processing", 1981 (a = -0.5). What makes the difference to other bicubic
functions: the kernel widens when an axis shrinks (antialiasing), the border is mirrored with its
edge pixel repeated, the axis with the smaller scale goes first (rows if equal), and an integer
image is rounded to its own type after each of the two passes.

Products and sums are separate float64 operations in ascending tap order, never a matrix product:
so the result depends neither on the machine nor on how an image is cut into bands.

Shape letters: H rows, W columns, C channels, N samples of an axis, T taps of one output sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from restore.errors import UsageError
from restore.value_kinds import is_finite_number, is_whole

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]

_KERNEL_WIDTH = 4.0
_DTYPES = ("uint8", "uint16", "float32", "float64")
# of float64 per block of output rows: three such buffers stay in the second-level cache
_BLOCK_ELEMENTS = 1 << 15
_LEAST_SCALE = 1e-6  # a row of the table has 4 / scale taps


@dataclass(frozen=True)
class ResizeWeights:
    """How one axis is resampled: `out[i] = sum over t of weights[i, t] * in[indices[i, t]]`.

    Rows of `weights` sum to one. Indices are already mirrored into 0 <= index < n_in, so one
    input sample can stand under two taps of a row.
    """

    indices: IntArray  # [n_out, T]
    weights: FloatArray  # [n_out, T]


def imresize(
    image: AnyArray,
    scale: float | None = None,
    *,
    size: tuple[int, int] | None = None,
    antialias: bool = True,
) -> AnyArray:
    """Resize an image as MATLAB's `imresize(image, scale or size, 'bicubic')` does.

    Args:
        image: [H, W] or [H, W, C]; uint8, uint16, float32 or float64. Not changed.
        scale: output pixels per input pixel along both axes; the result has ceil(scale * n)
            pixels along an axis of n. Give this or `size`.
        size: (rows, columns) of the result; each axis then has its own scale.
        antialias: widen the kernel along an axis that shrinks.

    Returns:
        The resized image, C-contiguous, with the dtype and number of axes of `image`. Integer
        values are rounded half up and clipped to their range after each pass; floats are
        computed in float64 and neither rounded nor clipped.

    Raises:
        UsageError: not exactly one of scale and size, a scale below 1e-6, a size below one pixel
            or not of whole numbers, or an image of another shape or dtype.
    """
    _check_image(image)
    if not isinstance(antialias, (bool, np.bool_)):
        raise UsageError(f"imresize: antialias={antialias!r}; expected True or False")
    image = np.asarray(image)  # of a subclass, only the values
    rows, columns = image.shape[:2]
    out_rows, out_columns, row_scale, column_scale = _target(rows, columns, scale, size)
    row_weights = resize_weights(rows, out_rows, row_scale, antialias)
    column_weights = resize_weights(columns, out_columns, column_scale, antialias)

    planes = image if image.ndim == 3 else image[:, :, None]  # [H, W, C]
    between = image.dtype if image.dtype.kind == "u" else np.dtype(np.float64)
    if row_scale <= column_scale:
        out = _resize_columns(resample(planes, row_weights, between), column_weights, image.dtype)
    else:
        out = resample(_resize_columns(planes, column_weights, between), row_weights, image.dtype)
    return out.reshape(out.shape[: image.ndim])


def resize_weights(n_in: int, n_out: int, scale: float, antialias: bool = True) -> ResizeWeights:
    """The taps of each output sample along one axis.

    Args:
        n_in: samples of the input axis, at least 1.
        n_out: samples of the output axis, at least 1.
        scale: output samples per input sample. Not always n_out / n_in: MATLAB keeps the scale
            it was given when it rounds n_out up.
        antialias: widen the kernel when scale < 1.

    Returns:
        Indices and weights; taps that are zero for all outputs are left out.

    Raises:
        UsageError: a size or the scale is not positive.
    """
    if n_in < 1 or n_out < 1 or not scale > 0 or math.isinf(scale):
        raise UsageError(
            f"resize_weights: from {n_in} to {n_out} samples at scale {scale}; "
            "sizes must be at least 1 and the scale positive and finite"
        )
    stretch = scale if antialias and scale < 1 else 1.0
    width = _KERNEL_WIDTH / stretch
    # MATLAB's coordinates start at 1: the rounding of these float64 values is part of its result
    centre = np.arange(1, n_out + 1, dtype=np.float64) / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(centre - width / 2)
    taps = math.ceil(width) + 2
    position = left[:, None] + np.arange(taps, dtype=np.float64)  # [n_out, T]
    weights = stretch * _cubic(stretch * (centre[:, None] - position))
    # a running sum: the order of numpy's plain sum depends on the number of taps
    weights = weights / weights.cumsum(axis=1)[:, -1:]

    period = 2 * n_in
    indices = (position.astype(np.int64) - 1) % period
    indices = np.where(indices < n_in, indices, period - 1 - indices)
    used = weights.any(axis=0)
    return ResizeWeights(
        np.ascontiguousarray(indices[:, used]), np.ascontiguousarray(weights[:, used])
    )


def resample(image: AnyArray, table: ResizeWeights, dtype: npt.DTypeLike | None = None) -> AnyArray:
    """Apply the taps along the first axis.

    Args:
        image: [N, ...], N larger than every index in `table`. Not changed.
        table: indices and weights of the output samples; a slice of them gives that slice.
        dtype: of the result, `image`'s if None. An integer dtype rounds half up and clips.

    Returns:
        [n_out, ...], contiguous.
    """
    target = image.dtype if dtype is None else np.dtype(dtype)
    n_out = len(table.indices)
    flat = image.reshape(len(image), -1)  # [N, K]
    out = np.empty((n_out, flat.shape[1]), dtype=target)
    step = max(1, _BLOCK_ELEMENTS // max(1, flat.shape[1]))
    for start in range(0, n_out, step):
        block = slice(start, min(start + step, n_out))
        _store(out[block], _weighted_sum(flat, table.indices[block], table.weights[block]))
    return out.reshape(n_out, *image.shape[1:])


def _weighted_sum(flat: AnyArray, indices: IntArray, weights: FloatArray) -> FloatArray:
    """[N, K] under [n, T] taps gives [n, K]; only the rows in use are widened to float64."""
    first = int(indices.min())
    source = flat[first : int(indices.max()) + 1].astype(np.float64)
    total = np.zeros((len(indices), flat.shape[1]))
    product = np.empty_like(total)
    for tap in range(indices.shape[1]):
        np.take(source, indices[:, tap] - first, axis=0, out=product, mode="clip")
        np.multiply(product, weights[:, tap, None], out=product)
        np.add(total, product, out=total)
    return total


def _store(out: AnyArray, values: FloatArray) -> None:
    """Write float64 values into `out`; `values` is used up."""
    if out.dtype.kind == "u":
        np.add(values, 0.5, out=values)
        np.floor(values, out=values)
        np.clip(values, 0, np.iinfo(out.dtype).max, out=values)
    np.copyto(out, values, casting="unsafe")


def _resize_columns(image: AnyArray, table: ResizeWeights, dtype: npt.DTypeLike) -> AnyArray:
    """[H, W, C] to [H, W', C]: the row pass on the transposed image."""
    turned = np.ascontiguousarray(image.transpose(1, 2, 0))  # [W, C, H]
    return np.ascontiguousarray(resample(turned, table, dtype).transpose(2, 0, 1))


def _cubic(x: FloatArray) -> FloatArray:
    """Keys' cubic with a = -0.5; zero from distance 2 on."""
    x1 = np.abs(x)
    x2 = x1 * x1
    x3 = x2 * x1
    near = (1.5 * x3 - 2.5 * x2 + 1) * (x1 <= 1)
    far = (-0.5 * x3 + 2.5 * x2 - 4 * x1 + 2) * ((x1 > 1) & (x1 <= 2))
    total: FloatArray = near + far
    return total


def _target(
    rows: int, columns: int, scale: float | None, size: tuple[int, int] | None
) -> tuple[int, int, float, float]:
    """Rows and columns of the result, and the scale of each axis."""
    if scale is not None and size is None:
        if not (is_finite_number(scale) and scale >= _LEAST_SCALE):
            raise UsageError(
                f"imresize: scale={scale!r}; expected a number from {_LEAST_SCALE:g}, such as 0.25"
            )
        scale = float(scale)
        return math.ceil(scale * rows), math.ceil(scale * columns), scale, scale
    if size is not None and scale is None:
        sides = list(size) if isinstance(size, (tuple, list, np.ndarray)) else []
        if len(sides) != 2 or not all(is_whole(side) and side >= 1 for side in sides):
            raise UsageError(
                f"imresize: size={size!r}; expected (rows, columns), whole numbers from 1"
            )
        out_rows, out_columns = map(int, sides)
        return out_rows, out_columns, out_rows / rows, out_columns / columns
    raise UsageError(f"imresize: scale={scale}, size={size}; give exactly one of the two")


def _check_image(image: AnyArray) -> None:
    if not isinstance(image, np.ndarray):
        raise UsageError(f"imresize: image is a {type(image).__name__}; expected a NumPy array")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise UsageError(
            f"imresize: image is {image.shape}; expected [H, W] or [H, W, C] with no empty axis"
        )
    if image.dtype.name not in _DTYPES:
        raise UsageError(f"imresize: image is {image.dtype}; expected one of {', '.join(_DTYPES)}")
