"""Reading, computing and writing side by side: order, bounds, and how it ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from restore.batching.pipeline import Closed, Counted, Gate, overlapped

MAIN = threading.main_thread()


class Steps:
    """Notes what happens; items are numbers, of `size` bytes each."""

    def __init__(self, size: int | None = 1, seconds: tuple[float, float, float] = (0, 0, 0)):
        self.size = size
        self.seconds = seconds
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.reading = self.most_reading = 0
        self.computed: list[int] = []
        self.written: list[int] = []

    def open(self, item: int) -> tuple[int, int | None]:
        return item, self.size

    def read(self, opened: int) -> int:
        with self.lock:
            self.inside += 1
            self.reading += 1
            self.most = max(self.most, self.inside)
            self.most_reading = max(self.most_reading, self.reading)
        time.sleep(self.seconds[0])
        with self.lock:
            self.reading -= 1
        return opened

    def compute(self, work: int) -> None:
        assert threading.current_thread() is MAIN
        time.sleep(self.seconds[1])
        self.computed.append(work)

    def write(self, work: int) -> int:
        time.sleep(self.seconds[2])
        with self.lock:
            self.inside -= 1
            self.written.append(work)
        return work


class Given:
    """Hands on these items; a None among them is a time when there is nothing to be had."""

    def __init__(self, items: Iterable[int | None]) -> None:
        self.items: Iterator[int | None] = iter(items)
        self.patient: list[bool] = []

    def next(self, patient: bool) -> int | None:
        self.patient.append(patient)
        item = next(self.items, None)
        return next(self.items, None) if item is None and patient else item


@pytest.mark.parametrize("jobs", [0, 1, 3])
def test_all_items_go_through_in_their_order(jobs: int) -> None:
    steps = Steps()
    assert list(overlapped(Counted(20), steps, jobs=jobs, budget=100)) == list(range(20))
    assert steps.computed == list(range(20))
    assert steps.inside == 0


def test_nothing_to_do_ends_at_once() -> None:
    assert list(overlapped(Counted(0), Steps(), jobs=2, budget=1)) == []


def test_stages_overlap() -> None:
    began = time.perf_counter()
    list(overlapped(Counted(10), Steps(seconds=(0.05, 0.05, 0.05)), jobs=1, budget=100))
    # one after another they take 1.5 s, and side by side 0.6
    assert time.perf_counter() - began < 1.1


def test_a_slow_encoder_does_not_hold_up_the_network() -> None:
    steps = Steps(seconds=(0, 0, 0.2))
    turns = overlapped(Counted(4), steps, jobs=3, budget=100)
    assert next(turns) == 0
    assert len(steps.computed) >= 3
    turns.close()


def test_the_number_that_waits_is_bounded() -> None:
    steps = Steps(seconds=(0, 0.01, 0.02))
    list(overlapped(Counted(20), steps, jobs=2, budget=1000))
    # three read ahead, one computed, three written or waiting for that
    assert steps.most <= 7
    assert steps.most_reading <= 2


def test_the_bytes_that_wait_are_bounded() -> None:
    steps = Steps(size=40, seconds=(0, 0.005, 0.01))
    list(overlapped(Counted(12), steps, jobs=4, budget=100))
    assert steps.most == 2


@pytest.mark.parametrize("size", [101, None])
def test_what_is_larger_than_the_bound_goes_alone(size: int | None) -> None:
    steps = Steps(size=size, seconds=(0, 0.002, 0.005))
    assert list(overlapped(Counted(6), steps, jobs=4, budget=100)) == list(range(6))
    assert steps.most == 1


def test_a_feed_that_has_nothing_now_is_asked_again() -> None:
    given = Given([0, None, 1, None, 2])
    assert list(overlapped(given, Steps(), jobs=2, budget=9)) == [0, 1, 2]
    assert True in given.patient and False in given.patient


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
@pytest.mark.parametrize("jobs", [0, 2])
def test_an_interrupt_comes_out_and_what_is_computed_is_written(jobs: int, stage: str) -> None:
    steps = Steps()
    usual = getattr(steps, stage)

    def interrupted(item: int) -> Any:
        if item == 3:
            raise KeyboardInterrupt
        return usual(item)

    setattr(steps, stage, interrupted)
    done = []
    with pytest.raises(KeyboardInterrupt):
        done.extend(overlapped(Counted(9), steps, jobs=jobs, budget=100))
    assert steps.computed[:3] == [0, 1, 2]
    assert set(steps.computed) - set(steps.written) <= {3}
    assert threading.active_count() == 1 or not any(
        thread.name.startswith(("read", "write")) for thread in threading.enumerate()
    )


def test_left_early_it_writes_what_is_computed() -> None:
    steps = Steps(seconds=(0, 0, 0.01))
    with contextlib.closing(overlapped(Counted(9), steps, jobs=2, budget=100)) as turns:
        assert next(turns) == 0
    assert sorted(steps.written) == steps.computed


def test_a_gate_that_is_closed_lets_nobody_in() -> None:
    gate = Gate(10)
    gate.enter(0, 10)
    failed = []

    def wait() -> None:
        try:
            gate.enter(1, 1)
        except Closed as error:
            failed.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    gate.close()
    waiting.join(5)
    assert len(failed) == 1
