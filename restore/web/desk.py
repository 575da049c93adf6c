"""A queue: one thing at a time, in the order of asking."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from restore.errors import UsageError

Task = TypeVar("Task")


class Stopped(BaseException):
    """Somebody asked a task to stop. No `Exception`: handlers of failures are to let it pass."""


class Ticket(Generic[Task]):
    """A task's place in the queue.

    Attributes:
        task: what was handed in.
        error: what ended it, if it did not end by itself.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.error: BaseException | None = None
        self._stopping = threading.Event()
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        """Whether it is over, well or not."""
        return self._done.is_set()

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for its end."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Ask for its end: at once where it waits, else when it next calls `check`."""
        self._stopping.set()

    def check(self) -> None:
        """Raise Stopped where somebody asked for the end."""
        if self.stopping:
            raise Stopped

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end; whether it came."""
        return self._done.wait(seconds)

    def finish(self, error: BaseException | None) -> None:
        """The desk's: it is over."""
        self.error = error
        self._done.set()


class Desk(Generic[Task]):
    """Runs tasks one after the other, in a thread of its own.

    Args:
        run: does a task; is to call `Ticket.check` often.
        max_waiting: tasks, beside the one under way.
    """

    def __init__(self, run: Callable[[Task, Ticket[Task]], None], max_waiting: int = 20) -> None:
        self._run = run
        self._max_waiting = max_waiting
        self._waiting: list[Ticket[Task]] = []
        self._current: Ticket[Task] | None = None
        self._closed = False
        self._changed = threading.Condition()
        # a daemon: what computes must not keep a process alive that is to end
        self._thread = threading.Thread(target=self._work, name="restore desk", daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> Ticket[Task]:
        """Put a task at the end of the queue; UsageError where that is full."""
        with self._changed:
            self._waiting = [ticket for ticket in self._waiting if not ticket.done]
            if self._closed:
                raise UsageError("the page is being closed; start it again")
            if len(self._waiting) >= self._max_waiting:
                raise UsageError(
                    f"{len(self._waiting)} others are waiting, and no more can; try again later"
                )
            ticket = Ticket(task)
            self._waiting.append(ticket)
            self._changed.notify_all()
        return ticket

    def stop(self, ticket: Ticket[Task]) -> None:
        """End a task; one that waits is over at once."""
        with self._changed:
            ticket.stop()
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                ticket.finish(Stopped())

    def ahead(self, ticket: Ticket[Task]) -> int:
        """How many tasks come before one, that under way counted; 0 where it is itself."""
        with self._changed:
            if ticket not in self._waiting:
                return 0
            return self._waiting.index(ticket) + (self._current is not None)

    def length(self) -> int:
        """Tasks under way and waiting."""
        with self._changed:
            return len(self._waiting) + (self._current is not None)

    def close(self, seconds: float) -> bool:
        """Stop all tasks and wait so long at most for the one under way; whether it ended."""
        with self._changed:
            self._closed = True
            current = self._current
            for ticket in self._waiting:
                ticket.stop()
                ticket.finish(Stopped())
            self._waiting = []
            if current is not None:
                current.stop()
            self._changed.notify_all()
        return current is None or current.wait(seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                ticket = self._current = self._waiting.pop(0)
            error: BaseException | None = None
            try:
                ticket.check()
                self._run(ticket.task, ticket)
            # whatever ends a task must not end the queue
            except BaseException as raised:
                error = raised
            with self._changed:
                self._current = None
            ticket.finish(error)
