"""What a run tells: tables that survive a kill, curves, means of losses."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from tiny_run import draw_pictures, tiny_options

from restore.errors import OutputError, UsageError
from restore.training import logs, plots
from restore.training.experiment import folders_of
from restore.training.logs import Journal, Meter
from restore.training.loop import train
from restore.training.option_checks import contradictions
from restore.training.options import WandbOptions
from restore.training.plots import Panel, draw
from restore.training.tables import Table
from restore.training.validation import Best


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


@pytest.mark.parametrize(
    ("values", "logarithmic", "least"),
    [
        ((32.9999, 33.0), False, 0.01),
        ((0.95512, 0.95518), False, 1e-4),
        ((33.0, 33.0), False, 0.01),
        ((2e-4, 2e-4), False, 0.0),
        ((0.03141, 0.03142), True, 0.0),
        ((1e-50, 1.0), True, 0.0),
    ],
)
def test_the_labels_of_an_axis_differ_and_stand_where_they_say(
    values: tuple[float, float], logarithmic: bool, least: float
) -> None:
    axis = plots._Axis(values, 0, 300, logarithmic=logarithmic, least_span=least)
    ticks = axis.ticks()
    labels = plots.labels(ticks)
    assert len(ticks) >= 3 and len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 9
    assert all(
        abs(axis(float(text)) - axis(tick)) < 5 for text, tick in zip(labels, ticks, strict=True)
    )
    low, high = sorted((axis(values[0]), axis(values[1])))
    assert 0 <= low <= high <= 300
    if not logarithmic and least:
        assert high - low == pytest.approx(300 * (values[1] - values[0]) / least)


def test_an_axis_of_iterations_has_whole_ones() -> None:
    assert plots._Axis([0, 2], 0, 800).ticks(least=1.0) == [0, 1, 2]
    assert plots._Axis([0, 8000], 0, 800).ticks(least=1.0) == [k * 1000 for k in range(9)]


def test_the_labels_of_an_axis_are_short_where_they_may_be() -> None:
    assert plots.labels([32.0, 32.5, 33.0]) == ["32", "32.5", "33"]
    assert plots.labels([0.955, 0.9555, 0.956]) == ["0.955", "0.9555", "0.956"]
    assert plots.labels([1.0]) == ["1"] and plots.labels([]) == []


def test_infinite_scores_are_left_out_of_the_curves(tmp_path: Path) -> None:
    points = [(1, math.inf), (2, 30.0), (3, 31.0)]
    draw(tmp_path / "all.png", [Panel("a", {"x": points})])
    draw(tmp_path / "finite.png", [Panel("a", {"x": points[1:]})])
    assert (tmp_path / "all.png").read_bytes() == (tmp_path / "finite.png").read_bytes()


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
    assert "iter 8/8" in (text := told.read_text())
    score = r"psnr \d+\.\d{4} \(best \d+\.\d{4} at \d\)  ssim -?\d\.\d{6} \(best -?\d\.\d{6} at"
    assert re.search(score, text)
    rows = (folder / "val.csv").read_text().splitlines()
    assert rows[0] == "iter,dataset,metric,value"
    assert re.fullmatch(r"4,same,psnr,\d+\.\d{6}", rows[1])
    assert re.fullmatch(r"4,same,ssim,-?\d\.\d{8}", rows[2])


def test_a_best_score_of_a_metric_that_the_file_no_longer_has_is_kept(tmp_path: Path) -> None:
    options = tiny_options(tmp_path)
    folders = folders_of("tiny", tmp_path)
    folders.root.mkdir(parents=True)
    journal = Journal(options, folders, 4)
    journal.train.add({"iter": 5, "l_pix": 0.5, "lr": 1e-3})
    journal.finish(Best({}, {"same": {"psnr": (30.0, 4)}}), [])
    journal.close()
    assert "| same | psnr | 30.000000 | 4 |" in (folders.root / "summary.md").read_text()


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
