"""`restore upscale` with a journal: a run that goes on after a crash, and shares its pictures."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from restore.atomic import remove_leftovers
from restore.batching import report
from restore.batching.journal import FOLDER, Journal, Listing, Round
from restore.batching.launch import Launch
from restore.batching.logs import Entry, Record
from restore.batching.names import seen_from
from restore.batching.result_names import ResultNames
from restore.batching.shared import SharedFeed, Task
from restore.commands.batch import Batch, Outcome
from restore.commands.files import Job, Naming, Plan, Source, check_writable, read_job
from restore.commands.many import (
    DONE,
    INTERRUPTED,
    SOME_FAILED,
    PictureStages,
    Tally,
    go,
    record_of,
    size_order,
    tell_failures,
)
from restore.commands.screen import Screen, complain
from restore.commands.text import summary_line
from restore.devices import dtype_name
from restore.errors import UsageError
from restore.image_io import PICTURE_SUFFIXES
from restore.model import Model

_PATIENCE = 60.0  # seconds in which the others see too that all is done
# of `Settings`; they change no result
_NO_SETTING = ("skip_existing", "verify_tiles")


def run_shared(
    batch: Batch,
    screen: Screen,
    naming: Naming,
    plan: Callable[[], Plan],
    options: argparse.Namespace,
    launch: Launch,
) -> int:
    """Restore what a journal has left to do, with all others who do so.

    Args:
        batch: model and settings; its jobs are not looked at.
        screen: shows it.
        naming: how results are called.
        plan: finds all pictures; only one of several workers is asked.
        options: with those of `add_many`.
        launch: this process among others.

    Returns:
        The exit code: of all workers, if not interrupted.

    Raises:
        UsageError: the journal is of other settings, or what `plan` raises.
    """
    output = naming.output
    if output.suffix.lower() in PICTURE_SUFFIXES and not (naming.is_folder or output.is_dir()):
        raise UsageError(f"-o {output}: names one file; --resume is for a folder of results")
    check_writable(output)
    folder = Path(options.journal) if options.journal else output / FOLDER
    settings = settings_of(batch, naming)
    tell = screen.say if launch.rank == 0 else _nothing
    journal = Journal(folder, output, settings, tell)
    round = journal.join(lambda: _listing(plan(), output))
    if round is None:
        tell(f"every picture is done; to do them again, remove {folder}")
        if options.report and launch.rank == 0:
            report.write_report(options.report, report.records_of(journal, output))
        return DONE
    batch.names = ResultNames(output, round.names, journal.renamed)
    worker = _Worker(batch, screen, naming, round)
    return worker.run(journal, folder, options, launch)


class _Worker:
    """This process's part of a round."""

    def __init__(self, batch: Batch, screen: Screen, naming: Naming, round: Round) -> None:
        self._batch = batch
        self._screen = screen
        self._naming = naming
        self._output = naming.output
        self._round = round
        arrange = _as_they_are if batch.model.device.type == "cpu" else self._by_size
        self._feed = SharedFeed(round, self._output, arrange, screen.say)

    def run(
        self, journal: Journal, folder: Path, options: argparse.Namespace, launch: Launch
    ) -> int:
        """Take pictures until all are done; returns the exit code."""
        began, total = time.perf_counter(), len(self._round.list)
        stages = PictureStages(
            self._batch, self._screen, total, lambda task: task.place, self._job_of, self._ended
        )
        try:
            tally = go(self._feed, stages, self._screen, options, launch)
            if tally.is_interrupted:
                complain(
                    f"interrupted: this worker finished {stages.finished} of {total} pictures; "
                    "nothing is kept of the one under way. --resume goes on from here"
                )
                return INTERRUPTED
            seconds = time.perf_counter() - began
            if options.report and self._round.claims.take("report") is not None:
                report.write_report(options.report, report.records_of(journal, self._output))
            return self._end(tally, seconds, folder, launch)
        finally:
            self._feed.leave()

    def _end(self, tally: Tally, seconds: float, folder: Path, launch: Launch) -> int:
        """Say what this worker did, and what all did; returns the exit code."""
        if launch.rank:
            # torchrun ends all processes when one ends with another code: the first speaks for all
            return DONE
        total = len(self._round.list)
        counts, reasons = report.outcome_of(self._round)
        own = summary_line(tally.counts, seconds)
        if counts.total() > tally.counts.total():
            self._screen.say(f"this worker: {own}")
            told = ", ".join(f"{counts[status]} {status}" for status in sorted(counts))
            self._screen.say(f"all workers: {told}, of {total}")
        else:
            self._screen.say(own)
        self._screen.say(str(self._output))
        tell_failures(reasons, counts.total())
        if counts.total() < total:
            complain(
                f"{total - counts.total()} pictures are left to workers that began anew; see "
                f"{folder}"
            )
        if launch.count > 1:
            self._round.members.wait_for_others(_PATIENCE)
        return SOME_FAILED if reasons else DONE

    def _job_of(self, task: Task) -> tuple[Job, bool]:
        """A task's job, and whether it may have killed a worker."""
        entry = task.entry
        job = _job(entry, self._naming)
        if task.is_given_up:
            problem = (
                f"given up: {entry.deaths} workers ended without a word while they had it "
                f"(killed, or out of memory); restore it alone, with a smaller --tile"
            )
            return replace(job, problem=problem), False
        if task.is_suspect:
            for path in {*job.outputs, job.target.with_suffix(".png")}:
                remove_leftovers(path)
        self._feed.begun(task)
        return job, task.is_suspect

    def _ended(self, task: Task, outcome: Outcome) -> None:
        self._feed.ended(task, _from(self._output, record_of(outcome)))

    def _by_size(self, entries: list[Entry]) -> list[Entry]:
        """Largest first, equal shapes side by side."""
        return sorted(
            entries, key=lambda entry: size_order(_job(entry, self._naming)), reverse=True
        )


