"""Options of every command that runs a model: tiles, arithmetic, and how its weights are loaded."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from restore.commands.parsing import one_of, threads, tile_size, whole_number
from restore.errors import UsageError

if TYPE_CHECKING:
    from restore.model import Model

DTYPES = ("auto", "fp32", "fp16", "bf16")


def add_tiles(group: argparse._ActionsContainer) -> None:
    """Add --tile, --tile_pad and --tta."""
    group.add_argument(
        *("-t", "--tile"),
        type=tile_size,
        default="auto",
        metavar="N",
        help="longest side of a tile in pixels of the input, 32 or more (less with a smaller "
        "--tile_pad); 0: the whole picture (default: auto, what the memory allows)",
    )
    group.add_argument(
        "--tile_pad",
        type=whole_number,
        metavar="N",
        help="pixels read around each tile (default: the model's own)",
    )
    group.add_argument(
        "--tta", action="store_true", help="average over 8 flips and turns: 8 times slower"
    )


def add_arithmetic(group: argparse._ActionsContainer) -> None:
    """Add --device, --dtype, --fp32, --fast and --threads."""
    group.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps"
    )
    group.add_argument(
        "--dtype",
        type=one_of(*DTYPES),
        default="auto",
        metavar="NAME",
        help="of the arithmetic: auto (fp32), fp32, fp16 or bf16, or as PyTorch calls them",
    )
    group.add_argument("--fp32", action="store_true", help="the same as --dtype fp32")
    group.add_argument(
        "--fast",
        action="store_true",
        help="bf16 where this device is faster in it and it was measured to cost the model's "
        "family less than 0.01 dB; else fp32, and why",
    )
    group.add_argument(
        "--threads", type=threads, metavar="N", help="of the CPU (default: PyTorch's choice)"
    )


def check_arithmetic(options: argparse.Namespace) -> None:
    """Refuse options of `add_arithmetic` that contradict each other."""
    if options.fp32 and options.dtype not in ("auto", "fp32"):
        raise UsageError(f"--fp32 and --dtype {options.dtype} contradict each other; give one")
    if options.fast and (options.fp32 or options.dtype != "auto"):
        given = "--fp32" if options.fp32 else f"--dtype {options.dtype}"
        raise UsageError(f"--fast chooses the arithmetic, and so does {given}; give one of them")


def load_telling(
    options: argparse.Namespace, load: Callable[[str], Model], say: Callable[[str], None]
) -> Model:
    """Load a model in the arithmetic that the options ask for, and say what there is to note.

    Args:
        options: with those of `add_arithmetic`.
        load: takes the name of a dtype.
        say: is told.
    """
    from restore.devices import dtype_name

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load("fp32" if options.fp32 else options.dtype)
    for warning in caught:
        say(f"note: {warning.message}")
    if options.fast:
        from restore.commands.fast import fast_dtype

        model.dtype, why = fast_dtype(model)
        say(f"note: {why}")
    if model.device.type == "cpu" and dtype_name(model.dtype) == "fp16":
        say("note: fp16 is slower than fp32 on most CPUs; leave --dtype out, or try bf16")
    return model
