"""Pickles that would run code, fill the memory or end the process that reads them.

None of them does harm if it runs: what they would do is to make an empty folder of a known name.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
from random import Random
from typing import Any

CANARY = "restore-was-made-to-run-code"  # in the current folder


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def by_name(module: str, name: str, *arguments: str) -> bytes:
    """A program that calls a function of strings, in protocol 2."""
    given = b"".join(_text(argument) for argument in arguments)
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + given + b"tR."


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def by_stack(module: str, name: str, *arguments: str) -> bytes:
    """The same in protocol 4, which takes the function's name from two strings."""
    given = b"".join(_text(argument) for argument in arguments)
    return b"\x80\x04" + _text(module) + _text(name) + b"\x93(" + given + b"tR."


_MAKE = f"import os; os.mkdir({CANARY!r})"
HOSTILE: dict[str, bytes] = {
    "os.mkdir": by_name("os", "mkdir", CANARY),
    "posix.mkdir": by_name("posix", "mkdir", CANARY),
    "os.system": by_name("os", "system", f"mkdir {CANARY}"),
    "builtins.eval": by_name("builtins", "eval", f"__import__('os').mkdir({CANARY!r})"),
    "builtins.exec": by_name("__builtin__", "exec", _MAKE),
    "builtins.getattr": by_name("builtins", "getattr", "os", "mkdir"),
    "builtins.__import__": by_name("builtins", "__import__", "this"),
    "builtins.open": by_name("builtins", "open", CANARY, "w"),
    "subprocess.Popen": by_name("subprocess", "Popen", f"mkdir {CANARY}"),
    "subprocess.check_output": by_stack("subprocess", "check_output", f"mkdir {CANARY}"),
    "os.mkdir by stack": by_stack("os", "mkdir", CANARY),
    "runpy._run_code": by_name("runpy", "_run_code", _MAKE, "x"),
    "pty.spawn": by_name("pty", "spawn", f"mkdir {CANARY}"),
    "webbrowser.open": by_name("webbrowser", "open", "http://127.0.0.1:9/"),
    "shutil.rmtree": by_name("shutil", "rmtree", CANARY),
    "pathlib.Path": by_name("pathlib", "Path", CANARY),
    "numpy reconstruct": by_name("numpy.core.multiarray", "_reconstruct", "x", "y"),
    "numpy load": by_name("numpy", "load", CANARY),
    "pickle.loads": by_name("pickle", "loads", CANARY),
    "torch.load": by_name("torch", "load", CANARY),
    "torch.hub.load": by_name("torch.hub", "load", CANARY, "x"),
    "torch.jit.load": by_name("torch.jit", "load", CANARY),
    "torch.save": by_name("torch", "save", "x", CANARY),
    "torch._utils.storage": by_name("torch.storage", "_load_from_bytes", CANARY),
    "torch tensor method": by_name("torch._tensor", "Tensor.to", CANARY),
    "functools.partial": by_name("functools", "partial", "x"),
    "inst": b"\x80\x02(X\x05\0\0\0hello" + b"ios\nmkdir\n.",
    "obj": b"\x80\x02(cos\nmkdir\n" + _text(CANARY) + b"o.",
    "newobj": b"\x80\x02cos\nmkdir\n" + _text(CANARY) + b"\x85\x81.",
    "build": b"\x80\x02ccollections\nOrderedDict\n)R}" + _text("get") + b"K\x01sb.",
    "extension": b"\x80\x02\x82\x01.",
    "bytearray of a billion": b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "bytearray of Python 2": b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "deep tuples as a key": b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.",
    "tuples that double as a key": b"\x80\x02})" + b"q\0h\0\x86" * 60 + b"K\x01s.",
    "deep lists": b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".",
    "a string of 4 GB": b"\x80\x02X\xff\xff\xff\xffabc.",
    "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "bytes of 8 EB": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.",
    "a frame of 8 EB": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f}.",
    "marks alone": b"\x80\x02" + b"(" * 100_000 + b".",
    "ends at once": b"\x80\x02.",
    "takes what is not there": b"\x80\x02R.",
    "remembers what is not there": b"\x80\x02h\x07.",
    "shadowed methods": (
        b"\x80\x02ccollections\nOrderedDict\n)R}("
        + b"".join(_text(name) + b"K\x01" for name in ("get", "items", "keys", "pop"))
        + b"ub."
    ),
    "in a state dict": pickle.dumps({"params": {"a": Calls(print, "hello")}}, 2),
    "in a key": pickle.dumps({Calls(int, "5"): 1}, 2),
}

_OPCODES = [op for op in pickletools.opcodes if op.name not in ("STOP", "PROTO", "FRAME")]
_GLOBALS = (
    *(
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch FloatStorage",
        "torch Size",
    ),
    *(
        "torch._utils _rebuild_parameter",
        "torch device",
        "builtins set",
        "_codecs encode",
        "os mkdir",
    ),
    *("torch.nn.parameter Parameter", "torch Tensor", "torch._tensor _rebuild_from_type_v2"),
    *("torch float32", "torch.storage UntypedStorage", "torch._utils _rebuild_sparse_tensor"),
)


def program_of_opcodes(rng: Random) -> bytes:
    """A pickle of opcodes at random, with arguments of the right form."""
    out = [b"\x80\x02"]
    for _ in range(rng.choice((5, 20, 100))):
        op = rng.choice(_OPCODES)
        out.append(op.code.encode("latin-1") + _argument(rng, op))
    return b"".join(out) + b"."


def _argument(rng: Random, op: Any) -> bytes:
    if op.arg is None:
        return b""
    if op.name in ("GLOBAL", "INST"):
        module, name = rng.choice(_GLOBALS).split()
        return f"{module}\n{name}\n".encode()
    if op.arg.n > 0:
        return rng.randbytes(op.arg.n)
    if op.arg.n == pickletools.UP_TO_NEWLINE:
        return rng.choice((b"1", b"-5", b"'x'", b"1.5", b"99999999999999999999", b"L", b"")) + b"\n"
    width = {
        pickletools.TAKEN_FROM_ARGUMENT1: 1,
        pickletools.TAKEN_FROM_ARGUMENT4: 4,
        pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    }.get(op.arg.n, 8)
    text = rng.choice((b"", b"a", b"conv_first.weight", b"cpu", b"storage", b"\xff\xfe"))
    return len(text).to_bytes(width, "little") + text
