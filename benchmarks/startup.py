"""What the command spends before it computes, in seconds of one thread.

    python -m benchmarks.startup        # prints, and writes benchmarks/results/startup.json

Each word of the command runs in processes of its own. Seconds are those of the processor, from the
interpreter's start: they depend little on what else a machine does. Built-in weights enlarge a
picture of 128 x 128 pixels; the clock stops before its first tile.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIDE = 128  # pixels
# what takes longer to load than the picture to compute, and restores none
UNWANTED = (
    "IPython",
    "PIL.ImageDraw",
    "matplotlib",
    "mpmath",
    "numpy.ma",
    "onnx",
    "openvino",
    "pandas",
    "scipy",
    "spandrel",
    "sympy",
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed.fsdp",
    "torch.onnx",
    "torchvision",
    "triton",
)


def main() -> None:
    """Measure, print and write the results file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7, help="processes of each (default 7)")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child)))
        return
    from benchmarks.machine import describe

    with tempfile.TemporaryDirectory() as folder:
        commands = {"--help": ["--help"], "upscale": smallest_upscale(Path(folder))}
        rows = {
            name: median([ask(words) for _ in range(args.rounds)])
            for name, words in commands.items()
        }
    for name, row in rows.items():
        print(f"{name}: {', '.join(f'{key} {value} s' for key, value in row.items())}")
    out = Path(__file__).parent / "results" / "startup.json"
    out.write_text(
        json.dumps({**describe(), "rounds": args.rounds, "seconds": rows}, indent=1) + "\n"
    )
    print(f"written to {out}")


def median(answers: list[dict[str, Any]]) -> dict[str, float]:
    """Of each time that processes measured."""
    times = {key for answer in answers for key, value in answer.items() if isinstance(value, float)}
    return {
        key: round(statistics.median(answer[key] for answer in answers), 3) for key in sorted(times)
    }


def smallest_upscale(folder: Path) -> list[str]:
    """Words of the command for one picture of 128 x 128 pixels, which is put into `folder`."""
    from PIL import Image

    picture = folder / "picture.png"
    Image.radial_gradient("L").resize((SIDE, SIDE)).convert("RGB").save(picture)
    return ["upscale", str(picture), "-o", str(folder / "large"), "--device", "cpu", "-q"]


def ask(words: list[str]) -> dict[str, Any]:
    """What `child` finds in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.startup", "--child", *words],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def child(words: list[str]) -> dict[str, Any]:
    """Run the command once in this process.

    Returns:
        exit: its code; unwanted: modules of `UNWANTED` that it loaded and PyTorch had not;
        torch: whether PyTorch was loaded; total: seconds until the first tile, or its end where it
        computes none; and, where it computes, pytorch: those of loading PyTorch.
    """
    from restore.cli import main as command

    found: dict[str, Any] = {}
    before: set[str] = set()
    if "--help" not in words:
        began = time.process_time()
        import torch  # noqa: F401 - timed

        found["pytorch"] = time.process_time() - began
        before = set(sys.modules)
        from restore.upscaling.network import Network

        first = Network.__call__

        def stop_the_clock(network: Network, *args: Any) -> Any:
            found.setdefault("total", time.process_time())
            return first(network, *args)

        Network.__call__ = stop_the_clock  # type: ignore[assignment,method-assign]
    with contextlib.redirect_stdout(io.StringIO()):
        found["exit"] = command(words)
    found.setdefault("total", time.process_time())
    loaded = set(sys.modules)
    return {
        **found,
        "torch": "torch" in loaded,
        "unwanted": sorted(name for name in UNWANTED if name in loaded - before),
    }


if __name__ == "__main__":
    main()
