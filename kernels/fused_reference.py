"""Linear layers with what stands around them in a transformer block, in plain PyTorch.

These are the definitions. They are made of stock fused ops, so they are also the path named
"torch".
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class NormedLinear(NamedTuple):
    """A linear layer and the norm before it. C channels before it, D after it."""

    norm_weight: Tensor | None  # [C]; without it there is no norm
    norm_bias: Tensor | None  # [C]
    weight: Tensor  # [D, C]
    bias: Tensor | None  # [D]


class MlpLayers(NamedTuple):
    """Two linear layers and the norm before them. C channels before and after, D between."""

    norm_weight: Tensor | None  # [C]; without it there is no norm
    norm_bias: Tensor | None  # [C]
    fc1_weight: Tensor  # [D, C]
    fc1_bias: Tensor | None  # [D]
    fc2_weight: Tensor  # [C, D]
    fc2_bias: Tensor | None  # [C]

    @property
    def first(self) -> NormedLinear:
        """All but the second linear layer."""
        return NormedLinear(*self[:4])


class ConvMlpLayers(NamedTuple):
    """Two linear layers, the norm before them and a convolution of each channel between them."""

    linear: MlpLayers
    weight: Tensor  # [D, 1, kh, kw], both sides odd
    bias: Tensor | None  # [D]


def norm_linear(x: Tensor, layer: NormedLinear, eps: float, gelu: bool) -> Tensor:
    """A linear layer behind a norm; see `norm_linear.norm_linear`."""
    y = normalised(x, layer.norm_weight, layer.norm_bias, eps)
    y = F.linear(y, layer.weight, layer.bias)
    return F.gelu(y) if gelu else y


def linear_residual(y: Tensor, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """A linear layer and what it is added to; see `linear_residual.linear_residual`."""
    return x + F.linear(y, weight, bias)


def mlp(x: Tensor, layers: MlpLayers, eps: float, residual: bool) -> Tensor:
    """Two linear layers with a GELU between; see `mlp.mlp`."""
    hidden = norm_linear(x, layers.first, eps, gelu=True)
    y = F.linear(hidden, layers.fc2_weight, layers.fc2_bias)
    return x + y if residual else y


def normalised(
    x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, eps: float
) -> Tensor:
    """[..., C] normalised over its channels, or x itself where there is no weight of the norm."""
    if norm_weight is None:
        return x
    return F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
