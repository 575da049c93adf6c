"""Picture files in and out, with all they hold.

`api` reads, writes and probes; `tiff_stream` goes through TIFFs larger than memory; the other files
are the formats (`png`, `png_write`, `codecs` for JPEG, WebP and BMP, `tiff`) and what they share.
"""

from __future__ import annotations

from restore.image_io.api import (
    PICTURE_SUFFIXES,
    auto_format,
    losses,
    probe,
    read_picture,
    write_picture,
)
from restore.image_io.picture import FORMATS, Picture, PictureFormat, PictureInfo
from restore.image_io.source import DEFAULT_MAX_PIXELS

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FORMATS",
    "PICTURE_SUFFIXES",
    "Picture",
    "PictureFormat",
    "PictureInfo",
    "auto_format",
    "losses",
    "probe",
    "read_picture",
    "write_picture",
]
