"""Packages that only some tasks need: imported when needed, and named when missing."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from restore.errors import RestoreError


def has_package(package: str) -> bool:
    """Whether a package is installed; it is not imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def missing(package: str, extra: str, task: str, why: str = "is not installed") -> str:
    """What to say where a task needs a package that is not there."""
    return f"{task}: needs the package {package}, which {why}; pip install 'restore-sr[{extra}]'"


def load_extra(package: str, extra: str, task: str, error: type[RestoreError]) -> Any:
    """Import a package of an extra.

    Args:
        package: its import name.
        extra: the extra of this project that brings it.
        task: what it is needed for; begins the message.
        error: what to raise.

    Raises:
        error: it is not installed or does not load; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    # pyvips raises OSError where the library behind it is missing
    except (ImportError, OSError) as failure:
        why = "is not installed" if not has_package(package) else f"does not load: {failure}"
        raise error(missing(package, extra, task, why)) from failure
