"""Option files as trees whose values know their lines.

YAML 1.1 as BasicSR reads it, with anchors and merges, but for: `1e-4` is a number, one key may not
stand twice in a section, and nothing of a file is ever run or constructed.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from restore.errors import UsageError, shown
from restore.special_files import special_file

LARGEST = 200_000  # bytes; the largest official file has 6000, and a second is to read any
MOST_VALUES = 10_000  # anchors can make few bytes many
MOST_DEPTH = 50
LONGEST_KEY, LONGEST_NUMBER = 200, 3000  # characters
_ARRIVAL = 1.0  # seconds until somebody writes to a pipe
PATIENCE = 60.0  # seconds until who does gives something

Scalar = str | int | float | bool | None
_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+")
_TAG = "tag:yaml.org,2002:"
_TEXT = ("str", "timestamp", "value", "merge")  # all text to us


@dataclass(frozen=True)
class Value:
    """One value of an option file.

    Attributes:
        content: a scalar, a list of values, or values by key.
        place: "file:line" of its key, or of itself in a list.
        text: a scalar as the file writes it.
    """

    content: Scalar | tuple[Value, ...] | dict[str, Value]
    place: str
    text: str = ""

    @property
    def section(self) -> dict[str, Value] | None:
        """Values by key, None where it is no section."""
        return self.content if isinstance(self.content, dict) else None

    def plain(self) -> Any:
        """Its content as plain Python: dict, list, scalar."""
        if isinstance(self.content, dict):
            return {key: value.plain() for key, value in self.content.items()}
        if isinstance(self.content, tuple):
            return [value.plain() for value in self.content]
        return self.content

    def __str__(self) -> str:
        """For messages."""
        if isinstance(self.content, dict):
            names = shown(", ".join(self.content), 200)
            return f"a section with {names}" if self.content else "an empty section"
        if isinstance(self.content, str):
            return repr(self.content if len(self.content) < 80 else self.content[:77] + "...")
        if isinstance(self.content, tuple):
            first = f"[{', '.join(shown(value) for value in self.content[:12])}"
            return first + (", ...]" if len(self.content) > 12 else "]")
        return "empty" if self.content is None else shown(self.text)


def read_file(path: str | Path) -> Value:
    """The tree of an option file.

    Raises:
        UsageError: it cannot be read, is not YAML, or has a key twice or a tag.
    """
    content = _parsed(_text(Path(path)), str(path))
    if content is None:
        raise UsageError(f"{path}: is empty; expected sections such as name, datasets, network_g")
    if content.section is None:
        raise UsageError(f"{content.place}: expected `key: value` lines; found {content}")
    return content


def forced(root: Value, entries: Sequence[str]) -> Value:
    """The tree with values of --force_yml put in, each "a:b=c" with c in YAML.

    Raises:
        UsageError: an entry has no "=", its value is not YAML, or it leads through a value that is
            no section. Sections on the way are made.
    """
    for entry in entries:
        keys, equals, text = entry.partition("=")
        names = [name.strip() for name in keys.split(":")]
        where = f"--force_yml {keys.strip()}"
        if not equals or not all(names):
            raise UsageError(
                f"--force_yml: {entry!r}; expected KEY:KEY=VALUE, as in train:ema_decay=0.999"
            )
        if len(names) == 1 and "." in names[0]:
            raise UsageError(
                f"--force_yml: {entry!r}; sections are joined by colons: "
                f"{names[0].replace('.', ':')}={text}"
            )
        empty = text.strip().lower() in ("", "none")  # as BasicSR
        value = None if empty else _parsed(text.strip(), where)
        root = _replaced(root, names, value or Value(None, where, text), where)
    return root


def _replaced(here: Value, names: list[str], value: Value, where: str) -> Value:
    section = here.section
    if section is None:
        if here.content is not None:
            raise UsageError(
                f"{where}: {here.place} is {here}, not a section; cannot go on from it"
            )
        section = {}
    name, *rest = names
    if rest:
        value = _replaced(section.get(name, Value({}, where)), rest, value, where)
    else:
        value = Value(value.content, where, value.text)
    return Value({**section, name: value}, here.place)


def _text(path: Path) -> str:
    try:
        special = special_file(path)
        if special == "a named pipe":  # as of a shell's <(...)
            content = _from_pipe(path)
        elif special:
            raise UsageError(f"{path}: is {special}; expected an option file (.yml)")
        else:
            with path.open("rb") as file:
                content = file.read(LARGEST + 1)
    except UsageError:  # which is a ValueError too
        raise
    except FileNotFoundError:
        near = f"; {path.parent} is not there" if not path.parent.is_dir() else ""
        raise UsageError(f"{path}: there is no such option file{near}") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder; expected an option file (.yml)") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a path that no system has
        raise UsageError(f"{shown(path)}: cannot be read: {error}") from None
    if len(content) > LARGEST:
        raise UsageError(f"{path}: has more than {LARGEST:,} bytes; is it an option file (.yml)?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}:{line}: is not UTF-8 (byte {content[error.start]:#04x}); save it as UTF-8"
        ) from None


def _from_pipe(path: Path) -> bytes:
    """What a pipe gives; UsageError where nobody writes to it."""
    # without waiting for a writer, who may never come
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    content, began = b"", time.monotonic()
    with open(descriptor, "rb", buffering=0) as file:
        while len(content) <= LARGEST:
            part = file.read(LARGEST)
            if part is None:  # nothing yet, of a writer who is there
                if not select.select([file], [], [], PATIENCE)[0]:
                    raise UsageError(f"{path}: is a pipe that gave nothing for {PATIENCE:.0f} s")
            elif part:
                content += part
            elif content or time.monotonic() - began > _ARRIVAL:
                break
            else:
                time.sleep(0.05)
    if not content:
        raise UsageError(f"{path}: is a pipe that nobody writes to; expected an option file (.yml)")
    return content


def _parsed(text: str, name: str) -> Value | None:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UsageError(_explained(error, text, name)) from None
    except RecursionError:
        raise UsageError(f"{name}: is nested too deep") from None
    # of numbers that stand for characters, as in "\U99999999"
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{name}: is not YAML: {shown(error)}") from None
    return None if node is None else _Tree(name).value(node)


def _explained(error: yaml.YAMLError, text: str, name: str) -> str:
    """A mistake in YAML, in words."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"{name}:{line}: has a character that YAML does not allow: {chr(error.character)!r}"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return f"{name}: {shown(error, 160)}"
    lines = text.splitlines()
    found = lines[mark.line] if mark.line < len(lines) else ""
    where = f"{name}:{mark.line + 1}"
    if (
        "\t" in found[: len(found) - len(found.lstrip())]
        or found[mark.column : mark.column + 1] == "\t"
    ):
        return f"{where}: has a tab; YAML takes spaces alone before a key"
    problem = getattr(error, "problem", None) or "is not YAML"
    there = f"; found {shown(repr(found.strip()))}" if found.strip() else ""
    return (
        f"{where}: {shown(problem, 160)}{there}; check the indentation, quotes and brackets there "
        "and in the line before"
    )


