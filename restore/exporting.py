"""Writing a network as a file that runs without this package, for images of any size.

What `restore.Model` does around a network, growing and cropping, is written into the file too. No
file is kept that was not run: each is compared with the network at several sizes before it gets
its name.

Shape letters: B images, C channels, H x W the image, s the scale.
"""

from __future__ import annotations

import contextlib
import copy
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from restore.archs._blocks import Remembered
from restore.archs._spec import InputRule
from restore.atomic import atomic_output, writing
from restore.errors import OutputError, UsageError
from restore.export_formats import INPUT, OPSETS, Written, packages_of, write
from restore.model import Model

Format = Literal["onnx", "openvino", "torch"]
SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}
TOLERANCE = 1e-5  # of the network's own largest value, in float32
# images, rows and columns of the traced call; no number that a network could depend on
TRACED = (2, 37, 53)
DECIDES = "decides {} by comparing values, so that another program's rounding can show"
MOST_TRIES = 8  # batches of images on which a network that decides something is compared


@dataclass(frozen=True)
class Check:
    """A comparison of the written file with the network itself, both in float32."""

    images: int
    height: int
    width: int
    difference: float  # the largest one, of the network's largest value
    # those of other images, where the network decides something by comparing values and rounding
    # made it decide otherwise
    otherwise: tuple[float, ...] = ()


@dataclass(frozen=True)
class ExportReport:
    """What `export` wrote and how well it agrees."""

    files: tuple[Path, ...]
    format: Format
    opset: int | None  # of ONNX, None elsewhere
    size: int  # bytes of all files
    checks: tuple[Check, ...]
    seconds: float


