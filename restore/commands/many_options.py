"""Options of `restore upscale` for many pictures and several workers."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from restore.commands.parsing import Parser, whole_number
from restore.errors import UsageError

MOST_JOBS = 8  # by default; pictures are larger than they look


def add_many(parser: Parser) -> None:
    """Add --jobs, --resume, --journal and --report."""
    group = parser.add_argument_group("many pictures, several GPUs or machines")
    group.add_argument(
        "--jobs",
        type=whole_number,
        metavar="N",
        help="pictures decoded, and as many encoded, beside the network; their memory is bounded "
        "by an eighth of what is free. 0: one after another (default: on a GPU half of the cores, "
        "2 to 8; on a CPU 1, as the network uses the cores)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="keep a journal in OUTPUT/.restore. The same command again goes on where it ended, "
        "however that was, and tries again what failed; given at several places at once it shares "
        "the pictures among them. Implied by torchrun",
    )
    group.add_argument(
        "--journal",
        metavar="FOLDER",
        help="the same with a journal elsewhere, in a folder that all workers see",
    )
    group.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help=".csv or .json: what became of each picture: done, skipped or failed, and why, with "
        "sizes, seconds, tiles and notes",
    )


def is_shared(options: argparse.Namespace, processes: int) -> bool:
    """Whether a run keeps a journal."""
    return bool(options.resume or options.journal or processes > 1)


def jobs_of(options: argparse.Namespace, device: str, processes: int) -> int:
    """How many threads decode, and how many encode.

    Args:
        options: with --jobs.
        device: its kind, of the network.
        processes: of this run on this machine.
    """
    if options.jobs is not None:
        return int(options.jobs)
    if device == "cpu":
        return 1
    here = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cores = len(here(0)) if here else os.cpu_count() or 1
    return min(MOST_JOBS, max(2, cores // processes // 2))


def check_many(options: argparse.Namespace) -> None:
    """UsageError where a report could not be written, before the work and not after it."""
    if options.journal == "":
        raise UsageError("--journal is empty; a variable that was never set?")
    if options.report is not None:
        from restore.batching.report import check_report

        check_report(options.report)
