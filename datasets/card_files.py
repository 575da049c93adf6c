"""What is known of the papers' test and training sets: the cards (*.yml) in this folder.

A card holds what was seen in files or read in a named source, and leaves the rest empty. Pixels are
known by `pixel_digest`, which outlives re-encoding, of whole pictures and of pictures cut to
multiples of a scale, as test sets are handed around in both forms.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from numpy.typing import NDArray

from restore.datasets.images import pixel_digest
from restore.errors import UsageError
from restore.tasks import TASKS, Task

Array = NDArray[Any]

_MOST = 64  # multiples that a picture may have been cut to


@dataclass(frozen=True)
class CardImage:
    """One picture of a set.

    Attributes:
        file: its name as most copies of the set have it.
        height: rows of the whole picture; None where nobody looked.
        width: columns.
        channels: as stored, 1 or 3.
        sha256: `pixel_digest`s by the multiple that rows and columns were cut to; 1: whole.
    """

    file: str
    height: int | None
    width: int | None
    channels: int | None
    sha256: Mapping[int, str]

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return Path(self.file).stem

    def cut_to(self, multiple: int) -> tuple[int, int]:
        """Rows and columns that stay when both are cut to a multiple."""
        height, width = self.height or 0, self.width or 0
        return height - height % multiple, width - width % multiple

    def cut_of(self, picture: Array) -> int | None:
        """The multiple that a picture [H, W, C] was cut to, by its size; None for no such size."""
        size = picture.shape[:2]
        return next((n for n in range(1, _MOST) if self.cut_to(n) == size), None)

    def known(self, picture: Array) -> tuple[str, str] | None:
        """SHA-256 of the largest part of a picture that the card knows: found, and expected.

        None where the card knows no part of it.
        """
        rows, columns = picture.shape[:2]
        parts = [(*self.cut_to(multiple), digest) for multiple, digest in self.sha256.items()]
        fitting = [(h * w, h, w, digest) for h, w, digest in parts if h <= rows and w <= columns]
        if not fitting:
            return None
        _, height, width, digest = max(fitting)
        return pixel_digest(picture[:height, :width]) or "", digest


@dataclass(frozen=True)
class Card:
    """One set.

    Attributes:
        name: as papers print it.
        aliases: other names that papers and folders use.
        task: what it mostly measures or trains.
        paper: where it comes from.
        page: where its authors offer it; None if not known.
        licence: in words; None if not known.
        count: pictures (or pairs) that scores are averaged over; None if not known.
        parts: pictures of each part, where it has parts.
        images: in the order of their names; empty where nobody listed them.
        scales: of super-resolution that papers use it for.
        high: folder of the whole pictures, where the set has a layout of its own.
        low: folder of the pictures made smaller, with {scale} in it.
        notes: what to know before comparing scores.
        verified: which of page, licence, count and images were checked.
        sources: what each of them was checked against or taken from.
    """

    name: str
    aliases: tuple[str, ...]
    task: Task
    paper: str
    page: str | None
    licence: str | None
    count: int | None
    parts: Mapping[str, int]
    images: tuple[CardImage, ...]
    scales: tuple[int, ...]
    high: str
    low: str
    notes: tuple[str, ...]
    verified: frozenset[str]
    sources: Mapping[str, str]

    def image(self, name: str) -> CardImage | None:
        """The picture of that name, without suffix; upper and lower case are the same."""
        wanted = name.casefold()
        return next((image for image in self.images if image.name.casefold() == wanted), None)

    def image_of(self, picture: Array) -> CardImage | None:
        """The picture that has these pixels, whole or cut, whatever its file is called."""
        digest = pixel_digest(picture)
        return self._by_pixels.get(digest) if digest else None

    @functools.cached_property
    def _by_pixels(self) -> Mapping[str, CardImage]:
        return {digest: image for image in self.images for digest in image.sha256.values()}


def card_names() -> tuple[str, ...]:
    """Names of all cards, those of test sets for super-resolution first."""
    return tuple(c.name for c in sorted(_cards(), key=lambda c: (TASKS.index(c.task), _order(c))))


def card(name: str) -> Card:
    """The card of that name; case, `-` and `_` do not matter, and aliases are names too.

    Raises:
        UsageError: there is none; the message has the nearest name.
    """
    found = find_card(name)
    if found is None:
        near = nearest_card(name)
        hint = f"did you mean {near}? Known" if near else "known"
        raise UsageError(
            f"there is no card of a set {name!r}; {hint} are {', '.join(card_names())}; "
            "a folder of pictures needs no card"
        )
    return found


def find_card(name: str) -> Card | None:
    """As `card`, None if there is none."""
    wanted = plain_name(name)
    return next((c for c in _cards() if wanted in set(plain_names(c))), None)


def nearest_card(name: str) -> str | None:
    """The card whose name resembles this one most, if any does.

    Of names that resemble it, the one with the fewest changes; of those, one as long: for Set6 that
    is Set5 and not Set68; of those, a card's own name before its others, and in the order of
    `card_names`: for Set99 that is Set14.
    """
    wanted = plain_name(name)
    names = card_names()
    known = {plain: c.name for c in _cards() for plain in plain_names(c)}
    near = difflib.get_close_matches(wanted, known, n=len(known))
    best = min(
        near,
        key=lambda plain: (
            _changes(wanted, plain),
            abs(len(plain) - len(wanted)),
            plain != plain_name(known[plain]),
            names.index(known[plain]),
        ),
        default=None,
    )
    return None if best is None else known[best]


def _changes(a: str, b: str) -> int:
    """How many letters have to be put in, left out or exchanged to make a of b (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != other))
    return row[-1]


