"""Every op in plain PyTorch: the definitions that the fast paths are held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.kernels.windows import (
    ALL,
    Size,
    aligned_position_index,
    cell_shift_mask,
    overlapping_partition,
    overlapping_position_index,
    relative_offsets,
    relative_position_index,
    rolled,
    rolled_back,
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
    windows: Tensor | None = None,
) -> Tensor:
    """Attention inside (shifted) windows; see `window_attention.window_attention`."""
    _, h, w, _, c = qkv.shape
    n_pixels = window_size[0] * window_size[1]
    x = window_partition(rolled(qkv.flatten(3), shift), window_size)  # [B * n, N, 3C]
    mask = shift_mask(h, w, window_size, shift, qkv.device) if any(shift) else None  # [n, N, N]
    bias = dense_bias(bias_table, window_size)  # [heads, N, N]
    count = x.shape[0]
    if windows is not None:
        x = x[windows]
        if mask is not None:
            bias = bias + mask_values(mask[windows % mask.shape[0]], bias.dtype)[:, None]
            mask = None
    x = x.view(-1, n_pixels, 3, num_heads, c // num_heads).permute(2, 0, 3, 1, 4)
    q, k, v = x.unbind(0)  # [B * n, heads, N, d]
    y = attend(q, k, v, bias, mask, scale)
    if windows is not None:
        y = y.new_zeros(count, *y.shape[1:]).index_copy(0, windows, y)
    return rolled_back(window_reverse(y, window_size, h, w), shift)


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Attention of windows, given the pixels of each.

    Args:
        q: [B * n, heads, N, d], images first, then windows.
        k: [B * n, heads, M, d].
        v: like k.
        bias: [heads, N, M], or one of each window, [B * n, heads, N, M], in logits.
        mask: [n, N, M] bool, True where a query must not see a key; None where it sees all.
        scale: factor of the products.

    Returns:
        [B * n, N, heads * d].
    """
    logits = (q * scale) @ k.transpose(-2, -1)
    logits = logits + bias
    if mask is not None:
        added = mask_values(mask, logits.dtype)
        logits = logits.unflatten(0, (-1, mask.shape[0])) + added[:, None]
        logits = logits.flatten(0, 1)
    y = logits.softmax(-1).to(v.dtype) @ v  # [B * n, heads, N, d]
    return y.transpose(1, 2).flatten(2)


def mask_values(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to logits: 0, and MASKED where a bool mask is True."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, MASKED)


def dense_bias(bias_table: Tensor, window_size: Size, queries: slice = ALL) -> Tensor:
    """[(2wh - 1)(2ww - 1), heads] to [heads, N, N]: the table's row for every query and key.

    Of the N queries, those of `queries`.
    """
    return rows_of(bias_table, relative_position_index(window_size, bias_table.device, queries))


def rows_of(bias_table: Tensor, index: Tensor) -> Tensor:
    """[T, heads] and [N, M] int64 to [heads, N, M]: the table's row for every query and key."""
    return bias_table[index.flatten()].view(*index.shape, -1).permute(2, 0, 1)


def permuted_attention(
    q: Tensor,
    kv: Tensor,
    bias_table: Tensor,
    window_size: Size,
    shift: Size,
    num_heads: int,
    scale: float,
) -> Tensor:
    """Pixels attend to 2 x 2 cells; see `permuted_attention.permuted_attention`."""
    _, h, w, _ = q.shape
    q, kv = rolled(q, shift), rolled(kv, shift)
    q, k, v = permuted_windows(q, cells_of(kv), window_size, num_heads)
    bias = rows_of(bias_table, aligned_position_index(window_size, bias_table.device))
    mask = cell_shift_mask(h, w, window_size, shift, q.device) if any(shift) else None
    y = attend(q, k, v, bias, mask, scale)
    return rolled_back(window_reverse(y, window_size, h, w), shift)


def cells_of(kv: Tensor) -> Tensor:
    """[B, H, W, 2c] to [B, H / 2, W / 2, 2, 4c]: keys and values of 2 x 2 cells.

    Channel (2 dy + dx) c + r of a cell is channel r of its pixel (dy, dx).
    """
    x: Tensor = kv.unflatten(3, (2, -1)).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)  # from [B, H / 2, dy, W / 2, dx, k or v, c]


