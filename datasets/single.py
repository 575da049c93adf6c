"""Sets of good pictures alone: their low-quality side is made on the fly.

Shape letters: H rows, W columns, C channels, s scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.datasets.blur_kernels import KernelRound, draw_kernel
from restore.datasets.cache import PictureCache
from restore.datasets.degradations import (
    Reader,
    blurring,
    compressed,
    compressing,
    gaussian_noise,
    published_noise,
    resized,
)
from restore.datasets.images import Box, Colour, Pictures, unit
from restore.datasets.listing import Entry
from restore.datasets.patches import Patch, PatchSet, check_patch, draw_box
from restore.datasets.realesrgan import ChainSettings, draw_plan
from restore.datasets.sampler import Draw, sample_generator
from restore.errors import ImageError, UsageError
from restore.resizing import imresize

Array = NDArray[Any]
Task = Literal["bicubic", "noise", "jpeg", "blur"]

CHAIN_SIDE = 400  # pixels of gt that the second-order chain works on, as its authors have it


@dataclass(frozen=True)
class Degradation:
    """How the low-quality side is made: blurred, then made smaller, then noisy or compressed.

    Attributes:
        task: bicubic: made smaller alone; noise, jpeg, blur: that too, and smaller where s > 1.
        sigma: noise, of 255: a value, or least and most of what is drawn.
        quality: JPEG quality: a value, or least and most of what is drawn.
        kernels: of blur.
        noise_seed: of a validation picture's noise, which begins anew with each picture.
    """

    task: Task = "bicubic"
    sigma: float | tuple[float, float] = 25.0
    quality: int | tuple[int, int] = 40
    kernels: KernelRound | None = None
    noise_seed: int = 0

    def check(self, scale: int) -> None:
        """Raise UsageError where it would change nothing, or lacks its kernels."""
        if self.task == "bicubic" and scale == 1:
            raise UsageError(
                "task is bicubic and scale is 1, so lq would be gt itself; expected a scale from "
                "2, or task noise, jpeg or blur"
            )
        if self.task == "blur" and self.kernels is None:
            raise UsageError("task is blur without kernels to draw")

    def drawn_sigma(self, random: np.random.Generator) -> float:
        """The standard deviation of one sample."""
        if isinstance(self.sigma, tuple):
            return float(random.uniform(*self.sigma))
        return float(self.sigma)

    def drawn_quality(self, random: np.random.Generator) -> int:
        """The JPEG quality of one sample; both ends are drawn."""
        if isinstance(self.quality, tuple):
            return int(random.integers(self.quality[0], self.quality[1] + 1))
        return self.quality


class GoodPatches(PatchSet):
    """Patches of good pictures alone, whose names are those of both sides."""

    _gt: Pictures

    def __len__(self) -> int:
        return len(self._gt)

    def names(self, index: int) -> tuple[str, str]:
        """The picture's name, for both sides."""
        name = str(self._gt.entries[index])
        return name, name


