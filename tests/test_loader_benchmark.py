"""What the loader's measurement says beside steps that are computed."""

from __future__ import annotations

import json

import pytest

from benchmarks import loader


def test_cores_are_those_of_the_kept_result() -> None:
    results = json.loads(loader.RESULTS.read_text())
    lines = loader.told(results, {"a step": 1231.0, "--rate": 1000.0})
    assert "  a step: 1,231 images/s" in lines
    seconds = results["seconds_per_patch"]["pairs, cached"]
    (line,) = (line for line in lines if line.startswith("pairs, cached"))
    assert line.endswith(f"{1231 * seconds:7.2f} cores  {1000 * seconds:7.2f} cores")


@pytest.mark.slow
def test_a_computed_step_is_three_forward_passes_at_a_share_of_the_peak() -> None:
    # 53.56 G multiply-adds for 64 x 64 pixels of SwinIR-M x4, two operations each
    rate = loader.images_per_second("swinir_classical_x4")
    assert rate == pytest.approx(0.4 * 989e12 / (3 * 2 * 53.556461568e9), rel=1e-6)
