"""Which pictures belong together: folders, lists and data bases, by BasicSR's rules.

Source: the behaviour of BasicSR 1.4.2 (github.com/XPixelGroup/BasicSR, basicsr/data/data_util.py).
Written anew. What differs: files that are not named like pictures are left out, a low-quality
picture may have another suffix, and an error names the files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from restore.errors import UsageError
from restore.image_io import PICTURE_SUFFIXES
from restore.special_files import special_file

READ_SUFFIXES = (*PICTURE_SUFFIXES, ".npy")
META_FILE = "meta_info.txt"
_NAMED = 3  # how many files an error names
_META_LINE = re.compile(r"(?P<name>.+?\.\w+) \((?P<shape>\d+,\d+(,\d+)?)\)( -?\d+)?")


@dataclass(frozen=True)
class Entry:
    """A picture in a folder, or in a data base under a key.

    Attributes:
        path: of the file, or of the data base's folder.
        key: in the data base; empty for a file.
    """

    path: Path
    key: str = ""

    def __str__(self) -> str:
        """How batches and errors call it."""
        return f"{self.path}/{self.key}" if self.key else str(self.path)


@dataclass(frozen=True)
class Pair:
    """A low-quality picture and what it should become."""

    lq: Entry
    gt: Entry


def pictures_in(folder: Path, suffixes: Collection[str] = READ_SUFFIXES) -> list[str]:
    """Names of the pictures in a folder, sorted; hidden files and folders in it are left out.

    Links that lead nowhere count: leaving them out would train on less without a word.

    Args:
        folder: see above.
        suffixes: of names that count, lower case; arrays (.npy) are for training alone.

    Raises:
        UsageError: there is no such folder, or no picture in it.
    """
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
            folders = sorted(entry.name for entry in seen if _is_folder(entry))
            files = [entry.name for entry in seen if _is_file(entry)]
    except FileNotFoundError:
        raise UsageError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise UsageError(f"{folder}: is a file; expected a folder of pictures") from None
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {error.strerror}; check its rights") from None
    found = sorted(name for name in files if Path(name).suffix.lower() in suffixes)
    if not found:
        others = f"; of its {len(files)} files none is named like one" if files else ""
        if folders:
            others += (
                f"; it has folders ({_some(folders)}), and pictures in folders below are not "
                "looked for: name those, dataroot_gt and dataroot_lq take lists"
            )
        raise UsageError(f"{folder}: holds no picture{others}")
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Also a link that leads nowhere: reading it tells, where leaving it out would not."""
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return True


def folder_entries(folder: Path) -> list[Entry]:
    """All pictures of a folder, sorted by name."""
    return [Entry(folder / name) for name in pictures_in(folder)]


def listed_names(list_file: Path) -> list[str]:
    """The names in a list: what stands before ` (height,width,channels)`, or the first word.

    Raises:
        UsageError: it cannot be read, or names nothing.
    """
    try:
        if special := special_file(list_file):
            raise UsageError(f"{list_file}: is {special}; expected a list of pictures")
        lines = list_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise UsageError(f"{list_file}: cannot be read: {why}") from None
    names = [_listed_name(line.strip()) for line in lines if line.strip()]
    if not names:
        raise UsageError(f"{list_file}: names no picture; expected one a line")
    return names


def _listed_name(line: str) -> str:
    match = _META_LINE.fullmatch(line)
    return match["name"] if match else line.split(" ")[0]


def listed_entries(folder: Path, list_file: Path) -> list[Entry]:
    """The pictures of a folder that a list names, in its order.

    Raises:
        UsageError: a file is not there.
    """
    entries = [Entry(folder / name) for name in listed_names(list_file)]
    _all_there(entries, str(list_file))
    return entries


def database_keys(folder: Path) -> list[str]:
    """The keys of a data base, sorted: the names in its meta_info.txt up to their first point.

    Raises:
        UsageError: it is not named *.lmdb, or has no list.
    """
    if folder.suffix != ".lmdb":
        raise UsageError(
            f"{folder}: io_backend is lmdb, so a folder NAME.lmdb is expected; make one with "
            "`restore data lmdb`"
        )
    if not (folder / META_FILE).is_file():
        raise UsageError(f"{folder}: holds no {META_FILE}; make it anew with `restore data lmdb`")
    return sorted(name.split(".")[0] for name in listed_names(folder / META_FILE))


