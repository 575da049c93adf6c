"""The Swin block: attention in (shifted) square windows, then an MLP.

Source: Liu et al., "Swin Transformer", arXiv:2103.14030; in restoration Liang et al., "SwinIR",
arXiv:2108.10257. Parameter names are the official ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs._blocks import IgnoresDerived
from restore.archs._branches import (
    Branch,
    DropPath,
    Mlp,
    Norm,
    add_branch,
    drops,
    norm_weights,
    project,
    project_onto,
)
from restore.archs._entry import check_picture
from restore.archs._plain import plain
from restore.archs._skeleton import (
    BlockFactory,
    ResidualConfig,
    SwinSkeleton,
    residual_groups,
)
from restore.archs._spec import Doubt, StateDict, StoredBuffer, shape_of
from restore.archs._tails import Upsampler
from restore.kernels.reference import MASKED
from restore.kernels.window_attention import window_attention
from restore.kernels.window_attention_branch import BranchWeights, window_attention_branch
from restore.kernels.window_attention_branch_reference import with_vectors
from restore.kernels.window_block import window_block
from restore.kernels.windows import Size, relative_position_index, shift_mask

TABLE = "attn.relative_position_bias_table"  # of a block


@dataclass(frozen=True)
class SwinConfig(ResidualConfig):
    """Constructor arguments of a net of square windows with a bias table, with SwinIR's defaults.

    img_size changes nothing unless it is window_size or less.
    """

    window_size: int = 8
    qkv_bias: bool = True
    qk_scale: float | None = None  # None: head_dim ** -0.5
    attn_drop_rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        if any(heads < 1 or self.embed_dim % heads for heads in self.num_heads):
            raise ValueError(f"num_heads {self.num_heads} do not divide embed_dim {self.embed_dim}")
        if self.window_and_shift[0] < 1:
            raise ValueError(
                f"window_size {self.window_size} and img_size {self.img_size}: expected 1 or more"
            )
        if self.attn_drop_rate:
            raise ValueError(
                f"attn_drop_rate={self.attn_drop_rate}; only 0, as in all official models"
            )

    @property
    def window_and_shift(self) -> tuple[int, int]:
        """Side of a window and roll of odd blocks: no roll where a patch is one window."""
        if min(self.patch) <= self.window_size:
            return min(self.patch), 0
        return self.window_size, self.window_size // 2


@dataclass(frozen=True)
class HybridConfig(SwinConfig):
    """The arguments of HAT's constructor, which DRCT's has too, with the defaults of HAT x4."""

    embed_dim: int = 180
    depths: tuple[int, ...] = (6,) * 6
    num_heads: tuple[int, ...] = (6,) * 6
    upscale: int = 4
    upsampler: Upsampler = "pixelshuffle"
    window_size: int = 16
    compress_ratio: int = 3  # of C to the channels between the two convolutions
    squeeze_factor: int = 30  # of C to the channels of the channel attention
    conv_scale: float = 0.01  # factor of the convolution branch
    overlap_ratio: float = 0.5  # by which windows of keys are wider than those of queries

    upsamplers: ClassVar[tuple[str, ...]] = ("pixelshuffle",)
    resi_connections: ClassVar[tuple[str, ...]] = ("1conv", "identity")


def bias_table(rows: int, num_heads: int) -> nn.Parameter:
    """[rows, num_heads]: a bias for each offset and head, drawn as the Swin family does."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(rows, num_heads), std=0.02))


@dataclass(frozen=True)
class Modulated:
    """A norm, and vectors that are added behind it at the pixels of every window."""

    norm: nn.Module
    vectors: Tensor  # [N, C]
    window_size: Size
    shift: Size

    def __call__(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        return with_vectors(self.norm(x), self.vectors, self.window_size, self.shift)


class WindowAttention(Branch, IgnoresDerived):
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
        self.qkv: nn.Module = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop)

    def run(self, x: Tensor, norm: Norm | None = None, residual: Tensor | None = None) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; H and W are multiples of the window. See `Branch`."""
        weights = self.weights(norm)
        if weights is None:
            y = window_attention(
                project(x, norm, self.qkv),
                self.relative_position_bias_table,
                self.window_size,
                self.shift,
                num_heads=self.num_heads,
                scale=self.scale,
            )
            return project_onto(residual, self.proj, y, self.proj_drop)
        return window_attention_branch(
            x,
            weights,
            self.window_size,
            self.shift,
            num_heads=self.num_heads,
            scale=self.scale,
            eps=norm_weights(norm.norm if isinstance(norm, Modulated) else norm)[2],
            residual=residual,
        )

    def weights(self, norm: Norm | None) -> BranchWeights | None:
        """Its tensors and those of the norm before it, as ops take them; None if any of these
        layers has to be called."""
        norm, vectors = (norm.norm, norm.vectors) if isinstance(norm, Modulated) else (norm, None)
        projection, proj = self._projection(), self.proj  # read once: `nn.Module` is slow at it
        if projection is None or drops(self.proj_drop):
            return None
        if not (plain(nn.Linear, proj) and plain(nn.LayerNorm, norm)):
            return None
        return BranchWeights(
            *projection,
            self.relative_position_bias_table,
            proj.weight,
            proj.bias,
            *norm_weights(norm)[:2],
            vectors,
        )

    def _projection(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight and bias of that to queries, keys and values; None if it has to be called."""
        qkv = cast(nn.Linear, self.qkv)
        return (qkv.weight, qkv.bias) if plain(nn.Linear, qkv) else None


