"""The depthwise convolution with its GELU: the formula, and the native kernel against it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import interpreted
import pytest
import test_native
import torch
from torch import Tensor

from restore.kernels import native_depthwise, native_library
from restore.kernels.depthwise_gelu import depthwise_gelu
from restore.kernels.dispatch import Backend, BackendUnavailable


class Case(NamedTuple):
    shape: tuple[int, int, int, int]  # [B, H, W, C]
    kernel: tuple[int, int]
    residual: bool = True
    bias: bool = True

    def run(self, backend: Backend = "auto") -> Callable[..., Tensor]:
        def call(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            return depthwise_gelu(x, weight, bias, residual=self.residual, backend=backend)

        return call

    def draw(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """x, weight and bias."""
        c = self.shape[-1]
        x, weight, bias = test_native.normal(self.shape, (c, 1, *self.kernel), (c,))
        return [t.to(dtype) for t in (x, weight, bias)[: 2 + self.bias]]


CASES = [
    Case((1, 12, 20, 48), (7, 7)),  # ATD-light
    Case((2, 9, 8, 120), (5, 5)),  # SRFormer-light
    Case((1, 16, 33, 112), (3, 3), residual=False),  # Uformer-S
    Case((2, 3, 2, 17), (7, 5), bias=False),  # smaller than the kernel
    Case((1, 5, 31, 7), (1, 3)),
    Case((1, 4, 9, 3), (5, 1), residual=False, bias=False),
    Case((1, 1, 1, 1), (1, 1)),
    Case((1, 1, 16, 16), (3, 3)),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def naive(case: Case, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The docstring's formula, a sum of shifted maps."""
    _, h, w, _ = x.shape
    kh, kw = case.kernel
    z = torch.zeros_like(x) if bias is None else torch.zeros_like(x) + bias
    for k in range(kh):
        for m in range(kw):
            down, across = k - kh // 2, m - kw // 2
            for i in range(max(0, -down), min(h, h - down)):
                for j in range(max(0, -across), min(w, w - across)):
                    z[:, i, j] += weight[:, 0, k, m] * x[:, i + down, j + across]
    y = z * (1 + torch.erf(z / math.sqrt(2))) / 2
    return x + y if case.residual else y


@cases
def test_the_definition_is_the_formula(case: Case) -> None:
    tensors = case.draw(torch.float64)
    torch.testing.assert_close(case.run()(*tensors), naive(case, *tensors), rtol=1e-12, atol=1e-12)


def test_gradcheck() -> None:
    case = Case((1, 3, 4, 2), (3, 3))
    tensors = [t.requires_grad_() for t in case.draw(torch.float64)]
    assert torch.autograd.gradcheck(case.run(), tensors)


def test_what_does_not_fit_is_told() -> None:
    x, weight = torch.zeros(1, 4, 4, 6), torch.zeros(6, 1, 3, 3)
    for given, message in (
        ((x[0], weight, None), r"x is \(4, 4, 6\); expected \[B, H, W, C\]"),
        ((x, weight[:5], None), r"weight is \(5, 1, 3, 3\); .* needs \[6, 1, kh, kw\]"),
        ((x, weight[..., :2], None), r"weight is \(6, 1, 3, 2\); .* with odd sides"),
        ((x, weight, x[0, 0, 0, :5]), r"bias is \(5,\); .* needs \(6,\)"),
    ):
        with pytest.raises(ValueError, match=f"depthwise_gelu: {message}"):
            depthwise_gelu(*given, residual=True)


native = pytest.mark.usefixtures("uses")
skips = test_native.pytestmark


@pytest.fixture(params=range(native_library.BFLOAT16), ids=native_library.ISAS)
def uses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instruction set of the native kernel."""
    try:
        library = native_library.library(request.param)
    except LookupError as why:
        pytest.skip(str(why))
    monkeypatch.setattr(native_depthwise, "library", lambda: library)


@skips
@native
@cases
def test_the_native_kernel_is_as_exact(case: Case) -> None:
    test_native.assert_exact(case.run("native"), case.run("reference"), case.draw())


@skips
@native
@cases
def test_nothing_is_read_outside_of_the_inputs(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers beside the inputs, and in results before they are written, are NaN."""
    tensors, framed = case.draw(), []
    wanted = case.run("native")(*tensors)
    for t in tensors:
        frame = torch.full((t.numel() + 128,), torch.nan)
        framed.append(frame[64:-64].view(t.shape))
        framed[-1].copy_(t)
    interpreted.fill_with_nan(monkeypatch)
    assert torch.equal(case.run("native")(*framed), wanted)


@skips
@native
def test_strides_change_nothing() -> None:
    case = CASES[1]
    tensors = case.draw()
    wanted = case.run("native")(*tensors)
    assert torch.equal(case.run("native")(*[test_native.wide(t) for t in tensors]), wanted)
    x, *others = tensors
    channels_first = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(case.run("native")(channels_first, *others), wanted)


@skips
@native
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("index", range(3))
def test_numbers_that_are_none_stay_so(index: int, value: float) -> None:
    tensors = CASES[0].draw()
    tensors[index].view(-1)[tensors[index].numel() // 2] = value
    got, wanted = (CASES[0].run(b)(*tensors) for b in ("native", "reference"))
    if index == 1:  # stock convolutions multiply it by the zeros around the map, ours has none
        assert not got.isfinite().all()
    else:
        assert torch.equal(got.isfinite(), wanted.isfinite())


@skips
@native
def test_threads_change_nothing() -> None:
    case, before = Case((2, 40, 24, 40), (5, 5)), torch.get_num_threads()
    tensors = case.draw()
    try:
        torch.set_num_threads(1)
        wanted = case.run("native")(*tensors)
        torch.set_num_threads(2)
        for _ in range(20):
            assert torch.equal(case.run("native")(*tensors), wanted)
    finally:
        torch.set_num_threads(before)


@skips
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_under_autocast_it_rounds_once(dtype: torch.dtype, residual: bool) -> None:
    if native_library.bfloat16_refuses():
        pytest.skip(str(native_library.bfloat16_refuses()))
    case = CASES[0]._replace(residual=residual)
    x, *others = case.draw()
    x = x.to(dtype)
    wanted = case.run("native")(x.float(), *others)
    with torch.autocast("cpu", torch.bfloat16):
        got, definition = (case.run(backend)(x, *others) for backend in ("native", "reference"))
    assert got.dtype == definition.dtype
    assert torch.equal(got, wanted.to(got.dtype))


@skips
def test_it_is_for_inference_and_sees_changed_weights() -> None:
    case = CASES[0]
    x, weight, bias = case.draw()
    first = case.run()(x, weight, bias)
    assert torch.equal(first, case.run("native")(x, weight, bias))
    weight.mul_(2)
    assert not torch.equal(case.run()(x, weight, bias), first)
    weight.requires_grad_()
    assert case.run()(x, weight, bias).requires_grad
    with pytest.raises(BackendUnavailable, match="needs a gradient; it has no backward"):
        case.run("native")(x, weight, bias)
    assert case.run("native")(x[:0].detach(), weight.detach(), bias).shape == (0, *x.shape[1:])
