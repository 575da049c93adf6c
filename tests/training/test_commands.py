"""`restore train` and `restore test` as they are called: what they say, leave behind and return."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from restore import cli
from restore.commands.option_files import shipped
from restore.training.model import Training

RUN = """\
# a run of seconds
name: tiny
model_type: SRModel
scale: 2
num_gpu: 0
manual_seed: 0
datasets:
  train:
    name: photos
    type: SingleHRDataset
    dataroot_gt: photos
    gt_size: 32
    batch_size_per_gpu: 2
  val:
    name: photos
    type: SingleHRDataset
    dataroot_gt: photos
network_g:
  type: SwinIR
  upscale: 2
  window_size: 8
  depths: [1]
  embed_dim: 6
  num_heads: [1]
  upsampler: pixelshuffledirect
train:
  total_iter: 3
  optim_g: {type: Adam, lr: 1e-3}
  scheduler: {type: MultiStepLR, milestones: [2]}
  pixel_opt: {type: L1Loss}
val:
  val_freq: 2
  suffix: tried
  metrics:
    psnr: {type: calculate_psnr, crop_border: 2}
logger: {print_freq: 1, save_checkpoint_freq: 2, use_tb_logger: false}
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, with two photos and an option file."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        pixels = random.integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(Path("photos") / name)
    Path("run.yml").write_text(RUN)


def test_a_training_and_a_test_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "-opt", "run.yml"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("run tiny: SwinIR-dim6")
    assert told[-1] == "experiments/tiny/models/net_g_latest.pth"
    weights = told[-1]
    assert Path(weights).is_file() and Path("experiments/tiny/training_states/2.state").is_file()
    words = ["test", "-opt", "run.yml", "--force_yml", f"path:pretrain_network_g={weights}"]
    assert cli.main([*words, "val:save_img=true"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-3].split() == ["set", "pictures", "psnr"]
    assert told[-2].split()[:2] == ["photos", "2"] and float(told[-2].split()[2]) > 5
    assert told[-1] == "results/tiny/scores.csv" and Path(told[-1]).is_file()
    with Image.open("results/tiny/visualization/photos/a_tried.png") as picture:
        assert picture.size == (48, 40)


def test_a_test_tells_which_weights_it_scores(capsys: pytest.CaptureFixture[str]) -> None:
    forced = ["train:ema_decay=0.9", "logger:save_checkpoint_freq=3"]
    assert cli.main(["train", "-opt", "run.yml", "--force_yml", *forced]) == 0
    weights = "experiments/tiny/models/net_g_latest.pth"

    def told(file: str, *more: str) -> list[str]:
        capsys.readouterr()
        words = ["test", "-opt", "run.yml", "--force_yml", f"path:pretrain_network_g={file}"]
        assert cli.main([*words, *more]) == 0
        return capsys.readouterr().out.splitlines()

    raw = told(weights)
    assert raw[:3] == [
        "test tiny: SwinIR",
        f"weights: params of {weights}",
        "note: it holds params_ema too, which differ: path: param_key_g: params_ema scores those",
    ]
    averaged = told(weights, "path:param_key_g=params_ema")
    assert averaged[1] == f"weights: params_ema of {weights}"
    assert not any("too, which differ" in line for line in averaged)
    assert averaged[-2] != raw[-2]  # the scores
    meant = told(weights, "path:param_key_g=params")
    assert meant[2:] == raw[3:]
    state = torch.load(weights, weights_only=True)["params"]
    torch.save({"params": state, "params_ema": state}, "same.pth")
    assert told("same.pth")[1:] == ["weights: params of same.pth", *raw[3:]]
    torch.save(state, "bare.pth")
    assert told("bare.pth")[1:] == ["weights: the only ones of bare.pth", *raw[3:]]


def test_a_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "-opt", "run.yml"]) == 0
    words = ["train", "-opt", "run.yml", "--auto_resume", "--force_yml", "train:total_iter=4"]
    assert cli.main(words) == 0
    assert Path("experiments/tiny/models/net_g_4.pth").is_file()
    assert not list(Path("experiments").glob("*_archived_*"))


def test_debug_has_a_name_of_its_own() -> None:
    assert cli.main(["train", "-opt", "run.yml", "--debug"]) == 0
    assert Path("experiments/debug_tiny/models/net_g_latest.pth").is_file()


