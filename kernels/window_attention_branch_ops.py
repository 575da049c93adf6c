"""`window_attention_branch` with Triton as an operator of PyTorch, forward and backward.

Windows that fit one program are one kernel, others the kernels of `norm_linear`, `window_attention`
and `linear_residual`. For gradients a call keeps its input, the result of attention, and the
logarithm of the sum of each softmax; norm, queries, keys, values and the weights of attention are
computed again, the latter tile by tile.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.kernels import attention_gradients_triton, attention_triton
from restore.kernels import window_attention_branch_triton as fused
from restore.kernels.attention_geometry import of_windows
from restore.kernels.compiled_constants import multiplies_float32_in_full
from restore.kernels.fused_gradients_triton import norm_gradient, normalise
from restore.kernels.fused_host import contiguous_like, given_alone, in_dtype, like, tokens
from restore.kernels.linear_residual_triton import linear_residual
from restore.kernels.norm_linear import MAX_CHANNELS
from restore.kernels.norm_linear_triton import norm_linear
from restore.kernels.precision import autocast_dtype, full_precision, lowered
from restore.kernels.window_attention_branch import fused_refuses
from restore.kernels.window_attention_branch_reference import BranchWeights, Call, with_vectors

WEIGHTS = (
    "Tensor qkv_weight, Tensor? qkv_bias, Tensor bias_table, Tensor proj_weight, "
    "Tensor? proj_bias, Tensor? norm_weight, Tensor? norm_bias, Tensor? vectors"
)
COUNT = len(BranchWeights._fields)
NUMBERS = "int[] window_size, int[] shift, int heads, float scale, float eps"


def forward(call: Call) -> Tensor:
    """See `window_attention_branch.window_attention_branch`; the arguments are checked."""
    x, residual, weights = call.x, call.residual, call.weights
    dtype = autocast_dtype(x) or weights.qkv_weight.dtype
    weights = weights._replace(
        qkv_weight=weights.qkv_weight.to(dtype), proj_weight=weights.proj_weight.to(dtype)
    )
    itself = residual is x and weights.norm_weight is not None
    x = x if weights.norm_weight is not None else lowered(x)
    given = [x, None if itself else residual, *weights]
    saves = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)
    numbers = (call.window_size, call.shift, call.num_heads, call.scale, call.eps)
    y, _, _ = _branch(*given, *numbers, itself, saves)
    return cast(Tensor, y)


def _call(x: Tensor, residual: Tensor | None, *rest: Any) -> Call:
    weights, (*numbers, itself) = BranchWeights(*rest[:COUNT]), rest[COUNT:]
    return Call(x, weights, x if itself else residual, *numbers)


@torch.library.custom_op(
    "restore::window_attention_branch",
    mutates_args=(),
    schema=f"(Tensor x, Tensor? residual, {WEIGHTS}, {NUMBERS}, bool itself, bool saves) "
    "-> (Tensor, Tensor, Tensor)",
)
def _branch(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Result, attention's result and logarithms; the last two are empty unless it `saves`.

    With `itself` the residual is x.
    """
    *inputs, saves = args
    call = _call(*inputs)
    with full_precision(call.x):
        several = fused_refuses(call.x, call.weights, call.window_size, call.dtype)
        y, attended, lse = (_composed if several else fused.forward)(call, saves)
    return y, attended if saves else attended.new_empty(0), lse


def _composed(call: Call, saves: bool) -> tuple[Tensor, Tensor, Tensor]:
    """As `window_attention_branch_triton.forward`, by several kernels."""
    x, w = call.x, call.weights
    # where cuBLAS is the faster one, see `norm_linear`
    stock = x.shape[-1] > MAX_CHANNELS
    stock = stock or (call.dtype == torch.float32 and multiplies_float32_in_full())
    if stock or w.norm_weight is None or w.vectors is not None:
        qkv = _linear(_normal(call), w.qkv_weight, w.qkv_bias)
    else:
        qkv = norm_linear(x, w.norm_weight, w.norm_bias, w.qkv_weight, w.qkv_bias, call.eps, False)
    attended, lse = attention_triton.forward(_attention(call, qkv), saves)
    if stock or call.residual is None:
        y = _linear(attended, w.proj_weight, w.proj_bias)
        return y if call.residual is None else call.residual + y, attended, lse
    return linear_residual(attended, w.proj_weight, w.proj_bias, call.residual), attended, lse


