"""Contact sheets of two scored rows: the pictures on which they differ most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from restore.bench.compare import Both, pictures_of_both
from restore.bench.crops import Shown, Wish, contact_sheet, crop_of, most_different
from restore.bench.protocols import Bytes, Figure, Protocol, seen
from restore.bench.results import PictureScore, Row
from restore.errors import UsageError
from restore.image_io import Picture, read_picture, write_picture


def most_different_pictures(a: Row, b: Row, figure: Figure, most: int) -> list[Both]:
    """Of the pictures that both have, those whose values differ most, the most different first."""

    def distance(each: Both) -> float:
        gap = abs(each.a.values[figure.key] - each.b.values[figure.key])
        return gap if math.isfinite(gap) else -1.0

    return sorted(pictures_of_both(a, b), key=distance, reverse=True)[:most]


def write_sheet(path: Path, a: Row, b: Row, wishes: Sequence[Wish], most: int) -> Path:
    """Write the contact sheet of two rows of the same set and level as a PNG.

    Args:
        path: where to.
        a: the first row, whose results were kept.
        b: the second.
        wishes: crops asked for; other pictures get the part in which results differ most.
        most: pictures to show.

    Raises:
        UsageError: a result was not kept, or a crop reaches beyond its picture.
        ImageError: a picture cannot be read.
        OutputError: the sheet cannot be written.
    """
    figure = a.protocol.figures[0]
    shown = [
        _shown(each, a.protocol, figure, wishes)
        for each in most_different_pictures(a, b, figure, most)
    ]
    sheet = contact_sheet(shown, ("ground truth", a.model.name, b.model.name))
    write_picture(path, Picture(sheet), fmt="png")
    return path


def _shown(each: Both, protocol: Protocol, figure: Figure, wishes: Sequence[Wish]) -> Shown:
    results = [_result(score) for score in (each.a, each.b)]
    rows, columns = results[0].shape[:2]
    if results[1].shape != results[0].shape:
        raise UsageError(f"{each.a.name}: the results have different sizes; score both anew")
    truth = seen(read_picture(Path(each.a.truth)).pixels, protocol.colour)[:rows, :columns]
    box = crop_of(each.a.name, (rows, columns), wishes) or most_different(truth, *results)
    labels = ("", *(f"{figure.title} {_value(score, figure)}" for score in (each.a, each.b)))
    return Shown(each.a.name, truth, results[0], results[1], (labels[0], labels[1], labels[2]), box)


def _result(score: PictureScore) -> Bytes:
    if score.result is None:
        raise UsageError(
            f"{score.name}: its result was not kept; run `restore bench` with --save_images, or "
            "--compare with the models themselves"
        )
    return read_picture(Path(score.result)).pixels


def _value(score: PictureScore, figure: Figure) -> str:
    return f"{score.values[figure.key]:.{figure.digits + 1}f}"
