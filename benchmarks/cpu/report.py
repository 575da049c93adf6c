"""Goals, tables and figures, made from the results alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.cpu.cases import GOALS, NETWORKS, Case, Goal
from benchmarks.cpu.contenders import BF16
from benchmarks.cpu.figures import bars, curves
from benchmarks.gpu.results import ROOT, Results
from benchmarks.tables import NOTHING, Entry, line, put_between, times, why

PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
BEGIN, END = "<!-- table: python -m benchmarks.cpu --page -->", "<!-- end of table -->"
HEAD = (
    "network", "input", "threads", "restore, ms", "eager", "spandrel", "OpenVINO", "floor, ms",
    "bf16, ms", "eager fp32", "OpenVINO bf16", "bf16 floor, ms", "memory, MiB", "of eager's",
    "goals",
)  # fmt: skip
CURVE_HEAD = ("network", "input", "restore, ms", "ns a pixel", "memory, MiB", "bytes a pixel")
MIB = 2**20


def measured(goal: Goal, entry: Entry) -> float | None:
    """The ratio that a goal is about, or None where a part of it was not measured."""
    key = "median_ms" if goal.measure == "time" else "memory"
    rows = entry["contenders"]
    ours, theirs = (rows.get(name, {}).get(key) for name in (goal.ours, goal.against))
    return theirs / ours if ours and theirs else None


def floor_share(goal: Goal, entry: Entry) -> tuple[float, float] | None:
    """How near our time is to the floor, 1 at it, and the ratio that would be measured there.

    Returns:
        None where the goal is not one of speed against the same operations, or something was not
        measured.
    """
    floor = entry.get("floor_ms", {}).get("bf16" if goal.ours in BF16 else "fp32")
    ratio = measured(goal, entry)
    if goal.against != "eager" or goal.measure != "time" or ratio is None or not floor:
        return None
    share = floor / entry["contenders"][goal.ours]["median_ms"]
    return share, ratio / share


def met(goal: Goal, entry: Entry) -> bool | None:
    """Whether a goal is met, or None where it was not measured.

    Where the ratio lies beyond the floor's share, the share is the goal, if the goal has one.
    """
    ratio = measured(goal, entry)
    if ratio is None or ratio >= goal.least:
        return None if ratio is None else True
    found = floor_share(goal, entry)
    return bool(goal.of_floor and found and found[0] >= goal.of_floor)


def verdict(goal: Goal, entry: Entry) -> str:
    """The same in words, and how: what only the floor's share met says so, and what no program
    with these operations can meet is told."""
    ratio = measured(goal, entry)
    if ratio is None:
        return ""
    found = floor_share(goal, entry)
    if ratio >= goal.least or found is None:
        return f"{'met' if met(goal, entry) else 'missed'} ({ratio:.2f})"
    share, at_floor = found
    about = f"{ratio:.2f}; at the floor {at_floor:.2f}"
    if met(goal, entry):
        return f"met by the floor: {share:.0%} of it ({about})"
    beyond = ", beyond the floor" if at_floor < goal.least else ""
    return f"missed{beyond}: {share:.0%} of it ({about})"


def judged(case: Case, entry: Entry) -> Iterator[str]:
    """Every goal of a case in words."""
    for goal in GOALS:
        if goal.is_for(case) and measured(goal, entry) is not None:
            yield f"{goal.name}: {verdict(goal, entry)}"


def cases_of(machine: Entry, curve: bool) -> list[tuple[Case, Entry]]:
    """Measured cases, network by network."""
    found = [(Case.named(key), entry) for key, entry in machine["cases"].items()]
    names = list(NETWORKS)
    return sorted(
        ((case, entry) for case, entry in found if case.curve == curve),
        key=lambda pair: (names.index(pair[0].network.name), pair[0].side, pair[0].threads),
    )


def table(machine: Entry) -> str:
    """A row for each measured case; times of the others are multiples of ours."""
    rows = [_cells(case, entry) for case, entry in cases_of(machine, curve=False)]
    return "\n".join(line(cells) for cells in (HEAD, ["---"] * len(HEAD), *rows))


def _cells(case: Case, entry: Entry) -> list[str]:
    rows = entry["contenders"]
    ours, half = rows.get("restore", {}), rows.get("restore-bf16", {})
    head = [case.network.name, f"{case.side} x {case.side}", str(case.threads)]
    if "median_ms" not in ours:
        return [*head, why(ours), *[""] * (len(HEAD) - 4)]
    time = ours["median_ms"]
    theirs = rows.get("eager", {}).get("memory")
    half_cells = [why(half) if half else "", "", "", ""]
    if "median_ms" in half:
        against = (times(rows.get(name), half) for name in ("eager", "openvino-bf16"))
        half_floor = _of_floor(entry["floor_ms"].get("bf16"), half["median_ms"])
        half_cells = [f"{half['median_ms']:.0f}", *against, half_floor]
    return [
        *head,
        f"{time:.0f}",
        *(times(rows.get(name), ours) for name in ("eager", "spandrel", "openvino")),
        _of_floor(entry["floor_ms"].get("fp32"), time),
        *half_cells,
        f"{ours['memory'] / MIB:.0f}",
        f"{ours['memory'] / theirs:.0%}" if theirs else "",
        "; ".join(judged(case, entry)),
    ]


def _of_floor(floor: float | None, time: float) -> str:
    return f"{floor:.0f} ({floor / time:.0%})" if floor else ""


def curve_table(machine: Entry) -> str:
    """Time and memory at each size, and for each pixel of the input."""
    rows = []
    for case, entry in cases_of(machine, curve=True):
        head, ours = (
            [case.network.name, f"{case.side} x {case.side}"],
            entry["contenders"]["restore"],
        )
        if "median_ms" not in ours:
            rows.append([*head, why(ours), "", "", ""])
            continue
        time, memory = ours["median_ms"], ours["memory"]
        pixels = case.side**2
        rows.append(
            [
                *head,
                f"{time:.0f}",
                f"{1e6 * time / pixels:.0f}",
                f"{memory / MIB:.0f}",
                f"{memory / pixels:.0f}",
            ]
        )
    return "\n".join(line(cells) for cells in (CURVE_HEAD, ["---"] * len(CURVE_HEAD), *rows))


def in_one_line(case: Case, entry: Entry) -> str:
    """What was measured, for the progress on the screen."""
    words = [
        f"{name} {row['median_ms']:.0f} ms" if "median_ms" in row else f"{name} {why(row)}"
        for name, row in entry["contenders"].items()
    ]
    floors = [f"{name} floor {floor:.0f} ms" for name, floor in entry["floor_ms"].items()]
    return ", ".join([*words, *floors, *judged(case, entry)])


def draw(name: str, machine: Entry, folder: Path) -> list[Path]:
    """Write the figures of a machine; those that there is something to show in."""
    written = []
    for kind, drawn in (
        ("speed", bars(cases_of(machine, curve=False))),
        ("curve", curves(cases_of(machine, curve=True))),
    ):
        if drawn:
            path = folder / f"{name}-{kind}.svg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(drawn, encoding="utf-8")
            written.append(path)
    return written


def page_of(results: Results, images: Path, page: Path) -> str:
    """Everything, as markdown; the figures are drawn into a folder."""
    parts = []
    for name, machine in results.machines():
        described = machine["described"] or {}
        about = ", ".join(f"{key} {value}" for key, value in described.items() if value)
        versions = sorted({entry["code"] for entry in machine["cases"].values()})
        if len(versions) > 1:
            about += f"; cases of several versions of the code: {', '.join(versions)}"
        parts += [f"### {name}", about, table(machine)]
        if cases_of(machine, curve=True):
            parts.append(curve_table(machine))
        for path in draw(name, machine, images):
            kind = path.stem.rsplit("-", 1)[1]
            parts.append(f"![{kind} on {name}]({path.relative_to(page.parent).as_posix()})")
    return "\n\n".join(parts) + "\n"


def write_page(files: list[Path], page: Path = PAGE, images: Path = IMAGES) -> None:
    """Put the tables and figures of results files between the marks of the page."""
    found = NOTHING
    if files:
        results = Results(files[0], "", "")
        for path in files[1:]:
            results.merge(path)
        found = page_of(results, images, page)
    put_between(page, BEGIN, END, found)
