"""Which of the inputs are videos, and where their results go. Nothing is opened but .ts files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from restore.commands.files import Source, check_writable, is_folder
from restore.errors import UsageError
from restore.image_io import PICTURE_SUFFIXES
from restore.video.journal import ENDING
from restore.video.planning import CONTAINERS, SUFFIXES, is_video_name, target_suffix


@dataclass
class Split:
    """Inputs, sorted by what they hold."""

    videos: list[Source] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # inputs that may hold pictures, or are wrong
    in_folders: int = 0  # videos that a search for pictures passes by


def split_inputs(inputs: Sequence[str], *, recursive: bool = False, output: Path) -> Split:
    """Pick the videos out of files, folders and patterns, in order, each once.

    Args:
        inputs: as for `find_pictures`.
        recursive: go into the folders of folders too, and mirror their tree.
        output: a folder that is not gone into.
    """
    split = Split()
    seen: set[str] = set()
    barred = os.path.realpath(output)
    for text in inputs:
        named = os.path.expanduser(text)
        path = Path(named)
        if text and path.is_dir():
            found = _search(path, Path(), recursive, barred, frozenset())
        elif text and os.path.lexists(path):
            found = iter([Source(path)])
        else:
            found = _matches(named, recursive, barred)
        videos: list[Source] = []
        has_pictures = False
        for source in found:  # never a list of them: there may be a million pictures
            if is_video_name(source.path):
                videos.append(source)
            has_pictures |= source.path.suffix.lower() in PICTURE_SUFFIXES
        if not videos or has_pictures:
            split.others.append(text)
            split.in_folders += len(videos)
        for source in videos:
            key = os.path.normcase(os.path.abspath(source.path))
            if key not in seen:
                seen.add(key)
                split.videos.append(source)
    return split


def _matches(text: str, recursive: bool, barred: str) -> Iterator[Source]:
    """What a pattern finds; nothing for a name of nothing."""
    if not any(mark in text for mark in "*?["):
        return
    for match in sorted(glob.glob(text, recursive=True)):
        if not os.path.isdir(match):
            if not any(part.endswith(ENDING) for part in Path(match).parent.parts):
                yield Source(Path(match), named=False)
        elif "**" not in text and not match.endswith(ENDING):
            yield from _search(Path(match), Path(), recursive, barred, frozenset())


def _search(
    folder: Path, below: Path, recursive: bool, barred: str, above: frozenset[str]
) -> Iterator[Source]:
    """The files of a folder; one that cannot be read is told of by the search for pictures."""
    real = os.path.realpath(folder)
    try:
        with os.scandir(folder) as entries:
            names = sorted((e.name, is_folder(e)) for e in entries if not e.name.startswith("."))
    except OSError:
        return
    for name, deeper in names:
        path = folder / name
        if not deeper:
            yield Source(path, below, named=False)
        elif not recursive or name.endswith(ENDING):
            continue
        elif os.path.realpath(path) not in {*above, real, barred}:
            yield from _search(path, below / name, recursive, barred, above | {real})


def name_results(
    videos: Sequence[Source], output: str, suffix: str, *, with_pictures: bool
) -> tuple[Path, list[tuple[Path, Path]], list[Path]]:
    """Where the results go.

    Args:
        videos: from `split_inputs`.
        output: a folder; for one named video also a file name.
        suffix: added to names.
        with_pictures: whether pictures are restored too.

    Returns:
        The folder, pairs of a video and its result, and videos that are results of the others.

    Raises:
        UsageError: two videos would give one file, a result would replace a video that was given,
            or the output cannot be had.
    """
    target = Path(output)
    is_folder = target.is_dir() or output.endswith(("/", os.sep))
    ending = target.suffix.lower()
    exact = None
    if not is_folder and ending in SUFFIXES:
        exact = target
        _check_exact(target, videos, suffix, with_pictures)
    elif not is_folder and ending and not target.exists() and _is_single(videos, with_pictures):
        raise UsageError(
            f"-o {output}: cannot write {target.suffix}; the name of a video ends in "
            f"{', '.join(CONTAINERS)}, and a folder of that name has to be there already"
        )
    folder = target if exact is None else target.parent
    check_writable(folder)
    pairs = [
        (s.path, exact or folder / s.folder / f"{s.path.stem}{suffix}{target_suffix(s.path)}")
        for s in videos
    ]
    made = {os.path.realpath(result): source for source, result in pairs}
    found = {s.path for s in videos if not s.named}
    left_out = [
        s for s, _ in pairs if suffix and s in found and s != made.get(os.path.realpath(s), s)
    ]
    pairs = [pair for pair in pairs if pair[0] not in left_out]
    _refuse_clashes(pairs)
    return folder, pairs, left_out


def _is_single(videos: Sequence[Source], with_pictures: bool) -> bool:
    return len(videos) == 1 and videos[0].named and not with_pictures


def _check_exact(target: Path, videos: Sequence[Source], suffix: str, with_pictures: bool) -> None:
    if target.suffix.lower() not in CONTAINERS:
        raise UsageError(
            f"-o {target}: videos are not written as {target.suffix}; expected a name in "
            f"{', '.join(CONTAINERS)}, or a folder"
        )
    if not _is_single(videos, with_pictures):
        more = " and pictures" if with_pictures else ""
        raise UsageError(
            f"-o {target}: names one file, but {len(videos)} videos{more} were found in what was "
            "given; name a folder"
        )
    if suffix:
        raise UsageError(f"-o {target} is the whole name of the result; leave out --suffix")


def _refuse_clashes(pairs: Sequence[tuple[Path, Path]]) -> None:
    inputs = {os.path.realpath(source): source for source, _ in pairs}
    makers: dict[str, Path] = {}
    for source, target in pairs:
        real = os.path.realpath(target)
        if real in inputs:
            raise UsageError(
                f"{inputs[real]}: would be replaced by the result of {source}; add --suffix _x4, "
                "or choose another folder with -o"
            )
        other = makers.setdefault(real, source)
        if other != source:
            more = (
                "or rename one of them"
                if other.parent == source.parent
                else "or give their common folder with -r, which keeps its tree"
            )
            raise UsageError(
                f"{other} and {source} would both be written to {target}; restore them in two runs "
                f"with different -o, {more}"
            )
