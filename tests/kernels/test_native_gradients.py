"""Gradients of the native kernels against the definitions, on every instruction set of this CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import branch_cases
import pytest
import test_native
import test_window_attention as core
import torch
from exactness import assert_as_exact_as, gradients, stacked
from torch import Tensor

from restore.kernels import native_gradients, native_library, native_ops
from restore.kernels.dispatch import Backend
from restore.kernels.window_attention import window_attention

FUNCTIONS, WHY_NOT = native_library.loaded()
pytestmark = pytest.mark.skipif(FUNCTIONS is None, reason=f"needs the native kernels: {WHY_NOT}")
CASE = core.Case((16, 24), (8, 8), (4, 4), 2, 20)


@pytest.fixture(
    params=range(native_library.BFLOAT16 + 1),
    ids=(*native_library.ISAS, "bfloat16"),
    autouse=True,
)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The instruction set that the ops use, in the arithmetic that it is for."""
    try:
        library = native_library.library(request.param)
    except LookupError as why:
        pytest.skip(str(why))
    for module in (native_ops, native_gradients):
        monkeypatch.setattr(module, "library", lambda isa=request.param: library)
    with torch.autocast("cpu", torch.bfloat16, enabled=request.param == native_library.BFLOAT16):
        yield request.param


def assert_exact(
    of: Callable[[Backend], Callable[..., Tensor]], draw: Callable[[int], Iterable[Tensor]]
) -> None:
    """Hold results and gradients to twice the error of the definition in the same arithmetic."""
    draws = [[*draw(seed)] for seed in range(4)]
    truth = stacked(of("reference"), [[x.double() for x in tensors] for tensors in draws])
    plain = stacked(of("reference"), draws)
    got = stacked(of("native"), draws)
    for torch_does, ours, true in zip(plain, got, truth, strict=True):
        assert_as_exact_as(torch_does, ours, true)


def attention(
    case: core.Case, windows: Tensor | None = None
) -> Callable[..., Callable[..., Tensor]]:
    return lambda backend: (
        lambda qkv, table: window_attention(
            qkv,
            table,
            case.window,
            case.shift,
            num_heads=case.heads,
            windows=windows,
            backend=backend,
        )
    )


@pytest.mark.parametrize("case", test_native.ATTENTIONS, ids=str)
def test_attention_is_as_exact_as_the_definition(case: core.Case) -> None:
    assert_exact(attention(case), lambda seed: core.inputs(case, torch.float32, seed=seed))


def test_attention_in_some_windows() -> None:
    some = torch.tensor([11, 0, 5])
    assert_exact(attention(CASE, some), lambda seed: core.inputs(CASE, torch.float32, seed=seed))


@pytest.mark.parametrize("case", test_native.BRANCHES, ids=str)
def test_branches_are_as_exact_as_the_definition(case: branch_cases.Case) -> None:
    assert_exact(case.run, lambda seed: case.draw(torch.float32, seed).values())


def test_threads_change_nothing() -> None:
    run, tensors = attention(CASE)("native"), [*core.inputs(CASE, torch.float32)]
    threads = torch.get_num_threads()
    alone = gradients(run, tensors)
    try:
        torch.set_num_threads(3)
        assert all(map(torch.equal, gradients(run, tensors), alone))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("wanted", [0, 1])
def test_a_gradient_of_one_input_alone(wanted: int) -> None:
    tensors = [*core.inputs(CASE, torch.float32)]
    both = gradients(attention(CASE)("native"), tensors)

    def run(x: Tensor) -> Tensor:
        given = [tensors[0], x] if wanted else [x, tensors[1]]
        return attention(CASE)("native")(*given)

    alone = gradients(run, [tensors[wanted]])
    assert torch.equal(alone[1], both[1 + wanted])


def test_gradients_can_be_differentiated(isa: int) -> None:
    if isa == native_library.BFLOAT16:
        pytest.skip("the definition is differentiated, which rounds elsewhere with bfloat16")
    tensors = [*core.inputs(CASE, torch.float32)]

    def twice(backend: Backend) -> list[Tensor]:
        def slope(*inputs: Tensor) -> Tensor:
            y = attention(CASE)(backend)(*inputs)
            return torch.autograd.grad(y.square().sum(), inputs, create_graph=True)[0]

        return gradients(slope, tensors)

    for ours, theirs in zip(twice("native"), twice("reference"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_nothing_is_read_or_written_outside() -> None:
    """A map between others, in one tensor; a gradient that is a view."""
    wide = torch.full((3, 16, 24, 120), float("nan"))
    qkv, table = core.inputs(CASE, torch.float32, images=1)
    wide[1:2] = qkv.view(1, 16, 24, 120)
    qkv = qkv.requires_grad_()
    inside = wide[1:2].requires_grad_()
    dy = torch.randn(1, 16, 24, 40)
    expanded = torch.full((2, 1, 16, 24, 41), float("nan"))
    expanded[0, ..., :40] = dy
    run = attention(CASE)("native")
    (wanted,) = torch.autograd.grad(run(qkv, table), qkv, dy.to(run(qkv, table).dtype))
    y = run(inside, table)
    (got,) = torch.autograd.grad(y, inside, expanded[0, ..., :40].to(y.dtype))
    assert torch.equal(got, wanted)


def test_no_images_have_no_gradients() -> None:
    qkv, table = core.inputs(CASE, torch.float32, images=0)
    _, dqkv, dtable = gradients(attention(CASE)("native"), [qkv, table])
    assert dqkv.shape == qkv.shape
    assert torch.equal(dtable, torch.zeros_like(table))


def test_auto_takes_it_also_for_gradients() -> None:
    qkv, table = core.inputs(CASE, torch.float32)
    y = attention(CASE)("auto")(qkv.requires_grad_(), table)
    assert "WindowAttention" in type(y.grad_fn).__name__
