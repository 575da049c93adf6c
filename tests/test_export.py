"""Exported files against the network, for every architecture and format, at sizes never traced.

Most of what an export does besides is tested with a stand-in for the formats, which costs nothing.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from golden_data import Tiny, image, small_cases, tiny, untold
from torch import Tensor, nn

import restore
from restore import exporting
from restore.archs import ARCHS
from restore.archs import swinir as swinir_arch
from restore.archs._spec import ArchSpec
from restore.cli import main
from restore.errors import CheckpointError, OutputError, UsageError
from restore.export_formats import (
    INPUT,
    OUTPUT,
    Written,
    onnx_file,
    onnx_graph,
    openvino_files,
    share_indices,
    torch_file,
)
from restore.exporting import TOLERANCE, compare, export, sizes_to_check, trace, twin_of
from restore.kernels.dispatch import BackendUnavailable
from restore.kernels.window_attention import window_attention
from restore.loading import load, load_builtin
from restore.model import Model

# U-shaped nets, of which no group can be left out
LARGE = ("Uformer", "CAT_Unet")
QUICK = ("SwinIR", "HiT_SRF", "ATD")  # a network of each kind: masks, padded blocks, sorted tokens
OF_GROUPS = ("depths", "depth", "num_heads", "split_size_0", "split_size_1")
STRIPES = "cat_1"  # whose windows are as long as the map, unlike those of the first case of CAT
SMALLER = (1, 1)  # than any window
quietly = pytest.mark.filterwarnings("ignore")  # of torch's own tracing


def need(*packages: str) -> None:
    """Skip where one is missing."""
    for name in packages:
        pytest.importorskip(name, reason="needs the extra [export]")


def of_golden(case: Tiny) -> Model:
    return load(case.state, device="cpu", config=untold(case))


def first_group(case: Tiny, depth: int = 2) -> Model:
    """The small network cut off in its first group, after `depth` blocks or pairs of blocks."""
    spec = next(spec for spec in ARCHS if spec.name == case.arch)
    shorter = {name: case.config[name][:1] for name in OF_GROUPS if name in case.config}
    shorter |= {name: [min(*shorter[name], depth)] for name in OF_GROUPS[:2] if name in shorter}
    try:
        config = spec.config().replaced({**case.config, **shorter}, "test")
    except CheckpointError:
        return of_golden(case)
    net = spec.build(config)
    net.load_state_dict({key: case.state[key] for key in net.state_dict()})
    return Model(spec, config, net.eval(), name="first_group")


def assert_agrees(twin: Model, written: Written) -> None:
    for size in sizes_to_check(twin.rule, [SMALLER]):
        assert compare(twin, written, size, "test", print).difference <= TOLERANCE


def assert_traced_for_every_size(model: Model) -> None:
    twin = twin_of(model)
    assert_agrees(twin, Written((), trace(twin).module()))


def case_of(spec: ArchSpec) -> Tiny:
    return small_cases(spec.name)[0]


@quietly
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, marks=() if spec.name in QUICK else pytest.mark.slow, id=spec.name)
        for spec in ARCHS
    ],
)
def test_every_architecture_is_traced_for_every_size(spec: ArchSpec) -> None:
    assert_traced_for_every_size(first_group(case_of(spec)))


@pytest.mark.slow
@quietly
@pytest.mark.parametrize(
    "case",
    [case for spec in ARCHS for case in small_cases(spec.name) if spec.name not in LARGE],
    ids=lambda case: case.name,
)
def test_every_small_network_is_traced_for_every_size(case: Tiny) -> None:
    assert_traced_for_every_size(of_golden(case))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@quietly
@pytest.mark.parametrize("name", [*(case_of(spec).name for spec in ARCHS), STRIPES])
def test_every_architecture_in_every_format(name: str) -> None:
    need("onnx", "onnxscript", "onnxruntime", "openvino")
    twin = twin_of(first_group(tiny(name)))
    program = trace(twin)
    graph = onnx_graph(program, twin.scale)
    for written in (torch_file(program, {}), openvino_files(graph, {}), onnx_file(graph, {})):
        assert_agrees(twin, written)


@pytest.mark.parametrize("spec", ARCHS, ids=lambda spec: spec.name)
def test_what_an_export_takes_for_granted(spec: ArchSpec) -> None:
    """The grown sizes of `exporting` and of `padding.grow` are the same under this rule alone."""
    for values in ({}, *(case.config for case in small_cases(spec.name))):
        rule = spec.input_rule(spec.config().replaced(values, "test"))
        assert rule.minimum % rule.multiple == 0


def swinir() -> Model:
    """One block, and one that is shifted."""
    torch.manual_seed(0)
    config = swinir_arch.SwinIRConfig(embed_dim=8, depths=(2,), num_heads=(2,), window_size=4)
    return Model(swinir_arch.SPEC, config, swinir_arch.SPEC.build(config).eval(), name="tiny")


@quietly
def test_a_torch_file_runs_without_this_package(tmp_path: Path) -> None:
    model = swinir()
    path = tmp_path / "net.pt2"
    report = export(model, path)
    assert report.files == (path,)
    assert (report.format, report.opset, report.size) == ("torch", None, path.stat().st_size)
    x = image(1, (3, model.in_channels, 5, 29))
    with torch.no_grad():
        torch.save([x, model(x)], tmp_path / "numbers.pt")
    script = """
