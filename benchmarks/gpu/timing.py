"""Clocks, memory and time limits."""

from __future__ import annotations

import contextlib
import gc
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from types import FrameType

import torch

LEAST_SECONDS = 0.05  # of one measurement: calls are repeated up to it
MOST_CALLS = 50


class DeviceLost(RuntimeError):
    """After an error on the GPU nothing more can run in this process."""


class TimeLimit(BaseException):
    """A time limit has passed. No Exception, so that no library takes it for a failure of its own
    and goes on."""


class Clock:
    """Times calls on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on_gpu = device.type == "cuda"

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object], calls: int = 1) -> float:
        """Of one call, the mean of several that follow one another."""
        self.synchronize()
        if self.on_gpu:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(calls):
                call()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1e3 / calls
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - began) / calls

    def calls_for(self, call: Callable[[], object]) -> int:
        """How many calls make one measurement."""
        once = self.seconds(call)
        return max(1, min(MOST_CALLS, math.ceil(LEAST_SECONDS / max(once, 1e-6))))

    def peak(self, call: Callable[[], object]) -> int | None:
        """Bytes that a call takes at most beside what was taken before it; None if not known."""
        if not self.on_gpu:
            return None
        self.synchronize()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        self.synchronize()
        return torch.cuda.max_memory_allocated(self.device) - before

    def reserved(self) -> int:
        """Bytes that this process holds of the GPU, without those it could give back."""
        if not self.on_gpu:
            return 0
        self.free()
        return torch.cuda.memory_reserved(self.device)

    def free(self) -> None:
        """Give back what nothing uses.

        Raises:
            DeviceLost: an earlier error has left the GPU unusable.
        """
        if self.on_gpu:
            gc.collect()
            try:
                torch.cuda.synchronize(self.device)
                torch.cuda.empty_cache()
            except RuntimeError as error:
                raise DeviceLost(str(error).splitlines()[0]) from error


def interleaved(
    calls: dict[str, Callable[[], object]], rounds: int, clock: Clock
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of each in `rounds` rounds, in turn a b c a b c ..., and what failed on the way."""
    times: dict[str, list[float]] = {}
    errors: dict[str, str] = {}
    repeats: dict[str, int] = {}
    for round_ in range(rounds + 1):
        for name, call in calls.items():
            if name in errors:
                continue
            try:
                if not round_:  # warms up
                    repeats[name] = clock.calls_for(call)
                    continue
                times.setdefault(name, []).append(clock.seconds(call, repeats[name]))
            except Exception as error:
                errors[name] = in_words(error)
                times.pop(name, None)
                clock.free()
    return times, errors


def summary(seconds: list[float]) -> dict[str, object]:
    """Median and quartiles, in milliseconds."""
    quartiles = statistics.quantiles(seconds, n=4)[::2] if len(seconds) > 1 else seconds * 2
    return {
        "median_ms": round(1e3 * statistics.median(seconds), 4),
        "quartiles_ms": [round(1e3 * q, 4) for q in quartiles],
        "rounds": len(seconds),
    }


def in_words(error: BaseException) -> str:
    """The kind of an error and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def why_not(error: Exception) -> dict[str, str]:
    """What to note of something that could not be made."""
    if type(error) is LookupError:
        return {"missing": str(error)}
    return {"missing" if isinstance(error, ImportError) else "failed": in_words(error)}


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimit inside after so many seconds; no limit where the system has no alarm."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeLimit(f"passed {seconds:g} s")

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:  # somebody else's alarm
            signal.setitimer(
                signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-3), interval
            )
