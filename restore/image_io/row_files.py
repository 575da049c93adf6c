"""Pictures read a few rows at a time, whatever their format.

Shape letters: H, W rows and columns, C samples of a pixel (1 gray, 2 gray and alpha, 3 RGB, 4 RGB
and alpha).
"""

from __future__ import annotations

import abc
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from restore.errors import ImageError
from restore.image_io.picture import Array, Picture
from restore.image_io.source import PathLike

if TYPE_CHECKING:
    from typing_extensions import Self


class NotInPartsError(ImageError):
    """A picture that is whole, but of a kind that our own readers cannot read in parts."""


class RowSource(Protocol):
    """Where a picture comes from, a few rows at a time. A row may be asked for more than once."""

    @property
    def height(self) -> int:
        """Rows."""
        ...

    @property
    def width(self) -> int:
        """Columns."""
        ...

    @property
    def channels(self) -> int:
        """1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha (not premultiplied)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what `read` returns: uint8, uint16, or a float, then with values in 0..1."""
        ...

    def read(self, y0: int, y1: int) -> Array:
        """Rows y0 .. y1 - 1, [y1 - y0, W, C]."""
        ...


class RowFile(RowSource, Protocol):
    """A picture file, open: what it carries, and its rows. A context manager."""

    @property
    def path(self) -> PathLike:
        """The file."""
        ...

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha (not premultiplied)."""
        ...

    @property
    def icc(self) -> bytes | None:
        """As in `Picture`, like the next three."""
        ...

    @property
    def exif(self) -> bytes | None:
        """May still hold an orientation."""
        ...

    @property
    def xmp(self) -> bytes | None:
        """The packet."""
        ...

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Dots per inch."""
        ...

    @property
    def notes(self) -> list[str]:
        """What was converted or left out."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class SequentialRows(abc.ABC):
    """Rows of what can only be decoded from the top down.

    The rows of the last `read` are held, so that bands which overlap cost nothing; going back
    farther than that begins anew.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]

    def __init__(self) -> None:
        self._held: Array | None = None  # rows _first .. _next - 1
        self._first = self._next = 0

    def read(self, y0: int, y1: int) -> Array:
        """[y1 - y0, W, C] of these rows.

        Raises:
            ValueError: not 0 <= y0 < y1 <= height.
            ImageError: the rows are damaged.
        """
        if not 0 <= y0 < y1 <= self.height:
            raise ValueError(f"rows {y0} to {y1}; the picture has rows 0 to {self.height}")
        if self._held is None or y0 < self._first:
            self._begin()
            self._held = np.empty((0, self.width, self.channels), self.dtype)
            self._first = self._next = 0
        while self._next < y0:
            self._held = self._decode(min(y0 - self._next, 256))
            self._first, self._next = self._next, self._next + len(self._held)
        held = self._held[y0 - self._first :]
        missing = y1 - max(y0, self._next)
        if missing > 0:
            held = np.concatenate([held, self._decode(missing)])
            self._next = y1
        self._held, self._first = held, y0
        return held[: y1 - y0]

    @abc.abstractmethod
    def _begin(self) -> None:
        """Get ready for the first row."""

    @abc.abstractmethod
    def _decode(self, n: int) -> Array:
        """The next rows [n, W, C]."""


class PictureRows:
    """Rows of a picture in memory; see `RowFile`."""

    def __init__(self, path: PathLike, picture: Picture) -> None:
        self.path = path
        self._picture = picture
        self.height, self.width = picture.pixels.shape[:2]
        self.has_alpha = picture.alpha is not None
        self.channels = picture.pixels.shape[2] + self.has_alpha
        self.dtype: np.dtype[Any] = picture.pixels.dtype
        self.icc, self.exif, self.xmp = picture.icc, picture.exif, picture.xmp
        self.dpi = picture.dpi
        self.notes = list(picture.notes)

    def read(self, y0: int, y1: int) -> Array:
        """Rows y0 .. y1 - 1, [y1 - y0, W, C]."""
        pixels, alpha = self._picture.pixels[y0:y1], self._picture.alpha
        if alpha is None:
            return pixels
        return np.concatenate([pixels, alpha[y0:y1, :, None]], axis=2)

    def __enter__(self) -> PictureRows:
        """The rows themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""
