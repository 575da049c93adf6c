"""A process that reads damaged files, one after the other, and says what became of each.

Its standard input has names of cases, a line each; its standard output a line of JSON for each. It
watches itself: time, memory, what is printed, and whether anything is run, made or removed.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from damage_cases import Case, case
from damage_seeds import KINDS, seeds
from hostile_pickles import CANARY

from restore.commands.info import facts_of, lines_of
from restore.commands.quiet import silence_decoders
from restore.errors import CheckpointError, ImageError, OutputError, RestoreError, UsageError
from restore.image_io import FORMATS, probe, read_picture, write_picture
from restore.image_io.picture import check_picture
from restore.image_io.tiff_stream import TiffRows
from restore.loading import load
from restore.training.options import read_options

ANSWERS = os.dup(1)
SECONDS, WALL = 10.0, 300.0  # of the processor, and by the clock of a machine with other work
MEMORY = 2**30
LONGEST = 4000  # characters of a message; a list of settings may be long
LONGEST_LINE = {"yml": 900, "pth": LONGEST, "safetensors": LONGEST}  # others: below
LONGEST_OTHER = 500
# words of programs, which tell a user nothing
INNER = re.compile(
    r"Traceback|NoneType|list index|out of range|to unpack|unpack req|struct\.error|argument"
    r"|has no attribute|subscriptable|unsupported operand|reshape|broadcast|<class|Errno"
    r"|opencv|Assertion|enforce"
    r"|codec can't|positional|invalid literal|KeyError|ValueError|TypeError|not iterable|iterator"
    r"|at 0x[0-9a-f]{6,}"
)
# of the decoder within Pillow's libtiff, which nothing can silence
LIBTIFF = re.compile(r"[\w.]+: \w.*")
FORBIDDEN = frozenset(
    {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"}
    | {"subprocess.Popen", "socket.connect", "socket.bind", "webbrowser.open", "shutil.rmtree"}
    | {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.chmod"}
    | {"os.truncate", "pickle.find_class", "ctypes.dlopen", "os.putenv", "shutil.copyfile"}
)


class Guard:
    """Notices what reading must not do, from within Python's audit events."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in FORBIDDEN or (event == "open" and self._writes(args)):
            self.seen.append(f"{event}{args!r}"[:200])

    @staticmethod
    def _writes(args: tuple[Any, ...]) -> bool:
        _, mode, flags = args
        if isinstance(mode, str):
            return any(letter in mode for letter in "wax+")
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def wrong_with(message: str, path: Path, kind: str) -> str:
    """What of an error's message is not as it should be; empty for nothing."""
    lines = message.split("\n")
    if str(path) not in lines[0]:
        return "does not name the file first"
    if len(message) > LONGEST or max(map(len, lines)) > LONGEST_LINE.get(kind, LONGEST_OTHER):
        return f"has {len(message)} characters"
    if kind != "yml" and len(lines) > 1:
        return "has several lines"
    if not all(line.isprintable() for line in lines):
        return "has characters that command a terminal"
    if found := INNER.search(message.replace(str(path), "")):
        return f"speaks of {found[0]!r}"
    return ""


def read_as_picture(path: Path, rng: random.Random) -> None:
    """Read it in every way, and write what came out; AssertionError where they differ."""
    picture = read_picture(path)
    check_picture(picture)
    info = probe(path)
    height, width, channels = picture.pixels.shape
    if info.fmt not in ("tiff", "webp"):  # of some, only decoding tells colours or alpha
        told = (info.channels, info.has_alpha)
        assert told == (channels, picture.alpha is not None), told
    assert (info.height, info.width) == (height, width)
    assert all(len(note) < LONGEST_OTHER for note in picture.notes), picture.notes
    if picture.pixels.dtype == np.float32:
        assert np.isfinite(picture.pixels).all()
    if info.fmt == "tiff":
        read_in_bands(path, picture)
    if picture.pixels.size > 2**21:
        return
    out = path.with_name("written")
    for fmt in rng.sample(FORMATS, 2):
        try:
            write_picture(out, picture, fmt=fmt)
        except OutputError as error:
            assert not wrong_with(str(error), out, "out"), error
            continue
        again = read_picture(out)
        if fmt == "png" and picture.depth < 32:
            assert np.array_equal(again.pixels, picture.pixels)
        assert again.pixels.shape[:2] == (height, width)


def read_in_bands(path: Path, picture: Any) -> None:
    """The same pixels, a few rows at a time."""
    try:
        with TiffRows(path) as rows:
            bands = [rows.read(y, min(y + 7, rows.height)) for y in range(0, rows.height, 7)]
    except ImageError:
        return  # of a kind that has to be read whole
    samples = np.concatenate(bands)
    colours = samples[..., :-1] if rows.has_alpha else samples
    assert np.array_equal(colours, picture.pixels)
    if rows.has_alpha:
        assert np.array_equal(samples[..., -1], picture.alpha)


