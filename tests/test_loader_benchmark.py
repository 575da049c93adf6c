"""What the loader's measurement says beside steps that are computed."""

from __future__ import annotations

import json

import pytest

from benchmarks import loader


def test_cores_are_those_of_the_kept_result_and_the_computed_step() -> None:
    # 53.56 G multiply-adds for 64 x 64 pixels of SwinIR-M x4, twice as many operations, three times
    rate = loader.images_per_second("swinir_classical_x4")
    assert rate == pytest.approx(0.4 * 989e12 / (6 * 53.556461568e9), rel=1e-6)
    results = json.loads(loader.RESULTS.read_text())
    lines = loader.told(results, 1000.0)
    assert f"  swinir_classical_x4, computed: {rate:,.0f} images/s" in lines
    seconds = results["seconds_per_patch"]["pairs, cached"]
    (line,) = (line for line in lines if line.startswith("pairs, cached"))
    assert line.endswith(f"{rate * seconds:.2f} cores  {1000 * seconds:7.2f} cores")
