"""DRCT: Swin blocks in dense groups, each block seeing the results of those before it.

Paper:    Hsu et al., "DRCT: Saving Image Super-Resolution away from Information Bottleneck",
          arXiv:2404.00722.
Weights:  github.com/ming053l/DRCT (MIT); parameter names are theirs.
Written:  anew, from the paper and from the names and shapes in those files.
Differs:  in nothing that shows: outputs and gradients agree to rounding.

Shape letters: B images, H rows, W columns, C channels of the body, g channels that a block adds,
D = C + (k - 1) g channels of block k, w side of a window, s scale.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs._blocks import drop_path_rates, pointwise, run_block
from restore.archs._branches import hidden_features
from restore.archs._skeleton import (
    SwinSkeleton,
    has_skeleton,
    read_mlp_ratio,
    read_outer,
    skeleton_evidence,
)
from restore.archs._spec import ArchSpec, InputRule, Reading, StateDict, StoredBuffer, shape_of
from restore.archs._swin import (
    TABLE,
    HybridConfig,
    SwinBlock,
    read_img_size,
    read_window,
    stored_index,
    stored_mask,
    usual_img_size,
)

BLOCKS = 5  # of every group, whatever depths says
WIDE = 3  # of them, from the first on, with an MLP of mlp_ratio; the others' is as wide as they are
RESIDUAL = 0.2  # factor of a group's result


@dataclass(frozen=True)
class DRCTConfig(HybridConfig):
    """The official constructor's arguments; defaults are those of the x4 model.

    num_heads are those of each group's first block. Of depths only the length, one entry for each
    group, and the sums, over which drop path rates rise, have an effect. compress_ratio,
    squeeze_factor, conv_scale and overlap_ratio have none.
    """

    gc: int = 32  # channels that each of a group's first four blocks adds

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        if self.gc < 1:
            raise ValueError(f"gc is {self.gc}; expected 1 or more")
        if min(self.depths, default=1) < 1:
            raise ValueError(f"depths {self.depths}: expected 1 or more for each group")
        for heads in self.num_heads:
            for dim in self.widths:
                if dim % self.heads_for(dim, heads):
                    raise ValueError(
                        f"num_heads {heads} with embed_dim {self.embed_dim} and gc {self.gc} gives "
                        f"{self.heads_for(dim, heads)} heads to {dim} channels, which they do not "
                        "divide"
                    )

    @property
    def widths(self) -> tuple[int, ...]:
        """D: channels of each block of a group."""
        return tuple(self.embed_dim + k * self.gc for k in range(BLOCKS))

    @staticmethod
    def heads_for(dim: int, heads: int) -> int:
        """Heads of a block of `dim` channels in a group of `heads`."""
        return heads - dim % heads


class DenseGroup(nn.Module):
    """Five Swin blocks, each on all that was made before it: [B, H, W, C] to [B, H, W, C].

        x_k = lrelu(adjust_k(swin_k([x, x_1, ..., x_(k-1)])))    for k = 1..4
        y   = x + 0.2 * adjust_5(swin_5([x, x_1, ..., x_4]))

    Args:
        config: of the network.
        heads: of the first block.
        drop_path: rate of all five blocks.
    """

    def __init__(self, config: DRCTConfig, heads: int, drop_path: float) -> None:
        super().__init__()
        window, shift = config.window_and_shift
        for k, dim in enumerate(config.widths):
            block = SwinBlock(
                dim,
                config.heads_for(dim, heads),
                window,
                shift if k % 2 else 0,
                hidden_features(dim, config.mlp_ratio if k < WIDE else 1),
                qkv_bias=config.qkv_bias,
                qk_scale=config.qk_scale,
                drop=config.drop_rate,
                drop_path=drop_path,
            )
            made = config.gc if k < BLOCKS - 1 else config.embed_dim
            self.add_module(f"swin{k + 1}", block)
            self.add_module(f"adjust{k + 1}", nn.Conv2d(dim, made, 1))
        self.use_checkpoint = config.use_checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; H and W are multiples of the window."""
        features = x  # [B, H, W, D]
        for k in range(1, BLOCKS):
            new = F.leaky_relu(self._step(k, features), 0.2)
            features = torch.cat([features, new], dim=-1)
        return x + RESIDUAL * self._step(BLOCKS, features)

    def _step(self, k: int, features: Tensor) -> Tensor:
        recompute = self.use_checkpoint and self.training
        y = run_block(cast(nn.Module, getattr(self, f"swin{k}")), features, recompute)
        return pointwise(cast(nn.Module, getattr(self, f"adjust{k}")), y)


