"""Attention inside groups of tokens of a like category, from anywhere in the image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from restore.kernels import atd_reference, dispatch
from restore.kernels.attention_geometry import of_groups, too_wide
from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.native_library import with_native
from restore.kernels.precision import lowered
from restore.kernels.windows import symmetric_index

OP = "category_attention"


def category_attention(
    qkv: Tensor,
    category: Tensor,
    logit_scale: Tensor,
    *,
    category_size: int,
    num_heads: int,
    backend: Backend = "auto",
) -> Tensor:
    """Sort the tokens of an image by category, cut the row into equal groups, attend inside each.

        y_a = sum_b softmax_b(q_a . k_b * exp(min(logit_scale, ln 100))) v_b

    over the tokens a, b of one group and head. Tokens of one category keep the order they came in:
    the sort is stable, so that the borders between groups are defined and no backend or device
    moves them. A group has g = min(n, category_size) tokens. Where g does not divide n, the row is
    filled up by its own end reversed: 1 2 3 4 5 grows to 1 2 3 4 5 5 4 3 for g = 4. What is filled
    in acts as keys and values like any other token.

    Args:
        qkv: [B, n, 3C], q before k before v, heads before their channels. Floating point.
        category: [B, n], whole numbers.
        logit_scale: one number, of any shape: the logarithm of the factor of the products.
        category_size: the largest number of tokens of a group.
        num_heads: divides C.
        backend: see `dispatch.choose`.

    Returns:
        [B, n, C], every token at its place, dtype and device of qkv. Gradients of gradients need
        backend="reference" in float32: PyTorch's fused product has none.

    Raises:
        ValueError: a shape or the dtype of category does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Zhang et al., arXiv:2401.08209 (adaptive category-based attention); the stable
    order is ours, the paper does not define one.
    """
    _check(qkv, category, logit_scale, category_size, num_heads)
    run = atd_reference.category_attention
    refused = refusals(qkv, qkv.shape[-1] // 3 // num_heads)
    path = choose(OP, backend, with_native(refused, qkv, logit_scale))
    if path == "triton":
        run = _triton
    elif path == "native":
        from restore.kernels import native_atd

        run = native_atd.category_attention
    elif path == "torch":
        run = _fused
    return run(qkv, category, logit_scale, category_size, num_heads)


def refusals(qkv: Tensor, head_dim: int = 1) -> dict[Path, str | None]:
    """Why each path beside the definition cannot run this call, or None if it can."""
    triton = dispatch.triton_refuses(qkv) or too_wide(head_dim)
    return {"triton": triton, "torch": dispatch.torch_refuses(qkv)}


def _triton(
    qkv: Tensor, category: Tensor, logit_scale: Tensor, category_size: int, num_heads: int
) -> Tensor:
    """The same, each token read where it lies."""
    from restore.kernels.attention_ops import attend

    order = atd_reference.stable_order(category)
    rows = lowered(qkv).unflatten(-1, (3, -1))[:, None]  # [B, 1, n, 3, C]
    geometry = of_groups(min(qkv.shape[1], category_size))
    y = attend(rows, geometry, num_heads, 1.0, log_scale=logit_scale, order=order)
    return y[:, 0]


def _fused(
    qkv: Tensor, category: Tensor, logit_scale: Tensor, category_size: int, num_heads: int
) -> Tensor:
    """The same, with whole rows copied by their number, and PyTorch's fused attention."""
    b, n, c3 = qkv.shape
    size, count = atd_reference.group_sizes(n, category_size)
    padded = count * size
    image = torch.arange(b, device=qkv.device)[:, None]
    order = atd_reference.stable_order(category)  # [B, n]
    filled = order.index_select(1, symmetric_index(n, padded, qkv.device))  # [B, padded]
    x = qkv.reshape(b * n, c3).index_select(0, (filled + image * n).flatten())
    x = x.view(b * count, size, 3, num_heads, c3 // 3 // num_heads).permute(2, 0, 3, 1, 4)
    q, k, v = x.unbind(0)  # [B * count, heads, size, d]
    q = q * atd_reference.logit_factor(logit_scale).to(q.dtype)
    # without a mask PyTorch's kernel for CPUs makes 0 of NaN where rows are shorter than a vector
    mask = q.new_zeros(1, 1, 1, size) if q.device.type == "cpu" else None
    y = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    y = y.transpose(1, 2).reshape(b * padded, c3 // 3)
    place = order.argsort(-1) + image * padded  # of each token in the row of its image
    return y.index_select(0, place.flatten()).view(b, n, c3 // 3)


def _check(
    qkv: Tensor, category: Tensor, logit_scale: Tensor, category_size: int, num_heads: int
) -> None:
    if qkv.dim() != 3 or qkv.shape[-1] % 3:
        raise ValueError(f"{OP}: qkv is {tuple(qkv.shape)}; expected [B, n, 3C]")
    b, n, c3 = qkv.shape
    if n == 0:
        raise ValueError(f"{OP}: qkv is {tuple(qkv.shape)}; expected n of 1 or more")
    if num_heads < 1 or c3 // 3 % num_heads:
        raise ValueError(f"{OP}: num_heads={num_heads} does not divide C={c3 // 3}")
    if tuple(category.shape) != (b, n) or category.is_floating_point():
        raise ValueError(
            f"{OP}: category is {tuple(category.shape)} of {category.dtype}; expected whole "
            f"numbers {(b, n)}"
        )
    if category_size < 1:
        raise ValueError(f"{OP}: category_size is {category_size}; expected 1 or more")
    if logit_scale.numel() != 1:
        raise ValueError(f"{OP}: logit_scale is {tuple(logit_scale.shape)}; expected one number")
