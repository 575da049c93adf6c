"""Choosing which implementation of an op runs. The only place that decides."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Backend = Literal["auto", "reference", "torch"]


def choose(op: str, asked: Backend, torch_refuses: str | None) -> Literal["reference", "torch"]:
    """Name the implementation for one call of `op`.

    Args:
        op: name of the op, for messages.
        asked: what the caller asked for. "auto" takes "torch" wherever it can run this call.
        torch_refuses: why the "torch" path cannot run this call, or None if it can.

    Raises:
        BackendUnavailable: the named path cannot run this call. A named path never falls back,
            so that a benchmark or a test cannot time or test the wrong code.
        ValueError: `asked` is no path.
    """
    if asked not in get_args(Backend):
        raise ValueError(f"{op}: backend is {asked!r}; expected one of {get_args(Backend)}")
    if asked == "reference":
        return "reference"
    if asked == "torch" and torch_refuses:
        raise BackendUnavailable(f"{op}: backend='torch' cannot run here: {torch_refuses}")
    return "reference" if torch_refuses else "torch"


def open_sizes(x: Tensor) -> str | None:
    """Why a path that is chosen or cut by sizes cannot run, or None if it can.

    `torch.export` traces a network for all sizes at once, with symbols in the place of numbers.
    """
    if any(isinstance(side, torch.SymInt) for side in x.shape):
        return "sizes are left open, as in an export; the definition alone is the same for all"
    return None


class BackendUnavailable(RuntimeError):
    """The path that the caller named cannot run this call."""
