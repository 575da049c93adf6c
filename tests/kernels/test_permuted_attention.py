"""Attention to 2 x 2 cells against loops over windows and heads, its fast path against that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from exactness import assert_as_exact_as, gradients, stacked
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from restore.kernels import dispatch, permuted_attention_torch
from restore.kernels.dispatch import Backend, BackendUnavailable
from restore.kernels.permuted_attention import permuted_attention
from restore.kernels.windows import aligned_position_index, cell_shift_mask


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
    Case((8, 12), (4, 4), (0, 0), 2, 6),  # two heads to two pixels each
    Case((8, 12), (4, 4), (2, 2), 6, 6),  # heads of two thirds of a pixel's channels
    Case((12, 6), (6, 6), (3, 3), 3, 4),  # the shift cuts cells
    Case((6, 6), (6, 6), (3, 3), 1, 4),  # one window that is all four pieces
    Case((4, 8), (2, 2), (1, 1), 2, 2),  # one cell a window
    Case((8, 12), (4, 6), (1, 4), 2, 4),
    Case((8, 4), (8, 4), (0, 1), 4, 3),
    Case((4, 12), (4, 6), (2, 0), 2, 2),
    Case((22, 44), (22, 22), (11, 11), 2, 2),
]
# some pixels may see no cell, so that all their logits are near -100, where float32 is coarse
BLIND = [Case((8, 12), (4, 6), (1, 5), 2, 4), Case((8, 4), (8, 2), (0, 1), 4, 3)]
cases = pytest.mark.parametrize("case", CASES, ids=str)
backends = pytest.mark.parametrize("backend", ["reference", "torch"])


def inputs(
    case: Case, dtype: torch.dtype = torch.float64, images: int = 2, seed: int = 0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    (h, w), (wh, ww), c = case.map, case.window, case.heads * case.head_dim
    shapes = [(images, h, w, c), (images, h, w, c // 2), ((wh - 1) * (ww - 1), case.heads)]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [tensor.to(dtype) for tensor in drawn]


def naive(q: Tensor, kv: Tensor, table: Tensor, case: Case, scale: float | None = None) -> Tensor:
    """The docstring's formula, a window and a head at a time, without rolling the map."""
    _, h, w, c = q.shape
    (wh, ww), (sy, sx), d = case.window, case.shift, case.head_dim
    scale = d**-0.5 if scale is None else scale
    pixels = [(y, x) for y in range(wh) for x in range(ww)]
    corners = [(y, x) for y in range(0, wh, 2) for x in range(0, ww, 2)]  # of the cells
    row = ww - 1
    offset = [
        [(y // 2 - i // 2 + wh // 2 - 1) * row + x // 2 - j // 2 + ww // 2 - 1 for i, j in corners]
        for y, x in pixels
    ]
    biases = table[torch.tensor(offset)]  # [N, M, heads]
    found = torch.zeros_like(q)
    for top in range(sy, h + sy, wh):
        for left in range(sx, w + sx, ww):
            rows = [(top + y) % h for y, _ in pixels]
            cols = [(left + x) % w for _, x in pixels]
            # a cell that the border cuts lies beyond it
            piece = [(top + y >= h, left + x >= w) for y, x in pixels]
            cell_piece = [(top + i + 1 >= h, left + j + 1 >= w) for i, j in corners]
            mask = torch.tensor([[0.0 if p == o else -100.0 for o in cell_piece] for p in piece])
            cells = torch.cat(
                [
                    kv[:, [(top + i + dy) % h for i, _ in corners]][
                        :, range(len(corners)), [(left + j + dx) % w for _, j in corners]
                    ].unflatten(-1, (2, -1))
                    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1))
                ],
                dim=-1,
            )  # [B, M, 2, C]
            queries = q[:, rows, cols]
            for head in range(case.heads):
                here = slice(head * d, (head + 1) * d)
                logits = scale * queries[..., here] @ cells[:, :, 0, here].transpose(1, 2)
                logits = logits + biases[..., head] + mask
                weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
                found[:, rows, cols, here] = weights @ cells[:, :, 1, here]
    assert c == d * case.heads
    return found


