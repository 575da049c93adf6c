"""The queue of the page: one at a time, in order, and ends that leave the others alone."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from restore.errors import UsageError
from restore.web.desk import Desk, Stopped, Ticket

PATIENCE = 20.0  # seconds; reached only where something is broken


class Steps:
    """Tasks that wait until they are told to go on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.go = threading.Event()
        self.started = threading.Event()

    def run(self, task: str, ticket: Ticket[str]) -> None:
        self.begun.append(task)
        self.started.set()
        if task == "broken":
            raise ValueError("broken")
        while not self.go.wait(0.01):
            ticket.check()
        self.ended.append(task)


@pytest.fixture
def steps() -> Steps:
    return Steps()


def test_one_at_a_time_in_order(steps: Steps) -> None:
    desk = Desk(steps.run)
    tickets = [desk.submit(name) for name in "abc"]
    assert steps.started.wait(PATIENCE)
    assert [desk.ahead(ticket) for ticket in tickets] == [0, 1, 2]
    assert (steps.begun, desk.length()) == (["a"], 3)
    steps.go.set()
    assert all(ticket.wait(PATIENCE) for ticket in tickets)
    assert steps.ended == ["a", "b", "c"]
    assert [ticket.error for ticket in tickets] == [None] * 3
    assert desk.length() == 0


def test_who_waits_can_leave_at_once(steps: Steps) -> None:
    desk = Desk(steps.run)
    first, second, third = (desk.submit(name) for name in "abc")
    assert steps.started.wait(PATIENCE)
    desk.stop(second)
    assert second.done and isinstance(second.error, Stopped)
    assert desk.ahead(third) == 1
    steps.go.set()
    assert third.wait(PATIENCE) and first.done
    assert steps.ended == ["a", "c"]


def test_what_runs_stops_where_it_asks(steps: Steps) -> None:
    desk = Desk(steps.run)
    first, second = desk.submit("a"), desk.submit("b")
    assert steps.started.wait(PATIENCE)
    desk.stop(first)
    assert first.wait(PATIENCE)
    assert isinstance(first.error, Stopped)
    steps.go.set()
    assert second.wait(PATIENCE)
    assert steps.ended == ["b"]


def test_a_failure_is_kept_and_the_queue_goes_on(steps: Steps) -> None:
    steps.go.set()
    desk = Desk(steps.run)
    broken, whole = desk.submit("broken"), desk.submit("a")
    assert whole.wait(PATIENCE)
    assert isinstance(broken.error, ValueError)
    assert steps.ended == ["a"]


def test_a_full_queue_says_so(steps: Steps) -> None:
    desk = Desk(steps.run, max_waiting=1)
    desk.submit("a")
    assert steps.started.wait(PATIENCE)
    waiting = desk.submit("b")
    with pytest.raises(UsageError, match="1 others are waiting, and no more can"):
        desk.submit("c")
    desk.stop(waiting)
    desk.submit("d")  # there is room again
    steps.go.set()


def test_closing_ends_all(steps: Steps) -> None:
    desk = Desk(steps.run)
    tickets = [desk.submit(name) for name in "ab"]
    assert steps.started.wait(PATIENCE)
    assert desk.close(PATIENCE)
    assert all(ticket.done and isinstance(ticket.error, Stopped) for ticket in tickets)
    assert steps.ended == []
    with pytest.raises(UsageError, match="the page is being closed"):
        desk.submit("c")


def test_closing_does_not_wait_for_what_does_not_stop() -> None:
    go = threading.Event()
    started = threading.Event()

    def deaf(task: str, ticket: Ticket[str]) -> None:
        started.set()
        go.wait(PATIENCE)

    desk = Desk(deaf)
    desk.submit("a")
    assert started.wait(PATIENCE)
    assert not desk.close(0.01)
    go.set()


def test_handlers_of_failures_let_a_stop_pass() -> None:
    def careless(task: Callable[[], None], ticket: Ticket[Callable[[], None]]) -> None:
        while True:
            try:
                ticket.check()
            except Exception:
                pytest.fail("a stop was taken for a failure")

    desk = Desk(careless)
    ticket = desk.submit(lambda: None)
    desk.stop(ticket)
    assert ticket.wait(PATIENCE)
    assert isinstance(ticket.error, Stopped)
