"""What a run trains: the network, its average, losses and optimizer; one call a step.

Shape letters: B pictures, C channels, H, W rows and columns of the truth, s the scale.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from restore.errors import UsageError
from restore.model import Model
from restore.training.building import build_generator, load_weights
from restore.training.criteria import Criteria
from restore.training.distributed import Processes, without_sync
from restore.training.ema import Average
from restore.training.optimizers import ScheduleFreeAdamW, build_optimizer, set_rates
from restore.training.options import Options
from restore.training.precision import Precision
from restore.training.schedules import schedule_of
from restore.training.sharding import (
    full_state,
    load_full_state,
    load_optimizer_state,
    optimizer_state,
)
from restore.training.states import write_whole
from restore.training.train_options import TrainOptions


class Batch(Protocol):
    """What a step trains on: pictures in 0..1 on the device."""

    @property
    def lq(self) -> Tensor:
        """[B, C, H / s, W / s]."""

    @property
    def gt(self) -> Tensor:
        """[B, C, H, W]."""

    @property
    def gt_usm(self) -> Tensor | None:
        """gt sharpened, where a loss may compare with that."""

    @property
    def gt_path(self) -> Sequence[str]:
        """Names of the pictures."""

    @property
    def index(self) -> Sequence[int]:
        """Their positions in the stream of samples."""


class Training:
    """The network of a run and all that changes it.

    Args:
        options: a whole option file with a section `train`.
        processes: this one among those of the run.

    Raises:
        UsageError: the options contradict each other or the network.
        CheckpointError: the weights to begin from cannot be read or do not fit.
    """

    def __init__(self, options: Options, processes: Processes) -> None:
        self.train = _section(options)
        self.kind = options.where("model_type"), options.model_type, options.kind.gan
        self.processes = processes
        self.device = processes.device
        self.chain = options.degradation
        self.rule = schedule_of(self.train)
        self.rate = 0.0  # of the last step
        self.precision = Precision(self.train.amp, self.device)
        self.criteria = Criteria(self.train).to(self.device)
        self.format = torch.channels_last if self.train.channels_last else torch.contiguous_format
        path = options.path

        self.model = build_generator(
            options.network_g, options.scale, checkpointing=self.train.checkpointing
        )
        if self.train.amp == "fp16" and self.model.spec.overflows_fp16:
            raise UsageError(
                f"{self.train.where('amp')}: values inside {self.model.spec.family} networks pass "
                "the largest that fp16 holds; use amp: bf16"
            )
        module = self.model.module
        first = path.pretrain_network_g
        if first is not None:
            load_weights(module, first, path.param_key_g, strict=path.strict_load_g)
        follower = copy.deepcopy(module) if self.train.ema_decay > 0 else None
        if first is not None and follower is not None:
            # official files often have no average of their own
            load_weights(follower, first, "params_ema", strict=path.strict_load_g, may_lack=True)

        self.network = self._placed(module)
        self.forward = processes.together(self.network, options.find_unused_parameters)
        # what a step calls: the wrapped network, compiled where asked for
        self.run: nn.Module = self.forward
        if self.train.compile:
            self.run = cast(nn.Module, torch.compile(self.forward))
        self.optimizer = build_optimizer(
            self.train.optim_g, self.network.parameters(), fused=not processes.is_sharded
        )
        self.average: Average | None = None
        if follower is not None:
            follower = processes.spread(self._placed(follower))
            self.average = Average(follower, self.network, self.train.ema_decay)

    def _placed(self, module: nn.Module) -> nn.Module:
        """On the device, in the memory format of the run."""
        untyped: Any = module.to(self.device)  # PyTorch's types lack memory formats
        return cast(nn.Module, untyped.to(memory_format=self.format))

    def step(self, batches: Sequence[Batch], iteration: int) -> dict[str, Tensor]:
        """One step of the optimizer.

        Args:
            batches: accum_iter of them, on the device; together they count as one.
            iteration: from 1.

        Returns:
            The losses under BasicSR's names, on the device.
        """
        self.rate = set_rates(self.optimizer, self.train.optim_g.lr, self.rule, iteration)
        self.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, 1):
            with without_sync(self.forward, last=number == len(batches)):
                terms = self.losses(self.restored(batch), batch, len(batches))
                self.precision.backward(torch.stack(list(terms.values())).sum())
            add_terms(losses, "l_", terms)
        self.precision.step(self.optimizer, self.network.parameters(), self.train.grad_clip)
        self.precision.end_of_iteration()
        if self.average is not None:
            self.average.update()
        return losses

    def restored(self, batch: Batch) -> Tensor:
        """What the network makes of a batch: float32 [B, C, H, W]."""
        lq = batch.lq.contiguous(memory_format=self.format)
        with self.precision.autocast():
            result: Tensor = self.run(lq)
        return result.float()

    def losses(self, result: Tensor, batch: Batch, parts: int) -> dict[str, Tensor]:
        """Every loss of a result by name, as the part that it is of `parts` batches."""
        chosen = ("pix", self.chain.l1_gt_usm), ("percep", self.chain.percep_gt_usm)
        truths = {name: self.truth(batch, sharp) for name, sharp in chosen}
        terms: dict[str, Tensor] = self.criteria(result, batch.gt, truths)
        return {
            name: value if self.criteria.adds_up(name) else value / parts
            for name, value in terms.items()
        }

    def truth(self, batch: Batch, sharp: bool) -> Tensor:
        """What a loss compares with: gt, or sharpened where it is to be and there is such."""
        return batch.gt if batch.gt_usm is None or not sharp else batch.gt_usm

    @contextlib.contextmanager
    def judged(self) -> Iterator[Model]:
        """The model to validate: its average where there is one, in eval mode.

        With parameters spread over processes, all of them have to call it together.
        """
        if self.average is not None:
            module = self.average.module
            yield Model(self.model.spec, self.model.config, module, name=self.model.name)
            return
        self.network.eval()
        try:
            with self._results():
                yield self.model
        finally:
            self.network.train()

    @contextlib.contextmanager
    def _results(self) -> Iterator[None]:
        """Parameters that results are made with; other than those that are trained for some."""
        if not isinstance(self.optimizer, ScheduleFreeAdamW):
            yield
            return
        averages = self.optimizer.averages()
        trained = {parameter: parameter.detach().clone() for parameter in averages}
        try:
            for parameter, value in averages.items():
                parameter.data.copy_(value)
            yield
        finally:
            for parameter, value in trained.items():
                parameter.data.copy_(value)

    def save_networks(self, folder: Path, label: str) -> None:
        """Write net_g_<label>.pth: {params, params_ema} in official names, as BasicSR does.

        All processes call it; the first one writes. OutputError where it cannot.
        """
        content = {}
        with self._results():
            content["params"] = self._official(self.network)
        if self.average is not None:
            content["params_ema"] = self._official(self.average.module)
        if self.processes.is_first:
            write_whole(folder / f"net_g_{label}.pth", content)

    def checkpoint_bytes(self) -> int:
        """About how much net_g_<iter>.pth, net_g_latest.pth and a training state take."""
        weights = 4 * self.model.num_parameters
        derived = sum(x.nbytes for x in self._derived().values())
        copies = 1 if self.average is None else 2
        # the optimizers have two averages of the gradients each
        return 2 * copies * (weights + derived) + (copies + 2) * weights

    def _official(self, module: nn.Module) -> dict[str, Tensor]:
        return {**full_state(module), **self._derived()}

    def _derived(self) -> dict[str, Tensor]:
        """What official files hold beside parameters, computed from the configuration."""
        derived = self.model.spec.derived(self.model.config)
        return {key: make() for key, make in derived.items()}

    def state_dict(self) -> dict[str, Any]:
        """All that changes, on the CPU; all processes call it."""
        state = {
            "network_g": full_state(self.network),
            "optimizer_g": optimizer_state(self.optimizer),
            "scaler": self.precision.state_dict(),
        }
        if self.average is not None:
            state["average"] = full_state(self.average.module)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises:
            UsageError: it is of another network, optimizer or average; the message says which.
        """
        if ("average" in state) != (self.average is not None):
            raise UsageError(
                f"{self.train.where('ema_decay')}: ema_decay is {self.train.ema_decay:g}, but the "
                f"training state has {'an' if 'average' in state else 'no'} average; keep what the "
                "run began with"
            )
        place, name, has_discriminator = self.kind
        if ("network_d" in state) != has_discriminator:
            has = "a" if "network_d" in state else "no"
            raise UsageError(
                f"{place}: model_type is {name}, but the training state has {has} discriminator; "
                "resume with the model_type that the run began with, or begin anew from its net_g "
                "file as pretrain_network_g under another name"
            )
        with self.fitting("network_g and optim_g"):
            load_full_state(self.network, state["network_g"])
            load_optimizer_state(self.optimizer, state["optimizer_g"])
            if self.average is not None:
                load_full_state(self.average.module, state["average"])
        self.precision.load_state_dict(state["scaler"])

    @contextlib.contextmanager
    def fitting(self, what: str) -> Iterator[None]:
        """Around what PyTorch refuses in words of its own: a state of other options."""
        try:
            yield
        except (RuntimeError, ValueError, KeyError) as error:
            raise UsageError(
                f"the training state does not fit {what}: {error}; resume with the option file "
                "that the run began with"
            ) from error


def add_terms(losses: dict[str, Tensor], prefix: str, terms: Mapping[str, Tensor]) -> None:
    """Add the parts of a batch to the losses of a step."""
    for name, value in terms.items():
        key, part = prefix + name, value.detach()
        losses[key] = losses[key] + part if key in losses else part


def _section(options: Options) -> TrainOptions:
    if options.train is None:
        raise UsageError(f"{options.file}: has no section train; add it, or use `restore test`")
    return options.train
