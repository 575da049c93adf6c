"""The MLP with a depthwise convolution: the formula, and the native kernel against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import interpreted
import pytest
import test_native
import torch
from torch import Tensor
from torch.nn import functional as F

from restore.kernels import native_library
from restore.kernels.conv_mlp import ConvMlpLayers, conv_mlp
from restore.kernels.dispatch import Backend, BackendUnavailable
from restore.kernels.mlp import MlpLayers


class Case(NamedTuple):
    shape: tuple[int, int, int, int]  # [B, H, W, C]
    hidden: int
    side: int
    added: bool = True
    bias: bool = True
    norm: bool = True
    residual: str = "x"

    def layers(self, tensors: list[Tensor]) -> ConvMlpLayers:
        given = iter(tensors)
        norm = [next(given) if self.norm else None for _ in range(2)]
        first, conv, second = ([next(given), next(given)] for _ in range(3))
        for layer in (first, conv, second):
            if not self.bias:
                layer[1] = None  # type: ignore[call-overload]
        return ConvMlpLayers(MlpLayers(*norm, *first, *second), *conv)

    def run(self, backend: Backend = "auto") -> Callable[..., Tensor]:
        def call(x: Tensor, other: Tensor, *tensors: Tensor) -> Tensor:
            residual = {"x": x, "other": other, "none": None}[self.residual]
            layers = self.layers(list(tensors))
            return conv_mlp(x, layers, added=self.added, residual=residual, backend=backend)

        return call

    def draw(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """x, the residual, and the layers' tensors: as many as there can be."""
        c, d, s = self.shape[-1], self.hidden, self.side
        shapes = [(c,), (c,)] * self.norm + [(d, c), (d,), (d, 1, s, s), (d,), (c, d), (c,)]
        return [t.to(dtype) for t in test_native.normal(self.shape, self.shape, *shapes)]


