"""Names of every kind, and what is no file: pipes, sockets, devices, folders, links to nowhere."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from odd_files import SMALL, saved_model
from small_models import tiny

from restore.cli import main
from restore.errors import RestoreError
from restore.image_io import probe, read_picture, write_picture
from restore.loading import load
from restore.training.options import read_options
from restore.training.states import read_state

NAMES: dict[str, str] = {
    "newline": "a\nb",
    "newline first": "\na",
    "tab": "a\tb",
    "bell and clearing": "a\x07\x1b[2J\x1b]0;title\x07b",
    "return": "harmless\rx",
    "delete": "a\x7fb",
    "emoji": "\U0001f469\u200d\U0001f680",
    "right to left": "a\u202egnp.b",
    "no width": "a\u200bb\ufeff",
    "line separator": "a\u2028b",
    "combining": "e\u0301\u0301",
    "dash first": "-rf",
    "double dash": "--help",
    "dots": "a..",
    "spaces": " a ",
    "quotes": "a'b\"c`d$e",
    "pattern": "[a]*?{b}",
    "home": "~root",
    "percent": "%s%n{0}{a}",
    "backslash": "a\\b",
    "long": "x" * 251,
    "long emoji": "\U0001f600" * 62 + "abc",
    "no text": os.fsdecode(b"caf\xe9\xff"),
    "brackets": "(a;b|c&d)<e>",
}

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these names"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"))


def is_plain(text: str) -> bool:
    """Whether a terminal shows it and does nothing else."""
    return all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_pictures_of_any_name(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    try:
        write_picture(folder / f"{name}.png", SMALL, fmt="png")
    except RestoreError:
        pytest.skip("the file system has no such names")
    assert os.listdir(folder) == [f"{name}.png"]
    words = ["upscale", str(folder), "-o", str(tmp_path / "out"), "--model_path", str(model)]
    for more in (["--dry-run"], ["-v"], ["--skip-existing"]):
        assert main([*words, *more]) == 0
        told = capsys.readouterr()
        assert is_plain(told.out + told.err)
    assert os.listdir(tmp_path / "out") == [f"{name}.png"]
    assert read_picture(tmp_path / "out" / f"{name}.png").pixels.shape == (16, 16, 3)
    assert main(["info", str(folder / f"{name}.png")]) == 0
    (folder / f"{name}.png").write_bytes(b"no picture")
    assert main(["info", str(folder / f"{name}.png")]) == 1
    assert main(words) == 1
    told = capsys.readouterr()
    assert is_plain(told.out + told.err)
    # a line of its own for what a line says: no name has broken one
    assert "format" in told.out.split("\n")[1]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_weights_and_options_of_any_name(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("", ".pt", ".yml"):
        path = tmp_path / f"{name}{suffix}"
        if len(os.fsencode(path.name)) > 255:
            continue
        if suffix == ".yml":
            path.write_text("name: [\n", encoding="utf-8")
            assert main(["train", "-opt", str(path)]) == 2
        else:
            path.write_bytes(model.read_bytes())
            assert load(path, device="cpu").scale == 2
            assert main(["info", str(path)]) == 0
    told = capsys.readouterr()
    assert is_plain(told.out + told.err)


def test_a_pickle_of_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.pth")
    tiny(2).save(tmp_path / "net.pth")
    os.rename(tmp_path / "net.pth", path)
    assert load(path, device="cpu").scale == 2


def test_a_result_whose_name_grows_too_long(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / ("x" * 251 + ".png"), SMALL, fmt="png")
    write_picture(tmp_path / "b.png", SMALL, fmt="png")
    words = ["upscale", str(tmp_path), "-o", str(tmp_path / "out"), "--model_path", str(model)]
    assert main([*words, "--suffix", "_x2"]) == 1
    told = capsys.readouterr()
    assert "cannot be written: File name too long; choose a shorter name" in told.err
    assert os.listdir(tmp_path / "out") == ["b_x2.png"]


def test_mistakes_on_the_command_line_command_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (
        ["\x1b[2J"],
        ["upscale", "--\x1b[2J"],
        ["upscale", "\x1b[2J.png"],
        ["upscale", "a.png", "-s", "\x1b[2J"],
        ["info", "\x1b[2J.pth"],
        ["data", "\x1b[2J"],
        ["upscale", "a.png", "--model_path", "\x1b[2J"],
    ):
        assert main(words) != 0
        told = capsys.readouterr()
        assert is_plain(told.out + told.err), words


# what is no file


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    return path


@pytest.fixture
def listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)  # a socket's name may have some hundred characters only
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket.png")
        yield tmp_path / "socket.png"


READERS: dict[str, Callable[[Path], object]] = {
    "picture": read_picture,
    "header": probe,
    "weights": lambda path: load(path, device="cpu"),
    "options": lambda path: read_options(path, is_train=True),
    "state": read_state,
}


def said_at_once(reader: str, path: Path) -> str:
    began = time.monotonic()
    with pytest.raises(RestoreError) as caught:
        READERS[reader](path)
    assert time.monotonic() - began < 5
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_is_not_waited_for(reader: str, pipe: Path) -> None:
    expected = "is a pipe that nobody writes to" if reader == "options" else "is a named pipe"
    assert expected in said_at_once(reader, pipe)


@pytest.mark.parametrize("reader", READERS)
def test_a_socket_is_none(reader: str, listening: Path) -> None:
    assert "is a socket" in said_at_once(reader, listening)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/full"])
def test_a_device_is_not_read(device: str, reader: str) -> None:
    if not os.path.exists(device):
        pytest.skip(f"the system has no {device}")
    assert "is a device" in said_at_once(reader, Path(device))


@pytest.mark.parametrize("reader", READERS)
def test_a_link_that_leads_nowhere_or_to_itself(reader: str, tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nothing")
    (tmp_path / "self").symlink_to("self")
    assert re.search("no such|No such", said_at_once(reader, tmp_path / "gone"))
    assert "Too many levels of symbolic links" in said_at_once(reader, tmp_path / "self")


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_is_none(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "folder.png"
    path.mkdir()
    assert re.search("is a folder|Is a directory", said_at_once(reader, path))


@pytest.mark.parametrize("reader", READERS)
def test_a_path_that_no_system_has(reader: str) -> None:
    with pytest.raises(RestoreError) as caught:
        READERS[reader](Path("a\0b"))
    assert "cannot be read" in str(caught.value)
    assert str(caught.value).isprintable()


def test_options_may_come_through_a_pipe_of_the_shell(pipe: Path, root: Path) -> None:
    text = (root / "options" / "train" / "swinir_small_x2.yml").read_bytes()

    def write() -> None:
        with pipe.open("wb") as end:
            end.write(text[:100])
            end.flush()
            time.sleep(0.2)
            end.write(text[100:])

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.1)
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # as a shell holds one end
    try:
        assert read_options(pipe, is_train=True).name == "swinir_small_x2"
    finally:
        os.close(descriptor)
        thread.join()


def test_a_batch_passes_by_what_is_no_file(
    pipe: Path, listening: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pipe.parent
    (folder / "self.png").symlink_to("self.png")
    (folder / "gone.png").symlink_to("nothing.png")
    (folder / "null.png").symlink_to("/dev/null")
    (folder / "folder.png").mkdir()
    write_picture(folder / "whole.png", SMALL, fmt="png")
    words = ["upscale", str(folder), "-o", str(folder / "out"), "--model_path", str(model)]
    assert main(words) == 1
    told = capsys.readouterr()
    for reason in ("is a named pipe", "is a socket", "Too many levels", "no such file", "a device"):
        assert told.err.count(reason) == 2, reason  # as it comes, and at the end
    assert os.listdir(folder / "out") == ["whole.png"]
