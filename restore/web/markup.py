"""Fragments of the page's HTML. All that comes from outside, names above all, is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from restore.commands.info import file_size
from restore.commands.text import duration
from restore.web.limits import Limits
from restore.web.service import Listed
from restore.web.shelf import Entry
from restore.web.work import Finished, Standing, Work

FILES = "gradio_api/file="  # the toolkit's address of a file, below the page's own
_FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WebP", "tiff": "TIFF", "bmp": "BMP"}
_SLIDE = "this.closest('.rs-stage').style.setProperty('--at', this.value + '%')"


def text(words: str) -> str:
    """Words as HTML; braces and dollars too, which the toolkit's templates read."""
    safe = escape(words)
    return safe.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;")


def address(path: Path) -> str:
    """Where the browser finds a file of the page's folder."""
    return FILES + quote(path.as_posix())


def notice(words: str, kind: str = "note") -> str:
    """A sentence of its own: a "note", or an "error", which is read aloud at once."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="rs-notice rs-{kind}" role="{role}">{text(words)}</p>'


def size(pixels: tuple[int, int]) -> str:
    """Width and height: "640 x 480"."""
    return f"{pixels[0]} x {pixels[1]}"


def listing(rows: Sequence[Listed], limits: Limits) -> str:
    """The pictures that were uploaded, and what each would become."""
    if not rows:
        return ""
    lines = []
    for row in rows:
        if row.problem or row.info is None:
            what = f'<td colspan="2" class="rs-bad">{text(row.problem)}</td>'
        else:
            before = size((row.info.width, row.info.height))
            what = f"<td>{before}<br>{text(facts(row))}</td><td>→ {size(row.after)}</td>"
        lines.append(f'<tr><th scope="row">{text(row.name)}</th>{what}</tr>')
    over = ""
    if len(rows) > limits.max_files:
        over = notice(
            f"{len(rows)} pictures are more than the {limits.max_files} that are taken at once",
            "error",
        )
    return f'<table class="rs-table">{"".join(lines)}</table>{over}'


def facts(row: Listed) -> str:
    """What a picture is: "PNG, 16 bits, alpha, 1.2 MiB"."""
    if row.info is None:
        return ""
    info = row.info
    words = [_FORMATS[info.fmt]]
    words += [f"{info.depth} bits"] if info.depth != 8 else []
    words += ["gray"] if info.channels == 1 else []
    words += ["alpha"] if info.has_alpha else []
    return ", ".join([*words, file_size(row.size)])


def waiting(ahead: int) -> str:
    """A click's place in the queue."""
    others = "1 other is" if ahead == 1 else f"{ahead} others are"
    return (
        '<div class="rs-status"><p role="status">Waiting: '
        f"{others} before you. Yours begins by itself.</p>"
        '<progress aria-label="waiting"></progress></div>'
    )


def standing(at: Standing, stopping: bool) -> str:
    """How far a click's pictures are."""
    words = f"{at.current}" if at.count == 1 else f"{at.current} ({at.number} of {at.count})"
    done, total = at.tiles
    details = []
    if at.doing:
        details.append(at.doing)
    elif total > 1:
        details.append(f"tile {min(done + 1, total)} of {total}")
    else:
        details.append("computing")
    left = at.seconds_left
    if left is not None:
        details.append(f"{_roughly(left)} left")
    if stopping:
        words, details = "Stopping at the next step of the network", []
    told = f"<strong>{text(words or 'Preparing')}</strong> {text(', '.join(details))}"
    percent = round(100 * at.share)
    return (
        f'<div class="rs-status"><p>{told}</p><progress max="100" value="{percent}" '
        f'aria-label="progress">{percent} %</progress></div>'
    )


def _roughly(seconds: float) -> str:
    if seconds < 10:
        return "a few seconds"
    rounded = round(seconds, -1)
    return f"about {duration(rounded) if rounded >= 60 else f'{rounded:.0f} s'}"


def summary(work: Work, stopped: bool) -> str:
    """What became of a click, in a sentence, the reasons of failures, and the main download."""
    good = [done for done in work.finished if done.result is not None]
    count = work.standing.count
    if count == 1:
        words = "Restored." if good else "Not restored."
    else:
        words = f"{len(good)} of {count} pictures restored."
    stopped = stopped and len(work.finished) < count
    words = f"Stopped. {words}" if stopped else words
    parts = [notice(words, "note" if len(good) == count or stopped else "error")]
    parts += [notice(work.problem, "error")] if work.problem else []
    parts += [notice(done.reason, "error") for done in work.finished if done.result is None]
    if work.archive is not None:
        parts.append(_download(work.archive, f"Download all {len(good)} as zip", "rs-button"))
    elif len(good) == 1 and good[0].result is not None:
        parts.append(_download(good[0].result, "Download the result", "rs-button"))
    return "".join(parts)


