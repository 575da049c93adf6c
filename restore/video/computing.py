"""Frames through a model: equal ones once, on a GPU several at a time.

Shape letters: B frames, H and W their rows and columns, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from restore.image_io import Picture
from restore.padding import Padding
from restore.upscaling import memory, upscale_picture
from restore.upscaling.network import Network, is_out_of_memory
from restore.upscaling.pixels import AnyArray, from_unit, to_unit
from restore.upscaling.progress import RunReport, Tracker
from restore.upscaling.run import TileChoice, output_size

if TYPE_CHECKING:
    from restore.model import Model

_MOST_AT_ONCE = 8


@dataclass(frozen=True)
class Choices:
    """How frames are restored; see `upscale`."""

    outscale: float | None = None
    tile: TileChoice = "auto"
    tile_pad: int | None = None
    tta: bool = False
    padding: Padding = "reflect"


class Restorer:
    """Restores frames one after another.

    Attributes:
        computed: how many went through the network.
        repeated: how many were equal to the one before, whose result they share.
        notes: sentences for the user, each once.

    Args:
        model: from `restore.load`.
        choices: the same for every frame.
    """

    def __init__(self, model: Model, choices: Choices) -> None:
        self.model = model
        self.choices = choices
        self.computed = 0
        self.repeated = 0
        self.notes: list[str] = []
        self._last: tuple[AnyArray, AnyArray] | None = None  # a frame and its result
        self._at_once: int | None = None  # not known before the first frame
        self._tile: TileChoice | None = None  # the same

    def __call__(self, frames: Iterable[AnyArray]) -> Iterator[AnyArray]:
        """The results of frames [H, W, C], in order."""
        waiting: list[AnyArray] = []
        for frame in frames:
            waiting.append(frame)
            if self._at_once is None:
                self._at_once = self._fitting(frame)
            if len(waiting) >= self._at_once:
                yield from self._results(waiting)
                waiting = []
        yield from self._results(waiting)

    def _results(self, frames: list[AnyArray]) -> Iterator[AnyArray]:
        """The results of a few frames."""
        new: list[AnyArray] = []
        last = None if self._last is None else self._last[0]
        which: list[int] = []  # of the new ones, or -1 for the last result of all
        for frame in frames:
            if last is not None and np.array_equal(frame, last):
                self.repeated += 1
            else:
                new.append(frame)
            which.append(len(new) - 1)
            last = frame
        results = self._compute(new)
        self.computed += len(new)
        for number in which:
            if number >= 0:
                self._last = (new[number], results[number])
            assert self._last is not None
            yield self._last[1]

    def _compute(self, frames: list[AnyArray]) -> list[AnyArray]:
        if len(frames) > 1:
            try:
                return self._together(frames)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            torch.cuda.empty_cache()
            self._at_once = max(1, len(frames) // 2)
            self._note(f"out of memory; going on with {self._at_once} frames at a time")
            half = len(frames) // 2
            return self._compute(frames[:half]) + self._compute(frames[half:])
        return [self._alone(frame) for frame in frames]

    def _alone(self, frame: AnyArray) -> AnyArray:
        """One frame, in tiles where it does not fit."""
        if self._tile is None:
            self._tile = self._first_tile(frame)
        c, colours = self.choices, 3 if frame.shape[2] > 2 else 1
        alpha = frame[:, :, colours] if frame.shape[2] > colours else None
        report = RunReport()
        result = upscale_picture(
            Picture(frame[:, :, :colours], alpha),
            self.model,
            outscale=c.outscale,
            tile=self._tile,
            tile_pad=c.tile_pad,
            tta=c.tta,
            padding=c.padding,
            report=report,
        )
        for note in report.notes:
            self._note(note)
        if report.halvings:
            # the next frame would run out of memory again
            self._tile = report.tile
        if result.alpha is None:
            return result.pixels
        return np.concatenate([result.pixels, result.alpha[:, :, None]], axis=2)

    def _first_tile(self, frame: AnyArray) -> TileChoice:
        """The tile for all frames: memory that comes and goes must not show in a video."""
        model, c = self.model, self.choices
        if c.tile != "auto" or c.padding == "published":
            return c.tile
        height, width, channels = frame.shape
        images = 3 if channels > model.in_channels else 1  # see Network
        free = memory.free_bytes(model.device) // images
        return memory.choose_tile(model, height, width, free, tile_pad=c.tile_pad)

    def _together(self, frames: list[AnyArray]) -> list[AnyArray]:
        """Frames of the model's own scale, each as a whole, in one call."""
        report = RunReport()
        tracker = Tracker(None, report)
        channels = frames[0].shape[2]
        c = self.choices
        network = Network(self.model, channels, tta=c.tta, tracker=tracker, padding=c.padding)
        batch = np.stack([to_unit(frame, "a frame") for frame in frames])
        names = [f"frame {number} of a batch" for number in range(1, len(frames) + 1)]
        outputs = np.clip(network(batch, names), 0, 1)
        for note in report.notes:
            self._note(note)
        return [from_unit(output, frames[0].dtype) for output in outputs]

    def _fitting(self, frame: AnyArray) -> int:
        """How many frames at a time: more than one on a GPU with room for whole ones."""
        model, c = self.model, self.choices
        height, width, channels = frame.shape
        own_size = (height * model.scale, width * model.scale)
        scale = float(model.scale if c.outscale is None else c.outscale)
        if model.device.type != "cuda" or channels not in (1, 3):
            return 1
        if output_size(height, width, scale) != own_size or c.tile not in ("auto", 0):
            return 1
        images = 3 if channels > model.in_channels else 1  # see Network
        free = memory.free_bytes(model.device) * memory.SHARE
        counts = range(_MOST_AT_ONCE, 1, -1)
        fits = (n for n in counts if memory.peak_bytes(model, height, width, n * images) <= free)
        longest = max(height, width)
        return next(fits, 1) if longest <= memory.LONGEST_WHOLE_SIDE else 1

    def _note(self, message: str | None) -> None:
        if message and message not in self.notes:
            self.notes.append(message)