class _Tree:
    """From YAML nodes to values, with limits."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def value(self, node: Node, key: Node | None = None, depth: int = 0) -> Value:
        place = self._place(key or node)
        self._counted(place, depth)
        self._check_tag(node, place)
        if isinstance(node, ScalarNode):
            return Value(self._scalar(node, place), place, node.value)
        if isinstance(node, SequenceNode):
            items = tuple(self.value(item, None, depth + 1) for item in node.value)
            return Value(items, place)
        assert isinstance(node, MappingNode)
        return Value(self._section(node, depth), place)

    def _counted(self, place: str, depth: int) -> None:
        """One value more, or one section merged; UsageError where there is no end of them."""
        self._count += 1
        if self._count > MOST_VALUES or depth > MOST_DEPTH:
            much = f"more than {MOST_VALUES:,} values" if depth <= MOST_DEPTH else "no end of depth"
            raise UsageError(f"{place}: the file has {much}; does an anchor hold itself?")

    def _section(self, node: MappingNode, depth: int) -> dict[str, Value]:
        own: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        for key, item in node.value:
            place = self._place(key)
            if not isinstance(key, ScalarNode):
                raise UsageError(f"{place}: a key is a list or section; expected a name")
            if key.tag == _TAG + "merge":
                for part in self._merges(item, place):
                    self._counted(place, depth + 1)
                    merged = {**self._section(part, depth + 1), **merged}
                continue
            name = key.value
            if len(name) > LONGEST_KEY:
                raise UsageError(f"{place}: key {shown(repr(name))} is longer than any key")
            if name in own:
                raise UsageError(
                    f"{place}: key {shown(repr(name))} stands there already, at {own[name].place}; "
                    "keep one"
                )
            own[name] = self.value(item, key, depth + 1)
        return {**{name: merged[name] for name in merged if name not in own}, **own}

    def _merges(self, node: Node, place: str) -> Iterator[MappingNode]:
        parts = node.value if isinstance(node, SequenceNode) else [node]
        for part in parts:
            if not isinstance(part, MappingNode):
                raise UsageError(
                    f"{place}: << takes a section, such as *name; found {shown(repr(part.value))}"
                )
            yield part

    def _scalar(self, node: ScalarNode, place: str) -> Scalar:
        kind, text = node.tag.removeprefix(_TAG), str(node.value)
        if kind in _TEXT:
            plain = node.style is None and node.tag != _TAG + "timestamp"
            # what is longer is no number, and would take long to be seen as none
            is_number = plain and len(text) <= LONGEST_NUMBER and _NUMBER.fullmatch(text)
            return float(text.replace("_", "")) if is_number else text
        if ":" in text:
            return text  # YAML 1.1 takes 1:30 for ninety
        if kind == "null":
            return None
        if len(text) > LONGEST_NUMBER:
            raise UsageError(f"{place}: {shown(text)!r} is too long for a value of type {kind}")
        maker = yaml.constructor.SafeConstructor()
        try:
            made: Scalar = maker.yaml_constructors[node.tag](maker, node)
        except (ValueError, KeyError, IndexError):
            raise UsageError(f"{place}: {shown(repr(text))} is no {kind}") from None
        return made

    def _check_tag(self, node: Node, place: str) -> None:
        known = {"str", "int", "float", "bool", "null", "seq", "map", *_TEXT}
        kind = node.tag.removeprefix(_TAG) if node.tag.startswith(_TAG) else None
        fits = (isinstance(node, MappingNode), isinstance(node, SequenceNode))
        if kind not in known or (fits[0] != (kind == "map")) or (fits[1] != (kind == "seq")):
            tag = shown(node.tag.replace(_TAG, "!!"))
            raise UsageError(
                f"{place}: has the tag {tag}; option files take none but !!float, !!int, !!str, "
                "!!bool and !!null, and run nothing"
            )

    def _place(self, node: Node) -> str:
        if self._name.startswith("--"):
            return self._name
        return f"{self._name}:{node.start_mark.line + 1}"
