"""SSIM by the conventions of MATLAB and of scikit-image, against plain loops and the latter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from restore.errors import UsageError
from restore.metrics import ssim, ssim_uniform, ssim_volume


def pair(rows: int, columns: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    a = random.random((rows, columns, channels))
    return a, np.clip(a + random.normal(0, 0.1, a.shape), 0, 1)


def similarity(x: np.ndarray, y: np.ndarray, weights: np.ndarray, peak: float, n: float) -> float:
    """Of one place of the window."""
    mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
    variances = (weights * ((x - mean_x) ** 2 + (y - mean_y) ** 2)).sum() * n
    covariance = (weights * (x - mean_x) * (y - mean_y)).sum() * n
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return above / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_volume_has_a_window_over_channels_too(channels: int) -> None:
    a, b = pair(8, 9, channels)
    line = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    weights = np.einsum("i,j,k->ijk", line, line, line) / line.sum() ** 3
    wide = [np.pad(x, 5, mode="edge") for x in (a, b)]
    values = [
        similarity(*(x[i : i + 11, j : j + 11, k : k + 11] for x in wide), weights, 1.0, 1.0)
        for i, j, k in np.ndindex(a.shape)
    ]
    assert ssim_volume(a, b) == pytest.approx(np.mean(values), abs=1e-12)
    if channels == 1:
        assert ssim_volume(a[:, :, 0], b[:, :, 0]) == ssim_volume(a, b)


def test_uniform_windows_take_values_for_twice_as_wide() -> None:
    a, b = pair(10, 9)
    weights = np.full((7, 7), 1 / 49)
    values = [
        similarity(*(x[i : i + 7, j : j + 7, k] for x in (a, b)), weights, 2.0, 49 / 48)
        for i, j, k in np.ndindex(4, 3, 3)
    ]
    assert ssim_uniform(a, b) == pytest.approx(np.mean(values), abs=1e-12)


def test_scikit_image_counts_the_same() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="needs scikit-image")
    a, b = pair(40, 31)
    expected = metrics.structural_similarity(a, b, channel_axis=2, data_range=2.0)
    assert ssim_uniform(a, b) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [ssim_volume, ssim_uniform])
def test_depths_borders_and_refusals(metric) -> None:
    a, b = ((255 * x).astype(np.uint8) for x in pair(20, 21))
    assert metric(a, a) == 1
    assert metric(a / 255, b / 255) == pytest.approx(metric(a, b), abs=1e-12)
    assert metric(a, b, crop_border=3) == metric(a[3:-3, 3:-3], b[3:-3, 3:-3])
    assert metric(a, b) != pytest.approx(ssim(a, b), abs=1e-4)
    with pytest.raises(UsageError, match=f"{metric.__name__}: images differ in kind"):
        metric(a, b[1:])
    with pytest.raises(UsageError, match=f"{metric.__name__}: got tensors; expected NumPy images"):
        metric(torch.zeros(1, 3, 9, 9), torch.zeros(1, 3, 9, 9))


def test_the_uniform_window_needs_room() -> None:
    with pytest.raises(UsageError, match=r"6 x 9 pixels after crop_border=0; .* 7 x 7"):
        ssim_uniform(*pair(6, 9))
