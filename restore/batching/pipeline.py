"""Reading, computing and writing side by side, so that a network waits for neither.

Reader threads decode what comes next, the calling thread computes, writer threads encode. What is
read and not yet written is bounded in number and in bytes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, Protocol, TypeVar

Item = TypeVar("Item")
Opened = TypeVar("Opened")
Work = TypeVar("Work")
End = TypeVar("End")
Item_co = TypeVar("Item_co", covariant=True)
Item_contra = TypeVar("Item_contra", contravariant=True)
End_co = TypeVar("End_co", covariant=True)

_AGAIN = 0.5  # seconds until a feed that had nothing is asked again


class Feed(Protocol[Item_co]):
    """Where items come from."""

    def next(self, patient: bool) -> Item_co | None:
        """The next item.

        Args:
            patient: nothing else is under way. Then None means that there will be none any more,
                and the call may take its time; otherwise None only means that there is none now.
        """
        ...


class Stages(Protocol[Item_contra, Opened, Work, End_co]):
    """What is done with an item. Whatever can go wrong with one is told in its `End`."""

    def open(self, item: Item_contra) -> tuple[Opened, int | None]:
        """In any thread: look at it; its bytes in memory, or None if it is to be there alone."""
        ...

    def read(self, opened: Opened) -> Work:
        """In any thread."""
        ...

    def compute(self, work: Work) -> None:
        """In the calling thread, one after another."""
        ...

    def write(self, work: Work) -> End_co:
        """In any thread."""
        ...


class Closed(Exception):
    """The run has ended; what waits need not wait any more."""


class Gate:
    """Lets numbered ones in, in their order, while what is inside stays below a number of bytes.

    One that is alone larger gets in when nothing else is inside.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._inside = 0  # bytes
        self._count = 0
        self._next = 0
        self._alone = False  # whether one is inside that wants to be alone
        self._closed = False
        self._changed = threading.Condition()

    def enter(self, number: int, size: int | None) -> None:
        """Wait for the turn of `number` and for room; None is to be alone.

        Raises:
            Closed: nobody gets in any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(number, size))
            if self._closed:
                raise Closed
            self._next += 1
            self._count += 1
            self._inside += size or 0
            self._alone = size is None
            self._changed.notify_all()

    def _fits(self, number: int, size: int | None) -> bool:
        if number != self._next or self._alone:
            return False
        fits = size is not None and self._inside + size <= self._budget
        return fits or self._count == 0

    def leave(self, size: int | None) -> None:
        """Make room."""
        with self._changed:
            self._count -= 1
            self._inside -= size or 0
            if size is None:
                self._alone = False
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def overlapped(
    feed: Feed[Item], stages: Stages[Item, Opened, Work, End], *, jobs: int, budget: int
) -> Generator[End, None, None]:
    """Take items through their stages; what became of them, in their order.

    Args:
        feed: is asked in the calling thread.
        stages: what to do.
        jobs: threads that read, and as many that write; 0 does all in the calling thread, one
            item after another.
        budget: bytes of what is read and not yet written.

    Raises:
        Whatever a stage raises. What is being written then is written to its end first.
    """
    if jobs:
        yield from _Overlapped(feed, stages, jobs, budget)
        return
    while (item := feed.next(patient=True)) is not None:
        work = stages.read(stages.open(item)[0])
        stages.compute(work)
        yield stages.write(work)


class _Overlapped(Generic[Item, Opened, Work, End]):
    """One run of `overlapped`."""

    def __init__(
        self, feed: Feed[Item], stages: Stages[Item, Opened, Work, End], jobs: int, budget: int
    ) -> None:
        self._feed = feed
        self._stages = stages
        self._jobs = jobs
        self._gate = Gate(budget)
        self._readers = ThreadPoolExecutor(jobs, "read")
        self._writers = ThreadPoolExecutor(jobs, "write")
        self._reads: deque[Future[tuple[Work, int | None]]] = deque()
        self._writes: deque[Future[End]] = deque()
        self._number = 0
        self._ask_at = 0.0

    def __iter__(self) -> Iterator[End]:
        try:
            while self._fill():
                while self._writes and self._writes[0].done():
                    yield self._writes.popleft().result()
                if self._reads and self._reads[0].done() and len(self._writes) <= self._jobs:
                    self._compute()
                else:
                    self._wait()
        finally:
            self._gate.close()
            self._readers.shutdown(wait=True, cancel_futures=True)
            # what is computed is worth being written
            self._writers.shutdown(wait=True)

    def _fill(self) -> bool:
        """Have items read ahead; False if there is nothing left to do."""
        while len(self._reads) <= self._jobs:
            busy = bool(self._reads or self._writes)
            if busy and time.monotonic() < self._ask_at:
                return True
            item = self._feed.next(patient=not busy)
            if item is None:
                self._ask_at = time.monotonic() + _AGAIN
                return busy
            self._reads.append(self._readers.submit(self._read, self._number, item))
            self._number += 1
        return True

    def _read(self, number: int, item: Item) -> tuple[Work, int | None]:
        opened, size = self._stages.open(item)
        self._gate.enter(number, size)
        return self._stages.read(opened), size

    def _compute(self) -> None:
        work, size = self._reads.popleft().result()
        self._stages.compute(work)
        self._writes.append(self._writers.submit(self._write, work, size))

    def _write(self, work: Work, size: int | None) -> End:
        end = self._stages.write(work)
        self._gate.leave(size)
        return end

    def _wait(self) -> None:
        """Until the first that is read, or the first that is written, is done."""
        heads: list[Future[Any]] = []
        if self._reads and len(self._writes) <= self._jobs:
            heads.append(self._reads[0])
        if self._writes:
            heads.append(self._writes[0])
        # at times, so that a feed that had nothing is asked again
        wait(heads, timeout=_AGAIN, return_when=FIRST_COMPLETED)


class Counted(Feed[int]):
    """The numbers below `count`, in order."""

    def __init__(self, count: int) -> None:
        self._left = iter(range(count))

    def next(self, patient: bool) -> int | None:
        """The next number; see `Feed`."""
        return next(self._left, None)
