"""Pictures that go through in parts are the pictures that go through whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
from _fake_models import Blur, Fake

from restore import cli
from restore.commands import dry_run, room, streaming
from restore.commands.batch import Batch, Outcome, Settings
from restore.commands.files import Job, Naming, Source, find_pictures, plan_jobs
from restore.commands.large import Layout
from restore.image_io import Picture, read_picture, write_picture
from restore.upscaling import Progress, upscale_picture


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def samples(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    """Of which every level is a multiple of 1 / 255, so that models of few bits are exact."""
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint16)
    if np.dtype(dtype).kind == "f":
        return (values / np.float32(255)).astype(dtype)
    return (values * (257 if dtype == np.uint16 else 1)).astype(dtype)


def source(path: Path, dtype: Any = np.uint8, alpha: bool = False, **more: Any) -> Path:
    values = samples((170, 130, 4), dtype)
    picture = Picture(values[..., :3], values[..., 3] if alpha else None, **more)
    fmt: Any = {".tif": "tiff", ".jpg": "jpg"}.get(path.suffix, "png")
    write_picture(path, picture, fmt=fmt)
    return path


def job_of(path: Path, target: Path) -> Job:
    (job,), _ = plan_jobs([Source(path)], Naming(target))
    return job


def run(job: Job, settings: Settings, model: Fake | None = None, **more: Any) -> Outcome:
    batch = Batch([job], model or Blur(scale=2), settings)
    outcome = batch.run(job, **more)
    assert outcome.status == "done", outcome.reason + outcome.trace
    return outcome


def both(picture: Picture) -> np.ndarray:
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("outscale", [2, 2.5])
@pytest.mark.parametrize("layout", [Layout(0), Layout(64), Layout(64, True), Layout(None, True)])
def test_every_layout_holds_the_same_picture(
    tmp_path: Path, dtype: Any, alpha: bool, outscale: float, layout: Layout
) -> None:
    path = source(tmp_path / "a.tif", dtype, alpha, dpi=(150.0, 150.0), xmp=b"<x/>")
    want = upscale_picture(read_picture(path), Blur(scale=2), outscale=outscale, tile=64)
    settings = Settings(outscale=outscale, tile=64, layout=layout)
    outcome = run(job_of(path, tmp_path / "out.tif"), settings)
    assert outcome.notes == []
    got = read_picture(tmp_path / "out.tif")
    np.testing.assert_array_equal(both(got), both(want), strict=True)
    assert (got.dpi, got.xmp) == ((150.0, 150.0), b"<x/>")
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert tiff.pages[0].is_tiled == (layout.tile != 0)
        # one of 512 is smaller than a tile of 512
        assert (len(tiff.pages) > 1) == (layout.pyramid and layout.tile is not None)


@pytest.mark.parametrize("pyramid", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_zarr_holds_the_same_picture(tmp_path: Path, alpha: bool, pyramid: bool) -> None:
    pytest.importorskip("zarr")
    path = source(tmp_path / "a.png", np.uint16, alpha, icc=b"\0" * 16 + b"RGB " + b"\0" * 60)
    settings = Settings(tile=64, layout=Layout(pyramid=pyramid))
    run(job_of(path, tmp_path / "out.zarr"), settings)
    want = upscale_picture(read_picture(path), Blur(scale=2), tile=64)
    got = read_picture(tmp_path / "out.zarr")
    np.testing.assert_array_equal(both(got), both(want), strict=True)
    assert got.icc == want.icc
    # and from Zarr to Zarr, which "auto" keeps; a store there already is replaced
    found = find_pictures([str(tmp_path / "out.zarr")])
    (job,), _ = plan_jobs(found.sources, Naming(tmp_path / "more"))
    assert job.target == tmp_path / "more" / "out.zarr"
    for _ in range(2):
        run(job, Settings(tile=64), Fake())
        again = upscale_picture(got, Fake(), tile=64)
        np.testing.assert_array_equal(both(read_picture(job.target)), both(again))


@pytest.mark.parametrize("ends", [("a.png", "b.png"), ("a.png", "b.tif"), ("a.tif", "b.png")])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", [False, True])
def test_png_goes_through_in_parts(
    ends: tuple[str, str], dtype: Any, alpha: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(tmp_path / ends[0], dtype, alpha, dpi=(150.0, 150.0))
    want = upscale_picture(read_picture(path), Blur(scale=2), tile=64)
    monkeypatch.setattr(streaming, "STREAM_SHARE", 0)
    outcome = run(job_of(path, tmp_path / ends[1]), Settings(tile=64))
    assert outcome.notes == ["read and written in bands, to save memory"]
    got = read_picture(tmp_path / ends[1])
    np.testing.assert_array_equal(both(got), both(want), strict=True)
    assert got.dpi == pytest.approx((150, 150), abs=0.02)  # dots a metre


def test_float_to_png_is_rounded_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = source(tmp_path / "a.tif", np.float32)
    monkeypatch.setattr(streaming, "STREAM_SHARE", 0)
    outcome = run(job_of(path, tmp_path / "b.png"), Settings(tile=64))
    assert "png has no room for floating point: rounded to 16 bits" in outcome.notes
    assert read_picture(tmp_path / "b.png").depth == 16


def test_a_jpeg_into_tiles_is_read_whole_or_by_libvips(tmp_path: Path) -> None:
    path = source(tmp_path / "a.jpg")
    run(job_of(path, tmp_path / "b.tif"), Settings(layout=Layout(64)), Fake(scale=2))
    got = read_picture(tmp_path / "b.tif").pixels
    want = read_picture(path).pixels.repeat(2, 0).repeat(2, 1)
    assert np.abs(got.astype(int) - want).max() <= 2  # of two decoders


def test_a_large_jpeg_becomes_tiff_where_libvips_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyvips")
    path = source(tmp_path / "a.jpg")
    monkeypatch.setattr(streaming, "STREAM_SHARE", 0)
    (job,), _ = plan_jobs([Source(path)], Naming(tmp_path / "out"))
    outcome = run(job, Settings(), Fake(scale=2))
    assert outcome.target == tmp_path / "out" / "a.tif"
    assert outcome.notes[0] == "written as tiff, because jpg is written only whole"
    assert job.is_done
    # where it is asked for it stays JPEG
    (job,), _ = plan_jobs([Source(path)], Naming(tmp_path / "out", ext="jpg"))
    assert run(job, Settings(), Fake(scale=2)).target == tmp_path / "out" / "a.jpg"


def test_results_of_many_pixels_are_tiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = source(tmp_path / "a.tif")
    for limit, tiled in ((4 * 170 * 130, True), (4 * 170 * 130 + 1, False)):
        monkeypatch.setattr("restore.commands.large.LARGE_PIXELS", limit)
        run(job_of(path, tmp_path / "b.tif"), Settings(), Fake(scale=2))
        with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
            assert tiff.pages[0].is_tiled == tiled


def test_levels_count_as_progress(tmp_path: Path) -> None:
    path = source(tmp_path / "a.tif")
    steps: list[Progress] = []
    settings = Settings(tile=64, layout=Layout(64, True))
    run(job_of(path, tmp_path / "b.tif"), settings, progress=steps.append)
    # 340 x 260: levels of 170 x 130, 85 x 65 and 43 x 33 in tiles of 64
    assert steps[-1].done == steps[-1].total == 9 + 9 + 4 + 1
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_a_picture_in_parts_may_be_compared_and_verified(tmp_path: Path) -> None:
    path = source(tmp_path / "a.png")
    (job,), _ = plan_jobs([Source(path)], Naming(tmp_path / "out", ext="tiff", compare=True))
    settings = Settings(tile=64, layout=Layout(64, True), verify_tiles=True)
    outcome = run(job, settings)
    assert outcome.agreement is not None and outcome.agreement.rounded_db == np.inf
    assert job.compare is not None and read_picture(job.compare).pixels.size


def test_a_disk_without_room_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(tmp_path / "a.tif")
    job = job_of(path, tmp_path / "out" / "b.tif")
    monkeypatch.setattr(room, "_SMALL", 0)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: Usage(2**40, 2**40 - 100, 100_000))
    model = Fake(scale=2)
    outcome = Batch([job], model, Settings(layout=Layout(64))).run(job)
    assert outcome.status == "failed"
    # half of 340 x 260 RGB
    assert "would take about 129.5 KiB (260 x 340 pixels), and there is room for 97.7 KiB" in (
        outcome.reason
    )
    assert "another folder with -o" in outcome.reason
    assert model.sizes == [] and not (tmp_path / "out").exists()
    batch = Batch([job], model, Settings(layout=Layout(64)))
    lines = dry_run.room_lines(batch)
    assert lines == [
        f"not enough room: results take about 129.5 KiB; 97.7 KiB are free in {tmp_path}"
    ]


def test_what_is_expected_of_files(tmp_path: Path) -> None:
    flat = tmp_path / "flat.png"
    write_picture(flat, Picture(np.zeros((200, 200, 3), np.uint8)), fmt="png")
    noise = source(tmp_path / "noise.png")
    for path, fmt, layout, share in (
        (noise, "tiff", Layout(), 0.5),
        (noise, "tiff", Layout(pyramid=True), 0.5 * 4 / 3),
        (noise, "tiff", Layout(compression="none"), 1.0),
        (noise, "tiff", Layout(compression="jpeg"), 0.1),
        (noise, "jpg", Layout(), 0.1),
        (flat, "tiff", Layout(), flat.stat().st_size / 120_000),
    ):
        job = job_of(path, tmp_path / "x.tif")
        assert job.info is not None
        got = room.expected_bytes(job, job.info, fmt, (100, 200), layout)
        assert got == int(100 * 200 * 3 * share)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tiff-tile", "100"], "expected a multiple of 16 up to 8192, such as 256"),
        (["--tiff-tile", "0", "--pyramid"], "--pyramid stores tiles, and --tiff-tile 0 strips"),
        (["--tiff-compression", "lzma"], "expected one of deflate, lzw, zstd, jpeg, none"),
        (["--tiff-compression", "lzw", "--ext", "png"], "--tiff-compression is for TIFF files"),
        (["--pyramid", "--ext", "jpg"], "--pyramid is for TIFF files, and --ext is jpg"),
    ],
)
def test_layouts_that_contradict(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = source(tmp_path / "a.tif")
    assert cli.main(["upscale", str(path), "-o", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(tmp_path / "a.tif")
    for package, target, layout in (
        ("imagecodecs", "b.tif", Layout(compression="zstd")),
        ("zarr", "b.zarr", Layout()),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        job = job_of(path, tmp_path / "out" / target)
        outcome = Batch([job], Fake(scale=2), Settings(layout=layout)).run(job)
        assert outcome.status == "failed"
        assert f"needs the package {package}, which is not installed" in outcome.reason
        assert "pip install 'restore-sr[large]'" in outcome.reason
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "package"),
    [
        (["--tiff-compression", "zstd"], "imagecodecs"),
        (["--ext", "zarr"], "zarr"),
        (["-o", "large.zarr"], "zarr"),
    ],
)
def test_the_command_names_a_missing_package_before_it_begins(
    words: list[str],
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = source(tmp_path / "a.tif")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["upscale", str(path), *words]) == 2
    told = capsys.readouterr().err
    assert f"needs the package {package}, which is not installed" in told
    assert told.count("\n") == 1 and "pip install 'restore-sr[large]'" in told


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc for the peak")
@pytest.mark.timeout(1200)
def test_memory_does_not_grow_with_the_picture(tmp_path: Path, root: Path) -> None:
    """Sixteen times the pixels in four times the height take the same memory; the width counts.

    For each column of the input, in tiles of 256 with a halo of 32, doubled, 8 bit RGB: 328 rows of
    the input, which is not packed; twice the 32 rows of 2 columns of the result, in float32, that
    two rows of tiles share; and 512 rows of 2 columns in tiles of the file that are begun.
    """
    per_column = 328 * 3 + 2 * 32 * 2 * 3 * 4 + 512 * 2 * 3
    peaks = {}
    for height, width in ((1000, 1000), (4000, 1000), (16000, 1000), (1000, 16000)):
        words = ["--megapixels", str(height * width / 1e6), "--aspect", str(width / height)]
        words += ["--network", "--tile", "256", "--compression", "none"]
        words += ["--folder", str(tmp_path), "-o", str(tmp_path / "found.json")]
        subprocess.run([sys.executable, "-m", "benchmarks.large", *words], cwd=root, check=True)
        (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
        assert row["size"] == [height, width]
        peaks[height, width] = row["peak_bytes"]
    # what the allocator keeps of blocks on their way: a few tiles of the result in float32
    slack = 8 * (2 * 320) ** 2 * 3 * 4
    assert abs(peaks[16000, 1000] - peaks[4000, 1000]) <= slack, peaks
    # and as much again between pieces in use, which it cannot give back
    assert peaks[1000, 16000] - peaks[1000, 1000] <= 2 * 15000 * per_column + slack, peaks
    assert max(peaks.values()) < 1.5e9
