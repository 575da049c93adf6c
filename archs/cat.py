"""CAT: attention in rectangles or stripes of two directions, for super-resolution and JPEG.

Paper:    Chen et al., "Cross Aggregation Transformer for Image Restoration", arXiv:2211.13654.
Weights:  github.com/zhengchen1999/CAT (Apache-2.0); parameter names are theirs. CAT-R and CAT-R-2
          have rectangles, CAT-A, CAT-A-2 and the JPEG models stripes.
Written:  anew, from the paper and from the names and shapes in those files.
Differs:  in nothing that shows: outputs and gradients agree to rounding.

Shape letters: B images, H rows, W columns, C channels of the body, s scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn

from restore.archs._blocks import Blocks, body_conv, drop_path_rates, on_map
from restore.archs._cross_aggregation import (
    CrossConfig,
    Stage,
    derived,
    has_rectangles,
    read_heads,
    read_window,
    stage_blocks,
    windows_in_words,
)
from restore.archs._skeleton import (
    OuterConfig,
    SwinSkeleton,
    has_skeleton,
    read_depths,
    read_mlp_ratio,
    read_outer,
    skeleton_evidence,
)
from restore.archs._spec import ArchSpec, Doubt, InputRule, PublishedPadding, Reading, StateDict
from restore.archs._tails import Upsampler
from restore.kernels.windows import Size

BlockName = Literal["CATB_axial", "CATB_regular"]
GROUP = "layers.{}.blocks"  # of a group's blocks
RECTANGLE = (4, 16)  # of all official models that have rectangles
HALO = 32  # pixels


@dataclass(frozen=True)
class CATConfig(CrossConfig, OuterConfig):
    """The official constructor's arguments; defaults are those of CAT-A x4.

    With block_name "CATB_regular" a group's windows have split_size_0 rows and split_size_1
    columns for one half of the channels, and the reverse for the other. With "CATB_axial" they are
    stripes of split_size_0 columns or rows along the whole other side, and split_size_1 is 0.
    img_size changes nothing but the stored masks; img_range is 255 in the official JPEG models.
    """

    embed_dim: int = 180
    upscale: int = 4
    upsampler: Upsampler = "pixelshuffle"
    use_chk: bool = False  # recompute activations in training
    block_name: BlockName = "CATB_axial"

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        if self.block_name not in get_args(BlockName):
            raise ValueError(
                f"block_name is {self.block_name!r}; expected one of {get_args(BlockName)}"
            )
        axial = self.block_name == "CATB_axial"
        for name, zero in (("split_size_0", False), ("split_size_1", axial)):
            if any((split < 1) != zero for split in self[name]):
                raise ValueError(
                    f"{name} is {self[name]} with block_name {self.block_name!r}; expected "
                    f"{'0' if zero else '1 or more'} for each group"
                )
        super().__post_init__()

    @property
    def group_depths(self) -> tuple[int, ...]:
        """Blocks of each group."""
        return self.depth

    @property
    def stages(self) -> list[Stage]:
        """The groups."""
        splits = zip(self.split_size_0, self.split_size_1, strict=True)
        windows = [(one, two) if two else (0, one) for one, two in splits]
        return [
            Stage(GROUP.format(g), depth, self.embed_dim, self.num_heads[g], windows[g])
            for g, depth in enumerate(self.depth)
        ]


class CATGroup(Blocks):
    """Blocks, a convolution, and the group's input added; names its blocks as official files do."""

    def __init__(self, blocks: Sequence[nn.Module], conv: nn.Module, use_checkpoint: bool) -> None:
        super().__init__(blocks, use_checkpoint)
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        return on_map(self.conv, super().forward(x)) + x


