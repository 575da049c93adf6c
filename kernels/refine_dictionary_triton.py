# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""`refine_dictionary` in Triton, with gradients.

T grows or falls with A, so the largest T of an entry is that of its largest or its smallest A. One
pass over A therefore finds all that its softmax needs: mean, variance and the A to count from. A
second one sums exp(T - T_largest) x, each program over its share of the tokens; their sums are
added in a fixed order. Gradients: `refine_dictionary_gradients_triton`.

Shape letters: B images, n tokens, M entries, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from restore.kernels.refine_dictionary_gradients_triton import TOKENS, refine_backward_op
from restore.kernels.triton_blocks import SMALLEST, load_tile, product_precision, tile_side

PROGRAMS = 256  # at most, of those that each sum over a share of the tokens, in all images


@triton.jit(do_not_specialize=["tokens", "steps"])
def moments_of_parts(
    similarity, found, tokens, steps, M: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_M: tl.constexpr
):
    """Mean, sum of squares about it, least and largest A of each entry, over some tokens.

    All but the squares count from the A of the image's first token, for A may be far from 0.
    """
    image = tl.program_id(1).to(tl.int64)
    m = tl.arange(0, BLOCK_M)
    pilot = tl.load(similarity + image * tokens * M + m, mask=m < M, other=0.0).to(tl.float32)
    mean = tl.zeros([BLOCK_M], tl.float32)
    squares = tl.zeros([BLOCK_M], tl.float32)
    least = tl.full([BLOCK_M], float("inf"), tl.float32)
    largest = tl.full([BLOCK_M], float("-inf"), tl.float32)
    for step in range(steps):
        t = (tl.program_id(0) * steps + step) * BLOCK_T + tl.arange(0, BLOCK_T)
        live = (t < tokens)[:, None]
        a = load_tile(similarity + image * tokens * M, t, tokens, m, M).to(tl.float32)
        a = tl.where(live, a - pilot[None, :], 0.0)
        before = step * BLOCK_T * 1.0
        count = tl.sum((t < tokens).to(tl.float32), axis=0)
        mean_here = tl.sum(a, axis=0) / tl.maximum(count, 1.0)
        apart = tl.where(live, a - mean_here[None, :], 0.0)
        share = count / tl.maximum(before + count, 1.0)
        difference = mean_here - mean
        # the sums of two sets of numbers, each about its own mean, about their common one
        squares += tl.sum(apart * apart, axis=0) + difference * difference * before * share
        mean += difference * share
        least = tl.minimum(least, tl.min(tl.where(live, a, float("inf")), axis=0))
        largest = tl.maximum(largest, tl.max(tl.where(live, a, float("-inf")), axis=0))
    at = (image * tl.num_programs(0) + tl.program_id(0)) * (4 * M) + m
    tl.store(found + at, mean, mask=m < M)
    tl.store(found + at + M, squares, mask=m < M)
    tl.store(found + at + 2 * M, least, mask=m < M)
    tl.store(found + at + 3 * M, largest, mask=m < M)


