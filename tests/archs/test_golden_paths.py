"""The authors' numbers of small networks by every path: definitions, stock ops, native, Triton.

In float32, with the limits of `test_golden`, and natively in bfloat16 too. Where there is no GPU,
Triton is interpreted, so of every family only one small input is in the fast part.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from exactness import assert_as_exact_as
from golden_data import tiny, tiny_names
from test_golden import SINGLE, assert_float32, load_tiny, off
from torch import Tensor

from restore.kernels import dispatch
from restore.kernels.native_library import bfloat16_refuses, loaded
from restore.kernels.windows import Size

sys.path.append(str(Path(__file__).parents[1] / "kernels"))

import interpreted

# The modules that choose a path. `linear_residual` and `mlp` do as `norm_linear` does, and
# `depthwise_gelu` has no Triton kernel.
OPS = (
    "category_attention",
    "channel_correlation",
    "dictionary_attention",
    "norm_linear",
    "overlapping_attention",
    "permuted_attention",
    "position_table",
    "self_correlation",
    "spatial_correlation",
    "window_attention",
    "window_attention_branch",
)
# those that have a fast path on CPUs alone
ON_CPUS = ("conv_mlp", "correlation_branch", "gated_projection", "norm_residual", "window_block")
PATHS: dict[str, tuple[dispatch.Path, ...]] = {
    "reference": (),
    "torch": ("torch",),
    "triton": ("triton",),
    "native": ("native", "torch"),  # outputs alone, and it has not every op
}
SLOW = (pytest.mark.slow, pytest.mark.timeout(1800))  # Triton's interpreter takes minutes
FAST = (  # the smallest of every family
    "atd_3 b",
    "cat_2 b",
    "drct_2 a",
    "hat_2 a",
    "hit_sr_3 c",
    "srformer_2 b",
    "swinir_3 b",
    "uformer_1 a",
)
LARGE = ("triton", "uformer_1 a")  # a minute, if Triton is interpreted
CALLS = [
    pytest.param(
        path,
        *call.split(),
        marks=() if call in FAST and (path, call) != LARGE else SLOW,
    )
    for path in ("reference", "torch", "triton")
    for call in (f"{name} {tag}" for name in tiny_names() for tag in tiny(name).inputs)
]
Refusals = Mapping[dispatch.Path, str | None]


@pytest.fixture
def taken(path: str, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """The paths that were taken and the ops that took them, where "auto" may take but one."""
    if path == "triton" and not interpreted.HAS_TRITON:
        pytest.skip("needs the package triton")
    found: set[tuple[str, str]] = set()

    def noted(op: str, asked: dispatch.Backend, refusals: Refusals) -> dispatch.Path:
        chosen = dispatch.choose(op, asked, refusals)
        found.add((chosen, op))
        return chosen

    monkeypatch.setattr(dispatch, "AUTO", PATHS[path])
    for op in (*OPS, *ON_CPUS) if path == "native" else OPS:
        monkeypatch.setattr(importlib.import_module(f"restore.kernels.{op}"), "choose", noted)
    if path == "triton":
        interpreted.fill_with_nan(monkeypatch)
        for name in ("compiled_constants", "window_attention_branch_ops"):
            # products in full float32 precision too, which "auto" leaves to cuBLAS
            module = importlib.import_module(f"restore.kernels.{name}")
            monkeypatch.setattr(module, "multiplies_float32_in_full", lambda: False)
    return found


@pytest.fixture
def quick() -> Iterator[None]:
    """The interpreter without what costs it most, where there is one."""
    with interpreted.hurried() if dispatch.INTERPRETED else contextlib.nullcontext():
        yield


def hold(name: str, tag: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # of convolutions on a GPU
    assert_float32(tiny(name), tag, str(device))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("path", "name", "tag"), CALLS)
def test_outputs_and_gradients(
    path: str,
    name: str,
    tag: str,
    taken: set[tuple[str, str]],
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold(name, tag, device, monkeypatch)
    assert {chosen for chosen, _ in taken} == {path}, taken


@pytest.mark.skipif(loaded()[0] is None, reason=loaded()[1])
@pytest.mark.parametrize("path", ["native"])
@pytest.mark.parametrize("name", tiny_names())
def test_native_outputs(name: str, taken: set[tuple[str, str]]) -> None:
    case = tiny(name)
    model = load_tiny(case, "fp32")
    for tag in case.inputs:
        with torch.inference_mode():
            y = model(case.image(tag))
        allowed = SINGLE * float(case.numbers[f"max_abs_y_{tag}"])
        assert off(y, case.tensor(f"y_{tag}")) <= allowed
    assert "native" in {chosen for chosen, _ in taken}


@pytest.mark.skipif(bfloat16_refuses() is not None, reason=str(bfloat16_refuses()))
@pytest.mark.parametrize("path", ["native"])
@pytest.mark.parametrize("name", tiny_names())
def test_native_outputs_in_bfloat16(
    name: str, taken: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within twice the error of stock ops in the same arithmetic."""
    case = tiny(name)
    model = load_tiny(case, "bf16")
    for tag in case.inputs:
        with torch.inference_mode():
            y = model(case.image(tag))
            with monkeypatch.context() as stock:
                stock.setattr(dispatch, "AUTO", PATHS["torch"])
                plain = model(case.image(tag))
        assert_as_exact_as(plain, y, case.tensor(f"y_{tag}"))
    assert "native" in {chosen for chosen, _ in taken}


@pytest.mark.skipif(not dispatch.INTERPRETED, reason="in float32 no GPU has registers for it")
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("path", "name", "tag"),
    [
        ("triton", "swinir_3", "b"),
        pytest.param("triton", "swinir_1", "b", marks=SLOW),
        pytest.param("triton", "uformer_2", "b", marks=SLOW),
    ],
)
def test_windows_that_are_one_program(
    name: str, tag: str, taken: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in half precision, for which there are no numbers."""
    from restore.kernels import window_attention_branch_ops as ops
    from restore.kernels import window_attention_branch_triton as fused

    def refuses(x: Tensor, weights: Any, window_size: Size, dtype: torch.dtype) -> str | None:
        return fused_refuses(x, weights, window_size, torch.float16)

    calls = []
    run = fused.forward
    fused_refuses = ops.fused_refuses
    monkeypatch.setattr(ops, "fused_refuses", refuses)
    monkeypatch.setattr(fused, "forward", lambda *given: calls.append(given) or run(*given))
    hold(name, tag, torch.device("cpu"), monkeypatch)
    assert calls
    assert ("triton", "window_attention_branch") in taken
