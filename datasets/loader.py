"""Training batches, endlessly, on the device that trains.

Processes read, cut and turn patches as bytes; the last steps (to floating point, the second-order
chain, the patch that is cut out after it) run on the training device.

Shape letters: B pictures, C channels, h, w rows and columns of lq, s scale.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawValue
from multiprocessing.util import Finalize
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from restore.datasets.augment import mixup
from restore.datasets.cache import START_METHOD
from restore.datasets.patches import HostBatch, PatchSet, check_gt_size
from restore.datasets.realesrgan import cut_out, degrade, sharpened
from restore.datasets.sampler import Draw, Stage, StreamSampler, batch_generator
from restore.datasets.validation import normalised
from restore.errors import ImageError, RestoreError


@dataclass(frozen=True)
class TrainingBatch:
    """What one step trains on.

    Attributes:
        lq: [B, C, h, w] float32 in 0..1 (noise reaches beyond).
        gt: [B, C, h * s, w * s] float32 in 0..1.
        gt_usm: gt sharpened, where the second-order chain made lq; else None.
        lq_path, gt_path: names of the pictures.
        index: positions in the stream, see `sampler`.
    """

    lq: Tensor
    gt: Tensor
    gt_usm: Tensor | None
    lq_path: list[str]
    gt_path: list[str]
    index: list[int]


@dataclass(frozen=True)
class LoaderState:
    """Where a loader stands: what it has given away counts, what waits does not.

    Attributes:
        position: samples that all processes together have taken.
        batches: that each process has taken.
    """

    position: int = 0
    batches: int = 0


@dataclass(frozen=True)
class Mixing:
    """Mixup.

    Attributes:
        beta: weights are drawn from Beta(beta, beta).
        identity: leave a half of the batches as they are.
        start: iterations after which it begins.
    """

    beta: float = 1.2
    identity: bool = False
    start: int = 0


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """How batches are read.

    Attributes:
        stages: patch and batch sizes, the first from iteration 1.
        ratio: how often an epoch goes through the pictures.
        shuffle: in random order.
        workers: processes that read; 0: this one.
        prefetch: batches that wait for each of them.
        rank, world: which of how many training processes this is.
        accumulate: batches of one iteration.
        mixing: mixup, or None.
        mean, std: of each channel: both sides become (x - mean) / std.
        sharpen: gt before the second-order chain.
    """

    stages: Sequence[Stage]
    ratio: int = 1
    shuffle: bool = True
    workers: int = 0
    prefetch: int = 2
    rank: int = 0
    world: int = 1
    accumulate: int = 1
    mixing: Mixing | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    sharpen: bool = True


class ReaderLostError(ImageError):
    """A reading process was killed, as the system does where memory is short."""


class TrainingLoader:
    """Batches from a set, without an end.

    Iterating begins where `state` says and may be done again, from there. The batches are the same,
    bit for bit, with any number of reading processes.

    Args:
        data: the set.
        settings: how it is read.
        device: where batches are wanted.
        state: where to go on.
    """

    def __init__(
        self,
        data: PatchSet,
        settings: LoaderSettings,
        *,
        device: torch.device,
        state: LoaderState | None = None,
    ) -> None:
        for stage in settings.stages:
            check_gt_size(stage.gt_size, data.scale)
        self.data, self.settings, self.device = data, settings, device
        self.state = state or LoaderState()
        self._sampler()  # refuses what cannot be drawn

    @property
    def epoch_length(self) -> int:
        """Samples of an epoch, over all processes."""
        return len(self.data) * self.settings.ratio

    @property
    def epoch(self) -> int:
        """Which epoch the next sample belongs to, from 0."""
        return self.state.position // self.epoch_length

    def _sampler(self) -> StreamSampler:
        return StreamSampler(
            len(self.data),
            seed=self.data.seed,
            stages=self.settings.stages,
            ratio=self.settings.ratio,
            shuffle=self.settings.shuffle,
            rank=self.settings.rank,
            world=self.settings.world,
            accumulate=self.settings.accumulate,
            position=self.state.position,
            batches=self.state.batches,
        )

    def __iter__(self) -> Iterator[TrainingBatch]:
        sampler, workers = self._sampler(), self.settings.workers
        is_over = RawValue("b", 0)
        with warnings.catch_warnings():
            # the number asked for is obeyed; official option files ask for many
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            loader = DataLoader(
                _Careful(self.data),
                batch_sampler=sampler,
                num_workers=workers,
                collate_fn=_as_it_is,
                pin_memory=self.device.type == "cuda",
                worker_init_fn=functools.partial(_begin_worker, self.data.seed, is_over),
                prefetch_factor=self.settings.prefetch if workers else None,
                multiprocessing_context=START_METHOD if workers else None,
                # of its own: PyTorch would take a number of the training's random state
                generator=torch.Generator().manual_seed(self.data.seed),
            )
            with _deaths_told_later(workers > 0):
                batches = iter(loader)
        # called at the latest when this process ends, before multiprocessing waits for its children
        end = Finalize(None, setattr, args=(is_over, "value", 1), exitpriority=0)
        try:
            for batch in _read(batches, workers):
                if isinstance(batch, RestoreError):
                    raise batch
                taken = len(batch.index) * self.settings.world
                self.state = LoaderState(self.state.position + taken, self.state.batches + 1)
                yield self._finished(batch)
        finally:
            end()

    def _finished(self, batch: HostBatch) -> TrainingBatch:
        gt, usm = _to_unit(batch.gt, self.device), None
        if batch.lq is not None:
            lq = _to_unit(batch.lq, self.device)
        else:
            lq, gt, usm = self._degraded(gt, batch)
        lq, gt = self._mixed(lq, gt, batch.index[0])
        mean, std = self.settings.mean, self.settings.std
        return TrainingBatch(
            normalised(lq, mean, std),
            normalised(gt, mean, std),
            None if usm is None else normalised(usm, mean, std),
            batch.lq_path,
            batch.gt_path,
            batch.index,
        )

    @torch.no_grad()
    def _degraded(self, gt: Tensor, batch: HostBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The second-order chain, then the patches that are trained on."""
        usm, scale = sharpened(gt), self.data.scale
        lq = degrade(usm if self.settings.sharpen else gt, batch.plans, scale)
        lq, gt, usm = cut_out(lq, [gt, usm], batch.plans, batch.gt_size // scale)
        return lq, gt, usm

    def _mixed(self, lq: Tensor, gt: Tensor, position: int) -> tuple[Tensor, Tensor]:
        mixing = self.settings.mixing
        done = (self.state.batches - 1) // self.settings.accumulate
        if mixing is None or done < mixing.start:
            return lq, gt
        dice = batch_generator(self.data.seed, position)
        return mixup(lq, gt, dice, beta=mixing.beta, identity=mixing.identity)


class _Careful(Dataset[Any]):
    """Gives errors that a user can do something about, instead of raising them.

    PyTorch would hide what they say in a traceback of the reading process.
    """

    def __init__(self, data: PatchSet) -> None:
        self._data = data

    def __getitems__(self, draws: Sequence[Draw]) -> HostBatch | RestoreError:
        try:
            return self._data.__getitems__(draws)
        except RestoreError as error:
            return error


@contextlib.contextmanager
def _deaths_told_later(wanted: bool) -> Iterator[None]:
    """Around where PyTorch begins to watch its reading processes.

    It would raise an error for a process that died wherever the training is just then, within a
    step too; without its handler the next batch tells.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not (wanted and in_main and hasattr(signal, "SIGCHLD")):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


def _read(batches: Iterator[Any], workers: int) -> Iterator[Any]:
    """The batches; ReaderLostError where a reading process died."""
    try:
        yield from batches
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise ReaderLostError(
            f"one of the {workers} reading processes was killed, as a system does that is out of "
            "memory; lower num_worker_per_gpu, cache_gb or batch_size_per_gpu"
        ) from error


def _to_unit(images: Tensor, device: torch.device) -> Tensor:
    """[B, H, W, C] of bytes or 0..1 as [B, C, H, W] float32 in 0..1, on the device."""
    # bytes travel and turn before they become four times as many
    there = images.to(device, non_blocking=True).permute(0, 3, 1, 2).contiguous()
    return there.to(torch.float32).div_(255) if images.dtype == torch.uint8 else there


def _as_it_is(batch: Any) -> Any:
    """The set has made a batch already."""
    return batch


def _leave(is_over: Any, number: int, frame: object) -> None:
    """Obey a signal to a reading process, if it is one of the training process."""
    if is_over.value:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _begin_worker(seed: int, is_over: Any, worker: int) -> None:
    """Make a reading process harmless: no threads of its own, no part in signals, seeded.

    Args:
        seed: of the set.
        is_over: shared memory, not 0 once no more batches are taken.
        worker: its number.
    """
    cv2.setNumThreads(0)
    # a second thread would be waited for in OpenMP's pool, which a fork does not bring along
    torch.set_num_threads(1)
    # Ctrl-C reaches all processes of a terminal, a manager of services ends all of a run by
    # SIGTERM: the training one decides what it means, and ends this one so itself, later
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):  # of a terminal that is closed
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, functools.partial(_leave, is_over))
    # nothing here draws from these; what someone adds would then not differ from run to run
    random.seed(seed + worker)
    np.random.seed((seed + worker) % 2**32)
