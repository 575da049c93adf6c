"""The page as its own process, for tests that ask it as a browser does."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 120.0


@dataclass(frozen=True)
class Running:
    """A page that is served."""

    url: str
    process: subprocess.Popen[str]
    folder: Path  # the temporary directory of its process


@contextlib.contextmanager
def served(folder: Path, *words: str) -> Iterator[Running]:
    """`restore web` on a free port, ended by SIGTERM."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "restore", "web", "--port", "0", "--no-browser", *words]
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # a page that never starts must not hang the tests
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    told = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line)
            if match := re.search(r"the page is at (http://\S+)", line):
                break
        else:
            raise AssertionError("the page did not start:\n" + "".join(told))
        timer.cancel()
        yield Running(match[1], process, folder)
    finally:
        timer.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
