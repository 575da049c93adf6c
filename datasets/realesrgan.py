"""The second-order degradation chain of Real-ESRGAN, on batches, on any device.

Source: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic
Data", arXiv:2107.10833, section 3; order, ranges and choices are those of BasicSR 1.4.2.
Written anew.

What differs: there a batch shares one factor of resizing, and a pool of past pairs mixes batches.
Here each picture has a chain of its own, drawn from the seed and its position, so batches are
mixed without a pool and a resumed run needs no state.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from restore.datasets.blur_kernels import KernelRound, draw_final_sinc, draw_kernel
from restore.datasets.jpeg import jpeg

FloatArray = NDArray[np.float64]
Limits = tuple[float, float]

MODES = ("area", "bilinear", "bicubic")
_USM_SIDE = 51  # pixels of the blur behind sharpening
_USM_WEIGHT = 0.5
_USM_THRESHOLD = 10 / 255
_GRAY = (0.2989, 0.587, 0.114)  # of R, G, B


@dataclass(frozen=True)
class ChainRound:
    """What one of the two rounds draws from.

    Attributes:
        kernels: of the blur.
        blur: how often it blurs.
        resize: how often pictures grow, shrink, or are kept.
        resize_range: least and most factor.
        gaussian: how often noise is Gaussian, else it is Poisson's.
        sigma: least and most standard deviation of Gaussian noise, of 255.
        poisson: least and most strength of Poisson noise.
        gray: how often noise is the same in all channels.
        quality: least and most JPEG quality.
    """

    kernels: KernelRound
    blur: float
    resize: tuple[float, float, float]
    resize_range: Limits
    gaussian: float
    sigma: Limits
    poisson: Limits
    gray: float
    quality: Limits


@dataclass(frozen=True)
class ChainSettings:
    """The whole chain.

    Attributes:
        first, second: the rounds.
        final_sinc: how often a sinc filter comes last.
    """

    first: ChainRound
    second: ChainRound
    final_sinc: float


@dataclass(frozen=True)
class RoundPlan:
    """What one round does to one picture."""

    kernel: FloatArray | None
    factor: float
    mode: str
    gaussian: bool
    strength: float  # sigma of 255, or of Poisson noise
    gray: bool
    quality: float


@dataclass(frozen=True)
class ChainPlan:
    """What the chain does to one picture, and which part of it is trained on.

    Attributes:
        corner: where that part begins, each axis in 0..1 of the places there are.
    """

    first: RoundPlan
    second: RoundPlan
    final_kernel: FloatArray
    final_mode: str
    jpeg_last: bool
    noise_seed: int
    corner: tuple[float, float]


def draw_plan(settings: ChainSettings, random: np.random.Generator) -> ChainPlan:
    """The chain of one picture."""
    first = _draw_round(settings.first, random)
    second = _draw_round(settings.second, random)
    size = settings.second.kernels.size
    return ChainPlan(
        first,
        second,
        draw_final_sinc(settings.final_sinc, size, random),
        MODES[int(random.integers(len(MODES)))],
        bool(random.random() < 0.5),
        int(random.integers(2**63 - 1)),
        (float(random.random()), float(random.random())),
    )


def _draw_round(part: ChainRound, random: np.random.Generator) -> RoundPlan:
    kernel = draw_kernel(part.kernels, random)
    blurs = random.random() < part.blur
    weights = np.asarray(part.resize) / sum(part.resize)
    way = int(random.choice(3, p=weights))
    low, high = part.resize_range
    grown, shrunk = random.uniform(1, max(1, high)), random.uniform(min(1, low), 1)
    gaussian = bool(random.random() < part.gaussian)
    return RoundPlan(
        kernel if blurs else None,
        (grown, shrunk, 1.0)[way],
        MODES[int(random.integers(len(MODES)))],
        gaussian,
        float(random.uniform(*(part.sigma if gaussian else part.poisson))),
        bool(random.random() < part.gray),
        float(random.uniform(*part.quality)),
    )


def degrade(gt: Tensor, plans: Sequence[ChainPlan], scale: int) -> Tensor:
    """Low-quality pictures of good ones.

    Args:
        gt: [B, 3, H, W] in 0..1, multiples of scale, on any device.
        plans: one for each picture.
        scale: how many times smaller the result is.

    Returns:
        [B, 3, H / scale, W / scale], multiples of 1/255 in 0..1. The same on every run on one
        kind of device; CPUs and GPUs draw other noise.
    """
    blurred = _blur_each(gt, [plan.first.kernel for plan in plans])
    small = (gt.shape[-2] // scale, gt.shape[-1] // scale)
    out = torch.cat([_one(blurred[i : i + 1], plan, small) for i, plan in enumerate(plans)])
    return (out * 255).round().clamp(0, 255) / 255


def cut_out(
    lq: Tensor, others: Sequence[Tensor], plans: Sequence[ChainPlan], side: int
) -> list[Tensor]:
    """The part of each picture that is trained on.

    Args:
        lq: [B, C, h, w].
        others: [B, C, h * s, w * s] each; the same part is cut out of them.
        plans: one for each picture.
        side: of the part of lq, pixels.

    Returns:
        [B, C, side, side], then [B, C, side * s, side * s] of each of the others.
    """
    cut = []
    for images in (lq, *others):
        s = images.shape[-1] // lq.shape[-1]
        parts = []
        for image, plan in zip(images, plans, strict=True):
            places = (lq.shape[-2] - side + 1, lq.shape[-1] - side + 1)
            top, left = (s * int(f * n) for f, n in zip(plan.corner, places, strict=True))
            parts.append(image[:, top : top + s * side, left : left + s * side])
        cut.append(torch.stack(parts))
    return cut


def _one(image: Tensor, plan: ChainPlan, small: tuple[int, int]) -> Tensor:
    """The chain of one picture [1, 3, H, W] behind its first blur."""
    noise = torch.Generator(image.device).manual_seed(plan.noise_seed)
    first, second = plan.first, plan.second
    if first.factor != 1:
        image = F.interpolate(image, scale_factor=first.factor, mode=first.mode)
    image = _noisy(image, first, noise)
    image = jpeg(image, image.new_tensor([first.quality]))
    if second.kernel is not None:
        image = _blur_each(image, [second.kernel])
    sides = [max(1, int(side * second.factor)) for side in small]
    image = _noisy(F.interpolate(image, size=sides, mode=second.mode), second, noise)
    quality = image.new_tensor([second.quality])
    if not plan.jpeg_last:
        image = jpeg(image, quality)
    image = F.interpolate(image, size=small, mode=plan.final_mode)
    image = _blur_each(image, [plan.final_kernel])
    return jpeg(image.clamp(0, 1), quality) if plan.jpeg_last else image


def _noisy(image: Tensor, plan: RoundPlan, random: torch.Generator) -> Tensor:
    """Gaussian or Poisson noise on [1, 3, h, w], then clipped to 0..1."""
    if plan.gaussian:
        shape = (1, 1 if plan.gray else 3, *image.shape[-2:])
        drawn = torch.randn(shape, generator=random, device=image.device, dtype=image.dtype)
        return (image + drawn * (plan.strength / 255)).clamp(0, 1)
    seen = image
    if plan.gray:
        seen = torch.einsum("bchw,c->bhw", image, image.new_tensor(_GRAY))[:, None]
    levels = (seen.clamp(0, 1) * 255).round()
    # as many photons at white as a power of two not below the number of grays in the picture
    grays = (torch.bincount(levels.flatten().int(), minlength=256) > 0).sum()
    photons = torch.exp2(torch.ceil(torch.log2(grays.to(image.dtype))))
    seen = levels / 255
    counted = torch.poisson(seen * photons, generator=random) / photons
    return (image + (counted - seen) * plan.strength).clamp(0, 1)


def sharpened(images: Tensor) -> Tensor:
    """Unsharp masking where a picture [B, C, H, W] differs from its blur by more than 10 of 255."""
    kernel = _usm_kernel()
    blurred = _separable(images, kernel)
    residual = images - blurred
    mask = _separable((residual.abs() > _USM_THRESHOLD).to(images.dtype), kernel)
    sharp = (images + _USM_WEIGHT * residual).clamp(0, 1)
    return mask * sharp + (1 - mask) * images


@functools.cache
def _usm_kernel() -> FloatArray:
    # 0: OpenCV's rule gives the standard deviation by the side
    return np.asarray(cv2.getGaussianKernel(_USM_SIDE, 0), dtype=np.float64)[:, 0]


def _separable(images: Tensor, kernel: FloatArray) -> Tensor:
    taps = torch.from_numpy(kernel).to(images)
    channels, reach = images.shape[1], len(kernel) // 2
    down, across = taps[:, None].repeat(channels, 1, 1, 1), taps.repeat(channels, 1, 1, 1)
    tall = F.conv2d(_mirrored(images, (0, 0, reach, reach)), down, groups=channels)
    return F.conv2d(_mirrored(tall, (reach, reach, 0, 0)), across, groups=channels)


def _blur_each(images: Tensor, kernels: Sequence[FloatArray | None]) -> Tensor:
    """Each picture [C, H, W] correlated with its own kernel, or left as it is."""
    used = [kernel for kernel in kernels if kernel is not None]
    if not used:
        return images
    reach = max(len(kernel) for kernel in used) // 2
    weights = np.zeros((len(kernels), 2 * reach + 1, 2 * reach + 1))
    for i, kernel in enumerate(kernels):
        middle = np.ones((1, 1)) if kernel is None else kernel
        inset = reach - len(middle) // 2
        weights[i, inset : inset + len(middle), inset : inset + len(middle)] = middle
    batch, channels, height, width = images.shape
    weight = torch.from_numpy(weights).to(images).repeat_interleave(channels, 0)[:, None]
    grown = _mirrored(images, (reach,) * 4)
    flat = grown.reshape(1, batch * channels, *grown.shape[-2:])
    return F.conv2d(flat, weight, groups=batch * channels).reshape(batch, channels, height, width)


def _mirrored(images: Tensor, pad: tuple[int, ...]) -> Tensor:
    """Grown by mirroring without the last pixel; small pictures are mirrored more than once."""
    left, right, top, bottom = pad
    rows = _reflection(images.shape[-2], top, bottom, images.device)
    columns = _reflection(images.shape[-1], left, right, images.device)
    return images[..., rows[:, None], columns]


def _reflection(size: int, before: int, after: int, device: torch.device) -> Tensor:
    at = torch.arange(-before, size + after, device=device)
    period = max(1, 2 * size - 2)
    at = at.remainder(period)
    return torch.where(at < size, at, period - at)
