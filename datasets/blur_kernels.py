"""Random blur kernels as Real-ESRGAN draws them: Gaussians, their relatives, and sinc filters.

Source: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic
Data", arXiv:2107.10833, sections 3.1 and 3.3; ranges and choices are those of BasicSR 1.4.2.
Written anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from restore.errors import UsageError

FloatArray = NDArray[np.float64]
Kind = Literal[
    "iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"
]

LEAST_SIZE = 7
_SMALL = 13  # pixels: below, sinc filters of low cutoff would ring beyond the kernel


@dataclass(frozen=True)
class KernelRound:
    """What kernels one round of blur draws from.

    Attributes:
        size: the largest, pixels, odd; 7, 9, ... are drawn alike.
        kinds: of kernels.
        weights: how often each is drawn, in proportion.
        sinc: how often a sinc filter takes the kernel's place.
        sigma: least and most standard deviation, pixels.
        generalized: least and most exponent of a generalized Gaussian.
        plateau: least and most exponent of a plateau.
    """

    size: int
    kinds: tuple[Kind, ...]
    weights: tuple[float, ...]
    sinc: float
    sigma: tuple[float, float]
    generalized: tuple[float, float]
    plateau: tuple[float, float]

    def __post_init__(self) -> None:
        if self.size % 2 == 0 or self.size < LEAST_SIZE:
            raise UsageError(
                f"blur_kernel_size is {self.size}; expected an odd number from {LEAST_SIZE}"
            )
        if len(self.kinds) != len(self.weights) or not sum(self.weights) > 0:
            raise UsageError(
                f"kernel_prob has {len(self.weights)} numbers for {len(self.kinds)} kinds in "
                "kernel_list; expected one each, not all 0"
            )


def draw_kernel(rounds: KernelRound, random: np.random.Generator) -> FloatArray:
    """A kernel [K, K] with a sum of 1, zero outside of its own size, K = rounds.size."""
    size = _draw_size(rounds.size, random)
    if random.random() < rounds.sinc:
        least = math.pi / 3 if size < _SMALL else math.pi / 5
        return padded(sinc_kernel(random.uniform(least, math.pi), size), rounds.size)
    weights = np.asarray(rounds.weights) / sum(rounds.weights)
    kind = rounds.kinds[int(random.choice(len(rounds.kinds), p=weights))]
    sigma_x = random.uniform(*rounds.sigma)
    sigma_y, angle = sigma_x, 0.0
    if kind.endswith("aniso"):
        sigma_y, angle = random.uniform(*rounds.sigma), random.uniform(-math.pi, math.pi)
    exponent = 1.0
    if kind.startswith("generalized"):
        exponent = _draw_exponent(rounds.generalized, random)
    elif kind.startswith("plateau"):
        exponent = _draw_exponent(rounds.plateau, random)
    distance = _distance(size, sigma_x, sigma_y, angle) ** exponent
    shape = 1 / (1 + distance) if kind.startswith("plateau") else np.exp(-0.5 * distance)
    return padded(shape / shape.sum(), rounds.size)


def draw_final_sinc(often: float, size: int, random: np.random.Generator) -> FloatArray:
    """The filter at the end of the chain, [size, size]: a sinc filter, or one that does nothing."""
    if random.random() >= often:
        return padded(np.ones((1, 1)), size)
    own = _draw_size(size, random)
    return padded(sinc_kernel(random.uniform(math.pi / 3, math.pi), own), size)


def sinc_kernel(cutoff: float, size: int) -> FloatArray:
    """The circular low-pass filter of a cutoff in radians per pixel, [size, size], with a sum of 1.

    cutoff * J1(cutoff * r) / (2 pi r) at a distance of r pixels, cut off at the kernel's edges.
    """
    offset = np.arange(size) - (size - 1) / 2
    r = np.hypot(offset[:, None], offset)
    far = np.where(r == 0, 1, r)
    bessel = torch.special.bessel_j1(torch.from_numpy(cutoff * far)).numpy()
    values = np.where(r == 0, cutoff**2 / (4 * math.pi), cutoff * bessel / (2 * math.pi * far))
    kernel: FloatArray = values / values.sum()
    return kernel


def padded(kernel: FloatArray, size: int) -> FloatArray:
    """A kernel in the middle of a larger one of zeros."""
    return np.pad(kernel, (size - len(kernel)) // 2)


def _draw_size(largest: int, random: np.random.Generator) -> int:
    return LEAST_SIZE + 2 * int(random.integers((largest - LEAST_SIZE) // 2 + 1))


def _draw_exponent(limits: tuple[float, float], random: np.random.Generator) -> float:
    """Below 1 as often as above."""
    low, high = limits
    if random.random() < 0.5:
        return float(random.uniform(min(low, 1), 1))
    return float(random.uniform(1, max(high, 1)))


def _distance(size: int, sigma_x: float, sigma_y: float, angle: float) -> FloatArray:
    """Squared Mahalanobis distance from the middle, [size, size]."""
    offset = np.arange(size) - (size - 1) / 2
    y, x = offset[:, None], offset
    along = math.cos(angle) * x + math.sin(angle) * y
    beside = -math.sin(angle) * x + math.cos(angle) * y
    total: FloatArray = (along / sigma_x) ** 2 + (beside / sigma_y) ** 2
    return total
