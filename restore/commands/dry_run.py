"""What a batch would do, how much memory and time it would take, without doing it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from restore.commands import room, streaming
from restore.commands.batch import Batch
from restore.commands.files import Job
from restore.commands.info import file_size, table
from restore.commands.text import duration
from restore.image_io import PictureInfo
from restore.model import Model
from restore.padding import published_size
from restore.upscaling import memory, tiling
from restore.upscaling.run import output_size

_TIMED_SIDE = 64  # pixels of the tile that is timed, or the next size that the network takes
_MIRRORS = 8  # what --tta averages


@dataclass(frozen=True)
class Estimate:
    """What one picture would take."""

    size: tuple[int, int]  # of the result: width, height
    tiles: str
    memory: int  # bytes, weights aside
    seconds: float


def dry_run_lines(batch: Batch) -> list[str]:
    """A table of the batch's pictures, and the sum of the time."""
    speed = seconds_per_pixel(batch.model)
    rows: list[tuple[str, ...]] = [
        ("input", "size", "result size", "tiles", "memory", "time", "output")
    ]
    total = 0.0
    for job in batch.jobs:
        if job.info is None:
            rows.append(
                (str(job.source), "?", "?", "-", "-", "-", f"cannot be read: {job.problem}")
            )
            continue
        size = f"{job.info.width}x{job.info.height}"
        if batch.settings.skip_existing and job.is_done:
            rows.append((str(job.source), size, "-", "-", "-", "-", f"{job.target} (skipped)"))
            continue
        guess = estimate(batch, job, job.info, speed)
        total += guess.seconds
        result_size = f"{guess.size[0]}x{guess.size[1]}"
        cells = (guess.tiles, file_size(guess.memory), duration(guess.seconds), str(job.target))
        rows.append((str(job.source), size, result_size, *cells))
    done = f"about {duration(total)} in all on {batch.model.device}; nothing was written"
    return [*table(rows), *room_lines(batch), done]


def room_lines(batch: Batch) -> list[str]:
    """How much space the results take, and how much there is, for each folder's disk."""
    needs: dict[int, tuple[Path, int]] = {}
    for job in batch.jobs:
        info = job.info
        if info is None or (batch.settings.skip_existing and job.is_done):
            continue
        target, fmt = streaming.target_of(job, info, batch.settings, batch.outscale)
        size = output_size(info.height, info.width, batch.outscale)
        folder, disk = room.disk_of(target.parent)
        need = room.expected_bytes(job, info, str(fmt), size, batch.settings.layout)
        needs[disk] = needs.get(disk, (folder, 0))[0], needs.get(disk, (folder, 0))[1] + need
    lines = []
    for folder, need in needs.values():
        free = room.free_bytes(folder)
        line = f"results take about {file_size(need)}; {file_size(free)} are free in {folder}"
        lines.append(line if need <= free else f"not enough room: {line}")
    return lines


def estimate(batch: Batch, job: Job, info: PictureInfo, speed: float) -> Estimate:
    """Guess from a picture's header.

    Args:
        batch: what it belongs to.
        job: the picture.
        info: its header.
        speed: seconds per input pixel of the network.
    """
    model, settings = batch.model, batch.settings
    height, width = output_size(info.height, info.width, batch.outscale)
    passes = 3 if info.channels > model.in_channels else 1  # RGB through a gray model
    pad = model.halo if settings.tile_pad is None else settings.tile_pad
    tile = 0 if settings.padding == "published" else settings.tile
    if tile == "auto":
        free = memory.free_bytes(model.device) // passes
        tile = memory.choose_tile(model, info.height, info.width, free, tile_pad=pad)
    cut = tiling.plan(info.height, info.width, tile, pad, model.align)
    rows, cols = ([i.read_size for i in axis] for axis in (cut.rows, cut.cols))
    how = model.spec.published_padding(model.config) if settings.padding == "published" else None
    if how is not None:
        rows, cols = ([side] for side in published_size(info.height, info.width, how))
    work = sum(rows) * sum(cols) * (passes + info.has_alpha) * (_MIRRORS if settings.tta else 1)
    samples = (info.channels + info.has_alpha) * info.depth // 8
    held = 0 if batch.streams(job) else (info.width * info.height + width * height) * samples
    return Estimate(
        size=(width, height),
        tiles=f"{len(cols)}x{len(rows)} of {cols[0]}x{rows[0]}" if len(cut) > 1 else "1",
        memory=held + memory.peak_bytes(model, max(rows), max(cols), passes),
        seconds=work * speed,
    )


def seconds_per_pixel(model: Model) -> float:
    """Time one small tile, after one that warms up."""
    unit = model.rule.multiple
    side = -(-_TIMED_SIDE // unit) * unit  # what the network grows it to is no work of a picture
    x = torch.zeros(1, model.in_channels, side, side, device=model.device)
    with torch.inference_mode():
        model(x).cpu()
        began = time.perf_counter()
        model(x).cpu()  # to the CPU: other devices work on after the call returns
    return (time.perf_counter() - began) / side**2
