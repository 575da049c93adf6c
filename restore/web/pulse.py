"""Where a network stands within a tile, and a way to stop it there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from restore.model import Model


@contextlib.contextmanager
def steps(model: Model, told: Callable[[float], None]) -> Iterator[int]:
    """While it lasts, `told` hears before each group of a network which share of them is done.

    A tile of a large network takes minutes on a CPU, and callbacks of `upscale` come after tiles.
    What `told` raises ends the computation.

    Only whole groups are watched: fused operations read the modules within them without a call,
    unless those are watched.

    Yields:
        How many steps a pass of the network has.
    """
    groups = _groups(model.module)
    handles = []

    def watch(group: nn.Module, share: float) -> None:
        def before(module: nn.Module, args: tuple[object, ...]) -> None:
            told(share)

        handles.append(group.register_forward_pre_hook(before))

    try:
        for i, group in enumerate(groups):
            watch(group, i / len(groups))
        yield len(groups)
    finally:
        for handle in handles:
            handle.remove()


def _groups(net: nn.Module) -> list[nn.Module]:
    """What a network calls one after the other: members of its lists, and stages made of blocks."""
    groups: list[nn.Module] = []
    for child in net.children():
        if isinstance(child, nn.ModuleList):
            groups += child
        elif any(_is_own(part) for part in child.modules() if part is not child):
            groups.append(child)
    return groups


def _is_own(module: nn.Module) -> bool:
    """Whether it is no layer of PyTorch's."""
    return not type(module).__module__.startswith("torch.")
