"""Transparency: opaque stays opaque, and what cannot be seen leaves no fringe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _fake_models import Blur, Fake
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from restore.resizing import imresize
from restore.upscaling import upscale
from restore.upscaling.alpha import ColourSource, spread_colours
from restore.upscaling.pixels import ArraySource


class Ringing(Fake):
    """Bicubic enlargement, which overshoots at edges as networks do."""

    def enlarge(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=self.scale, mode="bicubic")


def disc(size: int, edge: float) -> np.ndarray:
    """Red on transparent black, uint8 [size, size, 4]; `edge` pixels of partial alpha."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    alpha = np.clip((size / 3 - np.hypot(x, y)) / edge + 0.5, 0, 1)
    image = np.zeros((size, size, 4), np.uint8)
    image[..., 3] = np.rint(alpha * 255)
    image[image[..., 3] > 0, :3] = (200, 10, 20)
    return image


@pytest.mark.parametrize("tile", [0, 32])
@pytest.mark.parametrize("edge", [0.01, 1.5, 4])
@pytest.mark.parametrize("model", [Ringing(scale=2), Ringing(scale=4)], ids=["x2", "x4"])
def test_a_red_disc_on_transparent_black_has_no_fringe(model: Fake, edge: float, tile: int) -> None:
    got = upscale(disc(64, edge), model, tile=tile, tile_pad=8).astype(float)
    seen = got[..., 3] > 0
    assert seen.any()
    # one level of rounding: the colour never left the disc's own
    assert np.abs(got[seen][:, :3] - (200, 10, 20)).max() <= 1
    alpha = got[..., 3:] / 255
    on_white = got[..., :3] * alpha + 255 * (1 - alpha)
    assert on_white[..., 0].min() >= 199


def test_without_spreading_the_disc_would_have_a_fringe() -> None:
    """The check above can fail: the colours alone, as the file has them, do fringe."""
    image = disc(64, 0.01)
    colours = upscale(np.ascontiguousarray(image[..., :3]), Ringing(scale=4)).astype(float)
    alpha = upscale(image, Ringing(scale=4))[..., 3:].astype(float) / 255
    assert (colours * alpha + 255 * (1 - alpha))[..., 0].min() < 185


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32], ids=str)
@pytest.mark.parametrize("tile", [0, 32])
def test_opaque_and_transparent_areas_stay_exactly_so(dtype: type, tile: int) -> None:
    top = 1.0 if dtype is np.float32 else np.iinfo(dtype).max
    image = np.zeros((96, 64, 4), dtype)
    image[:48, :, 3] = top
    got = upscale(image, Ringing(scale=2), tile=tile, tile_pad=8)
    assert (got[: 2 * (48 - 2), :, 3] == top).all()
    assert (got[2 * (48 + 2) :, :, 3] == 0).all()


def test_opaque_alpha_changes_nothing_and_costs_nothing() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    rgba = np.dstack([rgb, np.full((50, 60), 255, np.uint8)])
    model = Blur(scale=2)
    got = upscale(rgba, model, tile=24, tile_pad=8)
    calls = len(model.sizes)
    assert (got[..., :3] == upscale(rgb, model, tile=24, tile_pad=8)).all()
    assert (got[..., 3] == 255).all()
    assert len(model.sizes) == 2 * calls


@pytest.mark.parametrize("tile", [0, 32])
def test_alpha_does_not_ring_along_a_hard_edge(tile: int) -> None:
    """One input pixel away from the edge, alpha is what it is in the input."""
    image = np.zeros((70, 40, 4), np.uint8)
    image[30:, :, 3] = 255
    got = upscale(image, Ringing(scale=2), tile=tile, tile_pad=8)[..., 3]
    assert (got[: 2 * (30 - 1)] == 0).all()
    assert (got[2 * (30 + 1) :] == 255).all()
    assert (np.diff(got[:, 0].astype(int)) >= 0).all()


def test_alpha_is_the_network_over_gray_between_nearest_and_bicubic() -> None:
    image = np.zeros((20, 20, 2), np.float32)
    image[:, 10:, 1] = 0.5
    got = upscale(image, Ringing(scale=2, in_channels=1), tile=0)[..., 1]
    x = torch.from_numpy(image[None, None, ..., 1].copy())
    free = F.interpolate(x, scale_factor=2, mode="bicubic")[0, 0].numpy()
    assert free.max() > 0.5
    assert free.min() < 0
    nearest = image[..., 1].repeat(2, 0).repeat(2, 1)
    cubic = np.clip(imresize(image[..., 1], 2), 0, 1)
    low, high = np.minimum(nearest, cubic), np.maximum(nearest, cubic)
    assert np.abs(got - np.clip(free, low, high)).max() <= 1e-6
    assert (got != free).any()


@pytest.mark.parametrize("outscale", [1, 2])
def test_a_model_that_does_not_enlarge_leaves_alpha_alone(outscale: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 20, 4), np.uint8)
    got = upscale(image, Blur(), outscale=outscale, tile=16, tile_pad=4)
    assert got.shape == (30 * outscale, 20 * outscale, 4)
    if outscale == 1:
        assert (got[..., 3] == image[..., 3]).all()


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_spreading_keeps_what_can_be_seen(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    colours = rng.random((height, width, 3), np.float32)
    alpha = np.clip(rng.random((height, width, 1), np.float32) * 3 - 1.5, 0, 1)
    before = colours.copy()
    got = spread_colours(colours, alpha)
    assert (colours == before).all()
    seen = alpha[..., 0] >= 1 / 16
    assert (got[seen] == colours[seen]).all()
    if alpha.max() > 0:
        # means of visible colours stay between them
        some = colours[alpha[..., 0] > 0]
        slack = 1e-5
        assert (got.min((0, 1)) >= some.min(0) - slack).all()
        assert (got.max((0, 1)) <= some.max(0) + slack).all()


def test_one_visible_pixel_colours_the_whole_picture() -> None:
    colours = np.zeros((33, 70, 3), np.float32)
    alpha = np.zeros((33, 70, 1), np.float32)
    colours[3, 60], alpha[3, 60] = (0.25, 0.5, 1), 1
    assert np.abs(spread_colours(colours, alpha) - (0.25, 0.5, 1)).max() <= 1e-6


def test_spreading_does_not_depend_on_the_rows_asked_for() -> None:
    image = np.concatenate([disc(256, 2), disc(256, 2)])
    source = ColourSource(ArraySource(image))
    whole = source.read(0, 512)
    seen = image[..., 3] > 0
    near = np.zeros_like(seen)
    for dy in range(-8, 9):
        for dx in range(-8, 9):
            near |= np.roll(seen, (dy, dx), (0, 1))
    for y0, y1 in ((0, 40), (37, 153), (200, 330), (450, 512)):
        band = source.read(y0, y1)
        there = near[y0:y1]
        assert np.abs(band - whole[y0:y1])[there].max() <= 1e-6


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("edge", [1.5, 20])
def test_alpha_does_not_depend_on_the_tiles(scale: int, edge: float) -> None:
    """A network without context gives the same alpha whatever the tiles; colours where seen."""
    image = np.concatenate([disc(150, edge), disc(150, edge)], axis=1)
    whole = upscale(image, Fake(scale=scale), tile=0)
    for tile in (32, 64, 100):
        got = upscale(image, Fake(scale=scale), tile=tile, tile_pad=8)
        assert (got[..., 3] == whole[..., 3]).all()
        seen = whole[..., 3] > 0
        assert np.abs(got.astype(int) - whole)[seen].max() <= 1
