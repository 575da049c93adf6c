"""TIFF files, segment by segment: strips and tiles to samples, without optional codecs.

tifffile reads the tags. Segments are decoded here, because that needs memory for a segment only,
refuses one that inflates beyond its size, and works for LZW, PackBits, Zstandard and the floating
point predictor where tifffile wants a further package. Those that are pictures in themselves (JPEG,
JPEG 2000, WebP, JPEG XL) are decoded by that package, imagecodecs, where it is there.

Source: TIFF 6.0; Adobe Photoshop TIFF technical notes (2002) for deflate; technical note 3 (2005)
for predictor 3.

Shape letters: H rows, W columns, S samples of a pixel as stored.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import TiffImagePlugin

from restore.extras import has_package
from restore.image_io.exif import (
    EXIF_IFD,
    GPS_IFD,
    ByteOrder,
    Entry,
    encode_ifd,
    long,
    read_ifd,
    resolution_of,
    short,
)
from restore.image_io.picture import Array
from restore.image_io.tiff_packing import IMAGE_CODECS, codec_name, decode_picture_codec

MINISWHITE, MINISBLACK, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {MINISWHITE: 1, MINISBLACK: 1, RGB: 3, PALETTE: 1, SEPARATED: 4}
_MAX_SAMPLES = 32
_MOST_PAGES = 10_000
_LEAST_SEGMENT = 2**26  # bytes that a strip or tile may have whatever the size of the picture
_BAND_SAMPLES = 2**20
_DEFLATE = (8, 32946)
_BYTE_CODECS = (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA, Zstandard
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ICC, _XMP, _INK_SET = 34675, 700, 332


def _check_pages(file: BinaryIO) -> None:
    """Raise ValueError where the list of pages is endless, before anything follows it."""
    file.seek(0)
    head = file.read(16)
    order: ByteOrder = "<" if head[:1] == b"I" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    counts, entry, offset = ("Q", 20, "Q") if big else ("H", 12, "I")
    at = struct.unpack_from(order + offset, head.ljust(16, b"\0"), 8 if big else 4)[0]
    for _ in range(_MOST_PAGES):
        if not 0 < at < 2**62:
            return
        file.seek(at)
        found = file.read(struct.calcsize(counts))
        if len(found) < struct.calcsize(counts):
            return  # whoever reads that page tells
        file.seek(at + len(found) + entry * min(struct.unpack(order + counts, found)[0], 2**32))
        after = file.read(struct.calcsize(offset))
        at = struct.unpack(order + offset, after.ljust(struct.calcsize(offset), b"\0"))[0]
    raise ValueError(f"it has more than {_MOST_PAGES:,} pages, or they lead back to themselves")


class TiffPage:
    """Where one page's samples lie, and how to decode any rows of them."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the directories of an open TIFF file; no pixels.

        Raises:
            ValueError: the file is cut short or its tags contradict each other.
        """
        self.file = file
        self.file_bytes = file.seek(0, io.SEEK_END)
        _check_pages(file)
        file.seek(0)
        tiff = tifffile.TiffFile(file)
        pages = [p for p in tiff.pages if isinstance(p, tifffile.TiffPage)]
        # further pages may be the same picture made smaller (1), or its mask (4)
        full = [p for p in pages if not int(p.subfiletype) & 5] or pages[:1]
        if not full:
            raise ValueError("it holds no page")
        page = full[0]
        volume = (tiff.imagej_metadata or {}).get("images", 1) if tiff.is_imagej else 1
        self.n_frames = max(len(full), int(volume), page.imagedepth)
        self.order = tiff.byteorder
        self.big = tiff.is_bigtiff
        self.page = page
        self.height, self.width = page.imagelength, page.imagewidth
        self.samples = page.samplesperpixel
        self.photometric, self.compression = int(page.photometric), int(page.compression)
        bits = page.tags.valueof(258, 1)
        self.bits = tuple(bits) if isinstance(bits, tuple) else (int(bits),)
        self.form = int(page.sampleformat or 1)
        # a damaged tag may list more of them than there are samples
        self.extras = tuple(map(int, page.extrasamples))[: max(0, self.samples - self.colours)]
        self.planes = self.samples if int(page.planarconfig or 1) == 2 else 1
        self._set_grid(page)
        self.ifd0, self.sub_ifds = self._directories(page.offset)
        self._cache: dict[int, Array] = {}

    def _set_grid(self, page: tifffile.TiffPage) -> None:
        if page.is_tiled:
            self.seg_height, self.seg_width = page.tilelength, page.tilewidth
        else:
            self.seg_height, self.seg_width = min(page.rowsperstrip, self.height), self.width
        if min(self.height, self.width, self.samples, self.seg_height, self.seg_width) < 1:
            raise ValueError(f"its tags claim {self.width} x {self.height} pixels")
        # or a damaged tag would ask for more memory than the picture
        sample_bytes = self.samples * max(map(int, self.bits), default=0) / 8
        largest = max(self.height * self.width * sample_bytes, _LEAST_SEGMENT)
        if self.seg_height * self.seg_width * sample_bytes > largest:
            raise ValueError(f"its tags claim tiles of {self.seg_width} x {self.seg_height} pixels")
        self.across = -(-self.width // self.seg_width)
        self.down = -(-self.height // self.seg_height)
        self.offsets, self.counts = page.dataoffsets, page.databytecounts

    def _directories(self, offset: int) -> tuple[dict[int, Entry], dict[int, dict[int, Entry]]]:
        ifd0, _ = read_ifd(self.file, offset, self.order, self.big)
        subs: dict[int, dict[int, Entry]] = {}
        for tag in (EXIF_IFD, GPS_IFD):
            at = ifd0[tag].offset() if tag in ifd0 else None
            if at and at < self.file_bytes:
                subs[tag], _ = read_ifd(self.file, at, self.order, self.big)
        return ifd0, subs

    @property
    def icc(self) -> bytes | None:
        """The page's ICC profile."""
        return self.ifd0[_ICC].data if _ICC in self.ifd0 else None

    @property
    def xmp(self) -> bytes | None:
        """The page's XMP packet."""
        return self.ifd0[_XMP].data if _XMP in self.ifd0 else None

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Dots per inch, None if the page states none or only an aspect ratio."""
        return resolution_of(self.ifd0)

    @property
    def colours(self) -> int:
        """Samples of a pixel that are colour: 1, 3, or 4 for CMYK."""
        return self._colours_of.get(self.photometric, self.samples)

    @property
    def _colours_of(self) -> dict[int, int]:
        # whoever decodes such segments makes RGB of it
        return {**_COLOURS, YCBCR: 3} if self.compression in IMAGE_CODECS else _COLOURS

    def refusal(self) -> str | None:
        """Why segments of this page cannot be decoded here, None if they can."""
        if self.compression in IMAGE_CODECS:
            if not has_package("imagecodecs"):
                return (
                    f"{codec_name(self.page)} cannot be decoded in parts without the package "
                    "imagecodecs: pip install 'restore-sr[large]'"
                )
            if self.bits[0] not in (8, 16):
                return f"{codec_name(self.page)} with {self.bits[0]} bits is not supported"
        elif self.compression not in (1, *_DEFLATE, *_BYTE_CODECS):
            return f"{codec_name(self.page)} cannot be decoded in parts"
        if self.photometric not in self._colours_of or self.samples < self.colours:
            return (
                f"{self.samples} samples of photometric {self.photometric} are not supported "
                "(gray, RGB, palette and CMYK are)"
            )
        if self.samples > _MAX_SAMPLES:
            return f"{self.samples} samples a pixel are above the limit of {_MAX_SAMPLES}"
        if self.photometric == SEPARATED and self.page.tags.valueof(_INK_SET, 1) != 1:
            return "its inks are not cyan, magenta, yellow and black"
        if len(set(self.bits)) != 1 or self.form not in (1, 3, 4):
            return f"samples of {self.bits} bits, sample format {self.form}, are not supported"
        bits = self.bits[0]
        if self.form == 3 and bits not in (16, 32, 64):
            return f"{bits} bit floating point is not supported"
        if self.form != 3 and bits > 16 and bits != 32:
            return f"{bits} bit integers are not supported"
        return None

    def check_segments(self) -> None:
        """Raise ValueError if the file ends before its pixels do, or some were never written."""
        expected = self.across * self.down * self.planes
        if len(self.offsets) < expected or len(self.counts) != len(self.offsets):
            raise ValueError(f"{len(self.offsets)} of {expected} strips or tiles are listed")
        end = max(at + n for at, n in zip(self.offsets, self.counts, strict=True))
        if end > self.file_bytes:
            raise ValueError(f"it is cut short: {self.file_bytes} of {end} bytes")
        missing = sum(count == 0 for count in self.counts[:expected])
        if missing:
            raise ValueError(f"{missing} of {expected} strips or tiles were never written")

    def rows(self, y0: int, y1: int) -> Array:
        """[y1 - y0, W, S] stored samples of these rows: uint8, uint16 or float32, full range.

        Palette indices stay indices. Segments that the previous call used are not decoded again.
        """
        per_segment = 1 if self.planes > 1 else self.samples
        out: Array | None = None
        used: dict[int, Array] = {}
        seg_rows = range(y0 // self.seg_height, -(-y1 // self.seg_height))
        # dropped before others are decoded, or both would be held
        self._cache = {
            i: part for i, part in self._cache.items() if i // self.across % self.down in seg_rows
        }
        for row in seg_rows:
            top = row * self.seg_height
            a, b = max(y0, top), min(y1, top + self.seg_height)
            for column in range(self.across):
                left = column * self.seg_width
                for plane in range(self.planes):
                    index = (plane * self.down + row) * self.across + column
                    part, first = self._part(index, top, a, b, used)
                    if out is None:
                        out = np.empty((y1 - y0, self.width, self.samples), part.dtype)
                    target = out[a - y0 : b - y0, left : left + self.seg_width]
                    target = target[..., plane : plane + per_segment]
                    target[:] = part[a - first : b - first, : target.shape[1]]
        self._cache = used
        if out is None:
            raise ValueError(f"rows {y0} to {y1} are none of 0 to {self.height}")
        return out

    def _part(
        self, index: int, top: int, a: int, b: int, used: dict[int, Array]
    ) -> tuple[Array, int]:
        """Samples of a segment that begins at row `top`, and the row its first one is."""
        if self.compression == 1 and int(self.page.predictor) == 1:
            # rows of an uncompressed segment, perhaps the whole picture, stand one after another
            return self._decode(index, a - top, b - a), a
        if index not in used:
            rows = self.seg_height
            if not self.page.is_tiled:
                rows = min(rows, self.height - top)
            cached = self._cache.get(index)
            used[index] = self._decode(index, 0, rows) if cached is None else cached
        return used[index], top

    def _decode(self, index: int, first: int, n: int) -> Array:
        """[n, segment width, samples of a segment] from row `first` of the segment on."""
        per_pixel = 1 if self.planes > 1 else self.samples
        if self.compression in IMAGE_CODECS:
            self.file.seek(self.offsets[index])
            data = self.file.read(self.counts[index])
            shape = n, self.seg_width, per_pixel
            return _to_full_range(decode_picture_codec(self.page, data, index, shape))
        row_bytes = (self.seg_width * per_pixel * self.bits[0] + 7) // 8
        skipped = first * row_bytes
        self.file.seek(self.offsets[index] + skipped)
        data = self.file.read(self.counts[index] - skipped)
        if int(self.page.fillorder) == 2 and self.compression in (1, *_DEFLATE):
            data = data.translate(_REVERSED)
        data = self._inflate(data, row_bytes, n)
        if len(data) < n * row_bytes:
            raise ValueError(f"strip or tile {index} holds {len(data)} of {n * row_bytes} bytes")
        return self._in_bands(data, row_bytes, n, per_pixel)

    def _in_bands(self, data: bytes, row_bytes: int, n: int, per_pixel: int) -> Array:
        """Samples of rows; a few rows at a time, as what is made on the way is far wider."""
        step = max(1, _BAND_SAMPLES // (self.seg_width * per_pixel))
        out: Array | None = None
        for first in range(0, n, step):
            last = min(first + step, n)
            band = data[first * row_bytes : last * row_bytes]
            part = self._to_samples(band, last - first, per_pixel)
            if last - first == n:
                return part
            if out is None:
                out = np.empty((n, *part.shape[1:]), part.dtype)
            out[first:last] = part
        if out is None:
            raise ValueError("a strip or tile has no rows")
        return out

    def _inflate(self, data: bytes, row_bytes: int, n: int) -> bytes:
        if self.compression == 1:
            return data[: n * row_bytes]
        if self.compression in _DEFLATE:
            return zlib.decompressobj().decompress(data, n * row_bytes)
        return _by_libtiff(data, self.compression, row_bytes, n, int(self.page.fillorder))

    def _to_samples(self, data: bytes, n: int, per_pixel: int) -> Array:
        bits, predictor = self.bits[0], int(self.page.predictor)
        if bits % 8 and predictor == 1:
            return _unpacked(data, n, self.seg_width, per_pixel, bits, self.photometric == PALETTE)
        shape = (n, self.seg_width, per_pixel)
        kind = "f" if self.form == 3 else "u"
        if predictor == 3 and kind == "f":
            return _to_full_range(_undo_float_predictor(data, shape, bits // 8))
        if predictor not in (1, 2) or bits % 8:
            raise ValueError(f"predictor {predictor} of {bits} bit samples is not known")
        stored = "u" if predictor == 2 else kind
        samples = np.frombuffer(data, f"{self.order}{stored}{bits // 8}").reshape(shape)
        samples = samples.astype(samples.dtype.newbyteorder("="))
        if predictor == 2:
            samples = np.cumsum(samples, axis=1, dtype=samples.dtype).view(f"{kind}{bits // 8}")
        return _to_full_range(samples)


def _to_full_range(samples: Array) -> Array:
    if samples.dtype == np.uint32:
        return ((samples.astype(np.uint64) * 0xFFFF + 0x7FFFFFFF) // 0xFFFFFFFF).astype(np.uint16)
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):  # refused as infinite, by whoever reads
            return samples.astype(np.float32, copy=False)
    return samples


def _unpacked(data: bytes, n: int, width: int, per_pixel: int, bits: int, is_index: bool) -> Array:
    """Samples of 1 to 15 bits, packed from the high bit on, spread over 8 or 16 bits."""
    wide = np.unpackbits(np.frombuffer(data, np.uint8).reshape(n, -1), axis=1)
    wide = wide[:, : width * per_pixel * bits].reshape(n, width, per_pixel, bits)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint32)
    values = wide @ weights
    top, full = 2**bits - 1, 255 if bits < 8 else 65535
    if not is_index:
        values = (values * full + top // 2) // top
    return values.astype(np.uint8 if bits < 8 else np.uint16)


def _undo_float_predictor(data: bytes, shape: tuple[int, int, int], itemsize: int) -> Array:
    """Predictor 3: each row holds differences of its bytes, the most significant ones first."""
    n, width, per_pixel = shape
    differences = np.frombuffer(data, np.uint8).reshape(n, width * itemsize, per_pixel)
    planes = np.cumsum(differences, axis=1, dtype=np.uint8)
    planes = planes.reshape(n, itemsize, width * per_pixel)
    big_endian = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">f{itemsize}")
    return big_endian.reshape(shape).astype(f"=f{itemsize}")


def _by_libtiff(data: bytes, compression: int, row_bytes: int, n: int, fill_order: int) -> bytes:
    """Let Pillow's libtiff unpack bytes: they are wrapped as a gray 8-bit TIFF file of one strip.

    To libtiff every sample is a byte then, so that depth, byte order, planes and predictor are
    nothing it could get wrong or refuse.
    """
    tags = {
        256: long(row_bytes),
        257: long(n),
        258: short(8),
        259: short(compression),
        262: short(MINISBLACK),
        266: short(fill_order),
        273: long(0),
        277: short(1),
        278: long(n),
        279: long(len(data)),
    }
    tags[273] = long(8 + len(encode_ifd(tags, 8)))
    wrapped = b"II*\0" + struct.pack("<I", 8) + encode_ifd(tags, 8) + data
    with TiffImagePlugin.TiffImageFile(io.BytesIO(wrapped)) as image:
        return bytes(image.tobytes())
