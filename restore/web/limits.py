"""What the page takes: how many pictures, how large, under which names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from restore.errors import ImageError, UsageError
from restore.image_io import PictureInfo
from restore.upscaling import output_size

DEFAULT_MAX_FILES = 20
DEFAULT_MAX_MEGABYTES = 200
# 32 megapixels: larger than nearly all cameras' pictures, and a quarter of a GiB of floats
DEFAULT_MAX_PIXELS = 2**25
MOST_ENLARGED = 16  # times the pixels: four times along each axis
MOST_SCALE = 16.0
MEGABYTE = 10**6

_LONGEST_STEM = 80  # characters; the suffix and an ending have to fit behind it


@dataclass(frozen=True)
class Limits:
    """What one click may bring."""

    max_files: int = DEFAULT_MAX_FILES
    max_megabytes: int = DEFAULT_MAX_MEGABYTES  # of one upload
    max_pixels: int | None = DEFAULT_MAX_PIXELS  # of one picture; None: any
    max_waiting: int = 20  # clicks in the queue

    @property
    def upload_bytes(self) -> int:
        """Of one file."""
        return self.max_megabytes * MEGABYTE

    @property
    def request_bytes(self) -> int:
        """Of one request with as many files as are allowed, and what is around them."""
        return self.max_files * (self.upload_bytes + 10_000) + 100_000

    @property
    def result_pixels(self) -> int | None:
        """Of one result."""
        return None if self.max_pixels is None else self.max_pixels * MOST_ENLARGED

    def check_count(self, n: int) -> None:
        """UsageError unless there are pictures, and not too many."""
        if n == 0:
            raise UsageError("there is no picture yet; drop one into the field on the left")
        if n > self.max_files:
            raise UsageError(
                f"there are {n} pictures, and at most {self.max_files} are taken at once; take "
                "some out of the list, or start the page with a larger --max-files"
            )

    def check_picture(self, name: str, info: PictureInfo, outscale: float) -> None:
        """ImageError unless a picture and its result are within the limits."""
        if self.max_pixels is None or self.result_pixels is None:
            return
        pixels = info.width * info.height
        if pixels > self.max_pixels:
            raise ImageError(
                f"{name}: {info.width} x {info.height} is {pixels:,} pixels, above the "
                f"{self.max_pixels:,} that this page takes; make it smaller, or start the page "
                "with a larger --max-pixels"
            )
        height, width = output_size(info.height, info.width, outscale)
        if width * height > self.result_pixels:
            raise ImageError(
                f"{name}: its result would be {width} x {height}, {width * height:,} pixels, above "
                f"the {self.result_pixels:,} that this page makes; choose a smaller scale"
            )


def checked_scale(value: object) -> float:
    """The number that a person typed or chose; UsageError unless it is one, and within bounds.

    A decimal comma is read as a point.
    """
    try:
        scale = float(str(value).strip().lstrip("xX\u00d7").replace(",", "."))
    except ValueError:
        scale = 0.0
    if not 0 < scale <= MOST_SCALE:
        raise UsageError(
            f"the scale is {value!r}; expected a number above 0, at most {MOST_SCALE:g}, such as "
            "2 or 1.5"
        )
    return scale


def check_inside(path: str | os.PathLike[str], base: Path, barred: Iterable[Path] = ()) -> str:
    """The real path of what a browser names; UsageError unless it lies in the page's folder.

    Args:
        path: what the browser says.
        base: the folder of uploads and results.
        barred: folders in it that do not count.
    """
    try:
        found, inside = os.path.realpath(path), os.path.realpath(base)
        outside = not _within(found, inside) or any(
            _within(found, os.path.realpath(folder)) for folder in barred
        )
    except ValueError:  # a NUL, or another drive
        outside = True
    if outside:
        raise UsageError(f"{Path(path).name!r}: is no file that was uploaded here")
    return found


def checked_upload(path: str | os.PathLike[str], base: Path, barred: Iterable[Path] = ()) -> Path:
    """Like `check_inside`, of a file that is still there."""
    found = check_inside(path, base, barred)
    if not os.path.isfile(found):
        raise UsageError(
            f"{Path(path).name}: is no longer here: uploads are kept for an hour; take it out of "
            "the list and upload it again"
        )
    return Path(found)


def _within(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder and path != folder


def safe_names(names: Sequence[str]) -> list[str]:
    """File names for pictures, each with a stem of its own, whatever the letters' case.

    Letters of any language stay; what paths, headers or shells may take for more is replaced.
    """
    taken: set[str] = set()
    safe = []
    for name in names:
        path = Path(unicodedata.normalize("NFC", name.replace("\\", "/").split("/")[-1]))
        stem = re.sub(r"[^\w .()\[\],+=@-]", "_", path.stem).strip(" .")[:_LONGEST_STEM]
        suffix = re.sub(r"[^.a-z0-9]", "", path.suffix.lower())
        stem = stem.lstrip("-") or "picture"
        free, n = stem, 1
        while free.casefold() in taken:
            n += 1
            free = f"{stem}_{n}"
        taken.add(free.casefold())
        safe.append(free + suffix)
    return safe
