"""Fixtures of the tests of ops; see `interpreted.py`."""

from __future__ import annotations

from collections.abc import Iterator

import interpreted
import pytest


@pytest.fixture
def nan_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uninitialised memory holds NaN."""
    interpreted.fill_with_nan(monkeypatch)


@pytest.fixture(scope="module")
def quick_interpreter() -> Iterator[None]:
    """Where there is no GPU, the interpreter without what costs it most."""
    if interpreted.ON_GPU or not interpreted.HAS_TRITON:
        yield
        return
    with interpreted.hurried():
        yield
