"""Finding pictures, naming results, and what becomes of each."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _fake_models import Fake

from restore.commands.batch import Batch, Outcome, Settings
from restore.commands.files import Job, Naming, Source, find_pictures, plan_jobs
from restore.errors import UsageError
from restore.image_io import Picture, read_picture, write_picture
from restore.upscaling import upscale_picture


def draw(path: Path, height: int = 6, width: int = 9, channels: int = 3, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    fmt = {".jpg": "jpg", ".tif": "tiff", ".bmp": "bmp", ".webp": "webp"}.get(path.suffix, "png")
    write_picture(path, Picture(pixels, **more), fmt=fmt)
    return path


def names(sources: Sequence[Source]) -> list[str]:
    return [source.path.name for source in sources]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Pictures b.png and A.JPG, in sub c.tif, in sub/deep d.webp, and files that are none."""
    for name in ("b.png", "A.JPG", "sub/c.tif", "sub/deep/d.webp", ".hidden.png", ".git/e.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "in" / "notes.txt").touch()
    (tmp_path / "in" / "sub" / "raw.nef").touch()
    return tmp_path / "in"


def test_a_folder_gives_its_pictures_sorted_and_counts_the_rest(tree: Path) -> None:
    found = find_pictures([str(tree)])
    assert names(found.sources) == ["A.JPG", "b.png"]
    assert found.others == 1


def test_recursion_keeps_where_a_picture_lay(tree: Path) -> None:
    found = find_pictures([str(tree)], recursive=True)
    assert [(s.path.name, s.folder.as_posix()) for s in found.sources] == [
        ("A.JPG", "."),
        ("b.png", "."),
        ("c.tif", "sub"),
        ("d.webp", "sub/deep"),
    ]
    assert found.others == 2


def test_a_pattern_gives_its_matches(tree: Path) -> None:
    assert names(find_pictures([str(tree / "*.png")]).sources) == ["b.png"]
    assert names(find_pictures([str(tree / "?.*")]).sources) == ["A.JPG", "b.png"]
    deep = find_pictures([str(tree / "**" / "*.*")])
    assert names(deep.sources) == ["A.JPG", "b.png", "c.tif", "d.webp"]
    assert deep.others == 2


def test_a_pattern_that_matches_folders_takes_what_is_in_them(tree: Path) -> None:
    assert names(find_pictures([str(tree / "su*")]).sources) == ["c.tif"]


def test_a_pattern_in_a_folder_whose_name_looks_like_one(tree: Path) -> None:
    (tree / "sub").rename(tree / "sub [1]")
    assert names(find_pictures([str(tree / "sub [1]" / "*.tif")]).sources) == ["c.tif"]


def test_an_output_that_ends_with_a_slash_is_a_folder(tree: Path) -> None:
    source = Source(tree / "b.png")
    jobs, _ = plan_jobs([source], Naming(tree / "new.png", is_folder=True))
    assert jobs[0].target == tree / "new.png" / "b.png"
    with pytest.raises(UsageError, match=r"A\.JPG is a file; name a folder"):
        plan_jobs([source], Naming(tree / "A.JPG", is_folder=True))


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shot[1].png"
    path.touch()
    (tmp_path / "shot1.png").touch()
    assert names(find_pictures([str(path)]).sources) == ["shot[1].png"]


def test_a_named_file_is_taken_whatever_its_name(tree: Path) -> None:
    assert names(find_pictures([str(tree / "notes.txt")]).sources) == ["notes.txt"]


def test_a_picture_given_twice_counts_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    given = ["b.png", "./b.png", str(tree / "b.png"), ".", "sub/../b.png"]
    assert names(find_pictures(given).sources) == ["b.png", "A.JPG"]


def test_the_home_folder_is_known(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree))
    monkeypatch.setenv("USERPROFILE", str(tree))
    assert names(find_pictures(["~/*.png"]).sources) == ["b.png"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_in_circles_end(tree: Path) -> None:
    (tree / "sub" / "back").symlink_to(tree, target_is_directory=True)
    (tree / "sub" / "self").symlink_to(".", target_is_directory=True)
    found = find_pictures([str(tree)], recursive=True)
    assert names(found.sources) == ["A.JPG", "b.png", "c.tif", "d.webp"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_linked_folder_is_gone_into(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "else" / "far.png").parent.mkdir()
    (tmp_path / "else" / "far.png").touch()
    (tree / "link").symlink_to(tmp_path / "else", target_is_directory=True)
    found = find_pictures([str(tree)], recursive=True)
    assert ("far.png", Path("link")) in [(s.path.name, s.folder) for s in found.sources]


def test_results_in_the_input_folder_are_not_taken_again(tree: Path) -> None:
    (tree / "results").mkdir()
    (tree / "results" / "b.png").touch()
    found = find_pictures([str(tree)], recursive=True, output=tree / "results")
    assert names(found.sources) == ["A.JPG", "b.png", "c.tif", "d.webp"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("empty", r"empty: holds no picture \(1 other files\).*\.png.*add -r"),
        ("empty/*.png", r"empty/\*\.png: holds no picture \(0 other files\)"),
        ("in/b.pnk", r"in/b\.pnk: no such file or folder; did you mean in/b\.png\?"),
        ("nowhere/x.png", r"nowhere/x\.png: no such file or folder$"),
    ],
)
def test_an_input_without_pictures_is_refused(
    tree: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    (tree.parent / "empty").mkdir()
    (tree.parent / "empty" / "notes.txt").touch()
    monkeypatch.chdir(tree.parent)
    with pytest.raises(UsageError, match=message):
        find_pictures([text])


def planned(folder: Path, *files: str, out: str = "out", **naming: Any) -> list[Job]:
    sources = [Source(folder / name) for name in files]
    return plan_jobs(sources, Naming(folder / out, **naming))[0]


@pytest.mark.parametrize(
    ("file", "naming", "result"),
    [
        ("a.png", {}, "out/a.png"),
        ("a.tif", {}, "out/a.tif"),
        ("a.b.png", {"suffix": "_x4"}, "out/a.b_x4.png"),
        ("a.png", {"ext": "tiff"}, "out/a.tiff"),
        ("a.jpg", {"ext": "webp", "suffix": "-big"}, "out/a-big.webp"),
    ],
)
def test_names_of_results(tmp_path: Path, file: str, naming: dict[str, Any], result: str) -> None:
    draw(tmp_path / file)
    (job,) = planned(tmp_path, file, **naming)
    assert job.target == tmp_path / result
    assert not (tmp_path / "out").exists()


def test_a_wrong_suffix_is_put_right(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg").rename(tmp_path / "a.png")
    (job,) = planned(tmp_path, "a.png")
    assert job.target == tmp_path / "out" / "a.jpg"


def test_trees_are_mirrored(tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png")
    draw(tmp_path / "in" / "sub" / "a.png")
    found = find_pictures([str(tmp_path / "in")], recursive=True)
    jobs, _ = plan_jobs(found.sources, Naming(tmp_path / "out", compare=True))
    assert [job.target for job in jobs] == [tmp_path / "out" / n for n in ("a.png", "sub/a.png")]
    assert jobs[1].compare == tmp_path / "out" / "sub" / "a_compare.png"


def test_one_picture_can_get_an_exact_name(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (job,) = planned(tmp_path, "a.png", out="new/b.jpeg")
    assert (job.target, job.fmt) == (tmp_path / "new" / "b.jpeg", "jpg")
    (tmp_path / "folder.png").mkdir()
    (job,) = planned(tmp_path, "a.png", out="folder.png")
    assert job.target == tmp_path / "folder.png" / "a.png"


@pytest.mark.parametrize(
    ("files", "naming", "message"),
    [
        (["a.png", "a.jpg"], {"ext": "png"}, r"a\.png and .*a\.jpg would both .*leave out --ext"),
        (["a.png", "x/a.png"], {}, r"would both be written to .*a\.png; .*-r.*keeps its tree"),
        (["a.png", "a.jpg"], {"compare": True}, r"both be written to .*a_compare\.png; rename"),
        (["a.png", "a.jpg"], {"out": "b.png"}, r"names one file, but 2 pictures .* name a folder"),
        (["a.png"], {"out": "b.png", "suffix": "_x4"}, r"leave out --suffix _x4"),
        (["a.png"], {"out": "b.png", "ext": "jpg"}, r"leave out --ext jpg"),
        (["a.png"], {"out": "."}, r"a\.png: would be replaced .* add --suffix _x4, or choose"),
        (["a.png"], {"out": "a.png"}, r"a\.png: would be replaced"),
        (["a.jpg", "a.png"], {"out": ".", "ext": "png"}, r"a\.png: .* result of .*a\.jpg"),
        (["a.png"], {"suffix": "_compare", "compare": True}, r"choose another --suffix"),
        (["a.png"], {"suffix": "/../x"}, r"goes into file names"),
        (["a.png"], {"out": "a.jpg/sub"}, r"a\.jpg is a file; name a folder"),
    ],
)
def test_clashes_are_refused_before_anything_is_written(
    tmp_path: Path, files: list[str], naming: dict[str, Any], message: str
) -> None:
    for name in ("a.png", "a.jpg", "x/a.png"):
        draw(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=message):
        planned(tmp_path, *files, **naming)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_to_the_input_is_the_input(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(UsageError, match="would be replaced"):
        planned(tmp_path, "a.png")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot be written to"):
        planned(tmp_path, "a.png")


@pytest.mark.skipif(sys.platform != "linux", reason="has no /proc")
@pytest.mark.parametrize(
    ("output", "made", "there"),
    [("/proc/x", "folder", "/proc"), ("/proc/x/y", "folder", "/proc"), ("/proc", "file", "/proc")],
)
def test_a_folder_that_nobody_can_make_is_refused(
    tmp_path: Path, output: str, made: str, there: str
) -> None:
    draw(tmp_path / "a.png")
    told = rf"-o {output}: .* no {made} can be made in {there}: No such file .*; choose another"
    with pytest.raises(UsageError, match=told):
        plan_jobs([Source(tmp_path / "a.png")], Naming(Path(output)))


def test_a_disk_that_is_read_only_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which rights do not tell."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    draw(tmp_path / "a.png")
    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    for output in (tmp_path, tmp_path / "new"):
        with pytest.raises(UsageError, match=r"Read-only file system; choose another folder"):
            plan_jobs([Source(tmp_path / "a.png")], Naming(output, suffix="_x"))


def test_finding_out_leaves_nothing_behind(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    plan_jobs([Source(tmp_path / "a.png")], Naming(tmp_path / "deep" / "er"))
    plan_jobs([Source(tmp_path / "a.png")], Naming(tmp_path, suffix="_x"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_second_run_into_the_same_folder_does_not_enlarge_results(tmp_path: Path) -> None:
    for name in ("a.png", "a_x4.png", "b.png", "c_x4.png"):
        draw(tmp_path / name)
    found = find_pictures([str(tmp_path)])
    jobs, left_out = plan_jobs(found.sources, Naming(tmp_path, suffix="_x4"))
    assert [job.source.name for job in jobs] == ["a.png", "b.png", "c_x4.png"]
    assert left_out == [tmp_path / "a_x4.png"]


def run(job: Job, settings: Settings | None = None, model: Any = None) -> Outcome:
    return Batch([job], model or Fake(scale=2), settings or Settings()).run(job)


def job_of(source: Path, target: str, **more: Any) -> Job:
    (job,) = planned(source.parent, source.name, out=target, **more)
    return job


def test_a_result_is_what_the_library_computes(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.png")
    outcome = run(job_of(source, "out"))
    assert outcome.status == "done"
    assert (outcome.before, outcome.after) == ((9, 6), (18, 12))
    expected = upscale_picture(read_picture(source), Fake(scale=2))
    assert outcome.target is not None
    assert np.array_equal(read_picture(outcome.target).pixels, expected.pixels)


def test_auto_goes_over_to_png_where_the_format_is_too_small(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.webp", 2, 9000)
    job = job_of(source, "out")
    outcome = run(job)
    assert outcome.target == tmp_path / "out" / "a.png"
    assert any("written as png, because webp takes at most 16383" in n for n in outcome.notes)
    other = Job(draw(tmp_path / "a.png"), tmp_path / "out" / "a.png", None)
    refused = Batch([job, other], Fake(scale=2), Settings()).run(job)
    assert refused.status == "failed" and "another picture's result" in refused.reason


def test_a_named_format_too_small_for_the_result_fails(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.webp", 2, 9000)
    outcome = run(job_of(source, "out", ext="webp"))
    assert outcome.status == "failed"
    assert "choose png or tiff" in outcome.reason
    assert list((tmp_path / "out").iterdir()) == []


def test_existing_results_are_skipped_only_when_asked(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("old")
    job = job_of(source, "out")
    assert run(job, Settings(skip_existing=True)).status == "skipped"
    assert job.target.read_text() == "old"
    assert run(job).status == "done"
    assert read_picture(job.target).pixels.shape == (12, 18, 3)


def boom(error: BaseException) -> Fake:
    def fail(x: torch.Tensor) -> None:
        raise error

    return Fake(scale=2, before=fail)


def test_a_defect_is_told_and_traced_and_leaves_nothing(tmp_path: Path) -> None:
    job = job_of(draw(tmp_path / "a.png"), "out")
    outcome = run(job, model=boom(ZeroDivisionError("by nothing")))
    assert outcome.reason == f"{job.source}: internal error: ZeroDivisionError: by nothing"
    assert "Traceback" in outcome.trace
    assert not (tmp_path / "out").exists()


def test_an_interrupt_is_not_swallowed_and_leaves_nothing(tmp_path: Path) -> None:
    job = job_of(draw(tmp_path / "a.png"), "out")
    with pytest.raises(KeyboardInterrupt):
        run(job, model=boom(KeyboardInterrupt()))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(draw(tmp_path / "a.png"), "out")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    outcome = run(job)
    assert "No space left" in outcome.reason and "free some space" in outcome.reason
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_streamed_tiff_is_the_same_picture(
    tmp_path: Path, dtype: type[np.generic], alpha: bool
) -> None:
    random = np.random.default_rng(0)
    samples = random.integers(0, 256, (70, 50, 4), dtype=np.uint16)
    deep = {np.uint8: samples, np.uint16: samples * 257, np.float32: samples / np.float32(255)}
    values = deep[dtype].astype(dtype)
    picture = Picture(values[..., :3], values[..., 3] if alpha else None, dpi=(150.0, 150.0))
    write_picture(tmp_path / "a.tif", picture, fmt="tiff")
    results = []
    for name, limit in (("whole", None), ("streamed", 70 * 50 - 1)):
        job = job_of(tmp_path / "a.tif", name, compare=True)
        settings = Settings(max_pixels=limit, outscale=2.5, tile=32)
        batch = Batch([job], Fake(scale=2), settings)
        assert batch.streams(job) == (name == "streamed")
        outcome = batch.run(job)
        assert outcome.status == "done", outcome.reason
        assert outcome.after == (125, 175)
        assert ("bands" in " ".join(outcome.notes)) == (name == "streamed")
        assert job.compare is not None
        results.append((read_picture(job.target), read_picture(job.compare)))
    (whole, shown), (streamed, shown_too) = results
    assert np.array_equal(whole.pixels, streamed.pixels)
    assert (whole.alpha is None) == (streamed.alpha is None) == (not alpha)
    assert alpha is False or np.array_equal(whole.alpha, streamed.alpha)
    assert streamed.dpi == (150.0, 150.0)
    assert np.array_equal(shown.pixels, shown_too.pixels)


def test_what_fills_the_memory_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from restore.upscaling import memory

    job = job_of(draw(tmp_path / "a.tif"), "out")
    batch = Batch([job], Fake(scale=2), Settings())
    assert not batch.streams(job)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 9 * 6 * 3 * 5 * 4 - 1)
    assert batch.streams(job)
    # PNG goes through in parts too, at either end
    assert batch.streams(job_of(job.source, "out", ext="png"))
    assert batch.streams(job_of(draw(tmp_path / "b.png"), "out", ext="tiff"))
    # JPEG is written as a whole
    assert not batch.streams(job_of(job.source, "out", ext="jpg"))


def test_tiles_of_a_streamed_picture_cannot_be_verified(tmp_path: Path) -> None:
    job = job_of(draw(tmp_path / "a.tif"), "out")
    outcome = run(job, Settings(max_pixels=1, verify_tiles=True))
    assert outcome.status == "failed" and "leave it out" in outcome.reason


def test_the_limit_of_pixels_is_named(tmp_path: Path) -> None:
    job = job_of(draw(tmp_path / "a.png"), "out")
    assert "--max-pixels" in run(job, Settings(max_pixels=53)).reason
    assert run(job, Settings(max_pixels=54)).status == "done"
