# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Keys and values of 2 x 2 cells of pixels, gathered so that the channels of a head lie in a row.

Attention reads every key as often as there are tiles of queries; reading it from four pixels each
time would take more instructions than the attention itself.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from restore.kernels.windows import Size

BLOCK = 16  # cells of a program


@triton.jit(do_not_specialize=["H", "W"])
def cells_kernel(
    pixels_ptr, cells_ptr, H, W, SY: tl.constexpr, SX: tl.constexpr, QUARTER: tl.constexpr,
    WIDE: tl.constexpr, BACK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """[B, H, W, 2, C / 4] to [B, H / 2, W / 2, 2, 4, C / 4], or BACK."""
    image = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, WIDE)
    live = (column < W // 2)[:, None] & (c < QUARTER)[None, :]
    cells = ((image * (H // 2) + row) * (W // 2) + column) * (8 * QUARTER)
    for part in tl.static_range(4):
        y = 2 * row + part // 2 + SY
        y = tl.where(y >= H, y - H, y)
        x = 2 * column + part % 2 + SX
        x = tl.where(x >= W, x - W, x)
        pixels = ((image * H + y) * W + x) * (2 * QUARTER)
        for value in tl.static_range(2):
            of_pixel = pixels_ptr + (pixels + value * QUARTER)[:, None] + c[None, :]
            of_cell = cells_ptr + (cells + (value * 4 + part) * QUARTER)[:, None] + c[None, :]
            if BACK:
                tl.store(of_pixel, tl.load(of_cell, mask=live), mask=live)
            else:
                tl.store(of_cell, tl.load(of_pixel, mask=live), mask=live)


def gather_cells(kv: Tensor, shift: Size) -> Tensor:
    """[B, H, W, C / 2] of a map, to [B, H / 2, W / 2, 2, C] of the map rolled up and left."""
    b, h, w, half = kv.shape
    cells = kv.new_empty(b, h // 2, w // 2, 2, 2 * half)
    _launch(kv.contiguous(), cells, shift, back=False)
    return cells


def scatter_cells(cells: Tensor, shift: Size) -> Tensor:
    """The inverse of `gather_cells`."""
    b, rows, columns, _, c = cells.shape
    kv = cells.new_empty(b, 2 * rows, 2 * columns, c // 2)
    _launch(kv, cells, shift, back=True)
    return kv


def _launch(pixels: Tensor, cells: Tensor, shift: Size, *, back: bool) -> None:
    b, h, w, half = pixels.shape
    grid = (triton.cdiv(w // 2, BLOCK), h // 2, b)
    with torch.cuda.device_of(pixels):
        cells_kernel[grid](
            pixels,
            cells,
            h,
            w,
            SY=shift[0],
            SX=shift[1],
            QUARTER=half // 2,
            WIDE=triton.next_power_of_2(half // 2),
            BACK=back,
            BLOCK=BLOCK,
        )
