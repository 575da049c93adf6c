"""`restore data`: training pictures stored and looked through, test sets listed and made."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from restore.commands.data_sets import cards_parser, prepare_parser, run_cards, run_prepare
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

ACTIONS = {
    "lmdb": "store a folder of pictures as an LMDB data base",
    "check": "look for what is wrong with a training set",
    "cards": "list what is known of the papers' test sets",
    "prepare": "make a test set of its pictures, verified and with every low-resolution side",
}
_NAMED = 3  # findings of a kind that the table names

_LMDB_EPILOG = """\
examples:
  restore data lmdb DF2K_HR_sub -o DF2K_HR_sub.lmdb        PNG inside, as BasicSR makes it
  restore data lmdb DF2K_HR_sub -o DF2K_HR_sub.lmdb --raw  larger, and nothing to decode

In an option file: dataroot_gt: DF2K_HR_sub.lmdb, io_backend: {type: lmdb}. BasicSR reads both.
"""
_CHECK_EPILOG = """\
Findings are told, and nothing is changed. docs/data.md says what each kind means and how it is
found.

examples:
  restore data check -opt my.yml
  restore data check --gt DIV2K/HR --lq DIV2K/LR_bicubic/X4 --scale 4 --filename_tmpl "{}x4"
  restore data check --gt photos --gt_size 256 --against Set5/HR --against Urban100/HR
  restore data check --gt clean --lq noisy --json > findings.json

exit codes: 0 nothing found; 1 something found; 2 nothing was looked at, because an argument cannot
be obeyed; 130 interrupted
"""


def data_parser(action: str) -> Parser:
    """The parser of one of ACTIONS."""
    parsers = {
        "lmdb": _lmdb_parser,
        "check": _check_parser,
        "cards": cards_parser,
        "prepare": prepare_parser,
    }
    return parsers[action]()


def run_data(action: str, options: argparse.Namespace) -> bool:
    """Do one of ACTIONS; whether all went well."""
    if action == "lmdb":
        run_lmdb(options)
    elif action == "cards":
        run_cards(options)
    elif action == "prepare":
        return run_prepare(options)
    else:
        return not run_check(options)
    return True


def data_usage() -> str:
    """What `restore data` does, for those who gave no action."""
    lines = [f"  restore data {name:<8} {what}" for name, what in ACTIONS.items()]
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
        "-opt",
        "--opt",
        type=Path,
        metavar="FILE.yml",
        help="look through all sets of this option file, in place of --gt",
    )
    group.add_argument(
        "--gt",
        type=Path,
        metavar="FOLDER",
        help="the pictures as they should be (gt, ground truth), or NAME.lmdb",
    )
    group.add_argument(
        "--lq",
        type=Path,
        metavar="FOLDER",
        help="the same pictures small, noisy or blurred (lq, low quality), or NAME.lmdb (default: "
        "none; training makes them on the fly)",
    )
    group.add_argument(
        "--scale",
        type=at_least_one,
        default=1,
        metavar="N",
        help="how many times gt is larger than lq, along each side (default: 1)",
    )
    group.add_argument(
        "--filename_tmpl",
        default="{}",
        metavar="NAME",
        help="name of a low-quality picture, {} for the gt's without suffix (default: {})",
    )
    group.add_argument(
        "--meta_info_file",
        type=Path,
        metavar="FILE",
        help="a list of the pictures of --gt to take, one a line",
    )
    _add_wishes(parser)
    group = parser.add_argument_group("what is told")
    group.add_argument("--json", action="store_true", help="write all findings as JSON")
    group.add_argument(
        "--all", action="store_true", help="name every finding, not the first of each kind alone"
    )
    group.add_argument("-q", "--quiet", action="store_true", help="tell nothing but the exit code")
    return parser


def _add_wishes(parser: Parser) -> None:
    group = parser.add_argument_group("what to look for")
    group.add_argument(
        "--gt_size",
        type=whole_number,
        default=0,
        metavar="N",
        help="side of training patches, as in the option file; smaller pictures are found "
        "(default: any size will do)",
    )
    group.add_argument(
        "--against",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="test pictures that must not be in the set, since scores on them would say nothing; "
        "may be repeated",
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
        "--threads", type=at_least_one, default=None, metavar="N", help="how many read at a time"
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


def run_check(options: argparse.Namespace) -> bool:
    """Look through one set or several, and show what was found; whether anything was."""
    from restore.commands.check_sets import set_of_words, sets_of_file
    from restore.commands.option_files import option_file
    from restore.datasets.check import MAX_SHIFT, check_pairs

    shift = MAX_SHIFT if options.max_shift is None else options.max_shift
    if not shift > 0:
        raise UsageError(f"--max-shift is {shift}; expected a number of pixels above 0")
    if (options.gt is None) == (options.opt is None):
        raise UsageError("give either --gt, a folder of pictures, or -opt, an option file")
    if options.opt is not None:
        path = option_file(str(option_file(str(options.opt), "train", "")), "test", "")
        sets = sets_of_file(path, options.against, shift)
    else:
        sets = [set_of_words(options, shift)]
    reports = {}
    for one in sets:
        quiet = options.quiet or options.json
        with counted(len(one.pairs) + len(one.against), "pictures", quiet) as progress:
            report = check_pairs(
                one.pairs,
                one.wanted,
                against=one.against,
                unpaired=one.unpaired,
                threads=options.threads or min(8, os.cpu_count() or 1),
                progress=progress,
            )
        reports[one.title] = report
        if not quiet:
            if len(sets) > 1:
                show(f"{one.title}:")
            show(*report_lines(report, one.wanted, everything=options.all))
            if report.known and options.opt is None:
                show(
                    f"all of {one.title} are pictures of known test sets: if it is one to test "
                    "on, --test-set looks through it as such"
                )
    if options.json:
        told = {title: report.as_dict() for title, report in reports.items()}
        show(*json.dumps(told, indent=2).splitlines())
    return any(report.findings for report in reports.values())


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
