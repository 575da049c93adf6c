"""Spatial and channel correlation of the same windows, side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.kernels.channel_correlation import channel_correlation
from restore.kernels.dispatch import Backend, choose
from restore.kernels.precision import lowered
from restore.kernels.spatial_correlation import check, refusals, spatial_correlation
from restore.kernels.windows import Size

__all__ = ["OP", "refusals", "self_correlation"]

OP = "self_correlation"


def self_correlation(
    qv: Tensor,
    weight: Tensor,
    bias: Tensor,
    position_bias: Tensor,
    window_size: Size,
    *,
    num_heads: int,
    reduction: Size,
    backend: Backend = "auto",
) -> Tensor:
    """Both self-correlations of a map's windows: `spatial_correlation`, then `channel_correlation`.

    Both read the same pixels, so that one pass over the map can serve both.

    Args:
        qv: [B, H, W, C], as of `spatial_correlation`.
        weight: as of `spatial_correlation`.
        bias: as of `spatial_correlation`.
        position_bias: as of `spatial_correlation`.
        window_size: wh rows and ww columns; they divide H and W.
        num_heads: of the spatial correlation; divides C / 2.
        reduction: rh rows and rw columns of a block; they divide wh and ww.
        backend: see `dispatch.choose`.

    Returns:
        [B, H, W, C]: the spatial correlation in the first half of the channels, the channel
        correlation in the second. Dtype and device of qv; under autocast of its dtype.

    Raises:
        ValueError: a shape does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Zhang et al., "HiT-SR", arXiv:2407.05878, section 3.3.
    """
    check(OP, qv, weight, bias, position_bias, window_size, reduction, num_heads)
    path = choose(OP, backend, refusals(qv))
    if path == "triton":
        from restore.kernels import self_correlation_triton as fast

        qv = lowered(qv)
        return fast.forward(qv, weight, bias, position_bias, window_size, reduction, channel=True)
    spatial = spatial_correlation(
        qv,
        weight,
        bias,
        position_bias,
        window_size,
        reduction=reduction,
        num_heads=num_heads,
        backend=path,
    )
    return torch.cat([spatial, channel_correlation(qv, window_size, backend=path)], dim=-1)
