"""Which pictures are meant, and under which names their results go.

Everything here is settled before the first picture is computed, from names alone; a picture's
header is read when its turn comes, so that a million files take little memory and time.
"""

from __future__ import annotations

import difflib
import glob
import os
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from restore.batching.lazy import LazySequence
from restore.batching.names import Names, digest, key
from restore.commands import patterns
from restore.commands.clashes import refuse_clashes
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


class Sources(LazySequence[Source]):
    """Pictures in order, of which only the names are kept, and their folders once."""

    def __init__(self, sources: Iterable[Source] = ()) -> None:
        self._groups: list[tuple[Path, Path, bool, list[str]]] = []
        self._starts: list[int] = []  # of each group
        self._count = 0
        for source in sources:
            self.append(source)

    def append(self, source: Source) -> None:
        """Put a picture behind the others."""
        folder, name = source.path.parent, source.path.name
        like = (folder, source.folder, source.named)
        if not self._groups or self._groups[-1][:3] != like:
            self._groups.append((*like, []))
            self._starts.append(self._count)
        self._groups[-1][3].append(name)
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def _at(self, index: int) -> Source:
        group = bisect_right(self._starts, index) - 1
        folder, below, named, names = self._groups[group]
        return Source(folder / names[index - self._starts[group]], below, named)


