"""An MLP with a depthwise convolution of its hidden map, the norm before it and a residual."""

from __future__ import annotations

from torch import Tensor

from restore.kernels.depthwise_gelu import check_kernel, depthwise_gelu
from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.fused_reference import ConvMlpLayers as ConvMlpLayers
from restore.kernels.linear_residual import linear_residual
from restore.kernels.mlp import check_mlp
from restore.kernels.native_library import native_refuses
from restore.kernels.norm_linear import norm_linear
from restore.kernels.windows import check_pixels

OP = "conv_mlp"


def conv_mlp(
    x: Tensor,
    layers: ConvMlpLayers,
    eps: float = 1e-5,
    *,
    added: bool,
    residual: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Normalise and widen each token, convolve each hidden channel, narrow and add.

        h = gelu(LN(x) W1^T + b1)                `norm_linear.norm_linear`
        z = gelu(conv(h)), with `added` plus h   `depthwise_gelu.depthwise_gelu`
        y = z W2^T + b2, with a residual plus it

    On the native path it is one call, in which h and z stay in cache: where only their dtypes would
    have rounded them, y is the more exact. Elsewhere it is those ops, on whole maps.

    Args:
        x: [B, H, W, C], floating point, any strides. Not changed.
        layers: of both linear layers, the norm and the convolution; on x's device.
        eps: added to the variance of a pixel's channels, in x's units squared.
        added: whether h is added to what the convolution makes of it.
        residual: [B, H, W, C], or None.
        backend: of this op, or of those that it is made of; see `dispatch.choose`.

    Returns:
        [B, H, W, C], of the dtype that those ops would give.

    Raises:
        ValueError: a shape or a dtype does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Wang et al., "Uformer", arXiv:2106.03106, section 3.2; with `added` Zhou et al.,
    "SRFormer", arXiv:2303.09735, section 3.3.
    """
    if backend in ("auto", "native"):
        y = conv_mlp_at_once(x, layers, eps, added=added, residual=residual, backend=backend)
        if y is not None:
            return y
    check(x, layers, residual)
    linear = layers.linear
    hidden = norm_linear(x, *linear.first, eps, gelu=True, backend=backend)
    hidden = depthwise_gelu(hidden, layers.weight, layers.bias, residual=added, backend=backend)
    if residual is None:
        second = linear.fc2_weight, linear.fc2_bias
        return norm_linear(hidden, None, None, *second, backend=backend)
    return linear_residual(hidden, linear.fc2_weight, linear.fc2_bias, residual, backend=backend)


def conv_mlp_at_once(
    x: Tensor,
    layers: ConvMlpLayers,
    eps: float = 1e-5,
    *,
    added: bool,
    residual: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor | None:
    """`conv_mlp` where it is one call, which holds no hidden map; else None."""
    if choose(OP, backend, refusals(x, layers, residual)) != "native":
        return None
    from restore.kernels import native_conv_mlp

    check(x, layers, residual)
    return native_conv_mlp.conv_mlp(x, layers, eps, added, residual)


def check(x: Tensor, layers: ConvMlpLayers, residual: Tensor | None) -> None:
    """Refuse layers that do not go with each other and with the maps (ValueError)."""
    if x.dim() != 4:
        raise ValueError(f"{OP}: x is {tuple(x.shape)}; expected [B, H, W, C]")
    check_pixels(OP, (x.shape[1], x.shape[2]))
    check_mlp(OP, x, layers.linear)
    hidden = layers.linear.fc1_weight.shape[0]
    check_kernel(OP, (*x.shape[:3], hidden), layers.weight, layers.bias)
    if residual is not None and residual.shape != x.shape:
        raise ValueError(
            f"{OP}: residual is {tuple(residual.shape)}; x is {tuple(x.shape)}, expected the same"
        )


def refusals(x: Tensor, layers: ConvMlpLayers, residual: Tensor | None) -> dict[Path, str | None]:
    """Why each path beside the definition cannot run a call, or None if it can."""
    from restore.kernels.native_conv_mlp import refuses

    weights = (*layers.linear, layers.weight, layers.bias)
    return {"native": native_refuses(x, *weights, residual) or refuses(layers.weight)}
