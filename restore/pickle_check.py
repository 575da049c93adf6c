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
from dataclasses import dataclass, field
from typing import Any, BinaryIO

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
MOST_OPCODES = 3_000_000  # some fifty a tensor
# ops that make one thing of others, and those that put things into what is there
_MAKES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "DICT", "FROZENSET", "REDUCE", "NEWOBJ"}
_MAKES |= {"NEWOBJ_EX", "INST", "OBJ"}
_FILLS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}


@dataclass
class Program:
    """What a pickle wants.

    Attributes:
        wanted: names of classes and functions that files of tensors do not need, sorted.
        deepest: how many containers lie in each other.
        largest: how many things the largest holds; one that stands in it twice counts twice.
    """

    wanted: list[str] = field(default_factory=list)
    deepest: int = 0
    largest: int = 0


@dataclass(frozen=True)
class _Thing:
    depth: int = 0
    size: int = 1
    text: str = ""  # of a string, for the op that takes a name from two of them


def examine(source: BinaryIO | bytes) -> Program:
    """Read a pickle from a file's present position up to its end mark.

    Raises:
        ValueError: it is none, is cut short, or has more than MOST_OPCODES.
    """
    machine = _Machine()
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        for number, (op, argument, _) in enumerate(pickletools.genops(file)):
            if number > MOST_OPCODES:
                raise ValueError(f"it has more than {MOST_OPCODES:,} steps")
            machine.step(op, argument)
    except (IndexError, KeyError, UnicodeError, OverflowError, MemoryError) as error:
        raise ValueError("its steps contradict each other") from error
    return Program(sorted(machine.wanted), machine.deepest, machine.largest)


class _Machine:
    """The stack and the memory of the pickle machine, holding depths instead of things."""

    def __init__(self) -> None:
        self.wanted: set[str] = set()
        self.deepest = self.largest = 0
        self._stack: list[_Thing | None] = []  # None is a mark
        self._memory: dict[int, _Thing] = {}

    def step(self, op: Any, argument: Any) -> None:
        """Do what an op does to the stack."""
        name = op.name
        if name in ("GLOBAL", "INST"):
            self._want(".".join(str(argument).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            module, what = self._stack[-2], self._stack[-1]
            self._want(f"{module.text if module else ''}.{what.text if what else ''}")
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            top = self._stack[-1]
            if top is not None:
                self._memory[len(self._memory) if name == "MEMOIZE" else argument] = top
            return
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memory[argument])
            return
        elif name == "MARK":
            self._stack.append(None)
            return
        taken = self._taken(op)
        if name in _FILLS:
            within = 1 + max((thing.depth for thing in taken[1:]), default=-1)
            self._push(_Thing(max(taken[0].depth, within), sum(thing.size for thing in taken)))
        elif name in _MAKES:
            depth = 1 + max((thing.depth for thing in taken), default=0)
            self._push(_Thing(depth, 1 + sum(thing.size for thing in taken)))
        else:
            text = argument if isinstance(argument, str) and "UNICODE" in name else ""
            for kept in range(len(op.stack_after)):
                # DUP leaves what it found
                self._push(taken[kept] if kept < len(taken) else _Thing(text=text))

    def _push(self, thing: _Thing) -> None:
        self.deepest = max(self.deepest, thing.depth)
        self.largest = max(self.largest, thing.size)
        self._stack.append(thing)

    def _taken(self, op: Any) -> list[_Thing]:
        """What an op takes off the stack, the lowest first."""
        before = list(op.stack_before)
        taken: list[_Thing] = []
        if pickletools.stackslice in before:
            while (thing := self._stack.pop()) is not None:
                taken.insert(0, thing)
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            thing = self._stack.pop()
            if thing is not None:
                taken.insert(0, thing)
        return taken

    def _want(self, name: str) -> None:
        if not _TENSORS.fullmatch(name):
            self.wanted.add(name)