def test_a_bad_picture_on_the_way_is_told_and_costs_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("photos/c.png").write_bytes(Path("photos/a.png").read_bytes()[:100])
    changes = ["--force_yml", "train:total_iter=9", "val:val_freq=0"]
    assert cli.main(["train", "-opt", "run.yml", *changes]) == 1
    assert "photos/c.png: damaged" in (told := capsys.readouterr().err)
    assert "--auto_resume then goes on" in told
    Path("photos/c.png").unlink()
    assert cli.main(["train", "-opt", "run.yml", "--auto_resume", *changes]) == 0


def test_weights_that_fit_in_part_are_told_once_and_in_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["train", "-opt", "run.yml"]) == 0
    weights = "experiments/tiny/models/net_g_latest.pth"
    path = f"path={{pretrain_network_g: {weights}, strict_load_g: false}}"
    forced = ["--force_yml", path, "network_g:depths=[2]"]
    for words in (["train", "name=other", "train:ema_decay=0.9"], ["test", "name=other"]):
        capsys.readouterr()
        assert cli.main([words[0], "-opt", "run.yml", *forced, *words[1:]]) == 0
        told = capsys.readouterr()
        (note,) = (line for line in told.out.splitlines() if line.startswith("note: "))
        assert note.startswith(f"note: {Path(weights)}: loaded in part: 2")
        assert "new: layers.0.residual_group.blocks.1.norm1.weight (6,)" in note
        assert note.endswith("; left out: none") and "Warning" not in told.out + told.err


def test_gpus_that_are_not_there_are_told_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(
        "restore.training.distributed.resolve_device", lambda _: torch.device("cpu")
    )
    for words in (["train", "--dry-run"], ["train"], ["test"]):
        weights = "path:pretrain_network_g=experiments/tiny/models/net_g_latest.pth"
        forced = ["num_gpu=2", *([weights] if words == ["test"] else [])]
        assert cli.main([words[0], "-opt", "run.yml", *words[1:], "--force_yml", *forced]) == 0
        told = capsys.readouterr()
        (note,) = (line for line in told.out.splitlines() if line.startswith("note: "))
        assert note.startswith("note: num_gpu is 2, but no GPU is found here: one process")
        assert "Warning" not in told.err
    assert cli.main(["train", "-opt", "run.yml", "--device", "cpu", "--dry-run"]) == 0
    assert "note: " not in capsys.readouterr().out


def test_fewer_iterations_than_are_done_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "-opt", "run.yml", "--auto_resume", "--force_yml"]
    assert cli.main([*words, "val:val_freq=0"]) == 0
    states = Path("experiments/tiny/training_states")
    before = {path.name: path.stat().st_mtime_ns for path in states.iterdir()}
    capsys.readouterr()
    assert cli.main([*words, "train:total_iter=2"]) == 2
    told = capsys.readouterr().err
    assert f"total_iter is 2, and the training state {states / '3.state'} is of iteration 3" in told
    assert f"raise total_iter above 3 to go on, or go on from {states / '2.state'}" in told
    assert {path.name: path.stat().st_mtime_ns for path in states.iterdir()} == before
    assert cli.main([*words, "val:val_freq=0"]) == 0
    assert "all iterations are done already" in capsys.readouterr().err


def test_niqe_without_its_parameters_is_told_before_anything_begins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore.metrics.perceptual._of_package", lambda *names: None)
    run = RUN.replace(
        "    psnr: {", "    niqe: {type: calculate_niqe, crop_border: 4}\n    psnr: {"
    )
    Path("run.yml").write_text(run)
    assert cli.main(["train", "-opt", "run.yml"]) == 2
    told = capsys.readouterr().err
    assert "run.yml:35: metric 'niqe': NIQE: no niqe_pris_params.npz in " in told
    assert "get it from github.com/XPixelGroup/BasicSR" in told


def test_a_shipped_file_can_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", "-opt", "options/train/swinir_small_x2.yml"]) == 2
    assert "data/photos" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: int, code: int
) -> None:
    step = Training.step

    def signalled(self: Training, batches: Any, number: int) -> Any:
        if number == 1:
            os.kill(os.getpid(), name)
        return step(self, batches, number)

    monkeypatch.setattr(Training, "step", signalled)
    assert cli.main(["train", "-opt", "run.yml"]) == code
    assert "saved at iteration 1; --auto_resume goes on" in capsys.readouterr().out
    assert Path("experiments/tiny/training_states/1.state").is_file()


