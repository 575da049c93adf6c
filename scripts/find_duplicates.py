"""Find runs of code that stand in two files word for word.

Comments, docstrings, blank lines, imports and lines of brackets alone do not count; layout within
a line does not either. Prints each run once, at its full length; exits with 1 if there is any.

Usage: find_duplicates.py FOLDER...
"""

from __future__ import annotations

import argparse
import io
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LEAST = 8  # lines; fewer are often two calls that merely look alike
BRACKETS_ALONE = set("()[]{},: ")
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


class Line(NamedTuple):
    """One line of code, its tokens joined by single spaces."""

    number: int
    text: str


class Place(NamedTuple):
    """Where a run starts: a file and where among its lines of code."""

    path: Path
    start: int


def statements(source: str) -> Iterator[list[tokenize.TokenInfo]]:
    """The logical lines of a file, each as its tokens without comments and layout."""
    tokens: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NEWLINE:
            yield tokens
            tokens = []
        elif token.type not in NO_CODE:
            tokens.append(token)


def code_lines(source: str) -> list[Line]:
    """The lines that count."""
    lines: list[Line] = []
    for tokens in statements(source):
        only_a_string = all(token.type == tokenize.STRING for token in tokens)
        if only_a_string or tokens[0].string in ("import", "from"):
            continue
        rows: dict[int, list[str]] = defaultdict(list)
        for token in tokens:
            rows[token.start[0]].append(token.string)
        for number, strings in rows.items():
            text = " ".join(strings)
            if not set(text) <= BRACKETS_ALONE:
                lines.append(Line(number, text))
    return lines


def shared_runs(files: dict[Path, list[Line]]) -> list[tuple[Place, Place, int]]:
    """Pairs of places in different files from which the same lines run, with the length."""
    places: dict[tuple[str, ...], list[Place]] = defaultdict(list)
    for path, lines in files.items():
        for index in range(len(lines) - LEAST + 1):
            window = tuple(line.text for line in lines[index : index + LEAST])
            places[window].append(Place(path, index))
    pairs = {
        (first, second)
        for found in places.values()
        for position, first in enumerate(found)
        for second in found[position + 1 :]
        if first.path != second.path
    }
    runs = []
    for first, second in sorted(pairs):
        if (Place(first.path, first.start - 1), Place(second.path, second.start - 1)) in pairs:
            continue  # the run that started earlier holds this one
        length = LEAST
        while (
            Place(first.path, first.start + length - LEAST + 1),
            Place(second.path, second.start + length - LEAST + 1),
        ) in pairs:
            length += 1
        runs.append((first, second, length))
    return runs


def main() -> int:
    """Compare all Python files below the folders; links are not followed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    folders: list[Path] = parser.parse_args().folders
    paths = sorted(path for folder in folders for path in python_files(folder))
    files = {path: code_lines(path.read_text(encoding="utf-8")) for path in paths}
    runs = shared_runs(files)
    for first, second, length in runs:
        here = f"{first.path}:{files[first.path][first.start].number}"
        there = f"{second.path}:{files[second.path][second.start].number}"
        print(f"{here} and {there}: the same {length} lines of code; let one call the other")
    return 1 if runs else 0


def python_files(folder: Path) -> Iterator[Path]:
    """Python files below a folder, without those behind links."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            continue
        if path.is_dir():
            yield from python_files(path)
        elif path.suffix == ".py":
            yield path


if __name__ == "__main__":
    sys.exit(main())
