# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""`norm_linear` by Triton: tokens are normalised in registers, and only the result is written.

Gradients save what came in and nothing else; the norm is computed again for them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from restore.kernels.fused_gradients_triton import gelu_gradient, norm_gradient, normalise
from restore.kernels.fused_host import (
    MANY_TOKENS,
    contiguous_like,
    dense,
    given_alone,
    in_dtype,
    is_roomy,
    like,
    size_class,
    tokens,
)
from restore.kernels.fused_reference import NormedLinear
from restore.kernels.precision import autocast_dtype, full_precision
from restore.kernels.triton_blocks import dot_precision, dot_rows, gelu, load_pieces, split
from restore.kernels.triton_norm import load_normal
from restore.kernels.tuning import Launch, best, multiprocessors

INPUTS = (
    "Tensor x, Tensor? norm_weight, Tensor? norm_bias, Tensor weight, Tensor? bias, "
    "float eps, bool gelu"
)


@triton.jit
def norm_linear_kernel(
    x_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    rows,
    eps,
    D: tl.constexpr,
    STRIDE: tl.constexpr,
    C: tl.constexpr,
    C0: tl.constexpr,
    C1: tl.constexpr,
    C2: tl.constexpr,
    GELU: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """y [rows, D] = LN(x) W^T + b: COLUMNS channels of BLOCK_M tokens, BLOCK_N at a time."""
    groups: tl.constexpr = (D + COLUMNS - 1) // COLUMNS
    # numbers first, then tiles of small offsets: of these the compiler makes immediates
    first = tl.program_id(0) // groups * BLOCK_M
    column = tl.program_id(0) % groups * COLUMNS
    row, d = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    live = row < rows - first
    tokens = x_ptr + first.to(tl.int64) * STRIDE + row * STRIDE
    dtype = weight_ptr.dtype.element_ty
    x = load_normal(tokens, live, norm_weight_ptr, norm_bias_ptr, eps, dtype, C, C0, C1, C2)
    to = y_ptr + first.to(tl.int64) * D + row * D
    for start in range(column, min(column + COLUMNS, D), BLOCK_N):
        more = d < D - start
        weight = load_pieces(weight_ptr + start * C + d * C, more, C, C0, C1, C2)
        y = dot_rows(x, weight, C1, C2, PRECISION)
        if bias_ptr is not None:
            y += tl.load(bias_ptr + start + d, mask=more, other=0.0).to(tl.float32)[None, :]
        if GELU:
            y = gelu(y, ROUNDED=dtype != tl.float32)
        at = to[:, None] + start + d[None, :]
        tl.store(at, y.to(y_ptr.dtype.element_ty), mask=live[:, None] & more[None, :])


def forward(x: Tensor, layer: NormedLinear, eps: float, gelu: bool) -> Tensor:
    """See `norm_linear.norm_linear`; the arguments are checked."""
    layer = layer._replace(weight=layer.weight.to(autocast_dtype(x) or layer.weight.dtype))
    return cast(Tensor, norm_linear(x, *layer, eps, gelu))


@torch.library.custom_op("restore::norm_linear", mutates_args=(), schema=f"({INPUTS}) -> Tensor")
def norm_linear(x: Tensor, *rest: Any) -> Tensor:
    """The op: products in the dtype of the weight, which is the result's."""
    *layer, eps, gelu = rest
    norm_weight, norm_bias, weight, bias = dense(*layer)
    flat = tokens(x)
    (rows, c), d = flat.shape, weight.shape[0]
    y = torch.empty(*x.shape[:-1], d, dtype=weight.dtype, device=x.device)
    if not rows:
        return y
    launch = best(
        "norm_linear",
        f"{c}x{d} {size_class(rows)} {weight.dtype}",
        x,
        default_launch(x, rows, weight),
    )
    tiles, blocks = triton.cdiv(rows, launch.block_m), triton.cdiv(d, launch.block_n)
    groups = min(triton.cdiv(launch.waves * multiprocessors(x), tiles), blocks)
    columns = launch.block_n * triton.cdiv(blocks, groups)
    programs = tiles * triton.cdiv(d, columns)
    with torch.cuda.device_of(x):
        norm_linear_kernel[(programs,)](
            flat,
            norm_weight,
            norm_bias,
            weight,
            bias,
            y,
            rows,
            eps,
            d,
            flat.stride(0),
            c,
            *split(c),
            gelu,
            dot_precision(weight.dtype),
            launch.block_m,
            launch.block_n,
            columns,
            num_warps=launch.warps,
            num_stages=launch.stages,
        )
    return y


@norm_linear.register_fake
def _(x, norm_weight, norm_bias, weight, *rest):
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=weight.dtype)


def default_launch(x: Tensor, rows: int, weight: Tensor) -> Launch:
    """For the tokens of x and a layer of this weight."""
    c, roomy = sum(split(x.shape[-1])), is_roomy(x)
    if weight.dtype == torch.float32:
        if dot_precision(weight.dtype) == "ieee":
            return Launch(32, 32, warps=8, waves=2)
        return Launch(64 if roomy and c <= 192 else 32, 32, waves=2)
    if rows >= MANY_TOKENS and (roomy or c <= 192):
        return Launch(128, 64, warps=8, waves=2)
    return Launch(64, 64, waves=2)


@torch.library.custom_op(
    "restore::norm_linear_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {INPUTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def norm_linear_backward(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """The gradients of the five tensors, empty ones of those that are not given."""
    *layer, eps, gelu = rest
    norm_weight, norm_bias, weight, bias = NormedLinear(*layer)
    flat, dtype = tokens(x), weight.dtype
    grad = grad.reshape(-1, weight.shape[0]).contiguous()
    with full_precision(x):
        y = normalise(flat, norm_weight, norm_bias, eps, dtype)
        if gelu:
            hidden = F.linear(y, weight, in_dtype(bias, dtype))
            of_bias = gelu_gradient(hidden, grad, to=hidden)
            grad = hidden
        else:
            of_bias = grad.sum(0, dtype=torch.float32)
        of_x, of_norm_weight, of_norm_bias = norm_gradient(
            grad @ weight, flat, norm_weight, norm_bias, None, eps
        )
        return (
            of_x.view(x.shape),
            of_norm_weight,
            of_norm_bias,
            grad.t() @ y,
            like(bias, of_bias),
        )


@norm_linear_backward.register_fake
def _(grad, *inputs):
    return contiguous_like(*inputs[:5])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps, ctx.gelu = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    given = ctx.saved_tensors
    gradients = norm_linear_backward(grad, *given, ctx.eps, ctx.gelu)
    return *given_alone(gradients, given), None, None


norm_linear.register_autograd(_backward, setup_context=_save)
