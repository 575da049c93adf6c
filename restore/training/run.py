"""A run's parts, put together: what the loop reports, saves and validates with."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from restore import __version__
from restore.datasets.build import training_loader, validation_set
from restore.datasets.loader import LoaderState, Mixing, TrainingLoader
from restore.errors import UsageError
from restore.training.distributed import Processes
from restore.training.experiment import Folders, check_room, make_folders, prepare, state_to_resume
from restore.training.gan import build_training
from restore.training.logs import Clock, Journal, Meter, Silence
from restore.training.model import Training
from restore.training.options import Options
from restore.training.schedules import stages_of
from restore.training.scorable import check_scorable
from restore.training.states import (
    random_states,
    seed_all,
    set_random_states,
    untouched_random_states,
    write_state,
)
from restore.training.train_options import TrainOptions
from restore.training.validation import Best, Metrics, PictureSet, how_of, validate
from restore.training.watch import FiniteWatch, Stop, check_weights
from restore.training.whole_pictures import How

log = logging.getLogger("restore.training")


class _LeftError(Exception):
    """A validation was left before its end."""


@dataclass
class Run:
    """One run on this process."""

    options: Options
    train: TrainOptions
    folders: Folders
    group: Processes
    stop: Stop
    training: Training
    loader: TrainingLoader
    sets: Mapping[str, PictureSet]
    metrics: Metrics
    how: How
    watch: FiniteWatch
    journal: Silence
    best: Best
    iteration: int = 0
    meter: Meter = field(default_factory=Meter)
    clock: Clock = field(default_factory=Clock)

    def is_due(self, every: int) -> bool:
        """Whether something that is done every so many iterations is to be done now; 0: never."""
        return every > 0 and self.iteration % every == 0

    def report(self) -> None:
        """A line of the log, with the means of all processes."""
        means = self.meter.take()
        values = self.group.mean(torch.stack(list(means.values())))
        speed = self.clock.take()
        self.journal.losses(
            self.iteration,
            dict(zip(means, values.tolist(), strict=True)),
            self.training.rate,
            (speed[0] * self.group.count, speed[1]),
        )

    def validate(self) -> None:
        """Score all validation sets; training does not notice.

        It is left where the run is to stop: a resumed run validates again what its state was saved
        for.
        """
        begun, val = time.perf_counter(), self.options.val
        with (
            contextlib.suppress(_LeftError),
            untouched_random_states(),
            self.training.judged() as model,
        ):
            for name, pictures in self.sets.items():
                scores = validate(
                    model,
                    name,
                    pictures,
                    self.metrics,
                    self.how,
                    processes=self.group,
                    save_to=self._named if val.save_img else None,
                    seen=self._leave_if_asked,
                    most=val.max_pictures,
                )
                self.best.see(scores, self.iteration)
                self.journal.scores(self.iteration, scores, self.best)
        self.clock.pause(time.perf_counter() - begun)

    def _leave_if_asked(self, picture: str) -> None:
        if self.stop.is_urgent():
            raise _LeftError

    def _named(self, picture: str) -> Path:
        """Where a validation picture goes."""
        return self.folders.visualization / picture / f"{picture}_{self.iteration}.png"

    def save(self) -> None:
        """Write weights, then the training state, whose presence says that all is there.

        Raises:
            OutputError: they cannot be written; older ones are whole.
            NonFiniteLossError: one of the last steps, on a GPU, had such a loss, or weights of the
                network became such.
        """
        begun = time.perf_counter()
        self.watch.catch_up()
        state = self._state()
        check_weights(self.iteration, state["training"]["network_g"])
        if self.group.is_first:
            make_folders(self.folders)  # someone may have removed them on the way
        self.training.save_networks(self.folders.models, str(self.iteration))
        if self.group.is_first:
            write_state(self.folders.state(self.iteration), state)
            log.info("iter %s: saved %s", f"{self.iteration:,}", self.folders.state(self.iteration))
        self.clock.pause(time.perf_counter() - begun)

    def keep(self) -> None:
        """Save what is not saved yet, where all processes end by a picture that cannot be used."""
        # the first process knows, since each machine may have a disk of its own
        saved = self.group.from_first(self.folders.state(self.iteration).exists())
        if self.iteration and not saved:
            self.save()

    def _state(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "iter": self.iteration,
            "training": self.training.state_dict(),
            "loader": asdict(self.loader.state),
            "seed": self.loader.data.seed,
            "each": self.group.gather(
                {"random": random_states(), "meter": self.meter.state_dict()}
            ),
            "best": self.best.found,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `_state` gave.

        Raises:
            UsageError: it is of other options, or of another number of processes.
        """
        self.training.load_state_dict(state["training"])
        self.best.found.update(state["best"])
        each = state["each"]
        if len(each) == self.group.count:
            set_random_states(each[self.group.rank]["random"])
            self.meter.load_state_dict(each[self.group.rank]["meter"], self.group.device)
        else:
            log.warning(
                "the training state is of %d processes and these are %d: dropped paths and the "
                "first mean losses are not those of a run that was never interrupted",
                *(len(each), self.group.count),
            )
        self.iteration = state["iter"]

    def finish(self) -> None:
        """After the last iteration: what is not saved, validated and told yet."""
        logger, val = self.options.logger, self.options.val
        if not self.is_due(logger.save_checkpoint_freq):
            self.save()
        self.training.save_networks(self.folders.models, "latest")
        if val.val_freq and not self.is_due(val.val_freq):
            self.validate()
        passed = timedelta(seconds=int(self.clock.seconds()))
        model = self.training.model
        self.journal.finish(
            self.best,
            [
                f"{model.variant}, {model.num_parameters:,} parameters; {self.iteration:,} "
                f"iterations of {self.options.file.name}; the last part took {passed} on "
                f"{self.group.count} process(es), {self.group.device}; weights in "
                "models/net_g_latest.pth"
            ],
        )
        log.info("done after %s iterations, in %s", f"{self.iteration:,}", passed)


