"""Compile every Triton kernel for sm_80 and sm_90 and record what it takes of the GPU.

python scripts/kernel_table.py                 compile what is missing or whose code has changed,
                                               write benchmarks/results/kernels-compiled.json, then
                                               the table of docs/kernels.md
python scripts/kernel_table.py --only branch   of one family of ops; again to go on where it stopped
python scripts/kernel_table.py --check         compile nothing: exit 1 where records are missing or
                                               of older code, or where the page has another table

Kernels are compiled as calls of the official networks launch them, with the default launches. No
GPU is needed; all of them take an hour or two of one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "kernels"), str(ROOT / "tests"), str(ROOT)]

compiled = importlib.import_module("compiled")
resources = importlib.import_module("resources")

PAGE = ROOT / "docs" / "kernels.md"
BEGIN = "<!-- table: python scripts/kernel_table.py -->"
NONE = "-"  # in the place of a number, where nothing was compiled
END = "<!-- end of the table of kernels -->"


def main() -> int:
    """Compile and write, or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=resources.MODULES, help="of this family of ops")
    parser.add_argument("--dtype", choices=resources.DTYPES, help="of products in this alone")
    parser.add_argument("--check", action="store_true", help="only tell whether all is current")
    parser.add_argument("--page", action="store_true", help="only write the table")
    asked = parser.parse_args()
    families = [asked.only] if asked.only else list(resources.MODULES)
    if asked.check:
        return check(families)
    if not asked.page:
        dtypes = [asked.dtype] if asked.dtype else resources.DTYPES
        for dtype, family, capability in product(dtypes, families, compiled.SHARED):
            compile_missing(family, capability, dtype)
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def check(families: Iterable[str]) -> int:
    """Say what is not current."""
    found = [
        f"{len(keys)} calls of {family} for sm_{capability}, {keys[0]!r} one of them"
        for family in families
        for capability in compiled.SHARED
        if (keys := missing(family, capability))
    ]
    page = PAGE.read_text(encoding="utf-8")
    if with_table(page) != page:
        found.append(f"the table of {PAGE.relative_to(ROOT)}")
    for what in found:
        print(f"not current: {what}; run python scripts/kernel_table.py", file=sys.stderr)
    return 1 if found else 0


def missing(family: str, capability: int) -> list[str]:
    """Calls of which there is no record, or one of older code."""
    source = resources.source_of(family)
    calls = resources.read()["calls"].get(family, {}).get(f"sm_{capability}", {})
    return [key for key in resources.keys_of(family) if calls.get(key, {}).get("source") != source]


def compile_missing(family: str, capability: int, dtype: str) -> None:
    """Compile those of a dtype, and record each as soon as it is done."""
    source = resources.source_of(family)
    keys = [key for key in missing(family, capability) if resources.dtype_of(key) == dtype]
    if not keys:
        return
    for done, (key, reports) in enumerate(
        compiled.compiled_in_turn(resources.MODULES[family], keys, capability), 1
    ):
        keep(family, capability, key, source, reports)
        print(f"{family} sm_{capability} {done}/{len(keys)} {key}", flush=True)


def keep(family: str, capability: int, key: str, source: str, reports: Iterable[Any]) -> None:
    """Write one record into the file, and leave out those of calls that are no more."""
    records = resources.read()
    records["versions"] = {"triton": version("triton"), "ptxas": ptxas_version()}
    calls = records["calls"].setdefault(family, {}).setdefault(f"sm_{capability}", {})
    calls[key] = {"source": source, "kernels": [dataclasses.asdict(report) for report in reports]}
    wanted = resources.keys_of(family)
    records["calls"][family][f"sm_{capability}"] = {
        key: calls[key] for key in wanted if key in calls
    }
    temporary = resources.RECORDS.with_suffix(f".{os.getpid()}")
    temporary.write_text(as_text(records), encoding="utf-8")
    temporary.replace(resources.RECORDS)


def as_text(records: dict[str, Any]) -> str:
    """JSON with a call on each line."""
    families = []
    for family, targets in sorted(records["calls"].items()):
        blocks = []
        for target, calls in sorted(targets.items()):
            lines = [f"{json.dumps(key)}: {json.dumps(call)}" for key, call in calls.items()]
            blocks.append(f"{json.dumps(target)}: {{\n" + ",\n".join(lines) + "\n}")
        families.append(f"{json.dumps(family)}: {{\n" + ",\n".join(blocks) + "\n}")
    head = f'"versions": {json.dumps(records["versions"])}'
    return f'{{\n{head},\n"calls": {{\n' + ",\n".join(families) + "\n}\n}\n"


@functools.cache
def ptxas_version() -> str:
    """Of the assembler that Triton brings."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    said = subprocess.run([str(tool), "--version"], capture_output=True, text=True, check=True)
    return said.stdout.partition(", V")[2].split()[0]


def with_table(page: str) -> str:
    """The page with the table of what is recorded."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{PAGE}: no lines {BEGIN!r} and {END!r} to write the table between")
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


def table() -> str:
    """What was compiled by what, and a kernel on each row."""
    records = resources.read()
    rows: dict[str, list[tuple[int, str, Any]]] = {}
    for _, capability, key, report in resources.recorded(records):
        of_kernel = rows.setdefault(report.name, [])
        of_kernel.append((capability, resources.dtype_of(key), report))
    lines = [
        "| kernel | compiled as | registers, half | and float32 | spilled, half / tf32 / float32 "
        "| shared, sm_80 / sm_90 |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, compilations in sorted(rows.items()):
        lines.append(row(name.replace("_triton.", ".").removesuffix("_kernel"), compilations))
    return f"{summary(records)}\n\n" + "\n".join(lines) + "\n"


def summary(records: dict[str, Any]) -> str:
    """By what was compiled, and how much of all."""
    calls = {family: resources.keys_of(family) for family in resources.MODULES}
    wanted = sum(len(keys) for keys in calls.values()) * len(compiled.SHARED)
    found = sum(
        key in records["calls"].get(family, {}).get(f"sm_{capability}", {})
        for family, keys in calls.items()
        for capability in compiled.SHARED
        for key in keys
    )
    by = ", ".join(f"{name} {number}" for name, number in records["versions"].items())
    count = f"all {wanted} calls" if found == wanted else f"{found} of {wanted} calls so far"
    return f"{by}; {count}."


def row(name: str, compilations: list[tuple[int, str, Any]]) -> str:
    """What all compilations of a kernel take: least and most registers, most of the rest."""

    def of(*dtypes: str) -> list[Any]:
        return [report for _, dtype, report in compilations if dtype in dtypes]

    def registers(reports: list[Any]) -> str:
        counts = [report.registers for report in reports]
        return f"{min(counts)} to {max(counts)}" if counts else NONE

    def spilled(dtypes: tuple[str, ...]) -> str:
        return str(max((report.spilled for report in of(*dtypes)), default=NONE))

    def shared(capability: int) -> str:
        sizes = [report.shared for target, _, report in compilations if target == capability]
        return f"{max(sizes) / 2**10:.0f}" if sizes else NONE

    half, exact = ("float16", "bfloat16"), ("tf32", "float32")
    cells = [
        f"`{name}`",
        str(len({(target, report) for target, _, report in compilations})),
        registers(of(*half)),
        registers(of(*exact)),
        " / ".join(spilled(dtypes) for dtypes in (half, ("tf32",), ("float32",))),
        f"{shared(80)} / {shared(90)} KiB",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
