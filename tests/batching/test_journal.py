"""A journal: rounds, what is left to do, and how the work of the dead goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from restore.batching import shared
from restore.batching.journal import Journal, Listing, Round
from restore.batching.logs import Entry, Log, Record, open_ends, read_log
from restore.batching.names import Names
from restore.batching.report import outcome_of, records_of
from restore.batching.shared import MOST_DEATHS, SharedFeed, Task
from restore.batching.work_list import MOST_IN_LOT, WorkList
from restore.errors import UsageError

SETTINGS = {"the model": "tiny", "--outscale": "2.0"}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def journal(output: Path, **settings: str) -> Journal:
    told = {**SETTINGS, **settings}
    return Journal(output / ".restore", output, told, lambda _: None, lease=0.3)


def listing(count: int) -> Listing:
    return Listing([Entry(f"../in/{n}.png", ".") for n in range(count)], Names.of(["x"]))


def joined(output: Path, count: int = 3) -> Round:
    found = journal(output).join(lambda: listing(count))
    assert found is not None
    return found


def finish(feed: SharedFeed, task: Task, output: Path, status: str = "done") -> None:
    name = Path(task.entry.source).name
    if status == "done":
        (output / name).write_text("result")
    feed.begun(task)
    feed.ended(task, Record(status, output=name, bytes=6 if status == "done" else 0))  # type: ignore[arg-type]


def tasks(feed: SharedFeed) -> Iterator[Task]:
    while (task := feed.next(patient=True)) is not None:
        yield task


def die(feed: SharedFeed) -> None:
    """End without a word, as a killed worker does, of which only the files are left."""
    feed._round.members._left.set()
    feed._round.members._thread.join()  # type: ignore[union-attr]
    name = feed._round.members._file
    # a process that is gone
    name.write_text(name.read_text().replace('"started": ', '"started": 1'))


def test_one_worker_does_all_and_there_is_nothing_left(output: Path) -> None:
    feed = SharedFeed(joined(output), output)
    for place, task in enumerate(tasks(feed), 1):
        assert task.place == place and not task.is_suspect
        finish(feed, task, output)
    feed.leave()
    assert journal(output).join(lambda: listing(3)) is None
    assert [path.name for path in (output / ".restore").iterdir()] == ["0001"]


def test_what_is_new_failed_or_missing_is_a_new_round(output: Path) -> None:
    feed = SharedFeed(joined(output, 4), output)
    for task in tasks(feed):
        finish(feed, task, output, "failed" if task.place == 2 else "done")
    feed.leave()
    (output / "2.png").unlink()
    (output / "3.png").write_text("cut")
    again = joined(output, 5)
    names = [Path(entry.source).name for entry in again.list]
    assert names == ["1.png", "2.png", "3.png", "4.png"]
    again.members.leave()


def test_skipped_pictures_stay_done(output: Path) -> None:
    (output / "0.png").write_text("of another run")
    feed = SharedFeed(joined(output, 1), output)
    for task in tasks(feed):
        finish(feed, task, output, "skipped")
    feed.leave()
    assert journal(output).join(lambda: listing(1)) is None


def test_a_second_worker_joins_and_nobody_gets_what_the_other_has(output: Path) -> None:
    one, two = SharedFeed(joined(output, 4), output), SharedFeed(joined(output, 4), output)
    assert len(journal(output).rounds()) == 1
    taken = [feed.next(patient=False) for feed in (one, two, one, two)]
    assert [task.place for task in taken if task] == [1, 2, 3, 4]
    assert one.next(patient=False) is None
    for feed, task in zip((one, two, one, two), taken, strict=True):
        assert task is not None
        finish(feed, task, output)
    assert one.next(patient=True) is None and two.next(patient=True) is None
    one.leave(), two.leave()


def test_the_list_is_made_once(output: Path) -> None:
    one = joined(output, 4)

    def refused() -> Listing:
        raise AssertionError("a second list")

    two = journal(output).join(refused)
    assert two is not None and len(two.list) == 4
    one.members.leave(), two.members.leave()


def test_a_list_that_cannot_be_made_leaves_the_place_to_others(output: Path) -> None:
    def wrong() -> Listing:
        raise UsageError("no pictures")

    with pytest.raises(UsageError, match="no pictures"):
        journal(output).join(wrong)
    assert len(joined(output, 2).list) == 2


def test_the_work_of_a_dead_worker_is_taken_over(output: Path) -> None:
    one, two = SharedFeed(joined(output, 4), output), SharedFeed(joined(output, 4), output)
    first, second = one.next(patient=False), one.next(patient=False)
    assert first is not None and second is not None
    finish(one, first, output)
    one.begun(second)
    die(one)
    got = list(tasks_ended(two, output))
    assert [task.place for task in got] == [3, 4, 2]
    assert [task.is_suspect for task in got] == [False, False, True]
    assert outcome_of(two._round) == ({"done": 4}, [])
    two.leave()


def test_who_is_waited_for_is_told(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_POLL", 0.01)
    monkeypatch.setattr(shared, "_TELL_AFTER", 0.05)
    one, told = SharedFeed(joined(output, 1), output), list[str]()
    task = one.next(patient=False)
    assert task is not None
    two = SharedFeed(joined(output, 1), output, say=told.append)
    ending = threading.Timer(0.3, finish, (one, task, output))
    ending.start()
    assert two.next(patient=True) is None
    ending.join()
    (line,) = told
    assert line.startswith(f"waiting for {one._round.members.me}, with a part of the list; what")
    one.leave(), two.leave()


def tasks_ended(feed: SharedFeed, output: Path) -> Iterator[Task]:
    for task in tasks(feed):
        finish(feed, task, output)
        yield task


def test_a_finished_picture_whose_result_is_gone_is_done_again(output: Path) -> None:
    one, two = SharedFeed(joined(output, 2), output), SharedFeed(joined(output, 2), output)
    task = one.next(patient=False)
    assert task is not None
    # the crash came between its record and the end of the lot, and the disk lost the result
    one.begun(task)
    one._log.ended(task.entry, Record("done", output="0.png", bytes=6))
    die(one)
    assert [task.place for task in tasks_ended(two, output)] == [2, 1]
    two.leave()


def test_after_a_crash_of_all_a_new_round_begins(output: Path) -> None:
    one = SharedFeed(joined(output, 3), output)
    first, second = one.next(patient=False), one.next(patient=False)
    assert first is not None and second is not None
    one.begun(second)
    finish(one, first, output)
    die(one)
    again = joined(output, 3)
    # what may have killed the worker comes last
    assert [(Path(e.source).name, e.deaths) for e in again.list] == [("2.png", 0), ("1.png", 1)]
    again.members.leave()


def test_what_an_interrupted_worker_had_killed_nobody(output: Path) -> None:
    one = SharedFeed(joined(output, 1), output)
    task = one.next(patient=False)
    assert task is not None
    one.begun(task)
    one.leave()
    again = joined(output, 1)
    assert [entry.deaths for entry in again.list] == [0]
    again.members.leave()


def test_a_picture_that_kills_is_given_up_and_tried_again_when_asked(output: Path) -> None:
    for death in range(MOST_DEATHS):
        feed = SharedFeed(joined(output, 1), output)
        task = feed.next(patient=False)
        assert task is not None
        assert task.entry.deaths == death and not task.is_given_up
        feed.begun(task)
        die(feed)
    feed = SharedFeed(joined(output, 1), output)
    task = feed.next(patient=False)
    assert task is not None and task.is_given_up
    feed.ended(task, Record("failed", reason="given up"))
    feed.leave()
    assert [entry.deaths for entry in joined(output, 1).list] == [0]


def test_a_worker_thought_dead_ends_when_a_new_round_begins(output: Path) -> None:
    one = SharedFeed(joined(output, 40), output)
    assert one.next(patient=False) is not None
    die(one)
    again = joined(output, 40)
    assert one.next(patient=False) is not None  # the lot that it has just taken
    assert one.next(patient=True) is None
    again.members.leave()


@pytest.mark.parametrize("began", [True, False])
def test_other_settings_are_refused_and_named(output: Path, began: bool) -> None:
    first = joined(output, 1)
    if not began:
        first.members.leave()
    wrong = journal(output, **{"--outscale": "3.0", "--tta": "True"})
    told = r"--outscale is 3\.0, but was 2\.0; --tta is True, but was none\. Give the same"
    with pytest.raises(UsageError, match=told):
        wrong.join(lambda: listing(1))


def test_a_log_that_a_crash_cut_short_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "a.jsonl"
    log = Log(path)
    one, two = Entry("a.png", "."), Entry("b.png", "sub")
    log.begun(one), log.ended(one, Record("failed", reason="why", notes=["n"])), log.begun(two)
    with path.open("ab") as file:
        file.write(b'["ended", "b.png", "su')
    lines = list(read_log(path))
    assert [line.number for line in lines if line] == [one.number, one.number, two.number]
    assert lines[1] is not None and lines[1].record == Record("failed", reason="why", notes=["n"])
    assert open_ends(path, lambda *_: None) == {two.number}
    assert list(read_log(tmp_path / "none.jsonl")) == []


@pytest.mark.parametrize(("count", "lot"), [(1, 1), (999, 1), (2000, 4), (100_000, MOST_IN_LOT)])
def test_lots_are_read_in_any_order(tmp_path: Path, count: int, lot: int) -> None:
    entries = [Entry(f"{number}.png", "b", number % 2) for number in range(count)]
    path = tmp_path / "list"
    WorkList.write(path, {"a": 1}, entries)
    found = WorkList(path)
    assert (len(found), found.size, found.header["a"]) == (count, lot, 1)
    assert found.lots == -(-count // lot)
    last = found.lots - 1
    for number in (0, last // 2, last, 0, last // 3):
        assert found.lot(number) == entries[number * lot : (number + 1) * lot]
    assert count > 5000 or list(found) == entries


def test_records_of_all_rounds_come_once_in_the_order_of_the_lists(output: Path) -> None:
    for status in ("failed", "done"):
        feed = SharedFeed(joined(output, 3), output)
        for task in tasks(feed):
            finish(feed, task, output, status if task.place == 1 else "done")
        feed.leave()
    found = list(records_of(journal(output), output))
    assert [Path(record.source).name for record in found] == ["0.png", "1.png", "2.png"]
    assert {record.status for record in found} == {"done"}
    assert found[0].output == str(output / "0.png")
    assert all(record.worker for record in found)
