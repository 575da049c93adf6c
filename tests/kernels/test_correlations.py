"""Spatial and channel correlation against loops over windows, and the folded path against that."""

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

from restore.kernels.channel_correlation import channel_correlation
from restore.kernels.dispatch import Backend, BackendUnavailable
from restore.kernels.spatial_correlation import spatial_correlation


@dataclass(frozen=True)
class Case:
    map: tuple[int, int]
    window: tuple[int, int]
    reduction: tuple[int, int]
    heads: int
    head_dim: int

    def __str__(self) -> str:
        h, w = self.map
        return f"{h}x{w} by {self.window} reduced {self.reduction} {self.heads}x{self.head_dim}"


CASES = [
    Case((8, 12), (4, 4), (1, 1), 2, 5),
    Case((8, 8), (8, 8), (2, 2), 3, 5),
    Case((16, 16), (16, 16), (4, 4), 2, 10),
    Case((14, 14), (7, 7), (7, 7), 2, 5),
    Case((12, 8), (6, 4), (3, 2), 2, 30),
    Case((6, 8), (3, 8), (1, 4), 1, 5),
    Case((2, 3), (1, 1), (1, 1), 2, 5),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def inputs(
    case: Case, dtype: torch.dtype = torch.float64, images: int = 2, seed: int = 0
) -> list[Tensor]:
    """qv, weight, bias and position_bias."""
    generator = torch.Generator().manual_seed(seed)
    (h, w), pixels = case.map, case.window[0] * case.window[1]
    block = case.reduction[0] * case.reduction[1]
    shapes = [
        (images, h, w, 2 * case.heads * case.head_dim),
        (1, block),
        (1,),
        (case.heads, pixels, pixels // block),
    ]
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [tensor.to(dtype) for tensor in made]


def windows_of(case: Case) -> list[tuple[list[int], list[int]]]:
    """Rows and columns of the pixels of every window, row by row."""
    (h, w), (wh, ww) = case.map, case.window
    return [
        (
            [top + dy for dy in range(wh) for _ in range(ww)],
            [left + dx for _ in range(wh) for dx in range(ww)],
        )
        for top in range(0, h, wh)
        for left in range(0, w, ww)
    ]


def naive_spatial(
    qv: Tensor, weight: Tensor, bias: Tensor, position_bias: Tensor, case: Case
) -> Tensor:
    """The docstring's formulas, a window and a head at a time."""
    b, h, w, c = qv.shape
    (_, ww), (rh, rw), d = case.window, case.reduction, case.head_dim
    y = torch.zeros(b, h, w, c // 2, dtype=qv.dtype)
    for rows, cols in windows_of(case):
        blocks: dict[tuple[int, int], list[int]] = {}
        for pixel in range(len(rows)):
            blocks.setdefault((pixel // ww // rh, pixel % ww // rw), []).append(pixel)
        for head in range(case.heads):
            q = qv[:, rows, cols, head * d : (head + 1) * d]  # [B, N, d]
            v = qv[:, rows, cols, c // 2 + head * d : c // 2 + (head + 1) * d]
            # a block's pixels come row by row, as its weights do
            r = torch.stack(
                [
                    sum((weight[0, p] * v[:, at] for p, at in enumerate(blocks[m])), bias[0])
                    for m in sorted(blocks)
                ],
                dim=1,
            )  # [B, M, d]
            correlation = torch.einsum("bad,bmd->bam", q, r) / d + position_bias[head]
            y[:, rows, cols, head * d : (head + 1) * d] = torch.einsum(
                "bam,bmd->bad", correlation, r
            )
    return y


def naive_channel(qv: Tensor, case: Case) -> Tensor:
    b, h, w, c = qv.shape
    y = torch.zeros(b, h, w, c // 2, dtype=qv.dtype)
    for rows, cols in windows_of(case):
        q, v = qv[:, rows, cols, : c // 2], qv[:, rows, cols, c // 2 :]  # [B, N, C / 2]
        s = torch.einsum("bac,bad->bcd", q, v) / len(rows)
        y[:, rows, cols] = torch.einsum("bcd,bad->bac", s, v)
    return y


SQUARED = [Case((8, 16), (8, 8), (1, 1), 6, 5), Case((32, 32), (16, 16), (2, 2), 2, 15)]


def assert_queries_exact(case: Case, bias: float, device: torch.device, backend: Backend) -> None:
    """Hold the gradient of q to twice the definition's error, by the norms of both.

    It alone is a product with sums over a whole window of r r^T, most of them of one sign where a
    bias is added to all r. Norms of several draws leave no room to luck, and none to what else a
    result may be off by, such as a unit in the last place of the largest number.
    """
    errors = []
    half = case.heads * case.head_dim
    for seed in range(3):
        tensors = [x.to(device) for x in inputs(case, torch.float32, seed=seed)]
        tensors[1] /= case.reduction[0]
        tensors[2].fill_(bias)
        truth = gradients(ours(case, "reference"), [x.double() for x in tensors])
        paths: tuple[Backend, ...] = ("reference", backend)
        found = [gradients(ours(case, path), tensors) for path in paths]
        errors.append([(got[1] - truth[1])[..., :half].norm() for got in found])
    definition, path = torch.tensor(errors).norm(dim=0)
    assert path <= 2 * definition, f"off {path / definition:.2f} times as much"


def ours(case: Case, backend: Backend) -> Callable[..., Tensor]:
    return lambda qv, weight, bias, position_bias: spatial_correlation(
        qv,
        weight,
        bias,
        position_bias,
        case.window,
        reduction=case.reduction,
        num_heads=case.heads,
        backend=backend,
    )


@cases
def test_the_spatial_definition_is_the_formula(case: Case) -> None:
    tensors = inputs(case)
    wanted = gradients(lambda qv, w, b, p: naive_spatial(qv, w, b, p, case), tensors)
    for a, b in zip(gradients(ours(case, "reference"), tensors), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@cases
def test_the_channel_definition_is_the_formula(case: Case) -> None:
    tensors = inputs(case)[:1]
    wanted = gradients(lambda qv: naive_channel(qv, case), tensors)
    got = gradients(lambda qv: channel_correlation(qv, case.window), tensors)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@cases
def test_the_folded_path_is_as_exact_as_the_definition(case: Case, dtype: torch.dtype) -> None:
    # the gradient of `bias` is one number, whose error in one draw is luck
    draws = [inputs(case, dtype, seed=seed) for seed in range(64)]
    doubled = [[tensor.double() for tensor in tensors] for tensors in draws]
    truth = stacked(ours(case, "reference"), doubled)
    plain = stacked(ours(case, "reference"), draws)
    got = stacked(ours(case, "torch"), draws)
    for torch_does, ours_is, true in zip(plain, got, truth, strict=True):
        assert_as_exact_as(torch_does, ours_is, true)


@pytest.mark.parametrize("bias", [0.0, 2.0, 64.0])
@pytest.mark.parametrize("case", SQUARED, ids=str)
def test_sums_of_squares_keep_the_folded_path_exact(case: Case, bias: float) -> None:
    assert_queries_exact(case, bias, torch.device("cpu"), "torch")


@pytest.mark.parametrize("backend", ["reference", "torch"])
@cases
def test_strides_change_nothing(case: Case, backend: Backend) -> None:
    qv, *others = inputs(case, torch.float32)
    strided = qv.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not strided.is_contiguous() or strided.shape[1:3] == (1, 1)
    before = strided.clone()
    y = ours(case, backend)(strided, *others)
    torch.testing.assert_close(y, ours(case, backend)(qv, *others), rtol=0, atol=0)
    torch.testing.assert_close(
        channel_correlation(strided, case.window),
        channel_correlation(qv, case.window),
        rtol=0,
        atol=0,
    )
    assert torch.equal(strided, before)


@given(data=st.data())
def test_any_window_and_reduction(data: st.DataObject) -> None:
    reduction = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    blocks = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    count = (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2)))
    window = (reduction[0] * blocks[0], reduction[1] * blocks[1])
    case = Case((window[0] * count[0], window[1] * count[1]), window, reduction, 2, 3)
    tensors = inputs(case, images=1)
    torch.testing.assert_close(
        ours(case, "auto")(*tensors), naive_spatial(*tensors, case), rtol=1e-11, atol=1e-11
    )


def test_gradcheck() -> None:
    case = Case((4, 4), (4, 4), (2, 2), 1, 2)
    tensors = [tensor.requires_grad_() for tensor in inputs(case, images=1)]
    assert torch.autograd.gradcheck(ours(case, "auto"), tensors)
    assert torch.autograd.gradcheck(lambda qv: channel_correlation(qv, (2, 4)), tensors[0])


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_parameters_may_be_more_exact_than_the_map(backend: Backend) -> None:
    """As under autocast, where parameters stay float32."""
    case = CASES[1]
    qv, *others = inputs(case, torch.bfloat16)
    y = ours(case, backend)(qv, *[tensor.float() for tensor in others])
    assert y.dtype == torch.bfloat16
    assert bool(torch.isfinite(y).all())


def test_auto_takes_the_definition_for_float64_and_the_folded_path_for_float32() -> None:
    case = CASES[1]
    tensors = inputs(case)
    assert torch.equal(ours(case, "auto")(*tensors), ours(case, "reference")(*tensors))
    tensors = inputs(case, torch.float32)
    assert torch.equal(ours(case, "auto")(*tensors), ours(case, "torch")(*tensors))


def test_a_named_backend_says_why_it_cannot_run() -> None:
    with pytest.raises(
        BackendUnavailable,
        match=r"spatial_correlation: backend='torch' cannot run here: float64 runs the definition",
    ):
        ours(CASES[0], "torch")(*inputs(CASES[0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qv": (1, 8, 8, 7)}, r"qv is \(1, 8, 8, 7\); expected \[B, H, W, C\] with an even C"),
        ({"qv": (8, 8, 8)}, r"qv is \(8, 8, 8\); expected"),
        ({"window": (3, 4)}, r"window_size \(3, 4\) does not divide the map \(8, 8\)"),
        ({"window": (4, 0)}, r"window_size \(4, 0\) does not divide"),
        ({"reduction": (3, 2)}, r"reduction \(3, 2\) does not divide the window \(4, 4\)"),
        ({"reduction": (0, 2)}, r"reduction \(0, 2\) does not divide"),
        ({"heads": 3}, r"num_heads=3 does not divide C / 2 = 4"),
        ({"weight": (1, 3)}, r"weight has 3 entries; reduction \(2, 2\) needs 4"),
        ({"bias": (4,)}, r"bias (has 4 entries|is \(4,\))"),
        ({"table": (2, 16, 16)}, r"position_bias is \(2, 16, 16\); expected \(2, 16, 4\)"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told(change: dict[str, tuple[int, ...]], message: str) -> None:
    args: dict[str, Any] = {
        "qv": (1, 8, 8, 8),
        "weight": (1, 4),
        "bias": (1,),
        "table": (2, 16, 4),
        "window": (4, 4),
        "reduction": (2, 2),
        "heads": 2,
        **change,
    }
    with pytest.raises(ValueError, match=f"spatial_correlation: {message}"):
        spatial_correlation(
            torch.zeros(args["qv"]),
            torch.zeros(args["weight"]),
            torch.zeros(args["bias"]),
            torch.zeros(args["table"]),
            args["window"],
            reduction=args["reduction"],
            num_heads=args["heads"],
        )


@pytest.mark.parametrize(
    ("shape", "window", "message"),
    [
        ((1, 8, 8, 7), (4, 4), r"qv is \(1, 8, 8, 7\); expected \[B, H, W, C\] with an even C"),
        ((1, 8, 8, 8), (4, 3), r"window_size \(4, 3\) does not divide the map \(8, 8\)"),
    ],
)
def test_what_does_not_fit_channels_is_told(
    shape: tuple[int, ...], window: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=f"channel_correlation: {message}"):
        channel_correlation(torch.zeros(shape), window)
