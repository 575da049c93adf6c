"""Attention in sorted groups against loops over images, groups and heads, and its fast path."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from exactness import assert_as_exact_as, gradients, stacked
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from restore.kernels.category_attention import category_attention
from restore.kernels.dispatch import Backend, BackendUnavailable


@dataclass(frozen=True)
class Case:
    tokens: int
    size: int
    categories: int
    heads: int
    head_dim: int

    def __str__(self) -> str:
        shape = f"{self.heads}x{self.head_dim}"
        return f"{self.tokens} by {self.size} of {self.categories} categories, {shape}"


CASES = [
    Case(24, 8, 5, 2, 5),  # whole groups
    Case(21, 8, 5, 3, 4),  # filled up by 3
    Case(17, 8, 3, 2, 7),  # filled up by nearly a group
    Case(11, 16, 4, 2, 5),  # one group
    Case(16, 16, 4, 1, 35),
    Case(9, 2, 1, 2, 3),  # all tokens alike
    Case(5, 1, 3, 2, 3),  # every token alone
    Case(1, 4, 2, 1, 2),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def categories(case: Case, images: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(case.categories, (images, case.tokens), generator=generator)


def inputs(
    case: Case, dtype: torch.dtype = torch.float64, images: int = 2, seed: int = 0
) -> list[Tensor]:
    """qkv and logit_scale."""
    generator = torch.Generator().manual_seed(seed)
    shape = (images, case.tokens, 3 * case.heads * case.head_dim)
    qkv = torch.randn(shape, generator=generator, dtype=torch.float64)
    qkv[:, :, : 2 * case.heads * case.head_dim] *= case.head_dim**-0.25  # logits of about 1
    return [qkv.to(dtype), torch.tensor([[0.3]], dtype=dtype)]


def naive(qkv: Tensor, logit_scale: Tensor, category: Tensor, case: Case) -> Tensor:
    """The docstring's formula and words, a group and a head at a time."""
    heads, d, n = case.heads, case.head_dim, case.tokens
    size = min(n, case.size)
    images = []
    for image, labels in zip(qkv, category.tolist(), strict=True):
        row = [
            token
            for label in range(case.categories)
            for token in range(n)
            if labels[token] == label
        ]
        row += row[::-1][: -n % size]
        found: dict[int, Tensor] = {}
        for start in range(0, len(row), size):
            group = row[start : start + size]
            parts = image[group].view(size, 3, heads, d)
            columns = []
            for head in range(heads):
                q, k, v = parts[:, 0, head], parts[:, 1, head], parts[:, 2, head]
                logits = q @ k.T * logit_scale.flatten()[0].clamp(max=math.log(100)).exp()
                columns.append(logits.softmax(-1) @ v)
            y = torch.cat(columns, dim=-1)
            found.update({group[at]: y[at] for at in range(size) if start + at < n})
        images.append(torch.stack([found[token] for token in range(n)]))
    return torch.stack(images)


def ours(case: Case, category: Tensor, backend: Backend) -> Callable[..., Tensor]:
    return lambda qkv, logit_scale: category_attention(
        qkv,
        category,
        logit_scale,
        category_size=case.size,
        num_heads=case.heads,
        backend=backend,
    )


@cases
def test_the_definition_is_the_formula(case: Case) -> None:
    tensors, category = inputs(case), categories(case)
    wanted = gradients(lambda *args: naive(*args, category, case), tensors)
    got = gradients(ours(case, category, "reference"), tensors)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@cases
def test_the_fused_path_is_as_exact_as_the_definition(case: Case, dtype: torch.dtype) -> None:
    category = categories(case)
    # the gradient of `logit_scale` is one number, whose error in one draw is luck
    draws = [inputs(case, dtype, seed=seed) for seed in range(64)]
    doubled = [[tensor.double() for tensor in tensors] for tensors in draws]
    truth = stacked(ours(case, category, "reference"), doubled)
    plain = stacked(ours(case, category, "reference"), draws)
    got = stacked(ours(case, category, "torch"), draws)
    for torch_does, ours_is, true in zip(plain, got, truth, strict=True):
        assert_as_exact_as(torch_does, ours_is, true)


