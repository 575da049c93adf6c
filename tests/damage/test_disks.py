"""Disks that are full or cannot be written, processes that are killed, two that write one file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import tiny

from restore import atomic
from restore.atomic import atomic_output
from restore.bench.results import write_results
from restore.cli import main
from restore.errors import OutputError
from restore.image_io import FORMATS, Picture, read_picture, write_picture
from restore.image_io.sinks import Raster
from restore.image_io.tiff_write import TiffRowWriter
from restore.training.states import read_state, write_state, write_whole

ROOM = 256 * 1024  # bytes of the small disk
NOISE = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)  # does not pack


def mounted(folder: Path, options: str) -> bool:
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(words, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, with room for next to nothing."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not sys.platform.startswith("linux") or not mounted(folder, f"size={ROOM}"):
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def locked_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk that can be read only, as also root finds it."""
    folder = tmp_path / "locked"
    folder.mkdir()
    if not sys.platform.startswith("linux") or not mounted(folder, "ro,size=65536"):
        pytest.skip("needs the right to mount a disk that cannot be written")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def stream(path: Path) -> None:
    with TiffRowWriter(path, Raster(400, 400, 3, np.dtype(np.uint8))) as writer:
        for y in range(0, 400, 50):
            writer.write(NOISE[y : y + 50])


