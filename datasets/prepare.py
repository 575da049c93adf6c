"""Makes a test set of pictures that lie anywhere: compared with its card, cut, and made smaller.

Nothing that lies there already is overwritten. A file appears whole or not at all, so a run that
was stopped goes on where it was: files with the right pixels are kept.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from restore.atomic import atomic_output, writing
from restore.datasets.card_files import Card, CardImage, differs, plain_name, plain_names
from restore.datasets.cards import GT_FOLDERS, made_low, some
from restore.datasets.images import read_entry
from restore.datasets.listing import Entry, pictures_in
from restore.errors import ImageError, OutputError, UsageError
from restore.image_io import Picture, write_picture
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
        anyway: whether a picture that differs from the card's is taken too.
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
    """The pictures in a folder, in its folder HR, or in such a folder of the set below it.

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
    for place in places:
        if place.is_dir():
            try:
                return [place / name for name in pictures_in(place)]
            except UsageError:
                continue
    return [folder / name for name in pictures_in(folder)]


def prepare(
    paths: Sequence[Path],
    card: Card | None,
    recipe: Recipe,
    *,
    progress: Callable[[], None] = lambda: None,
) -> Outcome:
    """Compare every picture with the card, and write it and its smaller versions.

    A picture is known by its name, else by its pixels, and takes the card's name. With a card that
    lists pictures, others are left out.

    Args:
        paths: of the good pictures.
        card: None: nothing is compared, all are taken under their own names.
        recipe: what to make.
        progress: called after each picture.
    """
    outcome = Outcome()
    taken: dict[str, Path] = {}
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
            if problem := _refused(path, picture, image, recipe, outcome, taken):
                outcome.failed.append(problem)
            else:
                name = path.stem if image is None else image.name
                taken[name] = path
                _count(image, picture, outcome)
                for target, pixels in _files(name, picture, recipe):
                    whole = pixels.shape == picture.shape
                    _write(target, pixels, path if whole else None, outcome)
        except (ImageError, OutputError) as error:
            outcome.failed.append(str(error))
        finally:
            progress()
    if card is not None and others:
        outcome.notes.append(f"left out, as {card.name} has no such picture: {some(others)}")
    if card is not None:
        missing = [image.name for image in card.images if image.name not in met]
        if missing:
            outcome.failed.append(f"{len(missing)} of {len(card.images)} missing: {some(missing)}")
    return outcome


def _refused(
    path: Path,
    picture: Array,
    image: CardImage | None,
    recipe: Recipe,
    outcome: Outcome,
    taken: Mapping[str, Path],
) -> str | None:
    """Why a picture is not taken, in words; None if it is."""
    name = path.stem if image is None else image.name
    if name in taken:
        return f"{path}: left out; {taken[name]} was taken for {name}"
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


def _write(target: Path, pixels: Array, same_as: Path | None, outcome: Outcome) -> None:
    """Write a picture, or copy the file that holds it; one that is there is compared and kept."""
    if target.exists():
        there = read_entry(Entry(target))
        if there.shape == pixels.shape and there.dtype == pixels.dtype and (there == pixels).all():
            outcome.kept += 1
            return
        raise OutputError(
            f"{target}: is there with other pixels and was left as it is; move it away or choose "
            "another folder with -o"
        )
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    if same_as is not None and same_as.suffix.lower() == ".png":
        with atomic_output(target) as file, same_as.open("rb") as original:
            shutil.copyfileobj(original, file)
    else:
        write_picture(target, Picture(np.ascontiguousarray(pixels)), fmt="png")
    outcome.written += 1