@contextlib.contextmanager
def start_run(
    options: Options, folders: Folders, group: Processes, stop: Stop, auto_resume: bool
) -> Iterator[Run]:
    """Put a run together, or together again, and close it at the end.

    Args:
        options: with a section `train`.
        folders: where it writes.
        group: the processes of the run.
        stop: whether it is to end early.
        auto_resume: see `train`.

    Raises:
        UsageError, CheckpointError, OutputError: see `train`.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(arithmetic(options.deterministic))
        run = put_together(options, folders, group, stop, auto_resume)
        # only now that nothing else can refuse to begin is an older run of that name put aside
        if group.is_first:
            check_room(folders, run.training.checkpoint_bytes())
            aside = prepare(folders, options, resumed=run.iteration > 0)
            with untouched_random_states():  # wandb draws the names of runs
                run.journal = Journal(options, folders, run.iteration)
            stack.enter_context(contextlib.closing(run.journal))
            for line in aside:
                log.info("%s", line)
        group.wait()
        run.clock = Clock()
        _tell_beginning(run)
        yield run


def put_together(
    options: Options, folders: Folders, group: Processes, stop: Stop, auto_resume: bool
) -> Run:
    """A run that is ready to begin, or to go on; nothing is written.

    Args and errors are those of `start_run`, but for OutputError.
    """
    state = state_to_resume(options, folders, auto_resume, group)
    seed = group.from_first(_seed(options, state))
    seed_all(seed)
    training = build_training(options, group)
    if group.rank:
        seed_all(seed + group.rank)  # each drops other paths
    sets = {data.name: validation_set(data) for data in options.datasets_of("val")}
    if options.val.val_freq:
        check_scorable(options, sets)
    run = Run(
        options,
        training.train,
        folders,
        group,
        stop,
        training,
        _loader(options, training.train, group, seed, state),
        sets,
        Metrics(options.val.metrics),
        how_of(options),
        FiniteWatch(folders.root),
        Silence(),
        Best(options.val.metrics),
    )
    if state is not None:
        run.resume(state)
    return run


def _tell_beginning(run: Run) -> None:
    model, total, seed = run.training.model, run.train.total_iter, run.loader.data.seed
    log.info(
        "%s: %s, %s parameters, seed %d, from iteration %s to %s on %s",
        *(run.options.name, model.variant, f"{model.num_parameters:,}", seed),
        *(f"{run.iteration:,}", f"{total:,}", run.group.device),
    )
    if run.iteration == total:
        log.info("all iterations are done already; to train on, raise train.total_iter")


def _seed(options: Options, state: Mapping[str, Any] | None) -> int:
    """That of a resumed run counts, since its data follow from it."""
    if state is not None:
        return int(state["seed"])
    if options.manual_seed is not None:
        return options.manual_seed
    return secrets.randbelow(2**31)


def _loader(
    options: Options,
    train: TrainOptions,
    group: Processes,
    seed: int,
    state: Mapping[str, Any] | None,
) -> TrainingLoader:
    data = options.datasets_of("train")
    if len(data) != 1:
        raise UsageError(
            f"{options.file}: datasets has {len(data)} sections for training; expected one, train"
        )
    mixing = train.mixing_augs
    return training_loader(
        data[0],
        seed=seed,
        device=group.device,
        chain=options.degradation,
        stages=stages_of(data[0], train),
        rank=group.rank,
        world=group.count,
        accumulate=train.accum_iter,
        mixing=(
            Mixing(mixing.mixup_beta, mixing.use_identity, mixing.start) if mixing.mixup else None
        ),
        state=None if state is None else LoaderState(**state["loader"]),
    )


@contextlib.contextmanager
def arithmetic(deterministic: bool) -> Iterator[None]:
    """Around a run: the fastest kernels of a GPU, or those that give the same bits each time."""
    before = (
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
    )
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before[:2]
        torch.use_deterministic_algorithms(before[2])
