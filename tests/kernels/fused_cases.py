"""Cases of the fused linear layers: tensors, the formulas of their docstrings, and the ops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from restore.kernels.dispatch import Backend
from restore.kernels.linear_residual import linear_residual
from restore.kernels.mlp import mlp
from restore.kernels.norm_linear import norm_linear

EPS = 1e-3  # large enough to show
Given = Mapping[str, Any]  # tensors by name, None for what is left out


@dataclass(frozen=True)
class Case:
    shape: tuple[int, ...]  # [..., C]
    wide: int
    norm: bool = True
    norm_bias: bool = True
    bias: bool = True

    def __str__(self) -> str:
        left_out = [name for name in ("norm", "norm_bias", "bias") if not getattr(self, name)]
        return f"{list(self.shape)} to {self.wide}{' without '.join(['', *left_out])}"


def draw(case: Case, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """What all ops take, by name; only what the case has."""
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    c = case.shape[-1]
    given = {"x": values(*case.shape) + 3, "y": values(*case.shape[:-1], case.wide)}
    if case.norm:
        given["norm_weight"] = 1 + 0.1 * values(c)
    if case.norm_bias:
        given["norm_bias"] = values(c)
    given |= {"fc1_weight": values(case.wide, c), "fc2_weight": values(c, case.wide)}
    if case.bias:
        given |= {"fc1_bias": values(case.wide), "fc2_bias": values(c)}
    return given


OPTIONAL = ("norm_weight", "norm_bias", "fc1_bias", "fc2_bias")
OPS = ["norm_linear", "norm_linear gelu", "linear_residual", "mlp", "mlp residual"]
ops = pytest.mark.parametrize("op", OPS)


def taken(op: str, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What an op takes of what a case has."""
    others = {"norm_linear": ("y", "fc2"), "linear_residual": ("norm", "fc1"), "mlp": ("y",)}
    return {name: t for name, t in given.items() if not name.startswith(others[op.split()[0]])}


def with_names(names: list[str], function: Callable[[Given], Tensor]) -> Callable[..., Tensor]:
    """A function of tensors by name as one of the tensors; those without a name are None."""
    left_out = dict.fromkeys(OPTIONAL)
    return lambda *tensors: function({**left_out, **dict(zip(names, tensors, strict=True))})


def normal(t: Given) -> Tensor:
    x = t["x"]
    if t["norm_weight"] is None:
        return x
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    var = ((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1]
    y = (x - mean) / (var + EPS) ** 0.5 * t["norm_weight"]
    return y if t["norm_bias"] is None else y + t["norm_bias"]


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = torch.einsum("...c,dc->...d", x, weight)
    return y if bias is None else y + bias


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def formula(t: Given, op: str) -> Tensor:
    """A variant of an op as its docstring says."""
    if op == "linear_residual":
        return t["x"] + product(t["y"], t["fc2_weight"], t["fc2_bias"])
    first = product(normal(t), t["fc1_weight"], t["fc1_bias"])
    if op.startswith("norm_linear"):
        return gelu(first) if "gelu" in op else first
    second = product(gelu(first), t["fc2_weight"], t["fc2_bias"])
    return t["x"] + second if "residual" in op else second


def ours(t: Given, op: str, backend: Backend = "auto") -> Tensor:
    """The same by the op."""
    if op == "linear_residual":
        return linear_residual(t["y"], t["fc2_weight"], t["fc2_bias"], t["x"], backend=backend)
    norm, fc1 = (t["x"], t["norm_weight"], t["norm_bias"]), (t["fc1_weight"], t["fc1_bias"])
    if op.startswith("norm_linear"):
        return norm_linear(*norm, *fc1, EPS, gelu="gelu" in op, backend=backend)
    fc2 = (t["fc2_weight"], t["fc2_bias"])
    return mlp(*norm, *fc1, *fc2, EPS, residual="residual" in op, backend=backend)