def ours(case: Case, backend: Backend, scale: float | None = None) -> Callable[..., Tensor]:
    return lambda q, kv, table: permuted_attention(
        q, kv, table, case.window, case.shift, num_heads=case.heads, scale=scale, backend=backend
    )


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("case", CASES + BLIND, ids=str)
def test_the_definition_is_the_formula(case: Case, scale: float | None) -> None:
    tensors = inputs(case)
    wanted = gradients(lambda *given: naive(*given, case, scale), tensors)
    got = gradients(ours(case, "reference", scale), tensors)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@cases
def test_the_torch_path_is_as_exact_as_the_definition(case: Case, dtype: torch.dtype) -> None:
    draws = [inputs(case, dtype, seed=seed) for seed in range(5)]
    exact = [[tensor.double() for tensor in tensors] for tensors in draws]
    truth = stacked(ours(case, "reference"), exact)
    plain = stacked(ours(case, "reference"), draws)
    got = stacked(ours(case, "torch"), draws)
    for torch_does, ours_is, true in zip(plain, got, truth, strict=True):
        assert_as_exact_as(torch_does, ours_is, true)


@backends
@cases
def test_strides_change_nothing(case: Case, backend: Backend) -> None:
    """Maps with channels first in memory, as convolutions may leave them."""
    q, kv, table = inputs(case, torch.float32)
    plain = ours(case, backend)(q, kv, table)
    first = [x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for x in (q, kv)]
    assert not first[0].is_contiguous()
    kept = [x.clone() for x in first]
    torch.testing.assert_close(ours(case, backend)(*first, table), plain, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(one, other) for one, other in zip(first, kept, strict=True))


