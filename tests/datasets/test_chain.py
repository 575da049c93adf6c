"""The second-order chain: sizes, determinism, and its parts."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from restore.datasets.blur_kernels import KernelRound
from restore.datasets.realesrgan import (
    ChainRound,
    ChainSettings,
    cut_out,
    degrade,
    draw_plan,
    sharpened,
)

KERNELS = KernelRound(21, ("iso", "aniso"), (0.5, 0.5), 0.1, (0.2, 3), (0.5, 4), (1, 2))
ROUND = ChainRound(
    KERNELS, 0.8, (0.2, 0.7, 0.1), (0.15, 1.5), 0.5, (1, 30), (0.05, 3), 0.4, (30, 95)
)
SETTINGS = ChainSettings(ROUND, ROUND, 0.8)
HARMLESS = replace(
    ROUND,
    blur=0.0,
    resize=(0.0, 0.0, 1.0),
    gaussian=1.0,
    sigma=(0.0, 0.0),
    quality=(99.0, 99.0),
)


def plans(count: int, settings: ChainSettings = SETTINGS) -> list:  # type: ignore[type-arg]
    return [draw_plan(settings, np.random.default_rng(seed)) for seed in range(count)]


def pictures(count: int, side: int, device: torch.device) -> torch.Tensor:
    noise = np.random.default_rng(0).random((count, side, side, 3), np.float32)
    smooth = np.stack([cv2.GaussianBlur(one, (0, 0), 2) for one in noise])
    return torch.from_numpy(smooth.transpose(0, 3, 1, 2).copy()).to(device)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_results_are_smaller_and_of_8_bits(scale: int, device: torch.device) -> None:
    out = degrade(pictures(6, 64, device), plans(6), scale)
    assert out.shape == (6, 3, 64 // scale, 64 // scale)
    assert out.min() >= 0
    assert out.max() <= 1
    torch.testing.assert_close(out * 255, (out * 255).round(), rtol=0, atol=1e-4)


def test_a_picture_is_degraded_alike_in_any_batch(device: torch.device) -> None:
    gt, chains = pictures(4, 48, device), plans(4)
    whole = degrade(gt, chains, 2)
    torch.testing.assert_close(degrade(gt, chains, 2), whole, rtol=0, atol=0)
    for i in range(4):
        alone = degrade(gt[i : i + 1], chains[i : i + 1], 2)
        # sums of a convolution may be taken in another order, which can turn one rounding
        assert (alone[0] - whole[i]).abs().max() <= 1.01 / 255


def test_chains_differ(device: torch.device) -> None:
    gt = pictures(1, 64, device).repeat(8, 1, 1, 1)
    out = degrade(gt, plans(8), 4)
    assert len({row.cpu().numpy().tobytes() for row in out}) == 8


def test_a_chain_that_does_nothing_only_makes_smaller(device: torch.device) -> None:
    gt = pictures(2, 64, device)
    out = degrade(gt, plans(2, ChainSettings(HARMLESS, HARMLESS, 0.0)), 1)
    # two JPEG passes, which halve the colours' resolution
    assert (out - gt).abs().mean() < 0.02


@pytest.mark.parametrize("gaussian", [0.0, 1.0])
def test_noise_is_added(gaussian: float, device: torch.device) -> None:
    noisy = replace(HARMLESS, gaussian=gaussian, sigma=(25, 25), poisson=(2.5, 2.5), gray=0.0)
    gt = torch.full((1, 3, 64, 64), 0.5, device=device)
    gt[:, :, ::2] += 0.1  # Poisson noise counts the grays of a picture
    clean = degrade(gt, plans(1, ChainSettings(HARMLESS, HARMLESS, 0.0)), 1)
    out = degrade(gt, plans(1, ChainSettings(noisy, HARMLESS, 0.0)), 1)
    assert (out - clean).std() > 0.03


def test_gray_noise_is_the_same_in_all_channels(device: torch.device) -> None:
    for gaussian in (0.0, 1.0):
        noisy = replace(HARMLESS, gaussian=gaussian, sigma=(25, 25), poisson=(1, 1), gray=1.0)
        gt = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        gray = (0.3 + 0.4 * gt).repeat(1, 3, 1, 1).to(device)
        out = degrade(gray, plans(1, ChainSettings(noisy, HARMLESS, 0.0)), 1)
        # within rounding, since JPEG turns colours to and fro
        assert (out[:, 0] - out[:, 1]).abs().max() <= 2.01 / 255


def test_the_same_part_is_cut_out_of_all(device: torch.device) -> None:
    lq = torch.arange(2 * 12 * 12.0, device=device).reshape(2, 1, 12, 12)
    gt = lq.repeat_interleave(3, 2).repeat_interleave(3, 3)
    chains = [replace(plan, corner=(0.999, 0.5)) for plan in plans(2)]
    small, large = cut_out(lq, [gt], chains, 5)
    torch.testing.assert_close(small, lq[:, :, 7:12, 4:9])
    torch.testing.assert_close(large, gt[:, :, 21:36, 12:27])


def test_sharpening_is_opencvs(device: torch.device) -> None:
    image = pictures(1, 96, device)
    array = image[0].cpu().permute(1, 2, 0).numpy()
    blur = cv2.GaussianBlur(array, (51, 51), 0)
    mask = (np.abs(array - blur) * 255 > 10).astype(np.float32)
    soft = cv2.GaussianBlur(mask, (51, 51), 0)
    sharp = np.clip(array + 0.5 * (array - blur), 0, 1)
    expected = soft * sharp + (1 - soft) * array
    got = sharpened(image)[0].cpu().permute(1, 2, 0).numpy()
    # a difference may pass the threshold in one and not in the other: little of 51 x 51 weights
    assert np.abs(got - expected).max() < 2e-3
    assert np.abs(got - array).max() > 0.02


def test_small_pictures_are_mirrored_more_than_once(device: torch.device) -> None:
    assert degrade(pictures(2, 8, device), plans(2), 4).shape == (2, 3, 2, 2)
