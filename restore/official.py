"""The models that the authors published: their settings, tasks and files, from official.yml."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from restore.archs import ARCHS
from restore.archs._spec import ArchConfig, ArchSpec


@dataclass(frozen=True)
class OfficialModel:
    """One published configuration at one scale.

    Attributes:
        spec: its architecture.
        config: its whole configuration.
        task: such as "super-resolution".
        data: what it was trained on.
        files: names of its weight files; empty where none was published or no name is known.
        source: address at which the authors offer them.
        offered: the files as they lie there; "" for one whose name is not known.
        marks: of each of them, what tells it apart from others of the variant; "" where nothing
            has to.
    """

    spec: ArchSpec
    config: ArchConfig
    task: str
    data: str
    files: tuple[str, ...]
    source: str
    offered: tuple[str, ...]
    marks: tuple[str, ...]

    @property
    def variant(self) -> str:
        """What a person calls it, such as "SwinIR-M classical x4"."""
        return self.spec.variant(self.config)

    @property
    def scale(self) -> int:
        """Output pixels per input pixel, along each axis."""
        return self.spec.scale(self.config)


@functools.cache
def official_models() -> tuple[OfficialModel, ...]:
    """All published models, in the order of official.yml."""
    import yaml  # few weights need this list

    text = resources.files("restore").joinpath("official.yml").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = yaml.safe_load(text)
    return tuple(_model(entry, scale) for entry in entries for scale in entry.get("scales", [None]))


def published_as(spec: ArchSpec, config: ArchConfig) -> tuple[OfficialModel, ...]:
    """The published models that have this configuration, whatever patches they were trained on."""
    return tuple(
        model
        for model in official_models()
        if model.spec is spec and {**model.config, "img_size": None} == {**config, "img_size": None}
    )


def _model(entry: Mapping[str, Any], scale: int | None) -> OfficialModel:
    spec = next(spec for spec in ARCHS if spec.name == entry["arch"])
    values = dict(entry["config"]) if scale is None else {**entry["config"], "upscale": scale}
    offered = _names(entry.get("offered", entry["files"]), scale)
    return OfficialModel(
        spec,
        spec.config().replaced(values, "official.yml"),
        entry["task"],
        entry["data"],
        _names(entry["files"], scale),
        entry["source"],
        offered,
        tuple(entry.get("marks", [""] * len(offered))),
    )


def _names(given: list[str] | Mapping[int, list[str]], scale: int | None) -> tuple[str, ...]:
    """The files of one scale, of those of all or of those by scale."""
    names = given if isinstance(given, list) else given.get(scale or 1, [])
    return tuple(name.format(scale=scale) for name in names)
