"""Damage that knows nothing of formats: what disks, networks and careless programs do."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Mutator = Callable[[Random, bytes], bytes]

# numbers at which counts, sizes and offsets go wrong
EDGES = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24)
EDGES += (2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2, 2**63 - 1, 2**64 - 1, 10**6, 10**9)


def near_the_head(rng: Random, data: bytes) -> int:
    """A place in the data; most of what matters stands at the beginning."""
    return int(rng.random() ** 2 * max(len(data) - 1, 0))


def flip_bits(rng: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if out else 0):
        out[near_the_head(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(out)


def set_bytes(rng: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 4)) if out else 0):
        out[near_the_head(rng, data)] = rng.choice((0, 1, 127, 128, 254, 255, rng.randrange(256)))
    return bytes(out)


def set_number(rng: Random, data: bytes) -> bytes:
    """Overwrite a word by a number at an edge, in either byte order."""
    size = rng.choice((2, 4, 4, 8))
    if len(data) < size:
        return data
    at = min(near_the_head(rng, data), len(data) - size)
    number = rng.choice(EDGES) % 2 ** (8 * size)
    return data[:at] + number.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]


def cut_off(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def cut_front(rng: Random, data: bytes) -> bytes:
    return data[rng.randrange(len(data) + 1) :]


def remove_block(rng: Random, data: bytes) -> bytes:
    at = near_the_head(rng, data)
    return data[:at] + data[at + rng.choice((1, 2, 4, 16, 256)) :]


def repeat_block(rng: Random, data: bytes) -> bytes:
    at, size = near_the_head(rng, data), rng.choice((1, 4, 32, 512))
    return data[:at] + data[at : at + size] * rng.choice((2, 3, 50)) + data[at + size :]


def swap_blocks(rng: Random, data: bytes) -> bytes:
    size = rng.choice((1, 4, 16, 128))
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    first, second = data[a : a + size], data[b : b + size]
    return data[:a] + second + data[a + size : b] + first + data[b + size :]


def insert_noise(rng: Random, data: bytes) -> bytes:
    at = near_the_head(rng, data)
    return data[:at] + rng.randbytes(rng.choice((1, 3, 16, 300))) + data[at:]


def blank(rng: Random, data: bytes) -> bytes:
    """A block of zeros, as of a disk or a download with a hole."""
    at, size = near_the_head(rng, data), rng.choice((8, 64, 512, 4096))
    return data[:at] + rng.choice((b"\0", b"\xff")) * len(data[at : at + size]) + data[at + size :]


def append(rng: Random, data: bytes) -> bytes:
    return data + rng.choice((rng.randbytes(100), bytes(5000), data, b"<html>", b"PK\x05\x06"))


def as_text(rng: Random, data: bytes) -> bytes:
    """What a program does that takes the file for text."""
    return rng.choice(
        (
            lambda: data.replace(b"\n", b"\r\n"),
            lambda: data.replace(b"\r\n", b"\n"),
            lambda: data.decode("utf-8", "replace").encode(),
            lambda: data.decode("latin-1").encode(),
            lambda: bytes(byte & 0x7F for byte in data),
        )
    )()


ANY: tuple[Mutator, ...] = (
    *(flip_bits, flip_bits, set_bytes, set_number, set_number, cut_off, cut_front, remove_block),
    *(repeat_block, swap_blocks, insert_noise, blank, append, as_text),
)
