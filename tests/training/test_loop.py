"""Runs that are interrupted, resumed, starved of disk or fed nonsense end as they should."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import NETWORK, changed, draw_pictures, tiny_options
from torch import Tensor

import restore
from restore.datasets.cache import START_METHOD
from restore.datasets.loader import ReaderLostError
from restore.errors import CheckpointError, ImageError, OutputError, UsageError
from restore.image_io import Picture, write_picture
from restore.training import experiment, states
from restore.training import run as run_module
from restore.training.distributed import Processes
from restore.training.experiment import results_folder
from restore.training.gan import GANTraining
from restore.training.loop import train
from restore.training.model import Training
from restore.training.options import ModelKind, NetworkOptions, Options, PathOptions
from restore.training.run import Run
from restore.training.states import DamagedStateWarning, read_state
from restore.training.train_options import GANOptions, LossOptions, OptimOptions, StageOptions
from restore.training.watch import NonFiniteLossError

LAST = 8
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logger = logging.getLogger("restore.training")
    logger.disabled = True
    yield
    logger.disabled = False


@pytest.fixture
def unsignalled() -> Iterator[None]:
    """A process that nobody told what to do with signals, however these tests were started.

    Under nohup it would ignore SIGHUP, and a run then goes on.
    """

    def unheard(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"the run did not listen to {signal.Signals(number).name}")

    before = {name: signal.signal(name, unheard) for name in SIGNALS}
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    draw_pictures(tmp_path)
    return tiny_options(tmp_path)


def gan_options(options: Options) -> Options:
    options = replace(
        options,
        kind=ModelKind(gan=True),
        network_d=NetworkOptions(
            type="UNetDiscriminatorSN", arguments={"num_in_ch": 3, "num_feat": 4}
        ),
    )
    return changed(
        options,
        gan_opt=GANOptions(loss_weight=0.1),
        optim_d=OptimOptions(type="Adam", lr=1e-3),
        net_d_init_iters=2,
    )


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two nested values differ in any bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.dtype == b.dtype and torch.equal(a, b)
        return [] if same else [path]
    if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
        return [d for key in a for d in differences(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for number, (x, y) in pairs for d in differences(x, y, f"{path}[{number}]")]
    return [] if type(a) is type(b) and a == b else [path]


def outcome(root: Path, last: int = LAST) -> dict[str, Any]:
    """All that a run leaves which has to be the same bit for bit."""
    folder = root / "experiments" / "tiny"
    rows = [line.split(",") for line in (folder / "train.csv").read_text().splitlines()]
    timed = [number for number, name in enumerate(rows[0]) if name in ("images_per_s", "data_wait")]
    return {
        "state": read_state(folder / "training_states" / f"{last}.state"),
        "weights": torch.load(folder / "models" / "net_g_latest.pth", weights_only=True),
        "train.csv": [[c for n, c in enumerate(row) if n not in timed] for row in rows],
        "val.csv": (folder / "val.csv").read_text(),
    }


def stop_at(
    monkeypatch: pytest.MonkeyPatch, iteration: int, kind: type[Training] = Training
) -> None:
    """Make a run die before the step of an iteration."""
    step = kind.step

    def dying(self: Training, batches: Any, number: int) -> dict[str, Tensor]:
        if number == iteration:
            raise RuntimeError("the power is gone")
        return step(self, batches, number)

    monkeypatch.setattr(kind, "step", dying)


VARIANTS: dict[str, Callable[[Options], Options]] = {
    "plain": lambda options: options,
    "bf16 and clipped": lambda options: changed(options, amp="bf16", grad_clip=0.1),
    "fp16": lambda options: changed(options, amp="fp16"),
    "accumulated": lambda options: changed(options, accum_iter=2),
    "progressive": lambda options: changed(
        options,
        progressive=(
            StageOptions(start=0, gt_size=16, batch_size_per_gpu=2),
            StageOptions(start=4, gt_size=24, batch_size_per_gpu=1),
        ),
    ),
    "schedule-free": lambda options: changed(
        options, optim_g=OptimOptions(type="ScheduleFreeAdamW", lr=1e-3), scheduler=None
    ),
    "gan": gan_options,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_ends_with_the_same_bits(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    options = VARIANTS[variant](options)
    train(options, root=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 6, GANTraining if variant == "gan" else Training)
        with pytest.raises(RuntimeError, match="power"):
            train(options, root=tmp_path / "cut")
    # what happens to be the state of this process must not matter
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    ended = train(options, root=tmp_path / "cut", auto_resume=True)
    assert ended.finished and ended.iteration == LAST
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "cut")) == []


def dies(work: Callable[[], object]) -> bool:
    """Do something in a forked process; whether SIGKILL ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@forks
