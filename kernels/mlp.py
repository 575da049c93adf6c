"""The multilayer perceptron of a transformer block, with the norm before it and its residual."""

from __future__ import annotations

from torch import Tensor

from restore.kernels import fused_reference as reference
from restore.kernels.dispatch import Backend
from restore.kernels.fused_reference import MlpLayers as MlpLayers
from restore.kernels.native_library import with_native
from restore.kernels.norm_linear import check_linear, check_norm, choose_path, refusals
from restore.kernels.precision import check_dtypes

OP = "mlp"


def mlp(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    fc1_weight: Tensor,
    fc1_bias: Tensor | None,
    fc2_weight: Tensor,
    fc2_bias: Tensor | None,
    eps: float = 1e-5,
    *,
    residual: bool,
    backend: Backend = "auto",
) -> Tensor:
    """Normalise each token, widen it, apply a GELU, narrow it, and add it to what came in.

        y = gelu(LN(x) W1^T + b1) W2^T + b2        gelu(h) = h (1 + erf(h / sqrt 2)) / 2
        x + y with `residual`, else y

    LN is that of `norm_linear.norm_linear`. The norm, its bias, b1 and b2 are each left out where
    they are None.

    Args:
        x: [..., C], floating point, any strides. Not changed.
        norm_weight: [C], or None where x is not to be normalised.
        norm_bias: [C] or None.
        fc1_weight: W1, [hidden, C].
        fc1_bias: b1, [hidden] or None.
        fc2_weight: W2, [C, hidden].
        fc2_bias: b2, [C] or None.
        eps: added to the variance, in x's units squared.
        residual: whether x is added.
        backend: see `dispatch.choose`; "torch" is the definition, which is made of stock ops.

    Returns:
        [..., C], dtype and device of x; under autocast of its dtype, or with `residual` of the
        wider one of x's dtype and autocast's.

    Raises:
        ValueError: a shape or a dtype does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, section 3.3; with a GELU
    and the norm before it as in Liu et al., "Swin Transformer", arXiv:2103.14030, equation 3.
    """
    layers = MlpLayers(norm_weight, norm_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    check_mlp(OP, x, layers)
    refused = with_native(refusals(x, fc1_weight, fc2_weight), x, *layers)
    path = choose_path(OP, backend, refused, x)
    if path == "triton":
        from restore.kernels import mlp_triton as fast

        return fast.forward(x, layers, eps, residual)
    if path == "native":
        from restore.kernels import native_ops

        return native_ops.mlp(x, layers, eps, residual)
    check_dtypes(OP, x, fc1_weight)
    return reference.mlp(x, layers, eps, residual)


def check_mlp(op: str, x: Tensor, layers: MlpLayers) -> None:
    """Refuse layers that do not go with each other and with x (ValueError)."""
    check_norm(op, x, layers.norm_weight, layers.norm_bias)
    fc1, fc2, channels = layers.fc1_weight, layers.fc2_weight, x.shape[-1]
    check_linear(op, ("fc1_weight", fc1), ("fc1_bias", layers.fc1_bias), channels)
    check_linear(op, ("fc2_weight", fc2), ("fc2_bias", layers.fc2_bias), fc1.shape[0])
    if fc2.shape[0] != channels:
        raise ValueError(
            f"{op}: fc2_weight is {tuple(fc2.shape)} but x {tuple(x.shape)} has C={channels}"
        )
