"""How long `restore.imresize` takes, in milliseconds of one thread.

    python -m benchmarks.resizing       # prints, and writes benchmarks/results/resizing.json

Milliseconds are those of the processor, which depend little on what else a machine does: the median
of several calls on random 8-bit colour pictures, and the smallest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from restore import imresize

RESULTS = Path(__file__).parent / "results" / "resizing.json"
SCALES = {"1/2": 1 / 2, "1/3": 1 / 3, "1/4": 1 / 4, "2": 2.0}


def measure(side: int, repeats: int) -> list[dict[str, Any]]:
    """One row for each scale: shape, scale, milliseconds."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    times: dict[str, list[float]] = {name: [] for name in SCALES}
    # interleaved, so that a slow moment of the machine meets all of them
    for _ in range(repeats):
        for name, scale in SCALES.items():
            began = time.process_time()
            imresize(picture, scale)
            times[name].append(1000 * (time.process_time() - began))
    return [
        {
            "shape": list(picture.shape),
            "scale": name,
            "median_ms": round(statistics.median(each), 2),
            "smallest_ms": round(min(each), 2),
        }
        for name, each in times.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=1000, help="pixels (default: 1000)")
    parser.add_argument("--repeats", type=int, default=15, help="calls of each (default: 15)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    rows = measure(options.side, options.repeats)
    for row in rows:
        print(f"{row['shape']} x {row['scale']:<4} {row['median_ms']:7.2f} ms")
    content = {"machine": describe(), "threads": 1, "repeats": options.repeats, "rows": rows}
    options.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