import sys, torch
x, wanted = torch.load("numbers.pt")
about = {"about.json": ""}
got = torch.export.load("net.pt2", extra_files=about).module()(x)
assert "restore" not in sys.modules
assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
print(about["about.json"])
"""
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=tmp_path,
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["architecture"] == "SwinIR"
    assert str(Path(restore.__file__).parents[1]).encode() not in path.read_bytes()


@quietly
def test_an_onnx_file(tmp_path: Path) -> None:
    need("onnxscript")
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model, path = swinir(), tmp_path / "net.onnx"
    told: list[str] = []
    report = export(model, path, opset=20, check=[(3, 50)], progress=told.append)
    assert [(c.images, c.height, c.width) for c in report.checks] == sizes_to_check(
        model.rule, [(3, 50)]
    )
    assert all(0 <= c.difference <= TOLERANCE for c in report.checks)
    assert report.opset == 20
    assert told[:2] == ["tracing the network", "writing onnx"]
    assert told[-1] == f"comparing at 1 x {model.in_channels} x 3 x 50"
    proto = onnx.load(path)
    assert {p.key for p in proto.metadata_props} >= {"architecture", "scale", "input"}
    assert str(Path(restore.__file__).parents[1]).encode() not in path.read_bytes()
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    c, s = model.in_channels, model.scale
    assert (given.name, given.shape) == (INPUT, ["batch", c, "height", "width"])
    assert (made.name, made.shape) == (OUTPUT, ["batch", c, f"{s}*height", f"{s}*width"])
    x = image(5, (4, c, 11, 2))
    (y,) = session.run(None, {INPUT: x.numpy()})
    with torch.no_grad():
        wanted = model(x)
    assert (torch.from_numpy(y) - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


def test_equal_indices_are_written_once() -> None:
    onnx = pytest.importorskip("onnx")
    h, n = onnx.helper, onnx.numpy_helper
    values = {
        "table": np.arange(6, dtype=np.float32).reshape(3, 2),
        "same": np.arange(6, dtype=np.float32).reshape(3, 2),  # a parameter keeps its name
        "a": np.array([0, 2]),
        "b": np.array([0, 2]),
        "row": np.array([[0, 2]]),
        "other": np.array([0, 1]),
    }
    nodes = [
        h.make_node("Gather", [table, index], [f"{table}_{index}"])
        for table, index in [("table", "a"), ("same", "b"), ("table", "row"), ("table", "other")]
    ]
    graph = h.make_graph(nodes, "test", [], [], [n.from_array(v, k) for k, v in values.items()])
    share_indices(graph)
    assert {tensor.name for tensor in graph.initializer} == {*values} - {"a"}
    assert [list(node.input) for node in graph.node] == [
        ["table", "b"],
        ["same", "b"],
        ["table", "row"],
        ["table", "other"],
    ]


@quietly
def test_a_position_bias_is_a_constant_of_the_present_parameters() -> None:
    model = first_group(small_cases("HiT_SIR")[0], depth=1)
    x = image(1, (1, model.in_channels, 9, 20))
    with torch.no_grad():
        before = model(x)  # keeps the bias
        for name, parameter in model.module.named_parameters():
            if ".pos." in name:
                parameter.mul_(1.5)
    program = trace(twin_of(model))
    with torch.no_grad():
        wanted = model(x)
    assert not torch.equal(before, wanted)
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    assert any("conv_first" in name for name in used)
    assert not any("_pos_" in name for name in used)
    with torch.no_grad():
        got = program.module()(x)
    assert (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_compared_copy_is_float32_and_the_model_stays_as_it_is(dtype: torch.dtype) -> None:
    model = swinir()
    model.module.to(dtype).train()
    model.dtype = dtype
    twin = twin_of(model)
    assert (twin.dtype, twin.device.type) == (torch.float32, "cpu")
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in twin.module.parameters())
    assert not twin.module.training
    assert model.module.training
    assert all(p.dtype == dtype and p.requires_grad for p in model.module.parameters())


@quietly
def test_a_path_that_is_cut_by_sizes_is_not_traced_for_all_of_them() -> None:
    class Net(nn.Module):
        def forward(self, qkv: Tensor) -> Tensor:
            """[B, H, W, 12] to [B, H, W, 4]."""
            table = torch.zeros(49, 2)
            return window_attention(qkv, table, (4, 4), (2, 2), num_heads=2, backend="torch")

    rows = 4 * torch.export.Dim("rows", min=2)
    with pytest.raises(BackendUnavailable, match="sizes are left open"):
        torch.export.export(
            Net(), (torch.zeros(1, 12, 8, 12),), dynamic_shapes=({1: rows},), strict=False
        )


# what follows has a stand-in for tracing and for the formats


def as_the_network(model: Model) -> Callable[[Tensor], Tensor]:
    twin = copy.deepcopy(model)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return twin(x)

    return run


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a stand-in in the place of tracing and writing: what it writes, and how that runs."""

    def put(run: Callable[[Tensor], Tensor], contents: tuple[bytes, ...] = (b"new",)) -> None:
        monkeypatch.setattr(exporting, "packages_of", lambda kind: {})
        monkeypatch.setattr(exporting, "trace", lambda twin: None)
        monkeypatch.setattr(
            exporting, "write", lambda kind, *_: Written(contents, run, 18 if kind == "onnx" else 0)
        )

    return put


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("wrong", [2e-5, float("nan")])
def test_a_file_that_differs_is_not_kept(
    wrong: float, stand_in: Callable[..., None], tmp_path: Path
) -> None:
    model = swinir()
    right = as_the_network(model)

    def run(x: Tensor) -> Tensor:
        y = right(x)
        if x.shape[2] != x.shape[3]:  # at the second size, as peers' exports
            y[0, 0, 3, 3] += wrong * y.abs().max()
        return y

    stand_in(run)
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    _, second, _ = sizes_to_check(model.rule, ())
    words = f"{second[0]} x {model.in_channels} x {second[1]} x {second[2]}"
    with pytest.raises(OutputError, match=f"differs from the network at {words} by") as caught:
        export(model, path)
    assert "at most 1e-05 is allowed; nothing is kept" in str(caught.value)
    assert names(tmp_path) == ["net.onnx"]
    assert path.read_bytes() == b"old"


