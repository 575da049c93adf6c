"""How the Triton paths are tested: on the GPU where there is one, else by Triton's interpreter.

`tests/conftest.py` asks for the interpreter before anything imports Triton, so a test simply calls
an op with `backend="triton"`. The interpreter takes some milliseconds for a tile of a program: a
few windows a test. A module of such tests begins with `pytestmark = interpreted.MARKS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from exactness import assert_as_exact_as, gradients
from torch import Tensor

from restore.kernels.dispatch import HAS_TRITON

ON_GPU = torch.cuda.is_available()
# the interpreter multiplies bfloat16 as if its bits were whole numbers
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if ON_GPU else [])]
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
MARKS = [
    pytest.mark.skipif(not HAS_TRITON, reason="needs the package triton"),
    # memory that a kernel was to write, or was not to read, shows
    pytest.mark.usefixtures("quick_interpreter", "nan_filled"),
]


def assert_exact(
    ours: Callable[..., Tensor], plain: Callable[..., Tensor], tensors: Sequence[Tensor]
) -> None:
    """Hold an output and every gradient to those of the definition in float64.

    Args:
        ours: the Triton path.
        plain: the definition.
        tensors: what both take and differentiate by, in the dtypes to be tested; computed on
            `DEVICE`.
    """
    tensors = [tensor.to(DEVICE) for tensor in tensors]
    truth = gradients(plain, [tensor.double() for tensor in tensors])
    torch_does = gradients(plain, tensors)
    got = gradients(ours, tensors)
    for one, result, true in zip(torch_does, got, truth, strict=True):
        assert_as_exact_as(one, result, true)


def fill_with_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PyTorch's uninitialised memory hold NaN."""
    # PyTorch notes at the first use of a default device what makes tensors. Were that after the
    # exchange (by a compiler too), `torch.device` would pass over `torch.empty` from then on.
    with torch.device("cpu"):
        torch.empty(0)

    def filled(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def new(*args: Any, **kwargs: Any) -> Tensor:
            x = make(*args, **kwargs)
            return x.fill_(float("nan")) if x.is_floating_point() else x

        return new

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, filled(getattr(owner, name)))


@contextmanager
def hurried() -> Iterator[None]:
    """Let the interpreter prepare `triton.language` once, not in every call of a device function.

    And without its check of every sum of whole numbers: four times as fast in all.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    whole = SimpleNamespace(__globals__={"tl": tl, "core": tl.core})
    options = interpreter.interpreter_builder.options
    prepare = interpreter._patch_lang
    interpreter.interpreter_builder.options = dataclasses.replace(options, sanitize_overflow=False)
    prepared = prepare(whole)
    interpreter._patch_lang = lambda fn: interpreter._LangPatchScope()
    try:
        yield
    finally:
        prepared.restore()
        interpreter._patch_lang = prepare
        interpreter.interpreter_builder.options = options
