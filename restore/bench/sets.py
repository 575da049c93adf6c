"""Sets by the name of a card or by a folder, and what there is to note of them."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from restore.bench.cache import Cache, file_digest, versions
from restore.bench.protocols import Protocol
from restore.datasets.card_files import find_card
from restore.datasets.cards import GT_FOLDERS, FoundSet, card, find_set, folder_of, some
from restore.datasets.listing import pictures_in
from restore.datasets.real_pairs import find_pairs
from restore.datasets.set_check import Verified, compared_with_card
from restore.errors import ImageError, UsageError
from restore.image_io import PICTURE_SUFFIXES
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
        try:
            return find_set(Path(name), scale=scale, wants=wants)
        except UsageError as error:
            raise UsageError(_in_its_place(Path(name), protocol) or str(error)) from error
    try:
        known = card(name)
    except UsageError as error:
        if data_root is not None and (data_root / name).is_dir():
            return find_set(data_root / name, scale=scale, wants=wants)
        raise UsageError(f"-d {name}: no such folder; {error}") from error
    return find_set(known, data_root, scale=scale, wants=wants)


def _in_its_place(folder: Path, protocol: Protocol) -> str:
    """What a folder without good pictures of its own holds in folders, in words; "" for nothing."""
    with contextlib.suppress(UsageError):
        pictures_in(folder, PICTURE_SUFFIXES)
        return ""  # something else is wrong with them
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    if any(path.name in GT_FOLDERS or path.name.startswith("GTmod") for path in below):
        return ""
    with contextlib.suppress(UsageError):
        truth = find_pairs(folder).pictures[0].gt.parent
        return (
            f"-d {folder}: holds pairs, for --task {' or '.join(PAIRED)}; for {protocol.task} give "
            f"the folder of good pictures alone, -d {truth}"
        )
    names = some([path.name for path in below])
    return f"-d {folder}: holds no picture but folders ({names}); give one of them" if below else ""


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
        notes: what is not as the card has it.
        unlike: why published figures are of other pictures; "" where nothing tells so.
        low_side: where the low-resolution pictures come from; "": all as the protocol says.
        made: how many of them were made, of a set that has files of the others.
    """

    notes: list[str]
    unlike: str
    low_side: str
    made: int


def verdict_on(found: FoundSet, cache: Cache) -> Verdict:
    """Compare a set with its card.

    Pictures are read for it once, and again only when they or the card have changed.
    """
    verified = _compared(found, cache)
    notes = [f"{found.name}: {words}" for words in verified.told]
    unlike = _no_card(found) or (some(verified.unlike) if verified.unlike else "")
    if found.scale is None:
        return Verdict(notes, unlike, "", 0)
    folders = dict.fromkeys(str(picture.lq.parent) for picture in found.pictures if picture.lq)
    if not folders:
        made = "low-resolution pictures made by restore.imresize, MATLAB's bicubic"
        return Verdict(notes, unlike, made, 0)
    words = f"low-resolution files of {' and '.join(folders)}"
    if verified.apart is not None:
        words += f" ({_apart_words(verified.apart)})"
    alone = sum(picture.lq is None for picture in found.pictures)
    if alone:
        words += f", {alone} of {len(found.pictures)} made by restore.imresize"
        notes.append(
            f"{found.name} x{found.scale}: the mean is of a mixture: {alone} of "
            f"{len(found.pictures)} low-resolution pictures were made here, the others are files"
        )
    return Verdict(notes, unlike, words, alone)


def _apart_words(share: float) -> str:
    if share == 0:
        return "MATLAB's bicubic"
    shown = f"{share:.1%}" if share >= 0.001 else "less than 0.1%"
    return f"differ from MATLAB's bicubic in {shown} of samples"


def _compared(found: FoundSet, cache: Cache) -> Verified:
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
        "tells": list(Verified._fields),
    }
    kept = cache.find(key)
    if kept is None:
        kept = compared_with_card(found)._asdict()
        cache.keep(key, kept)
    return Verified(**kept)


def _no_card(found: FoundSet) -> str:
    """Why the number of pictures, of all or of a part of the set, tells another set."""
    if found.card is None:
        return "there is no card of such a set"
    counts = {found.card.count, *found.card.parts.values()} - {None}
    if not counts or len(found.pictures) in counts:
        return ""
    expected = " or ".join(str(count) for count in sorted(n for n in counts if n))
    return f"the folder has {len(found.pictures)} pictures; {found.card.name} has {expected}"
