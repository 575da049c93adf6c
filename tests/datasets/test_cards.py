"""The cards: nothing in them is made up, and sets on the disk are found and compared with them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import restore
from restore import cli
from restore.datasets import card_files
from restore.datasets.card_files import nearest_card
from restore.datasets.cards import card, card_names, find_set
from restore.datasets.images import pixel_digest
from restore.datasets.set_check import verify
from restore.errors import UsageError
from restore.image_io import Picture, write_picture

CARDS = sorted(Path(card_files.__file__).parent.glob("*.yml"))
WANTED = {
    *("Set5", "Set14", "BSD100", "Urban100", "Manga109", "Kodak24", "McMaster", "CBSD68", "BSD68"),
    *("Set12", "LIVE1", "classic5", "SIDD", "GoPro", "RealBlur", "DPDD", "DIV2K", "DF2K"),
    "PolyU",
}
RNG = np.random.default_rng(7)
PICTURES = {name: RNG.integers(0, 256, (27, 38, 3), np.uint8) for name in ("a", "b", "c")}


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, Picture(pixels), fmt="png")
    return path


@pytest.fixture
def small_card(monkeypatch: pytest.MonkeyPatch) -> card_files.Card:
    """A set of three pictures, the only one that is known."""
    lines = [
        {"file": f"{name}.png", "height": 27, "width": 38, "channels": 3, "sha256": pixel_digest(p)}
        | {"cut": {4: pixel_digest(p[:24, :36]), 12: pixel_digest(p[:24, :36])}}
        for name, p in PICTURES.items()
    ]
    facts = {key: {"value": None, "verified": False} for key in ("page", "licence")}
    content = {
        "name": "Small3",
        "aliases": ["S3"],
        "task": "sr",
        "paper": "none",
        **facts,
        "count": {"value": 3, "verified": True},
        "images": {"value": lines, "verified": True},
    }
    one = card_files._read(content)
    monkeypatch.setattr(card_files, "_cards", lambda: (one,))
    return one


def test_there_is_a_card_of_every_set_of_the_papers() -> None:
    assert set(card_names()) == WANTED
    assert {yaml.safe_load(path.read_text())["name"] for path in CARDS} == WANTED
    assert card_names()[0] == "Set5"


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_card_holds_together(name: str) -> None:
    one = card(name)
    assert one.paper
    assert one.licence is None or "licence" in one.verified
    if one.images:
        assert one.count == len(one.images) == len({image.name.casefold() for image in one.images})
    for image in one.images:
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in image.sha256.values())
        sizes = [image.cut_to(multiple) for multiple in image.sha256]
        assert len(set(sizes)) == len(sizes)
        assert bool(image.sha256) == ("images" in one.verified)
    for key in one.verified:
        assert one.sources[key]
    if one.count is not None:
        assert "count" in one.verified
    if one.parts:
        assert one.count in {*one.parts.values(), sum(one.parts.values())}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("set5", "Set5"), ("SET-14", "Set14"), ("b100", "BSD100"), ("Realblur_J", "RealBlur")],
)
def test_names_need_not_be_exact(name: str, expected: str) -> None:
    assert card(name).name == expected


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'Ubran100'; did you mean Urban100\? Known are Set5, "):
        card("Ubran100")
    for name, near in (("Set99", "Set14"), ("Set4", "Set5"), ("Set67", "BSD68")):
        assert nearest_card(name) == near
    with pytest.raises(UsageError, match="'nonesuch'; known are Set5, "):
        card("nonesuch")
    with pytest.raises(UsageError, match=r"did you mean Set5\? "):
        card("Set6")


def test_partners_of_names_alike(tmp_path: Path) -> None:
    for name in ("img", "imgx2"):
        save(tmp_path / "mine" / "HR" / f"{name}.png", PICTURES["a"])
    low = restore.imresize(PICTURES["a"][:26, :38], 1 / 2)
    folder = tmp_path / "mine" / "LR_bicubic" / "X2"
    save(folder / "imgx2.png", low)
    with pytest.raises(UsageError, match=r"imgx2.png: is the low-.* of both img.png and imgx2.png"):
        find_set(tmp_path / "mine", scale=2)
    for also in ("img", "imgx2x2"):
        path = save(folder / f"{also}.png", low)
        pictures = find_set(tmp_path / "mine", scale=2).pictures
        assert len({picture.lq for picture in pictures if picture.lq}) == 2
        path.unlink()
    save(folder / "imgx2x2.png", low)
    (folder / "imgx2.png").rename(folder / "imgx2x2.PNG")
    with pytest.raises(UsageError, match="have one name; keep one of them"):
        find_set(tmp_path / "mine", scale=2)


@pytest.mark.parametrize(
    ("name", "scale"),
    [("Set5", 2), ("Set5", 3), ("Set5", 4), ("Set14", 3), ("Set12", None)],
)
def test_real_sets_are_as_their_cards_have_them(shared: Path, name: str, scale: int | None) -> None:
    wants = "gt" if scale is None else "sr"
    found = find_set(card(name), shared / "data", scale=scale, wants=wants)
    assert found.convention == ("gt" if scale is None else "HR/LR_bicubic")
    assert [picture.name for picture in found.pictures] == [i.name for i in card(name).images]
    assert all((picture.lq is None) == (scale is None) for picture in found.pictures)
    assert verify(found) == []


def test_urban100_has_no_low_side_there(shared: Path) -> None:
    found = find_set(card("Urban100"), shared / "data", scale=4)
    assert (found.convention, len(found.pictures), found.problems) == ("made", 100, ())
    assert all(picture.lq is None for picture in found.pictures)


def test_both_conventions_and_plain_folders_are_found(
    small_card: card_files.Card, tmp_path: Path
) -> None:
    for name, pixels in PICTURES.items():
        save(tmp_path / "one" / "Small3" / "HR" / f"{name}.png", pixels)
        low = restore.imresize(pixels[:26, :38], 1 / 2)
        save(tmp_path / "one" / "Small3" / "LR_bicubic" / "X2" / f"{name}x2.png", low)
        cut = pixels[:24, :36]
        save(tmp_path / "two" / "s3" / "GTmod12" / f"{name}.png", cut)
        save(tmp_path / "two" / "s3" / "LRbicx3" / f"{name}.png", restore.imresize(cut, 1 / 3))
        save(tmp_path / "three" / "small-3" / f"{name.upper()}.png", pixels)
    for root, scale, convention, folder in (
        ("one", 2, "HR/LR_bicubic", "HR"),
        ("one", 4, "made", "HR"),
        ("two", 3, "GTmod/LRbic", "GTmod12"),
        ("two", 4, "made", "GTmod12"),
        ("three", 2, "made", "small-3"),
    ):
        found = find_set(small_card, tmp_path / root, scale=scale)
        assert (found.convention, found.scale, found.problems) == (convention, scale, ())
        assert [picture.name for picture in found.pictures] == ["a", "b", "c"]
        assert {picture.gt.parent.name for picture in found.pictures} == {folder}
        assert verify(found) == []
    found = find_set(small_card, tmp_path / "two", wants="gt")
    assert len(found.problems) == 1 and "cut to multiples of 12" in found.problems[0]
    # the folder of the set itself, by name or as a path
    inside = tmp_path / "three" / "small-3"
    assert find_set(small_card, inside, scale=2).folder == inside
    assert find_set(inside, scale=2).card is small_card


def test_any_folder_is_a_set(tmp_path: Path) -> None:
    save(tmp_path / "mine" / "HR" / "x.png", PICTURES["a"])
    save(tmp_path / "mine" / "LR_bicubic" / "X2" / "x.png", PICTURES["b"][:13, :19])
    found = find_set(tmp_path / "mine", scale=2)
    assert (found.name, found.card, found.convention) == ("mine", None, "HR/LR_bicubic")
    (told,) = verify(found)
    assert re.search(r"x\.png: differs from MATLAB's bicubic in 9\d\.\d% of its samples", told)
    assert find_set(tmp_path / "mine" / "HR", wants="gt").pictures[0].name == "x"


def test_every_difference_is_told(small_card: card_files.Card, tmp_path: Path) -> None:
    folder = tmp_path / "Small3"
    changed = PICTURES["a"].copy()
    changed[0, 0, 0] ^= 1
    save(folder / "HR" / "a.png", changed)
    save(folder / "HR" / "b.png", PICTURES["b"][:, :20])
    save(folder / "HR" / "other.png", PICTURES["c"])
    save(folder / "LR_bicubic" / "X2" / "ax2.png", PICTURES["c"][:5, :5])
    told = verify(find_set(small_card, tmp_path, scale=2))
    assert told[:3] == [
        "1 of 3 missing: c",
        "left out, as Small3 has no such picture: other.png",
        f"{folder / 'LR_bicubic' / 'X2'}: lacks b; made on the fly",
    ]
    assert re.search(r"a\.png: has other pixels than the card's \(sha256 \w{12}, expected", told[3])
    assert "ax2.png: is 5x5 pixels; 1/2 of the good picture is 19x13" in told[4]
    assert "b.png: is 20x27 pixels; the card has 38x27, or that cut" in told[5]
    assert len(told) == 6


def test_an_empty_low_side_is_made_and_equal_names_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    save(folder / "HR" / "a.png", PICTURES["a"])
    save(folder / "HR" / "A.bmp", PICTURES["b"])
    (folder / "LR_bicubic" / "X2").mkdir(parents=True)
    (folder / "GT").mkdir()
    found = find_set(folder, scale=2)
    assert (found.convention, len(found.pictures)) == ("made", 1)
    assert found.problems == ("left out: a.png; A.bmp has the same name but for case or suffix",)


def test_unreadable_pictures_are_told(small_card: card_files.Card, tmp_path: Path) -> None:
    save(tmp_path / "Small3" / "a.png", PICTURES["a"])
    (tmp_path / "Small3" / "b.png").write_bytes(b"no picture")
    told = verify(find_set(small_card, tmp_path, wants="gt"))
    assert told[0] == "1 of 3 missing: c"
    assert len(told) == 2 and "b.png" in told[1]


def test_renamed_pictures_are_known_by_their_pixels(
    small_card: card_files.Card, tmp_path: Path
) -> None:
    save(tmp_path / "Small3" / "1.png", PICTURES["a"])
    told = verify(find_set(small_card, tmp_path, wants="gt"))
    assert told == ["none of 1 pictures has a name of Small3, such as a.png; all are taken"]


def test_a_missing_set_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no folder BSD100 \(or B100, BSDS100\).*prepare"):
        find_set(card("BSD100"), tmp_path, scale=4)
    with pytest.raises(UsageError, match="no such folder"):
        find_set(tmp_path / "none", wants="gt")
    with pytest.raises(UsageError, match="needs the scale"):
        find_set(tmp_path)


def test_the_command_lists_the_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "cards"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(WANTED) + 2
    assert lines[1].split() == ["Set5", "sr", "5", "5", "not", "known"]
    assert cli.main(["data", "cards", "gopro"]) == 0
    shown = capsys.readouterr().out
    assert "1111 test, 2103 train" in shown and "licence:  not known" in shown
    assert cli.main(["data", "cards", "set5", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["images"][0]["sha256"]["1"] == card("Set5").images[0].sha256[1]
    assert cli.main(["data", "cards", "Set5", "nonesuch"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.rstrip().endswith("; none is shown")
    assert cli.main(["data", "cards", "Sett5"]) == 2
    assert "did you mean Set5?" in capsys.readouterr().err