def database_entries(folder: Path) -> list[Entry]:
    """All pictures of a data base."""
    return [Entry(folder, key) for key in database_keys(folder)]


def paired_databases(gt: Path, lq: Path) -> list[Pair]:
    """Pairs that have the same key.

    Raises:
        UsageError: a key is in one of the two alone.
    """
    gt_keys, lq_keys = database_keys(gt), database_keys(lq)
    _refuse_unpaired(gt, sorted(set(gt_keys) - set(lq_keys)), lq, sorted({*lq_keys} - {*gt_keys}))
    return [Pair(Entry(lq, key), Entry(gt, key)) for key in gt_keys]


def paired_folders(gt: Path, lq: Path, template: str) -> list[Pair]:
    """Pairs of two folders, by name.

    Args:
        gt: folder of the high-quality pictures.
        lq: folder of the low-quality ones.
        template: name of a low-quality picture; {} is the other's, without its suffix.

    Raises:
        UsageError: a picture of either folder has no partner.
    """
    found, gt_alone, lq_alone = match_folders(gt, lq, template)
    _refuse_unpaired(gt, gt_alone, lq, lq_alone, template)
    return found


def match_folders(
    gt: Path, lq: Path, template: str, suffixes: Collection[str] = READ_SUFFIXES
) -> tuple[list[Pair], list[str], list[str]]:
    """Pairs of two folders, and the names in each that have no partner."""
    check_template(template)
    there = pictures_in(lq, suffixes)
    by_stem: dict[str, str] = {}
    for name in there:
        by_stem.setdefault(Path(name).stem, name)
    names = set(there)
    pairs, alone, taken = list[Pair](), list[str](), set[str]()
    for name in pictures_in(gt, suffixes):
        stem = template.format(Path(name).stem)
        same = stem + Path(name).suffix
        partner = same if same in names else by_stem.get(stem)
        if partner is None or partner in taken:
            alone.append(name)
        else:
            taken.add(partner)
            pairs.append(Pair(Entry(lq / partner), Entry(gt / name)))
    return pairs, alone, sorted(names - taken)


def paired_by_list(gt: Path, lq: Path, list_file: Path, template: str) -> list[Pair]:
    """Pairs of the pictures that a list names, in its order.

    A name in the list may begin with a folder below `gt`. The low-quality picture then lies in `lq`
    itself (BasicSR's rule), or in the folder of that name below it.

    Raises:
        UsageError: a file is not there.
    """
    check_template(template)
    pairs = []
    for name in map(Path, listed_names(list_file)):
        partner = template.format(name.stem) + name.suffix
        below = lq / name.parent / partner
        entry = below if name.parent != Path() and below.is_file() else lq / partner
        pairs.append(Pair(Entry(entry), Entry(gt / name)))
    _all_there([entry for pair in pairs for entry in (pair.gt, pair.lq)], str(list_file))
    return pairs


def check_template(template: str) -> None:
    """Raise UsageError unless {} stands in it once and nothing else in braces."""
    try:
        a, b = template.format("a"), template.format("b")
    except (IndexError, KeyError, ValueError):
        a = b = ""
    if a == b:
        raise UsageError(
            f"filename_tmpl is {template!r}; expected {{}} for the name of the gt without its "
            "suffix, as in {}x4"
        )


def _all_there(entries: Sequence[Entry], named_by: str) -> None:
    listings: dict[Path, Mapping[str, None]] = {}
    missing = []
    for entry in entries:
        parent = entry.path.parent
        if parent not in listings:
            listings[parent] = dict.fromkeys(os.listdir(parent) if parent.is_dir() else ())
        if entry.path.name not in listings[parent]:
            missing.append(str(entry.path))
    if missing:
        raise UsageError(
            f"{named_by}: names {len(missing)} of {len(entries)} files that are not there: "
            f"{_some(missing)}"
        )


def _refuse_unpaired(
    gt: Path, gt_alone: Sequence[str], lq: Path, lq_alone: Sequence[str], template: str = "{}"
) -> None:
    parts = [
        f"{len(names)} of {folder} ({_some(names)})"
        for folder, names in ((gt, gt_alone), (lq, lq_alone))
        if names
    ]
    if parts:
        rule = f" (filename_tmpl {template!r})" if template != "{}" else ""
        raise UsageError(
            f"pictures without a partner{rule}: {' and '.join(parts)}; remove them, or name what "
            "belongs together alike. `restore data check` lists all"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
