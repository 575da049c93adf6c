"""MLPs with a depthwise convolution: that of SRFormer, HiT-SRF and ATD, and that of Uformer.

Shape letters: B images, H rows, W columns, C channels of the body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from restore.archs._blocks import FeedForward, Mlp, as_tokens, project, project_onto
from restore.archs._strips import Beside, Layer, Near, run_layers
from restore.kernels.depthwise_gelu import depthwise_gelu


class ConvMlp(Mlp):
    """An MLP with a depthwise convolution, itself residual, on its hidden map.

    h = gelu(fc1(x));  y = fc2(h + gelu(dwconv(h)))
    """

    def __init__(self, dim: int, hidden: int, drop: float = 0.0, kernel_size: int = 5) -> None:
        super().__init__(dim, hidden, drop)
        self.dwconv = nn.Module()
        self.dwconv.depthwise_conv = nn.Sequential(
            nn.Conv2d(hidden, hidden, kernel_size, 1, kernel_size // 2, groups=hidden), nn.GELU()
        )

    def forward(
        self, x: Tensor, norm: nn.LayerNorm | None = None, residual: bool = False
    ) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; see `FeedForward`."""

        def widen(x: Tensor) -> Tensor:
            return project(x, norm, self.fc1, gelu=True)

        def narrow(hidden: Tensor, x: Tensor) -> Tensor:
            return self._narrow(hidden, x if residual else None)

        conv = cast(nn.Conv2d, cast(nn.Sequential, self.dwconv.depthwise_conv)[0])
        return _between(x, widen, _activated(conv, True), narrow, self.fc1.out_features)


class LeFF(FeedForward):
    """Uformer's locally-enhanced feed-forward network: [B, H, W, C] to [B, H, W, C].

    An MLP with a depthwise 3x3 convolution and another GELU between its layers.

    Source: Wang et al., "Uformer", arXiv:2106.03106, section 3.2.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Sequential(nn.Linear(dim, hidden), nn.GELU())
        self.dwconv = nn.Sequential(nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden), nn.GELU())
        self.linear2 = nn.Sequential(nn.Linear(hidden, dim))

    def forward(
        self, x: Tensor, norm: nn.LayerNorm | None = None, residual: bool = False
    ) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; see `FeedForward`."""
        first, last = cast(nn.Linear, self.linear1[0]), cast(nn.Linear, self.linear2[0])

        def widen(x: Tensor) -> Tensor:
            return project(x, norm, first, gelu=True)

        def narrow(hidden: Tensor, x: Tensor) -> Tensor:
            return project_onto(x if residual else None, last, hidden)

        conv = _activated(cast(nn.Conv2d, self.dwconv[0]), False)
        return _between(x, widen, conv, narrow, first.out_features)


def _activated(conv: nn.Conv2d, residual: bool) -> Near:
    """A depthwise convolution and its GELU, on maps [B, C, H, W]."""

    def run(x: Tensor) -> Tensor:
        return depthwise_gelu(x, conv.weight, conv.bias, residual=residual)

    return Near(as_tokens(run), conv.weight.shape[2] // 2)


def _between(
    x: Tensor,
    widen: Callable[[Tensor], Tensor],
    convolved: Layer,
    narrow: Callable[[Tensor, Tensor], Tensor],
    hidden: int,
) -> Tensor:
    """[B, H, W, C] to narrow(convolved(widen(x)), x), with so many hidden channels.

    All on [B, H, W, C] but `convolved`. The hidden map, larger than x, is nowhere whole if that can
    be: see `run_layers`.
    """
    pixels = x.permute(0, 3, 1, 2)
    chain: list[Layer] = [as_tokens(widen), convolved, Beside(as_tokens(narrow), pixels)]
    return run_layers(chain, pixels, hidden).permute(0, 2, 3, 1)
