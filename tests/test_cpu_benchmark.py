"""The benchmark of CPUs: what it compares, what it remembers, and what it says."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from benchmarks.cpu import __main__ as program
from benchmarks.cpu import bench, contenders, report
from benchmarks.cpu.cases import GOALS, NETWORKS, Case, all_cases, curve_cases
from benchmarks.cpu.worker import Task
from benchmarks.gpu.results import Results
from benchmarks.gpu.subjects import subject

TINY = NETWORKS["SwinIR-S"]


def entry_of(restore: float = 10.0, eager: float = 40.0, floor: float = 5.0) -> dict[str, Any]:
    """A case that was measured, in milliseconds."""
    times = {"restore": restore, "eager": eager, "openvino": 13.0}
    halves = {"restore-bf16": restore / 2, "openvino-bf16": 6.0}
    rows = {
        name: {"median_ms": time, "memory": 3 * 2**20 if name == "eager" else 2**20}
        for name, time in {**times, **halves}.items()
    }
    rows["spandrel"] = {"missing": "spandrel does not know it"}  # type: ignore[dict-item]
    return {"code": "x", "at": "now", "contenders": rows, "floor_ms": {"fp32": floor, "bf16": 2.0}}


def test_sizes() -> None:
    sides = {name: set[int]() for name in NETWORKS}
    for case in all_cases():
        sides[case.network.name].add(case.side)
    assert sides.pop("Uformer-S") == {128, 256}
    assert all(found == {64, 128, 256} for found in sides.values())
    longest = dict.fromkeys(NETWORKS, 0)
    for case in curve_cases():
        longest[case.network.name] = max(longest[case.network.name], case.side)
    assert {name for name, side in longest.items() if side == 2048} == {"SwinIR-S", "HiT-SRF"}
    assert set(longest.values()) == {512, 2048}


@pytest.mark.parametrize("case", [Case(TINY, 64, 2), Case(TINY, 512, 1, curve=True)])
def test_a_key_names_its_case(case: Case) -> None:
    assert Case.named(case.key) == case


@pytest.mark.parametrize("key", ["Nobody/64x64/1t", "HAT/64x64/1t/bend", "HAT/wide/1t"])
def test_another_key_is_refused(key: str) -> None:
    with pytest.raises((KeyError, ValueError)):
        Case.named(key)


@pytest.mark.parametrize("rehearsal", [False, True], ids=["real", "rehearsal"])
def test_every_network_takes_its_sizes(rehearsal: bool) -> None:
    for case in [*all_cases(rehearsal), *curve_cases(rehearsal)]:
        spec, config = case.network.build_settings(rehearsal)
        rule = spec.input_rule(config)
        assert case.side % rule.multiple == 0 and case.side >= rule.minimum


@pytest.mark.parametrize(
    ("entry", "met"),
    [
        (entry_of(10, 40), True),
        (entry_of(10, 39), False),
        (entry_of(10, 39, floor=8), True),  # 80 % of the floor, where the ratio lies beyond it
        (entry_of(10, 39, floor=7.9), False),
        (entry_of(10, 41, floor=1), True),
    ],
)
def test_a_goal_of_speed(entry: dict[str, Any], met: bool) -> None:
    assert report.met(GOALS[0], entry) is met


@pytest.mark.parametrize(
    ("number", "entry", "words"),
    [
        (0, entry_of(10, 40), "met (4.00)"),
        (0, entry_of(10, 39, floor=8), "met by the floor: 80% of it (3.90; at the floor 4.88)"),
        (0, entry_of(10, 30, floor=9), "met by the floor: 90% of it (3.00; at the floor 3.33)"),
        (0, entry_of(10, 39, floor=5), "missed: 50% of it (3.90; at the floor 7.80)"),
        (
            0,
            entry_of(10, 20, floor=7),
            "missed, beyond the floor: 70% of it (2.00; at the floor 2.86)",
        ),
        # of bf16 no share of the floor is enough
        (4, entry_of(4.2, 9), "missed, beyond the floor: 95% of it (4.29; at the floor 4.50)"),
        (4, entry_of(10, 30), "met (6.00)"),
        (3, entry_of(13, 50), "missed (1.00)"),
        (6, entry_of(), "met (3.00)"),
    ],
)
def test_a_goal_in_words(number: int, entry: dict[str, Any], words: str) -> None:
    assert report.verdict(GOALS[number], entry) == words


def test_spandrel_is_left_out_where_it_takes_long() -> None:
    assert "spandrel" in contenders.usual(128) and "restore-torch" not in contenders.usual(128)
    assert set(contenders.usual(128)) - set(contenders.usual(256)) == {"spandrel"}


def test_slow_contenders_have_fewer_rounds_and_at_least_three(tmp_path: Path) -> None:
    results = Results(tmp_path / "cpu-one.json", "cpu-one", "x")
    settings = bench.Settings(None, 7, 60.0, 900.0, True, tmp_path)
    order: list[str] = []

    def call(name: str) -> float:
        order.append(name)
        if name == "fails" and order.count(name) == 2:
            raise RuntimeError("ended")
        return 1.0

    once = {"fast": 1.0, "slow": 61.0, "between": 12.0, "fails": 1.0}
    calls = {name: functools.partial(call, name) for name in [*once, "rates"]}
    times, errors = bench.Bench(settings, results)._timed(calls, once)
    counts = {name: len(seconds) for name, seconds in times.items()}
    assert counts == {"fast": 7, "slow": 3, "between": 5, "rates": 7}
    assert errors == {"fails": "RuntimeError: ended"}
    assert order[:5] == ["fast", "slow", "between", "fails", "rates"]


def test_goals_are_those_of_their_networks_and_sizes() -> None:
    def names(case: Case) -> set[str]:
        return {goal.name for goal in GOALS if goal.is_for(case)}

    usual = {"1.25 x OpenVINO", "bf16: 1.5 x OpenVINO"}
    assert names(Case(NETWORKS["HAT"], 64, 1)) == {"3 x eager", *usual}
    assert names(Case(NETWORKS["SwinIR-M"], 256, 1)) == {
        "2.9 x eager",
        "bf16: 5.5 x eager",
        "a third of eager's memory",
        *usual,
    }
    assert names(Case(NETWORKS["HAT"], 64, 1, curve=True)) == set()


def test_nothing_wrong_is_timed() -> None:
    entry = {
        "passed": True,
        "peers": {
            "eager": {"passed": False, "error": 1.0, "limit": 0.5},
            "spandrel": {"missing": "not installed"},
        },
    }
    assert bench.refused("restore", entry) is None
    assert bench.refused("openvino", entry) is None  # compared at the size that is timed
    assert bench.refused("spandrel", entry) is None
    assert bench.refused("eager", entry) == "off by 1.00e+00 (at most 5.00e-01)"
    failed = {"passed": False, "failed": "MemoryError: ", "peers": {}}
    assert bench.refused("restore", failed) == "MemoryError: "


def test_contenders_have_to_agree_at_the_size_that_is_timed(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.npy" for name in ("ours", "near", "far", "none")}
    y = np.ones((1, 3, 8, 8), np.float32)
    changes = {"ours": 0.0, "near": 1.7e-6, "far": 1.9e-6, "none": np.nan}
    for name, change in changes.items():
        np.save(files[name], (y + np.float64(change)))
    entry = {"relative": {"inference": 1e-7}}

    def judged(name: str) -> str:
        row = bench.compared(name, files[name], entry, "ours", files["ours"])
        return str(row.get("refused", ""))

    assert judged("ours") == judged("near") == ""
    assert judged("far") == "differs from ours by 1.90e-06 (at most 1.80e-06)"
    assert judged("none") == "what it gives is not finite"


def test_the_page_has_tables_and_figures(tmp_path: Path) -> None:
    results = Results(tmp_path / "cpu-one.json", "cpu-one", "x")
    for name in ("SwinIR-S", "HAT"):
        results.put("cases", Case(NETWORKS[name], 128, 1).key, entry_of())
    refused = {"contenders": {"restore": {"refused": "off"}}, "floor_ms": {}}
    results.put("cases", Case(NETWORKS["DRCT"], 128, 1).key, refused)
    for side in (64, 128):
        results.put("cases", Case(TINY, side, 1, curve=True).key, entry_of(side**2 / 100))
    results.put("cases", Case(NETWORKS["HAT"], 64, 1, curve=True).key, refused)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_page([results.path], page, tmp_path / "images")
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    assert "| SwinIR-S | 128 x 128 | 1 | 10 | 4.00 x | missing | 1.30 x | 5 (50%) |" in text
    assert "| 5 | 8.00 x | 1.20 x | 2 (40%) |" in text
    assert "4 x eager: met (4.00)" in text and "bf16: 1.5 x OpenVINO: missed (1.20)" in text
    assert "| DRCT | 128 x 128 | 1 | refused |" in text
    assert "| SwinIR-S | 64 x 64 | 41 | 10000 | 1 | 256 |" in text
    for kind in ("speed", "curve"):
        assert f"![{kind} on cpu-one](images/cpu-one-{kind}.svg)" in text
        ElementTree.parse(tmp_path / "images" / f"cpu-one-{kind}.svg")


def test_without_results_the_page_says_so(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{report.BEGIN}\nold\n{report.END}\n")
    report.write_page([], page, tmp_path)
    assert page.read_text() == f"{report.BEGIN}\n\nNot measured yet.\n\n{report.END}\n"


def test_the_page_of_the_documentation_has_its_marks() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    assert text.index(report.BEGIN) < text.index(report.END)


@pytest.mark.parametrize(
    "arguments",
    [["--rehearsal"], ["--part", "3/2"], ["--part", "one"], ["--contender", "nobody"]],
    ids=str,
)
def test_a_command_line_that_cannot_be_obeyed(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        program.parsed(arguments)


def test_no_such_case() -> None:
    with pytest.raises(SystemExit, match="no case starts with"):
        program.main(["--list", "--case", "Nobody"])


def test_without_openvino_nothing_else_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError):
        contenders.make("openvino", subject(TINY, rehearsal=True), 8, 1, tmp_path)


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    task = Task(TINY.name, "restore", 8, 1, True, "", str(tmp_path))
    worker = bench.Worker(task, limit=0.01)
    worker.close()
    assert worker.row == {"failed": "passed 0.01 s"}


def test_a_process_that_cannot_begin_is_told(tmp_path: Path) -> None:
    worker = bench.Worker(Task("Nobody", "restore", 8, 1, True, "", str(tmp_path)), limit=60)
    worker.close()
    assert worker.row == {"failed": "KeyError: 'Nobody'"}


def test_a_case_is_measured_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    words = ["--rehearsal", "--case", "SwinIR-S/8x8/1t", "--contender", "restore", "eager"]
    words += ["--rounds", "2", "--out", str(out), "--kept", str(tmp_path)]
    assert program.main(words) == 0
    assert "0 of 2 steps are done already" in capsys.readouterr().out
    (machine,) = json.loads(out.read_text())["machines"].values()
    assert machine["networks"]["SwinIR-S/fp32"]["passed"]
    entry = machine["cases"]["SwinIR-S/8x8/1t"]
    for row in entry["contenders"].values():
        assert row["median_ms"] > 0 and row["rounds"] == 2 and row["memory"] >= 0
    assert entry["contenders"]["eager"]["difference"] < 1e-5
    assert entry["floor_ms"]["fp32"] > 0 and entry["gflop"] > 0
    assert program.main(words) == 0
    assert "2 of 2 steps are done already" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of tracing
@pytest.mark.parametrize("name", NETWORKS)
def test_openvino_converts_every_network(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    network = NETWORKS[name]
    found, side = subject(network, rehearsal=True), network.tiny_side
    x = found.image(torch.Generator().manual_seed(0), 1, side)
    with torch.inference_mode():
        y = contenders.make("eager", found, side, 1, tmp_path)(x)
    theirs = contenders.make("openvino", found, side, 1, tmp_path)(x)
    assert ((theirs - y).norm() / y.norm()).item() < 1e-5
