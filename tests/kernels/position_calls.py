"""Calls of `position_table` at the shapes of official networks, for `compiled.py`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from restore.kernels.position_table import position_table

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
SHAPES = {  # width, heads, window
    "HiT-SR": (3, 6, (64, 64)),
    "CAT-R": (5, 3, (4, 16)),
    "CAT-A": (5, 3, (256, 4)),
    "CAT-Unet": (12, 4, (16, 4)),
    "widest": (32, 32, (8, 8)),
}


def position_shapes(width: int, heads: int) -> list[tuple[int, ...]]:
    """Of the parameters of `position_table`."""
    shapes: list[tuple[int, ...]] = [(width, 2), (width,)]
    for out in (width, width, heads):
        shapes += [(width,), (width,), (out, width), (out,)]
    return shapes


def _call(name: str, dtype: torch.dtype) -> Callable[[], None]:
    width, heads, window = SHAPES[name]

    def run() -> None:
        parameters = [torch.empty(shape, dtype=dtype) for shape in position_shapes(width, heads)]
        position_table(parameters, window, backend="triton")

    return run


# full float32 in any case, so tf32 is the same kernel
CALLS = {
    f"{name} {dtype}".replace("torch.", ""): _call(name, dtype)
    for name in SHAPES
    for dtype in DTYPES
}
