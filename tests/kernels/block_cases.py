"""Cases of a whole Swin block: those of its attention branch, with an MLP behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import branch_cases
import fused_cases
import torch
from torch import Tensor

from restore.kernels.dispatch import Backend
from restore.kernels.mlp import MlpLayers
from restore.kernels.window_attention_branch import BranchWeights
from restore.kernels.window_block import window_block

OF_BRANCH = "branch "  # before the names of the branch's tensors


def weights(given: Mapping[str, Tensor]) -> tuple[BranchWeights, MlpLayers]:
    """The op's arguments, of tensors by the names of `Case.draw`."""
    return (
        BranchWeights(*(given.get(OF_BRANCH + name) for name in BranchWeights._fields)),
        MlpLayers(*(given.get(name) for name in MlpLayers._fields)),
    )


@dataclass(frozen=True)
class Case:
    branch: branch_cases.Case
    hidden: int
    norm_bias: bool = True
    bias: bool = True

    def __str__(self) -> str:
        return f"{self.branch} to {self.hidden}"

    def draw(self, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """Tensors of the sizes that networks have; x is the first."""
        branch, c = self.branch.draw(dtype), self.branch.channels
        layers = fused_cases.Case((1, c), self.hidden, norm_bias=self.norm_bias, bias=self.bias)
        mlp = fused_cases.taken("mlp", fused_cases.draw(layers, dtype))
        mlp["fc1_weight"] = mlp["fc1_weight"] / c**0.5
        mlp["fc2_weight"] = mlp["fc2_weight"] / self.hidden**0.5
        del mlp["x"]
        return {"x": branch.pop("x"), **{OF_BRANCH + name: t for name, t in branch.items()}, **mlp}

    def run(self, backend: Backend = "auto", *, spare: bool = False) -> Callable[..., Tensor]:
        """The op of the tensors of `draw`."""
        names = list(self.draw())

        def call(*tensors: Tensor) -> Tensor:
            t = dict(zip(names, tensors, strict=True))
            return window_block(
                t["x"],
                *weights(t),
                self.branch.window,
                self.branch.shift,
                num_heads=self.branch.heads,
                scale=self.branch.scale,
                eps=branch_cases.EPS,
                mlp_eps=fused_cases.EPS,
                spare=spare,
                backend=backend,
            )

        return call

    def formula(self, *tensors: Tensor) -> Tensor:
        """What the docstrings say."""
        t = dict(zip(self.draw(), tensors, strict=True))
        of_branch = [value for name, value in t.items() if name.startswith(OF_BRANCH)]
        y = self.branch.formula(t["x"], *of_branch)
        given = {**dict.fromkeys(fused_cases.OPTIONAL), **t, "x": y}
        hidden = fused_cases.product(fused_cases.normal(given), t["fc1_weight"], given["fc1_bias"])
        return y + fused_cases.product(fused_cases.gelu(hidden), t["fc2_weight"], given["fc2_bias"])


SMALL = Case(branch_cases.SMALL, 7)
