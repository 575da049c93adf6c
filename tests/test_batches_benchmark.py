"""The measurement of reading and writing beside the network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from small_models import tiny

from benchmarks import batches
from restore.image_io import Picture, write_picture


def test_it_writes_a_row_for_each_number_of_jobs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        pixels = np.full((16, 12, 3), number, np.uint8)
        write_picture(tmp_path / "in" / f"{number}.png", Picture(pixels), fmt="png")
    tiny(2).save(tmp_path / "tiny.pth")
    words = ["--model_path", str(tmp_path / "tiny.pth"), "--rounds", "1", "--count", "2"]
    output = tmp_path / "found.json"
    batches.main([str(tmp_path / "in"), *words, "--shrink", "2", "-o", str(output)])
    content = json.loads(output.read_text())
    assert (content["pictures"], content["model"]) == (2, "tiny.pth")
    assert [row["jobs"] for row in content["rows"]] == list(batches.JOBS)
    assert all(row["seconds"] > 0 for row in content["rows"])
