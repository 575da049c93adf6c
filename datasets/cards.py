"""Test sets on the user's disk: found by card or by folder, and compared with the card.

Sets lie about in two forms, and this reads both and plain folders of pictures:

    Set5/HR/baby.png      and  Set5/LR_bicubic/X4/babyx4.png   whole pictures
    Set5/GTmod12/baby.png and  Set5/LRbicx4/baby.png           cut to multiples, as BasicSR has them
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from restore.datasets.card_files import (
    Card,
    CardImage,
    card,
    card_names,
    find_card,
    plain_name,
    plain_names,
)
from restore.datasets.listing import pictures_in
from restore.errors import UsageError
from restore.image_io import PICTURE_SUFFIXES
from restore.tasks import PAIRED

__all__ = [
    "Card",
    "CardImage",
    "FoundPicture",
    "FoundSet",
    "card",
    "card_names",
    "find_set",
    "folder_of",
]

Convention = Literal["HR/LR_bicubic", "GTmod/LRbic", "made", "gt", "pairs"]

GT_FOLDERS = ("HR", "GT", "gt", "original")  # of whole pictures
_NAMED = 3  # pictures that a problem names


@dataclass(frozen=True)
class FoundPicture:
    """One picture of a set.

    Attributes:
        name: without suffix, as the card has it.
        gt: the good picture.
        lq: the one made smaller; None where it has to be made of `gt`.
    """

    name: str
    gt: Path
    lq: Path | None


@dataclass(frozen=True)
class FoundSet:
    """A set on the disk.

    Attributes:
        name: the card's, or the folder's.
        card: None for a folder that no card is known of.
        folder: that holds its folders, or its pictures.
        pictures: in the card's order, or by name.
        convention: "HR/LR_bicubic" or "GTmod/LRbic" where lq lies there; "made": it is made by
            `restore.imresize` of gt cut to a multiple of the scale; "gt": none was wanted; "pairs":
            the set holds both sides, see `real_pairs`.
        scale: of lq; None where none was wanted.
        problems: what is missing or too much, one sentence each; the pixels are `set_check`'s.
        alone: pictures of a set of pairs that have no partner, and are left out.
    """

    name: str
    card: Card | None
    folder: Path
    pictures: tuple[FoundPicture, ...]
    convention: Convention
    scale: int | None
    problems: tuple[str, ...]
    alone: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layout:
    gt: Path
    lq: Path | None
    convention: Convention


def find_set(
    which: Card | Path,
    data_root: Path | None = None,
    *,
    scale: int | None = None,
    wants: Literal["sr", "gt"] = "sr",
) -> FoundSet:
    """Find a set below a folder, or take any folder for a set.

    Args:
        which: a card, or a folder; a folder named like a set gets that set's card.
        data_root: where the folder of a card's set lies, or that folder itself.
        scale: gt pixels per lq pixel, along each axis; needed for "sr".
        wants: "sr": pairs of good and made smaller; "gt": good pictures alone.

    Raises:
        UsageError: there is no such folder, or no picture in it.
    """
    if wants == "sr" and scale is None:
        raise UsageError("find_set: wants='sr' needs the scale")
    if isinstance(which, Path):
        folder, known = which, find_card(which.resolve().name)
    else:
        folder, known = folder_of(which, data_root), which
    layout = _layout(folder, known, scale if wants == "sr" else None)
    names = pictures_in(layout.gt, PICTURE_SUFFIXES)
    taken, problems = _as_card_has(layout.gt, names, known)
    low = {} if layout.lq is None else _partners(layout.lq, [file for _, file in taken], scale)
    pictures = [FoundPicture(name, layout.gt / file, low.get(file)) for name, file in taken]
    if layout.lq is not None:
        alone = [picture.name for picture in pictures if picture.lq is None]
        if alone:
            problems.append(f"{layout.lq}: lacks {some(alone)}; made on the fly")
    if wants == "gt" and (words := cut_words(layout.gt)):
        problems.append(words)
    return FoundSet(
        known.name if known else folder.resolve().name,
        known,
        folder,
        tuple(pictures),
        layout.convention,
        scale if wants == "sr" else None,
        tuple(problems),
    )


def _partners(folder: Path, files: Sequence[str], scale: int | None) -> dict[str, Path]:
    """The low-quality file of each good one: NAMEx4, else NAME.

    Raises:
        UsageError: two good pictures want the same file, or a picture has two.
    """
    there: dict[str, str] = {}
    for name in pictures_in(folder, PICTURE_SUFFIXES):
        if there.setdefault(Path(name).stem, name) != name:
            first = there[Path(name).stem]
            raise UsageError(f"{folder}: {first} and {name} have one name; keep one of them")
    plain = {file: Path(file).stem for file in files}
    marked = {file: f"{stem}x{scale}" for file, stem in plain.items()}
    mixed = {file: name if (name := marked[file]) in there else plain[file] for file in files}
    # a folder that has all of one kind means these, whatever else is called alike
    wholes = (names for names in (marked, plain) if all(name in there for name in names.values()))
    names = next(wholes, mixed)
    found: dict[str, Path] = {}
    owners: dict[str, str] = {}
    for file, name in names.items():
        if name not in there:
            continue
        if (other := owners.setdefault(name, file)) != file:
            raise UsageError(
                f"{folder / there[name]}: is the low-resolution side of both {other} and {file} by "
                f"its name; name all files of this folder NAMEx{scale}, or all NAME"
            )
        found[file] = folder / there[name]
    return found


def folder_of(known: Card, data_root: Path | None, asked: str = "") -> Path:
    """The folder of a set, below another one or that itself; UsageError where there is none.

    The name that was asked for goes before the card's others.
    """
    if data_root is None:
        raise UsageError(f"{known.name}: where does it lie? Give the folder that holds its folder")
    if not data_root.is_dir():
        raise UsageError(f"{data_root}: no such folder; expected one that holds {known.name}")
    names = [plain_name(asked)] * bool(asked) + list(plain_names(known))
    below = {plain_name(path.name): path for path in sorted(data_root.iterdir()) if path.is_dir()}
    for name in names:
        if name in below:
            return below[name]
    if plain_name(data_root.resolve().name) in names:
        return data_root
    also = f" (or {', '.join(known.aliases)})" if known.aliases else ""
    page = f"; its page is {known.page}" if known.page else ""
    make = f"restore data prepare {known.name} --from DIR -o {data_root}"
    raise UsageError(
        f"{data_root}: holds no folder {known.name}{also}{page}. Put it there, or "
        + (
            "give -d its folder"
            if known.task in PAIRED
            else f"make it of pictures elsewhere: {make}"
        )
    )


def _layout(folder: Path, known: Card | None, scale: int | None) -> _Layout:
    """The first form of the set that is whole, else good pictures alone."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    whole = GT_FOLDERS if known is None else (known.high, *GT_FOLDERS)
    low = "LR_bicubic/X{scale}" if known is None else known.low
    cut = sorted((n, path) for path in folder.iterdir() if (n := _multiple(path)))
    alone = [folder / name for name in whole if _has_pictures(folder / name)]
    if scale is not None:
        lq = folder / low.format(scale=scale)
        if alone and _has_pictures(lq):
            return _Layout(alone[0], lq, "HR/LR_bicubic")
        lq = folder / f"LRbicx{scale}"
        fits = [path for n, path in cut if n % scale == 0]
        if fits and _has_pictures(lq):
            return _Layout(fits[0], lq, "GTmod/LRbic")
        alone += fits
    else:
        alone += [path for _, path in cut]
    return _Layout(alone[0] if alone else folder, None, "gt" if scale is None else "made")


