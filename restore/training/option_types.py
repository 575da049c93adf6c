"""Kinds of values in option files: ranges as annotations, and sections that know their lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """Least and most of a number, both allowed; None: no bound. `above`: the least is not."""

    least: float
    most: float | None = None
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies within."""
        over = value > self.least if self.above else value >= self.least
        return over and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        """In words."""
        if self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        return f"above {self.least:g}" if self.above else f"{self.least:g} or more"


@dataclass(frozen=True)
class Flat:
    """Marks a field whose section has no key of its own: its keys stand among its neighbours'."""


@dataclass(frozen=True)
class Rest:
    """Marks a field that takes all keys of its section that no other field takes."""


@dataclass(frozen=True)
class OneOrMore:
    """Marks a tuple whose single value needs no brackets."""


Count = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
Weight = Annotated[float, Range(0)]
Rate = Annotated[float, Range(0, above=True)]
Fraction = Annotated[float, Range(0, 1)]
Limits = Annotated[tuple[float, float], Range(0)]  # least and most of what is drawn
# one folder or file, or several whose pictures are taken together
Paths = Annotated[tuple[Path, ...], OneOrMore()]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Part of an option file.

    Attributes:
        places: "file:line" of every key that stands in the file, and under "" of the section.
    """

    places: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def where(self, key: str = "") -> str:
        """ "file:line" of a key, or of the section where the file leaves the key out."""
        return self.places.get(key) or self.places.get("", "")

    def given(self, key: str) -> bool:
        """Whether the file (or --force_yml) has that key."""
        return key in self.places
