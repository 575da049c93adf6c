"""Makes a test set of pictures that lie anywhere: compared with its card, cut, and made smaller.

All is checked before anything is written, and nothing that lies there already is overwritten. Files
are made in a folder beside the set's, .NAME.unfinished, and moved when all of them are whole: a run
that was stopped leaves the set as it was, and the next one goes on with what it made.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from restore.atomic import atomic_output, writing
from restore.datasets.card_files import Card, CardImage, differs, plain_name, plain_names
from restore.datasets.cards import GT_FOLDERS, some
from restore.datasets.images import read_entry
from restore.datasets.listing import Entry, pictures_in
from restore.datasets.set_check import made_low
from restore.errors import ImageError, OutputError, UsageError
from restore.image_io import PICTURE_SUFFIXES, Picture, write_picture
from restore.metrics import mod_crop

Array = NDArray[Any]
Convention = Literal["hr", "gtmod"]


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        written: files.
        kept: files that were there with the right pixels.
        equal: pictures whose pixels are the card's.
        unknown: pictures that no card could be asked about.
        notes: what to know besides, one sentence each.
        failed: what could not be done, one sentence each.
    """

    written: int = 0
    kept: int = 0
    equal: int = 0
    unknown: int = 0
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Recipe:
    """What is made.

    Attributes:
        folder: of the set; made if it is not there.
        scales: of the pictures made smaller.
        convention: "hr": HR whole, LR_bicubic/X4/{name}x4.png; "gtmod": GTmod12 cut to a multiple
            of all scales, LRbicx4/{name}.png.
        anyway: whether a picture that differs from the card's, and a set that lacks some, are
            taken too.
    """

    folder: Path
    scales: Sequence[int]
    convention: Convention
    anyway: bool = False

    @property
    def multiple(self) -> int:
        """What rows and columns of the good pictures are cut to."""
        return 1 if self.convention == "hr" else math.lcm(*self.scales)

    def gt(self, name: str) -> Path:
        """Where a good picture goes."""
        folder = "HR" if self.convention == "hr" else f"GTmod{self.multiple}"
        return self.folder / folder / f"{name}.png"

    def lq(self, name: str, scale: int) -> Path:
        """Where a picture made smaller goes."""
        if self.convention == "hr":
            return self.folder / "LR_bicubic" / f"X{scale}" / f"{name}x{scale}.png"
        return self.folder / f"LRbicx{scale}" / f"{name}.png"


