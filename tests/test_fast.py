"""What `--fast` chooses, and from which figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from restore.commands import fast
from restore.loading import load_builtin
from restore.model import Model


@pytest.fixture
def model() -> Model:
    return load_builtin(2)


@pytest.fixture
def capable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that multiplies bfloat16."""
    monkeypatch.setattr(fast, "bfloat16_refuses", lambda: None)


def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *losses: tuple[str, float]) -> None:
    """Have it that so much was measured, by family and in dB."""
    rows = [{"family": name, "fp32_db": 30.0, "bf16_db": 30.0 - lost} for name, lost in losses]
    (tmp_path / "precision.json").write_text(json.dumps(rows), encoding="utf-8")
    monkeypatch.setattr(fast, "COSTS", tmp_path / "precision.json")


def test_figures_are_those_of_the_benchmark(root: Path) -> None:
    found = json.loads((root / "benchmarks" / "results" / "precision.json").read_text())
    rows = json.loads(fast.COSTS.read_text(encoding="utf-8"))
    assert rows == [{key: row[key] for key in rows[0]} for row in found]
    assert len(rows) >= 3


@pytest.mark.usefixtures("capable")
@pytest.mark.parametrize(
    ("losses", "dtype", "said"),
    [
        ([("SwinIR", 0.003), ("SwinIR", -0.001)], torch.bfloat16, "bf16, which cost SwinIR 0.003"),
        ([("SwinIR", -0.002)], torch.bfloat16, "which cost SwinIR 0.000 dB at most"),
        ([("SwinIR", 0.003), ("SwinIR", 0.02)], torch.float32, "bf16 cost SwinIR 0.020 dB"),
        ([("HAT", 0.001)], torch.float32, "what bf16 costs SwinIR was not measured"),
    ],
)
def test_the_worst_of_a_family_decides(
    losses: list[tuple[str, float]],
    dtype: torch.dtype,
    said: str,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    measured(monkeypatch, tmp_path, *losses)
    found, why = fast.fast_dtype(model)
    assert found == dtype
    assert said in why


def test_a_cpu_without_bfloat16(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "bfloat16_refuses", lambda: "this CPU has no AVX512-BF16")
    expected = "--fast stays in fp32: this CPU has no AVX512-BF16"
    assert fast.fast_dtype(model) == (torch.float32, expected)


@pytest.mark.parametrize(
    ("device", "capability", "why"),
    [
        ("mps", (0, 0), "bf16 was not timed on mps"),
        ("cuda:0", (7, 5), r"bf16 needs compute capability 8.0 and this GPU has (7, 5)"),
        ("cuda:0", (9, 0), None),
    ],
)
def test_gpus(
    device: str, capability: tuple[int, int], why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert fast._not_faster(torch.device(device)) == why
