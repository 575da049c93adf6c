"""Damage inside of weight files: archives, pickles that want more than tensors, lying headers."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from damage_bytes import ANY, EDGES, flip_bits
from hostile_pickles import CANARY, HOSTILE, program_of_opcodes

Entries = list[tuple[str, bytes, int]]  # name, content, how it is packed


def damaged_part(rng: Random, data: bytes) -> bytes:
    """The same with one of the plain kinds of damage."""
    return rng.choice(ANY)(rng, data)


# archives


def _entries(data: bytes) -> Entries:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [(e.filename, archive.read(e), e.compress_type) for e in archive.infolist()]
    except Exception:  # a file of another kind, or damaged already
        return []


def _archive(entries: Entries) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # one name twice is what is wanted
        for name, content, packing in entries:
            # not writestr(name, ...): that stores the time
            info = zipfile.ZipInfo(name)
            info.compress_type = packing
            archive.writestr(info, content)
    return out.getvalue()


def archive_member(rng: Random, data: bytes) -> bytes:
    """One entry's content damaged, with the right checksum; mostly the program."""
    entries = _entries(data)
    if not entries:
        return damaged_part(rng, data)
    programs = [i for i, entry in enumerate(entries) if entry[0].endswith(".pkl")]
    number = (
        rng.choice(programs) if programs and rng.random() < 0.7 else rng.randrange(len(entries))
    )
    name, content, packing = entries[number]
    entries[number] = (name, damaged_part(rng, content), packing)
    return _archive(entries)


