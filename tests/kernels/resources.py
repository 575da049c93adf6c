"""What every kernel takes of a GPU, as compiled for the calls of official networks, and may take.

`scripts/kernel_table.py` compiles them all and keeps what ptxas says in `RECORDS`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compiled import HERE, Report

ROOT = HERE.parents[1]
RECORDS = ROOT / "benchmarks" / "results" / "kernels-compiled.json"
MODULES = {  # of calls, beside this file
    "branch": "branch_calls",
    "linear": "fused_calls",
    "hit_atd": "hit_atd_calls",
    "attention": "attention_calls",
    "position": "position_calls",
}
# Bytes of a thread, at most, of what does not fit in registers: by kernel and dtype; 0 elsewhere.
# Those of attention in full float32 are of heads of 77 channels, in two pieces: each product is
# three in tf32, of which the compiler holds the operands all at once.
SPILLED: dict[str, dict[str, int]] = {
    # in half precision of heads of 77 channels, on sm_80; in float32 of windows of 49 pixels
    "attention_triton.forward_kernel": {"bfloat16": 48, "float16": 48, "tf32": 8, "float32": 80},
    # in half precision of windows of 1296 queries and 324 keys
    "attention_backward_triton.queries_kernel": {"bfloat16": 32, "float16": 32, "float32": 296},
    # in half precision of heads of 48 channels in windows that are one tile
    "attention_backward_triton.keys_kernel": {
        "bfloat16": 48,
        "float16": 48,
        "tf32": 16,
        "float32": 464,
    },
    "attention_backward_triton.bias_kernel": {"bfloat16": 16, "float16": 16, "float32": 64},
    # of windows of 49 pixels, whose rows and keys past the last are masked
    "window_attention_branch_triton.forward_kernel": {"bfloat16": 32, "float16": 32},
    # of 212 channels and more, whose tokens and sums are three pieces each: addresses, of which
    # three or four are read again in every step
    "mlp_triton.mlp_kernel": {"bfloat16": 40, "float16": 40, "tf32": 64, "float32": 24},
    # of a dictionary of 128 entries and 210 channels, held whole
    "dictionary_attention_triton.attend_back": {"bfloat16": 8, "float16": 8, "float32": 304},
    # of windows of 48 x 48 pixels and more
    "correlation_blocks_triton.summarise": {
        "bfloat16": 8,
        "float16": 8,
        "tf32": 24,
        "float32": 32,
    },
    # of 64 pixels that are not reduced
    "self_correlation_gradients_triton.correlate_back": {"float32": 32},
}
DTYPES = ("bfloat16", "tf32", "float32", "float16")

# how the names end of files that define kernels, and the names of others that launch them
DEFINING = ("_triton", "triton_blocks", "triton_norm")
HOSTS = ("attention_geometry", "attention_launches", "fused_host", "tuning")


def keys_of(family: str) -> list[str]:
    """The calls of one of `MODULES`."""
    calls = importlib.import_module(MODULES[family]).CALLS
    if any(key.endswith(" tf32") for key in calls):
        return list(calls)
    rounded = (f"{key} tf32" for key in calls if key.endswith("float32"))
    return [*calls, *rounded]


def dtype_of(key: str) -> str:
    """One of `DTYPES`: in what a call multiplies."""
    words = key.split()
    return next(dtype for dtype in ("tf32", *DTYPES) if dtype in words)


def most_spilled(report: Report, dtype: str) -> int:
    """The bound of a kernel."""
    return SPILLED.get(report.name, {}).get(dtype, 0)


def source_of(family: str) -> str:
    """A number that changes with the code that a family's kernels are made by, comments aside."""
    paths = _kernel_files(HERE / f"{MODULES[family]}.py")
    code = [_without_docstrings(path) for path in sorted(paths)]
    code.append(f"triton {version('triton')}")
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:12]


def _kernel_files(path: Path) -> set[Path]:
    """Those of `kernels/` that define or launch kernels, of all that a file imports in the end."""
    found = {path}
    left = [path]
    while left:
        named = {
            folder / f"{name}.py"
            for name in _imported(left.pop())
            for folder in (ROOT / "kernels", HERE)
        }
        new = {path for path in named - found if path.exists()}
        found |= new
        left += new
    return {path for path in found if path.stem in HOSTS or path.stem.endswith(DEFINING)}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.rpartition(".")[2]
            yield from (alias.name for alias in node.names)


def _without_docstrings(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(
            node, clean=False
        ):
            del node.body[0]
    return ast.unparse(tree)


def read() -> dict[str, Any]:
    """The records; none where there is no file."""
    if not RECORDS.exists():
        return {"versions": {}, "calls": {}}
    found: dict[str, Any] = json.loads(RECORDS.read_text(encoding="utf-8"))
    return found


def recorded(records: dict[str, Any]) -> Iterator[tuple[str, int, str, Report]]:
    """Family, compute capability and key of a call, and one of its kernels."""
    for family, of_family in records["calls"].items():
        for target, calls in of_family.items():
            for key, call in calls.items():
                for report in call["kernels"]:
                    yield family, int(target.removeprefix("sm_")), key, Report(**report)
