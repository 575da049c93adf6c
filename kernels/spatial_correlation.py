"""Correlation of a window's pixels with its reduced values: attention without a softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.kernels import channel_correlation, dispatch, reference
from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.precision import lowered
from restore.kernels.window_attention import check_windows
from restore.kernels.windows import Size, window_partition, window_reverse

OP = "spatial_correlation"


def spatial_correlation(
    qv: Tensor,
    weight: Tensor,
    bias: Tensor,
    position_bias: Tensor,
    window_size: Size,
    *,
    reduction: Size,
    num_heads: int,
    backend: Backend = "auto",
) -> Tensor:
    """Correlate each pixel of a window with the window's values, reduced block by block.

        r_m = sum_p weight_p v_p + bias          over the pixels p of block m
        y_a = sum_m (q_a . r_m / d + position_bias[a, m]) r_m

    for the N pixels a and the M = N / (rh * rw) blocks m of one window and head, with
    d = C / 2 / num_heads.

    Args:
        qv: [B, H, W, C]: queries in the first half of the channels, values in the second, heads
            before their channels. Floating point.
        weight: [1, rh * rw]: one factor a pixel of a block, row by row, shared by all blocks and
            channels.
        bias: [1], added to every reduced value.
        position_bias: [num_heads, N, M], in correlations.
        window_size: wh rows and ww columns; they divide H and W.
        reduction: rh rows and rw columns of a block; they divide wh and ww.
        num_heads: divides C / 2.
        backend: see `dispatch.choose`.

    Returns:
        [B, H, W, C / 2], dtype and device of qv; under autocast of its dtype.

    Raises:
        ValueError: a shape does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Zhang et al., "HiT-SR", arXiv:2407.05878, section 3.3 (spatial self-correlation).
    """
    check(OP, qv, weight, bias, position_bias, window_size, reduction, num_heads)
    given = (qv, weight, bias, position_bias, window_size, reduction)
    path = choose(OP, backend, refusals(qv))
    if path == "triton":
        from restore.kernels import self_correlation_triton as fast

        return fast.forward(lowered(qv), *given[1:], channel=False)
    return _folded(*given) if path == "torch" else reference.spatial_correlation(*given)


def refusals(qv: Tensor) -> dict[Path, str | None]:
    """Why each path beside the definition cannot run this call, or None if it can."""
    return {
        "triton": channel_correlation.triton_refuses(qv),
        "torch": dispatch.torch_refuses(qv),
    }


def _folded(
    qv: Tensor,
    weight: Tensor,
    bias: Tensor,
    position_bias: Tensor,
    window_size: Size,
    reduction: Size,
) -> Tensor:
    """The same, with sum_m (q . r_m) r_m folded to q (r^T r), which holds no [N, M] product.

    All heads are one product, with zeros where two heads meet. The position bias is one matrix for
    all windows, so its product is one large product, with the windows side by side as columns.
    """
    num_heads = position_bias.shape[0]
    _, h, w, c = qv.shape
    head_dim = c // 2 // num_heads
    q, v = window_partition(qv, window_size).chunk(2, dim=-1)  # [n, N, C / 2] each
    r = reference.reduce_values(v, weight, bias, window_size, reduction)  # [n, M, C / 2]
    n, m, _ = r.shape
    # a row of blocks at a time: every step of a sum of squares rounds all that it has come to, and
    # by one sum over M, q's gradient is off more than twice as much as the definition's
    rows = r.unflatten(1, (window_size[0] // reduction[0], -1))
    folded = (rows.transpose(-2, -1) @ rows).sum(1)  # [n, C / 2, C / 2]
    head = torch.arange(c // 2, device=r.device) // head_dim
    folded = folded * ((head[:, None] == head[None, :]).to(r.dtype) / head_dim)
    r = r.view(n, m, num_heads, head_dim).permute(2, 1, 0, 3)  # [heads, M, n, d]
    by_position = position_bias.to(r.dtype) @ r.flatten(2)  # [heads, N, n * d]
    y = q @ folded + by_position.unflatten(-1, (n, head_dim)).permute(2, 1, 0, 3).flatten(2)
    return window_reverse(y, window_size, h, w)


def check(
    op: str,
    qv: Tensor,
    weight: Tensor,
    bias: Tensor,
    position_bias: Tensor,
    window_size: Size,
    reduction: Size,
    num_heads: int,
) -> None:
    """Refuse what does not fit together (ValueError), in the name of `op`."""
    check_blocks(op, qv, weight, bias, window_size, reduction, num_heads)
    (wh, ww), (rh, rw) = window_size, reduction
    expected = (num_heads, wh * ww, wh * ww // (rh * rw))
    if tuple(position_bias.shape) != expected:
        raise ValueError(
            f"{op}: position_bias is {tuple(position_bias.shape)}; expected {expected}"
        )


def check_blocks(
    op: str,
    qv: Tensor,
    weight: Tensor,
    bias: Tensor,
    window_size: Size,
    reduction: Size,
    num_heads: int,
) -> None:
    """The same but for the position bias."""
    if qv.dim() != 4 or qv.shape[-1] % 2:
        raise ValueError(f"{op}: qv is {tuple(qv.shape)}; expected [B, H, W, C] with an even C")
    _, h, w, c = qv.shape
    (wh, ww), (rh, rw) = window_size, reduction
    check_windows(op, (h, w), window_size, (0, 0))
    if min(rh, rw) < 1 or wh % rh or ww % rw:
        raise ValueError(f"{op}: reduction {reduction} does not divide the window {window_size}")
    if num_heads < 1 or c // 2 % num_heads:
        raise ValueError(f"{op}: num_heads={num_heads} does not divide C / 2 = {c // 2}")
    for name, given, entries in (("weight", weight, rh * rw), ("bias", bias, 1)):
        if given.numel() != entries:
            raise ValueError(
                f"{op}: {name} has {given.numel()} entries; reduction {reduction} needs {entries}"
            )
