"""LPIPS, DISTS and NIQE: the computations against their formulas, and what is missing is told."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from restore.errors import UsageError
from restore.metrics import rgb_to_y
from restore.metrics.niqe import NaturalModel, niqe, read_model
from restore.metrics.perceptual import perceptual
from restore.resizing import imresize
from restore.torchvision_remedies import declare_torchvision_operators, supply_functional_tensor
from restore.training.options import MetricOptions
from restore.training.validation import Metrics


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights, and no other place where any could be found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def photo(root: Path) -> np.ndarray:
    """[300, 400, 3]: 3 x 4 blocks, nowhere flat."""
    small = np.asarray(Image.open(root / "samples" / "photo.png").convert("RGB"))
    grain = np.random.default_rng(0).integers(-9, 10, (300, 400, 3))
    return (imresize(small, 2) // 2 + 60 + grain).astype(np.uint8)


def made_up_model() -> NaturalModel:
    """Numbers as large as those of features, from no picture."""
    index = np.arange(36)
    covariance = 0.02 * np.exp(-np.abs(index[:, None] - index))
    return NaturalModel(0.5 + 0.3 * np.sin(index), covariance)


def write_model(path: Path, model: NaturalModel) -> Path:
    np.savez(path, mu_pris_param=model.mean[None], cov_pris_param=model.covariance)
    return path


# what BasicSR 1.4.2's `niqe` gives for `photo` and `made_up_model` in float64, with our resize
RECORDED_NIQE = 28.994888480001585


def test_niqe_is_basicsr_recorded_value(root: Path, hub: Path) -> None:
    write_model(hub / "niqe_pris_params.npz", made_up_model())
    metric = perceptual("niqe")
    assert not metric.needs_truth
    image = photo(root)
    assert metric(image) == pytest.approx(RECORDED_NIQE, abs=1e-6)
    batch = torch.from_numpy(np.stack([image, image[::-1].copy()])).movedim(3, 1)
    values = metric(batch)
    assert (values.shape, values.dtype) == ((2,), torch.float64)
    assert values[0].item() == pytest.approx(RECORDED_NIQE, abs=1e-6)
    assert values[1].item() == metric(image[::-1].copy())


def test_niqe_equals_basicsr(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("basicsr") is None:
        pytest.skip("needs BasicSR: pip install --no-build-isolation --no-deps basicsr==1.4.2")
    declare_torchvision_operators()
    supply_functional_tensor()
    theirs: Any = importlib.import_module("basicsr.metrics.niqe")
    path = Path(theirs.__file__).with_name("niqe_pris_params.npz")
    model = read_model(path)
    image = photo(root)
    whole = theirs.calculate_niqe(np.ascontiguousarray(image[:, :, ::-1]), 0)
    # its Y and its half are in float32
    assert perceptual("niqe")(image) == pytest.approx(whole, abs=1e-2)
    y = rgb_to_y(image)[:, :, 0].round()
    window = np.load(path)["gaussian_window"]
    monkeypatch.setattr(theirs, "imresize", lambda x, scale, antialiasing: imresize(x, scale))
    for found in (model, made_up_model()):
        expected = theirs.niqe(y, found.mean[None], found.covariance, window)
        assert niqe(y, found) == pytest.approx(expected, abs=1e-6)


def test_niqe_of_the_authors_program(shared: Path) -> None:
    """MATLAB R2021a gives 5.72957338 for baboon, as BasicSR's documentation says."""
    try:
        metric = perceptual("niqe")
    except UsageError as why:
        pytest.skip(f"needs the authors' parameters: {why}")
    image = np.asarray(Image.open(shared / "data" / "Set14" / "HR" / "baboon.png").convert("RGB"))
    assert metric(image) == pytest.approx(5.72957338, abs=1e-5)


def test_flat_parts_of_a_picture_count_nothing() -> None:
    image = np.full((96, 288), 131.0)
    with pytest.raises(UsageError, match="NIQE: 0 of 3 blocks are not flat; expected two"):
        niqe(image, made_up_model())
    image[:, 96:] += np.random.default_rng(0).integers(0, 9, (96, 192))
    assert niqe(image, made_up_model()) > 0
    with pytest.raises(UsageError, match="has 191 x 96 pixels; expected at least two blocks"):
        niqe(np.zeros((191, 96)), made_up_model())


