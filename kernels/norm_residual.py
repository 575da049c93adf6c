"""A layer norm and the residual that its result is added to."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.native_library import native_refuses
from restore.kernels.norm_linear import check_norm

OP = "norm_residual"


def norm_residual(
    y: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    x: Tensor,
    eps: float = 1e-5,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Normalise each token over its channels and add it to another of the same place.

        x + LN(y)

    LN is that of `norm_linear.norm_linear`.

    Args:
        y: [..., C], floating point, any strides. Not changed.
        norm_weight: [C].
        norm_bias: [C], or None.
        x: like y. Not changed.
        eps: added to the variance, in y's units squared.
        backend: see `dispatch.choose`; "torch" is the definition, which is made of stock ops.

    Returns:
        [..., C], of the wider dtype of x and what a stock norm of y gives.

    Raises:
        ValueError: a shape does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Liu et al., "Swin Transformer V2", arXiv:2111.09883, section 3.2.
    """
    check_norm(OP, y, norm_weight, norm_bias)
    # in a graph the sum says so: sizes that are not known yet cannot be compared
    if not torch.compiler.is_compiling() and x.shape != y.shape:
        raise ValueError(f"{OP}: x is {tuple(x.shape)} but y {tuple(y.shape)}; expected the same")
    if choose(OP, backend, refusals(y, norm_weight, norm_bias, x)) == "native":
        from restore.kernels import native_ops

        return native_ops.norm_residual(y, norm_weight, norm_bias, x, eps)
    return x + F.layer_norm(y, y.shape[-1:], norm_weight, norm_bias, eps)


def refusals(y: Tensor, *others: Tensor | None) -> dict[Path, str | None]:
    """Why each path beside the definition cannot normalise y, or None if it can."""
    return {"native": native_refuses(y, *others), "torch": None}
