"""Sets that hold both sides of every picture: real noise and real blur.

Nobody can make their low-quality side, so it is looked for in the forms in which these sets are
handed around, in the set's folder or in its test part:

    input/0001.png and target/0001.png       two folders, by the same names; see _SIDES
    GOPR0384_11_00/blur/000001.png and .../sharp/000001.png   two folders in each of many
    a list of pairs, NAME_test_list.txt      a line for each: the good picture, then the other
    Nikon_1_real.JPG and Nikon_1_mean.JPG    two files beside each other
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from restore.datasets.card_files import Card, find_card, plain_name
from restore.datasets.cards import FoundPicture, FoundSet, folder_of, some
from restore.datasets.listing import match_folders, pictures_in
from restore.errors import UsageError
from restore.image_io import PICTURE_SUFFIXES

# folders of the low and of the good side, lower case
_SIDES = (
    *(("input", "target"), ("input", "groundtruth"), ("input_crops", "target_crops")),
    *(("inputc", "target"), ("source", "target"), ("noisy", "clean"), ("noisy", "gt")),
    *(("blur", "sharp"), ("blur", "gt"), ("lq", "gt")),
)
# of a set that may hold them: itself, or its part for tests
_PARTS = ("", "test", "test_c", "val", "validation", "CroppedImages")
_LISTS = "*test_list*.txt"
_ENDS = ("_real", "_mean")  # of names without suffix, of the low and of the good side
SIDD_BLOCKS = ("ValidationNoisyBlocksSrgb", "ValidationGtBlocksSrgb")


def find_pairs(which: Card | Path, data_root: Path | None = None, *, asked: str = "") -> FoundSet:
    """Find a set of pairs below a folder, or take any folder that holds both sides.

    Args:
        which: a card, or a folder.
        data_root: where the folder of a card's set lies, or that folder itself.
        asked: name that the set was asked for by; of several folders of one card, that of this
            name is taken.

    Raises:
        UsageError: there is no such folder, or it holds no pair.
    """
    if isinstance(which, Path):
        folder, known = which, find_card(which.resolve().name)
    else:
        folder, known = folder_of(which, data_root, asked), which
    pictures, alone = _pairs(folder, known)
    problems = [f"left out, without a partner: {some(alone)}"] if alone else []
    counts = {known.count, *known.parts.values()} - {None} if known else set()
    name = _name(folder, known)
    if known and counts and len(pictures) not in counts:
        expected = " or ".join(str(n) for n in sorted(n for n in counts if n))
        problems.append(f"{len(pictures)} pairs; {name} has {expected}")
    told = tuple(problems)
    return FoundSet(name, known, folder, tuple(pictures), "pairs", None, told, tuple(alone))


def _name(folder: Path, known: Card | None) -> str:
    """The card's name, or that of the part of it that the folder holds."""
    own = folder.resolve().name
    if known is None:
        return own
    return next((part for part in known.parts if plain_name(part) == plain_name(own)), known.name)


def _pairs(folder: Path, known: Card | None) -> tuple[list[FoundPicture], list[str]]:
    """The pairs of the first form that is there, and what of it has no partner."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    roots = [root for part in _PARTS if (root := folder / part).is_dir()]
    for form in (_listed, _in_two_folders, _in_sequences, _side_by_side):
        for root in roots:
            pictures, alone = form(root)
            if pictures:
                return pictures, alone
    name = known.name if known else folder.name
    blocks = [root for root in roots if (root / f"{SIDD_BLOCKS[0]}.mat").is_file()]
    if blocks:
        raise UsageError(
            f"{blocks[0]}: holds the blocks as .mat files; make pictures of them: restore data "
            f"prepare {name} --from {blocks[0]} -o DIR"
        )
    page = f"; its page is {known.page}" if known and known.page else ""
    sides = ", ".join(f"{low}/{high}" for low, high in _SIDES)
    raise UsageError(
        f"{folder}: holds no pairs of pictures; expected two folders, here or in test, of one of "
        f"these names: {sides}{page}"
    )


def _in_two_folders(root: Path) -> tuple[list[FoundPicture], list[str]]:
    below = {path.name.casefold(): path for path in sorted(root.iterdir()) if path.is_dir()}
    for low, high in _SIDES:
        if low in below and high in below and all(map(_has_pictures, (below[low], below[high]))):
            found, *alone = match_folders(below[high], below[low], "{}", PICTURE_SUFFIXES)
            if not found:
                raise UsageError(
                    f"{below[low]} and {below[high]}: no two pictures have the same name; name "
                    "what belongs together alike"
                )
            pictures = [FoundPicture(p.gt.path.stem, p.gt.path, p.lq.path) for p in found]
            return _told_apart(pictures), [name for names in alone for name in names]
    return [], []


def _in_sequences(root: Path) -> tuple[list[FoundPicture], list[str]]:
    pictures: list[FoundPicture] = []
    alone: list[str] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        found, others = _in_two_folders(folder)
        pictures += [FoundPicture(f"{folder.name}_{p.name}", p.gt, p.lq) for p in found]
        alone += [f"{folder.name}/{name}" for name in others]
    return pictures, alone


def _listed(root: Path) -> tuple[list[FoundPicture], list[str]]:
    pictures = []
    for file in sorted(root.glob(_LISTS)):
        for number, line in enumerate(_lines(file), 1):
            words = line.split()
            if len(words) < 2:
                raise UsageError(
                    f"{file}, line {number}: is {line!r}; expected two files, the good one first"
                )
            outside = [word for word in words[:2] if _leads_out(word)]
            if outside:
                raise UsageError(
                    f"{file}, line {number}: {outside[0]!r} leads out of the set's folder; "
                    "expected paths below it"
                )
            gt, lq = (root / word for word in words[:2])
            missing = [str(path) for path in (gt, lq) if not path.is_file()]
            if missing:
                raise UsageError(f"{file}, line {number}: {missing[0]} is not there")
            # files of all scenes have the same names
            parts = [*Path(words[0]).parts[-3:-2], gt.stem]
            pictures.append(FoundPicture("_".join(parts), gt, lq))
        if pictures:
            break
    return _told_apart(pictures), []


def _leads_out(path: str) -> bool:
    return os.path.isabs(path) or ".." in Path(path).parts


def _lines(file: Path) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise UsageError(f"{file}: cannot be read: {why}") from None
    return (line.strip() for line in text.splitlines() if line.strip())


def _side_by_side(root: Path) -> tuple[list[FoundPicture], list[str]]:
    if not _has_pictures(root):
        return [], []
    sides: list[dict[str, Path]] = [{}, {}]
    for name in pictures_in(root, PICTURE_SUFFIXES):
        for side, end in zip(sides, _ENDS, strict=True):
            if Path(name).stem.endswith(end):
                side[Path(name).stem.removesuffix(end)] = root / name
    low, high = sides
    pictures = [FoundPicture(name, high[name], low[name]) for name in high if name in low]
    return pictures, sorted(f"{name}" for name in {*low} ^ {*high})


def _told_apart(pictures: list[FoundPicture]) -> list[FoundPicture]:
    """The same; UsageError where two have one name, as results would overwrite each other."""
    seen: dict[str, FoundPicture] = {}
    for picture in pictures:
        other = seen.setdefault(picture.name.casefold(), picture)
        if other is not picture:
            raise UsageError(
                f"{other.gt} and {picture.gt} have one name but for case or suffix; rename one"
            )
    return pictures


def _has_pictures(folder: Path) -> bool:
    try:
        return bool(pictures_in(folder, PICTURE_SUFFIXES))
    except UsageError:
        return False
