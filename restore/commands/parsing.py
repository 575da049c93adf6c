"""How a command's words are read: the parser, kinds of values, and what is wrong in words."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from restore.dtype_names import TORCH_NAMES
from restore.errors import printable

MOST_THREADS = 256  # or as many as the machine has; beyond, thread libraries crash
_ALIASES = {"jpeg": "jpg", "tif": "tiff", "h265": "hevc", "avc": "h264", **TORCH_NAMES}


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
                    # without the dashes, which would make short words alike
                    bare_names = {option.lstrip("-"): option for option in known.values()}
                    near = difflib.get_close_matches(name.lstrip("-"), bare_names, n=1)
                    hint = f"did you mean {bare_names[near[0]]}? " if near else ""
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
        self.exit(2, f"{self.prog}: {printable(message)}\n")


def new_parser(prog: str, description: str, epilog: str = "") -> Parser:
    """A parser of a command, without options."""
    return Parser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


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


def given_setting(options: argparse.Namespace) -> str | None:
    """Which option of `add_settings` is used, if any."""
    return next((f"--{name}" for name in ("arch", "config") if getattr(options, name)), None)


def key_value(text: str) -> tuple[str, Any]:
    """Name and value of "img_range=255", the value read as YAML."""
    import yaml

    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"is {text!r}; expected KEY=VALUE, as in img_range=255")
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"{name}: {value!r} is no YAML value") from None
    if isinstance(read, str):
        with contextlib.suppress(ValueError):
            return name, float(read)  # YAML takes 1e-2 for a word, as it has no point
    return name, read


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


def threads(text: str) -> int:
    """1 or more, as many as thread libraries take."""
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
    """A type of argument that takes one of these names, or another name of one of them."""
    others = [other for other, name in _ALIASES.items() if name in names]

    def check(text: str) -> str:
        word = text.lower().lstrip(".").removeprefix("torch.")
        name = word if word in names else _ALIASES.get(word, word)
        if name not in names:
            also = f", or {', '.join(others)}" if others else ""
            raise argparse.ArgumentTypeError(
                f"is {text!r}; expected one of {', '.join(names)}{also}"
            )
        return name

    return check
