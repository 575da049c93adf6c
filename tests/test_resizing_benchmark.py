"""The measurement of `imresize`."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import resizing


def test_it_writes_a_row_for_each_scale(tmp_path: Path) -> None:
    output = tmp_path / "resizing.json"
    resizing.main(["--side", "24", "--repeats", "2", "-o", str(output)])
    content = json.loads(output.read_text())
    assert [row["scale"] for row in content["rows"]] == list(resizing.SCALES)
    assert all(row["shape"] == [24, 24, 3] and row["median_ms"] > 0 for row in content["rows"])
    assert content["machine"]["numpy"]


def test_the_kept_result_meets_its_limit() -> None:
    content = json.loads(resizing.RESULTS.read_text())
    smaller = [row for row in content["rows"] if "/" in row["scale"]]
    assert len(smaller) == 3
    assert all(row["shape"] == [1000, 1000, 3] and row["median_ms"] <= 40 for row in smaller)