PICTURE = "photos/b.png"


@pytest.mark.parametrize("command", ["train", "test"])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_pictures_that_cannot_be_scored_are_told_before_anything_begins(
    capsys: pytest.CaptureFixture[str], command: str, dry: list[str]
) -> None:
    assert cli.main(["train", "-opt", "run.yml"]) == 0
    before = sorted(Path().rglob("*"))
    pixels = np.zeros((17, 33, 3), np.uint8)
    Image.fromarray(pixels).save(PICTURE)
    run = RUN.replace("crop_border: 2}", "crop_border: 8}\n    ssim: {type: ssim, crop_border: 4}")
    Path("run.yml").write_text(run)
    words = [command, "-opt", "run.yml", *dry, "--force_yml", "datasets:train:gt_size=16"]
    words.append("path:pretrain_network_g=experiments/tiny/models/net_g_latest.pth")
    capsys.readouterr()
    assert cli.main(words) == 2
    assert capsys.readouterr().err.splitlines() == [
        "restore: run.yml:35: metric 'psnr': crop_border is 8, which leaves too little of "
        f"{PICTURE} in datasets.val: it has 16 x 32 pixels, and psnr needs 17 x 17 with that "
        "border; lower crop_border to 7 or less, or leave such small pictures out of the set",
        f"run.yml:36: metric 'ssim': crop_border is 4, which leaves too little of {PICTURE} in "
        "datasets.val: it has 16 x 32 pixels, and ssim needs 19 x 19 with that border; lower "
        "crop_border to 2 or less, or leave such small pictures out of the set",
    ]
    assert sorted(Path().rglob("*")) == before
    assert cli.main(["train", "-opt", "run.yml", "--dry-run", "--force_yml", "val:val_freq=0"]) == 0


def test_a_pair_of_other_sizes_is_told_before_anything_begins(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("small").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((24, 20, 3), np.uint8)).save(Path("small") / name)
    forced = ["datasets:val:type=PairedImageDataset", "datasets:val:dataroot_lq=small"]
    assert cli.main(["train", "-opt", "run.yml", "--force_yml", *forced]) == 2
    told = capsys.readouterr().err
    where = "--force_yml datasets:val:dataroot_lq: photos/"
    assert f"{where}a.png: 40 x 48 pixels are not 2 times the 24 x 20 of small/a.png (and" in told
    assert "(and 1 more pairs); check scale, both folders" in told
    assert not Path("experiments/tiny").exists()


def test_a_dry_run_matches_weights_and_states(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "-opt", "run.yml"]) == 0
    before = sorted(Path().rglob("*"))
    weights = "path:pretrain_network_g=experiments/tiny/models/net_g_latest.pth"
    state = "path:resume_state=experiments/tiny/training_states/3.state"

    def told(command: str, *forced: str, code: int = 2) -> str:
        capsys.readouterr()
        words = [command, "-opt", "run.yml", "--dry-run", "--force_yml", *forced]
        assert cli.main(words) == code
        printed = capsys.readouterr()
        assert sorted(Path().rglob("*")) == before
        return printed.out + printed.err

    assert f"weights of {weights[24:]} fit the network" in told("train", weights, code=0)
    assert "the weights fit the network" in (out := told("test", weights, code=0))
    assert "val: photos, photos, lq made by bicubic, 2 pictures" in out
    for command in ("train", "test"):
        assert "run.yml: is no whole" in told(command, "path:pretrain_network_g=run.yml")
        deeper = told(command, weights, "network_g:depths=[2]")
        assert "does not fit the network: new: layers.0.residual_group.blocks.1" in deeper
        forced = (weights, "network_g:depths=[2]", "path:strict_load_g=false")
        assert "loaded in part" in told(command, *forced, code=0)
        missed = told(command, weights, "path:param_key_g=param_ema", code=0)
        assert f"note: {weights[24:]}: has no 'param_ema'; 'params' is taken" in missed
    assert "would go on from iteration 3" in told("train", state, code=0)
    assert "run.yml: is no whole training state" in told("train", "path:resume_state=run.yml")
    assert "does not fit" in told("train", state, "network_g:depths=[2]")
    assert "there is nothing left" in told("train", state, "train:total_iter=2")


