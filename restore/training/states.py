"""Training states: all that a run needs to go on as if it had never stopped, in one file.

A state is a file of torch.save with a trailer: a mark and the SHA-256 of what stands before it. It
is written under another name and renamed, so a run that is killed leaves whole states only; what
the disk or a copy damaged later is recognised by the checksum. `torch.load` reads them too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from restore.atomic import atomic_output, writing
from restore.errors import CheckpointError, printable, shown
from restore.pickle_out import write_pickle
from restore.special_files import special_file
from restore.untrusted import check_pickled

MARK = b"restore training state 1"
_TRAILER = len(MARK) + hashlib.sha256().digest_size
_CHUNK = 1 << 20


class DamagedStateWarning(UserWarning):
    """A training state was skipped because it is not whole."""


class _Hashing:
    """A file to write to that knows the checksum of what it got."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Take some bytes."""
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """To the disk."""
        self._file.flush()


def write_whole(path: Path, content: object) -> None:
    """torch.save, whole or not at all.

    Raises:
        OutputError: the file cannot be written; no part of it is left.
    """
    with atomic_output(path) as file, writing(path):
        write_pickle(file, content)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state; OutputError where it cannot be, and no part of it is left."""
    with atomic_output(path) as file, writing(path):
        hashing = _Hashing(file)
        write_pickle(hashing, state)
        file.write(MARK + hashing.digest.digest())


def read_state(path: Path) -> dict[str, Any]:
    """Read a training state; nothing in it is run.

    Raises:
        CheckpointError: missing, cut short, damaged, or no state of ours.
    """
    try:
        if special := special_file(path):
            raise CheckpointError(f"{path}: is {special}; expected a training state")
        with path.open("rb") as file:
            _check(path, file)
        check_pickled(path)
        with path.open("rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    # what has our mark and another content can raise nearly anything from inside the reader
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:
        name = printable(str(path))
        raise CheckpointError(f"{name}: cannot be read: {shown(error, 300)}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}; expected a training state")
    return state


def _check(path: Path, file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TRAILER))
    trailer = file.read()
    if not trailer.startswith(MARK) or len(trailer) != _TRAILER:
        raise CheckpointError(
            f"{path}: is no whole training state of this program: it is cut short, or another "
            "program's; to go on from weights alone, name its net_g file as pretrain_network_g"
        )
    digest, left = hashlib.sha256(), size - _TRAILER
    file.seek(0)
    while left:
        data = file.read(min(left, _CHUNK))
        digest.update(data)
        left -= len(data)
    if trailer != MARK + digest.digest():
        raise CheckpointError(f"{path}: is damaged: its checksum is another")


def state_files(folder: Path) -> list[Path]:
    """Training states of a folder, the newest first."""
    numbered = [path for path in folder.glob("*.state") if path.stem.isdecimal()]
    return sorted(numbered, key=lambda path: int(path.stem), reverse=True)


def newest_state(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest state that is whole, and its file; None where there is none at all.

    Raises:
        CheckpointError: there are some, and all are damaged.

    Warns:
        DamagedStateWarning: which one was skipped, and why.
    """
    paths = state_files(folder)
    for path in paths:
        try:
            return path, read_state(path)
        except CheckpointError as error:
            warnings.warn(f"skipped: {error}", DamagedStateWarning, stacklevel=2)
    if paths:
        raise CheckpointError(
            f"{folder}: all {len(paths)} training states are damaged; restore one from a copy, or "
            "begin again from a net_g file with pretrain_network_g under another name"
        )
    return None


def random_states() -> dict[str, Any]:
    """The states of all random number generators of this process."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (
            str(kind),
            torch.from_numpy(np.array(keys, np.int64)),
            position,
            has_gauss,
            gauss,
        ),
        "python": (version, list(internal), gauss_next),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Put back what `random_states` gave."""
    torch.set_rng_state(states["torch"])
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


@contextlib.contextmanager
def untouched_random_states() -> Iterator[None]:
    """Around what may draw random numbers that training must not miss, such as validation."""
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)


def seed_all(seed: int) -> None:
    """Begin all random numbers of this process from a seed."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
