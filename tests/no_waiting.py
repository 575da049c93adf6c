"""Watching for what waits for a device or copies to it, which no CUDA graph can hold.

On the device "meta" nothing has values: what needs one fails, and what is made elsewhere shows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
# values or shapes that are only known once the device is done
WAITING = ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2")


class Watch(TorchDispatchMode):
    """Notes operators that wait, and those with a tensor elsewhere.

    Args:
        allowed: a tensor that may be elsewhere.
    """

    def __init__(self, allowed: Tensor | None) -> None:
        super().__init__()
        self.allowed = allowed
        self.fused = 0  # operators of ours
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.fused += func.namespace == "restore"
        tensors = [x for x in tree_leaves((args, kwargs, made)) if isinstance(x, Tensor)]
        elsewhere = any(x.device != META and x is not self.allowed for x in tensors)
        if elsewhere or func.overloadpacket.__name__ in WAITING:
            self.found.append(f"{func} on {[str(x.device) for x in tensors]}")
        return made
