"""What a run tells: tables that survive a kill, curves, means of losses."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from tiny_run import draw_pictures, tiny_options

from restore.errors import OutputError, UsageError
from restore.training import logs
from restore.training.experiment import folders_of
from restore.training.logs import Meter
from restore.training.loop import train
from restore.training.option_checks import contradictions
from restore.training.options import WandbOptions
from restore.training.plots import Panel, draw
from restore.training.tables import Table


def test_a_table_goes_on_where_the_run_does(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = Table(path, 0)
    for iteration in (2, 4, 6):
        table.add({"iter": iteration, "loss": iteration / 10})
    with path.open("a") as file:
        file.write("8,0.")  # cut short by a kill
    again = Table(path, 4)
    again.add({"iter": 6, "loss": 0.5})
    assert path.read_text() == "iter,loss\n2,0.2\n4,0.4\n6,0.5\n"
    assert again.points("loss") == [(2, 0.2), (4, 0.4), (6, 0.5)]
    assert Table(path, 4, before=True).points("loss") == [(2, 0.2)]
    assert Table(path, 0).rows == [] and path.read_text() == ""


def test_a_table_that_a_power_cut_left_full_of_bytes_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"iter,loss\n2,0.2\n4,0.\0\0\n" + b"\xff\xfe\0" * 70_000 + b"\n6,0.6,1\n")
    table = Table(path, 6)
    assert table.points("loss") == [(2, 0.2)]
    table.add({"iter": 8, "loss": 0.8})
    assert path.read_text() == "iter,loss\n2,0.2\n8,0.8\n"


def test_a_new_column_is_added_to_all_rows(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", 0)
    table.add({"iter": 1, "a": 1.0})
    table.add({"iter": 2, "b": 2.0})
    assert (tmp_path / "t.csv").read_text() == "iter,a,b\n1,1,\n2,,2\n"


def test_means_are_since_the_last_line_and_survive_a_stop() -> None:
    meter, other = Meter(), Meter()
    for value in (1.0, 2.0):
        meter.add({"a": torch.tensor(value)})
    other.load_state_dict(meter.state_dict(), torch.device("cpu"))
    for each in (meter, other):
        each.add({"a": torch.tensor(6.0), "b": torch.tensor(1.0)})
        assert {name: float(value) for name, value in each.take().items()} == {"a": 3.0, "b": 1.0}
        each.add({"a": torch.tensor(5.0)})
        assert {name: float(value) for name, value in each.take().items()} == {"a": 5.0}


@pytest.mark.parametrize(
    "points", [[(1, 0.5)], [(1, 0.5), (2, 0.5)], [(k, 10.0**-k) for k in range(1, 60)]]
)
def test_curves_of_any_kind_are_drawn(tmp_path: Path, points: list[tuple[float, float]]) -> None:
    path = tmp_path / "curves.png"
    draw(path, [Panel("a", {"x": points}, logarithmic=True), Panel("none", {"y": []})])
    with Image.open(path) as picture:
        assert picture.size == (900, 300)
        assert len(picture.getcolors(10**6) or ()) > 3


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    draw(tmp_path / "curves.png", [Panel("none", {"y": []})])
    assert list(tmp_path.iterdir()) == []


def test_a_run_leaves_a_page_and_curves(tmp_path: Path) -> None:
    draw_pictures(tmp_path)
    options = tiny_options(tmp_path)
    train(replace(options, val=replace(options.val, save_img=True)), root=tmp_path)
    folder = tmp_path / "experiments" / "tiny"
    page = (folder / "summary.md").read_text()
    assert "![curves](curves.png)" in page and "| same | psnr |" in page
    with Image.open(folder / "curves.png") as picture:
        assert picture.size == (900, 4 * 300)
    assert (folder / "visualization" / "0" / "0_8.png").exists()
    (told,) = folder.glob("train_tiny_*.log")
    assert "iter 8/8" in told.read_text()


@pytest.mark.parametrize(
    ("missing", "project", "text"),
    [
        ("torch.utils.tensorboard", "p", "TensorBoard, which is not installed; pip install"),
        ("wandb", "p", r"wandb cannot be imported \(.*\); pip install wandb"),
        ("torch.utils.tensorboard", None, None),
    ],
)
def test_what_is_not_installed_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    project: str | None,
    text: str | None,
) -> None:
    if missing == "wandb":
        board = ModuleType("torch.utils.tensorboard")
        monkeypatch.setattr(board, "SummaryWriter", None, raising=False)
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, missing, None)
    options = tiny_options(tmp_path)
    logger = replace(options.logger, use_tb_logger=True, wandb=WandbOptions(project=project))
    options = replace(options, logger=logger)
    if text is None:
        assert logs._board(options, folders_of("tiny", tmp_path), 0) is None
        return
    with pytest.raises(UsageError, match=text):
        logs._board(options, folders_of("tiny", tmp_path), 0)


def _making(folder: str, purge_step: int | None) -> None:
    Path(folder).mkdir()


def test_a_folder_that_tensorboard_cannot_make_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = ModuleType("torch.utils.tensorboard")
    monkeypatch.setattr(board, "SummaryWriter", _making, raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    (tmp_path / "tb_logger").touch()
    options = tiny_options(tmp_path)
    options = replace(options, logger=replace(options.logger, use_tb_logger=True))
    with pytest.raises(OutputError, match="tb_logger/tiny: cannot be written: Not a directory"):
        logs._board(options, folders_of("tiny", tmp_path), 0)


def test_wandb_that_does_not_begin_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board, wandb = ModuleType("torch.utils.tensorboard"), ModuleType("wandb")

    def refusing(**_: object) -> None:
        raise ConnectionError("No API key configured.")

    monkeypatch.setattr(board, "SummaryWriter", None, raising=False)
    monkeypatch.setattr(wandb, "Error", ConnectionError, raising=False)
    monkeypatch.setattr(wandb, "init", refusing, raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    options = tiny_options(tmp_path)
    logger = replace(options.logger, use_tb_logger=True, wandb=WandbOptions(project="p"))
    with pytest.raises(UsageError, match=r"No API key configured\.; run `wandb login`, or set"):
        logs._board(replace(options, logger=logger), folders_of("tiny", tmp_path), 0)


def test_wandb_without_tensorboard_is_a_contradiction(tmp_path: Path) -> None:
    options = tiny_options(tmp_path)
    logger = replace(options.logger, wandb=WandbOptions(project="p"))
    (found,) = contradictions(replace(options, logger=logger))
    assert "set logger: use_tb_logger: true" in found[1]
