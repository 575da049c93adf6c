"""The exponential moving average of a network's parameters, which papers report."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average:
    """A copy of a network whose parameters follow those of the original.

    After each step average = average + (1 - decay) * (parameter - average), as BasicSR does;
    buffers stay as they were. All parameters are moved in one call.

    Attributes:
        module: the copy, in eval mode and without gradients.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(network).eval().requires_grad_(False)
        self._averages = _local(self.module)
        self._parameters = _local(network)

    @torch.no_grad()
    def update(self) -> None:
        """Follow the network's present parameters."""
        torch._foreach_lerp_(self._averages, self._parameters, 1 - self.decay)


def _local(module: nn.Module) -> list[Tensor]:
    """The parameters, or this process's part of them where they are spread over several."""
    return [_part(parameter) for parameter in module.parameters()]


def _part(parameter: Tensor) -> Tensor:
    data = parameter.detach()
    to_local = getattr(data, "to_local", None)
    return data if to_local is None else to_local()