def plain_name(name: str) -> str:
    """A name without case and dashes, to compare."""
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")


def plain_names(one: Card) -> Iterator[str]:
    """All names of a card, to compare."""
    return (plain_name(name) for name in (one.name, *one.aliases))


def _order(one: Card) -> tuple[int, str]:
    """Small test sets first, then large ones, then training sets and unknown sizes."""
    return one.count or 10**9, one.name


@functools.cache
def _cards() -> tuple[Card, ...]:
    # the loader in C is ten times as fast; builds of PyYAML without it exist
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    files = sorted(Path(__file__).parent.glob("*.yml"))
    return tuple(_read(yaml.load(file.read_text(encoding="utf-8"), loader)) for file in files)


def _read(content: Mapping[str, Any]) -> Card:
    facts = {key: content[key] for key in ("page", "licence", "count", "images")}
    return Card(
        name=content["name"],
        aliases=tuple(content.get("aliases", ())),
        task=content["task"],
        paper=content["paper"],
        page=facts["page"]["value"],
        licence=facts["licence"]["value"],
        count=facts["count"]["value"],
        parts=content.get("parts", {}),
        images=tuple(_image(one) for one in facts["images"]["value"]),
        scales=tuple(content.get("scales", ())),
        high=content.get("high", "HR"),
        low=content.get("low", "LR_bicubic/X{scale}"),
        notes=tuple(content.get("notes", ())),
        verified=frozenset(key for key, fact in facts.items() if fact["verified"]),
        sources={key: fact["source"] for key, fact in facts.items() if fact.get("source")},
    )


def _image(line: Mapping[str, Any]) -> CardImage:
    known = {1: line["sha256"]} if line.get("sha256") else {}
    return CardImage(
        file=line["file"],
        height=line.get("height"),
        width=line.get("width"),
        channels=line.get("channels"),
        sha256=known | line.get("cut", {}),
    )


def differs(image: CardImage, picture: Array) -> str | None:
    """What of a picture [H, W, C] is not as the card has it, in words; None for nothing.

    Where the card has no sha256 of it, the size alone is compared.
    """
    rows, columns = picture.shape[:2]
    if image.height is not None and image.cut_of(picture) is None:
        return (
            f"is {columns}x{rows} pixels; the card has {image.width}x{image.height}, or that cut "
            "to multiples of a scale"
        )
    digests = image.known(picture)
    if digests is None or digests[0] == digests[1]:
        return None
    if not digests[0]:
        return f"is {picture.dtype}; the card's picture has 8 bits"
    return (
        f"has other pixels than the card's (sha256 {digests[0][:12]}, expected {digests[1][:12]}): "
        "another version of the set, or one that was stored with loss"
    )
