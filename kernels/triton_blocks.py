# mypy: allow-untyped-defs, allow-incomplete-defs
# mypy: disable-error-code="untyped-decorator, assignment"
"""What the Triton kernels share: channels that are no power of two, read and multiplied in pieces.

A tile in registers has sides that are powers of two, of 16 or more where it is multiplied. D
channels are therefore held as up to three pieces whose sizes `split` gives, so that 35 channels
take 48 and not 64. The pieces of a tile are a tuple of one to three: [N, D0], and [N, D1] and
[N, D2] where their sizes are not 0; the entries beyond channel D are 0. (A tuple that holds None
does not compile; one that grows by `x += (x1,)` under a constant condition does.)

Every kernel takes D and the three sizes as `tl.constexpr`, as well as the distance of two pixels'
rows: from constants the compiler sees how many channels one instruction may read.
"""

from __future__ import annotations

import functools
import itertools

import torch
import triton
import triton.language as tl
from torch import Tensor

SMALLEST = 16  # side of a tile that tensor cores multiply
ALIGNED = 16  # bytes: of pointers that are no multiple, Triton reads one element at a time


@functools.cache
def split(d: int, largest: int = 128) -> tuple[int, int, int]:
    """Sizes of the pieces that hold d channels: powers of two, or 0, the largest first.

    Their sum is the least that three pieces of 16 to `largest` can have; among equals, the fewest
    pieces: 5 to (16, 0, 0), 35 to (32, 16, 0), 53 to (64, 0, 0), 180 to (128, 64, 0).

    Raises:
        ValueError: d is less than 1 or more than three pieces hold.
    """
    if not 1 <= d <= 3 * largest:
        raise ValueError(f"{d} channels; three pieces hold 1 to {3 * largest}")
    sizes = [0]
    while (size := SMALLEST << (len(sizes) - 1)) <= largest:
        sizes.append(size)
    found = [
        pieces
        for pieces in itertools.combinations_with_replacement(reversed(sizes), 3)
        if sum(pieces) >= d
    ]
    first, second, third = min(found, key=lambda pieces: (sum(pieces), 3 - pieces.count(0)))
    return first, second, third


def dot_precision(dtype: torch.dtype) -> str:
    """`input_precision` of products of `dtype`: as exact as the user lets PyTorch's own be."""
    if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return "tf32"
    return "ieee"


def product_precision(dtype: torch.dtype) -> str:
    """`dot_precision` for products that tensor cores must make, "tf32x3" in the place of "ieee".

    Three products in tf32 are as exact as one in float32 (1.0 to 1.2 times its error, in products
    over 16 to 1024 numbers) and, unlike that one, leave enough registers for tiles of 64 x 64.
    """
    precision = dot_precision(dtype)
    return "tf32x3" if dtype == torch.float32 and precision == "ieee" else precision


def tile_side(length: int, largest: int = 128) -> int:
    """The side of a tile that holds so many entries, or as many as it may: a power of two."""
    return min(largest, max(SMALLEST, int(triton.next_power_of_2(length))))


def aligned(x: Tensor) -> tuple[Tensor, int]:
    """The tensor to pass for x as a pointer, and the elements from it to x's first one.

    A slice of channels starts anywhere. Its pointer moved back to a multiple of 16 bytes, and the
    rest of the way as a constant, lets the compiler read several elements at a time.
    """
    ahead = x.data_ptr() % ALIGNED
    if ahead % x.element_size() or ahead // x.element_size() > x.storage_offset():
        return x, 0
    ahead //= x.element_size()
    return x.as_strided((1,), (1,), x.storage_offset() - ahead), ahead


@triton.jit
def load_tile(x, row, rows, c, C: tl.constexpr):
    """Channels c of some rows of [rows, C] at pointer x: [N] and [D] numbers to [N, D].

    0 beyond both ends.
    """
    inside = (row < rows)[:, None] & (c < C)[None, :]
    return tl.load(x + row.to(tl.int64)[:, None] * C + c[None, :], mask=inside, other=0.0)


@triton.jit
def load_piece(rows, live, FIRST: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr):
    """Channels FIRST to FIRST + SIZE of rows: [N] pointers to channel 0, [N] bool to [N, SIZE].

    Rows that are not live and channels from D on are 0.
    """
    c = FIRST + tl.arange(0, SIZE)
    if FIRST + SIZE <= D:
        x = tl.load(rows[:, None] + c[None, :], mask=live[:, None], other=0.0)
    else:
        x = tl.load(rows[:, None] + c[None, :], mask=live[:, None] & (c < D)[None, :], other=0.0)
    return x


