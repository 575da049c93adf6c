"""What tells whether two files hold the same picture: exactly, or to the eye.

Source: a perceptual hash by the signs of low frequencies, as in pHash (phash.org; Zauner,
"Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1), here of
16 x 16 frequencies.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.datasets.card_files import card, card_names
from restore.datasets.images import in_colour, pixel_digest, unit

Array = NDArray[Any]
BoolArray = NDArray[np.bool_]

_SIDE = 64  # pixels that the hash looks at
_FREQUENCIES = 16  # of each axis
BITS = _FREQUENCIES**2
# of BITS; re-encoding and resizing stay far below, different photographs far above
MOST_BITS_APART = 48
_LEAST_CONTRAST = 2.0  # standard deviation, of 255; flatter pictures all look alike
_ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class Fingerprint:
    """One picture.

    Attributes:
        sha256: of the decoded pixels as 8-bit RGB, row by row; as in the cards of this folder. None
            for other depths.
        looks: BITS signs; None for pictures too flat to tell apart.
        mirrored: the same of the picture mirrored left to right.
    """

    sha256: str | None
    looks: BoolArray | None
    mirrored: BoolArray | None


def fingerprint(picture: Array) -> Fingerprint:
    """Fingerprint of a picture [H, W, C]."""
    digest = pixel_digest(picture)
    gray = in_colour(unit(picture), "gray")[:, :, 0] * np.float32(255)
    if gray.std() < _LEAST_CONTRAST:
        return Fingerprint(digest, None, None)
    small = cv2.resize(np.ascontiguousarray(gray), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return Fingerprint(digest, _signs(small), _signs(np.ascontiguousarray(small[:, ::-1])))


def _signs(small: Array) -> BoolArray:
    low = np.asarray(cv2.dct(small))[:_FREQUENCIES, :_FREQUENCIES].flatten()
    # the first is the mean, which is no detail
    signs: BoolArray = low > np.median(low[1:])
    return signs


def alike(
    first: Sequence[BoolArray | None], second: Sequence[BoolArray | None], most: int
) -> Iterator[tuple[int, int, int]]:
    """Pairs (i of first, j of second) that are at most so many bits apart, and how many."""
    rows = [i for i, looks in enumerate(first) if looks is not None]
    columns = [j for j, looks in enumerate(second) if looks is not None]
    if not rows or not columns:
        return
    a = np.stack([x for x in first if x is not None]).astype(np.float32) * 2 - 1
    b = np.stack([x for x in second if x is not None]).astype(np.float32) * 2 - 1
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        # equal signs less different ones
        score = a[start : start + _ROWS_AT_ONCE] @ b.T
        apart = ((BITS - score) / 2).round().astype(np.int64)
        for i, j in zip(*np.nonzero(apart <= most), strict=True):
            yield rows[start + int(i)], columns[int(j)], int(apart[i, j])


@functools.cache
def known_test_pictures() -> dict[str, str]:
    """Names of test pictures ("Set5 baby.png") by the sha256 of their pixels, from the cards."""
    found: dict[str, str] = {}
    for name in card_names():
        for image in card(name).images:
            for multiple, digest in image.sha256.items():
                cut = "" if multiple == 1 else f" cut to multiples of {multiple}"
                found.setdefault(digest, f"{name} {image.file}{cut}")
    return found