def sources(folder: Path, card: Card | None) -> list[Path]:
    """The pictures in a folder, in its HR or GTmodN, or in those of the set below it.

    Raises:
        UsageError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; --from takes one that holds pictures")
    roots = [folder]
    if card is not None:
        names = set(plain_names(card))
        roots += [p for p in sorted(folder.iterdir()) if p.is_dir() and plain_name(p.name) in names]
    subfolders = [*([card.high] if card else []), *GT_FOLDERS]
    places = [root / sub for root in roots for sub in subfolders] + roots[::-1]
    places += [path for root in roots for path in sorted(root.glob("GTmod*"))]
    for place in places:
        if place.is_dir():
            try:
                return [place / name for name in pictures_in(place, PICTURE_SUFFIXES)]
            except UsageError:
                continue
    return [folder / name for name in pictures_in(folder, PICTURE_SUFFIXES)]


def prepare(
    paths: Sequence[Path],
    card: Card | None,
    recipe: Recipe,
    *,
    progress: Callable[[], None] = lambda: None,
) -> Outcome:
    """Compare every picture with the card, and write it and its smaller versions, or nothing.

    A picture is known by its name, else by its pixels, and takes the card's name. With a card that
    lists pictures, others are left out. Nothing is written where something has failed.

    Args:
        paths: of the good pictures.
        card: None: nothing is compared, all are taken under their own names.
        recipe: what to make.
        progress: called after each picture is checked, and after each is made.
    """
    outcome = Outcome()
    wanted = _checked(paths, card, recipe, outcome, progress)
    if outcome.failed:
        return outcome
    try:
        outcome.written = write_files(_new_files(wanted, recipe, progress), recipe.folder)
    except (ImageError, OutputError) as error:
        outcome.failed.append(str(error))
    return outcome


def _new_files(
    wanted: Mapping[Path, str], recipe: Recipe, progress: Callable[[], None]
) -> Iterator[tuple[Path, Array, Path | None]]:
    """Where each goes that is not there, its pixels, and the file that holds them already."""
    for path, name in wanted.items():
        picture = read_entry(Entry(path))
        for target, pixels in _files(name, picture, recipe):
            if not target.exists():  # else with the right pixels, as was checked
                yield target, pixels, path if pixels.shape == picture.shape else None
        progress()


def _checked(
    paths: Sequence[Path],
    card: Card | None,
    recipe: Recipe,
    outcome: Outcome,
    progress: Callable[[], None],
) -> dict[Path, str]:
    """The pictures to take, and their names; what is wrong is told in the outcome."""
    taken: dict[str, Path] = {}
    wanted: dict[Path, str] = {}
    met: set[str] = set()
    others: list[str] = []
    for path in paths:
        try:
            picture = read_entry(Entry(path))
            image = None
            if card is not None and card.images:
                image = card.image(path.stem) or card.image_of(picture)
                if image is None:
                    others.append(path.name)
                    continue
                met.add(image.name)
            name = path.stem if image is None else image.name
            if problem := _refused(path, picture, image, recipe, outcome):
                outcome.failed.append(problem)
            elif (other := taken.setdefault(name.casefold(), path)) != path:
                words = f"{path}: {other} was taken for {name} already; names that differ in upper "
                outcome.failed.append(f"{words}and lower case alone are one on many systems")
            else:
                wanted[path] = name
                _count(image, picture, outcome)
                _check_targets(name, picture, recipe, outcome)
        except (ImageError, OutputError) as error:
            outcome.failed.append(str(error))
        finally:
            progress()
    if card is not None and others:
        outcome.notes.append(f"left out, as {card.name} has no such picture: {some(others)}")
    missing = [image.name for image in card.images if image.name not in met] if card else []
    if card is not None and missing:
        words = f"{len(missing)} of {len(card.images)} missing: {some(missing)}"
        if recipe.anyway and wanted:
            outcome.notes.append(words)
        else:
            outcome.failed.append(f"{words}; --anyway makes a set of the others")
    return wanted


def _refused(
    path: Path, picture: Array, image: CardImage | None, recipe: Recipe, outcome: Outcome
) -> str | None:
    """Why a picture is not taken, in words; None if it is."""
    if picture.dtype.kind == "f":
        return (
            f"{path}: holds floating-point values, from {picture.min():g} to {picture.max():g}; a "
            "test set has whole numbers of 8 or 16 bits: store it so first"
        )
    if image is None:
        return None
    if words := differs(image, picture):
        if not recipe.anyway:
            return f"{path}: {words}; --anyway takes it all the same"
        outcome.notes.append(f"{path}: {words}")
    cut = image.cut_of(picture)
    if cut and recipe.multiple % cut:
        wanted = "whole pictures" if recipe.multiple == 1 else f"multiples of {recipe.multiple}"
        return (
            f"{path}: is cut to multiples of {cut}, and {wanted} are to be made; with "
            f"--convention gtmod, scales whose common multiple {cut} divides can be made of it"
        )
    return None


def _check_targets(name: str, picture: Array, recipe: Recipe, outcome: Outcome) -> None:
    """Compare what is there already with what would be written.

    Raises:
        ImageError: the picture is smaller than a scale, or what is there cannot be read.
        OutputError: a file is there with other pixels.
    """
    targets = [recipe.gt(name), *(recipe.lq(name, scale) for scale in recipe.scales)]
    if not any(target.exists() for target in targets):
        largest = max(*recipe.scales, recipe.multiple)
        try:
            mod_crop(picture, largest)
        except UsageError as error:
            raise ImageError(f"{name}: {error}") from error
        return
    for target, pixels in _files(name, picture, recipe):
        outcome.kept += check_target(target, pixels)


def check_target(target: Path, pixels: Array) -> bool:
    """Whether a file is there; with the right pixels.

    Raises:
        ImageError: it cannot be read.
        OutputError: it has other pixels.
    """
    if not target.exists():
        return False
    if not _holds(target, pixels):
        raise OutputError(
            f"{target}: is there with other pixels and was left as it is; move it away or choose "
            "another folder with -o"
        )
    return True


def _count(image: CardImage | None, picture: Array, outcome: Outcome) -> None:
    known = image.known(picture) if image is not None else None
    if known is None:
        outcome.unknown += 1
    elif known[0] == known[1]:
        outcome.equal += 1


def _files(name: str, picture: Array, recipe: Recipe) -> Iterator[tuple[Path, Array]]:
    try:
        gt = mod_crop(picture, recipe.multiple)
        yield recipe.gt(name), gt
        for scale in recipe.scales:
            yield recipe.lq(name, scale), made_low(gt, scale)
    except UsageError as error:  # smaller than the scale
        raise ImageError(f"{name}: {error}") from error


def _holds(path: Path, pixels: Array) -> bool:
    there = read_entry(Entry(path))
    same = there.shape == pixels.shape and there.dtype == pixels.dtype
    return same and bool((there == pixels).all())


def write_files(
    files: Iterable[tuple[Path, Array, Path | None]],
    folder: Path,
    progress: Callable[[], None] = lambda: None,
) -> int:
    """Make pictures beside a folder, and move them into it when all are whole; how many.

    Args:
        files: where each goes in the folder, its pixels, and a file that holds them (or None).
        folder: of the set.
        progress: called after each is made.

    Raises:
        OutputError: one cannot be written.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    made: dict[Path, Path] = {}
    for target, pixels, same_as in files:
        made[target] = unfinished / target.relative_to(folder)
        _write(made[target], pixels, same_as)
        progress()
    for target, path in made.items():
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    # of an earlier run with other scales or pictures
    shutil.rmtree(unfinished, ignore_errors=True)
    return len(made)


def _write(target: Path, pixels: Array, same_as: Path | None) -> None:
    """Write a picture, or copy the file that holds it; what an earlier run made is kept."""
    with contextlib.suppress(ImageError):  # of an earlier run, and another picture's
        if target.exists() and _holds(target, pixels):
            return
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    if same_as is not None and same_as.suffix.lower() == ".png":
        with atomic_output(target) as file, same_as.open("rb") as original:
            shutil.copyfileobj(original, file)
    else:
        write_picture(target, Picture(np.ascontiguousarray(pixels)), fmt="png")
