"""Measuring cases: a process for each contender, all in turn."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cpu.cases import Case
from benchmarks.cpu.contenders import BF16, RATES, usual
from benchmarks.cpu.worker import CHECK, Task
from benchmarks.gpu.cases import Network
from benchmarks.gpu.checks import OURS_MAY, PEERS_MAY
from benchmarks.gpu.results import ROOT, Results
from benchmarks.gpu.timing import Clock, interleaved, summary
from restore.costs import parameters_and_multiply_adds

LEAST_ROUNDS = 3
PRECISION = {True: "autocast-bf16", False: "fp32"}  # that a contender is checked in
PEERS = ("eager", "spandrel")
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How cases are measured.

    Attributes:
        contenders: names of `contenders.ALL`; None for the usual ones of each size.
        rounds: of a contender, at most.
        seconds: that a contender's rounds in a case may take, but for the least number.
        limit: seconds that one contender may take to be ready, or to answer.
        rehearsal: whether networks and sizes are the small ones.
        kept: folder for what takes long to make.
    """

    contenders: tuple[str, ...] | None
    rounds: int
    seconds: float
    limit: float
    rehearsal: bool
    kept: Path


class Worker:
    """A process that prepares a contender and times it on demand; see `benchmarks.cpu.worker`."""

    def __init__(self, task: Task, limit: float) -> None:
        self.limit = limit
        threads = str(task.threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cpu.worker", json.dumps(asdict(task))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                "OMP_WAIT_POLICY": "passive",  # threads that wait for their turn leave the cores
            },
        )
        answer = self._answer()
        self.row: Row = answer.get("row", answer)

    def seconds(self, name: str = "") -> float:
        """Of one call.

        Raises:
            RuntimeError: it failed, or took too long.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(name + "\n")
            self._process.stdin.flush()
        answer = self._answer()
        if "seconds" not in answer:
            raise RuntimeError(answer["failed"])
        return float(answer["seconds"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(self.limit, stop)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        if late.is_set():
            return {"failed": f"passed {self.limit:g} s"}
        return {"failed": f"its process ended with status {self._process.wait()}"}


class TheirClock(Clock):
    """Calls that say themselves how long they took."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))

    def seconds(self, call: Callable[[], object], calls: int = 1) -> float:
        """The mean of what the calls say."""
        return statistics.fmean(float(str(call())) for _ in range(calls))

    def calls_for(self, call: Callable[[], object]) -> int:
        """One: processes have warmed up."""
        return 1


