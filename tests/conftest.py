"""Fixtures that every test may use, and what has to hold before any test module is imported."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import settings

# Without a GPU, Triton's interpreter runs its kernels, which has to be said before triton is
# imported; "auto" takes the same paths as without it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from restore.torchvision_remedies import declare_torchvision_operators

ROOT = Path(__file__).resolve().parents[1]

# one thread: the exact tests compare sums whose order depends on the number of threads
torch.set_num_threads(1)

# a slow machine is no failure; and a red run in CI has to be red again on the next try
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Test images and published numbers that lie beside the checkout, or skip."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("needs the folder ../shared: not beside this checkout")
    return path


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def spandrel() -> ModuleType:
    """The package spandrel, an independent reader of the same weight files, or skip."""
    declare_torchvision_operators()
    module: ModuleType = pytest.importorskip("spandrel")
    return module
