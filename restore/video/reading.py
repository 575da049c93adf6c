"""Frames of a video as arrays, through a pipe from ffmpeg."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

import numpy as np

from restore.errors import VideoError
from restore.upscaling.pixels import AnyArray
from restore.video.colour import Colour, raw_format
from restore.video.probing import VideoInfo
from restore.video.programs import Running, Tools, ffmpeg_words
from restore.video.scanning import input_words

T = TypeVar("T")
_AHEAD = 2  # frames read while others are computed


def reading_words(
    info: VideoInfo, tools: Tools, colour: Colour, filters: Sequence[str], first: int, count: int
) -> list[str]:
    """The command that writes `count` frames, from number `first` (0 is the first one) on."""
    pixel_format, _, _ = raw_format(info)
    # by number and not by time: to seek is exact in some containers only
    chosen = [f"select=gte(n\\,{first})"] if first else []
    chain = [*filters, *chosen, *colour.to_rgb(info.width, info.height, pixel_format)]
    words = ffmpeg_words(tools, *input_words(info))
    words += ["-vf", ",".join(chain), "-frames:v", str(count), *tools.every_frame]
    return [*words, "-f", "rawvideo", "-pix_fmt", pixel_format, "pipe:1"]


def frames(
    info: VideoInfo, tools: Tools, colour: Colour, filters: Sequence[str], first: int, count: int
) -> Iterator[AnyArray]:
    """Frames [H, W, C], uint8 or uint16; C is 1 (gray), 3 (RGB) or 4 (RGB and alpha).

    Args:
        info: the video.
        tools: the programs.
        colour: what its samples mean.
        filters: that frames go through first.
        first: number of the first frame, from 0.
        count: how many.

    Raises:
        VideoError: fewer come than `count`.
    """
    _, channels, width = raw_format(info)
    dtype = np.dtype(np.uint8 if width == 1 else "<u2")
    shape = (info.height, info.width, channels)
    with Running(reading_words(info, tools, colour, filters, first, count), stdout=True) as program:
        for number in range(first, first + count):
            frame = np.empty(shape, dtype)
            view = frame.data.cast("B")
            at = 0
            while at < len(view):
                got = program.stdout.readinto(view[at:])  # type: ignore[attr-defined]
                if not got:
                    program.finish()
                    raise VideoError(
                        f"{info.path}: frame {number + 1} cannot be read any more, which it could "
                        f"before; did the file change?{program.last_words()}"
                    )
                at += got
            yield frame


def ahead(items: Iterator[T], most: int = _AHEAD) -> Generator[T, None, None]:
    """The same items, fetched by a thread while the ones before are in use.

    An error of the iterator is raised where its item would have come. Closing this iterator ends
    the other one.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(most)
    stop = threading.Event()

    def offer(item: T | None, error: BaseException | None) -> None:
        while not stop.is_set():
            try:
                return waiting.put((item, error), timeout=0.1)
            except queue.Full:
                continue

    def fetch() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                offer(item, None)
                if stop.is_set():
                    break
        except BaseException as caught:
            error = caught
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        offer(None, error or StopIteration())

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
