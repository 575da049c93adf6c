"""The table of biases by an MLP: its definition by modules, and the Triton path against that."""

from __future__ import annotations

import interpreted
import pytest
import torch
from compiled import compiled
from exactness import assert_as_exact_as, gradients, stacked
from position_calls import position_shapes
from torch import Tensor, nn

from restore.kernels import dispatch
from restore.kernels.dispatch import Backend, BackendUnavailable
from restore.kernels.position_table import position_table
from restore.kernels.windows import Size, relative_offsets

by_triton = interpreted.MARKS[0]
CASES = [  # width, heads, window
    (3, 6, (8, 8)),  # HiT-SR
    (5, 3, (4, 16)),  # CAT-R
    (12, 8, (2, 3)),
    (16, 16, (1, 1)),
    (27, 20, (5, 4)),
    (32, 32, (2, 9)),
]
cases = pytest.mark.parametrize(("width", "heads", "window"), CASES)


def drawn(width: int, heads: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator) for shape in position_shapes(width, heads)]
    made = [x / x.shape[1] ** 0.5 if x.dim() == 2 else x for x in made]
    return [x.to(interpreted.DEVICE, dtype) for x in made]


@cases
def test_the_definition_is_four_layers(width: int, heads: int, window: Size) -> None:
    parameters = [x.cpu() for x in drawn(width, heads, torch.float64)]
    layers: list[nn.Module] = [nn.Linear(2, width)]
    for out in (width, width, heads):
        layers += [nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, out)]
    modules = nn.Sequential(*layers).double()
    for old, new in zip(modules.parameters(), parameters, strict=True):
        old.data = new
    expected = modules(relative_offsets(window).double())
    assert torch.equal(position_table(parameters, window), expected)


@by_triton
@pytest.mark.usefixtures("quick_interpreter", "nan_filled")
@pytest.mark.parametrize("dtype", interpreted.DTYPES, ids=str)
@cases
def test_triton(width: int, heads: int, window: Size, dtype: torch.dtype) -> None:
    # a ReLU on either side of 0 is another function: gradients of several draws, by their largest
    draws = [drawn(width, heads, dtype, seed) for seed in range(2)]

    def run(backend: Backend, draws: list[list[Tensor]]) -> list[Tensor]:
        return stacked(lambda *p: position_table(p, window, backend=backend), draws)

    truth = run("reference", [[x.double() for x in draw] for draw in draws])
    for one, result, true in zip(run("reference", draws), run("triton", draws), truth, strict=True):
        assert_as_exact_as(one, result, true)


@by_triton
@pytest.mark.usefixtures("quick_interpreter")
def test_gradients_are_those_of_autograd() -> None:
    parameters = drawn(5, 3, torch.float32)
    plain, ours = (
        gradients(lambda *p, path=path: position_table(p, (3, 4), backend=path), parameters)
        for path in ("reference", "triton")
    )
    for one, other in zip(plain[1:], ours[1:], strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0)


@by_triton
@pytest.mark.usefixtures("quick_interpreter")
def test_what_is_no_number_stays_none() -> None:
    parameters = drawn(5, 3, torch.float32)
    parameters[2][1] = torch.nan
    assert bool(position_table(parameters, (2, 2), backend="triton").isnan().all())


@by_triton
@pytest.mark.usefixtures("quick_interpreter")
def test_autocast_lowers_nothing() -> None:
    parameters = drawn(5, 3, torch.float32)
    for backend in ("reference", "triton"):
        plain = position_table(parameters, (2, 2), backend=backend)
        with torch.autocast(interpreted.DEVICE.type, torch.float16):
            assert torch.equal(position_table(parameters, (2, 2), backend=backend), plain)


@by_triton
def test_a_call_that_it_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(width: int, heads: int, dtype: torch.dtype, why: str) -> None:
        parameters = drawn(width, heads, dtype)
        with pytest.raises(BackendUnavailable, match=f"backend='triton' cannot run here: {why}"):
            position_table(parameters, (2, 2), backend="triton")

    refused(5, 3, torch.float64, "it computes float16, bfloat16 and float32")
    refused(33, 3, torch.float32, "more than 32 channels or heads")
    refused(5, 33, torch.float32, "more than 32 channels or heads")
    if not interpreted.ON_GPU:
        monkeypatch.setattr(dispatch, "INTERPRETED", False)
        refused(5, 3, torch.float32, "Triton is for NVIDIA GPUs and this is on cpu")


def test_another_number_of_parameters_is_told() -> None:
    with pytest.raises(ValueError, match="position_table: 13 parameters; expected 14"):
        position_table(drawn(5, 3, torch.float32)[1:], (2, 2))


@pytest.mark.parametrize("at", range(14))
def test_a_parameter_that_does_not_fit_is_told(at: int) -> None:
    """Before a kernel reads beyond its end."""
    for given, why in (
        (torch.zeros(4), r"is \(4,\)|heads need"),
        (drawn(5, 3, torch.float64)[at], r"float64 on .*float32|float32 on .*float64"),
    ):
        parameters = drawn(5, 3, torch.float32)
        parameters[at] = given
        with pytest.raises(ValueError, match=f"position_table: .*({why})"):
            position_table(parameters, (2, 2))


@by_triton
def test_kernels_compile_for_an_h100() -> None:
    key = "HiT-SR float32"
    (report,) = compiled("position_calls", [key], 90)[key]
    assert report.spilled == 0
