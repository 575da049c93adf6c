"""A linear layer behind a layer norm, straight from the map that the norm sees."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from restore.kernels import dispatch
from restore.kernels import fused_reference as reference
from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.fused_reference import NormedLinear
from restore.kernels.native_library import with_native
from restore.kernels.precision import autocast_dtype, check_dtypes

OP = "norm_linear"
MAX_CHANNELS = 320  # of a token, which a program holds whole; cuBLAS is the faster beyond


def norm_linear(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float = 1e-5,
    *,
    gelu: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Normalise each token over its channels, then project it.

        y = LN(x) W^T + b
        LN(x) = (x - mean) / sqrt(var + eps) * norm_weight + norm_bias

    with mean and var (divided by C, not C - 1) over the channels of a token. The norm, its bias
    and b are each left out where they are None. With `gelu`, y (1 + erf(y / sqrt 2)) / 2 of it.

    Args:
        x: [..., C], floating point, any strides. Not changed.
        norm_weight: [C], or None where x is not to be normalised.
        norm_bias: [C] or None.
        weight: W, [D, C].
        bias: b, [D] or None.
        eps: added to the variance, in x's units squared.
        gelu: whether to apply the exact GELU to the result.
        backend: see `dispatch.choose`; "torch" is the definition, which is made of stock ops.

    Returns:
        [..., D], dtype and device of x; under autocast of its dtype, as a stock linear layer's.

    Raises:
        ValueError: a shape or a dtype does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Ba et al., "Layer Normalization", arXiv:1607.06450; GELU: arXiv:1606.08415.
    """
    check_norm(OP, x, norm_weight, norm_bias)
    check_linear(OP, ("weight", weight), ("bias", bias), x.shape[-1])
    layer = NormedLinear(norm_weight, norm_bias, weight, bias)
    refused = with_native(refusals(x, weight), x, *layer)
    path = choose_path(OP, backend, refused, x)
    if path == "triton":
        from restore.kernels import norm_linear_triton as fast

        return fast.forward(x, layer, eps, gelu)
    if path == "native":
        from restore.kernels import native_ops

        return native_ops.norm_linear(x, layer, eps, gelu)
    check_dtypes(OP, x, weight)
    return reference.norm_linear(x, layer, eps, gelu)


def refusals(x: Tensor, *weights: Tensor) -> dict[Path, str | None]:
    """Why each path beside the definition cannot normalise and project x, or None if it can."""
    return {"triton": product_refuses(x, *weights) or too_wide(x, MAX_CHANNELS), "torch": None}


def choose_path(op: str, backend: Backend, refusals: Mapping[Path, str | None], x: Tensor) -> Path:
    """`dispatch.choose`, by `refusals_of_auto` where nothing is named."""
    return choose(op, backend, refusals_of_auto(refusals, x) if backend == "auto" else refusals)


def refusals_of_auto(refusals: Mapping[Path, str | None], x: Tensor) -> Mapping[Path, str | None]:
    """The refusals, and that "auto" leaves products in full float32 precision to cuBLAS.

    No tensor core computes them, and where arithmetic takes the time, fusing saves none.
    """
    full = x.dtype == torch.float32 and autocast_dtype(x) is None
    if full and refusals["triton"] is None:
        from restore.kernels.compiled_constants import multiplies_float32_in_full

        if multiplies_float32_in_full():
            return {**refusals, "triton": "cuBLAS is the faster one in full float32 precision"}
    return refusals


def product_refuses(x: Tensor, *weights: Tensor) -> str | None:
    """Why no Triton kernel can apply linear layers of these weights to x, or None if one may."""
    why = dispatch.triton_refuses(x)
    if why:
        return why
    found = {x.dtype, *(weight.dtype for weight in weights)}
    if autocast_dtype(x) is not None:
        return "autocast leaves float64 as it is" if torch.float64 in found else None
    return None if len(found) == 1 else f"x is {x.dtype}, a weight is not, and no autocast is on"


def too_wide(x: Tensor, channels: int) -> str | None:
    """Why a kernel that holds whole tokens of so many channels cannot take x, or None if it can."""
    if x.shape[-1] <= channels:
        return None
    return f"C={x.shape[-1]}; the kernel holds at most {channels} channels of a token"


def check_norm(op: str, x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None) -> None:
    """Refuse a norm of other channels than those of x (ValueError)."""
    if x.dim() < 1:
        raise ValueError(f"{op}: x is {tuple(x.shape)}; expected [..., C]")
    if norm_weight is None and norm_bias is not None:
        raise ValueError(f"{op}: norm_bias is given without norm_weight; give both or neither")
    for name, given in (("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        if given is not None and tuple(given.shape) != (x.shape[-1],):
            raise ValueError(
                f"{op}: {name} is {tuple(given.shape)} but x {tuple(x.shape)} has C={x.shape[-1]}"
            )


def check_linear(
    op: str, weight: tuple[str, Tensor], bias: tuple[str, Tensor | None], channels: int
) -> None:
    """Refuse a linear layer of other channels than what goes into it (ValueError).

    Args:
        op: for messages.
        weight: its name and the tensor, [D, channels].
        bias: its name and the tensor, [D], or None.
        channels: of what goes into the layer.
    """
    (weight_name, w), (bias_name, b) = weight, bias
    if w.dim() != 2 or w.shape[1] != channels:
        raise ValueError(f"{op}: {weight_name} is {tuple(w.shape)}; expected [D, {channels}]")
    if b is not None and tuple(b.shape) != (w.shape[0],):
        raise ValueError(
            f"{op}: {bias_name} is {tuple(b.shape)} but {weight_name} {tuple(w.shape)} needs "
            f"{(w.shape[0],)}"
        )
