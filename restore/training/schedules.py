"""Learning rates and patch sizes as pure functions of the iteration.

Nothing here has a state, so a resumed run goes on with the very numbers of one never interrupted.
The values are BasicSR's (github.com/XPixelGroup/BasicSR, basicsr/models/lr_scheduler.py, 1.4.2),
to the last bit: the same products in the same order. Iterations count from 1; BasicSR's schedulers
make their first step before the second one, so iteration i has their value after i - 1 steps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from restore.errors import UsageError
from restore.training.dataset_options import DatasetOptions
from restore.training.train_options import TrainOptions

# base rate, iteration -> rate
Schedule = Callable[[float, int], float]


@dataclass(frozen=True)
class MultiStep:
    """Multiplied by `gamma` at each milestone; set to the base times a weight at each restart.

    BasicSR's multi-step rules change the rate that is in force, which a warm-up leaves one step
    short of the base: after it the rate is base * (warmup - 1) / warmup, times gamma at each
    milestone that follows, until a restart. Milestones within the warm-up have no effect.
    """

    milestones: tuple[int, ...]
    gamma: float = 0.1
    restarts: tuple[int, ...] = (0,)
    restart_weights: tuple[float, ...] = (1.0,)
    warmup: int = -1

    def __post_init__(self) -> None:
        _check_lengths("restarts", self.restarts, "restart_weights", self.restart_weights)

    def __call__(self, base: float, iteration: int) -> float:
        """The rate at an iteration."""
        if iteration < self.warmup:
            return _warming(base, iteration, self.warmup)
        rate, first = base, 0
        if self.warmup > 1:
            rate, first = _warming(base, self.warmup - 1, self.warmup), self.warmup - 1
        times = Counter(self.milestones)
        for step in sorted({*self.restarts, *times}):
            if first <= step < iteration:
                if step in self.restarts:
                    rate = base * self.restart_weights[self.restarts.index(step)]
                else:
                    rate = rate * self.gamma ** times[step]
        return rate


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the base, times the period's weight, down to its least, in each period.

    Source: Loshchilov and Hutter, "SGDR", arXiv:1608.03983, equation 5. A period holds the step at
    its end, so the least rate is reached there, and the next one begins one step later.
    """

    periods: tuple[int, ...]
    restart_weights: tuple[float, ...]
    eta_mins: tuple[float, ...]
    warmup: int = -1

    def __post_init__(self) -> None:
        _check_lengths("periods", self.periods, "restart_weights", self.restart_weights)
        _check_lengths("periods", self.periods, "eta_mins", self.eta_mins)
        if min(self.periods, default=0) < 1:
            raise UsageError(f"scheduler: periods are {list(self.periods)}; expected 1 or more")

    def __call__(self, base: float, iteration: int) -> float:
        """The rate at an iteration; UsageError beyond the last period."""
        if iteration < self.warmup:
            return _warming(base, iteration, self.warmup)
        step, start = iteration - 1, 0
        for period, weight, least in zip(
            self.periods, self.restart_weights, self.eta_mins, strict=True
        ):
            if step <= start + period:
                wave = 1 + math.cos(math.pi * ((step - start) / period))
                return least + weight * 0.5 * (base - least) * wave
            start += period
        raise UsageError(
            f"scheduler: periods {list(self.periods)} end after {start} iterations; iteration "
            f"{iteration} has no learning rate: lengthen them or lower total_iter"
        )


@dataclass(frozen=True)
class Constant:
    """The base, after a warm-up: for optimizers that need no schedule."""

    warmup: int = -1

    def __call__(self, base: float, iteration: int) -> float:
        """The rate at an iteration."""
        return _warming(base, iteration, self.warmup) if iteration < self.warmup else base


def _warming(base: float, iteration: int, warmup: int) -> float:
    """A straight line from 0 that would reach the base at iteration `warmup`."""
    return base / warmup * iteration


def _check_lengths(name: str, marks: Sequence[int], other: str, values: Sequence[float]) -> None:
    if len(marks) != len(values):
        raise UsageError(
            f"scheduler: {name} has {len(marks)} entries and {other} {len(values)}; "
            "expected as many"
        )


@dataclass(frozen=True)
class Stage:
    """What batches are from an iteration on."""

    start: int  # the first iteration, from 1
    gt_size: int  # pixels of a side of the ground truth
    batch_size: int  # of one process


def stages_of(data: DatasetOptions, train: TrainOptions) -> tuple[Stage, ...]:
    """The stages of a run; one where the file has none.

    Raises:
        UsageError: they do not begin at 0, or not in rising order.
    """
    if not train.progressive:
        return (Stage(1, data.gt_size, data.batch_size_per_gpu),)
    starts = [stage.start for stage in train.progressive]
    if starts[0] != 0 or starts != sorted(set(starts)):
        raise UsageError(
            f"{train.where('progressive')}: stages start at {starts}; expected 0 first, then rising"
        )
    return tuple(
        Stage(stage.start + 1, stage.gt_size, stage.batch_size_per_gpu)
        for stage in train.progressive
    )


def schedule_of(train: TrainOptions) -> Schedule:
    """The rule of the learning rates.

    Raises:
        UsageError: its lists do not fit each other, or end before the run.
    """
    options, warmup = train.scheduler, train.warmup_iter
    if options is None:
        return Constant(warmup)
    try:
        if options.type in ("MultiStepLR", "MultiStepRestartLR"):
            rule: Schedule = MultiStep(
                options.milestones, options.gamma, options.restarts, options.restart_weights, warmup
            )
        else:
            least = options.eta_mins or (options.eta_min,) * len(options.periods)
            rule = Cosine(options.periods, options.restart_weights, least, warmup)
        rule(1.0, train.total_iter)
    except UsageError as error:
        raise UsageError(f"{options.where()}: {error}") from None
    return rule
