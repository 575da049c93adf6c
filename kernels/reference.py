"""Every op in plain PyTorch: the definitions that the fast paths are held to."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.kernels.windows import (
    Size,
    relative_position_index,
    shift_mask,
    window_partition,
    window_reverse,
)

# Published nets add this to masked logits; minus infinity would change their last digits.
MASKED = -100.0


def window_attention(
    qkv: Tensor,
    bias_table: Tensor,
    window_size: Size,
    shift: Size,
    num_heads: int,
    scale: float,
) -> Tensor:
    """Attention inside (shifted) windows; see `window_attention.window_attention`."""
    b, h, w, _, c = qkv.shape
    n_pixels = window_size[0] * window_size[1]
    x = qkv.flatten(3)
    if any(shift):
        x = torch.roll(x, (-shift[0], -shift[1]), dims=(1, 2))
    x = window_partition(x, window_size)  # [B * n, N, 3C]
    x = x.view(-1, n_pixels, 3, num_heads, c // num_heads).permute(2, 0, 3, 1, 4)
    q, k, v = x.unbind(0)  # [B * n, heads, N, d]
    logits = (q * scale) @ k.transpose(-2, -1)
    logits = logits + dense_bias(bias_table, window_size)
    if any(shift):
        mask = shift_mask(h, w, window_size, shift, qkv.device)  # [n, N, N]
        added = torch.zeros(mask.shape, dtype=logits.dtype, device=mask.device)
        added = added.masked_fill(mask, MASKED)
        logits = logits.view(b, -1, num_heads, n_pixels, n_pixels) + added[:, None]
        logits = logits.view(-1, num_heads, n_pixels, n_pixels)
    y = logits.softmax(-1).to(v.dtype) @ v  # [B * n, heads, N, d]
    y = y.transpose(1, 2).reshape(-1, n_pixels, c)
    y = window_reverse(y, window_size, h, w)
    if any(shift):
        y = torch.roll(y, shift, dims=(1, 2))
    return y


def dense_bias(bias_table: Tensor, window_size: Size) -> Tensor:
    """[(2wh - 1)(2ww - 1), heads] to [heads, N, N]: the table's row for every query and key."""
    index = relative_position_index(window_size, bias_table.device)
    return bias_table[index.flatten()].view(*index.shape, -1).permute(2, 0, 1)


def spatial_correlation(
    qv: Tensor,
    weight: Tensor,
    bias: Tensor,
    position_bias: Tensor,
    window_size: Size,
    reduction: Size,
) -> Tensor:
    """Queries by reduced values, no softmax; see `spatial_correlation.spatial_correlation`."""
    _, h, w, c = qv.shape
    q, v = window_partition(qv, window_size).chunk(2, dim=-1)  # [B * n, N, C / 2] each
    num_heads = position_bias.shape[0]
    head_dim = c // 2 // num_heads
    v = reduce_values(v, weight, bias, window_size, reduction)  # [B * n, M, C / 2]
    q = q.unflatten(-1, (num_heads, head_dim)).transpose(1, 2)  # [B * n, heads, N, d]
    v = v.unflatten(-1, (num_heads, head_dim)).transpose(1, 2)  # [B * n, heads, M, d]
    correlation = q @ v.transpose(-2, -1) / head_dim + position_bias
    y = correlation.to(v.dtype) @ v
    return window_reverse(y.transpose(1, 2).flatten(2), window_size, h, w)


def reduce_values(
    v: Tensor, weight: Tensor, bias: Tensor, window_size: Size, reduction: Size
) -> Tensor:
    """One weighted sum for every `reduction` block of a window: [n, N, C] to [n, M, C].

    The weights run over a block's pixels row by row and are shared by channels and blocks.
    """
    (wh, ww), (rh, rw) = window_size, reduction
    v = v.view(-1, wh // rh, rh, ww // rw, rw, v.shape[-1])
    weight = weight.view(rh, 1, rw, 1)
    return ((v * weight).sum(dim=(2, 4)) + bias).flatten(1, 2).to(v.dtype)


def channel_correlation(qv: Tensor, window_size: Size) -> Tensor:
    """Channels by channels inside windows; see `channel_correlation.channel_correlation`."""
    _, h, w, _ = qv.shape
    q, v = window_partition(qv, window_size).chunk(2, dim=-1)  # [B * n, N, C / 2] each
    correlation = q.transpose(-2, -1) @ v / q.shape[1]  # [B * n, C / 2, C / 2]
    return window_reverse(v @ correlation.transpose(-2, -1), window_size, h, w)
