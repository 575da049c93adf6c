"""Cases of the attention branch: tensors, the formula of its docstring, and the op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from test_window_attention import Case as Core
from test_window_attention import naive
from torch import Tensor

from restore.kernels.dispatch import Backend
from restore.kernels.window_attention_branch import BranchWeights, window_attention_branch

EPS = 1e-3  # large enough to show
Given = Mapping[str, Tensor]  # by name, only what the case has


@dataclass(frozen=True)
class Case:
    map: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]
    heads: int
    head_dim: int
    without: tuple[str, ...] = ("vectors",)
    residual: Literal["x", "other", "none"] = "x"
    images: int = 1
    scale: float | None = None

    def __str__(self) -> str:
        (h, w), d = self.map, self.head_dim
        return (
            f"{self.images}x{h}x{w} by {self.window} shift {self.shift} {self.heads}x{d} "
            f"without {' '.join(self.without)}, residual {self.residual}"
        )

    @property
    def channels(self) -> int:
        return self.heads * self.head_dim

    def draw(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
        """Tensors of the sizes that networks have, in the op's order."""
        generator = torch.Generator().manual_seed(seed)

        def values(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        c, (wh, ww) = self.channels, self.window
        image = (self.images, *self.map, c)
        given = {
            "x": values(*image) + 1,
            "residual": values(*image),
            "qkv_weight": values(3 * c, c) / c**0.5,
            "qkv_bias": values(3 * c),
            "bias_table": values((2 * wh - 1) * (2 * ww - 1), self.heads),
            "proj_weight": values(c, c) / c**0.5,
            "proj_bias": values(c),
            "norm_weight": 1 + 0.1 * values(c),
            "norm_bias": values(c),
            "vectors": values(wh * ww, c),
        }
        left_out = {*self.without, *(() if self.residual == "other" else ("residual",))}
        return {name: t.to(dtype) for name, t in given.items() if name not in left_out}

    def weights(self, given: Given) -> BranchWeights:
        return BranchWeights(*(given.get(name) for name in BranchWeights._fields))

    def run(self, backend: Backend = "auto", given: Given | None = None) -> Callable[..., Tensor]:
        """The op of the tensors of `draw`, or of what is given by their names."""
        names = list(self.draw() if given is None else given)

        def call(*tensors: Tensor) -> Tensor:
            t = dict(zip(names, tensors, strict=True))
            return window_attention_branch(
                t["x"],
                self.weights(t),
                self.window,
                self.shift,
                num_heads=self.heads,
                scale=self.scale,
                eps=EPS,
                residual=t["x"] if self.residual == "x" else t.get("residual"),
                backend=backend,
            )

        return call

    def formula(self, *tensors: Tensor) -> Tensor:
        """What the docstring says, window by window."""
        t = dict(zip(self.draw(), tensors, strict=True))
        x, c = t["x"], self.channels
        y = x
        if "norm_weight" in t:
            mean = x.sum(-1, keepdim=True) / c
            var = ((x - mean) ** 2).sum(-1, keepdim=True) / c
            y = (x - mean) / (var + EPS) ** 0.5 * t["norm_weight"] + t.get("norm_bias", 0)
        if "vectors" in t:
            y = y + self._spread(t["vectors"])
        qkv = torch.einsum("bhwc,dc->bhwd", y, t["qkv_weight"]) + t.get("qkv_bias", 0)
        core = Core(self.map, self.window, self.shift, self.heads, self.head_dim)
        y = naive(qkv, t["bias_table"], core, self.scale)
        y = torch.einsum("bhwc,dc->bhwd", y, t["proj_weight"]) + t.get("proj_bias", 0)
        return y + x if self.residual == "x" else y + t.get("residual", 0)

    def _spread(self, vectors: Tensor) -> Tensor:
        """[N, C] to [H, W, C]: for each pixel the vector of its place in its window."""
        (h, w), (wh, ww), (sy, sx) = self.map, self.window, self.shift
        places = [(y - sy) % h % wh * ww + (x - sx) % w % ww for y in range(h) for x in range(w)]
        return vectors[places].view(h, w, -1)


SMALL = Case((4, 8), (4, 4), (2, 0), 2, 5, without=(), images=2)
