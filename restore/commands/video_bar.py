"""How far a video is."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from restore.commands.text import duration

if TYPE_CHECKING:
    from tqdm import tqdm

    from restore.commands.screen import Screen
    from restore.video.run import Step

_LINE_EVERY = 300.0  # seconds, where there is no bar


class Bar:
    """How far a video is: a bar where standard error is a terminal, else a line now and then."""

    def __init__(self, name: str, screen: Screen) -> None:
        self._name = name
        self._screen = screen
        self._bar: tqdm[Any] | None = None
        self._stage = ""
        self._began = self._told = time.perf_counter()

    def __call__(self, step: Step) -> None:
        """Take note of a step."""
        if self._screen.has_bars:
            self._draw(step)
        elif step.stage == "restoring":
            self._line(step)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, ""

    def _draw(self, step: Step) -> None:
        if step.stage != self._stage:
            from tqdm import tqdm

            self.close()
            self._stage = step.stage
            form = "{desc} |{bar}| {n_fmt}/{total_fmt} frames, {rate_fmt}, {remaining} left"
            if not step.total:
                form = "{desc}: {n_fmt} frames, {rate_fmt}"
            what = {"looking": ": looking", "restoring": "", "joining": ": joining"}[step.stage]
            self._bar = tqdm(
                desc=self._name + what,
                total=step.total or None,
                initial=step.done,
                unit="frame",
                leave=False,
                # room for the terminal's own "^C", as for the bars of pictures
                ncols=max(20, shutil.get_terminal_size().columns - 4),
                bar_format=form,
                file=sys.stderr,
            )
        if self._bar is not None:
            self._bar.update(step.done - self._bar.n)

    def _line(self, step: Step) -> None:
        now = time.perf_counter()
        if step.done == step.found:
            self._began = now
        elif now - self._told >= _LINE_EVERY:
            self._told = now
            rate = (step.done - step.found) / (now - self._began)
            self._screen.say(
                f"{self._name}: {step.done} of {step.total} frames, {rate:.3g} frames/s, "
                f"{duration((step.total - step.done) / rate)} left"
            )
