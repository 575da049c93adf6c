"""`restore bench` as it is called: what it says, leaves behind and returns."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_samples import draw
from small_models import tiny

from restore import cli
from restore.bench import figures, runs
from restore.bench.cache import file_digest
from restore.bench.outputs import Outputs
from restore.bench.published import Published
from restore.bench.results import read_results
from restore.commands.bench import EPILOG, bench_parser
from restore.datasets.card_files import CardImage, card, card_names
from restore.datasets.images import pixel_digest
from restore.image_io import Picture, read_picture, write_picture
from restore.metrics import mod_crop
from restore.resizing import imresize
from restore.tasks import TASKS, WORDS


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, with two models and a set of three pictures."""
    monkeypatch.chdir(tmp_path)
    tiny(2).save("a.pth")
    tiny(2, seed=1).save("b.pth")
    tiny(3).save("x3.pth")
    tiny(1).save("clean_noise25.pth")
    tiny(1, seed=2).save("plain.pth")
    for number in range(3):
        draw(Path(f"photos/p{number}.png"), 33 + number, 41)


def told(capsys: pytest.CaptureFixture[str], words: str) -> tuple[int, str, str]:
    code = cli.main(["bench", *words.split()])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_table_is_shown_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, "-n a.pth b.pth -d photos -o out --device cpu")
    assert (code, err) == (0, "")
    assert "a, photos x2: 3 pictures: PSNR Y" in out
    assert "photos x2: low-resolution pictures made by restore.imresize, MATLAB's bicubic; " in out
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("cache", "means.csv", "pictures.csv", "results.json", "table.md", "table.tex")
    ]
    rows = read_results(Path("out"))
    assert [(row.model.name, row.dataset, row.count) for row in rows] == [
        *[("a", "photos", 3), ("b", "photos", 3)]
    ]
    assert [p.name for p in rows[0].pictures] == ["p0", "p1", "p2"]


