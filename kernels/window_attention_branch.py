"""Attention in windows and all that stands around it: norm, projections and residual."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.kernels import window_attention
from restore.kernels import window_attention_branch_reference as reference
from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.native_library import wants_gradient, with_native
from restore.kernels.norm_linear import check_norm, product_refuses, too_wide
from restore.kernels.precision import autocast_dtype, check_dtypes
from restore.kernels.window_attention import check_heads, check_windows
from restore.kernels.window_attention_branch_reference import BranchWeights as BranchWeights
from restore.kernels.window_attention_branch_reference import Call
from restore.kernels.windows import Size

OP = "window_attention_branch"
# what the registers and the shared memory of one program hold
MOST_PIXELS = 64
MOST_CHANNELS = 256
MOST_OF_HEAD = 64
WIDEST_NORM = 384  # channels that the kernels of norms hold


def window_attention_branch(
    x: Tensor,
    weights: BranchWeights,
    window_size: Size,
    shift: Size = (0, 0),
    *,
    num_heads: int,
    scale: float | None = None,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Normalise a map, attend inside its windows, project, and add: the first half of a Swin block.

        y = residual + attend((norm(x) + vectors) Wqkv^T + bqkv) Wproj^T + bproj

    with `attend` that of `window_attention.window_attention`, norm over the channels of a pixel,
    and vectors[a] at pixel a of every window of the rolled map. Norm, vectors, biases of the
    projections and residual are each left out where they are None.

    Args:
        x: [B, H, W, C], floating point.
        weights: of the norm and the projections, the bias table and the vectors; on x's device.
        window_size: wh rows and ww columns; they divide H and W.
        shift: rows and columns by which the map is rolled up and left; each in 0 <= s < window.
        num_heads: divides C.
        scale: factor of the products; (C / num_heads) ** -0.5 if None.
        eps: added to the variance of a pixel's channels, in x's units squared.
        residual: [B, H, W, C], mostly x itself.
        backend: see `dispatch.choose`.

    Returns:
        [B, H, W, C], of the dtype that stock layers and a stock sum would give.

    Raises:
        ValueError: a shape or a dtype does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Liu et al., "Swin Transformer", arXiv:2103.14030, equation 3; vectors: Wang et al.,
    "Uformer", arXiv:2106.03106, section 3.3 (multi-scale restoration modulator).
    """
    check_branch(OP, x, weights, window_size, shift, num_heads, residual)
    if scale is None:
        scale = (x.shape[-1] // num_heads) ** -0.5
    call = Call(x, weights, residual, window_size, shift, num_heads, scale, eps)
    given = (x, residual, *weights)
    refused = with_native(refusals(x, weights, window_size), *given, has_backward=True)
    path = choose(OP, backend, refused)
    if path == "triton":
        from restore.kernels import window_attention_branch_ops as ops

        return ops.forward(call)
    if path == "native":
        from restore.kernels import native_ops

        if wants_gradient(*given):  # with stock layers around attention, which have a backward
            return reference.window_attention_branch(call, native_ops.window_attention)
        return native_ops.window_attention_branch(call)
    check_dtypes(OP, x, weights.qkv_weight)
    if path == "torch":
        from restore.kernels import window_attention_torch as fast

        return reference.window_attention_branch(call, fast.forward)
    return reference.window_attention_branch(call)


def refusals(x: Tensor, weights: BranchWeights, window_size: Size) -> dict[Path, str | None]:
    """Why each path beside the definition cannot run this call, or None if it can."""
    attention = window_attention.refusals(x, x.shape[-1] // weights.bias_table.shape[1])
    why = attention["triton"] or product_refuses(x, weights.qkv_weight, weights.proj_weight)
    if why is None and weights.norm_weight is not None:
        dtype = autocast_dtype(x) or weights.qkv_weight.dtype
        several = fused_refuses(x, weights, window_size, dtype)
        why = too_wide(x, WIDEST_NORM) if several else None
    return {"triton": why, "torch": attention["torch"]}


def fused_refuses(
    x: Tensor, weights: BranchWeights, window_size: Size, dtype: torch.dtype
) -> str | None:
    """Why a window is more than one program of Triton can hold, or None if it is not.

    The op then runs as several kernels, through memory.

    Args:
        x: as of the op.
        weights: as of the op.
        window_size: as of the op.
        dtype: of the products.
    """
    _, h, w, c = x.shape
    n, head_dim = window_size[0] * window_size[1], c // weights.bias_table.shape[1]
    if dtype.itemsize > 2:
        return "it multiplies float16 and bfloat16; float32 takes twice the registers"
    if n > MOST_PIXELS or c > MOST_CHANNELS or head_dim > MOST_OF_HEAD:
        return (
            f"windows of {n} pixels, C={c}, heads of {head_dim}: more than {MOST_PIXELS}, "
            f"{MOST_CHANNELS} or {MOST_OF_HEAD}"
        )
    if h * w * c >= 2**31:
        return f"an image of {h} x {w} x {c} numbers has more than 2**31"
    return None


def check_branch(
    op: str,
    x: Tensor,
    weights: BranchWeights,
    window_size: Size,
    shift: Size,
    num_heads: int,
    residual: Tensor | None = None,
) -> None:
    """Refuse what does not go with each other (ValueError); `op` is for messages."""
    if x.dim() != 4:
        raise ValueError(f"{op}: x is {tuple(x.shape)}; expected [B, H, W, C]")
    _, h, w, c = x.shape
    wh, ww = window_size
    check_windows(op, (h, w), window_size, shift)
    rows = (2 * wh - 1) * (2 * ww - 1)
    check_heads(op, c, weights.bias_table, rows, window_size, num_heads)
    check_norm(op, x, weights.norm_weight, weights.norm_bias)
    expected = {
        "qkv_weight": (3 * c, c),
        "qkv_bias": (3 * c,),
        "proj_weight": (c, c),
        "proj_bias": (c,),
        "vectors": (wh * ww, c),
    }
    for name, shape in expected.items():
        given = getattr(weights, name)
        if given is not None and tuple(given.shape) != shape:
            raise ValueError(
                f"{op}: {name} is {tuple(given.shape)}; C={c} and window_size {window_size} need "
                f"{shape}"
            )
    if residual is not None and residual.shape != x.shape:
        raise ValueError(
            f"{op}: residual is {tuple(residual.shape)}; expected that of x, {tuple(x.shape)}"
        )
