"""Steps within a network: told in order, without a change of the result, and a way to stop."""

from __future__ import annotations

import pytest
import torch
from small_models import tiny

from restore.archs.swinir import SPEC, SwinIRConfig
from restore.model import Model
from restore.web.desk import Stopped
from restore.web.pulse import steps


def four_groups() -> Model:
    config = SwinIRConfig(
        embed_dim=6,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1),
        upscale=2,
        upsampler="pixelshuffledirect",
    )
    torch.manual_seed(0)
    return Model(SPEC, config, SPEC.build(config).eval(), name="four")


def test_each_group_is_told_and_nothing_changes() -> None:
    model = four_groups()
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        want = model(x)
        told: list[float] = []
        with steps(model, told.append) as count:
            got = model(x)
        assert count == 4
        assert told == [0.0, 0.25, 0.5, 0.75]
        assert torch.equal(got, want)
        model(x)
    assert len(told) == 4  # nobody watches any more


def test_what_it_raises_ends_the_network_and_the_watch() -> None:
    model = four_groups()

    def stop(share: float) -> None:
        if share >= 0.5:
            raise Stopped

    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        with pytest.raises(Stopped), steps(model, stop):
            model(x)
        assert model(x).shape == (1, 3, 32, 32)


def test_only_the_model_that_was_named_is_watched() -> None:
    told: list[float] = []
    watched, other = tiny(2), tiny(2)
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode(), steps(watched, told.append):
        other(x)
        assert told == []
        watched(x)
    assert told == [0.0]