WRITERS: dict[str, Callable[[Path], object]] = {
    **{
        fmt: lambda path, fmt=fmt: write_picture(path, Picture(NOISE), fmt=fmt, quality=100)
        for fmt in FORMATS
    },
    "tiff in bands": stream,
    "state": lambda path: write_state(path, {"numbers": torch.rand(100_000)}),
    "checkpoint": lambda path: write_whole(path, {"params": {"a": torch.rand(100_000)}}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk(kind: str, small_disk: Path) -> None:
    path = small_disk / "result"
    path.write_bytes(b"before")
    with pytest.raises(OutputError) as caught:
        WRITERS[kind](path)
    text = str(caught.value)
    assert text == f"{path}: cannot be written: No space left on device; " + (
        "free some space or choose another folder"
    )
    assert [p.name for p in small_disk.iterdir()] == ["result"]
    assert path.read_bytes() == b"before"


def test_models_and_reports_on_a_full_disk(small_disk: Path) -> None:
    (small_disk / "fill").write_bytes(bytes(ROOM - 4096))
    model = tiny(2)
    for name in ("net.safetensors", "net.pth"):
        with pytest.raises(OutputError, match=f"{name}: cannot be written: No space left on dev"):
            model.save(small_disk / name)
    (small_disk / "fill").write_bytes(bytes(ROOM))
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        write_results(small_disk, [], {"machine": "x" * 5000})
    assert [p.name for p in small_disk.iterdir()] == ["fill"]


def test_a_batch_on_a_full_disk_goes_on(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(2).save(tmp_path / "net.safetensors")
    (tmp_path / "in").mkdir()
    small = Picture(NOISE[:8, :8])
    for name, picture in (("1.png", small), ("2.png", Picture(NOISE)), ("3.png", small)):
        write_picture(tmp_path / "in" / name, picture, fmt="png")
    words = ["upscale", str(tmp_path / "in"), "-o", str(small_disk / "out")]
    code = main([*words, "--model_path", str(tmp_path / "net.safetensors")])
    told = capsys.readouterr()
    assert code == 1
    assert "2.png: cannot be written: No space left on device; free some space" in told.err
    assert "2 of 3 done, 1 failed" in told.out
    assert sorted(p.name for p in (small_disk / "out").iterdir()) == ["1.png", "3.png"]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_cannot_be_written(kind: str, locked_disk: Path) -> None:
    path = locked_disk / "result"
    with pytest.raises(OutputError) as caught:
        WRITERS[kind](path)
    text = f"{path}: cannot be written: Read-only file system; choose a folder that can be written"
    assert str(caught.value) == text


def test_a_batch_to_a_disk_that_cannot_be_written_does_not_begin(
    locked_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "a.png", Picture(NOISE[:8, :8]), fmt="png")
    for output in (locked_disk, locked_disk / "new", locked_disk / "a.png"):
        assert main(["upscale", str(tmp_path / "a.png"), "-o", str(output)]) == 2
        told = capsys.readouterr().err
        assert "cannot be written to: no" in told
        assert "Read-only file system; choose another folder" in told


# a picture of one value after the other, to one name; what a reader sees is one of them
WRITES = """
import sys
import numpy as np
from restore.image_io import Picture, write_picture
from restore.image_io.sinks import Raster
from restore.image_io.tiff_write import TiffRowWriter
from restore.training.states import write_state
path, first, step, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
print("ready", flush=True)
sys.stdin.readline()
for value in range(first, 256, step):
    pixels = np.full((200, 200, 3), value, np.uint8)
    if kind == "stream":
        with TiffRowWriter(path, Raster(200, 200, 3, np.uint8), level=0) as writer:
            for y in range(0, 200, 20):
                writer.write(pixels[y : y + 20])
    elif kind == "state":
        import torch
        write_state(__import__("pathlib").Path(path), {"value": torch.full((50_000,), value)})
    else:
        write_picture(path, Picture(pixels), fmt=kind)
"""


def writer(
    path: Path, kind: str, root: Path, first: int = 0, step: int = 1
) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WRITES, str(path), str(first), str(step), kind]
    process = subprocess.Popen(
        words, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()
    return process


def is_whole(path: Path, kind: str) -> bool:
    values = read_state(path)["value"].numpy() if kind == "state" else read_picture(path).pixels
    return len(np.unique(values)) == 1


PART = re.compile(r"\..*\.part", re.DOTALL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["png", "stream", "state"])
def test_killed_while_it_writes(kind: str, tmp_path: Path, root: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "out" / "a"
    path.parent.mkdir()
    seen = set()
    for _ in range(10):
        process = writer(path, kind, root)
        time.sleep(rng.uniform(0.005, 0.25))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if path.exists():
            assert is_whole(path, kind)
        seen.update(p.name for p in path.parent.iterdir())
    left = {name for name in seen if name != "a"}
    assert all(PART.fullmatch(name) for name in left)
    # what is left is cleaned by whoever writes there next, when it is old enough to be nobody's
    for part in path.parent.glob(".*"):
        os.utime(part, (0, 0))
    process = writer(path, kind, root, first=250)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert [p.name for p in path.parent.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["png", pytest.param("stream", marks=pytest.mark.slow)])
def test_two_processes_write_one_file(kind: str, tmp_path: Path, root: Path) -> None:
    path = tmp_path / "a"
    both = [writer(path, kind, root, first=first, step=12) for first in (0, 1)]
    while any(process.poll() is None for process in both):
        if path.exists():
            assert is_whole(path, kind)
    assert [process.wait() for process in both] == [0, 0]
    assert is_whole(path, kind)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    for process in both:
        process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_runs_on_one_output(tmp_path: Path, root: Path) -> None:
    tiny(2).save(tmp_path / "net.safetensors")
    (tmp_path / "in").mkdir()
    for number in range(12):
        picture = Picture(NOISE[: 20 + number, :30])
        write_picture(tmp_path / "in" / f"{number}.png", picture, fmt="png")
    words = [
        sys.executable,
        "-m",
        "restore",
        "upscale",
        str(tmp_path / "in"),
        "-q",
        "--threads",
        "1",
    ]
    words += ["-o", str(tmp_path / "out"), "--model_path", str(tmp_path / "net.safetensors")]
    both = [subprocess.Popen(words, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [("", 0)] * 2
    found = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in found] == sorted(f"{n}.png" for n in range(12))
    for path in found:
        assert read_picture(path).pixels.shape == (2 * (20 + int(path.stem)), 60, 3)


def test_what_others_write_just_now_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_swept", set())
    machine = atomic._MACHINE
    kept = {
        f".a.{machine}-0123abcd.part",  # young
        ".a.part",  # of another program
        f"a.{machine}-0123abcd.part",
        ".b.ffff-0123abcd.part" if machine != "ffff" else ".b.fffe-0123abcd.part",
        f".folder.{machine}-0123abcd.part",
    }
    (tmp_path / f".folder.{machine}-0123abcd.part").mkdir()
    old = f".picture\n.png.{machine}-4567abcd.part"
    for name in (*kept, old):
        if not (tmp_path / name).exists():
            (tmp_path / name).write_bytes(b"x")
    hour = time.time() - 3600
    for name in (*kept, old):
        if name != f".a.{machine}-0123abcd.part":
            os.utime(tmp_path / name, (hour, hour))
    with atomic_output(tmp_path / "held") as held:  # by this process, whose age is not asked for
        part = next(p for p in tmp_path.iterdir() if p.name.startswith(".held"))
        os.utime(part, (hour, hour))
        monkeypatch.setattr(atomic, "_swept", set())
        with atomic_output(tmp_path / "other"):
            pass
        held.write(b"whole")
    assert (tmp_path / "held").read_bytes() == b"whole"
    assert {p.name for p in tmp_path.iterdir()} == {*kept, "held", "other"}
