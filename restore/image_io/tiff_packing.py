"""How samples are packed into strips and tiles of TIFF files, and how some are unpacked.

Deflate is Python's own; LZW, Zstandard and JPEG come with the package imagecodecs.

Source: TIFF 6.0; Adobe Photoshop TIFF technical notes (2002) for deflate and JPEG.

Shape letters: h, w rows and columns of a strip or tile, C samples of a pixel.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from restore.errors import ImageError, OutputError
from restore.extras import load_extra
from restore.image_io.exif import SHORT, Entry, short
from restore.image_io.picture import Array

if TYPE_CHECKING:
    import tifffile

Compression = Literal["deflate", "lzw", "zstd", "jpeg", "none"]
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)
# the compression tag's numbers
_TAGS: dict[Compression, int] = {"none": 1, "lzw": 5, "jpeg": 7, "deflate": 8, "zstd": 50000}
_GRAY, _RGB, _YCBCR = 1, 2, 6
JPEG_QUALITY = 90
# whole pictures in a strip or tile, which imagecodecs decodes: JPEG in its three numbers, JPEG 2000
# in two, WebP, JPEG XL in two
IMAGE_CODECS = frozenset({7, 34892, 33007, 33005, 34712, 50001, 50002, 52546})
JPEG_CODECS = frozenset({7, 34892, 33007})


class Packing:
    """One way to pack samples.

    Args:
        compression: its name; "jpeg" is lossy, of 8 bits and without alpha.
        channels: C.
        dtype: of the samples: uint8, uint16 or float32.
        level: deflate's effort, 1 to 9.
        quality: of jpeg.

    Raises:
        OutputError: the compression cannot hold such samples, or its package is missing.
    """

    def __init__(
        self,
        compression: Compression,
        channels: int,
        dtype: np.dtype[Any],
        *,
        level: int = 6,
        quality: int = JPEG_QUALITY,
    ) -> None:
        self.compression, self.channels, self.dtype = compression, channels, dtype
        self._level, self._quality = level, quality
        # the floating point predictor would pack better, and fewer programs could read it
        self._predicted = compression in ("deflate", "lzw", "zstd") and dtype.kind == "u"
        if compression == "jpeg" and (channels not in (1, 3) or dtype != np.uint8):
            what = "alpha" if channels in (2, 4) else f"{dtype} samples"
            raise OutputError(
                f"TIFF compression jpeg: cannot carry {what}, only 8 bits of gray or RGB; choose "
                "deflate, or zstd"
            )
        self._codecs: Any = None
        if compression in ("lzw", "zstd", "jpeg"):
            self._codecs = load_extra(
                "imagecodecs", "large", f"TIFF compression {compression}", OutputError
            )

    def packed(self, samples: Array) -> bytes:
        """[h, w, C] as the bytes of a strip or tile."""
        if self.compression == "jpeg":
            return self._jpeg(samples)
        little = samples.astype(samples.dtype.newbyteorder("<"), copy=False)
        if self._predicted:
            differences = little.copy()
            differences[:, 1:] -= little[:, :-1]
            little = differences
        data = little.tobytes()
        if self.compression == "deflate":
            return zlib.compress(data, self._level)
        if self.compression == "none":
            return data
        encode = self._codecs.lzw_encode if self.compression == "lzw" else self._codecs.zstd_encode
        return bytes(encode(data))

    def unpacked(self, data: bytes, height: int, width: int) -> Array:
        """The samples [h, w, C] of a strip or tile that `packed` made."""
        shape = (height, width, self.channels)
        if self.compression == "jpeg":
            decoded: Array = self._codecs.jpeg_decode(data)
            return decoded.reshape(shape)
        if self.compression == "deflate":
            data = zlib.decompress(data)
        elif self.compression != "none":
            lzw = self.compression == "lzw"
            data = bytes((self._codecs.lzw_decode if lzw else self._codecs.zstd_decode)(data))
        samples = np.frombuffer(data, self.dtype.newbyteorder("<")).reshape(shape)
        samples = samples.astype(self.dtype, copy=False)
        return np.cumsum(samples, axis=1, dtype=self.dtype) if self._predicted else samples

    def entries(self) -> dict[int, Entry]:
        """The tags that say how samples are packed and what colours they are."""
        colour = _GRAY if self.channels < 3 else _RGB
        tags = {259: short(_TAGS[self.compression]), 262: short(colour)}
        if self._predicted:
            tags[317] = short(2)
        if self.compression == "jpeg" and self.channels == 3:
            tags[262] = short(_YCBCR)
            tags[530] = Entry(SHORT, 2, np.array([1, 1], "<u2").tobytes())  # colour at every pixel
        return tags

    def _jpeg(self, samples: Array) -> bytes:
        gray = self.channels == 1
        return bytes(
            self._codecs.jpeg_encode(
                np.ascontiguousarray(samples[..., 0] if gray else samples),
                level=self._quality,
                colorspace="GRAY" if gray else "RGB",
                outcolorspace="GRAY" if gray else "YCBCR",
                subsampling="444",
            )
        )


def decode_picture_codec(page: tifffile.TiffPage, data: bytes, index: int, shape: Any) -> Array:
    """A strip or tile of one of IMAGE_CODECS as [h, w, C] samples, RGB where it was YCbCr.

    Args:
        page: as tifffile knows it.
        data: packed.
        index: of the strip or tile.
        shape: rows wanted, columns, samples.

    Raises:
        ImageError: imagecodecs is missing.
        ValueError: damaged, or smaller than `shape`.
    """
    load_extra("imagecodecs", "large", codec_name(page), ImageError)
    claimed = _claimed_size(data)
    if claimed and claimed[0] * claimed[1] > 4 * shape[1] * max(shape[0], page.tilelength or 1):
        # or a few damaged bytes would ask for gigabytes
        raise ValueError(f"strip or tile {index} claims {claimed[1]} x {claimed[0]} pixels")
    decoded, _, _ = page.decode(data, index, jpegtables=page.jpegtables, _fullsize=True)
    if decoded is None:
        raise ValueError(f"strip or tile {index} is empty")
    samples: Array = decoded[0]
    if samples.shape[0] < shape[0] or samples.shape[1:] != tuple(shape[1:]):
        raise ValueError(f"strip or tile {index} holds {samples.shape}; expected {tuple(shape)}")
    return samples[: shape[0]]


def _claimed_size(data: bytes) -> tuple[int, int] | None:
    """Height and width that a JPEG or JPEG 2000 codestream claims; None of what is neither.

    Source: ITU-T T.81, annex B; ITU-T T.800, annex A.
    """
    if data[:4] == b"\xff\x4f\xff\x51":
        x1, y1, x0, y0 = struct.unpack_from(">IIII", data.ljust(24, b"\0"), 8)
        return y1 - y0, x1 - x0
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def codec_name(page: tifffile.TiffPage) -> str:
    """For messages."""
    name = getattr(page.compression, "name", str(page.compression))
    return f"TIFF compressed as {name}"
