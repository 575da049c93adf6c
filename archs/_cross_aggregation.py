"""Cross aggregation: a block whose halves of the channels attend in windows of two directions.

Windows are rectangles and their transposes, or stripes along a whole side of the map. A window's
sides are given for the first half of the channels; the second has them exchanged. 0 stands for the
whole side.

Shape letters: B images, H rows, W columns, C channels, N pixels of a window, n windows in the map.

Source: Chen et al., "Cross Aggregation Transformer for Image Restoration", arXiv:2211.13654,
sections 3.2 and 3.3. Parameter names are those of the official files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from restore.archs._blocks import (
    IgnoresDerived,
    PositionMlp,
    Remembered,
    on_map,
    position_tensors,
)
from restore.archs._branches import (
    DropPath,
    Mlp,
    add_branch,
    hidden_features,
    project,
    project_onto,
)
from restore.archs._plain import plain
from restore.archs._skeleton import DropRates, PatchConfig
from restore.archs._spec import StateDict, StoredBuffer, shape_of
from restore.archs._strips import Added, Kernel, Layer, only_result, run_layers
from restore.archs._swin import stored_rectangle_index, stored_rectangle_mask
from restore.kernels.norm_linear import norm_linear
from restore.kernels.window_attention import window_attention
from restore.kernels.windows import Size, relative_offsets

LEAST_DIM = 32  # the position MLP has a 32nd of the channels


@dataclass(frozen=True)
class Stage:
    """Blocks one after the other at one size of the map."""

    name: str  # of its blocks' official keys, before the number
    depth: int
    dim: int
    num_heads: int  # of both halves of the channels together
    window: Size  # of the first half; 0 stands for the whole side

    @property
    def windows(self) -> tuple[Size, Size]:
        """Of the first and of the second half of the channels."""
        return self.window, (self.window[1], self.window[0])


@dataclass(frozen=True)
class CrossConfig(DropRates, PatchConfig):
    """Constructor arguments that the networks of such blocks share."""

    depth: tuple[int, ...] = (6,) * 6  # blocks of each group or level
    split_size_0: tuple[int, ...] = (2, 2, 2, 4, 4, 4)  # pixels, of each group or level
    split_size_1: tuple[int, ...] = (0,) * 6
    num_heads: tuple[int, ...] = (6,) * 6
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    qk_scale: float | None = None  # None: head_dim ** -0.5
    attn_drop_rate: float = 0.0

    @property
    def stages(self) -> list[Stage]:
        """All blocks, in the order of the official keys."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        if self.attn_drop_rate:
            raise ValueError(
                f"attn_drop_rate={self.attn_drop_rate}; only 0, as in all official models"
            )
        for name in ("num_heads", "split_size_0", "split_size_1"):
            if len(self[name]) != len(self.depth):
                raise ValueError(f"{name} {self[name]} does not go with depth {list(self.depth)}")
        for stage in self.stages:
            self._check(stage)

    def _check(self, stage: Stage) -> None:
        dim, heads = stage.dim, stage.num_heads
        if dim < LEAST_DIM or heads < 2 or dim % 2 or heads % 2 or dim % heads:
            raise ValueError(
                f"{stage.name} has {dim} channels and {heads} heads; expected {LEAST_DIM} channels "
                "or more, and an even number of heads that divides them"
            )
        if min(stage.window) < 0 or max(stage.window) < 1:
            raise ValueError(f"{stage.name} has windows of {stage.window} pixels")
        if any(side % (split or 1) for side in self.patch for split in stage.window):
            raise ValueError(
                f"img_size {self.img_size} is no multiple of the windows' sides in {stage.name}, "
                f"{stage.window}; give img_size too"
            )

    @property
    def drop_after_projection(self) -> float:
        """Rate at which values are dropped between attention and its residual, in training."""
        return 0.0


