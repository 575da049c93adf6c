"""Mirroring, turning and mixing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from restore.datasets.augment import ORIENTATIONS, draw_orientation, mixup, oriented
from restore.errors import UsageError

PATCH = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)


def test_the_eight_orientations_differ() -> None:
    assert len({oriented(PATCH, way).tobytes() for way in range(ORIENTATIONS)}) == 8
    with pytest.raises(UsageError, match="orientation is 8"):
        oriented(PATCH, 8)


def test_orientations_are_basicsrs() -> None:
    np.testing.assert_array_equal(oriented(PATCH, 1), np.flip(PATCH, 1))
    np.testing.assert_array_equal(oriented(PATCH, 2), np.flip(PATCH, 0))
    np.testing.assert_array_equal(oriented(PATCH, 4), PATCH.transpose(1, 0, 2))
    both = np.flip(np.flip(PATCH, 1), 0).transpose(1, 0, 2)
    np.testing.assert_array_equal(oriented(PATCH, 7), both)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_kind_of_patch_turns(channels: int, dtype: type[np.generic]) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (9, 8, channels)).astype(dtype)
    patch = whole[2:7, 1:5]  # as patches are: parts of pictures
    gray = np.broadcast_to(whole[2:7, 1:5, :1], (5, 4, 3))
    for way in range(ORIENTATIONS):
        for one in (patch, gray):
            rows = one[::-1] if way & 2 else one
            expected = rows[:, ::-1] if way & 1 else rows
            expected = expected.swapaxes(0, 1) if way & 4 else expected
            got = oriented(one, way)
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("hflip", "rotate", "ways"),
    [
        (False, False, {0}),
        (True, False, {0, 1}),
        (False, True, {0, 2, 4, 6}),
        (True, True, set(range(8))),
    ],
)
def test_only_what_is_asked_for_is_drawn(hflip: bool, rotate: bool, ways: set[int]) -> None:
    random = np.random.default_rng(0)
    drawn = [draw_orientation(random, hflip, rotate) for _ in range(400)]
    assert set(drawn) == ways
    for way in ways:
        # 4 standard deviations of a binomial count
        expected = 400 / len(ways)
        assert abs(drawn.count(way) - expected) <= 4 * np.sqrt(expected)


def test_mixup_mixes_both_sides_alike() -> None:
    lq = torch.arange(4.0).reshape(4, 1, 1, 1)
    gt = 10 * lq.expand(4, 1, 2, 2)
    small, large = mixup(lq, gt, np.random.default_rng(1), beta=1.2)
    torch.testing.assert_close(large, 10 * small.expand(4, 1, 2, 2))
    assert not torch.equal(small, lq)
    assert small.sum() == pytest.approx(lq.sum())


def test_mixup_with_identity_leaves_a_half_alone() -> None:
    lq = torch.rand(3, 1, 2, 2)
    same = [
        torch.equal(mixup(lq, lq, np.random.default_rng(seed), identity=True)[0], lq)
        for seed in range(200)
    ]
    assert 70 < sum(same) < 130 + 34  # and a permutation may leave all in place, one in six
