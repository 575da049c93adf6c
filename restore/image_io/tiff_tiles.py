"""Tiled TIFF files, whose parts viewers open at once, with smaller levels on request.

A pyramid's levels are pages of their own behind the picture, each marked as a reduced version of
it (NewSubfileType 1): what OpenSlide, QuPath, GDAL and libvips look for.

Source: TIFF 6.0, section 15; BigTIFF as libtiff defines it.

Shape letters: h, w rows and columns of a tile as far as the picture goes, C samples of a pixel.
"""

from __future__ import annotations

import contextlib

import numpy as np

from restore.image_io.exif import Entry, long
from restore.image_io.picture import Array
from restore.image_io.sinks import NOTHING, Carried, Raster
from restore.image_io.source import PathLike
from restore.image_io.tiff_packing import Compression, Packing
from restore.image_io.tiff_write import (
    MAX_CLASSIC,
    TiffOutput,
    metadata_entries,
    sample_entries,
)
from restore.image_io.tile_sink import Place, TileSink


class TiffTileWriter(TileSink):
    """Writes a tiled TIFF file block by block, in any order that covers it once.

    A BigTIFF is written where the samples alone could pass 4 GiB.

    Args of the constructor, beside those of `TileSink`:
        tile: side of a tile, a multiple of 16.
        compression: see `Packing`.

    Raises:
        OutputError: the file cannot be written, or fewer pixels came than it has.
        ValueError: an argument or a block does not fit.
    """

    def __init__(
        self,
        path: PathLike,
        raster: Raster,
        carried: Carried = NOTHING,
        *,
        tile: int,
        pyramid: bool = False,
        compression: Compression = "deflate",
    ) -> None:
        """Check the arguments; the file is created on entering the block."""
        if tile % 16:
            raise ValueError(f"tile is {tile}; TIFF takes multiples of 16")
        super().__init__(path, raster, carried, tile=tile, pyramid=pyramid)
        self._packing = Packing(compression, self.channels, self.dtype)
        samples = sum(h * w for h, w in self.sizes) * self.channels * self.dtype.itemsize
        self._out = TiffOutput(path, samples > MAX_CLASSIC)
        # offset and length of each tile in the file, by level, row and column
        self._places: dict[Place, tuple[int, int]] = {}

    def _open(self, stack: contextlib.ExitStack) -> None:
        stack.enter_context(self._out)

    def _end(self) -> None:
        pages = [self._page(level) for level in range(len(self.sizes))]
        self._out.finish(pages, self.carried.exif)

    def _page(self, level: int) -> dict[int, Entry]:
        down, across = self._grid(level)
        places = [self._places[level, r, c] for r in range(down) for c in range(across)]
        page = {
            **(metadata_entries(self.carried) if level == 0 else {}),
            **sample_entries(*self.sizes[level], self._packing),
            322: long(self.tile),
            323: long(self.tile),
            324: self._out.places([at for at, _ in places]),
            325: self._out.places([n for _, n in places]),
        }
        return page if level == 0 else {254: long(1), **page}

    def _packed(self, samples: Array) -> bytes:
        # tiles have one size; what lies beyond the picture packs best as its edge
        missing = [(0, self.tile - side) for side in samples.shape[:2]]
        return self._packing.packed(np.pad(samples, [*missing, (0, 0)], mode="edge"))

    def _store(self, place: Place, packed: bytes) -> None:
        self._places[place] = self._out.put(packed), len(packed)

    def _load(self, place: Place) -> Array:
        data = self._out.get(*self._places[place])
        tall, wide = self._tile_size(*place)
        return self._packing.unpacked(data, self.tile, self.tile)[:tall, :wide]
