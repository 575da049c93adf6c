"""What the commands `train` and `test` share: their options, shipped files, and reading one."""

from __future__ import annotations

import argparse
import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from restore.commands.parsing import Parser, one_of
from restore.errors import UsageError

if TYPE_CHECKING:
    from restore.training.dataset_options import DatasetOptions
    from restore.training.options import Options

Part = Literal["train", "test"]
_OPTIONS = Path(__file__).parents[1] / "options"


def add_option_file(parser: Parser) -> None:
    """Add the options that both commands have."""
    parser.add_argument(
        *("-opt", "--opt"),
        metavar="FILE",
        help="the option file (YAML): network, pictures, how long, what to score. A name of --list "
        "is taken from the installed package where there is no such file",
    )
    parser.add_argument(
        "--force_yml",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY:KEY=VALUE",
        help="change values of the file without editing it, as in train:optim_g:lr=1e-4 "
        "val:save_img=true datasets:train:dataroot_gt=/photos; sections are joined by colons",
    )
    parser.add_argument("--list", action="store_true", help="list the option files of the package")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the file, its paths, weights, states and pictures' sizes, tell what would be "
        "done, and end; nothing is written",
    )
    parser.add_argument(
        "--device",
        default="auto",
        type=one_of("auto", "cpu"),
        metavar="NAME",
        help="cpu: no GPU, whatever num_gpu says (default: auto)",
    )


def shipped(part: Part) -> dict[str, str]:
    """Names of the option files of the package, to what each says of itself first."""
    files = sorted((_OPTIONS / part).glob("*.yml"))
    return {f"options/{part}/{path.name}": _first_words(path) for path in files}


def list_lines(part: Part) -> list[str]:
    """The answer to --list."""
    files = shipped(part)
    width = max(map(len, files), default=0)
    # those that a newcomer can run first
    small = [name for name in files if "small" in name or "builtin" in name]
    order = [*small, *(name for name in files if name not in small)]
    return [f"{name:<{width}}  {files[name]}" for name in order]


def option_file(name: str | None, part: Part, command: str) -> Path:
    """The option file that is meant.

    Raises:
        UsageError: none is named.
    """
    if not name:
        raise UsageError(
            f"give an option file: restore {command} -opt FILE; `restore {command} --list` lists "
            "those of the package"
        )
    path = Path(name)
    if not path.exists() and path.as_posix() in shipped(part):
        return _OPTIONS / part / path.name
    return path


def read(options: argparse.Namespace, part: Part, say: Callable[[str], None]) -> Options:
    """Read the option file of a command line, look for what it names, and tell of its warnings.

    Raises:
        UsageError: it cannot be read or obeyed, or names what is not there.
    """
    from restore.training.options import check_paths, read_options

    path = option_file(options.opt, part, part)
    if path != Path(options.opt):
        say(f"note: {options.opt} is that of the installed package")
    forced = list(options.force_yml)
    if options.device == "cpu":
        forced.append("num_gpu=0")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_options(
            path,
            is_train=part == "train",
            forced=forced,
            debug=getattr(options, "debug", False),
        )
    for warning in caught:
        say(f"note: {warning.message}")
    check_paths(found)
    return found


@contextlib.contextmanager
def told_as_notes(say: Callable[[str], None]) -> Iterator[None]:
    """Around what warns on the way: the package's own warnings become notes, each told once."""
    told: set[str] = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def tell(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if category.__module__.partition(".")[0] != "restore":
                show(message, category, filename, lineno, file, line)
            elif str(message) not in told:
                told.add(str(message))
                say(f"note: {message}")

        warnings.showwarning = tell
        warnings.filterwarnings("default", category=UserWarning, module=r"restore\.")
        yield


def is_first_process() -> bool:
    """Whether this is the process, of those that torchrun started, that tells."""
    return os.environ.get("RANK", "0") == "0"


def data_line(data: DatasetOptions) -> str:
    """A data set of an option file, in words."""
    roots = data.dataroot_gt or data.dataroot_lq
    made = f", lq made by {data.task}" if data.type == "SingleHRDataset" else ""
    return f"  {data.key}: {data.name}, {', '.join(map(str, roots))}{made}"


def _first_words(file: Path) -> str:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    return first.lstrip("# ") if first.startswith("#") else ""
