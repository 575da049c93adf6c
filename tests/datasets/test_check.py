"""`restore data check` and `restore data lmdb`: what is wrong is found, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from restore import cli, imresize
from restore.datasets import check
from restore.datasets.alignment import find_shift
from restore.datasets.check import KINDS, Wanted, check_pairs
from restore.datasets.fingerprints import BITS, alike, fingerprint, known_test_pictures
from restore.datasets.images import pixel_digest, read_entry
from restore.datasets.listing import Entry, Pair, folder_entries
from restore.image_io import read_picture

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


def photo(name: str = "photo.png") -> np.ndarray:
    return read_picture(SAMPLES / name).pixels


def save(path: Path, pixels: np.ndarray) -> Entry:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    return Entry(path)


def pair_of(folder: Path, name: str, gt: np.ndarray, lq: np.ndarray) -> Pair:
    return Pair(save(folder / "lq" / name, lq), save(folder / "gt" / name, gt))


def kinds(report) -> list[str]:  # type: ignore[no-untyped-def]
    return [finding.kind for finding in report.findings]


def cut(pixels: np.ndarray, scale: int) -> np.ndarray:
    rows, columns = (side // scale * scale for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[:rows, :columns])


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_good_set_has_nothing_wrong(tmp_path: Path, scale: int) -> None:
    pairs = []
    for name in ("photo.png", "coffee.png"):
        gt = cut(photo(name), scale)
        pairs.append(pair_of(tmp_path, name, gt, imresize(gt, 1 / scale)))
    report = check_pairs(pairs, Wanted(scale=scale, gt_size=64))
    assert report.findings == ()
    assert (report.pictures, report.aligned) == (4, 2)


@pytest.mark.parametrize("down", [-0.4, 0.0, 0.3])
@pytest.mark.parametrize("right", [-1.5, 0.25, 2.0])
def test_shifts_are_found_to_a_hundredth_of_a_pixel(down: float, right: float) -> None:
    picture = photo()[:, :, 1].astype(float)
    y, x = (np.fft.fftfreq(n) for n in picture.shape)
    phase = np.exp(-2j * np.pi * (y[:, None] * down + x * right))
    moved = np.fft.ifft2(np.fft.fft2(picture) * phase).real
    shift = find_shift(moved[16:-16, 16:-16], picture[16:-16, 16:-16])
    assert shift is not None
    # the search ends in steps of 0.01, and the window sees other pixels come in
    assert shift.down == pytest.approx(down, abs=0.03)
    assert shift.right == pytest.approx(right, abs=0.03)
    assert shift.agreement > 0.9


def test_flat_and_small_pictures_tell_no_shift() -> None:
    assert find_shift(np.zeros((64, 64)), np.zeros((64, 64))) is None
    assert find_shift(np.eye(16), np.eye(16)) is None


def test_pixels_taken_in_place_of_resized_are_half_a_pixel_off(tmp_path: Path) -> None:
    gt = cut(photo(), 4)
    report = check_pairs([pair_of(tmp_path, "a.png", gt, gt[::4, ::4])], Wanted(scale=4))
    assert kinds(report) == ["misaligned"]
    # the first of 4 pixels lies 1.5 pixels, or 3/8 of a small one, before their middle
    assert "+0.3" in report.findings[0].detail


def test_heavy_degradation_is_no_shift(tmp_path: Path) -> None:
    gt, random = photo(), np.random.default_rng(0)
    noisy = np.clip(gt + random.normal(0, 50, gt.shape), 0, 255).astype(np.uint8)
    coded = cv2.imdecode(cv2.imencode(".jpg", gt, [cv2.IMWRITE_JPEG_QUALITY, 10])[1], 1)
    blurred = cv2.GaussianBlur(gt, (21, 21), 2)
    pairs = [
        Pair(save(tmp_path / f"{n}.png", lq), save(tmp_path / "gt.png", gt))
        for n, lq in enumerate((noisy, coded, blurred))
    ]
    assert set(kinds(check_pairs(pairs, Wanted()))) == {"duplicate"}  # they share their gt


def test_pairs_of_different_pictures_are_found(tmp_path: Path) -> None:
    gt, other = photo(), photo("coffee.png")
    rows, columns = (min(a, b) for a, b in zip(gt.shape[:2], other.shape[:2], strict=True))
    lq = other[:rows, :columns]
    report = check_pairs([pair_of(tmp_path, "a.png", gt[:rows, :columns], lq)], Wanted())
    assert kinds(report) == ["misaligned"]
    assert "different things" in report.findings[0].detail


def test_wrong_sizes_channels_and_torn_files_are_found(tmp_path: Path) -> None:
    gt = cut(photo(), 4)
    half = imresize(gt, 1 / 2)
    pairs = [
        pair_of(tmp_path, "scale.png", gt, half),
        pair_of(tmp_path, "gray.png", gt[::-1], imresize(gt[::-1].copy(), 1 / 4)[:, :, 1]),
        pair_of(tmp_path, "small.png", gt[:8, :8], half[:2, :2]),
        pair_of(tmp_path, "torn.png", gt, half),
        Pair(Entry(tmp_path / "lq" / "none.png"), save(tmp_path / "gt" / "none.png", gt)),
    ]
    data = pairs[3].lq.path.read_bytes()
    pairs[3].lq.path.write_bytes(data[: len(data) // 2])
    report = check_pairs(pairs, Wanted(scale=4, gt_size=16))
    named = {(f.kind, Path(f.pictures[0]).name) for f in report.findings}
    assert named == {
        ("size", "scale.png"),
        ("shape", "gray.png"),
        ("shape", "small.png"),
        ("unreadable", "torn.png"),
        ("unreadable", "none.png"),
    }
    size = next(f.detail for f in report.findings if f.kind == "size")
    assert size.endswith("; it looks like scale 2")


def test_exchanged_sides_and_odd_floating_point_are_found(tmp_path: Path) -> None:
    gt = cut(photo(), 2)
    report = check_pairs([pair_of(tmp_path, "a.png", imresize(gt, 0.5), gt)], Wanted(scale=2))
    assert "gt and lq look exchanged" in report.findings[0].detail
    entries = []
    for name, value in (("bytes", 200.0), ("nan", np.nan), ("good", 1.0)):
        path = tmp_path / f"{name}.npy"
        np.save(path, np.full((40, 40, 3), value, np.float32))
        entries.append(Entry(path))
    found = {f.pictures[0]: f.detail for f in check_pairs(entries, Wanted()).findings}
    assert found == {
        str(entries[0].path): "has values from 200 to 200; expected floating point in 0..1",
        str(entries[1].path): "has values that are NaN or infinite",
    }


def test_duplicates_are_found_exact_coded_small_and_mirrored(tmp_path: Path) -> None:
    first = photo()
    entries = [
        save(tmp_path / "a.png", first),
        save(tmp_path / "b.png", first),
        save(tmp_path / "c.jpg", first),
        save(tmp_path / "d.png", imresize(first, 0.5)),
        save(tmp_path / "e.png", first[:, ::-1]),
        save(tmp_path / "f.png", photo("coffee.png")),
        save(tmp_path / "g.png", photo("drawing.png")),
    ]
    report = check_pairs(entries, Wanted())
    assert set(kinds(report)) == {"duplicate"}
    found = {tuple(Path(p).name[0] for p in f.pictures): f.detail for f in report.findings}
    assert found.pop(("a", "b")) == "the same pixels"
    assert {pair for pair in found if "e" not in pair} == {
        *(("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d"))
    }
    mirrored = {pair: detail for pair, detail in found.items() if "e" in pair}
    assert set(mirrored) == {(name, "e") for name in "abcd"}
    assert all("mirrored" in detail for detail in mirrored.values())


def test_flat_pictures_are_not_alike(tmp_path: Path) -> None:
    entries = [
        save(tmp_path / f"{value}.png", np.full((64, 64, 3), value, np.uint8))
        for value in (10, 200)
    ]
    assert check_pairs(entries, Wanted()).findings == ()


def test_test_pictures_are_found_in_a_training_set(tmp_path: Path) -> None:
    test = save(tmp_path / "test.jpg", imresize(photo(), 0.6))
    entries = [save(tmp_path / "a.png", photo("coffee.png")), save(tmp_path / "b.png", photo())]
    report = check_pairs(entries, Wanted(), against=[test])
    assert [(f.kind, Path(f.pictures[0]).name) for f in report.findings] == [("leak", "b.png")]
    assert report.test_pictures == 1


def test_known_test_pictures_are_found_by_their_pixels(shared: Path) -> None:
    entries = folder_entries(shared / "data" / "Set5" / "HR")
    report = check_pairs(entries, Wanted())
    assert kinds(report) == ["leak"] * 5
    assert report.findings[0].detail == "is Set5 baby.png, pixel by pixel"
    assert check_pairs(entries, Wanted(training=False)).findings == ()
    assert known_test_pictures()[pixel_digest(read_entry(entries[0]))] == "Set5 baby.png"


def test_a_set5_picture_is_found_in_bsds500(shared: Path) -> None:
    """Set5's woman is a smaller version of a training picture of BSDS500."""
    train = [Entry(shared / "data" / "BSDS500" / "train" / f"{n}.jpg") for n in (302003, 100075)]
    report = check_pairs(train, Wanted(), against=folder_entries(shared / "data" / "Set5" / "HR"))
    found = [tuple(Path(p).name for p in finding.pictures) for finding in report.findings]
    assert found == [("302003.jpg", "woman.png")]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_matlabs_pictures_are_aligned(shared: Path, scale: int) -> None:
    folder = shared / "data" / "Set5"
    pairs = [
        Pair(Entry(folder / "LR_bicubic" / f"X{scale}" / f"{e.path.stem}x{scale}.png"), e)
        for e in folder_entries(folder / "HR")
    ]
    report = check_pairs(pairs, Wanted(scale=scale, training=False))
    assert report.findings == ()
    assert report.aligned == 5


