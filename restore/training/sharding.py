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

from restore.rescaling import in_words, transplanted

# what an option file says of an optimizer, beside the rate, which is set at every step
_SETTINGS = ("betas", "eps", "weight_decay", "decoupled_weight_decay", "momentum", "nesterov")


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
    _, new, left_out = transplanted(network, state)
    if new or left_out:
        raise RuntimeError(
            f"the network has {in_words(new, own)}, the state {in_words(left_out, state)}"
        )
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
    """Put back what `optimizer_state` gave, but for the settings, which stay the optimizer's own.

    Raises:
        ValueError: it is of other parameters, or of another kind of optimizer.
    """
    kinds = [_kind(each["param_groups"][0]) for each in (state, optimizer.state_dict())]
    if kinds[0] != kinds[1]:
        raise ValueError(f"it is of {kinds[0]} and the optimizer is {kinds[1]}")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    values = {
        number: {
            name: _as(value, parameters[number]) if isinstance(value, Tensor) else value
            for name, value in entry.items()
        }
        for number, entry in state["state"].items()
        if number < len(parameters)
    }
    settings = [
        {name: group[name] for name in _SETTINGS if name in group}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict({"state": values, "param_groups": state["param_groups"]})
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def _kind(group: Mapping[str, Any]) -> str:
    """Which optimizers have states of one kind, told by what only they keep."""
    if "momentum" in group:
        return "SGD"
    return "ScheduleFreeAdamW" if "weight_sum" in group else "Adam or AdamW"
