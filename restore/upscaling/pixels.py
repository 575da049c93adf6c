"""Pixels as users hold them, as floats in 0..1, and back.

Shape letters: H rows, W columns, C channels (1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from restore.errors import ImageError
from restore.image_io.picture import to_depth

if TYPE_CHECKING:
    from PIL import Image

    from restore.upscaling.network import Floats

AnyArray = npt.NDArray[Any]

_FLOATS = ("float16", "float32", "float64")
_DEPTHS = ("uint8", "uint16", *_FLOATS)
# modes that keep their kind; the others of _TO_MODE are turned into one of these
_PIL_MODES = ("L", "LA", "RGB", "RGBA", "F")
_PIL_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


class ArraySource:
    """A `RowSource` over arrays in memory.

    Args:
        pixels: [H, W, C].
        alpha: [H, W], or None where `pixels` holds all channels.
    """

    def __init__(self, pixels: AnyArray, alpha: AnyArray | None = None) -> None:
        self._pixels = pixels
        self._alpha = alpha
        self.height, self.width = int(pixels.shape[0]), int(pixels.shape[1])
        self.channels = int(pixels.shape[2]) + (alpha is not None)
        self.dtype = pixels.dtype

    def read(self, y0: int, y1: int) -> AnyArray:
        """Rows y0 .. y1 - 1, [y1 - y0, W, C]."""
        rows = self._pixels[y0:y1]
        if self._alpha is None:
            return rows
        return np.concatenate([rows, self._alpha[y0:y1, :, None]], axis=2)


def check_array(image: AnyArray) -> AnyArray:
    """An image as [H, W, C], not copied.

    Raises:
        ImageError: another shape or dtype, no pixels, or floats outside 0..1.
    """
    # the first look at np.ma loads it
    if type(image) is not np.ndarray and isinstance(image, np.ma.MaskedArray):
        raise ImageError("image: is a masked array; fill it first: image.filled(value)")
    image = np.asarray(image)  # other subclasses index in ways of their own
    shape = tuple(image.shape)
    if image.ndim not in (2, 3) or (image.ndim == 3 and shape[2] not in (1, 2, 3, 4)):
        hint = ""
        if image.ndim == 3 and shape[0] in (1, 3, 4):
            hint = "; channels come last here: image.transpose(1, 2, 0)"
        elif image.ndim == 4:
            hint = "; give one image at a time"
        raise ImageError(
            f"image: shape is {shape}; expected [H, W] or [H, W, C] with C = 1 (gray), 2 (gray and "
            f"alpha), 3 (RGB) or 4 (RGB and alpha){hint}"
        )
    if 0 in shape:
        raise ImageError(f"image: shape is {shape}; it has no pixels")
    check_values(image, "image")
    return image if image.ndim == 3 else image[:, :, None]


def check_values(pixels: AnyArray, what: str) -> None:
    """See that pixels have a depth we know, and floats a value in 0..1.

    Raises:
        ImageError: they have not; the message begins with `what`.
    """
    if pixels.dtype.name not in _DEPTHS:
        raise ImageError(f"{what}: dtype is {pixels.dtype}; expected one of {', '.join(_DEPTHS)}")
    if pixels.dtype.kind != "f":
        return
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # false for NaN too
        hint = ""
        if low >= -0.25 and high <= 1.25:  # what a bicubic resize overshoots
            hint = "; if that is overshoot, np.clip(image, 0, 1)"
        elif 1 < high <= 255 and low >= 0:
            hint = "; for values in 0..255 give uint8, or divide by 255"
        raise ImageError(f"{what}: values go from {low:g} to {high:g}; expected 0..1{hint}")


def to_unit(pixels: AnyArray, what: str, *, bounded: bool = True) -> Floats:
    """Pixels of any depth as float32 in 0..1, of the same shape.

    Args:
        pixels: any shape.
        what: they are, for messages.
        bounded: False: floats are taken as they are, as noise reaches beyond 0..1.

    Raises:
        ImageError: see `check_values`.
    """
    if bounded or pixels.dtype.kind != "f":
        check_values(pixels, what)
    if pixels.dtype.kind == "f":
        unit: Floats = pixels.astype(np.float32, copy=False)
        return unit
    # a division, not a product with the reciprocal: the largest value has to become exactly 1
    scaled: Floats = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    return scaled


def from_unit(rows: Floats, dtype: np.dtype[Any]) -> AnyArray:
    """Floats in 0..1 in another depth: integers rounded to nearest, nothing truncated."""
    if dtype.kind == "f":
        return rows.astype(dtype)
    return to_depth(rows, 8 if dtype.itemsize == 1 else 16)


def from_pil(image: Image.Image) -> AnyArray:
    """A Pillow image as [H, W, C], uint8, uint16 or float32.

    L, LA, RGB, RGBA, F and I;16 are taken as they are; 1 as gray; P, and what has a transparent
    colour, as the L, LA, RGB or RGBA that it stands for.

    Raises:
        ImageError: another mode; the message says how to convert.
    """
    mode = image.mode
    if mode in _PIL_16_BIT:
        return np.asarray(image).astype(np.uint16)[:, :, None]
    if mode == "1":
        image = image.convert("L")
    elif mode in ("PA", "La", "RGBa"):
        image = image.convert("LA" if mode == "La" else "RGBA")
    elif mode == "P":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif mode in ("L", "RGB") and "transparency" in image.info:
        image = image.convert(mode + "A")
    if image.mode not in _PIL_MODES:
        raise ImageError(
            f"image: Pillow mode is {mode}; expected 1, L, LA, P, RGB, RGBA, F or I;16: convert it "
            'first, for instance with image.convert("RGB")'
        )
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def to_pil(pixels: AnyArray, like: Image.Image) -> Image.Image:
    """A Pillow image of [H, W, C]; profile, resolution and EXIF are those of `like`."""
    from PIL import Image

    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    kept = ("icc_profile", "dpi", "exif", "xmp")
    image.info = {key: like.info[key] for key in kept if key in like.info}
    return image
