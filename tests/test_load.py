"""From weights to a model: recognition, settings, messages."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_data import image, tiny, untold
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from restore.archs import ARCHS
from restore.archs._branches import hidden_features
from restore.archs._spec import ArchSpec
from restore.archs.hit_sr import SPECS, HiTConfig
from restore.archs.swinir import SPEC, SwinIRConfig
from restore.devices import resolve_dtype
from restore.dtype_names import TORCH_NAMES
from restore.errors import CheckpointError, UsageError
from restore.loading import (
    AmbiguousCheckpointWarning,
    PrecisionWarning,
    builtin_names,
    load,
    load_builtin,
)
from restore.model import AssumedPatchWarning
from restore.recognition import kinds_of


@pytest.fixture
def state() -> dict[str, Tensor]:
    """A small SwinIR's parameters: lightweight x3, 12 features."""
    return tiny("swinir_4").state


IMPORT_EVERYTHING = """
import importlib, pkgutil, restore
for module in pkgutil.iter_modules(restore.__path__):
    if module.name not in ("__main__", "basicsr"):  # which needs BasicSR
        importlib.import_module(f"restore.{module.name}")
hidden = [name for name in restore.__all__ if not callable(getattr(restore, name))]
assert not hidden, hidden
"""


def test_no_module_hides_the_public_function_of_its_name(root: Path) -> None:
    """`restore.load` is a function, whatever was imported before."""
    subprocess.run([sys.executable, "-c", IMPORT_EVERYTHING], check=True, cwd=root, timeout=120)


def test_files_of_every_kind_give_the_same_model(state: dict[str, Tensor], tmp_path: Path) -> None:
    x = image(0, (1, 3, 9, 9))
    expected = load(state, device="cpu")(x)
    for name, content in {
        "bare.pth": state,
        "wrapped.pt": {"params_ema": state, "params": {k: v * 0 for k, v in state.items()}},
        "trainer.ckpt": {"state_dict": {f"netG.module.{k}": v for k, v in state.items()}},
        "compiled.pth": {"model": {f"_orig_mod.{k}": v for k, v in state.items()}},
    }.items():
        torch.save(content, tmp_path / name)
        model = load(str(tmp_path / name), device="cpu")
        assert model.name == name.split(".")[0]
        assert torch.equal(model(x), expected)


def test_a_module_is_no_state_dict() -> None:
    with pytest.raises(UsageError, match=r"got a Linear; .*, as module\.state_dict\(\) gives"):
        load(torch.nn.Linear(1, 1))  # type: ignore[arg-type]


def test_settings_that_contradict_the_weights_are_told_alone(tmp_path: Path) -> None:
    """Not all those that a file of ours holds."""
    load(tiny("swinir_1").state, device="cpu", config={"img_size": 8}).save(
        tmp_path / "a.safetensors"
    )
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "a.safetensors", device="cpu", config={"num_heads": [5, 2]})
    assert "config {'num_heads': [5, 2]} does not fit: num_heads (5, 2) do not" in str(caught.value)
    with pytest.raises(UsageError, match=r"counts before what was read: window_size 7$"):
        load(tmp_path / "a.safetensors", device="cpu", config={"window_size": 7})


def test_a_mapping_is_copied(state: dict[str, Tensor]) -> None:
    given_state = {key: value.clone().requires_grad_() for key, value in state.items()}
    model = load(given_state, device="cpu")
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.zero_()
    assert given_state.keys() == state.keys()
    assert all(torch.equal(given_state[key], value) for key, value in state.items())
    assert all(p.requires_grad and p.is_leaf for p in model.module.parameters())
    assert not model.module.training


def test_loading_draws_no_random_numbers(state: dict[str, Tensor]) -> None:
    torch.manual_seed(3)
    load(state, device="cpu")
    drawn = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_another_precision_become_float32(
    state: dict[str, Tensor], dtype: torch.dtype
) -> None:
    model = load({key: value.to(dtype) for key, value in state.items()}, device="cpu")
    for key, value in model.module.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[key].to(dtype).float())


