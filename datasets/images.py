"""Pictures of training sets: whole or a part, from files, arrays and data bases.

Shape letters: H rows, W columns, C channels (1 gray, 3 RGB). Alpha is left out.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.datasets.cache import PictureCache
from restore.datasets.listing import Entry
from restore.datasets.lmdb_store import stored_value
from restore.datasets.netpbm import netpbm_view
from restore.errors import ImageError, shown
from restore.image_io import probe, read_picture
from restore.image_io.tiff_stream import TiffRows
from restore.metrics import rgb_to_y
from restore.special_files import special_file

Array = NDArray[Any]
Colour = Literal["rgb", "gray", "y"]

_KINDS = ("uint8", "uint16", "float32")
_TIFF = (".tif", ".tiff")
_PNG_HEAD = struct.Struct(">8s4x4sII")  # the mark, the first chunk's name, columns, rows


class Box(NamedTuple):
    """A part of a picture, pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, picture: Array) -> Array:
        """That part, a view."""
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]

    def times(self, scale: int) -> Box:
        """The same part of a picture that is `scale` times larger."""
        return Box(*(scale * number for number in self))


def read_entry(entry: Entry) -> Array:
    """Decode a picture: [H, W, C], uint8, uint16, or float32 in 0..1.

    Raises:
        ImageError: it is missing, damaged, or of a kind that is not read.
    """
    mapped = mapped_entry(entry)
    if mapped is not None:
        return np.ascontiguousarray(mapped)
    if entry.key:
        return _decoded(entry, np.frombuffer(stored_value(entry.path, entry.key), np.uint8))
    return read_picture(entry.path).pixels


def header_size(entry: Entry) -> tuple[int, int] | None:
    """Rows and columns as a picture's header has them; no pixels are decoded.

    None where the header cannot be read: reading the picture says why.
    """
    try:
        mapped = mapped_entry(entry)
        if mapped is None and not entry.key:
            info = probe(entry.path)
            return info.height, info.width
    except ImageError:
        return None
    if mapped is not None:
        return int(mapped.shape[0]), int(mapped.shape[1])
    head = bytes(stored_value(entry.path, entry.key)[: _PNG_HEAD.size])
    if not (head.startswith(b"\x89PNG") and len(head) == _PNG_HEAD.size):
        return None
    _, _, columns, rows = _PNG_HEAD.unpack(head)
    return rows, columns


def mapped_entry(entry: Entry) -> Array | None:
    """A picture that lies undecoded in a file: arrays (.npy), and raw pictures of a data base.

    A view of the file, or None where it has to be decoded.
    """
    if entry.key:
        return netpbm_view(stored_value(entry.path, entry.key))
    if entry.path.suffix.lower() != ".npy":
        return None
    return _mapped_array(entry.path)


@functools.lru_cache(maxsize=4096)  # a system allows some 65,000 mappings
def _mapped_array(path: Path) -> Array:
    try:
        if special := special_file(path):
            raise ImageError(f"{path}: is {special}; expected an array")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ImageError:
        raise
    # a header is a line of Python, and where it is damaged nearly anything is raised
    except Exception as error:
        raise ImageError(f"{path}: cannot be read as an array: {shown(error, 160)}") from error
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or array.dtype.name not in _KINDS:
        raise ImageError(
            f"{path}: is {array.dtype} {array.shape}; expected [H, W], [H, W, 1] or [H, W, 3] of "
            f"{', '.join(_KINDS)}"
        )
    return np.asarray(array)


def _decoded(entry: Entry, data: Array) -> Array:
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if picture is None or picture.dtype.name not in _KINDS:
        raise ImageError(f"{entry}: cannot be decoded; make the data base anew")
    if picture.ndim == 2:
        return picture[:, :, None]
    return np.ascontiguousarray(picture[:, :, 2::-1])


