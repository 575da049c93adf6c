# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Tiles of queries and keys, their bias, mask and logits: what every kernel of attention shares.

In all functions

- `g` is a `Geometry` and `at` a `Layout`, both constants,
- `a` numbers queries of a window and `b` its keys, [N] and [M] int32; they may run past the last,
- `size` is (H, W), the map's rows and columns, which are also the sides that `g` leaves open,
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
def sides(size, g: tl.constexpr):
    """Rows and columns of a window, and of the grid of its keys."""
    wh = g.wh
    ww = g.ww
    kh = g.kh
    kw = g.kw
    if g.opened == 1:
        wh = size[0]
        kh = size[0]
    if g.opened == 2:
        ww = size[1]
        kw = size[1]
    return wh, ww, kh, kw


@triton.jit
def counts(size, g: tl.constexpr):
    """How many queries and how many keys a window has."""
    wh, ww, kh, kw = sides(size, g)
    return wh * ww, kh * kw


@triton.jit
def first_saved(number, head, size, g: tl.constexpr, at: tl.constexpr):
    """Where the numbers of a window's queries begin, in [windows, heads, N]."""
    return (tl.cast(number, tl.int64) * at.heads + head) * counts(size, g)[0]


@triton.jit
def table_sides(size, g: tl.constexpr):
    """`rows` and `wide` of the geometry."""
    rows = g.rows
    wide = g.wide
    if g.opened > 0:
        wide = 2 * sides(size, g)[1] - 1
        rows = (2 * sides(size, g)[0] - 1) * wide
    return rows, wide


@triton.jit
def row_and_column(number, height, width, g: tl.constexpr):
    """Of pixels of a window, or of keys in their grid, of which `height` and `width` are the sides.

    They are counted row by row; where the number of columns is open, column by column, so that the
    divisor is a constant.
    """
    if g.opened == 2:
        return number % height, number // height
    else:
        return number // width, number % width


@triton.jit
def number_at(y, x, height, width, g: tl.constexpr):
    """The inverse of `row_and_column`."""
    if g.opened == 2:
        return x * height + y
    else:
        return y * width + x


@triton.jit
def window_place(window, size, g: tl.constexpr, at: tl.constexpr):
    """Image of a window, its first row and column in the rolled map, and where its mask is.

    The last two are 1 in windows of the last row and of the last column, if there is a shift.
    """
    wh, ww, _, _ = sides(size, g)
    # without signs, as their divisions are shorter
    window = tl.cast(window, tl.uint32)
    across = tl.cast((size[1] + ww - 1) // ww, tl.uint32)
    count = tl.cast(size[0] // wh, tl.uint32) * across
    image = window // count
    inside = window - image * count
    row = inside // across
    top = (row * wh).to(tl.int32)
    left = ((inside - row * across) * ww).to(tl.int32)
    last_row = ((top + wh == size[0]) & (g.sy > 0)).to(tl.int32)
    last_column = ((left + ww == size[1]) & (g.sx > 0)).to(tl.int32)
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
    wh, ww, _, _ = sides(size, g)
    live = a < wh * ww
    y, x = row_and_column(a, wh, ww, g)
    y, x = rolled_back(place[1] + y, place[2] + x, size, g)
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
    _, _, kh, kw = sides(size, g)
    live = b < kh * kw
    y, x = row_and_column(b, kh, kw, g)
    y = place[1] // g.cell - g.hy + y
    x = place[2] // g.cell - g.hx + x
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
    table_ptr, a, b, head, size, g: tl.constexpr, at: tl.constexpr, TURNED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """What to add to logits for powers of 2, [N, M] float32: minus infinity for keys past the last.

    The table is [T, heads], or if it is TURNED [heads, T] of biases for powers of 2. Its row for a
    pair is a number of the query plus a number of the key.
    """
    wh, ww, kh, kw = sides(size, g)
    if g.biased:
        rows, wide = table_sides(size, g)
        y, x = row_and_column(tl.minimum(a, wh * ww - 1), wh, ww, g)
        key_y, key_x = row_and_column(tl.minimum(b, kh * kw - 1), kh, kw, g)
        if g.outward:
            of_query = -(y * wide + x)
            of_key = (key_y + wh - 1) * wide + key_x + ww - 1 - g.wrapped
            row = of_query[:, None] + of_key[None, :]
            row = tl.where(row < 0, row + rows, row)
        else:
            of_query = (y // g.cell + kh - 1) * wide + x // g.cell + kw - 1
            of_key = -(key_y * wide + key_x)
            row = of_query[:, None] + of_key[None, :]
        if TURNED:
            bias = tl.load(table_ptr + head * rows + row)
        else:
            bias = tl.load(table_ptr + head + row * at.heads).to(tl.float32) * LOG2_E
    else:
        bias = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if g.opened > 0 or g.m % BLOCK_N != 0:
        bias = tl.where((b < kh * kw)[None, :], bias, float("-inf"))
    return bias


@triton.jit
def mask_of_shift(s, a, b, place, size, g: tl.constexpr):
    """Logits for powers of 2, with MASKED added where the roll joined opposite ends of the map."""
    # a cell that the border cuts through counts as what the roll brought from the other end
    wh, ww, kh, kw = sides(size, g)
    y, x = row_and_column(a, wh, ww, g)
    key_y, key_x = row_and_column(b, kh, kw, g)
    below = (y >= wh - g.sy) & (place[3] > 0)
    right = (x >= ww - g.sx) & (place[4] > 0)
    key_below = (key_y >= kh - (g.sy + g.cell - 1) // g.cell) & (place[3] > 0)
    key_right = (key_x >= kw - (g.sx + g.cell - 1) // g.cell) & (place[4] > 0)
    # in floating point, as a predicate for each entry would cost registers
    of_query = below.to(tl.float32) * 2 + right.to(tl.float32)
    of_key = key_below.to(tl.float32) * 2 + key_right.to(tl.float32)
    return s + MASKED * tl.minimum(tl.abs(of_query[:, None] - of_key[None, :]), 1.0)


@triton.jit
def logits(
    q, k, bias, a, b, place, size, factor, g: tl.constexpr, at: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[N, M] float32, for powers of 2; `factor` is that of the products, times LOG2_E."""
    s = dot_rows(q, k, at.d1, at.d2, PRECISION) * factor
    if g.biased or g.opened > 0 or g.m % BLOCK_N != 0:
        s += bias
    if g.shifted:  # noqa: SIM102 (a constant; the next is a number)
        if place[3] + place[4] > 0:
            s = mask_of_shift(s, a, b, place, size, g)
    return s


@triton.jit
def factor_of(scale, log_scale_ptr, g: tl.constexpr):
    """Factor of the products: `scale`, or in sorted groups the learned one."""
    factor = scale
    if g.sorted:
        factor = tl.exp(tl.minimum(tl.load(log_scale_ptr).to(tl.float32), LARGEST_LOG_FACTOR))
    return factor
