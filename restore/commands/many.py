"""`restore upscale` over many pictures, alone or with other workers."""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch

from restore.batching.launch import Launch
from restore.batching.logs import Record
from restore.batching.pipeline import Feed, overlapped
from restore.batching.report import write_report
from restore.commands.batch import Batch, Outcome, Work
from restore.commands.files import Job
from restore.commands.many_options import jobs_of
from restore.commands.screen import Screen, complain
from restore.commands.text import summary_line
from restore.upscaling import memory

QUEUE_SHARE = 8  # of the free memory one part is for what is read and not yet written
WINDOW = 64  # pictures that are ordered by their sizes on a GPU
DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130


Item = TypeVar("Item")


@dataclass
class Turn(Generic[Item]):
    """A picture on its way."""

    item: Item
    number: int  # as it is told
    work: Work


class PictureStages(Generic[Item]):
    """The stages of `Batch`, with what is shown and noted of each; see `pipeline.Stages`.

    Args:
        batch: does the work.
        screen: shows it.
        total: pictures in all.
        number_of: the number of an item, as it is told, from 1.
        job_of: an item's job, and whether it is to be computed alone; in any thread.
        ended: is told in any thread what became of an item.
    """

    def __init__(
        self,
        batch: Batch,
        screen: Screen,
        total: int,
        number_of: Callable[[Item], int],
        job_of: Callable[[Item], tuple[Job, bool]],
        ended: Callable[[Item, Outcome], None],
    ) -> None:
        self.batch = batch
        self.total = total
        self.finished = 0
        self._screen = screen
        self._number_of = number_of
        self._job_of = job_of
        self._ended = ended
        self._lock = threading.Lock()

    def open(self, item: Item) -> tuple[Turn[Item], int | None]:
        """Read the header; streamed pictures go alone."""
        job, alone = self._job_of(item)
        # what is wrong with the file is told when it is read
        with contextlib.suppress(Exception):
            alone = alone or self.batch.streams(job)
        turn = Turn(item, self._number_of(item), Work(job, Outcome(job)))
        return turn, None if alone else self.batch.weight(job)

    def read(self, opened: Turn[Item]) -> Turn[Item]:
        """Decode."""
        opened.work = self.batch.read(opened.work.job)
        return opened

    def compute(self, work: Turn[Item]) -> None:
        """Run the network."""
        self._screen.begin(work.work.job, work.number, self.total)
        self.batch.compute(work.work, self._screen.progress)

    def write(self, work: Turn[Item]) -> Turn[Item]:
        """Encode."""
        outcome = self.batch.write(work.work)
        self._ended(work.item, outcome)
        with self._lock:
            self.finished += 1
        return work


@dataclass
class Tally:
    """What is remembered of a run: little, as pictures may be many."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    only: Outcome | None = None  # done, where it is the only one
    is_interrupted: bool = False

    @property
    def code(self) -> int:
        """For the shell."""
        return INTERRUPTED if self.is_interrupted else SOME_FAILED if self.failures else DONE

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.counts[outcome.status] += 1
        if outcome.status == "failed":
            self.failures.append(outcome.reason)
        elif outcome.status == "done":
            self.only = outcome if self.counts["done"] == 1 else None

    def where(self, output: Path) -> list[Path]:
        """What to show as the result: the folder, or the files of the only picture."""
        if self.counts["done"] > 1:
            return [output]
        return [p for p in (self.only.target, self.only.job.compare) if p] if self.only else []


class Spool:
    """Records on the disk until the report is written."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - see close
        self._lock = threading.Lock()
        self._end = 0
        self._places = array("Q")  # number and offset of each, in 24 and 40 bits

    def add(self, number: int, record: Record) -> None:
        """Keep a picture's record; in any thread."""
        line = json.dumps(record.to_dict()).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._places.append(number << 40 | self._end)
            self._end += len(line)

    def __iter__(self) -> Iterator[Record]:
        """All records by their numbers."""
        for place in sorted(self._places):
            self._file.seek(place & (1 << 40) - 1)
            yield Record(**json.loads(self._file.readline()))

    def close(self) -> None:
        """Remove them."""
        self._file.close()


@dataclass(frozen=True)
class Numbered:
    """A picture of a batch."""

    number: int  # in the order of computing, from 1
    index: int  # in the batch
    job: Job | None  # None: it is made later, in another thread


