"""Real noise and blur: sets that hold both sides, and how Uformer's tables count them."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from bench_samples import draw
from small_models import tiny

from restore import cli
from restore.bench.cache import Cache
from restore.bench.protocols import prepared, protocol_of, read_for, task_of
from restore.bench.sets import found_set, verdict_on
from restore.datasets.images import read_coloured, read_gray
from restore.datasets.listing import Entry
from restore.datasets.real_pairs import find_pairs
from restore.errors import ImageError, UsageError
from restore.image_io import Picture, read_picture, write_picture
from restore.metrics import psnr, ssim_uniform, ssim_volume
from restore.model import Model
from restore.official import official_models
from restore.tasks import published_tasks

REAL, BLUR = protocol_of(3, "real-denoise", 0), protocol_of(3, "deblur", 0)


def names(folder: Path) -> list[tuple[str, str, str]]:
    """Name, good side and low side of the pairs in a folder."""
    found = find_pairs(folder)
    assert found.convention == "pairs"
    return [
        (p.name, p.gt.relative_to(folder).as_posix(), p.lq.relative_to(folder).as_posix())
        for p in found.pictures
        if p.lq is not None
    ]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("input", "groundtruth"),
        ("test/input", "test/target"),
        ("test/inputC", "test/target"),
        ("test_c/source", "test_c/target"),
        ("Blur", "Sharp"),
        ("val/input_crops", "val/target_crops"),
    ],
)
def test_two_folders_are_a_set(low: str, high: str, tmp_path: Path) -> None:
    for folder in (low, high):
        draw(tmp_path / folder / "1.png", 20, 24)
    assert names(tmp_path) == [("1", f"{high}/1.png", f"{low}/1.png")]
    draw(tmp_path / high / "2.png", 20, 24)
    found = find_pairs(tmp_path)
    assert found.problems == ("left out, without a partner: 2.png",) and len(found.pictures) == 1


def test_sequences_lists_and_files_side_by_side_are_sets(tmp_path: Path) -> None:
    for sequence in ("GOPR0384", "GOPR0385"):
        for side in ("blur", "sharp", "blur_gamma"):
            draw(tmp_path / "GoPro" / "test" / sequence / side / "000001.png", 20, 24)
    pairs = names(tmp_path / "GoPro")
    assert [name for name, _, _ in pairs] == ["GOPR0384_000001", "GOPR0385_000001"]
    assert pairs[1][1:] == ("test/GOPR0385/sharp/000001.png", "test/GOPR0385/blur/000001.png")
    found = find_pairs(tmp_path / "GoPro")
    assert found.problems == ("2 pairs; GoPro has 1111 or 2103",)

    blur = tmp_path / "RealBlur_R"
    files = [f"ECC/scene{n}/{side}/{side}_1.png" for n in (1, 2) for side in ("gt", "blur")]
    for file in files:
        draw(blur / file, 20, 24)
    listed = blur / "RealBlur_R_test_list.txt"
    listed.write_text("".join(f"{a} {b}\n" for a, b in zip(files[::2], files[1::2], strict=True)))
    pairs = names(blur)
    assert pairs[1] == ("scene2_gt_1", "ECC/scene2/gt/gt_1.png", "ECC/scene2/blur/blur_1.png")
    # of the two folders of one card, the one that is asked for
    draw(tmp_path / "RealBlur_J" / "test" / "input" / "1.png", 20, 24)
    draw(tmp_path / "RealBlur_J" / "test" / "target" / "1.png", 20, 24)
    for name, count in (("RealBlur-R", 2), ("realblur_j", 1)):
        found = found_set(name, tmp_path, BLUR)
        assert len(found.pictures) == count and found.name.lower() == name.replace("_", "-").lower()
    listed.write_text("gone.png gone.png\n")
    with pytest.raises(UsageError, match=r"line 1: .*gone.png is not there"):
        find_pairs(blur)

    for side in ("real", "mean"):
        draw(tmp_path / "PolyU" / "CroppedImages" / f"Sony_1_{side}.png", 20, 24)
    assert [name for name, _, _ in names(tmp_path / "PolyU")] == ["Sony_1"]
    with pytest.raises(UsageError, match=r"none: no such folder"):
        find_pairs(tmp_path / "none")


@pytest.mark.parametrize(
    ("words", "protocol", "similarity"),
    [("-d noisy", REAL, ssim_volume), ("-d blurred --task deblur", BLUR, ssim_uniform)],
)
def test_pairs_are_scored_without_rounding(
    words: str, protocol, similarity, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny(1, name="net")
    model.save("net.pth")
    words = words.replace("noisy", "SIDD")
    folder = Path(words.split()[1])
    for side, seed in (("input", "b"), ("target", "a")):
        draw(folder / side / "1.png", 33, 40)
        pixels = read_picture(folder / side / "1.png").pixels // (2 if seed == "b" else 1)
        write_picture(folder / side / "1.png", Picture(pixels), fmt="png")
    code = cli.main(["bench", "-n", "net.pth", *words.split(), "-o", "out", "--device", "cpu"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert "pairs of files, results not rounded" in out and protocol.level_name in out
    assert "pairs of files, results not rounded" in out
    low, good = (read_picture(folder / side / "1.png").pixels for side in ("input", "target"))
    ready, truth = prepared(good, low, protocol, "good", "low")
    assert truth.dtype == np.float32 and np.array_equal(truth, good.astype(np.float32) / 255)
    result = restored(model, ready)
    (row,) = csv.DictReader(Path("out/pictures.csv").read_text().splitlines())
    key = protocol.figures[1].key
    assert float(row["psnr_rgb"]) == pytest.approx(psnr(result, truth), abs=2e-6)
    assert float(row[key]) == pytest.approx(similarity(result, truth), abs=2e-6)
    # rounded to 8 bits it would be another number
    rounded = (result * 255).round().astype(np.uint8)
    assert float(row["psnr_rgb"]) != pytest.approx(psnr(rounded, good), abs=2e-6)


def restored(model: Model, low: np.ndarray) -> np.ndarray:
    from restore.upscaling import restore_floats

    return np.clip(restore_floats(low, model, tile=0, padding="published"), 0, 1)


def test_tasks_follow_from_models_then_sets() -> None:
    model = tiny(1)
    assert task_of(model, None, ["deblur"]) == "deblur"
    assert task_of(model, "real-denoise", ["deblur"]) == "real-denoise"
    with pytest.raises(UsageError, match=r"give --task denoise \(.*\) or .* --task deblur \(debl"):
        task_of(model, None, [])


def test_what_official_models_are_made_for_has_a_task() -> None:
    assert published_tasks("real-world denoising, motion deblurring") == ("real-denoise", "deblur")
    told = {model.task for model in official_models() if model.scale == 1}
    assert all(published_tasks(words) for words in told)
    assert published_tasks("denoising") == ("denoise",) and published_tasks("something") == ()


def test_sets_of_pairs_are_not_taken_for_good_pictures(tmp_path: Path) -> None:
    for side in ("input", "target"):
        draw(tmp_path / "SIDD" / side / "1.png", 20, 24)
    with pytest.raises(UsageError, match=r"SIDD holds pairs for --task real-denoise, and sr wants"):
        found_set("SIDD", tmp_path, protocol_of(3, "sr", 2))


def test_what_is_no_pair_is_told(tmp_path: Path) -> None:
    good = draw(tmp_path / "good.png", 20, 24)
    pixels = read_picture(good).pixels
    with pytest.raises(ImageError, match=r"good: has no low-quality side; real-denoise takes"):
        prepared(pixels, None, REAL, "good")
    with pytest.raises(ImageError, match=r"20 x 24 pixels are not 1 times the 10 x 24 of low"):
        prepared(pixels, pixels[:10], REAL, "good", "low")
    floats = pixels.astype(np.float32) / 127
    with pytest.raises(ImageError, match=r"good: has values from 0.* to .*; expected 0..1"):
        prepared(floats, None, protocol_of(3, "sr", 2), "good")
    (tmp_path / "some" / "input").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"holds no pairs of pictures; expected two folders"):
        find_pairs(tmp_path / "some")
    draw(tmp_path / "some" / "input" / "1.png", 20, 24)
    draw(tmp_path / "some" / "target" / "2.png", 20, 24)
    with pytest.raises(UsageError, match="no two pictures have the same name"):
        find_pairs(tmp_path / "some")


def test_blocks_of_mat_files_become_pictures(tmp_path: Path, monkeypatch, capsys) -> None:
    io = pytest.importorskip("scipy.io", reason="needs scipy")
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    sides = {
        name: random.integers(0, 256, (2, 3, 16, 20, 3), np.uint8)
        for name in ("ValidationNoisyBlocksSrgb", "ValidationGtBlocksSrgb")
    }
    source = tmp_path / "SIDD"
    source.mkdir()
    words = ["data", "prepare", "SIDD", "--from", str(source), "-o", "made"]
    for name, blocks in sides.items():
        io.savemat(source / f"{name}.mat", {name: blocks})
        if name.startswith("ValidationNoisy"):
            assert cli.main(words) == 2
            assert "ValidationGtBlocksSrgb.mat: is not there" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"holds the blocks as .mat files; .* data prepare SIDD"):
        find_pairs(source)
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "12 files written" in told and "6 pairs; SIDD has 1280" in told
    pairs = names(Path("made/SIDD"))
    assert pairs[-1] == ("0002_03", "target/0002_03.png", "input/0002_03.png")
    for name, folder in zip(sides, ("input", "target"), strict=True):
        pixels = read_picture(Path("made/SIDD", folder, "0002_01.png")).pixels
        assert np.array_equal(pixels, sides[name][1, 0])
    assert cli.main(words) == 0
    assert "0 files written, 12 there already" in capsys.readouterr().out
    assert cli.main(["data", "prepare", "SIDD", "--from", "made/SIDD", "-o", "again"]) == 2
    assert "restore bench takes it where it lies: -d made/SIDD" in capsys.readouterr().err
    io.savemat(source / "ValidationGtBlocksSrgb.mat", {"ValidationGtBlocksSrgb": np.zeros((2, 3))})
    assert cli.main([*words[:-1], "more"]) == 2
    assert "holds float64 (2, 3) as ValidationGtBlocksSrgb" in capsys.readouterr().err
    (source / "ValidationGtBlocksSrgb.mat").write_bytes(b"no such file")
    assert cli.main([*words[:-1], "more"]) == 2
    assert "cannot be read as a .mat file" in capsys.readouterr().err


def test_polyu_is_a_set_of_pairs(shared: Path, tmp_path: Path) -> None:
    found = found_set("PolyU", shared / "data", REAL)
    assert (len(found.pictures), found.problems) == (100, ())
    assert found.card is not None and found.card.count == 100
    one = found.pictures[0]
    assert one.lq is not None
    low, truth = prepared(
        read_for(one.gt, REAL), read_for(one.lq, REAL), REAL, str(one.gt), str(one.lq)
    )
    assert low.shape == truth.shape == (512, 512, 3)
    assert 25 < psnr(low, truth) < 45
    assert verdict_on(found, Cache(tmp_path)).unlike == ""


def test_gray_of_colour_is_what_the_authors_scripts_read(shared: Path, tmp_path: Path) -> None:
    """cv2.imread(path, cv2.IMREAD_GRAYSCALE), as BasicSR and SwinIR's test script do it."""
    gray = protocol_of(1, "denoise", 25)
    jpeg = next((shared / "data" / "PolyU" / "CroppedImages").glob("*_mean.JPG"))
    for path in (shared / "data" / "Set14" / "HR" / "baboon.png", jpeg):
        expected = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(read_for(path, gray)[:, :, 0], expected)
        truth = prepared(read_for(path, gray), None, gray, str(path))[1]
        assert np.array_equal(truth[:, :, 0], expected)
        assert read_for(path, REAL).shape[2] == 3
        assert np.array_equal(read_coloured(Entry(path), "gray")[:, :, 0], expected)
    # other depths go by the formula
    deep = np.full((4, 5, 3), 65535, np.uint16)
    write_picture(tmp_path / "deep.png", Picture(deep), fmt="png")
    assert (read_gray(tmp_path / "deep.png", deep) == 65535).all()


def test_pairs_without_a_partner_make_a_set_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny(1).save("net.pth")
    for name in ("input/1", "input/2", "target/1", "target/2", "target/3"):
        draw(Path(f"mine/{name}.png"), 20, 24)
    code = cli.main(
        ["bench", "-n", "net.pth", "-d", "mine", "--task", "deblur", "-o", "out", "--device", "cpu"]
    )
    out, err = capsys.readouterr()
    assert code == 1 and "2 of 3" in out and "left out, without a partner: 3.png" in out
    assert "net, mine blur: 1 of 3 pictures left out, without a partner: 3.png" in err
    assert "(2 of 3 pictures)" in Path("out/table.md").read_text()
