"""HiT-SR's gated projection and correlation branch: stock layers, and the native kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import interpreted
import pytest
import test_native
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.kernels.correlation_branch import (
    CorrelationLayers,
    correlation_branch,
    position_bias,
)
from restore.kernels.dispatch import Backend
from restore.kernels.gated_projection import GateLayers, gated_projection
from restore.kernels.norm_residual import norm_residual
from restore.kernels.self_correlation import self_correlation
from restore.kernels.windows import Size, pad_to_multiple

isa, two_threads = test_native.isa, test_native.two_threads  # fixtures
skips = test_native.pytestmark
Map = tuple[int, int, int]  # images, rows and columns


class Gate(NamedTuple):
    """A call of `gated_projection`."""

    map: Map
    channels: int
    narrow: int
    outputs: int
    multiple: Size
    biases: bool = True

    def draw(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """The map, then the layers."""
        generator = torch.Generator().manual_seed(0)
        c, n, d = self.channels, self.narrow, self.outputs
        made = [torch.randn(*self.map, c, generator=generator, dtype=torch.float64)]
        for outputs, inputs, side in ((n, c, 1), (n, n, 3), (d, n, 1), (d, c, 1)):
            shape = (outputs, inputs, side, side)
            weight = torch.randn(shape, generator=generator, dtype=torch.float64)
            made.append(weight / (inputs * side * side) ** 0.5)
            if self.biases:
                made.append(torch.randn(outputs, generator=generator, dtype=torch.float64))
        return [tensor.to(dtype) for tensor in made]

    def run(self, backend: Backend = "reference") -> Callable[..., Tensor]:
        def op(x: Tensor, *layers: Tensor | None) -> Tensor:
            if not self.biases:
                layers = tuple(part for layer in layers for part in (layer, None))
            given = GateLayers(*layers)  # type: ignore[arg-type]
            return gated_projection(x, given, self.multiple, slopes=(0.2, 0.1), backend=backend)

        return op


class Branch(NamedTuple):
    """A call of `correlation_branch`."""

    map: Map
    grown: Size
    window: Size
    reduction: Size
    heads: int
    each: int  # channels of a head
    biases: bool = True

    def draw(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """x, qv, then the layers."""
        generator = torch.Generator().manual_seed(0)
        (b, h, w), c = self.map, 2 * self.heads * self.each
        (wh, ww), (rh, rw) = self.window, self.reduction
        shapes = [
            *((b, h, w, c), (b, *self.grown, c)),
            *((1, rh * rw), (1,), (self.heads, 2 * wh - rh, 2 * ww - rw)),
            *((c, c), (c,), (c,), (c,)),
        ]
        made = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
        made[2] /= rh
        made[5] /= c**0.5
        if not self.biases:
            made[6:] = made[7:8]
        return [tensor.to(dtype) for tensor in made]

    def run(self, backend: Backend = "reference") -> Callable[..., Tensor]:
        def op(x: Tensor, qv: Tensor, *layers: Tensor | None) -> Tensor:
            if not self.biases:
                layers = (*layers[:4], None, layers[4], None)
            given = CorrelationLayers(*layers)  # type: ignore[arg-type]
            return correlation_branch(
                x, qv, given, self.window, reduction=self.reduction, backend=backend
            )

        return op


GATES = [
    Gate((1, 16, 16), 60, 12, 60, (8, 8)),  # HiT-SR
    Gate((1, 20, 33), 60, 12, 60, (48, 48)),
    Gate((2, 9, 13), 20, 4, 20, (4, 4), biases=False),
    Gate((1, 5, 3), 30, 5, 7, (16, 32)),  # reflected several times
    Gate((1, 1, 1), 3, 1, 2, (4, 4)),
    Gate((2, 3, 70), 17, 37, 41, (1, 1)),
]
BRANCHES = [
    Branch((1, 16, 16), (16, 16), (4, 4), (1, 1), 6, 5),  # HiT-SR
    Branch((2, 16, 24), (16, 24), (8, 8), (1, 1), 6, 5),
    Branch((1, 30, 17), (32, 32), (16, 16), (2, 2), 6, 5),
    Branch((1, 33, 40), (64, 64), (32, 32), (4, 4), 6, 5),
    Branch((1, 64, 50), (96, 96), (48, 48), (6, 6), 6, 5),
    Branch((1, 64, 64), (64, 64), (64, 64), (8, 8), 6, 5),
    Branch((1, 9, 10), (12, 12), (6, 4), (3, 2), 2, 15, biases=False),
    Branch((3, 5, 7), (6, 8), (3, 8), (1, 4), 1, 5),
    Branch((2, 13, 14), (14, 14), (7, 7), (7, 7), 2, 5),
    Branch((2, 2, 3), (2, 3), (1, 1), (1, 1), 2, 1),
    Branch((1, 20, 20), (20, 20), (20, 20), (1, 1), 3, 30),  # blocks by the hundred
    Branch((1, 24, 8), (24, 8), (24, 8), (2, 4), 2, 35),
]
CALLS: list[Gate | Branch] = [*GATES, *BRANCHES]
every_call = pytest.mark.parametrize("call", CALLS, ids=str)
some_calls = pytest.mark.parametrize(
    "call", [GATES[1], GATES[3], BRANCHES[2], BRANCHES[6]], ids=str
)


@pytest.mark.parametrize("call", GATES, ids=str)
def test_the_gate_is_its_layers(call: Gate) -> None:
    x, *layers = call.draw(torch.float64)
    sides = (1, 3, 1, 1)
    convs = []
    for side, weight in zip(sides, layers[:: 2 if call.biases else 1], strict=True):
        outputs, inputs, _, _ = weight.shape
        conv = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=call.biases).double()
        conv.weight.data = weight
        convs.append(conv)
    for conv, bias in zip(convs, layers[1::2] if call.biases else [], strict=False):
        conv.bias = nn.Parameter(bias)
    squeeze, conv, widen, linear = convs
    p = pad_to_multiple(x, call.multiple).permute(0, 3, 1, 2)
    y = F.leaky_relu(conv(F.leaky_relu(squeeze(p), 0.2)), 0.1)
    wanted = (widen(y) * linear(p)).permute(0, 2, 3, 1)
    torch.testing.assert_close(call.run()(x, *layers), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("call", BRANCHES, ids=str)
def test_the_branch_is_its_layers(call: Branch) -> None:
    x, qv, *layers = call.draw(torch.float64)
    weight, bias, table, proj, *rest = layers
    proj_bias, norm, norm_bias = rest if call.biases else (None, rest[0], None)
    (wh, ww), (rh, rw) = call.window, call.reduction
    position = torch.stack(
        [
            table[:, y + wh - rh - m : y + wh - rh - m + 1, x_ + ww - rw - n].squeeze(1)
            for y in range(wh)
            for x_ in range(ww)
            for m in range(0, wh, rh)
            for n in range(0, ww, rw)
        ],
        dim=1,
    ).view(call.heads, wh * ww, -1)
    assert torch.equal(position_bias(table, call.window, call.reduction), position)
    y = self_correlation(
        qv, weight, bias, position, call.window, num_heads=call.heads, reduction=call.reduction
    )
    y = F.linear(y[:, : x.shape[1], : x.shape[2]], proj, proj_bias)
    wanted = x + F.layer_norm(y, y.shape[-1:], norm, norm_bias)
    torch.testing.assert_close(call.run()(x, qv, *layers), wanted, rtol=1e-12, atol=1e-12)


@skips
@every_call
def test_they_are_as_exact_as_the_definitions(call: Gate | Branch, isa: int) -> None:
    test_native.assert_exact(call.run("native"), call.run("reference"), call.draw())


@skips
@test_native.bfloat16_only
@every_call
def test_maps_of_bfloat16(call: Gate | Branch, isa: int) -> None:
    maps = 1 if isinstance(call, Gate) else 2
    tensors = call.draw()
    tensors[:maps] = [t.bfloat16() for t in tensors[:maps]]
    test_native.assert_exact(call.run("native"), call.run("reference"), tensors)


@skips
@every_call
def test_nothing_is_read_outside_of_the_inputs(
    call: Gate | Branch, isa: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers beside the inputs, and in results before they are written, are NaN."""
    tensors, framed = call.draw(), []
    wanted = call.run("native")(*tensors)
    for t in tensors:
        frame = torch.full((t.numel() + 128,), torch.nan)
        framed.append(frame[64:-64].view(t.shape))
        framed[-1].copy_(t)
    interpreted.fill_with_nan(monkeypatch)
    assert torch.equal(call.run("native")(*framed), wanted)


