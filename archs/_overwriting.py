"""When a block may write into the map that it was given."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def may_overwrite(before: nn.Module | None, block: nn.Module) -> bool:
    """Whether a block may put its result where the one before put what it takes.

    Autograd, hooks and a `forward` that someone replaced may keep it.
    """
    return not (
        before is None
        or block.training
        or torch.is_grad_enabled()
        or not (_overwrites(before) and _overwrites(block))
        or before._forward_hooks
        or block._forward_hooks
        or block._forward_pre_hooks
        or _has_any_global_hook()
    )


def is_unseen(kind: type[nn.Module], module: nn.Module) -> bool:
    """Whether a call of a module runs what its class says, and nobody keeps what it is given."""
    return type(module) is kind and not (
        "forward" in vars(module)
        or module._forward_hooks
        or module._forward_pre_hooks
        or _has_any_global_hook()
    )


def _overwrites(module: nn.Module) -> bool:
    """Whether its `forward` is that of a class that has an `overwrite` to the same effect.

    The type is asked, as wrappers of modules give the attributes of what is in them.
    """
    if "forward" in vars(module):
        return False
    return "overwrite" in vars(
        next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    )
