"""A set on the disk compared with its card: counts, names, sizes, pixels, and every low side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from restore.datasets.card_files import differs
from restore.datasets.cards import FoundPicture, FoundSet, cut_words
from restore.datasets.images import read_entry
from restore.datasets.listing import Entry
from restore.errors import ImageError, UsageError
from restore.metrics import mod_crop
from restore.resizing import imresize

Array = NDArray[Any]


class Verified(NamedTuple):
    """What comparing a set with its card told.

    Attributes:
        told: one sentence for each difference, and for what could not be compared.
        unlike: those of them that say that scores are of other pictures than the card's.
        apart: the share of the low-quality files' samples that are not MATLAB's bicubic of the good
            picture; None where there is no such file.
    """

    told: list[str]
    unlike: list[str]
    apart: float | None = None


def verify(found: FoundSet, *, progress: Callable[[], None] = lambda: None) -> list[str]:
    """What of a set is not as its card has it: counts, names, sizes, pixels, and every lq.

    Args:
        found: the set; every picture of it is read.
        progress: called after each picture.

    Returns:
        One sentence for each difference; none for a set whose figures can be compared.
    """
    return compared_with_card(found, progress=progress).told


def compared_with_card(found: FoundSet, *, progress: Callable[[], None] = lambda: None) -> Verified:
    """As `verify`, and which of it makes the pictures others than the card's.

    Where a card holds neither size nor sha256 of a picture, nothing tells it from another.
    """
    unlike = []
    if found.scale is None:
        cut = {words for picture in found.pictures if (words := cut_words(picture.gt.parent))}
        unlike += [words for words in found.problems if words in cut]
    told = list(found.problems)
    unknown = samples = 0
    apart = 0.0
    seen: dict[str, FoundPicture] = {}
    for picture in found.pictures:
        try:
            gt = read_entry(Entry(picture.gt))
            image = None
            if found.card:
                image = found.card.image(picture.name) or found.card.image_of(gt)
            if image is None or (image.known(gt) is None and differs(image, gt) is None):
                unknown += 1
            different = []
            if image is not None and (words := differs(image, gt)):
                different.append(f"{picture.gt}: {words}")
            if picture.lq is not None and found.scale is not None:
                low = read_entry(Entry(picture.lq))
                words, share = _low_compared(low, gt, found.scale)
                samples, apart = samples + low.size, apart + share * low.size
                different += [f"{picture.lq}: {words}"] if words else []
            told += different
            if image is None and found.card and found.card.images:
                different.append(f"{picture.gt}: {found.card.name} has no such picture")
            elif image is not None and seen.setdefault(image.file, picture) is not picture:
                different.append(f"{picture.gt}: is {image.file} once more")
            unlike += different
        except (ImageError, UsageError) as error:
            told.append(str(error))
            unlike.append(str(error))
        progress()
    if found.card and unknown:
        told.append(
            f"{unknown} of {len(found.pictures)} pictures could not be compared: the card of "
            f"{found.card.name} holds no sha256 of them"
        )
    return Verified(told, unlike, apart / samples if samples else None)


def made_low(gt: Array, scale: int) -> Array:
    """A picture [H, W, C] cut to a multiple of the scale and made smaller as MATLAB does it."""
    return imresize(mod_crop(gt, scale), 1 / scale)


def _low_compared(lq: Array, gt: Array, scale: int) -> tuple[str | None, float]:
    """How a low-resolution picture differs from MATLAB's bicubic of gt, and the share that does."""
    expected = made_low(gt, scale)
    if lq.shape[2] != expected.shape[2]:
        # gray files as colour, or the other way round: the colours decide
        lq, expected = (np.broadcast_to(x, (*x.shape[:2], 3)) for x in (lq, expected))
    if lq.shape != expected.shape:
        sizes = [f"{x.shape[1]}x{x.shape[0]}" for x in (lq, expected)]
        return f"is {sizes[0]} pixels; 1/{scale} of the good picture is {sizes[1]}", 1
    if lq.dtype != expected.dtype:
        return f"is {lq.dtype}; the good picture is {expected.dtype}", 1
    apart = np.abs(lq.astype(np.float64) - expected)
    if not apart.any():
        return None, 0
    share = float(np.mean(apart > 0))
    words = (
        f"differs from MATLAB's bicubic in {share:.1%} of its samples, by up to {apart.max():.4g}; "
        "scores on it are others than the papers'"
    )
    return words, share
