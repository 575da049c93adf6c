"""Training states and averages, one thing at a time."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from restore.errors import CheckpointError
from restore.training.ema import Average
from restore.training.optimizers import ScheduleFreeAdamW, build_optimizer, set_rates
from restore.training.precision import Precision
from restore.training.schedules import Constant
from restore.training.states import (
    newest_state,
    random_states,
    read_state,
    set_random_states,
    state_files,
    untouched_random_states,
    write_state,
)
from restore.training.train_options import OptimOptions


def test_a_state_comes_back_and_torch_reads_it_too(tmp_path: Path) -> None:
    state = {"iter": 7, "net": {"a": torch.arange(5.0)}, "each": [{"random": random_states()}]}
    path = tmp_path / "7.state"
    write_state(path, state)
    for found in (read_state(path), torch.load(path, weights_only=True)):
        assert found["iter"] == 7 and torch.equal(found["net"]["a"], torch.arange(5.0))


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "1.state"
    write_state(path, {"iter": 1, "x": torch.ones(3)})
    data = path.read_bytes()
    for place in (*range(0, len(data), 97), len(data) - 1, len(data) - 40):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(CheckpointError, match=r"1\.state: is"):
            read_state(path)
    for length in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="is no whole training state"):
            read_state(path)


def test_the_newest_state_has_the_largest_number(tmp_path: Path) -> None:
    for number in (900, 1000, 20):
        write_state(tmp_path / f"{number}.state", {"iter": number})
    (tmp_path / "notes.state").write_text("mine")
    assert [path.name for path in state_files(tmp_path)] == ["1000.state", "900.state", "20.state"]
    found = newest_state(tmp_path)
    assert found is not None and found[1]["iter"] == 1000
    assert newest_state(tmp_path / "none") is None


def draws() -> list[float]:
    return [random.random(), float(np.random.random()), float(torch.rand(())), random.gauss(0, 1)]


def test_random_states_come_back(tmp_path: Path) -> None:
    draws()
    random.gauss(0, 1)
    write_state(tmp_path / "1.state", random_states())
    expected = [draws() for _ in range(3)]
    set_random_states(read_state(tmp_path / "1.state"))
    assert [draws() for _ in range(3)] == expected
    set_random_states(read_state(tmp_path / "1.state"))
    with untouched_random_states():
        draws()
    assert draws() == expected[0]


def test_the_average_follows_by_its_share() -> None:
    torch.manual_seed(0)
    network, follower = nn.Linear(3, 2), nn.Linear(3, 2)
    follower.load_state_dict(network.state_dict())
    average = Average(follower, network, 0.75)
    expected = [p.detach().clone() for p in follower.parameters()]
    for _ in range(5):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.rand_like(parameter))
        average.update()
        expected = [
            0.75 * old + 0.25 * new for old, new in zip(expected, network.parameters(), strict=True)
        ]
    for found, wanted in zip(follower.parameters(), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-6)
        assert not found.requires_grad
    assert not follower.training


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_schedule_free_is_algorithm_1(decay: float) -> None:
    """Against the paper's recursion, in float64, on a quadratic."""
    start = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    parameter = nn.Parameter(start.clone())
    optimizer = ScheduleFreeAdamW([parameter], 0.1, (0.9, 0.99), 1e-8, decay)
    rates = [0.05, 0.1, 0.1, 0.1]
    z = x = start.clone()
    y, v, weight = start.clone(), torch.zeros(3, dtype=torch.float64), 0.0
    for step, rate in enumerate(rates, 1):
        assert torch.allclose(parameter.detach(), y, rtol=0, atol=1e-12)
        set_rates(optimizer, rate, Constant(), step)
        parameter.grad = 2 * parameter.detach()
        optimizer.step()
        g = 2 * y
        v = 0.99 * v + 0.01 * g**2
        z = z - rate * (g / ((v / (1 - 0.99**step)).sqrt() + 1e-8) + decay * y)
        weight += rate**2
        x = (1 - rate**2 / weight) * x + rate**2 / weight * z
        y = 0.1 * z + 0.9 * x
    assert torch.allclose(optimizer.averages()[parameter], x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD", "ScheduleFreeAdamW"])
def test_every_optimizer_goes_down(kind: str) -> None:
    parameter = nn.Parameter(torch.tensor([3.0, -4.0]))
    frozen = nn.Parameter(torch.ones(1), requires_grad=False)
    options = OptimOptions(type=kind, lr=0.1)  # type: ignore[arg-type]
    optimizer = build_optimizer(options, [parameter, frozen])
    for _ in range(60):
        optimizer.zero_grad(set_to_none=True)
        parameter.square().sum().backward()
        optimizer.step()
    assert float(parameter.detach().abs().max()) < 1.5


def test_a_step_that_overflows_in_fp16_is_left_out() -> None:
    precision = Precision("fp16", torch.device("cpu"))
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], 0.1, fused=True)
    factor = precision.state_dict()["scale"]
    precision.backward((parameter * 1e38).sum())
    precision.step(optimizer, [parameter], 0.0)
    precision.end_of_iteration()
    assert parameter.item() == 1 and precision.state_dict()["scale"] == factor / 2
    again = Precision("fp16", torch.device("cpu"))
    again.load_state_dict(precision.state_dict())
    assert again.state_dict() == precision.state_dict()
