"""Attention's Triton path against its definition in float64, for every pattern."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import interpreted
import pytest
import torch
from exactness import assert_as_exact_as, stacked
from interpreted import DEVICE
from torch import Tensor

from restore.kernels.category_attention import category_attention
from restore.kernels.dispatch import Backend
from restore.kernels.overlapping_attention import overlapping_attention
from restore.kernels.permuted_attention import permuted_attention
from restore.kernels.window_attention import window_attention

pytestmark = interpreted.MARKS

dtypes = pytest.mark.parametrize("dtype", interpreted.DTYPES, ids=str)


@dataclass(frozen=True)
class Windows:
    map: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]
    heads: int
    d: int
    images: int = 1
    chosen: tuple[int, ...] | None = None

    def __str__(self) -> str:
        (h, w), shape = self.map, f"{self.heads}x{self.d}"
        some = "" if self.chosen is None else f", of them {self.chosen}"
        return f"{self.images}x{h}x{w} by {self.window} shift {self.shift} {shape}{some}"

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        (h, w), (wh, ww) = self.map, self.window
        return drawn(
            dtype,
            (self.images, h, w, 3, self.heads * self.d),
            ((2 * wh - 1) * (2 * ww - 1), self.heads),
        )

    def run(self, backend: Backend) -> Callable[[Tensor, Tensor], Tensor]:
        def call(qkv: Tensor, table: Tensor) -> Tensor:
            some = None if self.chosen is None else torch.tensor(self.chosen, device=qkv.device)
            return window_attention(
                qkv,
                table,
                self.window,
                self.shift,
                num_heads=self.heads,
                windows=some,
                backend=backend,
            )

        return call


@dataclass(frozen=True)
class Overlapping:
    map: tuple[int, int]
    window: tuple[int, int]
    halo: tuple[int, int]
    heads: int
    d: int

    def __str__(self) -> str:
        return f"{self.map} by {self.window} halo {self.halo} {self.heads}x{self.d}"

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        down, across = (2 * (w + halo) - 1 for w, halo in zip(self.window, self.halo, strict=True))
        return drawn(dtype, (1, *self.map, 3 * self.heads * self.d), (down * across, self.heads))

    def run(self, backend: Backend) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda qkv, table: overlapping_attention(
            qkv, table, self.window, self.halo, num_heads=self.heads, backend=backend
        )


@dataclass(frozen=True)
class Permuted:
    map: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]
    heads: int
    d: int

    def __str__(self) -> str:
        return f"{self.map} by {self.window} shift {self.shift} {self.heads}x{self.d}"

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        c, (wh, ww) = self.heads * self.d, self.window
        table = ((wh - 1) * (ww - 1), self.heads)
        return drawn(dtype, (1, *self.map, c), (1, *self.map, c // 2), table)

    def run(self, backend: Backend) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return lambda q, kv, table: permuted_attention(
            q, kv, table, self.window, self.shift, num_heads=self.heads, backend=backend
        )


@dataclass(frozen=True)
class Categories:
    tokens: int
    size: int
    heads: int
    d: int
    images: int = 1

    def __str__(self) -> str:
        return f"{self.images}x{self.tokens} in groups of {self.size} {self.heads}x{self.d}"

    def draws(self, dtype: torch.dtype) -> list[list[Tensor]]:
        """Several: the gradient of one number is one sum, which may be off by little or much."""
        shape = (self.images, self.tokens, 3 * self.heads * self.d)
        (qkv,) = drawn(dtype, (max(8, 256 // self.tokens), *shape))
        return [[x.to(DEVICE), torch.full((1, 1), 0.5).to(DEVICE, dtype)] for x in qkv]

    def run(self, backend: Backend) -> Callable[[Tensor, Tensor], Tensor]:
        shape = (self.images, self.tokens)
        category = torch.randint(5, shape, generator=torch.Generator().manual_seed(2))
        return lambda qkv, log_scale: category_attention(
            qkv,
            category.to(qkv.device),
            log_scale,
            category_size=self.size,
            num_heads=self.heads,
            backend=backend,
        )


def drawn(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


WINDOWS = [
    Windows((8, 12), (4, 4), (0, 0), 2, 5),
    Windows((8, 8), (4, 4), (2, 2), 3, 10, images=2),
    Windows((7, 14), (7, 7), (3, 3), 2, 30),
    Windows((4, 32), (4, 16), (2, 8), 1, 30),
    Windows((16, 8), (16, 4), (0, 2), 1, 35),
    Windows((4, 4), (4, 4), (0, 3), 1, 53),
    Windows((4, 4), (4, 4), (1, 0), 1, 77),
    Windows((4, 4), (4, 4), (0, 0), 1, 122),
    Windows((8, 8), (4, 4), (1, 2), 2, 10, images=2, chosen=(6, 0, 3)),
    Windows((33, 4), (33, 2), (0, 1), 1, 10),  # more keys than one tile
    Windows((70, 4), (70, 2), (0, 1), 1, 10),  # stripes, whose length kernels are not for
    Windows((2, 140), (1, 140), (0, 70), 2, 5),
]
OTHERS = [
    Overlapping((8, 12), (4, 4), (1, 1), 2, 5),
    Overlapping((4, 8), (4, 4), (3, 5), 1, 30),  # a halo wider than a window
    Overlapping((7, 7), (7, 7), (2, 2), 1, 35),
    Permuted((8, 12), (4, 4), (0, 0), 2, 10),
    Permuted((8, 8), (4, 8), (1, 3), 1, 12),  # odd shifts cut cells
    Permuted((22, 22), (22, 22), (11, 11), 2, 30),
    Permuted((8, 16), (8, 16), (2, 0), 1, 12),  # one tile of keys, several of queries
]
CATEGORIES = [
    Categories(20, 8, 2, 5, images=2),  # the last group is filled up
    Categories(7, 100, 1, 12),
    Categories(72, 68, 1, 35),  # filled up, in several tiles
]


@pytest.mark.parametrize("case", WINDOWS, ids=str)
@dtypes
def test_windows(case: Windows, dtype: torch.dtype) -> None:
    interpreted.assert_exact(case.run("triton"), case.run("reference"), case.inputs(dtype))


@pytest.mark.parametrize("case", OTHERS, ids=str)
@dtypes
def test_other_patterns(case: Overlapping | Permuted, dtype: torch.dtype) -> None:
    interpreted.assert_exact(case.run("triton"), case.run("reference"), case.inputs(dtype))


@pytest.mark.parametrize("case", CATEGORIES, ids=str)
@dtypes
def test_categories(case: Categories, dtype: torch.dtype) -> None:
    draws = case.draws(dtype)
    truth = stacked(case.run("reference"), [[x.double() for x in draw] for draw in draws])
    torch_does = stacked(case.run("reference"), draws)
    got = stacked(case.run("triton"), draws)
    for one, result, true in zip(torch_does, got, truth, strict=True):
        assert_as_exact_as(one, result, true)
