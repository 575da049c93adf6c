"""The plug-in for BasicSR: registries, model classes, and BasicSR's own training and test loops."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from basicsr_loops import NETWORK, NETWORK_SETTINGS, draw_pictures, run_basicsr
from golden_data import image, is_known, skeleton, small_cases, spec_of, variants
from PIL import Image
from torch import Tensor, nn

import restore
from restore.archs import ARCHS
from restore.archs._spec import ArchSpec
from restore.errors import UsageError
from restore.torchvision_remedies import declare_torchvision_operators, supply_functional_tensor

# BasicSR and what it imports warn of much
pytestmark = pytest.mark.filterwarnings("ignore")

needs_basicsr = pytest.mark.skipif(
    importlib.util.find_spec("basicsr") is None,
    reason="needs BasicSR: pip install --no-build-isolation --no-deps basicsr==1.4.2",
)
every_arch = pytest.mark.parametrize("spec", ARCHS, ids=lambda spec: spec.name)


@pytest.fixture(scope="module")
def plugin() -> Any:
    """`restore.basicsr.networks`; BasicSR was imported before, as by another module."""
    declare_torchvision_operators()
    supply_functional_tensor()
    importlib.import_module("basicsr.archs")
    importlib.import_module("restore.basicsr")
    return importlib.import_module("restore.basicsr.networks")


def build_network(options: dict[str, Any]) -> nn.Module:
    net: nn.Module = importlib.import_module("basicsr.archs").build_network(options)
    return net


def build_model(model_type: str, network: dict[str, Any], **options: Any) -> Any:
    """One of BasicSR's models, ready to test on the CPU."""
    torch.manual_seed(0)
    return importlib.import_module("basicsr.models").build_model(
        {
            "model_type": model_type,
            "num_gpu": 0,
            "is_train": False,
            "dist": False,
            "path": {},
            "network_g": network,
            **options,
        }
    )


def output_of(model: Any, x: Tensor) -> Tensor:
    model.feed_data({"lq": x})
    model.test()
    output: Tensor = model.output
    return output


def ours(model: Any) -> restore.Model:
    """The network of a BasicSR model as this package runs it."""
    return restore.load(model.net_g.state_dict(), device="cpu", config=NETWORK_SETTINGS)


@needs_basicsr
@pytest.mark.parametrize("variant", variants())
def test_official_options_build_the_official_network(plugin: Any, variant: str) -> None:
    official = skeleton(variant)
    if not is_known(official["class"]):
        pytest.skip(f"architecture {official['class']} not yet in ARCHS")
    options = {**official["config"], **official["ignored_arguments"], "type": official["class"]}
    with torch.device("meta"):
        net = build_network(options)
    assert sum(p.numel() for p in net.parameters()) == official["param_count"]


@needs_basicsr
@every_arch
def test_defaults_are_arguments(plugin: Any, spec: ArchSpec) -> None:
    constructors = importlib.import_module("restore.constructors")
    assert set(constructors.DEFAULTS.get(spec.name, {})) <= set(spec.config())
    assert not set(constructors.IGNORED.get(spec.name, ())) & set(spec.config())


@needs_basicsr
def test_left_out_arguments_are_the_official_ones(plugin: Any) -> None:
    parameters = inspect.signature(plugin.ARCH_REGISTRY.get("SwinIR_basicsr")).parameters
    given = {"upsampler": "pixelshuffle", "window_size": 8}
    config = plugin.network_type("SwinIR").config(given)
    for name, value in config.items():
        default = parameters[name].default
        official = list(default) if isinstance(default, tuple) else default
        assert value == given.get(name, official), name


@needs_basicsr
def test_a_wrong_argument_is_named(plugin: Any) -> None:
    with pytest.raises(UsageError, match=r"network_g of type SwinIR.*'windw'.*'window_size'"):
        build_network({**NETWORK, "windw": 8})
    with pytest.raises(UsageError, match=r"embed_dim is '12'; expected a whole number"):
        build_network({**NETWORK, "embed_dim": "12"})


