"""Blocks as their authors compute them: one stock PyTorch call after another, for comparison only.

The map is a list of tokens [B, H W, C] that is rolled, cut into windows and put back; biases are
gathered to [heads, N, M], masks are stored tensors, and every product of queries and keys is
written to memory. Written from the papers and from measurements of the published networks; the
parameters, and what is dropped in training, are those of blocks of ours.

Shape letters: B images, H rows, W columns, C channels, N pixels of a window, M keys of one, n
windows in a map, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs._blocks import PositionMlp
from restore.archs._cross_aggregation import CrossAggregationBlock, StripeAttention
from restore.archs._swin import WindowAttention
from restore.archs.hat import HAB, OCAB
from restore.archs.srformer import PermutedAttention
from restore.archs.uformer import LeWinBlock
from restore.kernels.windows import (
    Size,
    aligned_position_index,
    overlapping_position_index,
    relative_offsets,
    relative_position_index,
    window_partition,
    window_reverse,
)


class Stored:
    """Indices and shift masks, which the authors' networks hold as buffers.

    Args:
        keep: whether a mask is made once for each size and kept, as it is at the size of training.
            Else every block makes one on the CPU, for windows that are not shifted too, as SwinIR
            does at any other size.
    """

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self._kept: dict[tuple[object, ...], Tensor] = {}

    def index(self, name: str, table: Tensor, make: Callable[[], Tensor], *sizes: int) -> Tensor:
        """An index of a bias table, made once for each size."""
        return self._get((name, *sizes), table, lambda: make().to(table.device))

    def mask(
        self, size: Size, window: Size, shift: Size, table: Tensor, cells: bool = False
    ) -> Tensor | None:
        """[n, N, M] of 0 and -100, in the dtype of the bias table; None if there is none."""
        if not self.keep:
            return shift_mask(size, window, shift, torch.device("cpu"), cells).to(table)
        if not any(shift):
            return None
        key = (size[0], size[1], window[0], window[1], shift[0], shift[1], cells)
        return self._get(
            key, table, lambda: shift_mask(size, window, shift, table.device, cells).to(table.dtype)
        )

    def _get(self, key: tuple[object, ...], table: Tensor, make: Callable[[], Tensor]) -> Tensor:
        found = self._kept.get(key)
        if (
            found is None
            or found.device != table.device
            or (found.is_floating_point() and found.dtype != table.dtype)
        ):
            found = self._kept[key] = make()
        return found


def shift_mask(
    size: Size, window: Size, shift: Size, device: torch.device, cells: bool = False
) -> Tensor:
    """[n, N, M] float32: -100 between pieces of the image that the roll joined in a window.

    With `cells`, the keys are cells of 2 x 2 pixels.
    """
    queries = keys = _labels(size, window, shift, device)
    if cells:
        size, window = (size[0] // 2, size[1] // 2), (window[0] // 2, window[1] // 2)
        keys = _labels(size, window, ((shift[0] + 1) // 2, (shift[1] + 1) // 2), device)
    difference = keys[:, None, :] - queries[:, :, None]
    return difference.masked_fill(difference != 0, -100.0)


def _labels(size: Size, window: Size, shift: Size, device: torch.device) -> Tensor:
    """[n, N]: the piece of the image that each pixel of each window comes from."""
    labels = torch.zeros((1, *size, 1), device=device)
    rows, cols = (
        (slice(0, -side), slice(-side, -roll), slice(-roll, None))
        for side, roll in zip(window, shift, strict=True)
    )
    label = 0
    for row in rows:
        for col in cols:
            labels[:, row, col].fill_(label)
            label += 1
    return window_partition(labels, window).squeeze(-1)


def to_map(tokens: Tensor, size: Size) -> Tensor:
    """[B, H W, C] to [B, C, H, W]."""
    b, _, c = tokens.shape
    return tokens.transpose(1, 2).view(b, c, *size)


def to_tokens(x: Tensor) -> Tensor:
    """[B, C, H, W] to [B, H W, C]."""
    return x.flatten(2).transpose(1, 2)


def convolved(conv: nn.Module, tokens: Tensor, size: Size) -> Tensor:
    """[B, H W, C] to [B, H W, C'] by a convolution."""
    return to_tokens(conv(to_map(tokens, size)))


def rolled(x: Tensor, shift: Size, back: bool = False) -> Tensor:
    """[B, H, W, C] rolled up and left by `shift`, or back."""
    if not any(shift):
        return x
    return torch.roll(x, shift if back else (-shift[0], -shift[1]), dims=(1, 2))


def heads_of(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """[n, N, parts * C] to `parts` of [n, heads, N, d]."""
    n, count, width = x.shape
    x = x.reshape(n, count, parts, heads, width // parts // heads)
    return x.permute(2, 0, 3, 1, 4).unbind(0)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """[n, heads, N, d] and twice [n, heads, M, d] to [n, N, heads * d]."""
    logits = q @ k.transpose(-2, -1)
    logits = logits + bias[None]
    if mask is not None:
        shape = logits.shape
        logits = logits.view(-1, mask.shape[0], *shape[1:]) + mask[None, :, None]
        logits = logits.view(shape)
    return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)


def rows_of(table: Tensor, index: Tensor) -> Tensor:
    """[T, heads] and [N, M] to [heads, N, M], a copy of its own."""
    bias = table[index.flatten()].view(*index.shape, -1)
    return bias.permute(2, 0, 1).contiguous()


def square_bias(stored: Stored, table: Tensor, window: Size) -> Tensor:
    """[heads, N, N]: the biases of a window whose keys are its own pixels."""
    index = stored.index("own", table, lambda: relative_position_index(window), *window)
    return rows_of(table, index)


def mlp(block: nn.Module, x: Tensor) -> Tensor:
    """Two linear layers and a GELU."""
    return block.drop(block.fc2(block.drop(F.gelu(block.fc1(x)))))


def conv_mlp(block: nn.Module, x: Tensor, size: Size) -> Tensor:
    """The same with a depthwise convolution of the hidden map."""
    hidden = F.gelu(block.fc1(x))
    hidden = hidden + convolved(block.dwconv.depthwise_conv, hidden, size)
    return block.drop(block.fc2(block.drop(hidden)))


def swin_windows(attn: WindowAttention, x: Tensor, stored: Stored) -> Tensor:
    """Attention in shifted windows: [B, H, W, C] to the same."""
    size, window, shift = (x.shape[1], x.shape[2]), attn.window_size, attn.shift
    table = attn.relative_position_bias_table
    windows = window_partition(rolled(x, shift), window)
    q, k, v = heads_of(attn.qkv(windows), 3, attn.num_heads)
    factor = q.shape[-1] ** -0.5 if attn.scale is None else attn.scale
    mask = stored.mask(size, window, shift, table)
    y = attend(q * factor, k, v, square_bias(stored, table, window), mask)
    y = attn.proj_drop(attn.proj(y))
    return rolled(window_reverse(y, window, *size), shift, back=True)


def swin_block(block: nn.Module, x: Tensor, size: Size, stored: Stored) -> Tensor:
    """SwinIR's, DRCT's and SRFormerV2's."""
    b, n, c = x.shape
    y = swin_windows(block.attn, block.norm1(x).view(b, *size, c), stored)
    x = x + block.drop_path(y.view(b, n, c))
    return x + block.drop_path(mlp(block.mlp, block.norm2(x)))


def hybrid_block(block: HAB, x: Tensor, size: Size, stored: Stored) -> Tensor:
    """HAT's: the same with a convolution branch."""
    b, n, c = x.shape
    normal = block.norm1(x)
    branch = convolved(block.conv_block.cab, normal, size)
    y = swin_windows(block.attn, normal.view(b, *size, c), stored)
    x = x + block.drop_path(y.view(b, n, c)) + branch * block.conv_scale
    return x + block.drop_path(mlp(block.mlp, block.norm2(x)))


def overlapping_block(block: OCAB, x: Tensor, size: Size, stored: Stored) -> Tensor:
    """HAT's last of a group: keys from larger windows, cut out by im2col."""
    b, n, c = x.shape
    (wh, ww), (hh, hw) = block.window_size, block.halo
    sides = (wh + 2 * hh, ww + 2 * hw)
    qkv = block.qkv(block.norm1(x)).view(b, *size, 3, c).permute(3, 0, 4, 1, 2)  # [3, B, C, H, W]
    queries = window_partition(qkv[0].permute(0, 2, 3, 1), block.window_size)
    both = torch.cat([qkv[1], qkv[2]], dim=1)  # [B, 2C, H, W]
    cut = F.unfold(both, kernel_size=sides, stride=(wh, ww), padding=(hh, hw))  # [B, 2C M, n]
    cut = cut.view(b, 2 * c, sides[0] * sides[1], -1).permute(0, 3, 2, 1)  # [B, n, M, 2C]
    k, v = heads_of(cut.reshape(-1, sides[0] * sides[1], 2 * c), 2, block.num_heads)
    (q,) = heads_of(queries, 1, block.num_heads)
    table = block.relative_position_bias_table
    index = stored.index(
        "overlapping",
        table,
        lambda: overlapping_position_index(block.window_size, block.halo),
        *block.window_size,
        *block.halo,
    )
    factor = q.shape[-1] ** -0.5 if block.scale is None else block.scale
    y = attend(q * factor, k, v, rows_of(table, index), None)
    y = window_reverse(y, block.window_size, *size)
    x = x + block.proj(y.view(b, n, c))
    return x + mlp(block.mlp, block.norm2(x))


def permuted_block(block: nn.Module, x: Tensor, size: Size, stored: Stored) -> Tensor:
    """SRFormer's: keys and values of 2 x 2 cells."""
    b, n, c = x.shape
    y = _permuted_windows(block.attn, block.norm1(x).view(b, *size, c), stored)
    x = x + block.drop_path(y.view(b, n, c))
    return x + block.drop_path(conv_mlp(block.mlp, block.norm2(x), size))


def _permuted_windows(attn: PermutedAttention, x: Tensor, stored: Stored) -> Tensor:
    size, window, shift = (x.shape[1], x.shape[2]), attn.window_size, attn.shift
    rows, cols = window[0] // 2, window[1] // 2
    table = attn.relative_position_bias_table
    windows = window_partition(rolled(x, shift), window)  # [n, N, C]
    kv = attn.kv(windows)
    kv = kv.view(-1, rows, 2, cols, 2, 2, kv.shape[-1] // 2)  # [n, rows, dy, cols, dx, k or v, c]
    kv = kv.permute(0, 1, 3, 5, 2, 4, 6).reshape(len(windows), rows * cols, -1)
    k, v = heads_of(kv, 2, attn.num_heads)
    (q,) = heads_of(attn.q(windows), 1, attn.num_heads)
    index = stored.index("cells", table, lambda: aligned_position_index(window), *window)
    mask = stored.mask(size, window, shift, table, cells=True)
    y = attn.proj_drop(attn.proj(attend(q * attn.scale, k, v, rows_of(table, index), mask)))
    return rolled(window_reverse(y, window, *size), shift, back=True)


def lewin_block(block: LeWinBlock, x: Tensor, size: Size, stored: Stored) -> Tensor:
    """Uformer's: a vector for each place in a window, and a convolution between linear layers."""
    b, n, c = x.shape
    attn, feed = block.attn, block.mlp
    window, shift, table = attn.window_size, attn.shift, attn.relative_position_bias_table
    windows = window_partition(rolled(block.norm1(x).view(b, *size, c), shift), window)
    if block.modulator is not None:
        windows = windows + block.modulator.weight
    (q,) = heads_of(attn.qkv.to_q(windows), 1, attn.num_heads)
    k, v = heads_of(attn.qkv.to_kv(windows), 2, attn.num_heads)
    factor = q.shape[-1] ** -0.5 if attn.scale is None else attn.scale
    mask = stored.mask(size, window, shift, table)
    y = attend(q * factor, k, v, square_bias(stored, table, window), mask)
    y = window_reverse(attn.proj_drop(attn.proj(y)), window, *size)
    x = x + block.drop_path(rolled(y, shift, back=True).view(b, n, c))
    hidden = convolved(feed.dwconv, feed.linear1(block.norm2(x)), size)
    return x + block.drop_path(feed.linear2(hidden))


def cross_block(block: CrossAggregationBlock, x: Tensor, size: Size, stored: Stored) -> Tensor:
    """CAT's: two halves of the channels in windows of two directions."""
    b, n, c = x.shape
    qkv = block.qkv(block.norm1(x)).view(b, *size, 3, c).permute(3, 0, 1, 2, 4)  # [3, B, H, W, C]
    halves = zip(block.attns, qkv.chunk(2, dim=-1), strict=True)
    y = torch.cat([_stripes(attn, half, block.scale, stored) for attn, half in halves], dim=-1)
    y = y + block.get_v(qkv[2].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    x = x + block.drop_path(block.proj_drop(block.proj(y.view(b, n, c))))
    return x + block.drop_path(mlp(block.mlp, block.norm2(x)))


def biases_by_offset(pos: PositionMlp, window: Size) -> Tensor:
    """[(2 wh - 1)(2 ww - 1), heads]: by the MLP, at every call."""
    weight = pos.pos_proj.weight
    hidden = pos.pos_proj(relative_offsets(window, weight.device).to(weight.dtype))
    return cast(Tensor, pos.pos3(pos.pos2(pos.pos1(hidden))))


def _stripes(attn: StripeAttention, qkv: Tensor, scale: float | None, stored: Stored) -> Tensor:
    size = (qkv.shape[2], qkv.shape[3])
    window = (attn.window[0] or size[0], attn.window[1] or size[1])
    q, k, v = (
        heads_of(window_partition(rolled(part, attn.shift), window), 1, attn.num_heads)[0]
        for part in qkv
    )
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    table = biases_by_offset(attn.pos, window)
    mask = stored.mask(size, window, attn.shift, table)
    y = attend(q * factor, k, v, square_bias(stored, table, window), mask)
    return rolled(window_reverse(y, window, *size), attn.shift, back=True)
