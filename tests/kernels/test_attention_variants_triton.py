"""Which calls of attention share kernels, and which share measured launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import interpreted
import pytest
import torch
from torch import Tensor

from restore.kernels import tuning
from restore.kernels.category_attention import category_attention
from restore.kernels.dispatch import HAS_TRITON
from restore.kernels.window_attention import window_attention
from restore.kernels.windows import Size

if HAS_TRITON:
    from restore.kernels import attention_gradients_triton, attention_triton
    from restore.kernels.attention_tiles_triton import OPEN

pytestmark = interpreted.MARKS

SPLIT = 4  # pixels across a stripe
LENGTHS = (34, 64, 250, 1016)
Variant = tuple[object, ...]


class Listening:
    """In the place of a kernel: keeps what it would be compiled for, and launches nothing."""

    def __init__(self, name: str, kernel: Any, heard: set[Variant]) -> None:
        self.name, self.kernel, self.heard = name, kernel, heard

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: object, **kwargs: object) -> None:
            given = dict(zip(self.kernel.arg_names, args, strict=False)) | kwargs
            closed = (
                (name, x if not isinstance(x, Tensor) else x.dtype)
                for name, x in given.items()
                if name not in OPEN
            )
            self.heard.add((self.name, *sorted(closed, key=lambda pair: pair[0])))

        return launch


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> set[Variant]:
    variants: set[Variant] = set()
    for module in (attention_triton, attention_gradients_triton):
        for name in ("forward", "queries", "keys", "bias", "table"):
            kernel = getattr(module, f"{name}_kernel", None)
            if kernel is not None:
                monkeypatch.setattr(
                    module, f"{name}_kernel", Listening(f"{name}_kernel", kernel, variants)
                )
    return variants


def run(size: Size, window: Size, shift: Size, dtype: torch.dtype) -> None:
    """Forward and backward, as the second branch of CAT-A takes a projection."""
    table = torch.zeros((2 * window[0] - 1) * (2 * window[1] - 1), 3, device=interpreted.DEVICE)
    qkv = torch.zeros(1, *size, 3, 180, dtype=dtype, device=interpreted.DEVICE)
    half = qkv.chunk(2, dim=-1)[1].requires_grad_()
    y = window_attention(half, table.requires_grad_(), window, shift, num_heads=3, backend="triton")
    y.sum().backward()


@pytest.mark.parametrize("dtype", interpreted.DTYPES, ids=str)
@pytest.mark.parametrize("tall", [True, False], ids=["columns", "rows"])
def test_pictures_of_every_size_share_kernels(
    heard: set[Variant], tall: bool, dtype: torch.dtype
) -> None:
    for number, length in enumerate(LENGTHS):
        other = SPLIT * (3 + number)
        if tall:
            run((length, other), (length, SPLIT), (0, SPLIT // 2), dtype)
        else:
            run((other, length), (SPLIT, length), (SPLIT // 2, 0), dtype)
        names = sorted(str(variant[0]) for variant in heard)
        kernels = ["bias", "forward", "keys", "queries", "table"]
        assert names == [f"{name}_kernel" for name in kernels], f"stripes of {length} pixels"


def test_windows_that_are_no_stripes_have_their_own(heard: set[Variant]) -> None:
    run((48, 32), (16, 16), (8, 8), torch.float16)
    alone = set(heard)
    run((64, 48), (16, 16), (8, 8), torch.float16)
    assert heard == alone
    run((32, 64), (32, 4), (0, 2), torch.float16)  # one tile forward
    shorter = set(heard)
    run((24, 64), (24, 4), (0, 2), torch.float16)
    assert len(heard) > len(shorter) > len(alone)


def test_groups_are_measured_apart_from_windows_of_as_many_pixels(
    heard: set[Variant], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: set[str] = set()

    def noted(op: str, key: str, x: Tensor, default: tuning.Launch) -> tuning.Launch:
        keys.add(key)
        return default

    monkeypatch.setattr(attention_triton, "best", noted)
    run((16, 32), (16, 16), (0, 0), torch.float16)
    windows = set(keys)
    qkv = torch.zeros(1, 512, 3 * 90, dtype=torch.float16, device=interpreted.DEVICE)
    category = torch.zeros(1, 512, dtype=torch.int64, device=interpreted.DEVICE)
    scale = torch.zeros(1, device=interpreted.DEVICE)
    category_attention(qkv, category, scale, category_size=256, num_heads=3, backend="triton")
    assert len(windows) == len(keys - windows) == 1