CASES = [
    Case((1, 16, 24, 32), 128, 3, added=False),  # Uformer-S
    Case((2, 9, 8, 60), 120, 5),  # SRFormer-light
    Case((1, 12, 20, 48), 96, 7),  # ATD-light
    Case((1, 8, 8, 96), 520, 3, added=False),  # more than two blocks of hidden channels
    Case((1, 7, 500, 5), 9, 3, residual="other"),  # three blocks of columns
    Case((1, 60, 33, 17), 19, 5, bias=False, residual="none"),  # several blocks of rows
    Case((2, 3, 2, 6), 7, 7, norm=False),  # smaller than the kernel
    Case((1, 1, 1, 1), 1, 3),
    Case((3, 40, 3, 4), 600, 3, added=False, residual="other"),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def formula(case: Case, x: Tensor, other: Tensor, *tensors: Tensor) -> Tensor:
    (norm_weight, norm_bias, fc1, b1, fc2, b2), weight, bias = case.layers(list(tensors))
    y = x
    if norm_weight is not None:
        y = y - y.mean(-1, keepdim=True)
        y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm_weight + norm_bias
    h = F.gelu(y @ fc1.T + (0 if b1 is None else b1))
    up = case.side // 2
    rows, columns = x.shape[1:3]
    framed, z = F.pad(h, (0, 0, up, up, up, up)), torch.zeros_like(h)
    for i in range(case.side):
        for j in range(case.side):
            z = z + weight[:, 0, i, j] * framed[:, i : i + rows, j : j + columns]
    z = F.gelu(z if bias is None else z + bias) + (h if case.added else 0)
    y = z @ fc2.T + (0 if b2 is None else b2)
    return {"x": x, "other": other, "none": torch.zeros_like(x)}[case.residual] + y


@cases
def test_the_definition_is_the_formula(case: Case) -> None:
    tensors = case.draw(torch.float64)
    wanted = formula(case, *tensors)
    torch.testing.assert_close(case.run()(*tensors), wanted, rtol=1e-11, atol=1e-11)


def test_what_does_not_fit_is_told() -> None:
    x, *_ = tensors = CASES[0].draw()
    layers = CASES[0].layers(tensors[2:])
    fc2 = layers.linear._replace(fc2_weight=torch.zeros(32, 127))
    for given, residual, message in (
        ((x[0], layers), None, r"x is \(16, 24, 32\); expected \[B, H, W, C\]"),
        ((x[:, :0], layers), None, "0"),
        ((x, layers._replace(weight=layers.weight[1:])), None, r"weight is \(127, 1, 3, 3\)"),
        ((x, layers._replace(bias=x[0, 0, 0])), None, r"bias is \(32,\); .* needs \(128,\)"),
        ((x, layers._replace(linear=fc2)), None, r"fc2_weight is \(32, 127\)"),
        ((x, layers), x[:, 1:], r"residual is \(1, 15, 24, 32\); x is \(1, 16, 24, 32\)"),
    ):
        for backend in ("auto", "reference"):
            with pytest.raises(ValueError, match=f"conv_mlp: .*{message}"):
                conv_mlp(*given, added=False, residual=residual, backend=backend)  # type: ignore[arg-type]


skips = test_native.pytestmark
isa = test_native.isa  # of every test here


@skips
@cases
def test_the_native_kernel_is_as_exact(case: Case) -> None:
    test_native.assert_exact(case.run("native"), case.run("reference"), case.draw())


@skips
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
def test_strides_change_nothing() -> None:
    for case in (CASES[1], CASES[4]):
        tensors = case.draw()
        wanted = case.run("native")(*tensors)
        assert torch.equal(case.run("native")(*[test_native.wide(t) for t in tensors]), wanted)
        x, *others = tensors
        channels_first = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        assert torch.equal(case.run("native")(channels_first, *others), wanted)


@pytest.fixture
def threads() -> Iterator[None]:
    """As many as before, at the end."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@skips
def test_threads_change_nothing(threads: None) -> None:
    """Maps are cut into other blocks then, whose rows at the edges are computed twice."""
    for case in (CASES[5], Case((1, 97, 210, 8), 40, 5), CASES[8]):
        tensors = case.draw()
        torch.set_num_threads(1)
        wanted = case.run("native")(*tensors)
        for count in (2, 3, 16):
            torch.set_num_threads(count)
            assert torch.equal(case.run("native")(*tensors), wanted)


@skips
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_reach_what_sees_them(value: float) -> None:
    case = Case((1, 9, 40, 6), 20, 3, added=False)
    tensors = case.draw()
    tensors[0][0, 4, 39, 2] = value
    got, wanted = (case.run(b)(*tensors) for b in ("native", "reference"))
    assert torch.equal(got.isfinite(), wanted.isfinite())
    assert wanted.isfinite().sum() == wanted.numel() - 6 * 6


@skips
@test_native.bfloat16_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@cases
def test_in_bfloat16(case: Case, dtype: torch.dtype) -> None:
    tensors = case.draw()
    wanted = case.run("reference")(*[t.double() for t in tensors])
    tensors[:2] = [t.to(dtype) for t in tensors[:2]]
    got, definition = (case.run(backend)(*tensors) for backend in ("native", "reference"))
    assert got.dtype == definition.dtype
    ours, theirs = ((y.double() - wanted).abs() for y in (got, definition))
    assert ours.square().mean() <= 4 * theirs.square().mean()
    assert ours.max() <= 2 * theirs.max()


@skips
def test_it_is_for_inference_and_sees_changed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    case, calls = CASES[0], []
    run = native_library.Library.run

    def noted(self: native_library.Library, name: str, call: Any) -> None:
        calls.append(name)
        run(self, name, call)

    monkeypatch.setattr(native_library.Library, "run", noted)
    tensors = case.draw()
    first = case.run()(*tensors)
    assert calls == ["restore_conv_mlp"]
    for tensor in tensors[2:]:
        before = case.run()(*tensors)
        tensor.mul_(1.5)
        assert not torch.equal(case.run()(*tensors), before)
    assert not torch.equal(case.run()(*tensors), first)
    empty = [t[:0] for t in tensors[:2]]
    assert case.run("native")(*empty, *tensors[2:]).shape == (0, *case.shape[1:])
    tensors[2].requires_grad_()
    assert case.run()(*tensors).requires_grad
    with pytest.raises(BackendUnavailable, match="needs a gradient; it has no backward"):
        case.run("native")(*tensors)


@skips
@test_native.float32_only
def test_other_convolutions_have_no_kernel() -> None:
    case = CASES[0]._replace(side=9)
    tensors = case.draw()
    test_native.assert_exact(case.run(), case.run("reference"), tensors)
    with pytest.raises(BackendUnavailable, match=r"squares of \(3, 5, 7\) pixels"):
        case.run("native")(*tensors)
