"""CSV files that a run adds rows to, and that a resumed run goes on with."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from restore.atomic import atomic_output, writing

Cell = int | float | str


# what becomes of bytes that are no text
_NO_TEXT = "\N{REPLACEMENT CHARACTER}"


def _rows(path: Path, last: int) -> list[dict[str, str]]:
    """Whole rows up to an iteration; a kill cuts rows short, a power cut leaves any bytes."""
    with writing(path):
        text = path.read_bytes().decode("utf-8", "replace").replace("\0", _NO_TEXT)
    lines = [line for line in text.splitlines() if _NO_TEXT not in line]
    return [
        row
        for row in csv.DictReader(lines, restval="")
        if None not in row and row.get("iter", "").isdecimal() and int(row["iter"]) <= last
    ]


class Table:
    """Rows by iteration; a row is on the disk when `add` returns.

    Args:
        path: the file; what it holds up to `until` stays.
        until: the iteration that a run goes on from; 0: it begins.
        before: False: rows of that iteration stay too.
    """

    def __init__(self, path: Path, until: int, *, before: bool = False) -> None:
        self._path = path
        self.rows: list[dict[str, str]] = []
        if until and path.exists():
            self.rows = _rows(path, until - before)
        self._columns = list(dict.fromkeys(name for row in self.rows for name in row))
        self._write_all()

    def add(self, row: Mapping[str, Cell]) -> None:
        """Add a row; OutputError where it cannot be written."""
        cells = {name: f"{v:.6g}" if isinstance(v, float) else str(v) for name, v in row.items()}
        self.rows.append(cells)
        new = [name for name in cells if name not in self._columns]
        if new or not self._path.exists():
            self._columns += new
            with writing(self._path):  # someone may have removed the folder on the way
                self._path.parent.mkdir(parents=True, exist_ok=True)
            self._write_all()
            return
        with writing(self._path), self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._text([cells]))

    def _write_all(self) -> None:
        text = self._text([dict(zip(self._columns, self._columns, strict=True)), *self.rows])
        with atomic_output(self._path) as file, writing(self._path):
            file.write(text.encode() if self._columns else b"")

    def _text(self, rows: Sequence[Mapping[str, str]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n", restval="").writerows(rows)
        return text.getvalue()

    def points(self, column: str, **where: str) -> list[tuple[float, float]]:
        """Iteration and value of a column, of the rows whose other columns are as given."""
        return [
            (float(row["iter"]), float(row[column]))
            for row in self.rows
            if row.get(column) and all(row.get(name) == value for name, value in where.items())
        ]
