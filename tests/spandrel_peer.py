"""Small networks beside spandrel's, which reads the same weight files with code of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from golden_data import image, recipe

from restore.archs._spec import ArchSpec
from restore.loading import load
from restore.model import Model


def build(spec: ArchSpec, config: Mapping[str, Any]) -> Model:
    """A network with the formula's weights."""
    settings = spec.config().replaced(config, "test")
    state = {
        key: torch.from_numpy(recipe(key, tuple(value.shape)))
        for key, value in spec.build(settings).state_dict().items()
    }
    return load(state, device="cpu", config=dict(settings))


def assert_the_same_output(
    model: Model, theirs: Any, shape: tuple[int, int], dtype: torch.dtype = torch.float32
) -> None:
    """Compare both on two images of `shape`; theirs is a descriptor that spandrel made."""
    assert theirs.architecture.id == model.arch
    assert theirs.scale == model.scale
    # what weights do not tell spandrel assumes too; the comparison is of the networks
    if "img_range" in model.config:
        theirs.model.img_range = model.config["img_range"]
    x = image(0, (2, model.in_channels, *shape)).to(dtype)
    model.module.to(dtype)
    with torch.inference_mode():
        ours, other = model(x), theirs.model.to(dtype).cpu().eval()(x)
    # both are that close to the exact result, relative to its largest value
    each = {torch.float32: 1e-5, torch.float64: 1e-10}[dtype]
    assert (ours - other).abs().max() <= 2 * each * other.abs().max()


def assert_it_loads_what_we_save(
    model: Model,
    spandrel: ModuleType,
    path: Path,
    shape: tuple[int, int],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Save to `path`, let spandrel load it, and compare."""
    model.save(path)
    assert_the_same_output(model, spandrel.ModelLoader("cpu").load_from_file(path), shape, dtype)
