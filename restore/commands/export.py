"""The command `restore export`: its options, and a run of it in words."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from restore.commands.parsing import (
    Parser,
    add_settings,
    at_least_one,
    new_parser,
    one_of,
)
from restore.errors import UsageError

if TYPE_CHECKING:
    from restore.exporting import ExportReport
    from restore.model import Model

FORMATS = ("onnx", "openvino", "torch")
EPILOG = """\
examples:
  restore export HiT-SRF-4x.pth -o hit_srf_x4.onnx    for ONNX Runtime and what reads ONNX
  restore export HiT-SRF-4x.pth -o hit_srf_x4.xml     for OpenVINO; its weights go to hit_srf_x4.bin
  restore export HiT-SRF-4x.pth -o hit_srf_x4.pt2     for torch.export.load, without this package
  restore export NAME -o net.onnx --check 480 640     a built-in model; also compared at that size

The file takes any number of images of any size: growing to what the network needs, window masks
and cropping are part of it. Before it is kept it is run at three sizes or more and compared with
the network; if it differs anywhere by more than 1e-5 of the largest value, nothing is kept.
Large networks take minutes. onnx and openvino need: pip install 'restore-sr[export]'

exit codes: 0 written; 1 it cannot be written in this format, or differs; 2 nothing was begun,
because an argument cannot be obeyed; 130 interrupted
"""


def export_parser() -> Parser:
    """The parser of the command's options."""
    parser = new_parser(
        "restore export",
        "Write a model as a file that runs without this package, checked against the network.",
        EPILOG,
    )
    parser.usage = "restore export MODEL -o FILE [--format NAME] ..."
    text = "a weight file (.pth, .pt, .ckpt, .safetensors) or the name of a built-in model"
    parser.add_argument("model", metavar="MODEL", help=text)
    parser.add_argument(
        *("-o", "--output"),
        required=True,
        metavar="FILE",
        help="to write: .onnx, .xml (OpenVINO) or .pt2 (torch.export); its folder is made",
    )
    parser.add_argument(
        "--format",
        type=one_of(*FORMATS),
        metavar="NAME",
        help="onnx, openvino or torch, as FILE is",
    )
    parser.add_argument(
        "--opset", type=at_least_one, metavar="N", help="of ONNX, 17 to 24 (default: 18)"
    )
    parser.add_argument(
        "--check",
        type=at_least_one,
        nargs=2,
        action="append",
        default=[],
        metavar=("H", "W"),
        help="compare at this size too, rows and columns in pixels; may be repeated",
    )
    add_settings(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="tell only what went wrong")
    return parser


def run_export(options: argparse.Namespace, say: Callable[[str], None]) -> list[str]:
    """Write the file that the options ask for.

    Args:
        options: of `export_parser`.
        say: is told what begins.

    Returns:
        What was written, how well it agrees, and how to run it.

    Raises:
        RestoreError: see `restore.export` and `restore.load`.
    """
    from restore.atomic import writing
    from restore.commands.files import check_writable
    from restore.exporting import checked_format, export

    if not options.output:
        raise UsageError("-o is empty; a variable that was never set?")
    checked_format(options.output, options.format, options.opset)
    folder = Path(options.output).parent
    check_writable(folder)
    model = _model(options, say)
    say(f"model: {model.name} ({model.variant})")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    report = export(
        model,
        options.output,
        format=options.format,
        opset=options.opset,
        check=[(height, width) for height, width in options.check],
        progress=say,
    )
    return _lines(model, report)


def _model(options: argparse.Namespace, say: Callable[[str], None]) -> Model:
    from restore.loading import load

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = dict(options.config)
        model = load(options.model, device="cpu", arch=options.arch, config=config)
    for warning in caught:
        say(f"note: {warning.message}")
    return model


def _lines(model: Model, report: ExportReport) -> list[str]:
    from restore.commands.info import file_size
    from restore.commands.text import duration, plural
    from restore.exporting import DECIDES

    worst = max(check.difference for check in report.checks)
    sizes = ", ".join(f"{check.height} x {check.width}" for check in report.checks)
    colours = "gray" if model.in_channels == 1 else "RGB"
    grown = f"{model.scale} * " if model.scale > 1 else ""
    opset = f", opset {report.opset}" if report.opset else ""
    otherwise = [difference for check in report.checks for difference in check.otherwise]
    notes = []
    if otherwise:
        notes.append(
            f"note: it {DECIDES.format(model.spec.decides)}: it did in "
            f"{plural(len(otherwise), 'more comparison')}, by up to {max(otherwise):.1e}"
        )
    return [
        f"written in {duration(report.seconds)}, {file_size(report.size)}{opset}",
        f"differs from the network by at most {worst:.1e} of its largest value, at {sizes}",
        *notes,
        f'input "image": float32 [batch, {model.in_channels}, height, width], {colours} in 0..1, '
        "any size",
        f'output "restored": [batch, {model.out_channels}, {grown}height, {grown}width], not '
        "clamped to 0..1",
        "how to run it: docs/export.md",
        *map(str, report.files),
    ]
