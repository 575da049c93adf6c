"""Small models with the attributes of `restore.Model`, whose arithmetic is exact.

They multiply by few-bit binary fractions only, so on inputs k / 256 every sum is exact in float32
and a tiled result can be compared with that of the whole picture without a guessed tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.archs._spec import InputRule

RADIUS = 2  # of Blur
ANY_SIZE = InputRule(multiple=1, minimum=1, align=1, halo=8)


@dataclass
class Fake:
    """Nearest neighbour enlargement; subclasses compute something."""

    scale: int = 1
    in_channels: int = 3
    align: int = 1
    halo: int = 8
    rule: InputRule = ANY_SIZE
    dtype: torch.dtype = torch.float32
    name: str = "fake"
    arch: str = "Fake"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    config: dict[str, Any] = field(default_factory=dict)
    before: Callable[[Tensor], None] | None = None  # is called with each input, and may raise
    sizes: list[tuple[int, ...]] = field(default_factory=list)  # of all inputs

    @property
    def out_channels(self) -> int:
        return self.in_channels

    def __call__(
        self, x: Tensor, *, dtype: torch.dtype | None = None, padding: str = "reflect"
    ) -> Tensor:
        self.sizes.append(tuple(x.shape))
        assert x.dtype == torch.float32
        assert x.shape[1] == self.in_channels
        if self.before is not None:
            self.before(x)
        return self.enlarge(self.compute(x, dtype or self.dtype))

    def compute(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x

    def enlarge(self, x: Tensor) -> Tensor:
        s = self.scale
        return x.repeat_interleave(s, 2).repeat_interleave(s, 3)


class Blur(Fake):
    """The mean over 5 x 5 pixels times 25 / 32, zeros outside; each output sub-pixel differs."""

    def compute(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        padded = F.pad(x, (RADIUS,) * 4)
        size = 2 * RADIUS + 1
        rows = sum(padded[:, :, i : i + x.shape[2]] for i in range(size))
        return sum(rows[:, :, :, i : i + x.shape[3]] for i in range(size)) / 32

    def enlarge(self, x: Tensor) -> Tensor:
        s = self.scale
        y = super().enlarge(x)
        sub = torch.arange(s)[:, None] + 2 * torch.arange(s)[None, :]
        return y * (1 - sub.tile(x.shape[2], x.shape[3]) / 16)


class Windows(Fake):
    """Half a pixel's own value and half the mean of its window of `align` x `align` pixels."""

    def compute(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        a = self.align
        h, w = x.shape[2:]
        padded = F.pad(x, (0, -w % a, 0, -h % a), mode="replicate")
        means = F.avg_pool2d(padded, a)
        return x / 2 + means.repeat_interleave(a, 2).repeat_interleave(a, 3)[:, :, :h, :w] / 2


def out_of_memory_above(pixels: int) -> Callable[[Tensor], None]:
    """A machine on which inputs of more than so many pixels do not fit."""

    def check(x: Tensor) -> None:
        if x.shape[0] * x.shape[2] * x.shape[3] > pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    return check
