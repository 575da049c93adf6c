"""HAT: window attention beside channel attention, and overlapping windows at the end of groups.

Paper:    Chen et al., "Activating More Pixels in Image Super-Resolution Transformer",
          arXiv:2205.04437.
Weights:  github.com/XPixelGroup/HAT (Apache-2.0); parameter names are theirs.
Written:  anew, from the paper and from the names and shapes in those files.
Differs:  in nothing that shows: outputs and gradients agree to rounding.

Shape letters: B images, H rows, W columns, C channels of the body, w side of a window, s scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from restore.archs._blocks import (
    Blocks,
    IgnoresDerived,
    on_map,
    run_block,
)
from restore.archs._branches import Mlp, add_branch, hidden_features, project, project_onto
from restore.archs._skeleton import (
    BLOCK,
    SwinSkeleton,
    has_skeleton,
    read_skeleton,
    residual_groups,
    skeleton_evidence,
)
from restore.archs._spec import ArchSpec, InputRule, Reading, StateDict, StoredBuffer, shape_of
from restore.archs._swin import (
    TABLE,
    HybridConfig,
    SwinBlock,
    bias_table,
    read_window,
    stored_index,
)
from restore.kernels.overlapping_attention import overlapping_attention
from restore.kernels.windows import overlapping_position_index


@dataclass(frozen=True)
class HATConfig(HybridConfig):
    """The official constructor's arguments; defaults are those of HAT x4."""

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        if min(self.patch) < self.window_size:
            raise ValueError(
                f"img_size {self.img_size} is below window_size {self.window_size}, with which the "
                "official network does not run"
            )
        for name in ("compress_ratio", "squeeze_factor"):
            value = getattr(self, name)
            if not 1 <= value <= self.embed_dim:
                raise ValueError(f"{name} is {value}; expected 1 to embed_dim {self.embed_dim}")
        if self.overlap < 0 or self.overlap % 2:
            raise ValueError(
                f"overlap_ratio {self.overlap_ratio} of window_size {self.window_size} is "
                f"{self.overlap} pixels; expected an even number"
            )

    @property
    def overlap(self) -> int:
        """Pixels by which windows of keys are wider; the small term undoes a ratio's rounding."""
        return math.floor(self.window_size * self.overlap_ratio + 1e-6)


class ChannelAttention(nn.Module):
    """Each channel times a gate that the means of all channels over the whole map give."""

    def __init__(self, dim: int, squeeze_factor: int) -> None:
        super().__init__()
        squeezed = dim // squeeze_factor
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(dim, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, dim, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, H, W]."""
        y: Tensor = x * self.attention(x)
        return y


class CAB(nn.Module):
    """Two convolutions with fewer channels between, then channel attention."""

    def __init__(self, config: HATConfig) -> None:
        super().__init__()
        dim, narrow = config.embed_dim, config.embed_dim // config.compress_ratio
        self.cab = nn.Sequential(
            nn.Conv2d(dim, narrow, 3, 1, 1),
            nn.GELU(),
            nn.Conv2d(narrow, dim, 3, 1, 1),
            ChannelAttention(dim, config.squeeze_factor),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        return on_map(self.cab, x)


class HAB(SwinBlock):
    """A Swin block with a convolution branch beside its attention, which is never dropped."""

    def __init__(self, config: HATConfig, num_heads: int, shift: int, drop_path: float) -> None:
        super().__init__(
            config.embed_dim,
            num_heads,
            config.window_size,
            shift,
            hidden_features(config.embed_dim, config.mlp_ratio),
            qkv_bias=config.qkv_bias,
            qk_scale=config.qk_scale,
            drop=config.drop_rate,
            drop_path=drop_path,
        )
        self.conv_scale = config.conv_scale
        self.conv_block = CAB(config)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        n = self.norm1(x)
        attended = add_branch(x, self.norm1, self.attn, self.drop_path, normal=n)
        x = attended + self.conv_scale * self.conv_block(n)
        return add_branch(x, self.norm2, self.mlp, self.drop_path)


class OCAB(nn.Module):
    """Attention of windows to larger ones around them, then an MLP; nothing is ever dropped."""

    def __init__(self, config: HATConfig, num_heads: int) -> None:
        super().__init__()
        dim = config.embed_dim
        self.window_size = (config.window_size,) * 2
        self.halo = (config.overlap // 2,) * 2
        self.num_heads = num_heads
        self.scale = config.qk_scale
        rows = (2 * config.window_size + config.overlap - 1) ** 2
        self.relative_position_bias_table = bias_table(rows, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=config.qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden_features(dim, config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; H and W are multiples of the window."""
        y = overlapping_attention(
            project(x, self.norm1, self.qkv),
            self.relative_position_bias_table,
            self.window_size,
            self.halo,
            num_heads=self.num_heads,
            scale=self.scale,
        )
        return add_branch(project_onto(x, self.proj, y), self.norm2, self.mlp)


