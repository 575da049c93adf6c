"""The pictures of a round: a file that is written once and read in lots, each as it is needed."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from restore.atomic import atomic_output
from restore.batching.logs import Entry

MOST_IN_LOT = 64
LOTS = 500  # that are aimed at: more make more files, fewer leave workers idle at the end


class WorkList:
    """Entries in lots of equal numbers.

    Attributes:
        header: what was written with the list, and `pictures` and `lot`, their numbers.
        lots: how many.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open(encoding="utf-8") as file:
            self.header: dict[str, Any] = json.loads(file.readline())
        self.size = int(self.header["lot"])
        self.lots = -(-len(self) // self.size)
        self._starts = array("Q")  # where lots begin in the file, as far as it was read

    @staticmethod
    def write(path: Path, header: dict[str, Any], entries: Sequence[Entry]) -> None:
        """Make the file, whole or not at all."""
        lot = max(1, min(MOST_IN_LOT, len(entries) // LOTS))
        with atomic_output(path) as file:
            numbers = {"pictures": len(entries), "lot": lot}
            file.write((json.dumps({**header, **numbers}) + "\n").encode())
            for entry in entries:
                file.write(entry.to_line().encode())

    def __len__(self) -> int:
        """How many pictures."""
        return int(self.header["pictures"])

    def lot(self, number: int) -> list[Entry]:
        """The entries of a lot, 0 .. lots - 1."""
        with self._path.open("rb") as file:
            if not self._starts:
                file.readline()
                self._starts.append(file.tell())
            known = min(number, len(self._starts) - 1)
            file.seek(self._starts[known])
            for _ in range(known, number):
                self._read(file)
                self._starts.append(file.tell())
            return [Entry.from_line(line.decode()) for line in self._read(file)]

    def _read(self, file: BinaryIO) -> list[bytes]:
        """The lines of the lot that begins here."""
        lines = (file.readline() for _ in range(self.size))
        return [line for line in lines if line]

    def __iter__(self) -> Iterator[Entry]:
        """All entries."""
        with self._path.open(encoding="utf-8") as file:
            file.readline()
            for line in file:
                yield Entry.from_line(line)
