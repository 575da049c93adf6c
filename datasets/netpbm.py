"""Binary netpbm pictures (P5 gray, P6 RGB): pixels that are read without decoding.

Source: the format's description, netpbm.sourceforge.net/doc/ppm.html. BasicSR's reader, OpenCV,
takes them too.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_HEAD = re.compile(rb"P([56])\n(\d+) (\d+)\n(255|65535)\n")
_LONGEST_HEAD = 40


def netpbm_bytes(picture: Array) -> bytes:
    """A picture [H, W, 1 or 3] of uint8 or uint16 as a netpbm file."""
    rows, columns, channels = picture.shape
    white = np.iinfo(picture.dtype).max
    head = f"P{6 if channels == 3 else 5}\n{columns} {rows}\n{white}\n".encode("ascii")
    return head + picture.astype(picture.dtype.newbyteorder(">")).tobytes()


def netpbm_view(data: bytes | memoryview) -> Array | None:
    """The pixels of a netpbm file as `netpbm_bytes` writes it, None if it is something else.

    Returns:
        [H, W, 1 or 3]: uint8, a view of `data`; or uint16, a copy.
    """
    match = _HEAD.match(bytes(data[:_LONGEST_HEAD]))
    if match is None:
        return None
    kind, columns, rows, white = (int(text) for text in match.groups())
    dtype = np.dtype(np.uint8 if white == 255 else ">u2")
    shape = (rows, columns, 3 if kind == 6 else 1)
    if len(data) - match.end() != np.prod(shape) * dtype.itemsize:
        return None
    pixels = np.frombuffer(data, dtype, offset=match.end()).reshape(shape)
    return pixels if white == 255 else pixels.astype(np.uint16)
