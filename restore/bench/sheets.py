"""Contact sheets of two scored rows: the pictures on which they differ most."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from restore.bench.cache import file_digest
from restore.bench.compare import Both, pictures_of_both
from restore.bench.crops import Shown, Wish, contact_sheet, crop_of, is_of, most_different
from restore.bench.protocols import Bytes, Figure, Protocol, read_for, seen
from restore.bench.results import PictureScore, Row
from restore.errors import ImageError, UsageError
from restore.image_io import Picture, read_picture, write_picture


def most_different_pictures(
    a: Row, b: Row, figure: Figure, most: int, wishes: Sequence[Wish] = ()
) -> list[Both]:
    """Of the pictures that both have, those whose values differ most, the most different first.

    Then those that crops name and that are not among them.
    """

    def distance(each: Both) -> float:
        gap = abs(each.a.values[figure.key] - each.b.values[figure.key])
        return gap if math.isfinite(gap) else -1.0

    found = sorted(pictures_of_both(a, b), key=distance, reverse=True)
    named = [each for each in found[most:] if any(is_of(wish, each.a.name) for wish in wishes)]
    return [*found[:most], *named]


def write_sheet(
    path: Path,
    a: Row,
    b: Row,
    wishes: Sequence[Wish],
    most: int,
    note: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the contact sheet of two rows of the same set and level as a PNG.

    Args:
        path: where to.
        a: the first row, whose results were kept.
        b: the second.
        wishes: crops asked for; other pictures get the part in which results differ most.
        most: pictures to show, beside those that crops name.
        note: is told which pictures are left out, as files are not what was scored.

    Raises:
        UsageError: a result was not kept, a crop reaches beyond its picture, or no picture is left.
        OutputError: the sheet cannot be written.
    """
    figure = a.protocol.figures[0]
    shown = []
    for each in most_different_pictures(a, b, figure, most, wishes):
        refuse_unkept(each)
        try:
            shown.append(_shown(each, a.protocol, figure, wishes))
        except ImageError as error:
            note(f"{each.a.name} is left out of the sheet: {error}")
    if not shown:
        raise UsageError("none of its pictures can be shown")
    sheet = contact_sheet(shown, ("ground truth", a.model.name, b.model.name))
    write_picture(path, Picture(sheet), fmt="png")
    return path


def refuse_unkept(each: Both) -> None:
    """UsageError where the result of either model was not kept."""
    if each.a.result is None or each.b.result is None:
        raise UsageError(
            f"{each.a.name}: its result was not kept; run `restore bench` with --save_images, or "
            "--compare with the models themselves"
        )


def _shown(each: Both, protocol: Protocol, figure: Figure, wishes: Sequence[Wish]) -> Shown:
    """A row of the sheet; ImageError where a file is gone, damaged, or not what was scored."""
    results = [_result(score) for score in (each.a, each.b)]
    rows, columns = results[0].shape[:2]
    if file_digest(Path(each.a.truth)) != each.a.truth_digest:
        raise ImageError(f"{each.a.truth}: has changed since it was scored")
    truth = seen(read_for(Path(each.a.truth), protocol), protocol.colour)[:rows, :columns]
    box = crop_of(each.a.name, (rows, columns), wishes) or most_different(truth, *results)
    labels = ("", *(f"{figure.title} {_value(score, figure)}" for score in (each.a, each.b)))
    return Shown(each.a.name, truth, results[0], results[1], (labels[0], labels[1], labels[2]), box)


def _result(score: PictureScore) -> Bytes:
    pixels = read_picture(Path(score.result or "")).pixels
    if pixels.shape[:2] != (score.height, score.width):
        raise ImageError(f"{score.result}: has changed since it was scored")
    return pixels


def _value(score: PictureScore, figure: Figure) -> str:
    return f"{score.values[figure.key]:.{figure.digits + 1}f}"
