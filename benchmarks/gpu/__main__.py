"""Our networks on a GPU against their authors' arithmetic, spandrel and torch.compile.

    python -m benchmarks.gpu --budget 450       # as much as 450 seconds allow; again to go on
    python -m benchmarks.gpu --case HAT/inference SwinIR-M/training --dtype bf16
    python -m benchmarks.gpu --check-only       # every op and network in every precision
    python -m benchmarks.gpu --tune             # launch configurations for this GPU, kept for later
    python -m benchmarks.gpu --page             # the tables of docs/kernels.md from all results

Nothing is timed before it was found right against float64: every path of every op, and every
network with what it is compared with, in the precision that is timed. Contenders run in turn,
a b c a b c ..., and what fails is a row, not an end. One JSON file, written whole after every case,
holds everything; a finished case of the same code and machine is not measured again. The table
beside it is made from it.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu import report
from benchmarks.gpu.bench import Bench, Settings
from benchmarks.gpu.cases import PRECISIONS, Case, Network, Precision, all_cases
from benchmarks.gpu.contenders import ALL, USUAL, Lineup
from benchmarks.gpu.op_checks import OPS, check_op
from benchmarks.gpu.op_checks import PRECISIONS as OP_PRECISIONS
from benchmarks.gpu.results import FOLDER, Results, code_version, machine_name
from benchmarks.gpu.subjects import subject
from benchmarks.gpu.timing import DeviceLost
from benchmarks.gpu.tuning import tune
from benchmarks.steps import Item, Pace, part_of, run

EXACT = ("fp32", "tf32")  # checked for every network


def plan(bench: Bench, cases: list[Case], args: argparse.Namespace) -> Iterator[Item]:
    """Checks of ops, then every network's checks right before its first case.

    Ops are checked in the precisions of the cases and in float32; where nothing is timed, in all.
    """
    wanted = {torch.float32, *(case.precision.dtype for case in cases)}
    precisions = [
        name for name in OP_PRECISIONS if args.check_only or PRECISIONS[name].dtype in wanted
    ]
    ops = [] if args.networks_only else list(itertools.product(OPS, precisions))
    for name, precision in part_of(ops, args.part):
        yield _op_item(bench, name, PRECISIONS[precision])
    seen: set[tuple[str, str]] = set()
    for case in cases:
        for precision in (*EXACT, case.precision.name):
            pair = (case.network.name, precision)
            if pair not in seen:
                seen.add(pair)
                yield _network_item(bench, case.network, PRECISIONS[precision])
        if not args.check_only:
            yield _case_item(bench, case)


def _op_item(bench: Bench, name: str, precision: Precision) -> Item:
    key = f"{name}/{precision.name}"

    def do() -> str:
        entry = check_op(name, precision, bench.settings.device)
        bench.results.put("ops", key, entry)
        bench.clock.free()
        return entry.get("failed", "right")

    return Item(f"check {key}", "op", lambda: bench.results.get("ops", key) is not None, do)


def _network_item(bench: Bench, network: Network, precision: Precision) -> Item:
    key = f"{network.name}/{precision.name}"

    def do() -> str:
        entry = bench.check(network, precision)
        if entry["passed"]:
            return f"right: off by {entry['error']:.1e}, at most {entry['limit']:.1e}"
        return f"WRONG, not timed: {report.wrong(entry)}"

    known = functools.partial(bench.known_check, network, precision)
    return Item(f"check {key}", "network", lambda: known() is not None, do)


def _case_item(bench: Bench, case: Case) -> Item:
    def do() -> str:
        return report.in_one_line(case, bench.measure(case))

    return Item(case.key, "case", lambda: bench.is_measured(case), do)


def run_tuning(bench: Bench, cases: list[Case], pace: Pace) -> None:
    """Configurations of the kernels of all cases' networks."""
    settings = bench.settings
    tried: set[tuple[str, str]] = set()
    for case in cases:
        if pace.budget is not None and pace.elapsed() > pace.budget:
            print("stopped: the budget is spent")
            return
        found = subject(case.network, settings.rehearsal)
        lineup = Lineup(case, found, settings.device, settings.compile_limit)
        call = lineup.make("restore").call
        kept = tune(
            call,
            settings.device,
            say=lambda line: print(f"  {line}", flush=True),
            time_is_up=lambda: pace.budget is not None and pace.elapsed() > pace.budget,
            tried=tried,
        )
        print(f"[{pace.elapsed():.0f} s] {case.key}: {len(kept)} configurations kept", flush=True)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--list", action="store_true", help="only list the cases")
    add("--check-only", action="store_true", help="check everything and time nothing")
    add("--networks-only", action="store_true", help="leave out the checks of single ops")
    add("--tune", action="store_true", help="find launch configurations of the kernels")
    add("--page", action="store_true", help="only write the tables of docs/kernels.md")
    add("--case", nargs="+", metavar="START", help="cases whose names start so")
    add("--dtype", nargs="+", choices=list(PRECISIONS), help="only these precisions")
    add("--contender", nargs="+", choices=ALL, default=USUAL, help=f"default: {', '.join(USUAL)}")
    add("--part", metavar="I/N", help="every N-th case from the I-th on")
    add("--budget", type=float, metavar="SECONDS", help="begin nothing that could end later")
    add("--rounds", type=int, default=7, help="counted rounds of all contenders (default 7)")
    add("--compile-limit", type=float, default=150.0, metavar="SECONDS", help="default 150")
    add("--device", default="cuda", help="cuda, cuda:1, ...; cpu with --rehearsal")
    add("--rehearsal", action="store_true", help="small networks and sizes: tries the program")
    add("--out", type=Path, help="results file, or a folder (default benchmarks/results)")
    add(
        "--merge", action="append", type=Path, default=[], metavar="FILE", help="take it over first"
    )
    args = parser.parse_args(arguments)
    if args.device == "cpu" and not (args.rehearsal or args.list or args.page):
        parser.error("--device cpu is for a rehearsal of the program; add --rehearsal")
    if args.rehearsal and not args.out:
        parser.error("a rehearsal's numbers mean nothing; name a file of their own with --out")
    if args.part:
        try:
            args.part = tuple(int(number) for number in args.part.split("/"))
        except ValueError:
            parser.error(f"--part is {args.part!r}; expected two numbers such as 1/6")
        if len(args.part) != 2 or not 1 <= args.part[0] <= args.part[1]:
            parser.error(f"--part is {args.part}; expected I/N with 1 <= I <= N")
    return args