@needs_basicsr
def test_the_network_of_basicsr_is_still_there_and_agrees(plugin: Any) -> None:
    net = build_network(NETWORK).eval()
    theirs = build_network({**NETWORK, "type": "SwinIR_basicsr"}).eval()
    assert type(net).__module__ == "restore.archs.swinir"
    assert type(theirs).__module__ == "basicsr.archs.swinir_arch"
    missing, unexpected = theirs.load_state_dict(net.state_dict(), strict=False)
    assert not unexpected
    assert all(key.endswith(("relative_position_index", "attn_mask")) for key in missing)
    x = image(0, (2, 3, 16, 24))
    with torch.no_grad():
        y, z = net(x), theirs(x)
    assert (y - z).abs().max() <= 2e-5 * z.abs().max()  # each within 1e-5 of the exact result


@needs_basicsr
@every_arch
def test_every_size_is_tested_as_the_package_runs_it(plugin: Any, spec: ArchSpec) -> None:
    case = small_cases(spec.name)[0]
    config = spec.config().replaced(case.config, "test")
    scale = spec.scale(config)
    model = build_model("RestoreModel", {**case.config, "type": spec.name}, scale=scale)
    model.net_g.load_state_dict(case.state)
    x = image(1, (2, spec.in_channels(config), 11, 21))
    expected = restore.load(case.state, device="cpu", config=case.config)
    with torch.no_grad():
        assert torch.equal(output_of(model, x), expected(x))
    assert model.net_g.training  # as it was


@needs_basicsr
@pytest.mark.parametrize("size", [(16, 24), (19, 13)], ids=str)
def test_swinir_model_is_the_one_of_basicsr(plugin: Any, size: tuple[int, int]) -> None:
    x = image(2, (1, 3, *size))
    own = build_model("SwinIRModel", NETWORK, scale=2)
    theirs = build_model("SwinIRModel_basicsr", NETWORK, scale=2)
    assert torch.equal(output_of(own, x), output_of(theirs, x))


@needs_basicsr
@pytest.mark.parametrize("model_type", ["CATModel", "CATSEModel"])
def test_pictures_are_mirrored_where_the_authors_do(plugin: Any, model_type: str) -> None:
    spec_of("CAT")
    case = small_cases("CAT")[0]
    unit = max(*case.config["split_size_0"], *case.config["split_size_1"])
    scale = case.config["upscale"]
    model = build_model(model_type, {**case.config, "type": "CAT"}, scale=scale)
    h, w = 2 * unit + 1, 3 * unit - 1
    x = image(3, (1, case.config["in_chans"], h, w))
    grown = np.pad(x.numpy(), ((0, 0), (0, 0), (0, unit - 1), (0, 1)), mode="symmetric")
    with torch.no_grad():
        expected = model.net_g.eval()(torch.from_numpy(grown))[:, :, : h * scale, : w * scale]
    assert torch.equal(output_of(model, x), expected)


@needs_basicsr
@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"tile": {"tile_size": 16, "tile_pad": 8}}, {"tile": 16, "tile_pad": 8}),
        ({"tile": {"tile_size": 32}}, {"tile": 32}),
        ({"val": {"use_chop": True}}, {"tile": 200, "tile_pad": 16}),
        ({"val": {"selfensemble_testing": True}}, {"tile": 0, "tta": True}),
    ],
    ids=["tile", "tile without pad", "use_chop", "selfensemble_testing"],
)
def test_tiles_and_averages_are_those_of_the_package(
    plugin: Any, options: dict[str, Any], arguments: dict[str, Any]
) -> None:
    model = build_model("HATModel", NETWORK, scale=2, **options)
    x = image(4, (2, 3, 41, 50))
    got = output_of(model, x)
    assert got.shape == (2, 3, 82, 100)
    for one, picture in zip(got, x, strict=True):
        expected = restore.upscale(picture.permute(1, 2, 0).numpy(), ours(model), **arguments)
        assert np.array_equal(one.permute(1, 2, 0).numpy(), expected)


@needs_basicsr
@pytest.mark.parametrize("family", ["HAT", "DRCT"])
@pytest.mark.parametrize(("task", "base"), [("MSE", "RealESRNet"), ("GAN", "RealESRGAN")])
def test_real_world_models_train_as_real_esrgan(
    plugin: Any, family: str, task: str, base: str
) -> None:
    """They need a GPU, so only what they are made of can be seen here."""
    registry = importlib.import_module("basicsr.utils.registry").MODEL_REGISTRY
    made = registry.get(f"Real{family}{task}Model")
    assert issubclass(made, registry.get(f"{base}Model_basicsr"))
    assert made.test is registry.get("RestoreModel").test
    assert made.feed_data is registry.get(f"{base}Model_basicsr").feed_data


