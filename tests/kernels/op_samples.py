"""Small calls of every op with a Triton path, forward and backward, and the operators they are.

Operators are caught as PyTorch sees them, so that none needs to be listed with its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import branch_cases
import fused_cases
import torch
from interpreted import DEVICE
from position_calls import position_shapes
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from restore.kernels.category_attention import category_attention
from restore.kernels.channel_correlation import channel_correlation
from restore.kernels.dictionary_attention import dictionary_attention, refine_dictionary
from restore.kernels.overlapping_attention import overlapping_attention
from restore.kernels.permuted_attention import permuted_attention
from restore.kernels.position_table import position_table
from restore.kernels.self_correlation import self_correlation
from restore.kernels.spatial_correlation import spatial_correlation
from restore.kernels.window_attention import window_attention

Call = Callable[..., Tensor | tuple[Tensor, ...]]
HEADS = 2
TRITON: Any = {"backend": "triton"}


@dataclass(frozen=True)
class Sample:
    """A call, and what it takes and differentiates by."""

    call: Call
    tensors: Sequence[Tensor]


def drawn(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def windows(shift: tuple[int, int], chosen: list[int] | None = None) -> Sample:
    def call(qkv: Tensor, table: Tensor) -> Tensor:
        some = None if chosen is None else torch.tensor(chosen, device=qkv.device)
        return window_attention(qkv, table, (4, 4), shift, num_heads=HEADS, windows=some, **TRITON)

    return Sample(call, drawn((2, 4, 8, 30), (49, HEADS)))


def stripes() -> Sample:
    """Half of the channels of a map, in windows of more keys than one tile."""

    def call(qkv: Tensor, table: Tensor) -> Tensor:
        half = qkv.chunk(2, dim=-1)[1]
        return window_attention(half, table, (33, 2), (0, 1), num_heads=1, **TRITON)

    return Sample(call, drawn((1, 33, 4, 3, 10), (65 * 3, 1)))


def overlapping(qkv: Tensor, table: Tensor) -> Tensor:
    return overlapping_attention(qkv, table, (4, 4), (1, 1), num_heads=HEADS, **TRITON)


def permuted(q: Tensor, kv: Tensor, table: Tensor) -> Tensor:
    return permuted_attention(q, kv, table, (4, 4), (2, 2), num_heads=HEADS, **TRITON)


def categories(qkv: Tensor, log_scale: Tensor) -> Tensor:
    category = torch.arange(qkv.shape[1], device=qkv.device).expand(qkv.shape[:2]) % 3
    return category_attention(qkv, category, log_scale, category_size=8, num_heads=HEADS, **TRITON)


def correlation(side: int, block: int) -> Sample:
    def call(*tensors: Tensor) -> Tensor:
        window, reduction = (side, side), (block, block)
        return self_correlation(*tensors, window, num_heads=HEADS, reduction=reduction, **TRITON)

    n = side * side
    return Sample(
        call, drawn((1, side, 2 * side, 20), (1, block**2), (1,), (HEADS, n, n // block**2))
    )


def spatial(*tensors: Tensor) -> Tensor:
    return spatial_correlation(*tensors, (4, 4), reduction=(2, 2), num_heads=HEADS, **TRITON)


def channel(qv: Tensor) -> Tensor:
    return channel_correlation(qv, (4, 4), **TRITON)


def dictionary(*tensors: Tensor) -> tuple[Tensor, ...]:
    return dictionary_attention(*tensors, **TRITON)


def refined(*tensors: Tensor) -> Tensor:
    return refine_dictionary(*tensors, **TRITON)


def position(width: int, heads: int) -> Sample:
    def call(*parameters: Tensor) -> Tensor:
        return position_table(parameters, (3, 2), **TRITON)

    return Sample(call, drawn(*position_shapes(width, heads)))


def fused(op: str) -> Sample:
    case = fused_cases.Case((1, 3, 5, 20), 24)
    given = fused_cases.taken(op, fused_cases.draw(case, torch.float32))
    call = fused_cases.with_names(list(given), lambda t: fused_cases.ours(t, op, "triton"))
    return Sample(call, list(given.values()))


def branch(dtype: torch.dtype, **how: Any) -> Sample:
    case = branch_cases.Case((4, 8), (4, 4), (2, 0), 2, 5, **how)
    given = case.draw(dtype)
    return Sample(case.run("triton", given), list(given.values()))


SAMPLES: dict[str, Callable[[], Sample]] = {
    "windows": lambda: windows((0, 0)),
    "shifted windows": lambda: windows((2, 1)),
    "chosen windows": lambda: windows((2, 1), [3, 0]),
    "stripes": stripes,
    "overlapping": lambda: Sample(overlapping, drawn((1, 4, 8, 30), (81, HEADS))),
    "permuted": lambda: Sample(permuted, drawn((1, 4, 8, 8), (1, 4, 8, 4), (9, HEADS))),
    "categories": lambda: Sample(categories, drawn((1, 20, 30), (1, 1))),
    "correlation": lambda: correlation(4, 1),
    "reduced correlation": lambda: correlation(16, 2),
    "spatial": lambda: Sample(spatial, drawn((1, 4, 8, 20), (1, 4), (1,), (HEADS, 16, 4))),
    "channel": lambda: Sample(channel, drawn((1, 4, 8, 20))),
    "position table": lambda: position(5, HEADS),
    "dictionary": lambda: Sample(dictionary, drawn((1, 20, 6), (1, 16, 6), (1, 16, 10), (16,))),
    "refinement": lambda: Sample(
        refined, drawn((1, 16, 10), (1, 20, 10), (1, 20, 16), (16,), (16,), (16, 1))
    ),
    **{op: lambda op=op: fused(op) for op in fused_cases.OPS},  # type: ignore[misc]
    "branch": lambda: branch(torch.float32),
    "branch in half": lambda: branch(torch.float16),
    "branch of another": lambda: branch(torch.float16, residual="other", without=()),
    "bare branch": lambda: branch(
        torch.float32,
        residual="none",
        without=("norm_weight", "norm_bias", "vectors"),
    ),
}


@dataclass(frozen=True)
class Operator:
    """A call of an operator of ours."""

    op: Any
    arguments: tuple[Any, ...]


class _Catch(TorchDispatchMode):
    """Notes all calls of operators of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.caught: list[Operator] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "restore":
            self.caught.append(Operator(func, args))
        return func(*args, **(kwargs or {}))


def operators(name: str) -> list[Operator]:
    """What a sample calls for its result without gradients, with them, and for these."""
    sample = SAMPLES[name]()
    tensors = [x.to(DEVICE) for x in sample.tensors]
    catch = _Catch()
    with catch, torch.no_grad():
        sample.call(*tensors)
    tensors = [x.requires_grad_() for x in tensors]
    with catch:
        made = sample.call(*tensors)
        results = made if isinstance(made, tuple) else (made,)
        torch.autograd.backward(results, [torch.ones_like(y) for y in results])
    return [Operator(found.op, tree_map(_alone, found.arguments)) for found in catch.caught]


def _alone(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x