def _job(entry: Entry, naming: Naming) -> Job:
    path = report.shown_path(naming.output, entry.source)
    return read_job(Source(path, Path(entry.below), named=False), naming, None)


def _from(output: Path, record: Record) -> Record:
    """A record with paths as they are from the folder of results."""
    output_path, compare = (
        path and seen_from(output, path) for path in (record.output, record.compare)
    )
    # the entry says where the picture is
    return replace(record, source="", output=output_path, compare=compare)


def _as_they_are(entries: list[Entry]) -> list[Entry]:
    return entries


def _nothing(_: str) -> None:
    pass


def _listing(plan: Plan, output: Path) -> Listing:
    return Listing(_entries(plan.sources, output), plan.taken)


def _entries(sources: Sequence[Source], output: Path) -> Iterator[Entry]:
    folders: tuple[Path, Path] | None = None
    for source in sources:
        if folders != (source.path.parent, source.folder):
            folders = source.path.parent, source.folder
            from_there, below = Path(seen_from(output, folders[0])), folders[1].as_posix()
        yield Entry(str(from_there / source.path.name), below)


def settings_of(batch: Batch, naming: Naming) -> dict[str, str]:
    """What has to be the same for all results of a journal, in words."""
    model = batch.model
    told = {
        "the model": model.variant,
        "the fingerprint of its weights": fingerprint(model),
        "the arithmetic": dtype_name(model.dtype),
    }
    values = {**dataclasses.asdict(batch.settings), "outscale": batch.outscale}
    values |= {"suffix": naming.suffix, "ext": naming.ext, "compare": naming.compare}
    for name, value in values.items():
        if name not in _NO_SETTING:
            told[f"--{name}"] = "not given" if value in (None, "") else str(value)
    return told


def fingerprint(model: Model) -> str:
    """Twelve digits that differ for other weights, or another configuration."""
    total = hashlib.blake2b(digest_size=6)
    total.update(json.dumps(dict(model.config), default=str, sort_keys=True).encode())
    for name, tensor in sorted(model.module.state_dict().items()):
        total.update(name.encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        total.update(flat.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
