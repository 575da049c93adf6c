"""CAT_Unet: cross aggregation blocks at four sizes of the map, for real denoising.

Paper:    Chen et al., "Cross Aggregation Transformer for Image Restoration", arXiv:2211.13654,
          supplement; the shape of the network is that of Zamir et al., "Restormer",
          arXiv:2111.09881.
Weights:  github.com/zhengchen1999/CAT (Apache-2.0); parameter names are theirs. The official file
          holds 1.4 GiB of masks beside its weights; they are neither read nor needed.
Written:  anew, from the papers and from the names and shapes in that file.
Differs:  in nothing that shows: outputs and gradients agree to rounding.

Shape letters: B images, H rows, W columns, C channels of a map.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from restore.archs._blocks import drop_path_rates, on_map, pointwise
from restore.archs._cross_aggregation import (
    CrossConfig,
    Stage,
    derived,
    heads_key,
    read_heads,
    read_window,
    stage_blocks,
    windows_in_words,
)
from restore.archs._entry import channels_last, check_picture
from restore.archs._skeleton import read_mlp_ratio
from restore.archs._spec import (
    ArchSpec,
    Doubt,
    InputRule,
    Reading,
    StateDict,
    count_numbers,
    shape_of,
)

LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
STAGES = (  # official name, level, channels as a multiple of `dim`
    ("encoder_level1", 0, 1),
    ("encoder_level2", 1, 2),
    ("encoder_level3", 2, 4),
    ("latent", 3, 8),
    ("decoder_level3", 2, 4),
    ("decoder_level2", 1, 2),
    ("decoder_level1", 0, 2),
    ("refinement", 0, 2),
)
SUPPORTED = {"bias": False, "dual_pixel_task": False, "img_range": 1.0}
HALO = 64  # pixels; blocks at an eighth of the size see far


@dataclass(frozen=True)
class CATUnetConfig(CrossConfig):
    """The official constructor's arguments, with the values of the published model.

    The four numbers of depth, split_size_0 and num_heads are those of the levels, from the full
    size to an eighth of it. Windows are stripes of split_size_0 columns or rows; split_size_1 is 0.
    img_size changes nothing but the stored masks.
    """

    img_size: int | tuple[int, int] = 128
    in_chans: int = 3
    dim: int = 48
    depth: tuple[int, ...] = (4, 6, 6, 8)
    split_size_0: tuple[int, ...] = (4, 4, 4, 4)
    split_size_1: tuple[int, ...] = (0, 0, 0, 0)
    num_heads: tuple[int, ...] = (2, 2, 4, 8)
    drop_path_rate: float = 0.0
    img_range: float = 1.0
    bias: bool = False
    num_refinement_blocks: int = 4
    dual_pixel_task: bool = False

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        if len(self.depth) != len(LEVELS):
            raise ValueError(f"depth is {list(self.depth)}; expected {len(LEVELS)} levels")
        if any(self.split_size_1):
            raise ValueError(f"split_size_1 is {list(self.split_size_1)}; expected zeros")
        for name, value in SUPPORTED.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}; only {value!r}, as in the official model"
                )
        super().__post_init__()

    @property
    def stages(self) -> list[Stage]:
        """The eight of them, in the order of `STAGES`."""
        depths = [self.depth[level] for _, level, _ in STAGES[:-1]]
        return [
            Stage(name, depth, width * self.dim, self.num_heads[at], (0, self.split_size_0[at]))
            for (name, at, width), depth in zip(
                STAGES, [*depths, self.num_refinement_blocks], strict=True
            )
        ]

    @property
    def drop_after_projection(self) -> float:
        """Unlike in the super-resolution networks, `drop_rate`."""
        return self.drop_rate


class Resample(nn.Module):
    """A convolution, then pixels from channels or channels from pixels: [B, H, W, C] to a map."""

    def __init__(self, dim: int, out: int, shuffle: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, out, 3, 1, 1, bias=False), shuffle)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H / 2, W / 2, 2C] or [B, 2H, 2W, C / 2]."""
        return on_map(self.body, x)