def test_it_goes_on_after_an_interruption(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "-n a.pth -d photos -o out --device cpu -q"
    real, done = runs.prepared, list[str]()

    def interrupted(*given: object) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append("one")
        return real(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(runs, "prepared", interrupted)
        code, out, err = told(capsys, words)
    assert (code, out) == (130, "")
    assert "0 sets finished; pictures that are scored are kept in out/cache" in err
    assert not Path("out/results.json").exists()
    code, out, _ = told(capsys, words.removesuffix(" -q"))
    assert code == 0 and "3 pictures (2 from the cache)" in out


def test_noise_of_the_files_name_or_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    words = "-n clean_noise25.pth -d photos -o out --device cpu --task denoise"
    code, out, _ = told(capsys, words)
    assert code == 0 and "clean_noise25, photos sigma 25" in out and "PSNR RGB" in out
    _, out, _ = told(capsys, f"{words} --noise 15 50")
    assert "sigma 15" in out and "sigma 50" in out and "sigma 25" not in out


def test_the_weights_of_a_file_that_were_scored_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    states = [tiny(2, seed=seed).official_state_dict() for seed in (0, 1)]
    torch.save({"params": states[0], "params_ema": states[1]}, "both.pth")
    found = []
    for words, key, other in (
        ("", "params_ema", "params"),
        (" --param_key params", "params", "params_ema"),
    ):
        code, out, err = told(capsys, f"-n both.pth -d photos -o out --device cpu{words}")
        assert (code, err) == (0, "") and "from the cache" not in out
        note = f"both: weights under {key} of its file, which also has {other} (--param_key"
        assert note in out and note in Path("out/table.md").read_text()
        row = read_results(Path("out"))[0]
        assert (row.model.param_key, row.model.other_keys) == (key, (other,))
        found.append(row.pictures[0].values["psnr_y"])
    assert found[0] != found[1]
    _, out, _ = told(capsys, "-n both.pth -d photos -o out --device cpu")
    assert "(3 from the cache)" in out
    code, _, err = told(capsys, "-n both.pth -d photos --param_key ema -o out --device cpu")
    assert code == 2 and "has no weights under 'ema'; it has params_ema and params" in err


def test_a_picture_that_fails_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/p1.png").write_bytes(b"no picture")
    code, out, err = told(capsys, "-n a.pth -d photos -o out --device cpu")
    assert code == 1
    assert "2 of 3" in out and "failed, 1 picture" in err and "p1" in err


def test_check_wants_the_published_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "-n a.pth -d photos -o out --device cpu"
    assert told(capsys, words)[0] == 0
    code, _, err = told(capsys, f"{words} --check")
    assert code == 1 and "no figure of it was published" in err


def test_two_models_of_one_name_get_names_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("other").mkdir()
    tiny(2, seed=1).save("other/a.pth")
    _, _, err = told(capsys, "-n a.pth other/a.pth -d photos -o out --device cpu")
    assert err == ""
    names = [row.model.name for row in read_results(Path("out"))]
    assert names[0] == "a" and names[1].startswith("a-") and len(names[1]) == 10
    tiny(2).save("same.safetensors")
    code, _, err = told(capsys, "-n a.pth same.safetensors -d photos -o out --device cpu")
    assert code == 2 and "same.safetensors holds the same network as a.pth" in err


def test_two_models_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--compare a.pth b.pth -d photos -o out --device cpu"
    code, out, err = told(capsys, f"{words} --crops 2,3,12,10 --most 2")
    assert (code, err) == (0, "")
    assert "B - A" in out and "sign test" in out
    assert Path("out/paired.csv").is_file()
    sheet = read_picture("out/compare_photos_x2.png").pixels
    assert sheet.shape[2] == 3 and len(np.unique(sheet)) > 10
    folders = [read_results(Path("out"))]
    assert all(picture.result for row in folders[0] for picture in row.pictures)


def test_two_folders_of_results_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        words = f"-n {name}.pth -d photos -o out/{name} --device cpu -q"
        assert told(capsys, words)[0] == 0
    code, out, _ = told(capsys, "--compare out/a out/b -o out/both")
    assert code == 0
    assert "note: no sheet of photos: p" in out and "its result was not kept" in out
    code, _, err = told(capsys, "--compare out/a b.pth -o out/both")
    assert code == 2 and "b.pth is not" in err
    code, _, err = told(capsys, "--compare out/a photos -o out/both")
    assert code == 2 and "photos/results.json: cannot be read" in err


def test_files_of_an_earlier_run_do_not_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """A table beside the statistics and sheets of other settings would be a mixture."""
    assert told(capsys, "--compare a.pth b.pth -d photos -o out --device cpu")[0] == 0
    of_both = {"compare_photos_x2.png", "paired.csv"}
    there = _names("out")
    assert of_both < there
    # of two folders of results: tables of a third run go, those of one of the two stay
    shutil.copytree("out", "third")
    assert told(capsys, "--compare out out -o third")[0] == 0
    assert {name for name in _names("third") if "compare" not in name} == {"paired.csv"}
    code, _, err = told(capsys, "--compare out out -d photos -o third")
    assert code == 2 and "computes nothing; leave -d out" in err
    assert told(capsys, "--compare out third -o out")[0] == 2  # third has no results any more
    assert _names("out") == there
    assert told(capsys, "-n a.pth -d photos -o out --device cpu")[0] == 0
    assert _names("out") == there - of_both


def _names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir() if path.is_file()}


def test_files_that_were_changed_are_left(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    outputs = Outputs(folder)
    outputs.begin()
    for name in ("table.md", "paired.csv", "kept.csv"):
        (folder / name).write_text(name)
        outputs.add(folder / name)
    (folder / "mine.csv").write_text("of no run")
    (folder / "table.md").write_text("changed")
    Outputs(folder).begin(keep=["kept.csv"])
    assert _names("out") == {"table.md", "kept.csv", "mine.csv"}
    # a list that names what lies elsewhere, or is damaged, removes nothing
    digest = file_digest(tmp_path / "a.pth")
    for content in (json.dumps({"../a.pth": digest}), "no list", "[1]"):
        (folder / "cache" / "outputs.json").write_text(content)
        Outputs(folder).begin()
    assert (tmp_path / "a.pth").is_file()


def test_the_help_lists_the_sets_of_every_task() -> None:
    found = {}
    for line in EPILOG.splitlines():
        task, *names = line.split()[:1] + line.split()[1:] if line.startswith("  ") else [""]
        if task in TASKS:
            found |= dict.fromkeys(names, task)
    assert found == {name: card(name).task for name in card_names()}


def test_models_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--speed -n a.pth b.pth --size 16x24 8 --rounds 2 -o out --device cpu"
    code, out, err = told(capsys, words)
    assert (code, err) == (0, "")
    assert "16 x 24" in out and "8 x 8" in out and "medians of 2 rounds" in out
    content = json.loads(Path("out/speed.json").read_text())
    assert [t["model"] for t in content["timings"]] == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-d photos", "no model; give weight files"),
        ("-n a.pth", "no set; give names of cards"),
        ("-n a.pth -d nowhere", "-d nowhere: no such folder"),
        ("-n a.pth -d photos nowhere", "-d nowhere: no such folder"),
        ("-n a.pth none.pth -d photos", "none.pth: no such file"),
        ("-n a.pth -d photos --tile 64", "--protocol papers takes pictures whole, and --tile"),
        (
            "-n a.pth -d photos --noise 15",
            "--noise is for denoise: a enlarges 2 times; leave",
        ),
        ("-n a.pth -d photos --quality 15", "--quality is for jpeg: a enlarges 2 times; leave"),
        ("-n a.pth -d photos --noise 15 --quality 10", "give one of them"),
        ("-n a.pth -d photos --noise 15 --task jpeg", "--noise is for denoise"),
        ("-n a.pth -d photos --crops 1,2,3,4", "--crops is for --compare"),
        ("--compare a.pth a.pth -d photos", "a.pth is both models"),
        ("--compare a.pth b.pth", "no set to compare them on"),
        ("--compare out/A out/B", "out/A: no such folder of results or model\n"),
        ("--compare a.pth none.pth -d photos", "none.pth: no such folder of results or model\n"),
        (
            "--compare swinir_x2 b.pth",
            "swinir_x2: no such folder of results or model, and no bu",
        ),
        ("--compare a.pth b.pth -n a.pth -d photos", "leave -n out"),
        ("--compare a.pth b.pth -d photos --crops 1,2", "--crops: is '1,2'"),
        ("--compare a.pth b.pth -d photos --crops P=1,2,3,4", "no such picture; there are p0"),
        ("--compare a.pth b.pth -d photos --crops 30,2,13,4", "beyond p0, which has 40 x 32 pix"),
        ("--compare a.pth x3.pth -d photos", "A has photos x2, B has photos x3"),
        ("--speed -n a.pth --size 0", "expected pixels, as 64"),
        ("--speed -n a.pth -d photos", "times models on random pictures and scores none; leave -d"),
        ("--speed -n a.pth --check", "leave --check out"),
        ("--speed -n a.pth --metrics niqe", "leave --metrics out"),
        ("-n a.pth -d photos --rounds 3", "--rounds is for --speed"),
        ("-n a.pth -d photos --most 3", "--most is for --compare"),
        ("-n a.pth -d photos --task deblur", "--task deblur: a enlarges 2 times; give --task sr"),
        (
            "-n plain.pth -d photos",
            "plain: nothing tells its task: SwinIR-dim6 colour denoising is",
        ),
        (
            "-n plain.pth -d photos --task blur",
            "expected one of sr, denoise, jpeg, real-denoise, deblur",
        ),
        (
            "-n plain.pth -d photos --task deblur",
            "photos: holds no pairs of pictures; expected two",
        ),
        ("-n clean_noise25.pth -d photos --task sr", "expected one that enlarges"),
        ("-n a.pth -d photos --fp32 --dtype bf16", "contradict each other"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = told(capsys, f"{words} -o out --device cpu")
    assert code == 2
    assert message in err
    assert not [path for path in Path("out").rglob("*") if path.is_file()]


@pytest.fixture
def set5(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a set that has a card, and figures published for a network on it."""
    folder = Path("data/Set5")
    images = []
    for number in range(5):
        pixels = read_picture(draw(folder / f"{number}.png", 33, 41 + number)).pixels
        digest = pixel_digest(pixels)
        assert digest
        images.append(CardImage(f"{number}.png", *pixels.shape, {1: digest}))
    known = replace(card("Set5"), images=tuple(images))
    monkeypatch.setattr("restore.datasets.card_files._cards", lambda: (known,))
    monkeypatch.setattr(figures, "is_misnamed", lambda *_: False)
    monkeypatch.setattr(figures, "model_keys", lambda *_: ("key",))
    monkeypatch.setattr(figures, "published", _printed)
    return folder


def _printed(keys: object, dataset: str, level: int, metric: str) -> Published | None:
    assert (keys, level) == (("key",), 2)
    on = dataset == "Set5" and metric == "psnr_y"
    return Published(99.0, 2, "a paper, table 1", "key", "y") if on else None


ON_SET5 = "-n a.pth -d Set5 --data-root data -o out --device cpu"


def test_published_figures_are_of_whole_sets(
    capsys: pytest.CaptureFixture[str], set5: Path
) -> None:
    code, out, err = told(capsys, f"{ON_SET5} --check")
    assert code == 1 and "published was 99.00" in err
    assert "a paper, table 1" in out and "99.00" in out
    row = read_results(Path("out"))[0]
    assert row.published["psnr_y"].difference < -50
    assert not row.published["psnr_y"].ok and row.unpublished == ""
    for words, reason in (
        ("--gray y", "count gray pictures as three equal channels"),
        ("--tta", "without averages over flips"),
    ):
        code, out, err = told(capsys, f"{ON_SET5} {words} --check")
        assert code == 1 and "99.00" not in out
        assert reason in out and reason in err
    (set5 / "3.png").unlink()
    code, out, err = told(capsys, f"{ON_SET5} --check")
    assert code == 1 and "99.00" not in out
    assert "stands beside it: the folder has 4 pictures; Set5 has 5" in out
    assert "a, Set5 x2: the folder has 4 pictures; Set5 has 5" in err


def test_published_figures_are_of_the_cards_pixels(
    capsys: pytest.CaptureFixture[str], set5: Path
) -> None:
    pixels = read_picture(set5 / "2.png").pixels.copy()
    pixels[3, 4, 1] ^= 1
    write_picture(set5 / "2.png", Picture(pixels), fmt="png")
    for _ in range(2):  # also when it is known from the cache
        code, out, _ = told(capsys, ON_SET5)
        assert code == 0 and "99.00" not in out
        assert "nothing published stands beside it: data/Set5/2.png: has other pixels" in out
    # under names that the card does not have
    for number in range(5):
        draw(set5 / f"{number}.png", 33, 41 + number).rename(set5 / f"other{number}.png")
    _, out, _ = told(capsys, ON_SET5)
    assert "99.00" in out
    (set5 / "other1.png").write_bytes((set5 / "other2.png").read_bytes())
    _, out, _ = told(capsys, ON_SET5)
    assert "99.00" not in out and "data/Set5/other2.png: is 2.png once more" in out
    draw(set5 / "other1.png", 33, 40)
    _, out, _ = told(capsys, ON_SET5)
    assert "99.00" not in out and "data/Set5/other1.png: Set5 has no such picture" in out


def test_published_figures_are_of_the_cards_low_side(
    capsys: pytest.CaptureFixture[str], set5: Path
) -> None:
    low = Path("data/Set5/LR_bicubic/X2")
    low.mkdir(parents=True)
    (set5 / "HR").mkdir()
    for number in range(5):
        truth = (set5 / f"{number}.png").rename(set5 / "HR" / f"{number}.png")
        pixels = imresize(mod_crop(read_picture(truth).pixels, 2), 0.5)
        write_picture(low / f"{number}x2.png", Picture(pixels), fmt="png")
    _, out, _ = told(capsys, ON_SET5)
    assert "99.00" in out
    write_picture(low / "4x2.png", Picture(pixels // 2), fmt="png")
    _, out, _ = told(capsys, ON_SET5)
    assert "99.00" not in out and "4x2.png: differs from MATLAB's bicubic" in out


def test_of_two_folders_of_one_name_the_real_set_gets_the_published(
    capsys: pytest.CaptureFixture[str], set5: Path
) -> None:
    for number in range(5):
        draw(Path(f"other/Set5/{number}.png"), 33, 41)
    for folders in ("other/Set5 data/Set5", "data/Set5 other/Set5"):
        code, _, _ = told(capsys, f"-n a.pth -d {folders} -o out --device cpu")
        assert code == 0
        rows = read_results(Path("out"))
        assert len({row.dataset for row in rows}) == 2
        is_real = [Path(row.pictures[0].truth).parent == set5 for row in rows]
        assert [bool(row.published) for row in rows] == is_real


def test_a_file_with_an_official_name_has_to_hold_that_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny(2).save("HiT-SRF-2x.pth")
    for number in range(5):
        draw(Path(f"data/Set5/{number}.png"), 33, 41)
    words = "-n HiT-SRF-2x.pth -d Set5 --data-root data -o out --device cpu --check"
    code, out, err = told(capsys, words)
    reason = "HiT-SRF-2x.pth has a name that its authors gave to another network"
    assert code == 1 and reason in out and reason in err
    assert not read_results(Path("out"))[0].published


@pytest.mark.parametrize("side", ["HR/p1.png", "LR_bicubic/X2/p1x2.png"])
def test_a_broken_link_fails_alone(capsys: pytest.CaptureFixture[str], side: str) -> None:
    for number in range(3):
        truth = draw(Path(f"mine/HR/p{number}.png"), 32, 44 + number * 2)
        low = Path(f"mine/LR_bicubic/X2/p{number}x2.png")
        low.parent.mkdir(parents=True, exist_ok=True)
        write_picture(low, Picture(imresize(read_picture(truth).pixels, 0.5)), fmt="png")
    broken = Path("mine", side)
    broken.unlink()
    broken.symlink_to("nowhere.png")
    code, out, err = told(capsys, "-n a.pth -d mine -o out --device cpu")
    assert code == 1 and "2 of 3" in out and f"{broken}: cannot be read" in err
    row = read_results(Path("out"))[0]
    assert [p.name for p in row.pictures] == ["p0", "p2"] and list(row.failed) == ["p1"]


def test_folders_of_one_name_are_two_sets(capsys: pytest.CaptureFixture[str]) -> None:
    draw(Path("other/photos/p0.png"), 40, 40)
    code, _, _ = told(capsys, "-n a.pth -d photos other/photos photos -o out --device cpu")
    assert code == 0
    names = [(row.dataset, row.count) for row in read_results(Path("out"))]
    assert names == [("photos", 3), ("other/photos", 1)]
    Path("link").symlink_to("photos")
    for folders in (
        "photos ./photos photos/",
        "photos link",
        f"other/../photos {Path.cwd()}/photos",
    ):
        assert told(capsys, f"-n a.pth -d {folders} -o out --device cpu")[0] == 0
        assert [row.count for row in read_results(Path("out"))] == [3]


def test_a_data_root_goes_before_the_current_folder(
    capsys: pytest.CaptureFixture[str], set5: Path
) -> None:
    draw(Path("Set5/chance.png"), 33, 41)
    assert told(capsys, ON_SET5)[0] == 0
    assert [row.count for row in read_results(Path("out"))] == [5]
    for words in (
        ON_SET5.replace("-d Set5", "-d ./Set5"),
        ON_SET5.replace("data-root data", "data-root photos"),
    ):
        assert told(capsys, words)[0] == 0
        assert [row.count for row in read_results(Path("out"))] == [1]


def test_results_with_missing_figures_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        assert told(capsys, f"-n {name}.pth -d photos -o {name} --device cpu -q")[0] == 0
    path = Path("a/results.json")
    content = json.loads(path.read_text())
    del content["rows"][0]["pictures"][1]["values"]["ssim_y"]
    path.write_text(json.dumps(content))
    code, _, err = told(capsys, "--compare a b -o out")
    assert code == 2 and "a/results.json: is no results.json" in err and "p1 has no ssim_y" in err


def test_runs_on_other_low_sides_are_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    truth = read_picture(draw(Path("mine/HR/p0.png"), 32, 44)).pixels
    path = Path("mine/LR_bicubic/X2/p0x2.png")
    path.parent.mkdir(parents=True)
    for name, low in zip("ab", (imresize(truth, 0.5), truth[::2, ::2].copy()), strict=True):
        write_picture(path, Picture(low), fmt="png")
        assert told(capsys, f"-n {name}.pth -d mine -o {name} --device cpu -q")[0] == 0
    code, out, err = told(capsys, "--compare a b -o out")
    assert (code, out) == (2, "") and "low-quality sides of p0 are different files" in err


def test_crops_of_results_that_were_not_kept_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in "ab":
        assert told(capsys, f"-n {name}.pth -d photos -o {name} --device cpu -q")[0] == 0
    for crop, message in (("1,1,8,8", "result was not kept"), ("1,1,80,8", "reaches beyond p0")):
        code, out, err = told(capsys, f"--compare a b -o out --crops {crop}")
        assert (code, out) == (2, "") and message in err and not Path("out").exists()


def test_the_authors_scores_are_reached(capsys: pytest.CaptureFixture[str], shared: Path) -> None:
    """One picture of Set5, whose score was measured with the authors' code."""
    weights, data = shared / "weights" / "HiT-SRF_x4.pth", shared / "data" / "Set5"
    if not weights.exists():
        pytest.skip("needs ../shared/weights/HiT-SRF_x4.pth")
    for part, name in (("HR", "butterfly.png"), ("LR_bicubic/X4", "butterflyx4.png")):
        Path("one", part).mkdir(parents=True)
        Path("one", part, name).write_bytes((data / part / name).read_bytes())
    code, _, _ = told(capsys, f"-n {weights} -d one -o out --device cpu")
    row = read_results(Path("out"))[0]
    assert code == 0 and row.count == 1
    assert round(row.pictures[0].values["psnr_y"], 2) == 29.38


def test_measures_with_weights_are_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other weights are another measure: nothing of the first is found again."""
    strengths = iter((1.0, 1.0, 2.0))

    def made(name: str, *, device: object) -> Callable[..., float]:
        strength = next(strengths)
        return lambda result, truth, crop_border: strength * float(result.mean())

    monkeypatch.setattr("restore.metrics.perceptual.perceptual", made)
    words = "-n a.pth -d photos -o out --device cpu --metrics lpips"
    for kept in ("", " (3 from the cache)", ""):
        code, out, _ = told(capsys, words)
        assert code == 0 and f"3 pictures{kept}: PSNR Y" in out and "LPIPS" in out
    scores = read_results(Path("out"))[0].pictures
    assert all(score.values["lpips_rgb"] > 0 for score in scores)


def test_a_measure_without_its_weights_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    code, _, err = told(capsys, "-n a.pth -d photos -o out --device cpu --metrics dists")
    assert code == 2 and "DISTS: no vgg16" in err and "leave out DISTS" in err


@pytest.mark.parametrize(
    ("high", "low", "name", "told_of"),
    [
        (
            "HR",
            "LR_bicubic/X2",
            "p0x2.png",
            "mine x2: low-resolution files of mine/LR_bicubic/X2 (",
        ),
        ("GTmod2", "LRbicx2", "p0.png", "mine x2: low-resolution files of mine/LRbicx2 ("),
    ],
)
def test_a_sets_own_low_side_is_taken_and_verified(
    high: str, low: str, name: str, told_of: str, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_picture(draw(Path("mine", high, "p0.png"), 32, 44)).pixels
    small = imresize(truth, 0.5)
    path = Path("mine", low, name)
    path.parent.mkdir(parents=True)
    write_picture(path, Picture(small), fmt="png")
    words = "-n a.pth -d mine -o out --device cpu"
    code, out, _ = told(capsys, words)
    assert code == 0 and f"{told_of}MATLAB's bicubic); PSNR" in out and "differ" not in out
    right = read_results(Path("out"))[0].pictures[0].values
    write_picture(path, Picture(small // 2), fmt="png")
    for _ in range(2):  # also when it is known from the cache
        code, out, _ = told(capsys, words)
        assert code == 0 and f"{path}: differs from MATLAB's bicubic in" in out
        assert f"{told_of}differ from MATLAB's bicubic in " in out
    assert read_results(Path("out"))[0].pictures[0].values != right


def test_a_mean_over_files_and_made_pictures_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        truth = draw(Path(f"mine/HR/p{number}.png"), 32, 44)
    low = Path("mine/LR_bicubic/X2/p1x2.png")
    low.parent.mkdir(parents=True)
    write_picture(low, Picture(read_picture(truth).pixels[::2, ::2].copy()), fmt="png")
    code, out, _ = told(capsys, "-n a.pth -d mine -o out --device cpu")
    assert code == 0 and "2 (1 made)" in out and "x2: MATLAB's bicubic" not in out
    assert re.search(
        r"mine x2: low-resolution files of mine/LR_bicubic/X2 \(differ from MATLAB's bicubic in "
        r"[\d.]+% of samples\), 1 of 2 made by restore.imresize; PSNR Y",
        out,
    )
    assert "mine x2: the mean is of a mixture: 1 of 2 low-resolution pictures were made" in out
    assert "(1 of 2 low sides made)" in Path("out/table.md").read_text()
    row = read_results(Path("out"))[0]
    assert row.made == 1 and "1 of 2 made" in row.low_side


def test_of_two_files_of_one_name_the_lossless_one_is_scored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pixels = read_picture("photos/p0.png").pixels
    write_picture("photos/p0.jpg", Picture(pixels), fmt="jpg")
    write_picture("photos/p1.jpg", Picture(pixels), fmt="jpg")
    Path("photos/p1.png").unlink()
    write_picture("photos/p1.webp", Picture(pixels), fmt="webp", lossless=True)
    write_picture("photos/p2.webp", Picture(pixels), fmt="webp", quality=90)
    code, out, _ = told(capsys, "-n a.pth -d photos -o out --device cpu")
    assert code == 0 and "left out: p0.jpg; p0.png has the same name but for case or suffix" in out
    names = [Path(p.truth).name for p in read_results(Path("out"))[0].pictures]
    assert names == ["p0.png", "p1.webp", "p2.png"]


def test_a_folder_of_pairs_is_told_in_benchs_words(capsys: pytest.CaptureFixture[str]) -> None:
    for side in ("input", "target"):
        draw(Path(f"pairs/{side}/1.png"), 20, 24)
        draw(Path(f"deep/{side}2/1.png"), 20, 24)
    words = "-n plain.pth --task denoise -o out --device cpu -d"
    code, _, err = told(capsys, f"{words} pairs")
    assert code == 2 and "pairs: holds pairs, for --task real-denoise or deblur; for denoise" in err
    assert "-d pairs/target" in err and "dataroot" not in err
    code, _, err = told(capsys, f"{words} deep")
    assert code == 2 and "dataroot" not in err
    assert "-d deep: holds no picture but folders (input2, target2); give one of them" in err


def test_the_help_names_all_tasks() -> None:
    shown = " ".join(bench_parser().format_help().split())
    assert all(f"{task}: {WORDS[task]}" in shown for task in TASKS)


def test_tiles_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    words = "-n clean_noise25.pth -d photos -o out --device cpu --task denoise --tile 32"
    code, out, _ = told(capsys, f"{words} --protocol reflect")
    assert code == 0 and "3 of 3 pictures were cut into tiles" in out
