"""Whose files lie where, and that they go when their page does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from restore.errors import UsageError
from restore.web.visits import Visits, own_folder

HOUR = 3600.0


def upload(base: Path, name: str, age: float = 0.0) -> Path:
    path = base / f"hash of {name}" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    for each in (path, path.parent):
        os.utime(each, (time.time() - age,) * 2)
    return path


def test_a_page_keeps_its_visit_and_nobody_guesses_its_folder(tmp_path: Path) -> None:
    visits: Visits[str] = Visits(tmp_path)
    mine = visits.of("me")
    assert visits.of("me") is mine
    assert len(mine.folder.name.removeprefix("visit-")) == 32
    assert visits.of("you").folder != mine.folder
    with pytest.raises(UsageError, match="open the page in a browser"):
        visits.of(None)


def test_a_closed_page_takes_its_files_along(tmp_path: Path) -> None:
    visits: Visits[str] = Visits(tmp_path)
    mine, yours = visits.of("me"), visits.of("you")
    alone, shared = upload(tmp_path, "a.png"), upload(tmp_path, "b.png")
    visits.uses(mine, {alone, shared})
    visits.uses(yours, {shared})
    mine.folder.mkdir()
    (mine.folder / "result.png").write_bytes(b"x")
    visits.end("me")
    assert not alone.parent.exists() and not mine.folder.exists()
    assert shared.exists()  # the same content is stored once
    assert not visits.has(mine.folder) and visits.has(yours.folder)
    visits.end("you")
    assert not shared.exists()
    assert visits.end("nobody") is None


def test_after_an_hour_what_nobody_uses_goes(tmp_path: Path) -> None:
    visits: Visits[str] = Visits(tmp_path, HOUR)
    (tmp_path / ".lock").touch()
    os.utime(tmp_path / ".lock", (0, 0))
    mine = visits.of("me")
    kept = upload(tmp_path, "kept.png", 2 * HOUR)
    visits.uses(mine, {kept})
    forgotten, fresh = upload(tmp_path, "forgotten.png", 2 * HOUR), upload(tmp_path, "fresh.png")
    visits.sweep()
    assert kept.exists() and fresh.exists()
    assert not forgotten.parent.exists()
    mine.touched -= 2 * HOUR
    visits.sweep()
    assert len(visits) == 0
    assert not kept.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "hash of fresh.png"]


def test_the_folder_of_a_run_goes_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(KeyError), own_folder() as base:
        assert base.stat().st_mode & 0o077 == 0 or sys.platform == "win32"
        (base / "folder").mkdir()
        (base / "folder" / "picture.png").write_bytes(b"x")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="has no locks that end with a process")
def test_what_a_killed_run_left_goes_and_a_living_one_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = (
        "import os, tempfile\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "from restore.web.visits import own_folder\n"
        "with own_folder() as base:\n"
        "    (base / 'picture.png').write_bytes(b'x')\n"
        "    os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (killed,) = tmp_path.iterdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with own_folder() as first:
        assert not killed.exists()
        with own_folder() as second:
            assert first.exists() and second.exists()
