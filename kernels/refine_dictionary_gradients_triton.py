# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Gradients of `refine_dictionary_triton`.

With G the gradient of sum_i S_mi x_i:

    dT = S (x G^T - D)    dx = S^T G    dA = f (dT - z e / n)    dweight = e = sum_i dT z

for z the A of mean 0 and variance 1, f = weight / sqrt(var + eps), and D such that the mean of dT
is 0. It is about G . found; what is left of the mean then is found and taken away after, so that
rounding errors of large numbers do not stay in it. The bias cancels in the softmax: its gradient
is 0.

Shape letters: B images, n tokens, M entries, C channels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from restore.kernels.precision import full_precision
from restore.kernels.triton_blocks import SMALLEST, load_tile, product_precision, tile_side

TOKENS = 32  # of a tile


@triton.jit
def shares_of(similarity, moments, total, image, t, tokens, m, M: tl.constexpr):
    """S and z of some tokens: [BLOCK_T, BLOCK_M]."""
    of = moments + image * (4 * M) + m
    start = tl.load(of, mask=m < M, other=0.0)
    mean = tl.load(of + M, mask=m < M, other=0.0)
    factor = tl.load(of + 2 * M, mask=m < M, other=0.0)
    slope = tl.load(of + 3 * M, mask=m < M, other=0.0)
    over = tl.load(total + image * M + m, mask=m < M, other=1.0)
    a = load_tile(similarity + image * tokens * M, t, tokens, m, M).to(tl.float32)
    a = a - start[None, :]
    inside = (t < tokens)[:, None] & (m < M)[None, :]
    s = tl.exp(tl.where(inside, a * slope[None, :], float("-inf"))) / over[None, :]
    return s, (a - mean[None, :]) * factor[None, :]


@triton.jit(do_not_specialize=["tokens"])
def refine_back(
    similarity,
    x,
    moments,
    total,
    to_found,
    along,
    dlogits,
    parts,
    dx,
    tokens,
    M: tl.constexpr,
    C: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
    X_PRECISION: tl.constexpr,
):
    """dx and, with G . found for D, dT of some tokens; sums of dT, dT z and S z over them."""
    image = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    m = tl.arange(0, BLOCK_M)
    ds = tl.zeros([BLOCK_T, BLOCK_M], tl.float32)
    for c0 in range(0, C, BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        some = load_tile(x + image * tokens * C, t, tokens, c, C).to(tl.float32)
        g = load_tile(to_found + image * (M * C), m, M, c, C)
        ds = tl.dot(some, tl.trans(g), ds, input_precision=PRECISION)
    s, z = shares_of(similarity, moments, total, image, t, tokens, m, M)
    dt = s * (ds - tl.load(along + image * M + m, mask=m < M, other=0.0)[None, :])
    inside = (t < tokens)[:, None] & (m < M)[None, :]
    at = (image * tokens + t)[:, None] * M + m[None, :]
    tl.store(dlogits + at, dt, mask=inside)
    part = (image * tl.num_programs(0) + tl.program_id(0)) * (3 * M) + m
    tl.store(parts + part, tl.sum(dt, axis=0), mask=m < M)
    tl.store(parts + part + M, tl.sum(dt * z, axis=0), mask=m < M)
    tl.store(parts + part + 2 * M, tl.sum(s * z, axis=0), mask=m < M)
    for c0 in range(0, C, BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        g = load_tile(to_found + image * (M * C), m, M, c, C)
        out = tl.dot(s, g, input_precision=X_PRECISION)
        at_x = (image * tokens + t)[:, None] * C + c[None, :]
        tl.store(dx + at_x, out, mask=(t < tokens)[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=["tokens"])
def finish_back(
    similarity,
    moments,
    total,
    sums,
    dsimilarity,
    tokens,
    M: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """dA of some tokens, in the place of dT."""
    image = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    m = tl.arange(0, BLOCK_M)
    rest = tl.load(sums + image * (2 * M) + m, mask=m < M, other=0.0)
    e = tl.load(sums + image * (2 * M) + M + m, mask=m < M, other=0.0)
    slope = tl.load(moments + image * (4 * M) + 3 * M + m, mask=m < M, other=0.0)
    s, z = shares_of(similarity, moments, total, image, t, tokens, m, M)
    dt = load_tile(dsimilarity + image * tokens * M, t, tokens, m, M) - s * rest[None, :]
    da = slope[None, :] * (dt - z * (e / tokens)[None, :])
    at = (image * tokens + t)[:, None] * M + m[None, :]
    tl.store(dsimilarity + at, da, mask=(t < tokens)[:, None] & (m < M)[None, :])


def run_backward(
    x: Tensor, similarity: Tensor, to_found: Tensor, found: Tensor, moments: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, of A and of weight, from G; those of A and weight in float32."""
    (b, n, c), entries = x.shape, similarity.shape[2]
    held, tiles = tile_side(entries), triton.cdiv(n, TOKENS)
    dx = torch.empty_like(x)
    dsimilarity = torch.empty((b, n, entries), dtype=torch.float32, device=x.device)
    parts = torch.empty((b, tiles, 3, entries), dtype=torch.float32, device=x.device)
    precision = product_precision(torch.float32)
    refine_back[(tiles, b)](
        similarity,
        x,
        moments,
        total,
        to_found,
        (to_found * found).sum(-1),
        dsimilarity,
        parts,
        dx,
        n,
        entries,
        c,
        BLOCK_T=TOKENS,
        BLOCK_M=held,
        BLOCK_C=SMALLEST,
        PRECISION=precision,
        X_PRECISION="tf32" if x.dtype.itemsize == 2 else precision,
        num_warps=8 if held > 64 else 4,
        num_stages=1,
    )
    rest, by_z, share_z = parts.sum(1).unbind(1)  # [B, M] each
    slopes = by_z - rest * share_z
    finish_back[(tiles, b)](
        similarity,
        moments,
        total,
        torch.stack([rest, slopes], dim=1),
        dsimilarity,
        n,
        entries,
        BLOCK_T=TOKENS,
        BLOCK_M=held,
        num_warps=4,
    )
    return dx, dsimilarity, slopes.sum(0)


@torch.library.custom_op(
    "restore::refine_dictionary_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor dictionary, Tensor x, Tensor similarity, Tensor sigma, "
    "Tensor found, Tensor moments, Tensor total) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def refine_backward_op(
    dy: Tensor,
    dictionary: Tensor,
    x: Tensor,
    similarity: Tensor,
    sigma: Tensor,
    found: Tensor,
    moments: Tensor,
    total: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of dictionary, x, similarity, weight (float32) and sigma."""
    x, similarity = x.contiguous(), similarity.contiguous()
    kept = sigma.float().sigmoid()
    dy32 = dy.float()
    to_found = ((1 - kept) * dy32).contiguous()
    dsigma = (dy32 * (dictionary - found)).sum((0, 2))[:, None] * kept * (1 - kept)
    with torch.cuda.device_of(x), full_precision(x):
        dx, dsimilarity, dweight = run_backward(x, similarity, to_found, found, moments, total)
    return (
        (kept * dy32).to(dictionary.dtype),
        dx,
        dsimilarity.to(similarity.dtype),
        dweight,
        dsigma.to(sigma.dtype),
    )


@refine_backward_op.register_fake
def _(dy, dictionary, x, similarity, sigma, found, moments, total):
    return (
        *(t.new_empty(t.shape) for t in (dictionary, x, similarity)),
        x.new_empty(sigma.shape[0], dtype=torch.float32),
        sigma.new_empty(sigma.shape),
    )
