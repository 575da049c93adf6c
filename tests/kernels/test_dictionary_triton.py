"""The Triton path of ATD's dictionary ops against their definitions in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import interpreted
import pytest
import torch
from compiled import compiled
from exactness import assert_as_exact_as, gradients
from test_dictionary_attention import Shape, for_attention, for_refinement
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from restore.kernels import dispatch
from restore.kernels.dictionary_attention import dictionary_attention, refine_dictionary
from restore.kernels.dispatch import Backend, BackendUnavailable

pytestmark = interpreted.MARKS

# images, tokens, entries, channels compared, channels
OFFICIAL: list[Shape] = [(1, 40, 128, 20, 210), (2, 70, 64, 8, 48)]
ODD: list[Shape] = [(2, 7, 5, 3, 4), (1, 3, 1, 2, 3), (3, 1, 2, 1, 1), (2, 33, 10, 5, 17)]
ALL = [*OFFICIAL, *ODD, (1, 130, 100, 33, 96)]
SMALL: Shape = (2, 33, 10, 5, 17)
HALF = [dtype for dtype in interpreted.DTYPES if dtype != torch.float32]


def attend(backend: Backend) -> Callable[..., Tensor]:
    """y and A, side by side, in float32 or wider."""

    def run(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> Tensor:
        y, similarity = dictionary_attention(q, k, v, scale, backend=backend)
        return torch.cat([y.to(similarity.dtype), similarity], dim=-1)

    return run


def refine(backend: Backend) -> Callable[..., Tensor]:
    return lambda *tensors: refine_dictionary(*tensors, backend=backend)


def placed(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.to(interpreted.DEVICE) for tensor in tensors]


def assert_exact(
    op: Callable[[Backend], Callable[..., Tensor]], draws: Sequence[Sequence[Tensor]]
) -> None:
    """Output and gradients of all draws side by side: the error of few numbers is luck."""

    def stacked(backend: Backend, wide: bool) -> list[Tensor]:
        each = [
            gradients(op(backend), [tensor.double() if wide else tensor for tensor in placed(draw)])
            for draw in draws
        ]
        return [torch.stack(same) for same in zip(*each, strict=True)]

    truth = stacked("reference", wide=True)
    plain, found = stacked("reference", wide=False), stacked("triton", wide=False)
    for torch_does, ours, true in zip(plain, found, truth, strict=True):
        assert_as_exact_as(torch_does, ours, true)


def several(make: Callable[[], list[Tensor]], shape: Shape) -> list[list[Tensor]]:
    """The same inputs with other signs and order: so many that luck evens out."""
    count = 6 if shape[1] < 40 else 1
    return [[tensor.roll(at, 0) * (-1) ** at for tensor in make()] for at in range(count)]


def attention_draws(shape: Shape, dtype: torch.dtype) -> list[list[Tensor]]:
    draws = several(lambda: for_attention(shape, torch.float32), shape)
    return [[q, k, v.to(dtype), scale] for q, k, v, scale in draws]


def refinement_draws(shape: Shape, dtype: torch.dtype) -> list[list[Tensor]]:
    draws = several(lambda: for_refinement(shape, torch.float32), shape)
    return [
        [entry, x.to(dtype), similarity.abs(), *others] for entry, x, similarity, *others in draws
    ]


@pytest.mark.parametrize("shape", [*OFFICIAL, ODD[1], ODD[3]], ids=str)
def test_attention(shape: Shape) -> None:
    assert_exact(attend, attention_draws(shape, torch.float32))


@pytest.mark.parametrize("shape", [OFFICIAL[1], ODD[1], ODD[3]], ids=str)
def test_refinement(shape: Shape) -> None:
    assert_exact(refine, refinement_draws(shape, torch.float32))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", interpreted.DTYPES, ids=str)
@pytest.mark.parametrize("shape", ALL, ids=str)
def test_all_shapes(shape: Shape, dtype: torch.dtype) -> None:
    assert_exact(attend, attention_draws(shape, dtype))
    assert_exact(refine, refinement_draws(shape, dtype))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_values_of_half_precision(dtype: torch.dtype) -> None:
    assert_exact(attend, attention_draws(OFFICIAL[1], dtype))
    assert_exact(refine, refinement_draws(OFFICIAL[1], dtype))


def test_all_of_half_precision() -> None:
    half = placed([tensor.half() for tensor in for_attention(SMALL, torch.float32)])
    y, similarity = dictionary_attention(*half, backend="triton")
    assert (y.dtype, similarity.dtype) == (torch.float16, torch.float32)
    wanted = dictionary_attention(*[tensor.float() for tensor in half], backend="triton")[1]
    assert torch.equal(similarity, wanted)
    half = placed([tensor.half() for tensor in for_refinement(SMALL, torch.float32)])
    assert_as_exact_as(
        refine("reference")(*half),
        refine("triton")(*half),
        refine("reference")(*[tensor.double() for tensor in half]),
    )


def test_no_token_changes_its_category() -> None:
    """But for those whose two nearest entries are as near as float32 tells."""
    q, k, v, scale = placed(for_attention((1, 2000, 64, 8, 1), torch.float32))
    found = dictionary_attention(q, k, v, scale, backend="triton")[1]
    truth = dictionary_attention(q.double(), k.double(), v.double(), scale.double())[1]
    first, second = truth.topk(2).values.unbind(-1)
    clear = (first - second) / first > 2e-6
    assert int(clear.sum()) > 1990
    assert torch.equal(found.argmax(-1)[clear], truth.argmax(-1)[clear])


def test_vectors_without_a_direction() -> None:
    """Their cosines are 0; where they are too short to be divided by their length, small."""
    q, k, v, scale = for_attention((1, 6, 5, 3, 4), torch.float32)
    q[:, 1], q[:, 2], k[:, 3], k[:, 4] = 0, q[:, 2] * 1e-15, 0, k[:, 4] * 1e-15
    truth = gradients(attend("reference"), [t.double() for t in placed([q, k, v, scale])])
    found = gradients(attend("triton"), placed([q, k, v, scale]))
    for ours, true in zip(found, truth, strict=True):
        torch.testing.assert_close(ours.double(), true, rtol=1e-5, atol=1e-5)


def test_many_tokens_of_an_entry_far_from_the_mean() -> None:
    """Sums in several parts; a negative weight turns the softmax over."""
    shape = (1, 1500, 6, 1, 3)
    entry, x, similarity, weight, *others = for_refinement(shape, torch.float32)
    similarity[:, :, 0] += 100
    weight = weight - weight.mean()
    assert weight.min() < 0 < weight.max()
    assert_exact(refine, [[entry, x, similarity, weight, *others]])


@pytest.mark.parametrize("which", [0, 1], ids=["y", "A"])
def test_one_of_two_results_may_be_used(which: int) -> None:
    tensors = placed(for_attention(SMALL, torch.float32))

    def of(backend: Backend) -> list[Tensor | None]:
        given = [tensor.clone().requires_grad_() for tensor in tensors]
        used = dictionary_attention(*given, backend=backend)[which]
        used.square().sum().backward()
        return [used, *(tensor.grad for tensor in given)]

    for name, ours, true in zip("uqkvs", of("triton"), of("reference"), strict=True):
        if (which, name) == (1, "v"):
            assert true is None
            assert ours is None or not ours.any()
        else:
            torch.testing.assert_close(ours, true)


def test_strides_change_nothing() -> None:
    for op, tensors in (
        (attend, for_attention(SMALL, torch.float32)),
        (refine, for_refinement(SMALL, torch.float32)),
    ):
        tensors = placed(tensors)
        strided = [t.mT.contiguous().mT if t.dim() > 2 else t for t in tensors]
        kept = [t.clone() for t in strided]
        for a, b in zip(
            gradients(op("triton"), strided), gradients(op("triton"), tensors), strict=True
        ):
            torch.testing.assert_close(a, b)
        assert all(torch.equal(a, b) for a, b in zip(strided, kept, strict=True))
    entry, *others = placed(for_refinement(SMALL, torch.float32))
    shared = entry[:1].expand(2, -1, -1)
    assert torch.equal(
        refine("triton")(shared, *others), refine("triton")(shared.contiguous(), *others)
    )


def test_autocast_lowers_values_alone() -> None:
    q, k, v, scale = placed(for_attention(SMALL, torch.float32))
    others = placed(for_refinement(SMALL, torch.float32))
    with torch.autocast(interpreted.DEVICE.type, torch.float16):
        y, similarity = dictionary_attention(q, k, v, scale, backend="triton")
        refined = refine("triton")(*others)
    assert y.dtype == torch.float16
    assert torch.equal(y, dictionary_attention(q, k, v.half(), scale, backend="triton")[0])
    assert torch.equal(similarity, dictionary_attention(q, k, v, scale, backend="triton")[1])
    assert torch.equal(refined, refine("triton")(*others))


@pytest.mark.parametrize("op", [attend, refine])
def test_recomputed_activations_give_the_same_gradients(
    op: Callable[[Backend], Callable[..., Tensor]],
) -> None:
    make = for_attention if op is attend else for_refinement
    tensors, run = placed(make(SMALL, torch.float32)), op("triton")
    again = gradients(lambda *given: checkpoint(run, *given, use_reentrant=False), tensors)
    for a, b in zip(again, gradients(run, tensors), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("op", [attend, refine])
def test_a_compiled_graph_computes_the_same(
    op: Callable[[Backend], Callable[..., Tensor]],
) -> None:
    make = for_attention if op is attend else for_refinement
    tensors, run = placed(make(SMALL, torch.float32)), op("triton")
    whole = torch.compile(run, backend="aot_eager", fullgraph=True)
    for a, b in zip(gradients(whole, tensors), gradients(run, tensors), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_they_are_whole_ops_for_compilers() -> None:
    from restore.kernels import dictionary_attention_triton, refine_dictionary_triton

    shape = (1, 5, 3, 2, 4)
    tensors = [t.requires_grad_() for t in placed(for_attention(shape, torch.float32))]
    torch.library.opcheck(dictionary_attention_triton.attend_op, tuple(tensors))
    tensors = [t.requires_grad_() for t in placed(for_refinement(shape, torch.float32))]
    entry, x, similarity, *others = tensors
    given = (similarity, x, entry, *others, 1e-5)
    torch.library.opcheck(refine_dictionary_triton.refine_op, given)


def test_a_call_that_they_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(shape: Shape, dtype: torch.dtype, why: str, *, both: bool = True) -> None:
        message = f"backend='triton' cannot run here: {why}"
        with pytest.raises(BackendUnavailable, match=f"dictionary_attention: {message}"):
            attend("triton")(*for_attention(shape, dtype))
        if both:
            with pytest.raises(BackendUnavailable, match=f"refine_dictionary: {message}"):
                refine("triton")(*for_refinement(shape, dtype))

    refused(SMALL, torch.float64, "it computes float16, bfloat16 and float32")
    refused((1, 2, 129, 2, 2), torch.float32, "M=129; the kernels hold at most 128")
    refused((1, 2, 2, 65, 2), torch.float32, "r=65; the kernels compare at most 64", both=False)
    monkeypatch.setattr(dispatch, "INTERPRETED", False)
    refused(SMALL, torch.float32, "Triton is for NVIDIA GPUs and this is on cpu")


# bytes of a thread that did not fit in registers, at most, of forward and backward
SPILLED = {"float16": 8, "bfloat16": 8, "float32": 304}
NETWORKS = ["atd dictionary", "atd-light dictionary", "atd refinement", "atd-light refinement"]


def check(networks: list[str], dtype: str, capability: int) -> None:
    reports = compiled("hit_atd_calls", [f"{name} {dtype}" for name in networks], capability)
    for name in networks:
        kernels = [report.kernel for report in reports[f"{name} {dtype}"]]
        if "dictionary" in name:
            assert kernels == ["attend", "attend_back"]
        else:
            assert kernels[-2:] == ["refine_back", "finish_back"]
        for report in reports[f"{name} {dtype}"]:
            assert report.spilled <= SPILLED[dtype], f"{name}: {report}"


def test_kernels_compile_for_an_h100() -> None:
    check(NETWORKS[1:2], "bfloat16", 90)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", SPILLED)
def test_all_kernels_compile(dtype: str, capability: int) -> None:
    check(NETWORKS, dtype, capability)
