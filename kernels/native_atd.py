"""The native path of the ops of the adaptive token dictionary; see `native_ops`.

In float32 throughout; under autocast results are rounded to the dtypes that stock ops would give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from restore.kernels import atd_reference, native_calls
from restore.kernels.native_library import library
from restore.kernels.native_weights import LOG2_E
from restore.kernels.precision import autocast_dtype


def category_attention(
    qkv: Tensor, category: Tensor, logit_scale: Tensor, category_size: int, num_heads: int
) -> Tensor:
    """See `category_attention.category_attention`."""
    dtype = autocast_dtype(qkv) or qkv.dtype
    qkv = qkv.float().contiguous()
    b, n, c3 = qkv.shape
    size, _ = atd_reference.group_sizes(n, category_size)
    order = atd_reference.stable_order(category).contiguous()
    out = qkv.new_empty(b, n, c3 // 3)
    argument = native_calls.Groups(
        *(qkv.data_ptr(), out.data_ptr(), order.data_ptr()),
        *out.shape,
        num_heads,
        size,
        math.exp(min(logit_scale.item(), math.log(100))) * LOG2_E,
    )
    if out.numel():
        library().run("restore_groups", argument)
    return out.to(dtype)


def dictionary_attention(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """See `dictionary_attention.dictionary_attention`."""
    dtype = autocast_dtype(v) or v.dtype
    q, k, v, scale = (t.float().contiguous() for t in (q, k, v, scale))
    b, n, compared = q.shape
    entries, channels = v.shape[1:]
    sharpness = (1 + scale.clamp(0, 1) * math.log(entries)) * LOG2_E
    key = (F.normalize(k, dim=-1) * sharpness[:, None]).mT.contiguous()
    similarity, out = q.new_empty(b, n, entries), q.new_empty(b, n, channels)
    argument = native_calls.Dictionary(
        *(x.data_ptr() for x in (q, key, v, similarity, out)),
        *(b, n, entries, compared, channels),
    )
    if similarity.numel():
        library().run("restore_dictionary", argument)
    return out.to(dtype), similarity


def refine_dictionary(given: Sequence[Tensor], eps: float) -> Tensor:
    """See `dictionary_attention.refine_dictionary`, whose tensors are given in its order."""
    dictionary, x, similarity, weight, bias, sigma = (t.float().contiguous() for t in given)
    b, entries, channels = dictionary.shape
    out = x.new_empty(b, entries, channels)
    argument = native_calls.Refinement(
        *(t.data_ptr() for t in (similarity, x, dictionary, weight, bias, sigma, out)),
        *(b, x.shape[1], entries, channels),
        eps,
    )
    if out.numel():
        library().run("restore_refinement", argument)
    return out.to(given[0].dtype)
