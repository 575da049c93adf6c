"""SwinIR: shifted window attention in residual groups, for super-resolution, denoising and JPEG.

Paper:    Liang et al., "SwinIR: Image Restoration Using Swin Transformer", arXiv:2108.10257.
Weights:  github.com/JingyunLiang/SwinIR, release v0.0 (Apache-2.0); parameter names are theirs.
Written:  anew, from the paper and from the names and shapes in those files.
Differs:  in nothing that shows: outputs and gradients agree to rounding.

Shape letters: B images, H rows, W columns, C channels of the body, w side of a window, s scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from restore.archs._blocks import hidden_features
from restore.archs._skeleton import (
    BLOCK,
    ResidualConfig,
    SwinSkeleton,
    has_skeleton,
    read_skeleton,
    residual_groups,
    skeleton_evidence,
)
from restore.archs._spec import ArchSpec, Doubt, InputRule, PublishedPadding, Reading, StateDict
from restore.archs._swin import TABLE, SwinBlock, stored_index, stored_mask


@dataclass(frozen=True)
class SwinIRConfig(ResidualConfig):
    """The official constructor's arguments; defaults are those of the lightweight x2 model.

    img_size changes nothing unless it is window_size or less; img_range is 255 in the official
    JPEG models.
    """

    window_size: int = 8
    qkv_bias: bool = True
    qk_scale: float | None = None  # None: head_dim ** -0.5
    attn_drop_rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        if any(self.embed_dim % heads for heads in self.num_heads):
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
        size = self.img_size if isinstance(self.img_size, int) else min(self.img_size)
        if size <= self.window_size:
            return size, 0
        return self.window_size, self.window_size // 2


class SwinIR(SwinSkeleton):
    """[B, in_chans, H, W] in 0..1 to [B, in_chans, H * s, W * s], not clamped.

    Reflects at the right and bottom to multiples of the window, so the smallest side is half a
    window plus one; `restore.Model` takes any.
    """

    def __init__(self, config: SwinIRConfig) -> None:
        window, shift = config.window_and_shift

        def block(group: int, j: int, rate: float) -> SwinBlock:
            return SwinBlock(
                config.embed_dim,
                config.num_heads[group],
                window,
                shift if j % 2 else 0,
                hidden_features(config.embed_dim, config.mlp_ratio),
                qkv_bias=config.qkv_bias,
                qk_scale=config.qk_scale,
                drop=config.drop_rate,
                drop_path=rate,
            )

        super().__init__(
            config,
            residual_groups(config, block),
            patch_norm=config.patch_norm,
            drop_rate=config.drop_rate,
        )
        self.window_size = config.window_size

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] in 0..1 to [B, in_chans, H * s, W * s], not clamped."""
        h, w = x.shape[2:]
        bottom, right = -h % self.window_size, -w % self.window_size
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom), mode="reflect")
        return super().forward(x)[:, :, : h * self.upscale, : w * self.upscale]


FIRST = BLOCK.format(0, 0)
OTHERS = (".overlap_attn.", ".conv_block.", ".attn.kv.")  # of nets that also have such blocks


def claims(state: StateDict) -> bool:
    """Whether the blocks are plain window attention with a bias table."""
    marks = {FIRST + "attn.qkv.weight", FIRST + TABLE, FIRST + "mlp.fc1.weight"}
    return (
        has_skeleton(state)
        and marks <= state.keys()
        and not any(part in key for part in OTHERS for key in state)
    )


def read_config(state: StateDict) -> Reading:
    """Every argument that keys and shapes tell; the official value for the rest."""
    common = read_skeleton(state, heads=BLOCK.format("{}", 0) + TABLE)
    window = (math.isqrt(state[FIRST + TABLE].shape[0]) + 1) // 2
    jpeg = window == 7  # chosen against the 8 x 8 blocks of JPEG; trained on 0..255
    img_size, doubts = _read_img_size(state, window, common["depths"])
    config = SwinIRConfig(
        **common,
        img_size=img_size or (126 if jpeg else 64),
        img_range=255.0 if jpeg else 1.0,
        window_size=window,
        qkv_bias=FIRST + "attn.qkv.bias" in state,
    )
    evidence = (
        f"{TABLE} {tuple(state[FIRST + TABLE].shape)}: window_size {window}, num_heads "
        f"{config.num_heads[0]}",
        *skeleton_evidence(config),
        f"window_size {window}: img_range {config.img_range:g}, as in the official files",
    )
    return Reading(config, evidence, doubts)


def _read_img_size(
    state: StateDict, window: int, depths: tuple[int, ...]
) -> tuple[int | None, tuple[Doubt, ...]]:
    masks = [v.shape[0] for k, v in state.items() if k.endswith(".attn_mask")]
    if masks and math.isqrt(masks[0]) ** 2 == masks[0]:
        return math.isqrt(masks[0]) * window, ()
    indexed = any(k.endswith(".relative_position_index") for k in state)
    if masks or not indexed or max(depths) < 2:
        return None, ()
    text = (
        "it stores index buffers but no attn_mask: taken as shifted windows whose masks were "
        f"stripped; if it was trained on patches of one window, give img_size={window}"
    )
    return None, (Doubt(("img_size",), text),)


def derived(config: SwinIRConfig) -> dict[str, Callable[[], Tensor]]:
    """The buffers that official files hold beside the parameters, by key."""
    window, shift = config.window_and_shift
    size = config.img_size if isinstance(config.img_size, tuple) else (config.img_size,) * 2

    index, mask = stored_index(window), stored_mask(size, window, shift)
    buffers: dict[str, Callable[[], Tensor]] = {}
    for group, depth in enumerate(config.depths):
        for block in range(depth):
            prefix = BLOCK.format(group, block)
            buffers[prefix + "attn.relative_position_index"] = index
            if shift and block % 2:
                buffers[prefix + "attn_mask"] = mask
    return buffers


def variant(config: SwinIRConfig) -> str:
    """What a person calls this configuration."""
    sizes = {60: "S", 180: "M", 240: "L"}
    name = f"SwinIR-{sizes.get(config.embed_dim, f'dim{config.embed_dim}')}"
    colour = "gray" if config.in_chans == 1 else "colour"
    if config.upsampler == "":
        return f"{name} {colour} {'JPEG artefacts' if config.img_range == 255 else 'denoising'}"
    task = {
        "pixelshuffle": "classical",
        "pixelshuffledirect": "lightweight",
        "nearest+conv": "real-world",
    }[config.upsampler]
    return f"{name} {task} x{config.upscale}"


def input_rule(config: SwinIRConfig) -> InputRule:
    """Multiples of the window; smaller images are padded before the net."""
    w = config.window_size
    return InputRule(multiple=w, minimum=w, align=w, halo=4 * w)


SPEC = ArchSpec(
    name="SwinIR",
    family="SwinIR",
    paper="arXiv:2108.10257",
    licence="Apache-2.0",
    config=SwinIRConfig,
    build=SwinIR,
    claims=claims,
    read_config=read_config,
    variant=variant,
    scale=lambda config: config.upscale,
    in_channels=lambda config: config.in_chans,
    input_rule=input_rule,
    derived=derived,
    published_padding=lambda config: PublishedPadding("symmetric", config.window_size, always=True),
)
