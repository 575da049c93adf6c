"""Sets by the name of a card or by a folder, and what there is to note of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from restore.bench.cache import Cache, file_digest, versions
from restore.bench.protocols import Protocol
from restore.datasets.cards import FoundSet, card, find_set, verify
from restore.errors import UsageError


def found_set(name: str, data_root: Path | None, protocol: Protocol) -> FoundSet:
    """The set of a name or folder, with the low-quality side that a protocol wants.

    Raises:
        UsageError: it is neither a card's name nor a folder, or is not there.
    """
    scale = protocol.scale if protocol.task == "sr" else None
    wants: Literal["sr", "gt"] = "sr" if protocol.task == "sr" else "gt"
    if Path(name).is_dir():
        return find_set(Path(name), scale=scale, wants=wants)
    try:
        known = card(name)
    except UsageError as error:
        if data_root is not None and (data_root / name).is_dir():
            return find_set(data_root / name, scale=scale, wants=wants)
        raise UsageError(f"-d {name}: no such folder; {error}") from error
    return find_set(known, data_root, scale=scale, wants=wants)


def is_complete(found: FoundSet) -> bool:
    """Whether a set has as many pictures as its card says, of all or of one of its parts.

    Only then can published figures be of the same pictures.
    """
    counts = {found.card.count, *found.card.parts.values()} - {None} if found.card else set()
    return not counts or len(found.pictures) in counts


def set_notes(found: FoundSet, protocol: Protocol, cache: Cache) -> list[str]:
    """Where the low-quality side comes from, and what is not as the card has it.

    Pictures are read for it once, and again only when they or the card have changed.
    """
    origin = {
        "HR/LR_bicubic": "low-resolution pictures of the folder LR_bicubic",
        "GTmod/LRbic": f"low-resolution pictures of the folder LRbicx{protocol.scale}",
        "made": "low-resolution pictures made by restore.imresize",
        "gt": "low-quality pictures made on the fly",
    }[found.convention]
    files = [path for picture in found.pictures for path in (picture.gt, picture.lq) if path]
    key = {
        "verified": found.name,
        "card": hashlib.sha256(repr(found.card).encode()).hexdigest(),
        "files": [[path.name, file_digest(path)] for path in files],
        "scale": found.scale,
        "problems": list(found.problems),
        "code": versions()["code"],
    }
    kept = cache.find(key)
    told: list[str] = kept["told"] if kept is not None else verify(found)
    if kept is None:
        cache.keep(key, {"told": told})
    return [f"{found.name}: {origin}", *(f"{found.name}: {words}" for words in told)]