def export(
    model: Model,
    path: str | Path,
    *,
    format: Format | None = None,
    opset: int | None = None,
    check: Iterable[tuple[int, int]] = (),
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write a model as a float32 graph that takes [B, C, H, W] of any B, H and W.

    The input is called "image" and holds 0..1; the output "restored" is [B, C, H * s, W * s], not
    clamped. A square, a rectangle, and two images of an odd size are compared with the network
    before the file is kept. It takes minutes for the large networks.

    Args:
        model: any device and dtype; its parameters are written in float32.
        path: ".onnx", ".xml" (OpenVINO, with a ".bin" of the same name) or ".pt2" (torch.export).
        format: "onnx", "openvino" or "torch"; by the suffix if None.
        opset: version of ONNX's operators, for ONNX alone; 18 if None.
        check: further sizes to compare at, rows and columns in pixels.
        progress: is told what begins, in a few words.

    Returns:
        The files, and how far they differ from the network at each size.

    Raises:
        UsageError: model is none, the suffix, format, opset or a size cannot be had, or a package
            that writes the format is missing; the message says how to install it.
        OutputError: the network cannot be written in this format, what was written differs from
            the network by more than 1e-5 of its largest value, or the file cannot be written.
            Nothing is left behind, and what stood there is as it was.
    """
    began = time.perf_counter()
    kind = checked_format(path, format, opset)
    twin = twin_of(model)
    sizes = sizes_to_check(model.rule, check)
    tell = progress or (lambda _: None)
    paths = [Path(path), *([Path(path).with_suffix(".bin")] if kind == "openvino" else [])]
    with contextlib.ExitStack() as stack:
        # from the start, so that a folder that cannot be written is told now; the last one is
        # renamed first, and an .xml needs its .bin
        outputs = [stack.enter_context(atomic_output(p)) for p in paths]
        with _told(f"{path}: {model.variant}", kind):
            tell("tracing the network")
            program = trace(twin)
            tell(f"writing {kind}")
            written = write(kind, program, about(model), model.scale, opset)
        checks = [compare(twin, written, size, f"{path}", tell) for size in sizes]
        with writing(path):
            for output, content in zip(outputs, written.contents, strict=True):
                output.write(content)
    return ExportReport(
        files=tuple(paths),
        format=kind,
        opset=written.opset,
        size=sum(map(len, written.contents)),
        checks=tuple(checks),
        seconds=time.perf_counter() - began,
    )


def checked_format(path: str | Path, asked: Format | None, opset: int | None) -> Format:
    """The format that `export` would write; UsageError where it would refuse to."""
    suffix = Path(path).suffix.lower()
    if asked is not None and asked not in get_args(Format):
        raise UsageError(f"format is {asked!r}; expected one of {', '.join(get_args(Format))}")
    known = ", ".join(f"{end} ({kind})" for end, kind in SUFFIXES.items())
    if suffix not in SUFFIXES or (asked is not None and SUFFIXES[suffix] != asked):
        of_format = f" with format {asked}" if asked else ""
        raise UsageError(f"{path}: suffix is {suffix!r}{of_format}; expected {known}")
    kind = SUFFIXES[suffix]
    packages_of(kind)
    if opset is not None and (kind != "onnx" or opset not in OPSETS):
        raise UsageError(
            f"opset is {opset} with format {kind}; expected {OPSETS.start} to {OPSETS.stop - 1}, "
            "with onnx"
        )
    return kind


def sizes_to_check(rule: InputRule, more: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Images, rows and columns of every comparison; the last two of the fixed ones are grown."""
    unit = max(rule.multiple, rule.minimum, 16)
    sizes = [(1, 2 * unit, 2 * unit), (1, unit, 4 * unit), (2, unit + 3 | 1, 2 * unit - 5 | 1)]
    for height, width in more:
        if height < 1 or width < 1:
            raise UsageError(f"a size to check is {height} x {width}; expected 1 or more each")
        sizes.append((1, height, width))
    return sizes


def twin_of(model: Model) -> Model:
    """A copy on the CPU in float32, for inference, whose computed constants are kept.

    Raises:
        UsageError: model is none.
    """
    if not isinstance(model, Model):
        raise UsageError(f"export: model is {model!r:.80}; load it first with restore.load")
    twin = copy.deepcopy(model).to("cpu")
    twin.dtype = torch.float32
    twin.module.float().eval().requires_grad_(False)
    with torch.no_grad():
        twin(torch.zeros(1, model.in_channels, 1, 1))
    for module in twin.module.modules():
        for value in vars(module).values():
            if isinstance(value, Remembered):
                value.make_constant()
    return twin


class _AnySize(nn.Module):
    """What `restore.Model` does around a network, as arithmetic that a graph can hold."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net = model.module
        self.rule = model.rule
        self.scale = model.scale

    def forward(self, image: Tensor) -> Tensor:
        """[B, C, H, W] in 0..1 to [B, C, H * s, W * s], not clamped."""
        height, width = image.shape[2:]
        for dim, side in ((2, height), (3, width)):
            image = image.index_select(dim, self._source(side))
        y: Tensor = self.net(image)
        return y[:, :, : height * self.scale, : width * self.scale]

    def _source(self, side: int) -> Tensor:
        """Which row or column each one of the grown image is taken from; see `padding.grow`."""
        unit = self.rule.multiple
        least = (self.rule.minimum + unit - 1) // unit
        count = torch.sym_max(least, (side + unit - 1) // unit)
        # a number of its own, not a formula of the side: that it may be multiplied by the unit and
        # divided again is then plain, and no size is favoured
        count = torch.full((1,), count, dtype=torch.int64).item()
        torch._check(count >= least)
        at = torch.arange(count * unit)
        reflected = torch.where(at < side, at, 2 * (side - 1) - at)
        repeated = at.clamp(max=side - 1)
        # what would be reflected beyond the other end is repeated
        return torch.where(reflected[-1:] >= 0, reflected, repeated)


def trace(twin: Model) -> torch.export.ExportedProgram:
    """The graph of a model of `twin_of`, with the numbers of images, rows and columns open."""
    images, height, width = TRACED
    example = torch.rand(images, twin.in_channels, height, width)
    dim = torch.export.Dim
    shape = {0: dim("batch", min=1), 2: dim("height", min=1), 3: dim("width", min=1)}
    with torch.no_grad():
        program = torch.export.export(
            _AnySize(twin), (example,), dynamic_shapes={INPUT: shape}, strict=False
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # would tell where this package lies
    return program


@contextlib.contextmanager
def _told(what: str, kind: Format) -> Iterator[None]:
    """Turn whatever the exporters raise into one line, and keep their remarks to themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:  # they document none of theirs
            words = str(error).strip().splitlines()
            # the exporter of ONNX puts the reason at the head of a chain, below general advice
            reason = next((w for w in words if w.startswith("<class")), words[0] if words else "")
            other = "torch" if kind != "torch" else "onnx"
            raise OutputError(
                f"{what} cannot be written as {kind}: {type(error).__name__}: {reason}; "
                f"try --format {other}"
            ) from error


def about(model: Model) -> dict[str, str]:
    """What the file tells of its model."""
    return {
        "model": model.name,
        "architecture": model.arch,
        "variant": model.variant,
        "scale": str(model.scale),
        # a tile starts at a multiple of the first, and reads the second around itself
        "tile alignment": str(model.align),
        "tile pad": str(model.halo),
        "input": f"{INPUT}: float32 [batch, {model.in_channels}, height, width] in 0..1, any size",
    }


def compare(
    twin: Model,
    written: Written,
    size: tuple[int, int, int],
    where: str,
    tell: Callable[[str], None],
) -> Check:
    """Run what was written and the network on the same images; OutputError if they differ.

    On one batch of images; on some more, of which one has to agree, where the network decides
    something by comparing values.
    """
    images, height, width = size
    words = f"{images} x {twin.in_channels} x {height} x {width}"
    tell(f"comparing at {words}")
    tries = MOST_TRIES if twin.spec.decides else 1
    differing: list[float] = []
    while len(differing) < tries:
        random = torch.Generator().manual_seed(height * width + len(differing))
        x = torch.rand(images, twin.in_channels, height, width, generator=random)
        difference = _difference(twin, written, x, f"{where}: at {words} it")
        if difference <= TOLERANCE:
            return Check(images, height, width, difference, tuple(differing))
        differing.append(difference)
    reason = f", on each of {tries} batches; it {DECIDES.format(twin.spec.decides)}"
    raise OutputError(
        f"{where}: differs from the network at {words} by {min(differing):.3g} of its largest "
        f"value{reason if twin.spec.decides else ''}; at most {TOLERANCE:g} is allowed; nothing is "
        "kept"
    )


def _difference(twin: Model, written: Written, x: Tensor, where: str) -> float:
    """The largest one, of the network's largest value."""
    with torch.inference_mode():
        wanted = twin(x)
    try:
        got = written.run(x)
    except Exception as error:  # of another program's runtime
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OutputError(f"{where} does not run: {reason}; nothing is kept") from error
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        raise OutputError(
            f"{where} gives {list(got.shape)} of {got.dtype}; expected {list(wanted.shape)} of "
            f"{wanted.dtype}; nothing is kept"
        )
    return float((got - wanted).abs().max() / wanted.abs().max())
