"""Other packages that read the same weights, made to import."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import torch


def spandrel() -> ModuleType:
    """The package spandrel.

    Raises:
        ImportError: it, or something it needs, is not installed.
    """
    schemas = declare_torchvision_operators()
    module = importlib.import_module("spandrel")
    del schemas  # needed until torchvision has been imported
    return module


def declare_torchvision_operators() -> torch.library.Library | None:
    """Let torchvision, which spandrel imports, load beside a PyTorch without CUDA.

    The wheel of torchvision on PyPI links to CUDA; where those libraries are absent its operators
    stay unknown, and its first import fails on them. A declaration without an implementation is
    enough for the import. None where torchvision works, or is not there.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return None
    compiled = sorted(Path(found.submodule_search_locations[0]).glob("_C*.so"))
    try:
        for library in compiled:
            torch.ops.load_library(str(library))
    except OSError:
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return operators
    return None
