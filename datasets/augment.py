"""Mirroring, turning and mixing of training patches."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore.errors import UsageError

Array = NDArray[Any]

ORIENTATIONS = 8
_FLIPS = {1: 1, 2: 0, 3: -1}  # as OpenCV numbers them


def draw_orientation(random: np.random.Generator, hflip: bool, rotate: bool) -> int:
    """One of the eight orientations of a square, as BasicSR draws them.

    Bit 0: mirrored left to right, half of the time where `hflip`. Bit 1: top to bottom, bit 2: rows
    and columns swapped, each half of the time where `rotate`.
    """
    # three numbers whatever is asked for, so that what is drawn after them stays the same
    mirror, upset, swap = random.random(3) < 0.5
    return int(hflip and mirror) + 2 * int(rotate and upset) + 4 * int(rotate and swap)


def oriented(patch: Array, orientation: int) -> Array:
    """A patch [H, W, C] in an orientation; rows and columns swap for 4 and above.

    Raises:
        UsageError: it is none of 0 to 7.
    """
    if not 0 <= orientation < ORIENTATIONS:
        raise UsageError(f"orientation is {orientation}; expected 0 to {ORIENTATIONS - 1}")
    rows, columns, channels = patch.shape
    # OpenCV, because a copy of a mirrored view takes NumPy 20 times as long
    if orientation & 3:
        patch = cv2.flip(patch, _FLIPS[orientation & 3])
    if orientation & 4:
        patch, rows, columns = cv2.transpose(patch), columns, rows
    return patch.reshape(rows, columns, channels)  # it leaves a single channel out


def mixup(
    lq: Tensor,
    gt: Tensor,
    random: np.random.Generator,
    *,
    beta: float = 1.2,
    identity: bool = False,
) -> tuple[Tensor, Tensor]:
    """Weighted means of each pair with another pair of the batch, the same weights in lq and gt.

    Args:
        lq: [B, C, h, w].
        gt: [B, C, H, W].
        random: decides weight and partners.
        beta: the weight is drawn from Beta(beta, beta), one for the batch.
        identity: leave a half of all batches as they are.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", arXiv:1710.09412, equation 1.
    """
    keep = bool(random.random() < 0.5)
    weight = float(random.beta(beta, beta))
    partner = torch.from_numpy(random.permutation(len(lq))).to(lq.device)
    if identity and keep:
        return lq, gt
    return weight * lq + (1 - weight) * lq[partner], weight * gt + (1 - weight) * gt[partner]
