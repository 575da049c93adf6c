# mypy: allow-untyped-defs, allow-incomplete-defs
# mypy: disable-error-code="untyped-decorator, assignment"
"""`window_attention_branch` by Triton for windows of up to 64 pixels: a window is one program.

Its tokens are normalised in registers and stay there. For one head after the other their queries,
keys and values are computed, and what the head's attention gives is written, 1 / heads of the
window's channels; after the last head the program reads all of it back (it is still in the cache)
and projects it onto the residual. So a map is read once and written twice, and queries, keys,
values and weights of attention never reach memory. The sum over heads could stay in registers too,
but with the tokens there these hold no tile of 64 x 180.

Every program reads all weights, so these are first copied to rows that need no mask: channels are
filled up to whole pieces with zeros, and so are heads (see `triton_blocks.split`).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from restore.kernels.attention_geometry import Layout
from restore.kernels.attention_tiles_triton import (
    LOG2_E,
    mask_of_shift,
    query_pixels,
    window_place,
)
from restore.kernels.fused_host import dense, is_roomy
from restore.kernels.triton_blocks import (
    SMALLEST,
    dot_rows,
    load_pieces,
    product_precision,
    split,
    store_pieces,
)
from restore.kernels.triton_norm import add_pieces, cast_pieces, float_pieces, load_normal
from restore.kernels.tuning import Launch, best
from restore.kernels.window_attention_branch_reference import Call

ROWS = tl.constexpr(16)  # of packed weights, that a program copies
ENTRIES = tl.constexpr(256)  # of the packed table
NARROW = 192  # channels, of which a program leaves registers to a second or third one


@triton.jit
def pack_rows(
    weight_ptr, bias_ptr, source, live, packed_ptr, numbers_ptr, row,
    C: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr,
):  # fmt: skip
    """Copy rows `source` of a layer to rows `row` of the packed ones, zeros where not live."""
    WIDE: tl.constexpr = C0 + C1 + C2
    pieces = load_pieces(weight_ptr + source * C, live, C, C0, C1, C2)
    store_pieces(packed_ptr + row * WIDE, row >= 0, pieces, WIDE, C0, C1, C2)
    bias = tl.zeros([ROWS], tl.float32)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + source, mask=live, other=0.0).to(tl.float32)
    tl.store(numbers_ptr + row, bias)


@triton.jit
def pack_kernel(
    qkv_weight_ptr, qkv_bias_ptr, proj_weight_ptr, proj_bias_ptr, table_ptr, packed_ptr,
    numbers_ptr, g: tl.constexpr, at: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr,
    C2: tl.constexpr, D: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    """Weights to [3 heads D + OUT, C0 + C1 + C2], their biases and the table to numbers.

    First D rows of queries, D of keys and D of values of a head, for each head, then those of the
    last layer. The table is turned, [heads, T], and of biases for powers of 2.
    """
    C: tl.constexpr = at.channels
    IN: tl.constexpr = 3 * at.heads * D
    first = tl.program_id(0) * ROWS
    row = first + tl.arange(0, ROWS)
    if first < IN:
        j = row % D
        source = (row // D % 3 * at.heads + row // (3 * D)) * at.d + j
        pack_rows(
            qkv_weight_ptr, qkv_bias_ptr, source, j < at.d, packed_ptr, numbers_ptr, row,
            C, C0, C1, C2,
        )  # fmt: skip
    elif first < IN + OUT:
        pack_rows(
            proj_weight_ptr, proj_bias_ptr, row - IN, row < IN + C, packed_ptr, numbers_ptr, row,
            C, C0, C1, C2,
        )  # fmt: skip
    else:
        entry = (tl.program_id(0) - (IN + OUT) // ROWS) * ENTRIES + tl.arange(0, ENTRIES)
        live = entry < at.heads * g.rows
        turned = entry % g.rows * at.heads + entry // g.rows
        bias = tl.load(table_ptr + turned, mask=live, other=0.0).to(tl.float32)
        tl.store(numbers_ptr + IN + OUT + entry, bias * LOG2_E, mask=live)


@triton.jit
def load_packed(
    packed_ptr, D: tl.constexpr, FIRST: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr
):
    """[D, SIZE] from channel FIRST on of the packed rows at a pointer."""
    at = tl.arange(0, D)[:, None] * WIDE + (FIRST + tl.arange(0, SIZE))[None, :]
    return tl.load(packed_ptr + at)


@triton.jit
def project(
    x, packed_ptr, numbers_ptr, D: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr,
    C2: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Pieces of [N, C] times the D packed rows at a pointer, plus their biases: [N, D] float32."""
    WIDE: tl.constexpr = C0 + C1 + C2
    weight = (load_packed(packed_ptr, D, 0, C0, WIDE),)
    if C1 > 0:
        weight += (load_packed(packed_ptr, D, C0, C1, WIDE),)
    if C2 > 0:
        weight += (load_packed(packed_ptr, D, C0 + C1, C2, WIDE),)
    y = dot_rows(x, weight, C1, C2, PRECISION)
    return y + tl.load(numbers_ptr + tl.arange(0, D))[None, :]


