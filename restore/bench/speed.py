"""Models timed against each other on this machine: in turn, so that a drifting clock touches all.

Each round times every model once, each on its own input of the same size; medians and quartiles are
over the rounds, after one call of each that is not counted.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from restore.atomic import atomic_output, writing
from restore.bench.cache import versions
from restore.bench.memory_use import PeakMemory
from restore.bench.runs import Contender
from restore.bench.tables import aligned
from restore.errors import RestoreError
from restore.upscaling.network import is_out_of_memory

SPEEDS = "speed.json"


@dataclass(frozen=True)
class Timing:
    """One model on inputs of one size.

    Attributes:
        model: its name.
        height, width: of the input.
        scale: pixels of the result for each of the input, along each axis.
        seconds: of each round, in their order; empty where there was no memory for it.
        peak: bytes that a call took beyond the loaded model; None: not known here.
        parameters: how many.
    """

    model: str
    height: int
    width: int
    scale: int
    seconds: tuple[float, ...]
    peak: int | None
    parameters: int

    @property
    def median(self) -> float:
        """Of the rounds, in seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper one, in seconds."""
        if len(self.seconds) < 2:
            return self.median, self.median
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return first, third


def timed(
    contenders: Sequence[Contender],
    sizes: Sequence[tuple[int, int]],
    rounds: int,
    told: Callable[[], None],
) -> list[Timing]:
    """Time every model on random inputs of every size.

    Args:
        contenders: the models.
        sizes: rows and columns of inputs.
        rounds: how often each is timed.
        told: called after each round.
    """
    found = []
    for height, width in sizes:
        peaks = [_peak(each, height, width) for each in contenders]
        seconds: list[list[float]] = [[] for _ in contenders]
        for _ in range(rounds):
            for each, (fits, _), times in zip(contenders, peaks, seconds, strict=True):
                if fits:
                    times.append(_seconds(each, height, width))
            told()
        for each, (_, peak), times in zip(contenders, peaks, seconds, strict=True):
            facts = each.facts
            found.append(
                Timing(facts.name, height, width, facts.scale, tuple(times), peak, facts.parameters)
            )
    return found


def _peak(each: Contender, height: int, width: int) -> tuple[bool, int | None]:
    """The call that is not counted: whether there is memory for it, and how much it took."""
    try:
        with PeakMemory(each.model.device) as memory:
            _seconds(each, height, width)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RestoreError) or not is_out_of_memory(error):
            raise
        return False, None
    return True, memory.bytes


def _seconds(each: Contender, height: int, width: int) -> float:
    model = each.model
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, model.in_channels, height, width, generator=generator)
    x = x.to(model.device, next(model.module.parameters()).dtype)
    with torch.inference_mode():
        _wait(model.device)
        began = time.perf_counter()
        model(x)
        _wait(model.device)
        return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    """GPUs work on after a call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def speed_lines(timings: Sequence[Timing], contenders: Sequence[Contender]) -> list[str]:
    """A table, each size's models beside the first of them, and what they ran on."""
    cells = [
        (
            *("model", "input", "median ms", "quartiles", "of the first", "result Mpixel/s"),
            *("peak MiB", "parameters"),
        )
    ]
    for timing in timings:
        size = f"{timing.width} x {timing.height}"
        if not timing.seconds:
            dashes = ("-",) * 5
            cells.append((timing.model, size, "no memory", *dashes[:4], f"{timing.parameters:,}"))
            continue
        first = next(t for t in timings if (t.height, t.width) == (timing.height, timing.width))
        low, high = timing.quartiles
        pixels = timing.height * timing.width * timing.scale**2
        cells.append(
            (
                timing.model,
                size,
                f"{1e3 * timing.median:.1f}",
                f"{1e3 * low:.1f} to {1e3 * high:.1f}",
                f"{timing.median / first.median:.2f}" if first.seconds else "-",
                f"{pixels / timing.median / 1e6:.3f}",
                "-" if timing.peak is None else f"{timing.peak / 2**20:,.0f}",
                f"{timing.parameters:,}",
            )
        )
    facts = machine_facts(contenders)
    rounds = max((len(timing.seconds) for timing in timings), default=0)
    kinds = ", ".join(dict.fromkeys(f"{c.facts.dtype} on {c.facts.device}" for c in contenders))
    return [
        *aligned(cells),
        f"medians of {rounds} rounds, models in turn, one picture at a time; {kinds}; "
        f"{facts['threads']} threads; restore {facts['restore']}, PyTorch {facts['torch']}",
    ]


def machine_facts(contenders: Sequence[Contender]) -> dict[str, Any]:
    """What numbers were measured on."""
    return {
        **versions(),
        "threads": torch.get_num_threads(),
        "devices": list(dict.fromkeys(each.facts.device for each in contenders)),
    }


def write_speeds(folder: Path, timings: Sequence[Timing], contenders: Sequence[Contender]) -> Path:
    """Write speed.json into a folder; OutputError where it cannot be written."""
    path = folder / SPEEDS
    content = {
        "machine": machine_facts(contenders),
        "models": [dataclasses.asdict(each.facts) for each in contenders],
        "timings": [dataclasses.asdict(timing) for timing in timings],
    }
    with atomic_output(path) as file, writing(path):
        file.write((json.dumps(content, indent=1) + "\n").encode())
    return path
