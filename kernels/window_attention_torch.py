"""`window_attention` from stock fused ops: PyTorch's scaled dot product attention.

All windows of a kind (see `windows.join_kinds`) share one mask, so each kind is one call with one
[heads, N, N] bias, and no mask per window is ever made. Where N is large, as in stripes along a
whole side, it is a call for every few queries, so that memory grows with the map and no faster.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from restore.kernels.reference import dense_bias, mask_values
from restore.kernels.windows import (
    Size,
    join_kinds,
    rolled,
    rolled_back,
    shift_mask,
    window_partition,
    window_reverse,
)

# Logits that one call may make where no fused kernel takes it; one that is fused makes none.
LOGIT_BYTES = 2**28
FEWEST_QUERIES = 64  # in a call; with fewer, products of matrices are slow


def forward(
    qkv: Tensor,
    bias_table: Tensor,
    window_size: Size,
    shift: Size,
    num_heads: int,
    scale: float,
) -> Tensor:
    """See `window_attention.window_attention`, of all windows; the arguments are checked."""
    b, h, w, _, _ = qkv.shape
    n_pixels = window_size[0] * window_size[1]
    x = rolled(qkv.flatten(3), shift)
    row_bytes = b * h * w * num_heads * qkv.element_size()  # logits of one query of each window
    count = max(LOGIT_BYTES // max(row_bytes, 1), FEWEST_QUERIES)
    whole = None
    if count >= n_pixels:
        whole = dense_bias(bias_table, window_size).to(qkv.dtype)  # [heads, N, N]

    def bias(queries: slice, edge: Size) -> Tensor:
        kind = whole
        if kind is None:
            kind = dense_bias(bias_table, window_size, queries).to(qkv.dtype)
        if any(edge):
            mask = shift_mask(*window_size, window_size, edge, qkv.device, queries)  # [1, Q, N]
            kind = kind + mask_values(mask, kind.dtype)
        return kind[None]

    def part(rows: slice, cols: slice, edge: Size) -> Tensor:
        piece = x[:, rows, cols]
        windows = window_partition(piece, window_size).unflatten(-1, (3, num_heads, -1))
        q, k, v = windows.permute(2, 0, 3, 1, 4).unbind(0)  # [n, heads, N, d]
        found = []
        for start in range(0, n_pixels, count):
            queries = slice(start, start + count)
            kind = bias(queries, edge)
            found.append(
                scaled_dot_product_attention(q[:, :, queries], k, v, attn_mask=kind, scale=scale)
            )
        y = found[0] if len(found) == 1 else torch.cat(found, dim=2)
        return window_reverse(y.transpose(1, 2).flatten(2), window_size, *piece.shape[1:3])

    return rolled_back(join_kinds((h, w), window_size, shift, part), shift)


def forward_chosen(
    qkv: Tensor,
    bias_table: Tensor,
    window_size: Size,
    shift: Size,
    num_heads: int,
    scale: float,
    windows: Tensor,
) -> Tensor:
    """The same of some windows.

    Each has the mask of its place, so that they are computed a few at a time.
    """
    h, w = qkv.shape[1:3]
    x = rolled(qkv.flatten(3), shift)
    every = window_partition(x, window_size).unflatten(-1, (3, num_heads, -1))
    bias = dense_bias(bias_table, window_size).to(x.dtype)[None]  # [1, heads, N, N]
    count = max(LOGIT_BYTES // (bias.numel() * bias.element_size()), 1)
    masks = shift_mask(h, w, window_size, shift, x.device) if any(shift) else None  # [n, N, N]
    y = x.new_zeros(every.shape[0], every.shape[1], every.shape[3] * every.shape[4])
    for some in windows.split(count):
        q, k, v = every[some].permute(2, 0, 3, 1, 4).unbind(0)  # [K, heads, N, d]
        kind = bias
        if masks is not None:
            kind = bias + mask_values(masks[some % masks.shape[0]], bias.dtype)[:, None]
        found = scaled_dot_product_attention(q, k, v, attn_mask=kind, scale=scale)
        y = y.index_copy(0, some, found.transpose(1, 2).flatten(2))
    return rolled_back(window_reverse(y, window_size, h, w), shift)
