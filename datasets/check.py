"""What is wrong with a training set, found before a single step.

A pair is compared with itself (size, channels, alignment), with all others (duplicates), and with
test pictures (leakage).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from restore.datasets.alignment import find_shift
from restore.datasets.fingerprints import (
    MOST_BITS_APART,
    Fingerprint,
    alike,
    fingerprint,
    known_test_pictures,
)
from restore.datasets.images import Box, in_colour, read_entry
from restore.datasets.listing import Entry, Pair
from restore.errors import RestoreError
from restore.resizing import imresize

Array = NDArray[Any]
Kind = Literal["unpaired", "unreadable", "size", "shape", "misaligned", "duplicate", "leak"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MEANING: dict[Kind, str] = {
    "unpaired": "a picture without its other side",
    "unreadable": "missing, damaged, or of a kind that is not read",
    "size": "gt is not exactly scale times lq",
    "shape": "other channels than its partner, or smaller than a patch",
    "misaligned": "lq is shifted against gt, or shows something else",
    "duplicate": "the same picture twice",
    "leak": "a test picture among the training pictures",
}

MAX_SHIFT = 0.2  # pixels of lq
_LEAST_AGREEMENT = 0.4  # different pictures reach 0.3, the same under heavy degradation stay above
_BEYOND = 0.01  # of 0..1: resizing passes it a little
_LOOKED_AT = 512  # pixels of a side of lq, in its middle


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: which.
        pictures: the files.
        detail: in words, with the numbers.
    """

    kind: Kind
    pictures: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class Report:
    """What was looked at, and what was found.

    Attributes:
        pictures: read, both sides counted.
        test_pictures: that leakage was looked for, beyond those known by their pixels.
        aligned: pairs whose alignment could be told.
        findings: in the order of KINDS.
        known: whether it was taken for a training set, and has nothing but gt of known test sets.
    """

    pictures: int
    test_pictures: int
    aligned: int
    findings: tuple[Finding, ...]
    known: bool = False

    def count(self, kind: Kind) -> int:
        """Findings of a kind."""
        return sum(finding.kind == kind for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = {kind: self.count(kind) for kind in KINDS}
        return {**dataclasses.asdict(self), "counts": counts}


@dataclass(frozen=True)
class Wanted:
    """What a set has to be.

    Attributes:
        scale: gt pixels per lq pixel, along each axis.
        gt_size: side of a patch, pixels of gt; 0: any picture will do.
        max_shift: pixels of lq.
        most_bits: of fingerprints, up to which two pictures are the same to the eye.
        training: it is no test set: no test picture may be in it, and no row of gt beyond its lq.
    """

    scale: int = 1
    gt_size: int = 0
    max_shift: float = MAX_SHIFT
    most_bits: int = MOST_BITS_APART
    training: bool = True


@dataclass(frozen=True)
class _Seen:
    """What one pair told."""

    read: int
    print: Fingerprint | None
    aligned: bool
    findings: tuple[Finding, ...]


def check_pairs(
    pairs: Sequence[Pair | Entry],
    wanted: Wanted,
    *,
    against: Sequence[Entry] = (),
    unpaired: Sequence[Entry] = (),
    threads: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> Report:
    """Look at every pair, and at all of them together.

    Args:
        pairs: the set; an Entry alone is a gt whose lq is made on the fly.
        wanted: what it has to be.
        against: test pictures that must not be in it.
        unpaired: pictures already known to have no other side.
        threads: that read at a time.
        progress: called after each pair and each test picture.
    """
    findings = [Finding("unpaired", (str(entry),), "has no other side") for entry in unpaired]

    def told(pair: Pair | Entry) -> _Seen:
        seen = _look_at(pair, wanted)
        progress()
        return seen

    def test_print(entry: Entry) -> Fingerprint | str:
        try:
            return fingerprint(read_entry(entry))
        except RestoreError as error:
            return str(error)
        finally:
            progress()

    with ThreadPoolExecutor(max(1, threads)) as pool:
        seen = list(pool.map(told, pairs))
        tests = list(pool.map(test_print, against))
    findings += [finding for one in seen for finding in one.findings]
    for entry, test in zip(against, tests, strict=True):
        if isinstance(test, str):
            findings.append(Finding("unreadable", (str(entry),), test))
    names = [str(pair.gt if isinstance(pair, Pair) else pair) for pair in pairs]
    prints = [one.print for one in seen]
    findings += _duplicates(names, prints, wanted.most_bits)
    others = [
        (str(e), t) for e, t in zip(against, tests, strict=True) if isinstance(t, Fingerprint)
    ]
    findings += _leaks(names, prints, others, wanted)
    digests = {None if one is None else one.sha256 for one in prints}
    return Report(
        sum(one.read for one in seen),
        len(others),
        sum(one.aligned for one in seen),
        tuple(sorted(findings, key=lambda finding: KINDS.index(finding.kind))),
        wanted.training and bool(digests) and digests <= known_test_pictures().keys(),
    )


def _look_at(pair: Pair | Entry, wanted: Wanted) -> _Seen:
    entries = (pair.gt, pair.lq) if isinstance(pair, Pair) else (pair,)
    names = tuple(map(str, entries))
    pictures, findings = list[Array](), list[Finding]()
    for entry in entries:
        try:
            pictures.append(read_entry(entry))
        except (RestoreError, MemoryError) as error:
            findings.append(Finding("unreadable", (str(entry),), str(error)))
    if findings:
        return _Seen(len(pictures), None, False, tuple(findings))
    gt = pictures[0]
    odd = _odd_values(gt)
    if odd:
        findings.append(Finding("unreadable", names[:1], odd))
    small = _too_small(gt, wanted)
    if small:
        findings.append(Finding("shape", names[:1], small))
    aligned = False
    if len(pictures) == 2:
        more, aligned = _compare(gt, pictures[1], names, wanted)
        findings += more
    return _Seen(len(pictures), fingerprint(gt), aligned, tuple(findings))


def _odd_values(gt: Array) -> str:
    if gt.dtype != np.float32 or not gt.size:
        return ""
    if not np.isfinite(gt).all():
        return "has values that are NaN or infinite"
    least, most = float(gt.min()), float(gt.max())
    if least > -_BEYOND and most < 1 + _BEYOND:
        return ""
    return f"has values from {least:g} to {most:g}; expected floating point in 0..1"


def _too_small(gt: Array, wanted: Wanted) -> str:
    least = max(wanted.gt_size, wanted.scale)
    if min(gt.shape[:2]) >= least:
        return ""
    return f"{gt.shape[0]} x {gt.shape[1]} pixels; a patch of {least} x {least} does not fit"


def _compare(
    gt: Array, lq: Array, names: tuple[str, ...], wanted: Wanted
) -> tuple[list[Finding], bool]:
    """What is wrong between the sides of a pair, and whether their alignment could be told."""
    findings = []
    if gt.shape[2] != lq.shape[2]:
        detail = f"gt has {gt.shape[2]} channels and lq {lq.shape[2]}"
        findings.append(Finding("shape", names, detail))
    (rows, columns), s = lq.shape[:2], wanted.scale
    if (
        not wanted.training
        and 0 <= gt.shape[0] - s * rows < s
        and 0 <= gt.shape[1] - s * columns < s
    ):
        gt = gt[: s * rows, : s * columns]  # as validation cuts it
    if gt.shape[:2] != (rows * s, columns * s):
        detail = f"gt {gt.shape[0]} x {gt.shape[1]} is not {s} times lq {rows} x {columns}"
        findings.append(Finding("size", names, detail + _other_scale(gt, lq, s)))
        return findings, False
    side = min(rows, _LOOKED_AT), min(columns, _LOOKED_AT)
    box = Box((rows - side[0]) // 2, (columns - side[1]) // 2, *side)
    reference = np.ascontiguousarray(box.times(s).of(gt))
    if s > 1:
        reference = imresize(reference, 1 / s)
    shift = find_shift(_gray(box.of(lq)), _gray(reference))
    if shift is None:
        return findings, False
    if shift.agreement < _LEAST_AGREEMENT:
        detail = f"they show different things (agreement {shift.agreement:.2f} of 1)"
        findings.append(Finding("misaligned", names, detail))
    # what is badly degraded is located less well
    elif shift.distance > wanted.max_shift + (1 - shift.agreement):
        detail = (
            f"lq lies {shift.down:+.2f} pixels down and {shift.right:+.2f} to the right of where "
            f"its gt has it (agreement {shift.agreement:.2f} of 1)"
        )
        findings.append(Finding("misaligned", names, detail))
    return findings, True


def _other_scale(gt: Array, lq: Array, scale: int) -> str:
    if scale > 1 and lq.shape[:2] == (gt.shape[0] * scale, gt.shape[1] * scale):
        return "; gt and lq look exchanged"
    ratio = gt.shape[0] / lq.shape[0]
    if round(ratio) != scale and abs(ratio - round(ratio)) < 0.05 and round(ratio) >= 1:
        return f"; it looks like scale {round(ratio)}"
    return ""


def _gray(picture: Array) -> NDArray[np.float64]:
    gray: NDArray[np.float64] = in_colour(picture, "gray")[:, :, 0].astype(np.float64)
    if picture.dtype == np.float32:
        return gray
    return gray / np.iinfo(picture.dtype).max


def _duplicates(
    names: Sequence[str], prints: Sequence[Fingerprint | None], most: int
) -> list[Finding]:
    groups = defaultdict[str, list[int]](list)
    for i, known in enumerate(prints):
        if known is not None and known.sha256 is not None:
            groups[known.sha256].append(i)
    findings, exact = [], set[tuple[int, int]]()
    for same in groups.values():
        if len(same) > 1:
            exact |= {(i, j) for i in same for j in same if i < j}
            files = tuple(names[i] for i in same)
            findings.append(Finding("duplicate", files, "the same pixels"))
    looks = [None if known is None else known.looks for known in prints]
    mirrored = [None if known is None else known.mirrored for known in prints]
    for others, how in ((looks, "the same to the eye"), (mirrored, "the same, mirrored")):
        for i, j, apart in alike(looks, others, most):
            if i < j and (i, j) not in exact:
                detail = f"{how} ({apart} bits of 256 apart)"
                findings.append(Finding("duplicate", (names[i], names[j]), detail))
    return findings


def _leaks(
    names: Sequence[str],
    prints: Sequence[Fingerprint | None],
    tests: Sequence[tuple[str, Fingerprint]],
    wanted: Wanted,
) -> list[Finding]:
    findings = []
    for name, known in zip(names, prints, strict=True):
        if wanted.training and known is not None and known.sha256 in known_test_pictures():
            found = known_test_pictures()[known.sha256]
            findings.append(Finding("leak", (name,), f"is {found}, pixel by pixel"))
    looks = [None if known is None else known.looks for known in prints]
    for others, how in (
        ([test.looks for _, test in tests], "the same to the eye"),
        ([test.mirrored for _, test in tests], "the same, mirrored"),
    ):
        for i, j, apart in alike(looks, others, wanted.most_bits):
            detail = f"{how} ({apart} bits of 256 apart)"
            findings.append(Finding("leak", (names[i], tests[j][0]), detail))
    return findings
