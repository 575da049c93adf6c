"""Weights of one scale loaded for another, to be fine-tuned: what is taken over and what is new."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_data import (
    Tiny,
    empty_state,
    is_known,
    skeleton,
    small_cases,
    spec_of,
    tiny,
    untold,
    variants,
)
from torch import Tensor

from restore.archs import ARCHS
from restore.errors import CheckpointError, UsageError
from restore.loading import PartlyLoadedWarning, load
from restore.model import Model

SCALES = (2, 3, 4, 8)
# the heads of keys that depend on the scale, in any family
TAIL = ("upsample.", "conv_up2.")


def builds(case: Tiny, scale: int) -> bool:
    """Whether the architecture makes that scale with the case's other settings."""
    try:
        spec_of(case.arch).config().replaced({**case.config, "upscale": scale}, "test")
    except CheckpointError:
        return False
    return True


ENLARGING = [
    case for spec in ARCHS for case in small_cases(spec.name) if case.config.get("upscale", 1) > 1
]
CHANGES = [
    pytest.param(case, scale, id=f"{case.name} x{case.config['upscale']} to x{scale}")
    for case in ENLARGING
    for scale in SCALES
    if scale != case.config["upscale"] and builds(case, scale)
]


def load_for(case: Tiny, scale: int, **more: Any) -> Model:
    """With the settings that leave no trace given, and a fixed seed."""
    torch.manual_seed(11)
    with pytest.warns(PartlyLoadedWarning):
        return load(case.state, device="cpu", config=untold(case), scale=scale, **more)


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.parametrize(("case", "scale"), CHANGES)
def test_what_fits_is_taken_over_and_the_rest_is_as_the_network_draws_it(
    case: Tiny, scale: int
) -> None:
    model, state = load_for(case, scale), case.state
    assert model.scale == scale
    own = load(state, device="cpu", config=untold(case))
    assert dict(model.config) == {**own.config, "upscale": scale}
    assert own.new_keys == ()
    torch.manual_seed(11)
    drawn = model.spec.build(model.config).state_dict()
    got = model.module.state_dict()
    assert shapes(got) == shapes(drawn)
    for key, value in got.items():
        assert value.dtype == torch.float32
        assert value.device.type == "cpu"
        fits = key in state and state[key].shape == value.shape
        assert (key in model.new_keys) is not fits
        assert torch.equal(value, state[key] if fits else drawn[key]), key
    assert all(key.startswith(TAIL) for key in model.new_keys)
    x = torch.rand(1, model.in_channels, 9, 7)
    with torch.inference_mode():
        assert model(x).shape == (1, model.in_channels, 9 * scale, 7 * scale)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name) for case in ENLARGING if builds(case, 4)]
)
def test_it_can_be_trained(case: Tiny) -> None:
    model = load_for(case, 4 if case.config["upscale"] != 4 else 2)
    model.module.train()
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    optimizer = torch.optim.Adam(model.module.parameters(), lr=1e-3)
    x = torch.rand(1, model.in_channels, 16, 16)
    model(x).square().mean().backward()
    optimizer.step()
    after = model.module.state_dict()
    for key in (*model.new_keys, "conv_first.weight"):
        assert not torch.equal(before[key], after[key]), key


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["swinir_1", "swinir_2", "swinir_4", "drct_1"])
def test_what_is_saved_is_whole(name: str, suffix: str, tmp_path: Path) -> None:
    case = tiny(name)
    spec_of(case.arch)
    scale = 2 if case.config["upscale"] != 2 else 4
    with pytest.warns(PartlyLoadedWarning):
        given = {"img_size": case.config["img_size"]}
        model = load(case.state, device="cpu", config=given, scale=scale)
    model.save(tmp_path / f"net{suffix}")
    again = load(tmp_path / f"net{suffix}", device="cpu")
    assert again.new_keys == ()
    assert again.config == model.config
    saved, loaded = model.module.state_dict(), again.module.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(value, loaded[key]) for key, value in saved.items())


def test_a_file_that_holds_its_own_scale_is_no_obstacle(tmp_path: Path) -> None:
    case = tiny("swinir_1")
    given = {"img_size": case.config["img_size"]}
    load(case.state, device="cpu", config=given).save(tmp_path / "x2.safetensors")
    with pytest.warns(PartlyLoadedWarning):
        model = load(tmp_path / "x2.safetensors", device="cpu", scale=4)
    assert model.scale == 4
    assert model.name == "x2"


OFFICIAL = [
    (name, f"{name[:-1]}{scale}")
    for name in variants()
    for scale in SCALES[1:]
    if name.endswith("_x2") and f"{name[:-1]}{scale}" in variants()
]


@pytest.mark.parametrize(
    ("small", "large"),
    [
        pytest.param(
            *pair, marks=() if pair[0].startswith("swinir_classical_s64") else pytest.mark.slow
        )
        for pair in OFFICIAL
        if is_known(skeleton(pair[0])["class"])
    ],
)
def test_official_sizes(small: str, large: str) -> None:
    """The x2 file for x3, x4 and x8: the very network of the official file of that scale."""
    state, other = empty_state(small), skeleton(large)
    wanted = {
        key: tuple(entry["shape"])
        for key, entry in other["keys"].items()
        if entry["kind"] == "param"
    }
    with pytest.warns(PartlyLoadedWarning):
        model = load(state, device="cpu", scale=other["scale"])
    assert shapes(model.module.state_dict()) == wanted
    assert model.num_parameters == other["param_count"]
    assert dict(model.config) == other["config"]
    given = shapes(state)
    unlike = {key for key, shape in wanted.items() if given.get(key) != shape}
    assert set(model.new_keys) == unlike