def test_one_tensor_for_two_keys_makes_two_parameters(state: dict[str, Tensor]) -> None:
    shared = torch.ones(12)
    model = load({**state, "norm.weight": shared, "norm.bias": shared}, device="cpu")
    with torch.no_grad():
        model.module.get_parameter("norm.weight").zero_()
    assert model.module.get_parameter("norm.bias").sum() == 12


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(state: dict[str, Tensor], value: float) -> None:
    state["layers.0.conv.weight"][3, 2, 1, 0] = value
    with pytest.raises(CheckpointError, match=r"layers\.0\.conv\.weight holds NaN or infinite"):
        load(state, device="cpu")


def test_keys_that_do_not_fit_are_named(state: dict[str, Tensor]) -> None:
    changes: list[tuple[dict[str, Tensor], str]] = [
        ({**state, "foo.bar": torch.ones(1)}, r"1 unknown: foo\.bar$"),
        ({k: v for k, v in state.items() if k != "norm.bias"}, r"1 missing: norm\.bias$"),
        (
            {**state, "norm.bias": torch.ones(5)},
            r"1 of another shape: norm\.bias is \(5,\), expected \(12,\)$",
        ),
        (
            {**state, **{f"extra.{i}": torch.ones(1) for i in range(7)}},
            r"7 unknown: extra\.0, extra\.1, extra\.2, extra\.3 and 3 more$",
        ),
    ]
    for changed, message in changes:
        with pytest.raises(CheckpointError, match=message) as caught:
            load(changed, device="cpu")
        assert "nearest family SwinIR" in str(caught.value)


def test_an_unknown_network_is_described() -> None:
    with pytest.raises(CheckpointError, match="no known architecture claims") as caught:
        load({"a.weight": torch.ones(1), "b.bias": torch.ones(1)}, device="cpu")
    text = str(caught.value)
    assert "2 tensors (a.weight, b.bias); near to none of those known" in text
    for spec in ARCHS:
        assert spec.name in text


def test_what_a_near_network_lacks_is_named(state: dict[str, Tensor]) -> None:
    del state["conv_first.weight"]
    with pytest.raises(CheckpointError, match=r"nearest .* SwinIR .*lacking conv_first\.weight"):
        load(state, device="cpu")


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_weights_that_are_no_numbers_to_compute_with_are_refused(
    dtype: torch.dtype, state: dict[str, Tensor]
) -> None:
    state["norm.weight"] = state["norm.weight"].to(dtype)
    with pytest.raises(CheckpointError, match=r"norm\.weight holds torch\.\w+.*floating point"):
        load(state, device="cpu")


@settings(max_examples=60)
@given(data=st.data(), name=st.sampled_from(["swinir_1", "swinir_4", "hit_sr_1", "hit_sr_2"]))
def test_a_damaged_state_dict_is_refused_by_message(data: st.DataObject, name: str) -> None:
    """Whatever is missing or of another shape: a message, never an error from deep inside."""
    damaged = tiny(name).state
    for key in data.draw(st.lists(st.sampled_from(sorted(damaged)), min_size=1, max_size=3)):
        shape = data.draw(st.none() | st.lists(st.integers(0, 9), max_size=4))
        if shape is None:
            damaged.pop(key, None)
        else:
            damaged[key] = torch.zeros(shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AmbiguousCheckpointWarning)
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            load(damaged, device="cpu", config=untold(tiny(name)))
    except CheckpointError as error:
        assert str(error).startswith("state dict: ")


def test_named_architectures(state: dict[str, Tensor]) -> None:
    for name in ("SwinIR", "swinir", "SWINIR"):
        assert load(state, device="cpu", arch=name).arch == "SwinIR"
    case = tiny("hit_sr_3")
    for name in ("HiT_SRF", "hit-srf", "HiT-SR", "hitsr"):
        assert load(case.state, device="cpu", arch=name, config=untold(case)).arch == "HiT_SRF"


def test_an_unknown_architecture_is_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(UsageError, match=r"arch is 'SwinR'.*did you mean 'SwinIR'"):
        load(state, device="cpu", arch="SwinR")
    with pytest.raises(UsageError, match=r"arch is 'resnet'; expected one of SwinIR, .*HiT_SIR"):
        load(state, device="cpu", arch="resnet")


