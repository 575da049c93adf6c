"""What `--fast` chooses: bfloat16 where it is faster and was measured to cost next to nothing."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from restore.kernels.native_library import bfloat16_refuses
from restore.model import Model

MOST_LOST = 0.01  # dB
COSTS = Path(__file__).parents[1] / "precision.json"  # written by `python -m benchmarks.precision`


def fast_dtype(model: Model) -> tuple[torch.dtype, str]:
    """The dtype for `--fast`, and what to say of it.

    Args:
        model: whose device and family decide; its own dtype is float32.
    """
    family, lost = model.spec.family, measured_loss(model.spec.family)
    why = _not_faster(model.device)
    if why is None and lost is None:
        why = f"what bf16 costs {family} was not measured"
    if why is None and lost is not None:
        if lost < MOST_LOST:
            return torch.bfloat16, f"--fast takes bf16, which cost {family} {lost:.3f} dB at most"
        why = f"bf16 cost {family} {lost:.3f} dB, and at most {MOST_LOST} dB are given up"
    return torch.float32, f"--fast stays in fp32: {why}"


def measured_loss(family: str) -> float | None:
    """The most that bfloat16 cost any measured model of a family, in dB; None without one."""
    rows = json.loads(COSTS.read_text(encoding="utf-8"))
    lost = [row["fp32_db"] - row["bf16_db"] for row in rows if row["family"] == family]
    return max(0.0, *lost) if lost else None


def _not_faster(device: torch.device) -> str | None:
    """Why bfloat16 is not taken to be faster on a device, or None if it is."""
    if device.type == "cpu":
        return bfloat16_refuses()
    if device.type != "cuda":
        return f"bf16 was not timed on {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"bf16 needs compute capability 8.0 and this GPU has {capability}"
    return None