def archive_names(rng: Random, data: bytes) -> bytes:
    """Entries that are missing, called otherwise, or to be written elsewhere."""
    entries = _entries(data)
    if not entries:
        return damaged_part(rng, data)
    number = rng.randrange(len(entries))
    name, content, packing = entries[number]
    names = (
        *("../../../../tmp/out", "/tmp/out", "archive/../../out", "C:\\out", "archive/data/999"),
        *("archive/constants.pkl", "archive/data.pkl", "x" * 5000, "archive/\x1b[2J", "é\n", ""),
        *(f"../{CANARY}", f"/{CANARY}", "archive/byteorder", "archive/.format_version"),
    )
    change = rng.randrange(4)
    if change == 0:
        del entries[number]
    elif change == 1:
        entries[number] = (rng.choice(names), content, packing)
    elif change == 2:
        extra = rng.choice((content, b"big", b"9", rng.randbytes(50)))
        entries.insert(number, (rng.choice(names), extra, packing))
    else:
        kinds = (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        entries[number] = (name, content, rng.choice(kinds))
    return _archive(entries)


def archive_bomb(rng: Random, data: bytes) -> bytes:
    """An entry that unpacks to far more than the file has."""
    entries = _entries(data)
    size = rng.choice((2**20, 2**27, 2**28))
    name = rng.choice(("archive/data/0", "archive/data.pkl", "archive/other"))
    return _archive([(name, bytes(size), zipfile.ZIP_DEFLATED), *entries])


def archive_directory(rng: Random, data: bytes) -> bytes:
    """The list at the end: sizes, places, flags and checksums that are not those of the entries."""
    out = bytearray(data)
    places = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    ends = [i for i in range(len(data)) if data[i : i + 4] in (b"PK\x05\x06", b"PK\x06\x06")]
    for _ in range(rng.choice((1, 2, 3))):
        if places and rng.random() < 0.8:
            at = rng.choice(places) + rng.choice((8, 10, 16, 20, 20, 24, 24, 28, 30, 42, 42))
        elif ends:
            at = rng.choice(ends) + rng.choice((8, 10, 12, 16, 20))
        else:
            return damaged_part(rng, data)
        if at + 4 <= len(out):
            struct.pack_into("<I", out, at, rng.choice(EDGES) % 2**32)
    return bytes(out)


# pickles


def _with_program(data: bytes, program: bytes) -> bytes:
    """A file of the same kind that holds another program."""
    entries = _entries(data)
    if entries:
        named = [(n, program if n.endswith("data.pkl") else c, p) for n, c, p in entries]
        return _archive(named)
    head = io.BytesIO(data)
    for _before in range(3):  # what stands before the program: a mark, a version, the system
        try:  # looked through and not loaded: it may be a hostile one already
            for _ in pickletools.genops(head):
                pass
        except Exception:
            return program
    return data[: head.tell()] + program + pickle.dumps([], 2)


def hostile_program(rng: Random, data: bytes) -> bytes:
    """One that would run code, or end the process that reads it."""
    return _with_program(data, HOSTILE[rng.choice(sorted(HOSTILE))])


def odd_program(rng: Random, data: bytes) -> bytes:
    """Opcodes at random, all of which exist."""
    return _with_program(data, program_of_opcodes(rng))


class _Stored:
    """A persistent id, as PyTorch writes one for the numbers of a tensor."""

    def __init__(self, kind: Any, key: Any, place: Any, count: Any) -> None:
        self.id = ("storage", kind, key, place, count)


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.id if isinstance(obj, _Stored) else None


class _Tensor:
    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, self.arguments


def lying_tensor(rng: Random, data: bytes) -> bytes:
    """A tensor whose sizes, steps or place are not those of what is stored."""
    numbers = (0, 1, 5, -1, 2**20, 2**31, 2**40, 2**62, 2**63, -(2**63), 1.5, None, "7", (1,))
    counts = (4, 0, -1, 2**30, 2**40, "4", None, 1.5)
    kind = rng.choice((torch.FloatStorage, torch.HalfStorage, torch.ByteStorage, torch.LongStorage))
    key = rng.choice(("0", "1", "99", "../0", 0, None, "0\n"))
    place = rng.choice(("cpu", "cuda:0", "meta", "nowhere", 7))
    stored = _Stored(kind, key, place, rng.choice(counts))
    sides = rng.randrange(5)
    size = tuple(rng.choice(numbers) for _ in range(sides))
    steps = tuple(rng.choice((0, 0, 1, *numbers)) for _ in range(sides))
    tensor = _Tensor(stored, rng.choice(numbers[:8]), size, steps, False, {})
    names = (
        "conv_first.weight",
        "conv_first.bias",
        "norm.weight",
        "a",
        "",
        5,
        "x" * 10_000,
        "\x1b[2J",
    )
    out = io.BytesIO()
    _Pickler(out, 2).dump({rng.choice(names): tensor, "epoch": 1})
    return _with_program(data, out.getvalue())


def odd_content(rng: Random, data: bytes) -> bytes:
    """A whole file of torch.save that holds no state dict, or a strange one."""
    del data
    state: Any = {"conv_first.weight": torch.zeros(6, 3, 3, 3)}
    circle: dict[str, Any] = {}
    circle["params"] = circle
    wide = torch.zeros(1).expand(2**20, 2**10)
    contents: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: [state, state],
        lambda: circle,
        lambda: {"params": 5, "state_dict": "words"},
        lambda: {"params": {}},
        lambda: {("a", 1): torch.ones(2), 5: torch.ones(1)},
        lambda: {"x" * 100_000: torch.ones(2)},
        lambda: {"module." * 3000 + "a": torch.ones(2)},
        lambda: {"\x1b[31mred\n": torch.ones(2)},
        lambda: {**state, "a": torch.ones(2).to_sparse()},
        lambda: {**state, "a": torch.zeros(2, 3, device="meta")},
        lambda: {"conv_first.weight": wide},
        lambda: {"conv_first.weight": torch.full((6, 3, 3, 3), float("nan"))},
        lambda: {
            f"layers.{i}.residual_group.blocks.0.norm1.weight": torch.ones(6) for i in range(2000)
        },
        lambda: {"conv_first.weight": torch.zeros(0, 3, 3, 3)},
        lambda: {"conv_first.weight": torch.zeros(6, 3, 3, 3, dtype=torch.complex64)},
        lambda: torch.nn.Parameter(torch.ones(3)),
    )
    out = io.BytesIO()
    torch.save(rng.choice(contents)(), out, _use_new_zipfile_serialization=rng.random() < 0.6)
    return out.getvalue()


# safetensors


def _header(data: bytes) -> tuple[Any, bytes]:
    try:
        length = int.from_bytes(data[:8], "little")
        return json.loads(data[8 : 8 + length]), data[8 + length :]
    except (ValueError, RecursionError):
        return {}, data[8:]


