"""What a training batch costs to read, by where the pictures lie.

    python -m benchmarks.loader --gt FOLDER              # writes benchmarks/results/loader.json
    python -m benchmarks.loader --gt FOLDER --rate 900   # and the cores that 900 images/s need
    python -m benchmarks.loader                          # the results file again

FOLDER holds photographs. Each is stored as PNG, array and in data bases, with its low-quality side,
in a temporary folder. Numbers are seconds of the processor (one process, one thread) for one patch,
medians over rounds that go through all cases in turn: they depend little on what else a machine
does. So a case reads 1 / seconds patches a second for each core that it is given.

Beside them stand steps of a large GPU, which are computed, not measured: an image costs three times
the operations of its forward pass (forward and backward), done at a share of the H200's peak in
bf16 that is assumed. Networks like these reach less, so a real step asks less of the loader.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.machine import describe
from restore import imresize
from restore.costs import parameters_and_multiply_adds
from restore.datasets.listing import Pair, folder_entries, paired_databases, paired_folders
from restore.datasets.lmdb_store import write_database
from restore.datasets.loader import LoaderSettings, TrainingLoader
from restore.datasets.paired import PairedPatches
from restore.datasets.patches import PatchSet
from restore.datasets.sampler import FixedStage
from restore.datasets.single import Degradation, SyntheticPatches
from restore.image_io import Picture, read_picture, write_picture
from restore.training.networks import described
from restore.training.options import read_options

SCALE, GT_SIZE, BATCH = 4, 256, 16
ROOM = 2**31  # bytes, for cases with a cache
RESULTS = Path(__file__).parent / "results" / "loader.json"
OPTIONS = Path(__file__).parents[1] / "options" / "train"
PEAK = 989e12  # operations/s of an H200 in bf16, dense, as its data sheet has it
SHARE = 0.4  # of it, assumed
STEPS = ("swinir_light_x4", "swinir_classical_x4")  # options/train; patches of GT_SIZE and SCALE


@dataclass(frozen=True)
class Case:
    """One way to read.

    Attributes:
        name: for the table.
        build: makes the set.
        warm: go through all pictures before the first round.
        gt_size: side of the patches.
    """

    name: str
    build: Callable[[], PatchSet]
    warm: bool = False
    gt_size: int = GT_SIZE


def main() -> None:
    """Measure, print and write the results file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loader",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gt", type=Path, help="folder of photographs (default: do not measure)")
    parser.add_argument("--pictures", type=int, default=24, help="how many of them (default 24)")
    parser.add_argument("--rounds", type=int, default=5, help="of all cases (default 5)")
    parser.add_argument("--batches", type=int, default=3, help="of a case in a round (default 3)")
    parser.add_argument("--rate", type=float, help="images/s of a training step to keep up with")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.gt is not None:
        results = measured(options.gt, options.pictures, options.rounds, options.batches)
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    results = json.loads(options.out.read_text(encoding="utf-8"))
    rates = {f"{name}, computed": images_per_second(name) for name in STEPS}
    if options.rate:
        rates["--rate"] = options.rate
    for line in told(results, rates):
        print(line)


def measured(source: Path, pictures: int, rounds: int, batches: int) -> dict[str, Any]:
    """What the results file holds."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        pixels, decode = prepare(source, Path(folder), pictures)
        seconds = measure(cases(Path(folder)), rounds, batches)
    return {
        "machine": describe(),
        "pictures": {"count": pictures, "mean_pixels": pixels},
        "patch": {"gt_size": GT_SIZE, "scale": SCALE, "batch": BATCH},
        "rounds": rounds,
        "decoding_one_gt_seconds": decode,
        "seconds_per_patch": seconds,
    }


def told(results: dict[str, Any], rates: dict[str, float]) -> list[str]:
    """The results in lines, with the cores that keep up with so many images/s of each name."""
    pixels, decode = results["pictures"]["mean_pixels"], results["decoding_one_gt_seconds"]
    lines = [
        f"decoding one gt of {pixels / 1e6:.2f} MP: {decode * 1e3:.1f} ms",
        "cores that keep up with steps; those computed are not measured, but "
        f"{SHARE:.0%} of {PEAK / 1e12:.0f} TFLOP/s (bf16), 3 times the forward pass:",
        *(f"  {name}: {wanted:,.0f} images/s" for name, wanted in rates.items()),
    ]
    for name, value in results["seconds_per_patch"].items():
        line = f"{name:<30} {value * 1e3:8.3f} ms  {1 / value:7.0f} images/s a core"
        if f"patches of {GT_SIZE // 2}" not in name:
            line += "".join(f"  {wanted * value:7.2f} cores" for wanted in rates.values())
        lines.append(line)
    return lines


def images_per_second(name: str) -> float:
    """Of the step of an option file's network at SHARE of PEAK."""
    path = OPTIONS / f"{name}.yml"
    options = read_options(path, is_train=True)
    spec, config = described(options.network_g)
    side = GT_SIZE // SCALE
    found = options.datasets["train"].gt_size, options.scale
    if found != (GT_SIZE, SCALE):
        raise ValueError(f"{path}: gt_size and scale are {found}; expected {(GT_SIZE, SCALE)}")
    _, multiply_adds = parameters_and_multiply_adds(spec, config, side)
    return SHARE * PEAK / (3 * 2 * multiply_adds * side**2)


