"""The game of network and discriminator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import changed, draw_pictures, tiny_options

from restore.archs.unet_discriminator import UNetDiscriminatorSN
from restore.datasets.loader import TrainingBatch
from restore.errors import UsageError
from restore.training.distributed import Processes
from restore.training.gan import GANTraining, build_training
from restore.training.loop import train
from restore.training.model import Training
from restore.training.options import ModelKind, NetworkOptions, Options
from restore.training.train_options import GANOptions, OptimOptions

ALONE = Processes(torch.device("cpu"))


def gan_options(folder: Path, **given: Any) -> Options:
    options = replace(
        tiny_options(folder),
        kind=ModelKind(gan=True),
        network_d=NetworkOptions(
            type="UNetDiscriminatorSN", arguments={"num_in_ch": 3, "num_feat": 4}
        ),
    )
    fields = {
        "gan_opt": GANOptions(loss_weight=0.1),
        "optim_d": OptimOptions(type="Adam", lr=1e-3),
        **given,
    }
    return changed(options, **fields)


def batch() -> TrainingBatch:
    torch.manual_seed(4)
    lq, gt = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    return TrainingBatch(lq, gt, None, ["a", "b"], ["a", "b"], [0, 1])


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_the_discriminator_begins_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    training = build_training(gan_options(tmp_path, net_d_init_iters=1, net_d_iters=2), ALONE)
    assert isinstance(training, GANTraining)
    for iteration, learns in ((1, False), (2, True), (3, False), (4, True)):
        before = weights(training.network), weights(training.discriminator)
        losses = training.step([batch()], iteration)
        assert torch.equal(before[0], weights(training.network)) is not learns
        assert not torch.equal(before[1], weights(training.discriminator))
        expected = ["l_d_real", "out_d_real", "l_d_fake", "out_d_fake"]
        assert list(losses) == (["l_g_pix", "l_g_gan", *expected] if learns else expected)


def test_what_is_missing_for_the_game_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs network_d, train: gan_opt and train: optim_d"):
        build_training(gan_options(tmp_path, optim_d=None), ALONE)
    plain = build_training(tiny_options(tmp_path), ALONE)
    assert type(plain) is Training


def test_sharpened_truths_go_where_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = build_training(gan_options(tmp_path), ALONE)
    assert isinstance(training, GANTraining)
    seen: dict[str, torch.Tensor] = {}

    def record(result: torch.Tensor, truth: torch.Tensor, truths: Any) -> Any:
        seen.update(truths)
        return {"pix": (result - truth).abs().mean()}

    monkeypatch.setattr(training.criteria, "forward", record)
    sharp = replace(batch(), gt_usm=torch.rand(2, 3, 16, 16))
    training.step([sharp], 1)
    assert seen["pix"] is sharp.gt_usm and seen["percep"] is sharp.gt_usm
    assert training.truth(sharp, training.chain.gan_gt_usm) is sharp.gt
    training.step([batch()], 2)
    assert torch.equal(seen["pix"], batch().gt)


def test_both_networks_are_saved(tmp_path: Path) -> None:
    draw_pictures(tmp_path)
    train(gan_options(tmp_path), root=tmp_path)
    content = torch.load(tmp_path / "experiments/tiny/models/net_d_latest.pth", weights_only=True)
    assert list(content) == ["params"]
    UNetDiscriminatorSN(3, 4).load_state_dict(content["params"])
