"""Estimates, limits of containers, and the tile that follows."""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
from _fake_models import Fake
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.memory import CASES, ask
from restore.archs import ARCHS
from restore.archs._spec import InputRule
from restore.kernels import native_library
from restore.upscaling import memory
from restore.upscaling.memory import (
    Measured,
    choose_tile,
    control_group_left,
    free_bytes,
    peak_bytes,
)

GIB = 2**30


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = (Measured(60, 2, 3000.0, 1e6), Measured(180, 4, 20000.0, 5e6))
    monkeypatch.setattr(memory, "measured", lambda: {"Known": entries})


def model(embed_dim: int, scale: int, **more: object) -> Fake:
    return Fake(arch="Known", scale=scale, align=8, config={"embed_dim": embed_dim}, **more)


@pytest.mark.usefixtures("known")
def test_a_measured_configuration_is_its_line() -> None:
    assert peak_bytes(model(60, 2), 100, 50) == 3000 * 5000 + 10**6
    assert peak_bytes(model(60, 2), 100, 50, batch=3) == 3000 * 15000 + 10**6
    assert peak_bytes(model(180, 4), 10, 10) == 20000 * 100 + 5 * 10**6
    doubled = model(60, 2, dtype=torch.float64)
    assert peak_bytes(doubled, 100, 50) == 2 * 3000 * 5000 + 10**6
    assert peak_bytes(model(60, 2, dtype=torch.float16), 8, 8) == 3000 * 64 + 10**6


@pytest.mark.usefixtures("known")
def test_others_are_scaled_from_the_nearest() -> None:
    assert peak_bytes(model(90, 2), 100, 50) == 4500 * 5000 + 10**6
    by_another_name = Fake(arch="Known", scale=2, align=8, config={"dim": 90})
    assert peak_bytes(by_another_name, 100, 50) == 4500 * 5000 + 10**6
    # a larger tail is added: 64 channels in and out at 16 times the pixels, not 4 times
    assert peak_bytes(model(60, 4), 100, 50) == (3000 + 512 * (16 - 4)) * 5000 + 10**6
    assert peak_bytes(model(60, 1), 100, 50) == 3000 * 5000 + 10**6


@pytest.mark.usefixtures("known")
def test_what_a_picture_grows_to_counts() -> None:
    rule = InputRule(multiple=128, minimum=128, align=128, halo=32)
    assert peak_bytes(model(60, 2, rule=rule), 100, 130) == 3000 * 128 * 256 + 10**6


def test_the_line_of_strips_is_for_the_native_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = (Measured(60, 2, 3000.0, 1e6, (1000.0, 2e6)),)
    monkeypatch.setattr(memory, "measured", lambda: {"Known": entries})
    monkeypatch.setattr(native_library, "loaded", lambda: (object(), ""))
    in_strips, whole = 1000 * 5000 + 2 * 10**6, 3000 * 5000 + 10**6
    assert peak_bytes(model(60, 2), 100, 50) == in_strips
    # of what is enlarged only the picture is whole
    assert peak_bytes(model(60, 4), 100, 50) == in_strips + 24 * (16 - 4) * 5000
    assert peak_bytes(model(60, 2, device=torch.device("cuda")), 100, 50) == whole
    doubled = model(60, 2, dtype=torch.float64)
    assert peak_bytes(doubled, 100, 50) == 2 * 3000 * 5000 + 10**6
    monkeypatch.setattr(native_library, "loaded", lambda: (None, "not built"))
    assert peak_bytes(model(60, 2), 100, 50) == whole


@pytest.mark.slow
@pytest.mark.skipif(native_library.loaded()[0] is None, reason="needs the native kernels")
@pytest.mark.skipif(sys.platform != "linux", reason="peaks of other systems are other numbers")
@pytest.mark.parametrize("side", [160, 224])
@pytest.mark.parametrize(
    "arch", sorted(name for name, its in memory.measured().items() if its[0].strips)
)
def test_estimates_on_a_cpu_lie_just_above_peaks(arch: str, side: int) -> None:
    """Between the sizes that the lines were fitted through."""
    case = CASES.get(arch, [{}])[0]
    spec = next(spec for spec in ARCHS if spec.name == arch)
    config = spec.config().replaced(case, "test")
    rule, scale = spec.input_rule(config), spec.scale(config)
    fake = Fake(arch=arch, scale=scale, config=dict(config), rule=rule)
    peak = ask(arch, case, side, strips=True)["peak"]
    assert peak <= peak_bytes(fake, side, side) <= 1.5 * peak


