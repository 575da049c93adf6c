"""Opening a picture file: what it is by its content, and what is wrong with it in words."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2

from restore.errors import ImageError, RestoreError, shown
from restore.image_io.picture import ForeignFormat, Picture, PictureFormat, PictureInfo
from restore.special_files import special_file

PathLike = str | os.PathLike[str]
_BY_FORMAT: dict[PictureFormat, tuple[str, ...]] = {
    "png": (".png", ".apng"),
    "jpg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff", ".btf"),
    "bmp": (".bmp", ".dib"),
}
SUFFIXES = {suffix: fmt for fmt, suffixes in _BY_FORMAT.items() for suffix in suffixes}
READS = "PNG, JPEG, WebP, TIFF and BMP"

# 16384 x 16384: 3 GiB of float32 RGB, what a desktop can still take
DEFAULT_MAX_PIXELS = 2**28
# deflate, the best packer of honest flat pictures here, ends at 1032 to 1; a flat JPEG near 1000
BOMB_RATIO = 2000
# below this a bomb does no harm, and a blank 1-bit page or a flat WebP is honestly that small
BOMB_BYTES = 2**27
# what decoders raise where damage leads them to places that their authors did not think of
_INNER_ERRORS = (
    *(LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, UnicodeError),
    *(RecursionError, NotImplementedError, struct.error, cv2.error),
)
_INNER_WORDS = re.compile(
    r"\b(object|subscript\w*|arguments?|unpack|reshape|broadcast|operands?|literal|buffer|NoneType|"
    r"dimensions?|out of range|index|array|0x\w+|return\w*)\b"
)


@dataclass(frozen=True)
class Opened:
    """A file whose header was read: what it says, and how to get its pixels."""

    info: PictureInfo  # sizes as stored, before orientation
    decoded_bytes: int
    orientation: int
    decode: Callable[[], Picture]


class OtherFormatError(ImageError):
    """A picture of a format that only the extra [large] reads."""

    def __init__(self, message: str, fmt: ForeignFormat) -> None:
        super().__init__(message)
        self.fmt: ForeignFormat = fmt


@contextlib.contextmanager
def opened_file(path: PathLike) -> Iterator[tuple[BinaryIO, PictureFormat]]:
    """The file, open to read, and its format by content.

    Raises:
        OtherFormatError: it is of a format that only the extra [large] reads.
        ImageError: there is no such file, it cannot be read, or it is no picture of a known format.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{path}: is a folder; name a picture file")
        if not stat.S_ISREG(mode):
            special = special_file(path) or "no regular file"
            raise ImageError(f"{path}: is {special}; name a picture file")
        file = open(path, "rb")  # noqa: SIM115 - closed below, errors of the body are not ours
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except ValueError as error:  # a path that no system has
        raise ImageError(f"{shown(path)}: cannot be read: {error}; check the path") from error
    except OSError as error:
        why = error.strerror or str(error)
        raise ImageError(f"{path}: cannot be read: {why}; check the path and its rights") from error
    with file:
        with decoding(path):
            head = file.read(64)
            file.seek(0)
        fmt = _sniff(head)
        other = _sniff_foreign(head)
        if other is not None:
            raise OtherFormatError(f"{path}: {_what_instead(head)}", other)
        if fmt is None:
            raise ImageError(f"{path}: {_what_instead(head)}; this tool reads {READS}")
        yield file, fmt


@contextlib.contextmanager
def decoding(path: PathLike) -> Iterator[None]:
    """Whatever goes wrong within, reported as an ImageError about `path`."""
    try:
        yield
    except RestoreError:
        raise
    except MemoryError as error:
        raise ImageError(f"{path}: there is not enough memory to decode it") from error
    except Exception as error:  # decoders raise nearly every type on damaged files
        raise ImageError(
            f"{path}: damaged, or of a kind that cannot be decoded: {_reason(error)}; "
            "get the file again, or save it anew with another program"
        ) from error


def _reason(error: Exception) -> str:
    """What a decoder says, where it speaks of the file and not of its own inner works."""
    text = str(error).strip().partition("\n")[0]
    if not text or isinstance(error, _INNER_ERRORS) or _INNER_WORDS.search(text):
        return "its parts contradict each other"
    return shown(text, 160)


def _sniff(head: bytes) -> PictureFormat | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    # two letters are little: the reserved bytes and a known header length make it a BMP
    if head[:2] == b"BM" and len(head) > 26 and head[14] in (12, 40, 52, 56, 64, 108, 124):
        return "bmp"
    return None


def _sniff_foreign(head: bytes) -> ForeignFormat | None:
    """Which of the formats that only libvips reads a file is of, None for all others."""
    if head.startswith((b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51")):
        return "jp2"
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL")):
        return "jxl"
    return None


def _what_instead(head: bytes) -> str:
    if not head:
        return "is empty"
    if head[4:8] == b"ftyp":
        return f"is an ISO media file ({head[8:12].decode('latin-1')}: HEIC, AVIF or a video)"
    known = {
        b"GIF8": "is a GIF, which is not supported",
        b"\0\0\0\x0cjP": "is a JPEG 2000 file",
        b"\xff\x4f\xff\x51": "is a JPEG 2000 codestream",
        b"\xff\x0a": "is a JPEG XL file",
        b"\0\0\0\x0cJXL": "is a JPEG XL file",
        b"8BPS": "is a Photoshop document",
        b"%PDF": "is a PDF",
        b"PK\x03\x04": "is a ZIP archive",
    }
    for magic, what in known.items():
        if head.startswith(magic):
            return what
    if all(byte in b"\t\n\r\x1b" or byte >= 32 for byte in head) and b"\x7f" not in head:
        return f"is no picture but text, beginning {head[:20].decode('utf-8', 'replace')!r}"
    return f"is no picture of a known format (first bytes {head[:8].hex(' ')})"


def suffix_note(path: PathLike, fmt: PictureFormat) -> list[str]:
    """A note if the name promises another format than the content has."""
    suffix = Path(path).suffix
    if SUFFIXES.get(suffix.lower()) == fmt:
        return []
    return [f"the name ends in {suffix or 'no suffix'} but the content is {fmt}: read as {fmt}"]


def check_opened(path: PathLike, opened: Opened, file_bytes: int, max_pixels: int | None) -> None:
    """Refuse animations, impossible sizes and decompression bombs, before pixels are decoded.

    Raises:
        ImageError: with the number found, the limit, and what to do.
    """
    info = opened.info
    if info.n_frames != 1:
        raise ImageError(
            f"{path}: holds {info.n_frames} frames or pages; "
            "split it into single pictures first and restore each"
        )
    if info.width < 1 or info.height < 1:
        raise ImageError(f"{path}: its header claims {info.width} x {info.height} pixels")
    if max_pixels is None:
        return
    if info.width * info.height > max_pixels:
        raise ImageError(
            f"{path}: {info.width} x {info.height} is {info.width * info.height:,} pixels, "
            f"above the limit of {max_pixels:,}; raise it with --max-pixels if the file is trusted"
        )
    ratio = opened.decoded_bytes / max(file_bytes, 1)
    if opened.decoded_bytes > BOMB_BYTES and ratio > BOMB_RATIO:
        raise ImageError(
            f"{path}: {file_bytes:,} bytes claim to decode to {opened.decoded_bytes:,} "
            f"({ratio:,.0f} to 1, above {BOMB_RATIO:,}); "
            "if the file is trusted, lift all limits with --max-pixels 0"
        )
