"""Attention from all tokens of an image to a small dictionary, and the dictionary's refinement.

Both are a few large products around a softmax, so of stock ops the definitions are the best use.
"""

from __future__ import annotations

from torch import Tensor

from restore.kernels import atd_reference, dispatch
from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.native_library import with_native
from restore.kernels.precision import lowered

OP = "dictionary_attention"
REFINE_OP = "refine_dictionary"
MAX_ENTRIES = 128  # of a dictionary, which a program holds whole
MAX_COMPARED = 64  # channels of q and k


def dictionary_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, *, backend: Backend = "auto"
) -> tuple[Tensor, Tensor]:
    """Attend from n tokens to the M entries of their image's dictionary by cosine similarity.

        A_im = softmax_m(cos(q_i, k_m) * (1 + clamp(scale_m, 0, 1) * ln M))
        y_i = sum_m A_im v_m

    with cos 0 where a vector is 0. A is computed in float32 or wider, under autocast too: which
    entry is nearest decides what tokens are grouped, and half precision would move many of them.

    Args:
        q: [B, n, r], floating point.
        k: [B, M, r], dtype and device of q.
        v: [B, M, C], any floating point dtype; that of the products with A.
        scale: [M], a sharpness of each entry.
        backend: see `dispatch.choose`; "torch" is the definition, which is made of stock ops.

    Returns:
        y, [B, n, C] in v's dtype (in autocast's where that is on), and A, [B, n, M] in float32, or
        in float64 for such q.

    Raises:
        ValueError: a shape does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Zhang et al., "Transcending the Limit of Local Window: Advanced Super-Resolution
    Transformer with Adaptive Token Dictionary", arXiv:2401.08209 (token dictionary
    cross-attention).
    """
    for name, given in (("q", q), ("k", k), ("v", v)):
        if given.dim() != 3 or given.shape[0] != q.shape[0]:
            raise ValueError(
                f"{OP}: {name} is {tuple(given.shape)}; expected [B, tokens, channels] with "
                f"B={q.shape[0]}"
            )
    if k.shape[2] != q.shape[2]:
        raise ValueError(f"{OP}: k is {tuple(k.shape)} but q {tuple(q.shape)} has r={q.shape[2]}")
    entries = k.shape[1]
    if v.shape[1] != entries or tuple(scale.shape) != (entries,):
        raise ValueError(
            f"{OP}: v is {tuple(v.shape)} and scale {tuple(scale.shape)}, but k {tuple(k.shape)} "
            f"has M={entries}"
        )
    refused = with_native(refusals(q, k, v, scale), q, k, v, scale)
    path = choose(OP, backend, refused)
    if path == "triton":
        from restore.kernels import dictionary_attention_triton as fast

        return fast.forward(q, k, lowered(v), scale)
    if path == "native":
        from restore.kernels import native_atd

        return native_atd.dictionary_attention(q, k, v, scale)
    return atd_reference.dictionary_attention(q, k, v, scale)


def refusals(q: Tensor, k: Tensor, *others: Tensor) -> dict[Path, str | None]:
    """Why each path beside the definition cannot attend from q to k, or None if it can."""
    why = _triton_refuses(k.shape[1], q, k, *others)
    if why is None and q.shape[2] > MAX_COMPARED:
        why = f"r={q.shape[2]}; the kernels compare at most {MAX_COMPARED} channels"
    return {"triton": why, "torch": None}


def refine_refusals(similarity: Tensor, *others: Tensor) -> dict[Path, str | None]:
    """Why each path beside the definition cannot refine by A, or None if it can."""
    why = _triton_refuses(similarity.shape[2], similarity, *others)
    if why is None and not similarity.numel():
        why = f"A is {tuple(similarity.shape)}: there are no tokens to sum over"
    return {"triton": why, "torch": None}


def _triton_refuses(entries: int, *tensors: Tensor) -> str | None:
    for tensor in tensors:
        why = dispatch.triton_refuses(tensor)
        if why:
            return why
    if entries > MAX_ENTRIES:
        return f"M={entries}; the kernels hold at most {MAX_ENTRIES} entries of a dictionary"
    return None


def refine_dictionary(
    dictionary: Tensor,
    x: Tensor,
    similarity: Tensor,
    weight: Tensor,
    bias: Tensor,
    sigma: Tensor,
    eps: float = 1e-5,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Move every entry of a dictionary towards the tokens that are most similar to it.

        T_mi = (A_im - mean_m) / sqrt(var_m + eps) * weight_m + bias_m
        S_mi = softmax_i(T_mi)
        entry_m <- sigmoid(sigma_m) entry_m + (1 - sigmoid(sigma_m)) sum_i S_mi x_i

    with mean_m and var_m (divided by n) over the n tokens of an image, in training and inference
    alike. In float32 or wider, under autocast too: S is about 1 / n. (bias_m cancels in the softmax
    and changes nothing.)

    Args:
        dictionary: [B, M, C], floating point. Not changed.
        x: [B, n, C], the tokens, floating point.
        similarity: [B, n, M], A of `dictionary_attention`.
        weight: [M].
        bias: [M].
        sigma: [M, 1]; large values keep the entry.
        eps: added to the variance.
        backend: see `dispatch.choose`; "torch" is the definition, which is made of stock ops.

    Returns:
        [B, M, C], dtype and device of dictionary.

    Raises:
        ValueError: a shape does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Zhang et al., arXiv:2401.08209 (adaptive dictionary refinement).
    """
    _check_refinement(dictionary, x, similarity, weight, bias, sigma)
    given = (dictionary, x, similarity, weight, bias, sigma)
    refused = refine_refusals(similarity, x, dictionary, weight, bias, sigma)
    path = choose(REFINE_OP, backend, with_native(refused, *given))
    if not dictionary.shape[0]:
        return dictionary.clone()  # PyTorch warns of moments of nothing
    if path == "triton":
        from restore.kernels.refine_dictionary_triton import refine_op

        refined: Tensor = refine_op(similarity, x, dictionary, weight, bias, sigma, eps)[0]
        return refined
    if path == "native":
        from restore.kernels import native_atd

        return native_atd.refine_dictionary(given, eps)
    return atd_reference.refine_dictionary(*given, eps)


def _check_refinement(
    dictionary: Tensor, x: Tensor, similarity: Tensor, weight: Tensor, bias: Tensor, sigma: Tensor
) -> None:
    if dictionary.dim() != 3 or x.dim() != 3:
        raise ValueError(
            f"{REFINE_OP}: dictionary is {tuple(dictionary.shape)} and x {tuple(x.shape)}; "
            "expected [B, M, C] and [B, n, C]"
        )
    b, entries, c = dictionary.shape
    if x.shape[1] == 0:
        raise ValueError(f"{REFINE_OP}: x is {tuple(x.shape)}; expected n of 1 or more")
    expected = {
        "x": (x, (b, x.shape[1], c)),
        "similarity": (similarity, (b, x.shape[1], entries)),
        "weight": (weight, (entries,)),
        "bias": (bias, (entries,)),
        "sigma": (sigma, (entries, 1)),
    }
    for name, (given, shape) in expected.items():
        if tuple(given.shape) != shape:
            raise ValueError(
                f"{REFINE_OP}: {name} is {tuple(given.shape)}; dictionary "
                f"{tuple(dictionary.shape)} and x {tuple(x.shape)} need {shape}"
            )
