"""Timing models against each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bench_samples import as_contender
from small_models import tiny

from restore.bench import speed
from restore.bench.speed import Timing, speed_lines, timed, write_speeds


def test_every_model_is_timed_at_every_size_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contenders = [as_contender(tiny(2, name="a")), as_contender(tiny(3, name="b"))]
    order: list[str] = []
    real = speed._seconds

    def noted(each: speed.Contender, height: int, width: int) -> float:
        order.append(each.facts.name)
        return real(each, height, width)

    monkeypatch.setattr(speed, "_seconds", noted)
    rounds: list[int] = []
    found = timed(contenders, [(16, 24), (8, 8)], 3, lambda: rounds.append(1))
    assert order == ["a", "b"] * 8  # one call that does not count and three that do, twice
    assert [(t.model, t.height, t.width) for t in found] == [
        *[("a", 16, 24), ("b", 16, 24)],
        *[("a", 8, 8), ("b", 8, 8)],
    ]
    assert all(len(t.seconds) == 3 and t.median > 0 for t in found)
    assert len(rounds) == 6
    lines = speed_lines(found, contenders)
    assert "24 x 16" in lines[1] and "1.00" in lines[1]
    assert f"{torch.get_num_threads()} threads" in lines[-1] and "fp32 on cpu" in lines[-1]
    content = json.loads(write_speeds(tmp_path, found, contenders).read_text())
    assert content["machine"]["torch"] == torch.__version__
    assert content["timings"][0]["seconds"] == list(found[0].seconds)


def test_medians_and_quartiles() -> None:
    timing = Timing("a", 8, 8, 2, (5.0, 1.0, 2.0, 4.0, 3.0), None, 10)
    assert (timing.median, timing.quartiles) == (3.0, (2.0, 4.0))
    assert Timing("a", 8, 8, 2, (5.0,), None, 10).quartiles == (5.0, 5.0)


def test_a_model_without_room_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    contenders = [as_contender(tiny(2, name="a")), as_contender(tiny(2, name="b"))]
    real = speed._seconds

    def short(each: speed.Contender, height: int, width: int) -> float:
        if each.facts.name == "a":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(each, height, width)

    monkeypatch.setattr(speed, "_seconds", short)
    found = timed(contenders, [(8, 8)], 2, lambda: None)
    assert [len(t.seconds) for t in found] == [0, 2]
    lines = speed_lines(found, contenders)
    assert "no memory" in lines[1] and " -  " in lines[2]
