"""The native path of `gated_projection` and `correlation_branch`; see `native_ops`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from restore.kernels import native_calls
from restore.kernels.correlation_branch import CorrelationLayers
from restore.kernels.gated_projection import GateLayers
from restore.kernels.native_library import WIDEST_PANEL, Library
from restore.kernels.native_ops import adjacent, library_for, map_argument, result_dtype
from restore.kernels.native_weights import Packed, kept, packed_linear
from restore.kernels.native_windows import row_by_row
from restore.kernels.windows import Size, block_offset, round_up

MOST_PARTS = 8  # in which a window is added up
PART = 256  # pixels of it, at least


def gated_projection(
    x: Tensor, layers: GateLayers, multiple: Size, slopes: tuple[float, float]
) -> Tensor:
    """See `gated_projection.gated_projection`."""
    lib, x = library_for(x), adjacent(x)
    packed = kept(("gated", lib.isa), layers, _pack_gated, lib, layers)
    b, h, w, c = x.shape
    high, wide = round_up(h, multiple[0]), round_up(w, multiple[1])
    squeeze, *_, linear = packed
    out = x.new_empty((b, high, wide, linear.outputs), dtype=result_dtype(x, None))
    plane = (high + 2) * (wide + 1) + 2 * WIDEST_PANEL
    squeezed = torch.empty(b * squeeze.outputs * plane)
    argument = native_calls.Gated(
        map_argument(x),
        map_argument(out),
        *(b, h, w),
        *(high, wide),
        c,
        *(layer.argument for layer in packed),
        *slopes,
        squeezed.data_ptr(),
        plane,
    )
    if out.numel():
        lib.run("restore_gated", argument)
    return out


def _pack_gated(lib: Library, layers: GateLayers) -> tuple[Packed, ...]:
    """Squeeze, convolution, widen and linear."""
    conv = layers.conv_weight.detach().permute(0, 2, 3, 1)  # inputs of a pixel side by side
    conv = pad(conv, (0, -conv.shape[-1] % lib.terms)).flatten(1)
    return (
        packed_linear(lib, layers.squeeze_weight.flatten(1), layers.squeeze_bias),
        packed_linear(lib, conv, layers.conv_bias),
        packed_linear(lib, layers.widen_weight.flatten(1), layers.widen_bias),
        packed_linear(lib, layers.linear_weight.flatten(1), layers.linear_bias),
    )


class _Branch(NamedTuple):
    """What every call of a branch takes, as long as its weights are the same."""

    weight: Tensor  # [rh * rw]
    bias: Tensor  # [1]
    position: Tensor  # [heads, positions of a head and of what fills the last panel]
    block_at: Tensor  # [M] int32
    proj: Packed
    norm_weight: Tensor
    norm_bias: Tensor


def correlation_branch(
    x: Tensor,
    qv: Tensor,
    layers: CorrelationLayers,
    window_size: Size,
    reduction: Size,
    eps: float,
) -> Tensor:
    """See `correlation_branch.correlation_branch`."""
    lib, qv = library_for(qv), adjacent(qv)
    name = ("correlation", lib.isa, window_size, reduction)
    its = kept(name, layers, _branch, lib, layers, window_size, reduction)
    b, h, w, c = x.shape
    out = x.new_empty(x.shape, dtype=result_dtype(qv, x))
    x = adjacent(x).to(out.dtype)
    grid = row_by_row(window_size)
    down, across = qv.shape[1] // window_size[0], qv.shape[2] // window_size[1]
    parts = _parts(window_size, reduction)
    wide = round_up(c // 2, lib.panel)
    sums = torch.empty(b * down * across * (parts * c + its.block_at.numel()) * wide)
    argument = native_calls.Correlation(
        *map(map_argument, (qv, x, out)),
        *(b, h, w),
        *(down, across),
        c,
        len(its.position),
        grid.argument,
        *reduction,
        its.weight.data_ptr(),
        its.bias.data_ptr(),
        its.position.data_ptr(),
        its.position.stride(0),
        its.block_at.data_ptr(),
        its.proj.argument,
        its.norm_weight.data_ptr(),
        its.norm_bias.data_ptr(),
        eps,
        parts,
        sums.data_ptr(),
    )
    if out.numel():
        lib.run("restore_correlation", argument)
    return out


def _parts(window_size: Size, reduction: Size) -> int:
    """In how many parts a window is added up, so that several threads may share it."""
    rows = window_size[0] // reduction[0]  # of blocks
    most = min(MOST_PARTS, window_size[0] * window_size[1] // PART)
    return max(parts for parts in range(1, max(most, 1) + 1) if rows % parts == 0)


def _branch(lib: Library, layers: CorrelationLayers, window_size: Size, reduction: Size) -> _Branch:
    (wh, ww), (rh, rw) = window_size, reduction
    table = layers.table.detach().float()
    columns = block_offset(ww, rw, table.device).T  # [ww / rw, ww]
    position = table.index_select(2, columns.flatten()).unflatten(2, columns.shape)
    position = pad(position.transpose(1, 2).flatten(1), (0, WIDEST_PANEL)).contiguous()
    column, row = torch.arange(ww // rw), torch.arange(wh // rh)
    block_at = (column * (2 * wh - rh) + wh - rh - row[:, None] * rh) * ww
    norm_bias = layers.norm_bias
    if norm_bias is None:
        norm_bias = torch.zeros_like(layers.norm_weight)
    return _Branch(
        _floats(layers.weight),
        _floats(layers.bias),
        position,
        block_at.flatten().int(),
        packed_linear(lib, layers.proj_weight, layers.proj_bias),
        _floats(layers.norm_weight),
        _floats(norm_bias),
    )


def _floats(x: Tensor) -> Tensor:
    """A copy in float32, adjacent."""
    return x.detach().flatten().float().clone()
