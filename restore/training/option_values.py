"""Single values of option files: whether they fit what a field declares, and that in words."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from restore.training.option_file import Value
from restore.training.option_types import Flat, OneOrMore, Range, Section

LEFT_OUT: Final = object()  # in place of a value that does not fit
MOST = 2**53  # of all numbers: as many whole ones as a float can count


def hints_of(kind: type[Section]) -> Mapping[str, Any]:
    """What the fields of a section declare, by key."""
    hints = get_type_hints(kind, include_extras=True)
    return {key: hint for key, hint in hints.items() if key != "places"}


def marks(hint: Any) -> list[Any]:
    """Kinds of the marks on a declared type: Range, Flat, Rest, OneOrMore."""
    return [type(mark) for mark in get_args(hint)[1:]] if get_origin(hint) is Annotated else []


def flat_part(hint: Any) -> type[Section] | None:
    """The section whose keys stand among its neighbours', if the type is marked so."""
    kind: type[Section] | None = get_args(hint)[0] if Flat in marks(hint) else None
    return kind


def fitting(item: Value, hint: Any, root: Path | None) -> Any:
    """A value as the declared type, or LEFT_OUT.

    Args:
        item: of the file.
        hint: bool, int, float, str, Path, a Literal, tuples and unions of these, with ranges.
        root: where relative paths begin.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(item, inner, root)
    if origin in (Union, types.UnionType):
        made = (fitting(item, kind, root) for kind in inner)
        return next((value for value in made if value is not LEFT_OUT), LEFT_OUT)
    if origin is Literal:
        return item.content if item.content in inner else LEFT_OUT
    if origin is tuple:
        return _tuple(item, inner, root)
    if isinstance(item.content, (dict, tuple)) or item.content is None:
        return None if item.content is None and hint is types.NoneType else LEFT_OUT
    return _single(item, hint, root)


def _single(item: Value, hint: Any, root: Path | None) -> Any:
    content = item.content
    if hint is bool:
        return content if isinstance(content, bool) else LEFT_OUT
    if hint in (int, float):
        if isinstance(content, bool) or not isinstance(content, (int, float)):
            return LEFT_OUT
        if abs(content) > MOST or not math.isfinite(content):
            return LEFT_OUT
        if hint is float:
            return float(content)
        return int(content) if content == int(content) else LEFT_OUT
    if hint is str:
        # `name: 001` and `suffix: no` are text to whoever writes them
        return item.text or LEFT_OUT
    if hint is Path:
        path = Path(item.text).expanduser() if item.text.strip() else None
        return LEFT_OUT if path is None else root / path if root else path
    return LEFT_OUT


def _annotated(item: Value, inner: tuple[Any, ...], root: Path | None) -> Any:
    kind, *found = inner
    listed = any(isinstance(mark, OneOrMore) for mark in found)
    if listed and not isinstance(item.content, tuple):
        item = Value((item,), item.place)
    made = fitting(item, kind, root)
    for mark in found:
        if isinstance(mark, Range) and made is not LEFT_OUT:
            numbers = made if isinstance(made, tuple) else (made,)
            ordered = len(numbers) != 2 or numbers[0] <= numbers[1]
            if not (ordered and all(map(mark.holds, numbers))):
                return LEFT_OUT
    return made


def _tuple(item: Value, inner: tuple[Any, ...], root: Path | None) -> Any:
    if not isinstance(item.content, tuple):
        return LEFT_OUT
    open_end = inner[-1] is Ellipsis
    kinds = [inner[0]] * len(item.content) if open_end else list(inner)
    if len(kinds) != len(item.content) or not kinds:
        return LEFT_OUT
    made = tuple(fitting(part, kind, root) for part, kind in zip(item.content, kinds, strict=True))
    return LEFT_OUT if LEFT_OUT in made else made


def why_not(item: Value, hint: Any) -> str:
    """What the declared type in words leaves unsaid of a value that does not fit it, or ""."""
    parts = item.content if isinstance(item.content, tuple) else (item,)
    contents = [part.content for part in parts]
    numbers = [x for x in contents if isinstance(x, (int, float)) and not isinstance(x, bool)]
    if any(isinstance(x, float) and not math.isfinite(x) for x in numbers):
        return "; it has to be finite"
    far = [number for number in numbers if abs(number) > MOST]
    if far and _takes_numbers(hint):
        least = f", and -{MOST:,} the least" if far[0] < 0 else ""
        return f"; {MOST:,} (2**53) is the most that any number may be{least}"
    if _has_limits(hint) and len(numbers) == 2 and numbers[0] > numbers[1]:
        return "; the lesser one stands first"
    return ""


def _takes_numbers(hint: Any) -> bool:
    return hint in (int, float) or any(map(_takes_numbers, get_args(hint)))


def _has_limits(hint: Any) -> bool:
    """Whether it is, or may be, a least and a most."""
    inner = get_args(hint)
    if get_origin(hint) is Annotated:
        return get_origin(inner[0]) is tuple and Range in marks(hint)
    return get_origin(hint) in (Union, types.UnionType) and any(map(_has_limits, inner))


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    types.NoneType: "~",
}


def words(hint: Any) -> str:
    """A declared type, for messages."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        ranges = [mark for mark in inner[1:] if isinstance(mark, Range)]
        if OneOrMore in marks(hint):
            return f"{words(get_args(inner[0])[0])}, or a list of them"
        return ", ".join([words(inner[0]), *map(str, ranges)])
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 1 else json.dumps(inner[0])
    if origin is tuple:
        several = inner[-1] is Ellipsis
        if several or len(set(inner)) == 1:
            count = "" if several else f"{len(inner)} "
            return f"a list of {count}values, each {words(inner[0])}"
        return f"a list of {', '.join(map(words, inner))}"
    if origin in (Union, types.UnionType):
        return " or ".join(map(words, inner))
    if isinstance(hint, type) and issubclass(hint, Section):
        return "a section"
    return _WORDS.get(hint, "a section" if origin is Mapping else str(hint))
