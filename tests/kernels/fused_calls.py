"""Calls of the fused linear layers at the shapes of official networks, for `compiled.py`.

A key is a network, an op, what is computed in, and how: "autocast" with float32 around it, "few"
with so few tokens that tiles are small, "tf32" where the user lets products of float32 be rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor

from restore.kernels import fused_host
from restore.kernels.linear_residual import linear_residual
from restore.kernels.mlp import mlp
from restore.kernels.norm_linear import norm_linear

MLPS = {  # channels of a token and of the hidden map
    "SwinIR-S": (60, 120),
    "SwinIR-M": (180, 360),
    "SwinIR-L": (240, 480),
    "HAT-S": (144, 288),
    "DRCT 2": (212, 424),
    "DRCT 3": (244, 488),
    "DRCT 4": (276, 276),
    "DRCT 5": (308, 308),
    "CAT": (180, 720),
    "CAT-Unet 1": (48, 192),
    "CAT-Unet 2": (96, 384),
    "CAT-Unet 3": (192, 768),
}
LAYERS = {  # channels before and after; of those with a convolution between also the other way
    "SRFormer": (180, 360),
    "SRFormer-light": (60, 120),
    "SRFormerV2": (240, 480),
    "ATD": (210, 420),
    "ATD-light": (48, 48),
    **{f"Uformer {width}": (width, 4 * width) for width in (16, 32, 64, 128, 256)},
    **{f"qkv {width}": (width, 3 * width) for width in (60, 144, 180, 210, 240, 308)},
}
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def drawn(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=dtype, requires_grad=True)


def whole_mlp(c: int, hidden: int, rows: int, dtype: torch.dtype) -> Tensor:
    x, norm = drawn(dtype, rows, c), (drawn(dtype, c), drawn(dtype, c))
    fc1 = (drawn(dtype, hidden, c), drawn(dtype, hidden))
    fc2 = (drawn(dtype, c, hidden), drawn(dtype, c))
    return mlp(x, *norm, *fc1, *fc2, residual=True, backend="triton")


def two_layers(c: int, wide: int, rows: int, dtype: torch.dtype) -> Tensor:
    x, norm = drawn(dtype, rows, c), (drawn(dtype, c), drawn(dtype, c))
    y = norm_linear(
        x, *norm, drawn(dtype, wide, c), drawn(dtype, wide), gelu=True, backend="triton"
    )
    return linear_residual(y, drawn(dtype, c, wide), drawn(dtype, c), x, backend="triton")


def call_of(
    function: Callable[[int, int, int, torch.dtype], Tensor],
    shape: tuple[int, int],
    dtype: torch.dtype,
    options: str,
) -> Callable[[], None]:
    """Forward and backward."""

    def run() -> None:
        rows = 100 if "few" in options else fused_host.MANY_TOKENS
        rounded = "high" if "tf32" in options else "highest"
        with mock.patch.object(torch, "get_float32_matmul_precision", lambda: rounded):
            if "autocast" in options:
                with torch.autocast("cpu", dtype):
                    y = function(*shape, rows, torch.float32)
            else:
                y = function(*shape, rows, dtype)
            y.backward(torch.zeros_like(y))

    return run


WAYS = {  # to compute products of a dtype; float16 is launched as bfloat16, so mostly left out
    torch.bfloat16: ("", "few", "autocast"),
    torch.float16: ("",),
    torch.float32: ("", "tf32"),
}
CALLS = {
    f"{name} {op} {dtype} {how}".replace("torch.", "").strip(): call_of(function, shape, dtype, how)
    for op, function, shapes in (("mlp", whole_mlp, MLPS), ("layers", two_layers, LAYERS))
    for name, shape in shapes.items()
    for dtype in DTYPES
    for how in WAYS[dtype]
}