def vgg16(seed: int = 0) -> dict[str, Tensor]:
    """Torchvision's names with numbers of our own."""
    torch.manual_seed(seed)
    state, channels, number = {}, 3, 0
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            state[f"features.{number}.weight"] = (
                torch.randn(width, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
            )
            state[f"features.{number}.bias"] = torch.randn(width) * 0.1
            channels, number = width, number + 2
        number += 1
    return state


def slow_dists(x: Tensor, y: Tensor, state: dict[str, Tensor], alpha: Any, beta: Any) -> float:
    """Equations 3 to 8 of the paper, one channel after the other, in float64."""

    def maps(picture: Tensor) -> list[Tensor]:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        found = [picture.double()]
        z, number = ((picture - mean[:, None, None]) / std[:, None, None])[None].double(), 0
        window = torch.outer(*[torch.hann_window(5, periodic=False).double()[1:-1]] * 2)
        window /= window.sum()
        for part, count in enumerate((2, 2, 3, 3, 3)):
            if part:
                square = F.pad(z[0].square(), (1, 1, 1, 1))
                rows = [
                    [
                        (square[:, i : i + 3, j : j + 3] * window).sum((1, 2))
                        for j in range(0, z.shape[3], 2)
                    ]
                    for i in range(0, z.shape[2], 2)
                ]
                z = torch.stack([torch.stack(row, -1) for row in rows], -2)[None].sqrt()
            for _ in range(count):
                weight, bias = (state[f"features.{number}.{k}"] for k in ("weight", "bias"))
                z = F.conv2d(z, weight.double(), bias.double(), padding=1).relu()
                number += 2
            number += 1
            found.append(z[0])
        return found

    total, k = 0.0, 0
    for one, two in zip(maps(x), maps(y), strict=True):
        for p, q in zip(one, two, strict=True):
            covariance = ((p - p.mean()) * (q - q.mean())).mean()
            luminance = (2 * p.mean() * q.mean() + 1e-6) / (p.mean() ** 2 + q.mean() ** 2 + 1e-6)
            variances = p.var(correction=0) + q.var(correction=0)
            total += float(
                alpha[k] * luminance + beta[k] * (2 * covariance + 1e-6) / (variances + 1e-6)
            )
            k += 1
    return 1 - total / float(alpha.sum() + beta.sum())


def test_dists_equals_its_formulas(hub: Path, device: torch.device) -> None:
    torch.save(state := vgg16(), hub / "vgg16-397923af.pth")
    alpha, beta = torch.rand(2, 1475).unbind()
    weights = {name: x[None, :, None, None] for name, x in (("alpha", alpha), ("beta", beta))}
    torch.save(weights, hub / "DISTS_weights-made-up.pth")
    metric = perceptual("dists", device=device)
    x, y = torch.rand(2, 2, 3, 20, 17).unbind()
    values = metric(x.to(device), y.to(device))
    assert values.device.type == device.type
    for i in range(2):
        # float32 through 13 convolutions
        expected = slow_dists(x[i], y[i], state, alpha, beta)
        assert values[i].item() == pytest.approx(expected, abs=1e-4)
    assert metric(x.to(device), x.to(device)).abs().max() < 1e-6
    gray = torch.rand(1, 1, 16, 16)
    colours = gray.repeat(1, 3, 1, 1)
    values = metric(gray, gray / 2), metric(colours, colours / 2)
    assert values[0].item() == pytest.approx(values[1].item(), abs=1e-6)
    torch.save({"alpha": alpha}, hub / "DISTS_weights-made-up.pth")
    with pytest.raises(UsageError, match=r"has no beta of 1475 numbers; expected github\.com"):
        perceptual("dists")


class FakeLPIPS(nn.Module):
    """The package's interface; the mean difference for a distance."""

    def __init__(self, net: str, verbose: bool) -> None:
        super().__init__()

    def forward(self, x: Tensor, y: Tensor, normalize: bool) -> Tensor:
        assert normalize and x.shape[1] == 3 and x.dtype == torch.float32
        return (x - y).abs().mean((1, 2, 3), keepdim=True)


@pytest.fixture
def fake_lpips(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = ModuleType("lpips")
    package.LPIPS = FakeLPIPS
    monkeypatch.setitem(sys.modules, "lpips", package)
    (hub / "alexnet-owt-7be5be79.pth").touch()


@pytest.mark.usefixtures("fake_lpips")
def test_lpips_takes_pictures_in_0_to_1_without_the_border() -> None:
    metric = perceptual("lpips")
    a = np.zeros((8, 9, 3), np.uint8)
    b = np.full((8, 9, 3), 51, np.uint8)
    b[0] = 255
    assert metric(a, b, crop_border=1) == pytest.approx(0.2, abs=1e-7)
    assert metric(a[:, :, 0], b[:, :, 0], crop_border=1) == pytest.approx(0.2, abs=1e-7)
    values = metric(
        torch.zeros(2, 1, 4, 4), torch.tensor([0.5, 0.25])[:, None, None, None].expand(2, 1, 4, 4)
    )
    assert values.tolist() == [0.5, 0.25]
    with pytest.raises(UsageError, match="lpips compares with the true picture; none was given"):
        metric(a)
    scores = Metrics({"d": MetricOptions(type="lpips", crop_border=1)})
    assert scores(a, b)["d"] == metric(a, b, crop_border=1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lpips", r"no .*alexnet-owt-7be5be79\.pth, .*; put torchvision's there, from download"),
        ("dists", r"no vgg16-397923af\.pth in .*; get it from download\.pytorch\.org"),
        ("niqe", r"no niqe_pris_params\.npz in .*; get it from github\.com/XPixelGroup/BasicSR"),
    ],
)
@pytest.mark.usefixtures("fake_lpips")
def test_a_missing_file_is_told(hub: Path, name: Any, message: str) -> None:
    (hub / "alexnet-owt-7be5be79.pth").unlink()
    with pytest.raises(UsageError, match=f"^{name.upper()}: {message}"):
        perceptual(name)


def test_what_else_is_missing_is_told(hub: Path) -> None:
    (hub / "vgg16-397923af.pth").touch()
    with pytest.raises(UsageError, match=r"no DISTS_weights\*\.pth in .*dingkeyan93/DISTS"):
        perceptual("dists")
    with pytest.raises(UsageError, match="metric 'fid'; expected lpips, dists, niqe"):
        perceptual("fid")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="metric 'q': NIQE: no niqe_pris_params"):
        Metrics({"q": MetricOptions(type="niqe")})


def test_another_file_is_no_model_of_natural_pictures(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    path.write_text("no archive")
    with pytest.raises(UsageError, match=r"NIQE: .*m\.npz is not github\.com"):
        read_model(path)
    np.savez(path, mu_pris_param=np.zeros((1, 36)))
    with pytest.raises(UsageError, match="cov_pris_param"):
        read_model(path)
    write_model(path, NaturalModel(np.zeros(36), np.zeros((35, 35))))
    with pytest.raises(UsageError, match=r"\(36,\) and \(35, 35\) numbers; expected"):
        read_model(path)
