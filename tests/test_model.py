"""Running a loaded model, and saving it so that it comes back the same."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from golden_data import (
    Tiny,
    image,
    is_known,
    skeleton,
    spec_of,
    tiny,
    tiny_names,
    untold,
    variants,
)
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

import restore
from restore.errors import OutputError, UsageError
from restore.loading import load
from restore.model import Model

KNOWN = [name for name in tiny_names() if is_known(tiny(name).arch)]
every_small = pytest.mark.parametrize("name", KNOWN)


def small(name: str, dtype: str = "auto", **changes: object) -> Model:
    case: Tiny = tiny(name)
    given = {**untold(case), "img_size": case.config["img_size"], **changes}
    return load(case.state, device="cpu", dtype=dtype, config=given)


@pytest.fixture
def swinir() -> Model:
    return small("swinir_1")


def test_what_a_model_tells(swinir: Model) -> None:
    assert swinir.arch == "SwinIR"
    assert swinir.variant == "SwinIR-dim24 classical x2"
    assert (swinir.scale, swinir.in_channels) == (2, 3)
    assert swinir.device == torch.device("cpu")
    assert swinir.dtype == torch.float32
    assert swinir.align == 4
    assert swinir.halo >= 4
    assert swinir.config["depths"] == [2, 2]
    assert swinir.config["embed_dim"] == 24
    assert swinir.num_parameters == sum(v.numel() for v in tiny("swinir_1").state.values())
    assert repr(swinir) == "<Model model: SwinIR-dim24 classical x2, fp32 on cpu>"


@pytest.mark.parametrize(
    ("name", "window"),
    [("swinir_1", 4), ("swinir_3", 7), ("hit_sr_1", 16), ("hit_sr_2", 8), ("hit_sr_3", 16)],
)
def test_tiles_have_whole_windows(name: str, window: int) -> None:
    """The largest, that is; smaller ones divide it here."""
    assert small(name).align == window
    assert small(name).halo >= window / 2


@pytest.mark.parametrize(
    ("size", "grown"),
    [((5, 7), (8, 8)), ((4, 9), (4, 12)), ((8, 12), (8, 12)), ((3, 3), (4, 4))],
    ids=str,
)
def test_odd_sizes_are_grown_by_reflection(
    swinir: Model, size: tuple[int, int], grown: tuple[int, int]
) -> None:
    x = image(1, (1, 3, *size))
    bottom, right = grown[0] - size[0], grown[1] - size[1]
    by_hand = F.pad(x, (0, right, 0, bottom), mode="reflect")
    with torch.inference_mode():
        expected = swinir.module(by_hand)[:, :, : 2 * size[0], : 2 * size[1]]
        assert torch.equal(swinir(x), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (2, 8)], ids=str)
def test_images_too_small_to_reflect_repeat_their_edge(
    swinir: Model, size: tuple[int, int]
) -> None:
    x = image(1, (1, 3, *size))
    by_hand = F.pad(x, (0, -size[1] % 4, 0, -size[0] % 4), mode="replicate")
    with torch.inference_mode():
        expected = swinir.module(by_hand)[:, :, : 2 * size[0], : 2 * size[1]]
        assert torch.equal(swinir(x), expected)


def test_the_output_is_not_clamped(swinir: Model) -> None:
    with torch.inference_mode():
        y = swinir(image(0, (1, 3, 16, 16)))
    assert y.min() < 0
    assert y.max() > 1


@pytest.mark.parametrize("held", ["fp32", "fp64"])
@pytest.mark.parametrize(
    "given", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_the_output_has_the_dtype_of_the_input(held: str, given: torch.dtype) -> None:
    model = small("swinir_4", dtype=held)
    x = image(0, (1, 3, 9, 9)).to(given)
    with torch.inference_mode():
        y = model(x)
    assert y.dtype == given
    with torch.inference_mode():
        assert torch.equal(y, model(x.double()).to(given))


@pytest.mark.parametrize(("dtype", "value"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_keeps_float32_parameters(dtype: str, value: torch.dtype) -> None:
    model = small("swinir_1", dtype=dtype)
    assert model.dtype == value
    assert all(p.dtype == torch.float32 for p in model.module.parameters())
    x = image(0, (1, 3, 16, 16))
    with torch.inference_mode():
        y, exact = model(x), model(x, dtype=torch.float32)
        assert torch.equal(exact, small("swinir_1")(x))
    assert not torch.equal(y, exact)
    assert (y - exact).abs().max() <= 0.05 * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8], ids=str)
def test_a_named_dtype_is_obeyed_or_refused(swinir: Model, dtype: torch.dtype) -> None:
    x = image(0, (1, 3, 8, 8)).double()
    try:
        with torch.inference_mode():
            y = swinir(x, dtype=dtype)
    except UsageError:
        return
    assert dtype == torch.float64
    assert torch.equal(y, small("swinir_1", dtype="fp64")(x).detach())


def test_gradients_reach_the_image(swinir: Model) -> None:
    x = image(0, (1, 3, 5, 6)).requires_grad_()
    y = swinir(x)
    assert y.requires_grad
    y.sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).all())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 8, 8), r"input is \[3, 8, 8\]; expected \[B, 3, H, W\]"),
        (torch.zeros(1, 1, 8, 8), r"input is \[1, 1, 8, 8\]; expected \[B, 3, H, W\]"),
        (torch.zeros(1, 3, 0, 8), "with at least one pixel"),
        (torch.zeros(0, 3, 8, 8), "with at least one pixel"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"input is torch.uint8; expected floating"),
        (torch.zeros(1, 3, 8, 8, device="meta"), "input is on meta, the model on cpu"),
    ],
    ids=["no batch", "gray", "no rows", "no images", "integers", "device"],
)
def test_what_is_no_image_is_refused(swinir: Model, x: torch.Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        swinir(x)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@every_small
def test_a_saved_model_comes_back(name: str, suffix: str, tmp_path: Path) -> None:
    model = small(name, img_range=255.0) if name == "swinir_1" else small(name)
    path = tmp_path / f"net{suffix}"
    model.save(path)
    # only the safetensors file has room for what weights do not tell
    told = suffix == ".safetensors"
    again = load(path, device="cpu", config=None if told else model.config)
    assert again.arch == model.arch
    assert again.config == model.config
    assert again.name == "net"
    x = image(5, (1, model.in_channels, 13, 11))
    with torch.inference_mode():
        assert torch.equal(again(x), model(x))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@every_small
def test_a_saved_file_has_the_official_layout(name: str, tmp_path: Path) -> None:
    case, model = tiny(name), small(name)
    model.save(tmp_path / "net.pth")
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    first, prefix = next(iter(content)), model.spec.prefix
    layout = {
        key.removeprefix(prefix): (list(value.shape), str(value.dtype).removeprefix("torch."))
        for key, value in content[first].items()
    }
    assert layout == {key: (entry["shape"], entry["dtype"]) for key, entry in case.keys.items()}
    model.save(tmp_path / "net.safetensors")
    with safe_open(str(tmp_path / "net.safetensors"), framework="pt") as file:
        assert set(file.keys()) == set(layout)
        metadata = file.metadata()
    assert metadata["restore"] == restore.__version__
    assert metadata["arch"] == model.arch
    assert json.loads(metadata["config"]) == dict(model.config)


@pytest.mark.parametrize("variant", variants())
def test_the_authors_scripts_find_the_weights(variant: str) -> None:
    official = skeleton(variant)
    spec = spec_of(official["class"])
    assert official["checkpoint_key"] in spec.wrappers
    assert official["prefix"] == spec.prefix


@pytest.mark.parametrize("key", ["params", "params_ema", "state_dict"])
def test_weights_lie_under_every_key_that_is_looked_for(key: str, tmp_path: Path) -> None:
    """Whatever they came under: authors' scripts differ, and the file is no larger."""
    model = load({key: tiny("swinir_4").state}, device="cpu", config={"img_size": 8})
    assert model.checkpoint_key == key
    model.save(tmp_path / "net.pth")
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    assert list(content) == ["params", "params_ema"]
    one, other = (content[name]["norm.weight"] for name in content)
    assert one.data_ptr() == other.data_ptr()


