"""The commands' options: names, meanings, and what is wrong with a value, in words.

Nothing here loads PyTorch, so that help and mistakes are told at once.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

COMMANDS = {
    "upscale": "enlarge or clean pictures",
    "info": "say what a weight file or a picture file is",
    "models": "list the built-in models",
    "doctor": "examine this installation",
    "export": "write a model as ONNX, OpenVINO or torch.export",
}
EXTENSIONS = ("auto", "png", "jpg", "webp", "tiff", "bmp")
DTYPES = ("auto", "fp32", "fp16", "bf16")
PADDINGS = ("reflect", "published")
MOST_THREADS = 256  # or as many as the machine has; beyond, thread libraries crash
_ALIASES = {"jpeg": "jpg", "tif": "tiff"}

TOP_EPILOG = """\
commands:
{commands}

`restore -i photo.jpg` means `restore upscale -i photo.jpg`.
`restore COMMAND --help` explains a command, with examples.
"""
UPSCALE_EPILOG = """\
examples:
  restore upscale photo.jpg                       to results/photo.jpg, 4 times as large
  restore upscale photo.jpg -s 2 -o large.png     twice as large, to that file
  restore upscale -i photos -r -o large           a folder with its tree
  restore upscale -i "photos/*.png" --suffix _x4  a pattern; results get _x4 in their names
  restore upscale photo.jpg --compare             with a picture of before and after
  restore upscale scan.tif --model_path SwinIR.pth --tile 256
  restore upscale -i photos --dry-run             what would be done, and how long it takes

exit codes: 0 all done; 1 some pictures failed, the others are done; 2 nothing was begun, because
an argument cannot be obeyed; 130 interrupted
"""
INFO_EPILOG = """\
examples:
  restore info                     the architectures and the models that their authors published
  restore info SwinIR.pth          family, variant, scale, parameters, configuration
  restore info photo.jpg --json    format, size, bit depth
"""


class Parser(argparse.ArgumentParser):
    """Takes `_` and `-` in option names as the same, and says what a mistyped one may mean."""

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse a command's words; exits with 2 where they cannot be obeyed."""
        known = {name.replace("_", "-"): name for name in self._option_string_actions}
        options, bare = list(words), list[str]()
        if "--" in options:
            at = options.index("--")
            # a path either way, and argparse forgets what "--" meant when it mixes both kinds
            bare = [f"./{w}" if w.startswith("-") else w for w in options[at + 1 :]]
            options = options[:at]
        read = []
        for word in options:
            name, equals, value = word.partition("=")
            if name.startswith("--"):
                name = known.get(name.replace("_", "-"), name)
                if name not in self._option_string_actions:
                    near = difflib.get_close_matches(name, known.values(), n=1)
                    hint = f"did you mean {near[0]}? " if near else ""
                    self.error(f"there is no option {name}; {hint}see {self.prog} --help")
            read.append(name + equals + value)
        return self.parse_intermixed_args(read + bare)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line; argparse's usage lines would bury it."""
        dashed = [word for word in message.split() if word.startswith("-") and Path(word).exists()]
        if "unrecognized arguments" in message and dashed:
            message += f"; for the file: ./{dashed[0]}"
        if "expected one argument" in message:
            message += "; a value that begins with - is given as --option=-value"
        self.exit(2, f"{self.prog}: {message}\n")


def top_parser(version: str) -> Parser:
    """The parser of what stands before a command."""
    listed = "\n".join(f"  {name:<9} {what}" for name, what in COMMANDS.items())
    parser = new_parser(
        "restore",
        "Image restoration with transformers: enlarge, denoise, clean.",
        TOP_EPILOG.format(commands=listed),
    )
    parser.usage = "restore COMMAND ..."
    parser.add_argument("--version", action="version", version=f"restore {version}")
    return parser


