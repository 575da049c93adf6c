"""What the page takes: names, paths, sizes and scales that a browser sends."""

from __future__ import annotations

from pathlib import Path

import pytest

from restore.errors import ImageError, UsageError
from restore.image_io import PictureInfo
from restore.web.limits import Limits, check_inside, checked_scale, checked_upload, safe_names


def info(width: int, height: int) -> PictureInfo:
    return PictureInfo(width, height, 3, 8, "png", has_alpha=False, n_frames=1)


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        (["photo.jpg"], ["photo.jpg"]),
        (["a.png", "a.png", "A.PNG"], ["a.png", "a_2.png", "A_3.png"]),
        (["a.png", "a.jpg"], ["a.png", "a_2.jpg"]),
        (["été 1.tif", "写真.webp"], ["été 1.tif", "写真.webp"]),
        (["../../etc/passwd"], ["passwd"]),
        (["..\\..\\boot.ini"], ["boot.ini"]),
        (["-rf.png"], ["rf.png"]),
        (["a\nb\x00c.png"], ["a_b_c.png"]),
        (['"><img src=x>.png'], ["___img src=x_.png"]),
        (["...", ".png"], ["picture", "png"]),
        (["x" * 300 + ".png"], ["x" * 80 + ".png"]),
    ],
)
def test_names_are_plain_and_no_two_are_alike(given: list[str], safe: list[str]) -> None:
    assert safe_names(given) == safe


@pytest.mark.parametrize(
    ("given", "scale"), [("2", 2.0), ("\u00d71.5", 1.5), ("x3", 3.0), ("2,37", 2.37), (4, 4.0)]
)
def test_a_scale_is_read_as_people_write_it(given: object, scale: float) -> None:
    assert checked_scale(given) == scale


@pytest.mark.parametrize("given", ["", "0", "-2", "nan", "inf", "17", "big", None])
def test_what_is_no_scale_is_told(given: object) -> None:
    with pytest.raises(UsageError, match=r"the scale is .*; expected a number above 0, at most 16"):
        checked_scale(given)


def test_an_upload_is_taken(tmp_path: Path) -> None:
    upload = tmp_path / "hash" / "photo.png"
    upload.parent.mkdir()
    upload.write_bytes(b"x")
    assert checked_upload(str(upload), tmp_path) == upload.resolve()


def test_other_files_are_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "visit-1").mkdir(parents=True)
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    (base / "link.png").symlink_to(secret)
    (base / "visit-1" / "other.png").write_bytes(b"x")
    for path in (
        secret,
        base / "link.png",
        base / ".." / "secret.png",
        base / "visit-1" / "other.png",
        base,
        "secret.png",
        "http://example.org/picture.png",
        f"{base}-beside/picture.png",
        "a\0b",
    ):
        with pytest.raises(UsageError, match="is no file that was uploaded here"):
            checked_upload(path, base, [base / "visit-1"])


def test_an_upload_that_is_gone_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "hash" / "photo.png"
    assert check_inside(gone, tmp_path)
    with pytest.raises(UsageError, match=r"photo\.png: is no longer here.*upload it again"):
        checked_upload(gone, tmp_path)


def test_counts() -> None:
    limits = Limits(max_files=2)
    limits.check_count(2)
    with pytest.raises(UsageError, match="there is no picture yet"):
        limits.check_count(0)
    with pytest.raises(UsageError, match="there are 3 pictures, and at most 2 are taken"):
        limits.check_count(3)


def test_pixels_of_a_picture_and_of_its_result() -> None:
    limits = Limits(max_pixels=100)
    limits.check_picture("a.png", info(10, 10), 4)  # 1600, as many as are allowed
    with pytest.raises(ImageError, match=r"a\.png: 11 x 10 is 110 pixels, above the 100"):
        limits.check_picture("a.png", info(11, 10), 1)
    with pytest.raises(ImageError, match="result would be 41 x 41, 1,681 pixels, above the 1,600"):
        limits.check_picture("a.png", info(10, 10), 4.1)
    Limits(max_pixels=None).check_picture("a.png", info(10**6, 10**6), 16)
