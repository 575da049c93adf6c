"""What lets torchvision be imported, and what older packages import from it, in a newer place."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

MOVED = "torchvision.transforms.functional_tensor"  # gone since torchvision 0.17


@functools.cache  # a second declaration would be refused; and this one has to stay alive
def declare_torchvision_operators() -> torch.library.Library | None:
    """Let torchvision load beside a PyTorch without CUDA; call it before its first import.

    The wheel of torchvision on PyPI links to CUDA; where those libraries are absent its operators
    stay unknown, and its import fails on them. A declaration without an implementation is enough
    for the import. None where torchvision works, is imported already, or is not there.
    """
    found = None if "torchvision" in sys.modules else importlib.util.find_spec("torchvision")
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


def supply_functional_tensor() -> None:
    """Give torchvision the module `functional_tensor` where it has none any more.

    Its `rgb_to_grayscale`, all that BasicSR takes from it, is the one of `functional`.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        importlib.import_module(MOVED)
    except ModuleNotFoundError as error:
        if error.name != MOVED:
            raise
        module = ModuleType(MOVED, "Stands in for a module that torchvision no longer has.")
        functional = importlib.import_module("torchvision.transforms.functional")
        module.__dict__["rgb_to_grayscale"] = functional.rgb_to_grayscale
        sys.modules[MOVED] = module
