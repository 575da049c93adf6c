# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Attention in windows of any pattern, forward: no tile of it ever reaches memory.

A program takes some queries of one head and, one after another, several windows. Where all keys of
a window fit one tile, the tile's bias is looked up once for all of them; where they do not, the
softmax is computed while the keys pass (Milakov and Gimelshein, arXiv:1805.02867). Programs of
neighbouring heads are neighbours, as their channels share cache lines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from restore.kernels.attention_geometry import Geometry, Layout
from restore.kernels.attention_launches import Kernel, default_launch
from restore.kernels.attention_tiles_triton import (
    LOG2_E,
    OPEN,
    bias_tile,
    counts,
    factor_of,
    first_saved,
    keys_pitch,
    load_keys,
    logits,
    pixel_number,
    query_pixels,
    window_place,
)
from restore.kernels.triton_blocks import (
    ALIGNED,
    add_product,
    aligned,
    load_pieces,
    product_precision,
    scale_pieces,
    split,
    store_pieces,
    zero_pieces,
)
from restore.kernels.tuning import Launch, best, multiprocessors


@triton.jit(do_not_specialize=OPEN)
def forward_kernel(
    q_ptr, kv_ptr, table_ptr, log_scale_ptr, order_ptr, chosen_ptr, y_ptr, lse_ptr,
    scale, H, W, q_row, q_image, kv_row, kv_image, windows, stride,
    g: tl.constexpr, at: tl.constexpr, TURNED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHOSEN: tl.constexpr, SAVES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention of some queries of a head in some windows, and what the backward pass needs."""
    ALONE: tl.constexpr = g.opened == 0 and g.m <= BLOCK_N
    size = (H, W)
    n, m = counts(size, g)
    head = tl.program_id(0) % at.heads
    tiles = (n + BLOCK_M - 1) // BLOCK_M
    a = tl.program_id(0) // at.heads % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    first = tl.program_id(0) // (at.heads * tiles)
    factor = factor_of(scale, log_scale_ptr, g) * LOG2_E
    pitch = (q_row, q_image)
    kv_pitch = keys_pitch(pitch, (kv_row, kv_image), at)
    if ALONE:
        b = tl.arange(0, BLOCK_N)
        bias = bias_tile(table_ptr, a, b, head, size, g, at, TURNED, BLOCK_M, BLOCK_N)
    for number in range(first, windows, stride):
        window = number
        if CHOSEN:
            window = tl.load(chosen_ptr + number).to(tl.int32)
        place = window_place(window, size, g, at)
        y, x, live = query_pixels(a, place, order_ptr, size, g)
        rows = pixel_number(y, x, place, pitch) * at.q_pixel + (at.q + head * at.d)
        q = load_pieces(q_ptr + rows, live, at.d, at.d0, at.d1, at.d2)
        top = tl.full([BLOCK_M], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_M], tl.float32)
        out = zero_pieces(BLOCK_M, at.d0, at.d1, at.d2)
        for start in range(0, m, BLOCK_N):
            b = start + tl.arange(0, BLOCK_N)
            k, v = load_keys(kv_ptr, b, place, head, order_ptr, size, kv_pitch, g, at)
            if not ALONE:
                bias = bias_tile(table_ptr, a, b, head, size, g, at, TURNED, BLOCK_M, BLOCK_N)
            s = logits(q, k, bias, a, b, place, size, factor, g, at, BLOCK_N, PRECISION)
            highest = tl.maximum(top, tl.max(s, axis=1))
            p = tl.exp2(s - highest[:, None])
            kept = tl.exp2(top - highest)
            total = total * kept + tl.sum(p, axis=1)
            out = scale_pieces(out, kept[:, None], at.d1, at.d2)
            out = add_product(out, p.to(v[0].dtype), v, at.d1, at.d2, PRECISION)
            top = highest
        out = scale_pieces(out, (1.0 / total)[:, None], at.d1, at.d2)
        rows = pixel_number(y, x, place, (W, H * W)) * at.channels + head * at.d
        store_pieces(y_ptr + rows, live, out, at.d, at.d0, at.d1, at.d2)
        if SAVES:
            saved = lse_ptr + first_saved(number, head, size, g, at)
            tl.store(saved + a, top + tl.log2(total), mask=a < n)


@dataclass(frozen=True)
class Map:
    """A map [B, H, W, ...] as kernels address it."""

    pointer: Tensor
    first: int  # elements from the pointer to the map's first one
    part: int  # from queries to keys to values, where the map holds all
    pixel: int  # from a pixel to the next one of its row
    row: int  # pixels from a row to the next
    image: int  # and from an image to the next

    @classmethod
    def of(cls, x: Tensor) -> Map:
        """Of x where it lies, or of a copy if its channels or pixels are scattered."""
        strides = _pitches(x)
        if strides is None:
            x = x.contiguous()
            strides = _pitches(x) or (x[0, 0, 0].numel(), 0, 0)
        pointer, first = aligned(x)
        return cls(pointer, first, x.stride(3) if x.dim() == 5 else 0, *strides)


def _pitches(x: Tensor) -> tuple[int, int, int] | None:
    """The last three of `Map`, or None where whole pixels do not lead from one to the next."""
    # the stride of an axis of one entry says nothing
    image, row, pixel = (
        stride if side > 1 else None for side, stride in zip(x.shape[:3], x.stride(), strict=False)
    )
    if pixel is None:
        pixel = next((stride for stride in (row, image) if stride), x.shape[-1])
    side_by_side = x.stride(-1) == 1 or x.shape[-1] == 1
    if not side_by_side or not pixel or (row or 0) % pixel or (image or 0) % pixel:
        return None
    return pixel, (row or 0) // pixel, (image or 0) // pixel


@dataclass(frozen=True)
class Call:
    """One call, its arguments checked."""

    q: Tensor  # [B, H, W, 3, C] of queries, keys and values, or [B, H, W, C] of queries alone
    kv: Tensor | None  # [B, H / 2, W / 2, 2, C] of cells, where q is of queries alone
    table: Tensor | None  # [T, heads]
    log_scale: Tensor | None  # one number, in sorted groups
    order: Tensor | None  # [B, W] int64, of sorted tokens
    chosen: Tensor | None  # [K] int64, numbers of windows; None: all of them
    g: Geometry
    heads: int
    scale: float

    @property
    def windows(self) -> int:
        """How many windows are computed."""
        if self.chosen is not None:
            return self.chosen.shape[0]
        return self.g.windows(*self.q.shape[:3])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[B, H, W, C], of the result."""
        b, h, w = self.q.shape[:3]
        return b, h, w, self.q.shape[-1]

    @property
    def saved_shape(self) -> tuple[int, int, int]:
        """Of one number for every query and head."""
        return self.windows, self.heads, self.g.n

    @property
    def d(self) -> int:
        """Channels of a head."""
        return self.shape[3] // self.heads

    @property
    def open_g(self) -> Geometry:
        """What kernels are compiled for."""
        return self.g.open_for(*self.shape[1:3])

    def alone(self, launch: Launch) -> bool:
        """Whether all keys of a window are one tile."""
        return not self.open_g.opened and self.g.m <= launch.block_n

    def launch(self, kernel: Kernel) -> Launch:
        """The best configuration known for one of the kernels."""
        n, m, d, dtype = self.g.n, self.g.m, self.d, self.q.dtype
        if self.open_g.opened:  # the same for stripes of many lengths
            n, m = triton.next_power_of_2(n), triton.next_power_of_2(m)
        ordered = self.g.sorted > 0
        key = f"{n}x{m}{' in order' * ordered} heads of {d} {dtype}".replace("torch.", "")
        default = default_launch(kernel, n, m, d, dtype, ordered)
        return best(f"attention {kernel}", key, self.q, default)

    def layout(self, q_pixel: int, kv_pixel: int, q: int, k: int, v: int) -> Layout:
        """With the heads of this call."""
        d = self.d
        joined, large = int(self.kv is None), int(self._largest >= 2**31)
        return Layout(self.heads, d, *split(d), q_pixel, kv_pixel, q, k, v, joined, large)

    @property
    def _largest(self) -> int:
        """A bound of the numbers of elements that kernels count to, in any of their tensors."""
        b, h, w, c = self.shape
        maps = [self.q] if self.kv is None else [self.q, self.kv]
        spans = [
            sum((side - 1) * stride for side, stride in zip(x.shape, x.stride(), strict=True))
            for x in maps
        ]
        shared = 2 * c * self.windows * self.g.m if self.g.halo else 0  # see `keys_kernel`
        return max(*spans, 3 * b * h * w * c, shared) + ALIGNED

    def inputs(self, *, reuses_bias: bool) -> dict[str, Any]:
        """What all kernels take of them."""
        q = Map.of(self.q)
        kv = q if self.kv is None else Map.of(self.kv)
        k = kv.first if self.kv is not None else kv.first + kv.part
        table = self.table
        if table is not None and not reuses_bias:
            # what neighbouring pairs look up lies in few cache lines
            turned = table.new_empty(table.shape[::-1], dtype=torch.float32)
            table = torch.mul(table.t().float(), math.log2(math.e), out=turned)
        return {
            "q_ptr": q.pointer,
            "kv_ptr": kv.pointer,
            "table_ptr": None if table is None else table.contiguous(),
            "TURNED": not reuses_bias,
            "scale": self.scale,
            "H": self.shape[1],
            "W": self.shape[2],
            "q_row": q.row,
            "q_image": q.image,
            "kv_row": kv.row,
            "kv_image": kv.image,
            "g": self.open_g,
            "at": self.layout(q.pixel, kv.pixel, q.first, k, k + kv.part),
            "PRECISION": product_precision(self.q.dtype),
        }

    def choices(self) -> dict[str, Any]:
        """Which tokens or windows, for the kernels that take them."""
        chosen = None if self.chosen is None else self.chosen.contiguous()
        return {"chosen_ptr": chosen, "CHOSEN": chosen is not None}


def spread(windows: int, others: int, launch: Launch, x: Tensor) -> int:
    """Into how many programs to cut the windows, each with as many as the others or one fewer.

    Args:
        windows: to be computed, one or more.
        others: programs that there are for each window.
        launch: its `waves` times the multiprocessors is the number of programs aimed at.
        x: any tensor of the call.
    """
    wanted = max(1, multiprocessors(x) * launch.waves // others)
    each = -(-windows // wanted)
    return -(-windows // each)


def forward(call: Call, saves: bool) -> tuple[Tensor, Tensor]:
    """[B, H, W, C], and what `backward` needs, [windows, heads, N] float32 if it `saves`."""
    new = torch.empty if call.chosen is None else torch.zeros
    y = new(call.shape, dtype=call.q.dtype, device=call.q.device)
    lse = y.new_empty(call.saved_shape if saves else 0, dtype=torch.float32)
    if not call.windows:
        return y, lse
    launch = call.launch("forward")
    reuses_bias = call.alone(launch)
    programs = call.heads * triton.cdiv(call.g.n, launch.block_m)
    stride = spread(call.windows, programs, launch, y) if reuses_bias else call.windows
    with torch.cuda.device_of(y):
        forward_kernel[(programs * stride,)](
            **call.inputs(reuses_bias=reuses_bias),
            **call.choices(),
            log_scale_ptr=call.log_scale,
            order_ptr=call.order,
            y_ptr=y,
            lse_ptr=lse,
            windows=call.windows,
            stride=stride,
            BLOCK_M=launch.block_m,
            BLOCK_N=launch.block_n,
            SAVES=saves,
            num_warps=launch.warps,
            num_stages=launch.stages,
        )
    return y, lse
