"""Batches: the same with any number of processes, from any point on, and on any device."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restore.datasets.blur_kernels import KernelRound
from restore.datasets.cache import START_METHOD
from restore.datasets.images import read_entry
from restore.datasets.listing import Entry, database_entries, folder_entries
from restore.datasets.lmdb_store import write_database
from restore.datasets.loader import (
    LoaderSettings,
    LoaderState,
    Mixing,
    TrainingBatch,
    TrainingLoader,
)
from restore.datasets.patches import PatchSet
from restore.datasets.realesrgan import ChainRound, ChainSettings
from restore.datasets.sampler import FixedStage
from restore.datasets.single import ChainPatches, Degradation, SyntheticPatches
from restore.errors import ImageError, UsageError
from restore.kernels.window_attention import window_attention

CPU = torch.device("cpu")
KERNELS = KernelRound(7, ("iso", "aniso"), (0.5, 0.5), 0.1, (0.2, 3), (0.5, 4), (1, 2))
STEP = ChainRound(
    KERNELS, 0.8, (0.2, 0.7, 0.1), (0.15, 1.5), 0.5, (1, 30), (0.05, 3), 0.4, (30, 95)
)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    folder = tmp_path_factory.mktemp("gt")
    for number in range(5):
        shape = (40 + 3 * number, 50, 3)
        pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder_entries(folder)


def noisy(entries: list[Entry], cache: int = 2**20) -> SyntheticPatches:
    how = Degradation("noise", sigma=(0.0, 50.0))
    return SyntheticPatches(entries, scale=1, seed=7, degradation=how, cache_bytes=cache)


SETTINGS = LoaderSettings(stages=[FixedStage(16, 3)], ratio=2)


def take(data: PatchSet, count: int, settings: LoaderSettings = SETTINGS, **state: int) -> list:  # type: ignore[type-arg]
    loader = TrainingLoader(data, settings, device=CPU, state=LoaderState(**state))
    return list(islice(loader, count))


def assert_same(first: TrainingBatch, second: TrainingBatch) -> None:
    for field in fields(TrainingBatch):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        else:
            assert a == b


def test_batches_are_floats_in_0_to_1(entries: list[Entry]) -> None:
    data = SyntheticPatches(entries, scale=2, seed=7, degradation=Degradation())
    batch = take(data, 1)[0]
    assert batch.lq.shape == (3, 3, 8, 8)
    assert batch.gt.shape == (3, 3, 16, 16)
    assert batch.lq.dtype == batch.gt.dtype == torch.float32
    assert batch.gt.is_contiguous()
    steps = batch.gt * 255
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=3e-5)
    assert batch.gt_usm is None


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_processes_changes_nothing(entries: list[Entry], workers: int) -> None:
    alone = take(noisy(entries), 9)
    settings = replace(SETTINGS, workers=workers)
    for first, second in zip(alone, take(noisy(entries), 9, settings), strict=True):
        assert_same(first, second)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_where_another_stopped(entries: list[Entry], workers: int) -> None:
    whole = take(noisy(entries), 9)
    settings = replace(SETTINGS, workers=workers)
    first = TrainingLoader(noisy(entries), settings, device=CPU)
    for _ in islice(first, 4):
        pass
    # batches that wait in the processes do not count
    assert first.state == LoaderState(position=12, batches=4)
    second = TrainingLoader(noisy(entries), settings, device=CPU, state=first.state)
    for batch, expected in zip(islice(second, 5), whole[4:], strict=True):
        assert_same(batch, expected)


def test_two_processes_train_on_what_one_with_twice_the_batch_sees(entries: list[Entry]) -> None:
    one = take(noisy(entries), 4, replace(SETTINGS, stages=[FixedStage(16, 6)]))
    parts = [take(noisy(entries), 4, replace(SETTINGS, world=2, rank=rank)) for rank in (0, 1)]
    for step in range(4):
        assert sorted(parts[0][step].index + parts[1][step].index) == one[step].index
        for rank in (0, 1):
            torch.testing.assert_close(parts[rank][step].gt, one[step].gt[rank::2])
            torch.testing.assert_close(parts[rank][step].lq, one[step].lq[rank::2])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_random_state_of_the_training_is_left_alone(entries: list[Entry], workers: int) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    take(noisy(entries), 3, replace(SETTINGS, workers=workers))
    torch.testing.assert_close(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
    assert random.getstate() == before[2]


def test_patches_grow_with_the_stages(entries: list[Entry]) -> None:
    stages = [FixedStage(8, 4), FixedStage(16, 2, start=3)]
    settings = LoaderSettings(stages=stages, workers=1)
    sizes = [tuple(batch.gt.shape) for batch in take(noisy(entries), 4, settings)]
    assert sizes == [(4, 3, 8, 8)] * 2 + [(2, 3, 16, 16)] * 2
    later = take(noisy(entries), 1, settings, position=8, batches=2)[0]
    assert later.gt.shape == (2, 3, 16, 16)


def test_the_chain_needs_no_state_to_go_on(entries: list[Entry]) -> None:
    def data() -> ChainPatches:
        return ChainPatches(entries, scale=4, seed=7, chain=ChainSettings(STEP, STEP, 0.8))

    settings = replace(SETTINGS, stages=[FixedStage(64, 2)])
    whole = take(data(), 2, settings)
    assert whole[0].lq.shape == (2, 3, 16, 16)
    assert whole[0].gt_usm is not None and whole[0].gt_usm.shape == (2, 3, 64, 64)
    later = take(data(), 1, replace(settings, workers=1), position=2, batches=1)
    assert_same(later[0], whole[1])


def test_mixup_begins_at_its_iteration_and_repeats(entries: list[Entry]) -> None:
    plain = take(noisy(entries), 4)
    settings = replace(SETTINGS, mixing=Mixing(start=2))
    mixed = take(noisy(entries), 4, settings)
    assert [torch.equal(a.gt, b.gt) for a, b in zip(plain, mixed, strict=True)][:2] == [True] * 2
    assert not all(torch.equal(a.gt, b.gt) for a, b in zip(plain[2:], mixed[2:], strict=True))
    assert_same(take(noisy(entries), 1, settings, position=9, batches=3)[0], mixed[3])


def test_mean_and_std_are_applied_to_both_sides(entries: list[Entry]) -> None:
    plain = take(noisy(entries), 1)[0]
    settings = replace(SETTINGS, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 2.0))
    scaled = take(noisy(entries), 1, settings)[0]
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.1, 0.2, 0.3), (0.5, 0.5, 2.0)))
    torch.testing.assert_close(scaled.gt, (plain.gt - mean) / std)
    torch.testing.assert_close(scaled.lq, (plain.lq - mean) / std)


def test_an_unreadable_picture_stops_the_loader_by_name(
    entries: list[Entry], tmp_path: Path
) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(entries[0].path.read_bytes()[:500])
    for workers in (0, 1):
        # no traceback of another process around it
        with pytest.raises(ImageError, match=r"^\S+torn\.png: [^\n]*$"):
            take(noisy([Entry(torn)]), 1, replace(SETTINGS, workers=workers))


def test_a_patch_must_have_whole_pixels_of_lq(entries: list[Entry]) -> None:
    data = SyntheticPatches(entries, scale=3, seed=0, degradation=Degradation())
    with pytest.raises(UsageError, match="gt_size is 16; expected a multiple of scale 3"):
        TrainingLoader(data, SETTINGS, device=CPU)


def attend() -> torch.Tensor:
    with torch.no_grad():
        return window_attention(torch.rand(4, 32, 32, 36), torch.rand(49, 2), (4, 4), num_heads=2)


class Curious(SyntheticPatches):
    """Fails where a reading process is not as it should be."""

    survived = False

    def patch(self, draw, random):  # type: ignore[no-untyped-def]
        pair = super().patch(draw, random)
        assert torch.get_num_threads() == 1
        assert torch.isfinite(attend()).all()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        if not self.survived:  # the first patches are taken for certain
            os.kill(os.getpid(), signal.SIGTERM)
            self.survived = True
        return pair


@pytest.mark.skipif(START_METHOD != "fork", reason="needs fork")
def test_kernels_and_signals_are_harmless_in_reading_processes(entries: list[Entry]) -> None:
    torch.set_num_threads(2)
    try:
        attend()  # starts the pool, where there is one
    finally:
        torch.set_num_threads(1)
    data = Curious(entries, scale=2, seed=7, degradation=Degradation())
    began = time.monotonic()
    assert len(take(data, 4, replace(SETTINGS, workers=2))) == 4
    assert time.monotonic() - began < 60


@pytest.mark.skipif(START_METHOD != "fork", reason="needs fork")
def test_readers_end_with_the_process_that_left_its_batches(entries: list[Entry]) -> None:
    def leave() -> None:
        global left  # as an interpreter's variables are when it ends
        left = iter(TrainingLoader(noisy(entries), replace(SETTINGS, workers=2), device=CPU))
        next(left)

    process = multiprocessing.get_context("fork").Process(target=leave)
    process.start()
    process.join(60)
    assert process.exitcode is not None  # it waits for its children as it ends


@pytest.mark.skipif(START_METHOD != "fork", reason="needs fork")
def test_processes_share_the_cache(entries: list[Entry]) -> None:
    data = noisy(entries)
    take(data, 8, replace(SETTINGS, workers=2))
    expected = sum(-(-read_entry(entry).nbytes // 64) * 64 for entry in entries)
    assert data._cache.used == expected


def test_a_data_base_that_this_process_has_open_is_read_by_others(
    entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lmdb")
    write_database(tmp_path / "x.lmdb", [entry.path for entry in entries])
    monkeypatch.chdir(tmp_path)
    stored = [
        *database_entries(tmp_path / "x.lmdb"),
        *database_entries(Path("x.lmdb")),  # the same by another name
    ]
    alone = take(noisy(stored, cache=0), 4)
    for first, second in zip(
        alone, take(noisy(stored, cache=0), 4, replace(SETTINGS, workers=2)), strict=True
    ):
        assert_same(first, second)


@pytest.mark.slow
def test_processes_that_do_not_fork_read_the_same(
    entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = take(noisy(entries), 3)
    monkeypatch.setattr("restore.datasets.loader.START_METHOD", "spawn")
    found = take(noisy(entries), 3, replace(SETTINGS, workers=1))
    for first, second in zip(expected, found, strict=True):
        assert_same(first, second)
