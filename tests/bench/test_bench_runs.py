"""Runs: every picture scored once, kept by all that it depends on, and nothing mixed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_samples import OnDisk, as_contender, draw, drawn_set, scored_set
from small_models import tiny

from restore.bench import cache as caching
from restore.bench.cache import Cache, file_digest, model_digest, versions
from restore.bench.memory_use import PeakMemory
from restore.bench.protocols import Protocol, prepared, protocol_of, read_for
from restore.bench.results import read_results, write_results
from restore.bench.runs import SetRun, Settings
from restore.bench.scores import as_bytes, scored
from restore.errors import UsageError
from restore.image_io import read_picture
from restore.loading import load
from restore.upscaling import restore_floats, upscale


@pytest.fixture
def pictures(tmp_path: Path) -> list[OnDisk]:
    return drawn_set(tmp_path / "set")


@pytest.mark.parametrize(
    ("task", "level", "channels"), [("sr", 2, 3), ("denoise", 25, 1), ("jpeg", 40, 3)]
)
def test_a_row_holds_what_the_network_scores(
    task: str, level: int, channels: int, pictures: list[OnDisk], tmp_path: Path
) -> None:
    model = tiny(2 if task == "sr" else 1, channels)
    protocol = protocol_of(channels, task, level)  # type: ignore[arg-type]
    row, run = scored_set(model, protocol, pictures, tmp_path, keep=True)
    assert (run.from_cache, row.is_whole, row.failed) == (0, True, {})
    for picture, score in zip(pictures, row.pictures, strict=True):
        pixels = read_for(picture.gt, protocol)
        low, truth = prepared(pixels, None, protocol, picture.name)
        x = torch.from_numpy(low).permute(2, 0, 1)[None].contiguous()
        with torch.inference_mode():
            y = model(x, padding="published")[0].clamp(0, 1).permute(1, 2, 0).numpy()
        assert score.values == scored(as_bytes(y), truth, protocol)
        assert score.result is not None
        assert np.array_equal(read_picture(score.result).pixels, as_bytes(y))
        assert (score.height, score.width) == truth.shape[:2]
        assert score.seconds > 0 and score.tiles == 1
        assert score.truth_digest == file_digest(picture.gt)
    assert row.mean(protocol.figures[0]) == pytest.approx(
        np.mean([score.values[protocol.figures[0].key] for score in row.pictures])
    )


def test_a_second_run_computes_nothing(pictures: list[OnDisk], tmp_path: Path) -> None:
    protocol = protocol_of(3, "sr", 2)
    first, _ = scored_set(tiny(2), protocol, pictures, tmp_path)
    second, run = scored_set(tiny(2), protocol, pictures, tmp_path)
    assert run.from_cache == 3
    assert second == first


def test_the_same_weights_in_another_file_are_the_same(tmp_path: Path) -> None:
    model = tiny(2)
    for name in ("a.pth", "b.safetensors"):
        model.save(tmp_path / name)
    digests = {model_digest(load(tmp_path / n, device="cpu")) for n in ("a.pth", "b.safetensors")}
    assert len(digests) == 1
    assert digests != {model_digest(tiny(2, seed=1))}


def test_nothing_is_found_again_that_was_made_otherwise(
    pictures: list[OnDisk], tmp_path: Path
) -> None:
    protocol = protocol_of(3, "sr", 2)
    scored_set(tiny(2), protocol, pictures, tmp_path)

    def again(
        model_seed: int = 0, how: Protocol = protocol, settings: Settings | None = None
    ) -> int:
        model = tiny(2, seed=model_seed)
        return scored_set(model, how, pictures, tmp_path, settings=settings)[1].from_cache

    assert again(model_seed=1) == 0
    assert again(how=protocol_of(3, "sr", 2, padding="reflect")) == 0
    assert again(how=protocol_of(3, "sr", 2, gray="y")) == 0
    assert again(settings=Settings(tta=True)) == 0
    draw(pictures[0].gt.with_name("p9.png"), 40, 40).replace(pictures[0].gt)
    assert again() == 2
    assert again() == 3


def test_an_own_low_side_counts_for_the_key(pictures: list[OnDisk], tmp_path: Path) -> None:
    protocol = protocol_of(3, "sr", 2)
    low = draw(tmp_path / "low" / "p0x2.png", 16, 23)
    with_low = [replace(pictures[0], lq=low)]
    made, _ = scored_set(tiny(2), protocol, pictures[:1], tmp_path)
    given, run = scored_set(tiny(2), protocol, with_low, tmp_path)
    assert run.from_cache == 0
    assert made.pictures[0].values != given.pictures[0].values


def test_a_damaged_entry_is_computed_again(pictures: list[OnDisk], tmp_path: Path) -> None:
    protocol = protocol_of(3, "sr", 2)
    first, _ = scored_set(tiny(2), protocol, pictures, tmp_path)
    for path, text in zip((tmp_path / "cache").iterdir(), ("", "[]"), strict=False):
        path.write_text(text)
    second, run = scored_set(tiny(2), protocol, pictures, tmp_path)
    assert run.from_cache == 1
    assert [p.values for p in second.pictures] == [p.values for p in first.pictures]


def test_an_entry_of_another_key_is_not_taken(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.keep({"a": 1}, {"value": 2})
    assert cache.find({"a": 1}) == {"value": 2}
    assert cache.find({"a": 2}) is None
    path = next(tmp_path.iterdir())
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "key": {"a": 3}}))
    assert cache.find({"a": 1}) is None


def test_a_result_that_was_changed_is_made_again(pictures: list[OnDisk], tmp_path: Path) -> None:
    protocol = protocol_of(3, "sr", 2)
    row, _ = scored_set(tiny(2), protocol, pictures, tmp_path, keep=True)
    results = [Path(picture.result or "") for picture in row.pictures]
    kept = results[1].read_bytes()
    results[0].unlink()
    results[1].write_bytes(results[2].read_bytes())
    _, run = scored_set(tiny(2), protocol, pictures, tmp_path, keep=True)
    assert run.from_cache == 1
    assert results[1].read_bytes() == kept


def test_results_of_two_settings_lie_in_two_files(pictures: list[OnDisk], tmp_path: Path) -> None:
    rows = [
        scored_set(
            tiny(2), protocol_of(3, "sr", 2, padding=how), pictures[:1], tmp_path, keep=True
        )[0]
        for how in ("published", "reflect")
    ]
    assert rows[0].pictures[0].result != rows[1].pictures[0].result


def test_a_picture_that_fails_does_not_stop_the_others(
    pictures: list[OnDisk], tmp_path: Path
) -> None:
    pictures[1].gt.write_bytes(b"no picture")
    pictures.append(OnDisk("gone", tmp_path / "gone.png"))
    counted: list[int] = []
    run = SetRun(as_contender(tiny(2)), protocol_of(3, "sr", 2), Settings(), Cache(tmp_path / "c"))
    row = run("drawn", pictures, lambda: counted.append(1))
    assert [picture.name for picture in row.pictures] == ["p0", "p2"]
    assert list(row.failed) == ["p1", "gone"]
    assert "gone.png" in row.failed["gone"]
    assert (row.is_whole, row.count, len(counted)) == (False, 4, 4)


def test_an_interruption_keeps_what_is_done(pictures: list[OnDisk], tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    protocol = protocol_of(3, "sr", 2)
    run = SetRun(as_contender(tiny(2)), protocol, Settings(), Cache(tmp_path / "cache"))
    with pytest.raises(KeyboardInterrupt):
        run("drawn", pictures, interrupt)
    _, run = scored_set(tiny(2), protocol, pictures, tmp_path)
    assert run.from_cache == 1


def test_noise_goes_through_tiles_and_averages_unclipped(tmp_path: Path) -> None:
    model = tiny(1)
    noisy = np.random.default_rng(0).normal(0.5, 0.6, (70, 66, 3)).astype(np.float32)
    x = torch.from_numpy(noisy).permute(2, 0, 1)[None].contiguous()
    with torch.inference_mode():
        truth = model(x)[0].clamp(0, 1).permute(1, 2, 0).numpy()
    assert np.array_equal(restore_floats(noisy, model, tile=0), truth)
    tiled = restore_floats(noisy, model, tile=32)
    # one group of one block: a halo as large as the model's hides the cut
    assert np.abs(tiled - truth).max() <= 1e-5
    unit = noisy.clip(0, 1)
    assert np.array_equal(restore_floats(unit, model, tta=True), upscale(unit, model, tta=True))


def test_equal_pictures_are_written_and_read(pictures: list[OnDisk], tmp_path: Path) -> None:
    """An infinite PSNR has no notation in JSON."""
    row, _ = scored_set(tiny(2), protocol_of(3, "sr", 2), pictures[:1], tmp_path)
    row.pictures[0].values["psnr_y"] = math.inf
    write_results(tmp_path, [row], {})
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert read_results(tmp_path) == [row]
    assert read_results(tmp_path / "results.json") == [row]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 2, "rows": [1]}'])
def test_no_results_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UsageError, match=r"is no results\.json of `restore bench`"):
        read_results(tmp_path)


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"format": 0}')
    with pytest.raises(UsageError, match="is of format 0, and 2 is read here"):
        read_results(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_results(tmp_path / "nowhere.json")


def test_peak_memory_is_told_on_linux() -> None:
    with PeakMemory(torch.device("cpu")) as memory:
        held = np.ones(1 << 23)
    del held
    if memory.bytes is not None:
        assert 60 << 20 <= memory.bytes <= 200 << 20


def test_versions_name_the_code() -> None:
    assert set(versions()) == {*("restore", "code", "torch", "numpy", "opencv", "pillow", "native")}
    assert all(versions().values())


def test_another_native_library_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    class Portable:
        isa = 0

    def none() -> None:
        raise LookupError("the native library is not built")

    monkeypatch.setattr(caching, "library", none)
    assert caching.native_library() == "none"
    monkeypatch.setattr(caching, "library", Portable)
    monkeypatch.setattr(caching, "FILE", Path(__file__))
    named = f"{file_digest(Path(__file__))[:16]} portable"
    monkeypatch.setattr(caching, "bfloat16_refuses", lambda: "this CPU has none")
    assert caching.native_library() == named
    monkeypatch.setattr(caching, "bfloat16_refuses", lambda: None)
    assert caching.native_library() == f"{named}, bfloat16"


def test_the_code_that_computes_is_there() -> None:
    for name in caching._COMPUTES:
        if name not in ("metrics", "metrics.py"):  # a file or a folder
            assert (caching._HOME / name).exists()
    assert "datasets/validation.py" in caching._COMPUTES
