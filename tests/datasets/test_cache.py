"""The cache of decoded pictures: bounded, and shared by processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle

import numpy as np
import pytest

from restore.datasets.cache import START_METHOD, PictureCache
from restore.errors import UsageError

FORKS = START_METHOD == "fork"


def picture(seed: int, shape: tuple[int, int, int] = (5, 7, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def refuse() -> np.ndarray:
    raise AssertionError("it was there already")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_picture_is_made_once(dtype: type[np.generic]) -> None:
    cache = PictureCache(3, 4096)
    wanted = picture(0).astype(dtype)
    assert cache.find(1) is None
    np.testing.assert_array_equal(cache.fetch(1, lambda: wanted), wanted)
    found = cache.fetch(1, refuse)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, wanted)
    assert cache.find(0) is None


def test_what_is_kept_cannot_be_written_to() -> None:
    cache = PictureCache(1, 4096)
    kept = cache.fetch(0, lambda: picture(0))
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 0


def test_no_more_bytes_are_taken_than_allowed() -> None:
    cache = PictureCache(9, 1000)
    for slot in range(9):
        np.testing.assert_array_equal(cache.fetch(slot, lambda n=slot: picture(n)), picture(slot))
        assert cache.used <= cache.limit == 1000
    # 105 bytes each, in steps of 64
    assert [cache.find(slot) is not None for slot in range(9)] == [True] * 7 + [False] * 2


def test_nothing_is_kept_without_bytes() -> None:
    cache = PictureCache(1, 0)
    np.testing.assert_array_equal(cache.fetch(0, lambda: picture(0)), picture(0))
    assert cache.find(0) is None
    assert cache.used == 0


@pytest.mark.skipif(not FORKS, reason="needs fork")
def test_forked_processes_see_what_others_decoded() -> None:
    cache = PictureCache(4, 4096)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=lambda: cache.fetch(2, lambda: picture(2)))
    child.start()
    child.join()
    assert child.exitcode == 0
    np.testing.assert_array_equal(cache.fetch(2, refuse), picture(2))


@pytest.mark.skipif(not FORKS, reason="needs fork")
def test_many_processes_fill_it_at_once() -> None:
    slots, context = 40, multiprocessing.get_context("fork")
    cache = PictureCache(slots, slots * 128 - 200)

    def fill(seed: int) -> None:
        for slot in np.random.default_rng(seed).permutation(slots).tolist():
            got = cache.fetch(slot, lambda n=slot: picture(n))
            np.testing.assert_array_equal(got, picture(slot))

    children = [context.Process(target=fill, args=(seed,)) for seed in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert cache.used <= cache.limit
    kept = [slot for slot in range(slots) if cache.find(slot) is not None]
    assert len(kept) == slots - 2
    for slot in kept:
        np.testing.assert_array_equal(cache.find(slot), picture(slot))


def test_more_memory_than_there_is_is_refused() -> None:
    with pytest.raises(UsageError, match="lower cache_gb"):
        PictureCache(1, 2**62)


def test_a_copy_for_a_process_that_did_not_fork_begins_empty() -> None:
    cache = PictureCache(1, 4096)
    cache.fetch(0, lambda: picture(0))
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.find(0) is None
    assert copy.limit == 4096 // (os.cpu_count() or 1)
