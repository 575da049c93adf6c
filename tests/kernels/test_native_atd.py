"""The native kernels of the adaptive token dictionary, on every instruction set that there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import interpreted
import pytest
import test_category_attention as category
import test_dictionary_attention as dictionary
import test_native
import torch
from exactness import assert_as_exact_as
from torch import Tensor

from restore.kernels import native_atd, native_library
from restore.kernels.category_attention import category_attention
from restore.kernels.dictionary_attention import dictionary_attention, refine_dictionary
from restore.kernels.dispatch import Backend, BackendUnavailable

pytestmark = test_native.pytestmark
isa, two_threads = test_native.isa, test_native.two_threads  # fixtures


@pytest.fixture(autouse=True)
def _uses(isa: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instruction set here too."""
    monkeypatch.setattr(native_atd, "library", lambda: native_library.library(isa))


GROUPS = [
    *category.CASES,
    category.Case(500, 128, 64, 4, 12),  # ATD-light, the last group not whole
    category.Case(600, 256, 128, 6, 35),  # ATD
    category.Case(77, 33, 9, 3, 17),
    category.Case(70, 70, 9, 1, 1),
    category.Case(640, 300, 9, 2, 120),  # heads that are not computed together
]
DICTIONARIES = [
    *dictionary.SHAPES,
    (1, 300, 64, 8, 48),  # ATD-light
    (2, 270, 128, 20, 210),  # ATD
    (1, 1100, 33, 7, 31),
    (3, 65, 1, 1, 1),
    (1, 16500, 5, 3, 6),  # chunks of more than the least number of tokens
]


@pytest.mark.parametrize("case", GROUPS, ids=str)
def test_groups_are_as_exact_as_the_definition(case: category.Case) -> None:
    tensors, labels = category.inputs(case, torch.float32), category.categories(case)
    native, definition = (
        category.ours(case, labels, backend) for backend in ("native", "reference")
    )
    test_native.assert_exact(native, definition, tensors)


@pytest.mark.parametrize("shape", DICTIONARIES, ids=str)
def test_dictionaries_are_as_exact_as_the_definition(shape: dictionary.Shape) -> None:
    tensors = dictionary.for_attention(shape, torch.float32)
    got, plain = (dictionary_attention(*tensors, backend=b) for b in ("native", "reference"))
    truth = dictionary_attention(*[t.double() for t in tensors])
    for ours, torch_does, true in zip(got, plain, truth, strict=True):
        assert_as_exact_as(torch_does, ours, true)


def refined(backend: Backend) -> Callable[..., Tensor]:
    return lambda *tensors: refine_dictionary(*tensors, backend=backend)


@pytest.mark.parametrize("shape", DICTIONARIES, ids=str)
def test_refinements_are_as_exact_as_the_definition(shape: dictionary.Shape) -> None:
    tensors = dictionary.for_refinement(shape, torch.float32)
    test_native.assert_exact(refined("native"), refined("reference"), tensors)


@pytest.mark.parametrize("common", [0.5, 30.0])
def test_similarities_that_hardly_differ(common: float) -> None:
    """The variance is small beside the square of the mean."""
    tensors = dictionary.for_refinement((1, 3000, 20, 1, 8), torch.float32)
    tensors[2] = common + 1e-2 * tensors[2]
    test_native.assert_exact(refined("native"), refined("reference"), tensors)


class Op(NamedTuple):
    run: Callable[..., Tensor]  # from tensors and a backend
    tensors: list[Tensor]


def groups(case: category.Case) -> Op:
    labels = category.categories(case)

    def run(*tensors: Tensor, backend: Backend = "native") -> Tensor:
        return category.ours(case, labels, backend)(*tensors)

    return Op(run, category.inputs(case, torch.float32))


def attend(*tensors: Tensor, backend: Backend = "native") -> Tensor:
    return torch.cat(dictionary_attention(*tensors, backend=backend), dim=-1)


def refine(*tensors: Tensor, backend: Backend = "native") -> Tensor:
    return refine_dictionary(*tensors, backend=backend)


SHAPE = (2, 45, 21, 5, 19)
OPS = {
    "groups": groups(category.Case(45, 20, 6, 2, 9)),
    "dictionary": Op(attend, dictionary.for_attention(SHAPE, torch.float32)),
    "refinement": Op(refine, dictionary.for_refinement(SHAPE, torch.float32)),
}
ops = pytest.mark.parametrize("op", OPS.values(), ids=OPS)


