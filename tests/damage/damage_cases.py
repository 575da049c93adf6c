"""Damaged files by number: the same number is the same file, in any process and on any day."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from random import Random

from damage_bytes import ANY, Mutator
from damage_options import YML, YML_RARE
from damage_pictures import (
    bmp_header,
    jpeg_frame,
    jpeg_order,
    jpeg_scan,
    jpeg_segment,
    png_chunk,
    png_header,
    png_order,
    png_pixels,
    webp_chunk,
    webp_order,
    webp_sizes,
)
from damage_seeds import KINDS, seeds
from damage_tiff import TIFF
from damage_weights import PTH, RARE, SAFETENSORS

# what knows a kind's inside, and what takes long to make
INSIDE: dict[str, tuple[Mutator, ...]] = {
    "png": (png_header, png_chunk, png_chunk, png_order, png_pixels),
    "jpg": (jpeg_segment, jpeg_segment, jpeg_frame, jpeg_order, jpeg_scan, jpeg_scan),
    "webp": (webp_chunk, webp_chunk, webp_sizes, webp_order),
    "tiff": TIFF,
    "bmp": (bmp_header,),
    "pth": PTH,
    "safetensors": SAFETENSORS,
    "yml": YML,
}
SELDOM: dict[str, tuple[Mutator, ...]] = {"pth": RARE, "yml": YML_RARE}
# of 100 files; BMP is no part of what is asked, and comes along
SHARE = {
    "png": 17,
    "jpg": 14,
    "webp": 10,
    "tiff": 20,
    "bmp": 3,
    "pth": 16,
    "safetensors": 8,
    "yml": 12,
}
assert SHARE.keys() == set(KINDS)
assert sum(SHARE.values()) == 100


@dataclass(frozen=True)
class Case:
    """One damaged file."""

    kind: str
    number: int
    seed: int
    recipe: str  # for people: the whole file it was, and what was done to it
    data: bytes

    @property
    def name(self) -> str:
        """What to give to `case` to have it again."""
        return f"{self.kind}/{self.seed}/{self.number}"


def case(name: str) -> Case:
    """The damaged file of a name: kind/seed/number."""
    kind, seed, number = name.split("/")
    rng = Random(name)
    whole = seeds(kind)
    start = rng.choice(sorted(whole))
    data, steps = whole[start], list[str]()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        chance = rng.random()
        if chance < 0.35:
            mutator = rng.choice(ANY)
        elif chance < 0.42 and kind in SELDOM:
            mutator = rng.choice(SELDOM[kind])
        else:
            mutator = rng.choice(INSIDE[kind])
        steps.append(mutator.__name__)
        try:
            data = mutator(rng, data)
        # earlier damage can be such that nothing of the kind can be done any more
        except (LookupError, ValueError, OverflowError, AttributeError, TypeError, struct.error):
            steps[-1] += " (not possible)"
    return Case(kind, int(number), int(seed), f"{start}: {', '.join(steps)}", data)


def names(count: int, seed: int) -> list[str]:
    """So many files of all kinds, in their shares."""
    kinds = [kind for kind in KINDS for _ in range(SHARE[kind])]
    Random(0).shuffle(kinds)
    return [f"{kinds[i % 100]}/{seed}/{i}" for i in range(count)]
