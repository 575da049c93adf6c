"""Whole networks against the authors' arithmetic and against spandrel, on the CPU or a GPU.

    python -m benchmarks.run                  # every case, 1 and 2 threads
    python -m benchmarks.run --case swinir_s_x2 --threads 1 --size 64

Each contender is first compared with the float64 output of the network; one that is off by more
than 1e-5 of the largest output is not timed. Contenders run in turn, a b c a b c ..., so that a
drifting clock touches all of them alike. Medians, quartiles and the settings go to one JSON file.
Run it with nothing else going on; OMP_WAIT_POLICY=passive keeps idle threads from spinning.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.eager_swinir import EagerSwinIR
from benchmarks.machine import describe
from benchmarks.peers import spandrel
from restore.archs.swinir import SwinIR, SwinIRConfig
from restore.loading import load

CASES = {
    "swinir_s_x2": SwinIRConfig(),
    "swinir_m_x4": SwinIRConfig(
        embed_dim=180,
        depths=(6,) * 6,
        num_heads=(6,) * 6,
        upscale=4,
        upsampler="pixelshuffle",
    ),
}
TOLERANCE = 1e-5  # of the largest output, float32
Contender = Callable[[Tensor], Tensor]


def contenders(net: SwinIR, config: SwinIRConfig) -> dict[str, Contender]:
    """Ours first, then the peers that are installed."""
    found: dict[str, Contender] = {"restore": net, "eager (authors' arithmetic)": EagerSwinIR(net)}
    try:
        peers = spandrel()
    except ImportError as error:
        print(f"spandrel is left out: {error}", file=sys.stderr)
        return found
    model = load(net.state_dict(), device="cpu", config=dict(config))
    peer = peers.ModelLoader("cpu").load_from_state_dict(model.official_state_dict())
    found["spandrel"] = peer.model.eval()
    return found


def measure(
    case: str, config: SwinIRConfig, size: int, threads: int, rounds: int, device: str
) -> list[dict[str, object]]:
    """One row for each contender: time in ms, and the ratio of its time to ours."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    net = SwinIR(config).eval()
    x = torch.rand(1, config.in_chans, size, size)
    with torch.inference_mode():
        truth = net.double()(x.double())
        limit = TOLERANCE * truth.abs().max().item()
        net = net.float()
        found = contenders(net, config)
        errors = {name: (run(x).double() - truth).abs().max().item() for name, run in found.items()}
        for name, error in errors.items():
            if error > limit:
                raise SystemExit(
                    f"{case}: {name} is off by {error:.1e} (limit {limit:.1e}): not timed"
                )
        found = {name: _on(run, device) for name, run in found.items()}
        times = _interleaved(found, x.to(device), rounds)
    ours = statistics.median(times["restore"])
    return [
        {
            "case": case,
            "contender": name,
            "input": [1, config.in_chans, size, size],
            "dtype": "float32",
            "device": device,
            "threads": threads,
            "rounds": rounds,
            "median_ms": round(1e3 * statistics.median(seconds), 2),
            "quartiles_ms": [round(1e3 * q, 2) for q in statistics.quantiles(seconds, n=4)[::2]],
            "times_ours": round(statistics.median(seconds) / ours, 3),
            "max_error": errors[name],
        }
        for name, seconds in times.items()
    ]


def _on(run: Contender, device: str) -> Contender:
    return run.to(device) if isinstance(run, torch.nn.Module) else run


def _interleaved(found: dict[str, Contender], x: Tensor, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in found}
    for round_ in range(rounds + 1):
        for name, run in found.items():
            began = time.perf_counter()
            run(x)
            if x.is_cuda:
                torch.cuda.synchronize()
            if round_:  # the first round warms up
                times[name].append(time.perf_counter() - began)
    return times


def main() -> None:
    """Measure, print a table and write the results file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--size", nargs="+", type=int, default=[64, 128], metavar="PIXELS")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7, help="counted runs of each (default 7)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--out", type=Path, help="results file (default benchmarks/results/...)")
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    print(f"{'case':13}{'input':>9}{'threads':>9}  {'contender':30}{'median ms':>11}{'ours x':>9}")
    for case in args.case:
        for size in args.size:
            for threads in args.threads:
                for row in measure(case, CASES[case], size, threads, args.rounds, args.device):
                    rows.append(row)
                    print(
                        f"{case:13}{f'{size}x{size}':>9}{threads:>9}  {row['contender']:30}"
                        f"{row['median_ms']:>11}{row['times_ours']:>9}",
                        flush=True,
                    )
    results = {"date": date.today().isoformat(), "machine": describe(), "rows": rows}
    out = args.out or Path(__file__).parent / "results" / f"swinir-{args.device}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
