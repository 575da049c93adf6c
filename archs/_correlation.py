"""HiT-SR's correlations in windows, and the gated projection before them.

Shape letters: B images, H rows, W columns, C channels of the body; a window has N pixels, of which
M reduced values are made.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs._blocks import (
    PositionMlp,
    Remembered,
    on_map,
    pad_to_multiple,
    pointwise,
    position_tensors,
)
from restore.archs._branches import drops
from restore.archs._ngram import NgramPartition
from restore.archs._plain import plain, plain_sequence
from restore.kernels.channel_correlation import channel_correlation
from restore.kernels.correlation_branch import (
    CorrelationLayers,
    correlation_branch,
    is_fused,
    position_bias,
)
from restore.kernels.gated_projection import GateLayers, gated_projection
from restore.kernels.reference import correlate
from restore.kernels.self_correlation import self_correlation
from restore.kernels.windows import Size

SHAPES = [(1, 1), (3, 1), (1, 1), (1, 1)]  # sides and groups of a projection's convolutions


class GatedProjection(nn.Module):
    """A convolution branch times a linear one: [B, H, W, C] to queries and values [B, H, W, C]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        narrow = dim // 5
        self.conv = nn.Sequential(
            nn.Conv2d(dim, narrow, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(narrow, narrow, 3, 1, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(narrow, dim, 1),
        )
        self.linear = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        return self.run(x, (1, 1))

    def run(self, x: Tensor, multiple: Size) -> Tensor:
        """Of x grown by reflection to multiples of two numbers: [B, H, W, C] to [B, H', W', C]."""
        layers = self._layers()
        if layers is None:
            x = pad_to_multiple(x, multiple)
            return on_map(self.conv, x) * pointwise(self.linear, x)
        _, first, _, second, _ = cast("list[nn.LeakyReLU]", [*self.conv])
        slopes = first.negative_slope, second.negative_slope
        return gated_projection(x, layers, multiple, slopes=slopes)

    def _layers(self) -> GateLayers | None:
        """Its tensors as ops take them; None if any of its layers has to be called."""
        kinds = (nn.Conv2d, nn.LeakyReLU, nn.Conv2d, nn.LeakyReLU, nn.Conv2d)
        if not (plain_sequence(self.conv, *kinds) and plain(nn.Conv2d, self.linear)):
            return None
        squeeze, _, conv, _, widen = cast("list[nn.Conv2d]", [*self.conv])
        layers = (squeeze, conv, widen, self.linear)
        if [(layer.kernel_size[0], layer.groups) for layer in layers] != SHAPES:
            return None
        parts = (part for layer in layers for part in (layer.weight, layer.bias))
        return GateLayers(*cast("list[Tensor]", [*parts]))


class Correlation(nn.Module):
    """Spatial and channel self-correlation in windows: [B, H, W, C] to [B, H, W, C]."""

    def __init__(
        self,
        dim: int,
        window_size: Size,
        reduction: Size,
        heads: int,
        ngram: bool,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.reduction = reduction
        self.num_heads = heads
        self.qv = GatedProjection(dim)
        self.ngram_window_partition = NgramPartition(dim, window_size, heads) if ngram else None
        self.spatial_linear = nn.Linear(reduction[0] * reduction[1], 1)
        self.pos = PositionMlp(dim // 16, heads)
        self._table = Remembered()
        self._bias = Remembered(in_exports=False)  # 18 times as large as its table
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; H and W are multiples of the window."""
        return self.correlate(self.project(x, (1, 1)))

    def project(self, x: Tensor, multiple: Size) -> Tensor:
        """Queries and values of x grown by reflection: [B, H, W, C] to [B, H', W', C]."""
        if plain(GatedProjection, self.qv):
            qv = self.qv.run(x, multiple)
        else:
            qv = self.qv(pad_to_multiple(x, multiple))
        if self.ngram_window_partition is not None:
            qv = self.ngram_window_partition(qv)
        return qv

    def correlate(self, qv: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; H and W are multiples of the window."""
        bias = self._bias.get(position_tensors(self.pos), self.window_size, self.position_bias)
        if plain(nn.Linear, self.spatial_linear):
            y = self_correlation(
                qv,
                self.spatial_linear.weight,
                self.spatial_linear.bias,
                bias,
                self.window_size,
                reduction=self.reduction,
                num_heads=self.num_heads,
            )
        else:
            spatial = correlate(qv, self._reduce, bias, self.window_size)
            y = torch.cat([spatial, channel_correlation(qv, self.window_size)], dim=-1)
        return cast(Tensor, self.proj_drop(self.proj(y)))

    def add_to(self, x: Tensor, qv: Tensor, norm: nn.LayerNorm) -> Tensor | None:
        """x + norm(self.correlate(qv)), [B, H, W, C] all, but for what lies below and right of x.

        None where a layer has to be called, or where it would be no faster than they.
        """
        linears = plain(nn.Linear, self.spatial_linear, self.proj)
        if not (linears and plain(nn.LayerNorm, norm)) or drops(self.proj_drop):
            return None
        given = (self.spatial_linear.weight, self.spatial_linear.bias)
        behind = (self.proj.weight, self.proj.bias, norm.weight, norm.bias)
        if not is_fused(x, qv):
            return None
        table = self._table.get(position_tensors(self.pos), self.window_size, self._mean_table)
        return correlation_branch(
            x,
            qv,
            CorrelationLayers(*given, table, *behind),
            self.window_size,
            reduction=self.reduction,
            eps=norm.eps,
        )

    def _reduce(self, v: Tensor) -> Tensor:
        """[n, N, C / 2] to [n, M, C / 2]: the values of each block to one."""
        (wh, ww), (rh, rw) = self.window_size, self.reduction
        v = v.unflatten(1, (wh // rh, rh, ww // rw, rw)).permute(0, 1, 3, 5, 2, 4).flatten(4)
        reduced: Tensor = self.spatial_linear(v)  # [n, wh / rh, ww / rw, C / 2, 1]
        return reduced.squeeze(-1).flatten(1, 2)

    def position_bias(self) -> Tensor:
        """[heads, N, M]: the mean bias of each pixel to the pixels of each block.

        The mean over a block is taken on the table of offsets, not on all pairs of pixels.
        """
        table = self._table.get(position_tensors(self.pos), self.window_size, self._mean_table)
        return position_bias(table, self.window_size, self.reduction)

    def _mean_table(self) -> Tensor:
        """[heads, 2 wh - rh, 2 ww - rw]: the mean bias of each offset and those of a block on."""
        rows, cols = self.window_size
        table = self.pos(self.window_size).view(2 * rows - 1, 2 * cols - 1, -1)
        return F.avg_pool2d(table.permute(2, 0, 1), self.reduction, stride=1)
