"""`restore data lmdb` and `restore data check`: training pictures stored, and looked through."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restore.commands.parsing import (
    Parser,
    at_least_one,
    new_parser,
    whole_number,
)
from restore.commands.screen import Screen, counted, show
from restore.commands.text import plural
from restore.errors import UsageError

if TYPE_CHECKING:
    from restore.datasets.check import Report, Wanted
    from restore.datasets.listing import Entry, Pair

ACTIONS = {
    "lmdb": "store a folder of pictures as an LMDB data base",
    "check": "look for what is wrong with a training set",
}
_NAMED = 3  # findings of a kind that the table names

_LMDB_EPILOG = """\
examples:
  restore data lmdb DF2K_HR_sub -o DF2K_HR_sub.lmdb        PNG inside, as BasicSR makes it
  restore data lmdb DF2K_HR_sub -o DF2K_HR_sub.lmdb --raw  larger, and nothing to decode

In an option file: dataroot_gt: DF2K_HR_sub.lmdb, io_backend: {type: lmdb}. BasicSR reads both.
"""
_CHECK_EPILOG = """\
examples:
  restore data check --gt DIV2K/HR --lq DIV2K/LR_bicubic/X4 --scale 4 --filename_tmpl "{}x4"
  restore data check --gt photos --gt_size 256 --against Set5/HR --against Urban100/HR
  restore data check --gt clean --lq noisy --json > findings.json

