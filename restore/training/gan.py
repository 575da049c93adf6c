"""Training against a discriminator: the two take turns on the same batch.

Source: Goodfellow et al., arXiv:1406.2661, as ESRGAN and Real-ESRGAN train: first the network
learns from its losses and from what the discriminator says of its results, then the discriminator
learns to tell true pictures from those same results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore.errors import UsageError
from restore.training.building import build_discriminator, load_weights
from restore.training.criteria import build_gan
from restore.training.distributed import Processes, without_sync
from restore.training.model import Batch, Training, add_terms
from restore.training.optimizers import build_optimizer, set_rates
from restore.training.options import Options
from restore.training.sharding import (
    full_state,
    load_full_state,
    load_optimizer_state,
    optimizer_state,
)
from restore.training.states import write_whole


class GANTraining(Training):
    """A run with a discriminator.

    Args:
        options: with network_d, gan_opt and optim_d.
        processes: this one among those of the run.

    Raises:
        UsageError: one of the three is missing; else as `Training`.
        CheckpointError: as `Training`.
    """

    def __init__(self, options: Options, processes: Processes) -> None:
        super().__init__(options, processes)
        train = self.train
        if options.network_d is None or train.gan_opt is None or train.optim_d is None:
            raise UsageError(
                f"{train.where()}: model_type {options.model_type} trains a discriminator; it "
                "needs network_d, train: gan_opt and train: optim_d"
            )
        self.game = build_gan(train.gan_opt)
        discriminator = build_discriminator(options.network_d)
        path = options.path
        if path.pretrain_network_d is not None:
            load_weights(
                discriminator, path.pretrain_network_d, path.param_key_d, strict=path.strict_load_d
            )
        self.discriminator = discriminator.to(self.device).train()
        self.judge = processes.together(self.discriminator, False)
        self.optim_d = train.optim_d
        self.optimizer_d = build_optimizer(
            self.optim_d, self.discriminator.parameters(), fused=not processes.is_sharded
        )

    def step(self, batches: Sequence[Batch], iteration: int) -> dict[str, Tensor]:
        """As `Training.step`: one step of both, or of the discriminator alone."""
        self.rate = set_rates(self.optimizer, self.train.optim_g.lr, self.rule, iteration)
        set_rates(self.optimizer_d, self.optim_d.lr, self.rule, iteration)
        learns = iteration % self.train.net_d_iters == 0 and iteration > self.train.net_d_init_iters
        losses: dict[str, Tensor] = {}
        results = self._generator_step(batches, losses) if learns else self._results_of(batches)
        self._discriminator_step(batches, results, losses)
        self.precision.end_of_iteration()
        if self.average is not None:
            self.average.update()
        return losses

    def _results_of(self, batches: Sequence[Batch]) -> list[Tensor]:
        with torch.no_grad():
            return [self.restored(batch) for batch in batches]

    def _generator_step(self, batches: Sequence[Batch], losses: dict[str, Tensor]) -> list[Tensor]:
        self.discriminator.requires_grad_(False)
        self.optimizer.zero_grad(set_to_none=True)
        results, count = [], len(batches)
        for number, batch in enumerate(batches, 1):
            with without_sync(self.forward, last=number == count):
                result = self.restored(batch)
                terms = self.losses(result, batch, count)
                verdict = self._verdict(self.discriminator, result)
                terms["gan"] = self.game(verdict, True) / count
                self.precision.backward(torch.stack(list(terms.values())).sum())
            add_terms(losses, "l_g_", terms)
            results.append(result.detach())
        self.precision.step(self.optimizer, self.network.parameters(), self.train.grad_clip)
        self.discriminator.requires_grad_(True)
        return results

    def _discriminator_step(
        self, batches: Sequence[Batch], results: Sequence[Tensor], losses: dict[str, Tensor]
    ) -> None:
        self.optimizer_d.zero_grad(set_to_none=True)
        count = len(batches)
        for number, (batch, result) in enumerate(zip(batches, results, strict=True), 1):
            truth = self.truth(batch, self.chain.gan_gt_usm)
            for name, pictures in (("real", truth), ("fake", result)):
                last = number == count and name == "fake"
                with without_sync(self.judge, last=last):
                    verdict = self._verdict(self.judge, pictures)
                    loss = self.game(verdict, name == "real", is_disc=True) / count
                    self.precision.backward(loss)
                add_terms(losses, "l_d_", {name: loss})
                add_terms(losses, "out_d_", {name: verdict.mean() / count})
        self.precision.step(self.optimizer_d, self.discriminator.parameters(), self.train.grad_clip)

    def _verdict(self, judge: nn.Module, pictures: Tensor) -> Tensor:
        with self.precision.autocast():
            verdict: Tensor = judge(pictures)
        return verdict.float()

    def save_networks(self, folder: Path, label: str) -> None:
        """Also net_d_<label>.pth: {params}."""
        super().save_networks(folder, label)
        content = {"params": full_state(self.discriminator)}
        if self.processes.is_first:
            write_whole(folder / f"net_d_{label}.pth", content)

    def state_dict(self) -> dict[str, Any]:
        """Also the discriminator and its optimizer."""
        return {
            **super().state_dict(),
            "network_d": full_state(self.discriminator),
            "optimizer_d": optimizer_state(self.optimizer_d),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As `Training.load_state_dict`."""
        super().load_state_dict(state)
        with self.fitting("network_d and optim_d"):
            load_full_state(self.discriminator, state["network_d"])
            load_optimizer_state(self.optimizer_d, state["optimizer_d"])


def build_training(options: Options, processes: Processes) -> Training:
    """What the model type of an option file trains."""
    kind = GANTraining if options.kind.gan else Training
    return kind(options, processes)
