"""The page that shows how to add an architecture, followed on a copy of the package."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import torch
from restore import load, upscale
from restore.archs import ARCHS
from restore.model import Model

spec = ARCHS[-1]
config = spec.config().replaced(
    {"embed_dim": 8, "depths": [2, 1], "num_heads": [1, 1], "kernel_size": 5, "upscale": 2}, "test"
)
torch.manual_seed(0)
net = spec.build(config).eval()
model = Model(spec, config, net, name="made")
model.save("made.pth")
again = load("made.pth", device="cpu")
x = torch.rand(1, 3, 19, 23)
with torch.inference_mode():
    assert torch.equal(model(x), again(x)) and model(x).shape == (1, 3, 38, 46)
assert dict(again.config) == dict(config), dict(again.config)
assert again.arch == "ConvSR" and again.evidence[0] == "depthwise.weight: kernel_size 5"
picture = (x[0].permute(1, 2, 0).numpy() * 255).astype("uint8")
assert upscale(picture, again, tile=8, tile_pad=8).shape == (38, 46, 3)
"""


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A copy of the package, with the page's code put where the page says."""
    for name in ("restore", "archs", "kernels", "options", "datasets"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / name, tmp_path / name, symlinks=True, ignore=ignored)
    page = (root / "docs" / "adding-an-architecture.md").read_text(encoding="utf-8")
    file, entry = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "archs" / "conv_sr.py").write_text(file, encoding="utf-8")
    registry = tmp_path / "archs" / "__init__.py"
    registry.write_text(registry.read_text(encoding="utf-8") + entry, encoding="utf-8")
    return tmp_path


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_adds_an_architecture(copy: Path) -> None:
    run(copy, "-c", PROGRAM)
    assert "ConvSR x2" in run(copy, "-m", "restore", "info", "made.pth")


def test_the_file_on_the_page_is_in_house_style(copy: Path, root: Path) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("needs ruff")
    config = ["--no-cache", "--config", str(root / "pyproject.toml"), "archs/conv_sr.py"]
    run(copy, "-m", "ruff", "check", *config)
    run(copy, "-m", "ruff", "format", "--check", *config)
