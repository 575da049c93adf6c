# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""What the Triton kernels of HiT-SR's correlations share: where pixels lie, and sums of a window.

Without a softmax both correlations are products of a pixel with small matrices of its window:

    y_a = q_a S + sum_m position_bias[a, m] r_m,   S = r^T r / d, head by head
    z_a = A v_a,                                   A = q^T v / N

so the [N, M] and [N, N] products are never made. A window of up to 64 pixels whose values are not
reduced is one program of one kernel. Of any other, `summarise` makes r and, in parts, A, and a
second kernel reads the pixels again. The gradients need two more such matrices, dS = q^T dy and
dA = dz^T v.

Shape letters: N pixels of a window, M blocks of P pixels in it, c = C / 2 channels of q and of v.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from restore.kernels.triton_blocks import product_precision, tile_side
from restore.kernels.windows import Size

SIDE = 128  # bytes of a side of a tile at most: 64 pixels, or channels, of 2 bytes
SUMMED = {2: 64, 4: 16}  # reduced values in one product, by their bytes; see `Plan.summed`
SPLIT_PIXELS = 512  # of a window, for each program that summarises a part of it


@dataclass(frozen=True)
class Plan:
    """How a call is cut into programs."""

    side: int  # of a tile, at most
    windows: int  # in the batch
    across: int  # windows in a row of the map
    half: int  # channels of q and of v
    num_heads: int
    window_size: Size
    reduction: Size
    spatial: bool
    channel: bool

    @property
    def pixels(self) -> int:
        """N."""
        return self.window_size[0] * self.window_size[1]

    @property
    def block_pixels(self) -> int:
        """P."""
        return self.reduction[0] * self.reduction[1]

    @property
    def blocks(self) -> int:
        """M."""
        return self.pixels // self.block_pixels

    @property
    def whole(self) -> bool:
        """Whether one program holds a window."""
        return self.block_pixels == 1 and self.pixels <= self.side

    @property
    def block_c(self) -> int:
        """Channels of a tile: a power of two that holds half of them."""
        return tile_side(self.half)

    def tile(self, widest: int) -> Size:
        """Blocks, and pixels of each, in a tile of rows; at most `widest` pixels of a block."""
        pixels = min(widest, int(triton.next_power_of_2(self.block_pixels)))
        return min(self.side // pixels, self.rows(self.blocks)), pixels

    def rows(self, length: int) -> int:
        """Rows of a tile for so many: a power of two, enough for all or as many as it may have."""
        return tile_side(length, self.side)

    @property
    def summed(self) -> int:
        """Rows of r in one product that S = r^T r is the sum of.

        Its diagonal is a sum of squares, and every step of such a sum rounds all that it has come
        to: by one of 64 rows in float32, dq is off more than twice as much as the definition's.
        """
        return min(self.rows(self.blocks), SUMMED[SIDE // self.side])

    @property
    def splits(self) -> int:
        """Programs that summarise a window."""
        tiles = triton.cdiv(self.blocks, self.tile(8)[0])
        steps = triton.cdiv(tiles, max(1, min(tiles, self.pixels // SPLIT_PIXELS)))
        return int(triton.cdiv(tiles, steps))


def plan_of(
    qv: Tensor,
    window_size: Sequence[int],
    reduction: Sequence[int],
    num_heads: int,
    spatial: bool,
    channel: bool,
) -> Plan:
    """The plan for a map [B, H, W, C]."""
    b, h, w, c = qv.shape
    (wh, ww), (rh, rw) = window_size, reduction
    across = w // ww
    windows = b * (h // wh) * across
    side = SIDE // qv.element_size()
    if not spatial:  # blocks are only a way to count the pixels then
        num_heads, rh, rw = 1, 1, 1 if wh * ww <= side else ww
    return Plan(side, windows, across, c // 2, num_heads, (wh, ww), (rh, rw), spatial, channel)


def matrix_precision(dtype: torch.dtype) -> str:
    """`input_precision` of products of pixels with the float32 matrices of their window.

    Halves are exact in tf32, whose range is that of float32: without a softmax, nothing keeps the
    matrices inside that of float16.
    """
    return "tf32" if dtype.itemsize == 2 else product_precision(dtype)


def run_summarise(
    plan: Plan, qv: Tensor, weight: Tensor | None, bias: Tensor | None, dy: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """r [n, M, c] in the dtype of qv, and parts [n, splits, kinds, c, c] of A (, dA and dS).

    None for what is not needed. `dy` is given where gradients are sought.
    """
    n, c, splits = plan.windows, plan.half, plan.splits
    reduced = products = None
    if plan.spatial:
        reduced = torch.empty((n, plan.blocks, c), dtype=qv.dtype, device=qv.device)
    if plan.channel or dy is not None:
        kinds = 1 if dy is None else 3
        shape = (n, splits, kinds, c, c)
        products = torch.empty(shape, dtype=torch.float32, device=qv.device)
    mb, pb = plan.tile(8)
    summarise[(n, splits)](
        qv,
        weight,
        bias,
        dy,
        reduced,
        products,
        plan.across,
        **constants(plan, qv.dtype),
        RH=plan.reduction[0],
        RW=plan.reduction[1],
        BACKWARD=dy is not None,
        STEPS=triton.cdiv(triton.cdiv(plan.blocks, mb), splits),
        MB=mb,
        PB=pb,
        num_warps=4,
    )
    return reduced, products


def constants(plan: Plan, dtype: torch.dtype) -> dict[str, Any]:
    """The constants that every kernel takes."""
    return {
        "CH": plan.half,
        "WH": plan.window_size[0],
        "WW": plan.window_size[1],
        "SPATIAL": plan.spatial,
        "CHANNEL": plan.channel,
        "BLOCK_C": plan.block_c,
        "PRECISION": product_precision(dtype),
    }


@triton.jit
def first_pixel(window, across, WH: tl.constexpr, WW: tl.constexpr):
    """Number of a window's first pixel in the batch; windows are counted through all images."""
    return (window // across).to(tl.int64) * (WH * WW * across) + window % across * WW


@triton.jit
def pixel_of(token, across, WW: tl.constexpr):
    """How far a window's pixel, counted row by row in it, lies behind its first one."""
    return token // WW * (across * WW) + token % WW


@triton.jit
def pixel_of_block(m, p, across, WW: tl.constexpr, RH: tl.constexpr, RW: tl.constexpr):
    """How far pixel p of block m of a window lies behind the window's first one."""
    row = m // (WW // RW) * RH + p // RW
    return row * (across * WW) + m % (WW // RW) * RW + p % RW


@triton.jit(do_not_specialize=["across"])
def summarise(
    qv,
    weight,
    bias,
    dy,
    reduced,
    products,
    across,
    CH: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
    RH: tl.constexpr,
    RW: tl.constexpr,
    SPATIAL: tl.constexpr,
    CHANNEL: tl.constexpr,
    BACKWARD: tl.constexpr,
    STEPS: tl.constexpr,
    MB: tl.constexpr,
    PB: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """r of some blocks of a window, and the part that their pixels have in A, dA and dS."""
    KINDS: tl.constexpr = 3 if BACKWARD else 1
    OUT: tl.constexpr = CH * 2 if SPATIAL and CHANNEL else CH
    P: tl.constexpr = RH * RW
    M: tl.constexpr = WH * WW // P
    window = tl.program_id(0)
    split = tl.program_id(1)
    first = first_pixel(window, across, WH, WW)
    c = tl.arange(0, BLOCK_C)
    t = tl.arange(0, MB * PB)  # pixels of MB blocks, PB of each
    a = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    da = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    ds = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    for step in range(STEPS):
        m0 = (split * STEPS + step) * MB
        r = tl.zeros([MB, BLOCK_C], tl.float32)
        for p0 in range(0, P, PB):
            m = m0 + t // PB
            p = p0 + t % PB
            pixel = first + pixel_of_block(m, p, across, WW, RH, RW)
            inside = ((m < M) & (p < P))[:, None] & (c < CH)[None, :]
            at = pixel[:, None] * (2 * CH) + c[None, :]
            v = tl.load(qv + at + CH, mask=inside, other=0.0)
            if SPATIAL:
                factor = tl.load(weight + p, mask=p < P, other=0.0).to(tl.float32)
                part = v.to(tl.float32) * factor[:, None]
                r += tl.sum(tl.reshape(part, [MB, PB, BLOCK_C]), axis=1)
            if CHANNEL or BACKWARD:
                q_t = tl.trans(tl.load(qv + at, mask=inside, other=0.0))
                if CHANNEL:
                    a = tl.dot(q_t, v, a, input_precision=PRECISION)
                if BACKWARD and SPATIAL:
                    dy_s = tl.load(dy + pixel[:, None] * OUT + c[None, :], mask=inside, other=0.0)
                    ds = tl.dot(q_t, dy_s, ds, input_precision=PRECISION)
                if BACKWARD and CHANNEL:
                    at_c = pixel[:, None] * OUT + (OUT - CH) + c[None, :]
                    dy_c = tl.load(dy + at_c, mask=inside, other=0.0)
                    da = tl.dot(tl.trans(dy_c), v, da, input_precision=PRECISION)
        if SPATIAL:
            r += tl.load(bias).to(tl.float32)
            m_r = m0 + tl.arange(0, MB)
            at_r = (window.to(tl.int64) * M + m_r)[:, None] * CH + c[None, :]
            tl.store(reduced + at_r, r, mask=(m_r < M)[:, None] & (c < CH)[None, :])
    part = window.to(tl.int64) * tl.num_programs(1) + split
    at_p = part * (KINDS * CH * CH) + c[:, None] * CH + c[None, :]
    held = (c < CH)[:, None] & (c < CH)[None, :]
    if CHANNEL:
        tl.store(products + at_p, a, mask=held)
    if CHANNEL and BACKWARD:
        tl.store(products + at_p + CH * CH, da, mask=held)
    if SPATIAL and BACKWARD:
        tl.store(products + at_p + 2 * CH * CH, ds, mask=held)


@triton.jit
def sum_of_parts(
    products,
    window,
    channel,
    held,
    CH: tl.constexpr,
    KIND: tl.constexpr,
    KINDS: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """The whole of a matrix that `summarise` left in parts, one window's after the other's."""
    start = window.to(tl.int64)[:, None] * (SPLITS * KINDS) + KIND
    at = start * (CH * CH) + channel[:, None] * CH + channel[None, :]
    total = tl.zeros(held.shape, tl.float32)
    for split in range(SPLITS):
        total += tl.load(products + at + split * (KINDS * CH * CH), mask=held, other=0.0)
    return total


@triton.jit
def load_reduced(reduced, window, m, channel, present, M: tl.constexpr, CH: tl.constexpr):
    """r of blocks m (rows) and of the window and the channel of each column."""
    at = (window.to(tl.int64)[None, :] * M + m[:, None]) * CH + channel[None, :]
    return tl.load(reduced + at, mask=(m < M)[:, None] & present[None, :], other=0.0)