@ops
def test_nothing_is_read_outside_of_the_inputs(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers beside the inputs, and in results before they are written, are NaN."""
    wanted = op.run(*op.tensors)
    framed = []
    for t in op.tensors:
        frame = torch.full((t.numel() + 128,), torch.nan)
        framed.append(frame[64:-64].view(t.shape))
        framed[-1].copy_(t)
    interpreted.fill_with_nan(monkeypatch)
    assert torch.equal(op.run(*framed), wanted)


@ops
def test_strides_change_nothing(op: Op) -> None:
    wanted = op.run(*op.tensors)
    assert torch.equal(op.run(*[test_native.wide(t) for t in op.tensors]), wanted)
    first, *others = op.tensors
    turned = first.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert torch.equal(op.run(turned, *others), wanted)


@pytest.mark.parametrize("op", [OPS["dictionary"], OPS["refinement"]], ids=["attend", "refine"])
def test_images_do_not_mix(op: Op) -> None:
    whole = op.run(*op.tensors)
    for image in range(2):
        alone = [t[image : image + 1] if t.dim() == 3 else t for t in op.tensors]
        assert torch.equal(op.run(*alone), whole[image : image + 1])


@ops
def test_no_images(op: Op) -> None:
    if op is OPS["groups"]:
        empty = category_attention(
            torch.zeros(0, 5, 12),
            torch.zeros(0, 5, dtype=torch.int64),
            torch.zeros(1),
            category_size=2,
            num_heads=2,
            backend="native",
        )
        assert empty.shape == (0, 5, 4)
        return
    none = [t[:0] if t.dim() == 3 else t for t in op.tensors]
    assert op.run(*none).shape == (0, *op.run(*op.tensors).shape[1:])


@ops
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_stay_so(op: Op, value: float) -> None:
    for index, tensor in enumerate(op.tensors):
        spoiled = [t.clone() for t in op.tensors]
        spoiled[index].view(-1)[tensor.numel() // 2] = value
        got, wanted = op.run(*spoiled), op.run(*spoiled, backend="reference")
        # where stock ops round a weight to 0 they make NaN of an infinite value
        assert torch.equal(got.isfinite(), wanted.isfinite()), index


@ops
def test_threads_change_nothing(op: Op, two_threads: None) -> None:
    torch.set_num_threads(1)
    wanted = op.run(*op.tensors)
    torch.set_num_threads(2)
    for _ in range(20):
        assert torch.equal(op.run(*op.tensors), wanted)


def test_sums_over_many_chunks_do_not_depend_on_threads(two_threads: None) -> None:
    tensors = dictionary.for_refinement((2, 5000, 40, 1, 20), torch.float32)
    torch.set_num_threads(1)
    wanted = refine(*tensors)
    torch.set_num_threads(2)
    for _ in range(20):
        assert torch.equal(refine(*tensors), wanted)


@ops
def test_auto_takes_it_for_inference_alone(op: Op) -> None:
    assert torch.equal(op.run(*op.tensors, backend="auto"), op.run(*op.tensors))
    first, *others = op.tensors
    needed = first.clone().requires_grad_()
    assert op.run(needed, *others, backend="auto").requires_grad
    with pytest.raises(BackendUnavailable, match="needs a gradient; it has no backward"):
        op.run(needed, *others)


@test_native.float32_only
def test_a_large_scale_has_its_bound() -> None:
    case = category.Case(24, 8, 5, 2, 5)
    (qkv, _), labels = category.inputs(case, torch.float32), category.categories(case)
    run = category.ours(case, labels, "native")
    assert torch.equal(run(qkv, torch.tensor([9.0])), run(qkv, torch.tensor([5.0])))
    none, definition = torch.tensor([-torch.inf]), category.ours(case, labels, "reference")
    torch.testing.assert_close(run(qkv, none), definition(qkv, none))


@test_native.bfloat16_only
@ops
def test_maps_of_bfloat16(op: Op) -> None:
    """Their numbers are computed with as if they were of float32."""
    first, *others = [t.bfloat16() if t.dim() == 3 else t for t in op.tensors]
    wanted = op.run(first.float(), *[t.float() for t in others])
    got = op.run(first, *others)
    assert torch.equal(got, wanted.to(got.dtype))
    assert got.dtype == op.run(first, *others, backend="reference").dtype