@dataclass
class Found:
    """What the inputs came to."""

    sources: Sources = field(default_factory=Sources)
    others: int = 0  # files in folders that are no pictures by their names
    links: set[str] = field(default_factory=set)  # folders that links led to
    count: Callable[[], None] = lambda: None  # is called for each file


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
    is_renamed: bool = False  # the target's format is that of the content, not of the name

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
    inputs: Sequence[str],
    *,
    recursive: bool = False,
    output: Path | None = None,
    count: Callable[[], None] = lambda: None,
) -> Found:
    """Turn files, folders and patterns into pictures, in order, each once.

    Args:
        inputs: a file is taken whatever its name; of a folder the files with a picture's suffix,
            sorted, hidden ones left out; a pattern (`*`, `?`, `[...]`, `**`) for its matches.
        recursive: go into the folders of folders too, and mirror their tree.
        output: a folder that is not gone into.
        count: is called for each file that is looked at.

    Raises:
        UsageError: an input is missing, or holds no picture.
    """
    found = Found()
    seen: set[int] = set()
    barred = None if output is None else os.path.realpath(output)
    for text in inputs:
        if not text:
            raise UsageError("an input is empty; a variable that was never set?")
        here = Found(count=count)
        _expand(os.path.expanduser(text), here, recursive, barred)
        if not here.sources:
            deeper = "" if recursive else "; add -r to search the folders in it too"
            raise UsageError(
                f"{text}: holds no picture ({here.others} other files); expected names ending in "
                f"{', '.join(PICTURE_SUFFIXES)}{deeper}"
            )
        if len(inputs) == 1 and os.path.isdir(os.path.expanduser(text)):
            return here
        for source in here.sources:
            number = digest(key(source.path))
            if number not in seen:
                seen.add(number)
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
        matches = patterns.matches(text)
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
        with os.scandir(folder) as entries:
            # the entry knows what it is; to ask for each file takes long over a network
            names = sorted((e.name, is_folder(e)) for e in entries if not e.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be searched: {error.strerror or error}") from error
    for name, deeper in names:
        path = folder / name
        if not deeper or is_zarr(path):
            _take(path, below, found)
        elif recursive and _is_new(path, found, {*above, real, barred}):
            _search(path, below / name, found, recursive, barred, above | {real})


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is one itself; a link that leads round in circles is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_new(folder: Path, found: Found, barred: set[str | None]) -> bool:
    """Whether to go into a folder: not around in a circle, and not twice by different links."""
    return os.path.realpath(folder) not in barred and patterns.is_new(folder, found.links)


def _take(path: Path, below: Path, found: Found) -> None:
    found.count()
    if path.suffix.lower() in PICTURE_SUFFIXES or is_foreign_name(path):
        found.sources.append(Source(path, below, named=False))
    else:
        found.others += 1


class Plan(LazySequence[Job]):
    """Jobs in order, each made when it is asked for, which reads its picture's header.

    Attributes:
        sources: the pictures.
        folder: of the results.
        taken: names of all results and pictures, see `ResultNames`.
    """

    def __init__(
        self, sources: Sequence[Source], naming: Naming, exact: Path | None, taken: Names
    ) -> None:
        self.sources = sources
        self.folder = exact.parent if exact else naming.output
        self.taken = taken
        self._naming = naming
        self._exact = exact

    def __len__(self) -> int:
        return len(self.sources)

    def _at(self, index: int) -> Job:
        return self.job(self.sources[index])

    def job(self, source: Source) -> Job:
        """A picture and where its result goes, by its header."""
        return read_job(source, self._naming, self._exact)


def plan_jobs(sources: Sequence[Source], naming: Naming) -> tuple[Plan, list[Path]]:
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
    folder = exact.parent if exact else naming.output
    check_writable(folder)
    left_out = _earlier_results(sources, naming) if naming.suffix else []
    if left_out:
        results = set(left_out)
        sources = Sources(source for source in sources if source.path not in results)
    taken = refuse_clashes(sources, lambda source: named_job(source, naming, exact), naming, folder)
    return Plan(sources, naming, exact, taken), left_out


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


def _earlier_results(sources: Sequence[Source], naming: Naming) -> list[Path]:
    """Pictures that were not named and are results of others, of an earlier run with a suffix."""
    ends = (naming.suffix, COMPARE_SUFFIX)
    ending = [s for s in sources if not s.named and s.path.stem.endswith(ends)]
    if not ending:
        return []
    planned = Names(
        digest(key(path)) for s in sources for path in named_job(s, naming, None).outputs
    )
    given = Names(digest(key(source.path)) for source in sources)
    return [
        s.path for s in ending if key(s.path) in planned or _is_result_of_misnamed(s, naming, given)
    ]


def _is_result_of_misnamed(result: Source, naming: Naming, given: Names) -> bool:
    """Whether it is the result of a picture here whose name tells another format than it has."""
    stem = result.path.stem.removesuffix(naming.suffix)
    for suffix in PICTURE_SUFFIXES:
        path = result.path.with_name(stem + suffix)
        if key(path) in given:
            job = read_job(replace(result, path=path), naming, None)
            if key(result.path) in {key(output) for output in job.outputs}:
                return True
    return False


def read_job(source: Source, naming: Naming, exact: Path | None) -> Job:
    """A picture and where its result goes, by its header."""
    try:
        return named_job(source, naming, exact, probe(source.path))
    except RestoreError as error:
        return replace(named_job(source, naming, exact), problem=str(error))


def named_job(
    source: Source, naming: Naming, exact: Path | None, info: PictureInfo | None = None
) -> Job:
    """A picture and where its result goes, by its name where its header is not known."""
    path, folder = source.path, naming.output / source.folder
    fmt: TargetFormat | None
    renamed = False
    if exact:
        folder, target, fmt = exact.parent, exact, target_format(exact)
    else:
        end, fmt = f".{naming.ext}", None if naming.ext == "auto" else naming.ext
        if naming.ext == "auto" and info is not None and info.fmt not in TARGETS:
            # a slide or a JPEG 2000 file, say, which can only be read
            end, fmt, renamed = ".tif", "tiff", True
        elif naming.ext == "auto":
            by_name = target_format(path)
            renamed = info is not None and info.fmt != by_name
            end = f".{info.fmt}" if info and renamed else path.suffix
        target = folder / f"{path.stem}{naming.suffix}{end}"
    compare = folder / f"{path.stem}{COMPARE_SUFFIX}.png" if naming.compare else None
    return Job(path, target, fmt, compare, info, is_renamed=renamed)


def target_format(path: Path) -> TargetFormat | None:
    """The format to write that a name means, by its suffix."""
    suffix = path.suffix.lower()
    return "zarr" if suffix == ZARR_SUFFIX else PICTURE_SUFFIXES.get(suffix)
