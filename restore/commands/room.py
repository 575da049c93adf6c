"""Whether a disk has room for results, told before they are computed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from restore.errors import OutputError
from restore.image_io.picture import PictureInfo

if TYPE_CHECKING:
    from restore.commands.files import Job
    from restore.commands.large import Layout

# bytes of a file for each of its samples' bytes: half is what lossless packing leaves of most
# photographs, and enlarged ones pack better
_PACKED = {"tiff": 0.5, "png": 0.5, "zarr": 0.5, "bmp": 1.0, "jpg": 0.1, "webp": 0.1}
_LOSSLESS = ("tiff", "png", "bmp")
_SMALL = 2**26  # bytes; below it nothing is checked, as guesses err


def expected_bytes(
    job: Job, info: PictureInfo, fmt: str, size: tuple[int, int], layout: Layout
) -> int:
    """About how many bytes the file of a result takes.

    Args:
        job: the picture.
        info: its header.
        fmt: format of the result.
        size: its rows and columns.
        layout: of TIFF and Zarr.
    """
    samples = (info.channels + info.has_alpha) * info.depth // 8
    raw = size[0] * size[1] * samples
    share = _PACKED.get(fmt, 0.5)
    if fmt == "tiff" and layout.compression in ("none", "jpeg"):
        share = 1.0 if layout.compression == "none" else 0.1
    elif share == 0.5 and info.fmt in _LOSSLESS:
        # a scan of text packs to little, and so does what is made of it
        source = info.width * info.height * samples
        share = min(share, os.path.getsize(job.source) / source)
    levels = 4 / 3 if layout.pyramid and fmt in ("tiff", "zarr") else 1.0
    return int(raw * share * levels)


def disk_of(folder: Path) -> tuple[Path, int]:
    """The nearest folder that is there, of one that is or will be, and the number of its disk."""
    whole = folder.absolute()
    there = next(path for path in (whole, *whole.parents) if path.exists())
    return there, there.stat().st_dev


def free_bytes(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    return shutil.disk_usage(disk_of(folder)[0]).free


def check_room(
    job: Job, info: PictureInfo, target: Path, fmt: str, size: tuple[int, int], layout: Layout
) -> None:
    """Refuse a result that the disk has no room for.

    Raises:
        OutputError: with what it would take, what is free, and what to do.
    """
    need, free = expected_bytes(job, info, fmt, size, layout), free_bytes(target.parent)
    if need > max(free, _SMALL):
        from restore.commands.info import file_size

        raise OutputError(
            f"{target}: would take about {file_size(need)} ({size[1]} x {size[0]} pixels), and "
            f"there is room for {file_size(free)}; free some space, choose another folder with -o "
            "or a smaller -s"
        )
