"""Learning rates are BasicSR's, to the last bit, at every iteration."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import changed, tiny_options

from restore.errors import UsageError
from restore.training.schedules import (
    Constant,
    Cosine,
    MultiStep,
    Stage,
    schedule_of,
    stages_of,
)
from restore.training.train_options import SchedulerOptions, StageOptions


def step_by_step(rule: MultiStep, base: float, total: int) -> list[float]:
    """Multi-step rates as a scheduler with a state makes them, one after the other."""
    times, rate, rates = Counter(rule.milestones), base, []
    for step in range(total):
        if step in rule.restarts:
            rate = base * rule.restart_weights[rule.restarts.index(step)]
        elif step in times:
            rate = rate * rule.gamma ** times[step]
        iteration = step + 1
        if iteration < rule.warmup:
            rate = base / rule.warmup * iteration
        rates.append(rate)
    return rates


@given(
    st.lists(st.integers(1, 99), max_size=6),
    st.sampled_from([0.1, 0.5, 0.3]),
    st.sampled_from([-1, 0, 1, 2, 17, 150]),
    st.sampled_from([((0,), (1.0,)), ((0, 40), (1.0, 0.5)), ((0, 1, 60), (0.7, 1.0, 0.25))]),
)
def test_multi_step_rates_are_those_of_single_steps(
    milestones: list[int],
    gamma: float,
    warmup: int,
    restarts: tuple[tuple[int, ...], tuple[float, ...]],
) -> None:
    rule = MultiStep(tuple(milestones), gamma, *restarts, warmup)
    assert [rule(2e-4, i) for i in range(1, 101)] == step_by_step(rule, 2e-4, 100)


def test_rates_of_basicsr() -> None:
    """As BasicSR 1.4.2 sets them."""
    steps = MultiStep((3, 5), 0.5)
    assert [steps(2e-4, i) for i in range(1, 8)] == [2e-4] * 3 + [1e-4] * 2 + [5e-5] * 2
    # a warm-up leaves the rate one step short
    warm = MultiStep((6,), 0.5, warmup=4)
    expected = [4e-4 / 4 * share for share in (1, 2, 3, 3, 3, 3)]
    assert [warm(4e-4, i) for i in range(1, 8)] == [*expected, 4e-4 / 4 * 3 * 0.5]
    cosine = Cosine((4, 4), (1.0, 0.5), (1e-7, 1e-7))
    assert cosine(5e-4, 1) == 5e-4
    assert cosine(5e-4, 5) == pytest.approx(1e-7, rel=1e-12)
    # step 5 is a quarter of the second period in
    expected = 1e-7 + 0.5 * 0.5 * (5e-4 - 1e-7) * (1 + math.cos(math.pi / 4))
    assert cosine(5e-4, 6) == expected


def test_a_schedule_that_ends_before_the_run_is_refused(tmp_path: Path) -> None:
    scheduler = SchedulerOptions(type="CosineAnnealingRestartLR", periods=(6,))
    run = changed(tiny_options(tmp_path), scheduler=scheduler)
    assert run.train is not None
    with pytest.raises(UsageError, match=r"periods \[6\] end after 6 iterations; iteration 8"):
        schedule_of(run.train)
    scheduler = SchedulerOptions(
        type="CosineAnnealingRestartLR", periods=(4, 3), restart_weights=(1.0,)
    )
    run = changed(run, scheduler=scheduler)
    assert run.train is not None
    with pytest.raises(UsageError, match="periods has 2 entries and restart_weights 1"):
        schedule_of(run.train)


def test_no_scheduler_keeps_the_rate_after_the_warm_up() -> None:
    rule = Constant(warmup=4)
    assert [rule(1.0, i) for i in (1, 3, 4, 9)] == [0.25, 0.75, 1.0, 1.0]


def test_stages_begin_after_the_iteration_that_they_name(tmp_path: Path) -> None:
    stages = (
        StageOptions(start=0, gt_size=16, batch_size_per_gpu=4),
        StageOptions(start=5, gt_size=32, batch_size_per_gpu=1),
    )
    run = changed(tiny_options(tmp_path), progressive=stages)
    assert run.train is not None
    made = stages_of(run.datasets["train"], run.train)
    assert made == (Stage(1, 16, 4), Stage(6, 32, 1))
    late = changed(run, progressive=stages[1:])
    assert late.train is not None
    with pytest.raises(UsageError, match=r"stages start at \[5\]; expected 0 first"):
        stages_of(late.datasets["train"], late.train)