def permuted_windows(
    q: Tensor, cells: Tensor, window_size: Size, num_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [B * n, heads, N, d], keys and values [B * n, heads, N / 4, d] of each window.

    Args:
        q: [B, H, W, C].
        cells: [B, H / 2, W / 2, 2, C], of `cells_of`.
        window_size: rows and columns of a window, in pixels.
        num_heads: divides C.
    """
    half = (window_size[0] // 2, window_size[1] // 2)
    q = window_partition(q, window_size).unflatten(-1, (num_heads, -1)).transpose(1, 2)
    kv = window_partition(cells.flatten(3), half).unflatten(-1, (2, num_heads, -1))
    k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def overlapping_attention(
    qkv: Tensor,
    bias_table: Tensor,
    window_size: Size,
    halo: Size,
    num_heads: int,
    scale: float,
) -> Tensor:
    """Windows attend to larger ones; see `overlapping_attention.overlapping_attention`."""
    _, h, w, _, _ = qkv.shape
    q, k, v = overlapping_windows(qkv, window_size, halo, num_heads)
    y = attend(q, k, v, overlapping_bias(bias_table, window_size, halo), None, scale)
    return window_reverse(y, window_size, h, w)


def overlapping_windows(
    qkv: Tensor, window_size: Size, halo: Size, num_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [B * n, heads, N, d], keys and values [B * n, heads, M, d] of each window."""
    q = window_partition(qkv[:, :, :, 0], window_size).unflatten(-1, (num_heads, -1))
    kv = overlapping_partition(qkv[:, :, :, 1:].flatten(3), window_size, halo)
    k, v = kv.unflatten(-1, (2, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q.transpose(1, 2), k, v


def overlapping_bias(bias_table: Tensor, window_size: Size, halo: Size) -> Tensor:
    """[(wh + rows - 1)(ww + columns - 1), heads] to [heads, N, M]."""
    index = overlapping_position_index(window_size, halo, bias_table.device)
    return rows_of(bias_table, index % bias_table.shape[0])


def spatial_correlation(
    qv: Tensor,
    weight: Tensor,
    bias: Tensor,
    position_bias: Tensor,
    window_size: Size,
    reduction: Size,
) -> Tensor:
    """Queries by reduced values, no softmax; see `spatial_correlation.spatial_correlation`."""

    def reduce(v: Tensor) -> Tensor:
        return reduce_values(v, weight, bias, window_size, reduction)

    return correlate(qv, reduce, position_bias, window_size)


def correlate(
    qv: Tensor, reduce: Callable[[Tensor], Tensor], position_bias: Tensor, window_size: Size
) -> Tensor:
    """The same, with what reduces the values of windows: [n, N, C / 2] to [n, M, C / 2]."""
    _, h, w, c = qv.shape
    q, v = window_partition(qv, window_size).chunk(2, dim=-1)  # [B * n, N, C / 2] each
    num_heads = position_bias.shape[0]
    head_dim = c // 2 // num_heads
    v = reduce(v)  # [B * n, M, C / 2]
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


def depthwise_gelu(x: Tensor, weight: Tensor, bias: Tensor | None, residual: bool) -> Tensor:
    """A convolution of each channel and a GELU; see `depthwise_gelu.depthwise_gelu`."""
    padding = [side // 2 for side in weight.shape[2:]]
    # the permutations only rename axes
    z = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=padding, groups=x.shape[-1])
    y = F.gelu(z).permute(0, 2, 3, 1)
    return x + y if residual else y


def position_table(parameters: Sequence[Tensor], window_size: Size, eps: float) -> Tensor:
    """Biases of a window's offsets by an MLP; see `position_table.position_table`."""
    weight, bias, *others = parameters
    offsets = relative_offsets(window_size, weight.device).to(weight.dtype)
    x = F.linear(offsets, weight, bias)
    for norm_weight, norm_bias, weight, bias in zip(*[iter(others)] * 4, strict=True):
        x = F.relu(F.layer_norm(x, norm_weight.shape, norm_weight, norm_bias, eps))
        x = F.linear(x, weight, bias)
    return x
