"""The programs ffmpeg and ffprobe: whether they are there, and running them.

No shell is ever asked, files are named with the protocol `file:`, and what a program writes to its
standard error is read all the time, so that it never waits for us.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from restore.errors import OutputError, UsageError, VideoError

OLDEST = (4, 4)  # the first with the bitstream filter setts
_FPS_MODE_SINCE = (5, 1)
_KEPT_LINES = 12  # of what a program complained of
_QUOTED_LINES = 3
_DISK_FULL = "No space left on device"
_QUIET = ("-hide_banner", "-nostdin", "-nostats", "-v", "error")


@dataclass(frozen=True)
class Tools:
    """Both programs."""

    ffmpeg: str
    ffprobe: str
    version: str  # as ffmpeg writes it, such as "5.1.6-0+deb12u1"

    @property
    def number(self) -> tuple[int, int] | None:
        """Major and minor version; None for a build between releases."""
        return version_number(self.version)

    @property
    def every_frame(self) -> list[str]:
        """Options of an output that gets each frame once, at its own time."""
        old = self.number is not None and self.number < _FPS_MODE_SINCE
        return ["-vsync" if old else "-fps_mode", "passthrough"]

    def encoders(self) -> frozenset[str]:
        """Names of the encoders of this build."""
        return _encoders(self.ffmpeg)


@functools.cache
def _encoders(ffmpeg: str) -> frozenset[str]:
    listed = ask([ffmpeg, "-hide_banner", "-encoders"], "ffmpeg: cannot list its encoders")
    return frozenset(re.findall(r"^ [VAS][A-Z.]{5} (\S+)", listed, re.MULTILINE))


def find_tools() -> Tools:
    """The programs of this machine.

    Raises:
        UsageError: one of them is missing or too old; the message says how to install them.
    """
    found = {name: shutil.which(name) for name in ("ffmpeg", "ffprobe")}
    for name, path in found.items():
        if path is None:
            raise UsageError(
                f"videos need the program {name}, and it is not in the PATH; {install_hint()}"
            )
    ffmpeg, ffprobe = str(found["ffmpeg"]), str(found["ffprobe"])
    try:
        told = ask([ffmpeg, "-version"], "")
    except VideoError as error:
        raise UsageError(f"{ffmpeg}: does not run{error}; {install_hint()}") from error
    match = re.match(r"ffmpeg version (\S+)", told)
    version = match[1] if match else "unknown"
    number = version_number(version)
    if number is not None and number < OLDEST:
        raise UsageError(
            f"{ffmpeg}: is version {version}; expected {OLDEST[0]}.{OLDEST[1]} or newer; "
            f"{install_hint()}"
        )
    return Tools(ffmpeg, ffprobe, version)


def version_number(text: str) -> tuple[int, int] | None:
    """Major and minor of "5.1.6-0+deb12u1" or "n7.0"; None where it is no release."""
    match = re.match(r"n?(\d{1,2})\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def install_hint(platform: str = sys.platform) -> str:
    """How to get ffmpeg on a platform."""
    if platform == "darwin":
        return "install it: brew install ffmpeg"
    if platform == "win32":
        return "install it: winget install Gyan.FFmpeg, and open a new terminal"
    return (
        "install it: sudo apt install ffmpeg (Debian, Ubuntu), sudo dnf install ffmpeg-free "
        "(Fedora), sudo pacman -S ffmpeg (Arch) or conda install -c conda-forge ffmpeg"
    )


def named(path: str | os.PathLike[str]) -> str:
    """A file as ffmpeg takes it, whatever characters are in its name."""
    return f"file:{os.fspath(path)}"


class Running:
    """A program at work.

    Args:
        words: its command line.
        stdin: whether we write to it.
        stdout: whether we read what it writes.
    """

    def __init__(self, words: Sequence[str], *, stdin: bool = False, stdout: bool = False) -> None:
        try:
            self._process = subprocess.Popen(
                list(words),
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, "AV_LOG_FORCE_NOCOLOR": "1"},
                # Ctrl-C is for us: ffmpeg would end its file as if it were whole
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise VideoError(f"{words[0]}: cannot be run: {error.strerror or error}") from error
        self._name = Path(words[0]).name
        self._told: deque[str] = deque(maxlen=_KEPT_LINES)
        self.complaints = 0  # lines
        self.first_complaint = ""
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        """End it, whatever it is doing; does nothing where it has ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    @property
    def stdin(self) -> IO[bytes]:
        """Where we write."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Where we read."""
        assert self._process.stdout is not None
        return self._process.stdout

    def finish(self) -> int:
        """Say that no more input comes, wait for its end, and give its exit status."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        status = self._process.wait()
        self._reader.join()
        return status

    @property
    def kept_lines(self) -> list[str]:
        """The last of what it complained of."""
        return list(self._told)

    def last_words(self) -> str:
        """What it complained of, to put into a message; empty if of nothing."""
        return quoted(self._name, self.kept_lines)

    @property
    def is_disk_full(self) -> bool:
        """Whether it complained of that."""
        return any(_DISK_FULL in line for line in self._told)

    def _drain(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(OSError, ValueError):
            for raw in self._process.stderr:
                # its own addresses tell nobody anything
                line = re.sub(r" @ 0x[0-9a-f]+", "", raw.decode("utf-8", "replace").strip())
                if line:
                    self._told.append(line)
                    self.complaints += 1
                    self.first_complaint = self.first_complaint or line


def ffmpeg_words(tools: Tools, *words: str) -> list[str]:
    """The command line of a quiet ffmpeg."""
    return [tools.ffmpeg, *_QUIET, *words]


def ask(words: Sequence[str], failing: str) -> str:
    """Run a program to its end and give what it wrote to standard output.

    Raises:
        VideoError: it failed; the message is `failing` and what the program said last.
    """
    with Running(words, stdout=True) as program:
        told = program.stdout.read().decode("utf-8", "replace")
        if program.finish():
            raise VideoError(f"{failing}{program.last_words()}")
    return told


def check_written(program: Running, path: str | os.PathLike[str]) -> None:
    """Wait for a program that writes a file.

    Raises:
        OutputError: it failed.
    """
    status = program.finish()
    if program.is_disk_full:
        raise OutputError(
            f"{os.fspath(path)}: cannot be written: the disk is full; free some space and give the "
            "same command again: it goes on with what is finished"
        )
    if status:
        raise OutputError(f"{os.fspath(path)}: cannot be written{program.last_words()}")


def quoted(name: str, lines: Sequence[str]) -> str:
    """The end of what a program said, as the end of a sentence."""
    last = list(dict.fromkeys(lines))[-_QUOTED_LINES:]
    return f"; {name} says: {' | '.join(last)}" if last else ""
