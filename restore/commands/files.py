"""Which pictures are meant, and under which names their results go.

Everything here is settled before the first picture is computed.
"""

from __future__ import annotations

import difflib
import glob
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from restore.errors import RestoreError, UsageError
from restore.image_io import FORMATS, PICTURE_SUFFIXES, PictureFormat, PictureInfo, probe
from restore.image_io.foreign import is_foreign_name
from restore.image_io.zarr_rows import ZARR_SUFFIX, is_zarr

Extension = Literal["auto", "png", "jpg", "webp", "tiff", "bmp", "zarr"]
TargetFormat = PictureFormat | Literal["zarr"]
COMPARE_SUFFIX = "_compare"
TARGETS: tuple[str, ...] = (*FORMATS, "zarr")  # formats that can be written


@dataclass(frozen=True)
class Source:
    """A picture to restore."""

    path: Path
    folder: Path = Path()  # where in the output folder its result goes
    named: bool = True  # by the user, not found in a folder or by a pattern


@dataclass
class Found:
    """What the inputs came to."""

    sources: list[Source] = field(default_factory=list)
    others: int = 0  # files in folders that are no pictures by their names


@dataclass(frozen=True)
class Naming:
    """How results are called: `output / folder / <stem><suffix>.<ext>`."""

    output: Path = Path("results")  # or a file name, for one named picture
    suffix: str = ""
    ext: Extension = "auto"  # auto: the source's format and the suffix of its name
    compare: bool = False  # write `<stem>_compare.png` too
    is_folder: bool = False  # the output, said by a slash at its end, whatever its suffix


