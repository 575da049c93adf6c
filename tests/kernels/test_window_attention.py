"""Window attention against loops over windows and heads, and its fast path against that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from exactness import assert_as_exact_as
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from restore.kernels import dispatch, reference, window_attention_torch
from restore.kernels.dispatch import Backend, BackendUnavailable
from restore.kernels.window_attention import window_attention


@dataclass(frozen=True)
class Case:
    map: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]
    heads: int
    head_dim: int

    def __str__(self) -> str:
        h, w = self.map
        return f"{h}x{w} by {self.window} shift {self.shift} {self.heads}x{self.head_dim}"


CASES = [
    Case((8, 12), (4, 4), (0, 0), 2, 5),
    Case((8, 12), (4, 4), (2, 2), 3, 10),
    Case((4, 4), (4, 4), (2, 2), 1, 5),  # one window that is all four pieces
    Case((14, 7), (7, 7), (3, 3), 2, 30),
    Case((8, 16), (8, 8), (4, 4), 2, 10),
    Case((6, 8), (2, 4), (1, 2), 2, 5),
    Case((8, 6), (8, 2), (0, 1), 2, 5),  # stripes as high as the map
    Case((6, 8), (3, 8), (1, 0), 2, 5),  # stripes as wide as the map
    Case((8, 8), (4, 4), (0, 3), 2, 5),
    Case((8, 8), (4, 4), (1, 0), 2, 5),
    Case((3, 5), (1, 1), (0, 0), 2, 5),
    Case((1, 8), (1, 4), (0, 2), 1, 10),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def inputs(
    case: Case, dtype: torch.dtype = torch.float64, images: int = 2, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    (h, w), (wh, ww) = case.map, case.window
    qkv = torch.randn(
        images, h, w, 3 * case.heads * case.head_dim, generator=generator, dtype=torch.float64
    )
    table = torch.randn(
        (2 * wh - 1) * (2 * ww - 1), case.heads, generator=generator, dtype=torch.float64
    )
    return qkv.to(dtype), table.to(dtype)


def naive(qkv: Tensor, table: Tensor, case: Case, scale: float | None = None) -> Tensor:
    """The docstring's formula, a window and a head at a time, without rolling the map."""
    b, h, w, c3 = qkv.shape
    (wh, ww), (sy, sx), d = case.window, case.shift, case.head_dim
    scale = d**-0.5 if scale is None else scale
    c = c3 // 3
    y = torch.zeros(b, h, w, c, dtype=qkv.dtype)
    for top in range(0, h, wh):
        for left in range(0, w, ww):
            inside = [(dy, dx) for dy in range(wh) for dx in range(ww)]
            rolled = [(top + dy + sy, left + dx + sx) for dy, dx in inside]
            rows = [place[0] % h for place in rolled]
            cols = [place[1] % w for place in rolled]
            piece = [(place[0] >= h, place[1] >= w) for place in rolled]
            mask = torch.tensor(
                [[0.0 if p == q else -100.0 for q in piece] for p in piece], dtype=qkv.dtype
            )
            offset = [
                [(p[0] - q[0] + wh - 1) * (2 * ww - 1) + p[1] - q[1] + ww - 1 for q in inside]
                for p in inside
            ]
            for head in range(case.heads):
                q, k, v = (
                    qkv[:, rows, cols, part * c + head * d : part * c + (head + 1) * d]
                    for part in range(3)
                )
                logits = scale * torch.einsum("bad,bkd->bak", q, k)
                logits = logits + table[:, head][torch.tensor(offset)] + mask
                weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
                y[:, rows, cols, head * d : (head + 1) * d] = weights @ v
    return y


