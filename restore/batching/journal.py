"""What a run that may be killed, and shared, leaves on the disk: a folder that every worker reads.

A journal has rounds. A round is a list of pictures that all its workers share:

    0001/list.jsonl    settings, then a line for each picture, whole from the start
    0001/names         which names of results are taken, see `Names`
    0001/claims/       who has which part of the list, see `Claims`
    0001/workers/      who is alive, see `Members`
    0001/logs/         what became of each picture, see `Log`
    renamed/           names of results that were not planned, see `ResultNames`

Whoever starts while a round is under way joins it. Otherwise a new round begins, with the pictures
that no round before has finished. A picture is finished when a log says so and its result is there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from restore.atomic import atomic_output, writing
from restore.batching.claims import Claims
from restore.batching.logs import Entry, Line, Record, open_ends, read_log
from restore.batching.members import LEASE, Members
from restore.batching.names import Names
from restore.batching.work_list import WorkList
from restore.errors import UsageError

FOLDER = ".restore"  # in that of the results
FORMAT = 1
_LIST = "list.jsonl"
_POLL = 0.2  # seconds
_TELL_AFTER = 3.0  # seconds


@dataclass(frozen=True)
class Listing:
    """What there is to do."""

    entries: Iterable[Entry]
    names: Names  # that are taken, see `ResultNames`


class Round:
    """A list of pictures, and those who work on it. This process is one of them until `leave`."""

    def __init__(self, folder: Path, members: Members) -> None:
        self.members = members
        self.list = WorkList(folder / _LIST)
        self.claims = Claims(folder / "claims", members.me, members.is_alive)
        self.logs = folder / "logs"
        self.names = Names.from_bytes((folder / "names").read_bytes())
        self._next = folder.with_name(_name(int(folder.name) + 1)) / _LIST

    def is_over(self) -> bool:
        """Whether everything is done, or others have given it up and begun a new round."""
        return self.is_superseded() or len(self.claims.done()) == self.list.lots

    def is_superseded(self) -> bool:
        """Whether a new round has begun: this worker was thought dead, and all others were."""
        return self._next.exists()

    def log_of(self, worker: str) -> Path:
        """A worker's log."""
        return self.logs / f"{worker}.jsonl"

    def lines(self) -> Iterator[Line | None]:
        """The lines of all logs."""
        for path in sorted(self.logs.glob("*.jsonl")):
            yield from read_log(path)


