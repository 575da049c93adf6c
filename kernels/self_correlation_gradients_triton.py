# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Gradients of `self_correlation_triton`; see `correlation_blocks_triton` for the formulas.

With dr the gradient of the reduced values and P pixels in a block:

    dq_a = dy_a S + dA v_a / N            dr = r (dS + dS^T) / d + position_bias^T dy
    dv_a = A^T dz_a + dA^T q_a / N + weight_p dr_m
    dweight_p = sum of dr_m . v_a over all blocks m, whose pixel p is a;   dbias = sum of dr

The products with the position bias, position_bias^T dy and its own gradient sum dy r^T over all
windows, are large ones of two matrices: they are left to PyTorch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from restore.kernels.correlation_blocks_triton import (
    Plan,
    constants,
    first_pixel,
    load_reduced,
    matrix_precision,
    pixel_of_block,
    run_summarise,
    sum_of_parts,
)
from restore.kernels.precision import full_precision

WIDEST = 4  # pixels of a block in a tile
SPLIT_TILES = 8  # of the pixels of a block, for each program


@triton.jit
def whole_matrices(
    qv,
    weight,
    bias,
    dy,
    reduced,
    window,
    first,
    m,
    c,
    across,
    CH: tl.constexpr,
    OUT: tl.constexpr,
    M: tl.constexpr,
    WW: tl.constexpr,
    SPATIAL: tl.constexpr,
    CHANNEL: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """N A, N dA, d S, dS and r of a window whose pixels m are all here; r is written down."""
    pixel = first + pixel_of_block(m, 0, across, WW, 1, 1)
    inside = (m < M)[:, None] & (c < CH)[None, :]
    at = pixel[:, None] * (2 * CH) + c[None, :]
    at_y = pixel[:, None] * OUT + c[None, :]
    q = tl.load(qv + at, mask=inside, other=0.0)
    v = tl.load(qv + at + CH, mask=inside, other=0.0)
    a = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    da = a
    s = a
    ds = a
    r = v
    if CHANNEL:
        dy_c = tl.load(dy + at_y + (OUT - CH), mask=inside, other=0.0)
        a = tl.dot(tl.trans(q), v, a, input_precision=PRECISION)
        da = tl.dot(tl.trans(dy_c), v, da, input_precision=PRECISION)
    if SPATIAL:
        dy_s = tl.load(dy + at_y, mask=inside, other=0.0)
        r = v.to(tl.float32) * tl.load(weight).to(tl.float32) + tl.load(bias).to(tl.float32)
        r = tl.where(inside, r, 0.0).to(v.dtype)
        at_r = (window.to(tl.int64) * M + m)[:, None] * CH + c[None, :]
        tl.store(reduced + at_r, r, mask=inside)
        s = tl.dot(tl.trans(r), r, s, input_precision=PRECISION)
        ds = tl.dot(tl.trans(q), dy_s, ds, input_precision=PRECISION)
    return a, da, s, ds, r


@triton.jit
def joined_matrices(
    reduced,
    products,
    window,
    m,
    c,
    CH: tl.constexpr,
    M: tl.constexpr,
    SPATIAL: tl.constexpr,
    CHANNEL: tl.constexpr,
    SPLITS: tl.constexpr,
    SUMMED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """N A, N dA, d S and dS of a window, and r of its blocks m, from what `summarise` wrote."""
    present = c < CH
    held = present[:, None] & present[None, :]
    windows = window + tl.zeros([BLOCK_C], tl.int32)
    a = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    da = a
    s = a
    ds = a
    r = a
    if CHANNEL:
        a = sum_of_parts(products, windows, c, held, CH, 0, 3, SPLITS)
        da = sum_of_parts(products, windows, c, held, CH, 1, 3, SPLITS)
    if SPATIAL:
        ds = sum_of_parts(products, windows, c, held, CH, 2, 3, SPLITS)
        for start in range(0, M, SUMMED):
            some = start + tl.arange(0, SUMMED)
            other = load_reduced(reduced, windows, some, c, present, M, CH)
            s = tl.dot(tl.trans(other), other, s, input_precision=PRECISION)
        r = load_reduced(reduced, windows, m, c, present, M, CH)
    return a, da, s, ds, r


@triton.jit(do_not_specialize=["windows", "across"])
def correlate_back(
    qv,
    weight,
    bias,
    dy,
    by_position,
    reduced,
    products,
    dqv,
    dweight,
    dbias,
    windows,
    across,
    CH: tl.constexpr,
    HEADS: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
    RH: tl.constexpr,
    RW: tl.constexpr,
    SPATIAL: tl.constexpr,
    CHANNEL: tl.constexpr,
    WHOLE: tl.constexpr,
    SPLITS: tl.constexpr,
    STEPS: tl.constexpr,
    MB: tl.constexpr,
    PB: tl.constexpr,
    SUMMED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
    MATRIX_PRECISION: tl.constexpr,
):
    """dq and dv of some pixels of MB blocks of a window, and their part in dweight and dbias."""
    P: tl.constexpr = RH * RW
    N: tl.constexpr = WH * WW
    M: tl.constexpr = N // P
    D: tl.constexpr = CH // HEADS
    OUT: tl.constexpr = CH * 2 if SPATIAL and CHANNEL else CH
    window = tl.program_id(0)
    m0 = tl.program_id(1) * MB
    part = tl.program_id(2)
    first = first_pixel(window, across, WH, WW)
    c = tl.arange(0, BLOCK_C)
    present = c < CH
    own_head = (c // D)[:, None] == (c // D)[None, :]
    blocks = m0 + tl.arange(0, MB)
    t = tl.arange(0, MB * PB)
    m = m0 + t // PB
    if WHOLE:
        a, da, s, ds, r = whole_matrices(
            qv, weight, bias, dy, reduced, window, first, blocks, c, across,
            CH, OUT, M, WW, SPATIAL, CHANNEL, BLOCK_C, PRECISION,
        )  # fmt: skip
    else:
        a, da, s, ds, r = joined_matrices(
            reduced, products, window, blocks, c,
            CH, M, SPATIAL, CHANNEL, SPLITS, SUMMED, BLOCK_C, PRECISION,
        )  # fmt: skip
    if CHANNEL:
        a = a / N
        da = da / N
    if SPATIAL:
        s = tl.where(own_head, s / D, 0.0)
        ds = tl.where(own_head, ds / D, 0.0)
        at_b = ((c // D)[None, :] * M + blocks[:, None]) * (windows.to(tl.int64) * D)
        at_b += window * D + (c % D)[None, :]
        inside_r = (blocks < M)[:, None] & present[None, :]
        dr = tl.load(by_position + at_b, mask=inside_r, other=0.0).to(tl.float32)
        dr = tl.dot(r.to(tl.float32), ds + tl.trans(ds), dr, input_precision=MATRIX_PRECISION)
        program = window * tl.num_programs(1) + tl.program_id(1)
        if part == 0:
            tl.store(dbias + program, tl.sum(dr))
    for step in range(STEPS):
        p0 = (part * STEPS + step) * PB
        p = p0 + t % PB
        pixel = first + pixel_of_block(m, p, across, WW, RH, RW)
        inside = ((m < M) & (p < P))[:, None] & present[None, :]
        at = pixel[:, None] * (2 * CH) + c[None, :]
        at_y = pixel[:, None] * OUT + c[None, :]
        v32 = tl.load(qv + at + CH, mask=inside, other=0.0).to(tl.float32)
        dq = tl.zeros([MB * PB, BLOCK_C], tl.float32)
        dv = tl.zeros([MB * PB, BLOCK_C], tl.float32)
        if SPATIAL:
            dy_s32 = tl.load(dy + at_y, mask=inside, other=0.0).to(tl.float32)
            dq = tl.dot(dy_s32, s, dq, input_precision=MATRIX_PRECISION)
            spread = tl.broadcast_to(dr[:, None, :], [MB, PB, BLOCK_C])
            spread = tl.reshape(spread, [MB * PB, BLOCK_C])
            dv = spread * tl.load(weight + p, mask=p < P, other=0.0).to(tl.float32)[:, None]
            by_pixel = tl.sum(tl.reshape(spread * v32, [MB, PB, BLOCK_C]), axis=2)
            some = p0 + tl.arange(0, PB)
            tl.store(dweight + program * P + some, tl.sum(by_pixel, axis=0), mask=some < P)
        if CHANNEL:
            q32 = tl.load(qv + at, mask=inside, other=0.0).to(tl.float32)
            dy_c32 = tl.load(dy + at_y + (OUT - CH), mask=inside, other=0.0).to(tl.float32)
            dq = tl.dot(v32, tl.trans(da), dq, input_precision=MATRIX_PRECISION)
            dv = tl.dot(dy_c32, a, dv, input_precision=MATRIX_PRECISION)
            dv = tl.dot(q32, da, dv, input_precision=MATRIX_PRECISION)
        tl.store(dqv + at, dq, mask=inside)
        tl.store(dqv + at + CH, dv, mask=inside)


def backward(
    plan: Plan,
    dy: Tensor,
    qv: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    position_bias: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of qv, weight, bias and position_bias; None for what is None. All contiguous."""
    reduced = products = None
    if not plan.whole:
        reduced, products = run_summarise(plan, qv, weight, bias, dy)
    dqv = torch.empty_like(qv)
    if weight is None or bias is None or position_bias is None:
        _run(plan, dy, qv, (None, None, None), products, (dqv, None, None, None))
        return dqv, None, None, None
    if reduced is None:  # the kernel makes it
        shape = (plan.windows, plan.blocks, plan.half)
        reduced = torch.empty(shape, dtype=qv.dtype, device=qv.device)
    columns = _columns(plan, dy)  # [heads, N, n d]
    with full_precision(qv):
        by_position = position_bias.to(qv.dtype).mT @ columns  # [heads, M, n d]
    parts = plan.windows * triton.cdiv(plan.blocks, plan.tile(WIDEST)[0])
    dweight = torch.empty((parts, plan.block_pixels), dtype=torch.float32, device=qv.device)
    dbias = torch.empty((parts,), dtype=torch.float32, device=qv.device)
    _run(plan, dy, qv, (weight, bias, by_position), products, (dqv, reduced, dweight, dbias))
    rows = reduced.unflatten(2, (plan.num_heads, -1)).permute(2, 1, 0, 3).flatten(2)
    with full_precision(qv):
        dposition = columns @ rows.mT  # [heads, N, n d] by [heads, M, n d]
    return (
        dqv,
        dweight.sum(0).view(weight.shape).to(weight.dtype),
        dbias.sum().view(bias.shape).to(bias.dtype),
        dposition.to(position_bias.dtype),
    )


def _run(
    plan: Plan,
    dy: Tensor,
    qv: Tensor,
    given: tuple[Tensor | None, Tensor | None, Tensor | None],
    products: Tensor | None,
    found: tuple[Tensor, Tensor | None, Tensor | None, Tensor | None],
) -> None:
    """Launch `correlate_back`.

    Args:
        plan: of the call.
        dy: gradient of the result.
        qv: as given to the op.
        given: weight, bias and the product of dy with the position bias.
        products: of `summarise`.
        found: where to write dq and dv, the reduced values, and the parts of dweight and dbias.
    """
    weight, bias, by_position = given
    dqv, reduced, dweight, dbias = found
    mb, pb = plan.tile(WIDEST)
    steps = min(SPLIT_TILES, triton.cdiv(plan.block_pixels, pb))
    grid = (
        plan.windows,
        triton.cdiv(plan.blocks, mb),
        triton.cdiv(plan.block_pixels, steps * pb),
    )
    correlate_back[grid](
        qv,
        weight,
        bias,
        dy,
        by_position,
        reduced,
        products,
        dqv,
        dweight,
        dbias,
        plan.windows,
        plan.across,
        **constants(plan, qv.dtype),
        HEADS=plan.num_heads,
        RH=plan.reduction[0],
        RW=plan.reduction[1],
        WHOLE=plan.whole,
        SPLITS=plan.splits,
        STEPS=steps,
        MB=mb,
        PB=pb,
        SUMMED=plan.summed,
        MATRIX_PRECISION=matrix_precision(qv.dtype),
        num_warps=4,
    )


def _columns(plan: Plan, dy: Tensor) -> Tensor:
    """The spatial half of dy with all windows side by side: [heads, N, n d]."""
    (wh, ww), down = plan.window_size, dy.shape[1] // plan.window_size[0]
    x = dy[..., : plan.half].view(
        -1, down, wh, plan.across, ww, plan.num_heads, plan.half // plan.num_heads
    )
    return x.permute(5, 2, 4, 0, 1, 3, 6).reshape(plan.num_heads, plan.pixels, -1)
