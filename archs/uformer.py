"""Uformer: a U-shaped net of window attention blocks, for denoising and deblurring.

Paper:    Wang et al., "Uformer: A General U-Shaped Transformer for Image Restoration",
          arXiv:2106.03106.
Weights:  github.com/ZhendongWang6/Uformer (MIT); parameter names are theirs, `dowsample_` too.
Written:  anew, from the paper and from the names and shapes in those files.
Differs:  takes rectangles; on squares, which alone the official network takes, outputs and
          gradients agree to rounding.

Shape letters: B images, H rows, W columns, C channels of a map, w side of a window.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from restore.archs._blocks import Blocks, drop_path_rates, init_linear, on_map
from restore.archs._branches import DropPath, add_branch, hidden_features, joined
from restore.archs._conv_mlp import LeFF
from restore.archs._entry import channels_last, check_picture
from restore.archs._plain import plain
from restore.archs._skeleton import DropRates, read_mlp_ratio
from restore.archs._spec import (
    ArchSpec,
    Doubt,
    InputRule,
    PublishedPadding,
    Reading,
    StateDict,
    StoredBuffer,
    count_numbers,
    shape_of,
)
from restore.archs._swin import TABLE, Modulated, WindowAttention, read_window, stored_index

STEPS = range(4)  # down, and up again
STAGES = (*(f"encoderlayer_{k}" for k in STEPS), "conv", *(f"decoderlayer_{k}" for k in STEPS))
HALVINGS = (0, 1, 2, 3, 4, 3, 2, 1, 0)  # of the image, to a stage's map
WIDTHS = (1, 2, 4, 8, 16, 16, 8, 4, 2)  # of a stage, in multiples of embed_dim
BOTTLENECK = 4
SUPPORTED: dict[str, tuple[object, ...]] = {
    "attn_drop_rate": (0.0,),
    "token_projection": ("linear",),
    "token_mlp": ("leff", "fastleff"),  # the same network, computed otherwise
    "cross_modulator": (False,),
}


@dataclass(frozen=True)
class UformerConfig(DropRates):
    """The official constructor's arguments; defaults are those of the published Uformer-S.

    depths and num_heads are of the nine stages: four down, the bottleneck, four up. Where a
    stage's map was win_size pixels or less in training (img_size halved per stage), that map is
    its window and is not shifted.
    """

    img_size: int = 128  # training patch; the published scripts build all networks with this one
    in_chans: int = 3  # of the output
    dd_in: int = 3  # channels of the input; where 3, it is added to the output
    embed_dim: int = 32
    depths: tuple[int, ...] = (2, 2, 2, 2, 2, 2, 2, 2, 2)
    num_heads: tuple[int, ...] = (1, 2, 4, 8, 16, 16, 8, 4, 2)
    win_size: int = 8
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    qk_scale: float | None = None  # None: head_dim ** -0.5
    attn_drop_rate: float = 0.0
    patch_norm: bool = True  # changes nothing
    use_checkpoint: bool = False  # recompute activations in training
    token_projection: str = "linear"
    token_mlp: str = "leff"
    shift_flag: bool = True  # whether odd blocks are shifted
    modulator: bool = True  # whether windows on the way up get a learnt vector for each pixel
    cross_modulator: bool = False

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        for name in ("in_chans", "dd_in", "embed_dim", "win_size", "mlp_ratio"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0")
        if self.img_size < 16:
            raise ValueError(f"img_size is {self.img_size}; expected 16 or more, to be halved 4 x")
        for name in ("depths", "num_heads"):
            if len(self[name]) != len(STAGES) or min(self[name]) < 1:
                raise ValueError(f"{name} is {self[name]}; expected {len(STAGES)} numbers above 0")
        if any(dim % heads for dim, heads in zip(self.dims, self.num_heads, strict=True)):
            raise ValueError(f"num_heads {self.num_heads} do not divide channels {self.dims}")
        if self.dd_in == 3 and self.in_chans != 3:
            raise ValueError(
                f"in_chans is {self.in_chans}; expected 3 with dd_in=3, as the input is added"
            )
        for name, values in SUPPORTED.items():
            if getattr(self, name) not in values:
                listed = " or ".join(map(repr, values))
                raise ValueError(
                    f"{name}={getattr(self, name)!r}; only {listed}, as in all official models"
                )

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(width * self.embed_dim for width in WIDTHS)

    @property
    def windows_and_shifts(self) -> list[tuple[int, int]]:
        """Of each stage: side of a window, and roll of odd blocks."""
        sides = [self.img_size >> halvings for halvings in HALVINGS]
        shift = self.win_size // 2 if self.shift_flag else 0
        return [(side, 0) if side <= self.win_size else (self.win_size, shift) for side in sides]

    @property
    def multiple(self) -> int:
        """Pixels of the image that the windows of all stages divide."""
        pairs = zip(self.windows_and_shifts, HALVINGS, strict=True)
        return math.lcm(*(window << halvings for (window, _), halvings in pairs))


class SplitProjection(nn.Module):
    """That to queries, and that to keys and values, side by side: [B, H, W, C] to [B, H, W, 3C]."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, 3C]."""
        return torch.cat([self.to_q(x), self.to_kv(x)], dim=-1)