class Journal:
    """A folder through which workers share what there is to do.

    Args:
        folder: made if need be.
        output: the folder of results.
        settings: what has to be the same for all that is in it, in words.
        say: is told what is waited for.
        lease: see `Members`.
    """

    def __init__(
        self,
        folder: Path,
        output: Path,
        settings: dict[str, str],
        say: Callable[[str], None],
        lease: float = LEASE,
    ) -> None:
        self.folder = folder
        self._output = output
        self._settings = settings
        self._say = say
        self._lease = lease
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def renamed(self) -> Path:
        """Where names of results are that were not planned."""
        return self.folder / "renamed"

    def rounds(self) -> list[Path]:
        """Folders of the rounds that have a list, oldest first."""
        return sorted(path.parent for path in self.folder.glob(f"[0-9]*/{_LIST}"))

    def join(self, list_all: Callable[[], Listing]) -> Round | None:
        """Join the round that is under way, or begin one.

        Args:
            list_all: says what there is to do in all; only one of several workers is asked.

        Returns:
            None if every picture is finished.

        Raises:
            UsageError: the journal is of other settings, and which.
        """
        rounds = self.rounds()
        if rounds:
            self._check(rounds[-1])
            current = Round(rounds[-1], self._members(rounds[-1]))
            others = current.members.others()
            if not current.is_over() and any(map(current.members.is_alive, others)):
                current.members.join()
                return current
        return self._begin(self.folder / _name(len(rounds) + 1), list_all)

    def _members(self, folder: Path) -> Members:
        return Members(folder / "workers", self._lease)

    def _begin(self, folder: Path, list_all: Callable[[], Listing]) -> Round | None:
        """Make the list of a round, or wait for the one who does."""
        members = self._members(folder)
        members.join()
        try:
            claims = Claims(folder / "claims", members.me, members.is_alive)
            began: float | None = time.monotonic()
            while not (folder / _LIST).exists():
                former = claims.take("list")
                if former is None:
                    if began is not None and time.monotonic() - began > _TELL_AFTER:
                        self._say("waiting for another worker, which lists the pictures")
                        began = None
                    time.sleep(_POLL)
                    continue
                try:
                    found = self._write_list(folder, list_all())
                finally:
                    claims.give_back("list", len(former))
                if not found:
                    members.leave()
                    _remove_if_empty(folder)
                    return None
            self._check(folder)
            return Round(folder, members)
        except BaseException:
            members.leave()
            raise

    def _check(self, folder: Path) -> None:
        """Refuse to go on with other settings."""
        header = WorkList(folder / _LIST).header
        if header.get("format") != FORMAT:
            raise UsageError(
                f"{self.folder}: is a journal of another version of this program (format "
                f"{header.get('format')}; expected {FORMAT}); finish with that version, or remove "
                "the folder to begin anew"
            )
        before = header["settings"]
        wrong = [
            f"{name} is {self._settings.get(name, 'none')}, but was {before.get(name, 'none')}"
            for name in {**before, **self._settings}
            if self._settings.get(name) != before.get(name)
        ]
        if wrong:
            raise UsageError(
                f"{self.folder}: the results there were begun with other settings: "
                f"{'; '.join(wrong)}. Give the same as before, choose another -o, or remove that "
                "folder to begin anew"
            )

    def _write_list(self, folder: Path, listing: Listing) -> bool:
        """Publish what is left to do; False if nothing is."""
        finished, deaths = self._history()
        usual: list[Entry] = []
        last: list[Entry] = []
        for entry in listing.entries:
            if self._is_there(finished.get(entry.number)):
                continue
            died = deaths.get(entry.number, 0)
            # what may kill a worker comes last
            (last if died else usual).append(replace(entry, deaths=died) if died else entry)
        left = [*usual, *last]
        if left:
            with atomic_output(folder / "names") as file:
                file.write(listing.names.to_bytes())
            header = {"format": FORMAT, "settings": self._settings}
            WorkList.write(folder / _LIST, header, left)
        return bool(left)

    def _history(self) -> tuple[dict[int, Record], Counter[int]]:
        """How pictures were finished in the rounds before, and how many workers each cost."""
        finished: dict[int, Record] = {}
        deaths: Counter[int] = Counter()
        for folder in self.rounds():
            died: Counter[int] = Counter()
            ended: set[int] = set()

            def note(number: int, record: Record, ended: set[int] = ended) -> None:
                ended.add(number)
                if record.status != "failed":
                    finished[number] = _slim(record)

            for path in sorted((folder / "logs").glob("*.jsonl")):
                died.update(open_ends(path, note))
            for number in ended:
                # it was brought to an end all the same, or told as failed
                died.pop(number, None)
                deaths.pop(number, None)
            deaths += died
        return finished, deaths

    def _is_there(self, record: Record | None) -> bool:
        return record is not None and is_there(self._output, record)


def is_there(output: Path, record: Record) -> bool:
    """Whether the files of a finished picture are there, whole."""
    if record.status == "failed":
        return False
    with contextlib.suppress(OSError):
        size = os.stat(output / record.output).st_size
        # of those that an earlier run made the size was not known
        whole = not record.bytes or size == record.bytes
        return whole and (not record.compare or (output / record.compare).exists())
    return False


def _slim(record: Record) -> Record:
    """What tells whether the files are there; of a million pictures the rest takes much memory."""
    return Record(record.status, output=record.output, bytes=record.bytes, compare=record.compare)


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of a round that did not begin, if nobody else is about to begin it."""
    for part in ("claims", "workers", ""):
        with contextlib.suppress(OSError):
            (folder / part).rmdir()


def _name(number: int) -> str:
    return f"{number:04}"
