# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""`dictionary_attention` in Triton, with gradients.

A program holds some tokens and the whole dictionary: M is at most a few hundred. Cosines are
products in float32 proper, for nothing else keeps tokens in their categories; the products with v
are those of its dtype. The gradient of v, A^T dy, is a product of two large matrices
over all tokens, for which PyTorch's own is the fastest.

Shape letters: B images, n tokens, M entries, r channels that are compared, C channels of v.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from restore.kernels.precision import full_precision
from restore.kernels.triton_blocks import load_tile, product_precision, tile_side

TOKENS = 32  # of a tile
EPS = 1e-12  # the least length that a vector is divided by, as in torch's `normalize`


@triton.jit
def unit(x, EPS: tl.constexpr):
    """Rows divided by their length, and [N, 1]: one over what they were divided by."""
    factor = 1.0 / tl.maximum(tl.sqrt(tl.sum(x * x, axis=1)), EPS)
    return x * factor[:, None], factor[:, None]


@triton.jit
def sharpness(scale, m, M: tl.constexpr, LOG: tl.constexpr):
    """Factor of the cosines with each entry."""
    s = tl.load(scale + m, mask=m < M, other=0.0).to(tl.float32)
    return 1.0 + tl.minimum(tl.maximum(s, 0.0), 1.0) * LOG


