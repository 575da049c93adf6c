"""Official checkpoints into the cache: downloaded or taken from a file, and checked before."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from restore.atomic import writing
from restore.catalogue.cache import (
    digest_of,
    make_folder,
    models_folder,
    part_path,
    record,
    recorded,
    stored_path,
    take_in,
    unrecord,
)
from restore.catalogue.entries import Entry, catalogue, find, known_as
from restore.catalogue.lock import locked
from restore.errors import CheckpointError, DownloadError, UsageError

if TYPE_CHECKING:
    from restore.model import Model

Say = Callable[[str], None]
Progress = Callable[[int, int | None], None]


def get(
    entry: Entry,
    folder: Path | None = None,
    *,
    force: bool = False,
    offline: bool = False,
    progress: Progress | None = None,
    say: Say = lambda text: None,
) -> tuple[Path, bool]:
    """The copy of a checkpoint, downloaded where it is not there.

    Args:
        entry: of the catalogue.
        folder: for it; the cache if None.
        force: download it also where it is there, in its place once the new one is whole.
        offline: never open a connection.
        progress: told of bytes that came, of how many if that is known.
        say: told of what takes time or is tried again.

    Returns:
        Its path, and whether it was downloaded now.

    Raises:
        CheckpointError: what is there or came is not what the catalogue says.
        DownloadError: it cannot be brought, or only a person can; the message says how.
        OutputError: it cannot be written.
    """
    target = stored_path(entry, folder)
    if not force and target.exists():
        check_copy(target, entry)
        return target, False
    if offline:
        raise DownloadError(
            f"{entry.name}: {target} is not there, and --offline forbids to download it"
        )
    if entry.url is None:
        raise DownloadError(f"{entry.name}: {by_hand(entry)}")
    make_folder(target.parent)
    lock = target.with_name(f".{target.name}.lock")
    with locked(lock, lambda: say(f"{entry.name}: another process downloads it; waiting for that")):
        if not force and target.exists():  # that process has brought it
            check_copy(target, entry)
            return target, False
        _download(entry, entry.url, target, progress, say)
    return target, True


def _download(entry: Entry, url: str, target: Path, progress: Progress | None, say: Say) -> None:
    from restore.catalogue.transfer import Transfer  # here alone connections are opened

    say(f"from {url}")
    part = part_path(target)
    transfer = Transfer(url, part, size=entry.size, sha256=entry.sha256, progress=progress, say=say)
    digest = transfer.run()
    try:
        check_network(network_of(part), entry)
    except CheckpointError as error:
        transfer.forget()
        raise DownloadError(f"{url}: nothing of it is kept: {error}") from error
    with writing(target):
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        unrecord(target)
        os.replace(part, target)
    record(target, digest)
    transfer.forget()


def by_hand(entry: Entry) -> str:
    """What a person has to do to get a checkpoint that no address gives to programs."""
    file = entry.file or "its file, whose name is not recorded,"
    return (
        f"download {file} in a browser from {entry.page}, then: "
        f"restore models add {entry.file or 'FILE'} --as {entry.name}"
    )


def network_of(path: Path) -> Model:
    """Open weights as every weight file is opened.

    Raises:
        CheckpointError: they are none, damaged, or of no known network.
    """
    from restore.loading import load

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what weights leave open, the catalogue tells
        return load(path, device="cpu")


def check_network(model: Model, entry: Entry) -> None:
    """Compare a network with the published one.

    Raises:
        CheckpointError: it is another.
    """
    wanted = entry.model
    mine, its = dict(model.config), dict(wanted.config)
    # the training patch leaves no trace in many files
    other = [key for key in mine if key != "img_size" and mine[key] != its.get(key)]
    if model.spec is wanted.spec and not other:
        return
    if model.variant != wanted.variant:
        what = f"{entry.name} is {wanted.variant}"
    else:
        told = [f"{key} {mine[key]}, not {its.get(key)}" for key in other]
        what = f"{entry.name} was published with other settings: {'; '.join(told)}"
    raise CheckpointError(f"{model.name}: holds {model.variant}, and {what}")


def check_copy(path: Path, entry: Entry) -> None:
    """Check a copy that is there as far as nobody did before, and write its SHA-256 down.

    Raises:
        CheckpointError: it is damaged or another file; the message says what to do.
    """
    size = path.stat().st_size
    if entry.size not in (None, size):
        raise CheckpointError(
            f"{path}: has {size:,} bytes, expected {entry.size:,}; {_again(entry)}"
        )
    if recorded(path) is None:
        digest = digest_of(path)
        _check_digest(path, entry, digest)
        check_network(network_of(path), entry)
        record(path, digest)


def verify(path: Path, entry: Entry, progress: Callable[[int, int], None] | None = None) -> str:
    """Read a whole copy and compare it with all that is known of it.

    Returns:
        Against what it was compared, in words.

    Raises:
        CheckpointError: it differs, or is another network; the message says what to do.
    """
    digest = digest_of(path, progress)
    _check_digest(path, entry, digest)
    before = recorded(path)
    if entry.sha256 is None and before not in (None, digest):
        raise CheckpointError(
            f"{path}: has SHA-256 {digest}, but had {before} when it came; it is damaged; "
            f"{_again(entry)}"
        )
    check_network(network_of(path), entry)
    if before != digest:
        record(path, digest)
    if entry.sha256 is not None:
        return "SHA-256 of the catalogue"
    return "SHA-256 of when it came" if before else "network alone; its SHA-256 is recorded now"


def _check_digest(path: Path, entry: Entry, digest: str) -> None:
    if entry.sha256 not in (None, digest):
        raise CheckpointError(
            f"{path}: has SHA-256 {digest}, expected {entry.sha256} of {entry.name}: damaged, or "
            f"another file; {_again(entry)}"
        )


def _again(entry: Entry) -> str:
    if entry.url:
        return f"download it again: restore models get {entry.name} --force"
    return f"take it again from {entry.page}"


def add(source: Path, name: str | None) -> tuple[Entry, Path]:
    """Take a file that a person downloaded into the cache.

    Args:
        source: the file.
        name: of the official model that it is; None: what its SHA-256, its name or its network
            tells.

    Raises:
        CheckpointError: it is no weight file, or not that model's.
        UsageError: nothing tells which model it is, or there is no such model.
        OutputError: the copy cannot be written.
    """
    wanted = find(name) if name is not None else None
    digest = digest_of(source)
    entry = wanted or _told_by(source, digest)
    size = source.stat().st_size
    if entry.size not in (None, size):
        raise CheckpointError(
            f"{source}: has {size:,} bytes, and {entry.name} has {entry.size:,}; "
            "download it again, or use it as it is with --model_path"
        )
    if entry.sha256 not in (None, digest):
        raise CheckpointError(
            f"{source}: has SHA-256 {digest}, and {entry.name} has {entry.sha256}; it is damaged "
            "or another file: download it again, or use it as it is with --model_path"
        )
    check_network(network_of(source), entry)
    return entry, take_in(source, entry, digest)


def _told_by(source: Path, digest: str) -> Entry:
    """The one checkpoint that a file can be."""
    known = [entry for entry in catalogue() if entry.sha256 == digest]
    named = known or known_as(source.name)
    if len(named) == 1:
        return named[0]
    model = network_of(source)
    fitting = [entry for entry in named or catalogue() if _is_of(model, entry)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise UsageError(
            f"{source}: is no official model that the catalogue has; use it with --model_path"
        )
    names = ", ".join(entry.name for entry in fitting)
    raise UsageError(f"{source}: can be any of {names}; say which: --as NAME")


def _is_of(model: Model, entry: Entry) -> bool:
    try:
        check_network(model, entry)
    except CheckpointError:
        return False
    return True


def cached(word: str) -> Path | None:
    """The checked copy in the cache of the official model of a name.

    Returns:
        None where no official model has the name.

    Raises:
        CheckpointError: the copy is not what the catalogue says.
        UsageError: there is no copy, or the name has several models; the message says what to do.
    """
    if not known_as(word):
        return None
    entry = find(word)
    path = stored_path(entry)
    if path.exists():
        check_copy(path, entry)
        return path
    how = f"restore models get {entry.name} downloads it" if entry.url else by_hand(entry)
    raise UsageError(
        f"{entry.name} is an official model that is not in the cache ({models_folder()}); {how}"
    )
