"""What a pickle would do, read from its opcodes: nothing of it is done.

PyTorch's restricted reader is what keeps code from being run. This looks before that reads: it
names everything that a file wants, not the first thing alone, whatever PyTorch's release; and it
finds what that reader takes and no weights need, such as tuples in tuples so deep that hashing one
ends the process, or an array of zeros of any size.

Source: the opcodes as `pickletools` of Python's library describes them.
"""

from __future__ import annotations

import io
import pickletools
import re
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

# what files of tensors want, under the names of Python 2 and 3
_TENSORS = re.compile(
    r"collections\.(OrderedDict|Counter)|(__builtin__|builtins)\.(set|complex)|_codecs\.encode|"
    r"torch\.(Size|device|Tensor|serialization\._get_layout|nn\.parameter\.Parameter)|"
    r"torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|"
    r"torch\.(cuda\.|storage\.)?\w*Storage|"
    r"torch\.(per_(tensor|channel)_\w+|b?float\w+|u?int\w+|q?u?int\w+|complex\w+|bool|half|bits\w+)"
)
DEEPEST = 100  # containers in containers; weights in wrappers reach 10
LARGEST = 20_000_000  # things in things, where one may stand in several places
MOST_OPCODES = 3_000_000  # some thirty a tensor
# ops that make one thing of others, and those that put things into what is there
_MAKES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "DICT", "FROZENSET", "REDUCE", "NEWOBJ"}
_MAKES |= {"NEWOBJ_EX", "INST", "OBJ"}
_FILLS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"GET", "BINGET", "LONG_BINGET"}


@dataclass(frozen=True)
class Program:
    """What a pickle wants.

    Attributes:
        wanted: names of classes and functions that files of tensors do not need, sorted.
        endless: what makes it one that must not be read, in words; empty for nothing.
    """

    wanted: tuple[str, ...]
    endless: str = ""


class _Thing(NamedTuple):
    """What lies on the stack: how deep it is, how many things it holds, and a string's text."""

    depth: int
    size: int
    text: str = ""


class _Effect(NamedTuple):
    """What an op does to the stack."""

    name: str
    takes: int  # things off the stack, below a mark if there is one
    to_mark: bool  # and all above the last mark
    gives: int


def _effect(op: Any) -> _Effect:
    before = list(op.stack_before)
    to_mark = pickletools.stackslice in before
    if to_mark:
        before = before[: before.index(pickletools.markobject)]
    return _Effect(op.name, len(before), to_mark, len(op.stack_after))


_EFFECTS = {op.code: _effect(op) for op in pickletools.opcodes}
_PLAIN = _Thing(0, 1)


def examine(source: BinaryIO | bytes) -> Program:
    """Read a pickle from a file's present position up to its end mark, or to where it goes wrong.

    Raises:
        ValueError: it is none, or is cut short.
    """
    machine = _Machine()
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        for number, (op, argument, _) in enumerate(pickletools.genops(file)):
            machine.step(_EFFECTS[op.code], argument)
            if number > MOST_OPCODES:
                machine.endless = f"it has more than {MOST_OPCODES:,} steps"
            if machine.endless:
                break
    except (ValueError, LookupError, OverflowError, MemoryError) as error:
        raise ValueError("its pickle is damaged") from error
    return Program(tuple(sorted(machine.wanted)), machine.endless)


class _Machine:
    """The stack and the memory of the pickle machine, with depths and sizes in place of things."""

    def __init__(self) -> None:
        self.wanted: set[str] = set()
        self.endless = ""
        self._stack: list[_Thing | None] = []  # None is a mark
        self._memory: dict[int, _Thing] = {}

    def step(self, op: _Effect, argument: Any) -> None:
        """Do what an op does to the stack."""
        name, stack = op.name, self._stack
        if name in _PUTS:
            top = stack[-1]
            if top is not None:
                self._memory[len(self._memory) if name == "MEMOIZE" else argument] = top
        elif name in _GETS:
            stack.append(self._memory[argument])
        elif name == "MARK":
            stack.append(None)
        elif op.takes == 0 and not op.to_mark:
            if name == "GLOBAL":
                self._want(".".join(argument.split(" ", 1)))
            if op.gives:
                stack.append(_Thing(0, 1, argument) if isinstance(argument, str) else _PLAIN)
        else:
            self._combine(op, argument, self._taken(op))

    def _combine(self, op: _Effect, argument: Any, taken: list[_Thing]) -> None:
        if op.name == "INST":
            self._want(".".join(argument.split(" ", 1)))
        if op.name == "STACK_GLOBAL":
            self._want(".".join(thing.text for thing in taken))
        if op.name in _FILLS:
            within = 1 + max((thing.depth for thing in taken[1:]), default=-1)
            self._push(max(taken[0].depth, within), sum(thing.size for thing in taken))
        elif op.name in _MAKES:
            depth = 1 + max((thing.depth for thing in taken), default=0)
            self._push(depth, 1 + sum(thing.size for thing in taken))
        else:
            for kept in range(op.gives):  # DUP leaves what it found
                self._stack.append(taken[kept] if kept < len(taken) else _PLAIN)

    def _push(self, depth: int, size: int) -> None:
        if depth > DEEPEST:
            self.endless = f"more than {DEEPEST} containers lie in each other"
        elif size > LARGEST:
            self.endless = "containers hold each other without end"
        self._stack.append(_Thing(depth, size))

    def _taken(self, op: _Effect) -> list[_Thing]:
        """What an op takes off the stack, the lowest first."""
        stack, taken = self._stack, list[_Thing]()
        if op.to_mark:
            while (thing := stack.pop()) is not None:
                taken.append(thing)
        for _ in range(op.takes):
            below = stack.pop()
            if below is None:
                raise LookupError("a mark stands where a thing is expected")
            taken.append(below)
        taken.reverse()
        return taken

    def _want(self, name: str) -> None:
        if not _TENSORS.fullmatch(name):
            self.wanted.add(name)
