"""From an option file's tree to typed sections, with every mistake told by file, line and key."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from restore.errors import UsageError
from restore.training.option_file import Value
from restore.training.option_types import Rest, Section
from restore.training.option_values import (
    LEFT_OUT,
    fitting,
    flat_part,
    hints_of,
    marks,
    why_not,
    words,
)

S = TypeVar("S", bound=Section)
MOST_TOLD = 12  # mistakes in one message


class Mistakes:
    """What is wrong in a file, gathered so that one run tells all of it."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}  # in order, each once

    def add(self, place: str, text: str) -> None:
        """One more."""
        self._lines[f"{place}: {text}"] = None

    def __len__(self) -> int:
        """How many."""
        return len(self._lines)

    def raise_any(self) -> None:
        """UsageError with all of them, one a line, if there are any."""
        if self._lines:
            more = len(self._lines) - MOST_TOLD
            last = [f"and {more} more"] if more > 0 else []
            raise UsageError("\n".join([*list(self._lines)[:MOST_TOLD], *last]))


def keys_of(kind: type[Section]) -> list[str]:
    """The keys that a section of an option file takes."""
    keys: list[str] = []
    for name, hint in hints_of(kind).items():
        flat = flat_part(hint)
        keys += keys_of(flat) if flat else [name]
    return keys


class Reader:
    """Reads sections into dataclasses; mistakes are gathered, and what they stand for left out.

    Args:
        mistakes: where they go.
        elsewhere: key to the sections that take it, for keys that stand in the wrong one.
        root: where relative paths begin.
    """

    def __init__(
        self, mistakes: Mistakes, elsewhere: Mapping[str, list[str]], root: Path | None = None
    ) -> None:
        self._mistakes = mistakes
        self._elsewhere = elsewhere
        self._root = root
        self._listed: set[str] = set()  # sections whose keys were told

    def section(self, kind: type[S], value: Value, name: str, /, **given: Any) -> S | None:
        """A section of the file as `kind`.

        Args:
            kind: its dataclass.
            value: of the file.
            name: as messages say it: "datasets.train"; "" at the top level.
            given: fields that the file does not tell.

        Returns:
            None if a field without default could not be read; then a mistake was told.
        """
        content = value.section
        if content is None:
            self._mistakes.add(
                value.place, f"key {name!r} is {value}; expected a section (indented keys)"
            )
            return None
        hints = {key: hint for key, hint in hints_of(kind).items() if key not in given}
        rest = next((key for key, hint in hints.items() if Rest in marks(hint)), None)
        if rest is None:
            self._refuse_unknown(content, [k for k in keys_of(kind) if k not in given], name)
        places = {"": value.place, **{key: item.place for key, item in content.items()}}
        read: dict[str, Any] = {}
        for key, hint in hints.items():
            flat = flat_part(hint)
            if flat:
                own = set(keys_of(flat))
                taken = {k: v for k, v in content.items() if k in own}
                part = self.section(flat, Value(taken, value.place), name)
                if part is not None:
                    read[key] = part
            elif key == rest:
                others = {k: v for k, v in content.items() if k not in hints}
                read[key] = {k: v.plain() for k, v in others.items()}
            else:
                made = self._field(kind, key, hint, content.get(key), value, name)
                if made is not LEFT_OUT:
                    read[key] = made
        try:
            return kind(**read, **given, places=places)
        except TypeError:
            if not len(self._mistakes):
                raise
            return None

    def _refuse_unknown(
        self, content: Mapping[str, Value], known: Sequence[str], name: str
    ) -> None:
        for key, item in content.items():
            if key in known:
                continue
            if len(self._mistakes) >= MOST_TOLD:  # a file of something else may have thousands
                self._mistakes.add(item.place, f"key {_join(name, key)!r} is not known")
                continue
            near = difflib.get_close_matches(key, known, n=1)
            homes = [home for home in self._elsewhere.get(key, []) if home != name]
            if near:
                hint = f"did you mean {near[0]!r}?"
            elif homes:
                hint = f"it belongs to {' or '.join(home or 'the top level' for home in homes[:3])}"
            elif name in self._listed:
                hint = "known are those above"
            else:
                self._listed.add(name)
                hint = f"known here: {', '.join(known)}"
            self._mistakes.add(item.place, f"key {_join(name, key)!r} is not known; {hint}")

    def _field(
        self, kind: type, key: str, hint: Any, item: Value | None, parent: Value, name: str
    ) -> Any:
        field = next(f for f in dataclasses.fields(kind) if f.name == key)
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if item is not None and item.content is not None:
            # None is a word in YAML, and means ~ to whoever writes it
            if not (item.content in ("None", "none") and type(None) in get_args(hint)):
                return self._fit(item, hint, _join(name, key))
        elif required:
            place = parent.place if item is None else item.place
            found = "is missing" if item is None else "is empty"
            self._mistakes.add(place, f"key {_join(name, key)!r} {found}; expected {words(hint)}")
        return LEFT_OUT

    def _fit(self, item: Value, hint: Any, name: str) -> Any:
        """A value as its field declares it, or LEFT_OUT after a mistake was told."""
        origin, inner = get_origin(hint), get_args(hint)
        kinds = [kind for kind in (hint, *inner) if _is_section(kind)]
        if origin is Mapping:
            return self._mapping(item, inner[1], name)
        if kinds and origin is tuple:
            return self._sections(item, kinds[0], name)
        if kinds:
            made = self.section(kinds[0], item, name)
            return LEFT_OUT if made is None else made
        fitted = fitting(item, hint, self._root)
        if fitted is LEFT_OUT:
            expected = words(hint) + why_not(item, hint)
            self._mistakes.add(item.place, f"key {name!r} is {item}; expected {expected}")
        return fitted

    def _mapping(self, item: Value, inner: Any, name: str) -> Any:
        if item.section is None:
            self._mistakes.add(item.place, f"key {name!r} is {item}; expected indented keys")
            return LEFT_OUT
        made = {key: self._fit(part, inner, _join(name, key)) for key, part in item.section.items()}
        return {key: value for key, value in made.items() if value is not LEFT_OUT}

    def _sections(self, item: Value, kind: type[Section], name: str) -> Any:
        if not isinstance(item.content, tuple):
            self._mistakes.add(item.place, f"key {name!r} is {item}; expected a list of sections")
            return LEFT_OUT
        made = [self.section(kind, part, f"{name}[{i}]") for i, part in enumerate(item.content)]
        return tuple(part for part in made if part is not None)


def _join(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)