@given(data=st.data())
def test_any_window_and_shift(data: st.DataObject) -> None:
    window = (2 * data.draw(st.integers(1, 3)), 2 * data.draw(st.integers(1, 3)))
    count = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    shift = tuple(data.draw(st.integers(0, side - 1)) for side in window)
    case = Case((window[0] * count[0], window[1] * count[1]), window, (shift[0], shift[1]), 2, 4)
    tensors = inputs(case, images=1)
    truth = naive(*tensors, case)
    torch.testing.assert_close(ours(case, "auto")(*tensors), truth, rtol=1e-12, atol=1e-12)
    q, kv, table = tensors
    fast = permuted_attention_torch.forward(
        q, kv, table, case.window, case.shift, num_heads=2, scale=0.5
    )
    torch.testing.assert_close(fast, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shift", [(0, 0), (1, 2)], ids=str)
def test_gradcheck(shift: tuple[int, int]) -> None:
    case = Case((4, 4), (2, 4), shift, 1, 4)
    tensors = [tensor.requires_grad_() for tensor in inputs(case, images=1)]
    assert torch.autograd.gradcheck(ours(case, "auto"), tensors)


@backends
def test_pixels_of_other_pieces_do_not_show(backend: Backend) -> None:
    case = Case((12, 12), (6, 6), (3, 3), 2, 4)
    q, kv, table = inputs(case, torch.float32, images=1)
    y = ours(case, backend)(q, kv, table)
    changed = kv.clone()
    changed[:, :3] += 1.0  # the roll puts these rows behind the last three
    other = ours(case, backend)(q, changed, table)
    # row 11 shares a cell with row 0, so rows 9 and 10 see less, but never the other end
    assert torch.equal(y[:, 3:], other[:, 3:])
    assert not torch.equal(y[:, :3], other[:, :3])


def test_the_published_window_of_22_is_cut_between_its_fifth_and_sixth_cell() -> None:
    mask = cell_shift_mask(44, 22, (22, 22), (11, 0))
    assert mask.shape == (2, 484, 121)
    assert not mask[0].any()
    seen = ~mask[1].view(22, 22, 11, 11)[:, 0, :, 0]  # [rows of pixels, rows of cells]
    assert torch.equal(seen[:11], (torch.arange(11) < 5).expand(11, 11))
    assert torch.equal(seen[11:], (torch.arange(11) >= 5).expand(11, 11))


def test_the_pixels_of_a_cell_share_its_rows_of_the_table() -> None:
    index = aligned_position_index((6, 4))
    assert index.dtype == torch.int64
    assert index.shape == (24, 6)
    assert sorted(set(index.flatten().tolist())) == list(range(5 * 3))
    by_cell = index.view(3, 2, 2, 2, 6)
    assert torch.equal(by_cell, by_cell[:, :1, :, :1].expand_as(by_cell))
    own = by_cell[:, 0, :, 0].reshape(6, 6).diagonal()
    assert own.tolist() == [(3 - 1) * 3 + 2 - 1] * 6


@backends
def test_large_logits_do_not_overflow(backend: Backend) -> None:
    case = Case((4, 4), (4, 4), (2, 2), 1, 4)
    q, kv, table = inputs(case, torch.float32)
    assert bool(torch.isfinite(ours(case, backend)(q * 1000, kv, table)).all())


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_the_table_may_be_more_exact_than_the_map(backend: Backend) -> None:
    """As under autocast, where parameters stay float32."""
    case = CASES[1]
    q, kv, table = inputs(case, torch.bfloat16)
    y = ours(case, backend)(q, kv, table.float())
    assert y.dtype == torch.bfloat16
    assert bool(torch.isfinite(y).all())


@pytest.mark.parametrize(
    ("dtype", "taken"),
    [(torch.float64, "reference"), (torch.float32, "torch")],
    ids=["double", "single"],
)
def test_what_auto_takes(
    dtype: torch.dtype, taken: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without kernels."""
    monkeypatch.setattr(dispatch, "AUTO", ("torch",))
    case = CASES[1]
    tensors = inputs(case, dtype)
    assert torch.equal(ours(case, "auto")(*tensors), ours(case, taken)(*tensors))


def test_a_named_backend_says_why_it_cannot_run() -> None:
    case = CASES[0]
    with pytest.raises(
        BackendUnavailable,
        match=r"permuted_attention: backend='torch' cannot run here: float64 runs the definition",
    ):
        ours(case, "torch")(*inputs(case))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": (8, 8, 8)}, r"q is \(8, 8, 8\); expected \[B, H, W, C\], C a multiple of 4"),
        ({"q": (1, 8, 8, 6)}, r"q is \(1, 8, 8, 6\); expected"),
        ({"kv": (1, 8, 8, 8)}, r"kv is \(1, 8, 8, 8\); q \(1, 8, 8, 8\) needs \(1, 8, 8, 4\)"),
        ({"kv": (1, 8, 4, 4)}, r"kv is \(1, 8, 4, 4\); q .* needs \(1, 8, 8, 4\)"),
        ({"window": (3, 4)}, r"window_size is \(3, 4\); expected two even numbers"),
        ({"window": (4, 0)}, r"window_size is \(4, 0\); expected two even numbers"),
        ({"window": (4, 6)}, r"window_size \(4, 6\) does not divide the map \(8, 8\)"),
        ({"shift": (4, 0)}, r"shift \(4, 0\) is not in 0 <= shift < \(4, 4\)"),
        ({"shift": (0, -1)}, r"shift \(0, -1\) is not in"),
        ({"heads": 3}, r"num_heads=3 does not divide C=8"),
        ({"heads": 0}, r"num_heads=0 does not divide C=8"),
        ({"table": (49, 2)}, r"bias_table is \(49, 2\); .* with 2 heads needs \(9, 2\)"),
        ({"table": (9, 1)}, r"bias_table is \(9, 1\); .* needs \(9, 2\)"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told(change: dict[str, tuple[int, ...]], message: str) -> None:
    args: dict[str, Any] = {
        "q": (1, 8, 8, 8),
        "kv": (1, 8, 8, 4),
        "table": (9, 2),
        "window": (4, 4),
        "shift": (0, 0),
        "heads": 2,
        **change,
    }
    with pytest.raises(ValueError, match=f"permuted_attention: {message}"):
        permuted_attention(
            torch.zeros(args["q"]),
            torch.zeros(args["kv"]),
            torch.zeros(args["table"]),
            args["window"],
            args["shift"],
            num_heads=args["heads"],
        )
