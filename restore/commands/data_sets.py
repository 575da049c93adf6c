"""`restore data cards` and `restore data prepare`: the papers' test sets."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.commands.parsing import Parser, at_least_one, new_parser, one_of
from restore.commands.screen import Screen, complain, counted, show
from restore.commands.text import plural
from restore.errors import UsageError

if TYPE_CHECKING:
    from restore.datasets.card_files import Card
    from restore.datasets.prepare import Outcome

_CARDS_EPILOG = """\
examples:
  restore data cards                what is known, one line a set
  restore data cards Set5 Set14     all of it

What was not seen in files or read in a named source is empty, or marked "not verified".
"""
_PREPARE_EPILOG = """\
examples:
  restore data prepare Set5 --from downloads/Set5 -o data
      data/Set5/HR/baby.png, data/Set5/LR_bicubic/X4/babyx4.png ...
  restore data prepare Set5 --from downloads/Set5 -o data --convention gtmod
      data/Set5/GTmod12/baby.png, data/Set5/LRbicx4/baby.png ...
  restore data prepare mine --from photos -o data --scales 4     any pictures, without a card

All is checked before anything is written, and files that are there are never overwritten. The same
command goes on after an interruption.

exit codes: 0 all done; 1 something differs, is missing or could not be written, and nothing was
made; 2 nothing was begun, because an argument cannot be obeyed; 130 interrupted
"""


def cards_parser() -> Parser:
    """Of `restore data cards`."""
    parser = new_parser("restore data cards", "What is known of the papers' sets.", _CARDS_EPILOG)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of sets (default: all, in short)")
    parser.add_argument("--json", action="store_true", help="write it for programs")
    return parser


def prepare_parser() -> Parser:
    """Of `restore data prepare`."""
    parser = new_parser(
        "restore data prepare",
        "Make a test set of pictures that lie anywhere: compare them with the set's card, cut\n"
        "them to multiples of the scales, and make every low-resolution side as MATLAB does.",
        _PREPARE_EPILOG,
    )
    parser.add_argument("name", metavar="NAME", help="of the set; `restore data cards` lists them")
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of the good pictures, or that holds the set's folder",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where the folder NAME is made (default: here)",
    )
    parser.add_argument(
        "--scales",
        nargs="+",
        type=at_least_one,
        default=None,
        metavar="N",
        help="of the low-resolution sides (default: the card's, else 2 3 4)",
    )
    parser.add_argument(
        "--convention",
        type=one_of("hr", "gtmod"),
        default="hr",
        metavar="hr|gtmod",
        help="whole pictures in HR, or cut ones in GTmodN as BasicSR has them (default: hr)",
    )
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="take pictures that differ from the card's, and a set that lacks some",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="tell only what went wrong")
    return parser


def run_cards(options: argparse.Namespace) -> None:
    """Show the cards."""
    from restore.datasets.card_files import card, card_names

    try:
        cards = [card(name) for name in options.names or card_names()]
    except UsageError as error:
        others = len(options.names) > 1
        raise UsageError(f"{error}{'; none is shown' if others else ''}") from error
    if options.json:
        show(*json.dumps([card_facts(one) for one in cards], indent=2).splitlines())
    elif options.names:
        for one in cards:
            show(*card_lines(one))
    else:
        show(*table_lines(cards))


def card_facts(one: Card) -> dict[str, Any]:
    """A card as JSON has it."""
    return {
        "name": one.name,
        "aliases": one.aliases,
        "task": one.task,
        "paper": one.paper,
        "page": one.page,
        "licence": one.licence,
        "count": one.count,
        "parts": one.parts,
        "scales": one.scales,
        "verified": sorted(one.verified),
        "sources": one.sources,
        "notes": one.notes,
        "images": [
            {
                "file": image.file,
                "height": image.height,
                "width": image.width,
                "channels": image.channels,
                "sha256": image.sha256,
            }
            for image in one.images
        ],
    }


def table_lines(cards: list[Card]) -> list[str]:
    """One line a set: name, task, pictures, of how many the pixels are known, licence."""
    lines = [f"{'set':<10} {'task':<12} {'pictures':>8} {'known':>6}  licence"]
    for one in cards:
        known = sum(bool(image.sha256) for image in one.images)
        count = "" if one.count is None else str(one.count)
        licence = textwrap.shorten(one.licence or "not known", 60, placeholder=" ...")
        lines.append(f"{one.name:<10} {one.task:<12} {count:>8} {known:>6}  {licence}")
    lines.append("known: pictures whose pixels can be compared; NAME after the command tells more")
    return lines


def card_lines(one: Card) -> list[str]:
    """All of a card, but for its list of pictures."""

    def fact(key: str, value: object) -> str:
        told = "not known" if value is None else str(value)
        if value is not None and key not in one.verified:
            told += " (not verified)"
        source = one.sources.get(key)
        return f"  {key + ':':<9} {told}" + (f"; {source}" if source else "")

    known = sum(bool(image.sha256) for image in one.images)
    names = f", also called {', '.join(one.aliases)}" if one.aliases else ""
    parts = ", ".join(f"{n} {part}" for part, n in one.parts.items())
    return [
        f"{one.name}{names}",
        f"  task:     {one.task}",
        f"  paper:    {one.paper}",
        fact("page", one.page),
        fact("licence", one.licence),
        fact("count", one.count),
        *([f"  parts:    {parts}"] if parts else []),
        fact("images", f"{len(one.images)} named, {known} with sha256" if one.images else None),
        *(f"  note:     {note}" for note in one.notes),
    ]


def run_prepare(options: argparse.Namespace) -> bool:
    """Make a set; whether all of it was done and as the card has it."""
    from restore.datasets.card_files import find_card, nearest_card
    from restore.datasets.prepare import Recipe, prepare, sources
    from restore.datasets.sidd_blocks import holds_blocks
    from restore.tasks import PAIRED

    screen = Screen(options.quiet, verbose=False)
    known = find_card(options.name)
    name = known.name if known else options.name
    if known is None:
        if name == ".." or not name or Path(name).name != name:
            raise UsageError(f"NAME is {name!r}; expected a name; --from takes the folder")
        near = nearest_card(name)
        hint = f"; did you mean {near}?" if near else ""
        screen.say(f"note: there is no card of {name}{hint} Its pictures are compared with nothing")
    elif not any(image.sha256 for image in known.images):
        screen.say(f"note: the card of {name} holds no sha256: pixels are compared with nothing")
    if holds_blocks(options.source) or (known is not None and known.task in PAIRED):
        return _prepare_pairs(options, name, known, screen)
    scales = sorted(set(options.scales or (known.scales if known else ()) or (2, 3, 4)))
    paths = sources(options.source, known)
    recipe = Recipe(options.output / name, scales, options.convention, options.anyway)
    # each is checked, then made
    with counted(2 * len(paths), "steps", options.quiet) as progress:
        outcome = prepare(paths, known, recipe, progress=progress)
    return _told(outcome, recipe.folder, len(paths), screen)


def _prepare_pairs(
    options: argparse.Namespace, name: str, known: Card | None, screen: Screen
) -> bool:
    """Take pairs out of .mat files; other sets of pairs are taken where they lie."""
    from restore.datasets.real_pairs import find_pairs
    from restore.datasets.sidd_blocks import holds_blocks, prepare_blocks, read_blocks

    if not holds_blocks(options.source):
        if not options.source.is_dir():
            raise UsageError(
                f"{options.source}: no such folder; --from takes one that holds pictures"
            )
        found = find_pairs(known or options.source, options.source if known else None)
        raise UsageError(
            f"{found.folder}: holds both sides of {plural(len(found.pictures), 'picture')}, and "
            f"there is nothing to make; restore bench takes it where it lies: -d {found.folder}"
        )
    if options.scales:
        raise UsageError(f"--scales: {name} holds pairs of one size, and nothing is made smaller")
    folder = options.output / name
    blocks = read_blocks(options.source)
    count = blocks[0].shape[0] * blocks[0].shape[1]
    with counted(2 * count, "files", options.quiet) as progress:
        outcome = prepare_blocks(blocks, folder, progress)
    if known is not None and known.count not in (None, count):
        outcome.notes.append(f"{count} pairs; {name} has {known.count}")
    return _told(outcome, folder, 2 * count, screen)


def _told(outcome: Outcome, folder: Path, count: int, screen: Screen) -> bool:
    """Tell what a run did; whether all of it went well."""
    screen.say(
        f"{folder}: {plural(count, 'picture')} read, {outcome.equal} equal to the "
        f"card's, {outcome.unknown} compared with nothing; {plural(outcome.written, 'file')} "
        f"written, {outcome.kept} there already"
    )
    for note in outcome.notes:
        screen.say(f"note: {note}")
    for problem in outcome.failed:
        complain(f"restore data prepare: {problem}")
    if outcome.failed:
        complain(f"restore data prepare: nothing was written to {folder}")
    return not outcome.failed
