"""Tables: what is printed and written of rows, and how means stand beside published ones."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from bench_samples import row_of

from restore.bench.compare import paired
from restore.bench.protocols import Figure, protocol_of
from restore.bench.results import compared, standard_error
from restore.bench.tables import latex, markdown, paired_lines, screen_lines, write_tables

PSNR, SSIM = Figure("psnr", "y"), Figure("ssim", "y")


@pytest.mark.parametrize(
    ("figure", "ours", "value", "ok", "difference"),
    [
        (PSNR, 32.554, 32.55, True, 0.0),
        (PSNR, 32.5651, 32.55, False, 0.02),
        (PSNR, 32.5649, 32.55, True, 0.01),
        (PSNR, 32.5351, 32.55, True, -0.01),
        (PSNR, 32.5349, 32.55, False, -0.02),
        (SSIM, 0.89986, 0.8999, True, 0.0),
        (SSIM, 0.90044, 0.8999, True, 0.0005),
        (SSIM, 0.90046, 0.8999, False, 0.0006),
    ],
)
def test_ok_is_within_what_papers_round(
    figure: Figure, ours: float, value: float, ok: bool, difference: float
) -> None:
    found = compared(figure, ours, value, "a paper, table 1")
    assert (found.ok, found.difference) == (ok, pytest.approx(difference, abs=1e-12))


def test_standard_error_is_over_pictures() -> None:
    # variance of 1, 2, 3, 4 with n - 1 is 5 / 3
    assert standard_error([1, 2, 3, 4]) == pytest.approx(math.sqrt(5 / 3 / 4))
    assert math.isnan(standard_error([1.0]))
    assert math.isnan(standard_error([1.0, math.inf]))


def test_the_screen_shows_mean_published_and_verdict() -> None:
    row = row_of([32.0, 33.0, 32.66])
    row.published["psnr_y"] = compared(PSNR, row.mean(PSNR), 32.55, "Zhang, table 2")
    row.published["ssim_y"] = compared(SSIM, row.mean(SSIM), 0.8999, "Zhang, table 2")
    row.failed = {}
    text = "\n".join(screen_lines([row]))
    assert "PSNR Y  32.55 ± 0.29   32.55      ok" in text
    assert "ok" in text and "Zhang, table 2" in text
    assert "11,900,199" in text and "50.0" in text
    row.published["psnr_y"] = compared(PSNR, row.mean(PSNR), 32.63, "Zhang, table 2")
    assert "32.63      -0.08" in "\n".join(screen_lines([row]))


def test_what_is_not_whole_says_so() -> None:
    row = row_of([32.0, 33.0])
    row.count, row.failed = 3, {"p2": "p2.png: is damaged"}
    text = "\n".join(screen_lines([row]))
    assert "2 of 3" in text and "p2 failed: p2.png: is damaged" in text
    assert "32.50 / .9000 (2 of 3 pictures)" in markdown([row])
    row.pictures.clear()
    assert "-" in markdown([row])


def test_markdown_and_latex_have_a_column_for_each_set() -> None:
    rows = [
        row_of([32.55], dataset="Set5"),
        row_of([28.87], dataset="Set14"),
        row_of([33.0], model="a_b", dataset="Set14"),
    ]
    rows[0].published["psnr_y"] = compared(PSNR, 32.55, 32.55, "Zhang")
    table = markdown(rows).splitlines()
    assert table[2] == "| model | level | Set5 | Set14 |"
    assert table[4] == "| net | x4 | 32.55 / .9000 (published 32.55 / -: ok / -) | 28.87 / .9000 |"
    assert table[5] == "| a_b | x4 | - | 33.00 / .9000 |"
    assert "| net | Set5 | x4 | 1 | PSNR Y | 32.55 | 32.55 | ok |" in table
    assert "| a_b | Set14 | x4 | 0.500 | 0.002 | - | 11,900,199 | 50.0 |" in table
    text = latex(rows)
    assert "\\begin{tabular}{llcc}" in text
    assert "a\\_b & x4 & - & 33.00 / .9000 \\\\" in text


def test_signs_of_markdown_and_latex_are_escaped() -> None:
    rows = [row_of([32.55], model="a^b~c\\d", dataset="x|y")]
    assert "| model | level | x\\|y |" in markdown(rows).splitlines()
    text = latex(rows)
    assert "model & level & x\\textbar{}y \\\\" in text
    assert "a\\textasciicircum{}b\\textasciitilde{}c\\textbackslash{}d & x4" in text


def test_csv_files_hold_every_picture_and_the_means(tmp_path: Path) -> None:
    row = row_of([32.0, 33.0])
    row.published["psnr_y"] = compared(PSNR, 32.5, 32.55, "Zhang, table 2")
    write_tables(tmp_path, [row])
    with (tmp_path / "pictures.csv").open() as file:
        pictures = list(csv.DictReader(file))
    assert [line["psnr_y"] for line in pictures] == ["32.000000", "33.000000"]
    assert pictures[0]["picture"] == "p0" and pictures[0]["seconds"] == "0.5000"
    with (tmp_path / "means.csv").open() as file:
        means = list(csv.DictReader(file))
    assert means[0]["mean"] == "32.500000" and means[0]["published"] == "32.55"
    assert means[0]["ok"] == "False" and means[0]["difference"] == "-0.05"
    assert means[1]["figure"] == "ssim_y" and means[1]["published"] == ""


def test_notes_of_several_lines_stay_comments() -> None:
    row = row_of([30.0])
    row.failed["p1"] = "cannot be read:\n50 % of it\r\nis missing"
    lines = latex([row]).splitlines()
    assert [line for line in lines if "is missing" in line] == [
        "% Set5: p1 failed: cannot be read: 50 % of it is missing"
    ]
    assert all(line.startswith(("%", "\\")) or line.endswith("\\\\") for line in lines)


def test_differences_that_round_to_zero_have_no_minus() -> None:
    assert protocol_of(3, "sr", 4).figures[0].shown(-0.001) == "0.00"
    a, b = row_of([30.0, 31.0]), row_of([29.9999999, 31.0], model="other")
    assert "-0.000" not in "\n".join(paired_lines(paired(a, b)))