def test_a_dry_run_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path().rglob("*"))
    assert cli.main(["train", "-opt", "run.yml", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "3 iterations of 2 patches of 32 x 32 and process; Adam 0.001; L1Loss" in out
    assert "train: photos, photos, lq made by bicubic" in out
    assert sorted(Path().rglob("*")) == before


def test_what_is_shipped_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "test"):
        assert cli.main([command, "--list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(shipped(command)) > 50  # type: ignore[arg-type]
        assert all(line.startswith(f"options/{command}/") for line in lines)


def test_what_a_newcomer_can_run_is_listed_first(capsys: pytest.CaptureFixture[str]) -> None:
    for command, first in (("train", "small"), ("test", "builtin")):
        assert cli.main([command, "--list"]) == 0
        assert first in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("words", [["train"], ["test"], ["data", "check"]])
def test_help_names_option_files_that_are_there(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    named = re.findall(r"options/\w+/\w+\.yml", capsys.readouterr().out)
    assert set(named) <= {*shipped("train"), *shipped("test")}
    assert named or words == ["data", "check"]


def test_a_shipped_file_is_found_from_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "-opt", "options/train/swinir_small_x2.yml", "--dry-run", "--force_yml"]
    forced = ["datasets:train:dataroot_gt=photos", "datasets:val:dataroot_gt=photos"]
    assert cli.main([*words, *forced]) == 0
    assert "is that of the installed package" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "test"])
def test_mistakes_are_told_with_their_line_and_nothing_is_begun(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("run.yml")
    path.write_text(
        RUN.replace("crop_border: 2", "crop_bordr: 2").replace("scale: 2\n", "scale: 3\n", 1)
    )
    assert cli.main([command, "-opt", "run.yml"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "run.yml:35: key 'val.metrics.psnr.crop_bordr' is not known" in told.err
    path.write_text(RUN.replace("dataroot_gt: photos\n", "dataroot_gt: photo\n"))
    assert cli.main([command, "-opt", "run.yml"]) == 2
    told = capsys.readouterr()
    found = [line.removeprefix("restore: ").split(": there")[0] for line in told.err.splitlines()]
    both = ["run.yml:11: dataroot_gt photo", "run.yml:17: dataroot_gt photo"]
    assert found == both[0 if command == "train" else 1 :]
    assert not Path("experiments").exists() and not Path("results").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train"], "give an option file: restore train -opt FILE"),
        (["train", "-opt", "no.yml"], "no.yml: there is no such option file"),
        (["train", "-opt", "."], "is a folder; expected an option file"),
        (["train", "-opt", "run.yml", "--launcher", "slurm"], "expected one of none, pytorch"),
        (["train", "-opt", "run.yml", "--launcher", "pytorch"], "torchrun"),
        (["train", "-opt", "run.yml", "--auto-resum"], "did you mean --auto_resume?"),
        (["train", "-opt", "run.yml", "--force_yml", "x"], "expected KEY:KEY=VALUE"),
        (["train", "-opt", "run.yml", "--force_yml", "train:total_itr=3"], "'total_iter'?"),
        (["train", "-opt", "run.yml", "--force_yml", "train.total_iter=3"], ": train:total_iter=3"),
        (
            ["train", "-opt", "run.yml", "--force_yml", "datasets:train:batch_size_per_gpu=1e10"],
            "batch_size_per_gpu: a batch of 10,000,000,000 patches of 32 x 32 takes",
        ),
        (["test", "-opt", "run.yml"], "a test needs weights"),
    ],
)
def test_arguments_that_cannot_be_obeyed(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err


def test_keys_without_effect_are_notes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "-opt", "run.yml", "--dry-run", "--force_yml", "print_network=true"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "note: --force_yml print_network: key 'print_network' has no effect" in out


@pytest.mark.parametrize("module", ["restore.train", "restore.test"])
def test_the_modules_are_the_commands(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )
    assert f"restore {module.split('.')[1]} -opt FILE" in done.stdout
    assert "docs/training.md has every key" in done.stdout
