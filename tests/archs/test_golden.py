"""Every architecture against the authors' own numbers; see tests/golden/README.md."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from _pytest.mark.structures import ParameterSet
from golden_data import (
    ALL,
    DTYPES,
    Tiny,
    committed_outputs,
    cotangent,
    empty_state,
    image,
    is_known,
    never_told,
    outputs,
    parameters,
    skeleton,
    spec_of,
    tiny,
    tiny_names,
    told_by_buffers,
    untold,
    variants,
    with_garbage,
)
from safetensors import safe_open
from torch import Tensor

from restore.errors import CheckpointError
from restore.loading import AmbiguousCheckpointWarning, load
from restore.model import Model

EXACT = 1e-10  # float64 against stored float64
ROUNDED = 1e-6  # float64 against stored float32, of the largest output
SINGLE = 1e-5  # float32, of the largest output
# the originals' float32 runs vary that much in exactness with the shape of the batch
SINGLE_GRADIENT = 10
# the committed ones run always, but for those that take seconds and add no kind of network
LARGE = {"swinir_real_l_x4", "swinir_denoise_gray", "swinir_jpeg_color"}
NEAREST = {  # the family that a message may name for keys of one that is not there yet
    "HAT": "SwinIR",
    "SRFormer": "SwinIR",
    "DRCT": "SwinIR",
    "ATD": "SwinIR",
}


def load_tiny(case: Tiny, dtype: str, device: str = "cpu") -> Model:
    spec_of(case.arch)
    state = with_garbage(case.state, case.keys)
    return load({"params": state}, device=device, dtype=dtype, config=untold(case))


def run(
    model: Model, case: Tiny, tag: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Output, gradient with respect to the input, and the gradients of the parameters."""
    x = case.image(tag).to(model.device, dtype).requires_grad_()
    y = model(x)
    (y * cotangent(tuple(y.shape)).to(y)).sum().backward()
    gradients = {
        key: p.grad.cpu() for key, p in model.module.named_parameters() if p.grad is not None
    }
    assert x.grad is not None
    return y.detach().cpu(), x.grad.cpu(), gradients


def off(got: Tensor, stored: Tensor) -> float:
    return (got.double() - stored.double()).abs().max().item()


@pytest.mark.parametrize("name", tiny_names())
def test_outputs_and_gradients_in_float64(name: str) -> None:
    case = tiny(name)
    for tag in case.inputs:
        y, gx, gradients = run(load_tiny(case, "fp64"), case, tag, torch.float64)
        stored = case.tensor(f"y_{tag}")
        scale = stored.abs().max().item()
        assert off(y, stored) <= (EXACT if stored.dtype == torch.float64 else ROUNDED * scale)
        if f"gx_{tag}" in case.numbers:
            assert off(gx, case.tensor(f"gx_{tag}")) <= EXACT
        for key, wanted in case.gradients(tag).items():
            assert off(gradients[key], wanted) <= EXACT * max(1, wanted.abs().max().item()), key


@pytest.mark.parametrize("name", tiny_names())
def test_outputs_and_gradients_in_float32(name: str) -> None:
    case = tiny(name)
    for tag in case.inputs:
        assert_float32(case, tag)


def assert_float32(case: Tiny, tag: str, device: str = "cpu") -> None:
    """Hold the output of one input and all stored gradients to what float32 is allowed."""
    y, gx, gradients = run(load_tiny(case, "fp32", device), case, tag, torch.float32)
    assert off(y, case.tensor(f"y_{tag}")) <= SINGLE * float(case.numbers[f"max_abs_y_{tag}"])
    allowed = SINGLE_GRADIENT * float(case.numbers[f"rel_f32_err_gp_{tag}"])
    for key, wanted in case.gradients(tag).items():
        assert off(gradients[key], wanted) <= allowed * wanted.abs().max().item(), key
    if f"gx_{tag}" in case.numbers:
        wanted = case.tensor(f"gx_{tag}")
        allowed = SINGLE_GRADIENT * float(case.numbers[f"rel_f32_err_gx_{tag}"])
        assert off(gx, wanted) <= allowed * wanted.abs().max().item()


@pytest.mark.parametrize("name", tiny_names())
def test_settings_of_small_networks(name: str) -> None:
    """With what leaves no trace given, everything else is read."""
    case = tiny(name)
    model = load_tiny(case, "fp32")
    assert dict(model.config) == case.config
    assert model.arch == case.arch


@pytest.mark.parametrize("name", tiny_names())
def test_buffers_of_a_file_are_never_used(name: str) -> None:
    case = tiny(name)
    spec_of(case.arch)
    x = case.image("b")
    config = {**untold(case), "img_size": case.config["img_size"]}
    bare = load(case.state, device="cpu", config=config)
    garbage = load(with_garbage(case.state, case.keys), device="cpu", config=untold(case))
    with torch.inference_mode():
        assert torch.equal(bare(x), garbage(x))


