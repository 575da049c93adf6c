"""What the authors printed for a checkpoint, from published.yml.

A checkpoint is known by the name of its file, as the authors call it, where its configuration is
that of this file, else by its configuration.
Several checkpoints can share one (trained on other data): then nothing is published for it as long
as its file has a name of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from restore.archs._spec import ArchConfig, ArchSpec
from restore.datasets.card_files import find_card, plain_name
from restore.official import OfficialModel, official_models, published_as


@dataclass(frozen=True)
class Published:
    """One printed figure.

    Attributes:
        value: dB for PSNR and PSNR-B.
        decimals: that were printed.
        source: paper or page.
        key: of the checkpoint.
        channels: what it was counted on: y, rgb or gray.
    """

    value: float
    decimals: int
    source: str
    key: str
    channels: str


def published(
    keys: str | Sequence[str], dataset: str, level: int | None, metric: str
) -> Published | None:
    """The figure that was printed; None where there is none, or several checkpoints have one.

    Args:
        keys: of a checkpoint, or those that it may be; see `model_keys`.
        dataset: name of a set, any that its card has.
        level: scale, standard deviation of the noise (of 255), or JPEG quality; None for real
            noise and blur.
        metric: psnr, ssim, ssim_volume, ssim_uniform or psnr_b, with what it is counted on
            (psnr_y, ssim_rgb, psnr_gray) where both were printed.
    """
    names = [keys] if isinstance(keys, str) else keys
    table = _table()
    where = (_set_name(dataset), level or 0, metric)
    found = {
        figure.key: figure for name in names if (figure := table.get((plain_key(name), *where)))
    }
    return next(iter(found.values())) if len(found) == 1 else None


def model_keys(name: str, spec: ArchSpec, config: ArchConfig) -> tuple[str, ...]:
    """The checkpoints that a network may be: one if its file has the authors' name.

    Args:
        name: of the file, with or without folder and suffix.
        spec: of the network's architecture.
        config: its configuration.

    Returns:
        Keys as `published` takes them, also of checkpoints of which nothing was printed; none
        where the authors published no such network, or another one under this name.
    """
    same = published_as(spec, config)
    if _is_official(name):
        return (Path(name).name,) if _has_key(same, name) else ()
    exact = [model for model in same if model.config == config]
    return tuple(dict.fromkeys(key for model in exact or same for key in _keys_of(model)))


def is_misnamed(name: str, spec: ArchSpec, config: ArchConfig) -> bool:
    """Whether the authors gave this file name to a network of another configuration."""
    return _is_official(name) and not _has_key(published_as(spec, config), name)


def _is_official(name: str) -> bool:
    return _has_key(official_models(), name)


def _has_key(models: Sequence[OfficialModel], name: str) -> bool:
    here = plain_key(name)
    return any(plain_key(key) == here for model in models for key in _keys_of(model))


def figures_of(model: OfficialModel, file: str) -> dict[str, dict[str, Published]]:
    """All that was printed for one checkpoint, by set and by metric with what it is counted on.

    Args:
        model: whose weights it holds.
        file: its name; "" where nobody recorded it.
    """
    here = plain_key(file if file in model.files else _keys_of(model)[0])
    found: dict[str, dict[str, Published]] = {}
    for entry in _entries():
        printed = {_set_name(name): name for name in entry["sets"]}
        for level, cells in entry["rows"].items():
            if plain_key(entry["key"].format(level=level)) != here:
                continue
            if entry.get("task", model.task) != model.task:
                continue
            for (dataset, _, metric), figure in _row(entry, level, str(cells)):
                found.setdefault(printed[dataset], {})[f"{metric}_{figure.channels}"] = figure
    return found


def plain_key(name: str) -> str:
    """A file's name without folder, suffix and case; names of the same file become one."""
    stem = Path(name).name
    for suffix in (".pth", ".pt", ".safetensors"):
        stem = stem.removesuffix(suffix)
    return _others().get(stem, stem).casefold()


def _keys_of(model: OfficialModel) -> tuple[str, ...]:
    """Names of its files, or its variant and data where no file's name is known."""
    if model.files:
        return model.files
    return (f"{model.variant} ({model.data})",)


def _set_name(name: str) -> str:
    known = find_card(name)
    return known.name if known else plain_name(name)


@functools.cache
def _entries() -> tuple[Mapping[str, Any], ...]:
    text = resources.files("restore.bench").joinpath("published.yml").read_text(encoding="utf-8")
    entries: list[Mapping[str, Any]] = yaml.safe_load(text)
    return tuple(entries)


@functools.cache
def _others() -> dict[str, str]:
    """Key by another name of the same file."""
    return {
        other: entry["key"].format(level=level)
        for entry in _entries()
        for level, names in entry.get("also", {}).items()
        for other in names
    }


@functools.cache
def _table() -> dict[tuple[str, str, int, str], Published]:
    """Figures by (key, set, level, metric)."""
    table: dict[tuple[str, str, int, str], Published] = {}
    for entry in _entries():
        for level, cells in entry["rows"].items():
            for (dataset, _, metric), figure in _row(entry, level, str(cells)):
                key = plain_key(figure.key)
                table.setdefault((key, dataset, level, metric), figure)
                table[key, dataset, level, f"{metric}_{figure.channels}"] = figure
    return table


def _row(
    entry: Mapping[str, Any], level: int, cells: str
) -> Iterator[tuple[tuple[str, int, str], Published]]:
    key = entry["key"].format(level=level)
    for dataset, cell in zip(entry["sets"], cells.split(), strict=True):
        for metric, text in zip(entry["figures"], cell.split("/"), strict=False):
            if text != "-":
                decimals = len(text.partition(".")[2])
                figure = Published(float(text), decimals, entry["source"], key, entry["channels"])
                yield (_set_name(dataset), level, metric), figure
