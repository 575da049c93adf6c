"""The command line: exit codes, what each option does, what is printed, what is left behind."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import tiny

import restore
from restore import cli
from restore.archs import ARCHS
from restore.commands.arguments import COMMANDS, parser_of
from restore.commands.dry_run import dry_run_lines
from restore.commands.info import file_size
from restore.commands.text import duration
from restore.image_io import Picture, probe, read_picture, write_picture
from restore.loading import load
from restore.model import Model
from restore.upscaling import upscale, upscale_picture, verify_tiles

SIZE = (11, 14)  # rows and columns of most pictures here


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny_x2.pth"
    tiny(2).save(path)
    return path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own is the current one."""
    monkeypatch.chdir(tmp_path)


def samples(height: int, width: int, channels: int, dtype: Any = np.uint8) -> np.ndarray:
    random = np.random.default_rng(height * width)
    if dtype == np.float32:
        return random.random((height, width, channels), dtype=np.float32)
    return random.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def draw(name: str, height: int = SIZE[0], width: int = SIZE[1], **more: Any) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Picture(samples(height, width, 3), **more)
    write_picture(path, picture, fmt={".jpg": "jpg", ".tif": "tiff"}.get(path.suffix, "png"))
    return path


def files() -> list[str]:
    """All files of the current folder and below, hidden ones too."""
    return sorted(p.as_posix() for p in Path().rglob("*") if p.is_file())


