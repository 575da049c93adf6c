"""Sets by the name of a card or by a folder, and what there is to note of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from restore.bench.cache import Cache, file_digest, versions
from restore.bench.protocols import Protocol
from restore.datasets.card_files import find_card
from restore.datasets.cards import FoundSet, card, compared_with_card, find_set, folder_of, some
from restore.datasets.real_pairs import find_pairs
from restore.errors import ImageError, UsageError
from restore.tasks import PAIRED, Task


def found_set(name: str, data_root: Path | None, protocol: Protocol) -> FoundSet:
    """The set of a name or folder, with the low-quality side that a protocol wants.

    Raises:
        UsageError: it is neither a card's name nor a folder, or is not there.
    """
    if protocol.is_paired:
        return _found_pairs(name, data_root)
    try:
        return _found_good(name, data_root, protocol)
    except UsageError as error:
        known = find_card(name)
        if known is None or known.task not in PAIRED:
            raise
        raise UsageError(
            f"{error}; {known.name} holds pairs for --task {known.task}, and {protocol.task} "
            "wants good pictures alone: give the folder of these with -d"
        ) from error


def _found_good(name: str, data_root: Path | None, protocol: Protocol) -> FoundSet:
    """As `found_set`, of good pictures."""
    scale = protocol.scale if protocol.task == "sr" else None
    wants: Literal["sr", "gt"] = "sr" if protocol.task == "sr" else "gt"
    local = Path(name).is_dir()
    if data_root is not None and (known := find_card(name)) is not None:
        # what lies in the current folder by chance must not go before the folder that was given
        try:
            folder_of(known, data_root)
        except UsageError:
            if not local:
                raise
        else:
            return find_set(known, data_root, scale=scale, wants=wants)
    if local:
        return find_set(Path(name), scale=scale, wants=wants)
    try:
        known = card(name)
    except UsageError as error:
        if data_root is not None and (data_root / name).is_dir():
            return find_set(data_root / name, scale=scale, wants=wants)
        raise UsageError(f"-d {name}: no such folder; {error}") from error
    return find_set(known, data_root, scale=scale, wants=wants)


def _found_pairs(name: str, data_root: Path | None) -> FoundSet:
    """As `found_set`, of a set that holds both sides."""
    known = find_card(name)
    if known is not None and data_root is not None:
        try:
            return find_pairs(known, data_root, asked=name)
        except UsageError:
            if not Path(name).is_dir():
                raise
    if Path(name).is_dir():
        return find_pairs(Path(name))
    if data_root is not None and (data_root / name).is_dir():
        return find_pairs(data_root / name)
    try:
        known = card(name)
    except UsageError as error:
        raise UsageError(f"-d {name}: no such folder; {error}") from error
    return find_pairs(known, data_root, asked=name)


def task_of_set(name: str) -> Task | None:
    """What the card of a set says that it measures; None without a card."""
    known = find_card(name) or find_card(Path(name).resolve().name)
    return known.task if known else None


@dataclass(frozen=True)
class Verdict:
    """A set beside its card.

    Attributes:
        notes: where the low-quality side comes from, and what is not as the card has it.
        unlike: why published figures are of other pictures; "" where nothing tells so.
    """

    notes: list[str]
    unlike: str


def verdict_on(found: FoundSet, protocol: Protocol, cache: Cache) -> Verdict:
    """Compare a set with its card.

    Pictures are read for it once, and again only when they or the card have changed.
    """
    origin = {
        "HR/LR_bicubic": "low-resolution pictures of the folder LR_bicubic",
        "GTmod/LRbic": f"low-resolution pictures of the folder LRbicx{protocol.scale}",
        "made": "low-resolution pictures made by restore.imresize",
        "gt": "low-quality pictures made on the fly",
        "pairs": "both sides from the set's files",
    }[found.convention]
    told, unlike = _compared(found, cache)
    notes = [f"{found.name}: {origin}", *(f"{found.name}: {words}" for words in told)]
    return Verdict(notes, _no_card(found) or (some(unlike) if unlike else ""))


def _compared(found: FoundSet, cache: Cache) -> tuple[list[str], list[str]]:
    files = [path for picture in found.pictures for path in (picture.gt, picture.lq) if path]
    try:
        digests = [[path.name, file_digest(path)] for path in files]
    except ImageError:
        # one cannot be read; the others are compared all the same
        return compared_with_card(found)
    key = {
        "verified": found.name,
        "card": hashlib.sha256(repr(found.card).encode()).hexdigest(),
        "files": digests,
        "scale": found.scale,
        "problems": list(found.problems),
        "code": versions()["code"],
    }
    kept = cache.find(key)
    if kept is None:
        verified = compared_with_card(found)
        kept = {"told": verified.told, "unlike": verified.unlike}
        cache.keep(key, kept)
    return kept["told"], kept["unlike"]


def _no_card(found: FoundSet) -> str:
    """Why the number of pictures, of all or of a part of the set, tells another set."""
    if found.card is None:
        return "there is no card of such a set"
    counts = {found.card.count, *found.card.parts.values()} - {None}
    if not counts or len(found.pictures) in counts:
        return ""
    expected = " or ".join(str(count) for count in sorted(n for n in counts if n))
    return f"the folder has {len(found.pictures)} pictures; {found.card.name} has {expected}"
