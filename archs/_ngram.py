"""Context of windows from their neighbours, as n-grams of windows.

Shape letters: B images, H rows, W columns, C channels, n x m windows in the map.

Source: Choi et al., "N-Gram in Swin Transformers", arXiv:2211.11436, section 3.2. Parameter names
are those of the official HiT-SNG files.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs._blocks import IgnoresDerived, pointwise
from restore.kernels.window_attention import window_attention
from restore.kernels.windows import Size

BIGRAM = (2, 2)  # windows that see each other


class NgramContext(nn.Module):
    """One vector for each window from itself and its neighbours: [B, H, W, C] to [B, n, m, C].

    Windows become tokens, every 2 x 2 of them attend to each other once looking down and right and
    once up and left, and the mean of the four is the window's context.
    """

    def __init__(self, dim: int, window_size: Size, num_heads: int) -> None:
        super().__init__()
        self.unigram_embed = nn.Conv2d(2, 1, window_size, stride=window_size)
        self.ngram_attn = BigramAttention(dim // 2, num_heads)
        self.merge = nn.Conv2d(dim, dim, 1)

    def forward(self, qv: Tensor) -> Tensor:
        """[B, H, W, C] to [B, n, m, C]; at least two windows along each axis."""
        b, h, w, c = qv.shape
        pairs = qv.permute(0, 3, 1, 2).reshape(b * c // 2, 2, h, w)
        unigrams = self.unigram_embed(pairs).unflatten(0, (b, c // 2)).squeeze(2)
        passes = [
            self.ngram_attn(F.pad(unigrams, side, mode="reflect").permute(0, 2, 3, 1))
            for side in ((0, 1, 0, 1), (1, 0, 1, 0))
        ]
        return pointwise(self.merge, torch.cat(passes, dim=-1))


class BigramAttention(IgnoresDerived):
    """Attention in sliding 2 x 2 windows, averaged: [B, n + 1, m + 1, C] to [B, n, m, C]."""

    derived = ("relative_position_index",)

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(9, num_heads), std=0.02)
        )
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, n + 1, m + 1, C] to [B, n, m, C]."""
        qkv = self.qkv(x).unfold(1, 2, 1).unfold(2, 2, 1)  # [B, n, m, 3C, 2, 2]
        b, n, m, _, _, _ = qkv.shape
        qkv = qkv.permute(0, 1, 2, 4, 5, 3).flatten(0, 2)  # [B * n * m, 2, 2, 3C]
        y = window_attention(
            qkv, self.relative_position_bias_table, BIGRAM, num_heads=self.num_heads
        )
        return cast(Tensor, self.proj(y).mean(dim=(1, 2)).unflatten(0, (b, n, m)))


class NgramPartition(nn.Module):
    """Adds to each pixel the context of its window: [B, H, W, C] to [B, H, W, C]."""

    def __init__(self, dim: int, window_size: Size, num_heads: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.ngram_context = NgramContext(dim, window_size, num_heads)

    def forward(self, qv: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; at least two windows along each axis."""
        context: Tensor = self.ngram_context(qv)
        rows, cols = self.window_size
        return qv + context.repeat_interleave(rows, 1).repeat_interleave(cols, 2)
