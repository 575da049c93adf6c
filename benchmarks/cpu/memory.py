"""Peaks of memory above the loaded network, ours and the authors', as a table.

    python -m benchmarks.cpu.memory [--network DRCT ...] [--side 256] [--contender restore eager]

Nothing is timed, so that other programs may run. A peak is that of the resident set, of a process
for each number, in the first call after one of a small picture, on one thread.
"""

from __future__ import annotations

import argparse
import tempfile

from benchmarks.cpu.bench import Worker
from benchmarks.cpu.cases import NETWORKS
from benchmarks.cpu.contenders import ALL
from benchmarks.cpu.worker import Task

EAGER = "eager"


def main() -> None:
    """Print a row for each network as soon as it is known."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    add("--side", type=int, default=256, help="pixels of the picture (default 256)")
    usual = ["restore", "restore-bf16", EAGER]
    add("--contender", nargs="+", choices=ALL, default=usual, help=f"default: {' '.join(usual)}")
    add("--limit", type=float, default=900.0, help="seconds for each number (default 900)")
    args = parser.parse_args()
    print(f"| network | {', MiB | '.join(args.contender)}, MiB | of eager's |")
    print("| --- |" + " --- |" * (len(args.contender) + 1))
    for network in args.network:
        found = {name: _peak(network, name, args.side, args.limit) for name in args.contender}
        print(
            f"| {network} | {' | '.join(map(_mib, found.values()))} | {_shares(found)} |",
            flush=True,
        )


def _peak(network: str, contender: str, side: int, limit: float) -> int | None:
    with tempfile.TemporaryDirectory() as kept:
        worker = Worker(Task(network, contender, side, 1, False, "", kept), limit)
        worker.close()
    peak: int | None = worker.row.get("memory")
    return peak


def _mib(peak: int | None) -> str:
    return "failed" if peak is None else f"{peak / 2**20:.0f}"


def _shares(found: dict[str, int | None]) -> str:
    eager = found.get(EAGER)
    if not eager:
        return ""
    others = (peak for name, peak in found.items() if name != EAGER)
    return ", ".join("" if peak is None else f"{peak / eager:.0%}" for peak in others)


if __name__ == "__main__":
    main()
