# mypy: allow-untyped-defs, allow-incomplete-defs
# mypy: disable-error-code="untyped-decorator, assignment"
"""Layer norm of tokens held in pieces (see `triton_blocks`), for kernels. In float32."""

from __future__ import annotations

import triton
import triton.language as tl

from restore.kernels.triton_blocks import load_pieces, scale_pieces, sum_of_products


@triton.jit
def sum_of_pieces(x, D1: tl.constexpr, D2: tl.constexpr):
    """Over the channels of each token: pieces of [N, D] float32 to [N]."""
    s = tl.sum(x[0], axis=1)
    if D1 > 0:
        s += tl.sum(x[1], axis=1)
    if D2 > 0:
        s += tl.sum(x[2], axis=1)
    return s


@triton.jit
def float_pieces(x, D1: tl.constexpr, D2: tl.constexpr):
    """Pieces in float32."""
    z = (x[0].to(tl.float32),)
    if D1 > 0:
        z += (x[1].to(tl.float32),)
    if D2 > 0:
        z += (x[2].to(tl.float32),)
    return z


@triton.jit
def less_mean_piece(x, mean, FIRST: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr):
    """One piece less [N] means, and still 0 from channel D on."""
    y = x - mean[:, None]
    if FIRST + SIZE > D:
        y = tl.where((FIRST + tl.arange(0, SIZE) < D)[None, :], y, 0.0)
    return y


@triton.jit
def less_mean(x, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr):
    """Pieces less the mean of each token's channels."""
    mean = sum_of_pieces(x, D1, D2) / D
    z = (less_mean_piece(x[0], mean, 0, D0, D),)
    if D1 > 0:
        z += (less_mean_piece(x[1], mean, D0, D1, D),)
    if D2 > 0:
        z += (less_mean_piece(x[2], mean, D0 + D1, D2, D),)
    return z


@triton.jit
def standardised(x, eps, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr):
    """Pieces of tokens with mean 0 and variance 1, and [N]: one over what they were divided by."""
    x = less_mean(float_pieces(x, D1, D2), D, D0, D1, D2)
    # the rounding of that mean would shift all channels where they are far from 0
    x = less_mean(x, D, D0, D1, D2)
    factor = tl.rsqrt(sum_of_products(x, x, D1, D2) / D + eps)
    return scale_pieces(x, factor[:, None], D1, D2), factor


@triton.jit
def load_channels(vector, FIRST: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr):
    """A pointer to [D] to one piece [1, SIZE], 0 from channel D on."""
    c = FIRST + tl.arange(0, SIZE)
    return tl.load(vector + c, mask=c < D, other=0.0).to(tl.float32)[None, :]


@triton.jit
def scale_channels(
    x, weight, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr
):
    """Pieces, each channel times its entry of [D] at the pointer `weight`."""
    z = (x[0] * load_channels(weight, 0, D0, D),)
    if D1 > 0:
        z += (x[1] * load_channels(weight, D0, D1, D),)
    if D2 > 0:
        z += (x[2] * load_channels(weight, D0 + D1, D2, D),)
    return z


@triton.jit
def shift_channels(x, bias, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr):
    """Pieces, to each channel its entry of [D] at the pointer `bias` added."""
    z = (x[0] + load_channels(bias, 0, D0, D),)
    if D1 > 0:
        z += (x[1] + load_channels(bias, D0, D1, D),)
    if D2 > 0:
        z += (x[2] + load_channels(bias, D0 + D1, D2, D),)
    return z


@triton.jit
def add_pieces(x, y, D1: tl.constexpr, D2: tl.constexpr):
    """x + y, piece by piece."""
    z = (x[0] + y[0],)
    if D1 > 0:
        z += (x[1] + y[1],)
    if D2 > 0:
        z += (x[2] + y[2],)
    return z


@triton.jit
def cast_pieces(x, DTYPE: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr):
    """Pieces in another dtype."""
    z = (x[0].to(DTYPE),)
    if D1 > 0:
        z += (x[1].to(DTYPE),)
    if D2 > 0:
        z += (x[2].to(DTYPE),)
    return z


@triton.jit
def load_normal(
    rows,
    live,
    weight,
    bias,
    eps,
    DTYPE: tl.constexpr,
    D: tl.constexpr,
    D0: tl.constexpr,
    D1: tl.constexpr,
    D2: tl.constexpr,
):
    """Read tokens and normalise them: [N] pointers to channel 0 and [N] bool to pieces in DTYPE.

    weight and bias are pointers to [D], or None; without a weight tokens stay as they are.
    """
    x = load_pieces(rows, live, D, D0, D1, D2)
    if weight is not None:
        x, _ = standardised(x, eps, D, D0, D1, D2)
        x = scale_channels(x, weight, D, D0, D1, D2)
        if bias is not None:
            x = shift_channels(x, bias, D, D0, D1, D2)
    return cast_pieces(x, DTYPE, D1, D2)