def command_error(word: str) -> str:
    """What to say of a first word that is no command."""
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if Path(word).exists() or Path(word).suffix:
        hint = f"did you mean: restore upscale {word}? "
    return f"there is no command {word!r}; {hint}commands: {', '.join(COMMANDS)}"


def parser_of(command: str) -> Parser:
    """The parser of one of COMMANDS."""
    build: dict[str, Callable[[], Parser]] = {
        "upscale": _upscale_parser,
        "info": _info_parser,
        "models": lambda: _facts_parser("models"),
        "doctor": lambda: _facts_parser("doctor"),
        "export": _export_parser,
    }
    return build[command]()


def new_parser(prog: str, description: str, epilog: str = "") -> Parser:
    """A parser of a command, without options."""
    return Parser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _facts_parser(command: str) -> Parser:
    what = COMMANDS[command]
    parser = new_parser(f"restore {command}", f"{what[0].upper()}{what[1:]}.")
    parser.add_argument("--json", action="store_true", help="write JSON to standard output")
    return parser


def _info_parser() -> Parser:
    parser = _facts_parser("info")
    parser.epilog = INFO_EPILOG
    help_text = (
        "a weight file, a picture file, or the name of a built-in model; without any, all "
        "architectures and published models are listed"
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help=help_text)
    return parser


def _export_parser() -> Parser:
    from restore.commands.export import export_parser

    return export_parser()


def _upscale_parser() -> Parser:
    parser = new_parser(
        "restore upscale",
        "Enlarge or clean pictures with a model. A picture that fails does not stop the others.",
        UPSCALE_EPILOG,
    )
    parser.usage = (
        "restore upscale INPUT... [-o OUTPUT] [-s OUTSCALE] [-n NAME | --model_path FILE] ..."
    )
    _add_files(parser)
    _add_model(parser)
    _add_computing(parser)
    _add_results(parser)
    group = parser.add_argument_group("what is told")
    group.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    group.add_argument(
        "--verify-tiles",
        action="store_true",
        help="also compute each picture as a whole, and tell how well its tiles agree with that",
    )
    group.add_argument("-q", "--quiet", action="store_true", help="tell only what went wrong")
    group.add_argument("-v", "--verbose", action="store_true", help="tell more")
    return parser


def _add_files(parser: Parser) -> None:
    group = parser.add_argument_group("pictures")
    text = 'files, folders, or quoted patterns such as "photos/*.png"'
    group.add_argument("inputs", nargs="*", metavar="INPUT", help=text)
    group.add_argument(
        *("-i", "--input"),
        nargs="+",
        action="extend",
        default=[],
        metavar="INPUT",
        help="the same",
    )
    group.add_argument(
        *("-r", "--recursive"),
        action="store_true",
        help="go into folders of folders, and mirror their tree in the output",
    )
    group.add_argument(
        *("-o", "--output"),
        default="results",
        help="folder for the results (default: results); for one picture also a file name",
    )
    group.add_argument(
        "--max-pixels",
        type=whole_number,
        metavar="N",
        help="refuse larger pictures, as a guard against bombs (default: 2^28); 0 is no limit; "
        "TIFF to TIFF has none",
    )


def _add_model(parser: Parser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        *("-n", "--model_name"),
        metavar="NAME",
        help="a built-in model, see `restore models` (default: the one for the scale)",
    )
    group.add_argument("--model_path", metavar="FILE", help=".pth, .pt, .ckpt or .safetensors")
    add_settings(group)


def add_settings(group: argparse._ActionsContainer) -> None:
    """Add the options that say what a weight file does not tell."""
    group.add_argument("--arch", metavar="NAME", help="try this architecture alone")
    group.add_argument(
        "--config",
        type=key_value,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what the weights do not tell, such as img_range=255; may be repeated",
    )


