"""`restore data prepare`: sets of both conventions, verified, never overwritten, resumable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import restore
from restore import cli
from restore.datasets import prepare as module
from restore.datasets.cards import card, find_set
from restore.datasets.set_check import verify
from restore.image_io import Picture, read_picture, write_picture


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, Picture(pixels), fmt="png")
    return path


def picture(seed: int, size: tuple[int, int] = (27, 38)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_set5_equals_matlabs(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "prepare", "set5", "--from", str(shared / "data"), "-o", str(tmp_path)]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "5 equal to the card's" in told and "20 files written, 0 there already" in told
    for scale in (2, 3, 4):
        folder = Path("Set5") / "LR_bicubic" / f"X{scale}"
        for path in sorted((shared / "data" / folder).iterdir()):
            mine = read_picture(tmp_path / folder / path.name).pixels
            np.testing.assert_array_equal(mine, read_picture(path).pixels)
    assert cli.main(words) == 0
    assert "0 files written, 20 there already" in capsys.readouterr().out
    assert cli.main([*words, "--convention", "gtmod", "--scales", "4", "2"]) == 0
    assert (tmp_path / "Set5" / "GTmod4").is_dir()
    for scale, convention in ((2, "HR/LR_bicubic"), (4, "HR/LR_bicubic")):
        found = find_set(card("Set5"), tmp_path, scale=scale)
        assert (found.convention, verify(found)) == (convention, [])
    (tmp_path / "Set5" / "HR").rename(tmp_path / "gone")
    found = find_set(card("Set5"), tmp_path, scale=4)
    assert (found.convention, verify(found)) == ("GTmod/LRbic", [])


def test_pictures_of_another_name_and_others(shared: Path, tmp_path: Path, capsys) -> None:
    source = tmp_path / "downloads"
    original = read_picture(shared / "data" / "Set5" / "HR" / "baby.png").pixels
    save(source / "img_002_HR.png", original)
    save(source / "img_002_LR.png", original[::4, ::4])
    words = ["data", "prepare", "Set5", "--from", str(source), "-o", str(tmp_path)]
    assert cli.main(words) == 1
    told = capsys.readouterr()
    assert "left out, as Set5 has no such picture: img_002_LR.png" in told.out
    assert "4 of 5 missing: bird, butterfly, head and 1 more" in told.err
    assert "nothing was written" in told.err and not (tmp_path / "Set5").exists()
    assert cli.main([*words, "--anyway"]) == 0
    assert "4 of 5 missing" in capsys.readouterr().out
    assert (tmp_path / "Set5" / "HR" / "baby.png").is_file()
    # cut ones can make the cut convention only
    save(source / "img_002_HR.png", original[:508, :508])
    save(source / "baby.png", original[:510, :510])
    assert cli.main([*words[:-1], str(tmp_path / "cut")]) == 1
    assert "baby.png: is cut to multiples of 3, and whole pictures" in capsys.readouterr().err
    assert not (tmp_path / "cut").exists()


def test_a_changed_picture_is_refused_unless_wanted(shared: Path, tmp_path: Path, capsys) -> None:
    source = tmp_path / "Set5"
    for path in (shared / "data" / "Set5" / "HR").iterdir():
        pixels = read_picture(path).pixels.copy()
        pixels[0, 0] ^= 1 if path.stem == "woman" else 0
        save(source / path.name, pixels)
    words = ["data", "prepare", "Set5", "--from", str(source), "-o", str(tmp_path / "out")]
    assert cli.main(words) == 1
    told = capsys.readouterr()
    assert "woman.png: has other pixels than the card's" in told.err
    assert "--anyway" in told.err and "missing" not in told.err
    assert not (tmp_path / "out" / "Set5" / "HR" / "woman.png").exists()
    assert cli.main([*words, "--anyway", "--scales", "4"]) == 0
    told = capsys.readouterr()
    assert "4 equal" in told.out and "note: " in told.out and "woman.png: has other" in told.out
    assert (tmp_path / "out" / "Set5" / "HR" / "woman.png").is_file()


def test_without_a_card_and_gray(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, gray = picture(1), picture(2, (40, 33))[:, :, :1]
    save(tmp_path / "photos" / "a.png", a)
    save(tmp_path / "photos" / "gray.png", gray)
    words = ["data", "prepare", "mine", "--from", str(tmp_path / "photos"), "-o", str(tmp_path)]
    assert cli.main([*words, "--scales", "3", "--convention", "gtmod"]) == 0
    assert "note: there is no card of mine" in capsys.readouterr().out
    out = tmp_path / "mine"
    assert files(out) == [
        *("GTmod3/a.png", "GTmod3/gray.png", "LRbicx3/a.png", "LRbicx3/gray.png"),
    ]
    low = read_picture(out / "LRbicx3" / "gray.png").pixels
    np.testing.assert_array_equal(low, restore.imresize(gray[:39, :33], 1 / 3))
    assert verify(find_set(out, scale=3)) == []


def test_what_is_there_is_never_overwritten(tmp_path: Path, capsys) -> None:
    save(tmp_path / "photos" / "a.png", picture(1))
    other = save(tmp_path / "mine" / "LR_bicubic" / "X2" / "ax2.png", picture(3))
    before = other.read_bytes()
    words = ["data", "prepare", "mine", "--from", str(tmp_path / "photos"), "-o", str(tmp_path)]
    assert cli.main([*words, "--scales", "2"]) == 1
    assert "ax2.png: is there with other pixels and was left" in capsys.readouterr().err
    assert other.read_bytes() == before
    assert files(tmp_path / "mine") == ["LR_bicubic/X2/ax2.png"]


def test_all_is_checked_before_anything_is_written(tmp_path: Path, capsys) -> None:
    save(tmp_path / "photos" / "a.png", picture(1))
    (tmp_path / "photos" / "b.png").write_bytes(b"no picture")
    words = ["data", "prepare", "mine", "--from", str(tmp_path / "photos"), "-o", str(tmp_path)]
    assert cli.main([*words, "--scales", "2"]) == 1
    told = capsys.readouterr().err
    assert "b.png" in told and "nothing was written to" in told
    assert not (tmp_path / "mine").exists() and not (tmp_path / ".mine.unfinished").exists()


def test_floats_are_refused_and_arrays_are_no_pictures_of_a_set(tmp_path: Path, capsys) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    values = picture(1).astype(np.float32) / 127.5
    write_picture(photos / "a.tif", Picture(values), fmt="tiff")
    np.save(photos / "b.npy", picture(2))
    words = ["data", "prepare", "mine", "--from", str(photos), "-o", str(tmp_path)]
    assert cli.main(words) == 1
    told = capsys.readouterr()
    assert "a.tif: holds floating-point values, from 0 to 2; a test set has" in told.err
    assert "1 picture read" in told.out and "b.npy" not in told.err


def test_names_that_differ_in_case_alone_are_told(tmp_path: Path, capsys) -> None:
    save(tmp_path / "photos" / "A.png", picture(1))
    save(tmp_path / "photos" / "a.png", picture(2))
    if len(files(tmp_path / "photos")) == 1:
        pytest.skip("this file system takes both names for one")
    words = ["data", "prepare", "mine", "--from", str(tmp_path / "photos"), "-o", str(tmp_path)]
    assert cli.main(words) == 1
    assert "a.png: " in (told := capsys.readouterr().err) and "A.png was taken for a" in told


def test_an_interrupted_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        save(tmp_path / "photos" / f"{seed}.png", picture(seed))
    words = ["data", "prepare", "mine", "--from", str(tmp_path / "photos"), "-o", str(tmp_path)]
    words += ["--scales", "2", "-q"]
    real = module.write_picture
    calls = []

    def stopped(*arguments, **settings):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    monkeypatch.setattr(module, "write_picture", stopped)
    assert cli.main(words) == 130
    assert not (tmp_path / "mine").exists()
    made = files(tmp_path / ".mine.unfinished")
    assert made == ["HR/0.png", "HR/1.png", "LR_bicubic/X2/0x2.png"]
    monkeypatch.setattr(module, "write_picture", real)
    capsys.readouterr()
    assert cli.main(words[:-1]) == 0
    assert "6 files written, 0 there already" in capsys.readouterr().out
    assert not (tmp_path / ".mine.unfinished").exists()
    assert verify(find_set(tmp_path / "mine", scale=2)) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["Set5", "--from", "none"], "none: no such folder"),
        (["a/b", "--from", "."], "expected a name"),
        (["..", "--from", "."], "expected a name"),
        (["Set5"], "--from"),
        (["Set5", "--from", ".", "--scales", "0"], "1 or more"),
        (["Set5", "--from", "."], "holds no picture"),
    ],
)
def test_what_cannot_be_obeyed(words, told, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "prepare", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_picture_smaller_than_the_scale_is_told(tmp_path: Path, capsys) -> None:
    save(tmp_path / "photos" / "a.png", picture(1, (3, 9)))
    words = ["data", "prepare", "mine", "--from", str(tmp_path / "photos"), "-o", str(tmp_path)]
    assert cli.main([*words, "--scales", "4"]) == 1
    assert "scale=4 for an image of 3 x 9 pixels" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, capsys) -> None:
    save(tmp_path / "photos" / "a.png", picture(1))
    (tmp_path / "out").write_bytes(b"a file")
    words = ["data", "prepare", "mine", "--from", str(tmp_path / "photos")]
    assert cli.main([*words, "-o", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "cannot be written" in told and "nothing was written to" in told
