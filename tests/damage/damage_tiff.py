"""Damage inside of TIFF files: directories that lie, lead in circles, or point out of the file."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from random import Random

from damage_bytes import EDGES, Mutator
from damage_pictures import damaged_part

# tags on which sizes, places and decoding hang
TELLING = (
    *(
        256,
        257,
        258,
        259,
        262,
        266,
        269,
        270,
        273,
        274,
        277,
        278,
        279,
        282,
        283,
        284,
        296,
        317,
        320,
    ),
    *(322, 323, 324, 325, 330, 332, 338, 339, 700, 34665, 34675, 34853, 32997, 254, 51123, 50838),
)


@dataclass
class Layout:
    """Where a file's first directory and its entries stand."""

    order: str
    big: bool
    at: int
    count: int

    @property
    def entries(self) -> list[int]:
        """Where each entry begins."""
        size, head = (20, 8) if self.big else (12, 2)
        return [self.at + head + size * i for i in range(self.count)]

    @property
    def link(self) -> int:
        """Where the place of the next directory stands."""
        size, head = (20, 8) if self.big else (12, 2)
        return self.at + head + size * self.count


def layout(data: bytes) -> Layout | None:
    """The first directory of a file; None where there is none."""
    try:
        order = "<" if data[:1] == b"I" else ">"
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
        count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    except struct.error:
        return None
    found = Layout(order, big, at, min(count, 200))
    return found if found.link + 8 <= len(data) else None


def entry_field(rng: Random, data: bytes) -> bytes:
    """A tag, type, count or value of an entry at an edge; or a telling tag for another one."""
    found = layout(data)
    if found is None or not found.entries:
        return damaged_part(rng, data)
    out = bytearray(data)
    wide = "Q" if found.big else "I"
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.choice(found.entries)
        what = rng.randrange(4)
        if what == 0:
            struct.pack_into(found.order + "H", out, at, rng.choice(TELLING))
        elif what == 1:
            struct.pack_into(found.order + "H", out, at + 2, rng.choice((*range(20), 255, 65535)))
        else:
            place = at + 4 if what == 2 else at + (12 if found.big else 8)
            top = 2 ** (64 if found.big else 32)
            values = (*EDGES, found.at, len(data), len(data) - 1, 5, 6, 34712)
            struct.pack_into(found.order + wide, out, place, rng.choice(values) % top)
    return bytes(out)


def telling_value(rng: Random, data: bytes) -> bytes:
    """One number for a tag on which decoding hangs."""
    found = layout(data)
    if found is None or not found.entries:
        return damaged_part(rng, data)
    out = bytearray(data)
    at = rng.choice(found.entries)
    kind = rng.choice((3, 4, 4, 16) if found.big else (3, 4))
    value = rng.choice((*EDGES, 5, 6, 7, 12, 16, 32, 64, 32773, 34712, 34925, 50000, 50001))
    form = {3: "H", 4: "I", 16: "Q"}[kind]
    one = struct.pack(found.order + ("Q" if found.big else "I"), 1)
    held = struct.pack(found.order + form, value % 2 ** (8 * struct.calcsize(form)))
    size = 8 if found.big else 4
    tag = rng.choice((struct.unpack_from(found.order + "H", out, at)[0], rng.choice(TELLING)))
    struct.pack_into(found.order + "HH", out, at, tag, kind)
    out[at + 4 : at + 4 + 2 * size] = one + held.ljust(size, b"\0")[:size]
    return bytes(out)


def linked_in_a_circle(rng: Random, data: bytes) -> bytes:
    """A next directory that is this one, in its middle, past the end, or one of many."""
    found = layout(data)
    if found is None:
        return damaged_part(rng, data)
    out = bytearray(data)
    form = found.order + ("Q" if found.big else "I")
    change = rng.randrange(4)
    if change < 2:
        aims = (found.at, found.at + 2, found.at + 14, len(data) + 100, len(data) - 3, 1, 2)
        struct.pack_into(form, out, found.link, rng.choice(aims))
    elif change == 2:  # the second leads back to the first
        struct.pack_into(form, out, found.link, len(out))
        table = data[found.at : found.link]
        out += table + struct.pack(form, found.at)
    else:
        head, pointer, link = (8, 8, found.link) if found.big else (2, 4, found.link)
        for _ in range(rng.choice((2, 300, 12_000))):  # empty ones, each leading to the next
            struct.pack_into(form, out, link, len(out))
            link = len(out) + head
            out += bytes(head + pointer)
    return bytes(out)


def sub_directory(rng: Random, data: bytes) -> bytes:
    """An EXIF or GPS directory that is the file's own, lies outside, or is one of floats."""
    found = layout(data)
    if found is None or not found.entries:
        return damaged_part(rng, data)
    out = bytearray(data)
    at = rng.choice(found.entries)
    kind = rng.choice((3, 4, 5, 11, 12, 13, 16, 18))
    struct.pack_into(found.order + "HH", out, at, rng.choice((34665, 34853, 330, 40965)), kind)
    place = at + (12 if found.big else 8)
    aims = (found.at, found.at + 5, len(data), 2**31, 0x7F800000, 0x7FC00000, 8)
    struct.pack_into(found.order + "I", out, place, rng.choice(aims))
    return bytes(out)


def more_entries(rng: Random, data: bytes) -> bytes:
    """A directory that claims another number of entries."""
    found = layout(data)
    if found is None:
        return damaged_part(rng, data)
    out = bytearray(data)
    count = rng.choice((0, 1, found.count - 1, found.count + 1, 4096, 4097, 65535))
    struct.pack_into(found.order + ("Q" if found.big else "H"), out, found.at, max(count, 0))
    return bytes(out)


TIFF: tuple[Mutator, ...] = (
    *(entry_field, entry_field, telling_value, telling_value, telling_value),
    *(linked_in_a_circle, sub_directory, more_entries),
)
