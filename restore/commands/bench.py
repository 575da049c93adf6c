"""The command `restore bench`: its options, and what they may not be together."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from restore.commands.computing import add_arithmetic, add_tiles, check_arithmetic
from restore.commands.parsing import (
    Parser,
    add_settings,
    at_least_one,
    new_parser,
    one_of,
    percent,
)
from restore.errors import UsageError
from restore.tasks import TASKS, WORDS

PROTOCOLS = ("papers", "reflect")
GRAY_RULES = ("rgb", "y")
PERCEPTUAL = ("lpips", "dists", "niqe")
DEFAULT_SIZES = ((64, 64), (128, 128))  # of inputs that --speed times
# options that say what is scored and how, by their names in the namespace
OF_SCORING = {
    "dataset": "-d",
    "data_root": "--data-root",
    "param_key": "--param_key",
    "task": "--task",
    "noise": "--noise",
    "quality": "--quality",
    "protocol": "--protocol",
    "gray": "--gray",
    "metrics": "--metrics",
    "tile": "--tile",
    "tile_pad": "--tile_pad",
    "tta": "--tta",
    "save_images": "--save_images",
    "check": "--check",
}

OF_TIMING = {"size": "--size", "rounds": "--rounds"}
_WRITTEN = OF_SCORING | OF_TIMING | {"most": "--most"}

EPILOG = """\
examples:
  restore bench -n HiT-SRF_x4.pth -d Set5 Set14 --data-root testsets
  restore bench -n SwinIR-M_noise25.pth -d Kodak24 --data-root testsets --noise 15 25 50
  restore bench -n a.pth b.pth -d my/photos -o results/mine
  restore bench --compare a.pth b.pth -d Set5 --data-root testsets --crops butterfly=90,60,48,48
  restore bench --compare results/a results/b      of two runs that are done
  restore bench --speed -n a.pth b.pth --size 64 128x96

A set is the name of a card or a folder of pictures. There are cards (`restore data cards`) of
  sr            Set5 Set14 BSD100 Urban100 Manga109 DIV2K DF2K
  denoise       Set12 BSD68 CBSD68 Kodak24 McMaster
  jpeg          classic5 LIVE1
  real-denoise  SIDD PolyU
  deblur        GoPro RealBlur DPDD
and any set goes with any task, but for real-denoise and deblur, which take pairs of files. It
writes results.json, pictures.csv, means.csv, table.md and table.tex; pictures that are scored stay
in OUTPUT/cache, so a run that was stopped goes on where it was. docs/benchmarking.md has the
protocols.

exit codes: 0 all done; 1 some pictures failed or have no partner, or --check found a figure that is
not the published one; 2 nothing was begun, because an argument cannot be obeyed; 130 interrupted
"""


def bench_parser() -> Parser:
    """The parser of the command's options."""
    parser = new_parser(
        "restore bench",
        "Reproduce the tables of papers, compare two models picture by picture, or time models.",
        EPILOG,
    )
    parser.usage = "restore bench -n MODEL... -d SET... [--data-root DIR] [-o OUTPUT] ..."
    group = parser.add_argument_group("what is scored")
    group.add_argument(
        *("-n", "--model"),
        nargs="+",
        default=[],
        metavar="MODEL",
        help="weight files, or names of built-in models",
    )
    group.add_argument(
        *("-d", "--dataset"),
        nargs="+",
        default=[],
        metavar="SET",
        help="names of cards, such as Set5, or folders of pictures",
    )
    group.add_argument(
        "--data-root", type=Path, metavar="DIR", help="folder that holds the folders of the sets"
    )
    add_settings(group)
    group.add_argument(
        "--param_key",
        metavar="NAME",
        help="which weights of files that hold several are scored, such as params (default: "
        "params_ema before params)",
    )
    _add_protocol(parser)
    group = parser.add_argument_group("computing")
    add_tiles(group)
    add_arithmetic(group)
    _add_modes(parser)
    group = parser.add_argument_group("results")
    group.add_argument(
        *("-o", "--output"),
        type=Path,
        default=Path("results/bench"),
        metavar="DIR",
        help="folder for the tables and the cache (default: results/bench)",
    )
    group.add_argument(
        "--save_images", action="store_true", help="also keep every restored picture, as PNG"
    )
    group.add_argument(
        "--check",
        action="store_true",
        help="exit with 1 where a mean is not the published one, or none was published",
    )
    group.add_argument("-q", "--quiet", action="store_true", help="tell only what went wrong")
    return parser


