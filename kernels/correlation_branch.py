"""Self-correlation of windows with what stands behind it in a block of HiT-SR."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.native_library import native_refuses
from restore.kernels.norm_linear import check_linear, check_norm
from restore.kernels.precision import check_dtypes
from restore.kernels.self_correlation import self_correlation
from restore.kernels.spatial_correlation import check_blocks
from restore.kernels.windows import Size, block_offset

OP = "correlation_branch"


class CorrelationLayers(NamedTuple):
    """Tensors of the correlation and of the layers behind it. C channels."""

    weight: Tensor  # [1, rh * rw], as of `spatial_correlation`
    bias: Tensor  # [1], as of `spatial_correlation`
    table: Tensor  # [num_heads, 2 wh - rh, 2 ww - rw]: position biases, of `position_bias`
    proj_weight: Tensor  # [C, C]
    proj_bias: Tensor | None  # [C]
    norm_weight: Tensor  # [C]
    norm_bias: Tensor | None  # [C]


def correlation_branch(
    x: Tensor,
    qv: Tensor,
    layers: CorrelationLayers,
    window_size: Size,
    *,
    reduction: Size,
    eps: float = 1e-5,
    backend: Backend = "auto",
) -> Tensor:
    """Correlate a map's windows, project each pixel, normalise it, and add it to another map.

        x + LN(self_correlation(qv) W^T + b)

    See `self_correlation.self_correlation`, whose position bias is that of `position_bias`, and
    `norm_linear.norm_linear` for LN.

    Args:
        x: [B, H, W, C], floating point. Not changed.
        qv: [B, H', W', C], H' >= H and W' >= W: what lies below and right of x is correlated too.
        layers: on x's device.
        window_size: wh rows and ww columns; they divide H' and W'.
        reduction: rh rows and rw columns of a block; they divide wh and ww.
        eps: added to the variance of a pixel's channels.
        backend: see `dispatch.choose`; any but "native" is that of the correlation.

    Returns:
        [B, H, W, C], dtype and device of x; under autocast the wider one of x's dtype and
        autocast's.

    Raises:
        ValueError: a shape or a dtype does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Zhang et al., "HiT-SR", arXiv:2407.05878, section 3.3.
    """
    _check(x, qv, layers, window_size, reduction)
    asked = backend if backend in ("auto", "native") else "reference"
    if choose(OP, asked, refusals(x, qv, *layers)) == "native":
        from restore.kernels import native_correlation

        return native_correlation.correlation_branch(x, qv, layers, window_size, reduction, eps)
    check_dtypes(OP, qv, layers.proj_weight)
    y = self_correlation(
        qv,
        layers.weight,
        layers.bias,
        position_bias(layers.table, window_size, reduction),
        window_size,
        num_heads=layers.table.shape[0],
        reduction=reduction,
        backend=backend,
    )
    y = F.linear(y[:, : x.shape[1], : x.shape[2]], layers.proj_weight, layers.proj_bias)
    return x + F.layer_norm(y, y.shape[-1:], layers.norm_weight, layers.norm_bias, eps)


def is_fused(x: Tensor, *others: Tensor | None) -> bool:
    """Whether `correlation_branch` of these tensors is one call, and not the ops it is made of.

    Who keeps the position bias for each pair of pixel and block does better to call these.
    """
    return choose(OP, "auto", refusals(x, *others)) == "native"


def refusals(x: Tensor, *others: Tensor | None) -> dict[Path, str | None]:
    """Why each path beside the ops that it is made of cannot run, or None if it can."""
    return {"native": native_refuses(x, *others)}


def position_bias(table: Tensor, window_size: Size, reduction: Size) -> Tensor:
    """[heads, 2 wh - rh, 2 ww - rw] to [heads, N, M]: what lies at the offset of pixel and block.

    Pixel (y, x) and block (m, n) meet at row y + wh - rh - m rh and column x + ww - rw - n rw.
    """
    (wh, ww), (rh, rw) = window_size, reduction
    rows = block_offset(wh, rh, table.device)  # [wh, wh / rh]
    cols = block_offset(ww, rw, table.device)  # [ww, ww / rw]
    # an axis at a time: an index of both would be twice as large as the bias, in exports too
    bias: Tensor = table.index_select(1, rows.flatten()).index_select(2, cols.flatten())
    bias = bias.unflatten(2, cols.shape).unflatten(1, rows.shape)
    return bias.transpose(2, 3).flatten(3).flatten(1, 2)


def _check(
    x: Tensor, qv: Tensor, layers: CorrelationLayers, window_size: Size, reduction: Size
) -> None:
    """Refuse what does not fit together (ValueError)."""
    heads = layers.table.shape[0] if layers.table.dim() == 3 else 0
    check_blocks(OP, qv, layers.weight, layers.bias, window_size, reduction, heads)
    (wh, ww), (rh, rw) = window_size, reduction
    expected = (heads, 2 * wh - rh, 2 * ww - rw)
    if tuple(layers.table.shape) != expected:
        raise ValueError(f"{OP}: table is {tuple(layers.table.shape)}; expected {expected}")
    b, h, w, c = qv.shape
    fits = x.dim() == 4 and x.shape[0] == b and x.shape[3] == c
    if not fits or not (0 < x.shape[1] <= h and 0 < x.shape[2] <= w):
        raise ValueError(
            f"{OP}: x is {tuple(x.shape)}; qv {tuple(qv.shape)} has no such map inside"
        )
    check_norm(OP, x, layers.norm_weight, layers.norm_bias)
    weight, bias = ("proj_weight", layers.proj_weight), ("proj_bias", layers.proj_bias)
    check_linear(OP, weight, bias, c)
    if layers.proj_weight.shape[0] != c:
        raise ValueError(
            f"{OP}: proj_weight is {tuple(layers.proj_weight.shape)}; expected {(c, c)}"
        )
