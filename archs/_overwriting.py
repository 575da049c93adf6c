"""When a block may write into the map that it was given."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook

from restore.archs._plain import watched


def may_overwrite(before: nn.Module | None, block: nn.Module) -> bool:
    """Whether a block may put its result where the one before put what it takes.

    Autograd, hooks and a `forward` that someone replaced may keep it. Hooks inside of the block
    before cannot: they see what it adds to its map, never its result, which is a new sum.
    """
    return not (
        before is None
        or block.training
        or torch.is_grad_enabled()
        or not (_overwrites(before) and _overwrites(block))
        or watched(before)
        or watched(block)
        or _has_any_global_hook()
    )


def _overwrites(module: nn.Module) -> bool:
    """Whether its `forward` is that of a class that has an `overwrite` to the same effect.

    The type is asked, as wrappers of modules give the attributes of what is in them.
    """
    return "overwrite" in vars(
        next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    )
