"""Segments and the rest of the source to one file; nothing is encoded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from restore.atomic import atomic_output
from restore.errors import OutputError, VideoError
from restore.video.journal import Folder
from restore.video.planning import CONTAINERS
from restore.video.probing import OtherStream, VideoInfo
from restore.video.programs import Running, Tools, check_written, ffmpeg_words, named
from restore.video.writing import Stream, first_time, packet_times, rounding, wrong_time

_LIST = "segments.ffconcat"
# subtitles as text, which each container wants in its own way
_TEXT = ("subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text")
_TEXT_CODEC = {"mp4": "mov_text", "mov": "mov_text", "webm": "webvtt"}
_NOT_IN_MATROSKA = {"mov_text": "srt"}
_DURATION_SINCE = (5, 1)  # an option of the filter setts
_HALF_TICK = "0.0000005"  # seconds
_KEPT_TAGS = ("language", "title", "timecode")


@dataclass(frozen=True)
class Part:
    """Which part of a source the result shows."""

    start: Fraction  # when its first frame is shown, in seconds of the container's own time
    end: Fraction
    whole: bool
    step: Fraction | None = None  # seconds from each frame to the next, if always the same
    last: tuple[Fraction, Fraction] | None = None  # when the last frame begins, and how long it is


@dataclass(frozen=True)
class Passenger:
    """A stream of the source in the result."""

    stream: OtherStream
    codec: str | None  # text subtitles are written anew for another container; None copies

    @property
    def note(self) -> str | None:
        """What becomes of it, where that is to be told."""
        return None if self.codec is None else f"{self.stream} becomes {self.codec}"


def passengers(info: VideoInfo, target: Path) -> list[Passenger]:
    """The streams that go along, as the container takes them."""
    container = CONTAINERS[target.suffix.lower()]
    return [Passenger(s, _subtitle_codec(s, container)) for s in info.others]


def _subtitle_codec(stream: OtherStream, container: str) -> str | None:
    if stream.kind != "subtitle" or stream.codec not in _TEXT:
        return None
    if container == "matroska":
        return _NOT_IN_MATROSKA.get(stream.codec)
    wanted = _TEXT_CODEC[container]
    return None if stream.codec == wanted else wanted


def joining_words(
    info: VideoInfo,
    tools: Tools,
    listing: Path,
    part: Part,
    along: Sequence[Passenger],
    target: Path,
    file: Path,
) -> list[str]:
    """The command that joins segments and passengers.

    The source's times are taken from its beginning on, or from that of the part; the video begins
    where its first frame lies there.
    """
    container = CONTAINERS[target.suffix.lower()]
    words = ["-f", "concat", "-safe", "0", "-i", named(listing)]
    if part.whole:
        # with -copyts nothing is shifted but by what is said
        offset = ["-itsoffset", _decimal(part.start - info.start)]
        words = ["-copyts", *offset, *words, "-itsoffset", _decimal(-info.start)]
    else:
        words += ["-ss", _decimal(part.start - info.start), "-t", _decimal(part.end - part.start)]
    words += ["-i", named(info.path), "-map", "0:v:0"]
    for passenger in along:
        words += ["-map", f"1:{passenger.stream.index}"]
    words += ["-c", "copy"]
    for number, passenger in enumerate(along, 1):
        words += [] if passenger.codec is None else [f"-c:{number}", passenger.codec]
    words += [
        "-map_metadata",
        "1",
        "-map_chapters",
        "1",
        "-bsf:v:0",
        retimed(part, tools, container),
    ]
    for key in _KEPT_TAGS:
        words += ["-metadata:s:v:0", f"{key}={info.tags[key]}"] if key in info.tags else []
    words += ["-max_muxing_queue_size", "9999"]
    words += ["-movflags", "+faststart"] if container in ("mp4", "mov") else []
    return ffmpeg_words(tools, *words, "-f", container, "-y", named(file))


def retimed(part: Part, tools: Tools, container: str) -> str:
    """The bitstream filter for what encoders of segments cannot know.

    Decoding times must rise by one step from packet to packet, also where a segment begins, or is
    too short for its frames to wait for others; at irregular times they must rise at all. And the
    last frame is shown as long as the source's. Matroska stores no decoding times, and there some
    versions of the filter have a TB that is not of its times.
    """
    rising, has_ticks = "DTS", container in ("mp4", "mov")
    if part.step is not None and has_ticks:
        seconds = f"{part.step.numerator}/{part.step.denominator}"
        rising = f"min(PTS\\,STARTDTS+round(N*{seconds}/TB))"
    # pts said too: left to itself it would be the dts
    options = [f"pts=PTS:dts=if(eq(N\\,0)\\,DTS\\,max({rising}\\,PREV_OUTDTS+1))"]
    knows_duration = tools.number is None or tools.number >= _DURATION_SINCE
    if part.last is not None and has_ticks and knows_duration:
        begin, length = (f"{t.numerator}/{t.denominator}" for t in part.last)
        options.append(
            f"duration=if(gte(PTS*TB+{_HALF_TICK}\\,{begin})\\,round({length}/TB)\\,DURATION)"
        )
    return f"setts={':'.join(options)}"


def write_listing(folder: Folder, time_base: Fraction, rate: Fraction) -> Path:
    """The file that names all segments and says how long each one is.

    Lengths are whole microseconds, as ffmpeg counts them, chosen so that no segment begins more
    than half of one from where it should.
    """
    first = folder.pts[0]
    starts = [(folder.pts[folder.frames(n)[0]] - first) * time_base for n in range(folder.segments)]
    starts.append((folder.pts[-1] - first) * time_base + 1 / rate)
    lines = ["ffconcat version 1.0"]
    for number in range(folder.segments):
        length = _microseconds(starts[number + 1]) - _microseconds(starts[number])
        lines += [f"file {folder.file(number).name}", f"duration {length}us"]
    path = folder.path / _LIST
    with atomic_output(path) as file:
        file.write("\n".join([*lines, ""]).encode())
    return path


def join(
    info: VideoInfo,
    tools: Tools,
    folder: Folder,
    part: Part,
    stream: Stream,
    target: Path,
) -> None:
    """Write the result, which appears when it is whole and its frames are at their times.

    Raises:
        OutputError: it cannot be written; or a segment is damaged, which is removed then.
    """
    along = passengers(info, target)
    time_base = stream.time_base
    listing = write_listing(folder, time_base, stream.rate)
    with atomic_output(target) as file:
        path = Path(file.name)
        words = joining_words(info, tools, listing, part, along, target, path)
        with Running(words) as program:
            check_written(program, target)
        found = packet_times(path, tools)
        begin = part.start - info.start if part.whole else Fraction(0)
        if part.whole:
            begin += _later(info, path, along, tools)
        want = [(p - folder.pts[0]) * time_base + begin for p in folder.pts]
        # where the source's own time is finer than a microsecond, its start is not
        tolerance = 2 * rounding(target) + Fraction(1, 1_000_000)
        difference = wrong_time(found, want, tolerance)
        if difference:
            remedy = _remedy(folder, tools)
            raise OutputError(f"{target}: would not have the source's timing: {difference}{remedy}")


def try_out(info: VideoInfo, tools: Tools, target: Path, scratch: Path) -> None:
    """See that a container takes the streams that go along, before anything is computed.

    Args:
        info: the source.
        tools: the programs.
        target: of the result.
        scratch: a folder for the trial.

    Raises:
        VideoError: it does not take one of them; the message names it.
    """
    container = CONTAINERS[target.suffix.lower()]
    for passenger in passengers(info, target):
        stream = passenger.stream
        codec = passenger.codec or "copy"
        words = ["-t", "1", "-i", named(info.path), "-map", f"0:{stream.index}", "-c", codec]
        file = scratch / f"trial-{stream.index}"
        words = ffmpeg_words(tools, *words, "-f", container, "-y", named(file))
        with Running(words) as program:
            if program.finish() == 0:
                continue
            raise VideoError(
                f"{info.path}: its {stream} does not go into {target.suffix}; name a result in "
                f".mkv, which takes it{program.last_words()}"
            )


def _later(info: VideoInfo, result: Path, along: Sequence[Passenger], tools: Tools) -> Fraction:
    """By how much all streams are later than in the source.

    Sound often begins a little before 0, which Matroska cannot say: there ffmpeg moves everything.
    """
    sound = next((p.stream for p in along if p.stream.kind == "audio"), None)
    if sound is None:
        return Fraction(0)
    before = first_time(info.path, str(sound.index), tools)
    after = first_time(result, "a:0", tools)
    if before is None or after is None or before >= info.start:
        return Fraction(0)
    return max(Fraction(0), after - (before - info.start))


def _remedy(folder: Folder, tools: Tools) -> str:
    """Remove the segments that do not hold what they should, and say what to do."""
    bad = []
    for number in range(folder.segments):
        try:
            good = len(packet_times(folder.file(number), tools)) == len(folder.frames(number))
        except VideoError:
            good = False
        if not good:
            folder.file(number).unlink(missing_ok=True)
            bad.append(number + 1)
    if not bad:
        return f"; the segments stay in {folder.path}"
    return (
        f"; segments {', '.join(map(str, bad))} were damaged and are removed: give the same "
        "command again"
    )


def _decimal(seconds: Fraction) -> str:
    """Seconds as ffmpeg reads them, to the microsecond."""
    return f"{_microseconds(seconds)}us"


def _microseconds(seconds: Fraction) -> int:
    return round(seconds * 1_000_000)
