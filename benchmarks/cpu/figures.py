"""Figures of measured cases, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from benchmarks.cpu.cases import Case

Measured = Sequence[tuple[Case, Any]]
SIDE, THREADS = 128, 1  # of the cases in the bars
COLOURS = {"restore": "#3b7d4f", "eager": "#c0504d", "openvino": "#4f81bd", "floor": "#aaaaaa"}
NAMES = {"restore": "restore", "eager": "authors' eager", "openvino": "OpenVINO", "floor": "floor"}
LINES = (
    "#3b7d4f", "#c0504d", "#4f81bd", "#8064a2", "#f79646",
    "#4bacc6", "#7f6000", "#c55a9d", "#595959", "#92a000",
)  # fmt: skip
WIDTH, LEFT, BAR, ROW = 760, 130, 520, 13  # pixels


def bars(found: Measured) -> str:
    """Times of each network at one size, ours as 1; empty if there are none."""
    rows: list[tuple[str, dict[str, float]]] = []
    for case, entry in found:
        all_of = {name: row.get("median_ms") for name, row in entry["contenders"].items()}
        all_of["floor"] = entry["floor_ms"].get("fp32")
        if case.side == SIDE and case.threads == THREADS and all_of.get("restore"):
            times = {name: float(all_of[name]) for name in COLOURS if all_of.get(name)}
            rows.append((case.network.name, times))
    if not rows:
        return ""
    longest = max(max(times.values()) / times["restore"] for _, times in rows)
    parts = [
        _text(12, 22, f"Time at {SIDE} x {SIDE} pixels, float32, one thread; restore is 1", 15)
    ]
    for number, (kind, colour) in enumerate(COLOURS.items()):
        parts += [_box(LEFT + 150 * number, 34, 10, 10, colour)]
        parts += [_text(LEFT + 150 * number + 16, 43, NAMES[kind])]
    y = 62
    for network, times in rows:
        parts.append(_text(LEFT - 8, y + 10, network, anchor="end"))
        for kind, time in times.items():
            ratio = time / times["restore"]
            width = max(BAR * ratio / longest, 0.5)
            words = f"{ratio:.2f} ({time:,.0f} ms)"
            parts += [_box(LEFT, y, width, ROW - 3, COLOURS[kind])]
            parts += [_text(LEFT + width + 4, y + 9, words, 10)]
            y += ROW
        y += 8
    return _svg(WIDTH, y + 8, parts)


def curves(found: Measured) -> str:
    """Time and memory of ours against pixels, both axes logarithmic; empty if there are none."""
    kinds = (("median_ms", 1e-3, "seconds"), ("memory", 2.0**-20, "MiB above the loaded model"))
    parts: list[str] = [_text(12, 22, "What grows with the pixels of the input, one thread", 15)]
    shown = False
    for number, (key, unit, words) in enumerate(kinds):
        lines: dict[str, list[tuple[float, float]]] = {}
        for case, entry in found:
            value = entry["contenders"]["restore"].get(key, 0)
            if value > 0:
                point = (math.log2(case.side**2), math.log2(value * unit))
                lines.setdefault(case.network.name, []).append(point)
        if lines:
            shown = True
            parts += _panel(60 + 480 * number, words, lines)
    return _svg(1000, 460, parts) if shown else ""


def _panel(left: float, words: str, lines: dict[str, list[tuple[float, float]]]) -> Iterable[str]:
    points = [point for line in lines.values() for point in line]
    x0, x1 = (f(x for x, _ in points) for f in (min, max))
    y0, y1 = (f(y for _, y in points) for f in (min, max))
    width, height, top = 320, 360, 60

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + width * (x - x0) / ((x1 - x0) or 1),
            top + height * (1 - (y - y0) / ((y1 - y0) or 1)),
        )

    yield _text(left, 48, words)
    for x in range(math.ceil(x0), math.floor(x1) + 1, 2):
        place, side = at(x, y0), 2 ** (x // 2)
        yield _text(place[0], top + height + 18, f"{side}²", 10, anchor="middle")
        yield _line([place, at(x, y1)], "#eeeeee")
    for y in range(math.ceil(y0), math.floor(y1) + 1, 2):
        place = at(x0, y)
        yield _text(left - 6, place[1] + 4, f"{2.0**y:g}", 10, anchor="end")
        yield _line([place, at(x1, y)], "#eeeeee")
    for number, (name, line) in enumerate(lines.items()):
        colour = LINES[number % len(LINES)]
        yield _line([at(*point) for point in line], colour)
        yield _text(left + width + 12, top + 12 + 16 * number, name, 11, colour)


def _svg(width: float, height: float, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif">'
    )
    return "\n".join([head, _box(0, 0, width, height, "#ffffff"), *parts, "</svg>", ""])


def _text(
    x: float, y: float, words: str, size: int = 12, colour: str = "#222222", anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
    )


def _line(points: Iterable[tuple[float, float]], colour: str) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