def _add_computing(parser: Parser) -> None:
    group = parser.add_argument_group("computing")
    group.add_argument(
        *("-s", "--outscale", "--scale"),
        type=above_zero,
        metavar="X",
        help="size of the result, any number above 0 (default: the model's scale; without a "
        "model 4)",
    )
    group.add_argument(
        *("-t", "--tile"),
        type=tile_size,
        default="auto",
        metavar="N",
        help="longest side of a tile in pixels of the input; 0: the whole picture (default: auto, "
        "what the memory allows)",
    )
    group.add_argument(
        "--tile_pad",
        type=whole_number,
        metavar="N",
        help="pixels read around each tile (default: the model's own)",
    )
    group.add_argument(
        "--padding",
        type=one_of(*PADDINGS),
        default="reflect",
        metavar="NAME",
        help="how pictures grow to sizes that the network takes; what they grew is cropped. "
        "published: as the authors' test scripts do it, whose scores depend on it; takes pictures "
        "whole, so without tiles (default: reflect)",
    )
    group.add_argument(
        "--tta", action="store_true", help="average over 8 flips and turns: 8 times slower"
    )
    group.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps"
    )
    group.add_argument(
        "--dtype",
        type=one_of(*DTYPES),
        default="auto",
        metavar="NAME",
        help="of the arithmetic: auto (fp32), fp32, fp16 or bf16",
    )
    group.add_argument("--fp32", action="store_true", help="the same as --dtype fp32")
    group.add_argument(
        "--threads", type=_threads, metavar="N", help="of the CPU (default: PyTorch's choice)"
    )


def _add_results(parser: Parser) -> None:
    group = parser.add_argument_group("results")
    group.add_argument("--suffix", default="", help="added to the names of results (default: none)")
    group.add_argument(
        "--ext",
        type=one_of(*EXTENSIONS),
        default="auto",
        metavar="NAME",
        help="auto (the input's format; PNG where that cannot carry the result), png, jpg, webp, "
        "tiff or bmp",
    )
    group.add_argument(
        "--quality", type=percent, metavar="1-100", help="of jpg and webp (default: 95)"
    )
    group.add_argument(
        "--skip-existing", action="store_true", help="leave pictures whose result is there"
    )
    group.add_argument(
        "--compare",
        action="store_true",
        help="also write NAME_compare.png: the part with most detail, bicubic and restored",
    )


def key_value(text: str) -> tuple[str, Any]:
    """Name and value of "img_range=255", the value read as YAML."""
    import yaml

    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"is {text!r}; expected KEY=VALUE, as in img_range=255")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"{name}: {value!r} is no YAML value") from None


def above_zero(text: str) -> float:
    """A number such as 2 or 1.5."""
    try:
        value = float(text.removeprefix("x"))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"is {text!r}; expected a number above 0, as 2 or 1.5")
    return value


def tile_size(text: str) -> int | str:
    """Auto, or pixels."""
    return text if text == "auto" else _integer(text, 0, None, "auto, 0 (whole picture) or pixels")


def whole_number(text: str) -> int:
    """0 or more."""
    return _integer(text, 0, None, "a whole number, 0 or more")


def at_least_one(text: str) -> int:
    """1 or more."""
    return _integer(text, 1, None, "a whole number, 1 or more")


def _threads(text: str) -> int:
    n, most = at_least_one(text), max(MOST_THREADS, os.cpu_count() or 1)
    if n > most:
        raise argparse.ArgumentTypeError(f"{n} threads are more than {most}")
    return n


def percent(text: str) -> int:
    """1 to 100."""
    return _integer(text, 1, 100, "a whole number from 1 to 100")


def _integer(text: str, least: int, most: int | None, expected: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least or value > (sys.maxsize if most is None else most):
        raise argparse.ArgumentTypeError(f"is {text!r}; expected {expected}")
    return value


def one_of(*names: str) -> Callable[[str], str]:
    """A type of argument that takes one of these names."""

    def check(text: str) -> str:
        name = _ALIASES.get(text.lower().lstrip("."), text.lower().lstrip("."))
        if name not in names:
            raise argparse.ArgumentTypeError(f"is {text!r}; expected one of {', '.join(names)}")
        return name

    return check
