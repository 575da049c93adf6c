"""Training sets: batches of patches, and what all of them share.

Shape letters: B pictures, H rows, W columns, C channels, s scale.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from restore.datasets.augment import draw_orientation, oriented
from restore.datasets.images import Box, Colour, luma, unit
from restore.datasets.realesrgan import ChainPlan
from restore.datasets.sampler import Draw, sample_generator
from restore.errors import ImageError, UsageError

Array = NDArray[Any]


class Patch(NamedTuple):
    """One sample before it is turned; [h, w, C] and [h * s, w * s, C], of any kind."""

    lq: Array | None  # None: made of gt on the training device, by `plan`
    gt: Array
    plan: ChainPlan | None = None


@dataclass(frozen=True)
class HostBatch:
    """A batch as the reading processes make it.

    Attributes:
        lq: [B, h, w, C] uint8 (0 to 255), or float32 in 0..1; None: to be made of gt.
        gt: [B, h * s, w * s, C], likewise.
        plans: how lq is made, where it is None.
        lq_path: names, one for each picture.
        gt_path: names.
        index: positions in the stream.
        gt_size: side of the patches that are cut out after lq is made.
    """

    lq: Tensor | None
    gt: Tensor
    plans: list[ChainPlan]
    lq_path: list[str]
    gt_path: list[str]
    index: list[int]
    gt_size: int

    def pin_memory(self) -> HostBatch:
        """The same where copies to a GPU are fast; PyTorch's loader calls it."""
        lq = None if self.lq is None else self.lq.pin_memory()
        return replace(self, lq=lq, gt=self.gt.pin_memory())


class PatchSet(Dataset[HostBatch], abc.ABC):
    """Patches of pictures, turned at random.

    Args:
        scale: s.
        seed: of all random numbers.
        hflip: mirror left to right, half of the time.
        rotate: mirror top to bottom and swap rows and columns, each half of the time.
        colour: "y" turns patches into Y at the end.
    """

    def __init__(self, *, scale: int, seed: int, hflip: bool, rotate: bool, colour: Colour) -> None:
        self.scale, self.seed = scale, seed
        self._hflip, self._rotate, self._colour = hflip, rotate, colour

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many pictures there are."""

    @abc.abstractmethod
    def names(self, index: int) -> tuple[str, str]:
        """What the low- and the high-quality picture are called."""

    @abc.abstractmethod
    def patch(self, draw: Draw, random: np.random.Generator) -> Patch:
        """The patch of a draw."""

    def __getitem__(self, draw: Draw) -> HostBatch:
        """A batch of one."""
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[Draw]) -> HostBatch:
        """A batch; what the loader calls."""
        pairs = [self._turned(draw) for draw in draws]
        names = [self.names(draw.index) for draw in draws]
        lq = [pair.lq for pair in pairs if pair.lq is not None]
        return HostBatch(
            _stacked(lq) if lq else None,
            _stacked([pair.gt for pair in pairs]),
            [pair.plan for pair in pairs if pair.plan is not None],
            [name for name, _ in names],
            [name for _, name in names],
            [draw.position for draw in draws],
            draws[0].gt_size,
        )

    def _turned(self, draw: Draw) -> Patch:
        random = sample_generator(self.seed, draw.position)
        try:
            pair = self.patch(draw, random)
        except MemoryError as error:
            raise ImageError(f"{self.names(draw.index)[1]}: no memory to read it") from error
        way = draw_orientation(random, self._hflip, self._rotate)
        lq = None if pair.lq is None else oriented(self._coloured(pair.lq), way)
        return Patch(lq, oriented(self._coloured(pair.gt), way), pair.plan)

    def _coloured(self, patch: Array) -> Array:
        return luma(patch) if self._colour == "y" else patch


def draw_box(size: tuple[int, int], height: int, width: int, random: np.random.Generator) -> Box:
    """A part of a picture that is at least so large."""
    top = int(random.integers(size[0] - height + 1))
    left = int(random.integers(size[1] - width + 1))
    return Box(top, left, height, width)


def check_patch(name: str, size: tuple[int, int], gt_size: int, scale: int) -> None:
    """Raise unless a picture's low-quality side, of that size, holds a patch."""
    if min(size) < gt_size // scale:
        raise ImageError(
            f"{name}: {size[0]} x {size[1]} pixels of lq are less than a patch of "
            f"{gt_size // scale} x {gt_size // scale} (gt_size {gt_size}); remove the picture, or "
            "lower gt_size. `restore data check` lists all"
        )


def check_gt_size(gt_size: int, scale: int) -> None:
    """Raise UsageError unless a patch has a whole number of low-quality pixels."""
    if gt_size < scale or gt_size % scale:
        raise UsageError(
            f"gt_size is {gt_size}; expected a multiple of scale {scale}, such as "
            f"{max(1, gt_size // scale) * scale}"
        )


def _stacked(patches: Sequence[Array]) -> Tensor:
    """[B, h, w, C]; uint8 if all are."""
    shapes = {patch.shape for patch in patches}
    if len(shapes) > 1:
        raise ImageError(f"patches of one batch differ in shape: {sorted(shapes)}")
    as_bytes = all(patch.dtype == np.uint8 for patch in patches)
    batch = np.empty((len(patches), *patches[0].shape), np.uint8 if as_bytes else np.float32)
    for place, patch in zip(batch, patches, strict=True):
        place[:] = patch if as_bytes else unit(patch)
    return torch.from_numpy(batch)
