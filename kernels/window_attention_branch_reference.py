"""`window_attention_branch` in plain PyTorch: the definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.kernels import fused_reference, reference
from restore.kernels.attention_geometry import Geometry, of_windows
from restore.kernels.windows import Size

Attention = Callable[[Tensor, Tensor, Size, Size, int, float], Tensor]


class BranchWeights(NamedTuple):
    """The tensors of a branch. C channels, N pixels of a window."""

    qkv_weight: Tensor  # [3C, C], q before k before v, heads before their channels
    qkv_bias: Tensor | None  # [3C]
    bias_table: Tensor  # [(2 wh - 1)(2 ww - 1), num_heads], in logits
    proj_weight: Tensor  # [C, C]
    proj_bias: Tensor | None  # [C]
    norm_weight: Tensor | None = None  # [C]; without it x is not normalised
    norm_bias: Tensor | None = None  # [C]
    vectors: Tensor | None = None  # [N, C], one for each pixel of a window, added behind the norm


@dataclass(frozen=True)
class Call:
    """One call, its arguments checked."""

    x: Tensor  # [B, H, W, C]
    weights: BranchWeights
    residual: Tensor | None  # [B, H, W, C]
    window_size: Size
    shift: Size
    num_heads: int
    scale: float
    eps: float

    @property
    def g(self) -> Geometry:
        """Of its windows."""
        return of_windows(self.window_size, self.shift)

    @property
    def saved_shape(self) -> tuple[int, int, int]:
        """Of one number for every query and head."""
        return self.g.windows(*self.x.shape[:3]), self.num_heads, self.g.n

    @property
    def dtype(self) -> torch.dtype:
        """Of the products."""
        return self.weights.qkv_weight.dtype

    @property
    def result_dtype(self) -> torch.dtype:
        """That of a stock sum."""
        if self.residual is None:
            return self.dtype
        return torch.promote_types(self.dtype, self.residual.dtype)


def window_attention_branch(call: Call, attend: Attention = reference.window_attention) -> Tensor:
    """See `window_attention_branch.window_attention_branch`; `attend` attends inside windows."""
    x, w = call.x, call.weights
    y = fused_reference.normalised(x, w.norm_weight, w.norm_bias, call.eps)
    if w.vectors is not None:
        y = with_vectors(y, w.vectors, call.window_size, call.shift)
    qkv = F.linear(y, w.qkv_weight, w.qkv_bias).unflatten(-1, (3, -1))
    y = attend(qkv, w.bias_table, call.window_size, call.shift, call.num_heads, call.scale)
    y = F.linear(y, w.proj_weight, w.proj_bias)
    return y if call.residual is None else call.residual + y


def with_vectors(x: Tensor, vectors: Tensor, window_size: Size, shift: Size) -> Tensor:
    """Add a vector for each place in a window, the windows being those after the roll."""
    wh, ww = window_size
    vectors = vectors.view(wh, 1, ww, -1).roll(shift, dims=(0, 2))
    x = x.unflatten(2, (-1, ww)).unflatten(1, (-1, wh))  # [B, H / wh, wh, W / ww, ww, C]
    return (x + vectors).flatten(3, 4).flatten(1, 2)
