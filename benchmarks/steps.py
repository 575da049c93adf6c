"""A program that goes on where it was stopped: steps, how long they take, and a budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
FIRST_GUESS = 45.0  # seconds of an item, before one was measured


@dataclass(frozen=True)
class Item:
    """One thing to do.

    Attributes:
        name: for people.
        kind: of the things that take about as long.
        done: whether the results have it.
        do: does it, and says how it went.
    """

    name: str
    kind: str
    done: Callable[[], bool]
    do: Callable[[], str]


class Pace:
    """How long things take, from those that are done.

    Args:
        budget: seconds after which nothing more is begun; None for no end.
    """

    def __init__(self, budget: float | None) -> None:
        self.began = time.monotonic()
        self.budget = budget
        self.taken: dict[str, list[float]] = {}

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def fits(self, kind: str) -> bool:
        """Whether one more of a kind would end in time, if it takes as long as the longest."""
        return self.budget is None or self.elapsed() + self._longest(kind) <= self.budget

    def note(self, kind: str, seconds: float) -> None:
        """One more is done."""
        self.taken.setdefault(kind, []).append(seconds)

    def left(self, kinds: Iterable[str]) -> float:
        """Seconds that the rest will take, about."""
        return sum(self._mean(kind) for kind in kinds)

    def _longest(self, kind: str) -> float:
        return max(self.taken.get(kind, [FIRST_GUESS if kind.startswith("case") else 0.0]))

    def _mean(self, kind: str) -> float:
        taken = self.taken.get(kind)
        return sum(taken) / len(taken) if taken else FIRST_GUESS * kind.startswith("case")


def run(items: list[Item], pace: Pace) -> int:
    """Do what is not done yet, while there is time; how many remain."""
    todo = [item for item in items if not item.done()]
    print(f"{len(items) - len(todo)} of {len(items)} steps are done already", flush=True)
    for number, item in enumerate(todo):
        if not pace.fits(item.kind):
            print(f"stopped after {pace.elapsed():.0f} s: the next step could pass the budget")
            return len(todo) - number
        began = time.monotonic()
        words = "done meanwhile" if item.done() else item.do()
        pace.note(item.kind, time.monotonic() - began)
        eta = pace.left(later.kind for later in todo[number + 1 :])
        print(
            f"[{number + 1}/{len(todo)}, {pace.elapsed():.0f} s, about {eta:.0f} s left] "
            f"{item.name}: {words}",
            flush=True,
        )
    return 0


def part_of(things: list[T], part: tuple[int, int] | None) -> list[T]:
    """Every N-th from the I-th on, or all."""
    return things if part is None else things[part[0] - 1 :: part[1]]
