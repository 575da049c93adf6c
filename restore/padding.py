"""Growing images to sizes that a network takes, and cropping what it makes of them.

Shape letters: B images, C channels, H x W the image, H' x W' what it grew to, s the scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from restore.archs._blocks import reflect_index
from restore.archs._spec import InputRule, PublishedPadding
from restore.errors import UsageError
from restore.kernels.windows import symmetric_index

Padding = Literal["reflect", "published"]
PADDINGS: tuple[Padding, ...] = ("reflect", "published")


@dataclass(frozen=True)
class Grown:
    """A grown image, and where in it the image lies."""

    x: Tensor  # [B, C, H', W']
    top: int
    left: int
    height: int
    width: int

    def crop(self, y: Tensor, scale: int) -> Tensor:
        """What belongs to the image: [B, C, H' * s, W' * s] to [B, C, H * s, W * s]."""
        bottom, right = self.top + self.height, self.left + self.width
        return y[:, :, self.top * scale : bottom * scale, self.left * scale : right * scale]


def check_padding(padding: object) -> None:
    """UsageError unless it is one of PADDINGS."""
    if padding not in PADDINGS:
        raise UsageError(f"padding: is {padding!r}; expected {' or '.join(map(repr, PADDINGS))}")


def grow(x: Tensor, rule: InputRule) -> Grown:
    """Grow an image at the right and bottom, and only if needed.

    By reflection; by repeating the edge where a side is smaller than what it lacks.

    Args:
        x: [B, C, H, W].
        rule: what sizes the network takes.
    """
    height, width = x.shape[2:]
    for dim, side in ((2, height), (3, width)):
        more = max(rule.minimum, _round_up(side, rule.multiple)) - side
        if more:
            pad = (0, 0, 0, more) if dim == 2 else (0, more, 0, 0)
            x = F.pad(x, pad, mode="reflect" if more < side else "replicate")
    return Grown(x, 0, 0, height, width)


def grow_as_published(x: Tensor, how: PublishedPadding) -> Grown:
    """Grow an image as the authors' test scripts do, on which their scores depend.

    Reflection and symmetric flips go on as often as needed, also where a script, which flips
    once, would fail.

    Args:
        x: [B, C, H, W].
        how: what the scripts do.
    """
    height, width = x.shape[2:]
    rows, cols = published_size(height, width, how)
    if how.mode == "zeros":
        below, beside = rows - height, cols - width
        top, left = (below // 2, beside // 2) if how.square else (0, 0)
        grown = F.pad(x, (left, beside - left, top, below - top))
        return Grown(grown, top, left, height, width)
    index = reflect_index if how.mode == "reflect" else symmetric_index
    for dim, side, padded in ((2, height, rows), (3, width, cols)):
        if padded != side:
            x = x.index_select(dim, index(side, padded, x.device))
    return Grown(x, 0, 0, height, width)


def published_size(height: int, width: int, how: PublishedPadding) -> tuple[int, int]:
    """Rows and columns to which `grow_as_published` grows an image of height x width."""
    # one pixel more makes a side that fits grow by a whole multiple
    rows, cols = (_round_up(side + how.always, how.multiple) for side in (height, width))
    return (max(rows, cols),) * 2 if how.square else (rows, cols)


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
