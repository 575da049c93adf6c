"""What became of each picture: a file of lines for each worker, which only that one writes.

A line that a crash cut short is passed over: its picture is then restored once more.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from restore.atomic import writing
from restore.batching.names import digest
from restore.errors import OutputError

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture of a work list. Paths are those from the folder of results, as machines differ."""

    source: str
    below: str  # the folder in that of the results where its result goes
    deaths: int = 0  # workers that ended without a word while they had it

    @property
    def number(self) -> int:
        """64 bits that stand for picture and place, whoever had it."""
        return digest(f"{self.source}\0{self.below}")

    def to_line(self) -> str:
        """A line of JSON."""
        told = [self.source, self.below, *([self.deaths] if self.deaths else [])]
        return json.dumps(told) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Entry:
        """What `to_line` gave."""
        return cls(*json.loads(line))


@dataclass
class Record:
    """What became of a picture."""

    status: Status
    source: str = ""  # as for the user
    output: str = ""
    reason: str = ""  # of a failure
    width: int = 0
    height: int = 0
    result_width: int = 0
    result_height: int = 0
    tiles: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    bytes: int = 0  # of the output
    compare: str = ""  # the comparison
    worker: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {name: value for name, value in asdict(self).items() if value or name == "status"}


class Log:
    """The lines of this worker. Its calls may come from any thread.

    Args:
        path: of a new file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def begun(self, entry: Entry) -> None:
        """A picture is under way."""
        self._write(["begun", entry.source, entry.below])

    def ended(self, entry: Entry, record: Record) -> None:
        """What became of a picture."""
        self._write(["ended", entry.source, entry.below, record.to_dict()])

    def _write(self, told: list[Any]) -> None:
        with self._lock, writing(self._path):
            # in one call, so that a killed worker leaves whole lines
            os.write(self._file, (json.dumps(told) + "\n").encode())

    def keep(self) -> None:
        """Have what was written survive this machine, and seen by the others."""
        with self._lock, writing(self._path):
            os.fsync(self._file)

    def close(self) -> None:
        """End it, and say that nobody died: what is under way was given up."""
        with contextlib.suppress(OutputError):
            self._write(["left"])
            self.keep()
        os.close(self._file)


@dataclass(frozen=True)
class Line:
    """A line of a log: of a picture begun, or ended with a record."""

    number: int  # of the entry
    offset: int  # bytes from the log's start
    record: Record | None


def read_log(path: Path) -> Iterator[Line | None]:
    """The lines of a log; None at its end where the worker left by itself."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:  # killed before it wrote one
        return
    with file:
        offset = 0
        for text in file:
            at, offset = offset, offset + len(text)
            with contextlib.suppress(ValueError, TypeError, IndexError):
                told = json.loads(text)
                if told[0] == "left":
                    yield None
                    continue
                number = Entry(told[1], told[2]).number
                yield Line(number, at, Record(**told[3]) if told[0] == "ended" else None)


def open_ends(path: Path, note: Callable[[int, Record], None]) -> set[int]:
    """Entries that a worker had under way when it died.

    Args:
        path: of its log.
        note: is told the entries that ended, and how.
    """
    under_way: set[int] = set()
    for line in read_log(path):
        if line is None:
            under_way.clear()
        elif line.record is None:
            under_way.add(line.number)
        else:
            under_way.discard(line.number)
            note(line.number, line.record)
    return under_way


def record_at(path: Path, offset: int) -> Record:
    """The record of the line that begins there."""
    with path.open("rb") as file:
        file.seek(offset)
        return Record(**json.loads(file.readline())[3])
