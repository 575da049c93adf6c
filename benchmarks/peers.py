"""Other packages that read the same weights, made to import."""

from __future__ import annotations

import importlib
from types import ModuleType
from unittest import mock

import torch
from torch import Tensor, nn

from restore.archs._spec import ArchConfig, ArchSpec
from restore.torchvision_remedies import declare_torchvision_operators


def spandrel() -> ModuleType:
    """The package spandrel.

    Raises:
        ImportError: it, or something it needs, is not installed.
    """
    declare_torchvision_operators()
    return importlib.import_module("spandrel")


def spandrel_network(spec: ArchSpec, config: ArchConfig, net: nn.Module) -> nn.Module:
    """spandrel's network with the weights of ours, on the CPU: the authors' own code.

    Raises:
        ImportError: spandrel, or what it needs, is not installed.
        LookupError: it does not know the network.
    """
    peers = spandrel()
    extra = importlib.import_module("spandrel_extra_arches").EXTRA_REGISTRY
    from restore.model import Model  # needs more packages than a network does

    state = Model(spec, config, net, name="benchmark").official_state_dict()
    for registry in (peers.MAIN_REGISTRY, extra):
        try:
            peer = peers.ModelLoader("cpu", registry).load_from_state_dict(dict(state))
        except peers.UnsupportedModelError:
            continue
        module: nn.Module = peer.model.eval()
        return StableSort(module) if spec.name == "ATD" else module
    raise LookupError(f"spandrel does not know {spec.name}")


class StableSort(nn.Module):
    """A network whose tokens keep their order inside a category, as ours do; it is undefined in the
    authors' code, and the result depends on it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """What the network makes of x."""
        sort = torch.sort

        def stably(values: Tensor, dim: int = -1, stable: bool = True) -> tuple[Tensor, Tensor]:
            return sort(values, dim=dim, stable=True)

        with mock.patch.object(torch, "sort", stably):
            y: Tensor = self.net(x)
            return y
