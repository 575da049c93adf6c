"""The exponential moving average of a network's parameters, which papers report."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from restore.training.sharding import is_spread


class Average:
    """A network whose parameters follow those of another.

    After each step average = average + (1 - decay) * (parameter - average), as BasicSR does;
    buffers stay as they were. All parameters are moved in one call.

    Args:
        module: the follower; it goes to eval mode and takes no gradients.
        network: the one that is trained, built alike.
        decay: what is kept of the average in one step.
    """

    def __init__(self, module: nn.Module, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = module.eval().requires_grad_(False)
        self._averages = _local(module)
        self._parameters = _local(network)

    @torch.no_grad()
    def update(self) -> None:
        """Follow the network's present parameters."""
        torch._foreach_lerp_(self._averages, self._parameters, 1 - self.decay)


def _local(module: nn.Module) -> list[Tensor]:
    """The parameters, or this process's part of them where they are spread over several."""
    tensors: list[Any] = [parameter.detach() for parameter in module.parameters()]
    return [tensor.to_local() if is_spread(tensor) else tensor for tensor in tensors]
