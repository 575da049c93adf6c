"""Gradients of the native `window_attention`.

For gradients a call keeps its input alone: the weights of attention are computed again. They are
computed in float32, also where autocast had products taken in bfloat16.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from restore.kernels import native_calls, native_ops, reference
from restore.kernels.native_library import library
from restore.kernels.native_windows import layout
from restore.kernels.precision import full_precision
from restore.kernels.windows import Size

# Sums over windows are made of so many: they do not depend on the number of threads.
PARTS = 16


Numbers = tuple[Size, Size, int, float]  # window_size, shift, num_heads and scale


def window_attention(
    qkv: Tensor, table: Tensor, windows: Tensor | None, numbers: Numbers
) -> Tensor:
    """`native_ops.window_attention` with a gradient."""
    y = _WindowAttention.apply(qkv, table, windows, numbers)  # type: ignore[no-untyped-call]
    return cast(Tensor, y)


class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, table: Tensor, windows: Tensor | None, numbers: Numbers
    ) -> Tensor:
        ctx.save_for_backward(qkv, table, windows)
        ctx.numbers = numbers
        return native_ops.window_attention(qkv, table, *numbers, windows=windows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        qkv, table, windows = ctx.saved_tensors
        numbers: Numbers = ctx.numbers
        if not torch.is_grad_enabled():
            with full_precision(qkv):
                return *_gradients(dy, qkv, table, windows, numbers), None, None
        # they are to be differentiated themselves, as the definition's can be
        y = reference.window_attention(qkv, table, *numbers, windows=windows)
        wanted = [x for x in (qkv, table) if x.requires_grad]
        found = iter(torch.autograd.grad(y, wanted, dy.to(y.dtype), create_graph=True))
        made = (next(found) if x.requires_grad else None for x in (qkv, table))
        return *made, None, None


def _gradients(
    dy: Tensor,
    qkv: Tensor,
    table: Tensor,
    windows: Tensor | None,
    numbers: Numbers,
) -> tuple[Tensor, Tensor]:
    """Of qkv and of the table."""
    window_size, shift, num_heads, scale = numbers
    dqkv = torch.zeros(qkv.shape) if windows is not None else torch.empty(qkv.shape)
    dtable = torch.zeros(table.shape, dtype=torch.float64)  # rows add up hundreds of numbers
    if not dqkv.numel():
        return dqkv.to(qkv.dtype), dtable.to(table.dtype)
    its = layout(window_size, shift)
    query, key, value = qkv.float().contiguous().unbind(3)
    maps = (query, key, value, dy.float().contiguous())
    name = ("window", window_size)
    argument, alive = native_ops.attention_argument(
        maps, its, name, table, num_heads, scale, windows
    )
    parts = max(min(PARTS, argument.count), 1)
    dbias = torch.zeros(parts, num_heads, argument.windows.bias_stride)
    call = native_calls.AttentionGradients(
        argument, *map(native_ops.map_argument, dqkv.unbind(3)), dbias.data_ptr(), parts
    )
    library().run("restore_attention_gradients", call)
    del alive
    dbias = dbias[..., : its.rows.numel()].sum(0, dtype=torch.float64)
    dtable.index_add_(0, its.rows, dbias.t())
    return dqkv.to(qkv.dtype), dtable.to(table.dtype)
