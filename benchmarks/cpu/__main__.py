"""Our networks on a CPU against their authors' arithmetic, spandrel and OpenVINO.

    python -m benchmarks.cpu --budget 900       # as much as 900 seconds allow; again to go on
    python -m benchmarks.cpu --case SwinIR-M/64x64 --contender restore eager
    python -m benchmarks.cpu --curve            # time and memory up to 2048 x 2048 pixels
    python -m benchmarks.cpu --page             # the tables of docs/performance.md from all results

Nothing is timed before it was found right against float64. Every contender of a case has a process
of its own, with its threads and its peak of memory; they are timed in turn, a b c a b c ..., and
medians count; slow ones have fewer rounds, three at least, and every median tells its own. In each
round a convolution and a product of matrices are timed too: the floor is what the network's
operations take at the best rate that they reach. One JSON file, written whole after every case,
holds everything; a finished case of the same code and machine is not measured again. Run it with
nothing else going on.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cpu import report
from benchmarks.cpu.bench import PRECISION, Bench, Settings
from benchmarks.cpu.cases import THREADS, Case, all_cases, curve_cases
from benchmarks.cpu.contenders import ALL, BF16, USUAL
from benchmarks.gpu.report import anything_wrong, wrong
from benchmarks.gpu.results import FOLDER, Results, code_version, plain
from benchmarks.machine import processor
from benchmarks.steps import Item, Pace, part_of, run

SOURCES = (("kernels/native", "*.*"), ("benchmarks/cpu", "contenders.py"))  # also measured


def plan(bench: Bench, cases: list[Case]) -> Iterator[Item]:
    """Every network's checks right before its first case."""
    seen: set[tuple[str, str]] = set()
    for case in cases:
        for precision in dict.fromkeys(PRECISION[name in BF16] for name in bench.names(case)):
            if (case.network.name, precision) not in seen:
                seen.add((case.network.name, precision))
                yield _check_item(bench, case, precision)
        yield _case_item(bench, case)


def _check_item(bench: Bench, case: Case, precision: str) -> Item:
    def do() -> str:
        entry = bench.check(case.network, precision)
        return "right" if entry["passed"] else f"WRONG, not timed: {wrong(entry)}"

    known = functools.partial(bench.known_check, case.network, precision)
    name = f"check {case.network.name}/{precision}"
    return Item(name, "check", lambda: known() is not None, do)


def _case_item(bench: Bench, case: Case) -> Item:
    def do() -> str:
        return report.in_one_line(case, bench.measure(case))

    # what takes about as long
    kind = f"case {case.network.name} {case.side}"
    return Item(case.key, kind, lambda: bench.is_measured(case), do)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--list", action="store_true", help="only list the cases")
    add("--curve", action="store_true", help="ours alone, at more sizes, on one thread")
    add("--page", action="store_true", help="only write the tables of docs/performance.md")
    add("--case", nargs="+", metavar="START", help="cases whose names start so")
    add("--threads", nargs="+", type=int, choices=THREADS, default=THREADS)
    add(
        "--contender",
        nargs="+",
        choices=ALL,
        help=f"default: {', '.join(USUAL)}, but spandrel at the largest size",
    )
    add("--part", type=_part, metavar="I/N", help="every N-th case from the I-th on")
    add("--budget", type=float, metavar="SECONDS", help="begin nothing that could end later")
    add("--rounds", type=int, default=7, help="of a contender, at most (default 7)")
    add(
        "--seconds",
        type=float,
        default=60.0,
        help="for the rounds of a contender, which has three at least (default 60)",
    )
    add("--limit", type=float, default=900.0, help="seconds to make a contender (default 900)")
    add("--kept", type=Path, help="folder for converted networks (default: a temporary one)")
    add("--rehearsal", action="store_true", help="small networks and sizes: tries the program")
    add("--out", type=Path, help="results file (default benchmarks/results/cpu-....json)")
    args = parser.parse_args(arguments)
    if args.rehearsal and not args.out:
        parser.error("a rehearsal's numbers mean nothing; name a file of their own with --out")
    return args


def _part(text: str) -> tuple[int, int]:
    try:
        first, of = (int(number) for number in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"is {text!r}; expected I/N such as 1/6") from None
    if not 1 <= first <= of:
        raise argparse.ArgumentTypeError(f"is {text!r}; expected I/N with 1 <= I <= N")
    return first, of


def chosen(args: argparse.Namespace) -> list[Case]:
    """The cases that the command line names."""
    every = curve_cases(args.rehearsal) if args.curve else all_cases(args.rehearsal)
    cases = [
        case
        for case in every
        if case.threads in args.threads
        and (not args.case or any(case.key.startswith(start) for start in args.case))
    ]
    if not cases:
        sys.exit(f"no case starts with {args.case} on {args.threads} threads; see --list")
    return part_of(cases, args.part)


def main(arguments: list[str] | None = None) -> int:
    """The program; its exit status is 1 where something was found wrong."""
    args = parsed(arguments)
    if args.list:
        print("\n".join(case.key for case in chosen(args)))
        return 0
    if args.page:
        report.write_page(sorted(FOLDER.glob("cpu-*.json")))
        print(f"{report.PAGE} written")
        return 0
    machine = f"cpu-{plain(processor())}"
    code = code_version(*SOURCES)
    out = args.out or FOLDER / f"{machine}.json"
    results = Results(out, machine, code)
    results.describe()
    kept = args.kept or Path(tempfile.gettempdir()) / "restore-benchmarks"
    settings = Settings(
        args.contender and tuple(args.contender),
        args.rounds,
        args.seconds,
        args.limit,
        args.rehearsal,
        kept / code,
    )
    bench = Bench(settings, results)
    left = run(list(plan(bench, chosen(args))), Pace(args.budget))
    print(f"written: {out}; {left} steps are left")
    return 1 if anything_wrong(results.here) else 0


if __name__ == "__main__":
    sys.exit(main())