class SyntheticPatches(GoodPatches):
    """Patches whose low-quality side is made of the high-quality one.

    A part of a degraded picture is made exactly as the same part of the whole picture would be.

    Args:
        entries: the pictures.
        scale: s; pictures are cut to multiples of it.
        seed: of all random numbers.
        degradation: how.
        factors: a picture is first made smaller by one of these, drawn of those at which it still
            holds a patch; in 0..1.
        hflip, rotate, colour: see `PatchSet`.
        cache_bytes: of memory for decoded pictures.

    Raises:
        UsageError: the degradation does nothing.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        scale: int,
        seed: int,
        degradation: Degradation,
        factors: Sequence[float] = (1.0,),
        hflip: bool = True,
        rotate: bool = True,
        colour: Colour = "rgb",
        cache_bytes: int = 0,
    ) -> None:
        super().__init__(scale=scale, seed=seed, hflip=hflip, rotate=rotate, colour=colour)
        degradation.check(scale)
        self._degradation, self._factors = degradation, tuple(factors)
        self._cache = PictureCache(2 * len(entries), cache_bytes)
        self._gt = Pictures(entries, colour, self._cache)

    def patch(self, draw: Draw, random: np.random.Generator) -> Patch:
        """A patch and what was made of it; ImageError where the picture is too small."""
        read, size, factor = self._scaled(draw, random)
        size = (size[0] // self.scale * self.scale, size[1] // self.scale * self.scale)
        small = (size[0] // self.scale, size[1] // self.scale)
        check_patch(self.names(draw.index)[1], small, draw.gt_size, self.scale)
        side = draw.gt_size // self.scale
        box = draw_box(small, side, side, random)
        gt = read(box.times(self.scale))
        if self._degradation.task == "bicubic" and factor == 1:
            shrunk = self._shrunk(draw.index)
            if shrunk is not None:
                return Patch(box.of(shrunk), gt)
        if self._degradation.task == "blur" and self._degradation.kernels is not None:
            kernel = draw_kernel(self._degradation.kernels, random)
            read = blurring(read, size, kernel)
        if self.scale > 1:
            read, small = resized(read, size, 1 / self.scale)
        return Patch(self._spoilt(read, small, box, random), gt)

    def _scaled(
        self, draw: Draw, random: np.random.Generator
    ) -> tuple[Reader, tuple[int, int], float]:
        """Parts of the picture at one of the factors, its size there, and the factor."""
        index, size = draw.index, self._gt.size(draw.index)

        def read(box: Box) -> Array:
            return self._gt.part(index, box)

        fitting = [f for f in self._factors if int(f * min(size)) >= draw.gt_size]
        chosen = random.random()
        factor = fitting[int(chosen * len(fitting))] if fitting else max(self._factors)
        if factor == 1:
            return read, size, factor
        part, size = resized(read, size, factor)
        return part, size, factor

    def _shrunk(self, index: int) -> Array | None:
        """The whole low-quality picture, where the cache has it or takes it."""
        slot = len(self) + index
        found = self._cache.find(slot)
        rows, columns = self._gt.size(index)
        if found is not None or not self._cache.has_room(rows * columns * 12 // self.scale**2):
            return found
        return self._cache.fetch(slot, lambda: shrunk(self._gt.whole(index), self.scale))

    def _spoilt(
        self, read: Reader, size: tuple[int, int], box: Box, random: np.random.Generator
    ) -> Array:
        how = self._degradation
        if how.task == "jpeg":
            return compressing(read, size, how.drawn_quality(random))(box)
        if how.task == "noise":
            clean = unit(read(box))
            return clean + gaussian_noise(clean.shape, how.drawn_sigma(random), random)
        return read(box)


class ChainPatches(GoodPatches):
    """Patches of 400 x 400 pixels, or as large as asked for, and the second-order chain for each.

    The chain itself runs where the training does, see `realesrgan.degrade`. Smaller pictures are
    mirrored at their right and bottom.

    Args:
        entries: the pictures.
        scale: s.
        seed: of all random numbers.
        chain: what is drawn from.
        hflip, rotate: see `PatchSet`.
        cache_bytes: of memory for decoded pictures.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        scale: int,
        seed: int,
        chain: ChainSettings,
        hflip: bool = True,
        rotate: bool = True,
        cache_bytes: int = 0,
    ) -> None:
        super().__init__(scale=scale, seed=seed, hflip=hflip, rotate=rotate, colour="rgb")
        self.chain = chain
        self._gt = Pictures(entries, "rgb", PictureCache(len(entries), cache_bytes))

    def patch(self, draw: Draw, random: np.random.Generator) -> Patch:
        """A part of the picture and its chain."""
        least = max(CHAIN_SIDE, draw.gt_size)
        side = least // self.scale * self.scale
        rows, columns = self._gt.size(draw.index)
        box = draw_box((rows, columns), min(rows, side), min(columns, side), random)
        part = np.ascontiguousarray(self._gt.part(draw.index, box))
        if part.shape[:2] != (side, side):
            below, beside = side - part.shape[0], side - part.shape[1]
            part = cv2.copyMakeBorder(part, 0, below, 0, beside, cv2.BORDER_REFLECT_101)
        return Patch(None, part, draw_plan(self.chain, random))


def shrunk(picture: Array, scale: int) -> Array:
    """A picture, cut to multiples of the scale, made smaller as MATLAB does it."""
    rows, columns = (side // scale * scale for side in picture.shape[:2])
    return imresize(np.ascontiguousarray(picture[:rows, :columns]), 1 / scale)


def validation_pair(
    picture: Array, index: int, scale: int, how: Degradation
) -> tuple[Array, Array]:
    """The whole low-quality side of a picture, and the picture cut to multiples of the scale.

    What is random depends on `how.noise_seed` alone; where a range is given, and for blur, on
    the picture's number too.

    Raises:
        ImageError: the picture is smaller than the scale.
    """
    if min(picture.shape[:2]) < scale:
        raise ImageError(f"a picture of {picture.shape[:2]} pixels is smaller than scale {scale}")
    rows, columns = (side // scale * scale for side in picture.shape[:2])
    gt = np.ascontiguousarray(picture[:rows, :columns])
    random, lq = sample_generator(how.noise_seed, index), gt
    if how.task == "blur" and how.kernels is not None:
        whole = Box(0, 0, rows, columns)
        lq = blurring(lambda box: box.of(gt), (rows, columns), draw_kernel(how.kernels, random))(
            whole
        )
    if scale > 1:
        lq = shrunk(lq, scale)
    if how.task == "jpeg":
        lq = compressed(lq, how.drawn_quality(random))
    elif how.task == "noise":
        lq = unit(lq) + published_noise(lq.shape, how.drawn_sigma(random), how.noise_seed)
    return lq, gt
