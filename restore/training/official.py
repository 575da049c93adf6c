"""Names and keys of BasicSR's and the papers' option files, in terms of `restore.training.options`.

The tables are in official.yml.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import yaml

from restore.errors import UsageError
from restore.training.option_file import Scalar, Value

GRAD_CLIP = 0.01  # the norm that `use_grad_clip: true` stands for
# task of CAT's paired data sets, to what our keys say; SR is what they do anyway
TASKS: dict[str, dict[str, Scalar]] = {"SR": {}, "CAR": {"color": "gray"}}


class NoEffectWarning(UserWarning):
    """An option file has a key that changes nothing."""


@dataclass(frozen=True)
class ModelKind:
    """What a model type means.

    Attributes:
        gan: trains a discriminator too.
        degrades: makes lq from gt by the second-order chain.
        padding: how whole pictures grow in tests: as `restore.Model` takes it.
        self_ensemble: tests are means over 8 mirrored and turned pictures.
    """

    gan: bool = False
    degrades: bool = False
    padding: Literal["reflect", "published"] = "reflect"
    self_ensemble: bool = False


@functools.cache
def tables() -> dict[str, dict[str, Any]]:
    """official.yml."""
    text = resources.files("restore.training").joinpath("official.yml").read_text(encoding="utf-8")
    read: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return read


def model_kind(value: Value) -> ModelKind:
    """What `model_type` means; UsageError names the nearest known one."""
    known = tables()["model_types"]
    return ModelKind(**known[_known_name(value, known, "model_type")])


def translated(root: Value) -> Value:
    """An option file in our terms.

    Raises:
        UsageError: a type that is none of those known.

    Warns:
        NoEffectWarning: once for every key that changes nothing.
    """
    root = _without_idle_keys(root)
    for old, new in tables()["renamed"].items():
        root = _renamed(root, old.split("."), new)
    sections = dict(root.section or {})
    datasets = sections.get("datasets")
    if datasets and datasets.section:
        idle: list[str] = []
        made = {key: _dataset(key, value, idle) for key, value in datasets.section.items()}
        warn_of_no_effect(idle, "datasets.*.task", "pairs are read as they are anyway")
        sections["datasets"] = Value(made, datasets.place)
    sections = _patch_size(sections)
    sections = _progressive(sections)
    if train := _section(sections, "train"):
        sections["train"] = Value(_train(train), sections["train"].place)
    val = _section(sections, "val")
    metrics = _section(val, "metrics") if val else None
    if val and metrics:
        named = {
            key: _typed(value, "metric_types", f"val.metrics.{key}.type")
            for key, value in metrics.items()
        }
        told = {**val, "metrics": Value(named, val["metrics"].place)}
        sections["val"] = Value(told, sections["val"].place)
    return Value(sections, root.place)


def _section(sections: dict[str, Value], key: str) -> dict[str, Value] | None:
    return sections[key].section if key in sections else None


def _known_name(value: Value, known: dict[str, Any], key: str) -> str:
    name = str(value.content)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"{value.place}: key {key!r} is {value}; {hint}known: {', '.join(known)}")
    return name


def _typed(value: Value, table: str, key: str) -> Value:
    """A section whose `type` is in our terms; our own names stay."""
    section = value.section
    if not section or "type" not in section:
        return value
    known = tables()[table]
    kind = section["type"]
    if kind.content in known.values():
        return value
    name = known[_known_name(kind, known, key)]
    return Value({**section, "type": Value(name, kind.place, kind.text)}, value.place)


def _without_idle_keys(root: Value) -> Value:
    for pattern, reason in tables()["no_effect"].items():
        found = [value for value in _matches(root, pattern.split(".")) if value.content is not None]
        warn_of_no_effect([value.place for value in found], pattern, reason)
        root = _changed(root, pattern.split("."), lambda _: None)
    return root


def warn_of_no_effect(places: Sequence[str], key: str, reason: str) -> None:
    """One NoEffectWarning for a key, wherever it stands; none if it stands nowhere."""
    if places:
        first, *more = places
        file = first.rpartition(":")[0]
        lines = [place.removeprefix(f"{file}:") for place in more]
        warnings.warn(
            f"{', '.join([first, *lines])}: key {key!r} has no effect: {reason}",
            NoEffectWarning,
            stacklevel=2,
        )


def _matches(value: Value, path: list[str]) -> Iterator[Value]:
    """Values at a path, in which "*" is any key."""
    if not path:
        yield value
        return
    for key, item in (value.section or {}).items():
        if path[0] in ("*", key):
            yield from _matches(item, path[1:])


def _changed(
    value: Value, path: list[str], change: Callable[[Value], tuple[str, Value] | None]
) -> Value:
    """A tree where `change` gives values at a path their new key and value, or takes them out."""
    if value.section is None:
        return value
    made: dict[str, Value] = {}
    for key, item in value.section.items():
        if path[0] not in ("*", key):
            made[key] = item
        elif path[1:]:
            made[key] = _changed(item, path[1:], change)
        elif changed := change(item):
            made[changed[0]] = changed[1]
    return Value(made, value.place)


def _renamed(root: Value, path: list[str], new: str) -> Value:
    return _changed(root, path, lambda item: (new, item))


def _dataset(key: str, value: Value, idle: list[str]) -> Value:
    section = value.section
    if section is None or "type" not in section:
        return value
    kind = section["type"].content
    section = dict(section)
    task = section.get("task")
    if task is not None and kind in ("PairedImageDataset", "Dataset_PairedImage"):
        del section["task"]
        told = TASKS[_known_name(task, TASKS, f"datasets.{key}.task")]
        if not told:
            idle.append(task.place)
        for name, content in told.items():
            section.setdefault(name, Value(content, task.place, str(content)))
    if "geometric_augs" in section:
        both = section.pop("geometric_augs")
        section = {"use_hflip": both, "use_rot": both, **section}
    return _typed(Value(section, value.place), "dataset_types", f"datasets.{key}.type")


def _patch_size(sections: dict[str, Value]) -> dict[str, Value]:
    """Real-ESRGAN's patches have the size that stands at the top level."""
    size = sections.pop("gt_size", None)
    datasets = _section(sections, "datasets")
    train = _section(datasets, "train") if datasets else None
    if size is None or datasets is None or train is None:
        return sections if size is None else {**sections, "gt_size": size}
    if "gt_size" in train and train["gt_size"].content != size.content:
        reason = f"patches have the gt_size of {size.place}"
        warn_of_no_effect([train["gt_size"].place], "datasets.train.gt_size", reason)
    made = {**datasets, "train": Value({**train, "gt_size": size}, datasets["train"].place)}
    return {**sections, "datasets": Value(made, sections["datasets"].place)}


