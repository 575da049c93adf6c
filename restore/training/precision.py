"""In which number format a step computes: float32, or half precision for the products.

Parameters, their averages, the optimizers' states and the losses are float32 always.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from restore.errors import UsageError

Amp = Literal["none", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast, and for fp16 a factor on the losses that keeps small gradients from vanishing.

    A step whose gradients overflow under that factor is left out and the factor halved, without
    waiting for the device.

    Args:
        amp: "none", "bf16" or "fp16".
        device: where the step runs.

    Raises:
        UsageError: no such format, or the device does not compute in it.
    """

    def __init__(self, amp: Amp, device: torch.device) -> None:
        if amp not in get_args(Amp):
            raise UsageError(f"amp is {amp!r}; expected one of {', '.join(get_args(Amp))}")
        if amp == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise UsageError("amp: this GPU does not compute in bf16; use fp16 or none")
        self._dtype = _DTYPES.get(amp)
        self._device = device.type
        self._scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")

    def autocast(self) -> torch.autocast:
        """Around the forward pass."""
        return torch.autocast(self._device, self._dtype, enabled=self._dtype is not None)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self._scaler.scale(loss).backward()

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], grad_clip: float
    ) -> None:
        """One step of an optimizer.

        Args:
            optimizer: its gradients are there.
            parameters: whose gradients are clipped.
            grad_clip: largest norm of all gradients together; 0: any.
        """
        if grad_clip > 0:
            self._scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
        self._scaler.step(optimizer)

    def end_of_iteration(self) -> None:
        """After the steps of all optimizers: fit the factor."""
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`; an empty one, of a run in another format, changes nothing."""
        if state and self._scaler.is_enabled():
            self._scaler.load_state_dict(state)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Around what has to be float32 even within `Precision.autocast`."""
    with torch.autocast(device.type, enabled=False):
        yield
