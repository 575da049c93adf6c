"""A result against the truth: the figures of a protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from restore.bench.protocols import Bytes, Figure, Floats, Measure, Protocol
from restore.image_io.picture import to_depth
from restore.metrics import psnr, psnr_b, ssim, ssim_uniform, ssim_volume

Array = NDArray[Any]

_MEASURES: dict[Measure, Callable[..., float]] = {
    "psnr": psnr,
    "ssim": ssim,
    "ssim_volume": ssim_volume,
    "ssim_uniform": ssim_uniform,
    "psnr_b": psnr_b,
}


class Perceptual(Interface):
    """A measure with weights."""

    def __call__(self, result: Array, truth: Array, *, crop_border: int) -> float:
        """[H, W, C] of 8 bits or float32 in 0..1 twice to a number."""


def as_bytes(result: Floats) -> Bytes:
    """A result in 0..1 as it would be written to a file of 8 bits."""
    rounded: Bytes = to_depth(result, 8)
    return rounded


def counted_pixels(result: Floats, protocol: Protocol) -> Array:
    """A result as the protocol counts it: rounded to 8 bits; of pairs of files clipped alone."""
    return np.clip(result, 0, 1) if protocol.is_paired else as_bytes(result)


def scored(
    result: Array,
    truth: Array,
    protocol: Protocol,
    *,
    is_gray: bool = False,
    perceptual: Mapping[Measure, Perceptual] | None = None,
) -> dict[str, float]:
    """The figures of a protocol, by their keys.

    Args:
        result: [H, W, C] of `counted_pixels`.
        truth: the same shape and dtype.
        protocol: says which.
        is_gray: whether the picture's file has one channel.
        perceptual: the measures that are networks.
    """
    networks = perceptual or {}
    return {
        figure.key: _value(figure, result, truth, protocol, is_gray, networks)
        for figure in protocol.figures
    }


def _value(
    figure: Figure,
    result: Array,
    truth: Array,
    protocol: Protocol,
    is_gray: bool,
    perceptual: Mapping[Measure, Perceptual],
) -> float:
    border = protocol.crop_border
    if figure.measure in perceptual:
        return perceptual[figure.measure](result, truth, crop_border=border)
    on_y = figure.channels == "y" and protocol.colour == "rgb"
    if on_y and is_gray and protocol.gray == "y":
        result, truth = _as_gray(result), truth[:, :, :1]
    measure = _MEASURES[figure.measure]
    return measure(result, truth, crop_border=border, y_channel=on_y, gray=protocol.gray)


def _as_gray(result: Array) -> Bytes:
    """The mean of three channels, rounded: what `restore.upscale` makes of a gray picture."""
    mean = result.astype(np.float64).mean(2, keepdims=True)
    rounded: Bytes = np.floor(mean + 0.5).astype(np.uint8)
    return rounded