@triton.jit
def add_bias(s, a, place, size, numbers_ptr, head, g: tl.constexpr, BLOCK: tl.constexpr):
    """Logits for powers of 2 with bias and mask; minus infinity for keys past the last."""
    c = tl.minimum(a, g.n - 1)
    of_pixel = c // g.ww * g.wide + c % g.ww
    # the head first, or the sum of the others is kept for all heads, a register for each pair
    of_query = of_pixel + (head * g.rows + (g.wh - 1) * g.wide + g.ww - 1)
    s += tl.load(numbers_ptr + (of_query[:, None] - of_pixel[None, :]))
    if g.n < BLOCK:
        s = tl.where((a < g.n)[None, :], s, float("-inf"))
    if g.shifted:
        at_end = place[3] + place[4] > 0
        if at_end:
            s = mask_of_shift(s, a, a, place, size, g)
    return s


@triton.jit(do_not_specialize=["H", "W"])
def forward_kernel(
    x_ptr, residual_ptr, norm_weight_ptr, norm_bias_ptr, vectors_ptr, packed_ptr, numbers_ptr,
    out_ptr, y_ptr, lse_ptr, scale, eps, H, W,
    g: tl.constexpr, at: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr,
    D: tl.constexpr, OUT: tl.constexpr, BLOCK: tl.constexpr, BLOCK_N: tl.constexpr,
    SAVES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y = residual + attention's result, projected; out is that result. A program is a window."""
    C: tl.constexpr = at.channels
    WIDE: tl.constexpr = C0 + C1 + C2
    IN: tl.constexpr = 3 * at.heads * D
    dtype = packed_ptr.dtype.element_ty
    a = tl.arange(0, BLOCK)
    place = window_place(tl.program_id(0), (H, W), g, at)
    y, x, live = query_pixels(a, place, None, (H, W), g)
    first = place[0].to(tl.int64) * H * W * C
    row = (y * W + x) * C  # from the first pixel of the image: fewer registers than pointers
    tokens = load_normal(
        x_ptr + first + row, live, norm_weight_ptr, norm_bias_ptr, eps, dtype, C, C0, C1, C2
    )
    if vectors_ptr is not None:
        vectors = load_pieces(vectors_ptr + a * C, live, C, C0, C1, C2)
        tokens = add_pieces(float_pieces(tokens, C1, C2), float_pieces(vectors, C1, C2), C1, C2)
        tokens = cast_pieces(tokens, dtype, C1, C2)
    j = tl.arange(0, D)
    for head in range(at.heads):
        weights = packed_ptr + head * (3 * D * WIDE)
        biases = numbers_ptr + head * (3 * D)
        q = project(tokens, weights, biases, D, C0, C1, C2, PRECISION).to(dtype)
        k = project(tokens, weights + D * WIDE, biases + D, D, C0, C1, C2, PRECISION).to(dtype)
        # scaled after q was rounded, as the backward pass does that computes it again
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2_E)
        # in a branch, or the loop holds the biases of the next head in shared memory
        if tl.program_id(0) >= 0:
            s = add_bias(s, a, place, (H, W), numbers_ptr + IN + OUT, head, g, BLOCK)
        top = tl.max(s, axis=1)
        p = tl.exp2(s - top[:, None])
        total = tl.sum(p, axis=1)
        v = project(tokens, weights + 2 * D * WIDE, biases + 2 * D, D, C0, C1, C2, PRECISION).to(
            dtype
        )
        mean = tl.dot(p.to(dtype), v, input_precision=PRECISION) / total[:, None]
        to = out_ptr + first + (row[:, None] + (head * at.d + j)[None, :])
        tl.store(to, mean.to(dtype), mask=live[:, None] & (j < at.d)[None, :])
        if SAVES:
            lse = (tl.program_id(0).to(tl.int64) * at.heads + head) * g.n
            tl.store(lse_ptr + lse + a, top + tl.log2(total), mask=live)
    tl.debug_barrier()
    out = load_pieces(out_ptr + first + row, live, C, C0, C1, C2)
    for start in range(0, OUT, BLOCK_N):
        c = start + tl.arange(0, BLOCK_N)
        new = project(
            out, packed_ptr + (IN + start) * WIDE, numbers_ptr + IN + start, BLOCK_N, C0, C1, C2,
            PRECISION,
        )  # fmt: skip
        at_channel = row[:, None] + c[None, :]
        inside = live[:, None] & (c < C)[None, :]
        if residual_ptr is not None:
            old = tl.load(residual_ptr + first + at_channel, mask=inside, other=0.0)
            new += old.to(tl.float32)
        tl.store(y_ptr + first + at_channel, new.to(y_ptr.dtype.element_ty), mask=inside)


