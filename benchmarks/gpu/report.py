"""Goals, and tables for people, made from the results alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.cases import GOALS, NETWORKS, Case, Goal
from benchmarks.gpu.results import ROOT, Results
from benchmarks.tables import NOTHING, line, put_between, times, why

Entry = Mapping[str, Any]
PAGE = ROOT / "docs" / "kernels.md"
BEGIN, END = "<!-- table: python -m benchmarks.gpu --page -->", "<!-- end of table -->"
HEAD = (
    "case", "restore, ms", "eager", "spandrel", "compiled", "graph", "memory, GiB",
    "of eager's", "matrix rate", "bandwidth", "floor", "goals",
)  # fmt: skip


def measured(goal: Goal, entry: Entry) -> float | None:
    """The ratio that a goal is about, or None where a part of it was not measured."""
    if goal.measure == "floor":
        return entry.get("shares", {}).get(goal.ours, {}).get("floor")
    key = "median_ms" if goal.measure == "time" else "memory"
    rows = entry.get("contenders", {})
    ours, theirs = (rows.get(name, {}).get(key) for name in (goal.ours, goal.against))
    return theirs / ours if ours and theirs else None


def judged(case: Case, entry: Entry) -> Iterator[tuple[Goal, float | None]]:
    """Every goal of a case, and what was measured."""
    for goal in GOALS:
        if goal.is_for(case):
            yield goal, measured(goal, entry)


def missed(case: Case, entry: Entry) -> list[str]:
    """Names of the goals that a case was measured for and misses."""
    return [
        goal.name for goal, ratio in judged(case, entry) if ratio is not None and ratio < goal.least
    ]


def table(machine: Entry) -> str:
    """A row for each measured case; times of the others are multiples of ours."""
    lines = [line(HEAD), line(["---"] * len(HEAD))]
    lines += [line(_cells(case, entry)) for case, entry in _cases(machine)]
    return "\n".join(lines)


def _cases(machine: Entry) -> list[tuple[Case, Entry]]:
    """All measured cases, network by network."""
    networks = list(NETWORKS)
    found = [(Case.named(key), entry) for key, entry in machine["cases"].items()]
    return sorted(
        found,
        key=lambda pair: (
            networks.index(pair[0].network.name),
            pair[0].kind,
            pair[0].side,
            pair[0].batch,
            pair[0].precision.name,
        ),
    )


def _cells(case: Case, entry: Entry) -> list[str]:
    rows = entry.get("contenders", {})
    ours = rows.get("restore", {})
    if "median_ms" not in ours:
        return [case.key, why(ours), *[""] * (len(HEAD) - 2)]
    memory, theirs = ours.get("memory"), rows.get("eager", {}).get("memory")
    share = entry.get("shares", {}).get("restore", {})
    goals = [f"{goal.name}: {_verdict(goal, ratio)}" for goal, ratio in judged(case, entry)]
    return [
        case.key,
        f"{ours['median_ms']:.2f}",
        *(times(rows.get(name), ours) for name in ("eager", "spandrel", "compiled")),
        times(rows.get("restore-graph"), ours),
        f"{memory / 2**30:.2f}" if memory else "",
        f"{memory / theirs:.0%}" if memory and theirs else "",
        *(
            f"{share[name]:.0%}" if name in share else ""
            for name in ("matrix_rate", "copy_rate", "floor")
        ),
        "; ".join(goals),
    ]


def _verdict(goal: Goal, ratio: float | None) -> str:
    if ratio is None:
        return "not measured"
    return f"{'met' if ratio >= goal.least else 'missed'} ({ratio:.2f})"


def in_one_line(case: Case, entry: Entry) -> str:
    """What was measured, for the progress on the screen."""
    if "failed" in entry:
        return str(entry["failed"])
    rows = entry["contenders"]
    words = [
        f"{name} {row['median_ms']:.2f} ms" if "median_ms" in row else f"{name} {why(row)}"
        for name, row in rows.items()
    ]
    bad = missed(case, entry)
    return ", ".join(words) + (f"; misses {', '.join(bad)}" if bad else "")


def checks_table(machine: Entry) -> str:
    """What was checked: how many comparisons passed, and every one that did not."""
    lines = []
    for section, words in (("ops", "ops"), ("networks", "networks")):
        entries = machine[section]
        bad = sorted(key for key, entry in entries.items() if not entry["passed"])
        lines.append(f"- {words}: {len(entries) - len(bad)} of {len(entries)} checks passed")
        lines += [f"  - failed: `{key}`: {wrong(entries[key])}" for key in bad]
    return "\n".join(lines)


def anything_wrong(machine: Entry) -> bool:
    """Whether an op or a network was found wrong."""
    return any(
        not entry["passed"] for name in ("ops", "networks") for entry in machine[name].values()
    )


def wrong(entry: Entry) -> str:
    """How far off a network or an op is."""
    if "failed" in entry:
        return str(entry["failed"])
    words = f"off by {entry['error']:.2e}, at most {entry['limit']:.2e}"
    gradient = entry.get("worst_gradient")
    if gradient:
        words += f"; gradient of {gradient['parameter']} at {gradient['of_limit']} of its limit"
    return words


def profiles(machine: Entry) -> str:
    """Where the time goes in each case that misses a goal."""
    parts = []
    for case, entry in _cases(machine):
        if "profile" not in entry:
            continue
        profile, floor = entry["profile"], entry.get("floor")
        words = [f"{case.key} misses {', '.join(missed(case, entry)) or 'nothing now'}"]
        words.append(f"the GPU is busy {profile['busy']:.0%} of the time")
        if floor:
            each = ", ".join(f"{name} {ms:.2f}" for name, ms in floor["parts_ms"].items())
            words.append(f"its floor is {floor['floor_ms']:.2f} ms ({each})")
        lines = ["; ".join(words) + ".", ""]
        lines += [line(("kernel", "calls", "ms", "share")), line(["---"] * 4)]
        for kernel in profile["kernels"]:
            name = f"`{kernel['name'].replace('|', '/')[:80]}`"
            cells = (name, str(kernel["calls"]), f"{kernel['ms']:.3f}", f"{kernel['share']:.0%}")
            lines.append(line(cells))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def page_of(results: Results) -> str:
    """Everything, as markdown."""
    parts = []
    for name, machine in results.machines():
        described = machine["described"] or {}
        about = ", ".join(f"{key} {value}" for key, value in described.items() if value)
        versions = sorted({entry["code"] for entry in machine["cases"].values()})
        if len(versions) > 1:
            about += f"; cases of several versions of the code: {', '.join(versions)}"
        parts += [f"### {name}", about, checks_table(machine), table(machine)]
        where = profiles(machine)
        if where:
            parts += ["Where the time goes:", where]
    return "\n\n".join(parts) + "\n"


def write_tables(results: Results) -> Path:
    """Write the markdown beside the results file."""
    path = results.path.with_suffix(".md")
    path.write_text(page_of(results), encoding="utf-8")
    return path


def write_page(files: list[Path], page: Path = PAGE) -> None:
    """Put the tables of results files between the marks of the page."""
    found = NOTHING
    if files:
        results = Results(files[0], "", "")
        for path in files[1:]:
            results.merge(path)
        found = page_of(results)
    put_between(page, BEGIN, END, found)
