"""SwinIR: shifted window attention in residual groups, for super-resolution, denoising and JPEG.

Paper:    Liang et al., "SwinIR: Image Restoration Using Swin Transformer", arXiv:2108.10257.
Weights:  github.com/JingyunLiang/SwinIR, release v0.0 (Apache-2.0); parameter names are theirs.
Written:  anew, from the paper and from the names and shapes in those files.
Differs:  in nothing that shows: outputs and gradients agree to rounding.

Shape letters: B images, H rows, W columns, C channels of the body, w side of a window, s scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from restore.archs._branches import hidden_features
from restore.archs._skeleton import (
    BLOCK,
    has_skeleton,
    read_skeleton,
    skeleton_evidence,
)
from restore.archs._spec import (
    ArchSpec,
    InputRule,
    PublishedPadding,
    Reading,
    StateDict,
    StoredBuffer,
)
from restore.archs._swin import (
    TABLE,
    PaddedSkeleton,
    SwinBlock,
    SwinConfig,
    read_img_size,
    read_window,
    stored_index,
    stored_mask,
    usual_img_size,
)


@dataclass(frozen=True)
class SwinIRConfig(SwinConfig):
    """The official constructor's arguments; defaults are those of the lightweight x2 model.

    img_range is 255 in the official JPEG models.
    """


class SwinIR(PaddedSkeleton):
    """[B, in_chans, H, W] in 0..1 to [B, in_chans, H * s, W * s], not clamped."""

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

        super().__init__(config, block, config.window_size)


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
    window = read_window(state, FIRST + TABLE)
    jpeg = window == 7  # chosen against the 8 x 8 blocks of JPEG; trained on 0..255
    img_size, doubts = read_img_size(state, window, shifts=max(common["depths"]) > 1)
    config = SwinIRConfig(
        **common,
        img_size=img_size or (126 if jpeg else usual_img_size(window)),
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


def derived(config: SwinIRConfig) -> dict[str, StoredBuffer]:
    """The buffers that official files hold beside the parameters, by key."""
    window, shift = config.window_and_shift
    index, mask = stored_index(window), stored_mask(config.patch, window, shift)
    buffers: dict[str, StoredBuffer] = {}
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
