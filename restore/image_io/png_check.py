"""PNG's pixel data before a decoder has it: libpng says on the screen what we say in errors."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from restore.image_io.picture import Array

_PIECE = 2**20
_FILTERS = 5  # kinds of them; the first byte of a row names one


def checked_pixel_data(parts: Sequence[bytes], passes: Sequence[tuple[int, int]]) -> list[bytes]:
    """The deflated data of all IDAT chunks, without what stands behind the last row.

    Args:
        parts: of each chunk.
        passes: rows, and bytes of a row with its filter byte, of every pass (one, or seven).

    Raises:
        ValueError: it is cut short, or a row has a filter that there is not.
        zlib.error: it is damaged.
    """
    starts = _row_starts(passes)
    expected = sum(rows * row for rows, row in passes)
    inflater, have, more = zlib.decompressobj(), 0, False
    for number, part in enumerate(parts):
        rest = part
        while rest and not inflater.eof:
            piece = inflater.decompress(rest, _PIECE)
            rest = inflater.unconsumed_tail
            _check_filters(piece, starts, have)
            have += len(piece)
            if have > expected:
                return [_cut(parts, expected)]
        more = more or (inflater.eof and (bool(inflater.unused_data) or number + 1 < len(parts)))
    if have < expected:
        raise ValueError(f"its pixel data inflates to {have} of {expected} bytes")
    if not inflater.eof:
        raise ValueError("its pixel data is cut short behind the last row")
    return [_cut(parts, expected)] if more else list(parts)


def _row_starts(passes: Sequence[tuple[int, int]]) -> Array:
    """Where in the inflated data the filter bytes stand."""
    starts, at = [], 0
    for rows, row in passes:
        starts.append(at + row * np.arange(rows, dtype=np.int64))
        at += rows * row
    return np.concatenate(starts)


def _check_filters(piece: bytes, starts: Array, at: int) -> None:
    first, last = np.searchsorted(starts, [at, at + len(piece)])
    filters = np.frombuffer(piece, np.uint8)[starts[first:last] - at]
    if filters.size and int(filters.max()) >= _FILTERS:
        raise ValueError(f"row {first + int(filters.argmax())} has the filter {filters.max()}")


def _cut(parts: Sequence[bytes], expected: int) -> bytes:
    """The data of the rows alone; of a file that no encoder wrote."""
    whole = zlib.decompressobj().decompress(b"".join(parts), expected)
    return zlib.compress(whole, 1)