@pytest.mark.parametrize("name", tiny_names())
def test_buffers_that_are_saved_are_the_authors_own(name: str) -> None:
    case = tiny(name)
    spec_of(case.arch)
    path = ALL / "tiny" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip("needs ../shared/golden and a small network with a weight file")
    model = load(path, device="cpu", config=untold(case))
    saved = model.official_state_dict()
    with safe_open(str(path), framework="pt") as file:
        assert sorted(file.keys()) == sorted(saved)
        for key, value in saved.items():
            stored = file.get_tensor(key)
            assert stored.dtype == value.dtype, key
            assert torch.equal(stored, value), key


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(v, marks=pytest.mark.slow if v.endswith(("_x3", "_x8")) else ())
        for v in variants()
        if is_known(skeleton(v)["class"])
    ],
)
def test_an_official_file_is_read_as_what_it_is(variant: str) -> None:
    official = skeleton(variant)
    state = {official["prefix"] + key: value for key, value in empty_state(variant).items()}
    key = official["checkpoint_key"]
    model = load({key: state} if key else state, device="cpu", config=never_told(official))
    assert model.arch == official["class"]
    assert dict(model.config) == official["config"]
    assert model.scale == official["scale"]
    assert model.num_parameters == official["param_count"]
    assert model.evidence
    with torch.device("meta"):  # masks of some networks are larger than all their weights
        derived = {key: make() for key, make in model.spec.derived(model.config).items()}
    saved = {**model.module.state_dict(), **derived}
    assert {k: list(v.shape) for k, v in saved.items()} == {
        k: entry["shape"] for k, entry in official["keys"].items()
    }
    assert all(saved[k].dtype == DTYPES[e["dtype"]] for k, e in official["keys"].items())


@pytest.mark.parametrize("variant", [v for v in variants() if is_known(skeleton(v)["class"])])
def test_an_official_file_without_its_buffers(variant: str) -> None:
    """The training patch then leaves no trace; what else leaves none is told to be in doubt."""
    official = skeleton(variant)
    state = {
        key: value
        for key, value in empty_state(variant).items()
        if official["keys"][key]["kind"] == "param"
    }
    reading = spec_of(official["class"]).read_config(state)
    given = {**never_told(official), **told_by_buffers(official)}
    aside = dict.fromkeys(["img_size", *given])
    assert {**reading.config, **aside} == {**official["config"], **aside}
    assert {field for doubt in reading.doubts for field in doubt.fields} == given.keys()


@pytest.mark.parametrize("variant", [v for v in variants() if not is_known(skeleton(v)["class"])])
def test_a_file_of_another_family_is_refused(variant: str) -> None:
    official = skeleton(variant)
    state = empty_state(variant)
    with pytest.raises(CheckpointError) as caught:
        load(state, device="cpu")
    text = str(caught.value)
    assert text.startswith("state dict: ")
    assert "fits no known network" in text or "no known architecture claims it" in text
    if official["family"] in NEAREST:
        assert f"nearest family {NEAREST[official['family']]}" in text
    assert len(text) < 1500


def slow_but(fast: set[str]) -> list[ParameterSet]:
    """All variants with stored outputs; those not named are marked slow."""
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if name in fast else slow) for name in outputs()]


@pytest.mark.parametrize("name", slow_but(committed_outputs() - LARGE))
def test_full_size_outputs_in_float32(name: str) -> None:
    y, stored, largest = full_size(name, torch.float32)
    assert off(y, stored) <= SINGLE * largest


@pytest.mark.parametrize("name", slow_but({"swinir_light_x2"}))
def test_full_size_outputs_in_float64(name: str) -> None:
    y, stored, largest = full_size(name, torch.float64)
    assert off(y, stored) <= ROUNDED * largest


def full_size(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    """Our output, the stored one, and the largest magnitude of that."""
    official = skeleton(name)
    spec_of(official["class"])
    state = parameters(official["keys"])
    given = {**never_told(official), **told_by_buffers(official)}
    model = load(state, device="cpu", dtype=dtype, config=given)
    with np.load(outputs()[name]) as numbers:
        stored, largest = torch.from_numpy(numbers["y"]), float(numbers["max_abs_y"])
        x = image(int(numbers["seed"]), tuple(int(side) for side in numbers["x_shape"]))
    with torch.inference_mode():
        y = model(x.to(dtype))
    assert y.dtype == dtype
    return y, stored, largest


def test_windows_that_leave_no_trace_are_told(recwarn: pytest.WarningsRecorder) -> None:
    """What is assumed for them is said, unless it is given."""
    case = tiny("hit_sr_3")
    spec_of(case.arch)
    with pytest.warns(AmbiguousCheckpointWarning, match="give both"):
        model = load(case.state, device="cpu")
    assert dict(model.config) != case.config
    recwarn.clear()
    load(case.state, device="cpu", config=untold(case))
    assert not recwarn.list


def test_the_formula_makes_exact_float32_values() -> None:
    values = parameters(skeleton("swinir_light_x2")["keys"])
    assert len(values) == 330
    gain = values["norm.weight"]
    assert gain.dtype == torch.float32
    assert math.isclose(gain.mean().item(), 1.0, abs_tol=0.05)