def chosen(args: argparse.Namespace) -> list[Case]:
    """The cases that the command line names."""
    cases = [
        case
        for case in all_cases(args.rehearsal)
        if (not args.case or any(case.key.startswith(start) for start in args.case))
        and (not args.dtype or case.precision.name in args.dtype)
    ]
    if not cases:
        sys.exit(f"no case starts with {args.case} in {args.dtype or 'any precision'}; see --list")
    return part_of(cases, args.part)


def main(arguments: list[str] | None = None) -> int:
    """The program; its exit status is 1 where something was found wrong."""
    args = parsed(arguments)
    if args.list:
        print("\n".join(case.key for case in chosen(args)))
        return 0
    if args.page:
        report.write_page(sorted(FOLDER.glob("gpu-*.json")))
        print(f"{report.PAGE} written")
        return 0
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA device here")
    torch.backends.cudnn.benchmark = True  # as the authors' training and test scripts do
    machine = machine_name(device)
    out = args.out or FOLDER
    if out.suffix != ".json":
        out = out / f"gpu-{machine}.json"
    results = Results(out, machine, code_version())
    for path in args.merge:
        if path.exists():
            results.merge(path)
    results.describe()
    settings = Settings(
        device, tuple(args.contender), args.rounds, args.compile_limit, args.rehearsal
    )
    bench, pace, cases = Bench(settings, results), Pace(args.budget), chosen(args)
    if args.tune:
        run_tuning(bench, cases, pace)
        return 0
    try:
        left = run(list(plan(bench, cases, args)), pace)
    except DeviceLost as error:
        print(f"the GPU is lost: {error}; run the same command again to go on after that case")
        left = 1
    results.write()
    print(f"written: {out} and {report.write_tables(results)}; {left} steps are left")
    return 1 if report.anything_wrong(results.here) else 0


if __name__ == "__main__":
    sys.exit(main())
