"""A depthwise convolution with a GELU behind it, as transformers have in the middle of an MLP."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from restore.kernels import reference
from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.native_library import native_refuses
from restore.kernels.precision import check_dtypes
from restore.kernels.windows import check_pixels

OP = "depthwise_gelu"


def depthwise_gelu(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, residual: bool, backend: Backend = "auto"
) -> Tensor:
    """Convolve each channel of a map by a kernel of its own, and apply a GELU.

        z_c[i, j] = b_c + sum_kl W_c[k, l] x_c[i + k - kh // 2, j + l - kw // 2]
        y = z (1 + erf(z / sqrt 2)) / 2

    with x 0 outside of the map. With `residual`, x + y.

    Args:
        x: [B, H, W, C], floating point, any strides. Not changed.
        weight: W, [C, 1, kh, kw], both sides odd.
        bias: b, [C], or None.
        residual: whether x is added.
        backend: see `dispatch.choose`; "torch" is the definition, which is made of stock ops.

    Returns:
        [B, H, W, C], dtype and device of x; under autocast of its dtype, or with `residual` of the
        wider one of x's dtype and autocast's.

    Raises:
        ValueError: a shape or a dtype does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Li et al., "LocalViT: Bringing Locality to Vision Transformers", arXiv:2104.05707.
    """
    if x.dim() != 4:
        raise ValueError(f"{OP}: x is {tuple(x.shape)}; expected [B, H, W, C]")
    check_pixels(OP, (x.shape[1], x.shape[2]))
    check_kernel(OP, x.shape, weight, bias)
    if choose(OP, backend, refusals(x, weight, bias)) == "native":
        from restore.kernels import native_depthwise

        return native_depthwise.depthwise_gelu(x, weight, bias, residual)
    check_dtypes(OP, x, weight)
    return reference.depthwise_gelu(x, weight, bias, residual)


def check_kernel(op: str, shape: Sequence[int], weight: Tensor, bias: Tensor | None) -> None:
    """Refuse a convolution that is not one of each channel of a map of that shape (ValueError)."""
    c = shape[-1]
    if weight.dim() != 4 or weight.shape[:2] != (c, 1) or 0 in [s % 2 for s in weight.shape[2:]]:
        raise ValueError(
            f"{op}: weight is {tuple(weight.shape)}; x {tuple(shape)} needs [{c}, 1, kh, kw] "
            "with odd sides"
        )
    if bias is not None and tuple(bias.shape) != (c,):
        raise ValueError(f"{op}: bias is {tuple(bias.shape)}; x {tuple(shape)} needs {(c,)}")


def refusals(x: Tensor, *weights: Tensor | None) -> dict[Path, str | None]:
    """Why each path beside the definition cannot convolve x, or None if it can."""
    return {"native": native_refuses(x, *weights), "torch": None}
