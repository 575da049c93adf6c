"""`restore models`: the models that there are, and copies of official ones on this machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.commands.parsing import Parser, at_least_one, new_parser
from restore.commands.screen import BytesBar, Screen, complain, show
from restore.commands.text import plural
from restore.errors import RestoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from restore.catalogue.entries import Entry

ACTIONS = {
    "get": "download official models into the cache",
    "add": "take files that you downloaded by hand into the cache",
    "show": "say all that is known of an official model",
    "where": "print the cache's folder, or the paths of models in it",
    "verify": "read the models in the cache again and compare their checksums",
}
_DONE, _SOME_FAILED, _INTERRUPTED = 0, 1, 130

_LIST_EPILOG = """\
actions:
{actions}

`restore models ACTION --help` explains one, with examples.

examples:
  restore models                                  all of them
  restore models --family hat --scale 4           some
  restore models --task denoising --json          for programs, with every published figure
  restore models get SwinIR-M-classical-x4-DF2K   to use it: restore upscale photo.jpg -n NAME
"""
_GET_EPILOG = """\
A name is one of `restore models`, or the authors' name of the file. What came is checked before it
gets its name: length, SHA-256 where one is known, and that it holds the published network. An
interrupted download goes on where it stopped. Proxies are taken from HTTPS_PROXY and NO_PROXY,
certificates from the system or SSL_CERT_FILE, the folder from RESTORE_CACHE.

examples:
  restore models get SwinIR-M-real-world-x4-GAN
  restore models get 002_lightweightSR_DIV2K_s64w8_SwinIR-S_x2.pth --to weights
  restore models get HAT-x4         says how to take it from its page, which wants a browser

exit codes: 0 all are there; 1 some are not, each with its reason; 2 a name is not known, and
nothing was begun; 130 interrupted, and what came is kept
"""
_ADD_EPILOG = """\
examples:
  restore models add ~/Downloads/HAT_SRx4.pth                recognised by checksum, name or network
  restore models add model_best.pth --as Uformer-B-SIDD      where nothing of that tells it
"""
_WHERE_EPILOG = """\
examples:
  restore models where
  restore models where HAT-x4 && restore bench -n "$(restore models where HAT-x4)" -d Set5