class CAT(SwinSkeleton):
    """[B, in_chans, H, W] in 0..1 to [B, in_chans, H * s, W * s], not clamped.

    H and W are multiples of the windows' sides; `restore.Model` takes any.
    """

    def __init__(self, config: CATConfig) -> None:
        rates = drop_path_rates(config.drop_path_rate, config.depth)
        groups = [
            CATGroup(
                stage_blocks(config, stage, rates[g]),
                body_conv(config.embed_dim, config.resi_connection),
                config.use_chk,
            )
            for g, stage in enumerate(config.stages)
        ]
        super().__init__(config, groups)

    def _build_entry(self, dim: int, patch_norm: bool) -> None:
        # the first entry of the official sequence has no parameters
        self.before_RG = nn.Sequential(nn.Identity(), nn.LayerNorm(dim))

    def _enter(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.before_RG(x))


FIRST = GROUP.format(0) + ".0."
OFFICIAL: dict[str, tuple[list[Size], float]] = {  # windows of the six groups, mlp_ratio
    "CAT-R": ([RECTANGLE] * 6, 4),
    "CAT-R-2": ([RECTANGLE] * 6, 2),
    "CAT-A": ([(0, 2)] * 3 + [(0, 4)] * 3, 4),
    "CAT-A-2": ([(0, 4)] * 6, 4),
}


def claims(state: StateDict) -> bool:
    """Whether the blocks have two attentions with position MLPs."""
    marks = {"before_RG.1.weight", FIRST + "get_v.weight", FIRST + "attns.1.pos.pos_proj.weight"}
    return has_skeleton(state) and marks <= state.keys()


def read_config(state: StateDict) -> Reading:
    """Every argument that keys and shapes tell; the official value for the rest.

    Buffers alone tell the windows. Without them they are those of CAT-R-2 where the MLP is that
    narrow, else those of CAT-A, and what else fits is told as a doubt.
    """
    outer = read_outer(state)
    depth = read_depths(state, r"layers\.(\d+)\.blocks\.(\d+)\.")
    names = [GROUP.format(group) for group in range(len(depth))]
    ratio = read_mlp_ratio(state, FIRST + "mlp.fc1.weight")
    source = _source(state)
    rectangles = has_rectangles(state, names) or (not source and ratio == 2)
    found = [read_window(state, name, rectangles) for name in names]
    windows = _windows(rectangles, [window for window, _ in found])
    gray = outer["in_chans"] == 1
    config = CATConfig(
        **outer,
        **_splits(windows),
        img_size=max(side for _, side in found) or (128 if gray else 64),
        img_range=255.0 if gray else 1.0,
        depth=depth,
        num_heads=tuple(read_heads(state, name) for name in names),
        mlp_ratio=ratio,
        qkv_bias=FIRST + "qkv.bias" in state,
    )
    evidence = (
        *skeleton_evidence(config),
        f"pos3.2.weight: num_heads {list(config.num_heads)}",
        f"{source or 'no buffers'}: {_told(config)}, img_size {config.img_size}",
        f"in_chans {config.in_chans}: img_range {config.img_range:g}, as in the official files",
    )
    unsure = [g for g, (window, _) in enumerate(found) if not window or _has_a_twin(window)]
    return Reading(config, evidence, (*_doubts(config, source, unsure), *_range_doubt(config)))


def _source(state: StateDict) -> str:
    """The name of the buffers that tell the windows; "" if there are none."""
    names = ("rpe_biases", "relative_position_index", "attn_mask_0", "attn_mask_1")
    return next((name for name in names if any(key.endswith(name) for key in state)), "")


def _windows(rectangles: bool, found: list[Size | None]) -> list[Size]:
    """Of each group: as found, else like another group's, else as in an official model."""
    half = len(found) // 2
    assumed: list[Size] = [(0, 2)] * half + [(0, 4)] * (len(found) - half)
    if rectangles:
        assumed = [RECTANGLE] * len(found)
    told = [window for window in found if window]
    return [window or (told + assumed[g:])[0] for g, window in enumerate(found)]


