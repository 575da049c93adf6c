"""A linear layer and the residual that its result is added to."""

from __future__ import annotations

from torch import Tensor

from restore.kernels import dispatch
from restore.kernels import fused_reference as reference
from restore.kernels.dispatch import Backend, Path
from restore.kernels.native_library import with_native
from restore.kernels.norm_linear import check_linear, choose_path, product_refuses
from restore.kernels.precision import check_dtypes

OP = "linear_residual"


def linear_residual(
    y: Tensor, weight: Tensor, bias: Tensor | None, x: Tensor, *, backend: Backend = "auto"
) -> Tensor:
    """Project each token and add it to another of the same place.

        x + y W^T + b

    Args:
        y: [..., K], floating point, any strides. Not changed.
        weight: W, [C, K].
        bias: b, [C], or None.
        x: [..., C], the same first sides as y. Not changed.
        backend: see `dispatch.choose`; "torch" is the definition, which is made of stock ops.

    Returns:
        [..., C], dtype and device of x; under autocast the wider one of x's dtype and autocast's.

    Raises:
        ValueError: a shape or a dtype does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: He et al., "Deep Residual Learning", arXiv:1512.03385, equation 1.
    """
    if y.dim() < 1:
        raise ValueError(f"{OP}: y is {tuple(y.shape)}; expected [..., K]")
    check_linear(OP, ("weight", weight), ("bias", bias), y.shape[-1])
    shape = (*y.shape[:-1], weight.shape[0])
    if x.shape != shape:
        raise ValueError(
            f"{OP}: x is {tuple(x.shape)}; y {tuple(y.shape)} and weight {tuple(weight.shape)} "
            f"need {tuple(shape)}"
        )
    refused = with_native(refusals(y, weight, x), y, weight, bias, x)
    path = choose_path(OP, backend, refused, y)
    if path == "triton":
        from restore.kernels import linear_residual_triton as fast

        return fast.forward(y, weight, bias, x)
    if path == "native":
        from restore.kernels import native_ops

        return native_ops.linear_residual(y, weight, bias, x)
    check_dtypes(OP, y, weight)
    return reference.linear_residual(y, weight, bias, x)


def refusals(y: Tensor, weight: Tensor, x: Tensor) -> dict[Path, str | None]:
    """Why each path beside the definition cannot project y and add x, or None if it can."""
    why = product_refuses(y, weight) or dispatch.triton_refuses(x)
    return {"triton": why, "torch": None}
