# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Attention in windows of any pattern, backward: the weights are computed again, never stored.

With p the weights, dp_ab = dy_a . v_b and delta_a = dy_a . y_a = sum_b p_ab dp_ab,

    ds = p (dp - delta)      dv_b = sum_a p_ab dy_a
    dq_a = scale sum_b ds_ab k_b      dk_b = scale sum_a ds_ab q_a
    dtable[row] = the sum of ds over all pairs of that row, and over all windows

Where the keys of a window fit one tile, one kernel computes all; else there are three, for the sums
over keys, over queries and over windows. Sums have a fixed order: results are the same each run.
"""

from __future__ import annotations

import triton
import triton.language as tl

from restore.kernels.attention_tiles_triton import (
    LOG2_E,
    OPEN,
    bias_tile,
    counts,
    factor_of,
    first_saved,
    key_pixels,
    keys_pitch,
    load_keys,
    logits,
    number_at,
    pixel_number,
    query_pixels,
    row_and_column,
    sides,
    table_sides,
    window_place,
)
from restore.kernels.triton_blocks import (
    add_product,
    dot_rows,
    load_pieces,
    scale_pieces,
    store_pieces,
    sum_of_products,
    zero_pieces,
)


@triton.jit
def load_query_side(
    q_ptr, dy_ptr, lse_ptr, order_ptr, a, number, place, head, size, pitch,
    g: tl.constexpr, at: tl.constexpr,
):  # fmt: skip
    """Pieces of q and dy, [N] logarithms of sums, and pixel numbers of queries that are `live`."""
    y, x, live = query_pixels(a, place, order_ptr, size, g)
    rows = pixel_number(y, x, place, pitch) * at.q_pixel + (at.q + head * at.d)
    q = load_pieces(q_ptr + rows, live, at.d, at.d0, at.d1, at.d2)
    pixels = pixel_number(y, x, place, (size[1], size[0] * size[1]))
    rows = pixels * at.channels + head * at.d
    dy = load_pieces(dy_ptr + rows, live, at.d, at.d0, at.d1, at.d2)
    saved = lse_ptr + first_saved(number, head, size, g, at)
    # the weights of queries that do not exist come out as 0
    lse = tl.load(saved + a, mask=live, other=float("inf"))
    return q, dy, lse, pixels, live


@triton.jit
def kept_shifts(shifts_ptr, a, number, live, head, size, g: tl.constexpr, at: tl.constexpr):
    """delta and share of every query, as `queries_kernel` wrote them down."""
    where = shifts_ptr + 2 * (first_saved(number, head, size, g, at) + a)
    return tl.load(where, mask=live, other=0.0), tl.load(where + 1, mask=live, other=0.0)


@triton.jit
def weights(
    q, k, v, dy, lse, delta, share, bias, a, b, place, size, factor,
    g: tl.constexpr, at: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """p and ds: [N, M] float32 each; where all keys are one tile, it finds delta and share."""
    s = logits(q, k, bias, a, b, place, size, factor, g, at, BLOCK_N, PRECISION)
    p = tl.exp2(s - lse[:, None]) * share[:, None]
    dp = dot_rows(dy, v, at.d1, at.d2, PRECISION)
    if g.opened == 0 and g.m <= BLOCK_N:
        # what was rounded since they were computed would add up over all keys
        total = tl.sum(p, axis=1)
        p = p / tl.where(total > 0.0, total, 1.0)[:, None]
        delta = tl.sum(p * dp, axis=1)
    return p, p * (dp - delta[:, None])


@triton.jit
def store_dq(dq_ptr, dq, pixels, live, head, to: tl.constexpr):
    """Write dq of the queries that are live."""
    rows = dq_ptr + (pixels * to.q_pixel + (to.q + head * to.d))
    store_pieces(rows, live, dq, to.d, to.d0, to.d1, to.d2)


@triton.jit
def store_key_side(
    dkv_ptr, fill_ptr, order_ptr, dk, dv, b, number, place, head, size,
    g: tl.constexpr, to: tl.constexpr,
):  # fmt: skip
    """Write dk and dv of a window's keys.

    Those that several windows share go to rows of their own, window by window, and those that
    fill up the last group go to `fill_ptr`: their sums are made after.
    """
    y, x, live = key_pixels(b, place, order_ptr, size, g)
    width = size[1] // g.cell
    pixels = pixel_number(y, x, place, (width, size[0] // g.cell * width))
    if g.halo:
        pixels = tl.cast(number, tl.int64) * g.m + b
    if g.sorted:
        position = place[2] + b
        filled = (size[1] + g.ww - 1) // g.ww * g.ww - size[1]  # tokens of an image
        again = live & (position >= size[1])
        rows = place[0] * filled + position - size[1]
        rows = fill_ptr + (rows * (2 * to.channels) + head * to.d)
        store_pieces(rows, again, dk, to.d, to.d0, to.d1, to.d2)
        store_pieces(rows + to.channels, again, dv, to.d, to.d0, to.d1, to.d2)
        live = live & (position < size[1])
    rows = dkv_ptr + (pixels * to.kv_pixel + head * to.d)
    store_pieces(rows + to.k, live, dk, to.d, to.d0, to.d1, to.d2)
    store_pieces(rows + to.v, live, dv, to.d, to.d0, to.d1, to.d2)


@triton.jit
def store_dbias(dbias_ptr, ds, a, b, part, head, size, g: tl.constexpr, at: tl.constexpr):
    """Write [N, M] sums of ds over the windows of a part: to [parts, heads, N, M]."""
    n, m = counts(size, g)
    first = first_saved(part, head, size, g, at)
    where = (first + a)[:, None] * m + b[None, :]
    tl.store(dbias_ptr + where, ds, mask=(a < n)[:, None] & (b < m)[None, :])


@triton.jit(do_not_specialize=OPEN)
def keys_kernel(
    q_ptr, kv_ptr, table_ptr, log_scale_ptr, order_ptr, chosen_ptr, lse_ptr, dy_ptr,
    shifts_ptr, dq_ptr, dkv_ptr, fill_ptr, dbias_ptr, dscale_ptr,
    scale, H, W, q_row, q_image, kv_row, kv_image, windows, stride,
    g: tl.constexpr, at: tl.constexpr, to: tl.constexpr, TURNED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHOSEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk and dv; where all keys of a window are one tile, dq too, and where all queries are, ds."""
    ALONE: tl.constexpr = g.opened == 0 and g.m <= BLOCK_N
    WHOLE: tl.constexpr = ALONE and g.n <= BLOCK_M
    size = (H, W)
    n, m = counts(size, g)
    head = tl.program_id(0) % at.heads
    tiles = (m + BLOCK_N - 1) // BLOCK_N
    b = tl.program_id(0) // at.heads % tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.program_id(0) // (at.heads * tiles)
    pitch = (q_row, q_image)
    kv_pitch = keys_pitch(pitch, (kv_row, kv_image), at)
    scale = factor_of(scale, log_scale_ptr, g)
    dscale = tl.zeros([BLOCK_M], tl.float32)
    if WHOLE:
        a = tl.arange(0, BLOCK_M)
        bias = bias_tile(table_ptr, a, b, head, size, g, at, TURNED, BLOCK_M, BLOCK_N)
        dbias = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for number in range(first, windows, stride):
        window = number
        if CHOSEN:
            window = tl.load(chosen_ptr + number).to(tl.int32)
        place = window_place(window, size, g, at)
        k, v = load_keys(kv_ptr, b, place, head, order_ptr, size, kv_pitch, g, at)
        dk = zero_pieces(BLOCK_N, at.d0, at.d1, at.d2)
        dv = zero_pieces(BLOCK_N, at.d0, at.d1, at.d2)
        for start in range(0, n, BLOCK_M):
            a = start + tl.arange(0, BLOCK_M)
            q, dy, lse, pixels, live = load_query_side(
                q_ptr, dy_ptr, lse_ptr, order_ptr, a, number, place, head, size, pitch, g, at,
            )  # fmt: skip
            delta = tl.zeros([BLOCK_M], tl.float32)
            share = delta + 1.0
            if not ALONE:
                delta, share = kept_shifts(shifts_ptr, a, number, live, head, size, g, at)
            if not WHOLE:
                bias = bias_tile(table_ptr, a, b, head, size, g, at, TURNED, BLOCK_M, BLOCK_N)
            p, ds = weights(
                q, k, v, dy, lse, delta, share, bias, a, b, place, size, scale * LOG2_E,
                g, at, BLOCK_N, PRECISION,
            )  # fmt: skip
            if WHOLE:
                dbias += ds
            dv = add_product(dv, tl.trans(p.to(v[0].dtype)), dy, at.d1, at.d2, PRECISION)
            lowered = ds.to(q[0].dtype)
            dk = add_product(dk, tl.trans(lowered), q, at.d1, at.d2, PRECISION)
            if ALONE:
                dq = zero_pieces(BLOCK_M, at.d0, at.d1, at.d2)
                dq = add_product(dq, lowered, k, at.d1, at.d2, PRECISION)
                dq = scale_pieces(dq, scale, at.d1, at.d2)
                store_dq(dq_ptr, dq, pixels, live, head, to)
                if g.sorted:
                    dscale += sum_of_products(q, dq, at.d1, at.d2)
        dk = scale_pieces(dk, scale, at.d1, at.d2)
        store_key_side(dkv_ptr, fill_ptr, order_ptr, dk, dv, b, number, place, head, size, g, to)
    if WHOLE and g.biased:
        store_dbias(dbias_ptr, dbias, tl.arange(0, BLOCK_M), b, first, head, size, g, at)
    if ALONE and g.sorted:
        tl.store(dscale_ptr + tl.program_id(0), tl.sum(dscale, axis=0))


