"""The Triton paths of the fused linear layers against their definition in float64."""

from __future__ import annotations

from collections.abc import Callable

import interpreted
import pytest
import torch
from exactness import assert_as_exact_as, gradients
from fused_cases import EPS, Case, Given, draw, formula, ops, ours, taken, with_names
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from restore.kernels.norm_linear import norm_linear

pytestmark = interpreted.MARKS

dtypes = pytest.mark.parametrize("dtype", interpreted.DTYPES, ids=str)
SMALL = Case((2, 3, 4, 5), 7)
CASES = [
    SMALL,
    Case((70, 60), 33),  # tokens and hidden channels in two programs and two steps
    Case((1, 130, 16), 48, norm_bias=False),
    Case((33, 35), 90, norm=False, norm_bias=False),
    Case((2, 48), 17, bias=False),
    Case((3, 180), 40),
    Case((3, 210), 20),
    Case((2, 308), 24),
    Case((3,), 6, norm=False, norm_bias=False, bias=False),
]


def triton(given: Given, op: str) -> Tensor:
    return ours(given, op, "triton")


def reference(given: Given, op: str) -> Tensor:
    return ours(given, op, "reference")


def scaled(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """With weights that keep the size of what goes through them, as in networks."""
    weights = ("fc1_weight", "fc2_weight")
    return {name: t / t.shape[-1] ** 0.5 if name in weights else t for name, t in given.items()}


@dtypes
@pytest.mark.parametrize("case", CASES, ids=str)
@ops
def test_outputs_and_gradients(op: str, case: Case, dtype: torch.dtype) -> None:
    given = taken(op, scaled(draw(case, dtype)))
    names = list(given)
    interpreted.assert_exact(
        with_names(names, lambda t: triton(t, op)),
        with_names(names, lambda t: reference(t, op)),
        list(given.values()),
    )


@dtypes
def test_values_far_from_zero(dtype: torch.dtype) -> None:
    """Whose mean, rounded, would shift every channel."""
    given = taken("norm_linear", scaled(draw(Case((9, 60), 20), dtype)))
    given["x"] = given["x"] + 60
    names = list(given)
    interpreted.assert_exact(
        with_names(names, lambda t: triton(t, "norm_linear")),
        with_names(names, lambda t: reference(t, "norm_linear")),
        list(given.values()),
    )


@dtypes
def test_gelu_is_exact_over_all_that_it_may_see(dtype: torch.dtype) -> None:
    x = torch.linspace(-9, 9, 4096).view(-1, 16).to(interpreted.DEVICE, dtype)
    one = torch.eye(16, dtype=dtype, device=interpreted.DEVICE)
    y = norm_linear(x, None, None, one, None, gelu=True, backend="triton").double()
    x = x.double()
    truth = x * torch.special.ndtr(x)
    # of the result's rounding, and of 1 + erf, in float32, times x
    allowed = truth.abs() * torch.finfo(dtype).eps / 2 + x.abs() * 3e-7 + torch.finfo(dtype).tiny
    assert bool(((y - truth).abs() <= allowed).all())


@dtypes
@ops
def test_strides_change_nothing(op: str, dtype: torch.dtype) -> None:
    given = place(scaled(draw(Case((2, 4, 5, 12), 20), dtype)))
    y = triton(given, op)
    whole = torch.cat([given["x"], given["x"] + 1], dim=-1)
    for x in (
        whole[..., :12],
        whole.chunk(2, dim=-1)[1] - 1,
        given["x"].permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0),
        torch.cat([given["x"], given["x"]], dim=2)[:, :, :5],
    ):
        got = triton({**given, "x": x}, op)
        assert got.is_contiguous()
        torch.testing.assert_close(got, y, rtol=0, atol=1e-5 if dtype == torch.float32 else 2e-2)


