"""When each frame of a video is shown, found by decoding it once.

Only that tells what will really come: containers count frames that an edit list hides, that are
damaged, or that were never written. It costs little beside a network, and a file that is broken is
known before hours are spent on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

from restore.commands.text import plural
from restore.errors import VideoError
from restore.video.probing import VideoInfo
from restore.video.programs import Running, Tools, ffmpeg_words, named

_MOST_SECONDS_LACKING = 1  # of what a file promises, to take it for whole
_MOST_PART_LACKING = Fraction(1, 10)  # of the frames, where only seconds are promised
_LONGEST_NUDGE = 2  # frames that a time may lie too early, to be put right without being told
_CUT_SHORT = re.compile("ended prematurely|truncat|partial file|unexpected end", re.IGNORECASE)


@dataclass(frozen=True)
class FrameTimes:
    """The frames of a video, in the order in which they are shown."""

    time_base: Fraction  # seconds of a tick
    pts: tuple[int, ...]  # in ticks, as the container has them, increasing
    repeats: int = 0  # frames equal to the one before
    notes: tuple[str, ...] = field(default=())
    cut_short: str = ""  # what ffmpeg said of a file that ends too early

    @property
    def step(self) -> int | None:
        """Ticks from each frame to the next, if always the same."""
        steps = {b - a for a, b in pairwise(self.pts)}
        return steps.pop() if len(steps) == 1 else None

    def seconds(self, index: int) -> Fraction:
        """When a frame is shown, from the first on."""
        return (self.pts[index] - self.pts[0]) * self.time_base


def input_words(info: VideoInfo) -> list[str]:
    """The options that read a video's frames, each at the time that its container has."""
    decoder = [] if info.decoder is None else ["-c:v", info.decoder]
    return ["-copyts", *decoder, "-i", named(info.path), "-map", f"0:{info.index}"]


def scan(
    info: VideoInfo,
    tools: Tools,
    *,
    filters: Sequence[str] = (),
    most: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> FrameTimes:
    """Decode a video and note the time of every frame.

    Args:
        info: from `probe_video`.
        tools: from `find_tools`.
        filters: that frames go through.
        most: frames after which to stop.
        progress: is called with the number of frames so far.

    Raises:
        VideoError: nothing can be decoded, or times or sizes are such that frames cannot be taken.
    """
    words = ffmpeg_words(tools, *input_words(info))
    words += ["-vf", ",".join(filters)] if filters else []
    words += [] if most is None else ["-frames:v", str(most)]
    base = info.time_base
    words += [*tools.every_frame, "-enc_time_base", f"{base.numerator}:{base.denominator}"]
    words += ["-f", "framemd5", "pipe:1"]
    lines: list[str] = []
    with Running(words, stdout=True) as program:
        for raw in program.stdout:
            lines.append(raw.decode("ascii", "replace"))
            if progress is not None and len(lines) % 16 == 0:
                progress(len(lines))
        status = program.finish()
        told, first, count = program.last_words(), program.first_complaint, program.complaints
        cut_short = next((line for line in program.kept_lines if _CUT_SHORT.search(line)), "")
    times = read_listing(lines, info)
    if not times.pts:
        raise VideoError(f"{info.path}: no frame can be decoded{told}")
    if status:
        raise VideoError(
            f"{info.path}: cannot be decoded beyond frame {len(times.pts)}{told}; "
            f"--frames 1-{len(times.pts)} restores what can be read"
        )
    notes = list(times.notes)
    if count:
        notes.append(f"ffmpeg complained {count} times while decoding; the first: {first}")
    return FrameTimes(times.time_base, times.pts, times.repeats, tuple(notes), cut_short)


def read_listing(lines: Sequence[str], info: VideoInfo) -> FrameTimes:
    """What ffmpeg's framemd5 wrote.

    Raises:
        VideoError: a frame without a time, times that run backwards, or frames of several sizes.
    """
    base = info.time_base
    rows = []
    for line in lines:
        if line.startswith("#tb 0:"):
            base = Fraction(line.split(":", 1)[1].strip())
        elif line.strip() and not line.startswith("#"):
            rows.append([cell.strip() for cell in line.split(",")])
    times = [int(row[2]) for row in rows]
    sizes, sums = [row[4] for row in rows], [row[5] for row in rows]
    for number, size in enumerate(sizes, 1):
        if size != sizes[0]:
            raise VideoError(
                f"{info.path}: frames change their size or format at frame {number}; cut the video "
                "there and restore its parts"
            )
    repeats = sum(a == b for a, b in pairwise(sums))
    pts, notes = _increasing(times, base, info)
    return FrameTimes(base, tuple(pts), repeats, tuple(notes))


def _increasing(times: list[int], base: Fraction, info: VideoInfo) -> tuple[list[int], list[str]]:
    """Times that increase; a frame that is a little early is shown one tick after the last."""
    least = -_LONGEST_NUDGE / (info.rate * base)  # ticks
    put_right = 0
    for at in range(1, len(times)):
        ahead = times[at] - times[at - 1]
        if ahead > 0:
            continue
        if ahead < least:
            raise VideoError(
                f"{info.path}: frame {at + 1} is shown {float(-ahead * base):.3f} s before frame "
                f"{at}; give it new times first: ffmpeg -fflags +genpts -i INPUT -c copy OUTPUT.mkv"
            )
        times[at] = times[at - 1] + 1
        put_right += 1
    told = f"{put_right} frames were not later than the ones before them, and are now by a tick"
    return times, [told] if put_right else []


def missing_part(info: VideoInfo, times: FrameTimes) -> tuple[str, bool] | None:
    """What a file promises and does not hold.

    Returns:
        A sentence, and whether it is so much that the video must not be taken for whole; None if
        nothing is missing.
    """
    read, end = len(times.pts), times.seconds(-1) + 1 / info.rate
    most = info.rate * _MOST_SECONDS_LACKING
    if info.frames is not None:
        lack = Fraction(info.frames - read)
    else:
        # the last frame may be a long one, which is nothing that lacks
        lack = ((info.seconds or end) - end) * info.rate
        most = max(most, read * _MOST_PART_LACKING)
    if info.edited_seconds is not None:
        # an edit list may hide frames of the stream on purpose; then the file is no longer either
        lack = min(lack, (info.edited_seconds - end) * info.rate)
    absent = int(lack)
    if times.cut_short:
        why = f"is cut short ({times.cut_short})"
    elif absent > 1:
        why = f"promises about {plural(absent, 'frame')} more than can be read"
    else:
        return None
    grave = bool(times.cut_short) or absent > most
    held = f"{info.path}: {why}; {plural(read, 'frame')} ({float(end):.1f} s) can be read"
    return (f"{held}: --frames 1-{read} restores these" if grave else held), grave