def rounded_otherwise(model: Model, images: int) -> Callable[[Tensor], Tensor]:
    """The network, but for the first images of each size."""
    right, seen = as_the_network(model), dict[torch.Size, int]()

    def run(x: Tensor) -> Tensor:
        seen[x.shape] = seen.get(x.shape, 0) + 1
        return right(x) * (1.001 if seen[x.shape] <= images else 1)

    return run


def test_a_network_that_decides_by_comparing_is_compared_on_more_images(
    stand_in: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = swinir()
    weights, path = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    model.save(weights)
    stand_in(rounded_otherwise(model, images=2))
    with pytest.raises(OutputError, match="differs from the network"):
        export(model, path)
    deciding = dataclasses.replace(swinir_arch.SPEC, decides="which pixels count")
    for module in ("restore.model", "restore.recognition"):
        monkeypatch.setattr(f"{module}.ARCHS", (deciding,))
    stand_in(rounded_otherwise(model, images=2))
    report = export(model, path)
    assert all(len(check.otherwise) == 2 for check in report.checks)
    assert report.checks[0].otherwise == pytest.approx([0.001] * 2, rel=0.01)
    assert max(check.difference for check in report.checks) == 0
    stand_in(rounded_otherwise(model, images=8))
    with pytest.raises(OutputError, match="on each of 8 batches; it decides which pixels count by"):
        export(model, path)
    stand_in(rounded_otherwise(model, images=1))
    assert main(["export", str(weights), "-o", str(path)]) == 0
    assert "rounding can show: it did in 3 more comparisons, by up to 1.0e-03" in (
        capsys.readouterr().out
    )


def test_another_shape_or_dtype_is_told(stand_in: Callable[..., None], tmp_path: Path) -> None:
    model = swinir()
    right = as_the_network(model)
    stand_in(lambda x: right(x)[:, :, 1:])
    with pytest.raises(OutputError, match=r"at 1 x .* it gives \[1, .*\] of .*expected \["):
        export(model, tmp_path / "net.onnx")
    stand_in(lambda x: right(x).double())
    with pytest.raises(OutputError, match=r"\] of torch.float64; .* of torch.float32; nothing"):
        export(model, tmp_path / "net.onnx")
    assert names(tmp_path) == []


def test_a_runtime_that_fails_is_told(stand_in: Callable[..., None], tmp_path: Path) -> None:
    def run(x: Tensor) -> Tensor:
        raise RuntimeError("node 7: axis 3 is 48, not 56\nand much more")

    stand_in(run)
    with pytest.raises(
        OutputError, match=r"at 1 x .* it does not run: node 7: axis 3 is 48, not 56;"
    ):
        export(swinir(), tmp_path / "net.pt2")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("net.onnx", RuntimeError("no operator\nand much more"), "as onnx: RuntimeError: no oper"),
        (
            "net.onnx",
            ValueError("advice\n<class 'X'>: the reason\nmore"),
            "<class 'X'>: the reason",
        ),
        ("net.onnx", ValueError(), "as onnx: ValueError: ; try --format torch"),
        ("net.pt2", ValueError("no"), "as torch: ValueError: no; try --format onnx"),
    ],
)
def test_a_network_that_a_format_cannot_hold_is_refused_with_the_reason(
    name: str,
    error: Exception,
    message: str,
    stand_in: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def write(*_: object) -> Written:
        raise error

    stand_in(lambda x: x)
    monkeypatch.setattr(exporting, "write", write)
    with pytest.raises(OutputError, match=r"SwinIR.* cannot be written as") as caught:
        export(swinir(), tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_openvino_gets_two_files(stand_in: Callable[..., None], tmp_path: Path) -> None:
    model = swinir()
    stand_in(as_the_network(model), (b"<net/>", b"weights"))
    report = export(model, tmp_path / "net.xml", format="openvino")
    assert report.files == (tmp_path / "net.xml", tmp_path / "net.bin")
    assert report.size == len(b"<net/>weights")
    assert (tmp_path / "net.xml").read_bytes() == b"<net/>"
    assert (tmp_path / "net.bin").read_bytes() == b"weights"
    assert names(tmp_path) == ["net.bin", "net.xml"]


def test_nothing_is_computed_for_a_folder_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, stand_in: Callable[..., None], tmp_path: Path
) -> None:
    stand_in(lambda x: x)
    monkeypatch.setattr(exporting, "trace", lambda twin: pytest.fail("was traced"))
    with pytest.raises(OutputError, match="create the folder first"):
        export(swinir(), tmp_path / "none" / "net.onnx")


@pytest.mark.parametrize("model", [None, "net.pth"])
def test_what_is_no_model_is_told(model: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model is (None|'net\.pth'); load it first"):
        export(model, tmp_path / "net.pt2")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("net.pth", {}, r"suffix is '.pth'; expected .onnx \(onnx\), .xml \(openvino\), .pt2"),
        ("net", {"format": "onnx"}, "suffix is '' with format onnx; expected .onnx"),
        ("net.onnx", {"format": "torch"}, "suffix is '.onnx' with format torch; expected"),
        ("net.onnx", {"format": "ncnn"}, "format is 'ncnn'; expected one of onnx, openvino, torch"),
        ("net.onnx", {"opset": 16}, "opset is 16 with format onnx; expected 17 to 24, with onnx"),
        ("net.pt2", {"opset": 18}, "opset is 18 with format torch; expected 17 to 24, with onnx"),
        ("net.onnx", {"check": [(0, 4)]}, "a size to check is 0 x 4; expected 1 or more each"),
    ],
)
def test_what_cannot_be_obeyed(
    name: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        export(swinir(), tmp_path / name, **options)
    assert names(tmp_path) == []


def test_a_missing_package_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def without(name: str) -> ModuleType:
        if name == "onnxscript":
            raise ImportError("No module named 'onnxscript'")
        return importlib.import_module("json")

    monkeypatch.setattr("restore.export_formats.import_module", without)
    with pytest.raises(UsageError, match=r"format openvino needs the package onnxscript") as caught:
        export(swinir(), tmp_path / "net.xml")
    assert "pip install 'restore-sr[export]'" in str(caught.value)
    assert names(tmp_path) == []


def test_the_command(
    stand_in: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = swinir()
    weights, path = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    model.save(weights)
    stand_in(as_the_network(model))
    assert main(["export", str(weights), "-o", str(path), "--check", "7", "9"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = shown.out.splitlines()
    c, s = model.in_channels, model.scale
    assert lines[0] == f"model: net ({model.variant})"
    assert lines[1:3] == ["tracing the network", "writing onnx"]
    assert f"comparing at 1 x {c} x 7 x 9" in lines
    assert (
        f'output "restored": [batch, {c}, {s} * height, {s} * width], not clamped to 0..1' in lines
    )
    assert any(line.startswith('input "image": float32 [batch, ') for line in lines)
    assert lines[-1] == str(path)
    assert path.read_bytes() == b"new"
    assert main(["export", str(weights), "-o", str(path), "-q"]) == 0
    assert capsys.readouterr().out == ""


def test_exit_codes_of_the_command(
    stand_in: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(tmp_path / "net.safetensors")
    swinir().save(weights)

    def told(*words: str) -> tuple[int, str]:
        code = main(["export", *words])
        return code, capsys.readouterr().err

    assert told(weights)[0] == 2
    assert told(weights, "-o", "")[0] == 2
    code, words = told("none_such", "-o", "net.onnx")
    assert code == 2 and "no built-in model is called 'none_such'" in words
    code, words = told("swinir_builtin_x2", "-o", "net.onnx", "--arch", "HAT")
    assert code == 2 and "is not for arch HAT" in words
    code, words = told(weights, "-o", "net.onnx", "--config", "img_rang=1")
    assert code == 2 and "did you mean 'img_range'" in words
    code, words = told(weights, "-o", "net.onnx", "--format", "tensorrt")
    assert code == 2 and "expected one of onnx, openvino, torch" in words
    code, words = told(weights, "-o", "net.onnx", "--check", "0", "5")
    assert code == 2 and "1 or more" in words
    code, words = told(weights, "-o", f"{weights}/net.onnx")
    assert code == 2 and f"{weights} is a file" in words
    code, words = told("none_such", "-o", str(tmp_path / "new" / "net.pth"))
    assert code == 2 and "suffix is '.pth'" in words
    stand_in(lambda x: x)
    code, words = told(weights, "-o", str(tmp_path / "net.onnx"))
    assert code == 1 and "nothing is kept" in words
    assert names(tmp_path) == ["net.safetensors"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@quietly
@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
def test_a_built_in_model_through_the_command(suffix: str, tmp_path: Path) -> None:
    need("onnx", "onnxscript", "onnxruntime", "openvino")
    path = tmp_path / f"net{suffix}"
    assert main(["export", "swinir_builtin_x2", "-o", str(path), "--check", "100", "75"]) == 0
    weights = load_builtin("swinir_builtin_x2", device="cpu").module.parameters()
    written = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written > sum(4 * weight.numel() for weight in weights)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@quietly
def test_official_weights(shared: Path, tmp_path: Path) -> None:
    need("onnx", "onnxscript", "onnxruntime")
    weights = shared / "weights" / "HiT-SRF_x4.pth"
    if not weights.is_file():
        pytest.skip("needs ../shared/weights/HiT-SRF_x4.pth")
    report = export(load(weights, device="cpu"), tmp_path / "net.onnx", check=[(96, 130)])
    assert max(check.difference for check in report.checks) <= TOLERANCE