@triton.jit(do_not_specialize=["tokens"])
def attend(
    q,
    k,
    v,
    scale,
    y,
    similarity,
    tokens,
    M: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    LOG: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y and A of some tokens."""
    image = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    m = tl.arange(0, BLOCK_M)
    r = tl.arange(0, BLOCK_R)
    own_q, _ = unit(load_tile(q + image * tokens * R, t, tokens, r, R).to(tl.float32), EPS)
    own_k, _ = unit(load_tile(k + image * (M * R), m, M, r, R).to(tl.float32), EPS)
    logits = tl.dot(own_q, tl.trans(own_k), input_precision="ieee")
    logits = logits * sharpness(scale, m, M, LOG)[None, :]
    logits = tl.where((m < M)[None, :], logits, float("-inf"))
    a = tl.exp(logits - tl.max(logits, axis=1)[:, None])
    a = a / tl.sum(a, axis=1)[:, None]
    inside = (t < tokens)[:, None] & (m < M)[None, :]
    tl.store(similarity + (image * tokens + t)[:, None] * M + m[None, :], a, mask=inside)
    p = a.to(v.dtype.element_ty)
    for c0 in range(0, C, BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        part = load_tile(v + image * (M * C), m, M, c, C)
        out = tl.dot(p, part, input_precision=PRECISION)
        at = (image * tokens + t)[:, None] * C + c[None, :]
        tl.store(y + at, out, mask=(t < tokens)[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=["tokens"])
def attend_back(
    q,
    k,
    v,
    scale,
    similarity,
    dy,
    dsimilarity,
    dq,
    dk,
    dscale,
    tokens,
    M: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    LOG: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
    UNIT_PRECISION: tl.constexpr,
):
    """dq of some tokens, and their part in the gradients of k / |k| and of the sharpness."""
    image = tl.program_id(1).to(tl.int64)
    part = image * tl.num_programs(0) + tl.program_id(0)
    m = tl.arange(0, BLOCK_M)
    r = tl.arange(0, BLOCK_R)
    own_k, _ = unit(load_tile(k + image * (M * R), m, M, r, R).to(tl.float32), EPS)
    sharp = sharpness(scale, m, M, LOG)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    row = image * tokens + t
    own_q, factor = unit(load_tile(q + image * tokens * R, t, tokens, r, R).to(tl.float32), EPS)
    a = load_tile(similarity + image * tokens * M, t, tokens, m, M)
    da = tl.zeros([BLOCK_T, BLOCK_M], tl.float32)
    if dsimilarity is not None:
        da += load_tile(dsimilarity + image * tokens * M, t, tokens, m, M)
    if dy is not None:
        for c0 in range(0, C, BLOCK_C):
            c = c0 + tl.arange(0, BLOCK_C)
            some = load_tile(dy + image * tokens * C, t, tokens, c, C)
            of_v = load_tile(v + image * (M * C), m, M, c, C)
            da = tl.dot(some, tl.trans(of_v), da, input_precision=PRECISION)
    dlogits = a * (da - tl.sum(a * da, axis=1)[:, None])
    cosine = tl.dot(own_q, tl.trans(own_k), input_precision=UNIT_PRECISION)
    to_sharp = tl.sum(dlogits * cosine, axis=0)
    dcosine = dlogits * sharp[None, :]
    to_q = tl.dot(dcosine, own_k, input_precision=UNIT_PRECISION)
    along = tl.sum(to_q * own_q, axis=1)[:, None]
    # a vector too short to be divided by its length is divided by a constant
    to_q = (to_q - tl.where(factor < 1.0 / EPS, along, 0.0) * own_q) * factor
    tl.store(
        dq + row[:, None] * R + r[None, :],
        to_q,
        mask=(t < tokens)[:, None] & (r < R)[None, :],
    )
    to_k = tl.dot(tl.trans(dcosine), own_q, input_precision=UNIT_PRECISION)
    at = part * (M * R) + m[:, None] * R + r[None, :]
    tl.store(dk + at, to_k, mask=(m < M)[:, None] & (r < R)[None, :])
    tl.store(dscale + part * M + m, to_sharp, mask=m < M)


def forward(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """See `dictionary_attention.dictionary_attention`; the arguments are checked."""
    y, similarity = attend_op(q, k, v, scale)
    return y, similarity


def constants(q: Tensor, v: Tensor) -> dict[str, Any]:
    """The constants that both kernels take."""
    r, (entries, c) = q.shape[2], v.shape[1:]
    return {
        "M": entries,
        "R": r,
        "C": c,
        "LOG": math.log(entries),
        "EPS": EPS,
        "BLOCK_M": tile_side(entries),
        "BLOCK_R": tile_side(r),
        "BLOCK_C": min(32 if v.dtype.itemsize == 2 else 16, tile_side(c)),
        "PRECISION": product_precision(v.dtype),
    }


@torch.library.custom_op(
    "restore::dictionary_attention",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor scale) -> (Tensor, Tensor)",
)
def attend_op(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The forward pass; see `forward`."""
    q, k, v, scale = (x.contiguous() for x in (q, k, v, scale))
    b, n, _ = q.shape
    y = torch.empty((b, n, v.shape[2]), dtype=v.dtype, device=v.device)
    similarity = torch.empty((b, n, k.shape[1]), dtype=torch.float32, device=q.device)
    with torch.cuda.device_of(q):
        attend[(triton.cdiv(n, TOKENS), b)](
            q,
            k,
            v,
            scale,
            y,
            similarity,
            n,
            **constants(q, v),
            BLOCK_T=TOKENS,
            num_warps=4 if v.dtype.itemsize == 2 else 8,
            num_stages=1,
        )
    return y, similarity


@attend_op.register_fake
def _(q, k, v, scale):
    b, n, _ = q.shape
    return v.new_empty((b, n, v.shape[2])), q.new_empty((b, n, k.shape[1]), dtype=torch.float32)


@torch.library.custom_op(
    "restore::dictionary_attention_backward",
    mutates_args=(),
    schema="(Tensor? dy, Tensor? dsimilarity, Tensor q, Tensor k, Tensor v, Tensor scale, "
    "Tensor similarity) -> (Tensor, Tensor, Tensor, Tensor)",
)
def attend_backward_op(
    dy: Tensor | None,
    dsimilarity: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    similarity: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and scale."""
    dy, dsimilarity = (x if x is None else x.contiguous() for x in (dy, dsimilarity))
    q, k, v, scale = (x.contiguous() for x in (q, k, v, scale))
    (b, n, r), entries = q.shape, k.shape[1]
    tokens = 64 if v.dtype.itemsize == 2 else TOKENS
    parts = triton.cdiv(n, tokens)
    dq = torch.empty_like(q)
    dk = torch.empty((b, parts, entries, r), dtype=torch.float32, device=q.device)
    dscale = torch.empty((b, parts, entries), dtype=torch.float32, device=q.device)
    with torch.cuda.device_of(q), full_precision(q):
        attend_back[(parts, b)](
            q,
            k,
            v,
            scale,
            similarity,
            dy,
            dsimilarity,
            dq,
            dk,
            dscale,
            n,
            **constants(q, v),
            BLOCK_T=tokens,
            # of the gradients of halves, tf32 keeps more than these say
            UNIT_PRECISION="tf32" if v.dtype.itemsize == 2 else product_precision(v.dtype),
            num_warps=8,
            num_stages=1,
        )
        dv = torch.zeros_like(v) if dy is None else similarity.to(v.dtype).mT @ dy
    within = (scale >= 0) & (scale <= 1)
    to_scale = dscale.sum((0, 1)) * math.log(entries) * within
    return dq, _through_unit(k, dk.sum(1)), dv, to_scale.to(scale.dtype)


def _through_unit(k: Tensor, d_unit: Tensor) -> Tensor:
    """The gradient of k from that of k / max(|k|, EPS)."""
    k32 = k.float()
    length = k32.norm(dim=-1, keepdim=True)
    divisor = length.clamp_min(EPS)
    along = (k32 * d_unit).sum(-1, keepdim=True) * (length > EPS) / divisor.square()
    dk: Tensor = (d_unit - along * k32) / divisor
    return dk.to(k.dtype)


@attend_backward_op.register_fake
def _(dy, dsimilarity, q, k, v, scale, similarity):
    return tuple(x.new_empty(x.shape) for x in (q, k, v, scale))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, dsimilarity: Tensor | None) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = attend_backward_op(dy, dsimilarity, *ctx.saved_tensors)
    return found


attend_op.register_autograd(_backward, setup_context=_remember)
