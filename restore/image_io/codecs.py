"""JPEG, WebP and BMP: headers before pixels, and metadata segments written here.

Libraries do the coding of pixels; the containers are read and written here because the libraries
drop metadata, allocate before a size can be judged, or fail on a profile larger than the picture.

Source: ITU-T T.81; ECMA-418 (JFIF); Adobe XMP part 3; ICC.1:2022 annex B; WebP container
specification (developers.google.com/speed/webp).
"""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import BinaryIO

import cv2
import numpy as np
from PIL import BmpImagePlugin, Image, JpegImagePlugin

from restore.image_io.colour import cmyk_converter, from_pillow
from restore.image_io.exif import orientation_of, parse_exif, resolution_of
from restore.image_io.picture import Array, Picture, PictureFormat, PictureInfo
from restore.image_io.source import Opened

_EXIF_PREFIX = b"Exif\0\0"
_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
_ICC_PREFIX = b"ICC_PROFILE\0"
_SCAN, _MOST_SCANS = b"\xff\xda", 100
_SEGMENT = 65533  # bytes a JPEG segment holds after its length
MAX_JPEG_ICC = 255 * (_SEGMENT - len(_ICC_PREFIX) - 2)
MAX_JPEG_EXIF = _SEGMENT - len(_EXIF_PREFIX)
MAX_JPEG_XMP = _SEGMENT - len(_XMP_PREFIX)


def open_jpeg(file: BinaryIO) -> Opened:
    """Read the markers of a JPEG file up to its scan."""
    # not Image.open: that compares sizes with a limit of its own, a global
    image = JpegImagePlugin.JpegImageFile(file)
    if "progressive" in image.info:
        _check_scans(file)
    exif = _without_prefix(image.info.get("exif"))
    channels = 1 if image.mode == "L" else 3
    info = PictureInfo(*image.size, channels, 8, "jpg", has_alpha=False, n_frames=1)
    size = image.width * image.height * len(image.getbands())
    return Opened(info, size, orientation_of(exif), lambda: _decode_jpeg(image, exif))


def _check_scans(file: BinaryIO) -> None:
    """Raise ValueError for more passes over the picture than any encoder makes.

    A few bytes can ask for one, and each takes as long as the picture is large.
    """
    file.seek(0)
    scans, end = 0, b""
    while part := file.read(2**20):
        scans += (end + part).count(_SCAN)
        end = part[-1:]
    if scans > _MOST_SCANS:
        raise ValueError(f"it has {scans} scans; a progressive file has some ten")


def _decode_jpeg(image: Image.Image, exif: bytes | None) -> Picture:
    info, notes = image.info, []
    if "mp" in info:
        notes.append("jpg holds further pictures (a preview or HDR gain map): not carried over")
    if info.get("comment"):
        notes.append("the jpg comment is not carried over")
    icc = info.get("icc_profile") or None
    image.load()
    if image.mode == "CMYK":
        convert, icc, note = cmyk_converter(icc)
        notes.append(note)
        pixels, alpha = convert(np.asarray(image)), None
    else:
        pixels, alpha = from_pillow(image)
    # without a JFIF unit the library makes a resolution up
    dpi = info.get("dpi") if info.get("jfif_unit") in (1, 2) else exif_dpi(exif)
    return _picture("jpg", pixels, alpha, icc, exif, dpi, info.get("xmp"), notes)


def open_bmp(file: BinaryIO) -> Opened:
    """Read the header of a BMP file."""
    image = BmpImagePlugin.BmpImageFile(file)
    channels = 1 if image.mode in ("1", "L") else 3
    has_alpha = image.mode == "RGBA"
    info = PictureInfo(*image.size, channels, 8, "bmp", has_alpha=has_alpha, n_frames=1)
    size = image.width * image.height * (channels + has_alpha)

    def decode() -> Picture:
        image.load()
        pixels, alpha = from_pillow(image)
        return _picture("bmp", pixels, alpha, None, None, image.info.get("dpi"), None, [])

    return Opened(info, size, 1, decode)


def _picture(
    fmt: PictureFormat,
    pixels: Array,
    alpha: Array | None,
    icc: bytes | None,
    exif: bytes | None,
    dpi: tuple[float, float] | None,
    xmp: bytes | None,
    notes: list[str],
) -> Picture:
    usable = dpi is not None and dpi[0] > 0 and dpi[1] > 0
    density = (float(dpi[0]), float(dpi[1])) if dpi and usable else None
    return Picture(pixels, alpha, icc, exif, density, xmp or None, fmt, tuple(notes))


def exif_dpi(exif: bytes | None) -> tuple[float, float] | None:
    """Dots per inch that an EXIF block states, None if it states none."""
    try:
        return resolution_of(parse_exif(exif or b"")[1])
    except ValueError:
        return None


def _without_prefix(exif: bytes | None) -> bytes | None:
    if exif and exif.startswith(_EXIF_PREFIX):
        return exif[len(_EXIF_PREFIX) :]
    return exif or None


