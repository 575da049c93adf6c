"""Options of large results: how TIFF and Zarr files are laid out."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restore.commands.parsing import one_of
from restore.errors import UsageError
from restore.extras import has_package, missing

if TYPE_CHECKING:
    from restore.image_io.tiff_packing import Compression

# as restore.image_io.tiff_packing has them; that loads NumPy
COMPRESSIONS = ("deflate", "lzw", "zstd", "jpeg", "none")
LARGE_PIXELS = 2**28  # of a result that is tiled if nothing else is asked for
DEFAULT_TILE = 512
MOST_TILE = 8192


@dataclass(frozen=True)
class Layout:
    """How the files of results are laid out."""

    tile: int | None = None  # side of a TIFF's tiles; 0: strips; None: tiles in large results
    pyramid: bool = False  # smaller levels too
    compression: Compression | None = None  # of a TIFF; None: deflate

    @property
    def asked(self) -> bool:
        """Whether it is other than the default."""
        return self != Layout()

    def tile_of(self, pixels: int) -> int:
        """The side of the tiles of a TIFF of so many pixels, 0 for strips."""
        if self.tile is not None:
            return self.tile
        return DEFAULT_TILE if self.pyramid or pixels >= LARGE_PIXELS else 0


def add_layout(group: argparse._ActionsContainer) -> None:
    """Add --tiff-tile, --tiff-compression and --pyramid."""
    group.add_argument(
        "--tiff-tile",
        type=_tile,
        metavar="N",
        help="store TIFF results in tiles of N x N pixels, a multiple of 16, of which viewers open "
        "only those in sight; 0: in strips of rows (default: 512 from 2^28 pixels on, else 0)",
    )
    group.add_argument(
        "--pyramid",
        action="store_true",
        help="also store levels of half the size each, in TIFF as pages marked as reduced, in Zarr "
        "as OME-NGFF: QuPath, OpenSlide, GDAL, libvips and napari zoom with them; a third more "
        "space",
    )
    group.add_argument(
        "--tiff-compression",
        type=one_of(*COMPRESSIONS),
        metavar="NAME",
        help="deflate (default), none, or, with the extra [large], lzw, zstd (fast), or jpeg "
        "(lossy, quality 90; 8 bits without alpha)",
    )


def layout_of(options: argparse.Namespace) -> Layout:
    """The layout that a command's options ask for.

    Raises:
        UsageError: they contradict each other, or the format of the results.
    """
    if options.pyramid and options.tiff_tile == 0:
        raise UsageError("--pyramid stores tiles, and --tiff-tile 0 strips; leave one of them out")
    given = {
        "--tiff-tile": options.tiff_tile is not None,
        "--tiff-compression": options.tiff_compression is not None,
        "--pyramid": options.pyramid,
    }
    takes = ("auto", "tiff", "zarr") if options.pyramid else ("auto", "tiff")
    if any(given.values()) and options.ext not in takes:
        option = next(name for name, there in given.items() if there)
        raise UsageError(f"{option} is for TIFF files, and --ext is {options.ext}; give --ext tiff")
    packages = {
        f"--tiff-compression {options.tiff_compression}": (
            "imagecodecs" if options.tiff_compression in ("lzw", "zstd", "jpeg") else None
        ),
        "Zarr": "zarr"
        if "zarr" in (options.ext, Path(options.output).suffix[1:].lower())
        else None,
    }
    for what, package in packages.items():
        if package and not has_package(package):
            raise UsageError(missing(package, "large", what))
    return Layout(options.tiff_tile, options.pyramid, options.tiff_compression)


def _tile(text: str) -> int:
    """0, or a multiple of 16."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= MOST_TILE or value % 16:
        raise argparse.ArgumentTypeError(
            f"is {text!r}; expected a multiple of 16 up to {MOST_TILE}, such as 256 or 512; 0 for "
            "strips"
        )
    return value