def test_a_saved_uformer_is_as_its_authors_loaders_want_it(tmp_path: Path) -> None:
    """One tries the names as they are, then without seven letters; the other always cuts them."""
    model = small("uformer_1")
    model.save(tmp_path / "net.pth")
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    assert list(content) == ["state_dict"]
    assert all(key.startswith("module.") for key in content["state_dict"])
    cut = {key[len("module.") :]: value for key, value in content["state_dict"].items()}
    assert cut.keys() == tiny("uformer_1").keys.keys()
    again = load(tmp_path / "net.pth", device="cpu", config=model.config)
    assert again.checkpoint_key == "state_dict"
    model.save(tmp_path / "net.safetensors")
    with safe_open(str(tmp_path / "net.safetensors"), framework="pt") as file:
        assert set(file.keys()) == cut.keys()


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=["compile", "DataParallel"])
def test_what_stands_around_the_module_is_not_saved(
    wrap: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    model = small("swinir_4")
    plain = model.official_state_dict()
    model.module = wrap(model.module)
    assert model.official_state_dict().keys() == plain.keys()
    model.save(tmp_path / "net.pth")
    assert load(tmp_path / "net.pth", device="cpu").config == model.config


def test_saving_does_not_change_the_model_nor_hold_on_to_it(swinir: Model, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in swinir.module.state_dict().items()}
    swinir.save(tmp_path / "net.pth")
    for key, value in swinir.module.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(p.requires_grad for p in swinir.module.parameters())
    saved = torch.load(tmp_path / "net.pth", weights_only=True)["params"]
    assert not any(value.requires_grad for value in saved.values())


@pytest.mark.parametrize("name", ["net.onnx", "net", "net.ckpt"])
def test_another_suffix_is_refused(swinir: Model, name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected \.safetensors, \.pth or \.pt$"):
        swinir.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(swinir: Model, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"net\.pth: cannot be written"):
        swinir.save(tmp_path / "none" / "net.pth")


def test_a_failed_save_leaves_the_old_file(
    swinir: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(b"the old one")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("restore.model.torch.save", full_disk)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        swinir.save(path)
    assert path.read_bytes() == b"the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["net.pth"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_save_that_fails_half_way(suffix: str, swinir: Model, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="needs limits on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    path = tmp_path / f"a{suffix}"
    try:
        with pytest.raises(OutputError, match=f"^{path}: cannot be written: File too large"):
            swinir.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_model_travels_by_pickle() -> None:
    model = load(tiny("swinir_1").state, device="cpu")
    other = pickle.loads(pickle.dumps(model))
    x = image(0, (1, 3, 9, 7))
    assert torch.equal(other(x), model(x))
    assert other.variant == model.variant


def test_a_dtype_may_be_named_as_in_load() -> None:
    model = load(tiny("swinir_1").state, device="cpu")
    x = image(0, (1, 3, 9, 7))
    assert torch.equal(model(x, dtype="bf16"), model(x, dtype=torch.bfloat16))
    assert not torch.equal(model(x, dtype="bf16"), model(x))


@pytest.mark.parametrize("x", [None, [[1.0]], "x"])
def test_what_is_no_tensor_is_told(x: object) -> None:
    with pytest.raises(UsageError, match="expected a tensor"):
        load(tiny("swinir_1").state, device="cpu")(x)
