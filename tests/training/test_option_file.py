"""Option files as text: what is read, and what is refused with file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore.errors import UsageError
from restore.training.option_file import LARGEST, forced, read_file


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("run.yml")


def plain(file: Path, text: str | bytes) -> Any:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_file(file).plain()


def refused(file: Path, text: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        plain(file, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("!!float 1e-4", 1e-4),
        ("!!float 5e3", 5000.0),
        ("2E+3", 2000.0),
        ("-1.5e2", -150.0),
        (".5e1", 5.0),
        ("'1e-4'", "1e-4"),
        ("12", 12),
        ("1.", 1.0),
        ("0x10", 16),
        ("1:30", "1:30"),  # ninety in YAML 1.1
        ("2026-01-02", "2026-01-02"),
        ("~", None),
        ("", None),
        ("None", "None"),
        ("yes", True),
        ("'{}x2'", "{}x2"),
        ("[1, 2,]", [1, 2]),
    ],
)
def test_a_value(file: Path, text: str, value: Any) -> None:
    found = plain(file, f"key: {text}\n")["key"]
    assert found == value and type(found) is type(value)


def test_anchors_and_merges(file: Path) -> None:
    text = "base: &b\n  x: 1\n  y: 2\nother:\n  <<: *b\n  y: 3\nsame: *b\n"
    found = plain(file, text)
    assert found["other"] == {"x": 1, "y": 3}
    assert found["same"] == found["base"]


def test_every_value_knows_its_line(file: Path) -> None:
    file.write_text("a: 1\n\n# comment\nb:\n  c: [1,\n   2]\n  d:\n    - 3\n    - 4\n")
    root = read_file(file).section
    assert root is not None and root["b"].section is not None
    assert root["a"].place == "run.yml:1"
    assert root["b"].section["c"].place == "run.yml:5"
    items = root["b"].section["d"].content
    assert isinstance(items, tuple)
    assert [item.place for item in items] == ["run.yml:8", "run.yml:9"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "run.yml: is empty"),
        ("# nothing\n", "run.yml: is empty"),
        ("- 1\n- 2\n", "run.yml:1: expected `key: value` lines; found [1, 2]"),
        ("just words\n", "run.yml:1: expected `key: value` lines; found 'just words'"),
        ("a:\n\tb: 1\n", "run.yml:2: has a tab; YAML takes spaces alone"),
        ("a: 1\n  b: 2\n", "run.yml:2: mapping values are not allowed here; found 'b: 2'"),
        ("a: [1, 2\nb: 3\n", "run.yml:2: "),
        ("a: 'x\n", "run.yml:"),
        ("a: 1\nb: 2\na: 3\n", "run.yml:3: key 'a' stands there already, at run.yml:1; keep one"),
        ("a: 1\n---\nb: 2\n", "run.yml:2: but found another document"),
        ("a: !!python/object/apply:os.system ['true']\n", "run.yml:1: has the tag !!python/object"),
        ("a: !!python/name:os.system\n", "run.yml:1: has the tag !!python/name:os.system"),
        ("a: !mine 3\n", "run.yml:1: has the tag !mine"),
        ("a: !!binary aGk=\n", "run.yml:1: has the tag !!binary"),
        ("a: !!set {x, y}\n", "run.yml:1: has the tag !!set"),
        ("a: !!int x\n", "run.yml:1: 'x' is no int"),
        ("a: !!map 3\n", "run.yml:1: has the tag !!map"),
        ("? [1, 2]\n: 3\n", "run.yml:1: a key is a list or section"),
        ("a: *b\n", "run.yml:1: found undefined alias"),
        ("a:\n  <<: 3\n", "run.yml:2: << takes a section"),
        ("a: &a\n  b: *a\n", "does an anchor hold itself?"),
        ("a: \x00\n", "run.yml:1: has a character that YAML does not allow: '\\x00'"),
        (b"a: 1\nb: caf\xe9\n", "run.yml:2: is not UTF-8 (byte 0xe9); save it as UTF-8"),
        ("a: 1\n".encode("utf-16"), "run.yml:1: is not UTF-8"),
        ("[" * 3000, "run.yml"),
    ],
)
def test_what_is_refused(file: Path, text: str | bytes, words: str) -> None:
    message = refused(file, text)
    assert message.startswith(words) or (words.startswith("does") and words in message)
    assert len(message) < 400


def test_a_bomb_of_anchors_is_refused_at_once(file: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "values" in refused(file, "\n".join(lines))


def test_a_byte_order_mark_is_no_mistake(file: Path) -> None:
    assert plain(file, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n") == {"a": 1, "b": 2}


def test_what_is_no_file(file: Path) -> None:
    with pytest.raises(UsageError, match=r"^run\.yml: there is no such option file$"):
        read_file(file)
    with pytest.raises(UsageError, match=r"no/run\.yml: there is no such.*; no is not there"):
        read_file("no/run.yml")
    file.mkdir()
    with pytest.raises(UsageError, match=r"^run\.yml: is a folder"):
        read_file(file)


def test_a_huge_file_is_not_read(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(20 * 2**30)  # of holes
    with pytest.raises(UsageError, match=f"more than {LARGEST:,} bytes"):
        read_file(file)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yml"
    path.write_bytes(data)
    try:
        assert read_file(path).section is not None
    except UsageError as error:
        assert str(error).startswith(str(path))


@given(st.text(alphabet="a:b-[]{}&*!'\"#|>%@` \n\t1e.~?,<=", max_size=60))
def test_any_punctuation_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yml"
    path.write_text(text, encoding="utf-8")
    try:
        read_file(path)
    except UsageError as error:
        assert str(error).startswith(str(path))


def test_forced_values(file: Path) -> None:
    file.write_text("train:\n  lr: 1\n  path: x\nval: ~\n")
    root = forced(
        read_file(file),
        [
            "train:lr=1e-4",
            "train:betas=[0.9, 0.99]",
            "val:metrics:psnr:type=psnr",
            "train:path=none",
            "name = a=b",
            "seed=!!float 3",
        ],
    )
    assert root.plain() == {
        "train": {"lr": 1e-4, "path": None, "betas": [0.9, 0.99]},
        "val": {"metrics": {"psnr": {"type": "psnr"}}},
        "name": "a=b",
        "seed": 3.0,
    }
    assert root.section is not None and root.section["train"].section is not None
    assert root.section["train"].section["lr"].place == "--force_yml train:lr"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("train:lr", "--force_yml: 'train:lr'; expected KEY:KEY=VALUE"),
        ("=3", "--force_yml: '=3'; expected KEY:KEY=VALUE"),
        ("train::lr=3", "--force_yml: 'train::lr=3'; expected"),
        ("train:lr:x=3", "--force_yml train:lr:x: run.yml:2 is 1, not a section"),
        ("train:lr=[1, 2", "--force_yml train:lr:1: "),
        ("train:lr=!!python/name:os", "--force_yml train:lr: has the tag"),
    ],
)
def test_forced_values_that_are_refused(file: Path, entry: str, words: str) -> None:
    file.write_text("train:\n  lr: 1\n")
    with pytest.raises(UsageError) as caught:
        forced(read_file(file), [entry])
    assert str(caught.value).startswith(words)
