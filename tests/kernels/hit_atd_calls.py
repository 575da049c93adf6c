"""Calls of the ops of HiT-SR and ATD at the shapes of official networks, for `compiled.py`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from restore.kernels.dictionary_attention import dictionary_attention, refine_dictionary
from restore.kernels.self_correlation import self_correlation

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
BASE = 8  # side of the windows that HiT-SR reduces larger ones to


def trained(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=dtype, requires_grad=True)


def correlation(window: int) -> Callable[[torch.dtype], None]:
    block = max(window // BASE, 1)

    def call(dtype: torch.dtype) -> None:
        qv = trained(dtype, 1, 2 * window, 2 * window, 60)
        weight, bias = trained(torch.float32, 1, block**2), trained(torch.float32, 1)
        position_bias = trained(torch.float32, 6, window**2, window**2 // block**2)
        self_correlation(
            qv,
            weight,
            bias,
            position_bias,
            (window, window),
            reduction=(block, block),
            num_heads=6,
            backend="triton",
        ).sum().backward()

    return call


def dictionary(entries: int, compared: int, channels: int) -> Callable[[torch.dtype], None]:
    def call(dtype: torch.dtype) -> None:
        q, k = (
            trained(torch.float32, 1, 128, compared),
            trained(torch.float32, 1, entries, compared),
        )
        v, scale = trained(dtype, 1, entries, channels), trained(torch.float32, entries)
        y, similarity = dictionary_attention(q, k, v, scale, backend="triton")
        (y.sum() + similarity.sum()).backward()

    return call


def refinement(entries: int, channels: int) -> Callable[[torch.dtype], None]:
    def call(dtype: torch.dtype) -> None:
        entry, x = trained(torch.float32, 1, entries, channels), trained(dtype, 1, 4096, channels)
        similarity = trained(torch.float32, 1, 4096, entries)
        weight, bias = trained(torch.float32, entries), trained(torch.float32, entries)
        sigma = trained(torch.float32, entries, 1)
        refine_dictionary(
            entry, x, similarity, weight, bias, sigma, backend="triton"
        ).sum().backward()

    return call


NETWORKS = {
    **{f"hit window {window}": correlation(window) for window in (4, 8, 16, 32, 48, 64)},
    "atd dictionary": dictionary(128, 20, 210),
    "atd-light dictionary": dictionary(64, 8, 48),
    "atd refinement": refinement(128, 210),
    "atd-light refinement": refinement(64, 48),
}
CALLS: dict[str, Callable[[], None]] = {
    f"{name} {str(dtype).removeprefix('torch.')}": lambda call=call, dtype=dtype: call(dtype)
    for name, call in NETWORKS.items()
    for dtype in DTYPES
}