@triton.jit(do_not_specialize=["tokens", "parts", "share"])
def join_moments(
    similarity,
    found,
    weight,
    moments,
    tokens,
    parts,
    share,
    eps,
    M: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Of some entries: the A whose T is the largest, mean counted from it, 1 / deviation, and f."""
    image = tl.program_id(1).to(tl.int64)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    part = tl.arange(0, PARTS)
    inside = (part < parts)[:, None] & (m < M)[None, :]
    at = (image * parts + part)[:, None] * (4 * M) + m[None, :]
    # of the last part, there may be fewer
    count = tl.maximum(tl.minimum(tokens - part * share, share), 0).to(tl.float32)[:, None]
    mean_here = tl.load(found + at, mask=inside, other=0.0)
    mean = tl.sum(mean_here * count, axis=0) / tokens
    apart = tl.where(inside, mean_here - mean[None, :], 0.0)
    # the rounding of that mean is the same in all parts
    rest = tl.sum(apart * count, axis=0) / tokens
    mean += rest
    apart = tl.where(inside, apart - rest[None, :], 0.0)
    squares = tl.load(found + at + M, mask=inside, other=0.0) + apart * apart * count
    factor = 1.0 / tl.sqrt(tl.sum(squares, axis=0) / tokens + eps)
    least = tl.min(tl.load(found + at + 2 * M, mask=inside, other=float("inf")), axis=0)
    largest = tl.max(tl.load(found + at + 3 * M, mask=inside, other=float("-inf")), axis=0)
    slope = factor * tl.load(weight + m, mask=m < M, other=0.0).to(tl.float32)
    start = tl.where(slope < 0, least, largest)
    pilot = tl.load(similarity + image * tokens * M + m, mask=m < M, other=0.0).to(tl.float32)
    to = moments + image * (4 * M) + m
    tl.store(to, pilot + start, mask=m < M)
    tl.store(to + M, mean - start, mask=m < M)
    tl.store(to + 2 * M, factor, mask=m < M)
    tl.store(to + 3 * M, slope, mask=m < M)


@triton.jit(do_not_specialize=["tokens", "steps"])
def gather(
    similarity,
    x,
    moments,
    sums,
    totals,
    tokens,
    steps,
    M: tl.constexpr,
    C: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sums over some tokens of exp(T - T_largest) x, for some channels, and without x."""
    image = tl.program_id(2).to(tl.int64)
    m = tl.arange(0, BLOCK_M)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    start = tl.load(moments + image * (4 * M) + m, mask=m < M, other=0.0)
    slope = tl.load(moments + image * (4 * M) + 3 * M + m, mask=m < M, other=0.0)
    into = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    for step in range(steps):
        t = (tl.program_id(0) * steps + step) * BLOCK_T + tl.arange(0, BLOCK_T)
        inside = (m < M)[:, None] & (t < tokens)[None, :]
        at = (image * tokens + t)[None, :] * M + m[:, None]
        a = tl.load(similarity + at, mask=inside, other=0.0).to(tl.float32)
        p = tl.exp(tl.where(inside, (a - start[:, None]) * slope[:, None], float("-inf")))
        total += tl.sum(p, axis=1)
        some = load_tile(x + image * tokens * C, t, tokens, c, C).to(tl.float32)
        into = tl.dot(p, some, into, input_precision=PRECISION)
    part = image * tl.num_programs(0) + tl.program_id(0)
    inside = (m < M)[:, None] & (c < C)[None, :]
    tl.store(sums + part * (M * C) + m[:, None] * C + c[None, :], into, mask=inside)
    if tl.program_id(1) == 0:
        tl.store(totals + part * M + m, total, mask=m < M)


@triton.jit(do_not_specialize=["parts"])
def finish(
    dictionary,
    sigma,
    sums,
    totals,
    y,
    found,
    total,
    parts,
    M: tl.constexpr,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """An entry's new channels, sum_i S_mi x_i, and the number that its softmax divides by."""
    m = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64)
    part = tl.arange(0, PARTS)
    own = tl.load(totals + (image * parts + part) * M + m, mask=part < parts, other=0.0)
    over = tl.sum(own, axis=0)
    tl.store(total + image * M + m, over)
    kept = tl.sigmoid(tl.load(sigma + m).to(tl.float32))
    for c0 in range(0, C, BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        inside = (part < parts)[:, None] & (c < C)[None, :]
        at = ((image * parts + part)[:, None] * M + m) * C + c[None, :]
        mean = tl.sum(tl.load(sums + at, mask=inside, other=0.0), axis=0) / over
        to = (image * M + m) * C + c
        old = tl.load(dictionary + to, mask=c < C, other=0.0).to(tl.float32)
        tl.store(found + to, mean, mask=c < C)
        tl.store(y + to, kept * old + (1.0 - kept) * mean, mask=c < C)


def shares(n: int, programs: int) -> tuple[int, int]:
    """Tiles of n tokens that each of about so many programs takes, and how many these are then."""
    tiles = triton.cdiv(n, TOKENS)
    steps = triton.cdiv(tiles, max(1, min(tiles, programs)))
    return steps, triton.cdiv(tiles, steps)


def find_moments(similarity: Tensor, weight: Tensor, eps: float) -> Tensor:
    """[B, 4, M]: what `join_moments` finds."""
    b, n, entries = similarity.shape
    steps, parts = shares(n, PROGRAMS // b)
    some = _empty(similarity, b, parts, 4, entries)
    moments_of_parts[(parts, b)](
        similarity,
        some,
        n,
        steps,
        entries,
        BLOCK_T=TOKENS,
        BLOCK_M=tile_side(entries),
        num_warps=4,
    )
    moments = _empty(similarity, b, 4, entries)
    join_moments[(triton.cdiv(entries, SMALLEST), b)](
        similarity,
        some,
        weight,
        moments,
        n,
        parts,
        steps * TOKENS,
        eps,
        entries,
        PARTS=tile_side(parts, PROGRAMS),
        BLOCK_M=SMALLEST,
        num_warps=4,
    )
    return moments


def run_forward(
    dictionary: Tensor, x: Tensor, similarity: Tensor, weight: Tensor, sigma: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The new dictionary, sum_i S_mi x_i, what `join_moments` finds, and the sums of exp."""
    moments = find_moments(similarity, weight, eps)
    (b, n, c), entries = x.shape, similarity.shape[2]
    wide, held = tile_side(c, 64), tile_side(entries)
    chunks = triton.cdiv(c, wide)
    steps, parts = shares(n, PROGRAMS // (b * chunks))
    sums, totals = _empty(x, b, parts, entries, c), _empty(x, b, parts, entries)
    gather[(parts, chunks, b)](
        similarity,
        x,
        moments,
        sums,
        totals,
        n,
        steps,
        entries,
        c,
        BLOCK_T=TOKENS,
        BLOCK_M=held,
        BLOCK_C=wide,
        PRECISION=product_precision(torch.float32),
        num_warps=8 if held > 64 else 4,
        num_stages=2,
    )
    y, found, total = torch.empty_like(dictionary), _empty(x, b, entries, c), _empty(x, b, entries)
    finish[(entries, b)](
        dictionary,
        sigma,
        sums,
        totals,
        y,
        found,
        total,
        parts,
        entries,
        c,
        PARTS=tile_side(parts, PROGRAMS),
        BLOCK_C=tile_side(c, 64),
        num_warps=8,
    )
    return y, found, moments, total


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)


ARGUMENTS = (
    "Tensor similarity, Tensor x, Tensor dictionary, Tensor weight, Tensor bias, Tensor sigma, "
    "float eps"
)


@torch.library.custom_op(
    "restore::refine_dictionary",
    mutates_args=(),
    schema=f"({ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def refine_op(
    similarity: Tensor,
    x: Tensor,
    dictionary: Tensor,
    weight: Tensor,
    bias: Tensor,
    sigma: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `dictionary_attention.refine_dictionary`, and `run_forward` for the other results."""
    similarity, x, dictionary = (t.contiguous() for t in (similarity, x, dictionary))
    with torch.cuda.device_of(x):
        return run_forward(dictionary, x, similarity, weight.contiguous(), sigma.contiguous(), eps)


@refine_op.register_fake
def _(similarity, x, dictionary, weight, bias, sigma, eps):
    b, entries, c = dictionary.shape
    shapes = ((b, entries, c), (b, 4, entries), (b, entries))
    return (
        dictionary.new_empty(dictionary.shape),
        *(x.new_empty(shape, dtype=torch.float32) for shape in shapes),
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    similarity, x, dictionary, weight, bias, sigma, _ = inputs
    ctx.save_for_backward(dictionary, x, similarity, sigma, *output[1:], weight, bias)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor, *unused: None) -> tuple[Tensor | None, ...]:
    *saved, weight, bias = ctx.saved_tensors
    to_dictionary, dx, dsimilarity, dweight, dsigma = refine_backward_op(dy, *saved)
    return (
        dsimilarity,
        dx,
        to_dictionary,
        dweight.to(weight.dtype),
        torch.zeros_like(bias),
        dsigma,
        None,
    )


refine_op.register_autograd(_backward, setup_context=_remember)
