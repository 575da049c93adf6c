"""The native path of the ops: arguments for the library.

It computes in float32 or, under autocast, takes products in bfloat16 and the rest in float32. Maps
may then be of either, and results are of the dtypes that stock ops would give.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from restore.kernels import native_calls
from restore.kernels.fused_reference import MlpLayers, NormedLinear
from restore.kernels.native_library import BFLOAT16, Library, library, wants_gradient
from restore.kernels.native_weights import (
    LOG2_E,
    Packed,
    kept,
    packed_linear,
    windows_argument,
)
from restore.kernels.native_windows import (
    Layout,
    layout,
    overlapping_layout,
    permuted_layout,
)
from restore.kernels.precision import autocast_dtype
from restore.kernels.reference import cells_of
from restore.kernels.window_attention_branch_reference import Call
from restore.kernels.windows import Size, rolled


def window_attention_branch(call: Call) -> Tensor:
    """See `window_attention_branch.window_attention_branch`."""
    lib, w = library_for(call.x), call.weights
    x, residual = adjacent(call.x), call.residual
    residual = None if residual is None else adjacent(residual)
    qkv, proj = _projections(lib, call)
    out = x.new_empty(x.shape, dtype=result_dtype(x, residual))
    its = layout(call.window_size, call.shift)
    its_windows, alive = windows_argument(("window", call.window_size), its, w.bias_table)
    argument = native_calls.Branch(
        map_argument(x),
        native_calls.Map() if residual is None else map_argument(residual),
        map_argument(out),
        *x.shape,
        call.num_heads,
        _each(lib, call),
        its_windows,
        qkv.argument,
        proj.argument,
        native_calls.Linear(),
        native_calls.Linear(),
        w.norm_weight is not None,
        call.eps,
        0.0,
    )
    if x.numel():
        lib.run("restore_branch", argument)
    del alive
    return out


class _Block(NamedTuple):
    """What every call of a block takes, as long as its weights are the same."""

    windows: native_calls.Windows
    layers: tuple[native_calls.Linear, ...]  # those of the branch, then those of the MLP
    alive: object  # what they point to


def window_block(call: Call, layers: MlpLayers, mlp_eps: float, spare: bool) -> Tensor:
    """See `window_block.window_block`."""
    lib, x = library_for(call.x), adjacent(call.x)
    name = ("block", lib.isa, call.window_size, call.shift, call.num_heads, call.scale)
    block = kept(name, (*call.weights, *layers), _block, lib, call, layers)
    dtype = result_dtype(x, x)
    # windows share no pixels, and each is read whole before it is written
    out = x if spare and dtype == x.dtype else x.new_empty(x.shape, dtype=dtype)
    argument = native_calls.Branch(
        map_argument(x),
        native_calls.Map(),
        map_argument(out),
        *x.shape,
        call.num_heads,
        _each(lib, call),
        block.windows,
        *block.layers,
        True,
        call.eps,
        mlp_eps,
    )
    if x.numel():
        lib.run("restore_branch", argument)
    return out


def _block(lib: Library, call: Call, layers: MlpLayers) -> _Block:
    its = layout(call.window_size, call.shift)
    name = ("window", call.window_size)
    windows, alive = windows_argument(name, its, call.weights.bias_table)
    packed = (*_projections(lib, call), first_linear(lib, layers.first), _second(lib, layers))
    return _Block(windows, tuple(layer.argument for layer in packed), (alive, packed))


def _projections(lib: Library, call: Call) -> tuple[Packed, Packed]:
    """That to queries, keys and values, and the one behind attention."""
    w = call.weights
    qkv = packed_linear(
        lib,
        w.qkv_weight,
        w.qkv_bias,
        w.norm_weight,
        w.norm_bias,
        vectors=w.vectors,
        window_size=call.window_size,
        heads=call.num_heads,
        queries=call.scale * LOG2_E,
    )
    return qkv, packed_linear(lib, w.proj_weight, w.proj_bias, heads=call.num_heads)


def first_linear(lib: Library, layer: NormedLinear) -> Packed:
    """A linear layer and the norm before it."""
    return packed_linear(lib, layer.weight, layer.bias, layer.norm_weight, layer.norm_bias)


def _second(lib: Library, layers: MlpLayers) -> Packed:
    return packed_linear(lib, layers.fc2_weight, layers.fc2_bias)


def _each(lib: Library, call: Call) -> int:
    """Channels of a head as `packed_linear` gives them."""
    each = call.x.shape[-1] // call.num_heads
    return each + each % lib.terms


def window_attention(
    qkv: Tensor,
    table: Tensor,
    window_size: Size,
    shift: Size,
    num_heads: int,
    scale: float,
    windows: Tensor | None = None,
    spare: bool = False,
) -> Tensor:
    """See `window_attention.window_attention`."""
    if wants_gradient(qkv, table):
        from restore.kernels import native_gradients

        return native_gradients.window_attention(
            qkv, table, windows, (window_size, shift, num_heads, scale)
        )
    query, key, value = adjacent(qkv).unbind(3)
    its, name = layout(window_size, shift), ("window", window_size)
    return _attention(query, key, value, its, name, table, num_heads, scale, windows, spare)


def overlapping_attention(
    qkv: Tensor, table: Tensor, window_size: Size, halo: Size, num_heads: int, scale: float
) -> Tensor:
    """See `overlapping_attention.overlapping_attention`."""
    query, key, value = adjacent(qkv).unbind(3)
    its, name = overlapping_layout(window_size, halo), ("overlapping", window_size, halo)
    return _attention(query, key, value, its, name, table, num_heads, scale)


def permuted_attention(
    q: Tensor,
    kv: Tensor,
    table: Tensor,
    window_size: Size,
    shift: Size,
    num_heads: int,
    scale: float,
    spare: bool,
) -> Tensor:
    """See `permuted_attention.permuted_attention`."""
    key, value = adjacent(cells_of(rolled(kv, shift))).unbind(3)
    its, name = permuted_layout(window_size, shift), ("permuted", window_size)
    return _attention(adjacent(q), key, value, its, name, table, num_heads, scale, spare=spare)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    its: Layout,
    name: tuple[object, ...],
    table: Tensor,
    num_heads: int,
    scale: float,
    windows: Tensor | None = None,
    spare: bool = False,
) -> Tensor:
    """Attention from [B, H, W, C] with adjacent channels to the same, in all windows or some.

    With `spare` the result may lie where the queries did: those of some heads of a window are read
    whole before anything is written, and nothing else reads or writes them.
    """
    dtype = result_dtype(query, None)
    if spare and windows is None and dtype == query.dtype:
        out = query
    else:
        out = query.new_empty(query.shape, dtype=dtype)
    if windows is not None:
        out.zero_()
    maps = (query, key, value, out)
    argument, alive = attention_argument(maps, its, name, table, num_heads, scale, windows)
    if out.numel():
        library_for(query).run("restore_attention", argument)
    del alive
    return out


def attention_argument(
    maps: tuple[Tensor, Tensor, Tensor, Tensor],
    its: Layout,
    name: tuple[object, ...],
    table: Tensor,
    num_heads: int,
    scale: float,
    windows: Tensor | None,
) -> tuple[native_calls.Attention, tuple[object, ...]]:
    """The argument for attention, and what has to stay as long as it is used.

    Args:
        maps: queries, keys, values and the result, each with adjacent channels.
        its: layout of the windows.
        name: of the layout.
        table: of biases, [rows, heads].
        num_heads: divides the channels.
        scale: factor of the products.
        windows: [K] int64, those to compute; all if None.
    """
    b, h, w, c = maps[0].shape
    every = b * (h // its.query.step[0]) * (w // its.query.step[1])
    if windows is not None:
        # negative numbers count from the end, and others than there are raise IndexError
        windows = torch.arange(every, device=windows.device)[windows]
    its_windows, alive = windows_argument(name, its, table)
    argument = native_calls.Attention(
        *map(map_argument, maps),
        *(b, h, w, c),
        num_heads,
        its_windows,
        0 if windows is None else windows.data_ptr(),
        every if windows is None else windows.numel(),
        scale * LOG2_E,
    )
    return argument, (windows, alive)


def mlp(x: Tensor, layers: MlpLayers, eps: float, residual: bool) -> Tensor:
    """See `mlp.mlp`."""
    lib = library_for(x)
    second = _second(lib, layers)
    return _tokens(lib, x, layers.first, eps, True, second, x if residual else None)


def norm_linear(x: Tensor, layer: NormedLinear, eps: float, gelu: bool) -> Tensor:
    """See `norm_linear.norm_linear`."""
    return _tokens(library_for(x), x, layer, eps, gelu, None, None)


def linear_residual(y: Tensor, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """See `linear_residual.linear_residual`."""
    layer = NormedLinear(None, None, weight, bias)
    return _tokens(library_for(y), y, layer, 0.0, False, None, x)


def norm_residual(
    y: Tensor, norm_weight: Tensor, norm_bias: Tensor | None, x: Tensor, eps: float
) -> Tensor:
    """See `norm_residual.norm_residual`."""
    lib = library_for(y)
    weight, bias = kept(("norm",), (norm_weight, norm_bias), _norm, norm_weight, norm_bias)
    out = y.new_empty(y.shape, dtype=torch.promote_types(y.dtype, x.dtype))
    tokens, added = _flat(y), _flat(x.to(out.dtype))
    c = y.shape[-1]
    argument = native_calls.Tokens(
        *(tokens.data_ptr(), added.data_ptr(), out.data_ptr()),
        *tokens.shape,
        *(tokens.stride(0), added.stride(0), c),
        tokens.dtype == torch.bfloat16,
        out.dtype == torch.bfloat16,
        native_calls.Linear(0, 0, c, c, 0),
        native_calls.Linear(),
        True,
        False,
        eps,
        weight.data_ptr(),
        bias.data_ptr(),
    )
    if out.numel():
        lib.run("restore_tokens", argument)
    return out


def _norm(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Copies in float32, adjacent."""
    bias = torch.zeros_like(weight) if bias is None else bias
    return weight.detach().float().clone(), bias.detach().float().clone()


