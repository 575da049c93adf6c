"""`restore upscale` over many pictures: --jobs, --resume, --journal, --report, torchrun."""

from __future__ import annotations

import argparse
import csv
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _fake_models import Fake
from small_models import tiny

from restore import cli
from restore.batching.launch import Launch
from restore.batching.leftovers import remove_leftovers
from restore.batching.report import COLUMNS
from restore.commands import batch as batch_module
from restore.commands import many, many_options
from restore.commands.batch import Batch, Settings
from restore.commands.files import Found, Naming, Source, Sources, find_pictures, plan_jobs
from restore.errors import UsageError
from restore.image_io import Picture, read_picture, write_picture

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own is the current one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny_x2.pth"
    tiny(2).save(path)
    return path


@pytest.fixture
def run(weights: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `restore upscale` with the tiny model; gives exit code, output and errors."""

    def upscale(*words: str) -> tuple[int, str, str]:
        code = cli.main(["upscale", "--model_path", str(weights), *words])
        return code, *capsys.readouterr()

    return upscale


def draw(name: str, height: int = 11, width: int = 14, fmt: str = "png") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    write_picture(path, Picture(values), fmt=fmt)  # type: ignore[arg-type]
    return path


def results(folder: str = "results") -> list[str]:
    """Files there but for those of the journal."""
    found = (path for path in Path(folder).rglob("*") if path.is_file())
    return sorted(p.as_posix() for p in found if ".restore" not in p.parts)


@pytest.mark.parametrize("jobs", ["0", "1", "4"])
def test_any_number_of_jobs_gives_the_same_pictures_and_lines(run: Run, jobs: str) -> None:
    for number in range(6):
        draw(f"in/{number}.png", 5 + number, 9)
    Path("in/3.png").write_text("none")
    code, out, err = run("in", "--jobs", jobs, "-o", "out")
    assert code == 1
    lines = [line.split()[1] for line in out.splitlines() if line.startswith("[")]
    assert lines == [f"in/{number}.png" for number in (0, 1, 2, 4, 5)]
    assert "[4/6] failed: in/3.png" in err
    run("in", "--jobs", "0", "-o", "plain", "-q")
    for path in results("out"):
        assert Path(path).read_bytes() == Path("plain", Path(path).name).read_bytes()


def test_an_encoder_that_is_slow_does_not_hold_up_the_network(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """The second picture is computed while the first one is still being written."""
    draw("a.png"), draw("b.png")
    second = threading.Event()
    write, compute = batch_module.write_picture, batch_module.upscale_picture
    calls = []

    def waiting(*words: Any, **more: Any) -> list[str]:
        assert second.wait(20)
        return write(*words, **more)

    def counting(*words: Any, **more: Any) -> Picture:
        calls.append(1)
        if len(calls) == 2:
            second.set()
        return compute(*words, **more)

    monkeypatch.setattr(batch_module, "write_picture", waiting)
    monkeypatch.setattr(batch_module, "upscale_picture", counting)
    assert run("a.png", "b.png", "--jobs", "1")[0] == 0


def test_a_report_in_csv(run: Run) -> None:
    draw("in/a.png"), draw("in/b.jpg", fmt="jpg")
    Path("in/bad.png").touch()
    Path("results").mkdir()
    draw("results/a.png")
    code, _, _ = run("in", "--report", "report.csv", "--skip-existing", "--ext", "auto")
    assert code == 1
    with open("report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["source"], row["status"]) for row in rows] == [
        ("in/a.png", "skipped"),
        ("in/b.jpg", "done"),
        ("in/bad.png", "failed"),
    ]
    done, bad = rows[1], rows[2]
    sizes = [done[name] for name in ("width", "height", "result_width", "result_height", "tiles")]
    assert sizes == ["14", "11", "28", "22", "1"]
    assert done["output"] == "results/b.jpg" and float(done["seconds"]) > 0
    assert "is empty" in bad["reason"]


def test_a_report_in_json(run: Run) -> None:
    draw("a.png")
    assert run("a.png", "--ext", "jpg", "--report", "report.json", "--compare")[0] == 0
    report = json.loads(Path("report.json").read_text())
    (row,) = report["pictures"]
    assert report["counts"] == {"done": 1}
    assert list(row) == list(COLUMNS)
    assert (row["compare"], row["notes"]) == ("results/a_compare.png", [])


def test_a_report_of_an_interrupted_run_tells_what_was_done(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw("a.png"), draw("b.png")
    compute, calls = batch_module.upscale_picture, []

    def second_is_interrupted(*words: Any, **more: Any) -> Picture:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compute(*words, **more)

    monkeypatch.setattr(batch_module, "upscale_picture", second_is_interrupted)
    code, _, err = run("a.png", "b.png", "--report", "report.json")
    assert code == 130 and "1 of 2 pictures finished" in err
    rows = json.loads(Path("report.json").read_text())["pictures"]
    assert [row["source"] for row in rows] == ["a.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--report", "report.txt"], "expected a name that ends in .csv or .json"),
        (["--report", "new/report.csv"], "create"),
        (["--jobs", "-1"], "is '-1'; expected a whole number, 0 or more"),
        (["--journal", ""], "--journal is empty"),
        (["--resume", "-o", "b.png"], "--resume is for a folder of results"),
    ],
)
def test_what_cannot_be_is_told_first(run: Run, words: list[str], message: str) -> None:
    draw("a.png")
    code, _, err = run("a.png", *words)
    assert code == 2 and message in err and err.count("\n") == 1
    assert results() == []


def test_resume_does_nothing_twice(run: Run) -> None:
    for name in "abc":
        draw(f"in/{name}.png")
    code, out, _ = run("in", "--resume", "--report", "report.csv")
    assert code == 0 and "3 of 3 done" in out
    before = {path: Path(path).stat().st_mtime_ns for path in results()}
    code, out, _ = run("in", "--resume", "--report", "again.csv")
    assert code == 0 and "every picture is done; to do them again, remove results/.restore" in out
    assert before == {path: Path(path).stat().st_mtime_ns for path in results()}
    assert Path("report.csv").read_text() == Path("again.csv").read_text()
    Path("results/b.png").unlink()
    draw("in/d.png")
    code, out, _ = run("in", "--resume")
    assert code == 0 and "[1/2] in/b.png" in out and "[2/2] in/d.png" in out


def test_resume_tries_again_what_failed(run: Run) -> None:
    draw("in/a.png")
    Path("in/b.png").touch()
    code, _, err = run("in", "--resume")
    assert code == 1 and "in/b.png: is empty" in err
    draw("in/b.png")
    code, out, _ = run("in", "--resume")
    assert code == 0 and "1 of 1 done" in out
    assert results() == ["results/a.png", "results/b.png"]


def test_resume_after_an_interrupt(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcd":
        draw(f"in/{name}.png")
    compute, calls = batch_module.upscale_picture, []

    def third_is_interrupted(*words: Any, **more: Any) -> Picture:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(batch_module, "upscale_picture", third_is_interrupted)
        code, _, err = run("in", "--resume")
    assert code == 130 and "--resume goes on from here" in err
    assert results() == ["results/a.png", "results/b.png"]
    code, out, _ = run("in", "--resume")
    assert code == 0 and "2 of 2 done" in out
    assert len(results()) == 4


def test_resume_with_other_settings_is_refused(run: Run, tmp_path: Path) -> None:
    draw("in/a.png")
    assert run("in", "--resume", "-s", "2")[0] == 0
    assert run("in", "--resume")[0] == 0  # the model's own scale is the same
    code, _, err = run("in", "--resume", "-s", "3", "--suffix", "_x3")
    assert code == 2
    assert "results/.restore: the results there were begun with other settings: " in err
    assert "--outscale is 3.0, but was 2.0; --suffix is _x3, but was not given. Give" in err
    tiny(2, seed=1).save(tmp_path / "other.pth")
    code = cli.main(["upscale", "in", "--resume", "--model_path", str(tmp_path / "other.pth")])
    assert code == 2


def test_a_journal_elsewhere(run: Run) -> None:
    draw("in/a.png")
    assert run("in", "--journal", "notes")[0] == 0
    assert results() == ["results/a.png"] and not Path("results/.restore").exists()
    assert "every picture is done" in run("in", "--journal", "notes")[1]


def test_results_are_found_from_another_folder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    draw("in/a.png")
    assert run("in", "--resume")[0] == 0
    Path("deep").mkdir()
    monkeypatch.chdir("deep")
    assert "every picture is done" in run("../in", "--resume", "-o", "../results")[1]


def test_a_picture_under_a_wrong_name_takes_no_other_ones_place(run: Run) -> None:
    draw("in/a.png", fmt="jpg"), draw("in/a.jpg", fmt="jpg"), draw("in/a.bmp", fmt="jpg")
    for words in ([], ["--resume", "-o", "shared"]):
        code, _, err = run("in", *words)
        assert code == 1
        assert "a.jpg: stands for another picture's result; its content is jpg: give --ext" in err
    assert results() == ["results/a.jpg"] and results("shared") == ["shared/a.jpg"]


def test_two_pictures_that_become_png_do_not_share_a_name(tmp_path: Path) -> None:
    wide = np.zeros((2, 9000, 3), np.uint8)
    write_picture("a.webp", Picture(wide), fmt="webp")
    write_picture("a.jpg", Picture(np.zeros((2, 40000, 3), np.uint8)), fmt="jpg")
    jobs, _ = plan_jobs([Source(Path("a.webp")), Source(Path("a.jpg"))], Naming())
    batch = Batch(jobs, Fake(scale=2), Settings())
    found = [batch.run(job) for job in jobs]
    assert [outcome.status for outcome in found] == ["done", "failed"]
    assert "stands for another picture's result" in found[1].reason


def test_a_result_of_an_earlier_run_is_known_under_its_right_name(run: Run) -> None:
    draw("in/a.png", fmt="jpg")
    for _ in range(2):
        assert run("in", "-o", "in", "--suffix", "_x2")[0] == 0
    assert results("in") == ["in/a.png", "in/a_x2.jpg"]


def test_planning_reads_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        draw(f"in/{number}.png")
    found = find_pictures(["in"])
    with monkeypatch.context() as patch:
        patch.setattr("restore.commands.files.probe", None)
        jobs, _ = plan_jobs(found.sources, Naming())
    assert [job.info.width for job in jobs if job.info] == [14, 14, 14]


def test_searching_is_counted() -> None:
    for number in range(3):
        draw(f"in/{number}.png")
    Path("in/notes.txt").touch()
    counted: list[int] = []
    find_pictures(["in"], count=lambda: counted.append(1))
    assert len(counted) == 4


def test_sources_keep_what_they_are_given() -> None:
    given = [
        Source(Path("a/x.png"), Path("a"), False),
        Source(Path("a/y.png"), Path("a"), False),
        Source(Path("b/x.png"), Path("b"), True),
        Source(Path("z.png")),
    ]
    sources = Sources(given)
    assert list(sources) == given and sources[-1] == given[-1] and len(Found().sources) == 0


def test_on_a_gpu_pictures_are_ordered_by_size_in_windows() -> None:
    for number, side in enumerate((3, 9, 5, 9, 4, 8)):
        draw(f"in/{number}.png", side, side)
    jobs, _ = plan_jobs(find_pictures(["in"]).sources, Naming())
    feed = many.InOrder(jobs, 4)
    found = list(iter(lambda: feed.next(True), None))
    assert [item.index for item in found] == [1, 3, 2, 0, 5, 4]
    assert [item.number for item in found] == [1, 2, 3, 4, 5, 6]
    plain = many.InOrder(jobs, 1)
    assert [item.index for item in iter(lambda: plain.next(True), None)] == list(range(6))


def test_jobs_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    options = argparse.Namespace(jobs=None)
    monkeypatch.setattr(many_options.os, "sched_getaffinity", lambda _: range(16), raising=False)
    assert many_options.jobs_of(options, "cpu", 1) == 1
    assert [many_options.jobs_of(options, "cuda", n) for n in (1, 2, 8)] == [8, 4, 2]
    assert many_options.jobs_of(argparse.Namespace(jobs=0), "cuda", 1) == 0


def launched(**environment: str) -> Launch:
    return Launch.of(environment)


def test_what_torchrun_says() -> None:
    assert launched() == Launch()
    assert launched(RANK="5", WORLD_SIZE="8", LOCAL_RANK="1", LOCAL_WORLD_SIZE="4") == Launch(
        5, 8, 1, 4
    )
    four = [launched(RANK=str(r), WORLD_SIZE="4", LOCAL_RANK=str(r)) for r in range(4)]
    assert [one.device("auto", 4) for one in four] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert [one.device("cuda", 2) for one in four] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert [one.device("auto", 0) for one in four] == ["auto"] * 4
    assert four[3].device("cpu", 4) == "cpu" and four[3].device("cuda:1", 4) == "cuda:1"
    assert Launch().device("auto", 4) == "auto"


@pytest.mark.parametrize(
    "environment", [{"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}]
)
def test_an_environment_that_makes_no_sense(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"the environment says .*RANK"):
        launched(**environment)


def test_one_of_several_processes_keeps_a_journal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw("in/a.png")
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    code, out, _ = run("in")
    assert code == 0 and results() == ["results/a.png"]
    assert Path("results/.restore/0001/list.jsonl").exists()
    assert re.search(r"\[1/1\] in/a\.png", out) and "model:" not in out


def test_leftovers_of_killed_programs_are_removed() -> None:
    mine = [Path(".a.png.0123abcd.part"), Path(".a.png.12ab-ffffffff.part")]
    others = [Path(".a.png.part"), Path(".aa.png.0123abcd.part"), Path(".a.png.0123abcd0.part")]
    for path in (*mine, *others):
        path.touch()
    remove_leftovers("a.png")
    assert [path.exists() for path in (*mine, *others)] == [False] * 2 + [True] * 3
    long = Path("." + "x" * 40 + ".0123abcd.part")
    long.touch()
    remove_leftovers("x" * 50 + ".png")
    assert long.exists()


def test_a_failed_comparison_of_tiles_does_not_cost_the_result(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise MemoryError

    draw("a.png")
    monkeypatch.setattr(batch_module, "verify_tiles", broken)
    code, _, err = run("a.png", "--verify-tiles")
    assert code == 1 and "not enough memory" in err
    assert read_picture("results/a.png").pixels.shape == (22, 28, 3)