@dataclass(frozen=True)
class Job:
    """A picture and where its result goes."""

    source: Path
    target: Path
    fmt: TargetFormat | None  # None: the source's, or PNG where that cannot carry the result
    compare: Path | None = None
    info: PictureInfo | None = None
    problem: str = ""  # why the header could not be read

    @property
    def is_done(self) -> bool:
        """Whether the results of an earlier run are there.

        Where the format is chosen by what it has to carry, a PNG or TIFF may stand for the result.
        """
        others = (self.target.with_suffix(end) for end in (".png", ".tif"))
        instead = self.fmt is None and any(path.exists() for path in others)
        compared = self.compare is None or self.compare.exists()
        return compared and (instead or self.target.exists())

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files that it writes."""
        return (self.target,) if self.compare is None else (self.target, self.compare)


def find_pictures(
    inputs: Sequence[str], *, recursive: bool = False, output: Path | None = None
) -> Found:
    """Turn files, folders and patterns into pictures, in order, each once.

    Args:
        inputs: a file is taken whatever its name; of a folder the files with a picture's suffix,
            sorted, hidden ones left out; a pattern (`*`, `?`, `[...]`, `**`) for its matches.
        recursive: go into the folders of folders too, and mirror their tree.
        output: a folder that is not gone into.

    Raises:
        UsageError: an input is missing, or holds no picture.
    """
    found = Found()
    seen: set[str] = set()
    barred = None if output is None else os.path.realpath(output)
    for text in inputs:
        if not text:
            raise UsageError("an input is empty; a variable that was never set?")
        here = Found()
        _expand(os.path.expanduser(text), here, recursive, barred)
        if not here.sources:
            deeper = "" if recursive else "; add -r to search the folders in it too"
            raise UsageError(
                f"{text}: holds no picture ({here.others} other files); expected names ending in "
                f"{', '.join(PICTURE_SUFFIXES)}{deeper}"
            )
        for source in here.sources:
            key = _key(source.path)
            if key not in seen:
                seen.add(key)
                found.sources.append(source)
        found.others += here.others
    return found


def _expand(text: str, found: Found, recursive: bool, barred: str | None) -> None:
    path = Path(text)
    if is_zarr(path):
        found.sources.append(Source(path))
    elif path.is_dir():
        _search(path, Path(), found, recursive, barred, frozenset())
    elif os.path.lexists(path):
        found.sources.append(Source(path))
    elif any(mark in text for mark in "*?["):
        matches = glob.glob(text, recursive=True)
        if not matches and path.parent.is_dir():
            # a folder may have brackets in its own name
            matches = glob.glob(os.path.join(glob.escape(str(path.parent)), path.name))
        for match in sorted(matches):
            if os.path.isdir(match) and not is_zarr(match):
                # "**" gives the folders and what is in them; the files come by themselves
                if "**" not in text:
                    _search(Path(match), Path(), found, recursive, barred, frozenset())
            else:
                _take(Path(match), Path(), found)
    else:
        names = os.listdir(path.parent) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise UsageError(f"{text}: no such file or folder{hint}")


def _search(
    folder: Path,
    below: Path,
    found: Found,
    recursive: bool,
    barred: str | None,
    above: frozenset[str],
) -> None:
    """Take the pictures of a folder; `above` are the folders on the way, against loops of links."""
    real = os.path.realpath(folder)
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be searched: {error.strerror or error}") from error
    for name in names:
        path = folder / name
        if not path.is_dir() or is_zarr(path):
            _take(path, below, found)
        elif recursive and os.path.realpath(path) not in {*above, real, barred}:
            _search(path, below / name, found, recursive, barred, above | {real})


def _take(path: Path, below: Path, found: Found) -> None:
    if path.suffix.lower() in PICTURE_SUFFIXES or is_foreign_name(path):
        found.sources.append(Source(path, below, named=False))
    else:
        found.others += 1


def plan_jobs(sources: Sequence[Source], naming: Naming) -> tuple[list[Job], list[Path]]:
    """Name every result, before anything is computed.

    Returns:
        The jobs, and pictures left out because they are results of the others (of an earlier run
        into the folder the pictures lie in).

    Raises:
        UsageError: two pictures would give one file, a result would replace a picture that was
            given, or the output cannot be a folder.
    """
    if {"/", "\\"} & set(naming.suffix):
        raise UsageError(f"--suffix is {naming.suffix!r}; it goes into file names, so no / or \\")
    exact = _exact_target(sources, naming)
    check_writable(exact.parent if exact else naming.output)
    jobs = {_key(s.path): _job(s, naming, exact) for s in sources}
    earlier = {_key(p) for job in jobs.values() for p in job.outputs if naming.suffix}
    ends = (naming.suffix, COMPARE_SUFFIX)
    left_out = [
        s.path
        for s in sources
        if not s.named and _key(s.path) in earlier and s.path.stem.endswith(ends)
    ]
    for path in left_out:
        del jobs[_key(path)]
    _refuse_clashes(jobs, naming)
    return list(jobs.values()), left_out


def _exact_target(sources: Sequence[Source], naming: Naming) -> Path | None:
    """The output if it names a file; None if it is a folder."""
    output = naming.output
    fmt = target_format(output)
    if naming.is_folder or (output.is_dir() and not (fmt == "zarr" and is_zarr(output))):
        return None
    if fmt is None:
        # a folder may have a dot in its name, but one picture to "a.gif" means a file
        if output.suffix and len(sources) == 1 and sources[0].named and not output.exists():
            raise UsageError(
                f"-o {output}: cannot write {output.suffix}; a file name ends in "
                f"{', '.join(PICTURE_SUFFIXES)} or .zarr, and a folder of that name has to be "
                "there already"
            )
        return None
    if len(sources) != 1 or not sources[0].named:
        raise UsageError(
            f"-o {output}: names one file, but {len(sources)} pictures were found in what was "
            "given; name a folder"
        )
    if naming.suffix or naming.ext not in ("auto", fmt):
        what = f"--suffix {naming.suffix}" if naming.suffix else f"--ext {naming.ext}"
        raise UsageError(f"-o {output} is the whole name of the result; leave out {what}")
    return output


def check_writable(folder: Path) -> None:
    """Refuse a folder in which no file can be made, or that cannot be made (UsageError)."""
    whole = folder.absolute()
    there = next(p for p in (whole, *whole.parents) if os.path.lexists(p))
    if not there.is_dir():
        raise UsageError(f"-o {folder}: {there} is a file; name a folder, or a new one")
    missing = whole.relative_to(there)
    try:
        # rights do not tell all, so it is tried, under a name that no other run uses
        if missing.parts:
            with tempfile.TemporaryDirectory(dir=there, prefix=".restore-") as trial:
                Path(trial, missing).mkdir(parents=True)
        else:
            tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        made = "folder" if missing.parts else "file"
        raise UsageError(
            f"-o {folder}: cannot be written to: no {made} can be made in {there}: "
            f"{error.strerror or error}; choose another folder"
        ) from error


def _job(source: Source, naming: Naming, exact: Path | None) -> Job:
    info, problem = None, ""
    try:
        info = probe(source.path)
    except RestoreError as error:
        problem = str(error)
    path, folder = source.path, naming.output / source.folder
    fmt: TargetFormat | None
    if exact:
        folder, target, fmt = exact.parent, exact, target_format(exact)
    else:
        end, fmt = f".{naming.ext}", None if naming.ext == "auto" else naming.ext
        if naming.ext == "auto" and info is not None and info.fmt not in TARGETS:
            # a slide or a JPEG 2000 file, say, which can only be read
            end, fmt = ".tif", "tiff"
        elif naming.ext == "auto":
            by_name = target_format(path)
            wrong = info is not None and info.fmt != by_name
            end = f".{info.fmt}" if info and wrong else path.suffix
        target = folder / f"{path.stem}{naming.suffix}{end}"
    compare = folder / f"{path.stem}{COMPARE_SUFFIX}.png" if naming.compare else None
    return Job(path, target, fmt, compare, info, problem)


def target_format(path: Path) -> TargetFormat | None:
    """The format to write that a name means, by its suffix."""
    suffix = path.suffix.lower()
    return "zarr" if suffix == ZARR_SUFFIX else PICTURE_SUFFIXES.get(suffix)


def _refuse_clashes(jobs: dict[str, Job], naming: Naming) -> None:
    inputs = {os.path.realpath(job.source): job.source for job in jobs.values()}
    makers: dict[str, Path] = {}
    for job in jobs.values():
        for path in job.outputs:
            over = inputs.get(os.path.realpath(path))
            if over is not None:
                raise UsageError(
                    f"{over}: would be replaced by the result of {job.source}; add --suffix _x4, "
                    "or choose another folder with -o"
                )
            if job.target == job.compare:
                raise UsageError(
                    f"{path}: would be both the result of {job.source} and its comparison; "
                    "choose another --suffix"
                )
            other = makers.setdefault(_key(path), job.source)
            if other != job.source:
                raise UsageError(
                    f"{other} and {job.source} would both be written to {path}; "
                    + _remedy(other, job.source, naming)
                )


def _remedy(one: Path, other: Path, naming: Naming) -> str:
    if one.parent != other.parent:
        return (
            "give their common folder with -r, which keeps its tree, or restore them in two runs "
            "with different -o"
        )
    if naming.ext != "auto" and one.suffix != other.suffix:
        return f"leave out --ext {naming.ext}: auto keeps {one.suffix} and {other.suffix} apart"
    return "rename one of them, or restore them in two runs with different -o"


def _key(path: Path) -> str:
    """Equal for two names of one file, links aside."""
    text = os.path.normcase(os.path.abspath(path))
    return text.casefold() if sys.platform == "darwin" else text