class InOrder:
    """The pictures of a batch, one after another; see `pipeline.Feed`.

    Args:
        jobs: of the batch.
        window: so many at a time are ordered by size, which reads their headers; 1 keeps the order.
    """

    def __init__(self, jobs: Sequence[Job], window: int) -> None:
        self._jobs = jobs
        self._window = window
        self._at = 0  # in the batch
        self._number = 0
        self._ready: deque[tuple[int, Job | None]] = deque()

    def next(self, patient: bool) -> Numbered | None:
        """The next picture; see `pipeline.Feed`."""
        if not self._ready:
            indices = range(self._at, min(len(self._jobs), self._at + self._window))
            self._at = indices.stop
            if self._window == 1:
                self._ready.extend((index, None) for index in indices)
            else:
                made = {index: self._jobs[index] for index in indices}
                by_size = sorted(indices, key=lambda index: size_order(made[index]), reverse=True)
                self._ready.extend((index, made[index]) for index in by_size)
        if not self._ready:
            return None
        self._number += 1
        return Numbered(self._number, *self._ready.popleft())


def size_order(job: Job) -> tuple[int, int, int]:
    """Sorts the largest first, and puts equal shapes side by side."""
    if job.info is None:
        return 0, 0, 0
    return job.info.width * job.info.height, job.info.width, job.info.channels


def queue_budget(processes: int) -> int:
    """Bytes of pictures that wait, of each of several processes on this machine."""
    return memory.free_bytes(torch.device("cpu")) // QUEUE_SHARE // processes


def window_of(batch: Batch) -> int:
    """On a GPU memory is found anew for each new shape; a CPU does not care."""
    return 1 if batch.model.device.type == "cpu" else WINDOW


def run_alone(batch: Batch, screen: Screen, output: Path, options: argparse.Namespace) -> int:
    """Restore a batch's pictures; returns the exit code."""
    spool = Spool() if options.report else None
    jobs, began = batch.jobs, time.perf_counter()

    def job_of(item: Numbered) -> tuple[Job, bool]:
        return item.job or jobs[item.index], False

    def ended(item: Numbered, outcome: Outcome) -> None:
        if spool is not None:
            spool.add(item.index, record_of(outcome))

    stages = PictureStages(batch, screen, len(jobs), lambda item: item.number, job_of, ended)
    try:
        tally = go(InOrder(jobs, window_of(batch)), stages, screen, options, Launch())
        if tally.is_interrupted:
            complain(
                f"interrupted: {stages.finished} of {len(jobs)} pictures finished; nothing is kept "
                "of the one under way. --skip-existing goes on from here"
            )
        if spool is not None:
            write_report(options.report, spool)
    finally:
        if spool is not None:
            spool.close()
    if not tally.is_interrupted:
        tell_end(screen, tally, time.perf_counter() - began, output)
    return tally.code


def go(
    feed: Feed[Item],
    stages: PictureStages[Item],
    screen: Screen,
    options: argparse.Namespace,
    launch: Launch,
) -> Tally:
    """Take all pictures through the stages, and show what became of each."""
    tally = Tally()
    jobs = jobs_of(options, stages.batch.model.device.type, launch.local_count)
    turns = overlapped(feed, stages, jobs=jobs, budget=queue_budget(launch.local_count))
    try:
        # closed at once where it is left early: what is being written is then written to its end
        with contextlib.closing(turns):
            for turn in turns:
                tally.add(turn.work.outcome)
                screen.end(turn.work.outcome, turn.number, stages.total)
    except KeyboardInterrupt:
        tally.is_interrupted = True
    finally:
        screen.close()
    return tally


def tell_end(screen: Screen, tally: Tally, seconds: float, output: Path) -> None:
    """Say how many were done, where they are, and what failed."""
    screen.say(summary_line(tally.counts, seconds))
    for path in tally.where(output):
        screen.say(str(path))
    tell_failures(tally.failures, tally.counts.total())


def tell_failures(reasons: Sequence[str], total: int) -> None:
    """Say again what failed: the lines on the way may have gone off the screen."""
    if reasons:
        complain(f"failed, {len(reasons)} of {total}:")
        for reason in reasons:
            complain(f"  {reason}")


def record_of(outcome: Outcome) -> Record:
    """What a report says of a picture."""
    report = outcome.report
    record = Record(
        outcome.status,
        source=str(outcome.job.source),
        output=str(outcome.target or ""),
        reason=outcome.reason,
        tiles=0 if report is None else report.tiles,
        seconds=outcome.seconds,
        notes=list(outcome.notes),
        compare=str(outcome.job.compare or "") if outcome.status != "failed" else "",
    )
    record.width, record.height = outcome.before
    record.result_width, record.result_height = outcome.after
    if outcome.status == "done" and outcome.target is not None and outcome.target.is_file():
        with contextlib.suppress(OSError):
            record.bytes = outcome.target.stat().st_size
    return record
