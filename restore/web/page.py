"""The page itself, made of Gradio's parts: what is shown, and what happens at each click."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from restore.errors import RestoreError, UsageError
from restore.image_io import PICTURE_SUFFIXES
from restore.web import markup
from restore.web.desk import Ticket
from restore.web.limits import checked_scale
from restore.web.service import Service
from restore.web.work import Order, Work

PERIOD_SECONDS = 0.3  # between two looks at the work under way
OTHER = "other"
WHOLE, DETAIL = "whole picture", "detail"
_SCALES = (1.0, 1.5, 2.0, 3.0, 4.0)
_FORMATS = [
    ("as the input", "auto"),
    ("PNG", "png"),
    ("JPEG", "jpg"),
    ("WebP", "webp"),
    ("TIFF", "tiff"),
    ("BMP", "bmp"),
]
_TILES = [
    ("auto: what the memory allows", "auto"),
    ("the whole picture", "0"),
    *((f"{n} pixels", str(n)) for n in (512, 256, 128, 64)),
]

Updates = tuple[Any, ...]


class Page:
    """The parts of the page and what they do.

    Args:
        service: does what is asked for.
        chosen: name of the model that is chosen at first.
        where: where pictures are computed, in words.
    """

    def __init__(self, service: Service, chosen: str, where: str) -> None:
        self._service = service
        self._chosen = service.shelf.entry(chosen)
        self._where = where

    def blocks(self) -> Any:
        """The page, for a server."""
        # nothing of its use is told to anybody
        with gr.Blocks(title="restore", analytics_enabled=False, fill_width=True) as page:
            _html(markup.header(self._where))
            with gr.Row(equal_height=False):
                with gr.Column(scale=4, min_width=320, elem_id="asked"):
                    self._left()
                with gr.Column(scale=6, min_width=320, elem_id="answered"):
                    self._right()
            self._connect()
            page.unload(self._leave)
        page.queue(default_concurrency_limit=None, api_open=False, max_size=200)
        return page

    def _left(self) -> None:
        """What is asked for."""
        service = self._service
        self._files = gr.File(
            label="Pictures",
            file_count="multiple",
            file_types=sorted(PICTURE_SUFFIXES),
            height=140,
            elem_id="pictures",
        )
        takes = markup.text(markup.takes(service.limits))
        _html(f'<div class="rs-card">{takes}</div>')
        self._listing = _html(name="listing")
        self._model = gr.Dropdown(
            [(f"{e.name}  (x{e.scale})", e.name) for e in service.shelf.entries.values()],
            value=self._chosen.name,
            label="Model",
            filterable=False,
            elem_id="model",
        )
        self._scale = gr.Radio(
            [*((f"x{s:g}", f"{s:g}") for s in _SCALES), (OTHER, OTHER)],
            value=_choice(self._chosen.scale),
            label="Scale",
            elem_id="scale",
        )
        self._other = gr.Textbox(
            value="2.5", label="Other scale, such as 2.5", visible=False, elem_id="other"
        )
        self._card = _html(markup.model_card(self._chosen, self._chosen.scale), "card")
        with gr.Row():
            self._format = gr.Dropdown(
                _FORMATS, value="auto", label="Format", filterable=False, elem_id="format"
            )
            self._quality = gr.Slider(
                1, 100, value=95, step=1, label="Quality", visible=False, elem_id="quality"
            )
        with gr.Accordion("More", open=False):
            self._tile = gr.Dropdown(
                _TILES,
                value="auto",
                label="Tiles",
                info="Smaller ones take less memory, and show more often how far it is.",
                filterable=False,
            )
            self._tta = gr.Checkbox(
                label="Average over 8 flips and turns", info="A little better, 8 times slower."
            )

    def _right(self) -> None:
        """What begins it, and what came of it: side by side with the rest, so both are seen."""
        with gr.Row():
            self._go = gr.Button("Restore", variant="primary", scale=3, elem_id="go")
            self._stop = gr.Button(
                "Stop", variant="stop", scale=1, min_width=90, interactive=False, elem_id="stop"
            )
        self._status = _html(
            markup.notice("Drop pictures into the field, choose a model, press Restore."), "status"
        )
        with gr.Row():
            self._shown = gr.Dropdown(
                [], label="Show", visible=False, filterable=False, elem_id="shown"
            )
            self._view = gr.Radio(
                [WHOLE, DETAIL], value=WHOLE, label="View", visible=False, elem_id="view"
            )
        self._compare = _html(name="compare")
        self._result = _html(name="result")
        # open until there is something else to look at
        with gr.Accordion("Which model, which scale?", open=True) as self._guide:
            _html(markup.GUIDE, "guide")

    def _connect(self) -> None:
        """Say what follows from what."""
        scale = [self._scale, self._other]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        self._model.change(self._model_changed, [self._model], [*scale, self._card], **quiet)
        for part in (self._scale, self._other):
            part.change(
                self._scale_changed, [self._model, *scale], [self._other, self._card], **quiet
            )
        for part in (self._files, self._scale, self._other):
            part.change(self._list, [self._files, *scale], [self._listing], **quiet)
        self._format.change(
            lambda ext: gr.update(visible=ext in ("jpg", "webp")),
            [self._format],
            [self._quality],
            **quiet,
        )
        form = [self._files, self._model, *scale, self._format, self._quality, self._tile]
        results = [self._shown, self._view, self._compare, self._result, self._guide]
        self._go.click(
            self._run, [*form, self._tta], [self._status, self._go, self._stop, *results], **quiet
        )
        self._stop.click(self._stopped, None, [self._stop], **quiet)
        for part in (self._shown, self._view):
            part.input(self._look, [self._shown, self._view], [self._compare], **quiet)

    def _model_changed(self, model: str) -> Updates:
        """Another model brings its own scale along."""
        entry = self._service.shelf.entry(model)
        return _choice(entry.scale), f"{entry.scale:g}", markup.model_card(entry, entry.scale)

    def _scale_changed(self, model: str, chosen: str, other: str) -> Updates:
        entry = self._service.shelf.entry(model)
        try:
            card = markup.model_card(entry, _scale(chosen, other))
        except UsageError as error:
            card = markup.notice(str(error), "error")
        return gr.update(visible=chosen == OTHER), card

    def _list(self, files: Any, chosen: str, other: str, request: gr.Request) -> str:
        try:
            rows = self._service.listed(request.session_hash, files or [], _scale(chosen, other))
        except UsageError:
            return ""  # the scale is not whole yet; it says so itself
        return markup.listing(rows, self._service.limits)

    async def _run(
        self,
        files: Any,
        model: str,
        chosen: str,
        other: str,
        ext: Any,
        quality: float,
        tile: str,
        tta: bool,
        request: gr.Request,
    ) -> AsyncIterator[Updates]:
        """Restore what was uploaded, and show how far it is until it is over."""
        service, visitor = self._service, request.session_hash
        same = gr.skip()
        try:
            order = Order(
                model,
                _scale(chosen, other),
                ext,
                int(quality) if ext in ("jpg", "webp") else None,
                "auto" if tile == "auto" else int(tile),
                bool(tta),
            )
            ticket = service.start(visitor, files or [], order)
        except RestoreError as error:
            yield markup.notice(str(error), "error"), *[same] * 7
            return
        hidden, nothing = gr.update(visible=False), gr.update(value="")
        off, on = gr.update(interactive=False), gr.update(interactive=True)
        told = ""
        while not (ticket.done or service.ending):
            ahead = service.ahead(ticket)
            work = ticket.task
            now = (
                markup.waiting(ahead) if ahead else markup.standing(work.standing, ticket.stopping)
            )
            if not told:
                yield now, off, on, hidden, hidden, nothing, nothing, gr.update(open=False)
            elif now != told:
                yield now, *[same] * 7
            told = now
            await asyncio.sleep(PERIOD_SECONDS)
        if service.ending and not ticket.done:
            ended = "The program behind this page was ended, and this with it; start it again."
            yield markup.notice(ended, "error"), on, off, *[same] * 5
        else:
            yield self._end(visitor, ticket)

    def _end(self, visitor: str | None, ticket: Ticket[Work]) -> Updates:
        """What is shown when a click is over."""
        work = ticket.task
        good = [(done.name, i) for i, done in enumerate(work.finished) if done.result is not None]
        first = good[0][1] if good else None
        has_detail = any(done.views and done.views.detail for done in work.finished)
        view = DETAIL if has_detail else WHOLE
        return (
            markup.summary(work, ticket.stopping),
            gr.update(interactive=True),
            gr.update(interactive=False),
            gr.update(choices=good, value=first, visible=len(good) > 1),
            gr.update(value=view, visible=has_detail),
            self._comparison(visitor, first, view),
            markup.outcome(work),
            gr.skip(),
        )

    def _look(self, number: Any, view: str, request: gr.Request) -> str:
        return self._comparison(request.session_hash, number, view)

    def _comparison(self, visitor: str | None, number: Any, view: str) -> str:
        work = self._service.work(visitor)
        if work is None or not isinstance(number, int) or not 0 <= number < len(work.finished):
            return ""
        return markup.comparison(work.finished[number], view == DETAIL, work.order.model)

    def _stopped(self, request: gr.Request) -> Any:
        self._service.stop(request.session_hash)
        return gr.update(interactive=False)

    def _leave(self, request: gr.Request) -> None:
        self._service.leave(request.session_hash)


def _html(value: str = "", name: str | None = None) -> Any:
    """A part that shows what `markup` makes; it takes no room where that is nothing."""
    return gr.HTML(value, elem_id=name, elem_classes="rs-block")


def _choice(scale: float) -> str:
    """The radio button of a model's own scale; what is beside it where there is none."""
    return f"{scale:g}" if float(scale) in _SCALES else OTHER


def _scale(chosen: str, other: str) -> float:
    return checked_scale(other if chosen == OTHER else chosen)


def style() -> str:
    """The page's own CSS."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def theme() -> Any:
    """Plain, in the fonts that the machine has: none is fetched."""
    sans = ["system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
    mono = ["ui-monospace", "Consolas", "Menlo", "monospace"]
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=sans, font_mono=mono, radius_size="sm"
    )
