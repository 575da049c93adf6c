"""Whole files of every kind that is read, small ones: what the damage is done to.

They come from the project's own writers and from others, so that every way of storing is met.
"""

from __future__ import annotations

import functools
import io
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image, ImageCms, PngImagePlugin
from safetensors.torch import save
from small_models import tiny

from restore.image_io import Picture, write_picture
from restore.image_io.exif import build_exif, resolution_entries, short
from restore.image_io.png import SIGNATURE, chunk
from restore.training.options import read_options

KINDS = ("png", "jpg", "webp", "tiff", "bmp", "pth", "safetensors", "yml")
Seeds = dict[str, bytes]  # by name, which also tells how it was made
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" tiff:ImageWidth="20"/></x:xmpmeta>'


@functools.cache
def seeds(kind: str) -> Seeds:
    """The whole files of a kind; the same in every process."""
    makers: dict[str, Callable[[], Seeds]] = {
        "png": _png,
        "jpg": _jpg,
        "webp": _webp,
        "tiff": _tiff,
        "bmp": _bmp,
        "pth": _pth,
        "safetensors": _safetensors,
        "yml": _yml,
    }
    return makers[kind]()


def _pixels(channels: int, dtype: Any = np.uint8, height: int = 13, width: int = 20) -> Any:
    """A slope with noise: neither flat nor without pattern."""
    rng = np.random.default_rng(channels)
    y, x, c = np.mgrid[:height, :width, :channels]
    values = (y * 7 + x * 5 + c * 40 + rng.integers(0, 9, (height, width, channels))) / 255
    if np.dtype(dtype).kind == "f":
        return (values % 1).astype(dtype)
    return ((values % 1) * np.iinfo(dtype).max).astype(dtype)


def exif() -> bytes:
    """A block with orientation, resolution and a directory of its own."""
    top = {274: short(6), **resolution_entries((72, 72))}
    block = build_exif(top, {34665: {40962: short(20), 40963: short(13)}})
    assert block is not None
    return block


