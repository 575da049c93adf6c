"""Measure what models take of the CPU's memory, and write restore/upscaling/memory.json.

    python benchmarks/memory.py [--arch SwinIR ...] [--sides 96 128 192 256 320] [--strips]

For each configuration and picture size a fresh process builds the network with random weights,
runs it once in float32 on one thread, and reports how far its resident memory rose above that of
the built model. Maps are whole, as on a GPU, and a straight line over the pixels is fitted through
the peaks. --strips measures the other lines of the file instead: those of a CPU with the native
kernels, which runs in strips what only its result is wanted of. They lie above all peaks, as the C
library's blocks do not always fit what is asked for. --arch replaces the lines of those
architectures in the file and keeps the others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "restore" / "upscaling" / "memory.json"
SIDES = (96, 128, 192, 256, 320)
STRIPS_SIDES = (128, 256)
MARGIN = 1.3  # of a line above peaks: those of the same call differ by half as much

# What differs from an architecture's default configuration. An architecture that is not here is
# measured in its default one.
CASES: dict[str, list[dict[str, Any]]] = {
    "SwinIR": [
        {"upscale": 2, "upsampler": "pixelshuffledirect", "embed_dim": 60},
        {"upscale": 4, "upsampler": "pixelshuffle", "embed_dim": 180},
        {"upscale": 1, "upsampler": "", "embed_dim": 180},
    ],
    **{name: [{"upscale": 2}, {"upscale": 4}] for name in ("HiT_SIR", "HiT_SNG", "HiT_SRF")},
    "SRFormer": [
        {"upscale": 2, "upsampler": "pixelshuffledirect", "embed_dim": 60},
        {"upscale": 4, "upsampler": "pixelshuffle", "embed_dim": 180, "window_size": 22},
    ],
    "HAT": [
        {"upscale": 2},
        {"upscale": 4},
        {"upscale": 4, "embed_dim": 144, "compress_ratio": 24, "squeeze_factor": 24},
    ],
    "DRCT": [{"upscale": 2}, {"upscale": 4}],
    "Uformer": [{"embed_dim": 16}, {"embed_dim": 32}],
    "ATD": [
        {"upscale": 2},
        {
            "upscale": 4,
            "upsampler": "pixelshuffle",
            "embed_dim": 210,
            "num_heads": [6, 6, 6, 6],
            "mlp_ratio": 2.0,
            "category_size": 256,
            "num_tokens": 128,
            "reducted_dim": 20,
            "convffn_kernel_size": 5,
        },
    ],
    # stripes of 4 take more than the other windows
    "CAT": [{"upscale": scale, "split_size_0": [4] * 6} for scale in (2, 4)],
}

# one number for each group
GROUPWISE = ("depths", "depth", "num_heads", "split_size_0", "split_size_1")
U_SHAPED = ("Uformer", "CAT_Unet")  # need all their groups


def main() -> None:
    """Measure every case, print each line and its error, and write the file."""
    # No PyTorch in this process: on Linux a child's peak begins at its parent's size.
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", nargs="+", help="only these")
    parser.add_argument("--sides", nargs="+", type=int, help="pixels, at least 2")
    parser.add_argument("--strips", action="store_true", help="the lines of a CPU's native kernels")
    parser.add_argument(
        "--child", nargs=3, metavar=("ARCH", "CASE", "SIDE"), help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    if args.child:
        child(args.child[0], json.loads(args.child[1]), int(args.child[2]), args.strips)
        return
    if args.strips:
        add_strips(args.arch, args.sides or list(STRIPS_SIDES))
        return
    facts = ask("", {}, 0)
    known = facts.pop("archs")
    archs: dict[str, list[dict[str, Any]]] = {}
    if args.arch and TARGET.is_file():
        archs = json.loads(TARGET.read_text(encoding="utf-8"))["archs"]
    for name in args.arch or known:
        archs[name] = [
            measure(name, case, args.sides or list(SIDES)) for case in CASES.get(name, [{}])
        ]
    write({"measured_on": facts, "archs": {name: archs[name] for name in sorted(archs)}})


def write(content: dict[str, Any]) -> None:
    """The whole file."""
    TARGET.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def add_strips(names: list[str] | None, sides: list[int]) -> None:
    """Measure the cases of the file in strips, and write each line as soon as it is known."""
    content = json.loads(TARGET.read_text(encoding="utf-8"))
    for name in names or content["archs"]:
        for entry, case in zip(content["archs"][name], CASES.get(name, [{}]), strict=True):
            peaks = [ask(name, case, side, strips=True)["peak"] for side in sides]
            slope, fixed = above([side * side for side in sides], peaks)
            print(f"{name} {case}: {slope:.0f} bytes a pixel + {fixed / 2**20:.1f} MiB", flush=True)
            entry["strips"] = {
                "bytes_per_pixel": round(slope, 1),
                "fixed": round(fixed),
                "sides": list(sides),
                "peaks": peaks,
            }
            write(content)


def above(x: list[int], y: list[int]) -> tuple[float, float]:
    """Slope and intercept of a line above all peaks by a margin."""
    slope, fixed = fit(x, y)
    factor = MARGIN * max(b / (fixed + slope * a) for a, b in zip(x, y, strict=True))
    return factor * slope, factor * fixed


def measure(name: str, case: dict[str, Any], sides: list[int]) -> dict[str, Any]:
    """One configuration: its peaks, and the line through them."""
    results = [ask(name, case, side) for side in sides]
    peaks = [result["peak"] for result in results]
    pixels = [side * side for side in sides]
    slope, fixed = fit(pixels, peaks)
    errors = [(fixed + slope * x) / y - 1 for x, y in zip(pixels, peaks, strict=True)]
    described = {key: results[0][key] for key in ("embed_dim", "scale")}
    print(f"{name} {described}: {slope:.0f} bytes a pixel + {fixed / 2**20:.1f} MiB;", end=" ")
    print("line / measured - 1:", " ".join(f"{e:+.1%}" for e in errors), flush=True)
    return {
        **described,
        "bytes_per_pixel": round(slope, 1),
        "fixed": round(fixed),
        "sides": list(sides),
        "peaks": peaks,
        "largest_error": round(max(map(abs, errors)), 4),
    }


def fit(x: list[int], y: list[int]) -> tuple[float, float]:
    """Slope and intercept, at least 0, with the least squared relative error."""
    w = [1 / v**2 for v in y]
    total = sum(w)
    mean_x = sum(a * b for a, b in zip(w, x, strict=True)) / total
    mean_y = sum(a * b for a, b in zip(w, y, strict=True)) / total
    moments = [(a * (b - mean_x), b, c) for a, b, c in zip(w, x, y, strict=True)]
    slope = sum(m * (c - mean_y) for m, _, c in moments) / sum(
        m * (b - mean_x) for m, b, _ in moments
    )
    fixed = mean_y - slope * mean_x
    if fixed >= 0:
        return slope, fixed
    through_zero = sum(a * b * c for a, b, c in zip(w, x, y, strict=True))
    return through_zero / sum(a * b * b for a, b in zip(w, x, strict=True)), 0.0


def ask(name: str, case: dict[str, Any], side: int, strips: bool = False) -> dict[str, Any]:
    """What a fresh process finds; without a name, what it knows of the machine."""
    command = [sys.executable, __file__, "--child", name, json.dumps(case), str(side)]
    command += ["--strips"] if strips else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TARGET.parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} {case} at {side}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def peak_above(call: Callable[[], object]) -> int:
    """Bytes by which a call raises this process's resident memory over what it was before."""
    import psutil

    with contextlib.suppress(OSError):  # other systems, and some containers, forget no peak
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = int(psutil.Process().memory_info().rss)
    call()
    return _peak() - before


