# mypy: allow-untyped-defs, allow-incomplete-defs
# mypy: disable-error-code="untyped-decorator, assignment"
"""`mlp` by Triton: the hidden map, twice to four times as wide as x, is never written.

Gradients save what came in and nothing else; the norm and the hidden map are made again for them.
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
from restore.kernels.fused_reference import MlpLayers
from restore.kernels.precision import autocast_dtype, full_precision
from restore.kernels.triton_blocks import (
    add_product,
    dot_precision,
    dot_rows,
    gelu,
    load_pieces,
    split,
    store_piece,
    zero_pieces,
)
from restore.kernels.triton_norm import load_channels, load_normal
from restore.kernels.tuning import Launch, best

INPUTS = (
    "Tensor x, Tensor? norm_weight, Tensor? norm_bias, Tensor fc1_weight, Tensor? fc1_bias, "
    "Tensor fc2_weight, Tensor? fc2_bias, float eps, bool residual"
)


@triton.jit
def load_columns(
    rows, live, D: tl.constexpr, STRIDE: tl.constexpr, FIRST: tl.constexpr, SIZE: tl.constexpr
):
    """[N] pointers into row 0 of a matrix of D rows to [N, SIZE]: rows FIRST on, transposed."""
    d = FIRST + tl.arange(0, SIZE)
    at = rows[None, :] + d[:, None] * STRIDE
    return tl.trans(tl.load(at, mask=live[None, :] & (d < D)[:, None], other=0.0))


@triton.jit
def load_all_columns(
    columns,
    live,
    STRIDE: tl.constexpr,
    D: tl.constexpr,
    D0: tl.constexpr,
    D1: tl.constexpr,
    D2: tl.constexpr,
):
    """[N] pointers into row 0 of a matrix of D rows to pieces of [N, D]: its columns."""
    z = (load_columns(columns, live, D, STRIDE, 0, D0),)
    if D1 > 0:
        z += (load_columns(columns, live, D, STRIDE, D0, D1),)
    if D2 > 0:
        z += (load_columns(columns, live, D, STRIDE, D0 + D1, D2),)
    return z


@triton.jit
def load_again(rows, live, FIRST: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr):
    """`load_piece` in float32, that the compiler does not take for one already done.

    It would keep what was read then in registers, and leave too few for the products.
    """
    c = FIRST + tl.arange(0, SIZE)
    live = live[:, None] & (c < D)[None, :]
    at = rows[:, None] + c[None, :]
    return tl.load(at, mask=live, other=0.0, eviction_policy="evict_first").to(tl.float32)


@triton.jit
def finish_piece(
    y,
    rows,
    to,
    live,
    bias,
    RESIDUAL: tl.constexpr,
    FIRST: tl.constexpr,
    SIZE: tl.constexpr,
    D: tl.constexpr,
):
    """Write one piece of the product plus the bias, if any, plus the tokens at `rows` again."""
    if bias is not None:
        y += load_channels(bias, FIRST, SIZE, D)
    if RESIDUAL:
        y += load_again(rows, live, FIRST, SIZE, D)
    store_piece(to, live, y, FIRST, SIZE, D)


@triton.jit
def mlp_kernel(
    x_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    fc1_weight_ptr,
    fc1_bias_ptr,
    fc2_weight_ptr,
    fc2_bias_ptr,
    y_ptr,
    rows,
    eps,
    HIDDEN: tl.constexpr,
    STRIDE: tl.constexpr,
    C: tl.constexpr,
    C0: tl.constexpr,
    C1: tl.constexpr,
    C2: tl.constexpr,
    RESIDUAL: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """y [rows, C] = gelu(LN(x) W1^T + b1) W2^T + b2 (+ x): BLOCK_M tokens, BLOCK_H hidden ones."""
    # numbers first, then tiles of small offsets: of these the compiler makes immediates
    first = tl.program_id(0) * BLOCK_M
    row, h = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_H)
    live = row < rows - first
    tokens = x_ptr + first.to(tl.int64) * STRIDE + row * STRIDE
    dtype = fc1_weight_ptr.dtype.element_ty
    x = load_normal(tokens, live, norm_weight_ptr, norm_bias_ptr, eps, dtype, C, C0, C1, C2)
    y = zero_pieces(BLOCK_M, C0, C1, C2)
    for start in range(0, HIDDEN, BLOCK_H):
        more = h < HIDDEN - start
        weight = load_pieces(fc1_weight_ptr + start * C + h * C, more, C, C0, C1, C2)
        hidden = dot_rows(x, weight, C1, C2, PRECISION)
        if fc1_bias_ptr is not None:
            bias = tl.load(fc1_bias_ptr + start + h, mask=more, other=0.0)
            hidden += bias.to(tl.float32)[None, :]
        hidden = gelu(hidden, ROUNDED=dtype != tl.float32).to(dtype)
        weight = load_all_columns(fc2_weight_ptr + start + h, more, HIDDEN, C, C0, C1, C2)
        y = add_product(y, hidden, weight, C1, C2, PRECISION)
    # a piece after the other, the smallest first: all of them fill most of the registers, and what
    # is added to one comes on top
    to = y_ptr + first.to(tl.int64) * C + row * C
    if C2 > 0:
        finish_piece(y[2], tokens, to, live, fc2_bias_ptr, RESIDUAL, C0 + C1, C2, C)
    if C1 > 0:
        finish_piece(y[1], tokens, to, live, fc2_bias_ptr, RESIDUAL, C0, C1, C)
    finish_piece(y[0], tokens, to, live, fc2_bias_ptr, RESIDUAL, 0, C0, C)


def forward(x: Tensor, layers: MlpLayers, eps: float, residual: bool) -> Tensor:
    """See `mlp.mlp`; the arguments are checked."""
    dtype = autocast_dtype(x) or layers.fc1_weight.dtype
    layers = layers._replace(
        fc1_weight=layers.fc1_weight.to(dtype), fc2_weight=layers.fc2_weight.to(dtype)
    )
    return cast(Tensor, mlp(x, *layers, eps, residual))


@torch.library.custom_op("restore::mlp", mutates_args=(), schema=f"({INPUTS}) -> Tensor")
def mlp(x: Tensor, *rest: Any) -> Tensor:
    """The op: products in the dtype of the weights; for the result's see `result_dtype`."""
    *layers, eps, residual = rest
    norm_weight, norm_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias = dense(*layers)
    flat = tokens(x)
    (rows, c), hidden = flat.shape, fc1_weight.shape[0]
    y = torch.empty(x.shape, dtype=result_dtype(x, fc1_weight, residual), device=x.device)
    if not rows:
        return y
    launch = best(
        "mlp",
        f"{c}x{hidden} {size_class(rows)} {fc1_weight.dtype}",
        x,
        default_launch(x, rows, fc1_weight),
    )
    with torch.cuda.device_of(x):
        mlp_kernel[(triton.cdiv(rows, launch.block_m),)](
            flat,
            norm_weight,
            norm_bias,
            fc1_weight,
            fc1_bias,
            fc2_weight,
            fc2_bias,
            y,
            rows,
            eps,
            hidden,
            flat.stride(0),
            c,
            *split(c),
            residual,
            dot_precision(fc1_weight.dtype),
            launch.block_m,
            launch.block_n,
            num_warps=launch.warps,
            num_stages=launch.stages,
        )
    return y