def _add_protocol(parser: Parser) -> None:
    group = parser.add_argument_group("protocol")
    group.add_argument(
        "--task",
        type=one_of(*TASKS),
        metavar="NAME",
        help=f"{'; '.join(f'{task}: {WORDS[task]}' for task in TASKS)} (default: what the model "
        "was published for, else what the sets' cards say)",
    )
    group.add_argument(
        "--noise",
        nargs="+",
        type=at_least_one,
        default=[],
        metavar="SIGMA",
        help="standard deviations, of 255 (default: the one in the file's name, else 15 25 50)",
    )
    group.add_argument(
        "--quality",
        nargs="+",
        type=percent,
        default=[],
        metavar="Q",
        help="of JPEG (default: the one in the file's name, else 10 20 30 40)",
    )
    group.add_argument(
        "--protocol",
        type=one_of(*PROTOCOLS),
        default="papers",
        metavar="NAME",
        help="how pictures grow to what the network takes, which changes scores: papers, as the "
        "authors' scripts do it, whole pictures; reflect, by reflection, as BasicSR does it for "
        "all, and in tiles where --tile says so (default: papers)",
    )
    group.add_argument(
        "--gray",
        type=one_of(*GRAY_RULES),
        default="rgb",
        metavar="NAME",
        help="how a gray picture of a colour set is counted on Y: rgb, as three equal channels, as "
        "BasicSR does it; y, gray as Y itself, as MATLAB scripts do, 1.32 dB less (default: rgb)",
    )
    group.add_argument(
        "--metrics",
        nargs="+",
        type=one_of(*PERCEPTUAL),
        default=[],
        metavar="NAME",
        help="more than the task's own: lpips, dists, niqe; they need their authors' weights",
    )


def _add_modes(parser: Parser) -> None:
    group = parser.add_argument_group("comparing and timing")
    group.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="two models, or two folders of results: differences picture by picture, and a sheet "
        "of those that differ most",
    )
    group.add_argument(
        "--crops",
        nargs="+",
        default=[],
        metavar="X,Y,W,H",
        help="of the sheet, in pixels of the truth, for all pictures or as PICTURE=X,Y,W,H "
        "(default: where the results differ most)",
    )
    group.add_argument(
        "--most",
        type=at_least_one,
        default=5,
        metavar="N",
        help="pictures of a set that the sheet shows (default: 5)",
    )
    group.add_argument(
        "--speed", action="store_true", help="time the models on this machine, on random pictures"
    )
    group.add_argument(
        "--size",
        nargs="+",
        type=size,
        default=list(DEFAULT_SIZES),
        metavar="WxH",
        help="of the inputs of --speed, as 64 or 128x96 (default: 64 128)",
    )
    group.add_argument(
        "--rounds",
        type=at_least_one,
        default=9,
        metavar="N",
        help="how often --speed times each model (default: 9)",
    )


def size(text: str) -> tuple[int, int]:
    """Rows and columns of "128x96" (width x height) or of "64"."""
    width, cross, height = text.lower().partition("x")
    try:
        found = at_least_one(height if cross else width), at_least_one(width)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"is {text!r}; expected pixels, as 64, or as 128x96 for width and height"
        ) from None
    return found


def run_bench(
    options: argparse.Namespace, say: Callable[[str], None], complain: Callable[[str], None]
) -> int:
    """Score, compare or time as the options ask.

    Args:
        options: of `bench_parser`.
        say: is told the tables and what there is to note.
        complain: is told what went wrong.

    Returns:
        The exit code, see EPILOG.

    Raises:
        RestoreError: an argument cannot be obeyed, a model cannot be loaded, or nothing can be
            written.
    """
    _check_together(options)
    from restore.commands import bench_runs

    run: Any = bench_runs.score
    if options.speed:
        run = bench_runs.speed
    elif options.compare:
        run = bench_runs.compare
    code: int = run(options, say, complain)
    return code


def given_beside(options: argparse.Namespace, names: Iterable[str]) -> str:
    """The first of these options that was given, as it is written; "" for none."""
    parser = bench_parser()
    given = (name for name in names if getattr(options, name) != parser.get_default(name))
    return next((_WRITTEN[name] for name in given), "")


def _check_together(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other, and what is missing."""
    check_arithmetic(options)
    if options.speed and (given := given_beside(options, OF_SCORING)):
        raise UsageError(
            f"--speed times models on random pictures and scores none; leave {given} out"
        )
    if not options.speed and (given := given_beside(options, OF_TIMING)):
        raise UsageError(f"{given} is for --speed")
    if not options.compare and (given := given_beside(options, ["most"])):
        raise UsageError(f"{given} is for --compare")
    if options.speed and options.compare:
        raise UsageError("--speed times models and --compare scores them; give one of them")
    if options.compare and options.model:
        raise UsageError("--compare names its two models itself; leave -n out")
    if options.crops and not options.compare:
        raise UsageError("--crops is for --compare")
    if not options.compare and not options.model:
        raise UsageError("no model; give weight files or built-in models with -n")
    if not (options.speed or options.compare or options.dataset):
        raise UsageError("no set; give names of cards or folders of pictures with -d")
    if options.noise and options.quality:
        raise UsageError("--noise is for denoise and --quality for jpeg; give one of them")
    asked = "denoise" if options.noise else "jpeg" if options.quality else options.task
    if options.task not in (None, asked):
        option = "--noise" if options.noise else "--quality"
        raise UsageError(f"{option} is for {asked}, and --task is {options.task}")
    options.task = asked
    if options.protocol == "papers" and (options.tile not in ("auto", 0) or options.tile_pad):
        given = "--tile_pad" if options.tile in ("auto", 0) else "--tile"
        raise UsageError(
            f"--protocol papers takes pictures whole, and {given} is for tiles; add --protocol "
            "reflect"
        )
