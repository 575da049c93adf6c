"""Calls of attention at the shapes of official networks, for `compiled.py`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from restore.kernels.category_attention import category_attention
from restore.kernels.overlapping_attention import overlapping_attention
from restore.kernels.permuted_attention import permuted_attention
from restore.kernels.window_attention import window_attention

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def trained(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=dtype, requires_grad=True)


def windows(window: tuple[int, int], heads: int, d: int, shift: tuple[int, int], parts: int = 1):
    """Attention in windows; of each 1 / parts of the channels of a map, as branches take them.

    Windows more than four times as long as wide are stripes along a whole side.
    """

    def call(dtype: torch.dtype) -> Tensor:
        wh, ww = window
        rows, columns = wh if wh > 4 * ww else 2 * wh, ww if ww > 4 * wh else 2 * ww
        wide = trained(dtype, 1, rows, columns, 3, parts * heads * d)
        table = trained(torch.float32, (2 * wh - 1) * (2 * ww - 1), heads)
        last = wide.chunk(parts, dim=-1)[-1]
        return window_attention(last, table, window, shift, num_heads=heads, backend="triton")

    return call


def overlapping(side: int, halo: int, heads: int, d: int):
    def call(dtype: torch.dtype) -> Tensor:
        qkv = trained(dtype, 1, 2 * side, 2 * side, 3 * heads * d)
        table = trained(torch.float32, (2 * (side + halo) - 1) ** 2, heads)
        return overlapping_attention(
            qkv, table, (side, side), (halo, halo), num_heads=heads, backend="triton"
        )

    return call


def permuted(side: int, heads: int, d: int):
    def call(dtype: torch.dtype) -> Tensor:
        q = trained(dtype, 1, 2 * side, 2 * side, heads * d)
        kv = trained(dtype, 1, 2 * side, 2 * side, heads * d // 2)
        table = trained(torch.float32, (side - 1) ** 2, heads)
        return permuted_attention(
            q, kv, table, (side, side), (side // 2,) * 2, num_heads=heads, backend="triton"
        )

    return call


def categories(size: int, heads: int, d: int):
    def call(dtype: torch.dtype) -> Tensor:
        qkv = trained(dtype, 1, 64 * 64, 3 * heads * d)
        category = torch.zeros(1, 64 * 64, dtype=torch.int64)
        log_scale = trained(torch.float32, 1, 1)
        return category_attention(
            qkv, category, log_scale, category_size=size, num_heads=heads, backend="triton"
        )

    return call


SHAPES: dict[str, Callable[[torch.dtype], Tensor]] = {
    "SwinIR-M": windows((8, 8), 6, 30, (4, 4)),
    "SwinIR-S": windows((8, 8), 6, 10, (4, 4)),
    "SwinIR-L": windows((8, 8), 8, 30, (4, 4)),
    "SwinIR-M JPEG": windows((7, 7), 6, 30, (3, 3)),
    "HAT": windows((16, 16), 6, 30, (8, 8)),
    "HAT overlapping": overlapping(16, 4, 6, 30),
    "HAT-S": windows((16, 16), 6, 24, (8, 8)),
    "SRFormer w22": permuted(22, 6, 30),
    "SRFormer w24": permuted(24, 6, 30),
    "SRFormer-light": permuted(16, 6, 10),
    "SRFormerV2": permuted(36, 8, 30),
    "SRFormerV2 w12": windows((12, 12), 8, 30, (0, 0)),
    "CAT-R tall": windows((16, 4), 3, 30, (8, 2), parts=2),
    "CAT-R wide": windows((4, 16), 3, 30, (2, 8), parts=2),
    "CAT-A 64x2": windows((64, 2), 3, 30, (0, 1), parts=2),
    "CAT-A 4x64": windows((4, 64), 3, 30, (2, 0), parts=2),
    "CAT-A 256x4": windows((256, 4), 3, 30, (0, 2), parts=2),
    "CAT-Unet 128x4": windows((128, 4), 1, 24, (0, 2), parts=2),
    "CAT-Unet 64x4": windows((64, 4), 1, 48, (0, 2), parts=2),
    "CAT-Unet 4x32": windows((4, 32), 2, 48, (2, 0), parts=2),
    "CAT-Unet 16x4": windows((16, 4), 4, 48, (0, 2), parts=2),
    "Uformer-B": windows((8, 8), 2, 32, (4, 4)),
    "Uformer-T": windows((8, 8), 2, 16, (4, 4)),
    "DRCT 53": windows((16, 16), 4, 53, (8, 8)),
    "DRCT 122": windows((16, 16), 2, 122, (8, 8)),
    "DRCT 46": windows((16, 16), 6, 46, (8, 8)),
    "DRCT 77": windows((16, 16), 4, 77, (8, 8)),
    "ATD": windows((16, 16), 6, 35, (8, 8)),
    "ATD-light": windows((16, 16), 4, 12, (8, 8)),
    "ATD categories": categories(256, 6, 35),
    "ATD-light categories": categories(128, 4, 12),
}


def _both_ways(call: Callable[[torch.dtype], Tensor], dtype: torch.dtype) -> Callable[[], None]:
    def run() -> None:
        y = call(dtype)
        y.backward(torch.empty_like(y))

    return run


CALLS = {
    f"{name} {dtype}".replace("torch.", ""): _both_ways(call, dtype)
    for name, call in SHAPES.items()
    for dtype in DTYPES
}
