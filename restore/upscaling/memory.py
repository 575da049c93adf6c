"""How much memory there is, how much a model needs, and the tile that follows from both.

What a model needs is measured, not derived: `memory.json` holds, for configurations of each
architecture, a straight line through measured peaks, written by `benchmarks/memory.py`: one of
whole maps, as on a GPU, and one above the peaks of a CPU with the native kernels, which runs much
in strips.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from restore.archs._blocks import round_up
from restore.upscaling.tiling import aligned_tile, read_side

if TYPE_CHECKING:
    from restore.model import Model

LONGEST_WHOLE_SIDE = 2048  # input pixels; above it a picture is tiled, whatever the memory
SHARE = 0.5  # of the free memory that a run may plan to use: estimates err, others want some too
_LADDER = (512, 384, 256, 192, 128, 96, 64, 48, 32)

# Where an architecture was never measured: float32 values alive per pixel and embedding channel.
# Measured networks of the Swin family stay below 40; an unfused attention is what could be more.
_UNKNOWN_VALUES = 64
_UNKNOWN_EMBED_DIM = 180
_TAIL_CHANNELS = 64  # of the Swin family's upsampling tails, in and out of a convolution
_PICTURE_CHANNELS = 3


@dataclass(frozen=True)
class Measured:
    """One measured configuration: peak = fixed + bytes_per_pixel * pixels, float32, one image.

    `strips` is the line of a CPU with the native kernels as these two numbers, where it is known.
    """

    embed_dim: int
    scale: int
    bytes_per_pixel: float  # of the input
    fixed: float  # bytes
    strips: tuple[float, float] | None = None


def free_bytes(device: torch.device) -> int:
    """Bytes that can be had on a device now.

    CUDA: what the driver has free and PyTorch holds unused. MPS: what Apple recommends less what
    is in use. Else the machine's available memory or what its control group still allows,
    whichever is less.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held
    available = int(psutil.virtual_memory().available)
    if device.type == "mps":
        recommended: int = torch.mps.recommended_max_memory()
        used: int = torch.mps.driver_allocated_memory()
        return min(available, max(0, recommended - used))
    allowed = control_group_left()
    return available if allowed is None else min(available, allowed)


def control_group_left(root: Path = Path("/")) -> int | None:
    """Bytes that this process's control group (a container's limit) still allows, or None.

    Cached files count as used there but are given up on demand, so they count as free here.

    Args:
        root: where /proc and /sys stand; for tests.
    """
    lefts = []
    for folder in _control_groups(root):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),  # version 2
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # 1
        ):
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and used is not None:
                lefts.append(max(0, limit - used + _cached(folder / "memory.stat", cache_name)))
    return min(lefts, default=None)


def peak_bytes(model: Model, height: int, width: int, batch: int = 1) -> int:
    """Estimated bytes that a call of the model takes beyond its weights.

    Args:
        model: recognised by `model.arch`, the `body_channels` of its config, scale and dtype.
        height: rows of the input.
        width: columns of the input.
        batch: images at once.

    Returns:
        For a measured architecture the nearest measured configuration, its bytes per pixel scaled
        by the ratio of `embed_dim` and with the tail's difference added where the scale is
        larger. For any other a number that is high on purpose.
    """
    multiple = model.rule.multiple  # that the input grows to
    pixels = batch * round_up(height, multiple) * round_up(width, multiple)
    embed_dim = body_channels(model.config)
    nearest = _nearest(measured().get(model.arch, ()), embed_dim, model.scale)
    if nearest is None:
        per_pixel = 4.0 * _UNKNOWN_VALUES * embed_dim + _tail_bytes(model.scale)
        fixed = 0.0
    else:
        strips = nearest.strips if _runs_in_strips(model) else None
        slope, fixed = strips or (nearest.bytes_per_pixel, nearest.fixed)
        # in strips only the result is whole
        channels = _TAIL_CHANNELS if strips is None else _PICTURE_CHANNELS
        more_tail = _tail_bytes(model.scale, channels) - _tail_bytes(nearest.scale, channels)
        per_pixel = slope * embed_dim / nearest.embed_dim + max(0.0, more_tail)
    # half precision keeps the residual stream in float32, so nothing is taken off for it
    factor = 2 if model.dtype == torch.float64 else 1
    return int(fixed + per_pixel * pixels * factor)