class Bench:
    """Checks and measurements, kept in the results."""

    def __init__(self, settings: Settings, results: Results) -> None:
        self.settings, self.results = settings, results

    def known_check(self, network: Network, precision: str) -> Row | None:
        """What an earlier run found, or None."""
        return self.results.get("networks", f"{network.name}/{precision}")

    def check(self, network: Network, precision: str) -> Row:
        """Whether a network is right in a precision, measured or remembered."""
        known = self.known_check(network, precision)
        if known is not None:
            return known
        with self._worker(Case(network, 0, 1), CHECK + precision) as worker:
            row = worker.row
        entry = row if "passed" in row else {"passed": False, "peers": {}, **row}
        return self.results.put("networks", f"{network.name}/{precision}", entry)

    def is_measured(self, case: Case) -> bool:
        """Whether the results have the case with all contenders that are wanted."""
        entry = self.results.get("cases", case.key)
        return entry is not None and set(self.names(case)) <= entry["contenders"].keys()

    def measure(self, case: Case) -> Row:
        """Time a case; contenders of an earlier run are measured again, beside the others."""
        precisions = dict.fromkeys(PRECISION[name in BF16] for name in self.names(case))
        checks = {name: self.check(case.network, name) for name in precisions}
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            rows, workers = self._ready(case, checks, Path(folder), stack)
            rates = stack.enter_context(self._worker(case, RATES))
            calls: dict[str, Callable[[], object]] = {n: w.seconds for n, w in workers.items()}
            for rate in rates.row.get("operations", ()):
                calls[f"{RATES} {rate}"] = functools.partial(rates.seconds, rate)
            times, errors = self._timed(calls, {n: rows[n]["first_s"] for n in workers})
        for name in workers:
            rows[name].update(summary(times[name]) if name in times else {"failed": errors[name]})
        reached = {
            name: count / statistics.median(times[f"{RATES} {name}"]) / 1e9
            for name, count in rates.row.get("operations", {}).items()
            if f"{RATES} {name}" in times
        }
        entry = {"contenders": rows, **self._floor(case, reached)}
        return self.results.put("cases", case.key, entry)

    def names(self, case: Case) -> tuple[str, ...]:
        """The contenders of a case."""
        if case.curve:
            return ("restore",)
        return self.settings.contenders or usual(case.side)

    def _ready(
        self, case: Case, checks: Mapping[str, Row], folder: Path, stack: contextlib.ExitStack
    ) -> tuple[dict[str, Row], dict[str, Worker]]:
        """A row for each contender, and the processes of those that may be timed."""
        rows: dict[str, Row] = {}
        workers: dict[str, Worker] = {}
        outputs: dict[str, Path] = {}
        for name in self.names(case):
            entry = checks[PRECISION[name in BF16]]
            refusal = refused(name, entry)
            if refusal is not None:
                rows[name] = {"refused": refusal}
                continue
            output = folder / f"{name}.npy"
            worker = stack.enter_context(self._worker(case, name, str(output)))
            rows[name] = worker.row
            if "memory" not in worker.row:
                continue
            outputs[name] = output
            first = next(iter(outputs))
            rows[name].update(compared(name, output, entry, first, outputs[first]))
            if "refused" in rows[name]:
                worker.close()
            else:
                workers[name] = worker
        return rows, workers

    def _timed(
        self, calls: Mapping[str, Callable[[], object]], once: Mapping[str, float]
    ) -> tuple[dict[str, list[float]], dict[str, str]]:
        """Seconds of every round, all in turn, until the slower ones have had theirs."""
        rounds = {name: self._rounds(seconds) for name, seconds in once.items()}
        longest = max(rounds.values(), default=LEAST_ROUNDS)
        times: dict[str, list[float]] = {}
        errors: dict[str, str] = {}
        done = 0
        for count in sorted({*rounds.values(), longest}):
            left = {
                name: call
                for name, call in calls.items()
                if name not in errors and rounds.get(name, longest) >= count
            }
            more, failed = interleaved(left, count - done, TheirClock())
            for name, seconds in more.items():
                times.setdefault(name, []).extend(seconds)
            for name in failed:
                times.pop(name, None)
            errors.update(failed)
            done = count
        return times, errors

    def _rounds(self, once: float) -> int:
        """Of a contender that takes so many seconds."""
        fitting = int(self.settings.seconds / max(once, 1e-3))
        return min(max(fitting, LEAST_ROUNDS), self.settings.rounds)

    def _floor(self, case: Case, reached: Mapping[str, float]) -> Row:
        """What the operations take at the best rate that was reached in between."""
        spec, config = case.network.build_settings(self.settings.rehearsal)
        _, multiply_adds = parameters_and_multiply_adds(spec, config, case.side)
        operations = 2 * multiply_adds * case.side**2
        best: dict[str, float] = {}
        for name, rate in reached.items():
            precision = name.split()[0]
            best[precision] = max(rate, best.get(precision, 0.0))
        return {
            "gflop": round(operations / 1e9, 3),
            "rates_gflops": {name: round(rate, 1) for name, rate in reached.items()},
            "floor_ms": {
                name: round(operations / rate / 1e6, 3) for name, rate in best.items() if rate
            },
        }

    @contextlib.contextmanager
    def _worker(self, case: Case, contender: str, output: str = "") -> Iterator[Worker]:
        settings = self.settings
        kept = settings.kept / f"{case.network.name}{'-tiny' * settings.rehearsal}"
        task = Task(
            case.network.name, contender, case.side, case.threads, settings.rehearsal, output,
            str(kept),
        )  # fmt: skip
        worker = Worker(task, settings.limit)
        try:
            yield worker
        finally:
            worker.close()


def refused(name: str, entry: Row) -> str | None:
    """Why a contender must not be timed, by the checks of its network, or None."""
    judged = entry["peers"].get(name, {}) if name in PEERS else entry
    if name.startswith("openvino") or "missing" in judged or judged.get("passed"):
        return None  # what is missing says so when it is made
    if "failed" in judged:
        return str(judged["failed"])
    return f"off by {judged['error']:.2e} (at most {judged['limit']:.2e})" if judged else None


def compared(name: str, output: Path, entry: Row, first: str, other: Path) -> Row:
    """What the comparison with the first contender adds to a row.

    The authors' arithmetic may be off by several times what stock operations are: `PEERS_MAY`.
    """
    y, truth = np.load(output), np.load(other)
    if not np.isfinite(y).all():
        return {"refused": "what it gives is not finite"}
    if name == first:
        return {}
    difference = float(np.linalg.norm(y - truth) / np.linalg.norm(truth))
    limit = (OURS_MAY + PEERS_MAY) * float(entry["relative"]["inference"])
    row: Row = {"difference": difference}
    if not difference <= limit:
        row["refused"] = f"differs from {first} by {difference:.2e} (at most {limit:.2e})"
    return row
