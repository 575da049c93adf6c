"""Ops under forward-mode differentiation, as `torch.func.jvp` takes it: all by their definition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from restore.kernels.category_attention import category_attention
from restore.kernels.overlapping_attention import overlapping_attention
from restore.kernels.permuted_attention import permuted_attention
from restore.kernels.window_attention import window_attention

CATEGORY = torch.arange(16).remainder(3)[None]
SAMPLES: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "window": (
        lambda qkv, table: window_attention(qkv, table, (4, 4), (2, 2), num_heads=2),
        ((1, 8, 8, 24), (49, 2)),
    ),
    "overlapping": (
        lambda qkv, table: overlapping_attention(qkv, table, (4, 4), (1, 1), num_heads=2),
        ((1, 8, 8, 24), (81, 2)),
    ),
    "permuted": (
        lambda q, kv, table: permuted_attention(q, kv, table, (4, 4), (2, 2), num_heads=2),
        ((1, 8, 8, 8), (1, 8, 8, 4), (9, 2)),
    ),
    "category": (
        lambda qkv, scale: category_attention(qkv, CATEGORY, scale, category_size=8, num_heads=2),
        ((1, 16, 24), (1, 1)),
    ),
}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of torch.func's own
@pytest.mark.parametrize("name", SAMPLES)
def test_the_derivative_is_that_of_the_definition(name: str) -> None:
    op, shapes = SAMPLES[name]
    generator = torch.Generator().manual_seed(0)
    tensors, tangents = (
        tuple(torch.randn(shape, generator=generator) for shape in shapes) for _ in range(2)
    )
    exact = torch.func.jvp(op, *(tuple(t.double() for t in ts) for ts in (tensors, tangents)))
    found = torch.func.jvp(op, tensors, tangents)
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)
