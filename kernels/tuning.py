"""Launch configurations of kernels: sensible defaults, and what was measured on this machine.

Measured ones are kept in a file of the user's cache folder, which `python -m benchmarks.gpu --tune`
fills; without it every kernel runs with its defaults.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Stored = dict[str, dict[str, dict[str, int]]]  # by device and op, then by key
Measured = dict[tuple[str, str], "Launch"]  # by op and key
LEAST_SHARED = 99 * 2**10  # bytes that a program may share on every GPU since Ampere


@dataclass(frozen=True)
class Launch:
    """How a kernel is cut into programs. Results differ by the order of sums alone."""

    block_m: int  # rows of a tile of products
    block_n: int  # its columns
    warps: int = 4
    stages: int = 2  # tiles that a loop holds, those loaded ahead included
    waves: int = 8  # programs for each multiprocessor; more take fewer windows each


def best(op: str, key: str, x: Tensor, default: Launch) -> Launch:
    """The configuration measured for an op on the device of x, or the default.

    What was measured is read once, at the first call for a device.

    Args:
        op: name of the kernel.
        key: what else the choice depends on: sizes and dtype.
        x: any tensor of the call.
        default: without a measurement.
    """
    return _measured(x.device).get((op, key), default) if x.is_cuda else default


def keep(op: str, key: str, x: Tensor, launch: Launch) -> None:
    """Write a measured configuration to the user's cache, for `best` of this and later runs."""
    path = cache_file()
    stored = _stored(path)
    of_op = stored.setdefault(f"{torch.cuda.get_device_name(x.device)} {op}", {})
    of_op[key] = dataclasses.asdict(launch)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps(stored, indent=1, sort_keys=True), encoding="utf-8")
    written.replace(path)
    _measured.cache_clear()


def cache_file() -> Path:
    """Where measured configurations are kept."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "restore-sr" / "launches.json"


def multiprocessors(x: Tensor) -> int:
    """Of the device of x; 1 where it is no GPU, so that the interpreter's loops are long."""
    return _of_gpu(x.device)[0] if x.is_cuda else 1


def shared_memory(x: Tensor) -> int:
    """Bytes that a program may share on the device of x; where it is no GPU, those of the least."""
    return _of_gpu(x.device)[1] if x.is_cuda else LEAST_SHARED


@functools.cache
def _of_gpu(device: torch.device) -> tuple[int, int]:
    """Its multiprocessors, and bytes that a program may share."""
    found = torch.cuda.get_device_properties(device)
    # not in older PyTorch
    shared = getattr(found, "shared_memory_per_block_optin", LEAST_SHARED)
    return int(found.multi_processor_count), int(shared)


@functools.cache
def _measured(device: torch.device) -> Measured:
    """All that was measured on a GPU of this name."""
    name = f"{torch.cuda.get_device_name(device)} "
    try:
        return {
            (device_and_op.removeprefix(name), key): Launch(**numbers)
            for device_and_op, of_op in _stored(cache_file()).items()
            if device_and_op.startswith(name)
            for key, numbers in of_op.items()
        }
    except (AttributeError, TypeError):
        return {}  # a file that is not ours: the defaults work


def _stored(path: Path) -> Stored:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # nothing was measured, or a file that is not ours
    return found if isinstance(found, dict) else {}
