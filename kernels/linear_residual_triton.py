# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""`linear_residual` by Triton: the product is added to the residual before anything is written."""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from restore.kernels.fused_host import (
    MANY_TOKENS,
    contiguous_like,
    dense,
    given_alone,
    is_roomy,
    like,
    size_class,
    tokens,
)
from restore.kernels.precision import autocast_dtype, full_precision
from restore.kernels.triton_blocks import dot_precision
from restore.kernels.tuning import Launch, best

BYTES_K = 128  # of a token that one step of a product takes


@triton.jit
def linear_residual_kernel(
    y_ptr,
    weight_ptr,
    bias_ptr,
    x_ptr,
    out_ptr,
    rows,
    Y_STRIDE: tl.constexpr,
    X_STRIDE: tl.constexpr,
    K: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out [rows, C] = x + y W^T + b: BLOCK_N channels of BLOCK_M tokens."""
    groups: tl.constexpr = (C + BLOCK_N - 1) // BLOCK_N
    # numbers first, then tiles of small offsets: of these the compiler makes immediates
    first = (tl.program_id(0) // groups * BLOCK_M).to(tl.int64)
    column = tl.program_id(0) % groups * BLOCK_N
    row, c, k = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    live, wanted = row < rows - first, c < C - column
    tokens = y_ptr + first * Y_STRIDE + row * Y_STRIDE
    weights = weight_ptr + column * K + c * K
    dtype = weight_ptr.dtype.element_ty
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        more = (k < K - start)[None, :]
        y = tl.load(tokens[:, None] + start + k[None, :], mask=live[:, None] & more, other=0.0)
        at = weights[:, None] + start + k[None, :]
        weight = tl.load(at, mask=wanted[:, None] & more, other=0.0)
        total = tl.dot(y.to(dtype), tl.trans(weight), total, input_precision=PRECISION)
    if bias_ptr is not None:
        total += tl.load(bias_ptr + column + c, mask=wanted, other=0.0).to(tl.float32)[None, :]
    both = live[:, None] & wanted[None, :]
    at = x_ptr + first * X_STRIDE + column + row[:, None] * X_STRIDE + c[None, :]
    total += tl.load(at, mask=both, other=0.0).to(tl.float32)
    at = out_ptr + first * C + column + row[:, None] * C + c[None, :]
    tl.store(at, total.to(out_ptr.dtype.element_ty), mask=both)


def forward(y: Tensor, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """See `linear_residual.linear_residual`; the arguments are checked."""
    weight = weight.to(autocast_dtype(x) or weight.dtype)
    return cast(Tensor, linear_residual(y, weight, bias, x))


@torch.library.custom_op(
    "restore::linear_residual",
    mutates_args=(),
    schema="(Tensor y, Tensor weight, Tensor? bias, Tensor x) -> Tensor",
)
def linear_residual(y: Tensor, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """The op: products in the dtype of `weight`; the result in the wider one of it and x's."""
    flat, added = tokens(y), tokens(x)
    weight, bias = dense(weight, bias)
    (rows, k), c = flat.shape, weight.shape[0]
    dtype = torch.promote_types(x.dtype, weight.dtype)
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    if not rows:
        return out
    launch = best(
        "linear_residual",
        f"{k}x{c} {size_class(rows)} {weight.dtype}",
        x,
        default_launch(added, weight),
    )
    programs = triton.cdiv(rows, launch.block_m) * triton.cdiv(c, launch.block_n)
    with torch.cuda.device_of(x):
        linear_residual_kernel[(programs,)](
            flat,
            weight,
            bias,
            added,
            out,
            rows,
            flat.stride(0),
            added.stride(0),
            k,
            c,
            dot_precision(weight.dtype),
            launch.block_m,
            launch.block_n,
            BYTES_K // weight.element_size(),
            num_warps=launch.warps,
            num_stages=launch.stages,
        )
    return out


@linear_residual.register_fake
def _(y, weight, bias, x):
    return x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, weight.dtype))


def default_launch(x: Tensor, weight: Tensor) -> Launch:
    """For tokens [rows, C] and a layer of this weight."""
    columns = 32 if weight.shape[0] <= 32 else 64
    if dot_precision(weight.dtype) == "ieee" and weight.dtype == torch.float32:
        return Launch(64, columns, warps=8)
    rows = 128 if x.shape[0] >= MANY_TOKENS else 64
    # before Hopper a third tile of 128 tokens on its way leaves too few registers
    return Launch(rows, columns, stages=3 if rows == 64 or is_roomy(x) else 2)


@torch.library.custom_op(
    "restore::linear_residual_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor y, Tensor weight, Tensor? bias) -> (Tensor, Tensor, Tensor)",
)
def linear_residual_backward(
    grad: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of y, of weight and of bias, the last one empty where none is given."""
    flat, dtype = tokens(y), weight.dtype
    grad = grad.reshape(-1, weight.shape[0]).to(dtype)
    with full_precision(y):
        of_y = (grad @ weight).to(y.dtype)
        of_weight = grad.t() @ flat.to(dtype)
        of_bias = like(bias, grad.sum(0, dtype=torch.float32))
    return of_y.view(y.shape), of_weight, of_bias


@linear_residual_backward.register_fake
def _(grad, y, weight, bias):
    return contiguous_like(y, weight, bias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    y, weight, bias, x = inputs
    ctx.save_for_backward(y, weight, bias)
    ctx.dtype = x.dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    given = ctx.saved_tensors
    gradients = linear_residual_backward(grad, *given)
    return *given_alone(gradients, given), grad.to(ctx.dtype)


linear_residual.register_autograd(_backward, setup_context=_save)
