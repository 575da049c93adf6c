"""Patterns of file names, where links may lead in circles."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path


def matches(pattern: str) -> list[str]:
    """What a pattern (`*`, `?`, `[...]`, `**`) stands for, sorted, each once.

    As glob of Python's library, but that `**` goes into a linked folder once, not as often as there
    are ways to it, which two links to their own folder make more than can be counted.
    """
    before, stars, after = pattern.partition("**")
    if not stars or not _stands_alone(before, after):
        return sorted(set(glob.glob(pattern)))
    rest = after.lstrip(os.sep)
    found: set[str] = set()
    roots = sorted(set(glob.glob(before))) if before else ["."]
    for root in roots:
        for folder in folders_below(root):
            here = folder if before else os.path.relpath(folder)
            within = "" if here == "." else glob.escape(here)
            found.update([here] if within and not rest else [])
            found.update(matches(os.path.join(within, rest or "*")))
    return sorted(found)


def _stands_alone(before: str, after: str) -> bool:
    return before[-1:] in ("", os.sep) and after[:1] in ("", os.sep)


def folders_below(root: str) -> Iterator[str]:
    """A folder and all that are in it; hidden ones are left out, and links followed once each."""
    links: set[str] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        yield folder
        try:
            with os.scandir(folder) as entries:
                found = sorted(entry.name for entry in entries if _is_folder(entry))
        except OSError:  # as glob leaves out what it may not read
            continue
        for name in reversed(found):
            path = os.path.join(folder, name)
            if is_new(path, links):
                waiting.append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and not entry.name.startswith(".")
    except OSError:  # a link that leads back to itself
        return False


def is_new(folder: str | Path, links: set[str]) -> bool:
    """Whether to go into a folder: always, but for links to where one led before, or to its own."""
    if not os.path.islink(folder):
        return True
    real, here = os.path.realpath(folder), os.path.realpath(os.path.dirname(folder))
    if real in links or here == real or here.startswith(os.path.join(real, "")):
        return False
    links.add(real)
    return True
