"""What makes a low-quality picture of a good one: smaller, blurred, noisy, compressed.

Everything is a function of its arguments and of the random numbers given. Pictures are [H, W, C].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.datasets.images import Box
from restore.errors import ImageError, UsageError
from restore.resizing import ResizeWeights, resample, resize_weights

Array = NDArray[Any]
FloatArray = NDArray[np.float32]

_JPEG_CELL = 16  # pixels that are coded together where colour is halved


Reader = Callable[[Box], Array]  # gives a part of a picture, [h, w, C]


@functools.lru_cache(maxsize=4096)
def _table(old: int, new: int, scale: float) -> ResizeWeights:
    return resize_weights(old, new, scale)


def resized(read: Reader, size: tuple[int, int], scale: float) -> tuple[Reader, tuple[int, int]]:
    """Parts of `imresize(picture, scale)`, bit for bit, each made of what is near it alone.

    Args:
        read: gives parts of the picture.
        size: its rows and columns.
        scale: output pixels per pixel.

    Returns:
        What gives parts of the result, and the result's rows and columns.
    """
    new = (math.ceil(scale * size[0]), math.ceil(scale * size[1]))
    rows, columns = (_table(a, b, scale) for a, b in zip(size, new, strict=True))

    def part(box: Box) -> Array:
        down, top, tall = _taps(rows, box.top, box.height)
        across, left, wide = _taps(columns, box.left, box.width)
        near = read(Box(top, left, tall, wide))
        between = near.dtype if near.dtype.kind == "u" else np.dtype(np.float64)
        # imresize's order where both axes have one scale
        turned = resample(np.ascontiguousarray(near), down, between).transpose(1, 0, 2)
        small = resample(np.ascontiguousarray(turned), across, near.dtype)
        return np.ascontiguousarray(small.transpose(1, 0, 2))

    return part, new


def _taps(table: ResizeWeights, first: int, count: int) -> tuple[ResizeWeights, int, int]:
    """Taps of a part of an axis, and where the samples lie that they need: first and how many."""
    indices = table.indices[first : first + count]
    start = int(indices.min())
    part = ResizeWeights(indices - start, table.weights[first : first + count])
    return part, start, int(indices.max()) + 1 - start


def gaussian_noise(shape: tuple[int, ...], sigma: float, random: np.random.Generator) -> FloatArray:
    """Noise of a standard deviation of sigma / 255, float32."""
    noise: FloatArray = random.standard_normal(shape, dtype=np.float32) * np.float32(sigma / 255)
    return noise


def published_noise(shape: tuple[int, int, int], sigma: float, seed: int) -> FloatArray:
    """The noise that the papers' test scripts add to a picture: every picture begins anew.

    The scripts draw it for BGR pictures with NumPy's first generator and do not round.

    Source: the behaviour of SwinIR's main_test_swinir.py (github.com/JingyunLiang/SwinIR).
    """
    noise = np.random.RandomState(seed).normal(0, sigma / 255, shape)
    return np.ascontiguousarray(noise[:, :, ::-1], dtype=np.float32)


def compressed(picture: Array, quality: int) -> Array:
    """A uint8 picture after JPEG compression (colour halved), as OpenCV does it.

    Raises:
        UsageError: quality is not 1 to 100.
        ImageError: the picture is not 8 bits.
    """
    if not 1 <= quality <= 100:
        raise UsageError(f"JPEG quality is {quality}; expected 1 to 100")
    if picture.dtype != np.uint8:
        raise ImageError(f"JPEG takes 8 bits and the picture is {picture.dtype}")
    gray = picture.shape[2] == 1
    swapped = np.ascontiguousarray(picture[:, :, ::-1])
    done, data = cv2.imencode(".jpg", swapped, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ImageError(f"a picture of {picture.shape} cannot be encoded as JPEG")
    decoded = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
    if decoded is None:
        raise ImageError(f"a picture of {picture.shape} cannot be decoded from JPEG")
    return decoded[:, :, None] if gray else np.ascontiguousarray(decoded[:, :, ::-1])


def compressing(read: Reader, size: tuple[int, int], quality: int) -> Reader:
    """Parts of `compressed(picture)`, each made from the cells around it alone.

    The grid of cells is the whole picture's, so its seams lie where a user's file has them.
    """

    def part(box: Box) -> Array:
        wide = _around(box, size, _JPEG_CELL, _JPEG_CELL)
        return _within(box, wide).of(compressed(read(wide), quality))

    return part


def blurring(read: Reader, size: tuple[int, int], kernel: Array) -> Reader:
    """Parts of a picture that is correlated with a kernel; edges mirror without their last pixel.

    Args:
        read: gives parts of the picture.
        size: its rows and columns.
        kernel: [K, K], K odd, with a sum of 1.
    """
    reach = len(kernel) // 2

    def part(box: Box) -> Array:
        wide = _around(box, size, reach, 1)
        near = np.ascontiguousarray(read(wide))
        out = cv2.filter2D(near, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        return _within(box, wide).of(out.reshape(near.shape))

    return part


def _within(box: Box, wide: Box) -> Box:
    return Box(box.top - wide.top, box.left - wide.left, box.height, box.width)


def _around(box: Box, size: tuple[int, int], reach: int, grid: int) -> Box:
    """A part with `reach` pixels around it where there are some, grown to lines of the grid."""
    top, left = (max(0, at - reach) // grid * grid for at in (box.top, box.left))
    bottom = min(size[0], -(-(box.top + box.height + reach) // grid) * grid)
    right = min(size[1], -(-(box.left + box.width + reach) // grid) * grid)
    return Box(top, left, bottom - top, right - left)