def _peak() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):  # of this program alone, unlike what follows
                return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def child(name: str, case: dict[str, Any], side: int, strips: bool) -> None:
    """Print one result as JSON."""
    import torch

    from restore.archs import ARCHS

    torch.set_num_threads(1)
    if not name:
        facts = {"device": "cpu", "dtype": "float32", "torch": torch.__version__}
        print(
            json.dumps({**facts, "machine": platform.machine(), "archs": [s.name for s in ARCHS]})
        )
        return
    from restore.model import Model
    from restore.upscaling.memory import body_channels

    spec = next(spec for spec in ARCHS if spec.name == name)
    config = spec.config().replaced(case, "benchmark")
    # Groups run one after the other and keep nothing, so two have the peak of them all.
    short = {} if name in U_SHAPED else {k: config[k][:2] for k in GROUPWISE if k in config}
    heads = {"num_heads": [6] * 2} if case.get("embed_dim") == 180 else {}
    config = config.replaced({**short, **heads}, "benchmark")
    # nothing is recorded of it, but without inference mode it could be: so there are no strips
    net = spec.build(config).eval().requires_grad_(False)
    model = Model(spec, config, net, name=name)
    with torch.inference_mode(strips):
        # libraries take their own memory at the first call
        model(torch.rand(1, model.in_channels, 16, 16))
        peak = peak_above(lambda: model(torch.rand(1, model.in_channels, side, side)))
    described = {"embed_dim": body_channels(config), "scale": model.scale}
    print(json.dumps({**described, "peak": peak}))


if __name__ == "__main__":
    main()
