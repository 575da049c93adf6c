"""SRFormer: window attention whose keys and values are cells of 2 x 2 pixels, in large windows.

Paper:    Zhou et al., "SRFormer: Permuted Self-Attention for Single Image Super-Resolution",
          arXiv:2303.09735; the second version of that paper adds SRFormerv2.
Weights:  github.com/HVision-NKU/SRFormer (CC BY-NC 4.0: not for commercial use); parameter names
          are theirs. SRFormerv2 puts Swin blocks between the permuted ones.
Written:  anew, from the paper and from the names and shapes in those files.
Differs:  in nothing that shows: outputs and gradients agree to rounding.

Shape letters: B images, H rows, W columns, C channels of the body, w side of a window, s scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from restore.archs._blocks import IgnoresDerived
from restore.archs._branches import (
    Branch,
    Norm,
    hidden_features,
    joined,
    norm_weights,
    project_onto,
)
from restore.archs._conv_mlp import ConvMlp
from restore.archs._plain import plain
from restore.archs._skeleton import (
    BLOCK,
    has_skeleton,
    read_skeleton,
    skeleton_evidence,
)
from restore.archs._spec import ArchSpec, InputRule, Reading, StateDict, StoredBuffer, shape_of
from restore.archs._swin import (
    TABLE,
    AttentionBlock,
    PaddedSkeleton,
    SwinBlock,
    SwinConfig,
    bias_table,
    read_img_size,
    stored_index,
)
from restore.archs._tails import Upsampler
from restore.kernels.norm_linear import norm_linear
from restore.kernels.permuted_attention import permuted_attention
from restore.kernels.reference import mask_values
from restore.kernels.windows import Size, aligned_position_index, cell_shift_mask

SWIN_WINDOW = 12  # of SRFormerv2's Swin blocks; no argument of the official constructor
PATCH = 64  # img_size of most official models


@dataclass(frozen=True)
class SRFormerConfig(SwinConfig):
    """The official constructor's arguments; defaults are those of the light x2 model."""

    window_size: int = 16

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        if self.window_size < 2 or self.window_size % 2:
            raise ValueError(f"window_size is {self.window_size}; expected an even number")
        super().__post_init__()
        if self.embed_dim % 4:
            raise ValueError(f"embed_dim is {self.embed_dim}; expected a multiple of 4")

    @property
    def patch(self) -> Size:
        """Rows and columns of a training patch, grown to whole windows: what masks are for."""
        rows, cols = super().patch
        return whole_windows(rows, self.window_size), whole_windows(cols, self.window_size)

    @property
    def attention_dim(self) -> int:
        """Channels of a query and of a cell of 2 x 2 pixels."""
        return self.embed_dim

    def roll_of(self, block: int) -> int | None:
        """By how many pixels a group's permuted block is rolled; None for a Swin block."""
        return self.window_and_shift[1] if block % 2 else 0