class DRCT(SwinSkeleton):
    """[B, in_chans, H, W] in 0..1 to [B, in_chans, H * s, W * s], not clamped.

    H and W are multiples of the window; `restore.Model` takes any.
    """

    def __init__(self, config: DRCTConfig) -> None:
        rates = drop_path_rates(config.drop_path_rate, config.depths)
        super().__init__(
            config,
            # the official groups give all their blocks the rate of the first
            [
                DenseGroup(config, heads, rate[0])
                for heads, rate in zip(config.num_heads, rates, strict=True)
            ],
            patch_norm=config.patch_norm,
            drop_rate=config.drop_rate,
        )


FIRST = "layers.0.swin1."


def claims(state: StateDict) -> bool:
    """Whether there is a dense group of Swin blocks with 1x1 convolutions between them."""
    marks = {FIRST + "attn.qkv.weight", FIRST + TABLE, "layers.0.adjust1.weight"}
    return has_skeleton(state) and marks <= state.keys()


def read_config(state: StateDict) -> Reading:
    """Every argument that keys and shapes tell; the official value for the rest."""
    outer = read_outer(state)
    matches = (re.match(r"layers\.(\d+)\.swin1\.", key) for key in state)
    groups = len({found[1] for found in matches if found})
    window = read_window(state, FIRST + TABLE)
    img_size, doubts = read_img_size(state, window, shifts=True)
    config = DRCTConfig(
        **outer,
        img_size=img_size or usual_img_size(window),
        depths=(6,) * groups,
        num_heads=tuple(
            shape_of(state, f"layers.{g}.swin1.{TABLE}", "[offsets, heads]")[1]
            for g in range(groups)
        ),
        window_size=window,
        mlp_ratio=read_mlp_ratio(state, FIRST + "mlp.fc1.weight"),
        qkv_bias=FIRST + "attn.qkv.bias" in state,
        patch_norm="patch_embed.norm.weight" in state,
        gc=shape_of(state, "layers.0.adjust1.weight", "[gc, embed_dim, 1, 1]")[0],
    )
    evidence = (
        f"layers.*.swin1: {groups} groups; depths tells no more than their number",
        f"{TABLE} {tuple(state[FIRST + TABLE].shape)}: window_size {window}, num_heads "
        f"{config.num_heads[0]}",
        f"adjust1.weight: gc {config.gc}",
        *skeleton_evidence(config),
    )
    return Reading(config, evidence, doubts)


def derived(config: DRCTConfig) -> dict[str, StoredBuffer]:
    """The buffers that official files hold beside the parameters, by key."""
    window, shift = config.window_and_shift
    index, mask = stored_index(window), stored_mask(config.patch, window, shift)
    buffers: dict[str, StoredBuffer] = {}
    for group in range(len(config.depths)):
        for k in range(BLOCKS):
            prefix = f"layers.{group}.swin{k + 1}."
            buffers[prefix + "attn.relative_position_index"] = index
            if shift and k % 2:
                buffers[prefix + "attn_mask"] = mask
    return buffers


def variant(config: DRCTConfig) -> str:
    """What a person calls this configuration."""
    sizes = {(180, 6): "DRCT", (180, 12): "DRCT-L"}
    size = (config.embed_dim, len(config.depths))
    name = sizes.get(size, f"DRCT-dim{size[0]}, {size[1]} groups,")
    return f"{name} x{config.upscale}"


def input_rule(config: DRCTConfig) -> InputRule:
    """Multiples of the window. The halo of two windows is the one that HAT's own tiles have."""
    w = config.window_size
    return InputRule(multiple=w, minimum=w, align=w, halo=2 * w)


SPEC = ArchSpec(
    name="DRCT",
    family="DRCT",
    paper="arXiv:2404.00722",
    licence="MIT",
    config=DRCTConfig,
    build=DRCT,
    claims=claims,
    read_config=read_config,
    variant=variant,
    scale=lambda config: config.upscale,
    in_channels=lambda config: config.in_chans,
    input_rule=input_rule,
    derived=derived,
)
