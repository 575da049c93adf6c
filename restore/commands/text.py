"""Outcomes and numbers in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from restore.commands.batch import Outcome
    from restore.upscaling import TileAgreement


def outcome_line(outcome: Outcome) -> str:
    """A finished picture: "photo.png 500x333 -> 2000x1332, 8 tiles, 12.3 s"."""
    tiles = 0 if outcome.report is None else outcome.report.tiles
    (w, h), (wide, high) = outcome.before, outcome.after
    return (
        f"{outcome.job.source} {w}x{h} -> {wide}x{high}, {plural(tiles, 'tile')}, "
        f"{duration(outcome.seconds)}"
    )


def details_line(outcome: Outcome) -> str:
    """Where the result is and how it was cut."""
    report = outcome.report
    if report is None:
        return str(outcome.target)
    size = f"at most {report.tile} pixels long" if report.tile else "the whole picture"
    return f"{outcome.target}; tiles: {size}, {report.tile_pad} pixels read around each"


def agreement_line(agreement: TileAgreement) -> str:
    """What --verify-tiles found."""
    if agreement.largest_difference == 0:
        return "tiles against the whole picture: no difference (infinite dB)"
    rounded = (
        "no difference after rounding to 8 bits (infinite dB)"
        if math.isinf(agreement.rounded_db)
        else f"{agreement.rounded_db:.2f} dB (8 bits)"
    )
    return (
        f"tiles against the whole picture: {rounded}, {agreement.unrounded_db:.2f} dB unrounded, "
        f"largest difference {agreement.largest_difference * 255:.3g} of 255"
    )


def summary_line(counts: Mapping[str, int], seconds: float) -> str:
    """The end of a run: "19 of 20 done, 1 failed in 2 min 03 s"."""
    found = {status: counts.get(status, 0) for status in ("done", "skipped", "failed")}
    parts = [f"{found['done']} of {sum(found.values())} done"]
    parts += [f"{found[status]} {status}" for status in ("skipped", "failed") if found[status]]
    return f"{', '.join(parts)} in {duration(seconds)}"


def duration(seconds: float) -> str:
    """Seconds for people: "12.3 s", "4 min 05 s", "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def plural(n: int, noun: str) -> str:
    """Say "1 tile" or "8 tiles"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
