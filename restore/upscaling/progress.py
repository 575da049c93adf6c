"""What a run tells while it goes, and what it says of itself afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Progress:
    """A step of a run: `done` of `total` tiles, and a sentence where something happened."""

    done: int
    total: int  # may change on the way, when tiles become smaller
    message: str | None = None


ProgressCallback = Callable[[Progress], None]


@dataclass
class RunReport:
    """How a picture was computed; filled in during the run."""

    tile: int = 0  # longest core in input pixels at the end of the run; 0: whole picture
    tile_pad: int = 0  # halo in input pixels
    tiles: int = 0  # computed, those whose row had to be begun again included
    halvings: int = 0  # how often memory ran out and tiles or batches became smaller
    fp32_reruns: int = 0  # tiles computed again in float32
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)  # sentences for the user, in order


class Tracker:
    """Counts tiles and passes on what happens, to a callback and a report."""

    def __init__(
        self, callback: ProgressCallback | None = None, report: RunReport | None = None
    ) -> None:
        self.report = RunReport() if report is None else report
        self._callback = callback
        self._total = 0
        self._began = time.perf_counter()

    def expect(self, tiles: int) -> None:
        """So many more tiles will come (fewer where negative)."""
        self._total += tiles
        self._tell(None)

    def finished(self, tiles: int) -> None:
        """So many tiles are done."""
        self.report.tiles += tiles
        self._tell(None)

    def stopped(self) -> None:
        """The result is complete."""
        self.report.seconds = time.perf_counter() - self._began

    def computed_again(self, tiles: int, dtype: torch.dtype) -> None:
        """Tiles were not finite in half precision and have been computed in float32."""
        first = self.report.fp32_reruns == 0
        self.report.fp32_reruns += tiles
        if first:
            name = str(dtype).removeprefix("torch.")
            self.note(f"{name} overflowed; tiles where it does are computed again in float32")

    def ran_out(self, message: str) -> None:
        """Memory ran out; the message says how the run goes on."""
        self.report.halvings += 1
        self.note(message)

    def note(self, message: str) -> None:
        """Something the user should know."""
        self.report.notes.append(message)
        self._tell(message)

    def _tell(self, message: str | None) -> None:
        if self._callback is not None:
            self._callback(Progress(self.report.tiles, self._total, message))
