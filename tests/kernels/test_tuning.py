"""Launch configurations that were measured: kept in a file, and read once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from restore.kernels import tuning
from restore.kernels.tuning import Launch, best, keep

DEFAULT, MEASURED = Launch(64, 64), Launch(128, 32, warps=8, stages=3)


def on_gpu(index: int) -> Any:
    """What tells a tensor's GPU."""
    return SimpleNamespace(is_cuda=True, device=torch.device("cuda", index))


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The file, on a machine with two GPUs of different kinds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("Fast", "Fast Small")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device.index])
    tuning._measured.cache_clear()
    yield tuning.cache_file()
    tuning._measured.cache_clear()


def test_what_was_measured_is_found_on_the_same_kind_of_gpu(cache: Path) -> None:
    assert best("op", "shape", on_gpu(0), DEFAULT) == DEFAULT
    keep("op", "shape", on_gpu(0), MEASURED)
    assert best("op", "shape", on_gpu(0), DEFAULT) == MEASURED
    tuning._measured.cache_clear()  # as in another process
    assert best("op", "shape", on_gpu(0), DEFAULT) == MEASURED
    for x, op, key in ((on_gpu(1), "op", "shape"), (on_gpu(0), "other", "shape")):
        assert best(op, key, x, DEFAULT) == DEFAULT
    assert best("op", "other", on_gpu(0), DEFAULT) == DEFAULT
    assert best("op", "shape", torch.zeros(1), DEFAULT) == DEFAULT


def test_nothing_that_was_measured_is_lost(cache: Path) -> None:
    keep("op", "shape", on_gpu(0), DEFAULT)
    keep("op", "shape", on_gpu(1), DEFAULT)
    keep("op", "other", on_gpu(0), MEASURED)
    keep("op", "shape", on_gpu(0), MEASURED)
    for x, key, launch in (
        (on_gpu(0), "shape", MEASURED),
        (on_gpu(0), "other", MEASURED),
        (on_gpu(1), "shape", DEFAULT),
    ):
        assert best("op", key, x, Launch(16, 16)) == launch
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_the_file_is_read_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep("op", "shape", on_gpu(0), MEASURED)
    reads: list[Path] = []
    read = Path.read_text

    def counted(path: Path, **how: Any) -> str:
        reads.append(path)
        return read(path, **how)

    monkeypatch.setattr(Path, "read_text", counted)
    for _ in range(3):
        assert best("op", "shape", on_gpu(0), DEFAULT) == MEASURED
        assert best("op", "other", on_gpu(0), DEFAULT) == DEFAULT
    assert reads == [cache]


@pytest.mark.parametrize(
    "found",
    ["", "[]", "{", json.dumps({"Fast op": 3}), json.dumps({"Fast op": {"shape": {"block_m": 1}}})],
)
def test_a_file_that_is_not_ours_changes_nothing(cache: Path, found: str) -> None:
    cache.parent.mkdir()
    cache.write_text(found)
    assert best("op", "shape", on_gpu(0), DEFAULT) == DEFAULT
