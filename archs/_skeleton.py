"""The outer network that the Swin super-resolution family shares.

Normalise, a first convolution, groups of blocks with a long residual, a tail that enlarges. The
architectures differ in their blocks, in padding and in which tails they have.

Source: Liang et al., "SwinIR", arXiv:2108.10257, figure 2. Parameter names are the official ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn

from restore.archs._blocks import (
    RGB_MEAN,
    Blocks,
    PatchEmbed,
    ResidualGroup,
    body_conv,
    drop_path_rates,
    init_linear,
)
from restore.archs._entry import channels_last, check_picture
from restore.archs._spec import MOST_BLOCKS, ArchConfig, StateDict, shape_of
from restore.archs._strips import Added, Layer, OnTokens, layers_of, run_layers
from restore.archs._tails import SCALES, Upsampler, add_tail, read_tail, tail_layers
from restore.kernels.windows import Size

ResiConnection = Literal["1conv", "3conv", "identity"]
LARGEST_PATCH = 8192  # pixels

# group, block within it, drop path rate -> a module from [B, H, W, C] to the same
BlockFactory = Callable[[int, int, float], nn.Module]
# group, its blocks -> what runs them
GatherBlocks = Callable[[int, list[nn.Module]], Blocks]


@dataclass(frozen=True)
class PatchConfig(ArchConfig):
    """The argument that stored masks are made for; nothing else depends on it in most nets."""

    img_size: int | tuple[int, int] = 64  # training patch

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        sides = self.img_size if isinstance(self.img_size, tuple) else (self.img_size,)
        if not all(1 <= side <= LARGEST_PATCH for side in sides):
            raise ValueError(f"img_size is {self.img_size}; expected 1 to {LARGEST_PATCH}")

    @property
    def patch(self) -> Size:
        """Rows and columns of a training patch, which stored masks are for."""
        return self.img_size if isinstance(self.img_size, tuple) else (self.img_size,) * 2


@dataclass(frozen=True)
class OuterConfig(PatchConfig):
    """Constructor arguments of the network around the groups, with the commonest official values.

    A family says which tails and group ends its official code has.
    """

    in_chans: int = 3
    embed_dim: int = 60
    num_heads: tuple[int, ...] = (6, 6, 6, 6)  # of each group
    mlp_ratio: float = 2.0
    upscale: int = 2
    img_range: float = 1.0
    upsampler: Upsampler = "pixelshuffledirect"
    resi_connection: ResiConnection = "1conv"

    upsamplers: ClassVar[tuple[str, ...]] = get_args(Upsampler)
    resi_connections: ClassVar[tuple[str, ...]] = ("1conv", "3conv")

    @property
    def group_depths(self) -> tuple[int, ...]:
        """Blocks of each group; the official argument's name differs."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        for name in ("upsampler", "resi_connection"):
            kinds = getattr(self, f"{name}s")
            if getattr(self, name) not in kinds:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {kinds}")
        if self.upscale not in (scales := SCALES[self.upsampler]):
            raise ValueError(
                f"upscale is {self.upscale}; upsampler {self.upsampler!r} makes {scales}"
            )
        depths = self.group_depths
        if len(self.num_heads) != len(depths) or min((0, *depths, *self.num_heads)) < 0:
            raise ValueError(f"num_heads {self.num_heads} do not go with depths {depths}")
        for name in ("in_chans", "embed_dim", "mlp_ratio"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0")


@dataclass(frozen=True)
class SkeletonConfig(OuterConfig):
    """Also the arguments that most of the family share."""

    patch_size: int = 1
    depths: tuple[int, ...] = (6, 6, 6, 6)  # blocks of each group
    ape: bool = False
    patch_norm: bool = True
    use_checkpoint: bool = False  # recompute activations in training

    @property
    def group_depths(self) -> tuple[int, ...]:
        """Blocks of each group."""
        return self.depths

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        if self.patch_size != 1 or self.ape:
            raise ValueError(
                f"patch_size={self.patch_size}, ape={self.ape}; only 1 and False, as in every "
                "official model"
            )


@dataclass(frozen=True)
class DropRates(ArchConfig):
    """What is dropped in training: values after linear layers, and whole residual branches."""

    drop_rate: float = 0.0
    drop_path_rate: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        for name in ("drop_rate", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value}; expected 0 or more and below 1")


class SwinSkeleton(nn.Module):
    """[B, in_chans, H, W] in 0..1 to [B, in_chans, H * s, W * s], not clamped.

    Args:
        config: of the network around the groups.
        groups: from [B, H, W, C] to the same, in order.
        patch_norm: whether there is a norm before the groups.
        drop_rate: of values before the groups, in training.
    """

    def __init__(
        self,
        config: OuterConfig,
        groups: Iterable[nn.Module],
        *,
        patch_norm: bool = True,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        dim = config.embed_dim
        self.upscale = config.upscale
        self.img_range = config.img_range
        self.upsampler = config.upsampler
        mean = RGB_MEAN if config.in_chans == 3 else (0.0,) * config.in_chans
        # no buffer, as in official files; on the CPU also where parameters are only being sized
        self.mean = torch.tensor(mean, device="cpu").view(1, config.in_chans, 1, 1)
        self.conv_first = nn.Conv2d(config.in_chans, dim, 3, 1, 1)
        self._build_entry(dim, patch_norm)
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.ModuleList(groups)
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = body_conv(dim, config.resi_connection)
        add_tail(self, config.upsampler, config.upscale, in_chans=config.in_chans, dim=dim)
        self.apply(init_linear)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SwinSkeleton:
        """Move the mean along: no CUDA graph can hold a copy from the CPU."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        parameter = next(self.parameters())  # of any layer, whatever was put in its place
        if not parameter.is_meta:
            self.mean = self.mean.to(parameter.device)
        return self

    def _build_entry(self, dim: int, patch_norm: bool) -> None:
        """The norm before the groups, under its official name."""
        self.patch_embed = PatchEmbed(dim, patch_norm)

    def _enter(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]: what `_build_entry` made."""
        return cast(Tensor, self.patch_embed(x))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] in 0..1 to [B, C_in, H * s, W * s], not clamped."""
        check_picture(self, x, self.conv_first)
        mean = self.mean.to(device=x.device, dtype=x.dtype)
        x = (x - mean) * self.img_range
        features = self.conv_first(channels_last(x))
        body = self._body(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        after: list[Layer] = [
            OnTokens(self.norm),
            *layers_of(self.conv_after_body),
            Added(features),
        ]

        def finish(y: Tensor) -> Tensor:
            return y / self.img_range + mean

        return run_layers([*after, *tail_layers(self, x), finish], body)

    def _body(self, features: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]: all groups."""
        x = self.pos_drop(self._enter(features))
        for group in self.layers:
            x = group(x)
        return cast(Tensor, x)


@dataclass(frozen=True)
class ResidualConfig(DropRates, SkeletonConfig):
    """The arguments of a net whose groups are `ResidualGroup`s."""


def residual_groups(
    config: ResidualConfig, block: BlockFactory, gather: GatherBlocks | None = None
) -> list[nn.Module]:
    """Groups of blocks, each with its convolution and its input added.

    Args:
        config: of the network.
        block: makes each block.
        gather: puts the blocks of a group together; None puts nothing but them one after the other.
    """

    def plain(group: int, blocks: list[nn.Module]) -> Blocks:
        return Blocks(blocks, config.use_checkpoint)

    return [
        ResidualGroup(
            (gather or plain)(group, [block(group, j, rate) for j, rate in enumerate(rates)]),
            body_conv(config.embed_dim, config.resi_connection),
        )
        for group, rates in enumerate(drop_path_rates(config.drop_path_rate, config.group_depths))
    ]


def read_outer(state: StateDict) -> dict[str, Any]:
    """Arguments of the network around the groups that keys and shapes tell.

    Raises:
        KeyError: a key that the family has is missing.
        ValueError: a tensor has another number of sides.
    """
    embed_dim, in_chans = shape_of(state, "conv_first.weight", FIRST_CONV)[:2]
    upsampler, upscale = read_tail(state, in_chans)
    return {
        "in_chans": in_chans,
        "embed_dim": embed_dim,
        "upscale": upscale,
        "upsampler": upsampler,
        "resi_connection": _read_connection(state),
    }


def read_skeleton(state: StateDict, heads: str) -> dict[str, Any]:
    """Arguments of `ResidualConfig` that keys and shapes tell.

    Args:
        state: keys under official names.
        heads: key of a tensor in the first block of each group, with {} for the group, one of
            whose sides is the number of heads: the last but for a linear layer, then the first.

    Raises:
        KeyError: a key that the family has is missing.
        ValueError: a tensor has another number of sides.
    """
    outer = read_outer(state)
    depths = read_depths(state, r"layers\.(\d+)\.residual_group\.blocks\.(\d+)\.")
    linear = heads.endswith(".weight")
    expected = "[heads, width]" if linear else "[offsets, heads]"
    sides = [shape_of(state, heads.format(group), expected) for group in range(len(depths))]
    return {
        **outer,
        "depths": depths,
        "num_heads": tuple(side[0 if linear else 1] for side in sides),
        "mlp_ratio": read_mlp_ratio(state, BLOCK.format(0, 0) + "mlp.fc1.weight"),
        "patch_norm": "patch_embed.norm.weight" in state,
    }


def read_mlp_ratio(state: StateDict, key: str) -> float:
    """Width of an MLP as a multiple of its input's, from the weight of its first linear layer."""
    hidden, width = shape_of(state, key, "[hidden, channels]")
    return hidden / width


def skeleton_evidence(config: OuterConfig, mlp: str = "mlp") -> tuple[str, ...]:
    """Which keys told the arguments that `read_outer` and `read_skeleton` read.

    Args:
        config: what was read.
        mlp: the official name of a block's MLP.
    """
    return (
        f"conv_first.weight: embed_dim {config.embed_dim}, in_chans {config.in_chans}",
        f"blocks of each group: {list(config.group_depths)}",
        f"{mlp}.fc1.weight: mlp_ratio {config.mlp_ratio:g}",
        f"tail: upsampler {config.upsampler!r}, upscale {config.upscale}",
        f"conv_after_body: resi_connection {config.resi_connection!r}",
    )


def _read_connection(state: StateDict) -> ResiConnection:
    if "conv_after_body.0.weight" in state:
        return "3conv"
    return "1conv" if "conv_after_body.weight" in state else "identity"


def read_depths(state: StateDict, pattern: str) -> tuple[int, ...]:
    """Blocks of each group, from keys that begin with a pattern of two numbers.

    Raises:
        ValueError: a number is too large for one of blocks.
    """
    blocks: dict[int, int] = {}
    for key in state:
        if found := re.match(pattern, key):
            group, block = int(found[1]), int(found[2])
            if block >= MOST_BLOCKS:
                raise ValueError(f"{key}: expected fewer than {MOST_BLOCKS} blocks in a group")
            blocks[group] = max(blocks.get(group, 0), block + 1)
    return tuple(blocks[group] for group in sorted(blocks))


FIRST_CONV = "[embed_dim, in_chans, 3, 3]"  # shape of the first convolution's weight
BLOCK = "layers.{}.residual_group.blocks.{}."  # where a block's parameters lie


def has_skeleton(state: StateDict) -> bool:
    """Whether the outer keys that every net of this family has are there."""
    return {"conv_first.weight", "norm.weight"} <= state.keys()
