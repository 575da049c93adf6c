"""What can be said of weight files, pictures, built-in models and architectures without running."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import safe_open

from restore.checkpoint import looks_like_weights
from restore.costs import parameters_and_multiply_adds
from restore.errors import CheckpointError, UsageError, printable
from restore.image_io import probe
from restore.loading import builtin_names, load, load_builtin, no_builtin, official_copy
from restore.model import Model
from restore.official import published_as

WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
Facts = dict[str, Any]  # what --json writes: names to numbers, strings, lists and dicts of them


def is_weights(name: str) -> bool:
    """Whether a name is that of a weight file, by its suffix or by what the file begins with."""
    path = Path(name)
    return path.suffix.lower() in WEIGHT_SUFFIXES or looks_like_weights(path)


def facts_of(
    name: str, *, arch: str | None = None, config: Mapping[str, Any] | None = None
) -> Facts:
    """Facts of a weight file, a built-in model or a picture, whichever the name is of.

    Args:
        name: of the file, built-in model, or official model in the cache.
        arch: of a weight file; see `restore.load`.
        config: the same.

    Raises:
        CheckpointError: weights that cannot be read or are not recognised.
        ImageError: a picture that cannot be read, or a file that is neither.
        UsageError: there is no such file and no such built-in model, or an official model has
            this name and is not in the cache.
    """
    path = Path(name)
    if not path.exists() and (copy := official_copy(name)):
        path = copy
    if is_weights(str(path)):
        return _of_weights(path, arch, config)
    if os.path.lexists(path):
        return _of_picture(path)
    if name in builtin_names():
        return {"file": name, **_of_model(load_builtin(name, device="cpu")), **_builtin(name)}
    raise UsageError(f"{name}: no such file, and {no_builtin(name)}")


def _of_picture(path: Path) -> Facts:
    info = probe(path)
    return {
        "file": str(path),
        "kind": "picture",
        "format": info.fmt,
        "width": info.width,
        "height": info.height,
        "channels": info.channels,
        "bits": info.depth,
        "alpha": info.has_alpha,
        "frames": info.n_frames,
        "bytes": sum(part.stat().st_size for part in [path, *path.rglob("*")] if part.is_file()),
    }


def _of_weights(path: Path, arch: str | None, config: Mapping[str, Any] | None) -> Facts:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load(path, device="cpu", arch=arch, config=config)
    doubts = [str(warning.message) for warning in caught]
    return {"file": str(path), **_of_model(model), "notes": doubts, "bytes": path.stat().st_size}


def _of_model(model: Model) -> Facts:
    rule = model.rule
    published = published_as(model.spec, model.config)
    return {
        "kind": "model",
        "architecture": model.arch,
        "family": model.spec.family,
        "variant": model.variant,
        "paper": model.spec.paper,
        "scale": model.scale,
        "channels": model.in_channels,
        "channels_of_result": model.out_channels,
        "parameters": model.num_parameters,
        "multiply_adds_per_pixel": parameters_and_multiply_adds(model.spec, model.config)[1],
        "windows": model.spec.windows(model.config),
        "published": [
            {"task": found.task, "data": found.data, "files": list(found.files)}
            for found in published
        ],
        "licence_of_official_weights": model.spec.licence,
        "input": {
            "padded_to_multiples_of": rule.multiple,
            "least_side": rule.minimum,
            "tile_alignment": rule.align,
            "tile_pad": rule.halo,
        },
        "key": model.checkpoint_key,
        "recognised_by": list(model.evidence),
        "config": dict(model.config),
    }


def builtin_facts() -> list[Facts]:
    """Name, size and stored metadata of every built-in model."""
    return [_builtin(name) for name in builtin_names()]


def _builtin(name: str) -> Facts:
    with resources.as_file(resources.files("restore") / "weights" / f"{name}.safetensors") as path:
        try:
            with safe_open(str(path), framework="numpy") as file:
                stored = file.metadata() or {}
        except Exception as error:  # the reader's own type is not exported by every version
            raise CheckpointError(
                f"{path}: damaged ({error}); install the package again"
            ) from error
        size = path.stat().st_size
    decoded = {key: _decoded(value) for key, value in stored.items() if key != "format"}
    return {"name": name, "bytes": size, "metadata": decoded}


def _decoded(text: str) -> Any:
    """A metadata value, which the format has as text, as what it is if it is JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def builtin_lines(facts: list[Facts]) -> list[str]:
    """The list of built-in models as a table."""
    rows = [("model", "size", "licence", "Set5 PSNR (Y)")]
    for entry in facts:
        found = dict(_flat(entry["metadata"]))
        score = next((v for k, v in found.items() if "set5" in k.lower() and "psnr" in k), None)
        licence = found.get("licence") or found.get("license") or "not stated"
        psnr = f"{score:.2f} dB" if isinstance(score, (int, float)) else "not stated"
        rows.append((entry["name"], file_size(entry["bytes"]), str(licence), psnr))
    return table(rows)


