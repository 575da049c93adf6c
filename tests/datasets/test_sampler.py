"""The stream of samples: every picture, in an order that nothing but the seed decides."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore.datasets.sampler import Draw, FixedStage, StreamSampler, sample_generator
from restore.errors import UsageError


def take(sampler: StreamSampler, batches: int) -> list[list[Draw]]:
    return list(islice(sampler, batches))


def stream(batches: list[list[Draw]]) -> list[Draw]:
    return [draw for batch in batches for draw in batch]


@given(
    pictures=st.integers(1, 30),
    ratio=st.integers(1, 4),
    batch=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
def test_an_epoch_takes_every_picture_ratio_times(
    pictures: int, ratio: int, batch: int, seed: int
) -> None:
    sampler = StreamSampler(pictures, seed=seed, stages=[FixedStage(8, batch)], ratio=ratio)
    epochs = 3
    draws = stream(take(sampler, -(-epochs * sampler.epoch_length // batch)))
    for epoch in range(epochs):
        part = draws[epoch * sampler.epoch_length : (epoch + 1) * sampler.epoch_length]
        assert Counter(draw.index for draw in part) == dict.fromkeys(range(pictures), ratio)
    assert [draw.position for draw in draws] == list(range(len(draws)))


@given(
    world=st.integers(1, 5),
    batch=st.integers(1, 6),
    batches=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_processes_together_see_what_one_with_the_larger_batch_sees(
    world: int, batch: int, batches: int, seed: int
) -> None:
    one = take(StreamSampler(11, seed=seed, stages=[FixedStage(8, batch * world)]), batches)
    many = [
        take(
            StreamSampler(11, seed=seed, stages=[FixedStage(8, batch)], rank=rank, world=world),
            batches,
        )
        for rank in range(world)
    ]
    for at in range(batches):
        together = sorted(stream([part[at] for part in many]), key=lambda draw: draw.position)
        assert together == one[at]


@given(stop=st.integers(0, 40), batch=st.integers(1, 7), shuffle=st.booleans())
def test_a_stream_goes_on_from_any_position(stop: int, batch: int, shuffle: bool) -> None:
    def sampler(position: int, batches: int) -> StreamSampler:
        return StreamSampler(
            5,
            seed=3,
            stages=[FixedStage(8, batch)],
            ratio=2,
            shuffle=shuffle,
            position=position,
            batches=batches,
        )

    whole = take(sampler(0, 0), stop + 10)
    assert take(sampler(stop * batch, stop), 10) == whole[stop:]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(draw.index for draw in stream(take(sampler, 4))[start : start + 20])
        for seed in (0, 1)
        for sampler in [StreamSampler(20, seed=seed, stages=[FixedStage(8, 10)])]
        for start in (0, 20)
    }
    assert len(orders) == 4


def test_without_shuffling_the_list_is_gone_through() -> None:
    sampler = StreamSampler(3, seed=0, stages=[FixedStage(8, 4)], shuffle=False)
    assert [draw.index for draw in stream(take(sampler, 2))] == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_stages_begin_at_their_iterations(accumulate: int) -> None:
    stages = [FixedStage(8, 4), FixedStage(16, 2, start=3), FixedStage(32, 1, start=4)]
    sampler = StreamSampler(9, seed=0, stages=stages, accumulate=accumulate)
    batches = take(sampler, 5 * accumulate)
    sizes = [(len(batch), batch[0].gt_size) for batch in batches[::accumulate]]
    assert sizes == [(4, 8), (4, 8), (2, 16), (1, 32), (1, 32)]
    positions = [draw.position for draw in stream(batches)]
    assert positions == list(range(len(positions)))
    later = StreamSampler(
        9,
        seed=0,
        stages=stages,
        accumulate=accumulate,
        position=8 * accumulate,
        batches=2 * accumulate,
    )
    assert take(later, 3) == batches[2 * accumulate : 2 * accumulate + 3]


def test_random_numbers_of_a_sample_depend_on_seed_and_position_alone() -> None:
    first = sample_generator(5, 77).random(4)
    np.testing.assert_array_equal(first, sample_generator(5, 77).random(4))
    for other in (sample_generator(5, 78), sample_generator(6, 77)):
        assert (other.random(4) != first).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pictures": 0}, "holds no picture"),
        ({"ratio": 0}, "ratio is 0"),
        ({"world": 0}, "world is 0"),
        ({"rank": 1}, "rank is 1 of 1"),
        ({"position": -1}, "cannot begin"),
        ({"stages": []}, "no stage holds iteration 1"),
        ({"stages": [FixedStage(8, 1, start=2)]}, "no stage holds iteration 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, object], message: str) -> None:
    arguments = {"pictures": 1, "seed": 0, "stages": [FixedStage(8, 1)], **changes}
    with pytest.raises(UsageError, match=message):
        StreamSampler(**arguments)  # type: ignore[arg-type]
