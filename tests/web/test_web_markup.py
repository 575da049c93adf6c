"""Fragments of the page: words that come from outside stay words."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from restore.image_io import PictureInfo
from restore.web import markup
from restore.web.limits import Limits
from restore.web.previews import View, Views
from restore.web.service import Listed
from restore.web.shelf import Entry
from restore.web.work import Finished, Order, Standing, Work

EVIL = '"><img src=x onerror=alert(1)>${alert(2)}{{value}}.png'
INFO = PictureInfo(30, 20, 3, 16, "png", has_alpha=True, n_frames=1)


def no_markup_of(words: str, html: str) -> bool:
    return words not in html and "<img src=x" not in html and "${" not in html and "{{" not in html


def finished(tmp_path: Path, name: str = "photo.png", detail: bool = True) -> Finished:
    result = tmp_path / f"{Path(name).stem[:5]}_x4.png"
    result.write_bytes(bytes(2048))
    view = View(tmp_path / "1-before.png", tmp_path / "1-after.png", 120, 80)
    close = View(tmp_path / "1-detail-before.png", tmp_path / "1-detail-after.png", 96, 64)
    views = Views(view, True, close if detail else None)
    return Finished(name, result, (30, 20), (120, 80), 1.25, ("a note",), views=views)


def work(*done: Finished, count: int = 1, archive: Path | None = None) -> Work:
    made = Work(Order("m", 4.0), Path("folder"), [d.name for d in done], Standing(count))
    made.finished, made.archive = list(done), archive
    return made


def test_names_and_messages_are_escaped(tmp_path: Path) -> None:
    bad = Finished(EVIL, reason=f"{EVIL}: damaged")
    good = finished(tmp_path, EVIL)
    for html in (
        markup.text(EVIL),
        markup.notice(EVIL, "error"),
        markup.listing([Listed(EVIL, 3, INFO, (4, 4)), Listed(EVIL, 3, problem=EVIL)], Limits()),
        markup.outcome(work(bad, good)),
        markup.summary(work(bad, good, count=2), False),
        markup.comparison(good, False, EVIL),
        markup.standing(Standing(1, current=EVIL, doing=EVIL), False),
        markup.model_card(Entry(EVIL, "s", 4, EVIL, EVIL, notes=(EVIL,)), 4),
    ):
        assert no_markup_of(EVIL, html), html


def test_addresses_are_those_of_files() -> None:
    path = Path("/tmp/visit-1/a b'\"#?%ü.png")
    address = markup.address(path)
    assert address.startswith("gradio_api/file=/tmp/visit-1/")
    assert re.fullmatch(r"[\w/=.%~-]+", address, re.ASCII)


def test_a_list_says_what_each_picture_would_become() -> None:
    rows = [
        Listed("a.png", 1536, INFO, (120, 80)),
        Listed("b.png", 3, problem="b.png: is empty"),
    ]
    html = markup.listing(rows, Limits())
    assert "30 x 20<br>PNG, 16 bits, alpha, 1.5 KiB" in html
    assert "→ 120 x 80" in html
    assert "b.png: is empty" in html
    assert "more than" not in html
    assert "2 pictures are more than the 1 " in markup.listing(rows, Limits(max_files=1))
    assert markup.listing([], Limits()) == ""


def test_a_place_in_the_queue() -> None:
    assert "1 other is before you" in markup.waiting(1)
    assert "3 others are before you" in markup.waiting(3)


def test_how_far_it_is() -> None:
    at = Standing(2, "a.png", 1, (3, 12), 0.25, time.monotonic() - 30)
    html = markup.standing(at, False)
    assert "a.png (1 of 2)" in html and "tile 4 of 12" in html and 'value="25"' in html
    assert "about 1 min 30 s left" in html
    assert "Stopping" in markup.standing(at, True)
    first = markup.standing(Standing(1, doing="loading the model"), False)
    assert "loading the model" in first and "left" not in first


@pytest.mark.parametrize(
    ("count", "stopped", "words"),
    [
        (1, False, "Restored."),
        (2, False, "1 of 2 pictures restored."),
        (2, True, "Stopped. 1 of 2 pictures restored."),
    ],
)
def test_the_end_in_a_sentence(tmp_path: Path, count: int, stopped: bool, words: str) -> None:
    html = markup.summary(work(finished(tmp_path), count=count), stopped)
    assert f">{words}<" in html
    assert ("rs-error" in html) == (count == 2 and not stopped)


def test_downloads(tmp_path: Path) -> None:
    alone = work(finished(tmp_path))
    assert "Download the result" in markup.summary(alone, False)
    one = markup.outcome(alone)
    assert 'download="photo_x4.png"' in one and "2.0 KiB" in one
    assert "30 x 20 → 120 x 80, 1.2 s" in one and "<li>a note</li>" in one
    archive = tmp_path / "restored.zip"
    archive.write_bytes(b"x")
    several = finished(tmp_path), finished(tmp_path, "other.png")
    two = work(*several, Finished("bad.png", reason="bad.png: is empty"), count=3, archive=archive)
    assert "Download all 2 as zip" in markup.summary(two, False)
    assert "bad.png: is empty" in markup.summary(two, False)
    assert markup.outcome(two).count("download=") == 2


def test_the_comparison_is_a_slider_with_a_name(tmp_path: Path) -> None:
    html = markup.comparison(finished(tmp_path), False, "SwinIR")
    assert "1-before.png" in html and "1-after.png" in html
    assert "--width: 120; --height: 80" in html
    assert 'type="range"' in html
    assert 'aria-label="Left bicubic x4, right restored by SwinIR, of photo.png"' in html
    assert "reduced; the download has every pixel" in html
    close = markup.comparison(finished(tmp_path), True, "SwinIR")
    assert "1-detail-after.png" in close and "the part with most detail" in close
    without = markup.comparison(finished(tmp_path, detail=False), True, "SwinIR")
    assert "1-after.png" in without
    assert "no comparison" in markup.comparison(Finished("a.png"), True, "SwinIR")


def test_a_scale_beside_the_models_own_is_explained() -> None:
    entry = Entry("m", "m", 4, "SwinIR", "Enlarges.")
    assert "resized" not in markup.model_card(entry, 4)
    assert "It enlarges x4 itself; its result is then resized to x2.5." in markup.model_card(
        entry, 2.5
    )
    assert "It keeps the size itself" in markup.model_card(Entry("m", "m", 1, "v", "Cleans."), 2)
