"""NIQE: how far a picture is from natural ones, without the true one. Lower is better.

Source: Mittal, Soundararajan and Bovik, "Making a 'completely blind' image quality analyzer", IEEE
Signal Processing Letters 20(3), 2013; the conventions of the authors' MATLAB program, as BasicSR
has them: Y rounded to integers, blocks of 96 x 96 pixels that do not overlap, all of them counted,
two scales of which the second is MATLAB's bicubic half. Written anew, in float64.

The model of natural pictures is its authors' data and not part of this package; see `read_model`.

Shape letters: H rows, W columns, N blocks, F = 36 features of a block.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from restore.errors import UsageError
from restore.metrics.pairs import AnyArray, FloatArray
from restore.resizing import imresize

FILE = "niqe_pris_params.npz"
OFFERED = f"github.com/XPixelGroup/BasicSR, basicsr/metrics/{FILE}"

_BLOCK = 96
_FEATURES = 36
_SIGMA = 7 / 6  # of the window of 7 x 7 pixels that a pixel is compared with
_ROUNDING = 1e-9  # far above that of float64, far below what a step of 1 in 255 makes
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # of the neighbour that a pixel is multiplied with


@dataclass(frozen=True)
class NaturalModel:
    """What the features of natural pictures are: a normal distribution.

    Attributes:
        mean: [F].
        covariance: [F, F].
    """

    mean: FloatArray
    covariance: FloatArray


def read_model(path: Path) -> NaturalModel:
    """Read BasicSR's file of the authors' parameters: `mu_pris_param` and `cov_pris_param`.

    Raises:
        UsageError: it cannot be read, or is another file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            mean = np.asarray(file["mu_pris_param"], np.float64).reshape(-1)
            covariance = np.asarray(file["cov_pris_param"], np.float64)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(f"NIQE: {path} is not {OFFERED}: {error}") from error
    if mean.shape != (_FEATURES,) or covariance.shape != (_FEATURES, _FEATURES):
        raise UsageError(
            f"NIQE: {path}: the model has {mean.shape} and {covariance.shape} numbers; "
            f"expected ({_FEATURES},) and ({_FEATURES}, {_FEATURES})"
        )
    return NaturalModel(mean, covariance)


def niqe(y: AnyArray, model: NaturalModel) -> float:
    """The distance of a picture from natural ones, at least 0.

    Args:
        y: [H, W], Y in 16..235 (or gray in 0..255); it is rounded.
        model: of natural pictures.

    Raises:
        UsageError: fewer than two blocks have variation to measure.
    """
    down, across = (side // _BLOCK for side in y.shape)
    image: FloatArray = y[: down * _BLOCK, : across * _BLOCK].astype(np.float64).round()
    if down * across < 2:
        raise UsageError(
            f"NIQE: the picture has {y.shape[0]} x {y.shape[1]} pixels; expected at least two "
            f"blocks of {_BLOCK} x {_BLOCK}"
        )
    scales = []
    for scale in (1, 2):
        blocks = _blocks(_normalised(image), _BLOCK // scale)
        scales.append(_block_features(blocks))
        if scale == 1:
            image = imresize(image, 0.5)
    features = np.concatenate(scales, axis=1)  # [N, F]
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:
        raise UsageError(f"NIQE: {len(whole)} of {len(features)} blocks are not flat; expected two")
    # as in the authors' program: a block counts in each mean for which it has a number
    difference = model.mean - np.nanmean(features, axis=0)
    covariance = (model.covariance + np.cov(whole, rowvar=False)) / 2
    # of a difference near 0 the product can round to below 0
    return math.sqrt(max(0.0, float(difference @ np.linalg.pinv(covariance) @ difference)))


def _normalised(image: FloatArray) -> FloatArray:
    """Each pixel less the mean around it, divided by the deviation there plus 1 (equation 1)."""
    mean = _blurred(image)
    deviation = np.sqrt(np.abs(_blurred(image * image) - mean * mean))
    normalised: FloatArray = (image - mean) / (deviation + 1)
    # where the picture is flat only rounding is left, whose signs would be counted further on
    normalised[np.abs(normalised) < _ROUNDING] = 0
    return normalised


def _blurred(image: FloatArray) -> FloatArray:
    """Gaussian mean of 7 x 7 pixels; the border's are repeated outside."""
    offset = np.arange(-3, 4)
    kernel = np.exp(-(offset**2) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    rows, columns = image.shape
    wide = np.pad(image, 3, mode="edge")
    down = np.zeros((rows, columns + 6))
    for i, weight in enumerate(kernel):
        down += weight * wide[i : i + rows]
    across = np.zeros_like(image)
    for i, weight in enumerate(kernel):
        across += weight * down[:, i : i + columns]
    return across


def _blocks(image: FloatArray, side: int) -> FloatArray:
    """[H, W] to [N, side, side]."""
    down, across = (length // side for length in image.shape)
    parted = image.reshape(down, side, across, side).transpose(0, 2, 1, 3)
    blocks: FloatArray = parted.reshape(-1, side, side)
    return blocks


def _block_features(blocks: FloatArray) -> FloatArray:
    """[N, side, side] to the 18 features of one scale, [N, 18]; NaN where a block is flat."""
    shape, left, right, _ = _asymmetric_fit(blocks)
    found = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right, ratio = _asymmetric_fit(blocks * np.roll(blocks, shift, axis=(1, 2)))
        found += [shape, (right - left) * ratio, left, right]
    return np.stack(found, axis=1)


def _asymmetric_fit(blocks: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """An asymmetric generalised normal distribution for the values of each block, by moments.

    Returns:
        Its shape, its width to the left and to the right, and gamma(2 / shape) / gamma(1 / shape)
        for its mean (equations 4 to 8), each [N].
    """
    shapes, ratios, widths, means = _table()
    x = blocks.reshape(len(blocks), -1)
    squares = x * x
    # a block without values on one side has no deviation there: NaN, as the mean of nothing
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (np.sqrt((squares * side).sum(1) / side.sum(1)) for side in (x < 0, x > 0))
        asymmetry = left / right
        ratio = np.abs(x).mean(1) ** 2 / squares.mean(1)
        ratio *= (asymmetry**3 + 1) * (asymmetry + 1) / (asymmetry**2 + 1) ** 2
    nearest = np.searchsorted((ratios[1:] + ratios[:-1]) / 2, ratio)
    nearest[np.isnan(ratio)] = 0  # as MATLAB's minimum of nothing but NaN
    return shapes[nearest], left * widths[nearest], right * widths[nearest], means[nearest]


@cache
def _table() -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """For shapes a from 0.2 to 10 in steps of 0.001, with g(n) = gamma(n / a).

    Returns:
        The shapes, g(2)^2 / (g(1) g(3)), sqrt(g(1) / g(3)) and g(2) / g(1).
    """
    shapes = np.arange(0.2, 10.001, 0.001)
    one, two, three = (np.array([math.gamma(n / a) for a in shapes]) for n in (1, 2, 3))
    return shapes, two**2 / (one * three), np.sqrt(one / three), two / one
