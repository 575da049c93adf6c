"""The Triton path of HiT-SR's correlations against the definition in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import interpreted
import pytest
import torch
from compiled import compiled
from exactness import assert_as_exact_as, gradients, largest_error, last_place, stacked
from test_correlations import CASES, SQUARED, Case, assert_queries_exact, inputs
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from restore.kernels import dispatch, reference
from restore.kernels.channel_correlation import channel_correlation
from restore.kernels.dispatch import Backend, BackendUnavailable
from restore.kernels.self_correlation import self_correlation
from restore.kernels.spatial_correlation import spatial_correlation

pytestmark = interpreted.MARKS

dtypes = pytest.mark.parametrize("dtype", interpreted.DTYPES, ids=str)
Op = Callable[..., Tensor]

OFFICIAL = [  # windows side by side and below each other, at the blocks of HiT-SR
    Case((8, 12), (4, 4), (1, 1), 6, 5),
    Case((8, 16), (8, 8), (1, 1), 6, 5),
    Case((16, 16), (16, 16), (2, 2), 6, 5),
    Case((64, 32), (32, 32), (4, 4), 6, 5),
]
ODD = [
    Case((12, 24), (12, 12), (1, 1), 2, 5),  # not reduced, and too large for one program
    Case((3, 5), (3, 5), (1, 1), 1, 35),
    Case((7, 14), (7, 7), (1, 7), 1, 53),
    Case((22, 22), (22, 22), (11, 2), 3, 1),
]
LARGE = [Case((48, 48), (48, 48), (6, 6), 6, 5), Case((64, 64), (64, 64), (8, 8), 6, 5)]
SMALL = Case((8, 4), (4, 4), (2, 2), 2, 5)
QUICK = [CASES[0], CASES[3], CASES[4], CASES[6], *OFFICIAL[:3], ODD[1], ODD[2]]


def on_device(case: Case, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    images = 2 if case.map[0] * case.map[1] < 100 else 1
    qv, *others = inputs(case, dtype, images, seed)
    # so that no gradient passes what float16 holds
    return [tensor.to(interpreted.DEVICE) for tensor in (qv / 2, *others)]


def both(case: Case, backend: Backend) -> Op:
    return lambda qv, weight, bias, position_bias: self_correlation(
        qv,
        weight,
        bias,
        position_bias,
        case.window,
        reduction=case.reduction,
        num_heads=case.heads,
        backend=backend,
    )


def spatial(case: Case, backend: Backend) -> Op:
    return lambda qv, weight, bias, position_bias: spatial_correlation(
        qv,
        weight,
        bias,
        position_bias,
        case.window,
        reduction=case.reduction,
        num_heads=case.heads,
        backend=backend,
    )


def channel(case: Case, backend: Backend) -> Op:
    return lambda qv, *unused: channel_correlation(qv, case.window, backend=backend)


def assert_exact(op: Callable[[Case, Backend], Op], case: Case, draws: list[list[Tensor]]) -> None:
    doubled = [[tensor.double() for tensor in tensors] for tensors in draws]
    truth = stacked(op(case, "reference"), doubled)
    plain = stacked(op(case, "reference"), draws)
    found = stacked(op(case, "triton"), draws)
    for name, torch_does, ours, true in zip(
        ("y", "qv", "weight", "bias", "position_bias"), plain, found, truth, strict=False
    ):
        if name not in ("weight", "bias"):
            assert_as_exact_as(torch_does, ours, true)
            continue
        assert ours.shape == true.shape
        assert ours.dtype == torch_does.dtype
        for draw, (one, expected) in enumerate(zip(ours, true, strict=True)):
            spread = spread_of_sums(op, case, draws[draw], doubled[draw], name)
            allowed = 2 * spread + last_place(expected, one.dtype)
            assert largest_error(one, expected) <= allowed, name


def spread_of_sums(
    op: Callable[[Case, Backend], Op],
    case: Case,
    tensors: list[Tensor],
    doubled: list[Tensor],
    name: str,
) -> float:
    """What rounding does to the gradient of weight or bias, by the errors of what it sums.

    Each is one number, or a few: its error in PyTorch is luck. What it sums are the gradients of
    the K reduced values, which we get from a bias for each; K roundings spread as sqrt(K) of them.
    """

    def of_reduced(given: list[Tensor]) -> Tensor:
        qv, weight, bias, position_bias = given
        (b, h, w, c), (rh, rw), (wh, ww) = qv.shape, case.reduction, case.window
        shape = (b * (h // wh) * (w // ww), wh // rh, ww // rw, c // 2)

        def run(each: Tensor) -> Tensor:
            args = (qv, weight, each, position_bias, case.window, case.reduction)
            y = reference.spatial_correlation(*args)
            return y if op is spatial else torch.cat([y, torch.zeros_like(y)], dim=-1)

        return gradients(run, [bias.expand(shape).clone()])[1]

    true = of_reduced(doubled)
    error = largest_error(of_reduced(tensors), true)
    if name == "bias":
        return error * math.sqrt(true.numel())
    (rh, rw), half = case.reduction, doubled[0].shape[-1] // 2
    b, h, w, _ = doubled[0].shape
    v = doubled[0][..., half:].reshape(b, h // rh, rh, w // rw, rw, half)
    return error * v.square().sum(dim=(0, 1, 3, 5)).max().sqrt().item()


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_both(case: Case) -> None:
    # the fewer numbers, the more the largest error of one draw is luck
    count = 2 if case.map[0] * case.map[1] < 100 else 1
    draws = [on_device(case, torch.float32, seed) for seed in range(count)]
    assert_exact(both, case, draws)


@pytest.mark.parametrize("op", [both, spatial, channel], ids=["both", "spatial", "channel"])
@pytest.mark.parametrize("case", [OFFICIAL[0], OFFICIAL[2]], ids=str)
def test_half_precision(case: Case, op: Callable[[Case, Backend], Op]) -> None:
    for dtype in interpreted.DTYPES[1:]:
        tensors = on_device(case, dtype)
        assert_exact(op, case, [tensors[:1] if op is channel else tensors])


@pytest.mark.parametrize("bias", [0.0, 64.0])
@pytest.mark.parametrize("case", SQUARED, ids=str)
def test_sums_of_squares_keep_it_exact(case: Case, bias: float) -> None:
    assert_queries_exact(case, bias, interpreted.DEVICE, "triton")


@pytest.mark.slow
@pytest.mark.parametrize("op", [both, spatial, channel], ids=["both", "spatial", "channel"])
@dtypes
@pytest.mark.parametrize("case", [*CASES, *OFFICIAL, *ODD, *LARGE], ids=str)
def test_all_cases(case: Case, dtype: torch.dtype, op: Callable[[Case, Backend], Op]) -> None:
    count = 8 if case.map[0] * case.map[1] < 100 else 1
    draws = [on_device(case, dtype, seed) for seed in range(count)]
    assert_exact(op, case, [tensors[:1] for tensors in draws] if op is channel else draws)


@pytest.mark.parametrize("case", [OFFICIAL[0], OFFICIAL[2]], ids=str)
def test_parameters_may_be_more_exact_than_the_map(case: Case) -> None:
    draws = []
    for seed in range(3):
        qv, *others = on_device(case, torch.float32, seed)
        draws.append([qv.half(), *others])
    assert_exact(both, case, draws)


@pytest.mark.parametrize("op", [both, spatial, channel], ids=["both", "spatial", "channel"])
def test_strides_change_nothing(op: Callable[[Case, Backend], Op]) -> None:
    tensors = on_device(SMALL, torch.float32)
    strided = [
        tensors[0].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        tensors[1],
        tensors[2],
        tensors[3].mT.contiguous().mT,
    ]
    kept = [tensor.clone() for tensor in strided]
    got = gradients(op(SMALL, "triton"), strided[:1] if op is channel else strided)
    wanted = gradients(op(SMALL, "triton"), tensors[:1] if op is channel else tensors)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(strided, kept, strict=True))


def test_the_map_alone_may_need_a_gradient() -> None:
    qv, *others = on_device(SMALL, torch.float32)
    ours = gradients(lambda qv: both(SMALL, "triton")(qv, *others), [qv])
    torch.testing.assert_close(ours[1], gradients(both(SMALL, "triton"), [qv, *others])[1])


def test_half_precision_does_not_overflow_between() -> None:
    """Sums over a window pass 65504, while what comes out does not."""
    case = Case((16, 16), (16, 16), (2, 2), 1, 5)
    qv, weight, bias, position_bias = on_device(case, torch.float16)
    qv[..., :5] /= 4096
    qv[..., 5:] *= 64
    bias *= 64
    y = both(case, "triton")(qv, weight, bias, position_bias)
    assert bool(torch.isfinite(y).all())


@pytest.mark.parametrize("op", [both, spatial, channel], ids=["both", "spatial", "channel"])
def test_autocast_lowers_the_map(op: Callable[[Case, Backend], Op]) -> None:
    tensors = on_device(SMALL, torch.float32)
    with torch.autocast(interpreted.DEVICE.type, torch.float16):
        y = op(SMALL, "triton")(*tensors)
    assert y.dtype == torch.float16
    qv, *others = tensors
    assert torch.equal(y, op(SMALL, "triton")(qv.half(), *others))


def test_recomputed_activations_give_the_same_gradients() -> None:
    tensors = on_device(SMALL, torch.float32)
    op = both(SMALL, "triton")
    again = gradients(lambda *given: checkpoint(op, *given, use_reentrant=False), tensors)
    for a, b in zip(again, gradients(op, tensors), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_it_is_a_whole_op_for_compilers() -> None:
    from restore.kernels import self_correlation_triton as fast

    qv, *others = (tensor.requires_grad_() for tensor in on_device(SMALL, torch.float32))
    shape = (SMALL.window, SMALL.reduction, SMALL.heads)
    torch.library.opcheck(fast.correlate_op, (qv, *others, *shape, True))
    torch.library.opcheck(fast.correlate_op, (qv, None, None, None, SMALL.window, (1, 1), 1, True))


def test_a_compiled_graph_computes_the_same() -> None:
    tensors = on_device(SMALL, torch.float32)
    whole = torch.compile(both(SMALL, "triton"), backend="aot_eager", fullgraph=True)
    for a, b in zip(
        gradients(whole, tensors), gradients(both(SMALL, "triton"), tensors), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("op", [both, spatial, channel], ids=["both", "spatial", "channel"])
def test_a_call_that_it_cannot_run_is_refused(
    op: Callable[[Case, Backend], Op], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(case: Case, dtype: torch.dtype, why: str) -> None:
        with pytest.raises(BackendUnavailable, match=f"backend='triton' cannot run here: {why}"):
            op(case, "triton")(*inputs(case, dtype))

    refused(SMALL, torch.float64, "it computes float16, bfloat16 and float32")
    refused(Case((2, 2), (1, 1), (1, 1), 1, 65), torch.float32, "C=130; the kernels hold at most")
    monkeypatch.setattr(dispatch, "INTERPRETED", False)
    refused(SMALL, torch.float32, "Triton is for NVIDIA GPUs and this is on cpu")


# bytes of a thread that did not fit in registers, over all windows of HiT-SR
SPILLED = {"float16": 8, "bfloat16": 8, "float32": 32}


def check(windows: list[int], dtype: str, capability: int) -> None:
    keys = [f"hit window {window} {dtype}" for window in windows]
    reports: dict[str, Any] = compiled("hit_atd_calls", keys, capability)
    for key in keys:
        kernels = {report.kernel for report in reports[key]}
        assert {"correlate", "correlate_back"} <= kernels <= {*kernels, "summarise"}
        for report in reports[key]:
            assert report.spilled <= SPILLED[dtype], f"{key}: {report}"


def test_kernels_compile_for_an_h100() -> None:
    check([16], "bfloat16", 90)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", SPILLED)
def test_all_kernels_compile(dtype: str, capability: int) -> None:
    check([4, 8, 16, 32, 48, 64], dtype, capability)
