"""The folders of a run, laid out as BasicSR lays them out, and what becomes of older ones.

experiments/<name>/models/net_g_<iter>.pth, net_g_latest.pth
experiments/<name>/training_states/<iter>.state
experiments/<name>/visualization/<picture>/<picture>_<iter>.png
experiments/<name>/train_<name>_<time>.log, train.csv, val.csv, curves.png, summary.md
tb_logger/<name>/
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from restore.atomic import writing
from restore.errors import OutputError, UsageError
from restore.training.distributed import Processes
from restore.training.options import Options
from restore.training.states import newest_state, read_state, state_files
from restore.training.train_options import TrainOptions

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

ARCHIVED = "_archived_"
_PATIENCE = 10.0  # seconds that a run may take to end, which another one waits for


class WaitingWarning(UserWarning):
    """Another process holds the folder of a run, which waits a moment for it to end."""


@dataclass(frozen=True)
class Folders:
    """Where a run writes."""

    root: Path  # experiments/<name>
    tensorboard: Path

    @property
    def models(self) -> Path:
        """Weights."""
        return self.root / "models"

    @property
    def states(self) -> Path:
        """Training states."""
        return self.root / "training_states"

    @property
    def visualization(self) -> Path:
        """Validation pictures."""
        return self.root / "visualization"

    def state(self, iteration: int) -> Path:
        """The training state of an iteration."""
        return self.states / f"{iteration}.state"


def folders_of(name: str, root: Path) -> Folders:
    """Where the run of a name writes below a folder."""
    return Folders(root / "experiments" / name, root / "tb_logger" / name)


def state_to_resume(
    options: Options, folders: Folders, auto_resume: bool, group: Processes
) -> dict[str, Any] | None:
    """What a run goes on from; None: it begins. All processes call it, and get the same.

    Args:
        options: `path: resume_state` names a state.
        folders: of the run.
        auto_resume: take the newest whole state of the run, if it has any.
        group: the processes of the run.

    Raises:
        CheckpointError: the named state is damaged, or all of the run's are.
        UsageError: it is of an iteration beyond total_iter.
    """
    path, state = options.path.resume_state, None
    if auto_resume and group.is_first:
        found = newest_state(folders.states)
        path, state = found if found is not None else (path, None)
    path = group.from_first(path)
    if path is None:
        return None
    state = read_state(path) if state is None else state
    if options.train is not None:
        _check_iteration(path, int(state["iter"]), options.train)
    return state


def _check_iteration(path: Path, iteration: int, train: TrainOptions) -> None:
    total = train.total_iter
    if iteration <= total:
        return
    numbers = [int(file.stem) for file in state_files(path.parent) if int(file.stem) <= total]
    earlier = (
        f", or go on from {path.with_name(f'{numbers[0]}.state')} by naming it as path: "
        "resume_state, without --auto_resume"
        if numbers
        else ""
    )
    raise UsageError(
        f"{train.where('total_iter')}: total_iter is {total:,}, and the training state {path} is "
        f"of iteration {iteration:,}: there is nothing left to train; raise total_iter above "
        f"{iteration:,} to go on{earlier}, or begin anew by leaving --auto_resume and resume_state "
        "out"
    )


def prepare(folders: Folders, options: Options, *, resumed: bool) -> list[str]:
    """Make the folders; an older run of that name that saved something is renamed, as BasicSR does.

    A run that was killed before its first checkpoint has nothing to keep, and is begun again in the
    same folder. What a killed run left half written is removed.

    Returns:
        What was renamed, in words.

    Raises:
        OutputError: they cannot be made.
    """
    told = []
    with writing(folders.root):
        if not resumed and _saved_something(folders):
            for folder in (folders.root, folders.tensorboard):
                if folder.exists():
                    target = _put_aside(folder)
                    told.append(f"{folder} is of an older run: renamed to {target.name}")
        make_folders(folders)
        for part in folders.root.rglob(".*.part"):
            part.unlink()
        copy = folders.root / options.file.name
        # a run may go on with the copy that it left
        if options.file.is_file() and not (copy.exists() and copy.samefile(options.file)):
            shutil.copyfile(options.file, copy)
    return told


def _put_aside(folder: Path) -> Path:
    """Rename a folder after the time; what it is called now."""
    name = folder.name + ARCHIVED + time.strftime("%Y%m%d_%H%M%S")
    target, number = folder.with_name(name), 1
    while target.exists():  # short runs follow each other within a second
        number += 1
        target = folder.with_name(f"{name}_{number}")
    folder.rename(target)
    return target


def make_folders(folders: Folders) -> None:
    """Those that are not there; OutputError where they cannot be made."""
    for folder in (folders.models, folders.states, folders.visualization):
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)


def _saved_something(folders: Folders) -> bool:
    return bool(state_files(folders.states)) or any(folders.models.glob("net_*.pth"))


# what sole_user of this process holds
_locks: weakref.WeakSet[TextIO] = weakref.WeakSet()


def _let_go() -> None:
    """In a forked process: a lock is free only when all that have its file open closed it.

    Readers of a run that was killed live on for some seconds.
    """
    for file in list(_locks):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def sole_user(folders: Folders, group: Processes) -> Iterator[None]:
    """Hold a run's folder for its processes, so that no second run of that name writes into it.

    Raises:
        UsageError: another process holds it, and did not end within some seconds.

    Warns:
        WaitingWarning: another process holds it, and is waited for.
    """
    if fcntl is None or not group.is_first:
        yield
        return
    with writing(folders.root):
        folders.root.parent.mkdir(parents=True, exist_ok=True)
        path = folders.root.with_name(f".{folders.root.name}.lock")
        file = path.open("w")
    with file:
        _locks.add(file)
        _lock(file, folders.root)
        yield


def _lock(file: TextIO, root: Path) -> None:
    end, told = time.monotonic() + _PATIENCE, False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= end:
                raise UsageError(
                    f"{root}: another process trains there; wait for it, stop it, or choose "
                    "another name"
                ) from None
        else:
            return
        if not told:
            text = f"{root}: another process trains there; waiting up to {_PATIENCE:.0f} s for it"
            warnings.warn(f"{text} to end", WaitingWarning, stacklevel=1)
            told = True
        time.sleep(0.1)


def check_room(folders: Folders, needed: int) -> None:
    """OutputError where the disk has no room for a checkpoint of so many bytes."""
    free = shutil.disk_usage(folders.root if folders.root.exists() else folders.root.parent).free
    if free < needed:
        raise OutputError(
            f"{folders.root}: the disk has {free / 2**20:.0f} MiB left and a checkpoint takes "
            f"{needed / 2**20:.0f}; free some space or run elsewhere"
        )


def results_folder(name: str, root: Path) -> Path:
    """Make results/<name>; an older one is renamed, as BasicSR does. OutputError if it cannot."""
    folder = root / "results" / name
    with writing(folder):
        if folder.exists() and any(folder.iterdir()):
            _put_aside(folder)
        folder.mkdir(parents=True, exist_ok=True)
    return folder
