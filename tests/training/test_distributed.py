"""Two processes train as one with the double batch does, and resume as exactly."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import NETWORK, changed, draw_pictures, tiny_options

from restore.errors import ImageError, UsageError
from restore.training import distributed, validation
from restore.training.distributed import DeviceWarning, device_note, processes
from restore.training.loop import ToldByFirstError, train
from restore.training.model import Training
from restore.training.options import DistOptions, ModelKind, NetworkOptions, Options
from restore.training.states import read_state
from restore.training.train_options import GANOptions, OptimOptions

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def in_processes(count: int, work: Callable[[], object]) -> None:
    """Do something in `count` processes as torchrun would start them."""
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port = finder.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.environ |= {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(count),
                    "LOCAL_WORLD_SIZE": str(count),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
                work()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ended == [0] * count


def run_of(folder: Path, batch: int, **train_options: Any) -> Options:
    """No dropped paths, which each process draws for itself; steps in proportion to gradients."""
    options = tiny_options(folder, batch=batch, **train_options)
    arguments = {**NETWORK, "drop_path_rate": 0.0}
    options = replace(options, network_g=NetworkOptions(type="SwinIR", arguments=arguments))
    return changed(options, optim_g=OptimOptions(type="SGD", lr=0.1, momentum=0.9))


def results(root: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of all lines, and the last weights and averages."""
    folder = root / "experiments" / "tiny"
    lines = (folder / "train.csv").read_text().splitlines()
    names = lines[0].split(",")
    column = names.index("l_pix" if "l_pix" in names else "l_g_pix")
    weights = torch.load(folder / "models" / "net_g_latest.pth", weights_only=True)
    flat = {f"{key}.{name}": value for key, part in weights.items() for name, value in part.items()}
    return [float(line.split(",")[column]) for line in lines[1:]], flat


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draw_pictures(tmp_path)
    return tmp_path


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_as_one_with_the_double_batch(pictures: Path, strategy: Any) -> None:
    train(run_of(pictures, 4), root=pictures / "one")
    options = replace(run_of(pictures, 2), dist_params=DistOptions(strategy=strategy))
    in_processes(2, lambda: train(options, launcher="pytorch", root=pictures / "two"))
    losses, weights = results(pictures / "one")
    losses_of_two, weights_of_two = results(pictures / "two")
    # sums in another order, over 8 steps
    assert losses_of_two == pytest.approx(losses, rel=1e-5)
    assert list(weights) == list(weights_of_two)
    for name, value in weights.items():
        assert torch.allclose(value, weights_of_two[name], rtol=0, atol=2e-6), name
    scores = [(pictures / n / "experiments/tiny/val.csv").read_text() for n in ("one", "two")]
    assert len(scores[0].splitlines()) == len(scores[1].splitlines()) == 5


def test_accumulation_in_two_processes_is_the_larger_batch_too(pictures: Path) -> None:
    train(run_of(pictures, 4), root=pictures / "one")
    options = run_of(pictures, 1, accum_iter=2)
    in_processes(2, lambda: train(options, launcher="pytorch", root=pictures / "two"))
    weights, weights_of_two = results(pictures / "one")[1], results(pictures / "two")[1]
    for name, value in weights.items():
        assert torch.allclose(value, weights_of_two[name], rtol=0, atol=2e-6), name


