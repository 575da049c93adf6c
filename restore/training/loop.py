"""The training loop, from an option file to a trained network.

One iteration is one step of the optimizer. A run that stops, for whatever reason, and is started
again with --auto_resume goes on from its newest training state and ends with the same bits.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from restore.errors import ImageError
from restore.training.distributed import Launcher, Processes, processes
from restore.training.experiment import folders_of, sole_user
from restore.training.options import Options
from restore.training.run import Run, put_together, start_run
from restore.training.watch import Stop


class ToldByFirstError(ImageError):
    """What the first process of a run raises as an ImageError, in the others."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        iteration: the last one.
        finished: whether it came to its end; else it was asked to stop, and saved.
        signal: number of the signal that asked; 0 where it finished.
        folder: experiments/<name>.
        best: set to metric to best mean and its iteration.
    """

    iteration: int
    finished: bool
    signal: int
    folder: Path
    best: dict[str, dict[str, tuple[float, int]]]


def train(
    options: Options,
    *,
    launcher: Launcher = "none",
    auto_resume: bool = False,
    root: Path | None = None,
) -> Outcome:
    """Train, validate, save; go on where an earlier run stopped.

    Args:
        options: a whole option file.
        launcher: "pytorch" where torchrun started this process among others.
        auto_resume: go on from the newest whole training state of this run, if there is one.
        root: where experiments/ and tb_logger/ stand; None: the current folder.

    Raises:
        UsageError: options that cannot be obeyed.
        CheckpointError: weights or states that cannot be read.
        NonFiniteLossError: a loss became NaN or infinite.
        ImageError: a picture cannot be read, or is not what it has to be; what was trained before
            is saved.
        OutputError: the disk is full, or cannot be written; the last training state is whole.
    """
    folders = folders_of(options.name, root or Path())
    with (
        processes(launcher, options.num_gpu, options.dist_params) as group,
        sole_user(folders, group),
        Stop(group).listening() as stop,
        start_run(options, folders, group, stop, auto_resume) as run,
    ):
        finished = iterate(run)
        number = 0 if finished else stop.signal
        return Outcome(run.iteration, finished, number, folders.root, run.best.found)


def rehearse(options: Options, *, auto_resume: bool = False, root: Path | None = None) -> int:
    """Put a run together as `train` does, on the CPU, and let it go; nothing is written.

    Weights and states are read and matched, sets listed, the sizes of validation pictures looked
    at.

    Args:
        options, auto_resume, root: see `train`.

    Returns:
        The iteration that it would go on from; 0: it would begin.

    Raises:
        UsageError, CheckpointError: as `train`.
    """
    folders = folders_of(options.name, root or Path())
    group = Processes(torch.device("cpu"))
    return put_together(options, folders, group, Stop(group), auto_resume).iteration


def iterate(run: Run) -> bool:
    """All iterations that are left; False where the run was asked to stop before the last one."""
    try:
        return _all_left(run)
    except ImageError as error:
        run.keep()
        if not run.group.is_first:
            raise ToldByFirstError(str(error)) from error
        raise


def _all_left(run: Run) -> bool:
    options, total = run.options, run.train.total_iter
    if run.iteration and run.is_due(options.val.val_freq):
        run.validate()  # a state is saved before its validation, which a kill may have prevented

    batches = iter(run.loader)
    while run.iteration < total:
        waited = time.perf_counter()
        stood = run.loader.state
        try:
            # a process that has no batch would leave the others waiting in the step for ever
            with run.group.agreed():
                taken = list(islice(batches, run.train.accum_iter))
        except ImageError:
            run.loader.state = stood  # batches of a step that was not taken
            raise
        run.clock.waited(time.perf_counter() - waited, sum(len(batch.index) for batch in taken))

        run.iteration += 1
        losses = run.training.step(taken, run.iteration)
        run.watch.see(run.iteration, taken, losses)
        run.meter.add(losses)
        run.journal.step()

        if run.is_due(options.logger.print_freq):
            run.report()
        if run.is_due(options.logger.save_checkpoint_freq):
            run.save()
        if run.is_due(options.val.val_freq):
            run.validate()
        if run.stop.is_due() and run.iteration < total:
            run.save()
            return False

    run.finish()
    return True
