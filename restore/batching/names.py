"""Names of many files in little memory: eight bytes each, where a set of strings takes 200."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

PathLike = str | os.PathLike[str]
_FEW = 64  # files of one folder that are looked at one by one


def key(path: PathLike) -> str:
    """Equal for two names of one file, links aside."""
    text = os.path.normcase(os.path.abspath(path))
    return text.casefold() if sys.platform == "darwin" else text


def seen_from(folder: PathLike, path: PathLike) -> str:
    """A path as it is from a folder, so that machines that know both under other names agree."""
    try:
        return os.path.relpath(path, folder)
    except ValueError:  # another drive of Windows
        return os.path.abspath(path)


def digest(text: str) -> int:
    """64 bits that stand for a text."""
    raw = text.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")


class Names:
    """A set of texts of which only digests are kept.

    Of a million texts, one in 10^13 others is taken for one of them.

    Args:
        digests: of each text; those that come again count once.
    """

    def __init__(self, digests: Iterable[int] = ()) -> None:
        self._sorted = _distinct(np.fromiter(digests, np.uint64))

    @classmethod
    def of(cls, texts: Iterable[str]) -> Names:
        """The set of these texts."""
        return cls(digest(text) for text in texts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Names:
        """What `to_bytes` gave."""
        names = cls()
        names._sorted = np.frombuffer(data, ">u8").astype(np.uint64)
        return names

    def to_bytes(self) -> bytes:
        """Eight bytes of each text."""
        return self._sorted.astype(">u8").tobytes()

    def __len__(self) -> int:
        """How many texts."""
        return len(self._sorted)

    def __contains__(self, text: object) -> bool:
        """Whether this text is one of them."""
        return isinstance(text, str) and self.has(digest(text))

    def has(self, number: int) -> bool:
        """Whether a text with this digest is one of them."""
        at = int(np.searchsorted(self._sorted, np.uint64(number)))
        return at < len(self._sorted) and int(self._sorted[at]) == number

    def __and__(self, other: Names) -> Names:
        """Texts of both."""
        both = Names()
        everything = np.sort(np.concatenate([self._sorted, other._sorted]))
        both._sorted = everything[1:][everything[1:] == everything[:-1]]
        return both

    def __or__(self, other: Names) -> Names:
        """Texts of either."""
        either = Names()
        either._sorted = _distinct(np.concatenate([self._sorted, other._sorted]))
        return either


def repeated(digests: Iterable[int]) -> Names:
    """The set of those that come more than once."""
    numbers = np.sort(np.fromiter(digests, np.uint64))
    return Names(int(number) for number in numbers[1:][numbers[1:] == numbers[:-1]])


def _distinct(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sorted, each once; `np.unique` would load NumPy's masked arrays."""
    numbers = np.sort(numbers)
    first = np.ones(len(numbers), bool)
    first[1:] = numbers[1:] != numbers[:-1]
    return numbers[first]


class RealPaths:
    """`os.path.realpath` of many files, for which each folder is looked at once."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._folders: dict[str, tuple[str, frozenset[str]]] = {}

    def __call__(self, path: PathLike) -> str:
        """The path without links, whether the file is there or not."""
        folder, name = os.path.split(path)
        self._asked[folder] += 1
        if self._asked[folder] <= _FEW:
            return os.path.realpath(path)
        real, links = self._folders.get(folder) or self._look_at(folder)
        return os.path.realpath(path) if name in links else os.path.join(real, name)

    def _look_at(self, folder: str) -> tuple[str, frozenset[str]]:
        """The folder without links, and which of its entries are links."""
        real = os.path.realpath(folder)
        try:
            with os.scandir(real) as entries:
                links = frozenset(entry.name for entry in entries if entry.is_symlink())
        except OSError:  # it is not there yet
            links = frozenset()
        self._folders[folder] = real, links
        return real, links
