"""Attention's Triton path as operators of PyTorch, so that compilers, exports and autograd know it.

`attend` is what the public ops call.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from restore.kernels.attention_cells_triton import gather_cells, scatter_cells
from restore.kernels.attention_geometry import Geometry
from restore.kernels.attention_gradients_triton import backward
from restore.kernels.attention_triton import Call, forward

INPUTS = (
    "Tensor q, Tensor? kv, Tensor? table, Tensor? log_scale, Tensor? order, Tensor? chosen, "
    "int[] geometry, int heads, float scale"
)


def attend(
    q: Tensor,
    geometry: Geometry,
    heads: int,
    scale: float,
    *,
    kv: Tensor | None = None,
    table: Tensor | None = None,
    log_scale: Tensor | None = None,
    order: Tensor | None = None,
    chosen: Tensor | None = None,
) -> Tensor:
    """Attention in windows: [B, H, W, C].

    Args:
        q: [B, H, W, 3, C], or [B, H, W, C] if there is a kv.
        geometry: which pixels meet.
        heads: divides C.
        scale: factor of the products.
        kv: [B, H, W, C / 2], for windows whose keys are cells.
        table: [T, heads], where the geometry has a bias.
        log_scale: one number, the logarithm of the factor in sorted groups instead of `scale`.
        order: [B, W] int64, the tokens of each image as they are sorted.
        chosen: [K] int64, the windows to compute, none twice; elsewhere the result is 0.
    """
    trained = (q, kv, table, log_scale)
    saves = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in trained)
    numbers = geometry.numbers()
    y: Tensor = _attention(q, kv, table, log_scale, order, chosen, numbers, heads, scale, saves)[0]
    return y


def _call(
    q: Tensor,
    kv: Tensor | None,
    table: Tensor | None,
    log_scale: Tensor | None,
    order: Tensor | None,
    chosen: Tensor | None,
    geometry: list[int],
    heads: int,
    scale: float,
) -> Call:
    return Call(q, kv, table, log_scale, order, chosen, Geometry(*geometry), heads, scale)


def _with_cells(call: Call) -> Call:
    """The call with keys and values, if it has a map of their own, as kernels take them."""
    if call.kv is None:
        return call
    return dataclasses.replace(call, kv=gather_cells(call.kv, (call.g.sy, call.g.sx)))


@torch.library.custom_op(
    "restore::attention", mutates_args=(), schema=f"({INPUTS}, bool saves) -> (Tensor, Tensor)"
)
def _attention(*args: Any) -> tuple[Tensor, Tensor]:
    *inputs, saves = args
    return forward(_with_cells(_call(*inputs)), saves)


@_attention.register_fake
def _(*args: Any) -> tuple[Tensor, Tensor]:
    *inputs, saves = args
    call = _call(*inputs)
    lse = call.q.new_empty(call.saved_shape if saves else (0,), dtype=torch.float32)
    return call.q.new_empty(call.shape), lse


@torch.library.custom_op(
    "restore::attention_backward",
    mutates_args=(),
    schema=f"(Tensor dy, Tensor lse, {INPUTS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _attention_backward(
    dy: Tensor, lse: Tensor, *inputs: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    call = _with_cells(_call(*inputs))
    dq, dkv, dtable, dlog_scale = backward(call, dy, lse)
    if dkv is not None:
        dkv = scatter_cells(dkv, (call.g.sy, call.g.sx))
    return dq, _or_empty(dkv, dq), _or_empty(dtable, dq), _or_empty(dlog_scale, dq)


def _or_empty(x: Tensor | None, like: Tensor) -> Tensor:
    """x, or a new tensor of nothing: an operator returns tensors, and none of them twice."""
    return like.new_empty(0) if x is None else x


@_attention_backward.register_fake
def _(dy: Tensor, lse: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q = inputs[0]
    dkv, dtable, dlog_scale = (
        q.new_empty(0) if x is None else x.new_empty(x.shape) for x in inputs[1:4]
    )
    return q.new_empty(q.shape), dkv, dtable, dlog_scale


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *given, _ = inputs
    ctx.save_for_backward(*given[:6], output[1])
    ctx.rest = given[6:]
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 10
    *tensors, lse = ctx.saved_tensors
    found = _attention_backward(dy, lse, *tensors, *ctx.rest)
    gradients = (
        None if x is None else gradient for x, gradient in zip(tensors[:4], found, strict=True)
    )
    return *gradients, *(None,) * 6


_attention.register_autograd(_differentiate, setup_context=_setup)
