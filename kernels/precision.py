"""What autocast does to arithmetic, and arithmetic that it must leave alone."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Keep autocast from lowering what is computed on the device of `x`; some know no autocast."""
    if torch.amp.is_autocast_available(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast lowers products on the device of `x` to; None where it is off."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def lowered(x: Tensor) -> Tensor:
    """x as a stock product would see it: under autocast in its dtype, but for float64."""
    dtype = autocast_dtype(x)
    return x if dtype is None or x.dtype == torch.float64 else x.to(dtype)


def check_dtypes(where: str, x: Tensor, weight: Tensor) -> None:
    """Refuse products with a weight of another dtype, which autocast does not bring together.

    Raises:
        ValueError: the dtypes differ and autocast is off, or one of them is none that it lowers.
    """
    if x.dtype == weight.dtype:
        return
    lowers = (torch.float32, torch.float16, torch.bfloat16)
    if autocast_dtype(x) is None:
        advice = f"give it in {weight.dtype}, or convert the weights"
    elif x.dtype in lowers and weight.dtype in lowers:
        return
    else:
        advice = "autocast lowers float32, float16 and bfloat16 alone: give both in one of these"
    raise ValueError(f"{where}: x is {x.dtype}, its weights {weight.dtype}; {advice}")