@mlp.register_fake
def _(x, *rest):
    *layers, _, residual = rest
    return x.new_empty(x.shape, dtype=result_dtype(x, MlpLayers(*layers).fc1_weight, residual))


def result_dtype(x: Tensor, weight: Tensor, residual: bool) -> torch.dtype:
    """That of the products, or with the residual the wider one of it and x's."""
    return torch.promote_types(x.dtype, weight.dtype) if residual else weight.dtype


def default_launch(x: Tensor, rows: int, weight: Tensor) -> Launch:
    """For the tokens of x and a first layer of this weight; columns are those of the hidden map."""
    c, roomy = sum(split(x.shape[-1])), is_roomy(x)
    if weight.dtype == torch.float32:
        if dot_precision(weight.dtype) == "ieee":
            return Launch(32, 16 if c > 192 else 32, warps=4 if c <= 64 else 8)
        return Launch(64 if roomy else 32, 32 if c <= 192 else 16)
    if rows >= MANY_TOKENS and c <= 192:
        # the weights are read once for all tokens of a program: the more these are, the better
        return Launch(128, 64 if roomy else 32, warps=8)
    # so wide, one program fills the shared memory of a multiprocessor
    return Launch(64, 32, warps=8 if c > 288 else 4)


@torch.library.custom_op(
    "restore::mlp_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {INPUTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def mlp_backward(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """The gradients of the seven tensors, empty ones of those that are not given."""
    *layers, eps, residual = rest
    norm_weight, norm_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias = MlpLayers(*layers)
    flat, dtype = tokens(x), fc1_weight.dtype
    grad = grad.reshape(flat.shape).contiguous()
    of_y = grad.to(dtype)
    with full_precision(x):
        normal = normalise(flat, norm_weight, norm_bias, eps, dtype)
        hidden = F.linear(normal, fc1_weight, in_dtype(fc1_bias, dtype))
        of_hidden = of_y @ fc2_weight
        of_fc1_bias = gelu_gradient(hidden, of_hidden, to=of_hidden, value=hidden)
        of_normal = of_hidden @ fc1_weight
        of_x, of_norm_weight, of_norm_bias = norm_gradient(
            of_normal, flat, norm_weight, norm_bias, grad if residual else None, eps
        )
        return (
            of_x.view(x.shape),
            of_norm_weight,
            of_norm_bias,
            of_hidden.t() @ normal,
            like(fc1_bias, of_fc1_bias),
            of_y.t() @ hidden,
            like(fc2_bias, of_y.sum(0, dtype=torch.float32)),
        )


@mlp_backward.register_fake
def _(grad, *inputs):
    return contiguous_like(*inputs[:7])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps, ctx.residual = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    given = ctx.saved_tensors
    gradients = mlp_backward(grad, *given, ctx.eps, ctx.residual)
    return *given_alone(gradients, given), None, None


mlp.register_autograd(_backward, setup_context=_save)