def test_a_run_killed_at_each_step_of_saving_ends_with_the_same_bits(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run, killed before and after each time that a file takes its place."""
    train(options, root=tmp_path / "whole")
    replace_file, kills = os.replace, 0

    def run() -> None:
        left = kills // 2

        def killing(source: Any, target: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0 and kills % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            replace_file(source, target)
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(os, "replace", killing)
        train(options, root=tmp_path / "killed", auto_resume=True)

    while dies(run):
        kills += 1
    assert kills >= 8
    train(options, root=tmp_path / "killed", auto_resume=True)
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "killed")) == []
    assert list((tmp_path / "killed").rglob("*.part")) == []


@pytest.mark.slow
@forks
def test_a_run_killed_twenty_times_ends_with_the_same_bits(
    options: Options, tmp_path: Path
) -> None:
    options = replace(
        changed(options, total_iter=60), logger=replace(options.logger, save_checkpoint_freq=1)
    )
    begun = time.perf_counter()
    train(options, root=tmp_path / "whole")
    passed = time.perf_counter() - begun
    dice = random.Random(0)

    def begin() -> None:
        threading.Timer(
            passed * dice.uniform(0, 0.25), os.kill, (os.getpid(), signal.SIGKILL)
        ).start()
        train(options, root=tmp_path / "killed", auto_resume=True)

    killed = 0
    while killed < 20:
        dice.random()  # the child's own draws are not seen here
        killed += dies(begin)
    train(options, root=tmp_path / "killed", auto_resume=True)
    assert differences(outcome(tmp_path / "whole", 60), outcome(tmp_path / "killed", 60)) == []
    assert list((tmp_path / "killed").rglob("*.part")) == []


@pytest.mark.usefixtures("unsignalled")
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_saves_and_ends_the_run(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: signal.Signals
) -> None:
    train(options, root=tmp_path / "whole")
    with monkeypatch.context() as patch:
        step = Training.step

        def signalled(self: Training, batches: Any, number: int) -> dict[str, Tensor]:
            if number == 4:
                os.kill(os.getpid(), name)
            return step(self, batches, number)

        patch.setattr(Training, "step", signalled)
        ended = train(options, root=tmp_path / "cut")
    assert (ended.iteration, ended.finished, ended.signal) == (4, False, name)
    assert (tmp_path / "cut/experiments/tiny/training_states/4.state").exists()
    assert train(options, root=tmp_path / "cut", auto_resume=True).finished
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "cut")) == []


@pytest.mark.usefixtures("unsignalled")
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_to_all_processes_of_a_run_saves_too(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: signal.Signals
) -> None:
    # as a terminal and a manager of services send them
    read = {**options.datasets, "train": replace(options.datasets["train"], num_worker_per_gpu=2)}
    options = replace(options, datasets=read)
    before = {process.pid for process in multiprocessing.active_children()}
    step = Training.step

    def signalled(self: Training, batches: Any, number: int) -> dict[str, Tensor]:
        if number == 4:
            readers = [p for p in multiprocessing.active_children() if p.pid not in before]
            assert len(readers) == 2
            for process in (*(reader.pid for reader in readers), os.getpid()):
                assert process is not None
                os.kill(process, name)
            time.sleep(0.5)  # PyTorch looks for readers that died when it hears of one
        return step(self, batches, number)

    monkeypatch.setattr(Training, "step", signalled)
    ended = train(options, root=tmp_path / "cut")
    assert (ended.iteration, ended.finished, ended.signal) == (4, False, name)
    assert (tmp_path / "cut/experiments/tiny/training_states/4.state").exists()


@pytest.mark.usefixtures("unsignalled")
def test_a_closed_terminal_does_not_end_a_run_under_nohup(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    step = Training.step

    def signalled(self: Training, batches: Any, number: int) -> dict[str, Tensor]:
        os.kill(os.getpid(), signal.SIGHUP)
        return step(self, batches, number)

    monkeypatch.setattr(Training, "step", signalled)
    assert train(options, root=tmp_path).finished
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.slow  # PyTorch looks every 5 s
def test_a_reading_process_that_is_killed_costs_no_step(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = {**options.datasets, "train": replace(options.datasets["train"], num_worker_per_gpu=2)}
    options = replace(options, datasets=read)
    train(options, root=tmp_path / "whole")
    before = {process.pid for process in multiprocessing.active_children()}
    step = Training.step

    def killing(self: Training, batches: Any, number: int) -> dict[str, Tensor]:
        if number == 2:
            reader = next(p for p in multiprocessing.active_children() if p.pid not in before)
            assert reader.pid is not None
            os.kill(reader.pid, signal.SIGKILL)
            time.sleep(0.5)
        return step(self, batches, number)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", killing)
        with pytest.raises(ReaderLostError, match="one of the 2 reading processes was killed"):
            train(options, root=tmp_path / "cut")
    assert max(map(int, (p.stem for p in (tmp_path / "cut").rglob("*.state")))) >= 2
    assert train(options, root=tmp_path / "cut", auto_resume=True).finished
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "cut")) == []


def test_a_signal_in_a_validation_is_obeyed_at_once(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(options, root=tmp_path / "whole")
    seen: list[str] = []
    with monkeypatch.context() as patch:
        leave = Run._leave_if_asked

        def signalled(self: Run, picture: str) -> None:
            seen.append(picture)
            os.kill(os.getpid(), signal.SIGTERM)
            leave(self, picture)

        patch.setattr(Run, "_leave_if_asked", signalled)
        ended = train(options, root=tmp_path / "cut")
    assert (ended.iteration, len(seen)) == (4, 1)
    assert train(options, root=tmp_path / "cut", auto_resume=True).finished
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "cut")) == []


def test_weights_that_are_no_numbers_are_not_saved(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Training.step

    def spoiling(self: Training, batches: Any, number: int) -> dict[str, Tensor]:
        losses = step(self, batches, number)
        if number == 6:  # a checkpoint is due, and the loss was finite
            next(self.network.parameters()).data[0] = float("nan")
        return losses

    monkeypatch.setattr(Training, "step", spoiling)
    with pytest.raises(NonFiniteLossError, match=r"iteration 6: 1 of .* conv_first\.weight among"):
        train(options, root=tmp_path)
    left = sorted(path.name for path in (tmp_path / "experiments/tiny/models").iterdir())
    assert left == ["net_g_3.pth"]


def test_a_full_disk_loses_nothing(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(options, root=tmp_path / "whole")
    write = states.write_pickle

    def full(file: Any, content: object) -> None:
        if isinstance(content, dict) and content.get("iter") == 6:
            file.write(b"some of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(states, "write_pickle", full)
        with pytest.raises(OutputError, match=r"6\.state.*No space left.*free some space"):
            train(options, root=tmp_path / "cut")
    folder = tmp_path / "cut/experiments/tiny/training_states"
    assert [path.name for path in folder.iterdir()] == ["3.state"]
    assert train(options, root=tmp_path / "cut", auto_resume=True).finished
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "cut")) == []


def test_a_disk_that_holds_no_checkpoint_is_told_at_once(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("restore.training.experiment.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="the disk has 0 MiB left"):
        train(options, root=tmp_path)


def test_the_room_that_is_asked_for_is_that_of_a_checkpoint(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(run_module, "check_room", lambda _, needed: asked.append(needed))
    network = NetworkOptions(type="SwinIR", arguments={**NETWORK, "embed_dim": 60})
    train(replace(changed(options, total_iter=1), network_g=network), root=tmp_path)
    folder = tmp_path / "experiments/tiny"
    files = [folder / "training_states/1.state"]
    files += [folder / f"models/net_g_{label}.pth" for label in ("1", "latest")]
    # more are the names of tensors, their places and alignment
    assert 1 <= sum(path.stat().st_size for path in files) / asked[0] < 1.25


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("harm", [damage, cut_short])
def test_a_damaged_state_is_skipped(
    options: Options, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    train(options, root=tmp_path)
    expected = outcome(tmp_path)
    folder = tmp_path / "experiments/tiny/training_states"
    for name in ("8.state", "6.state"):
        harm(folder / name)
    with pytest.warns(DamagedStateWarning) as caught:
        assert train(options, root=tmp_path, auto_resume=True).finished
    assert [Path(str(w.message).split(": ")[1]).name for w in caught] == ["8.state", "6.state"]
    assert differences(expected, outcome(tmp_path)) == []
    for path in folder.iterdir():
        harm(path)
    with (
        pytest.warns(DamagedStateWarning),
        pytest.raises(CheckpointError, match="all 3 training states are damaged"),
    ):
        train(options, root=tmp_path, auto_resume=True)


def test_a_loss_that_is_no_number_stops_the_run_and_its_batch_is_kept(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = Training.losses

    def poisoned(self: Any, result: Tensor, batch: Any, parts: int) -> dict[str, Tensor]:
        return losses(self, result * float("nan") if self.poison else result, batch, parts)

    def step(self: Any, batches: Any, number: int, real: Any = Training.step) -> Any:
        self.poison = number == 5
        return real(self, batches, number)

    monkeypatch.setattr(Training, "poison", False, raising=False)
    monkeypatch.setattr(Training, "losses", poisoned)
    monkeypatch.setattr(Training, "step", step)
    with pytest.raises(NonFiniteLossError, match=r"iteration 5: l_pix is NaN.*\d\.png.*5\.pth"):
        train(options, root=tmp_path)
    kept = torch.load(tmp_path / "experiments/tiny/non_finite_5.pth", weights_only=True)
    (batch,) = kept["batches"]
    assert batch["gt"].shape == (2, 3, 16, 16) and batch["lq"].shape == (2, 3, 8, 8)
    assert batch["index"] == [8, 9] and len(batch["gt_path"]) == 2


def test_weights_are_in_official_names(options: Options, tmp_path: Path) -> None:
    train(options, root=tmp_path)
    path = tmp_path / "experiments/tiny/models/net_g_latest.pth"
    content = torch.load(path, weights_only=True)
    assert list(content) == ["params", "params_ema"]
    assert "layers.0.residual_group.blocks.1.attn_mask" in content["params"]
    loaded = restore.load(path, device="cpu")
    assert loaded.checkpoint_key == "params_ema" and loaded.scale == 2
    for name, value in loaded.module.state_dict().items():
        assert torch.equal(value, content["params_ema"][name])


def test_training_begins_from_given_weights(options: Options, tmp_path: Path) -> None:
    train(options, root=tmp_path)
    first = tmp_path / "experiments/tiny/models/net_g_latest.pth"
    content = torch.load(first, weights_only=True)
    path = replace(options.path, pretrain_network_g=first)
    alone = Processes(torch.device("cpu"))
    training = Training(replace(options, path=path), alone)
    for name, value in training.network.state_dict().items():
        assert torch.equal(value, content["params"][name])
    assert training.average is not None
    for name, value in training.average.module.state_dict().items():
        assert torch.equal(value, content["params_ema"][name])
    wider = NetworkOptions(type="SwinIR", arguments={**NETWORK, "embed_dim": 12})
    with pytest.raises(CheckpointError, match=r"does not fit the network.*strict_load_g"):
        Training(replace(options, path=path, network_g=wider), alone)


def test_an_older_run_is_renamed_but_one_that_saved_nothing_begins_again(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "experiments"
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(RuntimeError):
            train(options, root=tmp_path)
    train(options, root=tmp_path)
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["tiny"]
    train(options, root=tmp_path)
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert len(names) == 2 and names[1].startswith("tiny_archived_")


def test_a_run_that_cannot_begin_leaves_the_older_one_where_it_is(
    options: Options, tmp_path: Path
) -> None:
    train(options, root=tmp_path)
    junk = tmp_path / "junk.pth"
    junk.write_bytes(b"no weights")
    for path in (
        PathOptions(pretrain_network_g=junk),
        PathOptions(resume_state=junk),
    ):
        with pytest.raises(CheckpointError):
            train(replace(options, path=path), root=tmp_path)
    assert [path.name for path in (tmp_path / "experiments").iterdir() if path.is_dir()] == ["tiny"]
    # its own weights are read before it is renamed
    weights = tmp_path / "experiments/tiny/models/net_g_latest.pth"
    train(replace(options, path=PathOptions(pretrain_network_g=weights)), root=tmp_path)


def test_results_of_one_second_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore.training.experiment.time.strftime", lambda *_: "now")
    for number in range(4):
        (results_folder("tiny", tmp_path) / f"{number}.csv").touch()
    found = sorted(path.relative_to(tmp_path / "results") for path in tmp_path.rglob("*.csv"))
    assert list(map(str, found)) == [
        "tiny/3.csv",
        "tiny_archived_now/0.csv",
        "tiny_archived_now_2/1.csv",
        "tiny_archived_now_3/2.csv",
    ]


def test_what_is_renamed_is_told(
    options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("restore.training").disabled = False
    train(options, root=tmp_path)
    train(options, root=tmp_path)
    assert "is of an older run: renamed to tiny_archived_" in capsys.readouterr().err


def test_a_run_goes_on_with_the_copy_of_its_option_file(options: Options, tmp_path: Path) -> None:
    options.file.write_text("# the file\n")
    train(options, root=tmp_path)
    copy = replace(options, file=tmp_path / "experiments/tiny/tiny.yml")
    assert train(copy, root=tmp_path, auto_resume=True).finished
    assert copy.file.read_text() == "# the file\n"


@pytest.mark.parametrize("accum_iter", [1, 2])
def test_a_picture_that_cannot_be_read_costs_no_step(
    options: Options, tmp_path: Path, accum_iter: int
) -> None:
    options = changed(options, accum_iter=accum_iter)
    data = replace(options.datasets["train"], cache_gb=0.0)
    options = replace(options, datasets={**options.datasets, "train": data})
    train(options, root=tmp_path / "whole")
    picture = tmp_path / "gt/3.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:50])
    with pytest.raises(ImageError, match=r"3\.png"):
        train(options, root=tmp_path / "cut")
    picture.write_bytes(whole)
    assert train(options, root=tmp_path / "cut", auto_resume=True).finished
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "cut")) == []


def test_a_validation_picture_that_cannot_be_scored_costs_no_step(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as where the picture took another's place after the run began
    monkeypatch.setattr("restore.training.run.check_scorable", lambda *_: None)
    logger = replace(options.logger, save_checkpoint_freq=100)
    (tmp_path / "valid").mkdir()
    pixels = np.zeros((12, 12, 3), np.uint8)
    write_picture(tmp_path / "valid/small.png", Picture(pixels), fmt="png")
    data = replace(options.datasets["val"], dataroot_gt=(tmp_path / "valid",))
    options = replace(options, logger=logger, datasets={**options.datasets, "val": data})
    with pytest.raises(ImageError, match=r"same: .*small\.png: ssim: 8 x 8 pixels after"):
        train(options, root=tmp_path)
    assert (tmp_path / "experiments/tiny/training_states/4.state").exists()


def test_a_discriminator_neither_comes_nor_goes_on_resuming(
    options: Options, tmp_path: Path
) -> None:
    with_one = gan_options(options)
    for number, (first, then, has) in enumerate(
        ((options, with_one, "no"), (with_one, options, "a"))
    ):
        train(changed(first, total_iter=1), root=tmp_path / str(number))
        with pytest.raises(UsageError, match=f"the training state has {has} discriminator"):
            train(then, root=tmp_path / str(number), auto_resume=True)


@pytest.mark.parametrize("kind", ["SGD", "ScheduleFreeAdamW"])
def test_a_state_of_another_optimizer_is_refused(
    options: Options, tmp_path: Path, kind: Any
) -> None:
    train(options, root=tmp_path)
    other = changed(options, optim_g=OptimOptions(type=kind, lr=1e-3), total_iter=9)
    with pytest.raises(UsageError, match=f"it is of Adam or AdamW and the optimizer is {kind}"):
        train(other, root=tmp_path, auto_resume=True)


def test_the_option_file_has_the_settings_of_a_resumed_optimizer(options: Options) -> None:
    old = Training(options, Processes(torch.device("cpu")))
    optimizer = OptimOptions(type="AdamW", lr=1e-3, betas=(0.8, 0.95), weight_decay=0.1)
    new = Training(changed(options, optim_g=optimizer), Processes(torch.device("cpu")))
    wanted = dict(new.optimizer.param_groups[0])
    new.load_state_dict(old.state_dict())
    found = new.optimizer.param_groups[0]
    assert all(found[name] == wanted[name] for name in wanted.keys() - {"params"})


def test_a_state_of_another_network_is_refused_in_one_line(
    options: Options, tmp_path: Path
) -> None:
    train(options, root=tmp_path)
    network = NetworkOptions(type="SwinIR", arguments={**NETWORK, "embed_dim": 12})
    with pytest.raises(UsageError, match=r"conv_first\.weight \(12, 3, 3, 3\).* more") as caught:
        train(replace(options, network_g=network), root=tmp_path, auto_resume=True)
    assert "\n" not in str(caught.value)


def test_folders_removed_on_the_way_are_made_again(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(options, root=tmp_path / "whole")
    folder = tmp_path / "cut/experiments/tiny"
    step = Training.step

    def removed(self: Training, batches: Any, number: int) -> dict[str, Tensor]:
        if number in (2, 5):
            shutil.rmtree(folder / "models" if number == 2 else folder)
        return step(self, batches, number)

    monkeypatch.setattr(Training, "step", removed)
    assert train(options, root=tmp_path / "cut").finished
    ends = [root / "experiments/tiny" for root in (tmp_path / "whole", tmp_path / "cut")]
    assert ends[0].joinpath("val.csv").read_text() == ends[1].joinpath("val.csv").read_text()
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "cut")) == []


def test_two_runs_do_not_share_a_folder(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fcntl")
    monkeypatch.setattr(experiment, "_PATIENCE", 0.0)
    save = Run.save

    def meanwhile(self: Run) -> None:
        with pytest.raises(UsageError, match="another process trains there"):
            train(options, root=tmp_path)
        save(self)

    monkeypatch.setattr(Run, "save", meanwhile)
    train(options, root=tmp_path)


@pytest.mark.skipif(START_METHOD != "fork", reason="processes inherit nothing here")
def test_a_process_forked_from_a_killed_run_does_not_hold_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "_PATIENCE", 0.0)
    folders, group = experiment.folders_of("tiny", tmp_path), Processes(torch.device("cpu"))
    context = multiprocessing.get_context("fork")
    begun, over = context.Event(), context.Event()

    def read() -> None:
        begun.set()
        over.wait(60)

    reader = context.Process(target=read)
    with experiment.sole_user(folders, group):
        reader.start()
        assert begun.wait(60)
        with (
            pytest.raises(UsageError, match="another process"),
            experiment.sole_user(folders, group),
        ):
            pass
    with experiment.sole_user(folders, group):
        assert reader.is_alive()
    over.set()
    reader.join()


def test_a_run_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    folders, group = experiment.folders_of("tiny", tmp_path), Processes(torch.device("cpu"))
    with experiment.sole_user(folders, group):
        pass
    other = (tmp_path / "experiments/.tiny.lock").open("w")
    fcntl.flock(other, fcntl.LOCK_EX)
    timer = threading.Timer(0.3, other.close)
    with pytest.warns(experiment.WaitingWarning, match="trains there; waiting up to 10 s"):
        timer.start()
        with experiment.sole_user(folders, group):
            timer.join()
    assert other.closed


def test_accumulated_gradients_are_those_of_the_larger_batch(
    options: Options, tmp_path: Path
) -> None:
    arguments = {**NETWORK, "drop_path_rate": 0.0}  # drawn for each sample
    options = replace(options, network_g=NetworkOptions(type="SwinIR", arguments=arguments))
    sgd = OptimOptions(type="SGD", lr=0.1)
    losses = {}
    for name, batch, accumulate in (("large", 4, 1), ("parts", 2, 2), ("quarters", 1, 4)):
        section = replace(options.datasets["train"], batch_size_per_gpu=batch)
        data = {**options.datasets, "train": section}
        run = changed(replace(options, datasets=data), accum_iter=accumulate, optim_g=sgd)
        train(run, root=tmp_path / name)
        weights = outcome(tmp_path / name)["weights"]["params"]
        losses[name] = torch.cat([weights[key].flatten() for key in sorted(weights)])
    for name in ("parts", "quarters"):
        # sums in another order, over 8 steps
        assert torch.allclose(losses[name], losses["large"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("setting", ["checkpointing", "channels_last"])
def test_what_saves_memory_or_time_changes_no_result(
    options: Options, tmp_path: Path, setting: str
) -> None:
    sgd = OptimOptions(type="SGD", lr=0.1)
    for name, given in (("plain", {}), ("other", {setting: True})):
        train(changed(options, optim_g=sgd, **given), root=tmp_path / name)
    a, b = (outcome(tmp_path / name)["weights"]["params"] for name in ("plain", "other"))
    for name, value in a.items():
        assert torch.allclose(value, b[name], rtol=0, atol=1e-6), name


def test_a_sum_of_losses_is_accumulated_as_a_sum(options: Options, tmp_path: Path) -> None:
    arguments = {**NETWORK, "drop_path_rate": 0.0}
    options = replace(options, network_g=NetworkOptions(type="SwinIR", arguments=arguments))
    weights = []
    for batch, accumulate in ((4, 1), (2, 2)):
        section = replace(options.datasets["train"], batch_size_per_gpu=batch)
        run = changed(
            replace(options, datasets={**options.datasets, "train": section}),
            accum_iter=accumulate,
            optim_g=OptimOptions(type="SGD", lr=1e-5),
            pixel_opt=LossOptions(type="L1Loss", reduction="sum"),
        )
        root = tmp_path / str(batch)
        train(run, root=root)
        params = outcome(root)["weights"]["params"]
        weights.append(torch.cat([params[key].flatten() for key in sorted(params)]))
    assert torch.allclose(*weights, rtol=0, atol=1e-6)


def test_validation_leaves_training_as_it_is(options: Options, tmp_path: Path) -> None:
    train(options, root=tmp_path / "with")
    without = replace(options, val=replace(options.val, val_freq=0))
    train(without, root=tmp_path / "without")
    a, b = (
        read_state(tmp_path / n / "experiments/tiny/training_states/8.state")
        for n in ("with", "without")
    )
    assert differences({**a, "best": {}}, {**b, "best": {}}) == []
