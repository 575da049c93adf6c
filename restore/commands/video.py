"""Videos among the inputs of `restore upscale`: options, what is told, and one after another."""

from __future__ import annotations

import argparse
import hashlib
import re
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from restore.commands.parsing import Parser, at_least_one, one_of, whole_number
from restore.commands.screen import Screen, complain, show
from restore.commands.text import duration, plural
from restore.commands.video_bar import Bar
from restore.errors import RestoreError, UsageError

if TYPE_CHECKING:
    from restore.commands.batch import Batch
    from restore.model import Model
    from restore.video.finding import Split
    from restore.video.programs import Tools
    from restore.video.run import Plan, Report, Wishes

CODECS = ("auto", "h264", "hevc", "av1", "vp9", "prores", "ffv1")
FIELDS = ("refuse", "deinterlace", "ignore")
SEGMENT = 100
_PICTURES_ALONE = ("ext", "quality", "compare", "verify_tiles")  # options that videos do not have
# bits for each pixel of a result at the default quality; what is shown decides, so they are rough
_BITS = {"h264": 0.25, "hevc": 0.15, "av1": 0.12, "vp9": 0.15, "prores": 4.0, "ffv1": 10.0}


@dataclass
class Job:
    """A video and where its result goes."""

    source: Path
    target: Path
    plan: Plan | None = None
    problem: str = ""


@dataclass
class Videos:
    """The videos of a run; none where nothing was found."""

    split: Split
    jobs: list[Job] = field(default_factory=list)
    tools: Tools | None = None
    wishes: Wishes | None = None
    output: Path = Path()  # folder of the results


def add_videos(parser: Parser) -> None:
    """Add the options that are for videos alone."""
    group = parser.add_argument_group(
        "videos (.mp4, .mkv, .mov, .webm and others; needs the program ffmpeg)"
    )
    group.add_argument(
        "--codec",
        type=one_of(*CODECS),
        metavar="NAME",
        help="auto (H.264; HEVC where the video has more than 8 bits; VP9 in .webm), h264, hevc, "
        "av1, vp9, prores or ffv1 (lossless RGB, in .mkv)",
    )
    group.add_argument(
        "--crf",
        type=whole_number,
        metavar="N",
        help="quality: lower is better and larger (default: h264 16, hevc 18, vp9 20, av1 22)",
    )
    group.add_argument(
        "--frames",
        type=frame_range,
        metavar="A-B",
        help="only these, counted from 1, to try settings out: 100-200 or 100-; sound is cut too",
    )
    group.add_argument(
        "--interlaced",
        type=one_of(*FIELDS),
        metavar="NAME",
        help="what to do with interlaced videos: refuse (default), deinterlace, or ignore where "
        "frames are whole after all",
    )
    group.add_argument(
        "--segment",
        type=at_least_one,
        metavar="N",
        help=f"frames that are finished together, and lost at most by a run that is killed: the "
        f"same command goes on after the last finished segment (default: {SEGMENT})",
    )


def frame_range(text: str) -> tuple[int, int | None]:
    """The first and last frame of "100-200", "100-" or "7"."""
    match = re.fullmatch(r"(\d+)(-(\d*))?", text)
    first = int(match[1]) if match else 0
    last = None
    if match and match[2] is None:
        last = first
    elif match and match[3]:
        last = int(match[3])
    if first < 1 or (last is not None and last < first):
        raise argparse.ArgumentTypeError(
            f"is {text!r}; expected frames counted from 1, as 100-200, or 100- to the end"
        )
    return first, last


def find_videos(inputs: Sequence[str], options: argparse.Namespace) -> Videos:
    """Pick the videos out of the inputs.

    Raises:
        UsageError: there are some and ffmpeg is missing; or none, and options are for videos.
    """
    from restore.video.finding import split_inputs

    output = Path(options.output)
    split = split_inputs(inputs, recursive=options.recursive, output=output)
    if split.videos:
        from restore.video.programs import find_tools

        return Videos(split, tools=find_tools())
    for name in ("codec", "crf", "frames", "interlaced", "segment"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} is for videos, and none was found in what was given")
    return Videos(split)


