"""One video from end to end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from restore.atomic import writing
from restore.errors import UsageError, VideoError
from restore.upscaling.pixels import AnyArray
from restore.upscaling.run import output_size
from restore.video import assembly
from restore.video.colour import Colour, colour_of, raw_format
from restore.video.computing import Restorer
from restore.video.journal import Folder, Settings, remove, stored, working_folder
from restore.video.planning import Codec, Encoding, choose, even_size
from restore.video.probing import VideoInfo, probe_video
from restore.video.programs import Tools
from restore.video.reading import ahead, frames
from restore.video.scanning import FrameTimes, missing_part, scan
from restore.video.writing import Stream, nearest_rate, write_segment

if TYPE_CHECKING:
    from restore.model import Model
    from restore.video.computing import Choices

Fields = Literal["refuse", "deinterlace", "ignore"]
SEGMENT = 100  # frames; what a killed run loses at most
_DEINTERLACE = "bwdif=mode=send_frame"


@dataclass(frozen=True)
class Wishes:
    """What holds for every video of a run."""

    codec: Codec = "auto"
    crf: int | None = None
    fields: Fields = "refuse"
    first: int = 1  # frame, counted from 1
    last: int | None = None
    segment: int = SEGMENT

    @property
    def whole(self) -> bool:
        """Whether all frames are wanted."""
        return self.first == 1 and self.last is None


@dataclass(frozen=True)
class Plan:
    """All that is known of a video before its frames are looked at."""

    info: VideoInfo
    target: Path
    encoding: Encoding
    colour: Colour
    filters: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """How far a video is."""

    stage: Literal["looking", "restoring", "joining"]
    done: int = 0  # frames
    total: int = 0
    found: int = 0  # of those done, finished by an earlier run


@dataclass
class Report:
    """What became of a video."""

    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    frames: int = 0
    repeated: int = 0
    resumed: int = 0  # frames that an earlier run had finished
    codec: str = ""
    notes: list[str] = field(default_factory=list)


Progress = Callable[[Step], None]


def plan(path: Path, target: Path, wishes: Wishes, tools: Tools) -> Plan:
    """Look at a file's headers and settle how its result is made.

    Raises:
        VideoError: it cannot be read, or not be taken as it is.
        UsageError: the wishes cannot be fulfilled.
    """
    info = probe_video(path, tools)
    if info.interlaced and wishes.fields == "refuse":
        raise VideoError(
            f"{path}: is interlaced ({info.fields}): each frame is two fields of different "
            "moments, whose combs a network would sharpen; give --interlaced deinterlace, or "
            "--interlaced ignore if its frames are whole after all"
        )
    deinterlaces = info.interlaced and wishes.fields == "deinterlace"
    encoding = choose(info, target, wishes.codec, wishes.crf, tools)
    notes = list(encoding.notes)
    if info.rotation:
        notes.append(f"turned upright by {info.rotation} degrees, as the file asks for")
    if deinterlaces:
        notes.append("deinterlaced with bwdif, a frame for each two fields")
    if info.is_hdr:
        notes.append("HDR stays HDR; the network sees its values as they are coded")
        if info.mastering and encoding.encoder != "libx265":
            notes.append(f"{encoding.codec} does not carry the HDR mastering metadata; hevc does")
    notes += [f"left out: {stream}" for stream in info.left_out]
    notes += [p.note for p in assembly.passengers(info, target) if p.note]
    filters = (_DEINTERLACE,) if deinterlaces else ()
    return Plan(info, target, encoding, colour_of(info), filters, tuple(notes))


def look(
    plan: Plan, wishes: Wishes, tools: Tools, progress: Callable[[int], None] | None = None
) -> FrameTimes:
    """The times of a video's frames, as far as they are wanted.

    Raises:
        VideoError: it cannot be decoded, or is cut short and wanted whole.
        UsageError: it has fewer frames than are wanted.
    """
    times = scan(plan.info, tools, filters=plan.filters, most=wishes.last, progress=progress)
    if wishes.whole:
        missing = missing_part(plan.info, times)
        if missing is not None:
            what, grave = missing
            if grave:
                raise VideoError(what)
            times = replace(times, notes=(*times.notes, what))
        return times
    count = len(times.pts)
    if count < (wishes.last or wishes.first):
        raise UsageError(
            f"--frames {wishes.first}-{wishes.last or ''}: {plan.info.path} has {count} frames"
        )
    return times


def restore_video(
    plan: Plan,
    wishes: Wishes,
    model: Model,
    choices: Choices,
    tools: Tools,
    *,
    made_by: str,
    progress: Progress,
) -> Report:
    """Restore a video, going on where an earlier run with the same settings ended.

    Args:
        plan: from `plan`.
        wishes: those it was made for.
        model: from `restore.load`.
        choices: how frames are restored.
        tools: the programs.
        made_by: the model and its arithmetic, in words that differ where results may.
        progress: is told how far it is.

    Raises:
        VideoError, OutputError, RestoreError: something is in the way; finished segments stay.
    """
    settings = settings_of(plan, wishes, model, choices, tools, made_by)
    info, report = plan.info, Report(codec=plan.encoding.codec, notes=list(plan.notes))
    all_times = stored(plan.target, settings)
    if all_times is None:
        promised = info.frames or int((info.seconds or 0) * info.rate)
        progress(Step("looking", 0, promised))
        all_times = look(plan, wishes, tools, lambda n: progress(Step("looking", n, promised)))
    report.notes += all_times.notes
    pts = all_times.pts[wishes.first - 1 : wishes.last]
    stream, size = _stream(plan, model, choices, all_times)
    report.before, report.after = (info.width, info.height), size
    report.frames = len(pts)
    if size != (stream.width, stream.height):
        report.notes.append(
            f"{stream.width}x{stream.height} grew to {size[0]}x{size[1]} by repeating the last "
            f"column or row, as {plan.encoding.codec} takes even sides only"
        )
    with writing(plan.target.parent):
        plan.target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        assembly.try_out(info, tools, plan.target, Path(scratch))
    suffix = f".{plan.encoding.segment}"
    with working_folder(plan.target, settings, all_times, pts, suffix, wishes.segment) as folder:
        _make_segments(
            folder, plan, wishes, stream, Restorer(model, choices), tools, report, progress
        )
        progress(Step("joining", len(pts), len(pts)))
        part = _part(plan.info, wishes, stream, pts)
        assembly.join(info, tools, folder, part, stream, plan.target)
    remove(folder)
    return report


def settings_of(
    plan: Plan, wishes: Wishes, model: Model, choices: Choices, tools: Tools, made_by: str
) -> Settings:
    """What makes a result this one: segments of two runs fit together only if all are equal."""
    info, encoding = plan.info, plan.encoding
    status = info.path.stat()
    return {
        "input": f"{info.path.name} of {status.st_size} bytes, changed at {status.st_mtime_ns}",
        "frames": f"{wishes.first}-{'end' if wishes.last is None else wishes.last}",
        "--interlaced": wishes.fields if info.interlaced else "progressive",
        "model": made_by,
        "--outscale": str(float(model.scale if choices.outscale is None else choices.outscale)),
        "--tile": str(choices.tile),
        "--tile_pad": str(model.halo if choices.tile_pad is None else choices.tile_pad),
        "--tta": str(choices.tta),
        "--padding": choices.padding,
        "--codec": f"{encoding.codec} ({encoding.encoder}, {encoding.pixel_format})",
        "--crf": str(encoding.crf),
        "--segment": str(wishes.segment),
        "ffmpeg": tools.version,
    }


def _stream(
    plan: Plan, model: Model, choices: Choices, times: FrameTimes
) -> tuple[Stream, tuple[int, int]]:
    """What all segments have in common, and the size of the result."""
    info = plan.info
    scale = float(model.scale if choices.outscale is None else choices.outscale)
    height, width = output_size(info.height, info.width, scale)
    step = times.step
    rate = nearest_rate(info.rate) if step is None else 1 / (step * times.time_base)
    stream = Stream(
        width=width,
        height=height,
        raw_format=raw_format(info)[0],
        encoding=plan.encoding,
        colour=plan.colour,
        aspect=info.aspect,
        rate=rate,
        time_base=times.time_base,
        step=step,
        mastering=info.mastering,
    )
    return stream, even_size(width, height, plan.encoding.even)


def _part(info: VideoInfo, wishes: Wishes, stream: Stream, pts: tuple[int, ...]) -> assembly.Part:
    """What of the source the result shows, and when."""
    base = stream.time_base
    start, last = pts[0] * base, pts[-1] * base
    step = None if stream.step is None else stream.step * base
    shown = None
    if step is None and wishes.whole and info.end is not None and info.end > last:
        shown = (last - info.start, info.end - last)
    end = last + (1 / stream.rate if shown is None else shown[1])
    return assembly.Part(start, end, wishes.whole, step, shown)


def _make_segments(
    folder: Folder,
    plan: Plan,
    wishes: Wishes,
    stream: Stream,
    restorer: Restorer,
    tools: Tools,
    report: Report,
    progress: Progress,
) -> None:
    """Make the segments that are missing, reading each run of neighbours in one go."""
    total, missing = len(folder.pts), folder.missing()
    found = total - sum(len(folder.frames(number)) for number in missing)
    report.resumed, done = found, found

    def counted(results: Iterator[AnyArray], count: int) -> Iterator[AnyArray]:
        nonlocal done
        for _ in range(count):
            result = next(results)
            yield result
            done += 1
            progress(Step("restoring", done, total, found))

    progress(Step("restoring", done, total, found))
    for neighbours in runs_of(missing):
        first = folder.frames(neighbours[0])[0]
        count = folder.frames(neighbours[-1])[-1] + 1 - first
        source = ahead(
            frames(plan.info, tools, plan.colour, plan.filters, wishes.first - 1 + first, count)
        )
        results = restorer(source)
        try:
            for number in neighbours:
                held = folder.frames(number)
                some = counted(results, len(held))
                pts = folder.pts[held[0] : held[-1] + 1]
                write_segment(stream, tools, some, pts, folder.file(number))
        finally:
            source.close()
    report.repeated = restorer.repeated
    report.notes += restorer.notes


def runs_of(numbers: list[int]) -> list[list[int]]:
    """Increasing numbers as runs of neighbours."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
