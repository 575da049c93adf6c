# mypy: allow-untyped-defs, allow-incomplete-defs
# mypy: disable-error-code="untyped-decorator, assignment"
"""The elementwise parts of the gradients of `norm_linear` and `mlp`, by Triton.

What is large in these gradients, products of matrices, is PyTorch's; here is what stands between.
Everything is computed in float32. Tokens are held in pieces, see `triton_blocks`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from restore.kernels.fused_host import dense, like
from restore.kernels.triton_blocks import (
    load_pieces,
    normal_below,
    scale_pieces,
    split,
    store_pieces,
    sum_of_products,
    zero_pieces,
)
from restore.kernels.triton_norm import (
    add_pieces,
    float_pieces,
    load_normal,
    scale_channels,
    standardised,
    sum_of_pieces,
)

PROGRAMS = 512  # at most, of those that each sum over many tokens; their sums are added after


@triton.jit
def normalise_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    rows,
    eps,
    STRIDE: tl.constexpr,
    C: tl.constexpr,
    C0: tl.constexpr,
    C1: tl.constexpr,
    C2: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y [rows, C] = LN(x)."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = row < rows
    y = load_normal(
        x_ptr + row * STRIDE, live, weight_ptr, bias_ptr, eps, tl.float32, C, C0, C1, C2
    )
    store_pieces(y_ptr + row * C, live, y, C, C0, C1, C2)


@triton.jit
def gelu_gradient_kernel(
    h_ptr,
    grad_ptr,
    to_ptr,
    value_ptr,
    sums_ptr,
    rows,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """to = grad gelu'(h) and, where it is wanted, value = gelu(h): [rows, D]; and sums of `to`.

    Each program takes every num_programs(1)-th tile of its columns. What is written may take the
    place of what is read.
    """
    d = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(tl.program_id(1) * BLOCK_M, rows, tl.num_programs(1) * BLOCK_M):
        row = start + tl.arange(0, BLOCK_M)
        live = (row < rows)[:, None] & (d < D)[None, :]
        at = row.to(tl.int64)[:, None] * D + d[None, :]
        h = tl.load(h_ptr + at, mask=live, other=0.0).to(tl.float32)
        below = normal_below(h, ROUNDED=h_ptr.dtype.element_ty != tl.float32)
        slope = below + h * tl.exp2(h * h * -0.7213475204444817) * 0.3989422804014327
        to = tl.load(grad_ptr + at, mask=live, other=0.0).to(tl.float32) * slope
        tl.store(to_ptr + at, to.to(to_ptr.dtype.element_ty), mask=live)
        if value_ptr is not None:
            tl.store(value_ptr + at, (h * below).to(value_ptr.dtype.element_ty), mask=live)
        total += to
    tl.store(sums_ptr + tl.program_id(1) * D + d, tl.sum(total, axis=0), mask=d < D)


@triton.jit
def multiply_pieces(x, y, D1: tl.constexpr, D2: tl.constexpr):
    """x y, entry by entry of the pieces."""
    z = (x[0] * y[0],)
    if D1 > 0:
        z += (x[1] * y[1],)
    if D2 > 0:
        z += (x[2] * y[2],)
    return z


@triton.jit
def add_to_tokens(x, number, D1: tl.constexpr, D2: tl.constexpr):
    """x + [N] numbers, one for each token."""
    z = (x[0] + number[:, None],)
    if D1 > 0:
        z += (x[1] + number[:, None],)
    if D2 > 0:
        z += (x[2] + number[:, None],)
    return z


@triton.jit
def sum_tokens(x, D1: tl.constexpr, D2: tl.constexpr):
    """Over tokens: pieces of [N, D] to pieces of [1, D]."""
    z = (tl.sum(x[0], axis=0)[None, :],)
    if D1 > 0:
        z += (tl.sum(x[1], axis=0)[None, :],)
    if D2 > 0:
        z += (tl.sum(x[2], axis=0)[None, :],)
    return z


@triton.jit
def norm_gradient_kernel(
    grad_ptr,
    x_ptr,
    weight_ptr,
    added_ptr,
    dx_ptr,
    sums_ptr,
    rows,
    eps,
    STRIDE: tl.constexpr,
    C: tl.constexpr,
    C0: tl.constexpr,
    C1: tl.constexpr,
    C2: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradients of a norm's tokens, weight and bias from that of its result, [rows, C].

        dx = (g - mean(g) - z mean(g z)) / deviation + added,    g = weight * grad

    with z the tokens at mean 0 and variance 1. Each program takes every num_programs(0)-th tile,
    and writes its sums over tokens, [2, C]: of grad z and of grad.
    """
    of_weight = zero_pieces(BLOCK, C0, C1, C2)
    of_bias = zero_pieces(BLOCK, C0, C1, C2)
    for start in range(tl.program_id(0) * BLOCK, rows, tl.num_programs(0) * BLOCK):
        row = (start + tl.arange(0, BLOCK)).to(tl.int64)
        live = row < rows
        x = load_pieces(x_ptr + row * STRIDE, live, C, C0, C1, C2)
        # beyond the last token, where there is no variance, never divided by 0
        z, factor = standardised(x, tl.where(live, eps, 1.0), C, C0, C1, C2)
        grad = float_pieces(load_pieces(grad_ptr + row * C, live, C, C0, C1, C2), C1, C2)
        of_weight = add_pieces(of_weight, multiply_pieces(grad, z, C1, C2), C1, C2)
        of_bias = add_pieces(of_bias, grad, C1, C2)
        g = scale_channels(grad, weight_ptr, C, C0, C1, C2)
        mean = sum_of_pieces(g, C1, C2) / C
        slope = sum_of_products(g, z, C1, C2) / C
        dx = add_pieces(g, scale_pieces(z, -slope[:, None], C1, C2), C1, C2)
        dx = add_to_tokens(dx, -mean, C1, C2)
        dx = scale_pieces(dx, factor[:, None], C1, C2)
        if added_ptr is not None:
            added = load_pieces(added_ptr + row * C, live, C, C0, C1, C2)
            dx = add_pieces(dx, float_pieces(added, C1, C2), C1, C2)
        store_pieces(dx_ptr + row * C, live, dx, C, C0, C1, C2)
    own = sums_ptr + tl.program_id(0) * 2 * C + tl.zeros([1], tl.int32)
    live = tl.full([1], 1, tl.int1)
    store_pieces(own, live, sum_tokens(of_weight, C1, C2), C, C0, C1, C2)
    store_pieces(own + C, live, sum_tokens(of_bias, C1, C2), C, C0, C1, C2)


def normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, dtype: torch.dtype
) -> Tensor:
    """LN of the tokens of x [rows, C], or these themselves without a weight; contiguous."""
    if weight is None:
        return x.to(dtype).contiguous()
    rows, c = x.shape
    y = torch.empty(rows, c, dtype=dtype, device=x.device)
    block = tokens_of(c)
    if rows:
        with torch.cuda.device_of(x):
            normalise_kernel[(triton.cdiv(rows, block),)](
                x, *dense(weight, bias), y, rows, eps, x.stride(0), c, *split(c), block
            )
    return y


def gelu_gradient(h: Tensor, grad: Tensor, *, to: Tensor, value: Tensor | None = None) -> Tensor:
    """The gradient of h from that of gelu(h).

    Args:
        h: [rows, D], contiguous.
        grad: like h.
        to: where the result goes, like h; may be h or grad.
        value: where gelu(h) goes, if it is wanted; like h, may be h.

    Returns:
        [D] float32: the result's sum over rows.
    """
    rows, d = h.shape
    block_m, block_n = 16, 128
    programs = min(triton.cdiv(rows, block_m), PROGRAMS)
    sums = torch.empty(programs, d, dtype=torch.float32, device=h.device)
    if rows:
        with torch.cuda.device_of(h):
            gelu_gradient_kernel[(triton.cdiv(d, block_n), programs)](
                h, grad, to, value, sums, rows, d, block_m, block_n
            )
    return sums.sum(0)


def norm_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    added: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the tokens, the weight and the bias of a norm.

    Args:
        grad: of its result, [rows, C], contiguous.
        x: the tokens, [rows, C].
        weight: [C], or None where there is no norm.
        bias: [C] or None.
        added: what else adds to the tokens' gradient, [rows, C], contiguous.
        eps: added to the variance.

    Returns:
        [rows, C] in x's dtype, [C] and [C] in those of weight and bias, or empty without them.
    """
    if weight is None:
        dx = grad if added is None else grad + added
        return dx.to(x.dtype), like(None, grad), like(None, grad)
    rows, c = x.shape
    dx = torch.empty(rows, c, dtype=x.dtype, device=x.device)
    block = tokens_of(c)
    programs = min(triton.cdiv(rows, block), PROGRAMS)
    sums = torch.empty(programs, 2, c, dtype=torch.float32, device=x.device)
    if rows:
        with torch.cuda.device_of(x):
            norm_gradient_kernel[(programs,)](
                grad,
                x,
                *dense(weight),
                added,
                dx,
                sums,
                rows,
                eps,
                x.stride(0),
                c,
                *split(c),
                block,
            )
    of_weight, of_bias = sums.sum(0)
    return dx, like(weight, of_weight), like(bias, of_bias)


def tokens_of(channels: int) -> int:
    """How many tokens of so many channels a program of elementwise work holds."""
    return 16 if channels <= 128 else 8