def test_two_processes_play_the_game_as_one(pictures: Path) -> None:
    sgd = OptimOptions(type="SGD", lr=0.01)
    for count, batch in ((1, 4), (2, 2)):
        options = replace(
            run_of(pictures, batch),
            kind=ModelKind(gan=True),
            network_d=NetworkOptions(
                type="UNetDiscriminatorSN", arguments={"num_in_ch": 3, "num_feat": 4}
            ),
        )
        options = changed(options, gan_opt=GANOptions(loss_weight=0.1), optim_d=sgd)
        root = pictures / str(count)

        def run(options: Options = options, root: Path = root, count: int = count) -> None:
            train(options, launcher="none" if count == 1 else "pytorch", root=root)

        in_processes(count, run)
    one, two = (
        torch.load(pictures / n / "experiments/tiny/models/net_d_latest.pth", weights_only=True)
        for n in ("1", "2")
    )
    for name, value in one["params"].items():
        assert torch.allclose(value, two["params"][name], rtol=0, atol=2e-6), name
    for name, value in results(pictures / "1")[1].items():
        assert torch.allclose(value, results(pictures / "2")[1][name], rtol=0, atol=2e-6), name


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_resume_exactly(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, strategy: Any
) -> None:
    options = tiny_options(pictures)  # paths are dropped, differently in each process
    options = replace(options, dist_params=DistOptions(strategy=strategy))
    whole, cut = pictures / "whole", pictures / "cut"
    in_processes(2, lambda: train(options, launcher="pytorch", root=whole))

    def stopped() -> None:
        step = Training.step

        def signalled(self: Training, batches: Any, number: int) -> Any:
            if number == 4 and os.environ["RANK"] == "1":
                os.kill(os.getpid(), 15)  # one process alone is told
            return step(self, batches, number)

        monkeypatch.setattr(Training, "step", signalled)
        ended = train(options, launcher="pytorch", root=cut)
        assert (ended.iteration, ended.finished, ended.signal) == (5, False, 15)

    in_processes(2, stopped)
    in_processes(2, lambda: train(options, launcher="pytorch", root=cut, auto_resume=True))
    assert results(whole)[0] == results(cut)[0]
    for name, value in results(whole)[1].items():
        assert torch.equal(value, results(cut)[1][name]), name
    states = [
        read_state(root / "experiments/tiny/training_states/8.state") for root in (whole, cut)
    ]
    for a, b in zip(states[0]["each"], states[1]["each"], strict=True):
        assert torch.equal(a["random"]["torch"], b["random"]["torch"])


def bad_picture_ends(options: Options, root: Path, name: str) -> None:
    """In two processes: all of them end by a picture that one alone reads."""

    def run() -> None:
        with pytest.raises(ImageError, match=name) as caught:
            train(options, launcher="pytorch", root=root)
        assert isinstance(caught.value, ToldByFirstError) == (os.environ["RANK"] != "0")

    in_processes(2, run)


# the first epoch's order is 3, 2, 1, 0, 4: of each two the processes take one
@pytest.mark.parametrize(("accum_iter", "name"), [(1, "0"), (1, "4"), (2, "4")])
def test_a_picture_that_one_process_cannot_read_costs_no_step(
    pictures: Path, accum_iter: int, name: str
) -> None:
    options = changed(tiny_options(pictures, batch=1), accum_iter=accum_iter)
    data = replace(options.datasets["train"], cache_gb=0.0)
    options = replace(options, datasets={**options.datasets, "train": data})
    whole, cut = pictures / "whole", pictures / "cut"
    in_processes(2, lambda: train(options, launcher="pytorch", root=whole))
    picture = pictures / f"gt/{name}.png"
    content = picture.read_bytes()
    picture.write_bytes(content[:50])
    bad_picture_ends(options, cut, rf"{name}\.png")
    (state,) = (cut / "experiments/tiny/training_states").iterdir()
    assert state.name == f"{2 if (accum_iter, name) == (1, '4') else 1}.state"
    picture.write_bytes(content)
    in_processes(2, lambda: train(options, launcher="pytorch", root=cut, auto_resume=True))
    assert results(whole)[0] == results(cut)[0]
    for name, value in results(whole)[1].items():
        assert torch.equal(value, results(cut)[1][name]), name


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_validation_picture_that_one_process_cannot_read_costs_no_step(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, strategy: Any
) -> None:
    options = replace(tiny_options(pictures), dist_params=DistOptions(strategy=strategy))
    options = replace(options, logger=replace(options.logger, save_checkpoint_freq=100))
    score = validation._score

    def failing(model: Any, name: str, item: Any, *rest: Any) -> dict[str, float]:
        values = score(model, name, item, *rest)
        if os.environ["RANK"] == "1" and "1.png" in item.lq_path:
            raise ImageError("1.png: damaged")
        return values

    monkeypatch.setattr(validation, "_score", failing)
    bad_picture_ends(options, pictures, r"1\.png: damaged")
    assert read_state(pictures / "experiments/tiny/training_states/4.state")["iter"] == 4


def test_a_state_of_one_process_serves_two(pictures: Path) -> None:
    options = run_of(pictures, 2)
    train(changed(options, total_iter=3), root=pictures)
    in_processes(2, lambda: train(options, launcher="pytorch", root=pictures, auto_resume=True))
    assert read_state(pictures / "experiments/tiny/training_states/8.state")["iter"] == 8


def test_torchrun_has_to_have_started_the_processes() -> None:
    with (
        pytest.raises(UsageError, match="was not started by torchrun"),
        processes("pytorch", 0, DistOptions()),
    ):
        pass


