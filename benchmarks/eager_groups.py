"""Blocks without a table of biases, and groups, as their authors compute them; see `eager_blocks`.

HiT-SR correlates without a softmax, ATD attends to a dictionary and among tokens alike, and DRCT's
groups are dense.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.eager_blocks import (
    Stored,
    attend,
    biases_by_offset,
    conv_mlp,
    convolved,
    cross_block,
    heads_of,
    hybrid_block,
    mlp,
    overlapping_block,
    permuted_block,
    rolled,
    square_bias,
    swin_block,
)
from restore.archs._blocks import pad_to_multiple
from restore.archs._conv_mlp import ConvMlp
from restore.archs._cross_aggregation import CrossAggregationBlock
from restore.archs._swin import SwinBlock
from restore.archs.atd import CategoryBranch, DictionaryBranch, Layer, Layers, WindowBranch
from restore.archs.cat import CATGroup
from restore.archs.drct import BLOCKS, RESIDUAL, DenseGroup
from restore.archs.hat import HAB, HybridBlocks
from restore.archs.hit_sr import Correlation, HiTBlock
from restore.archs.srformer import PermutedBlock
from restore.kernels.windows import (
    Size,
    relative_position_index,
    window_partition,
    window_reverse,
)


def run_block(block: nn.Module, x: Tensor, size: Size, stored: Stored) -> Tensor:
    """What a block makes of tokens [B, H W, C]."""
    if isinstance(block, HAB):
        return hybrid_block(block, x, size, stored)
    if isinstance(block, SwinBlock):
        return swin_block(block, x, size, stored)
    if isinstance(block, PermutedBlock):
        return permuted_block(block, x, size, stored)
    if isinstance(block, CrossAggregationBlock):
        return cross_block(block, x, size, stored)
    if isinstance(block, HiTBlock):
        return correlation_block(block, x, size, stored)
    raise LookupError(f"no eager form of {type(block).__name__}")


def run_group(group: nn.Module, x: Tensor, size: Size, stored: Stored) -> Tensor:
    """What a group of the Swin family makes of tokens [B, H W, C]."""
    if isinstance(group, DenseGroup):
        return dense_group(group, x, size, stored)
    inner = group if isinstance(group, CATGroup) else group.residual_group
    if isinstance(inner, Layers):
        y = adaptive_layers(inner, x, size, stored)
    else:
        y = x
        for block in inner.blocks:
            y = run_block(block, y, size, stored)
    if isinstance(inner, HybridBlocks):
        y = overlapping_block(inner.overlap_attn, y, size, stored)
    return convolved(group.conv, y, size) + x


def dense_group(group: DenseGroup, x: Tensor, size: Size, stored: Stored) -> Tensor:
    """DRCT's: every block sees what those before it made."""
    features = x
    for k in range(1, BLOCKS + 1):
        y = swin_block(getattr(group, f"swin{k}"), features, size, stored)
        y = convolved(getattr(group, f"adjust{k}"), y, size)
        if k < BLOCKS:
            features = torch.cat([features, F.leaky_relu(y, 0.2)], dim=-1)
    return y * RESIDUAL + x


def correlation_block(block: HiTBlock, x: Tensor, size: Size, stored: Stored) -> Tensor:
    """HiT-SR's: correlations of pixels and of channels, normalised after each branch."""
    b, n, c = x.shape
    h, w = size
    y = _correlations(
        block.correlation, pad_to_multiple(x.view(b, h, w, c), block.multiple), stored
    )
    x = x + block.drop_path(block.norm1(y[:, :h, :w].reshape(b, n, c)))
    feed = conv_mlp(block.mlp, x, size) if isinstance(block.mlp, ConvMlp) else mlp(block.mlp, x)
    return x + block.drop_path(block.norm2(feed))


