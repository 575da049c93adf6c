"""Weight files of anyone, before they are read: what they are, and what reading them would take."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from restore.errors import CheckpointError, shown
from restore.pickle_check import Program, examine

_NAMED = 8  # in a message
_PICKLES = 5  # of a file that is no archive: a mark, a version, the system, the content, its keys
_MOST_PROGRAM = 2**26  # bytes of the pickle in an archive; the numbers lie beside it
# flat tensors pack to a thousandth at best, and files of weights are hardly ever packed at all
MOST_RATIO = 100
ROOM = 2**26  # bytes that any file may come to


def no_weights(path: Path, reason: str) -> CheckpointError:
    """That a file is damaged or another one, and why."""
    return CheckpointError(
        f"{path}: is no whole weight file ({shown(reason, 160)}); expected a .pth, .pt, .ckpt or "
        ".safetensors file. Download or copy it again"
    )


def check_pickled(path: Path) -> bool:
    """Look into a file of torch.save before PyTorch does.

    Returns:
        Whether it is an archive whose entries are not packed, so that its tensors can be read in
        place.

    Raises:
        CheckpointError: it is something else, damaged, holds more than tensors, or would take more
            memory than its size accounts for.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(64)
        _refuse_lookalikes(path, head.lstrip().lower())
        if head.startswith(b"PK"):
            return _check_archive(path, file)
        if not head.startswith(b"\x80") or _is_tar(file):
            raise no_weights(path, "not in PyTorch's format")
        file.seek(0)
        programs = list[Program]()
        try:
            programs.extend(examine(file) for _ in range(_PICKLES))
        except ValueError as error:
            # what a single pickle wants tells more than that the others are missing
            for program in programs or _first(file):
                _refuse(path, program)
            raise no_weights(path, "cut short, or not in PyTorch's format") from error
    for program in programs:
        _refuse(path, program)
    return False


def _first(file: BinaryIO) -> list[Program]:
    file.seek(0)
    try:
        return [examine(file)]
    except ValueError:
        return []


def _is_tar(file: BinaryIO) -> bool:
    """Whether PyTorch would take it for a file of its earliest releases, and unpack it."""
    file.seek(0)
    try:
        tarfile.open(fileobj=file, mode="r:").close()
    except Exception:  # of a header that is none, nearly anything
        return False
    return True


def _refuse_lookalikes(path: Path, head: bytes) -> None:
    """Say what a file is that is often taken for weights."""
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: is a Git LFS pointer; fetch the file with `git lfs pull`")
    if head.startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path}: is a web page; the download needs a browser or a login")


def _check_archive(path: Path, file: BinaryIO) -> bool:
    size = os.fstat(file.fileno()).st_size
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.filename.endswith("/constants.pkl") for entry in entries):
                raise CheckpointError(
                    f"{path}: is a TorchScript program, which is not run; save the state dict of "
                    "its module"
                )
            unpacked = sum(entry.file_size for entry in entries)
            if sum(entry.compress_size for entry in entries) > size:
                raise no_weights(path, "its entries take more room than the file has")
            if unpacked > ROOM + MOST_RATIO * size:
                raise no_weights(
                    path, f"{size:,} bytes would unpack to {unpacked:,}, as a bomb does"
                )
            damaged = archive.testzip()
            if damaged is not None:
                raise no_weights(path, f"the checksum of {shown(damaged)} in it is wrong")
            for entry in entries:
                if entry.filename.endswith(".pkl"):
                    if entry.file_size > _MOST_PROGRAM:
                        raise no_weights(path, f"{entry.filename} has {entry.file_size:,} bytes")
                    _refuse(path, examine(archive.read(entry)))
    except CheckpointError:
        raise
    # zipfile raises also what the packers it knows raise on damaged data
    except Exception as error:
        told = isinstance(
            error, (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError)
        )
        why = str(error) if told and not isinstance(error, UnicodeError) else ""
        raise no_weights(path, why or "its entries are damaged") from error
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def holds_more(path: Path, wanted: Sequence[str]) -> CheckpointError:
    """That a file wants more than tensors, and what."""
    names = ", ".join(map(shown, wanted[:_NAMED]))
    more = f" and {len(wanted) - _NAMED} more" if len(wanted) > _NAMED else ""
    return CheckpointError(
        f"{path}: holds more than tensors (it wants {names}{more}), and reading that could run "
        "code; it is refused. Save its tensors alone, as .safetensors or with "
        "torch.save(model.state_dict(), ...), where you trust the file"
    )


def _refuse(path: Path, program: Program) -> None:
    if program.wanted:
        raise holds_more(path, program.wanted)
    if program.endless:
        raise no_weights(path, program.endless)