class HybridBlocks(Blocks):
    """Blocks one after the other, and one with overlapping windows after them."""

    def __init__(
        self, blocks: Iterable[nn.Module], overlap_attn: OCAB, use_checkpoint: bool
    ) -> None:
        super().__init__(blocks, use_checkpoint)
        self.overlap_attn = overlap_attn

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; with use_checkpoint, training recomputes activations."""
        recompute = self.use_checkpoint and self.training
        return run_block(self.overlap_attn, super().forward(x), recompute)


class HAT(SwinSkeleton, IgnoresDerived):
    """[B, in_chans, H, W] in 0..1 to [B, in_chans, H * s, W * s], not clamped.

    H and W are multiples of the window; `restore.Model` takes any.
    """

    derived = ("relative_position_index_SA", "relative_position_index_OCA")

    def __init__(self, config: HATConfig) -> None:
        _, shift = config.window_and_shift

        def block(group: int, j: int, rate: float) -> HAB:
            return HAB(config, config.num_heads[group], shift if j % 2 else 0, rate)

        def gather(group: int, blocks: list[nn.Module]) -> HybridBlocks:
            overlap_attn = OCAB(config, config.num_heads[group])
            return HybridBlocks(blocks, overlap_attn, config.use_checkpoint)

        super().__init__(
            config,
            residual_groups(config, block, gather),
            patch_norm=config.patch_norm,
            drop_rate=config.drop_rate,
        )


FIRST = BLOCK.format(0, 0)
OVERLAPPING = "layers.0.residual_group.overlap_attn.relative_position_bias_table"
CONV = FIRST + "conv_block.cab."


def claims(state: StateDict) -> bool:
    """Whether window attention with a bias table has convolutions beside it."""
    marks = {FIRST + "attn.qkv.weight", FIRST + TABLE, CONV + "0.weight"}
    return has_skeleton(state) and marks <= state.keys()


def read_config(state: StateDict) -> Reading:
    """Every argument that keys and shapes tell; the official value for the rest."""
    common = read_skeleton(state, heads=BLOCK.format("{}", 0) + TABLE)
    dim = common["embed_dim"]
    window = read_window(state, FIRST + TABLE)
    offsets = shape_of(state, OVERLAPPING, "[(2 window + overlap - 1)^2, heads]")[0]
    overlap = math.isqrt(offsets) + 1 - 2 * window
    squeezing = CONV + "3.attention.1.weight"
    config = HATConfig(
        **common,
        img_size=max(64, 2 * window),  # windows are shifted, so there were two
        window_size=window,
        qkv_bias=FIRST + "attn.qkv.bias" in state,
        compress_ratio=dim // shape_of(state, CONV + "0.weight", "[narrow, embed_dim, 3, 3]")[0],
        squeeze_factor=dim // shape_of(state, squeezing, "[squeezed, embed_dim, 1, 1]")[0],
        overlap_ratio=overlap / window,
    )
    evidence = (
        f"{TABLE} {tuple(state[FIRST + TABLE].shape)}: window_size {window}, num_heads "
        f"{config.num_heads[0]}",
        f"overlap_attn {tuple(state[OVERLAPPING].shape)}: overlap_ratio {config.overlap_ratio:g}",
        f"conv_block.cab: compress_ratio {config.compress_ratio}, squeeze_factor "
        f"{config.squeeze_factor}",
        *skeleton_evidence(config),
        f"no key tells conv_scale or img_range: if not given, {config.conv_scale:g} and "
        f"{config.img_range:g}, as in every official file",
    )
    return Reading(config, evidence)


def derived(config: HATConfig) -> dict[str, StoredBuffer]:
    """The buffers that official files hold beside the parameters, by key."""
    window, halo = (config.window_size,) * 2, (config.overlap // 2,) * 2
    shape = (config.window_size**2, (config.window_size + 2 * halo[0]) ** 2)
    return {
        "relative_position_index_SA": stored_index(config.window_size),
        "relative_position_index_OCA": StoredBuffer(
            shape, lambda: overlapping_position_index(window, halo)
        ),
    }


def variant(config: HATConfig) -> str:
    """What a person calls this configuration."""
    size = (config.embed_dim, len(config.depths))
    sizes = {(144, 6): "HAT-S", (180, 6): "HAT", (180, 12): "HAT-L"}
    name = sizes.get(size, f"HAT-dim{size[0]}, {size[1]} groups,")
    return f"{name} x{config.upscale}"


def input_rule(config: HATConfig) -> InputRule:
    """Multiples of the window, as the network pads nothing itself.

    The halo of two windows is the 32 pixels that the authors' own tiles have. What a tile's means
    change in the channel attention, no halo mends.
    """
    w = config.window_size
    return InputRule(multiple=w, minimum=w, align=w, halo=2 * w)


SPEC = ArchSpec(
    name="HAT",
    family="HAT",
    paper="arXiv:2205.04437",
    licence="Apache-2.0",
    config=HATConfig,
    build=HAT,
    claims=claims,
    read_config=read_config,
    variant=variant,
    scale=lambda config: config.upscale,
    in_channels=lambda config: config.in_chans,
    input_rule=input_rule,
    derived=derived,
    windows=lambda config: f"{config.window_size}, of keys {config.window_size + config.overlap}",
)
