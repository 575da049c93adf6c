"""How exact a result has to be: derived from what PyTorch itself does, not tuned."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def assert_as_exact_as(torch_does: Tensor, got: Tensor, truth: Tensor) -> None:
    """Hold a result to twice the error of the plain definition in the same precision.

    Args:
        torch_does: the definition, in the precision of `got`.
        got: what is tested.
        truth: the definition in float64.

    The bound is on the largest error of the tensor: twice that of `torch_does`, which is itself one
    draw of the same rounding, and one unit in the last place of the largest true value, which is
    what writing the result down may cost.
    """
    assert got.shape == truth.shape
    assert got.dtype == torch_does.dtype
    assert bool(torch.isfinite(got).all())
    allowed = 2 * largest_error(torch_does, truth) + last_place(truth, got.dtype)
    error = largest_error(got, truth)
    assert error <= allowed, f"off by {error:.3g}; PyTorch's own error allows {allowed:.3g}"


def largest_error(got: Tensor, truth: Tensor) -> float:
    """The largest difference of two tensors, in float64."""
    return (got.detach().double() - truth.detach().double()).abs().max().item()


def last_place(truth: Tensor, dtype: torch.dtype) -> float:
    """The unit in the last place, in `dtype`, of the largest magnitude of a tensor."""
    _, exponent = math.frexp(truth.detach().abs().max().item())
    return math.ldexp(torch.finfo(dtype).eps, exponent - 1)


def gradients(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The output, and the gradients of a fixed weighted sum of it with respect to every input."""
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    y = function(*tensors)
    weights = torch.randn(
        y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), tensors)]


def stacked(function: Callable[..., Tensor], draws: list[list[Tensor]]) -> list[Tensor]:
    """`gradients` of all draws, those of the same tensor side by side."""
    each = [gradients(function, tensors) for tensors in draws]
    return [torch.stack(same) for same in zip(*each, strict=True)]