@given(
    tokens=st.integers(1, 30), size=st.integers(1, 12), kinds=st.integers(1, 9), seed=st.integers(0)
)
def test_any_number_of_tokens(tokens: int, size: int, kinds: int, seed: int) -> None:
    case = Case(tokens, size, kinds, 2, 3)
    tensors = inputs(case, images=1)
    generator = torch.Generator().manual_seed(seed % 2**63)
    category = torch.randint(kinds, (1, tokens), generator=generator)
    wanted = naive(*tensors, category, case)
    torch.testing.assert_close(
        ours(case, category, "auto")(*tensors), wanted, rtol=1e-11, atol=1e-11
    )
    single = ours(case, category, "torch")(*[tensor.float() for tensor in tensors])
    torch.testing.assert_close(single.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_equal_tokens_are_grouped_in_their_order(backend: Backend) -> None:
    """Many tokens, so that a sort that is not stable would show."""
    case = Case(4096, 64, 1, 1, 2)
    qkv, _ = inputs(case, torch.float32, images=1)
    zeros = torch.zeros(1, 4096, dtype=torch.int64)
    y = ours(case, zeros, backend)(qkv, torch.tensor(-math.inf))  # the mean of every group
    wanted = qkv[..., 4:].view(64, 64, 2).mean(1, keepdim=True).expand(-1, 64, -1)
    torch.testing.assert_close(y.view(64, 64, 2), wanted)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_the_factor_ends_at_100(backend: Backend) -> None:
    case = CASES[1]
    qkv, _ = inputs(case, torch.float32)
    run = ours(case, categories(case), backend)
    most = run(qkv, torch.tensor(math.log(100)))
    assert torch.equal(run(qkv, torch.tensor(50.0)), most)
    assert not torch.equal(run(qkv, torch.tensor(4.0)), most)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@cases
def test_nothing_that_is_no_number_is_lost(case: Case, backend: Backend) -> None:
    qkv, _ = inputs(case, torch.float32)
    run = ours(case, categories(case), backend)
    assert run(qkv, torch.tensor(math.nan)).isnan().all()


@pytest.mark.parametrize("backend", ["reference", "torch"])
@cases
def test_strides_change_nothing(case: Case, backend: Backend) -> None:
    qkv, logit_scale = inputs(case, torch.float32)
    strided = qkv.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    before = strided.clone()
    category = categories(case)
    run = ours(case, category.T.contiguous().T, backend)
    wanted = ours(case, category, backend)(qkv, logit_scale)
    assert torch.equal(run(strided, logit_scale), wanted)
    assert torch.equal(strided, before)


def test_gradcheck() -> None:
    case = Case(7, 3, 3, 2, 2)
    tensors = [tensor.requires_grad_() for tensor in inputs(case)]
    assert torch.autograd.gradcheck(ours(case, categories(case), "auto"), tensors)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_scale_may_be_more_exact_than_the_tokens(dtype: torch.dtype, backend: Backend) -> None:
    """As under autocast, where parameters stay float32."""
    case = CASES[1]
    (qkv, logit_scale), category = inputs(case), categories(case)
    truth = ours(case, category, "reference")(qkv, logit_scale)
    with torch.autocast("cpu", dtype):
        y = ours(case, category, backend)(qkv.to(dtype), logit_scale.float())
    assert y.dtype == dtype
    # rounded queries, keys, products and values, eight bits of each
    torch.testing.assert_close(y.double(), truth, rtol=0.05, atol=0.05)


def test_auto_takes_the_definition_for_float64_and_the_fused_path_for_gradients() -> None:
    case, category = CASES[1], categories(CASES[1])
    tensors = inputs(case)
    assert torch.equal(
        ours(case, category, "auto")(*tensors), ours(case, category, "reference")(*tensors)
    )
    tensors = [tensor.requires_grad_() for tensor in inputs(case, torch.float32)]
    assert torch.equal(
        ours(case, category, "auto")(*tensors), ours(case, category, "torch")(*tensors)
    )


def test_a_named_backend_says_why_it_cannot_run() -> None:
    with pytest.raises(
        BackendUnavailable,
        match=r"category_attention: backend='torch' cannot run here: float64 runs the definition",
    ):
        ours(CASES[0], categories(CASES[0]), "torch")(*inputs(CASES[0]))


@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_a_traced_graph_takes_other_numbers_of_tokens(backend: Backend) -> None:
    case = Case(23, 4, 5, 2, 3)

    class Net(nn.Module):
        def forward(self, qkv: Tensor, category: Tensor, logit_scale: Tensor) -> Tensor:
            return ours(case, category, backend)(qkv, logit_scale)

    qkv, logit_scale = inputs(case, torch.float32, images=1)
    length = torch.export.Dim.DYNAMIC
    traced = torch.export.export(
        Net(),
        (qkv, categories(case, 1), logit_scale),
        dynamic_shapes=({1: length}, {1: length}, None),
    ).module()
    for tokens in (23, 24, 9, 101):
        other = Case(tokens, 4, 5, 2, 3)
        qkv, logit_scale = inputs(other, torch.float32, images=1)
        category = categories(other, 1)
        y = ours(other, category, backend)(qkv, logit_scale)
        torch.testing.assert_close(traced(qkv, category, logit_scale), y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qkv": (2, 8, 7)}, r"qkv is \(2, 8, 7\); expected \[B, n, 3C\]"),
        ({"qkv": (2, 2, 4, 12)}, r"qkv is \(2, 2, 4, 12\); expected"),
        ({"heads": 3}, "num_heads=3 does not divide C=4"),
        ({"heads": 0}, "num_heads=0 does not divide C=4"),
        ({"category": torch.zeros(8, dtype=torch.int64)}, r"category is \(8,\) of torch\.int64"),
        (
            {"category": torch.zeros(2, 8)},
            r"category is \(2, 8\) of torch\.float32; expected whole numbers \(2, 8\)",
        ),
        ({"size": 0}, "category_size is 0; expected 1 or more"),
        ({"scale": (2,)}, r"logit_scale is \(2,\); expected one number"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told(change: dict[str, Any], message: str) -> None:
    args: dict[str, Any] = {
        "qkv": (2, 8, 12),
        "category": torch.zeros(2, 8, dtype=torch.int64),
        "scale": (1, 1),
        "size": 4,
        "heads": 2,
        **change,
    }
    with pytest.raises(ValueError, match=f"category_attention: {message}"):
        category_attention(
            torch.zeros(args["qkv"]),
            args["category"],
            torch.zeros(args["scale"]),
            category_size=args["size"],
            num_heads=args["heads"],
        )
