"""Choosing which implementation of an op runs. The only place that decides."""

from __future__ import annotations

from typing import Literal, get_args

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


class BackendUnavailable(RuntimeError):
    """The path that the caller named cannot run this call."""
