"""Rows as tables: on the screen, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from restore.atomic import atomic_output, writing
from restore.bench.compare import Paired
from restore.bench.protocols import Figure
from restore.bench.results import Row

_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": "\\textbackslash{}", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}"}
    | {"|": "\\textbar{}"}
)
TABLE_FILES = ("pictures.csv", "means.csv", "table.md", "table.tex")
_COLUMNS = ("model", "dataset", "level")


def screen_lines(rows: Sequence[Row]) -> list[str]:
    """One line for each row and figure, what they cost, and how they were made."""
    lines = [*aligned(_figure_table(rows)), "", *aligned(_cost_table(rows)), ""]
    lines += notes(rows)
    return lines


def _figure_table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each row and figure."""
    head = ("model", "set", "level", "pictures", "figure", "mean", "published", "")
    return [head, *(_figure_cells(row, figure) for row in rows for figure in row.protocol.figures)]


def _figure_cells(row: Row, figure: Figure) -> tuple[str, ...]:
    head = (row.model.name, row.dataset, row.protocol.level_name)
    count = f"{len(row.pictures)}" if row.is_whole else f"{len(row.pictures)} of {row.count}"
    count += f" ({row.made} made)" if row.made else ""
    found = row.published.get(figure.key)
    beside = ("-", "") if found is None else (figure.shown(found.value), verdict(row, figure))
    return (*head, count, figure.title, mean_words(row, figure), *beside)


def mean_words(row: Row, figure: Figure) -> str:
    """Such as "32.55 ± 0.87": the mean and its standard error over pictures."""
    if not row.pictures:
        return "-"
    error = row.standard_error(figure)
    told = "" if math.isnan(error) else f" ± {figure.shown(error)}"
    return f"{figure.shown(row.mean(figure))}{told}"


def verdict(row: Row, figure: Figure) -> str:
    """Of a mean beside its published one: "ok", a signed difference, or "" without one."""
    found = row.published.get(figure.key)
    if found is None:
        return ""
    return "ok" if found.ok else _signed(found.difference, figure.digits)


