"""Damage inside of option files: YAML that swells, nests, lies about types, or is no text."""

from __future__ import annotations

import re
from random import Random

from damage_bytes import ANY, Mutator

_VALUE = re.compile(rb"(?m)^([ -]*[\w.]+:)[ \t]*(\S[^\n]*)$")
_KEY = re.compile(rb"(?m)^( *)([\w.]+):")

ODD_VALUES = (
    *(
        "",
        "~",
        "null",
        "true",
        "no",
        "[]",
        "{}",
        "[[]]",
        "{a: {b: {c: d}}}",
        "-1",
        "0",
        "1e400",
        "-.inf",
    ),
    *(
        ".nan",
        "1e-400",
        "0x7fffffffffffffff",
        "9" * 300,
        "9" * 5000,
        "0x" + "f" * 5000,
        "0b" + "1" * 9000,
    ),
    *(
        "1_000_000",
        "1:30",
        "190:20:30",
        "2001-12-14t21:59:43.10-05:00",
        "=",
        "<<",
        "0o17",
        "089",
        "1.5.2",
    ),
    *("'unclosed", '"\\u0000"', '"\\U99999999"', '"\\x1b[2J"', '"a\\nb"', "'../../../etc/passwd'"),
    *("/dev/zero", "/dev/stdin", '"\\0"', "'" + "x" * 300 + "'", "'" + "y" * 100_000 + "'"),
    *(
        "!!python/object/apply:os.system ['echo']",
        "!!python/name:os.system",
        "!!python/object:x.y {}",
    ),
    *(
        "!!python/module:os",
        "!!binary aGVsbG8=",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!local x",
        "!<!> x",
    ),
    *(
        "!!int x",
        "!!float []",
        "!!bool 7",
        "!!null 5",
        "!!timestamp x",
        "!!str [1]",
        "!!map [1]",
        "!!seq {}",
    ),
    *("*nothing", "&a [*a]", "&a {b: *a}", "&a {<<: *a}", "{<<: 5}", "{<<: [[1]]}", "? [a]\n: b"),
    *(
        "|\n  words\n  more",
        ">-\n  words",
        "# nothing",
        "@at",
        "`tick",
        "%percent",
        "- a",
        "a: b: c",
        "[a, b",
    ),
    *(
        "{a: b",
        "]",
        "}",
        "\t",
        "\tx",
        "x\ty",
        "\x85",
        "é",
        "\U0001f600",
        "\u202eabc",
        "1e5",
        "+5",
        "._5",
        "٣",
    ),
    *(
        "[" + "0," * 9000 + "]",
        "{" + ",".join(f"k{i}: 1" for i in range(9000)) + "}",
        "1" * 200_000 + "x",
    ),
)
ODD_KEYS = (
    *(
        "'a\\nb'",
        '"\\x1b[31m"',
        "? [a, b]",
        "<<",
        "null",
        "~",
        "1",
        "1.5",
        "true",
        "''",
        "é",
        "\U0001f600",
    ),
    *(
        "x" * 100,
        "x" * 5000,
        "!!python/object:os.system x",
        "*a",
        "&a b",
        "datasets",
        "name",
        "train",
        "type",
    ),
)


def value(rng: Random, data: bytes) -> bytes:
    """Another value for a key, of a type that it does not take."""
    found = list(_VALUE.finditer(data))
    if not found:
        return rng.choice(ANY)(rng, data)
    match = rng.choice(found)
    new = rng.choice(ODD_VALUES).encode("utf-8", "surrogatepass")
    return data[: match.start(2)] + new + data[match.end(2) :]


def key(rng: Random, data: bytes) -> bytes:
    """Another key, or one twice."""
    found = list(_KEY.finditer(data))
    if not found:
        return rng.choice(ANY)(rng, data)
    match = rng.choice(found)
    if rng.random() < 0.3:
        line_end = data.find(b"\n", match.end()) + 1 or len(data)
        return data[:line_end] + data[match.start() : line_end] + data[line_end:]
    return data[: match.start(2)] + rng.choice(ODD_KEYS).encode() + data[match.end(2) :]