def read_as_weights(path: Path, rng: random.Random) -> None:
    model = load(path, device="cpu")
    assert all(bool(torch.isfinite(p).all()) for p in model.module.parameters())
    if rng.random() < 0.1:
        assert lines_of(facts_of(str(path)))


def read_as_options(path: Path, rng: random.Random) -> None:
    trains = (b"\ntrain:" in path.read_bytes()) != (rng.random() < 0.1)
    options = read_options(path, is_train=trains, root=path.parent)
    assert options.file == path


READERS: dict[str, tuple[Callable[[Path, random.Random], None], type[RestoreError]]] = {
    "pth": (read_as_weights, CheckpointError),
    "safetensors": (read_as_weights, CheckpointError),
    "yml": (read_as_options, UsageError),
}


def peak() -> int:
    """Most bytes in use since `begin_peak`; Linux alone tells."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])
    except (OSError, TypeError):
        return 0


def begin_peak() -> int:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak()
    return peak()


class Worker:
    """Reads cases in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = Guard()
        self._noise = 0

    def answer(self, one: Case) -> dict[str, Any]:
        """What became of a case."""
        path = self._folder / f"damaged.{one.kind}"
        path.write_bytes(one.data)
        if os.path.lexists(CANARY):
            raise RuntimeError(f"{one.name}: code ran before it was read: a mistake in these tests")
        answer = {"name": one.name, "recipe": one.recipe, **self._outcome(one, path)}
        for left in (path, path.with_name("written")):
            left.unlink(missing_ok=True)
        return answer

    def _outcome(self, one: Case, path: Path) -> dict[str, Any]:
        read, expected = READERS.get(one.kind, (read_as_picture, ImageError))
        self._noise = os.fstat(2).st_size
        before, began = begin_peak(), time.process_time()
        faulthandler.dump_traceback_later(WALL, exit=True)
        outcome, told, problem = "value", "", ""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", DeprecationWarning)  # as Python itself
            silence_decoders()  # as the command line, among the filters of this block
            self._guard.on = one.kind in READERS
            try:
                read(path, random.Random(one.name))
            except expected as error:
                outcome, told = "refused", str(error)
                if wrong := wrong_with(told, path, one.kind):
                    problem = f"message {wrong}: {told[:700]}"
            except BaseException as error:
                outcome = "crashed"
                problem = f"{type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}"
            self._guard.on = False
        faulthandler.cancel_dump_traceback_later()
        seconds, used = time.process_time() - began, peak() - before
        problem = problem or self._trouble(caught, seconds, used)
        return {
            "outcome": outcome,
            "told": told,
            "problem": problem,
            "seconds": seconds,
            "peak": used,
        }

    def _trouble(self, caught: list[warnings.WarningMessage], seconds: float, used: int) -> str:
        if self._guard.seen:
            return f"did {self._guard.seen}"
        if os.path.lexists(CANARY):
            return "ran code"
        if seconds > SECONDS:
            return f"took {seconds:.1f} s"
        if used > MEMORY:
            return f"took {used / 2**20:.0f} MiB"
        foreign = [w for w in caught if not w.category.__module__.startswith("restore")]
        if foreign:
            return f"warned: {foreign[0].category.__name__}: {foreign[0].message}"
        printed = os.fstat(2).st_size - self._noise
        if not printed:
            return ""
        text = (self._folder / "stderr").read_text(errors="replace")[-printed:]
        others = [line for line in text.splitlines() if not LIBTIFF.fullmatch(line)]
        return f"printed on standard error: {others[:3]!r}" if others else ""


def tell(answer: Any) -> None:
    """A line for whoever started this."""
    os.write(ANSWERS, json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Answer until standard input ends."""
    folder = Path(sys.argv[1]).resolve()
    os.chdir(folder)
    os.dup2(2, 1)  # what a library prints there is noise too
    silence_decoders()
    os.fsync = lambda _: None  # type: ignore[assignment] # a disk that is waited for tells nothing
    torch.set_num_threads(1)
    faulthandler.enable()
    worker = Worker(folder)
    lines_of(facts_of("swinir_builtin_x2"))
    for kind in KINDS:  # so that everything is loaded that reading loads
        for name, data in seeds(kind).items():
            found = worker.answer(Case(kind, 0, 0, name, data))
            multipage = (kind, name) == ("tiff", "pages")
            assert found["outcome"] == ("refused" if multipage else "value"), found
            assert not found["problem"], found
    tell("ready")
    for line in sys.stdin:
        tell(worker.answer(case(line.strip())))
        worker._guard.seen.clear()


if __name__ == "__main__":
    main()