@pytest.fixture
def run(weights: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `restore upscale` with the tiny model; gives exit code, output and errors."""

    def upscale(*words: str) -> tuple[int, str, str]:
        code = cli.main(["upscale", "--model_path", str(weights), *words])
        return code, *capsys.readouterr()

    return upscale


Run = Callable[..., tuple[int, str, str]]


def test_a_picture_is_restored_as_the_library_does(run: Run, weights: Path) -> None:
    draw("a.png")
    code, out, err = run("a.png")
    assert (code, err) == (0, "")
    assert files() == ["a.png", "results/a.png"]
    expected = upscale(read_picture("a.png"), load(weights))
    assert np.array_equal(read_picture("results/a.png").pixels, expected.pixels)
    lines = out.splitlines()
    assert lines[0] == "model: tiny_x2 (SwinIR-dim6 lightweight x2), fp32, cpu"
    assert re.fullmatch(r"\[1/1\] a\.png 14x11 -> 28x22, 1 tile, [\d.]+ s", lines[1])
    assert re.fullmatch(r"1 of 1 done in [\d.]+ s", lines[2])
    assert lines[3:] == ["results/a.png"]


def test_a_lossless_webp_stays_lossless(run: Run) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    write_picture("a.webp", Picture(pixels), fmt="webp", lossless=True)
    write_picture("b.webp", Picture(pixels), fmt="webp")
    assert run("a.webp", "b.webp")[0] == 0
    assert read_picture("results/a.webp").lossless
    assert not read_picture("results/b.webp").lossless


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a.png", "--threads", "99999"], "99999 threads are more than"),
        (["a.png", "-s", "1e300"], "at most 1024"),
        (["a.png", "-o", "large.gif"], "cannot write .gif"),
        ([""], "an input is empty"),
        (["a.png", "-o", ""], "-o is empty"),
        (["-dash.png"], "for the file: ./-dash.png"),
    ],
)
def test_slips_of_the_shell_are_told(run: Run, words: list[str], told: str) -> None:
    draw("a.png")
    draw("-dash.png")
    code, _, err = run(*words)
    assert code == 2
    assert told in err
    assert files() == ["-dash.png", "a.png"]


def test_a_name_cannot_command_the_terminal(run: Run) -> None:
    name = "a\x1b[31m\nb.png"
    draw(name)
    code, out, _ = run(name)
    assert code == 0
    assert "\x1b" not in out
    assert "a\\x1b[31m\\nb.png" in out


def test_the_result_and_its_comparison_are_named_last(run: Run) -> None:
    draw("a.png")
    code, out, _ = run("a.png", "--compare")
    assert code == 0
    assert out.splitlines()[-2:] == ["results/a.png", "results/a_compare.png"]


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_depth_gray_and_alpha_stay(
    run: Run, weights: Path, dtype: Any, channels: int, alpha: bool
) -> None:
    values = samples(*SIZE, channels + 1, dtype)
    picture = Picture(values[..., :-1], values[..., -1] if alpha else None)
    fmt = "tiff" if dtype == np.float32 else "png"
    write_picture(f"a.{fmt}", picture, fmt=fmt)
    assert run(f"a.{fmt}")[0] == 0
    got = read_picture(f"results/a.{fmt}")
    expected = upscale_picture(picture, load(weights))
    assert got.pixels.dtype == dtype
    assert np.array_equal(got.pixels, expected.pixels)
    assert alpha is (got.alpha is not None)
    assert not alpha or np.array_equal(got.alpha, expected.alpha)


def test_a_turned_photograph_comes_out_upright(run: Run) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    exif[0x010F] = "Camera"
    image = Image.fromarray(samples(*SIZE, 3))
    image.save("a.jpg", exif=exif, quality=95)
    assert run("a.jpg")[0] == 0
    with Image.open("results/a.jpg") as result:
        assert result.size == (2 * SIZE[0], 2 * SIZE[1])
        assert result.getexif().get(0x0112, 1) == 1
        assert result.getexif()[0x010F] == "Camera"


def test_one_pixel_is_enough(run: Run) -> None:
    draw("a.png", 1, 1)
    assert run("a.png", "--compare", "--tta", "-s", "3")[0] == 0
    assert probe("results/a.png").width == 3


@pytest.mark.parametrize(
    ("outscale", "size"), [("1.5", (21, 16)), ("3", (42, 33)), ("0.5", (7, 6)), ("x2", (28, 22))]
)
def test_any_outscale(run: Run, outscale: str, size: tuple[int, int]) -> None:
    draw("a.png")
    assert run("a.png", "-s", outscale)[0] == 0
    info = probe("results/a.png")
    assert (info.width, info.height) == size


@pytest.mark.parametrize(
    ("ext", "notes"),
    [
        ("png", []),
        ("tiff", []),
        ("jpg", ["jpg has no room for 16 bits: rounded to 8", "composited on white"]),
        ("webp", ["webp has no room for 16 bits: rounded to 8"]),
        ("bmp", ["bmp has no room for 16 bits: rounded to 8", "composited on white"]),
    ],
)
def test_another_format_and_what_it_loses(run: Run, ext: str, notes: list[str]) -> None:
    values = samples(*SIZE, 4, np.uint16)
    write_picture("a.png", Picture(values[..., :3], values[..., 3]), fmt="png")
    code, out, _ = run("a.png", "--ext", ext)
    assert code == 0
    assert probe(f"results/a.{ext}").fmt == ext
    said = [line for line in out.splitlines() if line.startswith("    note: ")]
    assert len(said) == len(notes)
    assert all(note in line for note, line in zip(notes, said, strict=True))


def test_quality_changes_the_size_of_a_jpeg(run: Run) -> None:
    draw("a.png", 40, 40)
    for quality in ("10", "90"):
        assert run("a.png", "--ext", "jpg", "--quality", quality, "-o", quality)[0] == 0
    assert Path("10/a.jpg").stat().st_size < Path("90/a.jpg").stat().st_size / 2
    assert "quality 10 has no effect" in run("a.png", "--quality", "10")[1]


def test_an_exact_name_for_the_result(run: Run) -> None:
    draw("a.png")
    assert run("a.png", "-o", "deep/b.jpg")[0] == 0
    assert files() == ["a.png", "deep/b.jpg"]
    assert probe("deep/b.jpg").fmt == "jpg"


def test_folders_patterns_and_both_ways_to_name_them(run: Run) -> None:
    for name in ("in/a.png", "in/sub/b.png", "c.png", "d1.png", "d2.png"):
        draw(name)
    Path("in/notes.txt").write_text("none")
    code, out, _ = run("-i", "in", "-r", "-o", "out", "c.png", "d?.png", "--suffix=_x2")
    assert code == 0
    assert sorted(p.relative_to("out").as_posix() for p in Path("out").rglob("*.png")) == [
        *("a_x2.png", "c_x2.png", "d1_x2.png", "d2_x2.png", "sub/b_x2.png")
    ]
    assert "note: 1 other file left out" in out
    assert "5 of 5 done" in out


def test_tiles_and_their_halo_are_obeyed(run: Run, weights: Path) -> None:
    draw("a.png", 40, 70)
    _, out, _ = run("a.png", "-t", "32", "--tile-pad", "8", "-v")
    assert "70x40 -> 140x80, 6 tiles" in out
    assert "results/a.png; tiles: at most 32 pixels long, 8 pixels read around each" in out
    expected = upscale(read_picture("a.png"), load(weights), tile=32, tile_pad=8)
    assert np.array_equal(read_picture("results/a.png").pixels, expected.pixels)
    assert "1 tile," in run("a.png", "--tile", "0")[1]


def test_verified_tiles_are_told_in_db(run: Run, weights: Path) -> None:
    draw("a.png", 40, 70)
    code, out, _ = run("a.png", "-t", "32", "--tile_pad", "0", "--verify-tiles", "-q")
    agreement = verify_tiles(read_picture("a.png"), load(weights), 32, 0)
    assert code == 0
    assert f"{agreement.unrounded_db:.2f} dB unrounded" in out
    assert "infinite dB" in run("a.png", "-t", "0", "--verify-tiles")[1]


def test_flips_and_turns_are_averaged(run: Run, weights: Path) -> None:
    draw("a.png")
    assert run("a.png", "--tta")[0] == 0
    expected = upscale(read_picture("a.png"), load(weights), tta=True)
    assert np.array_equal(read_picture("results/a.png").pixels, expected.pixels)


def test_half_precision_is_said_and_changes_the_result(run: Run) -> None:
    draw("a.png")
    for name in ("bf16", "bfloat16", "torch.bfloat16"):
        assert "bf16, cpu" in run("a.png", "--dtype", name, "-o", "half")[1]
    assert "fp32, cpu" in run("a.png", "--fp32")[1]
    assert "fp16 is slower" in run("a.png", "--dtype", "half", "-o", "slow")[1]
    half, full = (read_picture(f"{out}/a.png").pixels for out in ("half", "results"))
    assert not np.array_equal(half, full)


def test_the_fast_arithmetic_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    draw("a.png")
    monkeypatch.setattr("restore.commands.fast.bfloat16_refuses", lambda: None)
    out = run("a.png", "--fast")[1]
    assert "--fast takes bf16, which cost SwinIR" in out
    assert "bf16, cpu" in out
    monkeypatch.setattr("restore.commands.fast.bfloat16_refuses", lambda: "it cannot")
    out = run("a.png", "--fast")[1]
    assert "--fast stays in fp32: it cannot" in out
    assert "fp32, cpu" in out


def test_config_overrules_the_weights(run: Run) -> None:
    draw("a.png")
    run("a.png", "-o", "plain")
    assert run("a.png", "--config", "img_range=255.0", "--arch", "swinir")[0] == 0
    plain, other = (read_picture(f"{out}/a.png").pixels for out in ("plain", "results"))
    assert not np.array_equal(plain, other)
    code, _, err = run("a.png", "--config", "img_rang=255")
    assert code == 2 and "did you mean 'img_range'?" in err


def test_threads(run: Run) -> None:
    draw("a.png")
    before = torch.get_num_threads()
    try:
        assert run("a.png", "--threads", "2")[0] == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_comparison_lies_beside_the_result(run: Run, tmp_path: Path) -> None:
    draw("a.png", 30, 40)
    assert run("a.png", "--compare", "--suffix", "_x2")[0] == 0
    assert files() == ["a.png", "results/a_compare.png", "results/a_x2.png"]
    shown = read_picture("results/a_compare.png").pixels
    result = read_picture("results/a_x2.png").pixels
    second = 16 + (shown.shape[1] - 24) // 2  # its left edge, after a panel and two gaps
    assert np.array_equal(shown[32 : 32 + 60, second : second + 80], result)


def test_denoising_keeps_the_size_and_compares_with_the_input(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny(1, channels=1).save("gray.safetensors")
    values = samples(40, 60, 1)
    write_picture("a.png", Picture(values), fmt="png")
    assert cli.main(["-i", "a.png", "--model_path", "gray.safetensors", "--compare"]) == 0
    assert probe("results/a.png").width == 60
    shown = read_picture("results/a_compare.png").pixels
    assert np.array_equal(shown[32 : 32 + 40, 8 : 8 + 60], values)


def test_skip_existing_goes_on_where_a_run_ended(run: Run) -> None:
    draw("in/a.png"), draw("in/b.png")
    Path("results").mkdir()
    Path("results/a.png").write_text("kept")
    code, out, _ = run("in", "--skip-existing")
    assert code == 0
    assert Path("results/a.png").read_text() == "kept"
    assert "[1/2] in/a.png skipped: results/a.png is there" in out
    assert "1 of 2 done, 1 skipped" in out
    run("in")
    assert probe("results/a.png").width == 2 * SIZE[1]


def test_a_dry_run_tells_all_and_writes_nothing(run: Run) -> None:
    draw("in/a.png", 40, 70), draw("in/b.png")
    Path("in/bad.png").write_text("no picture")
    before = files()
    code, out, _ = run("in", "--dry-run", "-t", "32", "--tile_pad", "8", "--compare", "-s", "3")
    assert code == 1
    assert files() == before
    table = {line.split()[0]: line for line in out.splitlines()}
    assert "70x40" in table["in/a.png"] and "210x120" in table["in/a.png"]
    assert re.search(r"3x2 of \d+x\d+ +[\d.]+ [KM]iB  [\d.]+ s  results/a\.png", table["in/a.png"])
    assert " 1 " in table["in/b.png"]
    assert "cannot be read" in table["in/bad.png"]
    assert "nothing was written" in out


def test_a_dry_run_counts_the_work(weights: Path) -> None:
    from restore.commands.batch import Batch, Settings
    from restore.commands.files import Naming, Source, plan_jobs

    draw("a.png", 64, 64)
    jobs, _ = plan_jobs([Source(Path("a.png"))], Naming())
    model = load(weights)
    plain, ensemble = (
        dry_run_lines(Batch(jobs, model, Settings(tile=0, tta=tta))) for tta in (False, True)
    )
    assert plain[0] == ensemble[0]
    assert plain[1].split()[:4] == ["a.png", "64x64", "128x128", "1"]


def test_a_broken_picture_does_not_cost_the_others(run: Run) -> None:
    draw("in/a.png"), draw("in/z.png")
    Path("in/text.png").write_text("this is text")
    whole = draw("in/cut.png").read_bytes()
    Path("in/cut.png").write_bytes(whole[:-40])
    Path("in/empty.png").touch()
    code, out, err = run("in")
    assert code == 1
    assert sorted(p.name for p in Path("results").iterdir()) == ["a.png", "z.png"]
    assert "2 of 5 done, 3 failed" in out
    end = err[err.index("failed, 3 of 5:") :].splitlines()
    assert [line.split(":")[0].strip() for line in end[1:]] == [
        *("in/cut.png", "in/empty.png", "in/text.png")
    ]
    assert "is no picture but text" in end[3]
    assert "Traceback" not in err


def test_quiet_tells_only_failures(run: Run) -> None:
    draw("a.png")
    assert run("a.png", "-q") == (0, "", "")
    Path("bad.png").touch()
    code, out, err = run("a.png", "bad.png", "-q")
    assert (code, out) == (1, "")
    assert "bad.png: is empty" in err


def test_a_defect_is_one_line_and_a_traceback_only_when_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from restore.commands import batch

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    draw("a.png")
    monkeypatch.setattr(batch, "upscale_picture", broken)
    code, _, err = run("a.png")
    assert code == 1 and "Traceback" not in err
    assert "a.png: internal error: ZeroDivisionError: by nothing" in err
    assert "Traceback" in run("a.png", "-v")[2]


def test_control_c_ends_cleanly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from restore.commands import batch

    draw("a.png"), draw("b.png")
    write, written = batch.write_picture, []

    def second_is_interrupted(*words: Any, **more: Any) -> list[str]:
        if written:
            raise KeyboardInterrupt
        written.append(words)
        return write(*words, **more)

    monkeypatch.setattr(batch, "write_picture", second_is_interrupted)
    code, _, err = run("a.png", "b.png")
    assert code == 130
    assert "interrupted: 1 of 2 pictures finished" in err and "Traceback" not in err
    assert files() == ["a.png", "b.png", "results/a.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no input; give pictures, folders or quoted patterns"),
        (["none.png"], "none.png: no such file or folder"),
        (["empty"], "empty: holds no picture (0 other files)"),
        (["empty/*.png"], "empty/*.png: holds no picture"),
        (["a.png", "-o", "a.png"], "would be replaced by the result"),
        (["a.png", "-o", "taken"], "taken is a file; name a folder"),
        (["a.png", "-o", "/dev/null/x"], "-o /dev/null/x: /dev/null is a file; name a folder"),
        (["a.png", "--suffix", "a/b"], "it goes into file names"),
        (["a.png", "--fp32", "--dtype", "fp16"], "contradict each other"),
        (["a.png", "--fast", "--fp32"], "--fast chooses the arithmetic, and so does --fp32"),
        (["a.png", "--fast", "--dtype", "bf16"], "and so does --dtype bf16; give one of them"),
        (["a.png", "-q", "-v"], "contradict each other"),
        (["a.png", "-n", "x4"], "give one of them"),
        (["a.png", "--device", "cuda:77"], "device 'cuda:77' is not here; there is"),
        (["a.png", "--arch", "HATT"], "expected one of"),
        (["a.png", "-s", "0"], "-s/--outscale/--scale: is '0'; expected a number above 0"),
        (["a.png", "-s", "inf"], "expected a number above 0"),
        (["a.png", "-t", "-3"], "expected"),
        (["a.png", "-t", "1"], "tile: is 1; the least for tiny_x2 with a tile_pad of 32 is 32 pix"),
        (["a.png", "-t", "7", "--tile_pad", "0", "--dry-run"], "a tile_pad of 0 is 8 pixels"),
        (["a.png", "-t", "big"], "--tile: is 'big'; expected auto, 0 (whole picture) or pixels"),
        (["a.png", "--tile_pad", "x"], "is 'x'; expected a whole number, 0 or more"),
        (["a.png", "--quality", "101"], "is '101'; expected a whole number from 1 to 100"),
        (["a.png", "--ext", "gif"], "is 'gif'; expected one of auto, png"),
        (
            ["a.png", "--dtype", "int8"],
            "expected one of auto, fp32, fp16, bf16, or float32, float,",
        ),
        (["a.png", "--config", "img_rang=1"], "no 'img_rang'; did you mean 'img_range'? known: "),
        (["a.png", "--config", "window_size=7"], "fits only without the given settings: "),
        (["a.png", "--bogus"], "there is no option --bogus; see restore upscale --help"),
        (["a.png", "--threads", "0"], "is '0'; expected a whole number, 1 or more"),
        (["a.png", "--config", "img_range"], "expected KEY=VALUE"),
        (["a.png", "--config", "a=["], "is no YAML value"),
        (["a.png", "--max-pixels", "-1"], "expected a whole number, 0 or more"),
        (["a.png", "--skip-exiting"], "no option --skip-exiting; did you mean --skip-existing?"),
        (["a.png", "--suffix", "-x4"], "--option=-value"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_done(
    run: Run, words: list[str], message: str
) -> None:
    draw("a.png")
    Path("empty").mkdir()
    Path("taken").touch()
    before = files()
    code, out, err = run(*words)
    assert code == 2
    assert message in err
    assert err.startswith("restore") and err.count("\n") == 1
    assert "Traceback" not in out + err
    assert files() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["upscal"], "there is no command 'upscal'; did you mean 'upscale'?"),
        (["a.png"], "did you mean: restore upscale a.png?"),
        (["upscale", "a.png", "-n", "x.pth"], "for a file: --model_path x.pth"),
        (["upscale", "a.png", "-n", "nosuch"], "no built-in model is called 'nosuch'"),
        (["upscale", "a.png", "--arch", "HAT"], "give that with --model_path"),
        (["upscale", "a.png", "--model_path", "none.pth"], "none.pth: no such file"),
        (["upscale", "a.png", "--model_path", "a.png"], "a.png: is no whole weight file"),
    ],
)
def test_wrong_commands_and_models(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    draw("a.png")
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err
    assert files() == ["a.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="has no /proc")
def test_an_output_that_cannot_be_made_is_told_before_the_model_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw("a.png"), draw("b.png")
    assert cli.main(["upscale", "a.png", "b.png", "-o", "/proc/x", "--model_path", "none.pth"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "no folder can be made in /proc: No such file or directory; choose another" in told


def test_two_pictures_for_one_name_are_refused(run: Run) -> None:
    draw("a.png"), draw("a.jpg")
    code, _, err = run("a.png", "a.jpg", "--ext", "png")
    assert code == 2
    assert "a.png and a.jpg would both be written to results/a.png; leave out --ext png" in err
    assert run("a.png", "a.jpg", "a.png")[1].count("->") == 2


def test_the_limit_of_pixels(run: Run) -> None:
    draw("a.png"), draw("b.tif")
    code, _, err = run("a.png", "--max-pixels", "100")
    assert code == 1
    assert "154 pixels, above the limit of 100; raise it with --max-pixels" in err
    assert run("a.png", "--max-pixels", "0")[0] == 0
    assert run("b.tif", "--max-pixels", "100")[0] == 0


def test_info_about_weights(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(weights)]) == 0
    out = capsys.readouterr().out
    for word in ("SwinIR-dim6 lightweight x2", "arXiv:2108.10257", "x2", "RGB", "embed_dim=6"):
        assert word in out
    assert cli.main(["info", str(weights), "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    model = load(weights)
    assert facts["scale"] == 2
    assert facts["parameters"] == model.num_parameters
    assert facts["config"] == dict(model.config)
    assert facts["recognised_by"] == list(model.evidence)
    assert facts["input"]["tile_pad"] == model.halo


def test_info_without_a_file_lists_the_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["type", "model", "task"]
    assert {row.split()[0] for row in rows} == {spec.name for spec in ARCHS}
    assert cli.main(["info", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {row["arch"] for row in listed} == {spec.name for spec in ARCHS}


def test_info_about_pictures_and_what_fails(capsys: pytest.CaptureFixture[str]) -> None:
    write_picture("a.tif", Picture(samples(*SIZE, 1, np.uint16)), fmt="tiff")
    Path("bad.png").touch()
    assert cli.main(["info", "a.tif", "bad.png", "nosuch", "--json"]) == 1
    out, err = capsys.readouterr()
    (facts,) = json.loads(out)
    assert (facts["width"], facts["height"], facts["bits"]) == (14, 11, 16)
    assert "bad.png: is empty" in err
    assert "nosuch: no such file, and no built-in model" in err
    assert cli.main(["info", "a.tif"]) == 0
    assert "16-bit gray" in capsys.readouterr().out


@pytest.fixture
def builtin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installation with one built-in model, swinir_tiny_x2."""
    from safetensors.torch import save_file

    from restore import loading
    from restore.catalogue.entries import known_as
    from restore.commands import info
    from restore.official import official_models

    folder = tmp_path / "installed" / "weights"
    folder.mkdir(parents=True)
    state = tiny(2).module.state_dict()
    metadata = {"licence": "CC0", "training": json.dumps({"steps": 5, "set5_psnr_y": 31.456})}
    save_file(state, folder / "swinir_tiny_x2.safetensors", metadata)
    official_models(), known_as("HAT-x4")  # from the real installation, once
    for module in (info, loading):
        monkeypatch.setattr(module.resources, "files", lambda _: folder.parent)


@pytest.mark.usefixtures("builtin")
def test_built_in_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:3] == ["model", "size", "licence"]
    assert re.fullmatch(r"swinir_tiny_x2  [\d.]+ KiB  CC0      31\.46 dB", out[1])
    assert cli.main(["models", "--json"]) == 0
    facts, *_ = json.loads(capsys.readouterr().out)
    assert facts["metadata"]["training"]["steps"] == 5
    assert cli.main(["info", "swinir_tiny_x2"]) == 0
    assert "licence: CC0" in capsys.readouterr().out