class Pictures:
    """One side of a set: its pictures by number, decoded once where the cache has room.

    Args:
        entries: where they lie.
        colour: rgb and y: gray pictures get three equal channels; gray: of ITU-R BT.601.
        cache: of decoded pictures, slots first_slot to first_slot + len(entries) - 1.
        first_slot: see there.
    """

    def __init__(
        self, entries: Sequence[Entry], colour: Colour, cache: PictureCache, first_slot: int = 0
    ) -> None:
        self.entries = tuple(entries)
        self._colour, self._cache, self._first = colour, cache, first_slot
        self._last: tuple[int, Array] | None = None

    def __len__(self) -> int:
        return len(self.entries)

    def whole(self, index: int) -> Array:
        """A picture, [H, W, C]; not to be written to."""
        return in_colour(self._source(index), self._colour)

    def size(self, index: int) -> tuple[int, int]:
        """Rows and columns."""
        if self._read_in_parts(index):
            info = probe(self.entries[index].path)
            return info.height, info.width
        rows, columns = self._source(index).shape[:2]
        return int(rows), int(columns)

    def part(self, index: int, box: Box) -> Array:
        """A part of a picture, [height, width, C]; not to be written to."""
        found = None
        if self._read_in_parts(index):
            found = tiff_part(self.entries[index].path, box)
        return in_colour(box.of(self._source(index)) if found is None else found, self._colour)

    def _read_in_parts(self, index: int) -> bool:
        """Whether the picture is a TIFF that the cache neither has nor would take."""
        path = self.entries[index].path
        if self.entries[index].key or path.suffix.lower() not in _TIFF:
            return False
        if self._cache.find(self._first + index) is not None:
            return False
        info = probe(path)
        return not self._cache.has_room(info.height * info.width * info.channels * info.depth // 8)

    def _source(self, index: int) -> Array:
        found = self._cache.find(self._first + index)
        if found is not None:
            return found
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        entry = self.entries[index]
        picture = mapped_entry(entry)
        if picture is None:
            picture = self._cache.fetch(self._first + index, lambda: read_entry(entry))
        # its size is asked for first, then a part of it
        self._last = (index, picture)
        return picture


def tiff_part(path: Path, box: Box) -> Array | None:
    """A part of a TIFF of which only its rows are decoded; None where it can only be read whole."""
    try:
        with TiffRows(path) as rows:
            band = rows.read(box.top, box.top + box.height)
            colours = rows.channels - rows.has_alpha
    except ImageError:
        return None
    return np.ascontiguousarray(band[:, box.left : box.left + box.width, :colours])


def in_colour(picture: Array, colour: Colour) -> Array:
    """Gray pictures with three channels, or pictures of three channels as gray; else unchanged."""
    if colour == "gray" and picture.shape[2] == 3:
        return cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)[:, :, None]
    if colour != "gray" and picture.shape[2] == 1:
        return np.broadcast_to(picture, (*picture.shape[:2], 3))
    return picture


def read_gray(path: Path, pixels: Array) -> Array:
    """Gray of a picture [H, W, C] as BasicSR and the authors' test scripts read it, [H, W, 1].

    They leave it to OpenCV's decoder (IMREAD_GRAYSCALE), whose PNG reader truncates where
    `in_colour` rounds, and which takes a JPEG's own Y: half of a photo's pixels differ by 1.

    Args:
        path: its file.
        pixels: what was read of it; other depths than 8 bits, and files that OpenCV cannot read,
            become gray by `in_colour`.
    """
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        try:
            data = np.fromfile(path, np.uint8)
            gray = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        except (OSError, cv2.error):
            gray = None
        if gray is not None and gray.shape == pixels.shape[:2]:
            return np.asarray(gray)[:, :, None]
    return in_colour(pixels, "gray")


def read_coloured(entry: Entry, colour: Colour) -> Array:
    """A whole picture in a colour; gray of colour files as `read_gray` has it."""
    picture = read_entry(entry)
    if colour == "gray" and not entry.key and entry.path.suffix.lower() != ".npy":
        return read_gray(entry.path, picture)
    return in_colour(picture, colour)


def pixel_digest(picture: Array) -> str | None:
    """SHA-256 of a picture's pixels as 8-bit RGB, row by row; None for other depths.

    The same for every lossless file of a picture. Gray stands in all three channels.
    """
    if picture.dtype != np.uint8:
        return None
    return hashlib.sha256(np.ascontiguousarray(in_colour(picture, "rgb")).tobytes()).hexdigest()


def unit(picture: Array) -> NDArray[np.float32]:
    """Any of the kinds as float32 in 0..1."""
    if picture.dtype == np.float32:
        return picture
    values: NDArray[np.float32] = picture.astype(np.float32)
    values /= np.iinfo(picture.dtype).max
    return values


def luma(picture: Array) -> NDArray[np.float32]:
    """Y of YCbCr (BT.601, 16 to 235 of 255) of an RGB or gray picture, float32 [H, W, 1]."""
    y: NDArray[np.float32] = rgb_to_y(unit(picture).astype(np.float64) * 255).astype(np.float32)
    y /= 255
    return y
