"""A picture in memory, and the exact arithmetic on its samples that files need.

Shape letters: H rows, W columns, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
PictureFormat = Literal["png", "jpg", "webp", "tiff", "bmp"]
FORMATS: tuple[PictureFormat, ...] = get_args(PictureFormat)
# what the extra [large] adds: Zarr both ways; the others are only read, by libvips
ForeignFormat = Literal["zarr", "jp2", "jxl", "slide"]
DEPTHS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16, np.dtype(np.float32): 32}

_BAND_ROWS = 256  # wide intermediates are made for this many rows at a time


@dataclass(eq=False)
class Picture:
    """Samples and everything that travelled with them.

    Attributes:
        pixels: [H, W, C], C = 1 (gray) or 3 (RGB); uint8, uint16, or float32 in 0..1.
        alpha: [H, W], dtype of pixels, not premultiplied; None if the file had none.
        icc: ICC profile of the pixels; None means sRGB (or its gray).
        exif: TIFF-structured block without the "Exif" prefix, upright (orientation tag 1).
        dpi: dots per inch, horizontal and vertical.
        xmp: XMP packet.
        source_format: what the file's content was.
        notes: what a reader had to change or leave out, one sentence each.
        lossless: whether a WebP file held it without loss.
    """

    pixels: Array
    alpha: Array | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None
    source_format: PictureFormat = "png"
    notes: tuple[str, ...] = ()
    lossless: bool = False

    @property
    def depth(self) -> int:
        """Bits per sample: 8, 16, or 32 (float)."""
        return DEPTHS[self.pixels.dtype]


@dataclass(frozen=True)
class PictureInfo:
    """What a file says about itself; sizes as `read_picture` would return them (upright)."""

    width: int
    height: int
    channels: int  # 1 or 3, alpha not counted
    depth: int  # 8, 16, or 32 (float)
    fmt: PictureFormat | ForeignFormat
    has_alpha: bool
    n_frames: int


def check_depth(dtype: np.dtype[Any]) -> None:
    """Raise ValueError unless samples of this dtype are a picture's."""
    if dtype not in DEPTHS:
        raise ValueError(f"samples are {dtype}; expected uint8, uint16 or float32")


def check_picture(picture: Picture) -> None:
    """Raise ValueError unless shapes and dtypes are those `Picture` documents."""
    pixels, alpha = picture.pixels, picture.alpha
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"pixels is {pixels.shape}; expected [H, W, 1] or [H, W, 3], H, W >= 1")
    check_depth(pixels.dtype)
    if alpha is not None and (alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype):
        raise ValueError(
            f"alpha is {alpha.shape} {alpha.dtype}; expected {pixels.shape[:2]} {pixels.dtype}"
        )


def to_depth(samples: Array, depth: Literal[8, 16]) -> Array:
    """Samples rounded to the nearest value of uint8 or uint16; never to more bits than they have.

    Args:
        samples: any shape; uint8, uint16, or float32 (finite; clipped to 0..1).
        depth: bits wanted.
    """
    dtype = np.uint8 if depth == 8 else np.uint16
    if samples.dtype in (dtype, np.uint8):
        return samples
    out = np.empty(samples.shape, dtype)
    for start in range(0, len(samples), _BAND_ROWS):
        band = samples[start : start + _BAND_ROWS]
        if samples.dtype == np.uint16:
            done = (band.astype(np.uint32) + 128) // 257
        else:
            # float64: 16-bit values times 65535 are not exact in float32 near a half
            done = np.floor(np.clip(band.astype(np.float64), 0, 1) * (2**depth - 1) + 0.5)
        out[start : start + _BAND_ROWS] = done
    return out


def on_white(pixels: Array, alpha: Array) -> Array:
    """[H, W, C] laid over white by [H, W] alpha, rounded; uint8 or uint16 in and out."""
    top = np.iinfo(pixels.dtype).max
    out = np.empty_like(pixels)
    for start in range(0, len(pixels), _BAND_ROWS):
        band = slice(start, start + _BAND_ROWS)
        a = alpha[band, :, None].astype(np.uint64)
        mixed = pixels[band].astype(np.uint64) * a + top * (top - a)
        out[band] = (mixed + top // 2) // top
    return out


def unpremultiply(pixels: Array, alpha: Array) -> Array:
    """[H, W, C] divided by [H, W] alpha, rounded and clipped; 0 where alpha is 0."""
    a = alpha[..., None]
    if pixels.dtype == np.float32:
        return np.divide(pixels, a, out=np.zeros_like(pixels), where=a > 0)
    top = int(np.iinfo(pixels.dtype).max)
    wide = a.astype(np.uint64)
    divided = (pixels.astype(np.uint64) * top + wide // 2) // np.maximum(wide, 1)
    return np.where(wide > 0, np.minimum(divided, top), 0).astype(pixels.dtype)


def upright(samples: Array, orientation: int) -> Array:
    """[H, W, ...] turned as EXIF orientation 1..8 asks, contiguous; H and W swap for 5..8.

    Source: Exif 2.32, tag 274.
    """
    turned = samples
    if orientation in (5, 6, 7, 8):
        turned = turned.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)


def icc_channels(icc: bytes) -> int | None:
    """Colour channels of an ICC profile's device side (1, 3, 4), None if it is none of these.

    Source: ICC.1:2022, 7.2.6: the colour space signature stands at byte 16.
    """
    return {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}.get(icc[16:20])
