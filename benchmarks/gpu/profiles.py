"""Where the time of a call goes, kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.timing import Clock

CALLS = 3
MOST_KERNELS = 15


def profiled(call: Callable[[], object], clock: Clock) -> dict[str, Any]:
    """The kernels of one call that take longest, and for which part of it the device is busy."""
    seconds = clock.seconds(call, CALLS)
    activity = ProfilerActivity.CUDA if clock.on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as found:
        for _ in range(CALLS):
            call()
        clock.synchronize()
    times = []
    for event in found.key_averages():
        own = event.self_device_time_total if clock.on_gpu else event.self_cpu_time_total
        if own > 0:
            times.append((own / 1e3 / CALLS, event.count // CALLS, event.key))
    times.sort(reverse=True)
    total = sum(ms for ms, _, _ in times)
    return {
        "busy": round(min(total / (1e3 * seconds), 1.0), 4) if seconds else 0.0,
        "total_ms": round(total, 4),
        "kernels": [
            {"name": name, "calls": count, "ms": round(ms, 4), "share": round(ms / total, 4)}
            for ms, count, name in times[:MOST_KERNELS]
        ],
    }
