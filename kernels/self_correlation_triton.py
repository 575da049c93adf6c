# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""`self_correlation`, and its two halves alone, in Triton; see `correlation_blocks_triton`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from restore.kernels import self_correlation_gradients_triton as gradients
from restore.kernels.correlation_blocks_triton import (
    Plan,
    constants,
    first_pixel,
    load_reduced,
    matrix_precision,
    pixel_of,
    plan_of,
    run_summarise,
    sum_of_parts,
)
from restore.kernels.windows import Size


def forward(
    qv: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    position_bias: Tensor | None,
    window_size: Size,
    reduction: Size,
    *,
    channel: bool,
) -> Tensor:
    """See `self_correlation.self_correlation`; the arguments are checked.

    Without a weight the spatial half is left out, without `channel` the other one.
    """
    num_heads = 1 if position_bias is None else position_bias.shape[0]
    y: Tensor = correlate_op(
        qv, weight, bias, position_bias, window_size, reduction, num_heads, channel
    )
    return y


@triton.jit
def _add_position_bias(
    y,
    position_bias,
    r,
    token,
    m,
    head,
    HEADS: tl.constexpr,
    N: tl.constexpr,
    M: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y + position_bias r: a product for each head, with the columns of all others 0."""
    held = (token < N)[:, None] & (m < M)[None, :]
    for h in range(HEADS):
        at = (h * N + token)[:, None] * M + m[None, :]
        bias = tl.load(position_bias + at, mask=held, other=0.0).to(r.dtype)
        own = tl.where((head == h)[None, :], r, 0.0).to(r.dtype)
        y = tl.dot(bias, own, y, input_precision=PRECISION)
    return y


@triton.jit(do_not_specialize=["windows", "across"])
def correlate(
    qv,
    weight,
    bias,
    position_bias,
    reduced,
    products,
    y,
    windows,
    across,
    CH: tl.constexpr,
    HEADS: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
    M: tl.constexpr,
    SPATIAL: tl.constexpr,
    CHANNEL: tl.constexpr,
    WHOLE: tl.constexpr,
    SPLITS: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    SUMMED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
    MATRIX_PRECISION: tl.constexpr,
):
    """Both correlations for a tile of the pixels of GROUP windows, which share its position bias.

    The windows lie side by side as columns, each with its channels; products between columns of
    different windows, or in `y` of different heads, are left out.
    """
    N: tl.constexpr = WH * WW
    D: tl.constexpr = CH // HEADS
    OUT: tl.constexpr = CH * 2 if SPATIAL and CHANNEL else CH
    col = tl.arange(0, GROUP * BLOCK_C)
    channel = col % BLOCK_C
    window = tl.program_id(0) * GROUP + col // BLOCK_C
    present = (channel < CH) & (window < windows)
    token = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (token < N)[:, None] & present[None, :]
    first = first_pixel(window, across, WH, WW)
    pixel = first[None, :] + pixel_of(token, across, WW)[:, None]
    at = pixel * (2 * CH) + channel[None, :]
    q = tl.load(qv + at, mask=inside, other=0.0)
    v = q
    if CHANNEL or WHOLE:
        v = tl.load(qv + at + CH, mask=inside, other=0.0)
    same_window = window[:, None] == window[None, :]
    if SPATIAL:
        head = channel // D
        s = tl.zeros([GROUP * BLOCK_C, GROUP * BLOCK_C], tl.float32)
        if WHOLE:
            r = v.to(tl.float32) * tl.load(weight).to(tl.float32) + tl.load(bias).to(tl.float32)
            r = tl.where(inside, r, 0.0).to(v.dtype)
            s = tl.dot(tl.trans(r), r, s, input_precision=PRECISION)
        else:
            for m0 in range(0, M, SUMMED):
                m = m0 + tl.arange(0, SUMMED)
                r = load_reduced(reduced, window, m, channel, present, M, CH)
                s = tl.dot(tl.trans(r), r, s, input_precision=PRECISION)
        s = tl.where(same_window & (head[:, None] == head[None, :]), s / D, 0.0)
        out = tl.dot(q.to(tl.float32), s, input_precision=MATRIX_PRECISION)
        if WHOLE:
            out = _add_position_bias(
                out, position_bias, r, token, token, head, HEADS, N, M, PRECISION
            )
        else:
            for m0 in range(0, M, BLOCK_M):
                m = m0 + tl.arange(0, BLOCK_M)
                r = load_reduced(reduced, window, m, channel, present, M, CH)
                out = _add_position_bias(
                    out, position_bias, r, token, m, head, HEADS, N, M, PRECISION
                )
        tl.store(y + pixel * OUT + channel[None, :], out, mask=inside)
    if CHANNEL:
        held = same_window & present[:, None] & present[None, :]
        if WHOLE:
            a = tl.dot(tl.trans(q), v, input_precision=PRECISION)
        else:
            a = sum_of_parts(products, window, channel, held, CH, 0, 1, SPLITS)
        a = tl.where(held, a / N, 0.0)
        out = tl.dot(v.to(tl.float32), tl.trans(a), input_precision=MATRIX_PRECISION)
        tl.store(y + pixel * OUT + (OUT - CH) + channel[None, :], out, mask=inside)


def tiles_of(plan: Plan) -> dict[str, int]:
    """Sides of the tiles of `correlate`."""
    return {
        "GROUP": max(1, plan.side // plan.block_c),
        "BLOCK_N": plan.rows(plan.pixels),
        "BLOCK_M": plan.rows(plan.blocks),
        "SUMMED": plan.summed,
    }


def run_correlate(
    plan: Plan,
    qv: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    position_bias: Tensor | None,
    y: Tensor,
) -> None:
    """Write both correlations of contiguous tensors to y."""
    reduced = products = None
    if not plan.whole:
        reduced, products = run_summarise(plan, qv, weight, bias, None)
    tiles = tiles_of(plan)
    grid = (triton.cdiv(plan.windows, tiles["GROUP"]), triton.cdiv(plan.pixels, tiles["BLOCK_N"]))
    correlate[grid](
        qv,
        weight,
        bias,
        position_bias,
        reduced,
        products,
        y,
        plan.windows,
        plan.across,
        **constants(plan, qv.dtype),
        **tiles,
        HEADS=plan.num_heads,
        M=plan.blocks,
        WHOLE=plan.whole,
        SPLITS=plan.splits,
        MATRIX_PRECISION=matrix_precision(qv.dtype),
        num_warps=4,
    )


ARGUMENTS = (
    "Tensor qv, Tensor? weight, Tensor? bias, Tensor? position_bias, int[] window_size, "
    "int[] reduction, int num_heads, bool channel"
)


@torch.library.custom_op(
    "restore::self_correlation", mutates_args=(), schema=f"({ARGUMENTS}) -> Tensor"
)
def correlate_op(
    qv: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    position_bias: Tensor | None,
    window_size: Sequence[int],
    reduction: Sequence[int],
    num_heads: int,
    channel: bool,
) -> Tensor:
    """The forward pass; see `forward`."""
    qv = qv.contiguous()
    weight, bias, position_bias = _contiguous(weight, bias, position_bias)
    plan = plan_of(qv, window_size, reduction, num_heads, weight is not None, channel)
    y = torch.empty(_shape(qv, weight, channel), dtype=qv.dtype, device=qv.device)
    with torch.cuda.device_of(qv):
        run_correlate(plan, qv, weight, bias, position_bias, y)
    return y


@correlate_op.register_fake
def _(qv, weight, bias, position_bias, window_size, reduction, num_heads, channel):
    return qv.new_empty(_shape(qv, weight, channel))


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [x if x is None else x.contiguous() for x in tensors]


def _shape(qv: Tensor, weight: Tensor | None, channel: bool) -> tuple[int, ...]:
    b, h, w, c = qv.shape
    return b, h, w, c // 2 * ((weight is not None) + channel)


@torch.library.custom_op(
    "restore::self_correlation_backward",
    mutates_args=(),
    schema=f"(Tensor dy, {ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def correlate_backward_op(
    dy: Tensor,
    qv: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    position_bias: Tensor | None,
    window_size: Sequence[int],
    reduction: Sequence[int],
    num_heads: int,
    channel: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of qv, weight, bias and position_bias; an empty tensor for what is None."""
    dy, qv = dy.contiguous(), qv.contiguous()
    weight, bias, position_bias = _contiguous(weight, bias, position_bias)
    plan = plan_of(qv, window_size, reduction, num_heads, weight is not None, channel)
    with torch.cuda.device_of(qv):
        found = gradients.backward(plan, dy, qv, weight, bias, position_bias)
    first, *others = (qv.new_empty(0) if x is None else x for x in found)
    return first, others[0], others[1], others[2]


@correlate_backward_op.register_fake
def _(dy, qv, weight, bias, position_bias, window_size, reduction, num_heads, channel):
    given = (qv, weight, bias, position_bias)
    return tuple(qv.new_empty(0) if x is None else x.new_empty(x.shape) for x in given)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.others = inputs[4:]


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    found = correlate_backward_op(dy, *saved, *ctx.others)
    grads = [None if x is None else dx for x, dx in zip(saved, found, strict=True)]
    return (*grads, None, None, None, None)


correlate_op.register_autograd(_backward, setup_context=_remember)
