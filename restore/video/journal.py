"""The working folder of a video: what is finished, for a run that goes on where one ended.

It lies beside the result and is called after it: `clip.mp4.parts`. `journal.json` says what is
made, and when each frame is shown; a segment file is there when it is whole, and not before.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from restore.atomic import atomic_output, output_error, writing
from restore.errors import OutputError, VideoError
from restore.video.scanning import FrameTimes

ENDING = ".parts"
_VERSION = 1
_JOURNAL, _LOCK = "journal.json", "lock"
Settings = dict[str, str]  # what makes a result this one and no other, for people to compare


@dataclass(frozen=True)
class Folder:
    """A working folder that this process alone uses.

    Args:
        path: the folder.
        suffix: of segment files, with its point.
        pts: of all frames of the result, in ticks.
        length: frames of a segment; the last may have fewer.
    """

    path: Path
    suffix: str
    pts: tuple[int, ...]
    length: int

    @property
    def segments(self) -> int:
        """How many there are when all is done."""
        return -(-len(self.pts) // self.length)

    def frames(self, number: int) -> range:
        """Which frames a segment holds."""
        return range(number * self.length, min((number + 1) * self.length, len(self.pts)))

    def file(self, number: int) -> Path:
        """Where a segment lies."""
        return self.path / f"segment-{number:06}{self.suffix}"

    def missing(self) -> list[int]:
        """The segments that are still to be made."""
        return [number for number in range(self.segments) if not self.file(number).exists()]

    def clean(self) -> None:
        """Remove what a killed run left half written; nobody else writes here."""
        for part in self.path.glob(".*.part"):
            with contextlib.suppress(OSError):
                part.unlink()


def folder_of(target: Path) -> Path:
    """Where the work for a result lies."""
    return target.with_name(target.name + ENDING)


def stored(target: Path, settings: Settings) -> FrameTimes | None:
    """The frames of the run that is to go on, or None where there is none.

    Raises:
        OutputError: that run made something else; or its journal cannot be read.
    """
    folder = folder_of(target)
    file = folder / _JOURNAL
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{file}: cannot be read ({error}); remove {folder} to begin anew"
        ) from error
    differs = differing(_checked(facts, file), settings)
    if differs:
        count = len(list(folder.glob("segment-*")))
        raise OutputError(
            f"{folder}: holds {count} finished segments of a run with other settings: "
            f"{'; '.join(differs)}. Give those again to go on with them, or remove that folder to "
            "begin anew"
        )
    kept = facts["times"]
    return FrameTimes(
        Fraction(kept["time_base"]),
        tuple(kept["pts"]),
        int(kept["repeats"]),
        tuple(kept["notes"]),
        kept["cut_short"],
    )


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Settings that changed, in words."""
    keys = dict.fromkeys((*before, *now))
    return [
        f"{key} was {before.get(key, 'not said')} and is {now.get(key, 'not said')}"
        for key in keys
        if before.get(key) != now.get(key)
    ]


@contextlib.contextmanager
def working_folder(
    target: Path,
    settings: Settings,
    times: FrameTimes,
    pts: tuple[int, ...],
    suffix: str,
    length: int,
) -> Iterator[Folder]:
    """The folder for a result, locked while it is used, made where it is not there.

    It stays until `remove` is called.

    Args:
        target: the result.
        settings: what makes it this one.
        times: of all frames that were looked at, for the journal.
        pts: of those that the result shows.
        suffix: of segment files.
        length: frames of a segment.

    Raises:
        OutputError: it cannot be made, or another process is at work in it.
    """
    path = folder_of(target)
    with writing(path):
        os.makedirs(path, exist_ok=True)
    with _locked(path / _LOCK):
        folder = Folder(path, suffix, pts, length)
        folder.clean()
        if not (path / _JOURNAL).exists():
            told = {**asdict(times), "time_base": str(times.time_base)}
            facts = {"version": _VERSION, "settings": settings, "times": told}
            with atomic_output(path / _JOURNAL) as file:
                file.write(json.dumps(facts).encode())
        yield folder


def remove(folder: Folder) -> None:
    """Remove a folder whose result is complete."""
    shutil.rmtree(folder.path, ignore_errors=True)


def _checked(facts: Any, file: Path) -> dict[str, str]:
    """The settings of a journal."""
    fits = isinstance(facts, dict) and facts.get("version") == _VERSION
    if not fits or not isinstance(facts.get("settings"), dict):
        raise OutputError(
            f"{file}: is of another version of this program; remove {file.parent} to begin anew"
        )
    settings: dict[str, str] = facts["settings"]
    return settings


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system releases when this process ends, however it does."""
    try:
        file = path.open("a+b")
    except OSError as error:
        raise output_error(path, error) from error
    with file:
        try:
            _lock(file.fileno())
        except OSError as error:
            raise VideoError(
                f"{path.parent}: another process is at work on this result; wait for it, or choose "
                "another -o"
            ) from error
        yield


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