def on_machine(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if not gpus:
        monkeypatch.setattr(distributed, "resolve_device", lambda _: torch.device("cpu"))


@pytest.mark.parametrize("num_gpu", [1, 2])
def test_gpus_that_are_not_there_are_told(monkeypatch: pytest.MonkeyPatch, num_gpu: int) -> None:
    on_machine(monkeypatch, 0)
    text = (
        rf"num_gpu is {num_gpu}, but no GPU is found.*one process computes on the CPU.*num_gpu: 0"
    )
    with pytest.warns(DeviceWarning, match=text), processes("none", num_gpu, DistOptions()):
        pass
    assert device_note("auto") is None and device_note(0) is None


@pytest.mark.parametrize(
    ("asked", "there", "text"),
    [
        (4, 1, r"num_gpu is 4, .*there is 1 here; set num_gpu: 1, and train\.accum_iter: 4"),
        (4, 2, r"num_gpu is 4, .*there are 2 here; .*--nproc_per_node=2 .*\(and num_gpu: 2\)"),
        (2, 4, r"num_gpu is 2, .*there are 4 here; .*--nproc_per_node=2 .*pytorch`, or set"),
    ],
)
def test_several_gpus_need_several_processes(
    monkeypatch: pytest.MonkeyPatch, asked: int, there: int, text: str
) -> None:
    on_machine(monkeypatch, there)
    with pytest.raises(UsageError, match=text), processes("none", asked, DistOptions()):
        pass
    assert device_note(asked, asked) is None
    assert "started 3 processes" in str(device_note(asked, 3))


def test_nccl_without_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, 0)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with (
        pytest.raises(UsageError, match="backend is nccl, which needs a GPU"),
        processes("pytorch", 0, DistOptions(backend="nccl")),
    ):
        pass


OPTION_FILE = """
name: tiny
model_type: SRModel
scale: 2
num_gpu: 0
manual_seed: 1
datasets:
  train: {{name: drawn, type: SingleHRDataset, dataroot_gt: {gt}, gt_size: 16,
    batch_size_per_gpu: 2}}
  val: {{name: same, type: SingleHRDataset, dataroot_gt: {gt}}}
network_g: {{type: SwinIR, upscale: 2, window_size: 4, depths: [1, 1], embed_dim: 8,
  num_heads: [2, 2], mlp_ratio: 2, upsampler: pixelshuffledirect, drop_path_rate: 0}}
train:
  total_iter: 12
  ema_decay: 0.9
  optim_g: {{type: SGD, lr: 0.1, momentum: 0.9}}
  pixel_opt: {{type: L1Loss}}
val: {{val_freq: 6, metrics: {{psnr: {{type: psnr, crop_border: 2}}}}}}
logger: {{use_tb_logger: false, print_freq: 1, save_checkpoint_freq: 6}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_torchrun_gives_the_curve_of_one_process_with_the_double_batch(
    pictures: Path, root: Path, strategy: str
) -> None:
    """As users start both, up to a stop at a half and --auto_resume from there."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2"]

    def started(where: str, words: list[str], *forced: str) -> None:
        folder = pictures / where
        folder.mkdir(exist_ok=True)
        (folder / "tiny.yml").write_text(OPTION_FILE.format(gt=pictures / "gt"))
        command = [sys.executable, *words, "--force_yml", f"dist_params:strategy={strategy}"]
        subprocess.run([*command, *forced], cwd=folder, env=environment, check=True, timeout=300)

    train_it = ["-m", "restore.train", "-opt", "tiny.yml"]
    together = [*torchrun, *train_it, "--launcher", "pytorch", "--auto_resume"]
    started("one", train_it, "datasets:train:batch_size_per_gpu=4")
    started("two", together, "train:total_iter=6")
    started("two", together)

    losses, weights = results(pictures / "one")
    losses_of_two, weights_of_two = results(pictures / "two")
    assert len(losses) == 12 and losses[-1] < losses[0]
    # sums in another order
    assert losses_of_two == pytest.approx(losses, rel=1e-5)
    assert list(weights) == list(weights_of_two)
    for name, value in weights.items():
        assert torch.allclose(value, weights_of_two[name], rtol=0, atol=2e-6), name
    state = read_state(pictures / "two/experiments/tiny/training_states/12.state")
    assert state["loader"] == {"position": 48, "batches": 12} and len(state["each"]) == 2