@pytest.mark.parametrize(
    ("scale", "new"),
    [
        (3, {"upsample.0": (576, 64)}),
        (4, {"upsample.2": (256, 64)}),
        (8, {"upsample.2": (256, 64), "upsample.4": (256, 64)}),
    ],
)
def test_steps_of_two_are_taken_over_by_name(scale: int, new: dict[str, tuple[int, ...]]) -> None:
    """As the authors' trainers do without strict loading: x2 gives the first step of x4."""
    case = tiny("swinir_1")
    with pytest.warns(PartlyLoadedWarning) as told:
        model = load(case.state, device="cpu", scale=scale)
    assert set(model.new_keys) == {f"{at}.{kind}" for at in new for kind in ("weight", "bias")}
    text = str(told[0].message)
    assert text.startswith(f"state dict: weights for x2 in a network for x{scale}")
    for at, (rows, columns) in new.items():
        assert f"{at}.weight {(rows, columns, 3, 3)}, {at}.bias {(rows,)}" in text
    left_out = text.partition("left out: ")[2]
    assert (
        left_out
        == ("upsample.0.weight (256, 64, 3, 3), upsample.0.bias (256,)", "none")[scale != 3]
    )
    assert Path(told[0].filename) == Path(__file__)
    assert any(f"scale={scale} was asked for" in sentence for sentence in model.evidence)


def test_a_smaller_scale_leaves_steps_out() -> None:
    with pytest.warns(PartlyLoadedWarning, match=r"new: none; left out: conv_up2\.weight") as told:
        model = load(tiny("swinir_2").state, device="cpu", scale=2)
    assert len(told) == 1
    assert model.new_keys == ()
    assert not any(key.startswith("conv_up2") for key in model.module.state_dict())


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in ENLARGING])
def test_the_scale_that_it_has_changes_nothing(case: Tiny) -> None:
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load(case.state, device="cpu", config=untold(case), scale=case.config["upscale"])
    drawn = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(4))
    assert model.new_keys == ()
    state = model.module.state_dict()
    assert all(torch.equal(state[key], value) for key, value in case.state.items())


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name)
        for spec in ARCHS
        for case in small_cases(spec.name)
        if case.config.get("upscale", 1) == 1
    ],
)
def test_networks_that_keep_the_size_refuse(case: Tiny) -> None:
    with pytest.raises(
        UsageError, match=r"scale is 4, but .* can be built for x1 alone: it has no"
    ):
        load(case.state, device="cpu", config=untold(case), scale=4)
    assert load(case.state, device="cpu", config=untold(case), scale=1).scale == 1


@pytest.mark.parametrize(
    ("name", "scale", "possible"),
    [
        ("swinir_1", 5, "x1, x2, x3, x4, x8, x16"),
        ("swinir_2", 1, "x2, x4"),
        ("swinir_2", 3, "x2, x4"),
        ("swinir_4", 17, "x1, x2, x3, .*x16"),
        ("swinir_4", 0, "x1, x2, x3, .*x16"),
        ("swinir_4", -2, "x1, x2, x3, .*x16"),
    ],
)
def test_a_scale_that_cannot_be_made_is_refused(name: str, scale: int, possible: str) -> None:
    with pytest.raises(UsageError, match=f"scale is {scale}, but SwinIR.* built for {possible}$"):
        load(tiny(name).state, device="cpu", scale=scale)


@pytest.mark.parametrize("scale", ["4", 4.0, True, [4]], ids=repr)
def test_a_scale_that_is_no_number_is_refused(scale: Any) -> None:
    with pytest.raises(UsageError, match=r"load: scale is .*; expected a whole number, or None"):
        load(tiny("swinir_1").state, device="cpu", scale=scale)


@pytest.mark.parametrize("key", ["norm.bias", "conv_last.weight", "upsample.0.bias", "foo.bar"])
def test_what_does_not_fit_its_own_network_is_told_as_ever(key: str) -> None:
    """Another scale excuses nothing: neither in the body nor in the tail."""
    state = {**tiny("swinir_1").state, key: torch.zeros(5)}
    with pytest.raises(CheckpointError) as plain:
        load(state, device="cpu")
    with pytest.raises(CheckpointError) as scaled:
        load(state, device="cpu", scale=4)
    assert str(scaled.value) == str(plain.value)
    assert key in str(plain.value)


def test_new_tensors_are_real_and_of_the_models_precision() -> None:
    case = tiny("swinir_4")
    single = load_for(case, 4)
    for context in (torch.device("meta"), torch.no_grad()):
        with context:
            model = load_for(case, 4)
        for key, value in model.module.state_dict().items():
            assert torch.equal(value, single.module.state_dict()[key]), key
    double = load_for(case, 4, dtype="fp64")
    for key, value in double.module.state_dict().items():
        assert value.dtype == torch.float64
        assert torch.equal(value, single.module.state_dict()[key].double()), key
    assert all(p.requires_grad and p.is_leaf for p in model.module.parameters())
    assert not model.module.training


def test_a_default_precision_of_the_caller_is_of_no_matter() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        model = load_for(tiny("swinir_4"), 4)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}


def test_a_seed_makes_it_again() -> None:
    case = tiny("drct_1")
    spec_of(case.arch)
    one, two = (load_for(case, 4).module.state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
