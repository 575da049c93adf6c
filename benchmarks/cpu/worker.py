"""One contender in a process of its own, timed when its parent says so.

    python -m benchmarks.cpu.worker '{"network": "SwinIR-S", ...}'

A line is written when it is ready, with what it took of memory, and another for every line that is
read, which names a call. Everything else that would be printed goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cpu.cases import NETWORKS
from benchmarks.cpu.contenders import HINTS, RATES, make, rates
from benchmarks.gpu.cases import PRECISIONS
from benchmarks.gpu.checks import NetworkCheck
from benchmarks.gpu.subjects import SEED, subject
from benchmarks.gpu.timing import in_words, why_not
from benchmarks.memory import peak_above
from restore.archs._blocks import round_up

CHECK = "check "  # and the name of a precision
SMALL = 16  # pixels of the first picture, or more: ATD's authors mirror no less than half a window


@dataclass(frozen=True)
class Task:
    """What a process is for.

    Attributes:
        network: key of `cases.NETWORKS`.
        contender: a name of `contenders.ALL`, `RATES`, or `CHECK` and a precision.
        side: of the picture, in pixels.
        threads: to compute with.
        rehearsal: whether the network is the small one.
        output: file for what the picture becomes; none if empty.
        kept: see `contenders.make`.
    """

    network: str
    contender: str
    side: int
    threads: int
    rehearsal: bool
    output: str
    kept: str


Calls = dict[str, Callable[[], object]]


def prepared(task: Task) -> tuple[Calls, dict[str, Any]]:
    """What can be timed by name, and what is known of it."""
    network = NETWORKS[task.network]
    if task.contender == RATES:
        found = rates(task.rehearsal)
        return {name: torch.inference_mode()(call) for name, (call, _) in found.items()}, {
            "operations": {name: count for name, (_, count) in found.items()}
        }
    if task.contender.startswith(CHECK):
        check = NetworkCheck(network, torch.device("cpu"), task.rehearsal, gradients=False)
        precision = PRECISIONS[task.contender.removeprefix(CHECK)]
        return {}, check.run(precision, ("eager", "spandrel"))
    ours = subject(network, task.rehearsal)
    run = torch.inference_mode()(
        make(task.contender, ours, task.side, task.threads, Path(task.kept))
    )
    generator = torch.Generator().manual_seed(SEED)
    x = ours.image(generator, 1, task.side)
    rule = ours.spec.input_rule(ours.config)
    if task.contender not in HINTS:
        # libraries take their own memory at the first call, and weights are packed
        run(ours.image(generator, 1, round_up(max(rule.minimum, SMALL), rule.multiple)))
    made: list[torch.Tensor] = []
    began = time.perf_counter()
    memory = peak_above(lambda: made.append(run(x)))
    first = time.perf_counter() - began
    if task.output:
        np.save(task.output, made.pop().float().numpy())
    return {"": lambda: run(x)}, {"memory": memory, "first_s": first}


def main() -> None:
    """Prepare, then answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.threads)
    try:
        calls, row = prepared(task)
    except Exception as error:
        say({"row": why_not(error)})
        return
    say({"row": row})
    for line in sys.stdin:
        call = calls[line.rstrip("\n")]
        began = time.perf_counter()
        try:
            call()
        except Exception as error:
            say({"failed": in_words(error)})
            return
        say({"seconds": time.perf_counter() - began})


if __name__ == "__main__":
    main()