@dataclass(frozen=True)
class SRFormerv2Config(SRFormerConfig):
    """The official constructor's arguments; defaults are those of the x4 model.

    depths counts the permuted blocks of a group. They come in pairs, the second one rolled; a Swin
    block, never rolled, precedes each pair and ends the group.
    """

    embed_dim: int = 240
    squeeze_dim: int = 60  # channels of a pixel's key, and of its value
    depths: tuple[int, ...] = (4,) * 6
    num_heads: tuple[int, ...] = (8,) * 6
    upscale: int = 4
    upsampler: Upsampler = "pixelshuffle"
    window_size: int = 36

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        if self.window_size % SWIN_WINDOW:
            raise ValueError(
                f"window_size is {self.window_size}; expected a multiple of {SWIN_WINDOW}, the "
                "window of the Swin blocks"
            )
        if any(depth % 2 for depth in self.depths):
            raise ValueError(f"depths are {self.depths}; expected even numbers")
        if self.squeeze_dim < 1 or any(self.attention_dim % heads for heads in self.num_heads):
            raise ValueError(
                f"num_heads {self.num_heads} do not divide 4 * squeeze_dim {self.squeeze_dim}"
            )

    @property
    def group_depths(self) -> tuple[int, ...]:
        """Blocks of each group."""
        return tuple(depth + depth // 2 + 1 for depth in self.depths)

    @property
    def window_and_shift(self) -> tuple[int, int]:
        """Side of a window and roll of every second permuted block, whatever the patch."""
        return self.window_size, self.window_size // 2

    @property
    def attention_dim(self) -> int:
        """Channels of a query and of a cell of 2 x 2 pixels."""
        return 4 * self.squeeze_dim

    def roll_of(self, block: int) -> int | None:
        """By how many pixels a group's permuted block is rolled; None for a Swin block."""
        return (None, 0, self.window_and_shift[1])[block % 3]


def whole_windows(side: int, window_size: int) -> int:
    """A side grown to a multiple of the window."""
    return -(-side // window_size) * window_size


class PermutedAttention(Branch, IgnoresDerived):
    """Projections to q and kv, attention to cells, projection back: [B, H, W, C] to the same."""

    derived = ("aligned_relative_position_index",)

    def __init__(self, config: SRFormerConfig, num_heads: int, shift: int) -> None:
        super().__init__()
        dim, inner = config.embed_dim, config.attention_dim
        self.window_size = (config.window_size, config.window_size)
        self.shift = (shift, shift)
        self.num_heads = num_heads
        # of the body's width, also where squeeze_dim makes heads of another
        own = (dim // num_heads) ** -0.5
        self.scale = own if config.qk_scale is None else config.qk_scale
        rows = (config.window_size - 1) ** 2
        self.relative_position_bias_table = bias_table(rows, num_heads)
        self.kv = nn.Linear(dim, inner // 2, bias=config.qkv_bias)
        self.q = nn.Linear(dim, inner, bias=config.qkv_bias)
        self.proj = nn.Linear(inner, dim)
        self.proj_drop = nn.Dropout(config.drop_rate)

    def run(self, x: Tensor, norm: Norm | None = None, residual: Tensor | None = None) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; H and W are multiples of the window. See `Branch`."""
        q, kv, own = self._project(x, norm)
        y = permuted_attention(
            q,
            kv,
            self.relative_position_bias_table,
            self.window_size,
            self.shift,
            num_heads=self.num_heads,
            scale=self.scale,
            spare=own,
        )
        return project_onto(residual, self.proj, y, self.proj_drop)

    def _project(self, x: Tensor, norm: Norm | None) -> tuple[Tensor, Tensor, bool]:
        """[B, H, W, C] to queries, to keys with values, and whether nobody else can have those."""
        if not (plain(nn.Linear, self.q, self.kv) and plain(nn.LayerNorm, norm)):
            n = x if norm is None else norm(x)
            return self.q(n), self.kv(n), False
        norm_weight, norm_bias, eps = norm_weights(norm)
        both = norm_linear(x, norm_weight, norm_bias, *joined(self.q, self.kv), eps)
        q, kv = both.split([self.q.out_features, self.kv.out_features], dim=-1)
        return q, kv, True


class PermutedBlock(AttentionBlock):
    """Attention to cells, then an MLP with a 5 x 5 depthwise convolution."""

    attn: PermutedAttention

    def __init__(
        self, config: SRFormerConfig, num_heads: int, shift: int, drop_path: float
    ) -> None:
        hidden = hidden_features(config.embed_dim, config.mlp_ratio)
        super().__init__(
            config.embed_dim,
            PermutedAttention(config, num_heads, shift),
            ConvMlp(config.embed_dim, hidden, config.drop_rate),
            drop_path,
        )


class SRFormer(PaddedSkeleton):
    """[B, in_chans, H, W] in 0..1 to [B, in_chans, H * s, W * s], not clamped."""

    def __init__(self, config: SRFormerConfig) -> None:
        def block(group: int, j: int, rate: float) -> AttentionBlock:
            heads, roll = config.num_heads[group], config.roll_of(j)
            if roll is not None:
                return PermutedBlock(config, heads, roll, rate)
            return SwinBlock(
                config.embed_dim,
                heads,
                SWIN_WINDOW,
                0,
                hidden_features(config.embed_dim, config.mlp_ratio),
                qkv_bias=config.qkv_bias,
                qk_scale=config.qk_scale,
                drop=config.drop_rate,
                drop_path=rate,
            )

        super().__init__(config, block, config.window_size)


ALIGNED = "[(window - 1)^2, heads]"  # shape of a bias table for cells
FIRST, SECOND = BLOCK.format(0, 0), BLOCK.format(0, 1)
PERMUTED = {"attn.q.weight", "attn.kv.weight", TABLE, "mlp.dwconv.depthwise_conv.0.weight"}


def claims(state: StateDict) -> bool:
    """Whether every block attends to cells."""
    return has_skeleton(state) and {FIRST + name for name in PERMUTED} <= state.keys()


def claims_v2(state: StateDict) -> bool:
    """Whether a Swin block comes first, and one that attends to cells after it."""
    marks = {FIRST + "attn.qkv.weight", FIRST + TABLE, *(SECOND + name for name in PERMUTED)}
    return has_skeleton(state) and marks <= state.keys()


def read_config(state: StateDict) -> Reading:
    """Every argument that keys and shapes tell; the official value for the rest."""
    common = _read_common(state, FIRST)
    side, doubts = read_img_size(state, common["window_size"], shifts=max(common["depths"]) > 1)
    config = SRFormerConfig(**common, img_size=_img_size(side, common["window_size"]))
    return Reading(config, _evidence(state, FIRST, config), doubts)


def read_config_v2(state: StateDict) -> Reading:
    """Every argument that keys and shapes tell; the official value for the rest."""
    common = _read_common(state, SECOND)
    side, doubts = read_img_size(state, common["window_size"], shifts=False)
    config = SRFormerv2Config(
        **{**common, "depths": tuple((count - 1) // 3 * 2 for count in common["depths"])},
        img_size=_img_size(side, common["window_size"]),
        squeeze_dim=shape_of(state, SECOND + "attn.q.weight", "[4 squeeze_dim, embed_dim]")[0] // 4,
    )
    evidence = (
        *_evidence(state, SECOND, config),
        f"attn.q.weight: squeeze_dim {config.squeeze_dim}",
        f"two blocks of three have attn.kv: depths {list(config.depths)}",
    )
    return Reading(config, evidence, doubts)


def _read_common(state: StateDict, permuted: str) -> dict[str, Any]:
    """Arguments of both networks; `permuted` is the first block that attends to cells."""
    return {
        **read_skeleton(state, heads=BLOCK.format("{}", 0) + TABLE),
        "window_size": math.isqrt(shape_of(state, permuted + TABLE, ALIGNED)[0]) + 1,
        "qkv_bias": permuted + "attn.q.bias" in state,
    }


def _img_size(side: int, window_size: int) -> int:
    """The training patch: masks are stored for whole windows, so 66 may have been 64."""
    if not side and window_size >= PATCH:
        return 2 * window_size  # of one window it would not be shifted
    return PATCH if side in (0, whole_windows(PATCH, window_size)) else side


def _evidence(state: StateDict, permuted: str, config: SRFormerConfig) -> tuple[str, ...]:
    return (
        f"{TABLE} {tuple(state[permuted + TABLE].shape)} of {permuted[:-1]}: window_size "
        f"{config.window_size}, num_heads {config.num_heads[0]}",
        *skeleton_evidence(config),
    )


def derived(config: SRFormerConfig) -> dict[str, StoredBuffer]:
    """The buffers that official files hold beside the parameters, by key."""
    window = (config.window_size, config.window_size)
    roll = config.window_and_shift[1]
    swin_index = stored_index(SWIN_WINDOW)

    def make_mask() -> Tensor:
        apart = cell_shift_mask(*config.patch, window, (roll, roll))
        return mask_values(apart, torch.float32)

    pairs = (window[0] * window[1], (window[0] // 2) * (window[1] // 2))
    windows = (config.patch[0] // window[0]) * (config.patch[1] // window[1])
    index = StoredBuffer(pairs, lambda: aligned_position_index(window))
    mask = StoredBuffer((windows, *pairs), make_mask)
    buffers: dict[str, StoredBuffer] = {}
    for group, count in enumerate(config.group_depths):
        for block in range(count):
            prefix = BLOCK.format(group, block)
            if config.roll_of(block) is None:
                buffers[prefix + "attn.relative_position_index"] = swin_index
                continue
            buffers[prefix + "attn.aligned_relative_position_index"] = index
            if config.roll_of(block):
                buffers[prefix + "attn_mask"] = mask
    return buffers


def variant(config: SRFormerConfig) -> str:
    """What a person calls this configuration.

    The real-world model is known by its patch: the other one of its window was trained on 48.
    """
    name = {60: "SRFormer-light", 180: "SRFormer"}.get(
        config.embed_dim, f"SRFormer-dim{config.embed_dim}"
    )
    if (config.embed_dim, config.window_size, config.img_size) == (180, 24, PATCH):
        name = "SRFormer-S real-world"
    return f"{name} x{config.upscale}"


def variant_v2(config: SRFormerv2Config) -> str:
    """What a person calls this configuration."""
    size = "" if config.embed_dim == 240 else f"-dim{config.embed_dim}"
    return f"SRFormerV2{size} x{config.upscale}"


def windows(config: SRFormerConfig) -> str:
    """The windows of the blocks, in words."""
    swin = any(config.roll_of(block) is None for block in range(max(config.group_depths)))
    sides = [SWIN_WINDOW, config.window_size] if swin else [config.window_size]
    return ", ".join(map(str, dict.fromkeys(sides)))


def input_rule(config: SRFormerConfig) -> InputRule:
    """Multiples of the window; smaller images are padded before the net.

    No tiles are published; two windows are a little more than a pair of blocks sees.
    """
    w = config.window_size
    return InputRule(multiple=w, minimum=w, align=w, halo=2 * w)


def _spec(
    name: str,
    config: type[SRFormerConfig],
    claims: Callable[[StateDict], bool],
    read_config: Callable[[StateDict], Reading],
    variant: Callable[[Any], str],
) -> ArchSpec:
    return ArchSpec(
        name=name,
        family="SRFormer",
        paper="arXiv:2303.09735",
        licence="CC BY-NC 4.0",
        config=config,
        build=SRFormer,
        claims=claims,
        read_config=read_config,
        variant=variant,
        scale=lambda config: config.upscale,
        in_channels=lambda config: config.in_chans,
        input_rule=input_rule,
        derived=derived,
        windows=windows,
    )


SPECS = (
    _spec("SRFormer", SRFormerConfig, claims, read_config, variant),
    _spec("SRFormerv2", SRFormerv2Config, claims_v2, read_config_v2, variant_v2),
)
