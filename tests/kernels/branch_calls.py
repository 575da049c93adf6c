"""Calls of the attention branch at the shapes of official networks, for `compiled.py`.

Forward alone: gradients are by the kernels of `attention_calls` and `fused_calls`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from branch_cases import Case

SHAPES = {
    "SwinIR-M": Case((16, 16), (8, 8), (4, 4), 6, 30),
    "SwinIR-M unshifted": Case((16, 16), (8, 8), (0, 0), 6, 30),
    "SwinIR-S": Case((16, 16), (8, 8), (4, 4), 6, 10),
    "SwinIR-L": Case((16, 16), (8, 8), (4, 4), 8, 30),
    "SwinIR-M JPEG": Case((14, 14), (7, 7), (3, 3), 6, 30),
    **{
        f"Uformer {heads * d}{' modulated' * (not without)}": Case(
            (16, 16), (8, 8), (4, 4), heads, d, without=without
        )
        for heads, d in ((1, 16), (2, 16), (2, 32), (4, 32), (8, 32))
        for without in (("vectors",), ())
    },
}
HALF = (torch.float16, torch.bfloat16)


def _call(case: Case, dtype: torch.dtype, *, trained: bool) -> Callable[[], None]:
    def run() -> None:
        given = case.draw(dtype)
        case.run("triton", given)(*(t.requires_grad_(trained) for t in given.values()))

    return run


CALLS = {
    f"{name} {dtype}{' trained' * trained}".replace("torch.", ""): _call(
        case, dtype, trained=trained
    )
    for name, case in SHAPES.items()
    for dtype in HALF
    for trained in (False, True)
}