@ops
def test_strided_parameters(op: str) -> None:
    """Such as columns of a larger one."""
    given = place(taken(op, scaled(draw(SMALL, torch.float32))))
    names = list(given)
    function = with_names(names, lambda t: triton(t, op))
    y = function(*given.values())
    wide = [torch.stack([t, t + 1], dim=-1)[..., 0] for t in given.values()]
    assert not any(t.is_contiguous() for t in wide)
    assert torch.equal(function(*wide), y)
    wanted = gradients(function, list(given.values()))
    strided = gradients(
        lambda *tensors: function(*(torch.stack([t, t + 1], dim=-1)[..., 0] for t in tensors)),
        list(given.values()),
    )
    for a, b in zip(strided, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def place(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.to(interpreted.DEVICE) for name, t in given.items()}


@ops
def test_what_is_given_is_left_alone(op: str) -> None:
    given = place(scaled(draw(SMALL, torch.float32)))
    before = {name: t.clone() for name, t in given.items()}
    names = list(taken(op, given))
    grads = gradients(with_names(names, lambda t: triton(t, op)), [given[n] for n in names])
    assert all(bool(torch.isfinite(g).all()) for g in grads)
    assert all(torch.equal(given[name], before[name]) for name in given)


@ops
def test_no_tokens_give_no_tokens(op: str) -> None:
    given = taken(op, scaled(draw(Case((2, 0, 5), 7), torch.float32)))
    names = list(given)
    y, *grads = gradients(with_names(names, lambda t: triton(t, op)), list(place(given).values()))
    assert y.shape[:-1] == (2, 0)
    for grad, name in zip(grads, names, strict=True):
        assert grad.shape == given[name].shape
        assert not grad.any()


@ops
def test_autocast(op: str) -> None:
    """Products in half precision between a residual stream and parameters in float32."""
    given = place(taken(op, scaled(draw(Case((2, 5, 36), 40), torch.float32))))
    names, tensors = list(given), list(given.values())
    half = torch.bfloat16 if interpreted.ON_GPU else torch.float16

    def lowered(function: Callable[[Given, str], Tensor]) -> Callable[..., Tensor]:
        def call(*values: Tensor) -> Tensor:
            with torch.autocast(interpreted.DEVICE.type, half):
                return with_names(names, lambda t: function(t, op))(*values)

        return call

    truth = gradients(with_names(names, lambda t: formula(t, op)), [t.double() for t in tensors])
    stock = gradients(lowered(reference), tensors)
    got = gradients(lowered(triton), tensors)
    assert got[0].dtype == (torch.float32 if "residual" in op else half)
    for one, result, true in zip(stock, got, truth, strict=True):
        assert_as_exact_as(one, result, true)


def trace(
    op: str, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], Callable[..., Tensor]]:
    """Tensors that want gradients, and the op of them."""
    given = place(taken(op, scaled(draw(SMALL, dtype))))
    tensors = [t.requires_grad_() for t in given.values()]
    return tensors, with_names(list(given), lambda t: triton(t, op))


@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
@ops
def test_compiled(op: str) -> None:
    tensors, function = trace(op)
    wanted = gradients(function, tensors)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    for got, true in zip(gradients(compiled, tensors), wanted, strict=True):
        torch.testing.assert_close(got, true)


@ops
def test_checkpointed(op: str) -> None:
    tensors, function = trace(op)
    wanted = gradients(function, tensors)
    again = gradients(lambda *t: checkpoint(function, *t, use_reentrant=False), tensors)
    assert all(torch.equal(a, b) for a, b in zip(again, wanted, strict=True))


@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
@ops
def test_operators_are_registered_as_they_behave(op: str) -> None:
    name = op.split()[0]
    given = place(scaled(draw(SMALL, torch.float32)))
    for t in given.values():
        t.requires_grad_()
    x, norm = given["x"], (given["norm_weight"], given["norm_bias"])
    fc1, fc2 = (given["fc1_weight"], given["fc1_bias"]), (given["fc2_weight"], given["fc2_bias"])
    arguments = {
        "norm_linear": (x, *norm, *fc1, EPS, "gelu" in op),
        "linear_residual": (given["y"], *fc2, x),
        "mlp": (x, *norm, *fc1, *fc2, EPS, "residual" in op),
    }[name]
    triton(given, op)  # registers them
    torch.library.opcheck(getattr(torch.ops.restore, name).default, arguments)


@ops
def test_gradients_save_what_came_in_alone(op: str) -> None:
    tensors, function = trace(op)
    saved: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        function(*tensors)
    mine = {t.data_ptr() for t in tensors}
    assert saved
    assert all(t.data_ptr() in mine for t in saved)