def _has_pictures(folder: Path) -> bool:
    try:
        return bool(pictures_in(folder, PICTURE_SUFFIXES))
    except UsageError:
        return False


def _multiple(folder: Path) -> int:
    """The 12 of a folder GTmod12; 0 for others."""
    match = re.fullmatch(r"GTmod(\d+)", folder.name)
    return int(match[1]) if match else 0


def cut_words(folder: Path) -> str | None:
    multiple = _multiple(folder)
    if not multiple:
        return None
    return f"{folder}: the pictures are cut to multiples of {multiple}; papers take whole ones"


def _as_card_has(
    folder: Path, files: Sequence[str], known: Card | None
) -> tuple[list[tuple[str, str]], list[str]]:
    """(name, file) of the pictures to take, and what is missing or too much."""
    by_name: dict[str, str] = {}
    problems = []
    for file in files:
        name = Path(file).stem.casefold()
        kept = by_name.setdefault(name, file)
        if kept == file:
            continue
        if not _is_lossless(folder / kept) and _is_lossless(folder / file):
            by_name[name], file, kept = file, kept, file
            why = " and is lossless"
        else:
            why = ""
        # of such names a folder of many systems holds one alone
        problems.append(f"left out: {file}; {kept} has the same name but for case or suffix{why}")
    all_of_them = [(Path(file).stem, file) for file in by_name.values()]
    if known is None:
        return all_of_them, problems
    if not known.images:
        counts = {known.count, *known.parts.values()} - {None}
        if counts and len(all_of_them) not in counts:
            expected = " or ".join(str(n) for n in sorted(n for n in counts if n))
            problems.append(f"{len(all_of_them)} pictures; {known.name} has {expected}")
        return all_of_them, problems
    taken = [
        (image.name, by_name.pop(image.name.casefold()))
        for image in known.images
        if image.name.casefold() in by_name
    ]
    if not taken:
        problems.append(
            f"none of {len(files)} pictures has a name of {known.name}, such as "
            f"{known.images[0].file}; all are taken"
        )
        return all_of_them, problems
    missing = [image.name for image in known.images if image.name not in dict(taken)]
    if missing:
        problems.append(f"{len(missing)} of {len(known.images)} missing: {some(missing)}")
    if by_name:
        others = sorted(by_name.values())
        problems.append(f"left out, as {known.name} has no such picture: {some(others)}")
    return taken, problems


def _is_lossless(path: Path) -> bool:
    """Whether a file's format keeps every value, by its name, and of WebP by its chunks."""
    if path.suffix.lower() != ".webp":
        return path.suffix.lower() not in (".jpg", ".jpeg")
    try:
        content = path.read_bytes()
    except OSError:
        return False
    at = 12  # after RIFF, size, WEBP; each chunk has a name and a size, and an even length
    while len(head := content[at : at + 8]) == 8:
        if head[:4] in (b"VP8L", b"VP8 "):
            return head[:4] == b"VP8L"
        at += 8 + (int.from_bytes(head[4:], "little") + 1) // 2 * 2
    return False


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
