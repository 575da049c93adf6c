"""Attention to a dictionary and its refinement against their formulas, a number at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from exactness import gradients
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from restore.kernels.dictionary_attention import dictionary_attention, refine_dictionary

SHAPES = [  # images, tokens, entries, channels compared, channels
    (2, 7, 5, 3, 4),
    (1, 16, 12, 4, 20),
    (3, 1, 2, 1, 1),
    (1, 3, 1, 2, 3),
    (2, 33, 10, 5, 17),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
Shape = tuple[int, int, int, int, int]


def drawn(*sides: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(side, generator=generator, dtype=torch.float64) for side in sides]
    return [tensor.to(dtype) for tensor in made]


def for_attention(shape: Shape, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v and scale, of which some are below 0 and some above 1."""
    b, n, entries, r, c = shape
    return drawn((b, n, r), (b, entries, r), (b, entries, c), (entries,), dtype=dtype)


def for_refinement(shape: Shape, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """dictionary, x, similarity, weight, bias and sigma."""
    b, n, entries, _, c = shape
    sides = [(b, entries, c), (b, n, c), (b, n, entries), (entries,), (entries,), (entries, 1)]
    tensors = drawn(*sides, dtype=dtype)
    tensors[2] = tensors[2].softmax(-1)
    return tensors


def naive_attention(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    """y and A, side by side."""
    images = []
    for b in range(q.shape[0]):
        rows = []
        for query in q[b]:
            logits = [
                (query * key).sum()
                / (query.square().sum().sqrt() * key.square().sum().sqrt())
                * (1 + s.clamp(0, 1) * math.log(len(k[b])))
                for key, s in zip(k[b], scale, strict=True)
            ]
            weights = torch.stack(logits).exp()
            weights = weights / weights.sum()
            rows.append(torch.cat([(weights[:, None] * v[b]).sum(0), weights]))
        images.append(torch.stack(rows))
    return torch.stack(images)


def naive_refinement(
    dictionary: Tensor, x: Tensor, similarity: Tensor, weight: Tensor, bias: Tensor, sigma: Tensor
) -> Tensor:
    images = []
    for b in range(x.shape[0]):
        entries = []
        for m, entry in enumerate(dictionary[b]):
            a = similarity[b, :, m]
            mean = a.sum() / len(a)
            var = (a - mean).square().sum() / len(a)
            t = ((a - mean) / (var + 1e-5).sqrt() * weight[m] + bias[m]).exp()
            found = (t[:, None] * x[b]).sum(0) / t.sum()
            kept = 1 / (1 + (-sigma[m]).exp())
            entries.append(kept * entry + (1 - kept) * found)
        images.append(torch.stack(entries))
    return torch.stack(images)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    """y and A, side by side."""
    return torch.cat(dictionary_attention(q, k, v, scale), dim=-1)


@shapes
def test_the_attention_is_the_formula(shape: Shape) -> None:
    tensors = for_attention(shape)
    for a, b in zip(gradients(attend, tensors), gradients(naive_attention, tensors), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@shapes
def test_the_refinement_is_the_formula(shape: Shape) -> None:
    tensors = for_refinement(shape)
    wanted = gradients(naive_refinement, tensors)
    for a, b in zip(gradients(refine_dictionary, tensors), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@given(n=st.integers(1, 20), entries=st.integers(1, 9), r=st.integers(1, 5), c=st.integers(1, 5))
def test_any_shape(n: int, entries: int, r: int, c: int) -> None:
    shape = (1, n, entries, r, c)
    tensors = for_attention(shape)
    torch.testing.assert_close(attend(*tensors), naive_attention(*tensors), rtol=1e-11, atol=1e-11)
    tensors = for_refinement(shape)
    torch.testing.assert_close(
        refine_dictionary(*tensors), naive_refinement(*tensors), rtol=1e-11, atol=1e-11
    )


def test_gradcheck() -> None:
    shape = (2, 4, 3, 2, 2)
    tensors = [tensor.requires_grad_() for tensor in for_attention(shape)]
    assert torch.autograd.gradcheck(dictionary_attention, tensors)
    tensors = [tensor.requires_grad_() for tensor in for_refinement(shape)]
    assert torch.autograd.gradcheck(refine_dictionary, tensors)


def test_a_vector_of_zeros_is_like_nothing() -> None:
    q, k, v, scale = for_attention(SHAPES[0])
    q[0, 2] = 0
    y, similarity = dictionary_attention(q, k, v, scale)
    assert torch.equal(similarity[0, 2], torch.full((5,), 0.2, dtype=torch.float64))
    torch.testing.assert_close(y[0, 2], v[0].mean(0))


def test_the_sharpness_has_bounds() -> None:
    q, k, v, _ = for_attention(SHAPES[0])

    def similarity(value: float) -> Tensor:
        return dictionary_attention(q, k, v, torch.full((5,), value, dtype=q.dtype))[1]

    assert torch.equal(similarity(-3.0), similarity(0.0))
    assert torch.equal(similarity(7.0), similarity(1.0))
    assert not torch.equal(similarity(1.0), similarity(0.5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_similarity_is_never_of_half_precision(dtype: torch.dtype) -> None:
    q, k, v, scale = for_attention((2, 33, 10, 5, 17), torch.float32)
    wanted_y, wanted = dictionary_attention(q, k, v, scale, backend="reference")
    with torch.autocast("cpu", dtype):
        y, similarity = dictionary_attention(q, k, v, scale, backend="reference")
    assert similarity.dtype == torch.float32
    assert torch.equal(similarity, wanted)
    assert y.dtype == dtype
    # rounded similarities and values
    assert (y.float() - wanted_y).abs().max() <= 2 * torch.finfo(dtype).eps * v.abs().max()
    half = [tensor.to(dtype) for tensor in (q, k, v, scale)]
    y, similarity = dictionary_attention(*half)
    assert y.dtype == dtype
    wanted = dictionary_attention(*[t.float() for t in half], backend="reference")[1]
    assert torch.equal(similarity, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_refinement_is_never_of_half_precision(dtype: torch.dtype) -> None:
    """The shares of 70000 tokens are below what float16 tells from zero."""
    tensors = for_refinement((1, 70_000, 2, 1, 3), torch.float32)
    wanted = refine_dictionary(*tensors, backend="reference")
    with torch.autocast("cpu", dtype):
        assert torch.equal(refine_dictionary(*tensors, backend="reference"), wanted)
    half = [tensor.to(dtype) for tensor in tensors]
    got = refine_dictionary(*half)
    assert got.dtype == dtype
    wanted = refine_dictionary(*[t.float() for t in half], backend="reference")
    assert torch.equal(got, wanted.to(dtype))


def test_nothing_is_changed_and_strides_do_not_matter() -> None:
    shape = SHAPES[4]
    for op, tensors in (
        (attend, for_attention(shape, torch.float32)),
        (refine_dictionary, for_refinement(shape, torch.float32)),
    ):
        strided = [t.mT.contiguous().mT if t.dim() > 2 else t for t in tensors]
        kept = [t.clone() for t in strided]
        torch.testing.assert_close(op(*strided), op(*tensors))
        assert all(torch.equal(a, b) for a, b in zip(strided, kept, strict=True))
    dictionary, *others = for_refinement(shape, torch.float32)
    shared = dictionary[:1].expand(2, -1, -1)
    torch.testing.assert_close(
        refine_dictionary(shared, *others), refine_dictionary(shared.clone(), *others)
    )


@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
def test_a_traced_graph_takes_other_numbers_of_tokens() -> None:
    class Net(nn.Module):
        def forward(self, attention: list[Tensor], refinement: list[Tensor]) -> Tensor:
            y, similarity = dictionary_attention(*attention)
            dictionary, weight, bias, sigma = refinement
            return y.sum() + refine_dictionary(dictionary, y, similarity, weight, bias, sigma)

    def inputs(tokens: int) -> tuple[list[Tensor], list[Tensor]]:
        shape = (1, tokens, 6, 3, 4)
        dictionary, _, _, *others = for_refinement(shape, torch.float32)
        return for_attention(shape, torch.float32), [dictionary, *others]

    shapes = ([{1: torch.export.Dim.DYNAMIC}, None, None, None], [None] * 4)
    traced = torch.export.export(Net(), inputs(23), dynamic_shapes=shapes).module()
    for tokens in (23, 5, 64):
        torch.testing.assert_close(traced(*inputs(tokens)), Net()(*inputs(tokens)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": (2, 4, 7, 3)}, r"q is \(2, 4, 7, 3\); expected \[B, tokens, channels\]"),
        ({"k": (1, 5, 3)}, r"k is \(1, 5, 3\); expected \[B, tokens, channels\] with B=2"),
        ({"v": (5, 4)}, r"v is \(5, 4\); expected"),
        ({"k": (2, 5, 4)}, r"k is \(2, 5, 4\) but q \(2, 7, 3\) has r=3"),
        ({"v": (2, 6, 4)}, r"v is \(2, 6, 4\) and scale \(5,\), but k \(2, 5, 3\) has M=5"),
        ({"scale": (1,)}, r"v is \(2, 5, 4\) and scale \(1,\), but k"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told(change: dict[str, Any], message: str) -> None:
    sides = {"q": (2, 7, 3), "k": (2, 5, 3), "v": (2, 5, 4), "scale": (5,), **change}
    with pytest.raises(ValueError, match=f"dictionary_attention: {message}"):
        dictionary_attention(*[torch.zeros(side) for side in sides.values()])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dictionary": (5, 4)}, r"dictionary is \(5, 4\) and x \(2, 7, 4\); expected"),
        ({"x": (2, 7, 3)}, r"x is \(2, 7, 3\); .* need \(2, 7, 4\)"),
        ({"x": (1, 7, 4)}, r"x is \(1, 7, 4\); .* need \(2, 7, 4\)"),
        ({"similarity": (2, 5, 7)}, r"similarity is \(2, 5, 7\); .* need \(2, 7, 5\)"),
        ({"weight": (7,)}, r"weight is \(7,\); .* need \(5,\)"),
        ({"bias": (1, 5)}, r"bias is \(1, 5\); .* need \(5,\)"),
        ({"sigma": (5,)}, r"sigma is \(5,\); .* need \(5, 1\)"),
    ],
    ids=str,
)
def test_what_does_not_fit_a_dictionary_is_told(change: dict[str, Any], message: str) -> None:
    sides = {
        "dictionary": (2, 5, 4),
        "x": (2, 7, 4),
        "similarity": (2, 7, 5),
        "weight": (5,),
        "bias": (5,),
        "sigma": (5, 1),
        **change,
    }
    with pytest.raises(ValueError, match=f"refine_dictionary: {message}"):
        refine_dictionary(*[torch.zeros(side) for side in sides.values()])
