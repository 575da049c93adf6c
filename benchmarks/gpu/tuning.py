"""Finding launch configurations of kernels for this GPU: `python -m benchmarks.gpu --tune`.

A network runs once to see which configurations its kernels ask for; each is then changed one number
at a time, and what makes the kernels of a whole call faster is kept for later runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu.profiles import profiled
from benchmarks.gpu.timing import Clock
from restore.kernels import tuning
from restore.kernels.tuning import Launch

GAIN = 0.99  # of the time before, at which a change is kept: less is noise
TWICE_OR_HALF = {"block_m": (16, 256), "block_n": (16, 256), "warps": (1, 16), "waves": (1, 64)}
ONE_MORE_OR_LESS = {"stages": (1, 5)}
Key = tuple[str, str]  # op, and what else the choice depends on


@dataclass
class Asked:
    """Configurations that kernels asked for, and those that they are given."""

    defaults: dict[Key, Launch] = field(default_factory=dict)
    samples: dict[Key, Tensor] = field(default_factory=dict)
    given: dict[Key, Launch] = field(default_factory=dict)

    def best(self, op: str, key: str, x: Tensor, default: Launch) -> Launch:
        """Stands in for `tuning.best`."""
        self.defaults.setdefault((op, key), tuning.best(op, key, x, default))
        self.samples.setdefault((op, key), x.new_empty(0))
        return self.given.get((op, key), self.defaults[op, key])

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Let every kernel ask here."""
        with contextlib.ExitStack() as stack:
            for name, module in list(sys.modules.items()):
                kernels = name.startswith("restore.kernels.") and module is not tuning
                if kernels and getattr(module, "best", None) is tuning.best:
                    stack.enter_context(mock.patch.object(module, "best", self.best))
            yield


def neighbours(launch: Launch) -> Iterator[Launch]:
    """The configurations that differ in one number."""
    for name, (least, most) in TWICE_OR_HALF.items():
        value = getattr(launch, name)
        for other in (value * 2, value // 2):
            if least <= other <= most:
                yield dataclasses.replace(launch, **{name: other})
    for name, (least, most) in ONE_MORE_OR_LESS.items():
        for other in (getattr(launch, name) + 1, getattr(launch, name) - 1):
            if least <= other <= most:
                yield dataclasses.replace(launch, **{name: other})


def tune(
    call: Callable[[], Tensor],
    device: torch.device,
    say: Callable[[str], None],
    time_is_up: Callable[[], bool],
    tried: set[Key],
) -> dict[Key, Launch]:
    """Try configurations of all kernels that `call` runs, and keep what is faster.

    Args:
        call: a network's call or step; what it gives must not change.
        device: that it runs on.
        say: takes lines on progress.
        time_is_up: whether to stop here.
        tried: what earlier calls have been through, and is left out; grows.

    Returns:
        What was kept.
    """
    clock, asked = Clock(device), Asked()
    kept: dict[Key, Launch] = {}
    with asked.listening():
        call()
    # modules of kernels are imported by their first call, so those listen only now
    with asked.listening():
        call()
        for key, default in list(asked.defaults.items()):
            if key in tried:
                continue
            fastest = default
            time = _kernel_time(call, clock)
            if time is None:
                return kept
            for launch in neighbours(default):
                if time_is_up():
                    return kept
                asked.given[key] = launch
                other = _kernel_time(call, clock)
                if other is not None and other < GAIN * time:
                    fastest, time = launch, other
            asked.given[key] = fastest
            tried.add(key)
            if fastest != default:
                tuning.keep(*key, asked.samples[key], fastest)
                kept[key] = fastest
                say(f"{key[0]}, {key[1]}: {fastest}")
    return kept


def _kernel_time(call: Callable[[], Tensor], clock: Clock) -> float | None:
    """Milliseconds of all kernels of a call; None where it cannot run or gives no numbers."""
    try:
        if not bool(torch.isfinite(call()).all()):
            return None
        return min(float(profiled(call, clock)["total_ms"]) for _ in range(2))
    except Exception:  # too much shared memory, or a shape that the kernel does not take
        clock.free()
        return None
