"""Other packages that read the same weights, made to import."""

from __future__ import annotations

import importlib
from types import ModuleType

from restore.torchvision_remedies import declare_torchvision_operators


def spandrel() -> ModuleType:
    """The package spandrel.

    Raises:
        ImportError: it, or something it needs, is not installed.
    """
    declare_torchvision_operators()
    return importlib.import_module("spandrel")
