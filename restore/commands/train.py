"""The command `restore train`: its options, and a run of it in words."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from restore.commands.option_files import (
    add_option_file,
    data_line,
    is_first_process,
    list_lines,
    read,
    told_as_notes,
)
from restore.commands.parsing import Parser, new_parser, one_of
from restore.errors import ImageError, OutputError

if TYPE_CHECKING:
    from restore.training.dataset_options import DatasetOptions
    from restore.training.options import Options
    from restore.training.train_options import TrainOptions

EPILOG = """\
a first training, with photos in data/photos/train and others, to judge by, in data/photos/valid:
  restore data check --gt data/photos/train --gt_size 64    look for pictures that would spoil it
  restore train -opt options/train/swinir_small_x2.yml --dry-run
                                                            what it would do, and what is missing
  restore train -opt options/train/swinir_small_x2.yml      do it: hours on a CPU, less on a GPU

more examples:
  restore train --list                                      the option files of the package
  restore train -opt my.yml --auto_resume                   go on where it stopped, to the bit
  restore train -opt my.yml --force_yml train:total_iter=2000 name=short
  torchrun --nproc_per_node=4 -m restore.train -opt my.yml --launcher pytorch

Option files are those of BasicSR: those of SwinIR, HAT, SRFormer, DRCT, CAT, ATD and HiT-SR run as
they are, apart from the paths of data. docs/training.md has every key.

It writes, under the current folder:
  experiments/NAME/models/net_g_5000.pth, net_g_latest.pth   weights, for `--model_path`
  experiments/NAME/training_states/5000.state                what --auto_resume goes on from
  experiments/NAME/{train.csv,val.csv,curves.png,summary.md,...}, tb_logger/NAME
Ctrl-C, SIGTERM and a closed terminal (SIGHUP) save and end it after the step under way.

exit codes: 0 trained to the end; 1 it stopped on the way, and the last training state is whole;
2 nothing was begun, because the option file or an argument cannot be obeyed; 128 and the signal's
number (Ctrl-C 130, SIGTERM 143, SIGHUP 129) told to stop, saved
"""
FINISHED, STOPPED = 0, 1


def train_parser() -> Parser:
    """The parser of the command's options."""
    parser = new_parser(
        "restore train", "Train a network on pictures, as an option file says.", EPILOG
    )
    parser.usage = (
        "restore train -opt FILE [--dry-run] [--auto_resume] [--force_yml KEY:KEY=VALUE ...]"
    )
    add_option_file(parser)
    parser.add_argument(
        "--auto_resume",
        action="store_true",
        help="go on from the newest training state of a run of this name, if it has one; without "
        "it a run begins anew, and an older one of this name is renamed",
    )
    parser.add_argument(
        "--launcher",
        type=one_of("none", "pytorch"),
        default="none",
        metavar="NAME",
        help="none: one process, on one GPU or the CPU; pytorch: torchrun started several, one for "
        "each GPU (default: none)",
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        help="try a file: name debug_NAME, every step logged, every 8th validated and saved",
    )
    # torch.distributed.launch of old gives it; torchrun tells through the environment
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)
    return parser


def run_train(
    options: argparse.Namespace, say: Callable[[str], None], complain: Callable[[str], None]
) -> int:
    """Train as the options ask.

    Args:
        options: of `train_parser`.
        say: is told what begins and what came of it.
        complain: is told why it stopped.

    Returns:
        The exit code, see EPILOG.

    Raises:
        RestoreError: nothing was begun.
    """
    if options.list:
        for line in list_lines("train"):
            say(line)
        return FINISHED
    tell = say if is_first_process() else _nothing
    found = read(options, "train", tell)
    for line in plan_lines(found):
        tell(line)
    if options.dry_run:
        _rehearse(found, options.auto_resume, tell)
        return FINISHED
    import torch

    from restore.datasets.loader import ReaderLostError
    from restore.training.loop import ToldByFirstError, train
    from restore.training.watch import NonFiniteLossError

    try:
        with told_as_notes(tell):
            outcome = train(found, launcher=options.launcher, auto_resume=options.auto_resume)
    except ToldByFirstError:
        return STOPPED
    except (NonFiniteLossError, OutputError) as error:
        complain(f"restore train: {error}")
        return STOPPED
    except ImageError as error:
        complain(f"restore train: {error}")
        mend = "" if isinstance(error, ReaderLostError) else "mend or remove it; "
        complain(f"{mend}--auto_resume then goes on from the last training state")
        return STOPPED
    except torch.OutOfMemoryError as error:
        complain(f"restore train: the GPU has not enough memory: {str(error).splitlines()[0]}")
        complain(
            "lower datasets.train.batch_size_per_gpu (with train.accum_iter as much higher) or "
            "gt_size, or set train.checkpointing: true or train.amp: bf16"
        )
        return STOPPED
    if not outcome.finished:
        tell(f"saved at iteration {outcome.iteration:,}; --auto_resume goes on from there")
        return 128 + outcome.signal
    tell(f"{outcome.folder}/models/net_g_latest.pth")
    return FINISHED


def _nothing(line: str) -> None:
    pass


def _rehearse(options: Options, auto_resume: bool, tell: Callable[[str], None]) -> None:
    """All that a run does before its first step, and what it would begin from, in words."""
    from restore.training.distributed import device_note
    from restore.training.loop import rehearse

    if note := device_note(options.num_gpu):
        tell(f"note: {note}")
    with told_as_notes(tell):
        iteration = rehearse(options, auto_resume=auto_resume)
    if options.path.pretrain_network_g and not iteration:
        tell(f"  weights of {options.path.pretrain_network_g} fit the network")
    begins = f"go on from iteration {iteration:,}" if iteration else "begin"
    tell(f"all of it is there; the run would {begins}")


def plan_lines(options: Options) -> list[str]:
    """What a training will do, in lines."""
    from restore.training.building import build_generator

    train = options.train
    assert train is not None
    import torch

    with torch.device("meta"):
        model = build_generator(options.network_g, options.scale)
    begins = options.path.pretrain_network_g
    return [
        f"run {options.name}: {model.variant}, {model.num_parameters:,} parameters, "
        + (f"from {begins}" if begins else "from random weights"),
        *(data_line(data) for data in options.datasets.values()),
        _steps_line(options.datasets["train"], train),
    ]


def _steps_line(data: DatasetOptions, train: TrainOptions) -> str:
    batch = data.batch_size_per_gpu * train.accum_iter
    losses = [
        loss.type
        for loss in (
            *(train.pixel_opt, train.perceptual_opt, train.fft_opt, train.ssim_opt),
            *(train.lpips_opt, train.gan_opt),
        )
        if loss is not None
    ]
    return (
        f"  {train.total_iter:,} iterations of {batch} patches of {data.gt_size} x {data.gt_size} "
        f"and process; {train.optim_g.type} {train.optim_g.lr:g}; {', '.join(losses)}"
    )
