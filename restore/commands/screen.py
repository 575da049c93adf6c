"""What a person sees of a run: lines and progress bars. Nothing else in the package prints."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from restore.commands.text import agreement_line, details_line, outcome_line
from restore.errors import printable

if TYPE_CHECKING:
    from tqdm import tqdm

    from restore.commands.batch import Outcome
    from restore.commands.files import Job
    from restore.upscaling import Progress


def show(*lines: str) -> None:
    """Print lines to standard output; names in them can neither break a line nor the terminal."""
    for line in lines:
        print(printable(line), flush=True)


def complain(line: str) -> None:
    """Print a line to standard error."""
    print(printable(line), file=sys.stderr, flush=True)


@contextlib.contextmanager
def counted(total: int, noun: str, quiet: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error where that is a terminal; what is yielded counts one."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    from tqdm import tqdm

    form = f"{{n_fmt}}/{{total_fmt}} {noun} |{{bar}}| {{remaining}} left"
    with tqdm(total=total, leave=False, bar_format=form) as bar:
        yield lambda: (bar.update(), None)[1]


def _width() -> int:
    """Columns for a bar."""
    # room for the terminal's own "^C", which would break the line where the bar cannot be wiped
    return max(20, shutil.get_terminal_size().columns - 4)


class BytesBar:
    """A file's bytes as they come: a bar with speed and time left where there is a terminal."""

    def __init__(self, name: str, quiet: bool) -> None:
        self._name = name
        self._quiet = quiet
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> BytesBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def progress(self, done: int, total: int | None) -> None:
        """So many bytes are there, of how many if that is known."""
        if self._quiet or not sys.stderr.isatty():
            return
        if self._bar is None:
            from tqdm import tqdm

            # what was there before is no speed
            self._bar = tqdm(
                desc=self._name,
                total=total,
                initial=done,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                leave=False,
                ncols=_width(),
            )
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def say(self, text: str) -> None:
        """A line above the bar, unless all is to be quiet."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.clear()
        complain(f"{self._name}: {text}")


@contextlib.contextmanager
def searching(quiet: bool) -> Iterator[Callable[[], None]]:
    """Where that is a terminal, how many files were looked at; what is yielded counts one."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    from tqdm import tqdm

    # a folder of usual size is done before there is anything to show
    with tqdm(leave=False, delay=1, bar_format="searching: {n_fmt} files") as bar:
        yield lambda: (bar.update(), None)[1]


class Screen:
    """What a run shows: lines, and bars under them where standard error is a terminal.

    Args:
        quiet: only what went wrong.
        verbose: more.
        bars: whether there may be bars; of several processes on a terminal one has them.
    """

    def __init__(self, quiet: bool, verbose: bool, *, bars: bool = True) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._bars = bars and sys.stderr.isatty() and not quiet
        self._pictures: tqdm[Any] | None = None
        self._tiles: tqdm[Any] | None = None

    @property
    def has_bars(self) -> bool:
        """Whether it shows bars."""
        return self._bars

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the bars off the screen."""
        for bar in (self._tiles, self._pictures):
            if bar is not None:
                bar.close()
        self._tiles = self._pictures = None

    def say(self, text: str) -> None:
        """A line, unless all is to be quiet."""
        if not self._quiet:
            self._write(text, sys.stdout)

    def _write(self, text: str, file: Any) -> None:
        text = printable(text)
        try:
            if self._bars:
                from tqdm import tqdm

                tqdm.write(text, file=file)
            else:
                print(text, file=file, flush=True)
        except OSError:
            # the pictures matter more than the reader of these lines, who is gone or full
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())

    def begin(self, job: Job, number: int, total: int) -> None:
        """A picture is computed next; others may still be written."""
        if not self._bars:
            return
        from tqdm import tqdm

        width = _width()
        if self._pictures is None and total > 1:
            form = "{n_fmt}/{total_fmt} pictures |{bar}| {remaining} left"
            self._pictures = tqdm(
                total=total,
                # others may have done what stands before this one
                initial=number - 1,
                leave=False,
                ncols=width,
                position=0,
                bar_format=form,
            )
        if self._tiles is not None:
            self._tiles.close()
        # below; the bar on top is the last to go, as only that one puts the cursor back to the left
        below = 0 if self._pictures is None else 1
        self._tiles = tqdm(
            desc=printable(job.source.name), unit="tile", leave=False, ncols=width, position=below
        )

    def progress(self, step: Progress) -> None:
        """Tiles are done, or something happened that is noted at the end."""
        bar = self._tiles
        if bar is not None:
            bar.total = step.total
            bar.update(step.done - bar.n)

    def end(self, outcome: Outcome, number: int, total: int) -> None:
        """A picture is finished, well or not."""
        head = f"[{number}/{total}]"
        if outcome.status == "failed":
            self._write(f"{head} failed: {outcome.reason}", sys.stderr)
            if self._verbose and outcome.trace:
                for line in outcome.trace.splitlines():
                    self._write(line, sys.stderr)
        elif outcome.status == "skipped":
            self.say(f"{head} {outcome.job.source} skipped: {outcome.target} is there")
        else:
            self.say(f"{head} {outcome_line(outcome)}")
        for note in outcome.notes:
            self.say(f"    note: {note}")
        if outcome.agreement is not None:
            self._write(f"    {agreement_line(outcome.agreement)}", sys.stdout)
        if self._verbose and outcome.status == "done":
            self.say(f"    {details_line(outcome)}")
        if self._pictures is not None:
            self._pictures.update(max(0, number - self._pictures.n))