def test_an_unknown_architecture_is_taken_for_a_large_one() -> None:
    assert peak_bytes(Fake(), 10, 10) == 4 * 64 * 180 * 100
    assert peak_bytes(Fake(config={"embed_dim": 60}, scale=2), 10, 10) == (15360 + 2048) * 100


@pytest.mark.usefixtures("known")
@given(
    height=st.integers(1, 6000),
    width=st.integers(1, 6000),
    free=st.integers(0, 64 * GIB),
    align=st.sampled_from([1, 7, 8, 192]),
    pad=st.none() | st.integers(0, 128),
)
def test_the_chosen_tile_fits(
    height: int, width: int, free: int, align: int, pad: int | None
) -> None:
    m = model(180, 4, halo=32)
    m.align = align
    tile = choose_tile(m, height, width, free, tile_pad=pad)
    if tile == 0:
        assert peak_bytes(m, height, width) <= free / 2
        assert max(height, width) <= 2048
        return
    assert tile <= 512
    assert tile % align == 0 or align % tile == 0
    side = tile + 2 * (32 if pad is None else pad)
    fits = peak_bytes(m, min(side, height), min(side, width)) <= free / 2
    assert fits or tile == memory.aligned_tile(32, align)


@pytest.mark.usefixtures("known")
def test_more_memory_never_means_smaller_tiles() -> None:
    m = model(180, 4, halo=32)
    tiles = [choose_tile(m, 3000, 3000, free) for free in range(0, 16 * GIB, GIB // 8)]
    assert tiles == sorted(tiles)
    assert (tiles[0], tiles[-1]) == (32, 512)


@pytest.mark.usefixtures("known")
def test_a_small_picture_is_not_tiled() -> None:
    assert choose_tile(model(60, 2), 300, 200, GIB) == 0
    assert choose_tile(model(60, 2), 300, 2049, 64 * GIB) == 512


def test_the_file_of_measurements_is_well_formed() -> None:
    content = json.loads(
        resources.files("restore.upscaling").joinpath("memory.json").read_text(encoding="utf-8")
    )
    assert {"device", "torch", "dtype"} <= content["measured_on"].keys()
    for arch, entries in content["archs"].items():
        assert memory.measured()[arch]
        for entry in entries:
            assert entry["embed_dim"] >= 1
            assert entry["scale"] >= 1
            assert entry["bytes_per_pixel"] > 0
            assert entry["fixed"] >= 0
            assert len(entry["sides"]) == len(entry["peaks"]) >= 3


def test_free_memory_of_this_machine() -> None:
    free = free_bytes(torch.device("cpu"))
    assert 2**20 < free < 2**50


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="ascii")


def processes(root: Path, text: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(text, encoding="ascii")


def test_version_2_control_groups(tmp_path: Path) -> None:
    processes(tmp_path, "0::/a/b\n")
    top = tmp_path / "sys/fs/cgroup"
    group(top / "a/b", memory__max="max\n", memory__current="5\n")
    assert control_group_left(tmp_path) is None
    stat = "anon 60\ninactive_file 30\n"
    group(top / "a", memory__max="1000\n", memory__current="90\n", memory__stat=stat)
    assert control_group_left(tmp_path) == 1000 - 90 + 30
    group(top / "a/b", memory__max="100\n", memory__current="120\n")
    assert control_group_left(tmp_path) == 0


def test_version_1_control_groups(tmp_path: Path) -> None:
    processes(tmp_path, "3:cpu,cpuacct:/x\n2:memory:/docker/1234\n")
    # the path is the host's; inside the container only the top is there
    group(
        tmp_path / "sys/fs/cgroup/memory",
        memory__limit_in_bytes="5000\n",
        memory__usage_in_bytes="1000\n",
        memory__stat="total_inactive_file 200\n",
    )
    assert control_group_left(tmp_path) == 4200


def test_no_control_groups(tmp_path: Path) -> None:
    assert control_group_left(tmp_path) is None
