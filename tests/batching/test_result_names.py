"""Names of many files in little memory, and which of them results may take."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from restore.batching.lazy import LazySequence
from restore.batching.names import Names, RealPaths, digest, key, repeated, seen_from
from restore.batching.result_names import ResultNames, within


def test_a_set_of_digests() -> None:
    names = Names.of(["a", "b", "b"])
    assert len(names) == 2
    assert "a" in names and "c" not in names and 3 not in names
    assert "c" not in Names()
    again = Names.from_bytes(names.to_bytes())
    assert "b" in again and "c" not in again and len(again) == 2
    assert "b" in (names & Names.of(["b", "c"])) and "a" not in (names & Names.of(["b"]))
    assert all(name in (names | Names.of(["c"])) for name in "abc")


def test_what_comes_more_than_once() -> None:
    twice = repeated(digest(text) for text in ("a", "b", "a", "c", "c", "c"))
    assert [text for text in "abc" if text in twice] == ["a", "c"]


def test_names_that_are_no_text() -> None:
    assert digest(os.fsdecode(b"\xff.png")) != digest(os.fsdecode(b"\xfe.png"))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_real_paths_of_many_files_are_those_of_each(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "99.png").symlink_to(tmp_path / "else.png")
    real = RealPaths()
    for number in range(100):
        path = tmp_path / "link" / f"{number}.png"
        assert real(path) == os.path.realpath(path)
    assert real(tmp_path / "new" / "a.png") == str(tmp_path / "new" / "a.png")


def test_paths_are_told_from_a_folder(tmp_path: Path) -> None:
    assert seen_from(tmp_path / "out", tmp_path / "in" / "a") == os.path.join("..", "in", "a")
    assert within(str(tmp_path), str(tmp_path / "a")) == "a"
    assert within(str(tmp_path), str(tmp_path) + "else") == str(tmp_path) + "else"


def names_of(tmp_path: Path, shared: bool) -> ResultNames:
    planned = Names.of(within(key(tmp_path), key(tmp_path / name)) for name in ("a.png", "b.webp"))
    return ResultNames(tmp_path, planned, tmp_path / "renamed" if shared else None)


@pytest.mark.parametrize("shared", [False, True])
def test_a_changed_name_goes_to_the_first_who_asks(tmp_path: Path, shared: bool) -> None:
    names = names_of(tmp_path, shared)
    assert not names.take(tmp_path / "a.png", Path("x/a.jpg"))
    assert names.take(tmp_path / "b.png", Path("x/b.webp"))
    assert names.take(tmp_path / "b.png", Path("x/b.webp"))
    assert not names.take(tmp_path / "b.png", Path("x/b.bmp"))


def test_workers_know_each_others_names(tmp_path: Path) -> None:
    assert names_of(tmp_path, True).take(tmp_path / "b.png", Path("x/b.webp"))
    other = names_of(tmp_path, True)
    assert not other.take(tmp_path / "b.png", Path("x/b.bmp"))
    assert other.take(tmp_path / "b.png", Path("x/b.webp"))
    # a worker that was killed before it wrote who it is
    (file,) = (tmp_path / "renamed").iterdir()
    file.write_text("")
    assert other.take(tmp_path / "b.png", Path("x/b.webp"))
    assert file.read_text() == os.path.join(seen_from(tmp_path, "x"), "b.webp")


def test_a_link_to_a_planned_result_is_that(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert not names_of(tmp_path, False).take(tmp_path / "b.png", Path("x/b.webp"))


class Squares(LazySequence[int]):
    def __len__(self) -> int:
        return 4

    def _at(self, index: int) -> int:
        return index * index


def test_a_lazy_sequence_is_one() -> None:
    squares = Squares()
    assert list(squares) == [0, 1, 4, 9]
    assert squares[-1] == 9 and squares[1:3] == [1, 4]
    with pytest.raises(IndexError):
        squares[4]
