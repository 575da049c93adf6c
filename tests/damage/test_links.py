"""Links in circles, files that change after they were planned, archives and lists of anyone."""

from __future__ import annotations

import os
import re
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from odd_files import SMALL, saved_model

from restore.cli import main
from restore.commands.batch import Batch, Settings
from restore.commands.files import Naming, find_pictures, plan_jobs
from restore.commands.patterns import matches
from restore.datasets.real_pairs import find_pairs
from restore.errors import UsageError
from restore.image_io import Picture, read_picture, write_picture
from restore.loading import load

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="links need rights there"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"))


def test_links_to_each_other_end(tmp_path: Path) -> None:
    """Twelve folders with links to all others: as many ways as stars, and few pictures."""
    folders = [tmp_path / "in" / f"{n:02}" for n in range(12)]
    for folder in folders:
        folder.mkdir(parents=True)
        write_picture(folder / "a.png", SMALL, fmt="png")
        for other in folders:
            (folder / f"to-{other.name}").symlink_to(other, target_is_directory=True)
    began = time.monotonic()
    found = find_pictures([str(tmp_path / "in")], recursive=True)
    assert {s.path.resolve() for s in found.sources} == {f / "a.png" for f in folders}
    by_pattern = find_pictures([str(tmp_path / "in" / "**" / "*.png")])
    assert {s.path.resolve() for s in by_pattern.sources} == {f / "a.png" for f in folders}
    assert time.monotonic() - began < 5


def test_a_pattern_finds_what_the_library_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import glob

    for name in ("a.png", "s/b.png", "s/t/c.png", "s/.h/d.png", "[x]/e.png", "s/t/u/f.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for pattern in (
        *("*.png", "**/*.png", "s/**/*.png", "**/t/*", "s/**", "**", "**/t/**/*.jpg", "a**.png"),
        *("[[]x]/*.png", "**/[[]x]/*", "*/*.png", "no/**/*.png", "./**/*.png", "s**/*.png"),
        *(f"{tmp_path}/**/*.png", f"{tmp_path}/s/**/t/**/*", "**/**/*.png"),
    ):
        files = [path for path in matches(pattern) if os.path.isfile(path)]
        expected = {path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)}
        assert sorted(files) == sorted(expected), pattern


def test_outputs_that_are_links(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "a.png", SMALL, fmt="png")
    out = tmp_path / "out"
    out.mkdir()
    words = ["upscale", str(tmp_path / "a.png"), "--model_path", str(model), "-o"]
    (out / "a.png").symlink_to("a.png")
    assert main([*words, str(out)]) == 1
    assert "the link leads back to itself" in capsys.readouterr().err
    (out / "a.png").unlink()
    (out / "a.png").symlink_to(tmp_path / "elsewhere.png")
    assert main([*words, str(out)]) == 0
    assert (out / "a.png").is_symlink()
    assert read_picture(tmp_path / "elsewhere.png").pixels.shape == (16, 16, 3)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nothing")
    for name in ("loop", "gone", "loop/x", "a.png/x"):
        assert main([*words, str(tmp_path / name)]) == 2
        assert f"-o {tmp_path / name}: " in capsys.readouterr().err


# files that change under way


def test_what_vanishes_or_changes_after_it_was_planned(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("gone", "cut", "other", "larger", "folder", "kept"):
        write_picture(folder / f"{name}.png", SMALL, fmt="png")
    jobs, _ = plan_jobs(find_pictures([str(folder)]).sources, Naming(tmp_path / "out"))
    (folder / "gone.png").unlink()
    os.truncate(folder / "cut.png", 60)
    (folder / "other.png").write_bytes(b"words")
    write_picture(folder / "larger.png", Picture(np.zeros((30, 20, 1), np.uint8)), fmt="tiff")
    (folder / "folder.png").unlink()
    (folder / "folder.png").mkdir()
    batch = Batch(jobs, load(model, device="cpu"), Settings())
    outcomes = {job.source.stem: batch.run(job) for job in jobs}
    assert {name: o.status for name, o in outcomes.items() if o.status != "failed"} == {
        "kept": "done",
        "larger": "done",
    }
    for name, reason in (
        ("gone", "no such file"),
        ("cut", "cut short"),
        ("other", "is no picture"),
    ):
        assert reason in outcomes[name].reason
        assert not outcomes[name].trace
    assert "is a folder" in outcomes["folder"].reason
    assert outcomes["larger"].after == (40, 60)


# archives, and names that lead out of a folder


def test_nothing_in_the_package_unpacks_archives(root: Path) -> None:
    """Sets of pictures are taken as folders; an archive is for its owner to unpack."""
    unpacks = re.compile(
        r"\.extract(all|file)?\(|unpack_archive|import tarfile|ZipFile\((?!.*\"w\")"
    )
    where = [*root.glob("restore/**/*.py"), *root.glob("datasets/*.py"), *root.glob("archs/*.py")]
    found = {
        (path.name, match[0])
        for path in where
        for match in unpacks.finditer(path.read_text("utf-8"))
    }
    # entries of weight files are read in memory, and tar files only known as such
    assert found == {("untrusted.py", "ZipFile("), ("untrusted.py", "import tarfile")}


@pytest.mark.parametrize("action", ["check", "prepare", "lmdb"])
def test_an_archive_is_no_folder_of_pictures(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../out.png", b"x")
        archive.writestr("/out.png", b"x")
    words = {
        "check": ["check", "--gt", str(path)],
        "prepare": ["prepare", "Set5", "--from", str(path), "-o", str(tmp_path / "made")],
        "lmdb": ["lmdb", str(path), "-o", str(tmp_path / "made.lmdb")],
    }[action]
    assert main(["data", *words]) in (1, 2)
    assert str(path) in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["set.zip"]


def test_a_list_of_pairs_gives_no_name_that_leads_out(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_picture(tmp_path / "a.png", SMALL, fmt="png")
    for line in (f"{tmp_path}/a.png ../a.png", "../a.png ../a.png", "../set/../a.png ../a.png"):
        (folder / "x_test_list.txt").write_text(f"{line}\n")
        try:
            names = [picture.name for picture in find_pairs(folder).pictures]
        except UsageError:
            continue
        assert all(re.fullmatch(r"\w[\w.]*", name) for name in names), names
