"""A whole Swin block: attention in windows, then an MLP, each behind a norm and added."""

from __future__ import annotations

from torch import Tensor

from restore.kernels.dispatch import Backend, choose
from restore.kernels.mlp import MlpLayers, check_mlp, mlp
from restore.kernels.native_library import native_refuses
from restore.kernels.window_attention_branch import (
    BranchWeights,
    check_branch,
    window_attention_branch,
)
from restore.kernels.window_attention_branch_reference import Call
from restore.kernels.windows import Size

OP = "window_block"


def window_block(
    x: Tensor,
    weights: BranchWeights,
    layers: MlpLayers,
    window_size: Size,
    shift: Size = (0, 0),
    *,
    num_heads: int,
    scale: float | None = None,
    eps: float = 1e-5,
    mlp_eps: float = 1e-5,
    spare: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Add what attention makes of a map, then what an MLP makes of the sum.

        y = x + branch(x)        branch: `window_attention_branch.window_attention_branch`
        z = y + mlp(y)           mlp: `mlp.mlp`

    On the native path both are one call, and y is never written: where only y's dtype would have
    rounded it, z is the more exact. Elsewhere it is those two ops.

    Args:
        x: [B, H, W, C], floating point. Not changed but with `spare`.
        weights: of the branch; on x's device. It has a norm.
        layers: of the MLP; on x's device. It has a norm.
        window_size: wh rows and ww columns; they divide H and W.
        shift: rows and columns by which the map is rolled up and left; each in 0 <= s < window.
        num_heads: divides C.
        scale: factor of the products; (C / num_heads) ** -0.5 if None.
        eps: added to the variance of a pixel's channels before the branch, in x's units squared.
        mlp_eps: the same before the MLP.
        spare: whether x is needed no more, so that its memory may hold the result.
        backend: of this op, or of the two that it is made of; see `dispatch.choose`.

    Returns:
        [B, H, W, C], of the dtype that the two ops would give.

    Raises:
        ValueError: a shape does not fit, or a norm is missing.
        BackendUnavailable: the named backend cannot run this call.

    Source: Liu et al., "Swin Transformer", arXiv:2103.14030, equation 3.
    """
    if weights.norm_weight is None or layers.norm_weight is None:
        raise ValueError(f"{OP}: a norm is missing; give weights and layers a norm_weight each")
    if backend in ("auto", "native"):
        refused = native_refuses(x, *weights, *layers)
        if choose(OP, backend, {"native": refused}) == "native":
            from restore.kernels import native_ops

            check_branch(OP, x, weights, window_size, shift, num_heads)
            check_mlp(OP, x, layers)
            scale = (x.shape[-1] // num_heads) ** -0.5 if scale is None else scale
            call = Call(x, weights, None, window_size, shift, num_heads, scale, eps)
            return native_ops.window_block(call, layers, mlp_eps, spare)
    y = window_attention_branch(
        x,
        weights,
        window_size,
        shift,
        num_heads=num_heads,
        scale=scale,
        eps=eps,
        residual=x,
        backend=backend,
    )
    return mlp(y, *layers, mlp_eps, residual=True, backend=backend)