def test_distances_count_different_signs() -> None:
    prints = [fingerprint(photo(name)).looks for name in ("photo.png", "coffee.png")]
    assert prints[0] is not None and prints[1] is not None
    expected = int((prints[0] != prints[1]).sum())
    assert (0, 0, expected) in list(alike(prints[:1], prints[1:], BITS))
    assert list(alike(prints, [None], BITS)) == []


def test_the_command_tells_and_exits_by_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gt = cut(photo(), 2)
    pair_of(tmp_path, "a.png", gt, imresize(gt, 1 / 2))
    words = ["data", "check", "--gt", str(tmp_path / "gt"), "--lq", str(tmp_path / "lq")]
    assert cli.main([*words, "--scale", "2"]) == 0
    assert capsys.readouterr().out.endswith("nothing is wrong with it\n")
    save(tmp_path / "gt" / "b.png", photo("coffee.png"))
    assert cli.main([*words, "--scale", "2"]) == 1
    out = capsys.readouterr().out
    assert "      1  unpaired" in out
    assert f"unpaired: {tmp_path / 'gt' / 'b.png'}: has no other side" in out
    assert cli.main([*words, "--scale", "2", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)[str(tmp_path / "gt")]
    assert told["counts"] == {**dict.fromkeys(KINDS, 0), "unpaired": 1}
    assert cli.main([*words, "--scale", "2", "-q"]) == 1
    assert capsys.readouterr().out == ""


def test_a_test_set_that_is_taken_for_a_training_set_is_told_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [save(tmp_path / f"{name}.png", photo(f"{name}.png")) for name in ("photo", "coffee")]
    known = {pixel_digest(read_entry(entry)): f"Set {entry.path.name}" for entry in entries}
    monkeypatch.setattr(check, "known_test_pictures", lambda: known)
    words = ["data", "check", "--gt", str(tmp_path)]
    assert cli.main(words) == 1
    hint = f"all of {tmp_path} are pictures of known test sets: if it is one to test on, --test-set"
    assert hint in capsys.readouterr().out
    assert cli.main([*words, "--test-set"]) == 0
    assert capsys.readouterr().out.endswith("nothing is wrong with it\n")
    save(tmp_path / "mine.png", photo()[:100])
    assert cli.main(words) == 1
    assert "2  leak" in (out := capsys.readouterr().out) and "--test-set" not in out


OPTIONS = """\
name: x
model_type: SRModel
scale: 2
datasets:
  train:
    name: photos
    type: PairedImageDataset
    dataroot_gt: {folder}/gt
    dataroot_lq: {folder}/lq
    io_backend: {{type: disk}}
    gt_size: 64
    batch_size_per_gpu: 1
    num_worker_per_gpu: 0
  val:
    name: test
    type: SingleHRDataset
    dataroot_gt: {folder}/val
network_g: {{type: SwinIR, upscale: 2, upsampler: pixelshuffle}}
train:
  total_iter: 1
  optim_g: {{type: Adam, lr: 1e-4}}
  pixel_opt: {{type: L1Loss}}
"""


def test_all_sets_of_an_option_file_are_looked_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gt = cut(photo(), 2)
    pair_of(tmp_path, "a.png", gt, imresize(gt, 1 / 2))
    save(tmp_path / "val" / "v.png", photo("coffee.png"))
    (tmp_path / "x.yml").write_text(OPTIONS.format(folder=tmp_path))
    words = ["data", "check", "-opt", str(tmp_path / "x.yml")]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("train:\n2 pictures read, scale 2;") and "\nval:\n" in out
    save(tmp_path / "val" / "w.png", imresize(gt, 0.7))
    assert cli.main([*words, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [finding["kind"] for finding in told["train"]["findings"]] == ["leak"]
    assert told["val"]["findings"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --gt"),
        (["--gt", "nowhere"], "nowhere: no such folder"),
        (["--gt", "nowhere", "--max-shift", "0"], "--max-shift is 0.0"),
        (["--gt", "a.lmdb", "--lq", "b"], "a folder and a data base"),
    ],
)
def test_what_cannot_be_looked_through(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "check", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_data_command_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data"]) == 2
    assert cli.main(["data", "--help"]) == 0
    assert "restore data check" in capsys.readouterr().out
    assert cli.main(["data", "chek"]) == 2
    assert "expected lmdb, check, cards, prepare" in capsys.readouterr().err
    for action in ("lmdb", "check"):
        assert cli.main(["data", action, "--help"]) == 0


def test_the_command_stores_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lmdb")
    gt = cut(photo(), 2)
    pair_of(tmp_path, "a.png", gt, imresize(gt, 1 / 2))
    for side, raw in (("gt", ["--raw"]), ("lq", [])):
        target = str(tmp_path / f"{side}.lmdb")
        assert cli.main(["data", "lmdb", str(tmp_path / side), "-o", target, *raw]) == 0
    assert "gt.lmdb: 1 picture, " in capsys.readouterr().out
    bases = ["--gt", str(tmp_path / "gt.lmdb"), "--lq", str(tmp_path / "lq.lmdb")]
    assert cli.main(["data", "check", *bases, "--scale", "2"]) == 0