exit codes: 0 nothing found; 1 something found; 2 nothing was looked at, because an argument cannot
be obeyed; 130 interrupted
"""


def data_parser(action: str) -> Parser:
    """The parser of one of ACTIONS."""
    return _lmdb_parser() if action == "lmdb" else _check_parser()


def data_usage() -> str:
    """What `restore data` does, for those who gave no action."""
    lines = [f"  restore data {name:<6} {what}" for name, what in ACTIONS.items()]
    return "\n".join(["restore data ACTION ...; actions:", *lines])


def _lmdb_parser() -> Parser:
    parser = new_parser(
        "restore data lmdb",
        "Store a folder of pictures as an LMDB data base, in BasicSR's layout.",
        _LMDB_EPILOG,
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="of pictures")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="NAME.lmdb", help="is not there yet"
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="store pixels as they are: 2 to 3 times larger, and patches are read without decoding",
    )
    parser.add_argument(
        "--level",
        type=int,
        choices=range(10),
        default=1,
        metavar="0-9",
        help="of PNG's compression (default: 1)",
    )
    parser.add_argument(
        "--meta_info_file", type=Path, metavar="FILE", help="a list of the pictures to take"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="tell only what went wrong")
    return parser


def _check_parser() -> Parser:
    parser = new_parser(
        "restore data check",
        "Look through a training set before a single step: unpaired, unreadable, wrongly sized,\n"
        "misaligned and duplicate pictures, and test pictures among them.",
        _CHECK_EPILOG,
    )
    group = parser.add_argument_group("the set")
    group.add_argument(
        "--gt", required=True, type=Path, metavar="FOLDER", help="high-quality pictures, or *.lmdb"
    )
    group.add_argument(
        "--lq",
        type=Path,
        metavar="FOLDER",
        help="low-quality pictures, or *.lmdb (default: none; they are made on the fly)",
    )
    group.add_argument(
        "--scale", type=at_least_one, default=1, metavar="N", help="gt over lq (default: 1)"
    )
    group.add_argument(
        "--filename_tmpl",
        default="{}",
        metavar="NAME",
        help="name of a low-quality picture, {} for the gt's without suffix (default: {})",
    )
    group.add_argument("--meta_info_file", type=Path, metavar="FILE", help="a list of its pictures")
    _add_wishes(parser)
    group = parser.add_argument_group("what is told")
    group.add_argument("--json", action="store_true", help="write all findings as JSON")
    group.add_argument("--all", action="store_true", help="name every finding")
    group.add_argument("-q", "--quiet", action="store_true", help="tell nothing but the exit code")
    return parser


def _add_wishes(parser: Parser) -> None:
    group = parser.add_argument_group("what to look for")
    group.add_argument(
        "--gt_size",
        type=whole_number,
        default=0,
        metavar="N",
        help="side of training patches; smaller pictures are found (default: any size will do)",
    )
    group.add_argument(
        "--against",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="test pictures that must not be in the set; may be repeated",
    )
    group.add_argument(
        "--test-set",
        action="store_true",
        help="it is one itself: no leakage, and gt may reach beyond multiples of the scale",
    )
    group.add_argument(
        "--max-shift",
        type=float,
        default=None,
        metavar="X",
        help="pixels of lq that a pair may be shifted (default: 0.2)",
    )
    group.add_argument(
        "--threads", type=at_least_one, default=None, metavar="N", help="that read at a time"
    )


def run_lmdb(options: argparse.Namespace) -> None:
    """Store a folder."""
    from restore.datasets.listing import folder_entries, listed_entries
    from restore.datasets.lmdb_store import write_database

    if options.meta_info_file:
        entries = listed_entries(options.folder, options.meta_info_file)
    else:
        entries = folder_entries(options.folder)
    screen = Screen(options.quiet, verbose=False)
    with counted(len(entries), "pictures", options.quiet) as progress:
        stored = write_database(
            options.output,
            [entry.path for entry in entries],
            raw=options.raw,
            level=options.level,
            progress=progress,
        )
    size = f"{stored.bytes / 2**20:,.1f} MiB"
    screen.say(f"{options.output}: {plural(stored.pictures, 'picture')}, {size}")


def run_check(options: argparse.Namespace) -> Report:
    """Look through a set and show what was found."""
    from restore.datasets.check import MAX_SHIFT, Wanted, check_pairs

    shift = MAX_SHIFT if options.max_shift is None else options.max_shift
    if not shift > 0:
        raise UsageError(f"--max-shift is {shift}; expected a number of pixels above 0")
    wanted = Wanted(
        scale=options.scale,
        gt_size=options.gt_size,
        max_shift=shift,
        training=not options.test_set,
    )
    pairs, unpaired = _the_set(options)
    against = _tests(options.against)
    quiet = options.quiet or options.json
    with counted(len(pairs) + len(against), "pictures", quiet) as progress:
        report = check_pairs(
            pairs,
            wanted,
            against=against,
            unpaired=unpaired,
            threads=options.threads or _usual_threads(),
            progress=progress,
        )
    if options.json:
        show(json.dumps(report.as_dict(), indent=2))
    elif not options.quiet:
        show(*report_lines(report, wanted, everything=options.all))
    return report


def _usual_threads() -> int:
    import os

    return min(8, os.cpu_count() or 1)


def _the_set(options: argparse.Namespace) -> tuple[Sequence[Pair | Entry], list[Entry]]:
    """Pairs (or gt alone), and what has no partner."""
    from restore.datasets import listing

    gt, lq, list_file = options.gt, options.lq, options.meta_info_file
    database = gt.suffix == ".lmdb"
    if lq is None:
        if database:
            return listing.database_entries(gt), []
        if list_file:
            return listing.listed_entries(gt, list_file), []
        return listing.folder_entries(gt), []
    if database != (lq.suffix == ".lmdb"):
        raise UsageError("--gt and --lq are a folder and a data base; expected two of a kind")
    if database:
        return _matched_databases(gt, lq)
    if list_file:
        return listing.paired_by_list(gt, lq, list_file, options.filename_tmpl), []
    pairs, gt_alone, lq_alone = listing.match_folders(gt, lq, options.filename_tmpl)
    alone = [listing.Entry(gt / name) for name in gt_alone]
    return pairs, [*alone, *(listing.Entry(lq / name) for name in lq_alone)]


def _matched_databases(gt: Path, lq: Path) -> tuple[list[Pair], list[Entry]]:
    from restore.datasets.listing import Entry, Pair, database_keys

    here, there = database_keys(gt), database_keys(lq)
    both = set(here) & set(there)
    alone = [Entry(gt, key) for key in here if key not in both]
    alone += [Entry(lq, key) for key in there if key not in both]
    return [Pair(Entry(lq, key), Entry(gt, key)) for key in here if key in both], alone


def _tests(folders: Sequence[Path]) -> list[Entry]:
    from restore.datasets.listing import database_entries, folder_entries

    found: list[Entry] = []
    for folder in folders:
        read: Callable[[Path], list[Entry]] = (
            database_entries if folder.suffix == ".lmdb" else folder_entries
        )
        found += read(folder)
    return found


def report_lines(report: Report, wanted: Wanted, *, everything: bool = False) -> list[str]:
    """The table: one row a kind of finding, then the first findings of each."""
    from restore.datasets.check import KINDS, MEANING

    lines = [
        f"{plural(report.pictures, 'picture')} read, scale {wanted.scale}; "
        f"alignment told of {plural(report.aligned, 'pair')}; "
        f"{plural(report.test_pictures, 'test picture')} compared",
        f"{'found':>7}  {'kind':<10}  meaning",
    ]
    lines += [f"{report.count(kind):>7}  {kind:<10}  {MEANING[kind]}" for kind in KINDS]
    for kind in KINDS:
        findings = [finding for finding in report.findings if finding.kind == kind]
        shown = findings if everything else findings[:_NAMED]
        for finding in shown:
            lines.append(f"{kind}: {' and '.join(finding.pictures)}: {finding.detail}")
        if len(findings) > len(shown):
            lines.append(f"{kind}: {len(findings) - len(shown)} more; --all names them")
    if not report.findings:
        lines.append("nothing is wrong with it")
    return lines