class StripeAttention(IgnoresDerived):
    """Attention of one half of the channels, with a position bias from an MLP."""

    derived = ("rpe_biases", "relative_position_index")

    def __init__(self, dim: int, num_heads: int, window: Size, shifted: bool) -> None:
        super().__init__()
        self.window = window
        self.shift = shift_of(window) if shifted else (0, 0)
        self.num_heads = num_heads
        self.pos = PositionMlp(dim // 4 // 4, num_heads)
        self._table = Remembered()

    def forward(self, qkv: Tensor, scale: float | None, spare: bool = False) -> Tensor:
        """[B, H, W, 3, C] to [B, H, W, C]; H and W are multiples of the window's sides.

        With `spare` the result may lie where the queries did.
        """
        window = (self.window[0] or qkv.shape[1], self.window[1] or qkv.shape[2])
        table = self._table.get(
            position_tensors(self.pos), window, lambda: cast(Tensor, self.pos(window))
        )
        return window_attention(
            qkv,
            table,
            window,
            self.shift,
            num_heads=self.num_heads,
            scale=scale,
            spare=spare,
        )


def shift_of(window: Size) -> Size:
    """Roll of a shifted block: half a window, and none along a whole side."""
    return window[0] // 2, window[1] // 2


class CrossAggregationBlock(IgnoresDerived):
    """Attention of both halves of the channels and a convolution of the values, then an MLP.

        a = [attend_0(q_0, k_0, v_0), attend_1(q_1, k_1, v_1)] + dwconv(v)

    Args:
        config: of the network.
        stage: that the block is in.
        shifted: whether its windows are rolled by half of them.
        drop_path: rate.
    """

    derived = ("attn_mask_0", "attn_mask_1")

    def __init__(
        self, config: CrossConfig, stage: Stage, *, shifted: bool, drop_path: float
    ) -> None:
        super().__init__()
        dim = stage.dim
        self.scale = config.qk_scale
        self.qkv = nn.Linear(dim, 3 * dim, bias=config.qkv_bias)
        self.norm1 = nn.LayerNorm(dim)
        self.attns = nn.ModuleList(
            StripeAttention(dim // 2, stage.num_heads // 2, window, shifted)
            for window in stage.windows
        )
        self.get_v = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(config.drop_after_projection)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden_features(dim, config.mlp_ratio), config.drop_rate)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; H and W are multiples of the windows' sides."""
        aggregate = self._by_halves if only_result(x) and self._has_halves() else self._aggregate
        # no name for what it gives, which would be kept
        x = project_onto(x, self.proj, aggregate(x), self.proj_drop, self.drop_path)
        return add_branch(x, self.norm2, self.mlp, self.drop_path)

    def _aggregate(self, x: Tensor) -> Tensor:
        qkv = project(x, self.norm1, self.qkv).unflatten(-1, (3, -1))  # [B, H, W, 3, C]
        halves = zip(self.attns, qkv.chunk(2, dim=-1), strict=True)
        y = torch.cat([attend(half, self.scale) for attend, half in halves], dim=-1)
        return y + on_map(self.get_v, qkv[:, :, :, 2].contiguous())

    def _has_halves(self) -> bool:
        """Whether the layers before and beside attention may be read, and their channels parted."""
        conv = self.get_v
        read = plain(nn.LayerNorm, self.norm1) and plain(nn.Linear, self.qkv)
        read = read and plain(nn.Conv2d, conv)
        return read and conv.bias is not None and conv.groups == conv.weight.shape[0]

    def _by_halves(self, x: Tensor) -> Tensor:
        """The same with half the queries, keys and values at a time, which are the largest maps."""
        layers = zip(
            self.attns,
            _thirds(self.qkv.weight),
            (None, None) if self.qkv.bias is None else _thirds(self.qkv.bias),
            self.get_v.weight.chunk(2),
            cast(Tensor, self.get_v.bias).chunk(2),
            strict=True,
        )
        return torch.cat([self._half(x, *its) for its in layers], dim=-1)

    def _half(
        self,
        x: Tensor,
        attend: nn.Module,
        weight: Tensor,
        bias: Tensor | None,
        kernel: Tensor,
        kernel_bias: Tensor,
    ) -> Tensor:
        norm = self.norm1
        qkv = norm_linear(x, norm.weight, norm.bias, weight, bias, norm.eps).unflatten(-1, (3, -1))
        if plain(StripeAttention, attend):
            attended = attend(qkv, self.scale, spare=True)
        else:
            attended = attend(qkv, self.scale)
        y, values = (z.permute(0, 3, 1, 2) for z in (attended, qkv[:, :, :, 2]))
        chain: list[Layer] = [Kernel(kernel, kernel_bias, kernel.shape[0]), Added(y)]
        return run_layers(chain, values).permute(0, 2, 3, 1)


def _thirds(x: Tensor) -> tuple[Tensor, ...]:
    """[3C, ...] of queries, keys and values to those of each half of the channels."""
    return tuple(half.flatten(0, 1) for half in x.unflatten(0, (3, -1)).chunk(2, dim=1))


def stage_blocks(
    config: CrossConfig, stage: Stage, rates: Sequence[float]
) -> list[CrossAggregationBlock]:
    """The blocks of a stage, every second one shifted; `rates` are those of dropping paths."""
    return [
        CrossAggregationBlock(config, stage, shifted=j % 2 == 1, drop_path=rate)
        for j, rate in enumerate(rates)
    ]


def derived(config: CrossConfig) -> dict[str, StoredBuffer]:
    """The buffers that official files hold beside the parameters, by key.

    Stages of the same windows share the functions, so that equal buffers can be made once.
    """
    made: dict[Size, dict[str, StoredBuffer]] = {}
    buffers: dict[str, StoredBuffer] = {}
    for stage in config.stages:
        if stage.window not in made:
            made[stage.window] = _block_buffers(config.patch, stage.windows)
        for j in range(stage.depth):
            for name, make in made[stage.window].items():
                if j % 2 or not name.startswith("attn_mask"):
                    buffers[f"{stage.name}.{j}.{name}"] = make
    return buffers


def _block_buffers(patch: Size, windows: tuple[Size, Size]) -> dict[str, StoredBuffer]:
    buffers: dict[str, StoredBuffer] = {}
    for k, window in enumerate(windows):
        sides = (window[0] or patch[0], window[1] or patch[1])
        if any(shift_of(window)):
            buffers[f"attn_mask_{k}"] = stored_rectangle_mask(patch, sides, shift_of(window))
        if 0 not in window:
            buffers[f"attns.{k}.rpe_biases"] = _stored_offsets(window)
            buffers[f"attns.{k}.relative_position_index"] = stored_rectangle_index(window)
    return buffers


def _stored_offsets(window: Size) -> StoredBuffer:
    shape = ((2 * window[0] - 1) * (2 * window[1] - 1), 2)
    return StoredBuffer(shape, lambda: relative_offsets(window).float())


def windows_in_words(config: CrossConfig) -> str:
    """In words, such as "4 x 16" or "2 x side, 4 x side"; each stands for its transpose too."""
    different = dict.fromkeys(stage.window for stage in config.stages)
    return ", ".join(f"{rows} x {cols}" if rows else f"{cols} x side" for rows, cols in different)


def heads_key(name: str) -> str:
    """Key of a tensor with one row for each head of half the channels in a stage's first block."""
    return f"{name}.0.attns.0.pos.pos3.2.weight"


def read_heads(state: StateDict, name: str) -> int:
    """Heads of a stage, in both halves of the channels together.

    Raises:
        KeyError: the tensor that tells them is missing.
        ValueError: it has another number of sides, or an empty one.
    """
    return 2 * shape_of(state, heads_key(name), "[heads / 2, width]")[0]


def read_window(state: StateDict, name: str, rectangles: bool = False) -> tuple[Size | None, int]:
    """The window of a stage's first half and the side of the training patch, from its buffers.

    Only shapes are looked at. They do not tell a rectangle's rows from its columns: there are
    fewer rows, as in the official models.

    Args:
        state: keys under official names.
        name: of the stage.
        rectangles: whether windows are such, of `has_rectangles`; else they are stripes.

    Returns:
        None and 0 where the buffers do not tell.
    """
    pixels, side = _mask_sizes(state, name)
    if not rectangles:
        # stripes: n = side / split, N = side * split
        return ((0, pixels // side) if side and pixels % side == 0 else None), side
    offsets = state.get(f"{name}.0.attns.0.rpe_biases")  # [(2 wh - 1)(2 ww - 1), 2]
    index = state.get(f"{name}.0.attns.0.relative_position_index")  # [N, N]
    pixels = pixels if index is None or index.dim() != 2 else index.shape[0]
    if offsets is None or offsets.dim() != 2:
        return _likely_rectangle(pixels), side
    both = (4 * pixels + 1 - offsets.shape[0]) // 2  # wh + ww
    rows = (both - math.isqrt(max(both * both - 4 * pixels, 0))) // 2
    cols = both - rows
    fits = rows > 0 and rows * cols == pixels and (2 * rows - 1) * (2 * cols - 1) == len(offsets)
    return ((rows, cols) if fits else None), side


def has_rectangles(state: StateDict, names: Sequence[str]) -> bool:
    """Whether any stage's buffers are those of rectangles.

    Those alone store indices and offsets; and stripes of one pixel are never shifted, so that
    they have no mask.
    """
    if any(key.endswith(("rpe_biases", "relative_position_index")) for key in state):
        return True
    sizes = [_mask_sizes(state, name) for name in names]
    return any(pixels == side and _likely_rectangle(pixels) is not None for pixels, side in sizes)


def _mask_sizes(state: StateDict, name: str) -> tuple[int, int]:
    """Pixels of a window, and the side of the map, of a stage's mask; zeros if none tells."""
    masks = (state.get(f"{name}.1.attn_mask_{half}") for half in (0, 1))
    mask = next((m for m in masks if m is not None and m.dim() == 3), None)  # [n, N, N]
    n, pixels = (0, 0) if mask is None else mask.shape[:2]
    side = math.isqrt(n * pixels)
    return (pixels, side) if side * side == n * pixels else (0, 0)


def _likely_rectangle(pixels: int) -> Size | None:
    """Four times as wide as high, as in the official models; less wide where that cannot be."""
    for times in (4, 2, 1):
        rows = math.isqrt(pixels // times)
        if rows and rows * rows * times == pixels:
            return rows, rows * times
    return None
