"""The native kernels by other compilers and for another CPU, without Python around them.

Everything is built with the flags of an installation, and no warning is let pass.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import native_programs
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform == "win32", reason="needs a system on which programs fork"),
]
HERE = Path(__file__).parent
STRICT = ("-Wall", "-Wextra", "-Werror", "-pthread")
CLANGS = ("clang++", *(f"clang++-{version}" for version in range(30, 13, -1)))
AARCH64 = "aarch64-linux-gnu"


def tool(*names: str) -> str:
    """The first of some programs that is there, or skip."""
    found = next((name for name in names if shutil.which(name)), None)
    if found is None:
        pytest.skip(f"needs {names[0]}")
    return found


def build(root: Path, folder: Path, name: str, *flags: str) -> tuple[Path, list[Path]]:
    """The library, and the programs that check it, each with more flags for the linker."""
    compiler = native_programs.Compiler(name, (*native_programs.flags_of_builds(root), *STRICT))
    objects = compiler.objects(native_programs.sources(root), root, folder)
    library = compiler.link(objects, folder / "native.so", "-shared")
    programs = []
    for source in (HERE / "native_operations.cpp", HERE / "native_threads.cpp"):
        own = compiler.objects([source], root, folder)
        programs.append(compiler.link([*objects, *own], folder / source.stem, *flags))
    return library, programs


@pytest.mark.parametrize("names", [("g++",), ("g++-11",), CLANGS], ids=["GCC", "GCC 11", "Clang"])
def test_compilers(names: tuple[str, ...], root: Path, tmp_path: Path) -> None:
    """Every instruction set that this CPU has computes what its definitions say, in threads too."""
    _, programs = build(root, tmp_path, tool(*names))
    for program in programs:
        native_programs.run(program)


def test_aarch64(root: Path, tmp_path: Path) -> None:
    """The portable set, in an emulator; its products are those of NEON's vectors."""
    compiler, emulator = tool(f"{AARCH64}-g++"), tool("qemu-aarch64", "qemu-aarch64-static")
    library, programs = build(root, tmp_path, compiler, "-static")
    for program in programs:
        native_programs.run(emulator, program)
    code = native_programs.run(tool(f"{AARCH64}-objdump"), "-d", library)
    products = re.findall(r"\sf(?:mla|madd)\s+(.)", code)
    # what is left are products of few channels, one by one
    assert products.count("v") > 20 * products.count("s") > 0
