"""Frames into a segment file, each at its own time."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from restore.atomic import atomic_output
from restore.errors import OutputError
from restore.upscaling.pixels import AnyArray
from restore.video.colour import Colour
from restore.video.planning import Encoding, even_size
from restore.video.probing import Facts
from restore.video.programs import Running, Tools, ask, check_written, ffmpeg_words, named

_AHEAD = 2  # frames that wait to be written
_PATIENCE = 0.2  # seconds after which a thread looks whether it is still wanted
_COMMON_RATES = tuple(
    Fraction(n, d) for n in (24, 25, 30, 48, 50, 60, 120) for d in (1, 2)
) + tuple(Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120))


@dataclass(frozen=True)
class Stream:
    """What all segments of a result have in common."""

    width: int  # of the frames that are given, which may be odd
    height: int
    raw_format: str  # their pixel format, full-range RGB or gray, perhaps with alpha
    encoding: Encoding
    colour: Colour
    aspect: Fraction  # of a pixel
    rate: Fraction  # frames per second, nominal where they come at irregular times
    time_base: Fraction
    step: int | None  # ticks from each frame to the next, if the same in the whole video
    mastering: tuple[Facts, ...] = ()


def writing_words(stream: Stream, tools: Tools, pts: Sequence[int], part: Path) -> list[str]:
    """The command that reads frames from its standard input and writes a segment.

    Args:
        stream: what all segments have in common.
        tools: the programs.
        pts: of the frames, in ticks; the first one stands for the segment's beginning.
        part: the file.
    """
    encoding = stream.encoding
    step = stream.step
    rate = stream.rate if step is None else 1 / (step * stream.time_base)
    words = ["-f", "rawvideo", "-pix_fmt", stream.raw_format]
    words += ["-video_size", "x".join(map(str, padded_size(stream)))]
    words += ["-framerate", f"{rate.numerator}/{rate.denominator}", "-i", "pipe:0"]
    colour = stream.colour
    chain = colour.from_rgb(encoding.pixel_format, rgb=encoding.rgb, chroma=encoding.chroma)
    chain.append(f"setsar={stream.aspect.numerator}/{stream.aspect.denominator}")
    base = 1 / rate
    if step is None:
        base = stream.time_base
        chain += [
            f"settb={base.numerator}/{base.denominator}",
            f"setpts='{ticks_of_number([p - pts[0] for p in pts])}'",
        ]
    words += ["-vf", ",".join(chain), *tools.every_frame]
    words += ["-enc_time_base", f"{base.numerator}:{base.denominator}"]
    words += ["-c:v", encoding.encoder, *encoding.options, "-pix_fmt", encoding.pixel_format]
    words += _encoder_parameters(stream, rate)
    if encoding.segment in ("mov", "mp4"):
        words += ["-video_track_timescale", str(_timescale(base))]
    # the name of a file that is not yet whole says nothing of its format
    return ffmpeg_words(tools, *words, "-f", encoding.segment, "-y", named(part))


def write_segment(
    stream: Stream, tools: Tools, frames: Iterable[AnyArray], pts: Sequence[int], path: Path
) -> None:
    """Encode frames into a file that appears when it is whole, and check their times.

    Raises:
        OutputError: it cannot be written; or it does not hold these frames at these times.
    """
    with atomic_output(path) as file:
        part = Path(file.name)
        with Running(writing_words(stream, tools, pts, part), stdin=True) as program:
            _feed(program, frames, padded_size(stream))
            check_written(program, path)
        base = stream.time_base
        want = [(p - pts[0]) * base for p in pts]
        difference = wrong_time(packet_times(part, tools), want, rounding(path))
        if difference:
            raise OutputError(f"{path}: is not what was written: {difference}")


def _feed(program: Running, frames: Iterable[AnyArray], size: tuple[int, int]) -> None:
    """Write frames to a program, by a thread so that the next one is computed meanwhile.

    Frames grow to `size` by repeating their last row and column. Where the program has ended
    before us this returns; its status and last words say why.
    """
    width, height = size
    waiting: queue.Queue[AnyArray | None] = queue.Queue(_AHEAD)
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            with contextlib.suppress(queue.Empty):
                frame = waiting.get(timeout=_PATIENCE)
                if frame is None:
                    return
                try:
                    program.stdin.write(frame.data.cast("B"))
                except OSError:
                    ended.set()

    def offer(frame: AnyArray | None) -> None:
        while not ended.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(frame, timeout=_PATIENCE)
                return

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        for frame in frames:
            sides = ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))
            whole = np.pad(frame, sides, mode="edge") if any(map(any, sides)) else frame
            offer(np.ascontiguousarray(whole))
            if ended.is_set():
                return
        offer(None)
        thread.join()
    finally:
        ended.set()


def ticks_of_number(ticks: Sequence[int]) -> str:
    """An expression for `setpts`: the ticks of frame N, found by halving."""
    if len(ticks) == 1:
        return str(ticks[0])

    def between(first: int, last: int) -> str:
        if first == last:
            return str(ticks[first])
        middle = (first + last + 1) // 2
        return f"if(lt(N,{middle}),{between(first, middle - 1)},{between(middle, last)})"

    return between(0, len(ticks) - 1)


def padded_size(stream: Stream) -> tuple[int, int]:
    """The size that is encoded."""
    return even_size(stream.width, stream.height, stream.encoding.even)


def nearest_rate(rate: Fraction) -> Fraction:
    """A usual frame rate where one is within a thousandth: averages of files are inexact."""
    best = min(_COMMON_RATES, key=lambda r: abs(r - rate))
    return best if abs(best - rate) * 1000 < rate else rate.limit_denominator(1001)


def packet_times(path: Path, tools: Tools) -> list[Fraction]:
    """When each frame of a file's first video stream is shown, in order; nothing is decoded."""
    return sorted(_times(path, "v:0", [], tools))


def first_time(path: Path, stream: str, tools: Tools) -> Fraction | None:
    """When the first packet of a stream is shown, or None if it has none."""
    return next(iter(_times(path, stream, ["-read_intervals", "%+#1"], tools)), None)


def _times(path: Path, stream: str, options: Sequence[str], tools: Tools) -> list[Fraction]:
    words = [tools.ffprobe, "-v", "error", "-select_streams", stream, "-of", "csv", *options]
    words += ["-show_entries", "packet=pts:stream=time_base", named(path)]
    rows = [line.split(",") for line in ask(words, f"{path}: cannot be read again").splitlines()]
    base = next((Fraction(row[1]) for row in rows if row[0] == "stream"), Fraction(1))
    times = [row[1] for row in rows if row[0] == "packet" and row[1:2] != ["N/A"]]
    return [int(time) * base for time in times]


def wrong_time(
    found: Sequence[Fraction], want: Sequence[Fraction], tolerance: Fraction
) -> str | None:
    """How times differ, in words, or None if they do not by more than `tolerance` seconds."""
    if len(found) != len(want):
        return f"it holds {len(found)} frames; expected {len(want)}"
    for number, (is_at, should) in enumerate(zip(found, want, strict=True), 1):
        if abs(is_at - should) > tolerance:
            return f"frame {number} is shown at {float(is_at):.6f} s; expected {float(should):.6f}"
    return None


def rounding(path: Path) -> Fraction:
    """By how many seconds a container may round times: Matroska counts milliseconds."""
    return Fraction(1, 1000) if path.suffix.lower() in (".mkv", ".webm") else Fraction(0)


def _timescale(base: Fraction) -> int:
    """Ticks of a second in which a time base is whole, and fine enough for other programs."""
    scale = base.denominator
    while scale < 10_000:
        scale *= 2
    return scale


def _encoder_parameters(stream: Stream, rate: Fraction) -> list[str]:
    """What goes to the encoder's library by its own names."""
    name = {"libx264": "x264", "libx265": "x265"}.get(stream.encoding.encoder)
    if name is None:
        return []
    # with irregular times it would take each tick for a frame, and claim the highest level
    said = [f"fps={rate.numerator}/{rate.denominator}"]
    if name == "x265":
        said += ["log-level=error", *_hdr10(stream.mastering)]
    return [f"-{name}-params", ":".join(said)]


def _hdr10(sides: Sequence[Facts]) -> list[str]:
    """The display that HDR was mastered on and its light, in x265's units."""
    said: list[str] = []
    for side in sides:
        if "max_content" in side:
            said.append(f"max-cll={int(side['max_content'])},{int(side.get('max_average', 0))}")
        places = ("green", "blue", "red", "white_point")
        points = [f"{place}_{axis}" for place in places for axis in "xy"]
        if all(key in side for key in points):
            x = [round(Fraction(str(side[key])) * 50_000) for key in points]
            light = [
                round(Fraction(str(side.get(key, "0/1"))) * 10_000)
                for key in ("max_luminance", "min_luminance")
            ]
            said.append(
                f"master-display=G({x[0]},{x[1]})B({x[2]},{x[3]})R({x[4]},{x[5]})"
                f"WP({x[6]},{x[7]})L({light[0]},{light[1]})"
            )
    return [*said, "hdr10=1"] if said else []
