"""The attention branch against its formula, and against the stock layers that it stands for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from branch_cases import EPS, SMALL, Case
from exactness import assert_as_exact_as, gradients
from torch import Tensor, nn
from torch.nn import functional as F

from restore.kernels import dispatch
from restore.kernels.dispatch import BackendUnavailable
from restore.kernels.window_attention import window_attention
from restore.kernels.window_attention_branch import (
    BranchWeights,
    fused_refuses,
    refusals,
    window_attention_branch,
)

NO_NORM = ("norm_weight", "norm_bias", "vectors")
CASES = [
    SMALL,
    Case((8, 4), (4, 4), (2, 2), 1, 3, residual="other"),
    Case((4, 8), (2, 4), (0, 3), 2, 2, without=NO_NORM, residual="none"),
    Case((7, 7), (7, 7), (0, 0), 1, 5, without=("norm_bias", "vectors"), scale=0.3),
    Case((6, 4), (3, 2), (1, 1), 2, 3, without=("qkv_bias", "proj_bias"), residual="none"),
    Case((4, 4), (1, 4), (0, 2), 1, 2, without=NO_NORM[:2], residual="other", images=2),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


@cases
def test_the_definition_is_the_formula(case: Case) -> None:
    tensors = list(case.draw().values())
    wanted = gradients(case.formula, tensors)
    got = gradients(case.run("reference"), tensors)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@cases
def test_the_torch_path_is_as_exact_as_the_definition(case: Case, dtype: torch.dtype) -> None:
    tensors = list(case.draw(dtype).values())
    truth = gradients(case.run("reference"), [t.double() for t in tensors])
    plain = gradients(case.run("reference"), tensors)
    for torch_does, ours, true in zip(
        plain, gradients(case.run("torch"), tensors), truth, strict=True
    ):
        assert_as_exact_as(torch_does, ours, true)


def stock(case: Case, *tensors: Tensor) -> Tensor:
    """The same from the layers of `torch.nn`, around attention as it is chosen by itself."""
    t = dict(zip(case.draw(), tensors, strict=True))
    c = case.channels
    norm, qkv, proj = nn.LayerNorm(c, EPS), nn.Linear(c, 3 * c), nn.Linear(c, c)
    for layer, name in ((norm, "norm"), (qkv, "qkv"), (proj, "proj")):
        layer.weight.data, layer.bias.data = t[f"{name}_weight"], t[f"{name}_bias"]
    y = window_attention(
        qkv(norm(t["x"])), t["bias_table"], case.window, case.shift, num_heads=case.heads
    )
    return t["x"] + proj(y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_auto_is_what_stock_layers_give(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, so that a network keeps its outputs on a machine without kernels."""
    monkeypatch.setattr(dispatch, "AUTO", ("torch",))
    case = Case((16, 8), (8, 8), (4, 4), 6, 10, images=2)
    tensors = list(case.draw(dtype).values())
    assert torch.equal(case.run()(*tensors), stock(case, *tensors))


@pytest.mark.parametrize("residual", ["x", "none"])
def test_autocast_is_that_of_stock_layers(residual: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "AUTO", ("torch",))
    case = Case((8, 8), (4, 4), (2, 2), 2, 8, residual=residual)
    tensors = list(case.draw(torch.float32).values())
    with torch.autocast("cpu", torch.bfloat16):
        y, plain = case.run()(*tensors), stock(case, *tensors)
    assert y.dtype == (torch.float32 if residual == "x" else torch.bfloat16)
    assert torch.equal(y, plain if residual == "x" else y)


def test_gradcheck() -> None:
    case = Case((4, 2), (2, 2), (1, 0), 1, 2, without=())
    tensors = [t.requires_grad_() for t in case.draw().values()]
    assert torch.autograd.gradcheck(case.run(), tensors)


@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_exported_for_maps_of_any_size(dtype: torch.dtype) -> None:
    case = Case((8, 12), (4, 4), (2, 0), 2, 5, without=(), images=2)

    class Module(nn.Module):
        def forward(self, *tensors: Tensor) -> Tensor:
            return case.run()(*tensors)

    tensors = tuple(case.draw(dtype).values())
    rows, cols = (torch.export.Dim(name, min=2, max=64) for name in ("rows", "cols"))
    sides = ({1: 4 * rows, 2: 4 * cols}, *({} for _ in tensors[1:]))
    graph = torch.export.export(Module(), tensors, dynamic_shapes=(sides,)).module()
    for size in ((8, 20), (16, 8)):
        x = torch.randn(2, *size, case.channels).to(dtype)
        wanted = case.run("reference")(x, *tensors[1:])
        torch.testing.assert_close(graph(x, *tensors[1:]), wanted)


@pytest.mark.parametrize(
    ("dtype", "path"), [(torch.float64, "reference"), (torch.float32, "torch")]
)
def test_auto_on_a_cpu(dtype: torch.dtype, path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "AUTO", ("torch",))
    tensors = list(SMALL.draw(dtype).values())
    assert torch.equal(SMALL.run()(*tensors), SMALL.run(path)(*tensors))


def test_a_named_backend_says_why_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = list(SMALL.draw().values())
    with pytest.raises(BackendUnavailable, match="backend='torch' cannot run here: float64 runs"):
        SMALL.run("torch")(*tensors)
    monkeypatch.setattr(dispatch, "HAS_TRITON", False)
    with pytest.raises(BackendUnavailable, match="package triton is not installed"):
        SMALL.run("triton")(*tensors)