def _progressive(sections: dict[str, Value]) -> dict[str, Value]:
    """Restormer's lists of patch sizes, batch sizes and iterations become `train.progressive`."""
    datasets = _section(sections, "datasets")
    data = _section(datasets, "train") if datasets else None
    train = _section(sections, "train")
    names = ("iters", "gt_sizes", "mini_batch_sizes")
    if datasets is None or data is None or train is None or names[1] not in data:
        return sections
    columns = []
    for name in names:
        column = data[name].content if name in data else None
        if not isinstance(column, tuple) or not all(type(v.content) is int for v in column):
            place = (data.get(name) or datasets["train"]).place
            raise UsageError(
                f"{place}: key 'datasets.train.{name}' is {data.get(name, 'missing')}; expected a "
                "list of whole numbers, as long as gt_sizes"
            )
        columns.append(column)
    if len({len(column) for column in columns}) != 1:
        lengths = ", ".join(f"{n} {len(c)}" for n, c in zip(names, columns, strict=True))
        raise UsageError(f"{data['gt_sizes'].place}: lists of unequal length: {lengths}")
    ends = itertools.accumulate(int(str(length.content)) for length in columns[0])
    place = data["gt_sizes"].place
    stages = tuple(
        Value(
            {
                "start": Value(start, length.place, str(start)),
                "gt_size": size,
                "batch_size_per_gpu": batch,
            },
            place,
        )
        for start, length, size, batch in zip([0, *ends], *columns, strict=False)
    )
    rest = {key: value for key, value in data.items() if key not in names}
    made = {**datasets, "train": Value(rest, datasets["train"].place)}
    return {
        **sections,
        "datasets": Value(made, sections["datasets"].place),
        "train": Value({"progressive": Value(stages, place), **train}, sections["train"].place),
    }


def _train(train: dict[str, Value]) -> dict[str, Value]:
    clip = train.get("use_grad_clip")
    if clip is None:
        return train
    rest = {key: value for key, value in train.items() if key != "use_grad_clip"}
    if not isinstance(clip.content, bool):
        raise UsageError(
            f"{clip.place}: key 'train.use_grad_clip' is {clip}; expected true or false"
        )
    norm = GRAD_CLIP if clip.content else 0.0
    return {"grad_clip": Value(norm, clip.place, str(norm)), **rest}
