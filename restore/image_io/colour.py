"""CMYK to RGB, and Pillow's many modes to the two kinds of pixels there are here."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

from restore.image_io.picture import Array, icc_channels

Convert = Callable[[Array], Array]


def cmyk_converter(icc: bytes | None) -> tuple[Convert, bytes | None, str]:
    """How to turn CMYK into RGB, the ICC profile of that RGB, and a note that says so.

    The conversion takes [H, W, 4] uint8, 255 full ink, and gives [H, W, 3] uint8. With a CMYK
    profile it is colorimetric, to sRGB; without one it is the plain (1 - ink)(1 - black).
    """
    if icc is not None and icc_channels(icc) == 4:
        try:
            srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
            transform = ImageCms.buildTransform(
                ImageCms.ImageCmsProfile(io.BytesIO(icc)),
                srgb,
                "CMYK",
                "RGB",
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            return _plain, None, "CMYK converted to RGB without its ICC profile, which is damaged"

        def by_profile(cmyk: Array) -> Array:
            done = ImageCms.applyTransform(_as_image(cmyk), transform)
            if done is None:
                raise ValueError("the CMYK profile gave no picture")
            return np.array(done)

        return by_profile, srgb.tobytes(), "CMYK converted to sRGB by its ICC profile, now dropped"
    return _plain, None, "CMYK without a CMYK profile: converted to RGB plainly, colours may shift"


def _plain(cmyk: Array) -> Array:
    return np.array(_as_image(cmyk).convert("RGB"))


def _as_image(cmyk: Array) -> Image.Image:
    height, width, _ = cmyk.shape
    return Image.frombytes("CMYK", (width, height), cmyk.tobytes())


def from_pillow(image: Image.Image) -> tuple[Array, Array | None]:
    """[H, W, 1 or 3] pixels and [H, W] alpha (or None) of a loaded image that is not CMYK.

    Raises:
        ValueError: the mode has no meaning as gray or RGB here.
    """
    if image.mode == "P" or image.mode == "PA":
        has_alpha = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
    elif image.mode in ("RGBX", "YCbCr"):
        image = image.convert("RGB")
    if image.mode not in ("1", "L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "F"):
        raise ValueError(f"colour mode {image.mode} is not supported; convert it to RGB first")
    samples = np.array(image)
    if samples.dtype == np.bool_:
        samples = samples.astype(np.uint8) * 255
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    if samples.ndim == 2:
        return samples[..., None], None
    if samples.shape[2] in (2, 4):
        return np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1])
    return samples, None
