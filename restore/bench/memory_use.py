"""The most memory that a piece of work takes beyond what was held before it."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from types import TracebackType

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): the peak begins anew at what is resident now


class PeakMemory:
    """A context that knows at its end how many bytes were taken at most.

    On CUDA what PyTorch allocated; on a CPU what was resident, which only Linux tells.

    Attributes:
        bytes: None where it cannot be known.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: int | None = None
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        elif self._device.type == "cpu":
            self._before = _begun()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._before is None:
            return
        cuda = self._device.type == "cuda"
        most = torch.cuda.max_memory_allocated(self._device) if cuda else _resident("VmHWM")
        self.bytes = None if most is None else max(0, most - self._before)


def _begun() -> int | None:
    """Let the peak begin anew; the bytes that are resident, or None where that cannot be done."""
    gc.collect()
    # what the allocator keeps of earlier work would be used again and not be seen
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _STATUS.exists() else None
    if trim is not None:
        trim(0)
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return None
    return _resident("VmRSS")


def _resident(name: str) -> int | None:
    """A number of /proc/self/status, in bytes."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
