"""The pictures of a round that come to this worker, and what it tells the others of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from restore.batching.journal import Round, is_there
from restore.batching.logs import Entry, Log, Record, open_ends

MOST_DEATHS = 3  # of workers, before a picture is given up
_POLL = 0.5  # seconds
_TELL_AFTER = 5.0  # seconds


@dataclass(frozen=True)
class Task:
    """A picture that this worker has claimed."""

    entry: Entry
    place: int  # in the list, from 1
    lot: int

    @property
    def is_suspect(self) -> bool:
        """Whether it may have killed a worker, and is to be tried alone."""
        return self.entry.deaths > 0

    @property
    def is_given_up(self) -> bool:
        """Whether it has killed so many that it is not tried again."""
        return self.entry.deaths >= MOST_DEATHS


class SharedFeed:
    """Claims lots of a round and hands on their pictures; see `pipeline.Feed`.

    Args:
        round: that this process has joined.
        output: the folder of results.
        arrange: puts the entries of a lot into the order in which they are computed.
        say: is told what is waited for.
    """

    def __init__(
        self,
        round: Round,
        output: Path,
        arrange: Callable[[list[Entry]], list[Entry]] = lambda entries: entries,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._round = round
        self._output = output
        self._arrange = arrange
        self._say = say
        self._waited = 0.0  # seconds
        self._log = Log(round.log_of(round.members.me))
        self._at = 0  # the lot to try next
        self._ready: deque[Task] = deque()
        self._left: dict[int, set[int]] = {}  # of each lot, the entries that are not ended
        self._lock = threading.Lock()

    def next(self, patient: bool) -> Task | None:
        """The next picture; see `pipeline.Feed`. Waits for others that may still die."""
        while not self._ready:
            if self._at < self._round.list.lots:
                number, self._at = self._at, self._at + 1
                if self._round.claims.take_new(_name(number)):
                    self._begin(number, [])
                if self._round.is_superseded():
                    self._at = self._round.list.lots
            elif not patient or self._round.is_over():
                return None
            elif not self._take_over():
                self._wait()
        return self._ready.popleft()

    def _wait(self) -> None:
        if self._waited <= _TELL_AFTER < self._waited + _POLL:
            left = self._round.list.lots - len(self._round.claims.done())
            lots = "a part" if left == 1 else f"{left} parts"
            others = ", ".join(self._round.members.others())
            self._say(
                f"waiting for {others}, with {lots} of the list; what a dead worker had is taken "
                "over, after a minute if it was on another machine"
            )
        self._waited += _POLL
        time.sleep(_POLL)

    def _take_over(self) -> bool:
        """Take a lot of a worker that is dead, if there is one."""
        done = self._round.claims.done()
        for number in range(self._round.list.lots):
            if _name(number) not in done:
                former = self._round.claims.take(_name(number))
                if former is not None:
                    self._begin(number, former)
                    return True
        return False

    def _begin(self, lot: int, former: list[str]) -> None:
        """Get a lot's entries ready but for those that former owners finished."""
        entries = self._round.list.lot(lot)
        numbers = {entry.number for entry in entries}
        ended: set[int] = set()
        deaths = dict.fromkeys(numbers, 0)

        def note(number: int, record: Record) -> None:
            if number in numbers and (record.status == "failed" or is_there(self._output, record)):
                ended.add(number)

        for worker in filter(None, former):
            for number in open_ends(self._round.log_of(worker), note) & numbers:
                deaths[number] += 1
        places = {e.number: lot * self._round.list.size + at for at, e in enumerate(entries, 1)}
        left = [
            replace(entry, deaths=entry.deaths + deaths[entry.number])
            for entry in entries
            if entry.number not in ended
        ]
        self._left[lot] = {entry.number for entry in left}
        # what may kill a worker comes last
        for entry in sorted(self._arrange(left), key=lambda entry: entry.deaths > 0):
            self._ready.append(Task(entry, places[entry.number], lot))
        if not left:
            self._finish(lot)

    def begun(self, task: Task) -> None:
        """Say, in any thread, that a picture is under way."""
        self._log.begun(task.entry)

    def ended(self, task: Task, record: Record) -> None:
        """Say, in any thread, what became of a picture."""
        self._log.ended(task.entry, replace(record, worker=self._round.members.me))
        with self._lock:
            left = self._left[task.lot]
            left.discard(task.entry.number)
            is_last = not left
        if is_last:
            self._finish(task.lot)

    def _finish(self, lot: int) -> None:
        # whoever sees that the lot is done can read what became of it
        self._log.keep()
        self._round.claims.finish(_name(lot))
        del self._left[lot]

    def leave(self) -> None:
        """Work no more; what is under way was given up on purpose."""
        self._log.close()
        self._round.members.leave()


def _name(lot: int) -> str:
    return f"{lot:07}"