@skips
@some_calls
def test_strides_change_nothing(call: Gate | Branch, isa: int) -> None:
    tensors = call.draw()
    wanted = call.run("native")(*tensors)
    assert torch.equal(call.run("native")(*[test_native.wide(t) for t in tensors]), wanted)
    maps = 1 if isinstance(call, Gate) else 2
    tensors[:maps] = [
        t.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for t in tensors[:maps]
    ]
    assert torch.equal(call.run("native")(*tensors), wanted)


@skips
@some_calls
def test_images_do_not_mix(call: Gate | Branch, isa: int) -> None:
    call = call._replace(map=(3, *call.map[1:]))
    tensors = call.draw()
    maps = 1 if isinstance(call, Gate) else 2
    whole = call.run("native")(*tensors)
    for image in range(3):
        alone = [t[image : image + 1] for t in tensors[:maps]]
        got = call.run("native")(*alone, *tensors[maps:])
        assert torch.equal(got, whole[image : image + 1])


@skips
@some_calls
def test_edited_weights_are_seen(call: Gate | Branch, isa: int) -> None:
    tensors = call.draw()
    call.run("native")(*tensors)
    for t in tensors[1:]:
        t.data *= 1.5
    test_native.assert_exact(call.run("native"), call.run("reference"), tensors)


