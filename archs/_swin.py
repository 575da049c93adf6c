"""The Swin block: attention in (shifted) square windows, then an MLP.

Source: Liu et al., "Swin Transformer", arXiv:2103.14030; in restoration Liang et al., "SwinIR",
arXiv:2108.10257. Parameter names are the official ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from restore.archs._blocks import DropPath, IgnoresDerived, Mlp
from restore.kernels.reference import MASKED
from restore.kernels.window_attention import window_attention
from restore.kernels.windows import Size, relative_position_index, shift_mask

TABLE = "attn.relative_position_bias_table"  # of a block


def bias_table(rows: int, num_heads: int) -> nn.Parameter:
    """[rows, num_heads]: a bias for each offset and head, drawn as the Swin family does."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(rows, num_heads), std=0.02))


class WindowAttention(IgnoresDerived):
    """Projection to qkv, attention in windows, projection back: [B, H, W, C] to [B, H, W, C].

    Args:
        dim: C.
        num_heads: divides C.
        window_size: side of a window.
        shift: roll of both axes.
        qkv_bias: whether the projection has one.
        qk_scale: factor of the products; head_dim ** -0.5 if None.
        drop: rate at which values are dropped after the last projection, in training.
    """

    derived = ("relative_position_index",)

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        shift: int,
        *,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.window_size = (window_size, window_size)
        self.shift = (shift, shift)
        self.num_heads = num_heads
        self.scale = qk_scale
        self.relative_position_bias_table = bias_table((2 * window_size - 1) ** 2, num_heads)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; H and W are multiples of the window."""
        y = window_attention(
            self.qkv(x),
            self.relative_position_bias_table,
            self.window_size,
            self.shift,
            num_heads=self.num_heads,
            scale=self.scale,
        )
        return cast(Tensor, self.proj_drop(self.proj(y)))


class SwinBlock(IgnoresDerived):
    """Attention, then an MLP of `hidden` channels, each behind a norm and added."""

    derived = ("attn_mask",)

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        shift: int,
        hidden: int,
        *,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(
            dim,
            num_heads,
            window_size,
            shift,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            drop=drop,
        )
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden, drop)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


def stored_index(window_size: int) -> Callable[[], Tensor]:
    """What makes the index buffer of official files: [N, N] int64."""
    return lambda: relative_position_index((window_size, window_size))


def stored_mask(img_size: Size, window_size: int, shift: int) -> Callable[[], Tensor]:
    """What makes the mask buffer of official files: [n, N, N] float32, 0 or -100."""

    def mask() -> Tensor:
        apart = shift_mask(*img_size, (window_size, window_size), (shift, shift))
        return torch.zeros(apart.shape).masked_fill(apart, MASKED)

    return mask