def _runs_in_strips(model: Model) -> bool:
    """Whether the native kernels run, without which larger maps are whole."""
    from restore.kernels.native_library import loaded

    fits = model.device.type == "cpu" and model.dtype != torch.float64
    return fits and loaded()[0] is not None


def body_channels(config: Mapping[str, Any]) -> int:
    """Channels of a network's body, by either official name."""
    return int(config.get("embed_dim", config.get("dim", _UNKNOWN_EMBED_DIM)))


def choose_tile(
    model: Model, height: int, width: int, free: int, *, tile_pad: int | None = None
) -> int:
    """The tile for a picture: 0 (all of it) or the longest side of a core in input pixels.

    Args:
        model: see `peak_bytes`.
        height: rows of the picture.
        width: columns of the picture.
        free: bytes, from `free_bytes`.
        tile_pad: halo in input pixels; None takes `model.halo`.

    Returns:
        0 where the picture is at most 2048 pixels long and its estimate is within half of `free`;
        else the longest tile from 512 down that is; else the shortest, 32, which may still fit.
    """
    budget = free * SHARE
    whole_fits = peak_bytes(model, height, width) <= budget
    if whole_fits and max(height, width) <= LONGEST_WHOLE_SIDE:
        return 0
    pad = model.halo if tile_pad is None else tile_pad
    for wanted in _LADDER:
        tile = aligned_tile(wanted, model.align)
        side = read_side(tile, pad, model.align)
        if peak_bytes(model, min(side, height), min(side, width)) <= budget:
            return tile
    return aligned_tile(_LADDER[-1], model.align)


@functools.cache
def measured() -> dict[str, tuple[Measured, ...]]:
    """The measurements that come with the package, by architecture."""
    file = resources.files("restore.upscaling").joinpath("memory.json")
    if not file.is_file():
        return {}
    archs = json.loads(file.read_text(encoding="utf-8"))["archs"]
    return {
        arch: tuple(
            Measured(
                e["embed_dim"],
                e["scale"],
                e["bytes_per_pixel"],
                e["fixed"],
                (e["strips"]["bytes_per_pixel"], e["strips"]["fixed"]) if "strips" in e else None,
            )
            for e in entries
        )
        for arch, entries in archs.items()
    }


def _nearest(entries: tuple[Measured, ...], embed_dim: int, scale: int) -> Measured | None:
    """The entry whose embed_dim, and then whose scale, is nearest by ratio."""

    def distance(entry: Measured) -> tuple[float, float]:
        return _ratio(entry.embed_dim, embed_dim), _ratio(entry.scale, scale)

    return min(entries, key=distance, default=None)


def _ratio(a: float, b: float) -> float:
    return max(a, b) / min(a, b)


def _tail_bytes(scale: int, channels: int = _TAIL_CHANNELS) -> float:
    """Per input pixel: a convolution's input and output at the enlarged size, float32."""
    return 2.0 * 4 * channels * scale**2 if scale > 1 else 0.0


def _control_groups(root: Path) -> list[Path]:
    """Folders that may hold this process's limit: its own group's and those above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        own = top / path.lstrip("/")
        # inside a container the path may be the host's, and only the top exists
        inside = [own, *own.parents][: len(Path(path).parts)]
        folders += [f for f in {*inside, top} if f.is_dir()]
    return folders


def _number(file: Path) -> int | None:
    """The number in a file; None for "max" or no file."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cached(stat: Path, name: str) -> int:
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[0] == name), 0)