def gradients(
    function: Callable[[Tensor, Tensor], Tensor], qkv: Tensor, table: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and the gradients of a fixed weighted sum of it with respect to both inputs."""
    qkv, table = qkv.clone().requires_grad_(), table.clone().requires_grad_()
    y = function(qkv, table)
    weights = torch.randn(
        y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).to(y.dtype)
    gq, gt = torch.autograd.grad((y * weights).sum(), (qkv, table))
    return y.detach(), gq, gt


def ours(
    case: Case, backend: Backend, scale: float | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda qkv, table: window_attention(
        qkv, table, case.window, case.shift, num_heads=case.heads, scale=scale, backend=backend
    )


@pytest.mark.parametrize("scale", [None, 0.3])
@cases
def test_the_definition_is_the_formula(case: Case, scale: float | None) -> None:
    qkv, table = inputs(case)
    wanted = gradients(lambda q, t: naive(q, t, case, scale), qkv, table)
    got = gradients(ours(case, "reference", scale), qkv, table)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@cases
def test_the_torch_path_is_as_exact_as_the_definition(case: Case, dtype: torch.dtype) -> None:
    qkv, table = inputs(case, dtype)
    truth = gradients(ours(case, "reference"), qkv.double(), table.double())
    plain = gradients(ours(case, "reference"), qkv, table)
    got = gradients(ours(case, "torch"), qkv, table)
    for torch_does, ours_is, true in zip(plain, got, truth, strict=True):
        assert_as_exact_as(torch_does, ours_is, true)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@cases
def test_strides_change_nothing(case: Case, backend: Backend) -> None:
    """Halves of the channels of a wider projection are read in place."""
    (h, w), c = case.map, case.heads * case.head_dim
    wide = torch.randn(2, h, w, 3, 2 * c, generator=torch.Generator().manual_seed(3))
    _, table = inputs(case, torch.float32)
    for half in wide.chunk(2, dim=-1):
        assert not half.is_contiguous()
        before = half.clone()
        strided = ours(case, backend)(half, table)
        assert torch.equal(strided, ours(case, backend)(half.contiguous(), table))
        flat = half.reshape(2, h, w, 3 * c)
        assert torch.equal(strided, ours(case, backend)(flat, table))
        assert torch.equal(half, before)


@given(data=st.data())
def test_any_window_and_shift(data: st.DataObject) -> None:
    window = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
    count = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    shift = tuple(data.draw(st.integers(0, side - 1)) for side in window)
    case = Case((window[0] * count[0], window[1] * count[1]), window, (shift[0], shift[1]), 2, 3)
    qkv, table = inputs(case, images=1)
    truth = naive(qkv, table, case)
    torch.testing.assert_close(ours(case, "auto")(qkv, table), truth, rtol=1e-12, atol=1e-12)
    fast = window_attention_torch.forward(
        qkv.unflatten(-1, (3, -1)), table, case.window, case.shift, case.heads, 3**-0.5
    )
    torch.testing.assert_close(fast, truth, rtol=1e-12, atol=1e-12)


@cases
def test_a_few_queries_at_a_time_change_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_attention_torch, "LOGIT_BYTES", 0)
    monkeypatch.setattr(window_attention_torch, "FEWEST_QUERIES", 3)
    scale = case.head_dim**-0.5

    def fast(qkv: Tensor, table: Tensor) -> Tensor:
        qkv = qkv.unflatten(-1, (3, -1))
        return window_attention_torch.forward(
            qkv, table, case.window, case.shift, case.heads, scale
        )

    qkv, table = inputs(case)
    wanted = gradients(ours(case, "reference"), qkv, table)
    for a, b in zip(gradients(fast, qkv, table), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_long_windows_take_memory_as_the_map_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """All biases of a stripe of 1024 x 4 pixels would take 64 MiB a head."""
    biases: list[Tensor] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, scale: float) -> Tensor:
        biases.append(attn_mask)
        return torch.zeros_like(q)

    monkeypatch.setattr(window_attention_torch, "scaled_dot_product_attention", attend)
    monkeypatch.setattr(window_attention_torch, "LOGIT_BYTES", 2**20)
    case = Case((1024, 8), (1024, 4), (0, 2), 2, 1)
    ours(case, "torch")(*inputs(case, torch.float32, images=1))
    assert len(biases) == 2 * 1024 * 4 / window_attention_torch.FEWEST_QUERIES
    assert all(bias.shape == (1, 2, window_attention_torch.FEWEST_QUERIES, 4096) for bias in biases)


def test_windows_of_usual_size_are_one_call_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, scale: float) -> Tensor:
        calls.append(q.shape[2])
        return q

    monkeypatch.setattr(window_attention_torch, "scaled_dot_product_attention", attend)
    case = Case((512, 512), (8, 8), (4, 4), 6, 1)
    ours(case, "torch")(*inputs(case, torch.float32, images=1))
    assert calls == [64] * 4


@pytest.mark.parametrize("shift", [(0, 0), (1, 2)], ids=str)
def test_gradcheck(shift: tuple[int, int]) -> None:
    case = Case((4, 4), (2, 4), shift, 1, 2)
    qkv, table = inputs(case, images=1)
    assert torch.autograd.gradcheck(
        ours(case, "auto"), (qkv.requires_grad_(), table.requires_grad_())
    )


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_pixels_of_other_pieces_do_not_show(backend: Backend) -> None:
    case = Case((8, 8), (4, 4), (2, 2), 1, 4)
    qkv, table = inputs(case, torch.float32, images=1)
    y = ours(case, backend)(qkv, table)
    changed = qkv.clone()
    changed[:, :2] += 1.0  # the roll puts these rows beside the last two
    other = ours(case, backend)(changed, table)
    assert torch.equal(y[:, 2:], other[:, 2:])
    assert not torch.equal(y[:, :2], other[:, :2])


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_large_logits_do_not_overflow(backend: Backend) -> None:
    case = Case((4, 4), (4, 4), (2, 2), 1, 4)
    qkv, table = inputs(case, torch.float32)
    assert bool(torch.isfinite(ours(case, backend)(qkv * 100, table)).all())


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_the_table_may_be_more_exact_than_the_map(backend: Backend) -> None:
    """As under autocast, where parameters stay float32."""
    case = CASES[1]
    qkv, table = inputs(case, torch.bfloat16)
    y = ours(case, backend)(qkv, table.float())
    assert y.dtype == torch.bfloat16
    assert bool(torch.isfinite(y).all())


def test_auto_takes_the_definition_for_float64() -> None:
    case = CASES[1]
    qkv, table = inputs(case)
    assert torch.equal(ours(case, "auto")(qkv, table), ours(case, "reference")(qkv, table))


def test_auto_takes_the_torch_path_for_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without kernels."""
    monkeypatch.setattr(dispatch, "AUTO", ("torch",))
    case = CASES[1]
    qkv, table = inputs(case, torch.float32)
    assert torch.equal(ours(case, "auto")(qkv, table), ours(case, "torch")(qkv, table))


def test_a_named_backend_says_why_it_cannot_run() -> None:
    case = CASES[0]
    with pytest.raises(
        BackendUnavailable,
        match=r"window_attention: backend='torch' cannot run here: float64 runs the definition",
    ):
        ours(case, "torch")(*inputs(case))


def test_an_unknown_backend_is_refused() -> None:
    case = CASES[0]
    with pytest.raises(ValueError, match=r"backend is 'tritn'; expected one of .*'reference'"):
        ours(case, "tritn")(*inputs(case))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qkv": (1, 8, 8, 10)}, r"qkv is \(1, 8, 8, 10\); expected \[B, H, W, 3C\]"),
        ({"qkv": (8, 8, 12)}, r"qkv is \(8, 8, 12\); expected"),
        ({"qkv": (1, 8, 8, 2, 4)}, r"qkv is \(1, 8, 8, 2, 4\); expected"),
        ({"window": (3, 4)}, r"window_size \(3, 4\) does not divide the map \(8, 8\)"),
        ({"window": (4, 16)}, r"window_size \(4, 16\) does not divide the map \(8, 8\)"),
        ({"window": (0, 4)}, r"window_size \(0, 4\) does not divide"),
        ({"shift": (4, 0)}, r"shift \(4, 0\) is not in 0 <= shift < \(4, 4\)"),
        ({"shift": (0, -1)}, r"shift \(0, -1\) is not in"),
        ({"heads": 3}, r"num_heads=3 does not divide C=4"),
        ({"heads": 0}, r"num_heads=0 does not divide C=4"),
        ({"table": (48, 2)}, r"bias_table is \(48, 2\); .* with 2 heads needs \(49, 2\)"),
        ({"table": (49, 1)}, r"bias_table is \(49, 1\); .* needs \(49, 2\)"),
        ({"window": (4, 8)}, r"bias_table is \(49, 2\); window_size \(4, 8\) .* \(105, 2\)"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told(change: dict[str, tuple[int, ...]], message: str) -> None:
    args: dict[str, Any] = {
        "qkv": (1, 8, 8, 12),
        "table": (49, 2),
        "window": (4, 4),
        "shift": (0, 0),
        "heads": 2,
        **change,
    }
    with pytest.raises(ValueError, match=f"window_attention: {message}"):
        window_attention(
            torch.zeros(args["qkv"]),
            torch.zeros(args["table"]),
            args["window"],
            args["shift"],
            num_heads=args["heads"],
        )


def test_masked_logits_are_those_of_the_published_nets() -> None:
    """A pixel sees those beyond the border with a weight of e to the power of -100."""
    case = Case((1, 2), (1, 2), (0, 1), 1, 1)
    qkv = torch.zeros(1, 1, 2, 3, dtype=torch.float64)
    qkv[..., 2] = torch.tensor([0.0, 1.0])
    y = ours(case, "reference")(qkv, torch.zeros(3, 1, dtype=torch.float64))
    assert reference.MASKED == -100.0
    assert math.isclose(y[0, 0, 0, 0].item(), math.exp(-100), rel_tol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_no_images_give_none(backend: Backend) -> None:
    qkv, table = torch.empty(0, 8, 8, 3, 12), torch.zeros(49, 2)
    y = window_attention(qkv, table, (4, 4), (2, 2), num_heads=2, backend=backend)
    assert y.shape == (0, 8, 8, 12)
