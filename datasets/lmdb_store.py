"""Pictures in LMDB data bases, in BasicSR's layout: a folder NAME.lmdb with a list meta_info.txt.

Source: the layout that BasicSR 1.4.2 reads and writes (github.com/XPixelGroup/BasicSR,
basicsr/utils/lmdb_util.py): key = name without suffix, value = an encoded picture; a line of the
list is `name.png (height,width,channels) level`. Written anew.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.atomic import output_error
from restore.datasets.listing import META_FILE
from restore.datasets.netpbm import netpbm_bytes
from restore.errors import ImageError, OutputError, UsageError
from restore.image_io import read_picture

Array = NDArray[Any]

_COMMIT_BYTES = 2**28
_ROOM = 1.1  # of a data base over its values: pages are not filled to the end
_LEAST_ROOM = 2**24
_ANEW = "make it anew with `restore data lmdb`"


@dataclass(frozen=True)
class Stored:
    """What a data base was made of."""

    pictures: int
    bytes: int


def lmdb_module() -> ModuleType:
    """The package lmdb.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import lmdb
    except ImportError:
        raise UsageError(
            "LMDB data bases need the package lmdb: pip install 'restore-sr[train]'"
        ) from None
    module: ModuleType = lmdb
    return module


# Open transactions. They pass a fork: read-only and without locks, one is no more than a mapped
# file, and lmdb would refuse to open the same one again in the child.
_open: dict[Path, Any] = {}
_opening = threading.Lock()
_PAGE = 4096  # the least size of a page; the first two describe the data base


def stored_value(path: Path, key: str) -> memoryview:
    """The encoded picture under a key: a view of the data base's file.

    Raises:
        ImageError: the data base cannot be opened, or has no such key.
        UsageError: the package lmdb is not installed.
    """
    lmdb, place = lmdb_module(), path.resolve()
    with _opening:  # lmdb opens a data base once in a process
        if place not in _open:
            _open[place] = _opened(lmdb, path)
    try:
        value = _open[place].get(key.encode("utf-8"))
    except lmdb.Error as error:
        raise ImageError(f"{path}: is damaged: {error}; {_ANEW}") from error
    if value is None:
        raise ImageError(f"{path}: has no picture {key!r}, which its {META_FILE} names; {_ANEW}")
    return memoryview(value)


def _opened(lmdb: ModuleType, path: Path) -> Any:
    """A transaction that reads, and stays open, so that its views stay valid."""
    file = path / "data.mdb"
    try:
        size = file.stat().st_size
        if size < 2 * _PAGE:
            raise ImageError(f"{file}: is cut short: it has {size:,} bytes; {_ANEW}")
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, create=False)
    except OSError as error:
        raise ImageError(f"{file}: cannot be opened: {error.strerror}; {_ANEW}") from error
    except lmdb.Error as error:
        raise ImageError(f"{path}: cannot be opened as a data base: {error}; {_ANEW}") from error
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < needed:  # reading what is missing would end the process without a word
        environment.close()
        raise ImageError(
            f"{file}: is cut short: it has {size:,} bytes of {needed:,}; copy it again, or make it "
            "anew with `restore data lmdb`"
        )
    return environment.begin(write=False, buffers=True)


def write_database(
    path: Path,
    files: Sequence[Path],
    *,
    raw: bool = False,
    level: int = 1,
    progress: Callable[[], None] | None = None,
) -> Stored:
    """Put pictures into a new data base, whole or not at all.

    Args:
        path: NAME.lmdb, which is not there yet.
        files: pictures; alpha is left out, 16 bits stay.
        raw: as netpbm, so that reading a part needs no decoding, else as PNG.
        level: of PNG's compression, 0 to 9.
        progress: called after each picture.

    Raises:
        UsageError: the name is another, it is there already, or two pictures get the same key.
        ImageError: a picture cannot be read.
        OutputError: the disk refuses.
    """
    lmdb = lmdb_module()
    keys = _keys(path, files)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part.lmdb")
    try:
        part.mkdir(parents=True)
        size = _fill(lmdb, part, files, keys, raw, level, progress)
        (part / "lock.mdb").unlink(missing_ok=True)
        os.replace(part, path)
    except OSError as error:
        raise output_error(path, error) from error
    except lmdb.Error as error:
        wish = "check the disk's room and rights, then try again"
        raise OutputError(f"{path}: cannot be written: {error}; {wish}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Stored(len(files), size)


def _keys(path: Path, files: Sequence[Path]) -> list[str]:
    if path.suffix != ".lmdb":
        raise UsageError(f"{path}: a data base is named NAME.lmdb")
    if path.exists():
        raise UsageError(f"{path}: is there already; name another, or remove it first")
    if not files:
        raise UsageError(f"{path}: there is no picture to store")
    keys: dict[str, Path] = {}
    for file in files:
        if "." in file.stem or not file.stem.isascii():
            # BasicSR ends keys at the first point and writes them as ASCII
            raise UsageError(
                f"{file}: a key may hold no point and only ASCII letters, so that BasicSR finds "
                "it; rename the file"
            )
        if file.stem in keys:
            raise UsageError(f"{file}: has the same key as {keys[file.stem]}; rename one of them")
        keys[file.stem] = file
    return list(keys)


def _fill(
    lmdb: ModuleType,
    folder: Path,
    files: Sequence[Path],
    keys: Sequence[str],
    raw: bool,
    level: int,
    progress: Callable[[], None] | None,
) -> int:
    total = waiting = 0
    room = _LEAST_ROOM
    environment = lmdb.open(str(folder), map_size=room)
    try:
        with (folder / META_FILE).open("w", encoding="utf-8") as listed:
            values: list[tuple[bytes, bytes]] = []
            for key, (value, shape) in zip(keys, _encoded(files, raw, level), strict=True):
                values.append((key.encode("ascii"), value))
                waiting += len(value)
                total += len(value)
                listed.write(f"{key}.png ({','.join(map(str, shape))}) {level}\n")
                if waiting >= _COMMIT_BYTES or len(values) >= 5000:
                    room = _commit(environment, values, room, total)
                    waiting = 0
                if progress is not None:
                    progress()
            _commit(environment, values, room, total)
    finally:
        environment.close()
    return total


def _commit(environment: Any, values: list[tuple[bytes, bytes]], room: int, total: int) -> int:
    needed = int(total * _ROOM) + 2**16 * len(values) + _LEAST_ROOM
    if needed > room:
        room = 2 * needed
        environment.set_mapsize(room)
    with environment.begin(write=True) as transaction:
        for key, value in values:
            transaction.put(key, value)
    values.clear()
    return room


def _encoded(
    files: Sequence[Path], raw: bool, level: int
) -> Iterator[tuple[bytes, tuple[int, int, int]]]:
    for file in files:
        pixels = read_picture(file).pixels
        if pixels.dtype == np.float32:
            pixels = np.floor(pixels * np.float32(65535) + np.float32(0.5)).astype(np.uint16)
        yield _encode(pixels, raw, level), pixels.shape


def _encode(pixels: Array, raw: bool, level: int) -> bytes:
    if raw:
        return netpbm_bytes(pixels)
    swapped = np.ascontiguousarray(pixels[:, :, ::-1])  # OpenCV's order is BGR
    done, data = cv2.imencode(".png", swapped, [cv2.IMWRITE_PNG_COMPRESSION, level])
    if not done:
        raise OutputError("a picture cannot be encoded as PNG")
    return data.tobytes()