def _tokens(
    lib: Library,
    x: Tensor,
    layer: NormedLinear,
    eps: float,
    gelu: bool,
    second: Packed | None,
    residual: Tensor | None,
) -> Tensor:
    """One linear layer or two for each token, with what stands around them."""
    first = first_linear(lib, layer)
    outputs = (second or first).outputs
    out = x.new_empty(*x.shape[:-1], outputs, dtype=result_dtype(x, residual))
    tokens = _flat(x)
    added = None if residual is None else _flat(residual)
    argument = native_calls.Tokens(
        tokens.data_ptr(),
        0 if added is None else added.data_ptr(),
        out.data_ptr(),
        *tokens.shape,
        tokens.stride(0),
        0 if added is None else added.stride(0),
        outputs,
        tokens.dtype == torch.bfloat16,
        out.dtype == torch.bfloat16,
        first.argument,
        native_calls.Linear() if second is None else second.argument,
        layer.norm_weight is not None,
        gelu,
        eps,
    )
    if out.numel():
        lib.run("restore_tokens", argument)
    return out


def library_for(x: Tensor) -> Library:
    """The library for the arithmetic that autocast asks for."""
    return library() if autocast_dtype(x) is None else library(BFLOAT16)


def result_dtype(x: Tensor, residual: Tensor | None) -> torch.dtype:
    """That of a stock product, or of its sum with the residual."""
    lowered = autocast_dtype(x) or x.dtype
    return lowered if residual is None else torch.promote_types(lowered, residual.dtype)


def adjacent(x: Tensor) -> Tensor:
    """x itself, or a copy whose channels are adjacent."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _flat(x: Tensor) -> Tensor:
    """[..., C] to [tokens, C] with adjacent channels, mostly without a copy."""
    return adjacent(x.reshape(-1, x.shape[-1]))


def map_argument(x: Tensor) -> native_calls.Map:
    """A map [B, H, W, C] with adjacent channels; valid as long as it is."""
    return native_calls.Map(x.data_ptr(), *x.stride()[:3], x.dtype == torch.bfloat16)
