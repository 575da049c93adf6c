"""What reading and writing beside the network brings for a folder of pictures.

    python -m benchmarks.batches FOLDER                     # writes benchmarks/results/batches.json
    python -m benchmarks.batches FOLDER --shrink 4          # of pictures shrunk 4 times first
    python -m benchmarks.batches FOLDER --model_path X.pth

The whole command runs in this process for each number of jobs, in turn; the median counts. Beside
the seconds stand those of the processor: where the network computes on it, they say whether the
threads take from it more than the reading and writing themselves do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import describe
from restore import cli
from restore.commands.files import find_pictures
from restore.image_io import read_picture, write_picture
from restore.resizing import imresize

RESULTS = Path(__file__).parent / "results" / "batches.json"
JOBS = (0, 1, 2)


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write the results file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batches",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="of pictures")
    parser.add_argument("--model_path", help="default: the built-in x4 model")
    parser.add_argument("--count", type=int, default=10, help="pictures (default 10)")
    parser.add_argument("--shrink", type=int, default=1, help="of each side, first (default 1)")
    parser.add_argument("--rounds", type=int, default=5, help="of all jobs in turn (default 5)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        pictures = Path(work) / "in"
        pixels = prepare(args.folder, pictures, args.count, args.shrink)
        words = ["upscale", str(pictures), "-q", "-o", str(Path(work) / "out")]
        words += ["--model_path", args.model_path] if args.model_path else []
        rows = measure(words, args.rounds)
    for row in rows:
        print(f"--jobs {row['jobs']}: {row['seconds']} s, {row['processor']} s of the processor")
    content = {
        "machine": describe(),
        "threads": torch.get_num_threads(),
        "model": Path(args.model_path).name if args.model_path else "built-in x4",
        "pictures": len(pixels),
        "megapixels": round(sum(pixels) / 1e6, 3),
        "rounds": args.rounds,
        "rows": rows,
    }
    args.output.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {args.output}")


def prepare(folder: Path, target: Path, count: int, shrink: int) -> list[int]:
    """Copy pictures as PNG, smaller where asked for; the pixels of each."""
    target.mkdir()
    pixels = []
    for source in find_pictures([str(folder)]).sources[:count]:
        picture = read_picture(source.path)
        if shrink > 1:
            picture.pixels = imresize(picture.pixels, 1 / shrink)
        write_picture(target / f"{source.path.stem}.png", picture, fmt="png")
        pixels.append(picture.pixels.shape[0] * picture.pixels.shape[1])
    return pixels


def measure(words: list[str], rounds: int) -> list[dict[str, float]]:
    """Seconds and processor seconds for each number of jobs; a first round is not counted."""
    seconds: dict[int, list[float]] = {jobs: [] for jobs in JOBS}
    processor: dict[int, list[float]] = {jobs: [] for jobs in JOBS}
    for number in range(rounds + 1):
        for jobs in JOBS if number % 2 else JOBS[::-1]:
            began, busy = time.perf_counter(), time.process_time()
            if cli.main([*words, "--jobs", str(jobs)]):
                raise RuntimeError("a picture failed; see above")
            if number:
                seconds[jobs].append(time.perf_counter() - began)
                processor[jobs].append(time.process_time() - busy)
    return [
        {
            "jobs": jobs,
            "seconds": round(statistics.median(seconds[jobs]), 3),
            "processor": round(statistics.median(processor[jobs]), 3),
        }
        for jobs in JOBS
    ]


if __name__ == "__main__":
    main()