@triton.jit(do_not_specialize=OPEN)
def queries_kernel(
    q_ptr, kv_ptr, table_ptr, log_scale_ptr, order_ptr, chosen_ptr, lse_ptr, dy_ptr,
    shifts_ptr, dq_ptr, dscale_ptr,
    scale, H, W, q_row, q_image, kv_row, kv_image,
    g: tl.constexpr, at: tl.constexpr, to: tl.constexpr, TURNED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHOSEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq, and for the other kernels delta and share, by which p is multiplied."""
    size = (H, W)
    n, m = counts(size, g)
    head = tl.program_id(0) % at.heads
    tiles = (n + BLOCK_M - 1) // BLOCK_M
    a = tl.program_id(0) // at.heads % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    number = tl.program_id(0) // (at.heads * tiles)
    pitch = (q_row, q_image)
    kv_pitch = keys_pitch(pitch, (kv_row, kv_image), at)
    scale = factor_of(scale, log_scale_ptr, g)
    window = number
    if CHOSEN:
        window = tl.load(chosen_ptr + number).to(tl.int32)
    place = window_place(window, size, g, at)
    q, dy, lse, pixels, live = load_query_side(
        q_ptr, dy_ptr, lse_ptr, order_ptr, a, number, place, head, size, pitch, g, at
    )
    # lse was rounded, which shifts the weights of all keys alike; so the sums are made anew
    zero = tl.zeros([BLOCK_M], tl.float32)
    delta = zero
    total = zero
    for start in range(0, m, BLOCK_N):
        b = start + tl.arange(0, BLOCK_N)
        k, v = load_keys(kv_ptr, b, place, head, order_ptr, size, kv_pitch, g, at)
        bias = bias_tile(table_ptr, a, b, head, size, g, at, TURNED, BLOCK_M, BLOCK_N)
        p, weighted = weights(
            q, k, v, dy, lse, zero, zero + 1.0, bias, a, b, place, size, scale * LOG2_E,
            g, at, BLOCK_N, PRECISION,
        )  # fmt: skip
        delta += tl.sum(weighted, axis=1)
        total += tl.sum(p, axis=1)
    share = 1.0 / tl.where(live, total, 1.0)
    delta *= share
    where = shifts_ptr + 2 * (first_saved(number, head, size, g, at) + a)
    tl.store(where, delta, mask=live)
    tl.store(where + 1, share, mask=live)
    dq = zero_pieces(BLOCK_M, at.d0, at.d1, at.d2)
    for start in range(0, m, BLOCK_N):
        b = start + tl.arange(0, BLOCK_N)
        k, v = load_keys(kv_ptr, b, place, head, order_ptr, size, kv_pitch, g, at)
        bias = bias_tile(table_ptr, a, b, head, size, g, at, TURNED, BLOCK_M, BLOCK_N)
        _, ds = weights(
            q, k, v, dy, lse, delta, share, bias, a, b, place, size, scale * LOG2_E,
            g, at, BLOCK_N, PRECISION,
        )  # fmt: skip
        dq = add_product(dq, ds.to(k[0].dtype), k, at.d1, at.d2, PRECISION)
    dq = scale_pieces(dq, scale, at.d1, at.d2)
    store_dq(dq_ptr, dq, pixels, live, head, to)
    if g.sorted:
        total = tl.sum(sum_of_products(q, dq, at.d1, at.d2), axis=0)
        tl.store(dscale_ptr + tl.program_id(0), total)


@triton.jit(do_not_specialize=OPEN)
def bias_kernel(
    q_ptr, kv_ptr, table_ptr, chosen_ptr, lse_ptr, dy_ptr, shifts_ptr, dbias_ptr,
    scale, H, W, q_row, q_image, kv_row, kv_image, windows, stride,
    g: tl.constexpr, at: tl.constexpr, TURNED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHOSEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """ds of some queries and keys of a head, summed over some of the windows."""
    size = (H, W)
    n, m = counts(size, g)
    head = tl.program_id(0) % at.heads
    tiles = (n + BLOCK_M - 1) // BLOCK_M
    key_tiles = (m + BLOCK_N - 1) // BLOCK_N
    tile = tl.program_id(0) // at.heads
    a = tile % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    b = tile // tiles % key_tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tile // (tiles * key_tiles)
    pitch = (q_row, q_image)
    kv_pitch = keys_pitch(pitch, (kv_row, kv_image), at)
    bias = bias_tile(table_ptr, a, b, head, size, g, at, TURNED, BLOCK_M, BLOCK_N)
    dbias = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for number in range(first, windows, stride):
        window = number
        if CHOSEN:
            window = tl.load(chosen_ptr + number).to(tl.int32)
        place = window_place(window, size, g, at)
        k, v = load_keys(kv_ptr, b, place, head, None, size, kv_pitch, g, at)
        q, dy, lse, _, live = load_query_side(
            q_ptr, dy_ptr, lse_ptr, None, a, number, place, head, size, pitch, g, at
        )
        delta = tl.zeros([BLOCK_M], tl.float32)
        share = delta + 1.0
        if g.opened > 0 or g.m > BLOCK_N:
            delta, share = kept_shifts(shifts_ptr, a, number, live, head, size, g, at)
        _, ds = weights(
            q, k, v, dy, lse, delta, share, bias, a, b, place, size, scale * LOG2_E,
            g, at, BLOCK_N, PRECISION,
        )  # fmt: skip
        dbias += ds
    store_dbias(dbias_ptr, dbias, a, b, first, head, size, g, at)


@triton.jit(do_not_specialize=OPEN)
def halo_kernel(
    from_ptr, into_ptr, H, W, g: tl.constexpr, FIRST: tl.constexpr, CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Sum of what the windows that see a pixel found: [B * n, M, 2C] to [B, H, W, C + 2C]."""
    y = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    x = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, WIDE)
    across = W // g.ww
    sums = tl.zeros([BLOCK, WIDE], tl.float32)
    REACH_Y: tl.constexpr = (g.hy + g.wh - 1) // g.wh
    REACH_X: tl.constexpr = (g.hx + g.ww - 1) // g.ww
    for dy in tl.static_range(-REACH_Y, REACH_Y + 1):
        for dx in tl.static_range(-REACH_X, REACH_X + 1):
            row = y // g.wh + dy
            column = x // g.ww + dx
            ky = y - row * g.wh + g.hy
            kx = x - column * g.ww + g.hx
            seen = (row >= 0) & (row < H // g.wh) & (ky >= 0) & (ky < g.kh)
            seen = seen & (column >= 0) & (column < across) & (kx >= 0) & (kx < g.kw) & (x < W)
            window = image * (H // g.wh * across) + row * across + column
            at = (window * g.m + ky * g.kw + kx) * CHANNELS
            live = seen[:, None] & (c < CHANNELS)[None, :]
            sums += tl.load(from_ptr + at[:, None] + c[None, :], mask=live, other=0.0)
    at = ((image * H + y) * W + x) * (FIRST + CHANNELS) + FIRST
    live = (x < W)[:, None] & (c < CHANNELS)[None, :]
    tl.store(into_ptr + at[:, None] + c[None, :], sums.to(into_ptr.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=OPEN)
def table_kernel(
    dbias_ptr, dtable_ptr, heads, H, W, g: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_A: tl.constexpr,
):  # fmt: skip
    """Sum of the entries of [heads, N, M] that share a row of the table: to [T, heads].

    A row is one offset, so every query has at most one key of it.
    """
    head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    size = (H, W)
    n, m = counts(size, g)
    wh, ww, kh, kw = sides(size, g)
    rows, wide = table_sides(size, g)
    wrapped = row
    if g.outward:
        wrapped = (row + g.wrapped) % rows
    sums = tl.zeros([BLOCK_R], tl.float32)
    for start in range(0, n, BLOCK_A):
        a = start + tl.arange(0, BLOCK_A)
        y, x = row_and_column(a, wh, ww, g)
        if g.outward:
            ky = (y // g.cell)[:, None] + (wrapped // wide)[None, :] - (wh - 1)
            kx = (x // g.cell)[:, None] + (wrapped % wide)[None, :] - (ww - 1)
        else:
            ky = (y // g.cell)[:, None] - (wrapped // wide)[None, :] + (kh - 1)
            kx = (x // g.cell)[:, None] - (wrapped % wide)[None, :] + (kw - 1)
        live = (ky >= 0) & (ky < kh) & (kx >= 0) & (kx < kw)
        live = live & (a < n)[:, None] & (row < rows)[None, :]
        where = (head * n + a)[:, None] * m + number_at(ky, kx, kh, kw, g)
        sums += tl.sum(tl.load(dbias_ptr + where, mask=live, other=0.0), axis=0)
    tl.store(dtable_ptr + row * heads + head, sums.to(dtable_ptr.dtype.element_ty), mask=row < rows)