class AttentionBlock(IgnoresDerived):
    """Attention, then an MLP, each behind a norm and added; each [B, H, W, C] to the same."""

    derived = ("attn_mask",)

    def __init__(self, dim: int, attn: Branch, mlp: Branch, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attn
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        x = add_branch(x, self.norm1, self.attn, self.drop_path)
        return add_branch(x, self.norm2, self.mlp, self.drop_path)


class SwinBlock(AttentionBlock):
    """Attention in square windows, then an MLP of `hidden` channels."""

    attn: WindowAttention

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
        attn = WindowAttention(
            dim,
            num_heads,
            window_size,
            shift,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            drop=drop,
        )
        super().__init__(dim, attn, Mlp(dim, hidden, drop), drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        return self._run(x, spare=False)

    def overwrite(self, x: Tensor) -> Tensor:
        """The same, perhaps in the memory of x."""
        return self._run(x, spare=True)

    def _run(self, x: Tensor, spare: bool) -> Tensor:
        attn, mlp, norm1, norm2 = self.attn, self.mlp, self.norm1, self.norm2
        weights = layers = None
        # a kind of `Mlp` may have more than its layers
        if plain(Branch, attn, mlp) and type(mlp).run is Mlp.run and not drops(self.drop_path):
            weights, layers = attn.weights(norm1), cast(Mlp, mlp).layers(norm2)
        if weights is None or layers is None:
            return super().forward(x)
        return window_block(
            x,
            weights,
            layers,
            attn.window_size,
            attn.shift,
            num_heads=attn.num_heads,
            scale=attn.scale,
            eps=norm1.eps,
            mlp_eps=norm2.eps,
            spare=spare,
        )


class PaddedSkeleton(SwinSkeleton):
    """A net that reflects at the right and bottom to multiples of its window, and crops after.

    The smallest side is half a window plus one; `restore.Model` takes any.

    Args:
        config: of the network.
        block: makes each block of a group.
        window_size: side of a window, in pixels.
    """

    def __init__(self, config: ResidualConfig, block: BlockFactory, window_size: int) -> None:
        super().__init__(
            config,
            residual_groups(config, block),
            patch_norm=config.patch_norm,
            drop_rate=config.drop_rate,
        )
        self.window_size = window_size

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] in 0..1 to [B, in_chans, H * s, W * s], not clamped."""
        check_picture(self, x, self.conv_first)
        h, w = x.shape[2:]
        bottom, right = -h % self.window_size, -w % self.window_size
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom), mode="reflect")
        return super().forward(x)[:, :, : h * self.upscale, : w * self.upscale]


def stored_index(window_size: int) -> StoredBuffer:
    """The index buffer of official files: [N, N] int64."""
    return stored_rectangle_index((window_size, window_size))


def stored_rectangle_index(window_size: Size) -> StoredBuffer:
    """The same for windows of any sides."""
    n = math.prod(window_size)
    return StoredBuffer((n, n), lambda: relative_position_index(window_size))


def stored_mask(img_size: Size, window_size: int, shift: int) -> StoredBuffer:
    """The mask buffer of official files: [n, N, N] float32, 0 or -100."""
    return stored_rectangle_mask(img_size, (window_size, window_size), (shift, shift))


def stored_rectangle_mask(img_size: Size, window_size: Size, shift: Size) -> StoredBuffer:
    """The same for windows of any sides."""

    def mask() -> Tensor:
        apart = shift_mask(*img_size, window_size, shift)
        return torch.zeros(apart.shape).masked_fill(apart, MASKED)

    n = math.prod(window_size)
    windows = math.prod(side // part for side, part in zip(img_size, window_size, strict=True))
    return StoredBuffer((windows, n, n), mask)


def usual_img_size(window: int) -> int:
    """The training patch where nothing tells it: 64, grown to two windows or more.

    Windows are not shifted where a patch is one window, so it must never come out as that.
    """
    return max(-(-64 // window), 2) * window


def read_window(state: StateDict, key: str) -> int:
    """Side of the windows that a bias table is for.

    Raises:
        KeyError: there is no such tensor.
        ValueError: it has another number of sides, or an empty one.
    """
    return (math.isqrt(shape_of(state, key, "[(2 window - 1)^2, heads]")[0]) + 1) // 2


def read_img_size(state: StateDict, window: int, shifts: bool) -> tuple[int, tuple[Doubt, ...]]:
    """The training patch, from the number of windows of a stored mask, and what is doubtful of it.

    Args:
        state: keys under official names.
        window: side of a window.
        shifts: whether the net has blocks whose windows may be shifted.

    Returns:
        Pixels, 0 where nothing tells them.
    """
    masks = [v.shape[0] for k, v in state.items() if k.endswith(".attn_mask") and v.dim() == 3]
    if masks and math.isqrt(masks[0]) ** 2 == masks[0]:  # square patches, as in all official nets
        return math.isqrt(masks[0]) * window, ()
    indexed = any(k.endswith("relative_position_index") for k in state)
    if masks or not indexed or not shifts:
        return 0, ()
    text = (
        "it stores index buffers but no whole attn_mask: taken as shifted windows whose masks were "
        f"stripped; if it was trained on patches of one window, give img_size={window}"
    )
    return 0, (Doubt(("img_size",), text),)