def lines(rng: Random, data: bytes) -> bytes:
    """Lines missing, elsewhere, or indented otherwise."""
    all_lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 3, 10))):
        at, change = rng.randrange(len(all_lines)), rng.randrange(5)
        if change == 0 and len(all_lines) > 1:
            del all_lines[at]
        elif change == 1:
            all_lines[at] = b" " * rng.randrange(6) + all_lines[at].lstrip()
        elif change == 2:
            all_lines[at] = b"\t" + all_lines[at]
        elif change == 3:
            all_lines.insert(rng.randrange(len(all_lines)), all_lines[at])
        else:
            all_lines[at] = all_lines[at].replace(b":", rng.choice((b"", b"::", b" :", b": -")))
    return b"\n".join(all_lines)


def encoding(rng: Random, data: bytes) -> bytes:
    """Another encoding, marks of byte order, control characters."""
    text = data.decode("utf-8", "replace")
    change = rng.randrange(6)
    if change == 0:
        return text.encode(rng.choice(("utf-16", "utf-16-be", "utf-32", "utf-7", "cp037")))
    if change == 1:
        return (
            rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff", b"\xef\xbb"))
            + data
        )
    if change == 2:
        return data.replace(
            b"\n", rng.choice((b"\r", b"\r\n", b"\n\r", "\u2028".encode(), b"\x85", b"\0"))
        )
    if change == 3:
        at = rng.randrange(len(data) + 1)
        marks = (
            b"\0",
            b"\x1b",
            b"\x07",
            b"\x7f",
            b"\xc3",
            b"\xed\xa0\x80",
            "\ufeff".encode(),
            b"\xff",
        )
        return data[:at] + rng.choice(marks) + data[at:]
    if change == 4:
        return text.encode("latin-1", "replace") + "\nname: caf\u00e9\n".encode("latin-1")
    return b"%YAML 9.9\n---\n" + data + rng.choice((b"", b"\n...\n---\nname: b\n", b"\n--- !x\n"))


def bomb(rng: Random, data: bytes) -> bytes:
    """Few bytes that stand for many values, or for none that ends."""
    laughs = b"a0: &a0 [x, x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 12)
    )
    merges = b"m0: &m0 {}\n" + b"".join(
        b"m%d: &m%d {<<: [%s]}\n" % (i, i, b",".join([b"*m%d" % (i - 1)] * 9)) for i in range(1, 14)
    )
    bombs = (
        *(laughs, merges, b"a: &a {<<: *a}\n", b"a: &a [*a, *a]\n", b"[" * 20_000, b"{a: " * 5000),
        *(
            b"- " * 5000 + b"x\n",
            b"? " * 3000 + b"x\n",
            b"a:\n" + b"".join(b" " * i + b"b:\n" for i in range(300)),
        ),
        *(
            b"".join(b"unknown_key_%d: 1\n" % i for i in range(9000)),
            b"- 1\n" * 40_000,
            b"\n" * 190_000,
        ),
        *(
            b"a: " + b"x " * 90_000 + b"\n",
            b"# " + b"x" * 190_000 + b"\n",
            b'"' + b"\\x41" * 40_000 + b'": 1\n',
        ),
        *(
            b"a" * 199_000,
            b"1" * 150_000 + b"e\n",
            b"a: |\n" + b" x\n" * 60_000,
            b"x" * 300_000,
            b": " * 60_000,
        ),
        *(
            b"a: {" + b"b," * 60_000 + b"}\n",
            b"!" * 100_000,
            b"&" * 5000 + b" a",
            b"'" * 99_999,
            b"%" * 9000,
        ),
    )
    chosen = rng.choice(bombs)
    return rng.choice((lambda: chosen, lambda: chosen + data, lambda: data + b"\n" + chosen))()


YML: tuple[Mutator, ...] = (value, value, value, value, key, key, lines, lines, encoding, encoding)
YML_RARE: tuple[Mutator, ...] = (bomb,)
