"""Pairs of pictures from files: training patches, and whole pictures for validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restore.datasets.cache import PictureCache
from restore.datasets.images import Colour, Pictures
from restore.datasets.listing import Pair
from restore.datasets.patches import Patch, PatchSet, check_patch, draw_box
from restore.datasets.sampler import Draw
from restore.errors import ImageError


class PairedPatches(PatchSet):
    """Patches that lie at the same place in a low- and a high-quality picture.

    Args:
        pairs: the pictures.
        scale: rows and columns of gt over those of lq, exactly.
        seed: of all random numbers.
        hflip, rotate, colour: see `PatchSet`.
        cache_bytes: of memory for decoded pictures.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        scale: int,
        seed: int,
        hflip: bool = True,
        rotate: bool = True,
        colour: Colour = "rgb",
        cache_bytes: int = 0,
    ) -> None:
        super().__init__(scale=scale, seed=seed, hflip=hflip, rotate=rotate, colour=colour)
        cache = PictureCache(2 * len(pairs), cache_bytes)
        self._gt = Pictures([pair.gt for pair in pairs], colour, cache)
        self._lq = Pictures([pair.lq for pair in pairs], colour, cache, len(pairs))

    def __len__(self) -> int:
        return len(self._gt)

    def names(self, index: int) -> tuple[str, str]:
        """What the two pictures are called."""
        return str(self._lq.entries[index]), str(self._gt.entries[index])

    def patch(self, draw: Draw, random: np.random.Generator) -> Patch:
        """Both sides of a patch; ImageError where the pictures do not fit each other."""
        lq_size, gt_size = self._lq.size(draw.index), self._gt.size(draw.index)
        check_scale(self.names(draw.index), lq_size, gt_size, self.scale)
        check_patch(self.names(draw.index)[0], lq_size, draw.gt_size, self.scale)
        side = draw.gt_size // self.scale
        box = draw_box(lq_size, side, side, random)
        gt = self._gt.part(draw.index, box.times(self.scale))
        return Patch(self._lq.part(draw.index, box), gt)


def check_scale(
    names: tuple[str, str], lq_size: tuple[int, int], gt_size: tuple[int, int], scale: int
) -> None:
    """Raise ImageError unless gt is exactly `scale` times as large as lq."""
    if gt_size != (lq_size[0] * scale, lq_size[1] * scale):
        swapped = lq_size == (gt_size[0] * scale, gt_size[1] * scale) and scale > 1
        if swapped:
            raise ImageError(
                f"{names[1]}: {gt_size[0]} x {gt_size[1]} pixels of gt, and {lq_size[0]} x "
                f"{lq_size[1]} of its lq {names[0]}: gt has to be the larger one; exchange "
                "dataroot_gt and dataroot_lq"
            )
        raise ImageError(
            f"{names[1]}: {gt_size[0]} x {gt_size[1]} pixels are not {scale} times the "
            f"{lq_size[0]} x {lq_size[1]} of {names[0]}; crop the gt to a multiple of {scale} and "
            "make its lq anew. `restore data check` lists all such pairs"
        )
