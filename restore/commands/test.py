"""The command `restore test`: its options, and its scores in words."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from restore.commands.option_files import (
    add_option_file,
    data_line,
    list_lines,
    read,
    told_as_notes,
)
from restore.commands.parsing import Parser, new_parser, one_of
from restore.commands.text import plural
from restore.errors import OutputError

if TYPE_CHECKING:
    from restore.training.options import Options
    from restore.training.validation import Scores

EPILOG = """\
examples:
  restore test -opt options/test/builtin_x2.yml --force_yml datasets:test_1:dataroot_gt=photos
                                                       what the built-in model scores on your photos
  restore test --list                                  the option files of the package
  restore test -opt options/test/hit_srf_x4.yml
  restore test -opt my.yml --force_yml path:pretrain_network_g=experiments/my/models/net_g_9.pth
  restore test -opt my.yml --force_yml val:save_img=true tile:tile_size=256

A test needs pictures as they should be (dataroot_gt); what the network is given is made of them,
or lies in dataroot_lq. PSNR (dB) and SSIM (0..1) say how near its results come: higher is better.
It writes results/NAME: scores.csv with the scores of every picture and, with `val: save_img: true`,
visualization/SET/PICTURE_SUFFIX.png. docs/training.md has every key.

exit codes: 0 all sets scored; 1 a result cannot be written; 2 nothing was begun, or a picture or
the weights cannot be read; 130 interrupted
"""


def test_parser() -> Parser:
    """The parser of the command's options."""
    parser = new_parser(
        "restore test", "Restore sets of pictures and score them, as an option file says.", EPILOG
    )
    parser.usage = "restore test -opt FILE [--force_yml KEY:KEY=VALUE ...]"
    add_option_file(parser)
    # official commands give it
    parser.add_argument("--launcher", type=one_of("none"), default="none", help=argparse.SUPPRESS)
    return parser


def run_test(
    options: argparse.Namespace, say: Callable[[str], None], complain: Callable[[str], None]
) -> int:
    """Test as the options ask.

    Args:
        options: of `test_parser`.
        say: is told what begins and the scores.
        complain: is told what cannot be written.

    Returns:
        The exit code, see EPILOG.

    Raises:
        RestoreError: see `restore.training.testing.test`.
    """
    if options.list:
        for line in list_lines("test"):
            say(line)
        return 0
    found = read(options, "test", say)
    say(f"test {found.name}: {found.network_g.type}")
    from restore.training.distributed import device_note
    from restore.training.testing import prepared, test

    if note := device_note(found.num_gpu):
        say(f"note: {note}")
    if options.dry_run:
        with told_as_notes(say):
            _, _, sets = prepared(replace(found, num_gpu=0), say)
        for data in found.datasets_of("test") or found.datasets_of("val"):
            say(f"{data_line(data)}, {plural(len(sets[data.name]), 'picture')}")
        say("the weights fit the network, and all pictures are there")
        return 0
    try:
        with told_as_notes(say):
            scores = test(found, tell=say)
    except OutputError as error:
        complain(f"restore test: {error}")
        return 1
    for line in score_lines(found, scores):
        say(line)
    return 0


def score_lines(options: Options, scores: Sequence[Scores]) -> list[str]:
    """A table of means, one line a set."""
    from restore.training.validation import briefly

    metrics = options.val.metrics
    width = max([len(each.name) for each in scores] + [3])
    lines = [f"{'set':<{width}}  pictures" + "".join(f"  {name:>9}" for name in metrics)]
    for each in scores:
        means = each.means()
        cells = "".join(
            f"  {briefly(metric, means[name]) if name in means else '-':>9}"
            for name, metric in metrics.items()
        )
        lines.append(f"{each.name:<{width}}  {len(each.pictures):8d}{cells}")
    return [*lines, f"results/{options.name}/scores.csv"]