@needs_basicsr
def test_another_network_is_left_to_basicsr(plugin: Any) -> None:
    network = {**NETWORK, "type": "SwinIR_basicsr"}
    x = image(5, (1, 3, 9, 20))
    own = build_model("SwinIRModel", network, scale=2)
    assert torch.equal(
        output_of(own, x), output_of(build_model("SwinIRModel_basicsr", network, scale=2), x)
    )
    with pytest.raises(UsageError, match=r"need a network of restore\.basicsr.*'SwinIR_basicsr'"):
        build_model("SwinIRModel", network, scale=2, tile={"tile_size": 16})


@needs_basicsr
def test_options_that_do_not_fit_are_refused(plugin: Any) -> None:
    with pytest.raises(UsageError, match="HATModel: scale is 4, but network_g enlarges 2 times"):
        build_model("HATModel", NETWORK, scale=4)
    with pytest.raises(UsageError, match="tile: has tile_size, overlap; expected tile_size and"):
        build_model("HATModel", NETWORK, scale=2, tile={"tile_size": 16, "overlap": 8})


@pytest.mark.parametrize("python", [(3, 12), (3, 13)], ids=str)
def test_without_basicsr_the_message_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, python: tuple[int, int]
) -> None:
    find_spec = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == "basicsr" else find_spec(name, package)

    monkeypatch.delitem(sys.modules, "restore.basicsr", raising=False)
    with monkeypatch.context() as patch, pytest.raises(ImportError) as raised:
        patch.setattr(importlib.util, "find_spec", without)
        patch.setattr(sys, "version_info", python)
        importlib.import_module("restore.basicsr")
    message = str(raised.value)
    assert "pip install --no-build-isolation 'restore-sr[basicsr]'" in message
    assert "PIP_BUILD_CONSTRAINT" in message
    assert ("Python 3.13 cannot build it" in message) == (python == (3, 13))


@needs_basicsr
def test_its_own_loops_train_and_test_our_network(plugin: Any, tmp_path: Path) -> None:
    draw_pictures(tmp_path / "datasets" / "train", [(24, 28)] * 4)
    draw_pictures(tmp_path / "datasets" / "val", [(19, 29), (33, 16)])

    log = run_basicsr(tmp_path)
    losses = [float(found) for found in re.findall(r"l_pix: (\S+)", log)]
    assert len(losses) == 4
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    models = tmp_path / "experiments" / "train_SwinIR_SRx2_from_scratch" / "models"
    assert {path.name for path in models.iterdir()} == {
        "net_g_2.pth",
        "net_g_4.pth",
        "net_g_latest.pth",
    }

    weights = models / "net_g_latest.pth"
    stored = torch.load(weights, weights_only=True)
    assert not torch.equal(
        stored["params"]["conv_first.weight"], stored["params_ema"]["conv_first.weight"]
    )
    model = restore.load(weights, device="cpu")
    assert model.arch == "SwinIR"
    assert {name: model.config[name] for name in NETWORK_SETTINGS if name != "img_size"} == {
        name: value for name, value in NETWORK_SETTINGS.items() if name != "img_size"
    }
    trained = build_network(NETWORK).eval()
    trained.load_state_dict(stored["params_ema"])
    with torch.no_grad():
        x = image(6, (1, 3, 16, 24))
        assert torch.equal(model(x), trained(x))

    results = tmp_path / "results" / "SwinIR_SRx2" / "visualization" / "odd"
    pairs = []
    for number in (0, 1):
        small, truth = (
            np.asarray(Image.open(tmp_path / "datasets" / "val" / name / f"{number}.png"))
            for name in ("LRbicx2", "GT")
        )
        large = np.asarray(Image.open(results / f"{number}_x2.png"))
        assert np.array_equal(large, restore.upscale(small, model, tile=0))
        pairs.append((large, truth))
    for metric, measure in (("psnr", restore.psnr), ("ssim", restore.ssim)):
        logged = float(re.findall(rf"# {metric}: ([\d.]+)", log)[-1])
        mean = np.mean([measure(*pair, crop_border=2, y_channel=True) for pair in pairs])
        assert abs(logged - mean) <= 0.5e-4  # printed with four digits
