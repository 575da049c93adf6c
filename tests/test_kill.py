"""A run that is killed at any moment: whole results or none, and the next run goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from restore.archs.swinir import SPEC, SwinIRConfig
from restore.image_io import Picture, read_picture, write_picture
from restore.model import Model
from restore.upscaling import upscale

PICTURES = 24
KILLS = 8


def tiny_model() -> Model:
    config = SwinIRConfig(embed_dim=12, depths=(2,), num_heads=(2,), window_size=4)
    torch.manual_seed(0)
    return Model(SPEC, config, SPEC.build(config).eval(), name="tiny")


def results(folder: Path) -> list[Path]:
    return sorted((folder / "out").glob("[0-9]*"))


@pytest.mark.slow
def test_killed_runs_leave_whole_results_only(tmp_path: Path, root: Path) -> None:
    model = tiny_model()
    model.save(tmp_path / "tiny.safetensors")
    rng = np.random.default_rng(0)
    expected = {}
    (tmp_path / "in").mkdir()
    for number in range(PICTURES):
        picture = Picture(rng.integers(0, 256, (300 + number, 300, 3), np.uint8))
        name = f"{number:02}.png"
        write_picture(tmp_path / "in" / name, picture, fmt="png")
        expected[name] = upscale(picture.pixels, model)
    command = [sys.executable, "-m", "restore", "upscale", str(tmp_path / "in")]
    command += ["-o", str(tmp_path / "out"), "--model_path", str(tmp_path / "tiny.safetensors")]
    command += ["--skip-existing", "-q", "--threads", "1"]
    done = 0
    for _ in range(KILLS):
        process = subprocess.Popen(command, cwd=root)
        more = done + rng.integers(1, 3)
        while process.poll() is None and len(results(tmp_path)) < more:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.2))  # a picture takes about as long
        process.kill()
        process.wait()
        found = results(tmp_path)
        for path in found:
            assert np.array_equal(read_picture(path).pixels, expected[path.name])
        assert len(found) > done or done == PICTURES
        done = len(found)
    subprocess.run(command, cwd=root, check=True)
    assert [path.name for path in results(tmp_path)] == sorted(expected)
