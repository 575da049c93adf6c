"""Measuring one case after another, each only once its network has been found right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.cases import PRECISIONS, Case, Network, Precision
from benchmarks.gpu.checks import NetworkCheck
from benchmarks.gpu.contenders import Contender, Lineup
from benchmarks.gpu.floors import Rates, floors, shares, work_of
from benchmarks.gpu.profiles import profiled
from benchmarks.gpu.report import missed
from benchmarks.gpu.results import Results
from benchmarks.gpu.subjects import Subject, subject
from benchmarks.gpu.timing import Clock, DeviceLost, in_words, interleaved, summary, why_not

PEERS = {"eager", "spandrel"}
OURS = ("restore", "restore-graph", "restore-torch", "restore-compiled")


@dataclass(frozen=True)
class Settings:
    """How cases are measured.

    Attributes:
        device: where.
        contenders: by name, see `contenders.ALL`.
        rounds: counted rounds of all contenders.
        compile_limit: seconds that one compilation may take.
        rehearsal: whether networks and sizes are the small ones.
    """

    device: torch.device
    contenders: tuple[str, ...]
    rounds: int
    compile_limit: float
    rehearsal: bool


class Bench:
    """Checks and measurements, kept in the results."""

    def __init__(self, settings: Settings, results: Results) -> None:
        self.settings, self.results = settings, results
        self.clock = Clock(settings.device)
        self._peers = {"eager" if n == "compiled" else n for n in settings.contenders} & PEERS
        self._check: tuple[Network, NetworkCheck] | None = None
        self._subject: tuple[Network, Subject] | None = None

    def known_check(self, network: Network, precision: Precision) -> dict[str, Any] | None:
        """What an earlier run found, with all the peers that are wanted now; or None."""
        entry = self.results.get("networks", f"{network.name}/{precision.name}")
        whole = entry is not None and ("failed" in entry or self._peers <= entry["peers"].keys())
        return entry if whole else None

    def check(self, network: Network, precision: Precision) -> dict[str, Any]:
        """Whether a network is right in a precision, measured or remembered."""
        key = f"{network.name}/{precision.name}"
        known = self.known_check(network, precision)
        if known is not None:
            return known
        try:
            if self._check is None or self._check[0] is not network:
                self._check = None
                self.clock.free()
                settings = self.settings
                found = NetworkCheck(network, settings.device, settings.rehearsal)
                self._check = network, found
            entry = self._check[1].run(precision, self._peers)
        except Exception as error:
            entry = {"passed": False, "failed": in_words(error), "peers": {}}
            self.results.put("networks", key, entry)
            self.clock.free()
        return self.results.put("networks", key, entry)

    def is_measured(self, case: Case) -> bool:
        """Whether the results have all that was asked for of a case."""
        entry = self.results.get("cases", case.key)
        if entry is None:
            return False
        return "failed" in entry or set(self.settings.contenders) <= entry["contenders"].keys()

    def measure(self, case: Case) -> dict[str, Any]:
        """Time a case, or say why not.

        Raises:
            DeviceLost: nothing more can run in this process; the reason is in the results.
        """
        exact, here = (self.check(case.network, p) for p in (PRECISIONS["fp32"], case.precision))
        try:
            entry = self._measured(case, exact, here)
        except DeviceLost as error:
            self.results.put("cases", case.key, {"contenders": {}, "failed": in_words(error)})
            raise
        except Exception as error:
            entry = {"contenders": {}, "failed": in_words(error)}
        self.clock.free()
        return self.results.put("cases", case.key, entry)

    def _measured(self, case: Case, exact: dict[str, Any], here: dict[str, Any]) -> dict[str, Any]:
        settings = self.settings
        found = self._subject_of(case.network)
        lineup = Lineup(case, found, settings.device, settings.compile_limit)
        ready, rows = self._lined_up(lineup, _Agreement(case, exact, here))
        if "restore" not in ready:
            return {"contenders": rows}
        calls: dict[str, Callable[[], object]] = {name: c.call for name, c in ready.items()}
        times, errors = interleaved(calls, settings.rounds, self.clock)
        for name in ready:
            rows[name].update(summary(times[name]) if name in times else {"failed": errors[name]})
        entry: dict[str, Any] = {"contenders": rows}
        entry.update(self._floor(case, found, rows))
        if missed(case, entry):
            entry["profile"] = profiled(calls["restore"], self.clock)
        return entry

    def _floor(self, case: Case, found: Subject, rows: dict[str, Any]) -> dict[str, Any]:
        """The floor, and shares of it by each of ours."""
        rates = Rates(self.results.rates, self.settings.device, self.settings.rehearsal)
        try:
            floor = floors(work_of(found, case), case.precision.dtype, rates)
        except DeviceLost:
            raise
        except Exception as error:  # an operation alone can be too large where ours is not
            return {"no_floor": in_words(error)}
        times = {name: rows[name].get("median_ms") for name in OURS if name in rows}
        return {
            "floor": floor,
            "shares": {name: shares(floor, time) for name, time in times.items() if time},
        }

    def _subject_of(self, network: Network) -> Subject:
        if self._subject is None or self._subject[0] is not network:
            self._subject = network, subject(network, self.settings.rehearsal)
        return self._subject[1]

    def _lined_up(
        self, lineup: Lineup, agreement: _Agreement
    ) -> tuple[dict[str, Contender], dict[str, dict[str, Any]]]:
        """The contenders that may be timed, and a row for each."""
        ready: dict[str, Contender] = {}
        rows: dict[str, dict[str, Any]] = {}
        for name in self.settings.contenders:
            refusal = agreement.refuses(name)
            if refusal is None:
                try:
                    contender = lineup.make(name)
                    contender.row.update(agreement.compared(name, lineup.compared(contender)))
                    rows[name] = contender.row
                    if "refused" not in contender.row:
                        ready[name] = contender
                    del contender
                except DeviceLost:
                    raise
                except Exception as error:
                    rows[name] = why_not(error)
            else:
                rows[name] = {"refused": refusal}
            # not among the handlers: there the failed call's tensors are still held
            self.clock.free()
            if name == "restore" and not ready:
                break
        return ready, rows


class _Agreement:
    """Whether contenders were found right, and agree at the size that is timed.

    Two that are each off by some part of the truth can differ by the sum of both; twice that is
    allowed, as at the small size where the errors were measured.
    """

    def __init__(self, case: Case, exact: dict[str, Any], here: dict[str, Any]) -> None:
        self.case, self.exact, self.here = case, exact, here
        self.first: tuple[str, Tensor] | None = None

    def refuses(self, name: str) -> str | None:
        """Why a contender must not be timed, by the checks of its network, or None."""
        for where, entry in (("fp32", self.exact), (self.case.precision.name, self.here)):
            judged = self._entry(entry, name)
            if "missing" in judged or judged.get("passed"):
                continue  # what is missing says so when it is made
            if "failed" in judged:
                return f"in {where}: {judged['failed']}"
            if judged:
                return (
                    f"in {where} it is off by {judged['error']:.2e} (at most {judged['limit']:.2e})"
                )
        return None

    def compared(self, name: str, y: Tensor | None) -> dict[str, Any]:
        """What the comparison with the first contender adds to a row."""
        if y is None:
            return {}
        if not bool(torch.isfinite(y).all()):
            return {"refused": "what it gives is not finite"}
        if self.first is None:
            self.first = name, y
            return {}
        other, truth = self.first
        difference = ((y - truth).float().norm() / truth.float().norm()).item()
        limit = 2 * (self._relative(name) + self._relative(other))
        row: dict[str, Any] = {"difference": difference}
        if not difference <= limit:
            row["refused"] = f"differs from {other} by {difference:.2e} (at most {limit:.2e})"
        return row

    def _relative(self, name: str) -> float:
        return float(self._entry(self.here, name)["relative"][self.case.kind])

    def _entry(self, entry: dict[str, Any], name: str) -> dict[str, Any]:
        """The check of a contender; a compiled one is off as what it was compiled from."""
        if name in OURS:
            return entry
        found: dict[str, Any] = entry["peers"].get("eager" if name == "compiled" else name, {})
        return found
