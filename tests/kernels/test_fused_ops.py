"""Fused linear layers against their formulas, and against the stock layers that they stand for."""

from __future__ import annotations

import pytest
import torch
from exactness import gradients
from fused_cases import EPS, OPS, Case, Given, draw, formula, ops, ours, taken, with_names
from torch import Tensor, nn
from torch.nn import functional as F

from restore.kernels import dispatch
from restore.kernels.dispatch import BackendUnavailable
from restore.kernels.linear_residual import linear_residual
from restore.kernels.mlp import mlp
from restore.kernels.norm_linear import norm_linear

CASES = [
    Case((2, 3, 4, 5), 7),
    Case((1, 6, 16), 48, norm_bias=False),
    Case((9, 4), 4, norm=False, norm_bias=False),
    Case((4, 1), 3, bias=False),
    Case((3,), 6, norm=False, norm_bias=False, bias=False),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def stock(t: Given, op: str) -> Tensor:
    """The same from the layers of `torch.nn`."""
    x, hidden = t["x"], t["fc1_weight"].shape[0]
    c = x.shape[-1]
    norm, fc1, fc2 = nn.LayerNorm(c, EPS), nn.Linear(c, hidden), nn.Linear(hidden, c)
    for layer, name in ((norm, "norm"), (fc1, "fc1"), (fc2, "fc2")):
        layer.weight.data = t[f"{name}_weight"]
        layer.bias.data = t[f"{name}_bias"]
    if op == "linear_residual":
        return x + fc2(t["y"])
    first = fc1(norm(x))
    if op.startswith("norm_linear"):
        return F.gelu(first) if "gelu" in op else first
    return x + fc2(F.gelu(first)) if "residual" in op else fc2(F.gelu(first))


@ops
@cases
def test_the_definition_is_the_formula(case: Case, op: str) -> None:
    given = taken(op, draw(case))
    names, tensors = list(given), list(given.values())
    wanted = gradients(with_names(names, lambda t: formula(t, op)), tensors)
    got = gradients(with_names(names, lambda t: ours(t, op, "reference")), tensors)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@ops
def test_auto_is_what_stock_layers_give(
    op: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, so that a network keeps its outputs on a machine without kernels."""
    monkeypatch.setattr(dispatch, "AUTO", ("torch",))
    given = draw(Case((2, 9, 7, 20), 44), dtype)
    assert torch.equal(ours(given, op), stock(given, op))
    assert torch.equal(ours(given, op, "torch"), stock(given, op))


@ops
def test_autocast_is_that_of_stock_layers(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "AUTO", ("torch",))
    given = draw(Case((2, 9, 7, 20), 44), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, wanted = ours(given, op), stock(given, op)
    assert y.dtype == wanted.dtype
    assert torch.equal(y, wanted)


@ops
def test_strides_change_nothing(op: str) -> None:
    given = draw(Case((2, 4, 5, 12), 20), torch.float32)
    whole = given["x"].permute(0, 3, 1, 2).contiguous()  # [B, C, H, W]
    strided = whole.permute(0, 2, 3, 1)
    assert not strided.is_contiguous()
    y = ours({**given, "x": strided}, op)
    torch.testing.assert_close(y, ours(given, op), rtol=1e-5, atol=1e-5)
    assert torch.equal(whole, given["x"].permute(0, 3, 1, 2))


@ops
def test_gradcheck(op: str) -> None:
    given = taken(op, draw(Case((2, 3, 4), 5)))
    function = with_names(list(given), lambda t: ours(t, op))
    assert torch.autograd.gradcheck(function, [t.requires_grad_() for t in given.values()])


@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
def test_sizes_may_be_left_open() -> None:
    given = draw(Case((2, 6, 7, 4), 5), torch.float32)

    def all_of(x: Tensor) -> list[Tensor]:
        y = F.linear(x, given["fc1_weight"])
        return [ours({**given, "x": x, "y": y}, op) for op in OPS]

    class Net(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return all_of(x)

    sides = {1: torch.export.Dim("h", min=2), 2: torch.export.Dim("w", min=2)}
    exported = torch.export.export(Net(), (given["x"],), dynamic_shapes=(sides,))
    other = torch.randn(2, 9, 3, 4, generator=torch.Generator().manual_seed(5))
    for got, wanted in zip(exported.module()(other), all_of(other), strict=True):
        torch.testing.assert_close(got, wanted)


def test_auto_leaves_full_float32_to_cublas(monkeypatch: pytest.MonkeyPatch) -> None:
    from restore.kernels.norm_linear import choose_path

    monkeypatch.setattr(dispatch, "AUTO", ("triton", "torch"))
    can = {"triton": None, "torch": None}
    single, half = torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)
    assert choose_path("mlp", "auto", can, single) == "torch"
    assert choose_path("mlp", "triton", can, single) == "triton"
    assert choose_path("mlp", "auto", can, half) == "triton"
    with torch.autocast("cpu", torch.bfloat16):
        assert choose_path("mlp", "auto", can, single) == "triton"
    torch.set_float32_matmul_precision("high")
    try:
        assert choose_path("mlp", "auto", can, single) == "triton"
    finally:
        torch.set_float32_matmul_precision("highest")


@ops
def test_a_named_backend_says_why_it_cannot_run(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = draw(Case((2, 3, 4), 5))
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    name = op.split()[0]
    with pytest.raises(BackendUnavailable, match=f"^{name}: backend='triton' cannot run here: it"):
        ours(given, op, "triton")
    monkeypatch.setattr(dispatch, "INTERPRETED", False)
    with pytest.raises(BackendUnavailable, match="Triton is for NVIDIA GPUs and this is on cpu"):
        ours(given, op, "triton")


@pytest.mark.parametrize("op", [op for op in OPS if op != "linear_residual"])
def test_the_kernels_say_what_they_do_not_hold(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    wide = draw(Case((2, 321), 5), torch.float32)
    with pytest.raises(BackendUnavailable, match="C=321; the kernel holds at most 320 channels"):
        ours(wide, op, "triton")
    mixed = draw(Case((2, 3), 5), torch.float32)
    mixed["fc1_weight"] = mixed["fc1_weight"].half()
    with pytest.raises(BackendUnavailable, match=r"a weight is not, and no autocast is on"):
        ours(mixed, op, "triton")


def test_shapes_that_do_not_fit_are_told() -> None:
    x, weight, bias = torch.zeros(2, 4), torch.zeros(6, 4), torch.zeros(6)
    ones = torch.ones(4)
    with pytest.raises(
        ValueError, match=r"norm_linear: norm_weight is \(5,\) but x \(2, 4\) has C"
    ):
        norm_linear(x, torch.ones(5), None, weight, bias)
    with pytest.raises(ValueError, match=r"norm_linear: norm_bias is given without norm_weight"):
        norm_linear(x, None, ones, weight, bias)
    with pytest.raises(ValueError, match=r"norm_linear: weight is \(6, 4\); expected \[D, 3\]"):
        norm_linear(x[:, :3], None, None, weight, bias)
    with pytest.raises(ValueError, match=r"norm_linear: bias is \(5,\) but weight \(6, 4\) needs"):
        norm_linear(x, ones, ones, weight, bias[:5])
    with pytest.raises(ValueError, match=r"norm_linear: x is \(\); expected \[..., C\]"):
        norm_linear(torch.zeros(()), None, None, weight, bias)
    with pytest.raises(ValueError, match=r"linear_residual: x is \(3, 6\); y \(2, 4\) and weight"):
        linear_residual(x, weight, bias, torch.zeros(3, 6))
    with pytest.raises(ValueError, match=r"mlp: fc2_weight is \(4, 5\); expected \[D, 6\]"):
        mlp(x, ones, ones, weight, bias, torch.zeros(4, 5), ones, residual=True)
    with pytest.raises(ValueError, match=r"mlp: fc2_weight is \(5, 6\) but x \(2, 4\) has C=4"):
        mlp(x, ones, ones, weight, bias, torch.zeros(5, 6), torch.zeros(5), residual=True)
