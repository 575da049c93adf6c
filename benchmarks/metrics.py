"""PSNR and SSIM against BasicSR's: how long they take, and how far apart they are.

    python -m benchmarks.metrics --gt FOLDER      # writes benchmarks/results/metrics.json

FOLDER holds photographs, as of Urban100; each is compared with itself made 4 times smaller and as
large again. Numbers are seconds of the processor, one thread. Both programs measure each picture in
turn, several times over; a picture's time is the median, and the ratio is that of the two medians.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe
from restore import imresize, psnr, ssim
from restore.datasets.listing import folder_entries
from restore.image_io import read_picture
from restore.metrics import mod_crop, similarity
from restore.torchvision_remedies import declare_torchvision_operators, supply_functional_tensor

SCALE = 4
RESULTS = Path(__file__).parent / "results" / "metrics.json"
Image = NDArray[np.uint8]


def main() -> None:
    """Measure, print and write the results file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.metrics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gt", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--pictures", type=int, default=10, help="how many of them (default 10)")
    parser.add_argument("--rounds", type=int, default=5, help="of each picture (default 5)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = [
        compare(entry.path, options.rounds)
        for entry in folder_entries(options.gt)[: options.pictures]
    ]
    results: dict[str, Any] = {
        "machine": describe(),
        "basicsr": version("basicsr"),
        "opencv": cv2.__version__,
        "threads": 1,
        "rounds": options.rounds,
        "crop_border": SCALE,
        "channel": "Y",
        "median_ratio": {
            name: statistics.median(row[name]["ratio"] for row in rows) for name in programs()
        },
        "largest_difference": {
            name: max(row[name]["difference"] for row in rows) for name in programs()
        },
        "pictures": rows,
    }
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for name, ratio in results["median_ratio"].items():
        apart = results["largest_difference"][name]
        print(f"{name:<28} {ratio:5.1f} times as fast, at most {apart:.1e} apart")


def programs() -> dict[str, tuple[Callable[[Image, Image], float], str]]:
    """What is compared: our function, and BasicSR's name of its own."""

    def of(metric: Callable[..., float]) -> Callable[[Image, Image], float]:
        return lambda a, b: metric(a, b, crop_border=SCALE, y_channel=True)

    def without_kernel(a: Image, b: Image) -> float:
        kernel = similarity._native_sums
        similarity._native_sums = lambda _: None
        try:
            return of(ssim)(a, b)
        finally:
            similarity._native_sums = kernel

    return {
        "psnr": (of(psnr), "calculate_psnr"),
        "ssim": (of(ssim), "calculate_ssim"),
        "ssim, no native kernel": (without_kernel, "calculate_ssim"),
    }


def compare(path: Path, rounds: int) -> dict[str, Any]:
    """Times, values and differences of one picture."""
    truth = mod_crop(read_picture(path).pixels, SCALE)
    result = imresize(imresize(truth, 1 / SCALE), SCALE)
    bgr = [np.ascontiguousarray(x[:, :, ::-1]) for x in (result, truth)]
    found: dict[str, Any] = {"picture": path.name, "shape": list(truth.shape)}
    for name, (own, other) in programs().items():
        function = getattr(basicsr(), other)
        taken: list[list[float]] = [[], []]
        values = [0.0, 0.0]
        calls = [
            lambda own=own: own(result, truth),
            lambda function=function: function(*bgr, SCALE, test_y_channel=True),
        ]
        for _ in range(rounds):
            for i, call in enumerate(calls):
                began = time.process_time()
                values[i] = float(call())
                taken[i].append(time.process_time() - began)
        ours, theirs = (statistics.median(times) for times in taken)
        found[name] = {
            "seconds": ours,
            "basicsr_seconds": theirs,
            "ratio": theirs / ours,
            "value": values[0],
            "difference": abs(values[0] - values[1]),
        }
    return found


def basicsr() -> Any:
    """BasicSR's module of PSNR and SSIM, which warns of much when it is imported."""
    declare_torchvision_operators()
    supply_functional_tensor()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("basicsr.metrics.psnr_ssim")


if __name__ == "__main__":
    main()
