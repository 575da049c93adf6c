"""Whole networks against the authors' arithmetic and against spandrel, on the CPU or a GPU.

    python -m benchmarks.run                  # SwinIR-S x2 and SwinIR-M x4, 1 and 2 threads
    python -m benchmarks.run --case hat-s_x4 drct_x4 --threads 1 --size 64
    python -m benchmarks.run --list           # every published model that can be a case

Each contender is first compared with the float64 output of the network; one that is off by more
than 1e-5 of the largest output is not timed. Contenders run in turn, a b c a b c ..., so that a
drifting clock touches all of them alike. Medians, quartiles and the settings go to one JSON file.
A network that takes only multiples of its window gets the next size that it takes.
spandrel holds the networks as their authors wrote them; it has no CAT and no HiT-SR, which are
timed alone. Run it with nothing else going on; OMP_WAIT_POLICY=passive keeps idle threads from
spinning.
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
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.eager import Eager
from benchmarks.machine import describe
from benchmarks.peers import spandrel_network
from restore.archs._blocks import round_up
from restore.archs._spec import ArchConfig, ArchSpec
from restore.archs.swinir import SwinIR
from restore.official import OfficialModel, official_models

DEFAULT = ("swinir-s-lightweight_x2", "swinir-m-classical_x4")
TOLERANCE = 1e-5  # of the largest output, float32
Contender = Callable[[Tensor], Tensor]


def cases() -> dict[str, OfficialModel]:
    """Every published model by a name for the command line, such as "hat-s_x4"."""
    found: dict[str, OfficialModel] = {}
    for model in official_models():
        name = model.variant.lower().replace(f" x{model.scale}", f"_x{model.scale}")
        found.setdefault(name.replace(" ", "-"), model)
    return found


def contenders(spec: ArchSpec, net: nn.Module, config: ArchConfig) -> dict[str, Contender]:
    """Ours first, then the peers that are installed and know the network."""
    found: dict[str, Contender] = {"restore": net}
    if isinstance(net, SwinIR):
        found["eager (authors' arithmetic)"] = Eager(net, keep_masks=False)
    try:
        found["spandrel"] = spandrel_network(spec, config, net)
    except (ImportError, LookupError) as error:
        print(f"spandrel is left out: {error}", file=sys.stderr)
    return found


def measure(
    case: str, official: OfficialModel, size: int, threads: int, rounds: int, device: str
) -> list[dict[str, Any]]:
    """One row for each contender: time in ms, and the ratio of its time to ours."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    spec, config = official.spec, official.config
    net = spec.build(config).eval()
    channels = spec.in_channels(config)
    side = round_up(size, spec.input_rule(config).multiple)
    x = torch.rand(1, channels, side, side)
    with torch.inference_mode():
        truth = net.double()(x.double())
        limit = TOLERANCE * truth.abs().max().item()
        net = net.float()
        found = contenders(spec, net, config)
        errors = {name: (run(x).double() - truth).abs().max().item() for name, run in found.items()}
        for name, error in errors.items():
            if error > limit:
                text = f"{case}: {name} is off by {error:.1e} (limit {limit:.1e}): not timed"
                print(text, file=sys.stderr)
        found = {name: _on(run, device) for name, run in found.items() if errors[name] <= limit}
        if "restore" not in found:
            return []
        times = _interleaved(found, x.to(device), rounds)
    ours = statistics.median(times["restore"])
    return [
        {
            "case": case,
            "contender": name,
            "input": list(x.shape),
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
    known = cases()
    parser.add_argument("--case", nargs="+", choices=list(known), default=DEFAULT, metavar="NAME")
    parser.add_argument("--list", action="store_true", help="only list the cases")
    parser.add_argument("--size", nargs="+", type=int, default=[64, 128], metavar="PIXELS")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7, help="counted runs of each (default 7)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--out", type=Path, help="results file (default benchmarks/results/...)")
    args = parser.parse_args()
    if args.list:
        print("\n".join(known))
        return
    out = args.out or Path(__file__).parent / "results" / f"networks-{args.device}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    results = {"date": date.today().isoformat(), "machine": describe()}
    rows: list[dict[str, Any]] = []
    print(f"{'case':24}{'input':>9}{'threads':>9}  {'contender':30}{'median ms':>11}{'ours x':>9}")
    for case in args.case:
        for size in args.size:
            for threads in args.threads:
                for row in measure(case, known[case], size, threads, args.rounds, args.device):
                    rows.append(row)
                    shape = "x".join(map(str, row["input"][2:]))
                    print(
                        f"{case:24}{shape:>9}{threads:>9}  {row['contender']:30}"
                        f"{row['median_ms']:>11}{row['times_ours']:>9}",
                        flush=True,
                    )
                out.write_text(json.dumps({**results, "rows": rows}, indent=1) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
