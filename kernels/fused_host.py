"""What the Triton paths of `norm_linear`, `linear_residual` and `mlp` share beside kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from restore.kernels.tuning import shared_memory

# of these, large tiles still make a program or more for each multiprocessor of a large GPU
MANY_TOKENS = 2**14
FARTHEST = 2**23  # elements from a token to the next: kernels count those of 128 tokens in 32 bits


def is_roomy(x: Tensor) -> bool:
    """Whether programs on the device of x share as much memory as on data centre GPUs since Hopper.

    Kernels have launches for these, and others that run on every GPU.
    """
    return shared_memory(x) >= 200 * 2**10


def tokens(x: Tensor) -> Tensor:
    """[..., C] as [rows, C] whose channels are neighbours; a copy where they were none.

    Or where tokens lie too far apart.
    """
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.stride(-1) == 1 and flat.stride(0) <= FARTHEST else flat.contiguous()


def dense(*given: Tensor | None) -> list[Any]:
    """Parameters as kernels read them: without gaps; what is not given stays None."""
    return [x if x is None else x.contiguous() for x in given]


def size_class(rows: int) -> int:
    """What a launch depends on of the number of tokens: its size within a factor of 2."""
    return rows.bit_length()


def in_dtype(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A tensor that may not be given, in another dtype."""
    return None if x is None else x.to(dtype)


def like(given: Tensor | None, gradient: Tensor) -> Tensor:
    """The gradient in the dtype of what it is of; nothing in a tensor where that is not given.

    It owns its memory, as what an op returns must.
    """
    if given is None:
        return gradient.new_empty(0)
    return gradient.to(given.dtype, copy=True)


def contiguous_like(*given: Tensor | None) -> tuple[Tensor, ...]:
    """Fake gradients of tensors, as `like` and `view` make them."""
    some = next(x for x in given if x is not None)
    return tuple(
        some.new_empty(0)
        if x is None
        else torch.empty_like(x, memory_format=torch.contiguous_format)
        for x in given
    )


def given_alone(gradients: Sequence[Tensor], given: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients of what was given, for autograd, and None for the rest."""
    return [g if x is not None else None for g, x in zip(gradients, given, strict=True)]