def _correlations(module: Correlation, x: Tensor, stored: Stored) -> Tensor:
    if module.ngram_window_partition is not None:
        raise LookupError("no eager form of HiT-SNG's context")
    size, window, heads = (x.shape[1], x.shape[2]), module.window_size, module.num_heads
    x = x.permute(0, 3, 1, 2)
    qv = module.qv.conv(x) * module.qv.linear(x)
    q, v = window_partition(qv.permute(0, 2, 3, 1), window).chunk(2, dim=-1)  # [n, N, C / 2]
    (rh, rw), (wh, ww) = module.reduction, window
    cut = v.reshape(-1, wh // rh, rh, ww // rw, rw, v.shape[-1]).permute(0, 1, 3, 5, 2, 4)
    reduced = module.spatial_linear(cut.reshape(*cut.shape[:4], rh * rw)).flatten(1, 2)[..., 0]
    (queries,), (values,) = heads_of(q, 1, heads), heads_of(reduced, 1, heads)  # [n, heads, _, d]
    correlation = queries @ values.transpose(-2, -1) / queries.shape[-1]
    spatial = (correlation + _mean_bias(module, stored)[None]) @ values
    spatial = spatial.transpose(1, 2).flatten(2)
    by_channel = q.transpose(-2, -1) @ v / q.shape[1]  # [n, C / 2, C / 2]
    channel = (by_channel @ v.transpose(-2, -1)).transpose(-2, -1)
    y = module.proj(torch.cat([spatial, channel], dim=-1))
    return window_reverse(module.proj_drop(y), window, *size)


def _mean_bias(module: Correlation, stored: Stored) -> Tensor:
    """[heads, N, M]: biases of all pairs of pixels, and their means over a block of keys."""
    (wh, ww), (rh, rw) = module.window_size, module.reduction
    table = biases_by_offset(module.pos, module.window_size)
    index = stored.index("own", table, lambda: relative_position_index((wh, ww)), wh, ww)
    pairs = table[index.flatten()].view(wh * ww, wh // rh, rh, ww // rw, rw, -1)
    return pairs.mean(dim=(2, 4)).flatten(1, 2).permute(2, 0, 1)


def adaptive_layers(layers: Layers, x: Tensor, size: Size, stored: Stored) -> Tensor:
    """ATD's layers, with a dictionary that each refines for the next."""
    dictionary = layers.td.expand(x.shape[0], -1, -1)
    for layer in layers.layers:
        x, dictionary = _adaptive_layer(layer, x, dictionary, size, stored)
    return x


def _adaptive_layer(
    layer: Layer, x: Tensor, dictionary: Tensor, size: Size, stored: Stored
) -> tuple[Tensor, Tensor]:
    normal = layer.norm1(x)
    qkv = layer.wqkv(normal)
    from_entries, similarity = _from_dictionary(layer.attn_atd, normal, dictionary)
    from_alike = _among_alike(layer.attn_aca, qkv, similarity)
    from_window = _in_windows(layer.attn_win, qkv, size, stored)
    x = x + from_window + from_entries + from_alike
    x = x + conv_mlp(layer.convffn, layer.norm2(x), size)
    if layer.refines:
        found = layer.norm3(similarity.transpose(-2, -1)).softmax(-1) @ x
        kept = layer.sigma.sigmoid()
        dictionary = kept * dictionary + (1 - kept) * found
    return x, dictionary


def _from_dictionary(
    branch: DictionaryBranch, x: Tensor, dictionary: Tensor
) -> tuple[Tensor, Tensor]:
    q, k = F.normalize(branch.wq(x), dim=-1), F.normalize(branch.wk(dictionary), dim=-1)
    sharpness = 1 + branch.scale.clamp(0, 1) * math.log(k.shape[1])
    similarity = (q @ k.transpose(-2, -1) * sharpness).softmax(-1)  # [B, n, M]
    return similarity @ branch.wv(dictionary), similarity


def _among_alike(branch: CategoryBranch, qkv: Tensor, similarity: Tensor) -> Tensor:
    b, n, c3 = qkv.shape
    # the authors' sort is not stable; a defined order costs no more, and can be compared
    order = torch.sort(similarity.argmax(-1), dim=-1, stable=True).indices  # [B, n]
    x = qkv.gather(1, order[:, :, None].expand(-1, -1, c3))
    group = min(n, branch.category_size)
    more = -n % group
    if more:
        x = torch.cat([x, x[:, n - more :].flip(1)], dim=1)
    x = x.view(b, -1, group, 3, branch.num_heads, c3 // 3 // branch.num_heads)
    q, k, v = x.permute(3, 0, 1, 4, 2, 5).unbind(0)  # [B, groups, heads, group, d]
    logits = q @ k.transpose(-2, -1) * branch.logit_scale.clamp(max=math.log(100)).exp()
    y = (logits.softmax(-1) @ v).transpose(2, 3).reshape(b, n + more, c3 // 3)[:, :n]
    y = y.gather(1, order.argsort(-1)[:, :, None].expand(-1, -1, c3 // 3))
    return cast(Tensor, branch.proj(y))


def _in_windows(branch: WindowBranch, qkv: Tensor, size: Size, stored: Stored) -> Tensor:
    window, shift, table = branch.window_size, branch.shift, branch.relative_position_bias_table
    x = rolled(qkv.view(qkv.shape[0], *size, qkv.shape[-1]), shift)
    q, k, v = heads_of(window_partition(x, window), 3, branch.num_heads)
    mask = stored.mask(size, window, shift, table)
    y = attend(q * q.shape[-1] ** -0.5, k, v, square_bias(stored, table, window), mask)
    y = window_reverse(branch.proj(y), window, *size)
    return rolled(y, shift, back=True).flatten(1, 2)
