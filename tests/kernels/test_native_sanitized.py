"""The native kernels under sanitizers: nothing outside a buffer, no race, nothing undefined."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import native_programs
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for the sanitizers of GCC on Linux"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]
FLAGS = ("-std=gnu++17", "-O1", "-g", "-Wno-psabi", "-ffp-contract=fast", "-pthread")
HERE = Path(__file__).parent
TESTS = (
    "test_native.py",
    "test_native_gradients.py",
    "test_native_atd.py",
    "test_conv_mlp.py",
    "test_depthwise_gelu.py",
    "test_correlation_branch.py",
    "test_native_similarity.py",
)


def compiled(root: Path, out: Path, flags: tuple[str, ...], *more: Path) -> Path:
    """What becomes of the library's sources, and of more, with more flags of the compiler."""
    compiler = native_programs.Compiler("g++", (*FLAGS, *flags))
    objects = compiler.objects([*native_programs.sources(root), *more], root, out.parent)
    return compiler.link(objects, out)


def runtime(name: str) -> str:
    """Where the compiler has a sanitizer's library."""
    command = ["g++", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_addresses_and_arithmetic(root: Path, tmp_path: Path) -> None:
    """Every test of the kernels once more, with a library that looks at each step."""
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-shared")
    library = compiled(root, tmp_path / "native.so", flags)
    run = (
        "import pathlib, sys, pytest\n"
        "from restore.kernels import native_library\n"
        f"native_library.FILE = pathlib.Path({str(library)!r})\n"
        # a sanitized process cannot be forked well; and this is not about threads
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-k', 'not fork and not threads', "
        f"*{[str(HERE / name) for name in TESTS]!r}]))\n"
    )
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
        # Python keeps memory to its end
        "ASAN_OPTIONS": "detect_leaks=0,verify_asan_link_order=0",
        "PYTHONPATH": str(root),
    }
    done = subprocess.run(
        [sys.executable, "-c", run],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout


def test_threads(root: Path, tmp_path: Path) -> None:
    source = HERE / "native_threads.cpp"
    native_programs.run(compiled(root, tmp_path / "threads", ("-fsanitize=thread",), source))
