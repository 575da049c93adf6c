"""Step for step, what BasicSR's own models do with the same weights and batches."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import NETWORK, changed, tiny_options
from torch import nn

from restore.datasets.loader import TrainingBatch
from restore.torchvision_remedies import declare_torchvision_operators, supply_functional_tensor
from restore.training.distributed import Processes
from restore.training.gan import GANTraining, build_training
from restore.training.options import ModelKind, NetworkOptions
from restore.training.train_options import GANOptions, OptimOptions, SchedulerOptions

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # BasicSR and what it imports warn of much
    pytest.mark.skipif(
        importlib.util.find_spec("basicsr") is None,
        reason="needs BasicSR: pip install --no-build-isolation --no-deps basicsr==1.4.2",
    ),
]

STEADY = {**NETWORK, "drop_path_rate": 0.0}  # BasicSR's network would drop other paths
JUDGE = {"num_in_ch": 3, "num_feat": 4}
ROUNDED = 1e-6  # float32: Adam divides by the root of small squares, fused or not


def theirs(folder: Path, gan: bool) -> Any:
    """BasicSR's model with the weights of folder/g.pth and folder/d.pth."""
    train: dict[str, Any] = {
        "ema_decay": 0.9,
        "optim_g": {"type": "Adam", "lr": 1e-3},
        "scheduler": {"type": "MultiStepLR", "milestones": [6, 9], "gamma": 0.5},
        "pixel_opt": {"type": "L1Loss"},
    }
    options: dict[str, Any] = {
        "num_gpu": 0,
        "is_train": True,
        "dist": False,
        "rank": 0,
        "scale": 2,
        "train": train,
        "network_g": {"type": "SwinIR", **STEADY},
        "path": {"pretrain_network_g": folder / "g.pth"},
    }
    if gan:
        options["network_d"] = {"type": "UNetDiscriminatorSN", **JUDGE}
        options["path"]["pretrain_network_d"] = folder / "d.pth"
        train |= {
            "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1},
            "optim_d": {"type": "Adam", "lr": 1e-3},
            "net_d_init_iters": 2,
        }
    name = "srgan_model.SRGANModel" if gan else "sr_model.SRModel"
    module, kind = name.split(".")
    return getattr(importlib.import_module(f"basicsr.models.{module}"), kind)(options)


def ours(folder: Path, gan: bool) -> Any:
    options = replace(
        tiny_options(folder), network_g=NetworkOptions(type="SwinIR", arguments=STEADY)
    )
    schedule = SchedulerOptions(type="MultiStepLR", milestones=(6, 9), gamma=0.5)
    options = changed(options, warmup_iter=4, total_iter=12, scheduler=schedule)
    if gan:
        options = replace(
            options,
            kind=ModelKind(gan=True),
            network_d=NetworkOptions(type="UNetDiscriminatorSN", arguments=JUDGE),
        )
        options = changed(
            options,
            gan_opt=GANOptions(loss_weight=0.1),
            optim_d=OptimOptions(type="Adam", lr=1e-3),
            net_d_init_iters=2,
        )
    torch.manual_seed(0)
    return build_training(options, Processes(torch.device("cpu")))


def largest_difference(a: nn.Module, b: nn.Module) -> float:
    other = b.state_dict()
    return max(float((v - other[k]).abs().max()) for k, v in a.state_dict().items())


@pytest.mark.parametrize("gan", [False, True], ids=["SRModel", "SRGANModel"])
def test_steps_are_those_of_basicsr(tmp_path: Path, gan: bool) -> None:
    declare_torchvision_operators()
    supply_functional_tensor()
    mine = ours(tmp_path, gan)
    mine.save_networks(tmp_path, "first")
    (tmp_path / "net_g_first.pth").rename(tmp_path / "g.pth")
    if gan:
        (tmp_path / "net_d_first.pth").rename(tmp_path / "d.pth")
    other = theirs(tmp_path, gan)
    for iteration in range(1, 13):
        dice = torch.Generator().manual_seed(iteration)
        lq, gt = (torch.rand(2, 3, side, side, generator=dice) for side in (8, 16))
        other.update_learning_rate(iteration, warmup_iter=4)
        other.feed_data({"lq": lq, "gt": gt})
        other.optimize_parameters(iteration)
        batch = TrainingBatch(lq, gt, None, ["a", "b"], ["a", "b"], [0, 1])
        losses = mine.step([batch], iteration)
        assert [mine.rate] == other.get_current_learning_rate()
        expected = other.get_current_log()
        assert {k: float(v) for k, v in losses.items()} == pytest.approx(expected, abs=ROUNDED)
        assert largest_difference(mine.network, other.net_g) < ROUNDED
        assert largest_difference(mine.average.module, other.net_g_ema) < ROUNDED
        if gan:
            assert isinstance(mine, GANTraining)
            assert largest_difference(mine.discriminator, other.net_d) < ROUNDED