def leave_out(videos: Videos, screen: Screen) -> None:
    """Take the videos out of a run that shares its pictures.

    Raises:
        UsageError: a video was named, or there is nothing else.
    """
    found = videos.split.videos
    if not found:
        return
    why = "pictures are shared by --resume and torchrun; a video goes on by itself after a crash"
    if not videos.split.others or any(source.named for source in found):
        raise UsageError(
            f"{found[0].path}: is a video: {why}, so give videos in a run of their own"
        )
    screen.say(f"note: {plural(len(found), 'video')} left out: {why}")
    videos.split.videos = []


def plan_videos(
    videos: Videos,
    options: argparse.Namespace,
    say: Callable[[str], None],
    *,
    with_pictures: bool,
) -> None:
    """Look at the headers of all videos and settle how their results are made.

    Raises:
        UsageError: what is asked for cannot be done.
    """
    from restore.video.finding import name_results
    from restore.video.run import Wishes, plan

    assert videos.tools is not None
    if not with_pictures:
        for name in _PICTURES_ALONE:
            if getattr(options, name) not in (None, False, "auto"):
                word = name.replace("_", "-")
                raise UsageError(f"--{word} is for pictures, and only videos were given")
    videos.output, pairs, left_out = name_results(
        videos.split.videos, options.output, options.suffix, with_pictures=with_pictures
    )
    first, last = options.frames or (1, None)
    videos.wishes = Wishes(
        codec=options.codec or "auto",
        crf=options.crf,
        fields=options.interlaced or "refuse",
        first=first,
        last=last,
        segment=options.segment or SEGMENT,
    )
    for source, target in pairs:
        job = Job(source, target)
        videos.jobs.append(job)
        try:
            job.plan = plan(source, target, videos.wishes, videos.tools)
        except UsageError:
            raise
        except RestoreError as error:
            job.problem = str(error)
    for path in left_out:
        say(f"note: {path} is left out: it is the result of another video here")


def show_or_run(videos: Videos, batch: Batch, screen: Screen, options: argparse.Namespace) -> bool:
    """Tell what would be done, or do it; gives whether a video fails.

    Raises:
        KeyboardInterrupt: after a line that says what is finished.
    """
    if options.dry_run:
        show(*dry_run_videos(videos, batch))
        return any(job.problem for job in videos.jobs)
    return bool(run_videos(videos, batch, screen, options.verbose))


def run_videos(videos: Videos, batch: Batch, screen: Screen, verbose: bool) -> int:
    """Restore them one after another.

    Returns:
        How many failed. KeyboardInterrupt passes, after a line that says
        what is finished.
    """
    reasons = []
    for number, job in enumerate(videos.jobs, 1):
        head = f"[{number}/{len(videos.jobs)}]"
        if batch.settings.skip_existing and job.target.exists():
            screen.say(f"{head} {job.source} skipped: {job.target} is there")
            continue
        bar = Bar(job.source.name, screen)
        began = time.perf_counter()
        trace, reason = "", job.problem
        try:
            if job.plan is not None:
                report = _run(job.plan, videos, batch, bar)
        except KeyboardInterrupt:
            bar.close()
            complain(f"interrupted: {_kept(job, videos)}")
            raise
        except RestoreError as error:
            reason = str(error)
        except OSError as error:
            reason = f"{error.filename or job.source}: {error.strerror or error}"
        # one video that hits a defect must not cost the others
        except Exception as error:
            reason = f"internal error: {type(error).__name__}: {error}"
            trace = traceback.format_exc()
        bar.close()
        if reason:
            reason = reason if str(job.source) in reason else f"{job.source}: {reason}"
            reasons.append(reason)
            complain(f"{head} failed: {reason}")
            for line in trace.splitlines() if verbose else ():
                complain(line)
            continue
        screen.say(f"{head} {outcome_line(job, report, time.perf_counter() - began)}")
        for note in report.notes:
            screen.say(f"    note: {note}")
        screen.say(str(job.target))
    if len(reasons) > 1:
        complain(f"failed, {len(reasons)} of {plural(len(videos.jobs), 'video')}:")
        for reason in reasons:
            complain(f"  {reason}")
    return len(reasons)


def _kept(job: Job, videos: Videos) -> str:
    """What an interrupted video leaves for the next run."""
    from restore.video.journal import folder_of

    folder = folder_of(job.target)
    segments = len(list(folder.glob("segment-*")))
    if not segments or videos.wishes is None:
        return f"nothing of {job.source} is finished yet"
    frames = segments * videos.wishes.segment
    return (
        f"{frames} frames of {job.source} are kept in {folder}; the same command goes on from there"
    )


