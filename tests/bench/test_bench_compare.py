"""Two models compared: statistics with known answers, and what the sheet shows."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_samples import draw, drawn_set, row_of, scored_set
from small_models import tiny

from restore.bench.compare import made_otherwise, matched, paired, sign_test, student_quantile
from restore.bench.crops import crop_of, crop_wish, most_different, refuse_impossible
from restore.bench.protocols import protocol_of
from restore.bench.results import Row
from restore.bench.sheets import most_different_pictures, write_sheet
from restore.bench.tables import paired_lines, write_paired
from restore.datasets.images import Box
from restore.errors import UsageError
from restore.image_io import read_picture


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.7062047), (4, 2.7764451), (13, 2.1603687), (99, 1.9842169)]
)
def test_quantiles_are_those_of_the_tables(freedom: int, t: float) -> None:
    assert student_quantile(freedom) == pytest.approx(t, abs=1e-6)


def test_the_sign_test_counts_coins() -> None:
    assert sign_test(5, 0) == pytest.approx(2 / 32)
    assert sign_test(1, 4) == pytest.approx(2 * 6 / 32)
    assert sign_test(3, 3) == 1 and sign_test(0, 0) == 1
    assert 0 <= sign_test(2000, 100) < 1e-300


def test_differences_are_of_the_same_pictures() -> None:
    a, b = row_of([30, 31, 32, 33, 34]), row_of([31, 31, 33, 35, 33], model="other")
    found = paired(a, b)[0]
    # differences 1, 0, 1, 2, -1: mean 0.6, variance 1.3
    half = 2.7764451 * math.sqrt(1.3 / 5)
    assert found.difference == pytest.approx(0.6)
    assert (found.low, found.high) == (pytest.approx(0.6 - half), pytest.approx(0.6 + half))
    assert (found.b_better, found.a_better, found.count) == (3, 1, 5)
    assert found.sign_p == pytest.approx(2 * 5 / 16)
    assert found.models == ("net", "other")
    assert "+0.600" in "\n".join(paired_lines([found]))


def test_infinite_values_and_single_pictures_have_no_interval(tmp_path: Path) -> None:
    a, b = row_of([30, math.inf]), row_of([31, 32], model="other")
    found = paired(a, b)[0]
    assert (found.count, found.infinite) == (2, 1) and math.isnan(found.low)
    # an exact picture is the better one
    assert (found.b_better, found.a_better, found.sign_p) == (1, 1, 1)
    lines = write_paired(tmp_path, [found]).read_text().splitlines()
    assert lines[1].split(",")[8:11] == ["1.000000", "", ""]
    assert lines[1].endswith(",1,1,1,1")
    assert "1 of 2 pictures have no finite difference" in paired_lines([found])[-1]


def test_infinite_values_alone_are_no_numbers() -> None:
    a, b = row_of([math.inf, math.inf, 30]), row_of([math.inf, 31, math.inf], model="other")
    found = paired(a, b)[0]
    assert (found.count, found.infinite, found.b_better, found.a_better) == (3, 3, 1, 1)
    text = "\n".join(paired_lines([found]))
    assert "nan" not in text and "3 of 3 pictures have no finite difference" in text


def test_other_devices_and_threads_are_told() -> None:
    a, b = row_of([30.0]), row_of([31.0], model="other")
    a.settings |= {"threads": 1, "versions": {"torch": "2.13"}}
    b.settings |= {"threads": 1, "versions": {"torch": "2.13"}}
    assert made_otherwise(a, b) == []
    b.settings["threads"] = 4
    b.model = replace(b.model, dtype="bf16", device="cuda NVIDIA H200")
    assert made_otherwise(a, b) == [
        "Set5 x4: arithmetic of A: fp32, of B: bf16",
        "Set5 x4: device of A: cpu, of B: cuda NVIDIA H200",
        "Set5 x4: threads of A: 1, of B: 4",
    ]
    assert matched([a], [b])


def test_rows_have_to_be_of_one_kind() -> None:
    a, b = row_of([30.0]), row_of([31.0], model="other")
    assert matched([a], [b]) == [(a, b)]
    with pytest.raises(UsageError, match="nothing to compare: A has Set5 x4, B has Set14 x4"):
        matched([a], [row_of([31.0], dataset="Set14")])
    other = row_of([31.0])
    other.settings = {"tile": 64}
    with pytest.raises(UsageError, match="tile is 0 in A and 64 in B"):
        matched([a], [other])
    other = row_of([31.0])
    other.protocol = protocol_of(3, "sr", 4, padding="reflect")
    with pytest.raises(UsageError, match="the protocols differ"):
        matched([a], [other])
    other = row_of([31.0])
    other.pictures[0] = replace(other.pictures[0], truth_digest="else")
    with pytest.raises(UsageError, match="are different pictures"):
        paired(a, other)
    other = row_of([31.0])
    other.pictures[0] = replace(other.pictures[0], low_digest="else")
    with pytest.raises(UsageError, match="low-quality sides of p0 are different files"):
        paired(a, other)
    other.pictures.clear()
    with pytest.raises(UsageError, match="no picture is scored by both"):
        paired(a, other)


def test_crops_are_read_and_checked() -> None:
    everywhere, own = crop_wish("1,2,30,40"), crop_wish("p1=5,6,7,8")
    assert everywhere.box == Box(2, 1, 40, 30)
    assert crop_of("p0", (60, 60), [everywhere, own]) == Box(2, 1, 40, 30)
    assert crop_of("p1.png", (60, 60), [own, everywhere]) == Box(6, 5, 8, 7)
    assert crop_of("p0", (60, 60), [own]) is None
    with pytest.raises(UsageError, match="reaches beyond p0, which has 30 x 60 pixels"):
        crop_of("p0", (60, 30), [everywhere])
    for text in ("1,2,3", "a,b,c,d", "", "1,2,0,4"):
        with pytest.raises(UsageError, match="--crops"):
            crop_wish(text)


def test_crops_of_no_picture_and_beyond_one_are_refused() -> None:
    known = [("butterfly", (60, 60)), ("baby", (40, 40)), ("gone", None)]
    refuse_impossible([crop_wish("1,2,30,30"), crop_wish("butterfly=30,30,30,30")], known)
    with pytest.raises(UsageError, match=r"buterfly=.*no such picture; did you mean butterfly"):
        refuse_impossible([crop_wish("buterfly=1,2,3,4")], known)
    with pytest.raises(UsageError, match="there are butterfly, baby, gone"):
        refuse_impossible([crop_wish("x=1,2,3,4")], known)
    with pytest.raises(UsageError, match=r"reaches beyond baby, which has 40 x 40.*baby=X,Y,W,H"):
        refuse_impossible([crop_wish("1,2,50,50")], known)
    # its own crop goes before that of all
    refuse_impossible([crop_wish("1,2,50,50"), crop_wish("baby=1,2,3,4")], known)


def test_the_crop_is_where_results_differ_most() -> None:
    truth = np.full((90, 120, 3), 100, np.uint8)
    a, b = truth.copy(), truth.copy()
    a[:, :] += 3  # everywhere alike
    b[:, :] -= 3
    b[60:70, 20:30] += 53
    box = most_different(truth, a, b)
    assert (box.height, box.width) == (24, 24)
    assert box.top <= 60 and box.top + 24 >= 70
    assert box.left <= 20 and box.left + 24 >= 30
    assert most_different(truth[:10, :10], a[:10, :10], b[:10, :10]) == Box(0, 0, 10, 10)


@pytest.fixture
def two_rows(tmp_path: Path) -> tuple[Row, Row]:
    pictures = drawn_set(tmp_path / "set")
    protocol = protocol_of(3, "sr", 2)
    rows = [
        scored_set(tiny(2, seed=s, name=n), protocol, pictures, tmp_path, keep=True)[0]
        for s, n in enumerate("ab")
    ]
    return rows[0], rows[1]


def test_the_sheet_shows_the_pictures_that_differ_most(
    two_rows: tuple[Row, Row], tmp_path: Path
) -> None:
    a, b = two_rows
    figure = a.protocol.figures[0]
    gaps = [
        abs(x.values[figure.key] - y.values[figure.key])
        for x, y in zip(a.pictures, b.pictures, strict=True)
    ]
    first = most_different_pictures(a, b, figure, 2)
    assert [each.a.name for each in first] == [f"p{i}" for i in np.argsort(gaps)[::-1][:2]]
    heights = []
    for most in (1, 2):
        path = write_sheet(tmp_path / "sheet.png", a, b, [crop_wish("4,6,10,10")], most)
        sheet = read_picture(path).pixels
        heights.append(sheet.shape[0])
    assert heights[1] == 2 * heights[0]
    # the crop of the truth stands in it, each pixel 24 x 24
    truth = read_picture(first[0].a.truth).pixels[6:16, 4:14].repeat(24, 0).repeat(24, 1)
    rows, columns = truth.shape[:2]
    found = any(
        np.array_equal(sheet[y : y + rows, x : x + columns], truth)
        for y in range(40)
        for x in range(100, sheet.shape[1] - columns)
        if (sheet[y, x] == truth[0, 0]).all()
    )
    assert found


def test_a_picture_that_a_crop_names_is_shown(two_rows: tuple[Row, Row], tmp_path: Path) -> None:
    a, b = two_rows
    figure = a.protocol.figures[0]
    last = most_different_pictures(a, b, figure, 3)[-1].a.name
    for names, count in ((("p0", "p1", "p2"), 3), ((last,), 2), ((), 1)):
        wishes = [crop_wish(f"{name}=1,1,8,8") for name in names]
        shown = most_different_pictures(a, b, figure, 1, wishes)
        assert len(shown) == count and {each.a.name for each in shown} >= set(names)
    one, two = (
        read_picture(write_sheet(tmp_path / "sheet.png", a, b, wishes, 1)).pixels.shape[0]
        for wishes in ([], [crop_wish(f"{last}=1,1,8,8")])
    )
    assert two > 1.5 * one


@pytest.mark.parametrize("how", ["other", "size", "gone", "result", "result gone"])
def test_a_picture_that_changed_is_left_out(
    two_rows: tuple[Row, Row], tmp_path: Path, how: str
) -> None:
    a, b = two_rows
    figure = a.protocol.figures[0]
    first, second = most_different_pictures(a, b, figure, 2)
    path = Path(first.b.result or "" if how.startswith("result") else first.a.truth)
    rows, columns = read_picture(path).pixels.shape[:2]
    path.unlink()
    if how == "other":
        draw(path, rows, columns, 3).write_bytes(Path(second.a.truth).read_bytes())
    elif not how.endswith("gone"):
        draw(path, rows - 8, columns - 8)
    notes: list[str] = []
    sheet = write_sheet(tmp_path / "two.png", a, b, [], 2, notes.append)
    assert len(notes) == 1 and notes[0].startswith(f"{first.a.name} is left out of the sheet: ")
    assert str(path) in notes[0]
    with pytest.raises(UsageError, match="none of its pictures can be shown"):
        write_sheet(tmp_path / "one.png", a, b, [], 1)
    assert read_picture(sheet).pixels.shape[0] < 400
    assert not (tmp_path / "one.png").exists()


def test_a_sheet_needs_kept_results(two_rows: tuple[Row, Row], tmp_path: Path) -> None:
    a, b = two_rows
    a.pictures = [replace(picture, result=None) for picture in a.pictures]
    with pytest.raises(UsageError, match="its result was not kept; run `restore bench` with"):
        write_sheet(tmp_path / "sheet.png", a, b, [], 1)
