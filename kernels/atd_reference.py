"""The ops of the adaptive token dictionary in plain PyTorch: the definitions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.kernels.precision import full_precision
from restore.kernels.windows import symmetric_index


def dictionary_attention(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens to entries of a dictionary; see `dictionary_attention.dictionary_attention`."""
    with full_precision(q):
        q, k = F.normalize(at_least_float32(q), dim=-1), F.normalize(at_least_float32(k), dim=-1)
        sharpness = 1 + at_least_float32(scale).clamp(0, 1) * math.log(k.shape[1])  # [M]
        similarity = (q @ k.transpose(-2, -1) * sharpness).softmax(-1)  # [B, n, M]
    return similarity.to(v.dtype) @ v, similarity


def refine_dictionary(
    dictionary: Tensor,
    x: Tensor,
    similarity: Tensor,
    weight: Tensor,
    bias: Tensor,
    sigma: Tensor,
    eps: float,
) -> Tensor:
    """Mix what resembles an entry into it; see `dictionary_attention.refine_dictionary`."""
    with full_precision(x):
        by_entry = at_least_float32(similarity).transpose(-2, -1)  # [B, M, n]
        var, mean = torch.var_mean(by_entry, dim=-1, correction=0, keepdim=True)
        weight, bias = at_least_float32(weight)[:, None], at_least_float32(bias)[:, None]
        logits = (by_entry - mean) * (var + eps).rsqrt() * weight + bias
    return mixed_in(dictionary, x, logits, sigma)


def mixed_in(dictionary: Tensor, x: Tensor, logits: Tensor, sigma: Tensor) -> Tensor:
    """[B, M, C]: the entries and means of tokens [B, n, C] by logits [B, M, n], by sigma [M, 1]."""
    dtype = dictionary.dtype
    with full_precision(x):
        dictionary, x, logits, sigma = map(at_least_float32, (dictionary, x, logits, sigma))
        found = logits.softmax(-1) @ x  # [B, M, C]
        kept = sigma.sigmoid()
        return (kept * dictionary + (1 - kept) * found).to(dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """x, or its float32 copy if it is of half precision."""
    return x if x.dtype.itemsize >= 4 else x.float()


def category_attention(
    qkv: Tensor, category: Tensor, logit_scale: Tensor, category_size: int, num_heads: int
) -> Tensor:
    """Attention inside sorted groups; see `category_attention.category_attention`."""
    b, n, c3 = qkv.shape
    size, count = group_sizes(n, category_size)
    order = stable_order(category)
    x = qkv.gather(1, order[:, :, None].expand(-1, -1, c3))
    x = x.index_select(1, symmetric_index(n, count * size, qkv.device))
    x = x.view(b, count, size, 3, num_heads, c3 // 3 // num_heads).permute(3, 0, 1, 4, 2, 5)
    q, k, v = x.unbind(0)  # [B, count, heads, size, d]
    logits = q @ k.transpose(-2, -1) * logit_factor(logit_scale)
    y = logits.softmax(-1).to(v.dtype) @ v
    y = y.transpose(2, 3).reshape(b, count * size, c3 // 3)
    return y.gather(1, order.argsort(-1)[:, :, None].expand(-1, -1, c3 // 3))


def stable_order(category: Tensor) -> Tensor:
    """[B, n] whole numbers to [B, n]: the tokens by category, alike ones as they came."""
    n = category.shape[1]
    # no number twice: exported graphs have no sort that is told what to do with equal ones
    return (category.long() * n + torch.arange(n, device=category.device)).argsort(-1)


def group_sizes(n: int, category_size: int) -> tuple[int, int]:
    """Tokens of a group, and how many groups n tokens make with the last one filled up."""
    size = torch.sym_min(n, category_size)
    return size, (n + size - 1) // size


def logit_factor(logit_scale: Tensor) -> Tensor:
    """exp of the learned scale, at most 100."""
    return logit_scale.clamp(max=math.log(100)).exp()
