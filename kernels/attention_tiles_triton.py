# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Tiles of queries and keys, their bias, mask and logits: what every kernel of attention shares.

In all functions

- `g` is a `Geometry` and `at` a `Layout`, both constants,
- `a` numbers queries of a window and `b` its keys, [N] and [M] int32; they may run past the last,
- `size` is (H, W), the map's rows and columns,
- `place` is what `window_place` gives,
- `pitch` is (pixels from a row to the next, pixels from an image to the next) of a map in memory.
"""

from __future__ import annotations

import triton
import triton.language as tl

from restore.kernels.triton_blocks import dot_rows, load_pieces

# Arguments whose divisors must not make kernels of their own, as maps come in every size.
OPEN = ["H", "W", "q_row", "q_image", "kv_row", "kv_image", "windows", "stride"]
LOG2_E = tl.constexpr(1.4426950408889634)  # exp(x) = 2 ** (x * LOG2_E), and the latter is faster
MASKED = tl.constexpr(-100.0 * 1.4426950408889634)  # `reference.MASKED`, for powers of 2
LARGEST_LOG_FACTOR = tl.constexpr(4.605170185988092)  # ln 100, see `category_attention`


@triton.jit
def window_place(window, size, g: tl.constexpr, at: tl.constexpr):
    """Image of a window, its first row and column in the rolled map, and where its mask is.

    The last two are 1 in windows of the last row and of the last column, if there is a shift.
    """
    # without signs, as their divisions are shorter
    window = tl.cast(window, tl.uint32)
    across = tl.cast((size[1] + g.ww - 1) // g.ww, tl.uint32)
    count = tl.cast(size[0] // g.wh, tl.uint32) * across
    image = window // count
    inside = window - image * count
    row = inside // across
    top = (row * g.wh).to(tl.int32)
    left = ((inside - row * across) * g.ww).to(tl.int32)
    last_row = ((top + g.wh == size[0]) & (g.sy > 0)).to(tl.int32)
    last_column = ((left + g.ww == size[1]) & (g.sx > 0)).to(tl.int32)
    image = image.to(tl.int64 if at.large else tl.int32)
    return image, top, left, last_row, last_column


@triton.jit
def rolled_back(y, x, size, g: tl.constexpr):
    """Where pixels of the rolled map lie in the map."""
    if g.sy > 0:
        y = y + g.sy
        y = tl.where(y >= size[0], y - size[0], y)
    if g.sx > 0:
        x = x + g.sx
        x = tl.where(x >= size[1], x - size[1], x)
    return y, x


@triton.jit
def pixel_number(y, x, place, pitch):
    """Of pixels of the image of a window, counted from the first of the map."""
    return place[0] * pitch[1] + y * pitch[0] + x


@triton.jit
def query_pixels(a, place, order_ptr, size, g: tl.constexpr):
    """Row and column of queries in the map, and which of them exist."""
    live = a < g.n
    y, x = rolled_back(place[1] + a // g.ww, place[2] + a % g.ww, size, g)
    if g.sorted:
        live = live & (x < size[1])
        x = tl.load(order_ptr + place[0] * size[1] + x, mask=live, other=0).to(place[0].dtype)
    return y, x, live


@triton.jit
def keys_pitch(q_pitch, kv_pitch, at: tl.constexpr):
    """That of the map of keys: the same one where a map holds all, so that addresses are shared."""
    if at.joined:
        return q_pitch
    else:
        return kv_pitch


@triton.jit
def key_pixels(b, place, order_ptr, size, g: tl.constexpr):
    """Row and column of keys in their map, and which of them lie there."""
    live = b < g.m
    y = place[1] // g.cell - g.hy + b // g.kw
    x = place[2] // g.cell - g.hx + b % g.kw
    if g.halo:
        live = live & (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
    if g.cell == 1:  # cells are of a map that was rolled when they were gathered
        y, x = rolled_back(y, x, size, g)
    if g.sorted:
        # the row of tokens is filled up by its mirror image
        x = tl.where(x >= size[1], 2 * size[1] - 1 - x, x)
        x = tl.load(order_ptr + place[0] * size[1] + x, mask=live, other=0).to(place[0].dtype)
    return y, x, live


@triton.jit
def load_keys(kv_ptr, b, place, head, order_ptr, size, pitch, g: tl.constexpr, at: tl.constexpr):
    """[M, D] pieces of the keys and of the values of a window; 0 outside the map."""
    y, x, live = key_pixels(b, place, order_ptr, size, g)
    rows = kv_ptr + (pixel_number(y, x, place, pitch) * at.kv_pixel + head * at.d)
    k = load_pieces(rows + at.k, live, at.d, at.d0, at.d1, at.d2)
    v = load_pieces(rows + at.v, live, at.d, at.d0, at.d1, at.d2)
    return k, v


@triton.jit
def bias_tile(
    table_ptr, a, b, head, g: tl.constexpr, at: tl.constexpr, TURNED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """What to add to logits for powers of 2, [N, M] float32: minus infinity for keys past the last.

    The table is [T, heads], or if it is TURNED [heads, T] of biases for powers of 2. Its row for a
    pair is a number of the query plus a number of the key.
    """
    a = tl.minimum(a, g.n - 1)
    k = tl.minimum(b, g.m - 1)
    if g.biased:
        if g.outward:
            of_query = -(a // g.ww * g.wide + a % g.ww)
            of_key = (k // g.kw + g.wh - 1) * g.wide + k % g.kw + g.ww - 1 - g.wrapped
            row = of_query[:, None] + of_key[None, :]
            row = tl.where(row < 0, row + g.rows, row)
        else:
            of_query = (a // g.ww // g.cell + g.kh - 1) * g.wide + a % g.ww // g.cell + g.kw - 1
            of_key = -(k // g.kw * g.wide + k % g.kw)
            row = of_query[:, None] + of_key[None, :]
        if TURNED:
            bias = tl.load(table_ptr + head * g.rows + row)
        else:
            bias = tl.load(table_ptr + head + row * at.heads).to(tl.float32) * LOG2_E
    else:
        bias = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if g.m % BLOCK_N != 0:
        bias = tl.where((b < g.m)[None, :], bias, float("-inf"))
    return bias


@triton.jit
def mask_of_shift(s, a, b, place, g: tl.constexpr):
    """Logits for powers of 2, with MASKED added where the roll joined opposite ends of the map."""
    # a cell that the border cuts through counts as what the roll brought from the other end
    y = (a // g.ww >= g.wh - g.sy) & (place[3] > 0)
    x = (a % g.ww >= g.ww - g.sx) & (place[4] > 0)
    key_y = (b // g.kw >= g.kh - (g.sy + g.cell - 1) // g.cell) & (place[3] > 0)
    key_x = (b % g.kw >= g.kw - (g.sx + g.cell - 1) // g.cell) & (place[4] > 0)
    # in floating point, as a predicate for each entry would cost registers
    of_query = y.to(tl.float32) * 2 + x.to(tl.float32)
    of_key = key_y.to(tl.float32) * 2 + key_x.to(tl.float32)
    return s + MASKED * tl.minimum(tl.abs(of_query[:, None] - of_key[None, :]), 1.0)


@triton.jit
def logits(
    q, k, bias, a, b, place, factor, g: tl.constexpr, at: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """[N, M] float32, for powers of 2; `factor` is that of the products, times LOG2_E."""
    s = dot_rows(q, k, at.d1, at.d2, PRECISION) * factor
    if g.biased or g.m % BLOCK_N != 0:
        s += bias
    if g.shifted:  # noqa: SIM102 (a constant; the next is a number)
        if place[3] + place[4] > 0:
            s = mask_of_shift(s, a, b, place, g)
    return s


@triton.jit
def factor_of(scale, log_scale_ptr, g: tl.constexpr):
    """Factor of the products: `scale`, or in sorted groups the learned one."""
    factor = scale
    if g.sorted:
        factor = tl.exp(tl.minimum(tl.load(log_scale_ptr).to(tl.float32), LARGEST_LOG_FACTOR))
    return factor