@pytest.fixture
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@skips
@pytest.mark.usefixtures("_one_thread")
@every_call
def test_threads_change_nothing(call: Gate | Branch, isa: int) -> None:
    tensors = call.draw()
    wanted = call.run("native")(*tensors)
    torch.set_num_threads(2)
    for _ in range(3):
        assert torch.equal(call.run("native")(*tensors), wanted)


def test_what_does_not_fit_the_gate_is_told() -> None:
    x, *layers = GATES[0].draw()
    for index, shape, message in (
        (0, (12, 59, 1, 1), r"squeeze_weight is \(12, 59, 1, 1\); .* need \(12, 60, 1, 1\)"),
        (2, (12, 12, 1, 1), r"conv_weight is \(12, 12, 1, 1\); .* need \(12, 12, 3, 3\)"),
        (5, (61,), r"widen_bias is \(61,\); .* need \(60,\)"),
    ):
        given = [*layers]
        given[index] = torch.zeros(shape)
        with pytest.raises(ValueError, match=f"gated_projection: {message}"):
            GATES[0].run()(x, *given)
    with pytest.raises(ValueError, match=r"x is \(16, 16, 60\); expected \[B, H, W, C\]"):
        GATES[0].run()(x[0], *layers)
    with pytest.raises(ValueError, match=r"multiple is \(0, 1\); expected two numbers of 1 or"):
        GATES[0]._replace(multiple=(0, 1)).run()(x, *layers)


def test_what_does_not_fit_the_branch_is_told() -> None:
    given = BRANCHES[1].draw()
    for index, shape, message in (
        (0, (2, 17, 24, 60), r"x is \(2, 17, 24, 60\); qv \(2, 16, 24, 60\) has no such map"),
        (0, (1, 16, 24, 60), r"x is \(1, 16, 24, 60\); qv \(2, 16, 24, 60\) has no such map"),
        (1, (2, 16, 23, 60), r"window|multiples"),
        (2, (1, 4), r"weight has 4 entries; reduction \(1, 1\) needs 1"),
        (4, (6, 15, 16), r"table is \(6, 15, 16\); expected \(6, 15, 15\)"),
        (5, (59, 60), r"proj_bias is \(60,\) but proj_weight \(59, 60\) needs \(59,\)"),
        (7, (59,), r"norm_weight is \(59,\)"),
    ):
        wrong = [*given]
        wrong[index] = torch.zeros(shape)
        with pytest.raises(ValueError, match=f"correlation_branch: .*{message}"):
            BRANCHES[1].run()(*wrong)


class Norm(NamedTuple):
    """A call of `norm_residual`."""

    shape: tuple[int, ...]
    bias: bool = True

    def draw(self) -> list[Tensor]:
        """y, x, then the norm."""
        generator = torch.Generator().manual_seed(0)
        shapes = [self.shape, self.shape, self.shape[-1:], self.shape[-1:]][: 3 + self.bias]
        return [torch.randn(shape, generator=generator) + 3 for shape in shapes]

    def run(self, backend: Backend = "reference") -> Callable[..., Tensor]:
        def op(y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            return norm_residual(y, weight, bias, x, 1e-3, backend=backend)

        return op


NORMS = [Norm((2, 9, 13, 60)), Norm((70, 180), bias=False), Norm((5,)), Norm((33, 1))]


@skips
@pytest.mark.parametrize("call", NORMS, ids=str)
def test_norms_are_as_exact_as_the_definition(call: Norm, isa: int) -> None:
    tensors = call.draw()
    y, x, weight, *bias = (t.double() for t in tensors)
    wanted = x + F.layer_norm(y, y.shape[-1:], weight, *bias, eps=1e-3)
    assert torch.equal(call.run()(y, x, weight, *bias), wanted)
    test_native.assert_exact(call.run("native"), call.run("reference"), tensors)
    spread = [test_native.wide(t) for t in tensors]
    assert torch.equal(call.run("native")(*spread), call.run("native")(*tensors))


@skips
@test_native.bfloat16_only
@pytest.mark.parametrize("lowered", ["y", "x", "both"])
def test_norms_of_bfloat16_maps(lowered: str, isa: int) -> None:
    y, x, *norm = NORMS[0].draw()
    y, x = (t.bfloat16() if lowered in (n, "both") else t for n, t in (("y", y), ("x", x)))
    test_native.assert_exact(NORMS[0].run("native"), NORMS[0].run("reference"), [y, x, *norm])


def test_what_does_not_fit_a_norm_is_told() -> None:
    y, x, *norm = NORMS[0].draw()
    with pytest.raises(ValueError, match=r"norm_residual: x is .* but y .*; expected the same"):
        NORMS[0].run()(y, x[:1], *norm)
    with pytest.raises(ValueError, match=r"norm_residual: norm_weight is \(59,\)"):
        NORMS[0].run()(y, x, norm[0][:59])