def _cost_table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each row."""
    head = ("model", "set", "level", "s/picture", "result Mpixel/s", "peak MiB", "parameters")
    return [(*head, "G multiply-adds"), *map(_cost_cells, rows)]


def _cost_cells(row: Row) -> tuple[str, ...]:
    some = bool(row.pictures)
    return (
        row.model.name,
        row.dataset,
        row.protocol.level_name,
        f"{row.seconds:.3f}" if some else "-",
        f"{row.pixels_per_second / 1e6:.3f}" if some else "-",
        "-" if row.peak is None else f"{row.peak / 2**20:,.0f}",
        f"{row.model.parameters:,}",
        f"{row.model.multiply_adds / 1e9:,.1f}",
    )


def notes(rows: Sequence[Row]) -> list[str]:
    """What has to be known beside the numbers, each sentence once."""
    found = [
        "mean ± its standard error over pictures; ok: within 0.01 dB, or 0.0005 of SSIM, of the "
        "published figure; multiply-adds are for a result of 1280 x 720 pixels, peak is beyond "
        "the loaded model"
    ]
    for row in rows:
        words = row.protocol.words(row.low_side)
        found.append(f"{row.dataset} {row.protocol.level_name}: {words}")
    found += [f"{row.model.name}: {told}" for row in rows if (told := row.model.weights())]
    for row in rows:
        found += row.notes
        tiled = sum(picture.tiles > 1 for picture in row.pictures)
        if tiled:
            found.append(
                f"{row.model.name}, {row.dataset}: {tiled} of {row.count} pictures were cut into "
                "tiles, which can change scores"
            )
        found += [f"{row.dataset}: {name} failed: {why}" for name, why in row.failed.items()]
    for row in rows:
        by_source: dict[str, list[str]] = {}
        for figure in row.protocol.figures:
            if figure.key in row.published:
                by_source.setdefault(row.published[figure.key].source, []).append(figure.title)
        for source, titles in by_source.items():
            found.append(
                f"{row.model.name}, {row.dataset}, published {', '.join(titles)}: {source}"
            )
    found += [_machine_note(row) for row in rows]
    # a line break would end a comment of LaTeX and a list of Markdown
    return list(dict.fromkeys(" ".join(note.split()) for note in found))


def _machine_note(row: Row) -> str:
    """What a row was computed with."""
    versions, threads = row.settings.get("versions", {}), row.settings.get("threads", "?")
    return (
        f"{row.model.dtype} on {row.model.device}, {threads} threads; restore "
        f"{versions.get('restore', '?')}, PyTorch {versions.get('torch', '?')}"
    )


def paired_lines(found: Sequence[Paired]) -> list[str]:
    """Paired statistics, one line for each set, level and figure."""
    head = ("A", "B", "set", "level", "figure", "A", "B", "B - A", "95 % interval", "B better")
    cells: list[tuple[str, ...]] = [(*head, "A better", "sign test")]
    for each in found:
        digits = each.figure.digits + 1
        interval = "-"
        if not math.isnan(each.low):
            interval = f"{_signed(each.low, digits)} to {_signed(each.high, digits)}"
        cells.append(
            (
                *each.models,
                each.dataset,
                each.level,
                each.figure.title,
                *(_number(value, f".{digits}f") for value in (each.a, each.b)),
                "-" if math.isnan(each.difference) else _signed(each.difference, digits),
                interval,
                f"{each.b_better} of {each.count}",
                f"{each.a_better} of {each.count}",
                f"p = {each.sign_p:.2g}",
            )
        )
    infinite = [
        f"{' and '.join(each.models)}, {each.dataset} {each.level}, {each.figure.title}: "
        f"{each.infinite} of {each.count} pictures have no finite difference; the sign test counts "
        "them, means and interval do not"
        for each in found
        if each.infinite
    ]
    return [*aligned(cells), *infinite]


def _signed(value: float, digits: int) -> str:
    """Such as "+0.12"; what rounds to 0 has a plus."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def write_paired(folder: Path, found: Sequence[Paired]) -> Path:
    """Write paired statistics as paired.csv into a folder; OutputError where that fails."""
    head = [*("a", "b"), *_COLUMNS[1:], "figure", "pictures", "mean_a", "mean_b", "difference"]
    lines: list[list[object]] = [
        [*head, "low_95", "high_95", "b_better", "a_better", "sign_p", "infinite"]
    ]
    for each in found:
        names = [*each.models, each.dataset, each.level, each.figure.key, each.count]
        numbers = (each.a, each.b, each.difference, each.low, each.high)
        counts = [each.b_better, each.a_better, f"{each.sign_p:.6g}", each.infinite]
        lines.append([*names, *(_cell(number) for number in numbers), *counts])
    path = folder / "paired.csv"
    with atomic_output(path) as file, writing(path):
        file.write(_csv(lines).encode())
    return path