"""


def run_models(words: list[str]) -> int:
    """Do what the words after `restore models` say; gives the exit code."""
    if words and words[0] in ACTIONS:
        parser = _PARSERS[words[0]]()
        return _RUN[words[0]](parser.parse(words[1:]))
    if words and not words[0].startswith("-"):
        raise UsageError(_no_action(words[0]))
    return _list(list_parser().parse(words))


def _no_action(word: str) -> str:
    from restore.catalogue.entries import known_as

    told = f"there is no action {word!r} of models; expected {', '.join(ACTIONS)}"
    return f"{told}; did you mean: restore models show {word}?" if known_as(word) else told


def list_parser() -> Parser:
    """Of `restore models` without an action."""
    actions = "\n".join(f"  {name:<7} {what}" for name, what in ACTIONS.items())
    parser = new_parser(
        "restore models",
        "List the built-in models, and the official ones that can be had.",
        _LIST_EPILOG.format(actions=actions),
    )
    parser.usage = "restore models [--family NAME] [--scale N] [--task NAME] | ACTION ..."
    group = parser.add_argument_group("which")
    group.add_argument("--family", metavar="NAME", help="such as hat or hit-sr")
    group.add_argument("--scale", type=at_least_one, metavar="N", help="1 keeps the size")
    group.add_argument("--task", metavar="NAME", help="such as denoising, jpeg or real-world")
    group.add_argument("--cached", action="store_true", help="those in the cache alone")
    parser.add_argument("--json", action="store_true", help="write JSON to standard output")
    return parser


def _get_parser() -> Parser:
    parser = new_parser("restore models get", "Download official models.", _GET_EPILOG)
    parser.add_argument("names", nargs="+", metavar="NAME", help="see `restore models`")
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="in place of the cache (-n looks there alone)"
    )
    parser.add_argument(
        "--offline", action="store_true", help="only look whether they are there; no connection"
    )
    parser.add_argument("--force", action="store_true", help="also those that are there")
    parser.add_argument("-q", "--quiet", action="store_true", help="tell only what went wrong")
    return parser


def _add_parser() -> Parser:
    parser = new_parser(
        "restore models add",
        "Copy weight files into the cache, once they are seen to be official models.",
        _ADD_EPILOG,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="of weights")
    parser.add_argument("--as", dest="name", metavar="NAME", help="the official model that it is")
    parser.add_argument("-q", "--quiet", action="store_true", help="tell only what went wrong")
    return parser


def _show_parser() -> Parser:
    parser = new_parser("restore models show", "Say all that is known of official models.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="see `restore models`")
    parser.add_argument("--json", action="store_true", help="write JSON to standard output")
    return parser


def _where_parser() -> Parser:
    parser = new_parser(
        "restore models where", "Print where models lie, one a line.", _WHERE_EPILOG
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="of official models (default: the folder)"
    )
    return parser


def _verify_parser() -> Parser:
    parser = new_parser(
        "restore models verify",
        "Read models in the cache again; compare them with the catalogue, or with what they were\n"
        "when they came, and open them.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="(default: all that are there)")
    parser.add_argument("-q", "--quiet", action="store_true", help="tell only what went wrong")
    return parser


def _list(options: argparse.Namespace) -> int:
    from restore.catalogue.cache import is_here, models_folder
    from restore.catalogue.entries import chosen
    from restore.commands.info import builtin_facts, builtin_lines
    from restore.commands.models_text import facts_of_entry, list_lines

    entries = chosen(options.family, options.scale, options.task)
    if options.cached:
        entries = tuple(entry for entry in entries if is_here(entry))
    narrowed = options.family or options.scale or options.task
    built_in = [] if narrowed else builtin_facts()
    if options.json:
        facts = [{"kind": "built-in", **one} for one in built_in]
        show(*json.dumps([*facts, *map(facts_of_entry, entries)], indent=2).splitlines())
        return _DONE
    if built_in:
        show(*builtin_lines(built_in), "")
    elif not narrowed:
        show("this installation holds no built-in model", "")
    if not entries:
        where = f" in the cache ({models_folder()})" if options.cached else ""
        show(f"no official model {'of that kind ' if narrowed else ''}is there{where}")
        return _DONE
    show(*list_lines(entries))
    return _DONE


def _show(options: argparse.Namespace) -> int:
    from restore.catalogue.entries import find
    from restore.commands.models_text import entry_lines, facts_of_entry

    entries = [find(name) for name in options.names]
    if options.json:
        show(*json.dumps([facts_of_entry(entry) for entry in entries], indent=2).splitlines())
    else:
        for entry in entries:
            show(*entry_lines(entry))
    return _DONE


def _get(options: argparse.Namespace) -> int:
    from restore.catalogue.cache import part_bytes
    from restore.catalogue.entries import find
    from restore.catalogue.getting import get

    if options.offline and options.force:
        raise UsageError("--force downloads and --offline forbids it; give one of them")
    screen = Screen(options.quiet, verbose=False)
    entries = list(dict.fromkeys(find(name) for name in options.names))

    def one(entry: Entry) -> None:
        with BytesBar(entry.name, options.quiet) as bar:
            path, is_new = get(
                entry,
                options.to,
                force=options.force,
                offline=options.offline,
                progress=bar.progress,
                say=bar.say,
            )
        screen.say(f"{entry.name}: {'downloaded' if is_new else 'is there'}: {path}")
        if is_new and entry.sha256 is None:
            screen.say(f"  note: nobody publishes its SHA-256; it holds {entry.model.variant}")
        if options.to is None:
            screen.say(f"  to use it: restore upscale PICTURE -n {entry.name}")

    def interrupted(entry: Entry) -> str:
        kept = part_bytes(entry, options.to)
        return f"interrupted; {kept:,} bytes of {entry.name} are kept for the same command"

    return _each(entries, one, interrupted)


def _each(
    entries: list[Entry], do: Callable[[Entry], None], interrupted: Callable[[Entry], str]
) -> int:
    """Do something with each; what fails does not stop the others."""
    failed = 0
    for entry in entries:
        try:
            do(entry)
        except KeyboardInterrupt:
            complain(interrupted(entry))
            return _INTERRUPTED
        except RestoreError as error:
            failed += 1
            complain(str(error))
    if failed and len(entries) > 1:
        complain(f"{failed} of {plural(len(entries), 'model')} failed")
    return _SOME_FAILED if failed else _DONE


def _add(options: argparse.Namespace) -> int:
    from restore.catalogue.getting import add

    if options.name and len(options.files) > 1:
        raise UsageError("--as names one model; give one file with it")
    screen = Screen(options.quiet, verbose=False)
    failed = False
    for file in options.files:
        try:
            entry, path = add(file, options.name)
        except RestoreError as error:
            complain(str(error))
            failed = True
            continue
        screen.say(f"{file}: {entry.name}: {path}")
        screen.say(f"  to use it: restore upscale PICTURE -n {entry.name}")
    return _SOME_FAILED if failed else _DONE


def _where(options: argparse.Namespace) -> int:
    from restore.catalogue.cache import is_here, models_folder, stored_path
    from restore.catalogue.entries import find

    if not options.names:
        show(str(models_folder()))
        return _DONE
    missing = False
    for entry in [find(name) for name in options.names]:
        if is_here(entry):
            show(str(stored_path(entry)))
        else:
            complain(f"{entry.name}: is not in the cache; restore models get {entry.name}")
            missing = True
    return _SOME_FAILED if missing else _DONE


def _verify(options: argparse.Namespace) -> int:
    from restore.catalogue.cache import models_folder, stored_path
    from restore.catalogue.entries import catalogue, find
    from restore.catalogue.getting import verify

    screen = Screen(options.quiet, verbose=False)
    named = [find(name) for name in options.names]
    there = [entry for entry in catalogue() if stored_path(entry).exists()]
    if not (named or there):
        screen.say(f"no official model is in the cache, {models_folder()}")

    def one(entry: Entry) -> None:
        path = stored_path(entry)
        with BytesBar(entry.name, options.quiet) as bar:
            told = verify(path, entry, bar.progress)
        screen.say(f"{entry.name}: ok ({told})")

    return _each(named or there, one, lambda entry: "interrupted")


_PARSERS: dict[str, Callable[[], Parser]] = {
    "get": _get_parser,
    "add": _add_parser,
    "show": _show_parser,
    "where": _where_parser,
    "verify": _verify_parser,
}
_RUN: dict[str, Callable[[Any], int]] = {
    "get": _get,
    "add": _add,
    "show": _show,
    "where": _where,
    "verify": _verify,
}