def test_a_named_architecture_that_does_not_fit_is_told(state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(state, device="cpu", arch="HiT_SIR")
    assert "HiT_SIR" in str(caught.value)
    assert "no known architecture claims it" not in str(caught.value)


def test_a_setting_that_weights_do_not_tell_is_obeyed(state: dict[str, Tensor]) -> None:
    x = image(0, (1, 3, 9, 9))
    plain = load(state, device="cpu")
    model = load(state, device="cpu", config={"img_range": 255.0, "qk_scale": 0.3})
    assert model.config["img_range"] == 255.0
    assert model.config["qk_scale"] == 0.3
    assert not torch.equal(model(x), plain(x))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"windw": 7}, "config has no 'windw'; did you mean 'window_size'. known: img_size, in_ch"),
        ({"zzz": 1}, "config has no 'zzz'; known: img_size, in_chans"),
        ({"upscale": 5}, "2 of another shape: upsample.* before what was read: upscale 5"),
        ({"upsampler": "bicubic"}, r"upsampler is 'bicubic'; expected .*\"pixelshuffledirect\""),
        ({"upsampler": "pixelshuffle", "upscale": 5}, "upscale is 5; upsampler 'pixelshuffle'"),
        ({"resi_connection": "2conv"}, 'expected one of "1conv", "3conv", "identity"$'),
        ({"depths": "ab"}, r"is 'ab'; expected a list of whole numbers, such as \[2, 2\]$"),
        ({"img_size": 1.5}, "expected a whole number or a list of 2 whole numbers, such as 64$"),
        ({"qk_scale": "a"}, "expected a number or None$"),
        ({"ape": 1}, "expected True or False$"),
        ({"mlp_ratio": "a"}, r"expected a number, such as 1\.5$"),
        ({"depths": [2]}, r"num_heads .* depths \(2,\)"),
        ({"num_heads": [5, 5]}, "do not divide embed_dim 12"),
        ({"depths": [2, 3]}, "missing: layers.1.residual_group.blocks.2"),
        ({"window_size": 7}, r"of another shape: layers.0.* expected \(169, 2\)"),
        ({"ape": True}, "ape=True"),
        ({"patch_size": 2}, "patch_size=2"),
    ],
    ids=str,
)
def test_a_setting_that_does_not_fit_is_the_callers_mistake(
    state: dict[str, Tensor], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(state, device="cpu", config=config)
    assert str(caught.value).startswith("state dict: ")


def test_a_damaged_file_is_not_the_callers_mistake(state: dict[str, Tensor]) -> None:
    del state["norm.bias"]
    with pytest.raises(CheckpointError, match=r"missing: norm\.bias; given, .*: img_range 255"):
        load(state, device="cpu", config={"img_range": 255})


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"windw": 7}, "SwinIR: config has no 'windw'"),
        ({"depths": [2]}, "num_heads"),
        ({"window_size": 7}, "fits no known network: .* before what was read: .*window_size 7"),
    ],
    ids=str,
)
def test_settings_of_a_file_are_not_the_callers_mistake(
    state: dict[str, Tensor], stored: dict[str, Any], message: str, tmp_path: Path
) -> None:
    metadata = {"restore": "0.1.0", "config": json.dumps(stored)}
    save_file(state, tmp_path / "net.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "net.safetensors", device="cpu", config={"img_range": 255})
    if "depths" in stored:  # what is given stands in for what is stored
        load(tmp_path / "net.safetensors", device="cpu", config={"depths": [2, 2]})


def test_every_kind_of_setting_has_words() -> None:
    for spec in ARCHS:
        for name in spec.config():
            with pytest.raises(CheckpointError, match=rf"config {name} is .*; expected ") as caught:
                spec.config().replaced({name: object()}, "test")
            told = str(caught.value)
            assert not re.search(r"typing|Literal|tuple|\||\bint\b|NoneType", told), told


@pytest.mark.parametrize("value", ["abc", None, [1], -1], ids=repr)
@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(SwinIRConfig)])
def test_a_setting_of_a_wrong_kind_is_told(
    state: dict[str, Tensor], field: str, value: object
) -> None:
    try:
        model = load(state, device="cpu", config={field: value})
        with torch.inference_mode():
            model(image(0, (1, 3, 9, 9)))
    except UsageError as error:
        assert str(error).startswith("state dict: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"arch": 3}, r"load: arch is 3; expected a name, such as 'SwinIR', or None"),
        ({"config": [1]}, r"load: config is \[1\]; expected a mapping of names to values"),
        ({"scale": "4"}, r"load: scale is '4'; expected a whole number, or None"),
    ],
    ids=str,
)
def test_the_argument_that_is_wrong_is_named(
    state: dict[str, Tensor], arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        load(state, device="cpu", **arguments)
    assert sum(f"{name} is " in str(caught.value) for name in ("arch", "config", "scale")) == 1


def test_what_is_assumed_is_said_once_and_can_be_settled() -> None:
    case = tiny("hit_sr_1")
    with pytest.warns(AmbiguousCheckpointWarning, match=r"taken as base_win_size=\[8, 8\]") as told:
        load(case.state, device="cpu")
    assert len(told) == 1
    assert Path(told[0].filename) == Path(__file__)  # the caller's line, not ours
    text = str(told[0].message)
    assert text.startswith("state dict: ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for settled in ({"base_win_size": [4, 4]}, {"hier_win_ratios": [0.5, 1, 4]}):
            load(case.state, device="cpu", config=settled)


def test_stripped_masks_are_told() -> None:
    """Index buffers without masks: stripped, or a network that was never shifted."""
    case = tiny("swinir_1")
    index = {
        key: torch.zeros(entry["shape"], dtype=torch.int64)
        for key, entry in case.keys.items()
        if key.endswith("relative_position_index")
    }
    with pytest.warns(AmbiguousCheckpointWarning, match="give img_size=4"):
        shifted = load({**case.state, **index}, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unshifted = load({**case.state, **index}, device="cpu", config={"img_size": 4})
        load({**case.state}, device="cpu")
    x = image(0, (1, 3, 8, 8))
    assert not torch.equal(shifted(x), unshifted(x))


def test_a_device_that_is_not_here_is_refused(state: dict[str, Tensor]) -> None:
    for name in ("cuda:99", "gpu", "tpu", "cpu:1", ""):
        with pytest.raises(UsageError, match=f"device '{name}' is not here; there is .*cpu"):
            load(state, device=name)
    assert load(state, device=torch.device("cpu")).device.type == "cpu"


def test_a_dtype_that_does_not_exist_is_refused(state: dict[str, Tensor]) -> None:
    told = r"dtype is .*; expected auto, one of fp32, fp16, .* PyTorch's names .* float16, half"
    for name in ("fp8", "", "int32", torch.int32, 16):
        with pytest.raises(UsageError, match=told):
            load(state, device="cpu", dtype=name)  # type: ignore[arg-type]
    for name, dtype in {"auto": torch.float32, "bf16": torch.bfloat16}.items():
        assert load(state, device="cpu", dtype=name).dtype == dtype
    assert load(state, device="cpu", dtype=torch.float64).dtype == torch.float64


def test_names_of_dtypes_are_those_of_pytorch() -> None:
    for name, short in TORCH_NAMES.items():
        dtype = getattr(torch, name)
        assert resolve_dtype(name) == resolve_dtype(f"torch.{name}") == dtype
        assert resolve_dtype(short) == resolve_dtype(dtype) == dtype


def test_built_in_models_are_loaded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in builtin_names():
        model, same = load(name, device="cpu", dtype="half"), load_builtin(name, device="cpu")
        assert model.name == same.name == name
        assert model.dtype == torch.float16
        assert model.config == same.config
        values = same.module.state_dict()
        assert all(torch.equal(v, values[k]) for k, v in model.module.state_dict().items())
    torch.save(state, tmp_path / builtin_names()[0])
    assert load(builtin_names()[0], device="cpu").variant == load(state, device="cpu").variant


@pytest.mark.parametrize("name", ["swinir_builtin", "none.pth", "models/swinir_builtin_x2"])
def test_a_name_of_nothing_is_told_with_the_built_in_models(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(Path(name), device="cpu")
    told = str(caught.value)
    assert told.startswith(f"{name}: no such file, and no built-in model is called '{name}'; ")
    assert told.endswith(f"there is {', '.join(builtin_names())}")
    assert ("did you mean 'swinir_builtin_x" in told) == ("swinir" in name)


REFUSALS = """
import sys, time, torch
from restore.archs import ARCHS
from restore.errors import CheckpointError
from restore.loading import load
from restore.recognition import _empty

hat = next(spec for spec in ARCHS if spec.name == "HAT")
whole = {k: torch.zeros(v.shape) for k, v in _empty(hat, hat.config()).state_dict().items()}
del whole["conv_first.weight"]
esrgan = {f"RRDB_trunk.{i}.RDB{j}.conv{k}.weight": torch.zeros(1, 1, 3, 3)
          for i in range(23) for j in (1, 2, 3) for k in range(1, 6)}
for state in (whole, esrgan):
    began = time.process_time()
    try:
        load(state, device="cpu")
    except CheckpointError as error:
        print(f"{time.process_time() - began:.3f} {error}")
slow = [name for name in ("torch._dynamo", "sympy") if name in sys.modules]
assert not slow, slow
"""


def test_refusals_take_no_time(root: Path) -> None:
    """In a new process: nothing is built at full depth, and PyTorch's compiler stays out."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSALS], check=True, cwd=root, timeout=120, capture_output=True
    )
    near, foreign = done.stdout.decode().splitlines()
    assert "nearest family HAT (HAT), lacking conv_first.weight; known" in near
    assert "(RRDB_trunk.0.RDB1.conv1.weight, " in foreign
    assert "near to none of those known" in foreign
    assert float(near.split()[0]) < 5  # 0.5 on two cores of 2 GHz; the compiler alone takes more
    assert float(foreign.split()[0]) < 1


@pytest.mark.parametrize("spec", ARCHS, ids=lambda spec: spec.name)
def test_a_shallow_network_has_all_kinds_of_keys(spec: ArchSpec) -> None:
    with torch.device("meta"):
        net = spec.build(spec.config())
    assert kinds_of(spec) == {re.sub(r"(?<=\.)\d+(?=\.)", "*", key) for key in net.state_dict()}


def test_a_device_is_refused_before_a_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="device"):
        load(tmp_path / "none.pth", device="gpu")


@st.composite
def swinir_configs(draw: st.DrawFn) -> SwinIRConfig:
    """Settings that leave a trace in weights."""
    groups = draw(st.integers(1, 3))
    heads = [draw(st.sampled_from([1, 2, 3, 4])) for _ in range(groups)]
    dim = draw(st.sampled_from([12, 24]))
    upsampler = draw(st.sampled_from(["pixelshuffle", "pixelshuffledirect", "nearest+conv", ""]))
    scales = {
        "pixelshuffle": [2, 3, 4, 8],
        "pixelshuffledirect": [1, 2, 3, 4, 5, 8],
        "nearest+conv": [2, 4],
        "": [1],
    }
    window = draw(st.sampled_from([2, 3, 4, 7, 8]))
    return SwinIRConfig(
        img_size=window * draw(st.integers(2, 4)),
        in_chans=draw(st.sampled_from([1, 3, 4])),
        embed_dim=dim,
        depths=tuple(draw(st.integers(1, 3)) for _ in range(groups)),
        num_heads=tuple(heads),
        window_size=window,
        mlp_ratio=draw(st.integers(1, 40)) / dim,
        qkv_bias=draw(st.booleans()),
        patch_norm=draw(st.booleans()),
        upscale=draw(st.sampled_from(scales[upsampler])),
        img_range=255.0 if window == 7 else 1.0,
        upsampler=upsampler,  # type: ignore[arg-type]
        resi_connection=draw(st.sampled_from(["1conv", "3conv"])),
    )


@settings(max_examples=30)
@given(config=swinir_configs())
def test_the_settings_of_any_swinir_are_read_back(config: SwinIRConfig) -> None:
    net = SPEC.build(config)
    state = dict(net.state_dict())
    for key, make in SPEC.derived(config).items():
        state[key] = make()
    model = load({"params": state}, device="cpu", arch="SwinIR")
    expected = config
    if max(config.depths) == 1:  # nothing is shifted, so no mask holds the patch's size
        expected = dataclasses.replace(config, img_size=model.config["img_size"])
    assert model.config == expected
    assert model.scale == config.upscale
    assert set(model.official_state_dict()) == set(state)


@settings(max_examples=20)
@given(
    name=st.sampled_from([spec.name for spec in SPECS]),
    depths=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    upscale=st.sampled_from([2, 3, 4]),
    in_chans=st.sampled_from([1, 3]),
    three=st.booleans(),
    hidden=st.integers(1, 100),
)
def test_the_settings_of_any_hit_sr_are_read_back(
    name: str, depths: list[int], upscale: int, in_chans: int, three: bool, hidden: int
) -> None:
    spec = next(spec for spec in SPECS if spec.name == name)
    config = HiTConfig(
        in_chans=in_chans,
        embed_dim=40,
        depths=tuple(depths),
        num_heads=(2,) * len(depths),
        base_win_size=(4, 4),
        mlp_ratio=hidden / 40,
        upscale=upscale,
        resi_connection="3conv" if three else "1conv",
        hier_win_ratios=(0.5, 1, 2)[: max(depths)],
    )
    state = spec.build(config).state_dict()
    told = {"base_win_size": [4, 4], "hier_win_ratios": list(config.hier_win_ratios)}
    model = load(state, device="cpu", config=told)
    assert model.arch == name
    assert model.config == config


@given(dim=st.integers(1, 400), hidden=st.integers(1, 2000))
def test_the_width_of_an_mlp_survives_its_ratio(dim: int, hidden: int) -> None:
    assert hidden_features(dim, hidden / dim) == hidden


def test_fp16_is_not_given_to_a_family_that_overflows_it() -> None:
    case = tiny("hit_sr_1")
    with pytest.warns(PrecisionWarning, match="bf16 is used"):
        model = load(case.state, device="cpu", dtype="fp16", config=untold(case))
    assert model.dtype == torch.bfloat16
    assert load(tiny("swinir_1").state, device="cpu", dtype="fp16").dtype == torch.float16


def test_a_mapping_that_holds_itself_is_refused() -> None:
    inside: dict[str, Any] = {}
    inside["model"] = inside
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load(inside)


def test_an_empty_wrapper_is_passed_over() -> None:
    case = tiny("swinir_1")
    model = load({"params_ema": {}, "params": case.state}, device="cpu")
    assert model.checkpoint_key == "params"


@pytest.mark.parametrize(("window", "patch"), [(12, 72), (64, 128), (8, 64)])
def test_a_guessed_patch_is_of_whole_shifted_windows(
    window: int, patch: int, tmp_path: Path
) -> None:
    config = SwinIRConfig(
        embed_dim=8, depths=(2,), num_heads=(2,), window_size=window, img_size=4 * window
    )
    model = load(SPEC.build(config).state_dict(), device="cpu")
    assert model.config["img_size"] == patch
    assert model.config["window_size"] == window
    with pytest.warns(AssumedPatchWarning, match=f"training patches of {patch} pixels, a guess"):
        model.save(tmp_path / "a.pth")
    assert load(tmp_path / "a.pth", device="cpu").config["img_size"] == patch


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("cat_3", {"mlp_ratio": -1.0}),
        ("cat_3", {"num_refinement_blocks": -1}),
        ("swinir_1", {"embed_dim": 10**12}),
        ("swinir_1", {"in_chans": 10**12}),
    ],
    ids=str,
)
def test_settings_that_no_network_has_are_refused(name: str, config: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        load(tiny(name).state, device="cpu", config=config)


def test_what_was_given_is_told_beside_what_was_read() -> None:
    model = load(tiny("swinir_1").state, device="cpu", config={"img_range": 255})
    assert "given, and counts before what was read: img_range 255" in model.evidence
    assert not any("given" in line for line in load(tiny("swinir_1").state).evidence)


def test_of_several_weights_those_of_a_key_are_taken(tmp_path: Path) -> None:
    case, path = tiny("swinir_1"), tmp_path / "both.pth"
    doubled = {key: value * 2 for key, value in case.state.items()}
    torch.save({"params": doubled, "params_ema": case.state, "mine": doubled}, path)
    for wanted, key, others in (
        (None, "params_ema", ("params",)),
        ("params", "params", ("params_ema",)),
        ("mine", "mine", ("params_ema", "params")),
    ):
        model = load(path, device="cpu", param_key=wanted)
        assert (model.checkpoint_key, model.other_keys) == (key, others)
        expected = case.state if key == "params_ema" else doubled
        assert torch.equal(model.module.state_dict()["norm.weight"], expected["norm.weight"])
    with pytest.raises(UsageError, match="no weights under 'ema'; it has params_ema and params"):
        load(path, device="cpu", param_key="ema")
    with pytest.raises(UsageError, match="its weights lie under no key"):
        load(case.state, device="cpu", param_key="params")
