"""Training patches: both sides fit, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore import imresize
from restore.datasets.blur_kernels import KernelRound
from restore.datasets.degradations import compressed
from restore.datasets.images import unit
from restore.datasets.listing import Entry, Pair
from restore.datasets.paired import PairedPatches, check_scale
from restore.datasets.realesrgan import ChainRound, ChainSettings
from restore.datasets.sampler import Draw, sample_generator
from restore.datasets.single import ChainPatches, Degradation, SyntheticPatches, shrunk
from restore.errors import ImageError, UsageError

ROUND = KernelRound(21, ("iso", "aniso"), (0.5, 0.5), 0.1, (0.2, 3), (0.5, 4), (1, 2))
STEP = ChainRound(ROUND, 0.8, (0.2, 0.7, 0.1), (0.15, 1.5), 0.5, (1, 30), (0.05, 3), 0.4, (30, 95))
CHAIN = ChainSettings(STEP, STEP, 0.8)


def picture(rows: int, columns: int, channels: int = 3) -> np.ndarray:
    shape = (rows, columns, channels) if channels > 1 else (rows, columns)
    return np.random.default_rng(rows + columns).integers(0, 256, shape, np.uint8)


def save(folder: Path, name: str, pixels: np.ndarray) -> Entry:
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return Entry(folder / name)


def scaled_pairs(tmp_path: Path, scale: int) -> list[Pair]:
    """gt repeats each pixel of lq, so a part of one tells the part of the other."""
    pairs = []
    for number, (rows, columns) in enumerate([(20, 30), (33, 17), (12, 12)]):
        lq = picture(rows, columns)
        gt = lq.repeat(scale, 0).repeat(scale, 1)
        name = f"{number}.png"
        pairs.append(Pair(save(tmp_path / "lq", name, lq), save(tmp_path / "gt", name, gt)))
    return pairs


def draws(count: int, gt_size: int, pictures: int) -> list[Draw]:
    return [Draw(at % pictures, at, gt_size) for at in range(count)]


@pytest.mark.parametrize("cache", [0, 2**20], ids=["no cache", "cache"])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_both_sides_of_a_patch_lie_at_one_place_and_turn_alike(
    tmp_path: Path, scale: int, cache: int
) -> None:
    data = PairedPatches(scaled_pairs(tmp_path, scale), scale=scale, seed=1, cache_bytes=cache)
    batch = data.__getitems__(draws(24, 12 * scale, 3))
    assert batch.lq is not None and batch.lq.dtype == batch.gt.dtype
    assert batch.lq.shape == (24, 12, 12, 3)
    np.testing.assert_array_equal(batch.lq.numpy().repeat(scale, 1).repeat(scale, 2), batch.gt)
    assert len({row.numpy().tobytes() for row in batch.lq}) > 12  # places and turns differ
    assert batch.lq_path[1] == str(tmp_path / "lq" / "1.png")
    assert batch.gt_path[1] == str(tmp_path / "gt" / "1.png")
    assert batch.index == list(range(24))


def test_every_place_is_drawn(tmp_path: Path) -> None:
    pairs = scaled_pairs(tmp_path, 1)[2:]
    data = PairedPatches(pairs, scale=1, seed=1, hflip=False, rotate=False)
    batch = data.__getitems__(draws(400, 10, 1))
    assert len({row.numpy().tobytes() for row in batch.gt}) == 9


def test_a_wrong_scale_is_named(tmp_path: Path) -> None:
    data = PairedPatches(scaled_pairs(tmp_path, 2), scale=4, seed=0)
    with pytest.raises(ImageError, match=r"0\.png: 40 x 60 pixels are not 4 times the 20 x 30"):
        data.__getitems__(draws(1, 16, 1))


def test_exchanged_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"exchange dataroot_gt and dataroot_lq"):
        check_scale(("lq.png", "gt.png"), (40, 60), (20, 30), 2)


def test_a_picture_too_small_is_named(tmp_path: Path) -> None:
    data = PairedPatches(scaled_pairs(tmp_path, 2), scale=2, seed=0)
    with pytest.raises(ImageError, match=r"2\.png: 12 x 12 pixels of lq are less than .* 13 x 13"):
        data.__getitems__([Draw(2, 0, 26)])


def test_gray_and_colour_mix_in_a_batch(tmp_path: Path) -> None:
    entries = [
        save(tmp_path / "gt", "a.png", picture(20, 20)),
        save(tmp_path / "gt", "b.png", picture(20, 21, 1)),
    ]
    data = SyntheticPatches(entries, scale=2, seed=0, degradation=Degradation())
    assert data.__getitems__(draws(2, 8, 2)).gt.shape == (2, 8, 8, 3)
    gray = SyntheticPatches(entries, scale=2, seed=0, degradation=Degradation(), colour="gray")
    assert gray.__getitems__(draws(2, 8, 2)).gt.shape == (2, 8, 8, 1)
    y = SyntheticPatches(entries, scale=2, seed=0, degradation=Degradation(), colour="y")
    batch = y.__getitems__(draws(2, 8, 2))
    assert batch.gt.shape == (2, 8, 8, 1)
    assert 16 / 255 <= batch.gt.min() <= batch.gt.max() <= 235.0001 / 255


@pytest.mark.parametrize("cache", [0, 2**20], ids=["no cache", "cache"])
def test_bicubic_patches_are_parts_of_the_whole_picture(tmp_path: Path, cache: int) -> None:
    pixels = picture(50, 41)
    entry = save(tmp_path / "gt", "a.png", pixels)
    data = SyntheticPatches(
        [entry],
        scale=3,
        seed=0,
        degradation=Degradation(),
        hflip=False,
        rotate=False,
        cache_bytes=cache,
    )
    batch = data.__getitems__(draws(20, 12, 1))
    whole = imresize(np.ascontiguousarray(pixels[:48, :39]), 1 / 3)
    np.testing.assert_array_equal(shrunk(pixels, 3), whole)
    assert batch.lq is not None
    for lq, gt in zip(batch.lq.numpy(), batch.gt.numpy(), strict=True):
        found = [
            (top, left)
            for top in range(whole.shape[0] - 3)
            for left in range(whole.shape[1] - 3)
            if (whole[top : top + 4, left : left + 4] == lq).all()
        ]
        assert len(found) == 1
        top, left = (3 * side for side in found[0])
        np.testing.assert_array_equal(gt, pixels[top : top + 12, left : left + 12])


def test_the_cache_changes_nothing(tmp_path: Path) -> None:
    entries = [save(tmp_path / "gt", f"{n}.png", picture(40 + n, 50)) for n in range(3)]
    tasks = (
        (2, Degradation()),
        (1, Degradation("noise", sigma=(0.0, 50.0))),
        (1, Degradation("jpeg", quality=(10, 40))),
        (2, Degradation("blur", kernels=ROUND)),
    )
    for scale, how in tasks:
        batches = [
            SyntheticPatches(entries, scale=scale, seed=5, degradation=how, cache_bytes=room)
            for room in (0, 2**20)
        ]
        first, second = (data.__getitems__(draws(6, 16, 3)) for data in batches)
        assert first.lq is not None and second.lq is not None
        np.testing.assert_array_equal(first.lq, second.lq)
        np.testing.assert_array_equal(first.gt, second.gt)


def test_noise_is_not_clipped_and_has_its_strength(tmp_path: Path) -> None:
    entry = save(tmp_path / "gt", "a.png", np.full((200, 200, 3), 250, np.uint8))
    data = SyntheticPatches([entry], scale=1, seed=0, degradation=Degradation("noise", sigma=50))
    batch = data.__getitems__(draws(4, 128, 1))
    assert batch.lq is not None
    noise = batch.lq.numpy() * 255 - 250
    assert batch.lq.max() > 1
    assert abs(noise.std() - 50) < 4 * 50 / np.sqrt(2 * noise.size)


def test_blind_noise_draws_a_strength_for_each_sample(tmp_path: Path) -> None:
    entry = save(tmp_path / "gt", "a.png", np.full((80, 80, 3), 128, np.uint8))
    how = Degradation("noise", sigma=(5.0, 50.0))
    batch = SyntheticPatches([entry], scale=1, seed=0, degradation=how).__getitems__(
        draws(60, 64, 1)
    )
    assert batch.lq is not None
    strengths = (batch.lq.numpy() * 255 - 128).std(axis=(1, 2, 3))
    assert strengths.min() < 12 and strengths.max() > 43
    assert ((strengths > 4) & (strengths < 52)).all()


def test_jpeg_patches_have_the_grid_of_the_whole_picture(tmp_path: Path) -> None:
    pixels = picture(64, 64)
    entry = save(tmp_path / "gt", "a.png", pixels)
    data = SyntheticPatches(
        [entry],
        scale=1,
        seed=0,
        degradation=Degradation("jpeg", quality=20),
        hflip=False,
        rotate=False,
    )
    whole = compressed(pixels, 20)
    batch = data.__getitems__(draws(10, 32, 1))
    assert batch.lq is not None
    for position, lq in enumerate(batch.lq.numpy()):
        top, left = (int(n) for n in _corner(data.seed, position, 33))
        np.testing.assert_array_equal(lq, whole[top : top + 32, left : left + 32])


def _corner(seed: int, position: int, places: int) -> tuple[int, int]:
    random = sample_generator(seed, position)
    random.random()  # the factor of gt_scales
    return int(random.integers(places)), int(random.integers(places))


def test_factors_make_pictures_smaller_where_a_patch_still_fits(tmp_path: Path) -> None:
    entries = [save(tmp_path / "gt", f"{n}.png", picture(n, n)) for n in (64, 24)]
    data = SyntheticPatches(entries, scale=2, seed=0, degradation=Degradation(), factors=(1.0, 0.5))
    large = {data._scaled(Draw(0, n, 24), sample_generator(0, n))[1:] for n in range(30)}
    small = {data._scaled(Draw(1, n, 24), sample_generator(0, n))[1:] for n in range(30)}
    assert large == {((64, 64), 1.0), ((32, 32), 0.5)}
    assert small == {((24, 24), 1.0)}
    batch = data.__getitems__(draws(12, 24, 2))
    assert batch.lq is not None and batch.lq.shape == (12, 12, 12, 3)


def test_a_degradation_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    entry = save(tmp_path / "gt", "a.png", picture(20, 20))
    with pytest.raises(UsageError, match="lq would be gt itself"):
        SyntheticPatches([entry], scale=1, seed=0, degradation=Degradation())
    with pytest.raises(UsageError, match="without kernels"):
        SyntheticPatches([entry], scale=1, seed=0, degradation=Degradation("blur"))


@pytest.mark.parametrize("size", [(500, 450), (100, 420), (37, 41)])
def test_the_chain_works_on_parts_of_400_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    entry = save(tmp_path / "gt", "a.png", picture(*size))
    data = ChainPatches([entry], scale=4, seed=0, chain=CHAIN)
    batch = data.__getitems__(draws(2, 64, 1))
    assert batch.lq is None
    assert batch.gt.shape == (2, 400, 400, 3)
    assert len(batch.plans) == 2
    assert batch.gt_size == 64


def test_deep_pictures_keep_their_bits(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (30, 30, 3), np.uint16)
    np.save(tmp_path / "a.npy", deep)
    data = SyntheticPatches(
        [Entry(tmp_path / "a.npy")],
        scale=1,
        seed=0,
        degradation=Degradation("noise"),
        hflip=False,
        rotate=False,
    )
    batch = data.__getitems__(draws(1, 30, 1))
    np.testing.assert_array_equal(batch.gt[0], unit(deep))