def prepare(source: Path, folder: Path, count: int) -> tuple[float, float]:
    """Store the pictures in every form; pixels of a mean picture, and seconds to decode its PNG."""
    for name in ("gt", "lq", "gt_arrays", "lq_arrays"):
        (folder / name).mkdir()
    areas, decode = [], []
    for entry in folder_entries(source)[:count]:
        gt = read_picture(entry.path).pixels
        rows, columns = (side // SCALE * SCALE for side in gt.shape[:2])
        gt = np.ascontiguousarray(gt[:rows, :columns])
        name = entry.path.stem.replace(".", "_")
        for side, pixels in (("gt", gt), ("lq", imresize(gt, 1 / SCALE))):
            path = folder / side / f"{name}.png"
            write_picture(path, Picture(pixels), fmt="png")
            np.save(folder / f"{side}_arrays" / f"{name}.npy", pixels)
            if side == "gt":
                began = time.process_time()
                read_picture(path)
                decode.append(time.process_time() - began)
        areas.append(rows * columns)
    for side in ("gt", "lq"):
        files = [entry.path for entry in folder_entries(folder / side)]
        write_database(folder / f"{side}.lmdb", files)
        write_database(folder / f"{side}_raw.lmdb", files, raw=True)
    return statistics.mean(areas), statistics.median(decode)


def cases(folder: Path) -> list[Case]:
    """All ways to read."""
    files = paired_folders(folder / "gt", folder / "lq", "{}")
    arrays = paired_folders(folder / "gt_arrays", folder / "lq_arrays", "{}")
    stored = paired_databases(folder / "gt.lmdb", folder / "lq.lmdb")
    raw = paired_databases(folder / "gt_raw.lmdb", folder / "lq_raw.lmdb")

    def pairs(found: list[Pair], room: int = 0) -> Callable[[], PatchSet]:
        return lambda: PairedPatches(found, scale=SCALE, seed=0, cache_bytes=room)

    def made(how: Degradation, scale: int = 1, room: int = ROOM) -> Callable[[], PatchSet]:
        entries = folder_entries(folder / "gt")
        return lambda: SyntheticPatches(
            entries, scale=scale, seed=0, degradation=how, cache_bytes=room
        )

    bicubic = Degradation()
    return [
        Case("pairs, PNG, no cache", pairs(files)),
        Case("pairs, LMDB of PNG, no cache", pairs(stored)),
        Case("pairs, LMDB --raw", pairs(raw)),
        Case("pairs, arrays (.npy)", pairs(arrays)),
        Case("pairs, cached", pairs(files, ROOM), warm=True),
        Case("bicubic on the fly, no cache", made(bicubic, SCALE, 0)),
        Case("bicubic on the fly, cached", made(bicubic, SCALE), warm=True),
        Case("noise, cached, patches of 128", made(Degradation("noise")), True, 128),
        Case("JPEG, cached, patches of 128", made(Degradation("jpeg")), True, 128),
    ]


def measure(what: list[Case], rounds: int, batches: int) -> dict[str, float]:
    """Seconds of the processor for one patch of each case."""
    streams, taken = [], {case.name: list[float]() for case in what}
    for case in what:
        settings = LoaderSettings(stages=[FixedStage(case.gt_size, BATCH)])
        data = case.build()
        loader = TrainingLoader(data, settings, device=torch.device("cpu"))
        stream = iter(loader)
        for _ in islice(stream, 1 + (2 * len(data) // BATCH if case.warm else 0)):
            pass
        streams.append(stream)
    for _ in range(rounds):
        for case, stream in zip(what, streams, strict=True):
            began = time.process_time()
            for _ in islice(stream, batches):
                pass
            taken[case.name].append((time.process_time() - began) / (batches * BATCH))
    return {name: statistics.median(values) for name, values in taken.items()}


if __name__ == "__main__":
    main()