def _run(plan: Plan, videos: Videos, batch: Batch, bar: Bar) -> Report:
    from restore.video.computing import Choices
    from restore.video.run import restore_video

    assert videos.tools is not None and videos.wishes is not None
    s = batch.settings
    choices = Choices(s.outscale, s.tile, s.tile_pad, s.tta, s.padding)
    return restore_video(
        plan,
        videos.wishes,
        batch.model,
        choices,
        videos.tools,
        made_by=made_by(batch.model),
        progress=bar,
    )


def made_by(model: Model) -> str:
    """A model and its arithmetic, in words that differ where frames may."""
    import torch

    from restore.devices import dtype_name

    digest = hashlib.sha256(repr(model.config).encode())
    for name, tensor in sorted(model.module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return f"{model.variant}, {dtype_name(model.dtype)}, weights {digest.hexdigest()[:16]}"


def outcome_line(job: Job, report: Report, seconds: float) -> str:
    """A finished video: "a.mp4 640x360 -> 1280x720, 240 frames, h264, 3 min 05 s"."""
    (w, h), (wide, high) = report.before, report.after
    aside = [f"{report.repeated} repeated"] if report.repeated else []
    aside += [f"{report.resumed} from an earlier run"] if report.resumed else []
    frames = plural(report.frames, "frame") + (f" ({', '.join(aside)})" if aside else "")
    return f"{job.source} {w}x{h} -> {wide}x{high}, {frames}, {report.codec}, {duration(seconds)}"


def dry_run_videos(videos: Videos, batch: Batch) -> list[str]:
    """A table of the videos, and the sum of the time; each is decoded once."""
    from restore.commands.dry_run import seconds_per_pixel
    from restore.commands.info import table

    speed = seconds_per_pixel(batch.model)
    head = ("video", "size", "result size", "frames", "codec", "file", "time", "output")
    rows: list[tuple[str, ...]] = [head]
    total, notes = 0.0, list[str]()
    for job in videos.jobs:
        try:
            cells, seconds = _estimated(job, videos, batch, speed, notes)
        except RestoreError as error:
            job.problem = str(error)
        if job.problem:
            cells, seconds = ("?", *"-----", f"cannot be restored: {job.problem}"), 0.0
        total += seconds
        rows.append((str(job.source), *cells))
    told = f"about {duration(total)} in all on {batch.model.device}; nothing was written"
    return [*table(rows), *notes, told]


def _estimated(
    job: Job, videos: Videos, batch: Batch, speed: float, notes: list[str]
) -> tuple[tuple[str, ...], float]:
    """The cells of a row behind the name, and seconds; what is to be noted goes to `notes`."""
    from restore.commands import dry_run, files
    from restore.commands.info import file_size
    from restore.image_io import PictureInfo
    from restore.video.run import look

    if job.plan is None:
        return (), 0.0
    info, wishes = job.plan.info, videos.wishes
    assert wishes is not None and videos.tools is not None
    size = f"{info.width}x{info.height}"
    if batch.settings.skip_existing and job.target.exists():
        return (size, *"-----", f"{job.target} (skipped)"), 0.0
    times = look(job.plan, wishes, videos.tools)
    notes += [f"note: {job.source}: {note}" for note in (*job.plan.notes, *times.notes)]
    depth, channels = (16 if info.pixels.depth > 8 else 8), (1 if info.pixels.gray else 3)
    picture = PictureInfo(info.width, info.height, channels, depth, "png", info.pixels.alpha, 1)
    frame = dry_run.estimate(batch, files.Job(job.source, job.target, None), picture, speed)
    count = len(times.pts[wishes.first - 1 : wishes.last])
    repeats = min(times.repeats, count - 1)
    seconds = frame.seconds * (count - repeats)
    bits = _BITS[job.plan.encoding.codec] * frame.size[0] * frame.size[1] * count
    frames = f"{count}, {repeats} repeated" if repeats else str(count)
    cells = (size, f"{frame.size[0]}x{frame.size[1]}", frames, job.plan.encoding.codec)
    return (*cells, f"~{file_size(int(bits / 8))}", duration(seconds), str(job.target)), seconds
