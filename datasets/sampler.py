"""Which pictures a training step sees: an endless stream of positions, the same for every run.

Position p of the stream is sample p of the whole run, over all processes. Epoch e holds positions
e * E to (e + 1) * E - 1 with E = pictures * ratio, and goes through every picture `ratio` times in
an order that depends on the seed and e alone. All random numbers of a sample come from the seed and
its position. So a run that goes on from a position sees what it would have seen, bit for bit, with
any number of worker processes, and N processes see together what one process with an N times larger
batch sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import SeedSequence
from torch.utils.data import Sampler

from restore.errors import UsageError

_ORDER, _SAMPLE, _BATCH = 0, 1, 2  # streams of random numbers that share a seed


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of the stream."""

    index: int  # of the picture
    position: int  # in the stream
    gt_size: int  # side of the patch of gt, pixels


class Stage(Protocol):
    """What batches are from an iteration on (iterations count from 1)."""

    @property
    def start(self) -> int:
        """The first iteration."""

    @property
    def gt_size(self) -> int:
        """Side of the patches of gt, pixels."""

    @property
    def batch_size(self) -> int:
        """Samples of one process in one batch."""


@dataclass(frozen=True)
class FixedStage:
    """The only stage of a run whose patches never change."""

    gt_size: int
    batch_size: int
    start: int = 1


def sample_generator(seed: int, position: int) -> np.random.Generator:
    """The random numbers of the sample at a position."""
    return np.random.default_rng(SeedSequence(seed, spawn_key=(_SAMPLE, position)))


def batch_generator(seed: int, position: int) -> np.random.Generator:
    """The random numbers of what is done to a whole batch, by the position of its first sample."""
    return np.random.default_rng(SeedSequence(seed, spawn_key=(_BATCH, position)))


class StreamSampler(Sampler[list[Draw]]):
    """Batches of one process: what it draws from the stream, from a position on, without an end.

    Args:
        pictures: how many there are.
        seed: of the order.
        stages: patch and batch sizes, in the order of their starts, the first from iteration 1.
        ratio: how often an epoch goes through the pictures.
        shuffle: in random order, else from the first to the last.
        rank: of this process; of `world` samples in a row it takes one.
        world: how many processes draw.
        accumulate: batches of one iteration.
        position: of the first sample, all processes counted.
        batches: that each process has drawn already.

    Raises:
        UsageError: no picture, or an argument below its least value.
    """

    def __init__(
        self,
        pictures: int,
        *,
        seed: int,
        stages: Sequence[Stage],
        ratio: int = 1,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        position: int = 0,
        batches: int = 0,
    ) -> None:
        if pictures < 1:
            raise UsageError("a training set holds no picture; check dataroot_gt")
        least = {"ratio": ratio, "world": world, "accumulate": accumulate}
        for name, value in least.items():
            if value < 1:
                raise UsageError(f"sampler: {name} is {value}; expected 1 or more")
        if not 0 <= rank < world:
            raise UsageError(f"sampler: rank is {rank} of {world}; expected 0 to {world - 1}")
        if position < 0 or batches < 0:
            raise UsageError(f"sampler: it cannot begin at position {position}, batch {batches}")
        if not stages or stages[0].start > 1:
            raise UsageError("sampler: no stage holds iteration 1; give the first one start 1")
        self._pictures, self._seed, self._stages = pictures, seed, tuple(stages)
        self._ratio, self._shuffle = ratio, shuffle
        self._rank, self._world, self._accumulate = rank, world, accumulate
        self._position, self._batches = position, batches

    @property
    def epoch_length(self) -> int:
        """Samples of an epoch, all processes counted."""
        return self._pictures * self._ratio

    def stage(self, batches: int) -> Stage:
        """What the next batch is after so many."""
        iteration = 1 + batches // self._accumulate
        return [stage for stage in self._stages if stage.start <= max(iteration, 1)][-1]

    def __iter__(self) -> Iterator[list[Draw]]:
        position, batches = self._position, self._batches
        epoch, order = -1, np.empty(0, np.int64)
        while True:
            stage = self.stage(batches)
            draws = []
            for place in range(stage.batch_size):
                at = position + place * self._world + self._rank
                if at // self.epoch_length != epoch:
                    epoch = at // self.epoch_length
                    order = self._order(epoch)
                index = int(order[at % self.epoch_length]) % self._pictures
                draws.append(Draw(index, at, stage.gt_size))
            yield draws
            position += stage.batch_size * self._world
            batches += 1

    def _order(self, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        if not self._shuffle:
            return np.arange(self.epoch_length)
        sequence = SeedSequence(self._seed, spawn_key=(_ORDER, epoch))
        return np.random.default_rng(sequence).permutation(self.epoch_length)
