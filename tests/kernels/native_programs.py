"""Building the native library, and programs in C++ that call it, as a compiler of choice does."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest


def sources(root: Path) -> list[Path]:
    """Those of the library."""
    return sorted((root / "kernels" / "native").glob("*.cpp"))


def flags_of_builds(root: Path) -> tuple[str, ...]:
    """What setup.py tells the compiler."""
    tree = ast.parse((root / "setup.py").read_text(encoding="utf-8"))
    (flags,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLAGS"
    ]
    return tuple(eval(compile(ast.Expression(flags), "setup.py", "eval")))


class Compiler(NamedTuple):
    """A compiler and what it is told each time."""

    name: str
    flags: tuple[str, ...]

    def objects(self, files: Sequence[Path], root: Path, folder: Path) -> list[Path]:
        """Compile each file into the folder."""
        include = root / "kernels" / "native"

        def compile_one(file: Path) -> Path:
            made = folder / f"{file.stem}.o"
            self.call("-I", include, "-fPIC", "-c", file, "-o", made)
            return made

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(compile_one, files))

    def link(self, objects: Sequence[Path], out: Path, *flags: str) -> Path:
        """Make a library or a program."""
        self.call(*objects, *flags, "-o", out)
        return out

    def call(self, *arguments: str | Path) -> None:
        """Run it; skip the test where it lacks a library."""
        done = subprocess.run(
            [self.name, *self.flags, *arguments], capture_output=True, text=True, check=False
        )
        if "cannot find" in done.stderr:
            pytest.skip(f"{self.name} lacks a library: {done.stderr.strip().splitlines()[0]}")
        assert done.returncode == 0, done.stderr


def run(*command: str | Path) -> str:
    """Run a program that says by its exit code whether all is right, and return its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout
