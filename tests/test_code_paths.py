"""What `restore doctor` says of the code that computes each op."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from restore.commands.code_paths import code_paths
from restore.kernels import dispatch, native_library

CPU = torch.device("cpu")


def test_every_op_is_told(root: Path) -> None:
    named = set()
    for path in (root / "kernels").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                (target,) = node.targets
                if isinstance(target, ast.Name) and target.id.endswith("OP"):
                    named.add(node.value.value)
    assert len(named) > 10
    assert code_paths(CPU).keys() == named


def test_the_reason_why_no_faster_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    without = (None, "the native library is not built")
    monkeypatch.setattr(native_library, "loaded", lambda: without)
    monkeypatch.setattr(dispatch, "INTERPRETED", False)
    for installed, why in (
        (True, "Triton is for NVIDIA GPUs and this is on cpu"),
        (False, "the package triton is not installed"),
    ):
        monkeypatch.setattr(dispatch, "HAS_TRITON", installed)
        native = "not native, the native library is not built"
        paths = code_paths(CPU)
        for op in ("depthwise_gelu", "gated_projection", "norm_residual"):
            assert paths.pop(op) == f"torch ({native})"
        for op in ("window_block", "correlation_branch", "conv_mlp"):
            assert paths.pop(op) == f"reference ({native})"
        assert set(paths.values()) == {
            f"torch (not triton, {why})",
            f"torch (not triton, {why}; {native})",
        }


def test_a_cpu_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_library, "loaded", lambda: (object(), ""))
    why = "this CPU has no AVX512-BF16"
    monkeypatch.setattr(native_library, "bfloat16_refuses", lambda: why)
    monkeypatch.setattr(dispatch, "HAS_TRITON", False)
    monkeypatch.setattr(dispatch, "INTERPRETED", False)
    without = "not triton, the package triton is not installed"
    assert code_paths(CPU)["mlp"] == (
        f"float32: native ({without}); bfloat16: torch ({without}; not native, autocast asks for "
        f"torch.bfloat16, and {why})"
    )


def test_dtypes_that_differ_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: the dispatch is told that this is one."""
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    monkeypatch.setattr(dispatch, "AUTO", ("triton", "torch"))
    paths = code_paths(CPU)
    products = {paths.pop(op) for op in ("norm_linear", "linear_residual", "mlp")}
    for op in ("depthwise_gelu", "gated_projection", "norm_residual"):
        assert paths.pop(op) == "torch"
    for op in ("window_block", "correlation_branch", "conv_mlp"):
        assert paths.pop(op) == "reference"
    assert set(paths.values()) == {"triton"}
    assert products == {
        "float32: torch (not triton, cuBLAS is the faster one in full float32 precision); "
        "bfloat16: triton"
    }
