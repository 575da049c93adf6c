"""Overlapping attention against loops over windows and heads, and its fast path against that."""

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
from torch import Tensor, nn

from restore.kernels import dispatch
from restore.kernels.dispatch import Backend, BackendUnavailable
from restore.kernels.overlapping_attention import _fused, overlapping_attention
from restore.kernels.windows import overlapping_position_index


@dataclass(frozen=True)
class Case:
    map: tuple[int, int]
    window: tuple[int, int]
    halo: tuple[int, int]
    heads: int
    head_dim: int

    def __str__(self) -> str:
        h, w = self.map
        return f"{h}x{w} by {self.window} halo {self.halo} {self.heads}x{self.head_dim}"

    @property
    def grown(self) -> tuple[int, int]:
        """Rows and columns that a window sees."""
        return self.window[0] + 2 * self.halo[0], self.window[1] + 2 * self.halo[1]


CASES = [
    Case((8, 12), (4, 4), (1, 1), 2, 5),
    Case((4, 4), (4, 4), (1, 1), 3, 4),  # one window, all its halo outside
    Case((16, 8), (8, 8), (2, 2), 2, 10),
    Case((8, 12), (4, 4), (0, 0), 2, 5),  # no overlap
    Case((4, 6), (2, 2), (3, 3), 2, 5),  # reaches over a whole neighbour
    Case((6, 8), (2, 4), (1, 2), 2, 5),
    Case((6, 8), (3, 2), (0, 1), 1, 7),
    Case((3, 5), (1, 1), (1, 1), 2, 5),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def inputs(
    case: Case, dtype: torch.dtype = torch.float64, images: int = 2
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    (h, w), (wh, ww), (rows, cols) = case.map, case.window, case.grown
    qkv = torch.randn(
        images, h, w, 3 * case.heads * case.head_dim, generator=generator, dtype=torch.float64
    )
    table = torch.randn(
        (wh + rows - 1) * (ww + cols - 1), case.heads, generator=generator, dtype=torch.float64
    )
    return qkv.to(dtype), table.to(dtype)


def naive(qkv: Tensor, table: Tensor, case: Case, scale: float | None = None) -> Tensor:
    """The docstring's formula, a window and a head at a time, pixel by pixel."""
    b, h, w, c3 = qkv.shape
    (wh, ww), (hh, hw), (rows, cols), d = case.window, case.halo, case.grown, case.head_dim
    scale = d**-0.5 if scale is None else scale
    c = c3 // 3
    inner = [(i, j) for i in range(wh) for j in range(ww)]
    outer = [(i, j) for i in range(rows) for j in range(cols)]
    # from query to key, the smallest at the row that the published tables have it
    offset = [
        [
            (k[0] - q[0] + wh - rows + 1) * (ww + cols - 1) + k[1] - q[1] + ww - cols + 1
            for k in outer
        ]
        for q in inner
    ]
    biases = table[torch.tensor(offset) % len(table)]  # [N, M, heads]
    nothing = torch.zeros(b, c3, dtype=qkv.dtype)
    y = torch.zeros(b, h, w, c, dtype=qkv.dtype)
    for top in range(0, h, wh):
        for left in range(0, w, ww):
            at = [(top + i - hh, left + j - hw) for i, j in outer]
            seen = [qkv[:, i, j] if 0 <= i < h and 0 <= j < w else nothing for i, j in at]
            keys = torch.stack(seen, 1)[..., c:]
            queries = torch.stack([qkv[:, top + i, left + j] for i, j in inner], 1)
            for head in range(case.heads):
                here = slice(head * d, (head + 1) * d)
                k, v = keys[..., :c][..., here], keys[..., c:][..., here]
                logits = scale * torch.einsum("bad,bkd->bak", queries[..., :c][..., here], k)
                logits = logits + biases[..., head]
                weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
                found = (weights @ v).view(b, wh, ww, d)
                y[:, top : top + wh, left : left + ww, here] = found
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
    return lambda qkv, table: overlapping_attention(
        qkv, table, case.window, case.halo, num_heads=case.heads, scale=scale, backend=backend
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


@cases
def test_without_gradients_the_torch_path_is_as_exact_too(case: Case) -> None:
    """Stock kernels differ there."""
    qkv, table = inputs(case, torch.float32)
    with torch.inference_mode():
        truth = ours(case, "reference")(qkv.double(), table.double())
        plain = ours(case, "reference")(qkv, table)
        assert_as_exact_as(plain, ours(case, "torch")(qkv, table), truth)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@cases
def test_strides_change_nothing(case: Case, backend: Backend) -> None:
    (h, w), c = case.map, case.heads * case.head_dim
    wide = torch.randn(2, h, w, 3, 2 * c, generator=torch.Generator().manual_seed(3))
    _, table = inputs(case, torch.float32)
    for half in wide.chunk(2, dim=-1):
        assert not half.is_contiguous()
        before = half.clone()
        strided = ours(case, backend)(half, table)
        assert torch.equal(strided, ours(case, backend)(half.contiguous(), table))
        assert torch.equal(strided, ours(case, backend)(half.reshape(2, h, w, 3 * c), table))
        assert torch.equal(half, before)


@given(data=st.data())
def test_any_window_and_halo(data: st.DataObject) -> None:
    window = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    count = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    halo = (data.draw(st.integers(0, 4)), data.draw(st.integers(0, 4)))
    case = Case((window[0] * count[0], window[1] * count[1]), window, halo, 2, 3)
    qkv, table = inputs(case, images=1)
    truth = naive(qkv, table, case)
    torch.testing.assert_close(ours(case, "auto")(qkv, table), truth, rtol=1e-12, atol=1e-12)
    fast = _fused(qkv.unflatten(-1, (3, -1)), table, case.window, case.halo, 3**-0.5)
    torch.testing.assert_close(fast, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("halo", [(1, 1), (0, 2)], ids=str)
def test_gradcheck(halo: tuple[int, int]) -> None:
    case = Case((4, 4), (2, 4), halo, 1, 2)
    qkv, table = inputs(case, images=1)
    assert torch.autograd.gradcheck(
        ours(case, "auto"), (qkv.requires_grad_(), table.requires_grad_())
    )


@cases
def test_every_offset_has_a_row_of_its_own(case: Case) -> None:
    """Pairs of pixels share a row where their offset is the same, and nowhere else."""
    index = overlapping_position_index(case.window, case.halo)
    _, table = inputs(case)
    (wh, ww), (rows, cols) = case.window, case.grown
    assert index.shape == (wh * ww, rows * cols)
    y = torch.arange(wh * ww)[:, None] // ww - torch.arange(rows * cols)[None, :] // cols
    x = torch.arange(wh * ww)[:, None] % ww - torch.arange(rows * cols)[None, :] % cols
    pairs = torch.stack([y.flatten(), x.flatten(), index.flatten() % len(table)], -1)
    offsets, found = pairs[:, :2].unique(dim=0), pairs.unique(dim=0)
    assert len(offsets) == len(found) == len(found[:, 2].unique()) == len(table)


def test_the_index_of_the_published_nets() -> None:
    """Windows of 16 and 24: from 880 rows before the table's end to row 640."""
    index = overlapping_position_index((16, 16), (4, 4))
    assert (index.shape, index.dtype) == ((256, 576), torch.int64)
    assert (index.min(), index.max()) == (-880, 640)
    assert index[0, 0] == -7 * 39 - 7
    assert index[16 + 2, 24 + 5] == -7 * 39 - 4  # pixel (1, 2) and key (1, 5)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_zeros_outside_the_map_take_their_share(backend: Backend) -> None:
    """One pixel and eight zeros around it: with equal logits the pixel's weight is a ninth."""
    case = Case((1, 1), (1, 1), (1, 1), 1, 4)
    qkv = torch.zeros(1, 1, 1, 12)
    qkv[..., 8:] = torch.tensor([9.0, 18.0, -9.0, 0.0])
    y = ours(case, backend)(qkv, torch.zeros(9, 1))
    torch.testing.assert_close(y[0, 0, 0], torch.tensor([1.0, 2.0, -1.0, 0.0]), rtol=1e-6, atol=0)
    table = torch.zeros(9, 1)
    table[0] = math.log(3)  # the row of a query's own pixel
    y = ours(case, backend)(qkv, table)
    wanted = torch.tensor([27 / 11, 54 / 11, -27 / 11, 0.0])
    torch.testing.assert_close(y[0, 0, 0], wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_no_pixel_beyond_the_halo_shows(backend: Backend) -> None:
    case = Case((4, 12), (4, 4), (1, 1), 2, 4)
    qkv, table = inputs(case, torch.float32, images=1)
    y = ours(case, backend)(qkv, table)
    changed = qkv.clone()
    changed[:, :, 5] += 1.0  # the second column behind the first window
    assert torch.equal(y[:, :, :4], ours(case, backend)(changed, table)[:, :, :4])
    changed = qkv.clone()
    changed[:, :, 4] += 1.0
    assert not torch.equal(y[:, :, :4], ours(case, backend)(changed, table)[:, :, :4])


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_large_logits_do_not_overflow(backend: Backend) -> None:
    qkv, table = inputs(CASES[0], torch.float32)
    assert bool(torch.isfinite(ours(CASES[0], backend)(qkv * 100, table)).all())


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_the_table_may_be_more_exact_than_the_map(backend: Backend) -> None:
    """As under autocast, where parameters stay float32."""
    qkv, table = inputs(CASES[0], torch.bfloat16)
    y = ours(CASES[0], backend)(qkv, table.float())
    assert y.dtype == torch.bfloat16
    assert bool(torch.isfinite(y).all())


@pytest.mark.parametrize(
    ("dtype", "backend"), [(torch.float64, "reference"), (torch.float32, "torch")], ids=str
)
def test_auto(dtype: torch.dtype, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without kernels."""
    monkeypatch.setattr(dispatch, "AUTO", ("torch",))
    case = CASES[0]
    qkv, table = inputs(case, dtype)
    assert torch.equal(ours(case, "auto")(qkv, table), ours(case, backend)(qkv, table))


def test_a_named_backend_says_why_it_cannot_run() -> None:
    with pytest.raises(
        BackendUnavailable,
        match=r"overlapping_attention: backend='torch' cannot run here: float64 runs",
    ):
        ours(CASES[0], "torch")(*inputs(CASES[0]))


class Net(nn.Module):
    """The definition as a module, for tracing."""

    def __init__(self, case: Case, table: Tensor) -> None:
        super().__init__()
        self.case = case
        self.table = nn.Parameter(table)

    def forward(self, qkv: Tensor) -> Tensor:
        """[B, H, W, 3C] to [B, H, W, C]."""
        return ours(self.case, "reference")(qkv, self.table)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
def test_the_definition_is_traced_for_maps_of_any_size() -> None:
    case = Case((8, 12), (4, 4), (1, 1), 2, 5)
    qkv, table = inputs(case, torch.float32, images=1)
    net = Net(case, table)
    height, width = (4 * torch.export.Dim(name, min=2, max=64) for name in ("h", "w"))
    traced = torch.export.export(net, (qkv,), dynamic_shapes={"qkv": {1: height, 2: width}})
    for size in [(8, 12), (20, 8), (8, 40)]:
        x = torch.randn(1, *size, 30, generator=torch.Generator().manual_seed(2))
        assert torch.equal(traced.module()(x), net(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qkv": (1, 8, 8, 10)}, r": qkv is \(1, 8, 8, 10\); expected \[B, H, W, 3C\]"),
        ({"qkv": (1, 8, 8, 2, 4)}, r": qkv is \(1, 8, 8, 2, 4\); expected"),
        ({"window": (3, 4)}, r": window_size \(3, 4\) does not divide the map \(8, 8\)"),
        ({"window": (0, 4)}, r": window_size \(0, 4\) does not divide"),
        ({"halo": (1, -1)}, r": halo is \(1, -1\); expected 0 or more"),
        ({"heads": 3}, r" with halo \(1, 1\): num_heads=3 does not divide C=4"),
        (
            {"table": (49, 2)},
            r" with halo \(1, 1\): bias_table is \(49, 2\); .* with 2 heads needs \(81, 2\)",
        ),
        ({"table": (81, 1)}, r" with .*: bias_table is \(81, 1\); .* needs \(81, 2\)"),
        ({"halo": (1, 2)}, r" with halo \(1, 2\): bias_table is \(81, 2\); .* \(99, 2\)"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told(change: dict[str, tuple[int, ...]], message: str) -> None:
    args: dict[str, Any] = {
        "qkv": (1, 8, 8, 12),
        "table": (81, 2),
        "window": (4, 4),
        "halo": (1, 1),
        "heads": 2,
        **change,
    }
    with pytest.raises(ValueError, match=f"overlapping_attention{message}"):
        overlapping_attention(
            torch.zeros(args["qkv"]),
            torch.zeros(args["table"]),
            args["window"],
            args["halo"],
            num_heads=args["heads"],
        )
