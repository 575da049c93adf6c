"""HiT-SR: correlation without softmax in windows that grow from block to block.

Paper:    Zhang et al., "HiT-SR: Hierarchical Transformer for Efficient Image Super-Resolution",
          arXiv:2407.05878.
Weights:  github.com/XiangZ-0/HiT-SR (Apache-2.0); parameter names are theirs. Three networks:
          HiT_SIR, HiT_SNG (adds n-gram context) and HiT_SRF (adds a depthwise convolution).
Written:  anew, from the paper and from the names and shapes in those files.
Differs:  reflects as often as needed, so that no map is too small for a window; where the official
          networks run, outputs and gradients agree to rounding.

Shape letters: B images, H rows, W columns, C channels of the body, wh x ww a window of N pixels,
M blocks of reduced values in it, T = (2 wh - 1)(2 ww - 1) offsets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from restore.archs._branches import DropPath, Mlp, drops, hidden_features
from restore.archs._conv_mlp import ConvMlp
from restore.archs._correlation import Correlation as Correlation
from restore.archs._ngram import BIGRAM
from restore.archs._plain import plain
from restore.archs._skeleton import (
    BLOCK,
    ResidualConfig,
    SwinSkeleton,
    has_skeleton,
    read_skeleton,
    residual_groups,
    skeleton_evidence,
)
from restore.archs._spec import (
    ArchSpec,
    Doubt,
    InputRule,
    Reading,
    StateDict,
    StoredBuffer,
    shape_of,
)
from restore.archs._swin import stored_rectangle_index
from restore.kernels.norm_residual import norm_residual
from restore.kernels.windows import Size, pad_to_multiple

LARGEST_WINDOW = 1024  # pixels; the largest official one has 64


@dataclass(frozen=True)
class HiTConfig(ResidualConfig):
    """The official constructors' arguments; defaults are those of the published x4 models."""

    drop_path_rate: float = 0.0
    upscale: int = 4
    base_win_size: tuple[int, int] = (8, 8)
    value_drop_rate: float = 0.0
    hier_win_ratios: tuple[float, ...] = (0.5, 1, 2, 4, 6, 8)  # of block j's window to the base

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        if self.embed_dim % 2 or any(self.embed_dim // 2 % heads for heads in self.num_heads):
            raise ValueError(
                f"num_heads {self.num_heads} do not divide embed_dim / 2 = {self.embed_dim / 2}"
            )
        if max(self.depths) > len(self.hier_win_ratios):
            raise ValueError(
                f"depths {self.depths} need {max(self.depths)} hier_win_ratios; "
                f"found {self.hier_win_ratios}"
            )
        if self.value_drop_rate:
            raise ValueError(
                f"value_drop_rate={self.value_drop_rate}; only 0, as in all official models"
            )
        if min(self.base_win_size) < 1 or max(max(self.windows)) > LARGEST_WINDOW:
            raise ValueError(
                f"base_win_size {self.base_win_size} with hier_win_ratios {self.hier_win_ratios} "
                f"gives windows {self.windows}; expected sides of 1 to {LARGEST_WINDOW}"
            )
        for window, reduction in zip(self.windows, self.reductions, strict=True):
            if min(window) < 1 or window[0] % reduction[0] or window[1] % reduction[1]:
                raise ValueError(
                    f"base_win_size {self.base_win_size} with hier_win_ratios "
                    f"{self.hier_win_ratios} gives window {window} and reduction {reduction}"
                )

    @property
    def windows(self) -> list[Size]:
        """The window of block j of every group."""
        rows, cols = self.base_win_size
        return [(int(rows * ratio), int(cols * ratio)) for ratio in self.hier_win_ratios]

    @property
    def reductions(self) -> list[Size]:
        """Pixels that one reduced value of block j stands for: none below the base window."""
        rows, cols = self.base_win_size
        return [(max(h // rows, 1), max(w // cols, 1)) for h, w in self.windows]


class HiTBlock(nn.Module):
    """Correlation, then an MLP, each added behind its norm: [B, H, W, C] to [B, H, W, C]."""

    def __init__(
        self, config: HiTConfig, name: str, index: int, heads: int, drop_path: float
    ) -> None:
        super().__init__()
        dim = config.embed_dim
        window, reduction = config.windows[index], config.reductions[index]
        ngram = name == "HiT_SNG"
        # a window needs a neighbour for its context
        self.multiple = (2 * window[0], 2 * window[1]) if ngram else window
        self.correlation = Correlation(dim, window, reduction, heads, ngram, config.drop_rate)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.drop_path = DropPath(drop_path)
        mlp = ConvMlp if name == "HiT_SRF" else Mlp
        self.mlp = mlp(dim, hidden_features(dim, config.mlp_ratio), config.drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        x = self._correlated(x)
        return self._add(x, self.norm2, self.mlp(x))

    def _add(self, x: Tensor, norm: nn.LayerNorm, y: Tensor) -> Tensor:
        """x + drop_path(norm(y))."""
        if drops(self.drop_path) or not plain(nn.LayerNorm, norm):
            return x + cast(Tensor, self.drop_path(norm(y)))
        return norm_residual(y, norm.weight, norm.bias, x, norm.eps)

    def _correlated(self, x: Tensor) -> Tensor:
        h, w = x.shape[1:3]
        if plain(Correlation, self.correlation):
            qv = self.correlation.project(x, self.multiple)
            fused = None if drops(self.drop_path) else self.correlation.add_to(x, qv, self.norm1)
            if fused is not None:
                return fused
            y = self.correlation.correlate(qv)
        else:
            y = self.correlation(pad_to_multiple(x, self.multiple))
        return self._add(x, self.norm1, y[:, :h, :w])


class HiT(SwinSkeleton):
    """[B, in_chans, H, W] in 0..1 to [B, in_chans, H * s, W * s], not clamped."""

    def __init__(self, config: HiTConfig, name: str) -> None:
        def block(group: int, j: int, rate: float) -> HiTBlock:
            return HiTBlock(config, name, j, config.num_heads[group], rate)

        super().__init__(
            config,
            residual_groups(config, block),
            patch_norm=config.patch_norm,
            drop_rate=config.drop_rate,
        )


FIRST = BLOCK.format(0, 0)
UNIGRAM = "correlation.ngram_window_partition.ngram_context.unigram_embed.weight"
EVIDENCE = {
    "HiT_SIR": "a plain MLP",
    "HiT_SNG": "ngram_context",
    "HiT_SRF": "mlp.dwconv",
}


def which(state: StateDict) -> str | None:
    """Name of the network whose weights `state` holds, or None if it is none of the three."""
    if not has_skeleton(state) or FIRST + "correlation.qv.linear.weight" not in state:
        return None
    if FIRST + "mlp.dwconv.depthwise_conv.0.weight" in state:
        return "HiT_SRF"
    return "HiT_SNG" if FIRST + UNIGRAM in state else "HiT_SIR"


def read_config(state: StateDict) -> Reading:
    """Every argument that keys and shapes tell; the official value for the rest."""
    name = which(state) or "HiT_SIR"
    common = read_skeleton(state, heads=BLOCK.format("{}", 0) + "correlation.pos.pos3.2.weight")
    depths = common["depths"]
    blocks = [BLOCK.format(depths.index(max(depths)), j) for j in range(max(depths))]
    keys = [b + "correlation.spatial_linear.weight" for b in blocks]
    reductions = [math.isqrt(shape_of(state, key, "[1, reduction^2]")[1]) for key in keys]
    if name == "HiT_SNG":
        windows = [shape_of(state, b + UNIGRAM, "[1, 2, window, window]")[2] for b in blocks]
        base, doubts = _read_base(windows, reductions)
        ratios = tuple(_whole(window / base) for window in windows)
    else:
        base, ratios, doubts = _assume_ratios(reductions)
    config = HiTConfig(**common, base_win_size=(base, base), hier_win_ratios=ratios)
    evidence = (
        f"correlation.qv.linear and {EVIDENCE[name]}: {name}",
        *skeleton_evidence(config),
        f"correlation.spatial_linear: values reduced by {reductions}, windows {config.windows}",
    )
    return Reading(config, evidence, doubts)


def _read_base(windows: list[int], reductions: list[int]) -> tuple[int, tuple[Doubt, ...]]:
    for window, reduction in zip(windows, reductions, strict=True):
        if reduction > 1:
            return window // reduction, ()
    base = max(windows)
    text = f"no block reduces its values, so base_win_size leaves no trace: taken as {[base, base]}"
    return base, (Doubt(("base_win_size",), text),)


def _assume_ratios(reductions: list[int]) -> tuple[int, tuple[float, ...], tuple[Doubt, ...]]:
    """Windows leave a trace only above the base; below it the published order is assumed."""
    whole = reductions.count(1)
    small = [0.5 ** (whole - 1 - i) for i in range(whole)]
    ratios = tuple(_whole(r) for r in [*small, *reductions[whole:]])
    if reductions == [1, 1, 2, 4, 6, 8]:
        return 8, ratios, ()
    text = (
        "window sizes leave no trace in these weights: taken as base_win_size=[8, 8] and "
        f"hier_win_ratios={list(ratios)}; if it was trained otherwise, give both"
    )
    return 8, ratios, (Doubt(("base_win_size", "hier_win_ratios"), text),)


def _whole(ratio: float) -> float:
    return int(ratio) if ratio == int(ratio) else ratio


def _derived(name: str, config: HiTConfig) -> dict[str, StoredBuffer]:
    """The buffers that official files hold beside the parameters, by key."""
    if name != "HiT_SNG":
        return {}
    key = BLOCK + "correlation.ngram_window_partition.ngram_context.ngram_attn."
    index = stored_rectangle_index(BIGRAM)
    return {
        key.format(g, j) + "relative_position_index": index
        for g, depth in enumerate(config.depths)
        for j in range(depth)
    }


def _variant(name: str, config: HiTConfig) -> str:
    """What a person calls this configuration."""
    return f"{name.replace('_', '-')} x{config.upscale}"


def _input_rule(name: str, config: HiTConfig) -> InputRule:
    """No multiple: each block pads for itself. The minimum is that of the official networks."""
    sides = [side for window in config.windows for side in window]
    least = {"HiT_SIR": 2, "HiT_SNG": 2, "HiT_SRF": 4}[name]
    return InputRule(
        multiple=1,
        minimum=max(sides) // least + 1,
        align=math.lcm(*sides),
        halo=-(-max(sides) // 2),
    )


def _spec(name: str) -> ArchSpec:
    return ArchSpec(
        name=name,
        family="HiT-SR",
        paper="arXiv:2407.05878",
        licence="Apache-2.0",
        config=HiTConfig,
        build=lambda config: HiT(config, name),
        claims=lambda state: which(state) == name,
        read_config=read_config,
        variant=lambda config: _variant(name, config),
        scale=lambda config: config.upscale,
        in_channels=lambda config: config.in_chans,
        input_rule=lambda config: _input_rule(name, config),
        derived=lambda config: _derived(name, config),
        windows=lambda config: ", ".join(str(rows) for rows, _ in config.windows),
        overflows_fp16=True,  # no softmax, and each branch is normalised only at its end
    )


SPECS = tuple(_spec(name) for name in ("HiT_SIR", "HiT_SNG", "HiT_SRF"))
