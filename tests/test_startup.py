"""What the command loads before it computes. Times go to the report, as machines differ."""

from __future__ import annotations

import subprocess
import sys
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


def test_an_interrupt_while_it_loads_is_told_in_one_line() -> None:
    """Ctrl-C before the command line is imported: no traceback of Python's own."""
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'restore.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from restore.__main__ import main\n"
        "raise SystemExit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_the_package_alone_imports_nothing_else() -> None:
    """Until `__main__` runs, Ctrl-C is answered by a traceback of Python's own."""
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import restore\n"
        "print(sorted(set(sys.modules) - before - {'__future__'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("['restore']\n", "")
