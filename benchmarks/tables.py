"""Tables for people, and their places on pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]
NOTHING = "Not measured yet.\n"


def times(row: Entry | None, ours: Entry) -> str:
    """The time of a row as a multiple of that of ours, or why there is none."""
    if row is None:
        return ""
    return f"{row['median_ms'] / ours['median_ms']:.2f} x" if "median_ms" in row else why(row)


def why(row: Entry) -> str:
    """In a word or two, why there is no time."""
    text = str(row.get("failed") or row.get("refused") or row.get("missing") or "not run")
    if "OutOfMemory" in text:
        return "out of memory"
    kinds = ("failed", "refused", "missing")
    return next((kind for kind in kinds if kind in row), "not run")


def line(cells: Any) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def put_between(page: Path, begin: str, end: str, found: str) -> None:
    """Replace what stands between two marks of a page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    page.write_text(f"{before}{begin}\n\n{found}\n{end}{after}", encoding="utf-8")
