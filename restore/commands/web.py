"""`restore web`: its options, and what is settled before the page is served."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from restore.commands.computing import add_arithmetic, check_arithmetic, load_telling
from restore.commands.parsing import Parser, at_least_one, new_parser, whole_number
from restore.errors import UsageError

if TYPE_CHECKING:
    from restore.model import Model
    from restore.web.shelf import Entry, Shelf

MOST_PORT = 65535

EPILOG = """\
examples:
  restore web                                 the built-in models, at http://localhost:7860
  restore web -m HAT_SRx4.pth -m weights/     with weight files, and all of a folder
  restore web --host 0.0.0.0 --auth me:secret for other machines too, with a password
  restore web --max-pixels 4000000 --max-files 5 --max-megabytes 20
                                              for visitors who are to ask for less

The page needs no internet and asks nobody but this program; nothing is told to anybody. Pictures go
through one after the other. What was uploaded and made is deleted when its page is closed, after an
hour, and at the end. It needs: pip install 'restore-sr[web]'. docs/web.md has more.
"""


def web_parser() -> Parser:
    """The parser of `restore web`."""
    parser = new_parser(
        "restore web",
        "Restore pictures in a browser: upload, choose a model, compare, download.",
        EPILOG,
    )
    parser.usage = "restore web [-m FILE-OR-FOLDER ...] [--host NAME] [--port N] ..."
    _add_models(parser)
    group = parser.add_argument_group("who can reach it")
    group.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="NAME",
        help="of this machine, to listen on; 0.0.0.0: all its networks (default: 127.0.0.1, this "
        "machine alone)",
    )
    group.add_argument(
        "--port",
        type=whole_number,
        default=7860,
        metavar="N",
        help="to listen on; 0: any that is free (default: 7860)",
    )
    group.add_argument(
        "--auth",
        action="append",
        default=[],
        metavar="USER:PASSWORD",
        help="ask visitors for it; may be repeated. @FILE: one on each line of a file, where other "
        "users of this machine do not see it",
    )
    group.add_argument(
        "--no-browser", action="store_true", help="do not open the page in a browser"
    )
    _add_limits(parser)
    add_arithmetic(parser.add_argument_group("computing"))
    parser.add_argument("-q", "--quiet", action="store_true", help="tell only what went wrong")
    return parser


def _add_models(parser: Parser) -> None:
    group = parser.add_argument_group("models")
    group.add_argument(
        *("-m", "--model_path"),
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="weight files (.pth, .pt, .ckpt, .safetensors), or folders of them, to offer beside "
        "the built-in models",
    )
    group.add_argument(
        *("-n", "--model_name"),
        metavar="NAME",
        help="the model that is chosen at first (default: the first of -m, else the built-in x4)",
    )


def _add_limits(parser: Parser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--max-pixels",
        type=whole_number,
        metavar="N",
        help="of a picture; its result has at most 16 times as many (default: 2^25, 33 "
        "megapixels); 0 is no limit",
    )
    group.add_argument(
        "--max-files", type=at_least_one, metavar="N", help="pictures at once (default: 20)"
    )
    group.add_argument(
        "--max-megabytes", type=at_least_one, metavar="N", help="of one upload (default: 200)"
    )


def run_web(
    options: argparse.Namespace, say: Callable[[str], None], complain: Callable[[str], None]
) -> None:
    """Serve the page until it is ended.

    Args:
        options: of `web_parser`.
        say: is told what goes on.
        complain: is told of warnings and defects.

    Raises:
        UsageError: an option cannot be obeyed, or the extra is not installed.
        RestoreError: a model that was named does not load; see `restore.load`.
    """
    check_arithmetic(options)
    _check_installed()
    from restore.web.limits import (
        DEFAULT_MAX_FILES,
        DEFAULT_MAX_MEGABYTES,
        DEFAULT_MAX_PIXELS,
        Limits,
    )
    from restore.web.server import Address, listen, serve

    def by_line(text: str) -> None:
        for line in text.splitlines():
            complain(line)

    if options.port > MOST_PORT:
        raise UsageError(f"--port {options.port}: expected 0 to {MOST_PORT}")
    most = options.max_pixels
    limits = Limits(
        options.max_files or DEFAULT_MAX_FILES,
        options.max_megabytes or DEFAULT_MAX_MEGABYTES,
        DEFAULT_MAX_PIXELS if most is None else most or None,
    )
    address = Address(options.host, options.port, read_auth(options.auth), not options.no_browser)
    with listen(address) as sock:
        for warning in address.warnings():
            complain(warning)
        shelf, device = _shelf(options, say)
        chosen = _chosen(options, list(shelf.entries.values()))
        serve(
            sock,
            address,
            shelf,
            limits,
            chosen=chosen,
            device=device,
            say=say,
            log=by_line,
        )


def _check_installed() -> None:
    """UsageError where a package that the page needs is missing."""
    from importlib.util import find_spec

    missing = [name for name in ("gradio", "uvicorn", "fastapi") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"web needs {', '.join(missing)}, not installed here: pip install 'restore-sr[web]'"
        )


def read_auth(given: list[str]) -> tuple[tuple[str, str], ...]:
    """Names and passwords of --auth; UsageError where one is no such pair."""
    pairs: dict[str, str] = {}
    for text in given:
        words = [text]
        if text.startswith("@"):
            try:
                lines = Path(text[1:]).expanduser().read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or error
                raise UsageError(f"--auth {text}: the file cannot be read: {why}") from error
            words = [line for line in lines if line.strip()]
            if not words:
                raise UsageError(f"--auth {text}: the file is empty; expected USER:PASSWORD lines")
        for word in words:
            name, colon, password = word.partition(":")
            if not (name and colon and password):
                # what stands there may be a password, so it is not repeated
                raise UsageError("--auth: expected USER:PASSWORD, neither of them empty")
            pairs[name] = password
    return tuple(pairs.items())


def _shelf(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[Shelf, str]:
    """The models, each loaded once, and what computes, in words."""
    import torch

    from restore.devices import dtype_name
    from restore.loading import builtin_names, load
    from restore.web.shelf import Shelf, find_weights, make_entries

    if options.threads:
        torch.set_num_threads(options.threads)
    named, found = find_weights(options.model_path)
    used: list[str] = []

    def loaded(source: str, told: Callable[[str], None]) -> Model:
        def in_dtype(dtype: str) -> Model:
            return load(source, device=options.device, dtype=dtype)

        model = load_telling(options, in_dtype, told)
        used[:] = [f"{model.device}, {dtype_name(model.dtype)}"]
        return model

    entries = make_entries(builtin_names(), named, found, loaded, say)
    for entry in entries:
        say(f"model: {entry.name} ({entry.variant})")
    return Shelf(entries, loaded), used[0] if used else "cpu"


def _chosen(options: argparse.Namespace, entries: list[Entry]) -> str:
    """The name of the model that is chosen at first."""
    import difflib

    names = [entry.name for entry in entries]
    wanted = options.model_name
    if wanted is None:
        own = [entry.name for entry in entries if not entry.builtin]
        return own[0] if own else names[-1]
    if wanted not in names:
        near = difflib.get_close_matches(wanted, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"-n {wanted}: {hint}there is {', '.join(names)}")
    return str(wanted)