def down(dim: int) -> Resample:
    """[B, H, W, C] to [B, H / 2, W / 2, 2C]."""
    return Resample(dim, dim // 2, nn.PixelUnshuffle(2))


def up(dim: int) -> Resample:
    """[B, H, W, C] to [B, 2H, 2W, C / 2]."""
    return Resample(dim, 2 * dim, nn.PixelShuffle(2))


class CATUnet(nn.Module):
    """[B, in_chans, H, W] in 0..1 to the same shape, not clamped.

    H and W are multiples of what `input_rule` says; `restore.Model` takes any.
    """

    def __init__(self, config: CATUnetConfig) -> None:
        super().__init__()
        dim = config.dim
        rates = drop_path_rates(config.drop_path_rate, tuple(s.depth for s in config.stages))
        stages = {
            stage.name: nn.Sequential(*stage_blocks(config, stage, of_stage))
            for stage, of_stage in zip(config.stages, rates, strict=True)
        }
        first = nn.Conv2d(config.in_chans, dim, 3, 1, 1, bias=False)
        self.patch_embed = nn.Sequential(OrderedDict({"proj": first}))
        self.encoder_level1 = stages["encoder_level1"]
        self.down1_2 = down(dim)
        self.encoder_level2 = stages["encoder_level2"]
        self.down2_3 = down(2 * dim)
        self.encoder_level3 = stages["encoder_level3"]
        self.down3_4 = down(4 * dim)
        self.latent = stages["latent"]
        self.up4_3 = up(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=False)
        self.decoder_level3 = stages["decoder_level3"]
        self.up3_2 = up(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=False)
        self.decoder_level2 = stages["decoder_level2"]
        self.up2_1 = up(2 * dim)
        self.decoder_level1 = stages["decoder_level1"]
        self.refinement = stages["refinement"]
        self.output = nn.Conv2d(2 * dim, config.in_chans, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] in 0..1 to the same shape, not clamped."""
        check_picture(self, x, self.patch_embed)
        if not x.shape[0]:
            return x.clone()  # nn.PixelUnshuffle leaves empty maps as they are
        y = self.patch_embed(channels_last(x))
        level1 = self.encoder_level1(y.permute(0, 2, 3, 1))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        y = self.up4_3(self.latent(self.down3_4(level3)))
        y = pointwise(self.reduce_chan_level3, torch.cat([y, level3], dim=-1))
        y = self.up3_2(self.decoder_level3(y))
        y = pointwise(self.reduce_chan_level2, torch.cat([y, level2], dim=-1))
        y = self.up2_1(self.decoder_level2(y))
        y = self.refinement(self.decoder_level1(torch.cat([y, level1], dim=-1)))
        return x + on_map(self.output, y).permute(0, 3, 1, 2)


def claims(state: StateDict) -> bool:
    """Whether the first level's blocks have two attentions with position MLPs."""
    marks = {"patch_embed.proj.weight", "output.weight", *map(heads_key, LEVELS)}
    return marks <= state.keys()


def read_config(state: StateDict) -> Reading:
    """Every argument that keys and shapes tell; the official value for the rest."""
    dim, in_chans = shape_of(state, "patch_embed.proj.weight", "[dim, in_chans, 3, 3]")[:2]
    found = [
        [read_window(state, name) for name, at, _ in STAGES if at == level]
        for level in range(len(LEVELS))
    ]
    sides = [side for level in found for _, side in level if side]
    told = [next((window[1] for window, _ in level if window), 0) for level in found]
    config = CATUnetConfig(
        img_size=max(sides, default=128),
        in_chans=in_chans,
        dim=dim,
        depth=tuple(count_numbers(state, f"{name}.") for name in LEVELS),
        split_size_0=tuple(split or 4 for split in told),
        num_heads=tuple(read_heads(state, name) for name in LEVELS),
        mlp_ratio=read_mlp_ratio(state, "latent.0.mlp.fc1.weight"),
        qkv_bias="latent.0.qkv.bias" in state,
        num_refinement_blocks=count_numbers(state, "refinement."),
    )
    levels = [at + 1 for at, split in enumerate(told) if split]
    source = f"attn_mask_0 of levels {levels}" if levels else "no buffers"
    evidence = (
        f"patch_embed.proj.weight: dim {dim}, in_chans {in_chans}",
        f"blocks of each level: depth {list(config.depth)}",
        f"pos3.2.weight: num_heads {list(config.num_heads)}",
        f"mlp.fc1.weight: mlp_ratio {config.mlp_ratio:g}",
        f"{source}: split_size_0 {list(config.split_size_0)}, img_size {config.img_size}",
    )
    return Reading(config, evidence, _doubts(config, told))


def _doubts(config: CATUnetConfig, told: list[int]) -> tuple[Doubt, ...]:
    official = (config.dim, config.depth) == (48, (4, 6, 6, 8)) and not any(told)
    unsure = [level + 1 for level, split in enumerate(told) if not split]
    if official or not unsure:
        return ()
    text = (
        f"its masks do not tell the stripes of levels {unsure}: taken as "
        f"split_size_0={list(config.split_size_0)}; if it was trained otherwise, give it"
    )
    return (Doubt(("split_size_0",), text),)


def variant(config: CATUnetConfig) -> str:
    """What a person calls this configuration."""
    return f"CAT_Unet{'' if config.dim == 48 else f' dim{config.dim}'} real denoising"


def input_rule(config: CATUnetConfig) -> InputRule:
    """Multiples of the stripes of every level. They end where a tile does, whatever its halo."""
    multiple = math.lcm(*(split << level for level, split in enumerate(config.split_size_0)))
    return InputRule(multiple=multiple, minimum=multiple, align=multiple, halo=HALO)


SPEC = ArchSpec(
    name="CAT_Unet",
    family="CAT",
    paper="arXiv:2211.13654",
    licence="Apache-2.0",
    config=CATUnetConfig,
    build=CATUnet,
    claims=claims,
    read_config=read_config,
    variant=variant,
    scale=lambda config: 1,
    in_channels=lambda config: config.in_chans,
    input_rule=input_rule,
    derived=derived,
    windows=windows_in_words,
)