def icc(colours: str = "RGB") -> bytes:
    """A profile of sRGB, or one that says it is of other colours."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:16] + colours.ljust(4).encode() + profile[20:]


def _written(picture: Picture, fmt: Any, **options: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "whole")
        write_picture(path, picture, fmt=fmt, **options)
        return path.read_bytes()


def _saved(image: Image.Image, fmt: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def _rich(channels: int = 3, dtype: Any = np.uint8, alpha: bool = False) -> Picture:
    pixels = _pixels(channels, dtype)
    return Picture(
        pixels,
        _pixels(1, dtype)[..., 0] if alpha else None,
        icc=icc("RGB" if channels == 3 else "GRAY"),
        exif=exif(),
        dpi=(300.0, 150.0),
        xmp=XMP,
    )


def _png() -> Seeds:
    made = {
        "rgb": _written(_rich(), "png"),
        "gray-alpha-16": _written(_rich(1, np.uint16, alpha=True), "png"),
        "rgba-16": _written(_rich(3, np.uint16, alpha=True), "png"),
        "gray": _written(Picture(_pixels(1)), "png"),
    }
    palette = Image.fromarray(_pixels(3)).quantize(16)
    made["palette"] = _saved(palette, "PNG", transparency=bytes(range(16)))
    made["one-bit"] = _saved(Image.fromarray(_pixels(1)[..., 0]).convert("1"), "PNG")
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "some words")
    texts.add_text("Raw profile type exif", "\nexif\n  8\n4578696600004d4d\n", zip=True)
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    made["texts"] = _saved(Image.fromarray(_pixels(3)), "PNG", pnginfo=texts, dpi=(72, 72))
    made["interlaced"] = _interlaced()
    made["key-16"] = _sixteen_bits_with_a_key()
    return made


def _interlaced() -> bytes:
    """Seven passes over 5 x 4 gray pixels, in two chunks."""
    rows = b""
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    for x, y, dx, dy in (*steps, (0, 1, 1, 2)):
        columns, lines = -(-(5 - x) // dx), -(-(4 - y) // dy)
        if columns > 0 and lines > 0:
            rows += (b"\0" + bytes(range(columns))) * lines
    packed = zlib.compress(rows)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 8, 0, 0, 0, 1))
    data = chunk(b"IDAT", packed[:9]) + chunk(b"IDAT", packed[9:])
    return SIGNATURE + head + chunk(b"gAMA", struct.pack(">I", 70000)) + data + chunk(b"IEND", b"")


def _sixteen_bits_with_a_key() -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in _pixels(3, np.uint16, 6, 7))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 6, 16, 2, 0, 0, 0))
    key = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    data = chunk(b"IDAT", zlib.compress(rows))
    return SIGNATURE + head + key + data + chunk(b"IEND", b"")


def _jpg() -> Seeds:
    image = Image.fromarray(_pixels(3, height=33, width=40))
    made = {
        "rich": _written(_rich(), "jpg", quality=80),
        "gray": _saved(image.convert("L"), "JPEG", quality=60, dpi=(300, 300)),
        "progressive": _saved(image, "JPEG", progressive=True, quality=70, comment=b"words"),
        "restarts": _saved(image, "JPEG", restart_marker_blocks=2, optimize=True),
        "cmyk": _saved(image.convert("CMYK"), "JPEG", icc_profile=icc("CMYK")),
        "full": _saved(image, "JPEG", subsampling=0, exif=b"Exif\0\0" + exif()),
    }
    return made


def _webp() -> Seeds:
    return {
        "lossy": _written(_rich(), "webp", quality=70),
        "lossless-alpha": _written(_rich(alpha=True), "webp", lossless=True),
        "lossy-alpha": _written(Picture(_pixels(3), _pixels(1)[..., 0]), "webp", quality=50),
        "bare": _saved(Image.fromarray(_pixels(3)), "WEBP", lossless=True),
    }


def _bmp() -> Seeds:
    image = Image.fromarray(_pixels(3))
    return {
        "rgb": _written(_rich(), "bmp"),
        "palette": _saved(image.quantize(16), "BMP"),
        "one-bit": _saved(image.convert("1"), "BMP"),
        "alpha": _saved(image.convert("RGBA"), "BMP"),
    }


def _tiff() -> Seeds:
    made = {
        "rich": _written(_rich(), "tiff"),
        "rich-16-alpha": _written(_rich(3, np.uint16, alpha=True), "tiff"),
        "float": _written(Picture(_pixels(3, np.float32)), "tiff"),
    }
    colour = {"photometric": "rgb"}
    gray = {"photometric": "minisblack"}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "plain": (_pixels(3), colour),
        "big-endian": (_pixels(1, ">u2")[..., 0], {**gray, "byteorder": ">"}),
        "bigtiff": (_pixels(3), {**colour, "bigtiff": True, "compression": "zlib"}),
        "tiles": (_pixels(3, height=40, width=40), {**colour, "tile": (16, 16)}),
        "tiles-packed": (
            _pixels(1, np.uint16, 40, 40)[..., 0],
            {**gray, "tile": (32, 16), "compression": "zlib", "predictor": True},
        ),
        "planes": (_pixels(3).transpose(2, 0, 1), {**colour, "planarconfig": "separate"}),
        "double": (_pixels(1, np.float64)[..., 0], gray),
        "long": (_pixels(1, np.uint32)[..., 0], gray),
        "inks": (_pixels(4), {"photometric": "separated"}),
        "extra": (_pixels(4), {**colour, "extrasamples": ["assocalpha"]}),
        "strips": (_pixels(3), {**colour, "rowsperstrip": 2, "resolution": (72, 72)}),
    }
    for name, (pixels, options) in kinds.items():
        out = io.BytesIO()
        tifffile.imwrite(out, pixels, **options)
        made[name] = out.getvalue()
    image = Image.fromarray(_pixels(3, height=33, width=40))
    for codec in ("tiff_lzw", "packbits", "jpeg", "tiff_adobe_deflate"):
        made[codec] = _saved(image, "TIFF", compression=codec)
    made["fax"] = _saved(image.convert("1"), "TIFF", compression="group4")
    made["palette"] = _saved(image.quantize(16), "TIFF")
    made["pages"] = _saved(image, "TIFF", save_all=True, append_images=[image.rotate(90)])
    return made


def _state() -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in tiny(2).module.state_dict().items()}


def _pth() -> Seeds:
    state = _state()
    wrapped = {"params": state, "params_ema": state, "iter": 5}
    halves = {f"module.{key}": value.half() for key, value in state.items()}
    contents = {"bare": state, "wrapped": wrapped, "halves": {"state_dict": halves, "epoch": 1.5}}
    made: Seeds = {}
    for name, content in contents.items():
        for suffix, is_zip in (("", True), ("-legacy", False)):
            out = io.BytesIO()
            torch.save(content, out, _use_new_zipfile_serialization=is_zip)
            made[name + suffix] = out.getvalue()
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(made["bare"])) as plain,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(zipfile.ZipInfo(name), plain.read(name), zipfile.ZIP_DEFLATED)
    made["packed"] = out.getvalue()
    return made


def _safetensors() -> Seeds:
    state = _state()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tiny.safetensors")
        tiny(2).save(path)
        own = path.read_bytes()
    return {
        "own": own,
        "bare": save(state),
        "halves": save({key: value.half() for key, value in state.items()}),
        "told": save(state, {"restore": "1", "config": json.dumps({"img_range": 1.0})}),
    }


def _yml() -> Seeds:
    root = Path(read_options.__code__.co_filename).parents[1] / "options"
    names = ("train/swinir_small_x2", "train/swinir_real_x4_gan", "test/hat_s_x2")
    made = {name: (root / f"{name}.yml").read_bytes() for name in names}
    made["anchors"] = _ANCHORS.encode()
    return made


_ANCHORS = """\
name: run
model_type: SRModel
scale: 2
datasets:
  val: &set
    type: PairedImageDataset
    dataroot_gt: [a, b]
    dataroot_lq: [c, d]
    name: "one \\u00e9"
  val_2:
    <<: [*set, {color: rgb}]
    name: two
network_g: {type: SwinIR, upscale: 2, depths: [1], embed_dim: 6, num_heads: [1],
  upsampler: pixelshuffle}
"""