@triton.jit
def load_pieces(rows, live, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr):
    """All D channels of rows: [N] pointers to channel 0 and [N] bool to pieces."""
    x = (load_piece(rows, live, 0, D0, D),)
    if D1 > 0:
        x += (load_piece(rows, live, D0, D1, D),)
    if D2 > 0:
        x += (load_piece(rows, live, D0 + D1, D2, D),)
    return x


@triton.jit
def store_piece(rows, live, x, FIRST: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr):
    """Write [N, SIZE] to channels FIRST on of the rows that are live, as their dtype."""
    c = FIRST + tl.arange(0, SIZE)
    y = x.to(rows.dtype.element_ty)
    if FIRST + SIZE <= D:
        tl.store(rows[:, None] + c[None, :], y, mask=live[:, None])
    else:
        tl.store(rows[:, None] + c[None, :], y, mask=live[:, None] & (c < D)[None, :])


@triton.jit
def store_pieces(
    rows, live, x, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr
):
    """Write pieces to all D channels of the rows that are live, as their dtype."""
    store_piece(rows, live, x[0], 0, D0, D)
    if D1 > 0:
        store_piece(rows, live, x[1], D0, D1, D)
    if D2 > 0:
        store_piece(rows, live, x[2], D0 + D1, D2, D)


@triton.jit
def zero_pieces(N: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr):
    """Pieces of zeros, float32, to add products to."""
    x = (tl.zeros([N, D0], tl.float32),)
    if D1 > 0:
        x += (tl.zeros([N, D1], tl.float32),)
    if D2 > 0:
        x += (tl.zeros([N, D2], tl.float32),)
    return x


@triton.jit
def dot_rows(x, y, D1: tl.constexpr, D2: tl.constexpr, PRECISION: tl.constexpr):
    """Rows by rows: pieces of [N, D] and of [M, D] to [N, M] float32, the sums over channels."""
    s = tl.dot(x[0], tl.trans(y[0]), input_precision=PRECISION)
    if D1 > 0:
        s = tl.dot(x[1], tl.trans(y[1]), s, input_precision=PRECISION)
    if D2 > 0:
        s = tl.dot(x[2], tl.trans(y[2]), s, input_precision=PRECISION)
    return s


@triton.jit
def add_product(into, p, y, D1: tl.constexpr, D2: tl.constexpr, PRECISION: tl.constexpr):
    """`into` + p y: pieces of [N, D] float32, [N, M] of the dtype of y, and pieces of [M, D]."""
    x = (tl.dot(p, y[0], into[0], input_precision=PRECISION),)
    if D1 > 0:
        x += (tl.dot(p, y[1], into[1], input_precision=PRECISION),)
    if D2 > 0:
        x += (tl.dot(p, y[2], into[2], input_precision=PRECISION),)
    return x


@triton.jit
def scale_pieces(x, factor, D1: tl.constexpr, D2: tl.constexpr):
    """Pieces times `factor`, which is a number or [N, 1]."""
    y = (x[0] * factor,)
    if D1 > 0:
        y += (x[1] * factor,)
    if D2 > 0:
        y += (x[2] * factor,)
    return y


@triton.jit
def sum_of_products(x, y, D1: tl.constexpr, D2: tl.constexpr):
    """Row by row: pieces of [N, D] and of [N, D] to [N] float32."""
    s = tl.sum(x[0].to(tl.float32) * y[0].to(tl.float32), axis=1)
    if D1 > 0:
        s += tl.sum(x[1].to(tl.float32) * y[1].to(tl.float32), axis=1)
    if D2 > 0:
        s += tl.sum(x[2].to(tl.float32) * y[2].to(tl.float32), axis=1)
    return s


@triton.jit
def normal_below(x, ROUNDED: tl.constexpr):
    """The share of the normal distribution that lies below x: (1 + erf(x / sqrt 2)) / 2.

    ROUNDED, for what is rounded to half precision after: off by at most 3e-7, in half the time of
    erf, which would take as long as the products that a GELU follows. Source: Abramowitz and
    Stegun, "Handbook of Mathematical Functions", formula 7.1.26.
    """
    if ROUNDED:
        t = 1.0 / (1.0 + 0.23164189 * tl.abs(x))
        above = 0.5307027145
        above = above * t - 0.7265760135
        above = above * t + 0.7107068705
        above = above * t - 0.142248368
        above = above * t + 0.127414796
        above = above * t * tl.exp2(x * x * -0.7213475204444817)  # share above |x|
        below = tl.where(x < 0.0, above, 1.0 - above)
    else:
        below = 0.5 * (1.0 + tl.math.erf(x * 0.7071067811865476))
    return below


@triton.jit
def gelu(x, ROUNDED: tl.constexpr):
    """x times the share of the normal distribution below it; see `normal_below`."""
    return x * normal_below(x, ROUNDED)
