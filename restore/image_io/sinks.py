"""Picture files that are written piece by piece, and appear when they are whole.

Shape letters: H, W rows and columns, C samples of a pixel (1 gray, 2 gray and alpha, 3 RGB, 4 RGB
and alpha, not premultiplied).
"""

from __future__ import annotations

import abc
import contextlib
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from restore.errors import OutputError
from restore.image_io.picture import Array, check_depth
from restore.image_io.source import PathLike

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Carried:
    """What a picture carries beside its samples, as in `Picture`."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


NOTHING = Carried()


@dataclass(frozen=True)
class Raster:
    """What samples a picture has: H x W pixels of C samples, uint8, uint16 or float32.

    Raises:
        ValueError: it would be no picture.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        check_depth(self.dtype)
        if self.channels not in (1, 2, 3, 4) or min(self.height, self.width) < 1:
            raise ValueError(
                f"height {self.height}, width {self.width}, channels {self.channels}; expected at "
                "least one pixel and 1 to 4 channels"
            )


class Sink(abc.ABC):
    """A file, or a folder, that is being written.

    A context manager: it appears under its name when the block ends well, and not at all otherwise.

    Args:
        path: where to write.
        raster: the samples that come.
        carried: what goes with them.
    """

    def __init__(
        self,
        path: PathLike,
        raster: Raster,
        carried: Carried = NOTHING,
    ) -> None:
        self.path, self.carried = path, carried
        self.height, self.width = raster.height, raster.width
        self.channels, self.dtype = raster.channels, raster.dtype
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Create it under a temporary name."""
        with contextlib.ExitStack() as opening:
            self._begin(opening)
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish and rename it, or remove it if anything went wrong."""
        if error is not None:
            # its own context removes it
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._complete()

    @abc.abstractmethod
    def _begin(self, stack: contextlib.ExitStack) -> None:
        """Open what is needed, to be closed with the stack."""

    @abc.abstractmethod
    def _complete(self) -> None:
        """Write what stands behind the samples; raise OutputError if some never came."""


class RowSink(Sink):
    """A file that takes rows, from the top down."""

    _written = 0  # rows

    def write(self, rows: Array) -> None:
        """Append [n, W, C] rows of the sink's dtype, below those written before.

        Raises:
            OutputError: they cannot be written.
            ValueError: they do not fit.
        """
        if rows.shape[1:] != (self.width, self.channels) or rows.dtype != self.dtype:
            raise ValueError(
                f"rows are {rows.shape} {rows.dtype}; "
                f"expected [n, {self.width}, {self.channels}] {self.dtype}"
            )
        self._written += len(rows)
        if self._written > self.height:
            raise ValueError(f"{self._written} rows written; the picture has {self.height}")
        self._take(rows)

    def _complete(self) -> None:
        if self._written < self.height:
            raise OutputError(
                f"{self.path}: only {self._written} of {self.height} rows came; nothing is kept"
            )
        self._end()

    @abc.abstractmethod
    def _take(self, rows: Array) -> None:
        """Write rows that fit."""

    @abc.abstractmethod
    def _end(self) -> None:
        """Write what stands behind them."""
