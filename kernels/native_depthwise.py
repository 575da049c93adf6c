"""The native path of `depthwise_gelu`; see `native_ops`."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.kernels import native_calls
from restore.kernels.native_library import library
from restore.kernels.native_weights import kept
from restore.kernels.precision import autocast_dtype


def depthwise_gelu(x: Tensor, weight: Tensor, bias: Tensor | None, residual: bool) -> Tensor:
    """See `depthwise_gelu.depthwise_gelu`; in float32, and rounded as stock ops would."""
    dtype = autocast_dtype(x) or x.dtype
    if residual:
        dtype = torch.promote_types(dtype, x.dtype)
    x = x.float().contiguous()
    by_place = kept(("depthwise",), (weight,), _by_place, weight)
    added = None if bias is None else bias.float().contiguous()
    out = torch.empty_like(x)
    argument = native_calls.Depthwise(
        x.data_ptr(),
        out.data_ptr(),
        by_place.data_ptr(),
        0 if added is None else added.data_ptr(),
        *x.shape,
        *weight.shape[2:],
        residual,
    )
    if out.numel():
        library().run("restore_depthwise", argument)
    return out.to(dtype)


def _by_place(weight: Tensor) -> Tensor:
    """[C, 1, kh, kw] to [kh, kw, C] with adjacent channels, float32."""
    return weight.detach()[:, 0].permute(1, 2, 0).float().contiguous()