def write_tables(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Write pictures.csv, means.csv, table.md and table.tex; OutputError where that fails."""
    texts = (_pictures_csv(rows), _means_csv(rows), markdown(rows), latex(rows))
    for name, text in zip(TABLE_FILES, texts, strict=True):
        path = folder / name
        with atomic_output(path) as file, writing(path):
            file.write(text.encode())
    return [folder / name for name in TABLE_FILES]


def _pictures_csv(rows: Sequence[Row]) -> str:
    figures = _figures(rows)
    head = [*_COLUMNS, "picture", *(f.key for f in figures), "seconds", "width", "height", "peak"]
    lines: list[list[object]] = [[*head, "tiles"]]
    for row in rows:
        for picture in row.pictures:
            values = [_cell(picture.values.get(figure.key)) for figure in figures]
            peak = "" if picture.peak is None else picture.peak
            size = [f"{picture.seconds:.4f}", picture.width, picture.height, peak, picture.tiles]
            lines.append([*_head(row), picture.name, *values, *size])
    return _csv(lines)


def _means_csv(rows: Sequence[Row]) -> str:
    head = [*_COLUMNS, "pictures", "of", "figure", "mean", "standard_error", "published"]
    cost = ["seconds", "result_pixels_per_second", "peak", "parameters", "multiply_adds"]
    lines: list[list[object]] = [[*head, "difference", "ok", "source", *cost]]
    for row in rows:
        peak = "" if row.peak is None else row.peak
        costs = [
            *(_cell(row.seconds), _cell(row.pixels_per_second), peak),
            *(row.model.parameters, round(row.model.multiply_adds)),
        ]
        for figure in row.protocol.figures:
            found = row.published.get(figure.key)
            beside: list[object] = ["", "", "", ""]
            if found is not None:
                beside = [found.value, found.difference, found.ok, found.source]
            means = [_cell(row.mean(figure)), _cell(row.standard_error(figure))]
            counts = [len(row.pictures), row.count, figure.key]
            lines.append([*_head(row), *counts, *means, *beside, *costs])
    return _csv(lines)


def _head(row: Row) -> list[object]:
    return [row.model.name, row.dataset, row.protocol.level_name]


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6f}"


def _csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _figures(rows: Sequence[Row]) -> list[Figure]:
    return list(dict.fromkeys(figure for row in rows for figure in row.protocol.figures))


def markdown(rows: Sequence[Row]) -> str:
    """A paper's table: a line for each model and level, a column for each set.

    Below it all figures with their standard errors, and what they cost.
    """
    lines = []
    for title, cells in _all_tables(rows):
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in cells]
        head, *body = ["| " + " | ".join(row) + " |" for row in escaped]
        lines += [f"**{title}**", "", head, "|" + "---|" * len(cells[0]), *body, ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes(rows)), ""])


def latex(rows: Sequence[Row]) -> str:
    """The same for LaTeX, with booktabs; notes as comments."""
    lines = [f"% {note}" for note in notes(rows)]
    for title, cells in _all_tables(rows):
        lines += [f"% {title}", f"\\begin{{tabular}}{{ll{'c' * (len(cells[0]) - 2)}}}", "\\toprule"]
        for number, row in enumerate(cells):
            escaped = (cell.translate(_LATEX).replace("±", "$\\pm$") for cell in row)
            lines.append(" & ".join(escaped) + " \\\\")
            if number == 0:
                lines.append("\\midrule")
        lines += ["\\bottomrule", "\\end{tabular}"]
    return "\n".join([*lines, ""])


def _all_tables(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, ...]]]]:
    more = [("means ± standard errors", _figure_table(rows)), ("cost", _cost_table(rows))]
    return [*_paper_tables(rows), *more]


def _paper_tables(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """For each kind of figures its title and cells, the head first."""
    tables = []
    for figures in dict.fromkeys(row.protocol.figures for row in rows):
        own = [row for row in rows if row.protocol.figures == figures]
        sets = list(dict.fromkeys(row.dataset for row in own))
        cells = [("model", "level", *sets)]
        for model, level in dict.fromkeys((r.model.name, r.protocol.level_name) for r in own):
            by_set = {
                row.dataset: row
                for row in own
                if (row.model.name, row.protocol.level_name) == (model, level)
            }
            cells.append((model, level, *(_paper_cell(by_set.get(name)) for name in sets)))
        tables.append((" / ".join(figure.title for figure in figures), cells))
    return tables


def _paper_cell(row: Row | None) -> str:
    """Such as "32.55 / .8999 (published 32.55 / .8999: ok / ok)"; what is not whole says so."""
    if row is None or not row.pictures:
        return "-"
    figures = row.protocol.figures
    means = " / ".join(figure.shown(row.mean(figure)) for figure in figures)
    if row.made:
        means += f" ({row.made} of {row.count} low sides made)"
    if not row.is_whole:
        return f"{means} ({len(row.pictures)} of {row.count} pictures)"
    if not row.published:
        return means
    found = [row.published.get(figure.key) for figure in figures]
    printed = " / ".join(
        "-" if each is None else figure.shown(each.value)
        for figure, each in zip(figures, found, strict=True)
    )
    verdicts = " / ".join(verdict(row, figure) or "-" for figure in figures)
    return f"{means} (published {printed}: {verdicts})"
