"""What blocks add to their maps, and the layers in it: fused where plain, else called.

Shape letters: B images, H rows, W columns, C channels of the body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from restore.archs._plain import plain
from restore.kernels.linear_residual import linear_residual
from restore.kernels.mlp import MlpLayers, mlp
from restore.kernels.native_library import native_refuses
from restore.kernels.native_weights import kept
from restore.kernels.norm_linear import norm_linear

# what a map goes through before a branch; a plain `nn.LayerNorm` may be read instead of called
Norm = Callable[[Tensor], Tensor]


def hidden_features(dim: int, mlp_ratio: float) -> int:
    """Width of an MLP; the small term undoes the rounding of a ratio read back from shapes."""
    return int(dim * mlp_ratio + 1e-6)


class DropPath(nn.Module):
    """In training, drop a residual branch for whole images with a probability, and rescale.

    Source: Huang et al., "Deep Networks with Stochastic Depth", arXiv:1603.09382.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] to [B, ...]."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * (mask / keep)  # one pass over x


def drops(module: nn.Module | None) -> bool:
    """Whether a dropout or `DropPath` has to be called: it changes what goes through it now, or it
    is not plain."""
    if module is None:
        return False
    if isinstance(module, DropPath):
        return not plain(DropPath, module) or (module.training and module.rate != 0.0)
    return not plain(nn.Dropout, module) or (module.training and cast(float, module.p) != 0.0)


class Branch(nn.Module):
    """What a block adds to its map: [B, H, W, C] to the same."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        return self.run(x)

    def run(self, x: Tensor, norm: Norm | None = None, residual: Tensor | None = None) -> Tensor:
        """residual + self(norm(x)), of which norm and residual may be left out.

        Layers in it that are not plain are called; `self` is not, as a hook would notice.
        """
        raise NotImplementedError


def add_branch(
    x: Tensor,
    norm: Norm,
    branch: nn.Module,
    drop_path: nn.Module | None = None,
    normal: Tensor | None = None,
) -> Tensor:
    """x + drop_path(branch(norm(x))).

    Args:
        x: [B, H, W, C].
        norm: mostly an `nn.LayerNorm`.
        branch: a `Branch`, or what somebody put in its place.
        drop_path: None: nothing is dropped.
        normal: norm(x), where that is at hand.
    """
    if not plain(Branch, branch):
        y: Tensor = branch(norm(x) if normal is None else normal)
        return x + (y if drop_path is None else drop_path(y))
    source, before = (x, norm) if normal is None else (normal, None)
    run = cast(Branch, branch).run
    if drop_path is None or not drops(drop_path):
        return run(source, before, x)
    return x + cast(Tensor, drop_path(run(source, before)))


class Mlp(Branch):
    """Two linear layers with an exact (erf) GELU between: [..., C] to [..., C]."""

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def run(self, x: Tensor, norm: Norm | None = None, residual: Tensor | None = None) -> Tensor:
        """[..., C] to [..., C]; see `Branch`."""
        layers = self.layers(norm) if residual is None or residual is x else None
        if layers is None:
            return self.narrow(project(x, norm, self.fc1, self.act), residual)
        return mlp(x, *layers, norm_weights(norm)[2], residual=residual is not None)

    def layers(self, norm: Norm | None) -> MlpLayers | None:
        """Its tensors and those of the norm before it, as ops take them; None if any of these
        layers has to be called."""
        fc1, fc2 = self.fc1, self.fc2
        same = plain(nn.Linear, fc1, fc2) and plain(nn.LayerNorm, norm) and plain(nn.GELU, self.act)
        if not same or drops(self.drop):
            return None
        weight, bias, _ = norm_weights(norm)
        return MlpLayers(weight, bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias)

    def narrow(self, hidden: Tensor, residual: Tensor | None) -> Tensor:
        """[..., hidden] to [..., C], plus the residual where it is given."""
        if drops(self.drop):
            hidden = self.drop(hidden)
        return project_onto(residual, self.fc2, hidden, self.drop)


def norm_weights(norm: Norm | None) -> tuple[Tensor | None, Tensor | None, float]:
    """Weight, bias and eps of a plain norm that may be left out, as ops take them."""
    if norm is None:
        return None, None, 0.0
    layer = cast(nn.LayerNorm, norm)
    return layer.weight, layer.bias, layer.eps


def project(
    x: Tensor, norm: Norm | None, linear: nn.Module, act: nn.Module | None = None
) -> Tensor:
    """act(linear(norm(x))), of which norm and act, mostly a GELU, may be left out."""
    if plain(nn.Linear, linear) and plain(nn.LayerNorm, norm) and plain(nn.GELU, act):
        weight, bias = cast(Tensor, linear.weight), cast("Tensor | None", linear.bias)
        norm_weight, norm_bias, eps = norm_weights(norm)
        return norm_linear(x, norm_weight, norm_bias, weight, bias, eps, gelu=act is not None)
    y: Tensor = linear(x if norm is None else norm(x))
    return y if act is None else cast(Tensor, act(y))


def project_onto(
    x: Tensor | None,
    linear: nn.Module,
    y: Tensor,
    drop: nn.Module | None = None,
    drop_path: nn.Module | None = None,
) -> Tensor:
    """x + drop_path(drop(linear(y))), of which x and the drops may be left out."""
    dropping = [module for module in (drop, drop_path) if module is not None and drops(module)]
    if x is not None and not dropping and plain(nn.Linear, linear):
        weight, bias = cast(Tensor, linear.weight), cast("Tensor | None", linear.bias)
        return linear_residual(y, weight, bias, x)
    for module in (linear, *dropping):
        y = module(y)
    return y if x is None else x + y


def joined(first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of one layer that gives what both give, side by side.

    Joined weights instead of joined results, which are as large as maps. Where native kernels take
    them they are kept: those know packed weights again by the tensors that they were made from.
    """
    weights = (first.weight, second.weight, first.bias, second.bias)
    if native_refuses(*weights) is None:
        return kept(("joined",), weights, _cat_apart, weights)
    return _cat(weights)


def _cat_apart(weights: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Such that calls that record gradients may take what one in inference mode has made."""
    with torch.inference_mode(False), torch.no_grad():
        return _cat(weights)


def _cat(weights: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Two weights, then two biases or None."""
    (w, more), biases = cast(Sequence[Tensor], weights[:2]), weights[2:]
    given = [bias for bias in biases if bias is not None]
    return torch.cat([w, more]), torch.cat(given) if given else None
