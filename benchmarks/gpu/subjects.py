"""Networks to measure: ours with reproducible weights, and what it is compared with."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.eager import Eager
from benchmarks.gpu.cases import Case, Kind, Network, Precision
from benchmarks.peers import spandrel_network
from restore.archs._spec import ArchConfig, ArchSpec
from restore.kernels import dispatch

SEED = 20261122
LEARNING_RATE = 0.0  # a step costs what it costs; the weights stay those that are compared


@dataclass(frozen=True)
class Subject:
    """A network of ours, on the CPU in float32, in evaluation mode."""

    spec: ArchSpec
    config: ArchConfig
    net: nn.Module

    def copied(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """A copy on a device."""
        return copy.deepcopy(self.net).to(device, dtype)

    def image(self, generator: torch.Generator, batch: int, side: int) -> Tensor:
        """[batch, C, side, side] in 0..1, float32, on the CPU."""
        return torch.rand(
            batch, self.spec.in_channels(self.config), side, side, generator=generator
        )


def subject(network: Network, rehearsal: bool) -> Subject:
    """The network with weights that every machine draws alike.

    In an initialised network biases are 0, norms do nothing, and what a branch adds is lost in the
    rounding of half precision: much could go wrong unseen. These weights keep the size of what goes
    through a layer, so that every branch counts; biases are not 0 and tables are large.
    """
    spec, config = network.build_settings(rehearsal)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)  # stock layers draw what is not drawn below
        net = spec.build(config).eval()
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, p in net.named_parameters():
            values = torch.randn(p.shape, generator=generator)
            if name.endswith("bias_table"):
                p.copy_(values)
            elif p.dim() == 1 or not name.endswith("weight"):
                p.add_(0.2 * values)
            else:
                p.copy_(values / math.sqrt(math.prod(p.shape[1:])))
    return Subject(spec, config, net)


@contextlib.contextmanager
def only(paths: tuple[dispatch.Path, ...]) -> Iterator[None]:
    """Let "auto" take these paths alone; with none, every op runs its definition."""
    before = dispatch.AUTO
    dispatch.AUTO = paths
    try:
        yield
    finally:
        dispatch.AUTO = before


def peers(found: Subject, net: nn.Module) -> dict[str, Callable[[], nn.Module]]:
    """What makes each network that ours is compared with, from `net`, a copy of ours."""

    def from_spandrel() -> nn.Module:
        p = next(net.parameters())
        module = spandrel_network(found.spec, found.config, found.net)
        return copy.deepcopy(module).to(p.device, p.dtype).eval()

    return {"eager": lambda: Eager(net).eval(), "spandrel": from_spandrel}


class InferenceStep:
    """One call of a network."""

    def __init__(self, module: nn.Module, x: Tensor, precision: Precision) -> None:
        self.module, self.x, self.precision = module.eval(), x, precision

    def __call__(self) -> Tensor:
        """The output."""
        with torch.no_grad(), self.precision.on(self.x.device):
            y: Tensor = self.module(self.x)
            return y

    def forget(self) -> None:
        """Nothing is kept between calls."""


class TrainingStep:
    """Forward, L1 loss, backward and a step of Adam."""

    def __init__(self, module: nn.Module, x: Tensor, target: Tensor, precision: Precision) -> None:
        self.module, self.x, self.target, self.precision = module, x, target, precision
        self.optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
        self.scaler = torch.amp.GradScaler(x.device.type, enabled=precision.dtype == torch.float16)

    def __call__(self) -> Tensor:
        """The loss before the step."""
        self.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.on(self.x.device):
            loss = F.l1_loss(self.module(self.x).float(), self.target)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def forget(self) -> None:
        """Give the gradients back."""
        self.optimizer.zero_grad(set_to_none=True)


Step = InferenceStep | TrainingStep


def step_of(kind: Kind, module: nn.Module, x: Tensor, target: Tensor, precision: Precision) -> Step:
    """What is timed."""
    if kind == "inference":
        return InferenceStep(module, x, precision)
    return TrainingStep(module, x, target, precision)


def inputs(found: Subject, case: Case, device: torch.device) -> tuple[Tensor, Tensor]:
    """An image batch of a case, and what training compares with."""
    generator = torch.Generator().manual_seed(SEED)
    scale = found.spec.scale(found.config)
    x = found.image(generator, case.batch, case.side)
    target = found.image(generator, case.batch, case.side * scale if case.kind == "training" else 1)
    return x.to(device, case.precision.stored), target.to(device)
