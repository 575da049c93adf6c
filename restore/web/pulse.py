"""Where a network stands within a tile, and a way to stop it there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch import nn

from restore.archs._blocks import Blocks

if TYPE_CHECKING:
    from restore.model import Model


@contextlib.contextmanager
def steps(model: Model, told: Callable[[float], None]) -> Iterator[int]:
    """While it lasts, `told` hears before each block of a network which share of them is done.

    A tile of a large network takes minutes on a CPU, and callbacks of `upscale` come after tiles.
    What `told` raises ends the computation.

    Nothing within a block is watched: fused operations read the modules there without a call,
    unless somebody looks. A watched block gives a new map instead of overwriting that of the one
    before, with the same values.

    Yields:
        How many steps a pass of the network has.
    """
    parts = _parts(model.module)
    handles = []

    def watch(part: nn.Module, share: float) -> None:
        def before(module: nn.Module, args: tuple[object, ...]) -> None:
            told(share)

        handles.append(part.register_forward_pre_hook(before))

    try:
        for i, part in enumerate(parts):
            watch(part, i / len(parts))
        yield len(parts)
    finally:
        for handle in handles:
            handle.remove()


def _parts(net: nn.Module) -> list[nn.Module]:
    """What a network calls one after the other: blocks, or stages where those are no lists."""
    parts: list[nn.Module] = []
    for child in net.children():
        for group in child if isinstance(child, nn.ModuleList) else [child]:
            inner = [part for part in group.modules() if isinstance(part, Blocks)]
            if inner:
                parts += [block for blocks in inner for block in blocks.blocks]
            elif group is not child or any(map(_is_own, list(group.modules())[1:])):
                parts.append(group)
    return parts


def _is_own(module: nn.Module) -> bool:
    """Whether it is no layer of PyTorch's."""
    return not type(module).__module__.startswith("torch.")
