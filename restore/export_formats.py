"""The formats of `restore.exporting`: an exported program to the contents of files, and back.

Nothing here is imported before it is asked for: the packages belong to the extra [export].
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.export import ExportedProgram

from restore.errors import UsageError

INPUT, OUTPUT = "image", "restored"
OPSETS = range(17, 25)  # that the exporter of ONNX makes
OPSET = 18
INT64 = 7  # in ONNX's numbering of data types
PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}


@dataclass(frozen=True)
class Written:
    """What a format makes of a network."""

    contents: tuple[bytes, ...]  # of its files
    run: Callable[[Tensor], Tensor]  # [B, C, H, W] to the output, from these contents alone
    opset: int | None = None


def packages_of(kind: str) -> dict[str, Any]:
    """The packages that write and run a format, by name.

    Raises:
        UsageError: one is missing or does not load; the message says how to install them.
    """
    found = {}
    for name in PACKAGES[kind]:
        try:
            found[name] = import_module(name)
        except ImportError as error:
            raise UsageError(
                f"format {kind} needs the package {name}, which does not load ({error}); "
                "install it: pip install 'restore-sr[export]'"
            ) from error
    return found


def write(
    kind: str, program: ExportedProgram, about: Mapping[str, str], scale: int, opset: int | None
) -> Written:
    """Make a format's files.

    Args:
        kind: a key of PACKAGES.
        program: of one input and one output, [B, C, H, W] each.
        about: what the file says of itself, names to words.
        scale: output pixels per input pixel, for the names of sizes.
        opset: version of ONNX's operators; OPSET if None.
    """
    if kind == "torch":
        return torch_file(program, about)
    graph = onnx_graph(program, scale, opset or OPSET)
    return openvino_files(graph, about) if kind == "openvino" else onnx_file(graph, about)


def torch_file(program: ExportedProgram, about: Mapping[str, str]) -> Written:
    """A .pt2 file."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"about.json": json.dumps(about)})
    content = file.getvalue()
    module = torch.export.load(io.BytesIO(content)).module()

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            y: Tensor = module(x)
        return y

    return Written((content,), run)


def onnx_graph(program: ExportedProgram, scale: int, opset: int = OPSET) -> Any:
    """An onnx.ModelProto without the traces of its making."""
    with _silence("torch.onnx", "onnxscript", "onnx_ir"):
        made = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    proto = cast(torch.onnx.ONNXProgram, made).model_proto
    graph = proto.graph
    # where each node came from, several times as large as a small network
    for entry in (*graph.node, *graph.input, *graph.output, *graph.initializer, graph, proto):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    graph.ClearField("value_info")
    share_indices(graph)
    for value, factor in ((graph.input[0], 1), (graph.output[0], scale)):
        for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
            grown = f"{factor}*{name}" if axis and factor > 1 else name
            value.type.tensor_type.shape.dim[axis].dim_param = grown
    return proto


def share_indices(graph: Any) -> None:
    """Keep one of each set of equal whole-number constants of an onnx.GraphProto.

    Every block has the same index of its window's pairs of pixels, which can be larger than its
    weights.
    """
    kept: dict[tuple[bytes, tuple[int, ...]], str] = {}
    shared: dict[str, str] = {}
    for at, tensor in reversed(list(enumerate(graph.initializer))):
        if tensor.data_type != INT64 or not tensor.raw_data:
            continue
        content = (tensor.raw_data, tuple(tensor.dims))
        shared[tensor.name] = kept.setdefault(content, tensor.name)
        if shared[tensor.name] != tensor.name:
            del graph.initializer[at]
    for node in graph.node:
        for slot, name in enumerate(node.input):
            node.input[slot] = shared.get(name, name)


def onnx_file(proto: Any, about: Mapping[str, str]) -> Written:
    """An .onnx file."""
    packages = packages_of("onnx")
    packages["onnx"].helper.set_model_props(proto, dict(about))
    packages["onnx"].checker.check_model(proto)
    content = proto.SerializeToString()
    runtime = packages["onnxruntime"]
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is raised too
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: x.numpy()})[0])

    return Written((content,), run, proto.opset_import[0].version)


def openvino_files(proto: Any, about: Mapping[str, str]) -> Written:
    """An .xml and a .bin file."""
    openvino = packages_of("openvino")["openvino"]
    core = openvino.Core()
    model = core.read_model(proto.SerializeToString())
    for name, words in about.items():
        model.set_rt_info(words, ["restore", name])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        contents = (path.read_bytes(), path.with_suffix(".bin").read_bytes())
    # a CPU with instructions for bfloat16 would otherwise compute in that
    compiled = core.compile_model(
        core.read_model(*contents), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(compiled({INPUT: x.numpy()})[OUTPUT])

    return Written(contents, run)


@contextlib.contextmanager
def _silence(*names: str) -> Iterator[None]:
    """Raise the level of loggers whose warnings are about the exporters' own optimisations."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
