"""Chains of layers on strips of rows: the large maps of a tail are never whole.

A convolution waits for the rows below those that it is asked for, and keeps the last ones of a
strip for the next: nothing is computed twice. Strips that stay in the processor's cache take less
time than whole maps too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs._blocks import as_tokens
from restore.archs._plain import plain
from restore.kernels.dispatch import is_transformed

# [B, C, H, W] to [B, C', s H, s W]: nn.Conv2d of stride 1 that keeps the size, nn.PixelShuffle, one
# of what is below, or what computes each row from that row alone
Layer = Callable[[Tensor], Tensor]
STRIP_BYTES = 4 * 2**20  # of a strip where it is largest; a few times that is alive
LEAST_ROWS = 4  # of a strip of the input, however wide it is: convolutions are slow on fewer
# modules that compute each row from that row alone
BY_ROW = (nn.PixelShuffle, nn.LeakyReLU, nn.GELU)


@dataclass(frozen=True)
class Kernel:
    """A convolution of stride 1 that keeps the size, with weights that are no module's own."""

    weight: Tensor  # [C', C / groups, rows, columns], both odd
    bias: Tensor | None
    groups: int

    def __call__(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H, W]."""
        rows, columns = (side // 2 for side in self.weight.shape[2:])
        return F.conv2d(x, self.weight, self.bias, padding=(rows, columns), groups=self.groups)


@dataclass(frozen=True)
class OnTokens:
    """A module of maps [B, H, W, C] whose pixels do not see each other, as a norm is."""

    module: nn.Module

    def __call__(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H, W]; nothing is copied for it."""
        return as_tokens(self.module)(x)


class Beside:
    """A function of the rows of a map and of the same rows of another."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], other: Tensor) -> None:
        self.function, self.other = function, other

    def __call__(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H, W]."""
        return self.function(x, self.other)


class Added(Beside):
    """Adds another map."""

    def __init__(self, other: Tensor) -> None:
        super().__init__(torch.add, other)


