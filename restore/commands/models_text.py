"""Official models in words: the list, one in full, and facts for programs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from restore.bench.published import Published
from restore.catalogue.cache import is_here, part_bytes, stored_path
from restore.catalogue.entries import Entry
from restore.catalogue.getting import by_hand
from restore.commands.info import file_size, indented, table
from restore.commands.text import plural

_SECOND_SET = "Urban100"  # beside the first that was printed, as it tells networks apart best
_FOOTER = """
{count}. To download: restore models get NAME. To use: restore upscale PICTURE -n NAME
All of one: restore models show NAME. Some: --family, --scale, --task"""


def facts_of_entry(entry: Entry) -> dict[str, Any]:
    """What --json writes of an official model; null where a fact is not known."""
    model = entry.model
    return {
        "kind": "official",
        "name": entry.name,
        "family": model.spec.family,
        "architecture": model.spec.name,
        "variant": model.variant,
        "task": model.task,
        "scale": model.scale,
        "channels": model.spec.in_channels(model.config),
        "data": model.data,
        "licence": model.spec.licence,
        "file": entry.file or None,
        "bytes": entry.size,
        "sha256": entry.sha256,
        "page": entry.page,
        "url": entry.url,
        "published": {
            dataset: {metric: figure.value for metric, figure in figures.items()}
            for dataset, figures in entry.published.items()
        },
        "cached": str(stored_path(entry)) if is_here(entry) else None,
    }


def list_lines(entries: Sequence[Entry]) -> list[str]:
    """Official models as tables, one for each source and task."""
    rows = [("official model", "size", "SHA-256", "published PSNR, dB", "copy")]
    lines = table([*rows, *map(_row, entries)])
    shown = [lines[0]]
    for heading, group in itertools.groupby(
        zip(entries, lines[1:], strict=True), lambda pair: _heading(pair[0])
    ):
        shown += ["", heading, *(f"  {line}" for _, line in group)]
    count = plural(len(entries), "official model")
    return [f"  {shown[0]}", *shown[1:], *_FOOTER.format(count=count).splitlines()]


def _heading(entry: Entry) -> str:
    spec = entry.model.spec
    return f"{spec.family}, {entry.model.task} ({spec.licence}; {entry.page})"


def _row(entry: Entry) -> tuple[str, ...]:
    size = "unknown" if entry.size is None else file_size(entry.size)
    checksum = "known" if entry.sha256 else "unknown"
    return entry.name, size, checksum, _psnr_words(entry.published), _state(entry)


def _state(entry: Entry) -> str:
    if is_here(entry):
        return "in the cache"
    if stored_path(entry).exists():
        return "damaged: of another size"
    if kept := part_bytes(entry):
        return f"interrupted at {file_size(kept)}"
    return "to download" if entry.url else "by browser"


def _psnr_words(published: Mapping[str, Mapping[str, Published]]) -> str:
    found = {name: figure for name in published if (figure := _psnr(published[name]))}
    first = next(iter(found), None)
    names = dict.fromkeys(name for name in (first, _SECOND_SET) if name in found)
    return ", ".join(f"{name} {_number(found[name])}" for name in names) or "none"


def _psnr(figures: Mapping[str, Published]) -> Published | None:
    wanted = ("psnr_y", "psnr_rgb", "psnr_gray")
    return next((figures[metric] for metric in wanted if metric in figures), None)


def _number(figure: Published) -> str:
    return f"{figure.value:.{figure.decimals}f}"


def entry_lines(entry: Entry) -> list[str]:
    """All that is known of one."""
    model = entry.model
    size = "size unknown" if entry.size is None else f"{entry.size:,} bytes"
    pairs = [
        ("network", f"{model.variant} ({model.spec.name}, {model.spec.paper})"),
        ("task", f"{model.task}, x{model.scale}"),
        ("trained on", model.data),
        ("licence", model.spec.licence),
        ("file", f"{entry.file or 'name not recorded'}, {size}"),
        ("SHA-256", entry.sha256 or "unknown: nobody publishes it"),
        ("page", entry.page),
    ]
    for dataset, figures in entry.published.items():
        told = ", ".join(f"{metric} {_number(figure)}" for metric, figure in figures.items())
        pairs.append(("published", f"{dataset}: {told}"))
    sources = {f.source: None for figures in entry.published.values() for f in figures.values()}
    pairs += [("figures of", source) for source in sources]
    if is_here(entry):
        pairs.append(("copy", str(stored_path(entry))))
        pairs.append(("use", f"restore upscale PICTURE -n {entry.name}"))
    elif entry.url:
        pairs.append(("address", entry.url))
        pairs.append(("to get it", f"restore models get {entry.name}"))
    else:
        pairs.append(("to get it", by_hand(entry)))
    return [entry.name, *indented(pairs)]
