"""The native path of `conv_mlp`; see `native_ops`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from restore.kernels import native_calls
from restore.kernels.fused_reference import ConvMlpLayers
from restore.kernels.native_library import Library
from restore.kernels.native_ops import (
    adjacent,
    first_linear,
    library_for,
    map_argument,
    result_dtype,
)
from restore.kernels.native_weights import Packed, kept

BLOCK = 256  # RESTORE_BLOCK of native/restore_native.h
SIDES = (3, 5, 7)  # of the convolution, as the library has them


def refuses(weight: Tensor) -> str | None:
    """Why there is no native kernel for a convolution, or None if there is one."""
    kh, kw = weight.shape[2:]
    return None if kh == kw and kh in SIDES else f"it convolves by squares of {SIDES} pixels"


class _Layers(NamedTuple):
    """What every call takes, as long as the weights are the same."""

    widen: Packed
    narrow: Packed
    weight: Tensor  # [D, kh, kw]
    bias: Tensor  # [D]


def conv_mlp(
    x: Tensor, layers: ConvMlpLayers, eps: float, added: bool, residual: Tensor | None
) -> Tensor:
    """See `conv_mlp.conv_mlp`."""
    lib, x = library_for(x), adjacent(x)
    residual = None if residual is None else adjacent(residual)
    dtype = result_dtype(x, residual)
    if residual is not None:
        residual = residual.to(dtype)
    weights = (*layers.linear, layers.weight, layers.bias)
    packed = kept(("conv_mlp", lib.isa), weights, _pack, lib, layers)
    out = x.new_empty(*x.shape[:-1], packed.narrow.outputs, dtype=dtype)
    argument = native_calls.ConvMlp(
        map_argument(x),
        native_calls.Map() if residual is None else map_argument(residual),
        map_argument(out),
        *x.shape,
        packed.widen.argument,
        packed.narrow.argument,
        packed.weight.data_ptr(),
        packed.bias.data_ptr(),
        packed.weight.shape[-1],
        added,
        layers.linear.norm_weight is not None,
        eps,
    )
    if out.numel():
        lib.run("restore_conv_mlp", argument)
    return out


def _pack(lib: Library, layers: ConvMlpLayers) -> _Layers:
    weight = layers.weight.detach()[:, 0].float().contiguous()
    bias = weight.new_zeros(len(weight)) if layers.bias is None else layers.bias.detach().float()
    narrow, narrow_bias = layers.linear.fc2_weight.detach().float(), layers.linear.fc2_bias
    if narrow_bias is None:
        narrow_bias = narrow.new_zeros(len(narrow))
    packed = torch.cat([lib.pack(part) for part in narrow.split(BLOCK, dim=1)])
    last = Packed(packed, narrow_bias.detach().float().contiguous(), *narrow.shape)
    return _Layers(first_linear(lib, layers.linear.first), last, weight, bias.contiguous())