def open_webp(file: BinaryIO) -> Opened:
    """Walk over the RIFF chunks of a WebP file.

    Raises:
        ValueError: it is cut short, or holds no picture.
    """
    file.seek(0)
    data = file.read()
    claimed = struct.unpack_from("<I", data, 4)[0] + 8
    if len(data) < claimed:
        raise ValueError(f"it is cut short: {len(data)} of {claimed} bytes")
    chunks, frames, at = dict[bytes, bytes](), 0, 12
    while at + 8 <= claimed:
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > claimed:
            raise ValueError(f"it is cut short within its {kind.decode('latin-1')} chunk")
        frames += kind == b"ANMF"
        if kind != b"ANMF":
            chunks.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    width, height, has_alpha = _webp_size(chunks)
    info = PictureInfo(width, height, 3, 8, "webp", has_alpha, n_frames=frames or 1)
    exif = _without_prefix(chunks.get(b"EXIF"))

    def decode() -> Picture:
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if samples is None or samples.ndim != 3 or samples.shape[:2] != (height, width):
            raise ValueError("its pixel data is damaged")
        pixels = np.ascontiguousarray(samples[..., 2::-1])
        alpha = np.ascontiguousarray(samples[..., 3]) if samples.shape[2] == 4 else None
        icc, xmp = chunks.get(b"ICCP") or None, chunks.get(b"XMP ")
        lost = has_alpha and alpha is None
        notes = ["its alpha is damaged and was left out"] if lost else []
        picture = _picture("webp", pixels, alpha, icc, exif, exif_dpi(exif), xmp, notes)
        return replace(picture, lossless=b"VP8L" in chunks)

    return Opened(info, width * height * (3 + has_alpha), orientation_of(exif), decode)


def _webp_size(chunks: dict[bytes, bytes]) -> tuple[int, int, bool]:
    if b"VP8X" in chunks:
        head = chunks[b"VP8X"].ljust(10, b"\0")
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (4, 7))
        # the flag is a promise, which files break
        has_alpha = bool(head[0] & 0x10) and bool({b"ALPH", b"VP8L"} & chunks.keys())
        return width, height, has_alpha
    if len(chunks.get(b"VP8L", b"")) >= 5:
        (word,) = struct.unpack_from("<I", chunks[b"VP8L"], 1)
        return (word & 0x3FFF) + 1, (word >> 14 & 0x3FFF) + 1, bool(word >> 28 & 1)
    if len(chunks.get(b"VP8 ", b"")) >= 10:
        width, height = struct.unpack_from("<HH", chunks[b"VP8 "], 6)
        return width & 0x3FFF, height & 0x3FFF, False
    raise ValueError("it holds no picture chunk")


def encode_jpeg(picture: Picture, quality: int) -> bytes:
    """An 8-bit picture without alpha as a JFIF file; colour is not subsampled from quality 90 up.

    Profile, EXIF and XMP must fit into segments (MAX_JPEG_ICC, MAX_JPEG_EXIF, MAX_JPEG_XMP).
    """
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    if quality < 90:
        sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    pixels = np.ascontiguousarray(picture.pixels[..., ::-1])
    # OpenCV and not Pillow, whose buffer is too small for fine noise (it raises)
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    parameters += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    done, coded = cv2.imencode(".jpg", pixels, parameters)
    if not done or coded[:4].tobytes() != b"\xff\xd8\xff\xe0":
        raise ValueError("the JPEG encoder failed")
    rest = 4 + int.from_bytes(coded[4:6].tobytes(), "big")  # behind the encoder's own JFIF segment
    segments = [_jfif(picture.dpi)]
    if picture.exif:
        segments.append(_segment(0xE1, _EXIF_PREFIX + picture.exif))
    if picture.xmp:
        segments.append(_segment(0xE1, _XMP_PREFIX + picture.xmp))
    if picture.icc:
        step = MAX_JPEG_ICC // 255
        parts = [picture.icc[i : i + step] for i in range(0, len(picture.icc), step)]
        for i, part in enumerate(parts):
            segments.append(_segment(0xE2, _ICC_PREFIX + bytes([i + 1, len(parts)]) + part))
    return b"\xff\xd8" + b"".join(segments) + coded[rest:].tobytes()


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _jfif(dpi: tuple[float, float] | None) -> bytes:
    """Version 1.1; dots per inch as whole numbers, or "square pixels" where there are none."""
    unit, x, y = 0, 1, 1
    if dpi:
        unit, x, y = 1, *(min(max(round(value), 1), 0xFFFF) for value in dpi)
    return _segment(0xE0, b"JFIF\0" + struct.pack(">HBHHBB", 0x0101, unit, x, y, 0, 0))


def encode_webp(picture: Picture, quality: int, lossless: bool) -> bytes:
    """An 8-bit RGB picture as a WebP file; colours under full transparency are kept."""
    samples = picture.pixels
    if picture.alpha is not None:
        samples = np.concatenate([samples, picture.alpha[..., None]], axis=2)
    out = io.BytesIO()
    # with lossless, quality is effort, not loss
    Image.fromarray(samples).save(
        out,
        "WEBP",
        lossless=lossless,
        quality=75 if lossless else quality,
        exact=True,
        icc_profile=picture.icc or b"",
        exif=picture.exif or b"",
        xmp=picture.xmp or b"",
    )
    return out.getvalue()


def encode_bmp(picture: Picture) -> bytes:
    """An 8-bit picture without alpha as a BMP file."""
    samples = picture.pixels[..., 0] if picture.pixels.shape[2] == 1 else picture.pixels
    out = io.BytesIO()
    # it counts in metres, with 32 bits
    dpi = picture.dpi if picture.dpi and max(picture.dpi) < 2**25 else (0, 0)
    Image.fromarray(samples).save(out, "BMP", dpi=dpi)
    return out.getvalue()
