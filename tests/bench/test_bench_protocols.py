"""Protocols: what is made of a picture, what is counted, and which of them a model gets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from small_models import tiny

from restore.bench import protocols
from restore.bench.protocols import (
    Figure,
    levels_of,
    prepared,
    protocol_of,
    seen,
    task_of,
)
from restore.bench.scores import as_bytes, scored
from restore.commands import bench as options
from restore.errors import ImageError, UsageError
from restore.image_io import read_picture
from restore.metrics import psnr, ssim
from restore.resizing import imresize


def pixels(height: int, width: int, channels: int, dtype: type = np.uint8) -> np.ndarray:
    random = np.random.default_rng(height * width)
    return random.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def test_the_command_offers_what_there_is() -> None:
    assert options.TASKS == protocols.TASKS
    assert options.PERCEPTUAL == protocols.PERCEPTUAL


@pytest.mark.parametrize(
    ("channels", "task", "keys"),
    [
        (3, "sr", ["psnr_y", "ssim_y"]),
        (3, "denoise", ["psnr_rgb", "ssim_rgb"]),
        (1, "denoise", ["psnr_gray", "ssim_gray"]),
        (1, "jpeg", ["psnr_y", "ssim_y", "psnr_b_y"]),
        (3, "jpeg", ["psnr_y", "ssim_y", "psnr_b_y", "psnr_rgb", "ssim_rgb", "psnr_b_rgb"]),
    ],
)
def test_figures_are_those_of_the_papers(channels: int, task: str, keys: list[str]) -> None:
    protocol = protocol_of(channels, task, 4)  # type: ignore[arg-type]
    assert [figure.key for figure in protocol.figures] == keys
    assert protocol.crop_border == (4 if task == "sr" else 0)


def test_super_resolution_makes_what_matlab_makes() -> None:
    picture = pixels(31, 42, 3)
    low, truth = prepared(picture, None, protocol_of(3, "sr", 4), "p.png")
    assert truth.shape == (28, 40, 3)
    assert np.array_equal(low, imresize(picture[:28, :40], 1 / 4).astype(np.float32) / 255)


def test_a_truth_is_cut_to_its_low_side() -> None:
    picture, low = pixels(31, 42, 3), pixels(7, 10, 3)
    given, truth = prepared(picture, low, protocol_of(3, "sr", 4), "p.png", "px4.png")
    assert np.array_equal(truth, picture[:28, :40])
    assert np.array_equal(given, low.astype(np.float32) / 255)
    with pytest.raises(ImageError, match=r"31 x 42 pixels are not 3 times the 7 x 10 of px4\.png"):
        prepared(picture, low, protocol_of(3, "sr", 3), "p.png", "px4.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_is_that_of_the_papers_scripts(channels: int) -> None:
    """SwinIR's script: seed 0 for each picture, drawn for the picture as OpenCV reads it."""
    picture = pixels(9, 13, channels)
    low, truth = prepared(picture, None, protocol_of(channels, "denoise", 25), "p.png")
    np.random.seed(0)
    bgr = picture[:, :, ::-1].astype(np.float32) / 255.0
    noisy = bgr + np.random.normal(0, 25 / 255.0, bgr.shape)
    assert np.abs(low - noisy[:, :, ::-1]).max() <= 2**-23  # both are rounded to float32
    assert np.array_equal(truth, picture)
    assert low.min() < 0 and low.max() > 1  # nothing is clipped


def test_jpeg_is_that_of_the_papers_scripts() -> None:
    picture = pixels(24, 40, 3)
    low, truth = prepared(picture, None, protocol_of(3, "jpeg", 10), "p.png")
    _, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 10])
    assert np.array_equal(low, cv2.imdecode(data, 1)[:, :, ::-1].astype(np.float32) / 255)
    assert np.array_equal(truth, picture)


