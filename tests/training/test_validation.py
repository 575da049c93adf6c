"""Validation scores as restore.metrics does, and `restore test` gives published numbers."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import draw_pictures, tiny_options
from torch import Tensor

from restore.errors import ImageError
from restore.image_io import read_picture
from restore.metrics import psnr, ssim
from restore.training.building import build_generator
from restore.training.dataset_options import DatasetOptions
from restore.training.distributed import Processes
from restore.training.loop import train
from restore.training.model import Training
from restore.training.options import (
    MetricOptions,
    ModelKind,
    NetworkOptions,
    Options,
    PathOptions,
    TileOptions,
    ValOptions,
)
from restore.training.testing import test as score
from restore.training.validation import (
    Best,
    Metrics,
    Scores,
    as_bytes,
    how_of,
    restored,
    validate,
    write_scores,
)
from restore.training.whole_pictures import How

ALONE = Processes(torch.device("cpu"))


@dataclass(frozen=True)
class Pair:
    lq: Tensor
    gt: Tensor | None
    lq_path: str


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return tiny_options(tmp_path)


@pytest.fixture
def model(options: Options) -> Any:
    torch.manual_seed(0)
    model = build_generator(options.network_g, 2)
    model.module.eval()
    return model


def pairs(count: int) -> list[Pair]:
    torch.manual_seed(1)
    return [
        Pair(torch.rand(1, 3, 12, 14), torch.rand(1, 3, 24, 28), f"{number}.png")
        for number in range(count)
    ]


def test_scores_are_of_clipped_and_rounded_results(model: Any, options: Options) -> None:
    pictures = pairs(2)
    scores = validate(model, "two", pictures, Metrics(options.val.metrics), How(), processes=ALONE)
    for pair in pictures:
        with torch.no_grad():
            y = model(pair.lq)[0].clamp(0, 1) * 255
        assert pair.gt is not None
        result, truth = (
            x.round().permute(1, 2, 0).numpy().astype(np.uint8) for x in (y, pair.gt[0] * 255)
        )
        found = scores.pictures[Path(pair.lq_path).stem]
        assert found["psnr"] == psnr(result, truth, crop_border=2, y_channel=True)
        assert found["ssim"] == ssim(result, truth, crop_border=2)
    mean = sum(each["psnr"] for each in scores.pictures.values()) / 2
    assert scores.means()["psnr"] == pytest.approx(mean, rel=1e-15)


def test_pictures_are_written_as_they_are_scored(model: Any, tmp_path: Path) -> None:
    (pair,) = pairs(1)
    validate(
        model,
        "one",
        [replace(pair, gt=None)],
        Metrics({}),
        How(),
        processes=ALONE,
        save_to=lambda name: tmp_path / "new" / f"{name}_x.png",
    )
    stored = read_picture(tmp_path / "new" / "0_x.png").pixels
    assert np.array_equal(stored, as_bytes(restored(model, pair.lq, How())))


def test_tiles_and_ensembles_go_through_upscale(model: Any) -> None:
    torch.manual_seed(2)
    lq = torch.rand(1, 3, 50, 70)
    whole = restored(model, lq, How())
    tiled = restored(model, lq, How(tile=32, tile_pad=32))
    # upscale clips
    assert torch.allclose(tiled, whole.clamp(0, 1), atol=1e-4)
    ensemble = restored(model, lq, How(self_ensemble=True))
    turned = restored(model, lq.flip(3), How(self_ensemble=True)).flip(2)
    assert torch.allclose(ensemble, turned, atol=1e-5)


def test_training_goes_on_after_a_tiled_validation(tmp_path: Path) -> None:
    """What a network keeps between calls must not be what autograd refuses."""
    draw_pictures(tmp_path)
    options = replace(tiny_options(tmp_path, ema_decay=0.0), tile=TileOptions(tile_size=32))
    assert train(options, root=tmp_path).finished


def test_the_file_decides_how_pictures_are_restored(options: Options) -> None:
    assert how_of(options) == How()
    chop = replace(options, val=replace(options.val, use_chop=True))
    assert how_of(chop) == How(200, 16)
    tiled = replace(chop, tile=TileOptions(tile_size=64, tile_pad=None))
    assert how_of(tiled) == How(64, None)
    kind = ModelKind(padding="published", self_ensemble=True)
    assert how_of(replace(options, kind=kind)) == How(0, None, True, "published")


def test_the_best_is_kept_by_metric() -> None:
    best = Best(
        {
            "up": MetricOptions(type="psnr"),
            "down": MetricOptions(type="lpips"),
            "own": MetricOptions(type="ssim", better="lower"),
        }
    )
    for iteration, value in ((5, 2.0), (10, 3.0), (15, 3.0), (20, 1.0)):
        best.see(Scores("set", {"a": {"up": value, "down": value, "own": value}}), iteration)
    assert best.found["set"] == {"up": (3.0, 15), "down": (1.0, 20), "own": (1.0, 20)}


def test_scores_of_every_picture_are_written(tmp_path: Path) -> None:
    first = Scores("a", {"x": {"psnr": 30.0, "ssim": 0.5}, "y": {"psnr": 32.0, "ssim": 0.7}})
    second = Scores("b", {"z": {"psnr": 1.0}})
    kinds = {"psnr": MetricOptions(type="psnr"), "ssim": MetricOptions(type="ssim")}
    write_scores(tmp_path / "s.csv", [first, second], kinds)
    rows = list(csv.reader((tmp_path / "s.csv").read_text().splitlines()))
    assert rows[0] == ["dataset", "picture", "psnr", "ssim"]
    assert rows[3] == ["a", "mean", "31.000000", "0.60000000"]
    assert rows[5] == ["b", "mean", "1.000000", ""]


def test_unlike_sizes_are_told(model: Any, options: Options) -> None:
    (pair,) = pairs(1)
    wrong = replace(pair, gt=torch.rand(1, 3, 20, 28))
    with pytest.raises(
        ImageError, match=r"one: .*: the result is \(24, 28, 3\) and the truth \(20, 28, 3\)"
    ):
        validate(model, "one", [wrong], Metrics(options.val.metrics), How(), processes=ALONE)


def test_validation_judges_the_average(tmp_path: Path) -> None:
    draw_pictures(tmp_path)
    training = Training(tiny_options(tmp_path), ALONE)
    assert training.average is not None
    with training.judged() as model:
        assert model.module is training.average.module
    training = Training(tiny_options(tmp_path, ema_decay=0.0), ALONE)
    with training.judged() as model:
        assert model.module is training.network and not model.module.training
    assert training.network.training


def published_test(shared: Path, weights: Path) -> Options:
    """The official test of HiT-SRF x4 on Set5."""
    return Options(
        file=Path("hit_srf_x4.yml"),
        name="hit_srf_x4",
        model_type="HITModel",
        kind=ModelKind(),
        scale=4,
        num_gpu=0,
        datasets={
            "test_1": DatasetOptions(
                key="test_1",
                phase="test",
                scale=4,
                type="PairedImageDataset",
                name="Set5",
                dataroot_gt=(shared / "data/Set5/HR",),
                dataroot_lq=(shared / "data/Set5/LR_bicubic/X4",),
                filename_tmpl="{}x4",
            )
        },
        network_g=NetworkOptions(type="HiT_SRF", arguments={"upscale": 4}),
        path=PathOptions(pretrain_network_g=weights),
        val=ValOptions(
            metrics={
                "psnr": MetricOptions(type="psnr", crop_border=4, test_y_channel=True),
                "ssim": MetricOptions(type="ssim", crop_border=4, test_y_channel=True),
            }
        ),
    )


@pytest.mark.slow
def test_published_weights_have_their_published_scores(shared: Path, tmp_path: Path) -> None:
    weights = shared / "weights" / "HiT-SRF_x4.pth"
    if not weights.exists():
        pytest.skip("needs HiT-SRF_x4.pth in ../shared/weights")
    (scores,) = score(published_test(shared, weights), root=tmp_path)
    means = scores.means()
    assert (round(means["psnr"], 2), round(means["ssim"], 4)) == (32.55, 0.8999)
    assert (tmp_path / "results/hit_srf_x4/scores.csv").exists()
