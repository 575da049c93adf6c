"""What became of every picture, as a file for people's tables and for programs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from restore.atomic import atomic_output, writing
from restore.batching.journal import Journal, Round
from restore.batching.logs import Entry, Record, read_log, record_at
from restore.batching.names import seen_from
from restore.batching.work_list import WorkList
from restore.errors import UsageError

COLUMNS = (
    *("source", "output", "status", "reason", "width", "height", "result_width"),
    *("result_height", "tiles", "seconds", "notes", "compare", "worker"),
)
SUFFIXES = (".csv", ".json")


def check_report(path: Path) -> None:
    """UsageError unless a report can be written there, said before the work and not after it."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--report {path}: expected a name that ends in {' or '.join(SUFFIXES)}")
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"--report {path}: no file can be written there; create {folder} first")


def write_report(path: Path, records: Iterable[Record]) -> None:
    """Write a report, whole or not at all, in the format that the suffix says.

    CSV has a line for each picture under the names of COLUMNS. JSON has the same under "pictures",
    notes as a list, and how many of each status under "counts".

    Raises:
        OutputError: it cannot be written.
    """
    write = _write_json if path.suffix.lower() == ".json" else _write_csv
    with atomic_output(path) as file, writing(path):
        # names of files may hold bytes that are no text
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        write(text, records)
        text.flush()
        text.detach()


def _write_csv(file: IO[str], records: Iterable[Record]) -> None:
    table = csv.writer(file)
    table.writerow(COLUMNS)
    for record in records:
        row = _row(record)
        table.writerow([*({**row, "notes": "; ".join(record.notes)}[name] for name in COLUMNS)])


def _write_json(file: IO[str], records: Iterable[Record]) -> None:
    counts: Counter[str] = Counter()
    file.write('{"pictures": [')
    for number, record in enumerate(records):
        counts[record.status] += 1
        file.write((",\n" if number else "\n") + json.dumps(_row(record)))
    file.write(f'\n],\n"counts": {json.dumps(counts)}}}\n')


def _row(record: Record) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in COLUMNS}
    return {**row, "seconds": round(record.seconds, 3)}


def outcome_of(round: Round) -> tuple[Counter[str], list[str]]:
    """How many pictures of a round came to each status, and the reasons of failures."""
    found: dict[int, str] = {}
    reasons: dict[int, str] = {}
    for line in round.lines():
        if line and line.record and found.get(line.number) != "done":
            found[line.number] = line.record.status
            reasons.pop(line.number, None)
            if line.record.status == "failed":
                reasons[line.number] = line.record.reason
    return Counter(found.values()), sorted(reasons.values())


def records_of(journal: Journal, output: Path) -> Iterator[Record]:
    """What became of every picture in a journal, by its last record, in the order of the lists.

    Args:
        journal: of all rounds.
        output: the folder of results.
    """
    logs = [path for round in journal.rounds() for path in sorted((round / "logs").glob("*.jsonl"))]
    # of a million pictures only where their records are is held
    places: dict[int, tuple[int, int]] = {}
    done: set[int] = set()
    for at, path in enumerate(logs):
        for line in read_log(path):
            if line and line.record:
                if line.record.status == "done":
                    done.add(line.number)
                elif line.number in done and _same_round(logs, places[line.number][0], at):
                    continue
                places[line.number] = at, line.offset
    for round in journal.rounds():
        for entry in WorkList(round / "list.jsonl"):
            place = places.pop(entry.number, None)
            if place is not None:
                yield _shown(entry, record_at(logs[place[0]], place[1]), output)


def _same_round(logs: list[Path], one: int, other: int) -> bool:
    return logs[one].parent == logs[other].parent


def _shown(entry: Entry, record: Record, output: Path) -> Record:
    """A record with paths as a user knows them."""
    return replace(
        record,
        source=str(shown_path(output, entry.source)),
        output=str(output / record.output) if record.output else "",
        compare=str(output / record.compare) if record.compare else "",
    )


def shown_path(output: Path, source: str) -> Path:
    """A picture's path from the current folder, if it is in that."""
    path = os.path.normpath(os.path.join(os.path.abspath(output), source))
    from_here = seen_from(os.getcwd(), path)
    return Path(path if from_here.startswith(os.pardir) else from_here)
