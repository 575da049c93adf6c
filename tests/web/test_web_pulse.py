"""Steps within a network: told in order, without a change of the result, and a way to stop."""

from __future__ import annotations

import pytest
import torch
from golden_data import small_cases
from small_models import tiny

from restore.archs import ARCHS
from restore.archs._spec import ArchSpec
from restore.archs.swinir import SPEC, SwinIRConfig
from restore.loading import load
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


@pytest.mark.parametrize("spec", ARCHS, ids=lambda spec: spec.name)
def test_every_architecture_has_steps_that_change_nothing(spec: ArchSpec) -> None:
    case = small_cases(spec.name)[0]
    model = load(case.state, device="cpu", arch=spec.name, config=case.config)
    x = case.image("a")
    told: list[float] = []
    with torch.inference_mode():
        want = model(x)
        with steps(model, told.append) as count:
            got = model(x)
    assert count > 0
    assert told == [i / count for i in range(count)]
    assert torch.equal(got, want)
