"""Sequences whose elements are made when they are asked for."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class LazySequence(Sequence[T]):
    """A sequence that keeps no element."""

    @abc.abstractmethod
    def _at(self, index: int) -> T:
        """The element at 0 .. len - 1."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._at(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no element {index} among {len(self)}")
        return self._at(index % len(self))