def outcome(work: Work) -> str:
    """The results of a click, each to download, with what there is to note."""
    rows = []
    for done in work.finished:
        if done.result is None:
            continue
        link = _download(done.result, done.result.name, "rs-link")
        sizes = f"{size(done.before)} → {size(done.after)}, {duration(done.seconds)}"
        notes = "".join(f"<li>{text(note)}</li>" for note in done.notes)
        told = f"<ul>{notes}</ul>" if notes else ""
        rows.append(f'<tr><th scope="row">{link}</th><td>{sizes}{told}</td></tr>')
    return f'<table class="rs-table">{"".join(rows)}</table>' if rows else ""


def _download(path: Path, words: str, looks: str) -> str:
    told = f"{text(words)} <small>{file_size(path.stat().st_size)}</small>"
    return f'<a class="{looks}" href="{address(path)}" download="{text(path.name)}">{told}</a>'


def comparison(done: Finished, detail: bool, model: str) -> str:
    """Before and after, laid over each other, with a slider between them.

    The slider is an input of the page's own: it works by mouse, touch and keyboard.
    """
    if done.views is None:
        return notice(f"{done.name}: there is no comparison of it")
    view = done.views.whole
    if detail and done.views.detail is not None:
        view = done.views.detail
    enlarged = done.before != done.after
    factor = f" x{done.after[0] / done.before[0]:.4g}" if enlarged and done.before[0] else ""
    before = f"bicubic{factor}" if enlarged else "before"
    shows = f"Left {before}, right restored by {model}, of {done.name}"
    reduced = view is done.views.whole and done.views.whole_is_reduced
    told = "reduced; the download has every pixel" if reduced else "the whole picture"
    if view is done.views.detail:
        told = "the part with most detail"
    return (
        f'<figure class="rs-compare"><div class="rs-stage" '
        f'style="--at: 50%; --width: {view.width}; --height: {view.height}">'
        f'<img src="{address(view.after)}" alt="restored: {text(done.name)}" draggable="false">'
        f'<img class="rs-before" src="{address(view.before)}" alt="before: {text(done.name)}" '
        'draggable="false">'
        f'<span class="rs-tag rs-left" aria-hidden="true">{text(before)}</span>'
        f'<span class="rs-tag rs-right" aria-hidden="true">{text(model)}</span>'
        '<span class="rs-line" aria-hidden="true"></span>'
        f'<input type="range" min="0" max="100" step="0.5" value="50" aria-label="{text(shows)}" '
        f'oninput="{_SLIDE}"></div>'
        f"<figcaption>{text(done.name)}: {told}. Drag, or use the arrow keys.</figcaption>"
        "</figure>"
    )


def model_card(entry: Entry, scale: float) -> str:
    """What the chosen model does, and what the chosen scale means for it."""
    words = entry.purpose
    if entry.scale != scale:
        own = f"enlarges x{entry.scale}" if entry.scale > 1 else "keeps the size"
        words += f" It {own} itself; its result is then resized to x{scale:g}."
    notes = "".join(f"<p>{text(note)}</p>" for note in entry.notes)
    return f'<div class="rs-card"><p><em>{text(entry.variant)}</em>: {text(words)}</p>{notes}</div>'


GUIDE = """
<p><strong>Which model for what?</strong></p>
<ul>
<li><strong>Clean but small</strong> (renders, well kept photos, screenshots): a super-resolution
model, such as the built-in ones. What is in the picture is enlarged; nothing is made up.</li>
<li><strong>Noisy, blurred or compressed and small</strong> (phone, web, scans): a real-world
super-resolution model.</li>
<li><strong>Large enough but noisy</strong>: a denoising model made for about that strength.</li>
<li><strong>Blocks and rings of JPEG</strong>: a model for JPEG artefacts.</li>
<li><strong>Shaken</strong>: a deblurring model.</li>
</ul>
<p>The built-in models only enlarge clean pictures. Weight files of SwinIR, HAT, SRFormer, CAT,
Uformer, HiT-SR, DRCT and ATD join the list with <code>restore web -m FILE</code>.</p>
<p><strong>Scale</strong> may be any number; beyond a model's own scale nothing is gained over
resizing its result. <strong>Format</strong> “as the input” keeps 16 bits, transparency, colour
profile and EXIF; a note tells where a format cannot.</p>
"""


def header(where: str) -> str:
    """The title, and what happens to pictures."""
    return (
        "<header class='rs-header'><h1>restore</h1>"
        "<p>Enlarge and clean pictures. They are computed "
        f"{text(where)}, go nowhere else, and are deleted when you close this page, or after an "
        "hour.</p></header>"
    )


def takes(limits: Limits) -> str:
    """What the field for pictures says of itself."""
    pixels = "" if limits.max_pixels is None else f" and {limits.max_pixels / 1e6:.3g} megapixels"
    return (
        f"PNG, JPEG, WebP, TIFF, BMP; up to {limits.max_files} pictures of at most "
        f"{limits.max_megabytes} MB{pixels} each"
    )