def test_a_gray_network_gets_y_for_jpeg_and_gray_for_noise() -> None:
    colour = pixels(24, 40, 3)
    weights = np.array([65.481, 128.553, 24.966]) / 255
    y = (colour @ weights + 16).round().astype(np.uint8)[:, :, None]
    low, truth = prepared(colour, None, protocol_of(1, "jpeg", 30), "p.png")
    assert np.array_equal(truth, y)
    _, data = cv2.imencode(".jpg", y, [cv2.IMWRITE_JPEG_QUALITY, 30])
    assert np.array_equal(low[:, :, 0], cv2.imdecode(data, 0).astype(np.float32) / 255)
    _, truth = prepared(colour, None, protocol_of(1, "denoise", 25), "p.png")
    assert np.array_equal(truth[:, :, 0], cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY))
    gray = pixels(24, 40, 1)
    assert np.array_equal(seen(gray, "y"), gray)


def test_sixteen_bits_count_as_eight() -> None:
    deep = pixels(24, 40, 3, np.uint16)
    assert np.array_equal(seen(deep, "rgb"), ((deep.astype(np.int64) + 128) // 257))


def test_tasks_and_levels_follow_from_the_model() -> None:
    denoiser = tiny(1, name="005_colorDN_DFWB_s128w8_SwinIR-M_noise25")
    assert task_of(tiny(2), None) == "sr"
    assert task_of(denoiser, "denoise") == "denoise"
    assert levels_of(tiny(2), "sr", ()) == (2,)
    assert levels_of(denoiser, "denoise", ()) == (25,)
    assert levels_of(denoiser, "denoise", (50, 50, 15)) == (50, 15)
    assert levels_of(tiny(1, name="CAR_CAT_q10"), "jpeg", ()) == (10,)
    assert levels_of(tiny(1), "denoise", ()) == (15, 25, 50)
    with pytest.raises(
        UsageError, match=r"nothing tells its task: SwinIR-dim6.*; give --task denoise"
    ):
        task_of(tiny(1), None)
    with pytest.raises(UsageError, match="--task denoise: tiny enlarges 2 times"):
        task_of(tiny(2), "denoise")
    with pytest.raises(UsageError, match="expected one that enlarges"):
        task_of(tiny(1), "sr")


def test_scores_are_those_of_the_metrics() -> None:
    truth, result = pixels(28, 40, 3), pixels(28, 41, 3)[:, :40]
    found = scored(result, truth, protocol_of(3, "sr", 2))
    assert found == {
        "psnr_y": psnr(result, truth, crop_border=2, y_channel=True),
        "ssim_y": ssim(result, truth, crop_border=2, y_channel=True),
    }
    found = scored(result, truth, protocol_of(3, "denoise", 15))
    assert found["psnr_rgb"] == psnr(result, truth)


def test_gray_pictures_count_by_either_rule(shared: Path) -> None:
    """Set14's bridge: 20 log10(255 / 219) = 1.322 dB between the two conventions."""
    bridge = read_picture(shared / "data" / "Set14" / "HR" / "bridge.png").pixels
    assert bridge.shape[2] == 1
    values = {}
    for rule in ("rgb", "y"):
        protocol = protocol_of(3, "sr", 4, gray=rule)  # type: ignore[arg-type]
        low, truth = prepared(bridge, None, protocol, "bridge.png")
        result = as_bytes(imresize(low, 4).clip(0, 1))
        values[rule] = scored(result, truth, protocol, is_gray=True)["psnr_y"]
        assert rule == "rgb" or "gray pictures counted directly as Y" in protocol.words()
    assert values["rgb"] - values["y"] == pytest.approx(20 * np.log10(255 / 219), abs=1e-9)


def test_the_way_to_count_gray_is_told_where_it_counts() -> None:
    directly, equal = "gray pictures counted directly as Y", "counted as three equal channels"
    for channels, task, counts in ((3, "sr", True), (3, "jpeg", True), (3, "denoise", False)):
        assert (directly in protocol_of(channels, task, 4, gray="y").words()) is counts
        assert (equal in protocol_of(channels, task, 4).words()) is counts
    assert directly not in protocol_of(1, "jpeg", 40, gray="y").words()


def test_values_are_shown_as_papers_print_them() -> None:
    assert Figure("psnr", "y").shown(32.5537) == "32.55"
    assert Figure("ssim", "y").shown(0.89986) == ".8999"
    assert Figure("ssim", "y").shown(1.0) == "1.0000"
    assert (Figure("psnr_b", "y").title, Figure("lpips", "rgb").title) == ("PSNR-B Y", "LPIPS")
