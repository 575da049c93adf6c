"""Workers that share a folder of pictures and are killed: every result is there, whole, once."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_models import tiny

from restore.batching.journal import FOLDER, Journal
from restore.batching.logs import read_log
from restore.image_io import Picture, read_picture, write_picture
from restore.upscaling import upscale


class Crew:
    """So many processes of one command, in which each that ends is replaced."""

    def __init__(self, folder: Path, root: Path, count: int) -> None:
        self.folder = folder
        self.root = root
        self.count = count
        self.processes: list[subprocess.Popen[bytes]] = []
        self.hire()

    def hire(self) -> None:
        words = [sys.executable, "-m", "restore", "upscale", str(self.folder / "in"), "-r"]
        words += ["-o", str(self.folder / "out"), "--model_path", str(self.folder / "tiny.pth")]
        words += ["--resume", "-q", "--threads", "1", "--report", str(self.folder / "report.csv")]
        words += ["--tta"]  # so that others have begun before the work is done
        while len(self.processes) < self.count:
            errors = (self.folder / "errors.txt").open("ab")
            environment = {**os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
            self.processes.append(subprocess.Popen(words, stderr=errors, env=environment))
            errors.close()

    def kill_one(self, chance: random.Random) -> None:
        """One of those at work, where another is too; else one of all, which may still load."""
        files = (self.folder / "out" / FOLDER).glob("*/workers/*")
        busy = {int(file.name.split("-")[-2]) for file in files}
        working = [process for process in self.processes if process.pid in busy]
        process = chance.choice(working if len(working) > 1 else self.processes)
        self.processes.remove(process)
        process.kill()
        process.wait()
        self.hire()

    def wait(self) -> list[int]:
        return [process.wait() for process in self.processes]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def results(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "out").rglob("[0-9]*.png"))


def ended(folder: Path) -> Counter[int]:
    """How often each picture came to its end, over all logs."""
    logs = (folder / "out" / FOLDER).glob("*/logs/*.jsonl")
    lines = (line for log in logs for line in read_log(log))
    return Counter(line.number for line in lines if line and line.record)


def takeovers(folder: Path) -> int:
    """How often a worker took over what a dead one had."""
    return len(list((folder / "out" / FOLDER).glob("*/claims/*.[1-9]")))


def shared_run(folder: Path, root: Path, *, workers: int, pictures: int, kills: int) -> None:
    """Kill at random moments of the run, and see that all is there in the end."""
    model, chance, values = tiny(2), random.Random(0), np.random.default_rng(0)
    model.save(folder / "tiny.pth")
    expected = {}
    for number in range(pictures):
        height, width = values.integers(8, 33, 2)
        picture = Picture(values.integers(0, 256, (height, width, 3), np.uint8))
        name = f"{number % 10}/{number:04}.png"
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write_picture(folder / "in" / name, picture, fmt="png")
        # of many pictures a part tells enough, and takes long
        some = pictures < 100 or number % 10 == 0
        expected[name] = upscale(picture.pixels, model, tta=True) if some else None
    crew = Crew(folder, root, workers)
    try:
        for kill in range(kills):
            # spread over the run, as it goes and not as the clock does; loading takes longest
            wanted, deadline = pictures * (kill + 0.5) / (kills + 1), time.monotonic() + 120
            while len(results(folder)) < wanted and time.monotonic() < deadline:
                assert any(process.poll() is None for process in crew.processes)
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.05))
            crew.kill_one(chance)
        codes = crew.wait()
    finally:
        crew.end()
    assert set(codes) == {0}, (folder / "errors.txt").read_text()
    assert [path.relative_to(folder / "out").as_posix() for path in results(folder)] == sorted(
        expected
    )
    for name, pixels in expected.items():
        found = read_picture(folder / "out" / name).pixels
        assert pixels is None or np.array_equal(found, pixels)
    # nothing half written
    out = folder / "out"
    left = [p for p in out.rglob("*") if p.is_file() and FOLDER not in p.relative_to(out).parts]
    assert len(left) == pictures
    times = ended(folder)
    assert len(times) == pictures
    # once each but for what a killed worker wrote and could not say any more
    assert sum(times.values()) - pictures <= 3 * kills
    with (folder / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == pictures
    assert len({row["source"] for row in rows}) == pictures
    assert {row["status"] for row in rows} == {"done"}


def test_two_workers_and_three_kills(tmp_path: Path, root: Path) -> None:
    shared_run(tmp_path, root, workers=2, pictures=60, kills=3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_four_workers_two_thousand_pictures_and_thirty_kills(tmp_path: Path, root: Path) -> None:
    shared_run(tmp_path, root, workers=4, pictures=2000, kills=30)
    assert takeovers(tmp_path) > 0


def test_a_journal_needs_no_pictures_to_be_read(tmp_path: Path) -> None:
    assert Journal(tmp_path / "j", tmp_path, {}, print).rounds() == []