class SplitAttention(WindowAttention):
    """Window attention whose projection to queries, keys and values is stored as two layers.

    Args:
        config: of the network.
        stage: which of the nine.
        shifted: whether windows are shifted, where the stage has shifts.
    """

    def __init__(self, config: UformerConfig, stage: int, shifted: bool) -> None:
        dim = config.dims[stage]
        window, shift = config.windows_and_shifts[stage]
        super().__init__(
            dim,
            config.num_heads[stage],
            window,
            shift if shifted else 0,
            qk_scale=config.qk_scale,
            drop=config.drop_rate,
        )
        self.qkv = SplitProjection(dim, config.qkv_bias)

    def _projection(self) -> tuple[Tensor, Tensor | None] | None:
        if not plain(SplitProjection, self.qkv):
            return None
        both = cast(SplitProjection, self.qkv)
        own = plain(nn.Linear, both.to_q, both.to_kv)
        return joined(both.to_q, both.to_kv) if own else None


class LeWinBlock(nn.Module):
    """Attention in (shifted) windows, then LeFF, each behind a norm and added.

    Args:
        config: of the network.
        stage: which of the nine.
        shifted: whether windows are shifted, where the stage has shifts.
        drop_path: rate.
    """

    def __init__(
        self, config: UformerConfig, stage: int, *, shifted: bool, drop_path: float
    ) -> None:
        super().__init__()
        dim = config.dims[stage]
        window, shift = config.windows_and_shifts[stage]
        modulated = config.modulator and stage > BOTTLENECK
        self.window_size = (window, window)
        self.shift = (shift, shift) if shifted else (0, 0)
        self.modulator = nn.Embedding(window * window, dim) if modulated else None
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SplitAttention(config, stage, shifted)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = LeFF(dim, hidden_features(dim, config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; H and W are multiples of the window."""
        x = add_branch(x, self._modulated(), self.attn, self.drop_path)
        return add_branch(x, self.norm2, self.mlp, self.drop_path)

    def _modulated(self) -> nn.Module | Modulated:
        """What a map goes through before attention."""
        if self.modulator is None:
            return self.norm1
        return Modulated(self.norm1, self.modulator.weight, self.window_size, self.shift)


class Uformer(nn.Module):
    """[B, dd_in, H, W] in 0..1 to [B, in_chans, H, W], not clamped.

    H and W are multiples of `config.multiple` (16 windows); `restore.Model` takes any.
    """

    def __init__(self, config: UformerConfig) -> None:
        super().__init__()
        dims, first = config.dims, config.embed_dim
        self.adds_input = config.dd_in == 3
        rates = stage_drop_paths(config)

        def add_stage(stage: int) -> None:
            blocks = (
                LeWinBlock(config, stage, shifted=j % 2 == 1, drop_path=rate)
                for j, rate in enumerate(rates[stage])
            )
            self.add_module(STAGES[stage], Blocks(blocks, config.use_checkpoint))

        self.input_proj = _named("proj", nn.Conv2d(config.dd_in, first, 3, 1, 1), nn.LeakyReLU())
        self.output_proj = _named("proj", nn.Conv2d(2 * first, config.in_chans, 3, 1, 1))
        self.pos_drop = nn.Dropout(config.drop_rate)
        for k in STEPS:
            add_stage(k)
            conv = nn.Conv2d(dims[k], dims[k + 1], 4, 2, 1)
            self.add_module(f"dowsample_{k}", _named("conv", conv))
        add_stage(BOTTLENECK)
        for k in STEPS:
            deconv = nn.ConvTranspose2d(dims[BOTTLENECK + k], dims[BOTTLENECK - 1 - k], 2, 2)
            self.add_module(f"upsample_{k}", _named("deconv", deconv))
            add_stage(BOTTLENECK + 1 + k)
        self.apply(init_linear)

    def forward(self, x: Tensor) -> Tensor:
        """[B, dd_in, H, W] in 0..1 to [B, in_chans, H, W], not clamped."""
        check_picture(self, x, self.input_proj)
        y = self.input_proj(channels_last(x))
        y = self.pos_drop(y.permute(0, 2, 3, 1))
        skips: list[Tensor] = []
        for k in STEPS:
            y = self.get_submodule(f"encoderlayer_{k}")(y)
            skips.append(y)
            y = on_map(self.get_submodule(f"dowsample_{k}"), y)
        y = self.get_submodule(STAGES[BOTTLENECK])(y)
        for k in STEPS:
            y = on_map(self.get_submodule(f"upsample_{k}"), y)
            y = torch.cat([y, skips.pop()], dim=-1)
            y = self.get_submodule(f"decoderlayer_{k}")(y)
        y = on_map(self.output_proj, y).permute(0, 3, 1, 2)
        return x + y if self.adds_input else y


def _named(name: str, *layers: nn.Module) -> nn.Sequential:
    """Layers in a sequence of an official name, in another that has nothing else."""
    return nn.Sequential(OrderedDict({name: nn.Sequential(*layers)}))


def stage_drop_paths(config: UformerConfig) -> list[list[float]]:
    """Rates of each stage's blocks: rising to the bottleneck, highest in it, falling after it."""
    rate, depths = config.drop_path_rate, config.depths
    down = drop_path_rates(rate, depths[:BOTTLENECK])
    up = drop_path_rates(rate, depths[:BOTTLENECK:-1])
    return [*down, [rate] * depths[BOTTLENECK], *(rates[::-1] for rates in reversed(up))]


ENTRY = "input_proj.proj.0.weight"
FIRST = "{}.blocks.0."  # of a stage


def claims(state: StateDict) -> bool:
    """Whether maps shrink and grow by the official layers, around window attention."""
    marks = {ENTRY, "dowsample_0.conv.0.weight", "upsample_0.deconv.0.weight"}
    return marks <= state.keys() and FIRST.format("conv") + TABLE in state


def read_config(state: StateDict) -> Reading:
    """Every argument that keys and shapes tell; the value of the published scripts for the rest."""
    embed_dim, dd_in = shape_of(state, ENTRY, "[embed_dim, dd_in, 3, 3]")[:2]
    depths = tuple(count_numbers(state, f"{stage}.blocks.") for stage in STAGES)
    tables = [FIRST.format(stage) + TABLE for stage in STAGES]
    windows = [read_window(state, key) for key in tables]
    encoder = FIRST.format(STAGES[0])
    told = _told_img_size(windows)
    config = UformerConfig(
        # the scripts' own, or what keeps the bottleneck's window whole
        img_size=told or max(128, windows[0] << HALVINGS[BOTTLENECK]),
        in_chans=shape_of(state, "output_proj.proj.0.weight", "[in_chans, 2 embed_dim, 3, 3]")[0],
        dd_in=dd_in,
        embed_dim=embed_dim,
        depths=depths,
        num_heads=tuple(state[key].shape[1] for key in tables),
        win_size=windows[0],
        mlp_ratio=read_mlp_ratio(state, encoder + "mlp.linear1.0.weight"),
        qkv_bias=encoder + "attn.qkv.to_q.bias" in state,
        modulator=FIRST.format(STAGES[BOTTLENECK + 1]) + "modulator.weight" in state,
    )
    evidence = (
        f"input_proj.proj.0.weight: embed_dim {embed_dim}, dd_in {dd_in}",
        f"output_proj.proj.0.weight: in_chans {config.in_chans}",
        f"blocks of each stage: depths {list(depths)}",
        f"{TABLE}: num_heads {list(config.num_heads)}, windows of {windows} pixels",
        f"mlp.linear1: mlp_ratio {config.mlp_ratio:g}",
        f"modulator.weight: modulator {config.modulator}",
    )
    return Reading(config, evidence, _doubts(config, told is not None))


def _told_img_size(windows: list[int]) -> int | None:
    """The training patch, where it was so small that the window of a stage is its whole map."""
    for window, halvings in zip(windows, HALVINGS[: BOTTLENECK + 1], strict=False):
        if window < windows[0]:
            return window << halvings
    return None


def _doubts(config: UformerConfig, img_size_is_told: bool) -> tuple[Doubt, ...]:
    """The shifts leave no trace, not even in the buffers of official files."""
    shifts = [shift for _, shift in config.windows_and_shifts]
    if config.win_size > 1 and config.depths[BOTTLENECK] > 1 and not img_size_is_told:
        one_window = config.win_size << HALVINGS[BOTTLENECK]
        other = (
            f"img_size={one_window} would not shift those of the bottleneck"
            if shifts[BOTTLENECK]
            else f"img_size={2 * one_window} would also shift those of the bottleneck"
        )
        text = (
            "training patch and shifts leave no trace in these weights: taken as "
            f"img_size={config.img_size} and shift_flag=True, as in the authors' test scripts; "
            f"windows differ otherwise: {other}, shift_flag=False none; give either"
        )
        return (Doubt(("img_size", "shift_flag"), text),)
    if any(s and depth > 1 for s, depth in zip(shifts, config.depths, strict=True)):
        text = (
            "shifts leave no trace in these weights: taken as shift_flag=True; if it was trained "
            "without them, give shift_flag=False"
        )
        return (Doubt(("shift_flag",), text),)
    return ()


def derived(config: UformerConfig) -> dict[str, StoredBuffer]:
    """The buffers that official files hold beside the parameters, by key."""
    makers = {window: stored_index(window) for window, _ in config.windows_and_shifts}
    return {
        f"{name}.blocks.{j}.attn.relative_position_index": makers[window]
        for name, depth, (window, _) in zip(
            STAGES, config.depths, config.windows_and_shifts, strict=True
        )
        for j in range(depth)
    }


def variant(config: UformerConfig) -> str:
    """What a person calls this configuration."""
    sizes: dict[tuple[int, tuple[int, ...]], str] = {
        (16, (2,) * 9): "T",
        (32, (2,) * 9): "S",
        (32, (1, 2, 8, 8, 2, 8, 8, 2, 1)): "B",
    }
    size = sizes.get((config.embed_dim, config.depths), f"dim{config.embed_dim}")
    return f"Uformer-{size}{'' if config.shift_flag else ' noshift'}"


def input_rule(config: UformerConfig) -> InputRule:
    """Multiples of the bottleneck's windows; half of one is what tiles see of their neighbours."""
    m = config.multiple
    return InputRule(multiple=m, minimum=m, align=m, halo=m // 2)


SPEC = ArchSpec(
    name="Uformer",
    family="Uformer",
    paper="arXiv:2106.03106",
    licence="MIT",
    config=UformerConfig,
    build=Uformer,
    claims=claims,
    read_config=read_config,
    variant=variant,
    scale=lambda config: 1,
    in_channels=lambda config: config.dd_in,
    out_channels=lambda config: config.in_chans,
    wrappers=("state_dict",),
    prefix="module.",  # from training on several devices; one of their loaders cuts it off blindly
    input_rule=input_rule,
    derived=derived,
    windows=lambda config: str(config.win_size),
    published_padding=lambda config: PublishedPadding("zeros", config.multiple, square=True),
)