def _flat(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names and values of a tree of mappings, each under its own last name."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        pairs += _flat(value) if isinstance(value, Mapping) else [(key, value)]
    return pairs


def lines_of(facts: Facts) -> list[str]:
    """Facts for people: the name, then a line each."""
    if facts["kind"] == "picture":
        return [facts["file"], *indented(_picture_pairs(facts))]
    pairs = [
        ("variant", facts["variant"]),
        ("network", f"{facts['architecture']} ({facts['paper']})"),
        ("scale", f"x{facts['scale']}" if facts["scale"] > 1 else "x1 (keeps the size)"),
        ("pictures", _colours(facts["channels"], facts["channels_of_result"])),
        ("parameters", f"{facts['parameters']:,}"),
        ("multiply-adds", f"{facts['multiply_adds_per_pixel']:,.0f} for each input pixel"),
        ("windows", facts["windows"]),
        ("size", file_size(facts["bytes"])),
        ("input", _input_text(facts["input"])),
        ("weights under", facts["key"] or "no key"),
        *_published_pairs(facts),
        *(("recognised by", sentence) for sentence in facts["recognised_by"]),
        *(("note", sentence) for sentence in facts.get("notes", ())),
        *(("metadata", f"{k}: {v}") for k, v in _flat(facts.get("metadata", {}))),
        ("config", ", ".join(f"{k}={v}" for k, v in facts["config"].items())),
    ]
    return [facts["file"], *indented(pairs)]


def _colours(taken: int, made: int) -> str:
    if taken == made and taken in (1, 3):
        return "gray" if taken == 1 else "RGB"
    return f"none: takes {taken} channels and makes {made}; for tensors, by restore.load(...)(x)"


def _published_pairs(facts: Facts) -> list[tuple[str, str]]:
    pairs = []
    for entry in facts["published"]:
        files = ", ".join(entry["files"]) or "no file name known"
        pairs.append(("published as", f"{files} ({entry['task']}; {entry['data']})"))
    if pairs:
        pairs.append(("licence", f"{facts['licence_of_official_weights']} (official weights)"))
    return pairs


def architecture_facts() -> list[Facts]:
    """What is known of every architecture and published model, without a weight file."""
    text = resources.files("restore").joinpath("architectures.json").read_text(encoding="utf-8")
    rows: list[Facts] = json.loads(text)
    return rows


def architecture_lines(facts: list[Facts]) -> list[str]:
    """The list of architectures as a table."""
    rows = [("type", "model", "task", "million parameters", "thousand multiply-adds a pixel")]
    for entry in facts:
        parameters = " / ".join(f"{n / 1e6:.2f}" for n in entry["parameters"])
        adds = " / ".join(f"{n / 1e3:,.0f}" for n in entry["multiply_adds_per_pixel"])
        rows.append((entry["arch"], entry["model"], entry["task"], parameters, adds))
    return table(list(dict.fromkeys(rows)))


def _input_text(rule: Mapping[str, int]) -> str:
    return (
        f"any size; padded to multiples of {rule['padded_to_multiples_of']}, at least "
        f"{rule['least_side']}; tiles aligned to {rule['tile_alignment']}, "
        f"tile_pad {rule['tile_pad']}"
    )


def _picture_pairs(facts: Facts) -> list[tuple[str, str]]:
    colours = "gray" if facts["channels"] == 1 else "RGB"
    depth = "32-bit float" if facts["bits"] == 32 else f"{facts['bits']}-bit"
    pairs = [
        ("format", facts["format"]),
        ("size", f"{facts['width']} x {facts['height']} pixels, {file_size(facts['bytes'])}"),
        ("samples", f"{depth} {colours}{' and alpha' if facts['alpha'] else ''}"),
    ]
    if facts["frames"] != 1:
        pairs.append(("frames", f"{facts['frames']}: split it into single pictures to restore it"))
    return pairs


def indented(pairs: list[tuple[str, str]]) -> list[str]:
    """Names and values as lines; a name that comes again is not repeated."""
    width = max(len(name) for name, _ in pairs)
    shown, before = [], ""
    for name, value in pairs:
        shown.append(f"  {name if name != before else '':<{width}}  {value}")
        before = name
    return shown


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of cells as lines with aligned columns; the last column is not padded."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]


def file_size(n: float) -> str:
    """Bytes for people: "3.1 MiB"."""
    power = min(4, int(math.log2(n) // 10)) if n >= 1 else 0
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{n / 1024**power:.{1 if power else 0}f} {unit}"