@dataclass(frozen=True)
class Near:
    """A function of a map, of whose rows each depends on so many on either side.

    Beyond the map lie rows of zeros, as a convolution has them.
    """

    function: Callable[[Tensor], Tensor]
    rows: int

    def __call__(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H, W]."""
        return self.function(x)


def doubled(x: Tensor) -> Tensor:
    """[B, C, H, W] to [B, C, 2H, 2W]: every pixel four times."""
    return F.interpolate(x, scale_factor=2.0)


def run_layers(layers: Sequence[Layer], x: Tensor, widest: int = 0) -> Tensor:
    """[B, C, H, W] to what the layers make of it, one after the other.

    In strips where nothing but the result is wanted: on a CPU, with no gradients and no graph, and
    where every module is of a kind that strips know and has no hooks.

    Args:
        layers: what to run.
        x: the map.
        widest: the most channels that layers other than convolutions give.
    """
    if only_result(x) and all(map(known, layers)):
        scale, row_bytes = _growth(layers, x, widest)
        rows = max(LEAST_ROWS, STRIP_BYTES // max(row_bytes, 1))
        if rows < x.shape[2]:
            return _run_strips(layers, x, rows, scale)
    return run_whole(layers, x)


def only_result(x: Tensor) -> bool:
    """Whether x is on a CPU and nothing is recorded or transformed of what is made of it."""
    recorded = torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed()
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return x.device.type == "cpu" and not (recorded or traced)


def known(layer: Layer) -> bool:
    """Whether strips give what a call of the layer gives: no module that was put in its place.

    Of a convolution also whether its weight and bias alone say what it does.
    """
    if isinstance(layer, OnTokens):
        return plain(nn.LayerNorm, layer.module)
    if not isinstance(layer, nn.Module):
        return True
    return any(plain(kind, layer) for kind in (nn.Conv2d, *BY_ROW))


def run_whole(layers: Iterable[Layer], x: Tensor) -> Tensor:
    """[B, C, H, W] to what the layers make of it, in whole maps."""
    for layer in layers:
        x = layer(x)
    return x


def layers_of(module: nn.Module) -> list[nn.Module]:
    """The layers that a module runs one after the other; itself where it is to be called."""
    if isinstance(module, nn.Sequential) and plain(nn.Sequential, module):
        return list(module)
    return [module]


def _growth(layers: Iterable[Layer], x: Tensor, widest: int) -> tuple[int, int]:
    """Rows that come out for each that goes in, and the most bytes that there are of them."""
    channels, scale = x.shape[1], 1
    most = max(channels, widest)
    for layer in layers:
        if isinstance(layer, (nn.Conv2d, Kernel)):
            channels = layer.weight.shape[0]
        elif isinstance(layer, nn.PixelShuffle):
            scale *= layer.upscale_factor
            channels //= layer.upscale_factor**2
        elif layer is doubled:
            scale *= 2
        most = max(most, channels * scale**2)
    return scale, most * x.shape[0] * x.shape[3] * x.element_size()


def _run_strips(layers: Iterable[Layer], x: Tensor, rows: int, scale: int) -> Tensor:
    b, _, h, w = x.shape
    strips = iter(x.split(rows, dim=2))
    for layer in layers:
        strips = _through(layer, strips)
    first = next(strips)
    out = torch.empty(
        (b, first.shape[1], h * scale, w * scale),
        dtype=first.dtype,
        device=first.device,
        memory_format=torch.channels_last,
    )
    start = first.shape[2]
    out[:, :, :start] = first
    del first
    for strip in strips:
        end = start + strip.shape[2]
        out[:, :, start:end] = strip
        start = end
    return out


def _through(layer: Layer, strips: Iterator[Tensor]) -> Iterator[Tensor]:
    """What a layer makes of strips, which may have other rows each."""
    if isinstance(layer, (nn.Conv2d, Kernel)) and layer.weight.shape[2] > 1:
        return _overlapping(functools.partial(_inside, layer), layer.weight.shape[2] // 2, strips)
    if isinstance(layer, Near) and layer.rows:
        return _overlapping(functools.partial(_middle, layer), layer.rows, strips)
    if isinstance(layer, Beside):
        return _beside(layer, strips)
    return map(layer, strips)


def _overlapping(
    inside: Callable[[Tensor], Tensor], beyond: int, strips: Iterator[Tensor]
) -> Iterator[Tensor]:
    """What `inside` makes of strips with so many rows of those before and behind them."""
    kept: Tensor | None = None  # rows that those to come need
    for strip in strips:
        if kept is None:
            kept = _no_rows(strip, beyond)
        x = torch.cat([kept, strip], dim=2)
        kept = x[:, :, -2 * beyond :].clone(memory_format=torch.channels_last)
        if x.shape[2] > 2 * beyond:
            y = inside(x)
            del x, strip
            yield y
            del y
    if kept is not None:
        yield inside(torch.cat([kept, _no_rows(kept, beyond)], dim=2))


def _inside(conv: nn.Conv2d | Kernel, x: Tensor) -> Tensor:
    """The rows that need none beyond those of x."""
    across = conv.weight.shape[3] // 2
    weight, bias = conv.weight, conv.bias
    return F.conv2d(x, weight, bias, padding=(0, across), groups=conv.groups)


def _middle(layer: Near, x: Tensor) -> Tensor:
    """The same of a function that gives all rows."""
    return layer(x)[:, :, layer.rows : -layer.rows]


def _no_rows(like: Tensor, rows: int) -> Tensor:
    """What lies beyond a picture: zeros."""
    b, c, _, w = like.shape
    return like.new_zeros(b, c, rows, w).contiguous(memory_format=torch.channels_last)


def _beside(layer: Beside, strips: Iterator[Tensor]) -> Iterator[Tensor]:
    start = 0
    for strip in strips:
        end = start + strip.shape[2]
        yield layer.function(strip, layer.other[:, :, start:end])
        start = end
