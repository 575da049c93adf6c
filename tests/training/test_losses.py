"""Losses against their definitions, and against numbers of BasicSR 1.4.2."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from restore.errors import CheckpointError, UsageError
from restore.metrics import ssim
from restore.training.losses import (
    CharbonnierLoss,
    FFTLoss,
    GANLoss,
    L1Loss,
    MSELoss,
    PerceptualLoss,
    SSIMLoss,
    gram,
)
from restore.training.vgg import layer_names, weight_file

EXACT = 1e-14


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    a, b = (torch.rand(2, 3, 24, 32, dtype=torch.float64) for _ in range(2))
    return a, b


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (L1Loss(0.7), 0.23603358675338615),
        (L1Loss(0.7, "sum"), 1087.6427677596034),
        (MSELoss(0.7), 0.11877692459486026),
        (MSELoss(0.7, "sum"), 547.3240685331161),
        (CharbonnierLoss(0.7), 0.23603358676543362),
        (CharbonnierLoss(0.7, "sum"), 1087.642767815118),
    ],
)
def test_pixel_losses_have_the_values_of_basicsr(
    pair: tuple[Tensor, Tensor], loss: nn.Module, expected: float
) -> None:
    assert float(loss(*pair)) == pytest.approx(expected, rel=EXACT)


def test_a_loss_is_one_number() -> None:
    reduction: Any = "none"
    with pytest.raises(UsageError, match="reduction is 'none'; expected mean or sum"):
        L1Loss(1.0, reduction)


VERDICT = torch.tensor([[-2.0, 0.5], [1.25, 3.0]], dtype=torch.float64)


@pytest.mark.parametrize("is_real", [True, False])
@pytest.mark.parametrize("kind", ["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"])
def test_game_losses_follow_their_definitions(
    kind: Literal["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"], is_real: bool
) -> None:
    loss = GANLoss(kind, loss_weight=0.1)
    x = VERDICT.numpy()
    sign = -1 if is_real else 1
    softplus = np.log1p(np.exp(sign * x)).mean()
    expected = {
        "vanilla": softplus,  # cross entropy of a logit
        "wgan_softplus": softplus,
        "lsgan": ((x - is_real) ** 2).mean(),
        "wgan": sign * x.mean(),
        "hinge": np.maximum(0, 1 + sign * x).mean(),
    }[kind]
    assert float(loss(VERDICT, is_real, is_disc=True)) == pytest.approx(expected, rel=EXACT)
    of_generator = -x.mean() if kind == "hinge" else expected
    assert float(loss(VERDICT, is_real)) == pytest.approx(0.1 * of_generator, rel=EXACT)


def test_ssim_is_that_of_the_metric(pair: tuple[Tensor, Tensor]) -> None:
    a, b = pair
    scores = [
        ssim(x.permute(1, 2, 0).numpy(), y.permute(1, 2, 0).numpy())
        for x, y in zip(a, b, strict=True)
    ]
    assert float(SSIMLoss(0.5)(a, b)) == pytest.approx(0.5 * (1 - np.mean(scores)), rel=1e-12)
    assert float(SSIMLoss()(a, a)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(UsageError, match="the window needs 11 x 11"):
        SSIMLoss()(a[..., :10], b[..., :10])


def test_the_spectrum_is_numpys(pair: tuple[Tensor, Tensor]) -> None:
    a, b = pair
    difference = np.fft.rfft2((a - b).numpy())
    expected = np.stack([np.abs(difference.real), np.abs(difference.imag)]).mean()
    assert float(FFTLoss(2.0)(a, b)) == pytest.approx(2 * expected, rel=1e-12)


@pytest.mark.parametrize(
    "loss", [L1Loss(), MSELoss(), CharbonnierLoss(eps=1e-6), FFTLoss(), SSIMLoss()]
)
def test_losses_have_gradients(loss: nn.Module) -> None:
    torch.manual_seed(1)
    x = torch.rand(1, 2, 12, 12, dtype=torch.float64, requires_grad=True)
    truth = torch.rand(1, 2, 12, 12, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda y: loss(y, truth), (x,))


def made_up_vgg(folder: Path, vgg_type: str) -> Path:
    """A file like torchvision's, with other numbers and the layers that are needed."""
    torch.manual_seed(2)
    state, channels = {}, 3
    for number, name in enumerate(layer_names(vgg_type)[:5]):
        if name.startswith("conv"):
            conv = nn.Conv2d(channels, 64, 3, padding=1)
            state |= {f"features.{number}.{k}": v for k, v in conv.state_dict().items()}
            channels = 64
    path = folder / f"{vgg_type}-made-up.pth"
    torch.save({**state, "classifier.0.bias": torch.zeros(3)}, path)
    return path


def test_perceptual_and_style_are_distances_of_features(tmp_path: Path) -> None:
    path = made_up_vgg(tmp_path, "vgg19")
    weights = torch.load(path, weights_only=True)
    torch.manual_seed(3)
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    loss = PerceptualLoss(
        {"conv1_1": 0.5, "relu1_2": 2.0}, perceptual_weight=0.9, style_weight=3.0, vgg_weights=path
    ).train()
    assert not any(p.requires_grad for p in loss.parameters())
    terms = loss(a, b)

    def features(x: Tensor) -> list[Tensor]:
        mean, std = (
            torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        convs = [(weights[f"features.{n}.weight"], weights[f"features.{n}.bias"]) for n in (0, 2)]
        first = nn.functional.conv2d((x - mean) / std, *convs[0], padding=1)
        return [first, nn.functional.conv2d(first.relu(), *convs[1], padding=1).relu()]

    pairs = list(zip(features(a), features(b), (0.5, 2.0), strict=True))
    percep = 0.9 * sum(w * (x - y).abs().mean() for x, y, w in pairs)
    style = 3.0 * sum(w * (gram(x) - gram(y)).abs().mean() for x, y, w in pairs)
    assert float(terms["percep"]) == pytest.approx(float(percep), rel=1e-6)
    assert float(terms["style"]) == pytest.approx(float(style), rel=1e-5)


def test_vgg_weights_that_are_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    with pytest.raises(UsageError, match=r"no vgg19-\*\.pth in experiments.*pretrained_models"):
        PerceptualLoss({"conv5_4": 1.0})
    found = tmp_path / "experiments" / "pretrained_models"
    found.mkdir(parents=True)
    made_up_vgg(found, "vgg19")
    assert weight_file("vgg19").name == "vgg19-made-up.pth"
    with pytest.raises(CheckpointError, match="is not torchvision's file of this VGG"):
        PerceptualLoss({"conv5_4": 1.0})
    with pytest.raises(UsageError, match="has no layer 'conv9_9'"):
        PerceptualLoss({"conv9_9": 1.0})