def _has_a_twin(window: Size) -> bool:
    """Whether the buffers of other windows, rows and columns exchanged, have the same shapes."""
    return 0 not in window and window[0] != window[1] and window != RECTANGLE


def _splits(windows: list[Size]) -> dict[str, Any]:
    """The constructor's arguments for windows of each group."""
    axial = windows[0][0] == 0
    return {
        "block_name": "CATB_axial" if axial else "CATB_regular",
        "split_size_0": tuple(cols if axial else rows for rows, cols in windows),
        "split_size_1": tuple(rows if axial else cols for rows, cols in windows),
    }


def _doubts(config: CATConfig, source: str, unsure: list[int]) -> tuple[Doubt, ...]:
    if source and unsure:
        text = (
            f"its buffers do not tell the windows of groups {unsure}: taken as {_told(config)}; if "
            "it was trained otherwise, give split_size_0 and split_size_1"
        )
        return (Doubt(("split_size_0", "split_size_1"), text),)
    official = config.embed_dim == 180 and config.depth == (6,) * 6
    if source or (official and (config.mlp_ratio == 2 or config.in_chans == 1)):
        return ()
    text = (
        f"it has no buffers, which alone tell its windows: taken as {_told(config)}; "
        "CAT-A has split_size_0=[2, 2, 2, 4, 4, 4], CAT-A-2 has [4, 4, 4, 4, 4, 4], CAT-R has "
        "block_name='CATB_regular', split_size_0=[4, 4, 4, 4, 4, 4] and "
        "split_size_1=[16, 16, 16, 16, 16, 16]: give what it was trained with"
    )
    return (Doubt(("block_name", "split_size_0", "split_size_1"), text),)


def _range_doubt(config: CATConfig) -> tuple[Doubt, ...]:
    if config.upsampler or config.in_chans == 1:
        return ()
    text = (
        "img_range leaves no trace in these weights, and no published CAT keeps the size of colour "
        f"pictures: taken as {config.img_range:g}; if it was trained on values to 255, as the gray "
        "JPEG models were, give img_range=255"
    )
    return (Doubt(("img_range",), text),)


def _told(config: CATConfig) -> str:
    names = ("block_name", "split_size_0", "split_size_1")
    return ", ".join(f"{name} {config[name]}" for name in names)


def variant(config: CATConfig) -> str:
    """What a person calls this configuration."""
    if not config.upsampler:
        task = "JPEG artefacts" if config.img_range == 255 else "denoising"
        return f"CAT {task} ({'gray' if config.in_chans == 1 else 'colour'})"
    model = [stage.window for stage in config.stages], config.mlp_ratio
    same = [name for name, other in OFFICIAL.items() if other == model and config.embed_dim == 180]
    return f"{same[0] if same else 'CAT'} x{config.upscale}"


def input_rule(config: CATConfig) -> InputRule:
    """Multiples of the windows' sides.

    Stripes end where a tile does, whatever its halo, so tiles never give what the whole image does;
    32 pixels keep what windows and convolutions lack at a tile's edge out of what is kept of it.
    """
    multiple = math.lcm(*(side or 1 for stage in config.stages for side in stage.window))
    return InputRule(multiple=multiple, minimum=multiple, align=multiple, halo=HALO)


def published_padding(config: CATConfig) -> PublishedPadding:
    """The authors' scripts grow images to multiples of the largest split."""
    return PublishedPadding("symmetric", max(*config.split_size_0, *config.split_size_1))


SPEC = ArchSpec(
    name="CAT",
    family="CAT",
    paper="arXiv:2211.13654",
    licence="Apache-2.0",
    config=CATConfig,
    build=CAT,
    claims=claims,
    read_config=read_config,
    variant=variant,
    scale=lambda config: config.upscale,
    in_channels=lambda config: config.in_chans,
    input_rule=input_rule,
    derived=derived,
    windows=windows_in_words,
    published_padding=published_padding,
)
