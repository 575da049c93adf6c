"""What the command loads before it computes. Times go to the report, as machines differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import startup
from restore.commands.arguments import COMMANDS

Record = Callable[[str, object], None]


def test_the_first_picture_loads_little_beside_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    # other tests run GPU kernels on the CPU, and nobody else does
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    found = startup.ask(startup.smallest_upscale(tmp_path))
    record_property("seconds", found)
    assert found["exit"] == 0
    assert found["unwanted"] == []
    # the compiler alone takes longer than all of PyTorch
    assert found["total"] - found["pytorch"] < found["pytorch"], found


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=str)
def test_help_loads_no_pytorch(words: list[str], record_property: Record) -> None:
    found = startup.ask(words)
    record_property("seconds", found)
    assert (found["exit"], found["torch"], found["unwanted"]) == (0, False, [])


def test_what_the_clock_stands_at_is_the_median_of_processes() -> None:
    answers = [{"exit": 0, "torch": True, "unwanted": [], "total": t} for t in (2.0, 9.0, 3.0)]
    assert startup.median(answers) == {"total": 3.0}