def refused(monkeypatch: pytest.MonkeyPatch, case: Case, *dtypes: torch.dtype) -> str | None:
    """Why Triton cannot run a case with a map and weights of two dtypes."""
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    x, *weights = (
        None if t is None else t.to(dtypes[at > 0])
        for at, t in enumerate([case.draw()["x"], *case.weights(case.draw())])
    )
    assert x is not None
    return refusals(x, BranchWeights(*weights), case.window)["triton"]


def test_dtypes_that_only_autocast_mixes(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = (torch.float32, torch.bfloat16)
    assert refused(monkeypatch, SMALL, torch.float16, torch.float16) is None
    assert "no autocast is on" in str(refused(monkeypatch, SMALL, *mixed))
    with torch.autocast("cpu", torch.bfloat16):
        assert refused(monkeypatch, SMALL, *mixed) is None


@pytest.mark.parametrize(
    ("case", "dtype", "why"),
    [
        (Case((8, 8), (8, 8), (0, 0), 6, 30), torch.float16, None),
        (Case((7, 7), (7, 7), (0, 0), 8, 32), torch.bfloat16, None),
        (Case((8, 8), (8, 8), (0, 0), 6, 30), torch.float32, "float32 takes twice the registers"),
        (Case((16, 16), (16, 16), (0, 0), 6, 30), torch.float16, "windows of 256 pixels"),
        (Case((8, 8), (8, 8), (0, 0), 9, 30), torch.float16, "C=270"),
        (Case((8, 8), (8, 8), (0, 0), 2, 65), torch.float16, "heads of 65"),
    ],
    ids=str,
)
def test_what_one_program_holds(case: Case, dtype: torch.dtype, why: str | None) -> None:
    given = case.draw(dtype)
    found = fused_refuses(given["x"], case.weights(given), case.window, dtype)
    assert found is None if why is None else why in str(found)


def test_a_large_image_is_no_single_program() -> None:
    """Whose numbers an int32 does not count."""
    given = Case((8, 8), (8, 8), (0, 0), 6, 30).draw(torch.float16)
    x = given["x"].expand(1, 8, 8, 180).repeat(1, 1, 1, 1)[:, :1, :1].expand(1, 4096, 4096, 180)
    weights = SMALL.weights(given)
    assert "more than 2**31" in str(fused_refuses(x, weights, (8, 8), torch.float16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": (4, 8, 10)}, r"x is \(4, 8, 10\); expected \[B, H, W, C\]"),
        ({"window": (3, 4)}, r"window_size \(3, 4\) does not divide the map \(4, 8\)"),
        ({"shift": (4, 0)}, r"shift \(4, 0\) is not in"),
        ({"heads": 3}, r"num_heads=3 does not divide C=10"),
        ({"bias_table": (48, 2)}, r"bias_table is \(48, 2\); .* needs \(49, 2\)"),
        ({"qkv_weight": (10, 30)}, r"qkv_weight is \(10, 30\); C=10 .* need \(30, 10\)"),
        ({"qkv_bias": (10,)}, r"qkv_bias is \(10,\); .* need \(30,\)"),
        ({"proj_weight": (20, 10)}, r"proj_weight is \(20, 10\); .* need \(10, 10\)"),
        ({"proj_bias": (1,)}, r"proj_bias is \(1,\); .* need \(10,\)"),
        ({"norm_weight": (9,)}, r"norm_weight is \(9,\)"),
        ({"norm_weight": None}, r"norm_bias is given without norm_weight"),
        ({"vectors": (4, 10)}, r"vectors is \(4, 10\); .* window_size \(4, 4\) need \(16, 10\)"),
        ({"residual": (1, 4, 8, 10)}, r"residual is \(1, 4, 8, 10\); expected that of x"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {**SMALL.draw()}
    for name, shape in change.items():
        given[name] = shape if name in ("window", "shift", "heads") else shaped(shape)
    with pytest.raises(ValueError, match=f"window_attention_branch: {message}"):
        window_attention_branch(
            given["x"],
            SMALL.weights(given),
            given.get("window", SMALL.window),
            given.get("shift", SMALL.shift),
            num_heads=given.get("heads", SMALL.heads),
            residual=given.get("residual"),
        )


def shaped(shape: tuple[int, ...] | None) -> Tensor | None:
    return None if shape is None else torch.zeros(shape)


def test_the_input_is_left_alone() -> None:
    given = SMALL.draw(torch.float32)
    before = {name: t.clone() for name, t in given.items()}
    SMALL.run()(*given.values())
    assert all(torch.equal(given[name], before[name]) for name in given)


def test_attention_of_equal_tokens_is_a_linear_layer() -> None:
    """Whatever the bias: all values of a window are the same."""
    case = Case((4, 4), (2, 2), (1, 1), 2, 3, residual="none")
    t = case.draw()
    t["x"] = t["x"][:, :1, :1].expand_as(t["x"])
    y = F.layer_norm(t["x"], (6,), t["norm_weight"], t["norm_bias"], EPS)
    y = F.linear(y, t["qkv_weight"][12:], t["qkv_bias"][12:])
    y = F.linear(y, t["proj_weight"], t["proj_bias"])
    torch.testing.assert_close(case.run()(*t.values()), y, rtol=1e-12, atol=1e-12)
