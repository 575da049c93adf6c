"""`benchmarks.gpu` from end to end, with small networks on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import eager
from benchmarks.eager import Eager
from benchmarks.eager_groups import run_group
from benchmarks.gpu import __main__ as program
from benchmarks.gpu import checks, op_checks, report, results, timing, tuning
from benchmarks.gpu.cases import GOALS, NETWORKS, SIDES, Case, Precision, all_cases
from benchmarks.gpu.checks import NetworkCheck
from benchmarks.gpu.contenders import Lineup
from benchmarks.gpu.results import Results
from benchmarks.gpu.subjects import subject
from benchmarks.gpu.timing import Clock, TimeLimit, interleaved, time_limit
from restore.kernels import dispatch
from restore.kernels.tuning import Launch

CPU = torch.device("cpu")
ONE_OP = "linear_residual, SwinIR"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "OPS", {ONE_OP: op_checks.OPS[ONE_OP]})
    monkeypatch.setattr(program, "code_version", lambda: "version")
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0.001)
    monkeypatch.setattr(checks, "IMAGES", 1)


@pytest.fixture
def rehearse(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the program in a folder of its own and give what it wrote of this machine."""

    def run(*arguments: str, status: int = 0) -> dict[str, Any]:
        out = tmp_path / "gpu.json"
        given = ["--device", "cpu", "--rehearsal", "--rounds", "2", "--out", str(out), *arguments]
        assert program.main(given) == status
        data: dict[str, Any] = json.loads(out.read_text())["machines"]["cpu"]
        return data

    return run


def test_cases_are_those_of_the_goals_first() -> None:
    cases = all_cases()
    assert len({case.key for case in cases}) == len(cases)
    assert {case.network.name for case in cases[:8]} == {"SwinIR-M", "HAT", "DRCT", "SRFormer"}
    for network in NETWORKS:
        for side in SIDES:
            for precision in ("bf16", "fp16"):
                assert f"{network}/inference/{side}x{side}x1/{precision}" in {c.key for c in cases}
    assert all(Case.named(case.key) == case for case in cases)
    assert all(any(goal.is_for(case) for case in cases) for goal in GOALS)


