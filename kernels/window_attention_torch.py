"""`window_attention` from stock fused ops: PyTorch's scaled dot product attention.

A shifted map has four kinds of windows: those inside, at the right edge, at the bottom edge and in
the corner. All windows of a kind share one mask, so each kind is one call with one [heads, N, N]
bias, and no mask per window is ever made.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from restore.kernels.reference import MASKED, dense_bias
from restore.kernels.windows import Size, shift_mask, window_partition, window_reverse


def forward(
    qkv: Tensor,
    bias_table: Tensor,
    window_size: Size,
    shift: Size,
    num_heads: int,
    scale: float,
) -> Tensor:
    """See `window_attention.window_attention`; the arguments are checked."""
    _, h, w, _, _ = qkv.shape
    bias = dense_bias(bias_table, window_size).to(qkv.dtype)  # [heads, N, N]
    x = qkv.flatten(3)
    if not any(shift):
        return _attend(x, bias, window_size, num_heads, scale)
    x = torch.roll(x, (-shift[0], -shift[1]), dims=(1, 2))
    rows = []
    for y0, y1, at_bottom in _parts(h, window_size[0], shift[0]):
        row = []
        for x0, x1, at_right in _parts(w, window_size[1], shift[1]):
            kind = bias
            if at_bottom or at_right:
                edge = (shift[0] * at_bottom, shift[1] * at_right)
                mask = shift_mask(*window_size, window_size, edge, qkv.device)  # [1, N, N]
                kind = bias + torch.zeros_like(bias[:1]).masked_fill(mask, MASKED)
            row.append(_attend(x[:, y0:y1, x0:x1], kind, window_size, num_heads, scale))
        rows.append(row[0] if len(row) == 1 else torch.cat(row, dim=2))
    y = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
    return torch.roll(y, shift, dims=(1, 2))


def _parts(length: int, window: int, shift: int) -> list[tuple[int, int, bool]]:
    """Start, end and "is the last window" of the parts of an axis whose windows share a mask."""
    if not shift:
        return [(0, length, False)]
    cut = length - window
    return [part for part in ((0, cut, False), (cut, length, True)) if part[0] < part[1]]


def _attend(x: Tensor, bias: Tensor, window_size: Size, num_heads: int, scale: float) -> Tensor:
    _, h, w, c3 = x.shape
    x = window_partition(x, window_size)
    x = x.view(-1, bias.shape[-1], 3, num_heads, c3 // 3 // num_heads).permute(2, 0, 3, 1, 4)
    q, k, v = x.unbind(0)  # [n, heads, N, d]
    y = scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=scale)
    return window_reverse(y.transpose(1, 2).flatten(2), window_size, h, w)
