"""Attention of windows to larger windows around them, straight from the qkv projection."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from restore.kernels import reference
from restore.kernels.attention_geometry import of_overlapping_windows
from restore.kernels.dispatch import Backend, choose
from restore.kernels.native_library import with_native
from restore.kernels.precision import lowered
from restore.kernels.window_attention import check_heads, check_windows, refusals
from restore.kernels.windows import Size, window_reverse

OP = "overlapping_attention"


def overlapping_attention(
    qkv: Tensor,
    bias_table: Tensor,
    window_size: Size,
    halo: Size,
    *,
    num_heads: int,
    scale: float | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Attend from the pixels of a window to those of the window and of a halo around it.

        y_a = sum_b softmax_b(scale * q_a . k_b + table[offset(a, b)]) v_b

    over the pixels b of the window grown by the halo on all sides, for each pixel a of one window
    and head. Outside the map keys and values are 0: they add nothing to the sum, but their bias
    counts in the softmax. offset(a, b) is the row that `windows.overlapping_position_index` gives.

    Args:
        qkv: [B, H, W, 3C], or [B, H, W, 3, C] with any strides, q before k before v, heads before
            their channels. Floating point.
        bias_table: [(wh + rows - 1)(ww + columns - 1), num_heads], in logits, where rows =
            wh + 2 hh and columns = ww + 2 hw are the sides of the grown window.
        window_size: wh rows and ww columns; they divide H and W.
        halo: hh rows and hw columns on each side, 0 or more.
        num_heads: divides C.
        scale: factor of the products; (C / num_heads) ** -0.5 if None.
        backend: see `dispatch.choose`.

    Returns:
        [B, H, W, C], dtype and device of qkv.

    Raises:
        ValueError: a shape does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Chen et al., "Activating More Pixels in Image Super-Resolution Transformer",
    arXiv:2205.04437, section 3.2 (overlapping cross-attention).
    """
    if qkv.dim() == 4 and qkv.shape[-1] % 3 == 0:
        qkv = qkv.unflatten(-1, (3, -1))
    _check(qkv, bias_table, window_size, halo, num_heads)
    if scale is None:
        scale = (qkv.shape[-1] // num_heads) ** -0.5
    refused = refusals(qkv, qkv.shape[-1] // num_heads)
    path = choose(OP, backend, with_native(refused, qkv, bias_table))
    if path == "triton":
        from restore.kernels.attention_ops import attend

        geometry = of_overlapping_windows(window_size, halo)
        return attend(lowered(qkv), geometry, num_heads, scale, table=bias_table)
    if path == "native":
        from restore.kernels import native_ops

        return native_ops.overlapping_attention(
            qkv, bias_table, window_size, halo, num_heads, scale
        )
    if path == "torch":
        return _fused(qkv, bias_table, window_size, halo, scale)
    return reference.overlapping_attention(qkv, bias_table, window_size, halo, num_heads, scale)


def _fused(qkv: Tensor, bias_table: Tensor, window_size: Size, halo: Size, scale: float) -> Tensor:
    """The same by PyTorch's scaled dot product attention, which holds no [N, M] product."""
    bias = reference.overlapping_bias(bias_table, window_size, halo).to(qkv.dtype)
    q, k, v = reference.overlapping_windows(qkv, window_size, halo, bias.shape[0])
    y = scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=scale)
    return window_reverse(y.transpose(1, 2).flatten(2), window_size, *qkv.shape[1:3])


def _check(qkv: Tensor, bias_table: Tensor, window_size: Size, halo: Size, num_heads: int) -> None:
    if qkv.dim() != 5 or qkv.shape[3] != 3:
        raise ValueError(f"{OP}: qkv is {tuple(qkv.shape)}; expected [B, H, W, 3C]")
    _, h, w, _, c = qkv.shape
    check_windows(OP, (h, w), window_size, (0, 0))
    if min(halo) < 0:
        raise ValueError(f"{OP}: halo is {halo}; expected 0 or more")
    down, across = (2 * (side + more) - 1 for side, more in zip(window_size, halo, strict=True))
    check_heads(f"{OP} with halo {halo}", c, bias_table, down * across, window_size, num_heads)