@pytest.mark.usefixtures("builtin")
def test_without_a_model_the_built_in_one_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png")
    assert cli.main(["upscale", "a.png"]) == 0
    assert "14x11 -> 28x22" in capsys.readouterr().out
    assert cli.main(["upscale", "a.png", "-n", "swinir_tiny_x2", "-s", "3"]) == 0
    assert "14x11 -> 42x33" in capsys.readouterr().out
    assert cli.main(["upscale", "a.png", "-n", "swinir_tiny_x4"]) == 2
    assert "did you mean 'swinir_tiny_x2'?" in capsys.readouterr().err


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in (f"restore {restore.__version__}", f"torch {torch.__version__}", "device cpu"):
        assert word in out
    assert cli.main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["self_test"].values()) == {"ok"}
    assert facts["code_paths"]["cpu"].keys() >= {"window_attention", "self_correlation"}


def test_doctor_says_when_a_device_computes_wrongly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from restore.commands import doctor

    real = Model.__call__

    def wrong(self: Model, x: torch.Tensor, **more: Any) -> torch.Tensor:
        return real(self, x, **more) + (x.dtype == torch.float32) * 0.01

    monkeypatch.setattr(Model, "__call__", wrong)
    assert doctor.self_test(torch.device("cpu")).startswith("failed: results differ")
    assert cli.main(["doctor"]) == 1
    assert "self-test: failed" in capsys.readouterr().out

    def broken(self: Model, x: torch.Tensor, **more: Any) -> torch.Tensor:
        raise RuntimeError("no kernel image\nfurther lines")

    monkeypatch.setattr(Model, "__call__", broken)
    assert doctor.self_test(torch.device("cpu")) == "failed: RuntimeError: no kernel image"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    assert f"restore {command}" in capsys.readouterr().out