def _safetensors(header: Any, rest: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def header_field(rng: Random, data: bytes) -> bytes:
    """A type, shape or place in the header at random."""
    header, rest = _header(data)
    tensors = [value for key, value in header.items() if key != "__metadata__"]
    if not tensors:
        return damaged_part(rng, data)
    entry = rng.choice(tensors)
    numbers = (*EDGES, -1, 1.5, None, "7", 2**70, 1e400)
    change = rng.randrange(5)
    if change == 0:
        kinds = (
            "F32",
            "F64",
            "F16",
            "BF16",
            "I64",
            "BOOL",
            "U8",
            "F8_E4M3",
            "F8_E5M2",
            "F4",
            "C64",
        )
        entry["dtype"] = rng.choice((*kinds, "U64", "F8_E8M0", "nothing", 5, None))
    elif change == 1:
        entry["shape"] = [rng.choice(numbers) for _ in range(rng.randrange(6))]
    elif change == 2:
        entry["data_offsets"] = [rng.choice(numbers) for _ in range(rng.choice((0, 1, 2, 2, 2, 3)))]
    elif change == 3:
        other = rng.choice(tensors)
        entry["data_offsets"], entry["shape"] = other["data_offsets"], other["shape"]
    else:
        entry[rng.choice(("dtype", "shape", "data_offsets", "more"))] = rng.choice(numbers)
    return _safetensors(header, rest)


def header_names(rng: Random, data: bytes) -> bytes:
    """Tensors missing, twice, renamed; metadata that tells wrong settings."""
    header, rest = _header(data)
    if len(header) < 2:
        return damaged_part(rng, data)
    key = rng.choice(sorted(header))
    change = rng.randrange(6)
    if change == 0:
        del header[key]
    elif change == 1:
        names = ("", "x" * 100_000, "\x1b[2J\n", "conv_first.weight", "\ud800", "é" * 50)
        header[rng.choice(names)] = header.pop(key)
    elif change == 2:  # one key twice, which no parsed object can hold
        text = json.dumps(header)
        return _safetensors(
            f"{text[:-1]}, {json.dumps(key)}: {json.dumps(header[key])}}}".encode(), rest
        )
    else:
        settings = (
            *(
                '{"img_range": 1e400}',
                '{"img_range": "x"}',
                '{"nothing": 1}',
                "[1, 2]",
                "{",
                "null",
            ),
            *('{"depths": [1000000000]}', '{"img_size": -1}', '{"embed_dim": ' + "9" * 5000 + "}"),
            *("[" * 50_000, '{"upscale": 1048576}', '{"window_size": 0}', '{"img_range": NaN}'),
            *('{"\\u001b[2J": 1}', '{"num_heads": []}', '{"x": "' + "y" * 50_000 + '"}'),
        )
        header["__metadata__"] = {"restore": "1", "config": rng.choice(settings)}
    return _safetensors(header, rest)


def header_text(rng: Random, data: bytes) -> bytes:
    """A header that is no object, is nested without end, or claims another length."""
    header, rest = _header(data)
    text = json.dumps(header).encode()
    change = rng.randrange(6)
    if change == 0:
        return (rng.choice(EDGES) % 2**64).to_bytes(8, "little") + text + rest
    if change == 1:
        nested = rng.choice((b"[" * 90_000, b'{"a":' * 90_000, b"null", b"5", b'"x"', b"{}", b"{"))
        return _safetensors(nested, rest)
    if change == 2:
        many = {
            f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)
        }
        return _safetensors(many, b"")
    if change == 3:
        return _safetensors(flip_bits(rng, text), rest)
    return _safetensors(damaged_part(rng, text), rest)


PTH = (
    *(archive_member, archive_member, archive_names, archive_directory, archive_directory),
    *(hostile_program, hostile_program, odd_program, lying_tensor, lying_tensor, lying_tensor),
    *(odd_content, odd_content),
)
SAFETENSORS = (header_field, header_field, header_field, header_names, header_names, header_text)
RARE = (archive_bomb,)  # takes a while to make
