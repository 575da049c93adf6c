"""Readers of `tests/golden`, and the formulas that make the weights and inputs of its numbers."""

from __future__ import annotations

import functools
import gzip
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from restore.archs import ARCHS
from restore.archs._spec import ArchSpec

FOLDER = Path(__file__).parent / "golden"
ALL = Path(__file__).resolve().parents[2] / "shared" / "golden"  # more of them, where it is
DTYPES = {"float32": torch.float32, "int64": torch.int64}


def recipe(key: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The values of one parameter, from its official name and its shape; exact in float32."""
    random = np.random.RandomState(zlib.crc32(key.encode()))
    values = np.asarray(random.standard_normal(size=shape)).astype(np.float32)
    if not key.endswith("weight") or not shape:
        values = np.float32(0.2) * values
    elif len(shape) == 1:
        values = np.float32(1) + np.float32(0.1) * values
    else:
        values = values / np.float32(math.sqrt(math.prod(shape[1:])))
    if key.endswith("ngram_attn.qkv.weight"):
        values = values * np.float32(0.1)
    return np.asarray(values, dtype=np.float32)


def image(seed: int, shape: tuple[int, ...]) -> Tensor:
    """An input in 0..1, float32."""
    values = np.random.RandomState(seed).random_sample(shape)
    return torch.from_numpy(values.astype(np.float32))


def cotangent(shape: tuple[int, ...]) -> Tensor:
    """g of the stored gradients, which are those of sum(y * g); float64."""
    return torch.from_numpy(np.random.RandomState(2).standard_normal(shape))


def parameters(keys: Mapping[str, Any]) -> dict[str, Tensor]:
    """The parameters of a key list, with the formula's values, without buffers."""
    return {
        key: torch.from_numpy(np.asarray(recipe(key, tuple(entry["shape"]))))
        for key, entry in keys.items()
        if entry["kind"] == "param"
    }


def with_garbage(state: Mapping[str, Tensor], keys: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict in official order, with buffers whose shapes are right and values are not."""
    full = {}
    for key, entry in keys.items():
        if entry["kind"] == "param":
            full[key] = state[key]
        elif entry["dtype"] == "int64":
            full[key] = torch.full(entry["shape"], -(2**40))
        else:
            full[key] = torch.full(entry["shape"], math.nan)
    return full


@dataclass(frozen=True)
class Tiny:
    """One small network: class, settings, keys, and what it computes."""

    name: str
    arch: str
    config: dict[str, Any]
    keys: dict[str, Any]
    numbers: Mapping[str, npt.NDArray[Any]]

    @property
    def inputs(self) -> list[str]:
        """Tags of the inputs: a, b, c."""
        return [tag for tag in "abc" if f"y_{tag}" in self.numbers]

    def image(self, tag: str) -> Tensor:
        """One input, float32."""
        shape = tuple(int(side) for side in self.numbers[f"shape_{tag}"])
        return image(int(self.numbers[f"seed_{tag}"]), shape)

    def tensor(self, name: str) -> Tensor:
        """One stored array."""
        return torch.from_numpy(self.numbers[name])

    def gradients(self, tag: str) -> dict[str, Tensor]:
        """Stored gradients for one input, by parameter."""
        start = f"gp_{tag}/"
        return {
            name.removeprefix(start): self.tensor(name)
            for name in self.numbers
            if name.startswith(start)
        }

    @property
    def state(self) -> dict[str, Tensor]:
        """The parameters."""
        return parameters(self.keys)


@functools.cache
def tiny(name: str) -> Tiny:
    """One small network, such as "swinir_1"."""
    with np.load(FOLDER / "tiny" / f"{name}.npz") as stored:
        numbers = {key: stored[key] for key in stored.files}
    meta = json.loads(bytes(numbers.pop("meta")).decode())
    return Tiny(name, meta["class"], meta["config"], meta["keys"], numbers)


@functools.cache
def skeleton(variant: str) -> dict[str, Any]:
    """Key list and settings of an official variant."""
    with gzip.open(FOLDER / "skeletons" / f"{variant}.json.gz", "rt", encoding="utf-8") as file:
        content: dict[str, Any] = json.load(file)
    return content


def empty_state(variant: str) -> dict[str, Tensor]:
    """All keys of an official file, buffers too, with zeros that take no memory."""
    return {
        key: torch.zeros((), dtype=DTYPES[entry["dtype"]]).expand(entry["shape"])
        for key, entry in skeleton(variant)["keys"].items()
    }


def tiny_names() -> list[str]:
    return sorted(path.stem for path in (FOLDER / "tiny").glob("*.npz"))


def variants() -> list[str]:
    names = (path.name for path in (FOLDER / "skeletons").glob("*.json.gz"))
    return sorted(name.removesuffix(".json.gz") for name in names)


def committed_outputs() -> set[str]:
    """Variants whose full-size outputs are in `tests/golden`."""
    return {path.stem for path in (FOLDER / "outputs").glob("*.npz")}


def outputs() -> dict[str, Path]:
    """Files of full-size outputs by variant: the committed ones, and those beside the checkout."""
    paths = [*(ALL / "outputs").glob("*.npz"), *(FOLDER / "outputs").glob("*.npz")]
    return dict(sorted((path.stem, path) for path in paths))


def spec_of(arch: str) -> ArchSpec:
    """The architecture of an official class name; skips where it is not there yet."""
    found = [spec for spec in ARCHS if spec.name == arch]
    if not found:
        pytest.skip(f"architecture {arch} not yet in ARCHS")
    return found[0]


def is_known(arch: str) -> bool:
    """Whether the architecture is there yet."""
    return any(spec.name == arch for spec in ARCHS)


def small_cases(arch: str) -> list[Tiny]:
    """The small networks of an architecture, smallest first."""
    cases = [case for case in map(tiny, tiny_names()) if case.arch == arch]
    return sorted(cases, key=lambda case: sum(math.prod(v["shape"]) for v in case.keys.values()))


# settings that leave no trace in official files either, buffers or not
NEVER_TOLD = {"Uformer": ("img_size", "shift_flag")}


def never_told(official: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an official variant that a user must give even with the official file."""
    return {name: official["config"][name] for name in NEVER_TOLD.get(official["class"], ())}


WINDOWS = ("block_name", "split_size_0", "split_size_1")  # of CAT


def told_by_buffers(official: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the buffers of an official variant tell and other variants share shapes."""
    config = official["config"]
    shared = official["class"] == "CAT" and (config["mlp_ratio"], config["in_chans"]) == (4, 3)
    return {name: config[name] for name in WINDOWS} if shared else {}


def untold(case: Tiny) -> dict[str, Any]:
    """The settings of a small network that leave no trace in its weights: what a user must give."""
    names = {
        **NEVER_TOLD,
        "HiT_SIR": ("img_size", "base_win_size", "hier_win_ratios"),
        "HiT_SRF": ("img_size", "base_win_size", "hier_win_ratios"),
        "HiT_SNG": ("img_size",),
        "HAT": ("img_size", "conv_scale"),
        "SRFormer": ("img_size",),
        "ATD": ("img_size", "category_size"),
        "CAT": (*WINDOWS, "img_range"),
        "CAT_Unet": ("split_size_0",),
    }.get(case.arch, ())
    return {name: case.config[name] for name in names}