def test_version_help_and_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"restore {restore.__version__}\n"
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    assert cli.main([]) == 2
    assert "COMMAND" in capsys.readouterr().err


def test_underscores_and_dashes_are_the_same() -> None:
    parse = parser_of("upscale").parse
    for words in (["--tile_pad=3"], ["--tile-pad", "3"]):
        assert parse(words).tile_pad == 3
    assert parse(["--skip_existing", "--max_pixels", "7"]).max_pixels == 7
    assert parse(["-i", "a", "b", "-o", "out", "c"]).input == ["a", "b"]
    assert parse(["-o", "out", "--", "--odd.png"]).inputs == ["./--odd.png"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        """The lines on the screen, as a terminal of endless width would have them."""
        rows, y, x = [""], 0, 0
        for part in re.findall(r"\x1b\[A|.|\n", self.getvalue(), re.DOTALL):
            if part == "\x1b[A":
                y -= 1
            elif part == "\r":
                x = 0
            elif part == "\n":
                y, x = y + 1, 0
            else:
                rows[y] = rows[y].ljust(x)[:x] + part + rows[y][x + 1 :]
                x += 1
            rows += [""] * (y + 1 - len(rows))
        return [row.rstrip() for row in rows]


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal that is both standard output and standard error from now on."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


@pytest.mark.parametrize("names", [["a.png"], ["a.png", "bad.png", "b.png"]])
def test_bars_are_drawn_on_a_terminal_and_wiped(
    run: Run, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    draw("a.png", 40, 70), draw("b.png")
    Path("bad.png").touch()
    real = Model.__call__

    def slow(self: Model, x: torch.Tensor, **more: Any) -> torch.Tensor:
        time.sleep(0.11)  # bars are drawn ten times a second
        return real(self, x, **more)

    monkeypatch.setattr(Model, "__call__", slow)
    screen = terminal(monkeypatch)
    run(*names, "-t", "32", "--tile_pad", "0")
    drawn, shown = screen.getvalue(), screen.shown()
    assert "4/6 [" in drawn
    assert ("2/3 pictures" in drawn) == (len(names) == 3)
    assert not any("|" in line for line in shown)
    n = len(names)
    assert shown[0].startswith("model: ")
    assert shown[1].startswith(f"[1/{n}] a.png 70x40 -> 140x80, 6 tiles, ")
    assert n == 1 or shown[2].startswith("[2/3] failed: bad.png: is empty")
    assert shown[n + 1].startswith(f"{(n + 1) // 2} of {n} done")
    assert shown[-1] == ""


def test_an_interrupt_wipes_the_bars(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from restore.commands import batch

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    draw("a.png", 40, 70), draw("b.png")
    monkeypatch.setattr(batch, "write_picture", interrupted)
    screen = terminal(monkeypatch)
    assert run("a.png", "b.png", "-t", "32", "--tile_pad", "0")[0] == 130
    shown = screen.shown()
    assert shown[1].startswith("interrupted: 0 of 2 pictures finished")
    assert not any("|" in line for line in shown)


def test_a_name_that_cannot_be_shown_stops_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw("böse.png")
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    assert run("böse.png")[0] == 0
    narrow.flush()
    assert b"b\\xf6se.png" in narrow.buffer.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (61, "1 min 01 s"), (3599.6, "1 h 00 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2**50, "1024.0 TiB")]
)
def test_sizes(n: int, text: str) -> None:
    assert file_size(n) == text


def program(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=120, **more
    )


def test_help_does_not_load_pytorch(root: Path) -> None:
    code = (
        "import sys; from restore.cli import main; main(['upscale', '--help']); main(['upscal']);"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = program("-c", code, env={"PYTHONPATH": str(root), "PATH": ""})
    assert done.returncode == 0, done.stderr


def test_the_three_ways_to_start_are_one_program(root: Path, weights: Path) -> None:
    draw("a.png")
    done = program(
        str(root / "inference.py"), "-i", "a.png", "--model_path", str(weights), "-o", "by_file"
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = program(
        *("-m", "restore", "upscale", "a.png", "--model_path", str(weights), "-o", "by_module"),
        env={"PYTHONPATH": str(root), "PATH": ""},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("by_file/a.png").read_bytes() == Path("by_module/a.png").read_bytes()
    assert program(str(root / "inference.py"), "-i", "nosuch.png").returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_a_reader_that_goes_away_is_no_error(root: Path) -> None:
    draw("a.png")
    words = f"{sys.executable} {root}/inference.py info a.png a.png a.png | true"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
