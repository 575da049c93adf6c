"""What runs against what on a CPU: functions of a picture, or the reason why there is none."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.eager import Eager
from benchmarks.gpu.subjects import Subject, only
from benchmarks.peers import spandrel_network
from restore.model import Model

Run = Callable[[Tensor], Tensor]
ALL = (
    "restore",
    "eager",
    "openvino",
    "restore-bf16",
    "openvino-bf16",
    "spandrel",
    "restore-torch",
)
USUAL = ALL[:-1]
LONGEST_TWICE = 128  # pixels of a side; above it spandrel, whose arithmetic is eager's, is left out
BF16 = ("restore-bf16", "openvino-bf16")
RATES = "rates"  # not a contender: what the processor reaches
HINTS = {"openvino": "f32", "openvino-bf16": "bf16"}


def usual(side: int) -> tuple[str, ...]:
    """Those that are timed at a size where none are named."""
    return tuple(name for name in USUAL if name != "spandrel" or side <= LONGEST_TWICE)


def make(name: str, found: Subject, side: int, threads: int, kept: Path) -> Run:
    """A contender, from pictures [1, C, side, side] to what they become.

    Args:
        name: one of `ALL`.
        found: its network.
        side: of the pictures, in pixels.
        threads: as many as it may use.
        kept: folder for what takes long to make and serves several cases.

    Raises:
        LookupError: there is no such thing for this network.
        ImportError: it needs a package that is not installed.
        Exception: whatever it fails with.
    """
    if name in HINTS:
        return _openvino(found, side, threads, kept, HINTS[name])
    if name == "eager":
        return _eager(found, side)
    if name == "spandrel":
        return spandrel_network(found.spec, found.config, found.net)
    dtype = torch.bfloat16 if name in BF16 else torch.float32
    model = Model(found.spec, found.config, found.net, name=name, dtype=dtype)
    return _on_stock_ops(model) if name == "restore-torch" else model


def _eager(found: Subject, side: int) -> nn.Module:
    """The authors' form: at any size but that of training their networks make the masks anew."""
    return Eager(found.net, keep_masks=found.config.get("img_size", side) == side).eval()


def _on_stock_ops(model: Model) -> Run:
    def run(x: Tensor) -> Tensor:
        with only(("torch",)):
            return model(x)

    return run


def _openvino(found: Subject, side: int, threads: int, kept: Path, hint: str) -> Run:
    """The authors' form as OpenVINO converts it for one size."""
    openvino = importlib.import_module("openvino")
    path = kept / f"openvino-{side}.xml"
    core = openvino.Core()
    if not path.exists():
        _convert(openvino, found, side, path)
    settings = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()

    def run(x: Tensor) -> Tensor:
        request.infer({0: x.numpy()})
        return torch.from_numpy(request.get_output_tensor(0).data)

    return run


def _convert(openvino: Any, found: Subject, side: int, path: Path) -> None:
    x = found.image(torch.Generator().manual_seed(0), 1, side)
    # masks and indices are buffers of what is converted
    net = Eager(found.net.requires_grad_(False), keep_masks=True).eval()
    with torch.no_grad(), _quietly():
        net(x)
        try:
            model = openvino.convert_model(net, example_input=x)
        except RuntimeError:  # tracing makes tensors of sizes, which some functions refuse
            program = torch.export.export(net, (x,), strict=False)
            model = openvino.convert_model(program)
    model.reshape(list(x.shape))
    path.parent.mkdir(parents=True, exist_ok=True)
    # one process may convert what another asks for
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / path.name
        openvino.save_model(model, whole, compress_to_fp16=False)
        os.replace(whole.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(whole, path)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing remarks on every size that it reads
        yield


def rates(rehearsal: bool) -> dict[str, tuple[Callable[[], object], int]]:
    """Calls that reach what a processor can, by name, and the operations of each.

    A 3 x 3 convolution of 180 channels and a product of square matrices, in both precisions.
    """
    channels, side = (8, 8) if rehearsal else (180, 64)
    calls: dict[str, tuple[Callable[[], object], int]] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x = torch.rand(1, channels, side, side, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = torch.rand(channels, channels, 3, 3, dtype=dtype)
        square = torch.rand(side * 16, side * 16, dtype=dtype)
        calls[f"{name} convolution"] = (
            functools.partial(F.conv2d, x, weight, padding=1),
            2 * 9 * channels**2 * side**2,
        )
        calls[f"{name} product"] = (
            functools.partial(torch.mm, square, square),
            2 * (side * 16) ** 3,
        )
    return calls
