"""A run's parts, put together: what the loop reports, saves and validates with."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from restore import __version__
from restore.datasets.loader import LoaderState, TrainingLoader
from restore.errors import UsageError
from restore.training.data import training_loader, validation_sets
from restore.training.distributed import Processes
from restore.training.experiment import Folders, check_room, prepare, state_to_resume
from restore.training.gan import build_training
from restore.training.logs import Clock, Journal, Meter
from restore.training.model import Training
from restore.training.options import Options
from restore.training.states import random_states, seed_all, set_random_states, write_state
from restore.training.train_options import TrainOptions
from restore.training.validation import Best, How, Metrics, PictureSet, how_of, validate
from restore.training.watch import FiniteWatch

log = logging.getLogger("restore.training")


@dataclass
class Run:
    """One run on this process."""

    options: Options
    train: TrainOptions
    folders: Folders
    group: Processes
    training: Training
    loader: TrainingLoader
    sets: Mapping[str, PictureSet]
    metrics: Metrics
    how: How
    watch: FiniteWatch
    journal: Journal
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
        """Score all validation sets; training does not notice."""
        begun, kept = time.perf_counter(), random_states()
        val, place = self.options.val, self.folders.visualization
        with self.training.judged() as model:
            for name, pictures in self.sets.items():
                scores = validate(
                    model,
                    name,
                    pictures,
                    self.metrics,
                    self.how,
                    processes=self.group,
                    save_to=self._named if val.save_img else None,
                    most=val.max_pictures,
                )
                self.best.see(scores, self.iteration)
                self.journal.scores(self.iteration, scores, self.best)
        set_random_states(kept)
        self.clock.pause(time.perf_counter() - begun)

    def _named(self, picture: str) -> Path:
        """Where a validation picture goes."""
        return self.folders.visualization / picture / f"{picture}_{self.iteration}.png"

    def save(self) -> None:
        """Write weights, then the training state, whose presence says that all is there.

        Raises:
            OutputError: they cannot be written; older ones are whole.
            NonFiniteLossError: one of the last steps, on a GPU, had such a loss.
        """
        begun = time.perf_counter()
        self.watch.catch_up()
        self.training.save_networks(self.folders.models, str(self.iteration))
        state = self._state()
        if self.group.is_first:
            write_state(self.folders.state(self.iteration), state)
            log.info("iter %s: saved %s", f"{self.iteration:,}", self.folders.state(self.iteration))
        self.clock.pause(time.perf_counter() - begun)

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
                f"models/net_g_latest.pth",
            ],
        )
        log.info("done after %s iterations, in %s", f"{self.iteration:,}", passed)
