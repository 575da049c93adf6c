"""Whole states of networks and optimizers, also of those that are spread over processes (FSDP).

States are of plain tensors on the CPU under official names, the same for any number of processes,
so a run may go on with another number. Where parameters are spread, all processes call these
together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def whole(value: Tensor) -> Tensor:
    """A tensor in one piece on the CPU; what lies there already is not copied."""
    spread: Any = value.detach()
    joined: Tensor = spread.full_tensor() if is_spread(value) else spread
    return joined.cpu()


def is_spread(value: Tensor) -> bool:
    """Whether each process has a part of a tensor: a DTensor, which not every PyTorch has."""
    return hasattr(value, "full_tensor")


def _as(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, spread as another of its shape is."""
    if not is_spread(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def full_state(network: nn.Module) -> dict[str, Tensor]:
    """The network's parameters and buffers."""
    return {name: whole(value) for name, value in network.state_dict().items()}


def load_full_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what `full_state` gave; RuntimeError where it is of another network."""
    own = network.state_dict()
    network.load_state_dict(
        {name: _as(value, own[name]) if name in own else value for name, value in state.items()}
    )


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state; parameters have numbers."""
    state = optimizer.state_dict()
    values = {
        number: {
            name: whole(value) if isinstance(value, Tensor) else value
            for name, value in entry.items()
        }
        for number, entry in state["state"].items()
    }
    return {"state": values, "param_groups": state["param_groups"]}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put back what `optimizer_state` gave; ValueError where it is of other parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    values = {
        number: {
            name: _as(value, parameters[number]) if isinstance(value, Tensor) else value
            for name, value in entry.items()
        }
        for number, entry in state["state"].items()
        if number < len(parameters)
    }
    optimizer.load_state_dict({"state": values, "param_groups": state["param_groups"]})
