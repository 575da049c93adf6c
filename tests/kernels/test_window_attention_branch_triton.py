"""The Triton path of the attention branch against its definition in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import interpreted
import pytest
import torch
from branch_cases import SMALL, Case
from exactness import assert_as_exact_as, gradients, stacked
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from restore.kernels.window_attention_branch import fused_refuses
from restore.kernels.window_attention_branch_reference import Call

pytestmark = interpreted.MARKS

HALF = interpreted.DTYPES[1:]
halves = pytest.mark.parametrize("dtype", HALF, ids=str)
NO_NORM = ("norm_weight", "norm_bias", "vectors")
CASES = [  # each window one program
    SMALL,
    Case((4, 4), (4, 4), (2, 2), 3, 10, images=2),
    Case((8, 8), (8, 8), (4, 4), 2, 30, without=NO_NORM, residual="other"),
    Case((7, 14), (7, 7), (3, 0), 1, 35, residual="none"),
    Case((4, 16), (4, 16), (2, 8), 2, 16, without=("norm_bias", "qkv_bias", "proj_bias")),
    Case((16, 4), (16, 4), (0, 3), 1, 53, without=("norm_weight", "norm_bias"), scale=0.3),
    Case((4, 4), (2, 2), (1, 0), 5, 16, residual="other"),
    Case((3, 5), (1, 5), (0, 0), 1, 64),
]
LARGE = [  # three kernels
    Case((12, 12), (12, 12), (6, 0), 1, 30),
    Case((4, 4), (4, 4), (0, 0), 1, 77, without=(), residual="none"),
    Case((2, 4), (2, 2), (1, 0), 9, 30, without=("norm_bias", "vectors"), residual="other"),
    Case((9, 8), (9, 8), (0, 4), 2, 5, without=NO_NORM, residual="none"),
]


def assert_exact(case: Case, dtype: torch.dtype, draws: int = 4) -> None:
    """Several draws side by side: the largest error of a few numbers is a matter of luck."""
    tensors = [placed(case, dtype, seed) for seed in range(draws)]
    doubles = [[t.double() for t in draw] for draw in tensors]
    truth = stacked(case.run("reference"), doubles)
    plain = stacked(case.run("reference"), tensors)
    got = stacked(case.run("triton"), tensors)
    for one, result, true in zip(plain, got, truth, strict=True):
        assert_as_exact_as(one, result, true)


def is_fused(case: Case, dtype: torch.dtype) -> bool:
    given = case.draw(dtype)
    return fused_refuses(given["x"], case.weights(given), case.window, dtype) is None


@pytest.mark.parametrize("case", CASES, ids=str)
@halves
def test_one_program_for_a_window(case: Case, dtype: torch.dtype) -> None:
    assert is_fused(case, dtype)
    assert_exact(case, dtype)


@pytest.mark.parametrize("case", LARGE, ids=str)
@halves
def test_large_windows(case: Case, dtype: torch.dtype) -> None:
    assert not is_fused(case, dtype)
    assert_exact(case, dtype, draws=2)


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[4], LARGE[2]], ids=str)
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_float32(case: Case, precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert_exact(case, torch.float32)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    "case",
    [
        Case((7, 7), (7, 7), (3, 3), 6, 30),
        Case((8, 8), (8, 8), (4, 4), 8, 30),
        Case((8, 8), (8, 8), (0, 0), 8, 32, without=()),
    ],
    ids=str,
)
def test_outputs_of_official_widths(case: Case) -> None:
    given = case.draw(torch.float16)
    tensors = [t.to(interpreted.DEVICE) for t in given.values()]
    truth = case.run("reference")(*(t.double() for t in tensors))
    got = case.run("triton")(*tensors)
    assert_as_exact_as(case.run("reference")(*tensors), got, truth)


def test_strides_change_nothing() -> None:
    tensors = placed(SMALL, torch.float16)
    x = tensors[0]
    y = SMALL.run("triton")(*tensors)
    wide = torch.cat([x, x], dim=-1)[..., : SMALL.channels]
    for strided in (wide, x.transpose(1, 2).contiguous().transpose(1, 2)):
        assert not strided.is_contiguous()
        assert torch.equal(SMALL.run("triton")(strided, *tensors[1:]), y)


def placed(case: Case, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    return [t.to(interpreted.DEVICE) for t in case.draw(dtype, seed).values()]


def test_no_images_give_none() -> None:
    case = Case((4, 8), (4, 4), (2, 0), 2, 5, without=(), images=0)
    for dtype in (torch.float16, torch.float32):
        tensors = placed(case, dtype)
        y, *grads = gradients(case.run("triton"), tensors)
        assert y.shape == (0, 4, 8, 10)
        for grad, t in zip(grads, tensors, strict=True):
            assert grad.shape == t.shape
            assert not grad.any()


@pytest.mark.parametrize("case", [CASES[0], CASES[3], LARGE[2], LARGE[3]], ids=str)
def test_autocast(case: Case) -> None:
    """Products in half precision between a residual stream and parameters in float32."""
    half = torch.bfloat16 if interpreted.ON_GPU else torch.float16
    draws = [placed(case, torch.float32, seed) for seed in range(4)]  # as in `assert_exact`

    def lowered(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*values: Tensor) -> Tensor:
            with torch.autocast(interpreted.DEVICE.type, half):
                return function(*values)

        return call

    truth = stacked(case.run("reference"), [[t.double() for t in draw] for draw in draws])
    stock = stacked(lowered(case.run("reference")), draws)
    got = stacked(lowered(case.run("triton")), draws)
    assert got[0].dtype == (half if case.residual == "none" else torch.float32)
    for one, result, true in zip(stock, got, truth, strict=True):
        assert_as_exact_as(one, result, true)


both = pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["fused", "composed"])


@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
@both
def test_compiled_by_pytorch(dtype: torch.dtype) -> None:
    tensors = placed(SMALL, dtype)
    wanted = gradients(SMALL.run("triton"), tensors)
    compiled_branch = torch.compile(SMALL.run("triton"), backend="aot_eager", fullgraph=True)
    for got, true in zip(gradients(compiled_branch, tensors), wanted, strict=True):
        torch.testing.assert_close(got, true)


@both
def test_checkpointed(dtype: torch.dtype) -> None:
    tensors = placed(SMALL, dtype)
    run = SMALL.run("triton")
    wanted = gradients(run, tensors)
    again = gradients(lambda *t: checkpoint(run, *t, use_reentrant=False), tensors)
    assert all(torch.equal(a, b) for a, b in zip(again, wanted, strict=True))


@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
@pytest.mark.parametrize("itself", [True, False], ids=["onto itself", "onto another"])
@both
def test_operators_are_registered_as_they_behave(dtype: torch.dtype, itself: bool) -> None:
    case = Case((4, 4), (4, 4), (2, 0), 2, 5, without=(), residual="other")
    given = case.draw(dtype)
    residual = given.pop("residual")
    x, *weights = (t.requires_grad_() for t in placed_all(given))
    numbers: list[Any] = [[4, 4], [2, 0], 2, 0.4, 1e-5, itself]
    other = None if itself else residual.to(x.device)
    from restore.kernels import window_attention_branch_ops as ops

    arguments = (x, other, *in_order(given, weights), *numbers, True)
    torch.library.opcheck(torch.ops.restore.window_attention_branch.default, arguments)
    with torch.no_grad():
        y, attended, lse = ops._branch(*arguments)
        given = (torch.ones_like(y), attended, lse, arguments[0], *arguments[2:-1])
        detached = tuple(t.detach() if isinstance(t, Tensor) else t for t in given)
        backward = torch.ops.restore.window_attention_branch_backward.default
        torch.library.opcheck(backward, detached)


def placed_all(given: dict[str, Tensor]) -> list[Tensor]:
    return [t.to(interpreted.DEVICE) for t in given.values()]


def in_order(given: dict[str, Tensor], weights: list[Tensor]) -> list[Tensor | None]:
    """The weights of a case as the op takes them."""
    return list(SMALL.weights(dict(zip(list(given)[1:], weights, strict=True))))


@both
def test_what_is_saved_for_gradients(dtype: torch.dtype) -> None:
    """What came in, what attention gave, and the logarithm of every softmax's sum."""
    tensors = [t.requires_grad_() for t in placed(SMALL, dtype)]
    saved: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        SMALL.run("triton")(*tensors)
    mine = {t.data_ptr() for t in tensors}
    others = [tuple(t.shape) for t in saved if t.data_ptr() not in mine]
    assert others == [(2, 4, 8, 10), (4, 2, 16)]


def test_nothing_is_saved_without_gradients() -> None:
    from restore.kernels import window_attention_branch_triton as kernel

    case = CASES[1]
    given = case.draw(torch.float16)
    tensors = [t.to(interpreted.DEVICE).requires_grad_() for t in given.values()]
    seen: list[bool] = []
    forward = kernel.forward

    def noted(call: Call, saves: bool) -> Any:
        seen.append(saves)
        return forward(call, saves)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(kernel, "forward", noted)
        case.run("triton")(*tensors)
    assert seen == [False]
