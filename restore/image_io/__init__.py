"""Picture files in and out, with all they hold.

`api` reads, writes and probes whole pictures; `foreign` opens any picture to be read in rows. The
other files are the formats (`png`, `png_write`, `codecs` for JPEG, WebP and BMP, `tiff`,
`tiff_write`, `tiff_tiles`), those read in rows (`tiff_stream`, `png_rows`, `vips_rows`,
`zarr_rows`), and what they share.
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