def _normal(call: Call) -> Tensor:
    """[B, H, W, C]: what the first projection is applied to, contiguous."""
    w, flat = call.weights, tokens(call.x)
    y = normalise(flat, w.norm_weight, w.norm_bias, call.eps, call.dtype).view(call.x.shape)
    if w.vectors is None:
        return y
    return with_vectors(y, w.vectors.to(call.dtype), call.window_size, call.shift)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, in_dtype(bias, weight.dtype))


def _attention(call: Call, qkv: Tensor) -> attention_triton.Call:
    return attention_triton.Call(
        qkv.unflatten(-1, (3, -1)),
        None,
        call.weights.bias_table,
        None,
        None,
        None,
        of_windows(call.window_size, call.shift),
        call.num_heads,
        call.scale,
    )


@_branch.register_fake
def _(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, saves = args
    call = _call(*inputs)
    x = call.x
    return (
        x.new_empty(x.shape, dtype=call.result_dtype),
        x.new_empty(x.shape if saves else (0,), dtype=call.dtype),
        x.new_empty(call.saved_shape if saves else (0,), dtype=torch.float32),
    )


@torch.library.custom_op(
    "restore::window_attention_branch_backward",
    mutates_args=(),
    schema=f"(Tensor dy, Tensor attended, Tensor lse, Tensor x, {WEIGHTS}, {NUMBERS}, bool itself) "
    f"-> ({', '.join(['Tensor'] * (1 + COUNT))})",
)
def _branch_backward(
    dy: Tensor, attended: Tensor, lse: Tensor, x: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    """The gradients of x and of the weights, empty ones of those that are not given."""
    call = _call(x, None, *rest)
    w, c = call.weights, x.shape[-1]
    dy = dy.reshape(-1, c).contiguous()
    low = dy.to(call.dtype)
    with full_precision(x):
        normal = _normal(call)
        qkv = _linear(normal, w.qkv_weight, w.qkv_bias)
        dattended = (low @ w.proj_weight).view(x.shape)
        dqkv, _, dtable, _ = attention_gradients_triton.backward(
            _attention(call, qkv), dattended, lse
        )
        del qkv, dattended
        dqkv = dqkv.view(-1, 3 * c)
        dnormal = dqkv @ w.qkv_weight
        dx, dnorm_weight, dnorm_bias = norm_gradient(
            dnormal,
            tokens(x),
            w.norm_weight,
            w.norm_bias,
            dy if call.residual is x else None,
            call.eps,
        )
        return (
            dx.view(x.shape),
            dqkv.t() @ normal.view(-1, c),
            like(w.qkv_bias, dqkv.sum(0, dtype=torch.float32)),
            cast(Tensor, dtable),
            low.t() @ attended.view(-1, c),
            like(w.proj_bias, dy.sum(0, dtype=torch.float32)),
            dnorm_weight,
            dnorm_bias,
            like(w.vectors, _sum_windows(dnormal.view(x.shape), call)),
        )


def _sum_windows(d: Tensor, call: Call) -> Tensor:
    """[B, H, W, C] to [N, C]: sums over the windows, for each of their pixels."""
    if call.weights.vectors is None:
        return d
    wh, ww = call.window_size
    d = d.unflatten(2, (-1, ww)).unflatten(1, (-1, wh))  # [B, H / wh, wh, W / ww, ww, C]
    d = d.sum((0, 1, 3), dtype=torch.float32)
    return d.roll([-side for side in call.shift], dims=(0, 1)).flatten(0, 1)


@_branch_backward.register_fake
def _(dy: Tensor, attended: Tensor, lse: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return contiguous_like(x, *rest[:COUNT])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, residual, *rest, _ = inputs
    ctx.save_for_backward(x, *rest[:COUNT], *output[1:])
    ctx.rest = rest[COUNT:]
    ctx.residual_dtype = None if residual is None else residual.dtype
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    none = (None,) * (len(ctx.rest) + 1)
    if dy is None:
        return (None,) * (2 + COUNT) + none
    *given, attended, lse = ctx.saved_tensors
    found = given_alone(_branch_backward(dy, attended, lse, *given, *ctx.rest), given)
    dresidual = None if ctx.residual_dtype is None else dy.to(ctx.residual_dtype)
    return found[0], dresidual, *found[1:], *none


_branch.register_autograd(_differentiate, setup_context=_setup)