def forward(call: Call, saves: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Result and attention's result, [B, H, W, C] each, and if it `saves` what gradients need.

    That is a number for every window, head and query, as of `attention_triton.forward`.
    """
    x, weights, g = call.x.contiguous(), call.weights, call.g
    _, h, w, c = x.shape
    y = torch.empty(x.shape, dtype=call.result_dtype, device=x.device)
    out = torch.empty(x.shape, dtype=call.dtype, device=x.device)
    lse = torch.empty(call.saved_shape if saves else 0, dtype=torch.float32, device=x.device)
    windows = call.saved_shape[0]
    if not windows:
        return y, out, lse
    residual, *rest = dense(call.residual, weights.norm_weight, weights.norm_bias, weights.vectors)
    key = f"{g.n} C{c} heads{call.num_heads} {call.dtype}".replace("torch.", "")
    launch = best("window_attention_branch", key, x, default_launch(call))
    width = max(SMALLEST, triton.next_power_of_2(c // call.num_heads))
    constants = {
        "g": g,
        "at": Layout(
            heads=call.num_heads,
            d=c // call.num_heads,
            d0=width,
            d1=0,
            d2=0,
            q_pixel=c,
            kv_pixel=c,
            q=0,
            k=0,
            v=0,
        ),
        **dict(zip(("C0", "C1", "C2"), split(c), strict=True)),
        "D": width,
        "OUT": triton.cdiv(c, launch.block_n) * launch.block_n,
    }
    with torch.cuda.device_of(x):
        packed, numbers = pack(call, constants)
        forward_kernel[(windows,)](
            x,
            residual,
            *rest,
            packed,
            numbers,
            out,
            y,
            lse,
            call.scale,
            call.eps,
            h,
            w,
            **constants,
            BLOCK=max(SMALLEST, triton.next_power_of_2(g.n)),
            BLOCK_N=launch.block_n,
            SAVES=saves,
            PRECISION=product_precision(call.dtype),
            num_warps=launch.warps,
            num_stages=launch.stages,
            maxnreg=most_registers(x, width),
        )
    return y, out, lse


def pack(call: Call, constants: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Weights [rows, channels] as `pack_kernel` lays them out, and [numbers] float32."""
    weights, g = call.weights, call.g
    rows = 3 * call.num_heads * constants["D"] + constants["OUT"]
    channels = sum(constants[size] for size in ("C0", "C1", "C2"))
    entries = call.num_heads * g.rows
    packed = torch.empty(rows, channels, dtype=call.dtype, device=call.x.device)
    numbers = torch.empty(rows + entries, dtype=torch.float32, device=call.x.device)
    pack_kernel[(rows // ROWS.value + triton.cdiv(entries, ENTRIES.value),)](
        *dense(
            weights.qkv_weight,
            weights.qkv_bias,
            weights.proj_weight,
            weights.proj_bias,
            weights.bias_table,
        ),
        packed,
        numbers,
        **constants,
    )
    return packed, numbers


def default_launch(call: Call) -> Launch:
    """Without a measurement: of up to NARROW channels, two programs fit a multiprocessor."""
    return Launch(64, 64, stages=3 if call.x.shape[-1] <= 128 else 2)


def most_registers(x: Tensor, width: int) -> int | None:
    """Of a thread, or None to leave it to the compiler.

    The latter aims at three programs a multiprocessor, and would spill for it.

    Args:
        x: of the call.
        width: channels of a head, filled up.
    """
    c = x.shape[-1]
    spills = c > NARROW or (c <= 128 and width > SMALLEST and not is_roomy(x))
    return 255 if spills else None
