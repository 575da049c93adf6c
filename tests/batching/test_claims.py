"""Who does what, and who is alive."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from restore.batching import claims as claims_module
from restore.batching import members as members_module
from restore.batching.claims import Claims
from restore.batching.members import LONG_AGO, Members, Process


def claims_of(folder: Path, me: str, *alive: str) -> Claims:
    return Claims(folder, me, lambda name: name in alive)


def test_one_of_two_gets_it(tmp_path: Path) -> None:
    one, two = claims_of(tmp_path, "one", "one", "two"), claims_of(tmp_path, "two", "one", "two")
    assert one.take_new("a")
    assert not two.take_new("a")
    assert two.take("a") is None
    assert two.take("b") == []
    assert not one.take_new("b")


def test_the_work_of_the_dead_is_taken_over_once(tmp_path: Path) -> None:
    assert claims_of(tmp_path, "one").take_new("a")
    two, three = (claims_of(tmp_path, me, "two", "three") for me in ("two", "three"))
    assert two.take("a") == ["one"]
    assert three.take("a") is None
    four = claims_of(tmp_path, "four", "four")
    assert four.take("a") == ["one", "two"]


def test_done_work_is_nobodys(tmp_path: Path) -> None:
    one, two = claims_of(tmp_path, "one"), claims_of(tmp_path, "two")
    assert one.take_new("a")
    one.finish("a")
    assert two.take("a") is None
    assert two.is_done("a") and two.done() == {"a"}


def test_a_claim_can_be_given_back(tmp_path: Path) -> None:
    one, two = claims_of(tmp_path, "one", "one"), claims_of(tmp_path, "two", "one")
    assert one.take("a") == []
    one.give_back("a", 0)
    assert two.take("a") == []


def test_a_claim_without_a_name_is_given_up_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.0").touch()
    two = Claims(tmp_path, "two", lambda name: bool(name))
    assert two.take("a") is None
    monkeypatch.setattr(claims_module, "_UNSIGNED", 0.0)
    time.sleep(0.01)
    assert two.take("a") == [""]


def _race(folder: str, me: str, names: int) -> list[int]:
    taken = Claims(Path(folder), me, lambda _: True)
    return [number for number in range(names) if taken.take_new(str(number))]


def test_processes_that_race_share_everything_and_nothing_twice(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        words = [(str(tmp_path), f"worker {number}", 300) for number in range(4)]
        found = pool.starmap(_race, words)
    assert sorted(number for part in found for number in part) == list(range(300))


def test_a_worker_is_alive_until_it_leaves(tmp_path: Path) -> None:
    one, two = Members(tmp_path), Members(tmp_path)
    assert two.others() == []
    one.join(), two.join()
    assert two.others() == [one.me] and two.is_alive(one.me) and two.is_alive(two.me)
    one.leave()
    assert two.others() == [] and not two.is_alive(one.me)
    assert not two.is_alive("") and not two.is_alive("nobody")
    two.leave()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_worker_of_this_machine_is_dead_at_once(tmp_path: Path, root: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from restore.batching.members import Members\n"
        "m = Members(Path(sys.argv[1])); m.join(); print(m.me, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    mine = Members(tmp_path)
    assert mine.others() == [name] and mine.is_alive(name)
    process.kill()
    # not waited for: a process that nobody has buried is dead too
    deadline = time.monotonic() + 10
    while mine.is_alive(name) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not mine.is_alive(name)
    process.wait()
    process.stdout.close()


def foreign(folder: Path, count: int = 0) -> str:
    """A worker of another machine."""
    folder.mkdir(exist_ok=True)
    who = json.dumps({"machine": "elsewhere", "pid": 1, "started": 0.0})
    (folder / "far").write_text(f"{count:011}\n{who}\n")
    return "far"


def test_a_worker_elsewhere_is_dead_when_its_counter_stands(tmp_path: Path) -> None:
    mine = Members(tmp_path, lease=0.2)
    mine.join()
    far = foreign(tmp_path)
    assert mine.is_alive(far)
    time.sleep(0.15)
    assert mine.is_alive(far)
    foreign(tmp_path, 1)
    time.sleep(0.15)
    assert mine.is_alive(far)
    time.sleep(0.25)
    assert not mine.is_alive(far)
    mine.leave()


def test_what_died_long_ago_is_not_waited_for(tmp_path: Path) -> None:
    mine = Members(tmp_path)
    mine.join()
    far = foreign(tmp_path)
    past = time.time() - LONG_AGO - 60
    os.utime(tmp_path / far, (past, past))
    assert not mine.is_alive(far)
    mine.leave()


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "BEAT", 0.01)
    mine = Members(tmp_path)
    mine.join()
    before = (tmp_path / mine.me).read_bytes()
    time.sleep(0.2)
    after = (tmp_path / mine.me).read_bytes()
    assert before != after and before[12:] == after[12:]
    assert int(after[:11]) > 0
    mine.leave()


def test_a_later_process_of_the_same_number_is_another() -> None:
    me = Process.current()
    assert me.has_ended() is False
    assert Process(me.machine, me.pid, me.started - 100).has_ended() is True
    assert Process("elsewhere", me.pid, me.started).has_ended() is None
    unused = max(psutil.pids()) + 1000
    assert Process(me.machine, unused, 0.0).has_ended() is True
