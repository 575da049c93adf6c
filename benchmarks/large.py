"""How much memory pictures of any size take: the peak above the loaded model, from 1 MP to 1 GP.

    python -m benchmarks.large [--megapixels 1 4 16 64 250 900] [--network 1 4] [--folder FOLDER]

For each size a picture is made (a photograph in many places, turned and shaded, 8 bit RGB, in a
TIFF of tiles), and doubled in a process of its own, as `restore upscale` does, into a tiled TIFF.
Told is how far the resident memory of that process rose above what it was with the model loaded.
Sizes that --network names go through the built-in network too; all go through a stub of the same
interface, which hands on the nearest neighbours: a network takes days for the largest. Linux only.

Writes benchmarks/results/large.json, and prints the table of docs/large.md. A result takes as many
bytes as it has samples at worst: 11 GB for 900 MP.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "large.json"
MEGAPIXELS = (1.0, 4.0, 16.0, 64.0, 250.0, 900.0)
LIMIT = 1.5e9  # bytes above the loaded model
MODEL = "swinir_builtin_x2"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megapixels", type=float, nargs="+", default=MEGAPIXELS)
    parser.add_argument(
        "--network", type=float, nargs="*", default=(1.0, 4.0), help="sizes without the stub"
    )
    parser.add_argument("--tile", type=int, default=512, help="see restore upscale")
    parser.add_argument("--compression", default="deflate", help="see --tiff-compression")
    parser.add_argument("--pyramid", action="store_true", help="see restore upscale")
    parser.add_argument("--aspect", type=float, default=1.0, help="width over height")
    parser.add_argument("--folder", type=Path, help="for the pictures (default: a temporary one)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        print(json.dumps(measure(*map(Path, options.child), options)))
        return
    from benchmarks.machine import describe

    settings = {key: getattr(options, key) for key in ("tile", "pyramid")}
    rows = list[dict[str, Any]]()
    content = {"machine": describe(), "model": MODEL, "scale": 2, **settings, "rows": rows}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for megapixels in options.megapixels:
            kinds = ["stub"] + ["network"] * (megapixels in options.network)
            picture = Path(folder, f"{megapixels:g}.tif")
            size = make_picture(picture, megapixels, options.aspect)
            for kind in kinds:
                row = {"megapixels": megapixels, "size": size, "by": kind}
                row["compression"] = options.compression
                row |= measured(picture, Path(folder, "out", "result.tif"), kind, options)
                rows.append(row)
                print(line(row), flush=True)
                options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            picture.unlink()
    worst = max(row["peak_bytes"] for row in rows)
    print(f"most: {worst / 1e6:.0f} MB above the model; the limit is {LIMIT / 1e6:.0f} MB")
    if worst > LIMIT:
        raise SystemExit(1)


def measured(picture: Path, result: Path, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """What `measure` says in a process of its own; the result is removed."""
    words = ["--child", str(picture), str(result), "--tile", str(options.tile)]
    words += ["--compression", options.compression, *["--pyramid"] * options.pyramid]
    words += ["--network", *(["1"] if kind == "network" else [])]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.large", *words],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    result.unlink()
    return found


def measure(picture: Path, result: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Double a picture; the peak, and bytes of the files."""
    import torch

    from restore.bench.memory_use import PeakMemory
    from restore.commands.batch import Batch, Settings
    from restore.commands.files import Naming, Source, plan_jobs
    from restore.commands.large import DEFAULT_TILE, Layout
    from restore.loading import load_builtin

    model = load_builtin(MODEL, device="cpu")
    layout = Layout(DEFAULT_TILE, options.pyramid, options.compression)
    jobs, _ = plan_jobs([Source(picture)], Naming(result))
    batch = Batch(
        jobs,
        model if options.network else Stub(model),  # type: ignore[arg-type]
        Settings(tile=options.tile, layout=layout),
    )
    with PeakMemory(torch.device("cpu")) as peak:
        outcome = batch.run(jobs[0])
    if outcome.status != "done":
        raise SystemExit(outcome.reason + outcome.trace)
    return {
        "peak_bytes": peak.bytes,
        "input_bytes": picture.stat().st_size,
        "output_bytes": result.stat().st_size,
    }


class Stub:
    """A model in all but what it computes: nearest neighbours."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, x: Any, *, dtype: Any = None, padding: str = "reflect") -> Any:
        """[B, C, h, w] to [B, C, h * s, w * s]."""
        from torch.nn.functional import interpolate

        return interpolate(x, scale_factor=self._model.scale, mode="nearest")


def make_picture(path: Path, megapixels: float, aspect: float = 1.0) -> list[int]:
    """Write a picture of so many million pixels; its rows and columns."""
    from PIL import Image

    from restore.image_io.sinks import Raster
    from restore.image_io.tiff_tiles import TiffTileWriter

    height = max(1, round(math.sqrt(megapixels * 1e6 / aspect)))
    width = max(1, round(height * aspect))
    photo = np.asarray(Image.open(ROOT / "samples" / "photo.png").convert("RGB"))
    photo = np.tile(photo, (2, 2, 1))[:256, :256]
    turned = [np.rot90(photo, turns) for turns in range(4)]
    with TiffTileWriter(
        path, Raster(height, width, 3, np.uint8), tile=256, compression="none"
    ) as sink:
        for y in range(0, height, 256):
            for x in range(0, width, 256):
                # no two places alike, so that nothing can be told from another by chance
                shade = np.uint8((y // 256 * 31 + x // 256 * 17) % 64)
                part = (turned[(y // 256 + x // 256) % 4] // 4 * 3 + shade).astype(np.uint8)
                sink.write_block(y, x, part[: height - y, : width - x])
    return [height, width]


def line(row: dict[str, Any]) -> str:
    """A row of the table in docs/large.md."""
    height, width = row["size"]
    by = "the built-in network" if row["by"] == "network" else "the stub"
    return (
        f"| {row['megapixels']:g} MP | {width} x {height} | {by} | {row['compression']} "
        f"| {row['peak_bytes'] / 1e6:.0f} MB |"
    )


if __name__ == "__main__":
    main()
