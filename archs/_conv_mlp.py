"""MLPs with a depthwise convolution: that of SRFormer, HiT-SRF and ATD, and that of Uformer.

Shape letters: B images, H rows, W columns, C channels of the body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from restore.archs._blocks import as_tokens, on_map
from restore.archs._branches import Branch, Mlp, Norm, norm_weights, project, project_onto
from restore.archs._plain import plain, plain_sequence
from restore.archs._strips import Beside, Layer, Near, run_layers
from restore.kernels.conv_mlp import ConvMlpLayers, conv_mlp_at_once
from restore.kernels.depthwise_gelu import depthwise_gelu
from restore.kernels.mlp import MlpLayers


class Depthwise(nn.Module):
    """A convolution of each channel and a GELU: [B, H, W, C] to the same."""

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Sequential(
            nn.Conv2d(dim, dim, kernel_size, 1, kernel_size // 2, groups=dim), nn.GELU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        return on_map(self.depthwise_conv, x)


class ConvMlp(Mlp):
    """An MLP with a depthwise convolution, itself residual, on its hidden map.

    h = gelu(fc1(x));  y = fc2(h + gelu(dwconv(h)))
    """

    def __init__(self, dim: int, hidden: int, drop: float = 0.0, kernel_size: int = 5) -> None:
        super().__init__(dim, hidden, drop)
        self.dwconv = Depthwise(hidden, kernel_size)

    def run(self, x: Tensor, norm: Norm | None = None, residual: Tensor | None = None) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; see `Branch`."""

        def widen(x: Tensor) -> Tensor:
            return project(x, norm, self.fc1, self.act)

        own = plain(nn.Linear, self.fc1, self.fc2) and plain(nn.GELU, self.act)
        own = own and plain(nn.LayerNorm, norm) and plain(nn.Dropout, self.drop)
        if own and plain(Depthwise, self.dwconv) and _is_depthwise(self.dwconv.depthwise_conv):
            conv = cast(nn.Conv2d, self.dwconv.depthwise_conv[0])
            layers = self.layers(norm)
            if layers is not None:
                y = _at_once(x, layers, conv, norm, residual, added=True)
                if y is not None:
                    return y
            convolved = _activated(conv, True)
            return _between(x, widen, convolved, self.narrow, residual, self.fc1.out_features)
        hidden = widen(x)
        return self.narrow(hidden + self.dwconv(hidden), residual)


class LeFF(Branch):
    """Uformer's locally-enhanced feed-forward network: [B, H, W, C] to [B, H, W, C].

    An MLP with a depthwise 3x3 convolution and another GELU between its layers.

    Source: Wang et al., "Uformer", arXiv:2106.03106, section 3.2.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Sequential(nn.Linear(dim, hidden), nn.GELU())
        self.dwconv = nn.Sequential(nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden), nn.GELU())
        self.linear2 = nn.Sequential(nn.Linear(hidden, dim))

    def run(self, x: Tensor, norm: Norm | None = None, residual: Tensor | None = None) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; see `Branch`."""
        linears = plain_sequence(self.linear1, nn.Linear, nn.GELU)
        linears = linears and plain_sequence(self.linear2, nn.Linear)
        if not (linears and plain(nn.LayerNorm, norm) and _is_depthwise(self.dwconv)):
            hidden = on_map(self.dwconv, self.linear1(x if norm is None else norm(x)))
            y: Tensor = self.linear2(hidden)
            return y if residual is None else residual + y
        (first, act), last = self.linear1, cast(nn.Linear, self.linear2[0])
        first = cast(nn.Linear, first)
        weight, bias, _ = norm_weights(norm)
        layers = MlpLayers(weight, bias, first.weight, first.bias, last.weight, last.bias)
        conv = cast(nn.Conv2d, self.dwconv[0])
        at_once = _at_once(x, layers, conv, norm, residual, added=False)
        if at_once is not None:
            return at_once

        def widen(x: Tensor) -> Tensor:
            return project(x, norm, first, act)

        def narrow(hidden: Tensor, residual: Tensor | None) -> Tensor:
            return project_onto(residual, last, hidden)

        convolved = _activated(conv, False)
        return _between(x, widen, convolved, narrow, residual, first.out_features)


def _is_depthwise(sequence: nn.Sequential) -> bool:
    """Whether it is a plain convolution of each channel and a plain GELU."""
    if not plain_sequence(sequence, nn.Conv2d, nn.GELU):
        return False
    conv = cast(nn.Conv2d, sequence[0])
    return conv.groups == conv.in_channels == conv.out_channels


def _at_once(
    x: Tensor,
    layers: MlpLayers,
    conv: nn.Conv2d,
    norm: Norm | None,
    residual: Tensor | None,
    *,
    added: bool,
) -> Tensor | None:
    """All of it in one call, where there is a kernel for that; else None."""
    between = ConvMlpLayers(layers, conv.weight, conv.bias)
    eps = norm_weights(norm)[2]
    return conv_mlp_at_once(x, between, eps, added=added, residual=residual)


def _activated(conv: nn.Conv2d, residual: bool) -> Near:
    """A depthwise convolution and its GELU, on maps [B, C, H, W]."""

    def run(x: Tensor) -> Tensor:
        return depthwise_gelu(x, conv.weight, conv.bias, residual=residual)

    return Near(as_tokens(run), conv.weight.shape[2] // 2)


def _between(
    x: Tensor,
    widen: Callable[[Tensor], Tensor],
    convolved: Layer,
    narrow: Callable[[Tensor, Tensor | None], Tensor],
    residual: Tensor | None,
    hidden: int,
) -> Tensor:
    """[B, H, W, C] to narrow(convolved(widen(x)), residual), with so many hidden channels.

    All on [B, H, W, C] but `convolved`. The hidden map, larger than x, is nowhere whole if that can
    be: see `run_layers`.
    """
    chain: list[Layer] = [as_tokens(widen), convolved]
    if residual is None:
        chain.append(as_tokens(lambda hidden: narrow(hidden, None)))
    else:
        chain.append(Beside(as_tokens(narrow), residual.permute(0, 3, 1, 2)))
    return run_layers(chain, x.permute(0, 3, 1, 2), hidden).permute(0, 2, 3, 1)
