# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""`position_table` in one Triton kernel: a program takes some offsets through the whole MLP.

Stock operations make 16 launches of it, for a table that is smaller than most maps. The gradients
are stock operations, the same that autograd would call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from restore.kernels.fused_host import dense
from restore.kernels.triton_blocks import dot_rows, load_pieces, store_pieces, tile_side
from restore.kernels.triton_norm import load_channels, scale_channels, shift_channels, standardised
from restore.kernels.windows import Size, relative_offsets

ENTRIES = 1024  # of a tile of offsets by channels
INPUTS = "Tensor[] parameters, int[] window_size, float eps"


@triton.jit
def next_layer(
    x, norm_weight_ptr, norm_bias_ptr, weight_ptr, bias_ptr, eps,
    C: tl.constexpr, WIDE: tl.constexpr, OUT: tl.constexpr, WIDE_OUT: tl.constexpr,
):  # fmt: skip
    """W relu(LN(x)) + b: [N, WIDE], 0 from channel C on, to [N, WIDE_OUT], 0 from OUT on."""
    y, _ = standardised((x,), eps, C, WIDE, 0, 0)
    y = shift_channels(
        scale_channels(y, norm_weight_ptr, C, WIDE, 0, 0), norm_bias_ptr, C, WIDE, 0, 0
    )
    rectified = tl.where(y[0] < 0.0, 0.0, y[0])  # and what is no number stays none
    row = tl.arange(0, WIDE_OUT)
    weight = load_pieces(weight_ptr + row * C, row < OUT, C, WIDE, 0, 0)
    product = dot_rows((rectified,), (weight[0].to(tl.float32),), 0, 0, "ieee")
    return product + load_channels(bias_ptr, 0, WIDE_OUT, OUT)


@triton.jit(do_not_specialize=["height", "width"])
def table_kernel(
    weight_ptr, bias_ptr,
    norm_weight_1, norm_bias_1, weight_1, bias_1,
    norm_weight_2, norm_bias_2, weight_2, bias_2,
    norm_weight_3, norm_bias_3, weight_3, bias_3,
    y_ptr, height, width, eps,
    C: tl.constexpr, WIDE: tl.constexpr, HEADS: tl.constexpr, WIDE_OUT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Biases of BLOCK offsets of windows of height x width pixels."""
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    columns = 2 * width - 1
    dy = (offset // columns - (height - 1)).to(tl.float32)
    dx = (offset % columns - (width - 1)).to(tl.float32)
    c = tl.arange(0, WIDE)
    by_row = tl.load(weight_ptr + 2 * c, mask=c < C, other=0.0).to(tl.float32)
    by_column = tl.load(weight_ptr + 2 * c + 1, mask=c < C, other=0.0).to(tl.float32)
    x = dy[:, None] * by_row[None, :] + dx[:, None] * by_column[None, :]
    x += load_channels(bias_ptr, 0, WIDE, C)
    x = next_layer(x, norm_weight_1, norm_bias_1, weight_1, bias_1, eps, C, WIDE, C, WIDE)
    x = next_layer(x, norm_weight_2, norm_bias_2, weight_2, bias_2, eps, C, WIDE, C, WIDE)
    x = next_layer(x, norm_weight_3, norm_bias_3, weight_3, bias_3, eps, C, WIDE, HEADS, WIDE_OUT)
    live = offset < (2 * height - 1) * columns
    store_pieces(y_ptr + offset * HEADS, live, (x,), HEADS, WIDE_OUT, 0, 0)


def forward(parameters: Sequence[Tensor], window_size: Size, eps: float) -> Tensor:
    """See `position_table.position_table`; the arguments are checked."""
    return cast(Tensor, table_op(list(parameters), window_size, eps))


def _new(parameters: Sequence[Tensor], window_size: Sequence[int]) -> Tensor:
    rows = (2 * window_size[0] - 1) * (2 * window_size[1] - 1)
    return parameters[0].new_empty(rows, parameters[-1].shape[0])


@torch.library.custom_op("restore::position_table", mutates_args=(), schema=f"({INPUTS}) -> Tensor")
def table_op(parameters: Sequence[Tensor], window_size: Sequence[int], eps: float) -> Tensor:
    """The op; its products are those of float32."""
    y = _new(parameters, window_size)
    channels, heads = parameters[0].shape[0], y.shape[1]
    wide, wide_out = tile_side(channels), tile_side(heads)
    block = ENTRIES // max(wide, wide_out)
    with torch.cuda.device_of(y):
        table_kernel[(triton.cdiv(y.shape[0], block),)](
            *dense(*parameters),
            y,
            *window_size,
            eps,
            C=channels,
            WIDE=wide,
            HEADS=heads,
            WIDE_OUT=wide_out,
            BLOCK=block,
        )
    return y


@table_op.register_fake
def _(parameters, window_size, eps):
    return _new(parameters, window_size)


@torch.library.custom_op(
    "restore::position_table_backward",
    mutates_args=(),
    schema=f"(Tensor dy, {INPUTS}) -> Tensor[]",
)
def table_backward_op(
    dy: Tensor, parameters: Sequence[Tensor], window_size: Sequence[int], eps: float
) -> list[Tensor]:
    """Gradients of all parameters, in their order."""
    (weight, bias, *others), (wh, ww) = parameters, window_size
    offsets = relative_offsets((wh, ww), weight.device).to(weight.dtype)
    h = F.linear(offsets, weight, bias)
    layers = []
    for norm_weight, norm_bias, weight, bias in zip(*[iter(others)] * 4, strict=True):
        shape = [h.shape[1]]
        y, mean, factor = torch.native_layer_norm(h, shape, norm_weight, norm_bias, eps)
        layers.append((h, shape, mean, factor, norm_weight, norm_bias, y, weight))
        h = F.linear(y.relu(), weight, bias)
    found: list[Tensor] = []
    for *normed, y, weight in reversed(layers):
        of_layer = [dy.t() @ y.relu(), dy.sum(0)]
        dy, *of_norm = torch.ops.aten.native_layer_norm_backward(
            (dy @ weight) * (y > 0), *normed, [True] * 3
        )
        found = [*of_norm, *of_layer, *found]
    return [dy.t() @ offsets, dy.sum(0), *found]


@table_backward_op.register_fake
def _(dy, parameters, window_size, eps):
    return [p.new_empty(p.shape) for p in parameters]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    parameters, *ctx.rest = inputs
    ctx.save_for_backward(*parameters)


def _backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    return table_backward_op(dy, list(ctx.saved_tensors), *ctx.rest), None, None


table_op.register_autograd(_backward, setup_context=_save)