def test_a_rehearsal_from_end_to_end(
    rehearse: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contenders = ["restore", "restore-graph", "restore-torch", "eager"]
    found = rehearse("--case", "SwinIR-S", "--dtype", "bf16", "--contender", *contenders)
    key = "SwinIR-S/inference/16x16x1/bf16"
    assert list(found["cases"]) == [key]
    entry = found["cases"][key]
    rows = entry["contenders"]
    assert list(rows) == contenders
    assert rows["restore-graph"] == {"missing": "CUDA graphs are for inference on a GPU"}
    for name in ("restore", "restore-torch", "eager"):
        assert rows[name].get("rounds") == 2, rows[name]
    assert entry["floor"]["floor_ms"] == pytest.approx(
        sum(entry["floor"]["parts_ms"].values()), abs=1e-3
    )
    share = entry["floor"]["floor_ms"] / rows["restore"]["median_ms"]
    assert entry["shares"]["restore"]["floor"] == pytest.approx(share, abs=1e-3)
    for precision in ("fp32", "tf32", "bf16"):
        check = found["networks"][f"SwinIR-S/{precision}"]
        assert check["passed"] and check["peers"]["eager"]["passed"]
    assert {key: entry["passed"] for key, entry in found["ops"].items()} == {
        f"{ONE_OP}/{precision}": True for precision in ("fp32", "tf32", "bf16")
    }
    assert "about 0 s left" in capsys.readouterr().out
    text = (tmp_path / "gpu.md").read_text()
    assert f"| {key} |" in text
    assert "- networks: 3 of 3 checks passed" in text

    rehearse("--case", "SwinIR-S", "--dtype", "bf16", "--contender", *contenders)
    assert "7 of 7 steps are done already" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of parts of PyTorch that its compiler imports
def test_the_eager_form_is_compiled(rehearse: Callable[..., dict[str, Any]]) -> None:
    for kind, precision in (("inference", "bf16"), ("training", "autocast-bf16")):
        given = ("--case", f"SwinIR-S/{kind}", "--dtype", precision)
        found = rehearse(*given, "--contender", "restore", "compiled")
        (rows,) = (e["contenders"] for key, e in found["cases"].items() if kind in key)
        assert rows["compiled"].get("rounds") == 2, rows
        assert rows["compiled"]["compiled"] == "the whole network, max-autotune"
        assert rows["compiled"]["compile_s"] >= 0


@pytest.mark.filterwarnings("default")  # as above
def test_where_compiling_takes_too_long_each_group_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[Any] = []

    class TooLong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise TimeLimit("passed")

    def compiles(what: Any, **how: Any) -> Any:
        compiled.append(what)
        return TooLong() if isinstance(what, nn.Module) else what

    monkeypatch.setattr(torch, "compile", compiles)
    case = Case.named("SwinIR-S/inference/16x16x1/bf16")
    lineup = Lineup(case, subject(case.network, rehearsal=True), CPU, compile_limit=9)
    contender = lineup.make("compiled")
    assert contender.row["compiled"].startswith("each group,")
    assert "passed 9 s" in contender.row["compiled"]
    assert compiled[1] is run_group
    assert contender.call().shape == (1, 3, 64, 64)


@pytest.mark.slow
def test_a_training_step(rehearse: Callable[..., dict[str, Any]]) -> None:
    given = ("--case", "SwinIR-S/training", "--dtype", "autocast-bf16")
    found = rehearse(*given, "--contender", "restore", "eager")
    (entry,) = found["cases"].values()
    rows = entry["contenders"]
    assert all(rows[name]["median_ms"] > 0 for name in ("restore", "eager"))
    assert rows["eager"]["difference"] < 0.1  # of the gradients, in bf16
    assert "worst_gradient" in found["networks"]["SwinIR-S/autocast-bf16"]


def test_a_wrong_contender_is_not_timed(
    rehearse: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    padded = eager._padded
    monkeypatch.setattr(eager, "_padded", lambda net, x: padded(net, x) * 1.001)
    found = rehearse("--case", "SwinIR-S/inf", "--dtype", "bf16", "--contender", "restore", "eager")
    (entry,) = found["cases"].values()
    assert "median_ms" in entry["contenders"]["restore"]
    assert entry["contenders"]["eager"].keys() == {"refused"}
    assert "in fp32 it is off by" in entry["contenders"]["eager"]["refused"]


def test_nothing_is_timed_where_ours_is_wrong(
    rehearse: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ours computes otherwise on the path that "auto" takes than by its definition."""
    choose = dispatch.choose

    def off(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        taken = choose("op", "auto", {"torch": None})
        return y if taken == "reference" or y.dtype == torch.float64 else y * 1.1

    made = NetworkCheck.__init__

    def init(self: NetworkCheck, *arguments: Any) -> None:
        made(self, *arguments)
        self.subject.net.register_forward_hook(lambda net, x, y: off(net, x[0], y))

    monkeypatch.setattr(NetworkCheck, "__init__", init)
    given = ("--case", "SwinIR-S/inf", "--dtype", "bf16", "--contender", "restore", "eager")
    found = rehearse(*given, status=1)
    (entry,) = found["cases"].values()
    assert list(entry["contenders"]) == ["restore"]
    assert "off by" in entry["contenders"]["restore"]["refused"]
    text = (tmp_path / "gpu.md").read_text()
    assert "failed: `SwinIR-S/bf16`" in text and "- networks: 0 of 3 checks passed" in text


def test_an_error_of_one_contender_is_a_row(
    rehearse: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(self: Eager, x: Tensor) -> Tensor:
        if x.shape[0] == 2 and x.device.type == "cpu":  # a training step, no check
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self._straight(x)

    monkeypatch.setattr(Eager, "forward", full)
    given = ("--case", "SwinIR-S/training", "--dtype", "autocast-bf16")
    found = rehearse(*given, "--contender", "restore", "eager")
    (entry,) = found["cases"].values()
    assert "median_ms" in entry["contenders"]["restore"]
    assert "out of memory" in entry["contenders"]["eager"]["failed"]
    assert "| out of memory |" in (tmp_path / "gpu.md").read_text()


def test_a_wrong_op_is_listed(
    rehearse: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = op_checks.OPS[ONE_OP]

    def wrong(*tensors: Tensor, backend: dispatch.Backend) -> Tensor:
        y: Tensor = case.run(*tensors, backend=backend)
        return y + 0.01 if backend == "torch" else y

    monkeypatch.setitem(op_checks.OPS, ONE_OP, op_checks.OpCase(wrong, case.shapes))
    found = rehearse("--case", "SwinIR-S/inf", "--dtype", "bf16", "--check-only", status=1)
    entry = found["ops"][f"{ONE_OP}/fp32"]
    assert not entry["passed"]
    assert entry["failed"].startswith("torch: output is off by 1.0")
    assert found["cases"] == {}


def test_a_check_past_what_a_dtype_holds_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = op_checks.OPS[ONE_OP]

    def large(*tensors: Tensor, backend: dispatch.Backend) -> Tensor:
        y: Tensor = case.run(*tensors, backend=backend)
        return y * 2**16

    half = Precision("fp16", torch.float16)
    assert op_checks.check_op(ONE_OP, half, CPU)["passed"]
    monkeypatch.setitem(op_checks.OPS, ONE_OP, op_checks.OpCase(large, case.shapes))
    entry = op_checks.check_op(ONE_OP, half, CPU)
    assert not entry["passed"]
    assert "output is off by inf (at most inf)" in entry["failed"]


def test_the_budget_stops_before_the_next_case(
    rehearse: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    found = rehearse("--case", "SwinIR-S/inf", "--dtype", "bf16", "--budget", "0")
    assert found["cases"] == {}
    assert "stopped after" in capsys.readouterr().out


def test_parts_are_all_cases_once() -> None:
    cases = all_cases()
    parts = [program.part_of(cases, (i, 6)) for i in range(1, 7)]
    assert sorted(c.key for part in parts for c in part) == sorted(c.key for c in cases)


def test_an_older_version_of_the_code_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    old = Results(path, "gpu", "old")
    old.put("cases", "a", {"contenders": {}})
    assert Results(path, "gpu", "old").get("cases", "a") is not None
    assert Results(path, "gpu", "new").get("cases", "a") is None
    assert Results(path, "other", "old").get("cases", "a") is None


def test_files_of_parts_are_merged(tmp_path: Path) -> None:
    one, two = (Results(tmp_path / f"{name}.json", "gpu", "v") for name in "12")
    one.put("cases", "a", {"contenders": {}, "n": 1})
    two.put("cases", "b", {"contenders": {}, "n": 2})
    two.rates["copy, bytes/s"] = 5.0
    two.put("networks", "c", {"passed": True})
    one.merge(two.path)
    assert set(one.here["cases"]) == {"a", "b"}
    assert one.rates == {"copy, bytes/s": 5.0}
    assert one.get("networks", "c") is not None


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="no results of benchmarks"):
        Results(path, "gpu", "v")


def entry_of(restore: float, eager: float, memory: tuple[int, int], share: float) -> dict[str, Any]:
    return {
        "contenders": {
            "restore": {"median_ms": restore, "memory": memory[0]},
            "eager": {"median_ms": eager, "memory": memory[1]},
        },
        "shares": {"restore": {"floor": share, "matrix_rate": 0.5, "copy_rate": 0.25}},
    }


def test_goals_are_judged_by_what_was_measured() -> None:
    case = Case.named("HAT/inference/512x512x1/bf16")
    verdicts = {g.name: r for g, r in report.judged(case, entry_of(10, 39, (2, 4), 0.6))}
    assert verdicts == {
        "4 x eager": 3.9,
        "1.8 x compiled": None,
        "half of eager's memory": 2.0,
        "60 % of the floor": 0.6,
    }
    assert report.missed(case, entry_of(10, 39, (2, 4), 0.6)) == ["4 x eager"]
    assert report.missed(case, entry_of(10, 40, (3, 4), 0.59)) == [
        "half of eager's memory",
        "60 % of the floor",
    ]


def test_the_page_is_made_from_the_files(tmp_path: Path) -> None:
    page = tmp_path / "kernels.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_page([], page)
    assert (
        page.read_text() == f"before\n{report.BEGIN}\n\nNot measured yet.\n\n{report.END}\nafter\n"
    )
    found = Results(tmp_path / "gpu-card.json", "card", "v")
    found.put("cases", "HAT/inference/512x512x1/bf16", entry_of(10, 45, (2, 5), 0.7))
    report.write_page([found.path], page)
    text = page.read_text()
    assert "| HAT/inference/512x512x1/bf16 | 10.00 | 4.50 x |" in text
    assert "4 x eager: met (4.50)" in text and "1.8 x compiled: not measured" in text
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text


def test_the_documentation_has_a_place_for_the_tables() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    assert text.index(report.BEGIN) < text.index(report.END)


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def runs(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    class Once(Clock):
        def calls_for(self, call: Callable[[], object]) -> int:
            call()
            return 1

    times, errors = interleaved({"a": runs("a"), "b": runs("b")}, 3, Once(CPU))
    assert order == ["a", "b"] * 4
    assert [len(times[name]) for name in "ab"] == [3, 3] and errors == {}


def test_a_time_limit_ends_what_it_is_around() -> None:
    with pytest.raises(TimeLimit), time_limit(0.05):
        while True:
            try:
                sum(range(1000))
            except Exception:  # as compilers do, whatever fails in them
                continue


def test_tuning_keeps_what_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {64: 3.0, 128: 1.0, 32: 4.0}
    default, asked = Launch(64, 64), []
    kernel = type(tuning)("restore.kernels.made_up_triton")
    kernel.best = tuning.tuning.best  # type: ignore[attr-defined]
    monkeypatch.setitem(tuning.sys.modules, kernel.__name__, kernel)

    def call() -> Tensor:
        launch = kernel.best("op", "shape", torch.zeros(1), default)
        asked.append(launch)
        return torch.zeros(1)

    def fake_time(call: Callable[[], Tensor], clock: Clock) -> float | None:
        call()
        return None if asked[-1].warps == 8 else times.get(asked[-1].block_m, 9.0)

    kept: list[tuple[Any, ...]] = []
    monkeypatch.setattr(tuning, "_kernel_time", fake_time)
    monkeypatch.setattr(tuning.tuning, "keep", lambda *given: kept.append(given))
    tried: set[tuple[str, str]] = set()
    given: dict[str, Any] = {"say": lambda line: None, "time_is_up": lambda: False, "tried": tried}
    assert tuning.tune(call, CPU, **given) == {("op", "shape"): Launch(128, 64)}
    assert tuning.tune(call, CPU, **given) == {}
    assert kept[0][:2] == ("op", "shape") and kept[0][3] == Launch(128, 64)


def test_a_version_changes_with_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "op.py").write_text("1")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    before = results.code_version()
    assert results.code_version() == before
    (tmp_path / "kernels" / "op.py").write_text("2")
    assert results.code_version() != before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cpu"], "add --rehearsal"),
        (["--device", "cpu", "--rehearsal"], "--out"),
        (["--part", "3/2"], "1 <= I <= N"),
        (["--part", "half"], "two numbers"),
    ],
)
def test_a_wrong_command_line_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        program.parsed(arguments)
    assert words in capsys.readouterr().err
