"""Whole pictures, one after the other: what validations and tests go through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore.datasets.images import Colour, header_size, luma, read_coloured, unit
from restore.datasets.listing import Entry
from restore.datasets.single import Degradation, validation_pair
from restore.errors import ImageError

Array = NDArray[Any]


class WholePair(NamedTuple):
    """One picture of a validation set.

    Attributes:
        lq: [1, C, h, w], float32 in 0..1 (noise reaches beyond).
        gt: [1, C, h * scale, w * scale], float32 in 0..1; None where there is none.
        lq_path, gt_path: names; equal where lq is made of gt, gt's empty where there is none.
    """

    lq: Tensor
    gt: Tensor | None
    lq_path: str
    gt_path: str


class ValidationSet:
    """Whole pictures by number; iterating goes through all, in the order of their list.

    Args:
        pairs: entries of both sides; lq alone (gt None); or gt alone, whose lq is then made.
        scale: gt pixels per lq pixel, along each axis.
        degradation: how lq is made where only gt is given.
        colour: rgb, gray or y.
        mean, std: of each channel: both sides become (x - mean) / std.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Entry | None, Entry | None]],
        *,
        scale: int,
        degradation: Degradation | None = None,
        colour: Colour = "rgb",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self._pairs, self._scale, self._colour = tuple(pairs), scale, colour
        self._degradation = degradation or Degradation()
        self._mean, self._std = mean, std
        if any(lq is None for lq, _ in self._pairs):
            self._degradation.check(scale)

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[WholePair]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> WholePair:
        """Read one picture; ImageError where that fails, or the sides do not fit each other."""
        lq_entry, gt_entry = self._pairs[index]
        gt = None if gt_entry is None else read_coloured(gt_entry, self._colour)
        if lq_entry is None:
            if gt is None:
                raise ImageError(f"picture {index} has neither side")
            lq, gt = validation_pair(gt, index, self._scale, self._degradation)
        else:
            lq = read_coloured(lq_entry, self._colour)
            if gt is not None:
                gt = cut_to_low(gt, lq, self._scale, f"{gt_entry}", f"{lq_entry}")
        gt_name = "" if gt_entry is None else str(gt_entry)
        lq_name = gt_name if lq_entry is None else str(lq_entry)
        return WholePair(
            self._tensor(lq), None if gt is None else self._tensor(gt), lq_name, gt_name
        )

    def name(self, index: int) -> str:
        """What the picture that results are compared with is called; lq where there is none."""
        lq, gt = self._pairs[index]
        return str(gt or lq)

    def scored_size(self, index: int) -> tuple[int, int] | None:
        """Rows and columns that results are compared on, from the headers of the files.

        None where there is nothing to compare with, or a header cannot be read.

        Raises:
            ImageError: the sides do not fit each other.
        """
        lq_entry, gt_entry = self._pairs[index]
        gt = None if gt_entry is None else header_size(gt_entry)
        if gt is None:
            return None
        if lq_entry is None:
            return gt[0] // self._scale * self._scale, gt[1] // self._scale * self._scale
        lq = header_size(lq_entry)
        if lq is None:
            return None
        check_sides(gt, lq, self._scale, f"{gt_entry}", f"{lq_entry}")
        return lq[0] * self._scale, lq[1] * self._scale

    def _tensor(self, picture: Array) -> Tensor:
        values = luma(picture) if self._colour == "y" else unit(picture)
        turned = np.ascontiguousarray(values.transpose(2, 0, 1))[None]
        # a copy: an array that lies in a file is not to be written to
        return normalised(torch.from_numpy(turned.copy()), self._mean, self._std)


def cut_to_low(gt: Array, lq: Array, scale: int, gt_name: str, lq_name: str) -> Array:
    """The part of a truth that its low-quality side shows, a view.

    Test pictures are often not cut to multiples of the scale; what is beyond does not count.

    Raises:
        ImageError: the sizes do not fit each other.
    """
    check_sides(gt.shape[:2], lq.shape[:2], scale, gt_name, lq_name)
    return gt[: scale * lq.shape[0], : scale * lq.shape[1]]


def check_sides(
    gt: tuple[int, ...], lq: tuple[int, ...], scale: int, gt_name: str, lq_name: str
) -> None:
    """ImageError unless rows and columns of a truth are `scale` times those of the other side.

    What is beyond a multiple of the scale does not count.
    """
    if not all(0 <= large - scale * small < scale for large, small in zip(gt, lq, strict=True)):
        raise ImageError(
            f"{gt_name}: {gt[0]} x {gt[1]} pixels are not {scale} times the {lq[0]} x {lq[1]} of "
            f"{lq_name}"
        )


def normalised(images: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> Tensor:
    """(x - mean) / std, channel by channel; unchanged where neither is given."""
    if mean is not None:
        images = images - images.new_tensor(tuple(mean))[:, None, None]
    if std is not None:
        images = images / images.new_tensor(tuple(std))[:, None, None]
    return images
