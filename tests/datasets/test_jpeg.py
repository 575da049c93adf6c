"""JPEG on tensors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from restore.datasets.jpeg import jpeg


def smooth(rows: int, columns: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (rows, columns, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32) / 255)


@pytest.mark.parametrize("quality", [10, 40, 75, 95])
def test_it_loses_what_a_coder_loses(quality: int, root) -> None:  # type: ignore[no-untyped-def]
    """As far from the picture as libjpeg's result, and nearer to that than the picture is."""
    picture = cv2.imread(str(root / "samples" / "photo.png"))[:160, :240, ::-1]
    ours = jpeg(tensor(picture), torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    theirs = cv2.imdecode(cv2.imencode(".jpg", picture[:, :, ::-1], flags)[1], 1)[:, :, ::-1]
    our_error = np.abs(ours - picture).mean()
    their_error = np.abs(theirs.astype(float) - picture).mean()
    assert 0.85 < our_error / their_error < 1.25
    assert np.abs(ours - theirs).mean() < 0.75 * their_error


@pytest.mark.parametrize("shape", [(1, 1), (15, 17), (16, 32), (33, 8)])
def test_any_size_comes_back(shape: tuple[int, int]) -> None:
    picture = torch.rand(2, 3, *shape)
    out = jpeg(picture, torch.tensor([30.0, 95.0]))
    assert out.shape == picture.shape
    assert out.min() >= 0
    assert out.max() <= 1


def test_each_picture_has_its_own_quality() -> None:
    picture = tensor(smooth(64, 64))
    both = jpeg(picture.repeat(2, 1, 1, 1), torch.tensor([15.0, 90.0]))
    for i, quality in enumerate((15.0, 90.0)):
        torch.testing.assert_close(both[i : i + 1], jpeg(picture, torch.tensor([quality])))
    assert (both[0] - picture).abs().mean() > (both[1] - picture).abs().mean()


def test_a_flat_gray_stays() -> None:
    gray = torch.full((1, 3, 32, 32), 128 / 255)
    torch.testing.assert_close(jpeg(gray, torch.tensor([50.0])), gray, rtol=0, atol=1e-6)


def test_quality_100_is_finite() -> None:
    assert torch.isfinite(jpeg(torch.rand(1, 3, 16, 16), torch.tensor([100.0]))).all()
