"""The commands and their options: names and meanings.

Nothing here loads PyTorch, so that help and mistakes are told at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from restore.commands.bench import bench_parser
from restore.commands.computing import add_arithmetic, add_tiles
from restore.commands.export import export_parser
from restore.commands.large import add_layout
from restore.commands.many_options import add_many
from restore.commands.models import list_parser
from restore.commands.parsing import (
    Parser,
    above_zero,
    add_settings,
    new_parser,
    one_of,
    percent,
    whole_number,
)
from restore.commands.test import test_parser
from restore.commands.train import train_parser
from restore.commands.video import add_videos
from restore.commands.web import web_parser

COMMANDS = {
    "upscale": "enlarge or clean pictures and videos",
    "info": "say what a weight file or a picture file is",
    "models": "list models, and download official ones",
    "doctor": "examine this installation",
    "export": "write a model as ONNX, OpenVINO or torch.export",
    "train": "train a network, as an option file says",
    "test": "score a network on sets of pictures, as an option file says",
    "bench": "reproduce papers' tables, compare models and time them",
    "data": "store and check training pictures, list and make test sets",
    "web": "restore pictures in a browser",
}
EXTENSIONS = ("auto", "png", "jpg", "webp", "tiff", "bmp", "zarr")
PADDINGS = ("reflect", "published")

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
  restore upscale slide.svs -s 2 -o large.tif --pyramid --tiff-compression zstd
  restore upscale -i photos --dry-run             what would be done, and how long it takes
  restore upscale -i photos --resume              the same words again go on after a crash
  torchrun --nproc-per-node 4 -m restore upscale -i photos    one process for each of 4 GPUs
  restore upscale clip.mp4 -s 2                   a video, with its sound, to results/clip.mp4

exit codes: 0 all done; 1 some pictures failed, the others are done; 2 nothing was begun, because
an argument cannot be obeyed; 130 interrupted
"""
INFO_EPILOG = """\
examples:
  restore info                     the architectures and the models that their authors published
  restore info SwinIR.pth          family, variant, scale, parameters, configuration
  restore info photo.jpg --json    format, size, bit depth
  restore info Uformer_B.pth --config img_size=256
                                   as the network that it is with this setting
"""


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
        "models": list_parser,
        "doctor": lambda: _facts_parser("doctor"),
        "export": export_parser,
        "train": train_parser,
        "test": test_parser,
        "bench": bench_parser,
        "web": web_parser,
    }
    return build[command]()


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
    add_settings(parser)
    return parser


def _upscale_parser() -> Parser:
    parser = new_parser(
        "restore upscale",
        "Enlarge or clean pictures and videos with a model. One that fails does not stop the "
        "others.",
        UPSCALE_EPILOG,
    )
    parser.usage = (
        "restore upscale INPUT... [-o OUTPUT] [-s OUTSCALE] [-n NAME | --model_path FILE] ..."
    )
    _add_files(parser)
    _add_model(parser)
    _add_computing(parser)
    _add_results(parser)
    add_many(parser)
    add_videos(parser)
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
        help="refuse larger pictures, as a guard against bombs; 0 is no limit (default: 2^28; none "
        "for what goes through in parts: TIFF, PNG, Zarr, and others with the extra [large])",
    )


def _add_model(parser: Parser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        *("-n", "--model_name"),
        metavar="NAME",
        help="a built-in model, or an official one in the cache; see `restore models` (default: "
        "the built-in one for the scale)",
    )
    group.add_argument("--model_path", metavar="FILE", help=".pth, .pt, .ckpt or .safetensors")
    add_settings(group)


def _add_computing(parser: Parser) -> None:
    group = parser.add_argument_group("computing")
    group.add_argument(
        *("-s", "--outscale", "--scale"),
        type=above_zero,
        metavar="X",
        help="size of the result, any number above 0 (default: the model's scale; without a "
        "model 4)",
    )
    add_tiles(group)
    group.add_argument(
        "--padding",
        type=one_of(*PADDINGS),
        default="reflect",
        metavar="NAME",
        help="how pictures grow to sizes that the network takes; what they grew is cropped. "
        "published: as the authors' test scripts do it, whose scores depend on it; takes pictures "
        "whole, so without tiles (default: reflect)",
    )
    add_arithmetic(group)


def _add_results(parser: Parser) -> None:
    group = parser.add_argument_group("results")
    group.add_argument("--suffix", default="", help="added to the names of results (default: none)")
    group.add_argument(
        "--ext",
        type=one_of(*EXTENSIONS),
        default="auto",
        metavar="NAME",
        help="auto (the input's format; PNG where that cannot carry the result), png, jpg, webp, "
        "tiff, bmp or zarr (a folder of chunks; with the extra [large])",
    )
    add_layout(group)
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
