"""What a video file says about itself, by ffprobe; nothing is decoded."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from restore.errors import VideoError
from restore.video.programs import Tools, ask, named

# the decoders of ffmpeg's own leave the transparency of these out
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_KINDS = ("audio", "subtitle", "attachment")
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class PixelFormat:
    """How samples are stored."""

    name: str
    depth: int  # bits of the deepest component
    gray: bool
    rgb: bool
    alpha: bool
    chroma: tuple[int, int] = (0, 0)  # how often width and height of chroma are halved


@dataclass(frozen=True)
class OtherStream:
    """A stream that is copied as it is."""

    index: int
    kind: str  # audio, subtitle, attachment or picture (the cover)
    codec: str

    def __str__(self) -> str:
        """For messages."""
        return f"{self.kind} stream {self.index} ({self.codec or 'unknown'})"


@dataclass(frozen=True)
class VideoInfo:
    """A video file and its first video stream. Sizes and aspect are those of upright frames."""

    path: Path
    index: int
    codec: str
    decoder: str | None  # to name instead of the default
    width: int
    height: int
    pixels: PixelFormat
    aspect: Fraction  # of a pixel, width by height
    rotation: int  # degrees that a player turns frames by; ffmpeg does so in reading
    time_base: Fraction  # seconds of a tick
    rate: Fraction  # average or nominal frames per second; 25 where nothing is said
    start: Fraction  # of the file, in seconds
    seconds: Fraction | None  # of the video stream, as far as the file says so
    end: Fraction | None  # of the video stream, on the file's clock
    edited_seconds: Fraction | None  # of the longest stream, after cuts by an edit list
    frames: int | None  # the same
    fields: str  # "progressive", "unknown", or how it is interlaced
    colour: dict[
        str, str
    ]  # as far as the file says it: range, matrix, primaries, transfer, location
    mastering: tuple[Facts, ...]  # side data about the display it was made on
    others: tuple[OtherStream, ...]
    left_out: tuple[str, ...]  # streams that are not copied, for people
    tags: dict[str, str] = field(default_factory=dict)  # of the stream
    size: int = 0  # bytes of the file

    @property
    def interlaced(self) -> bool:
        """Whether a frame is two fields of different moments."""
        return self.fields in ("tt", "bb", "tb", "bt")

    @property
    def is_hdr(self) -> bool:
        """Whether its transfer is one of high dynamic range."""
        return self.colour.get("transfer") in ("smpte2084", "arib-std-b67")


def probe_video(path: Path, tools: Tools) -> VideoInfo:
    """What a file says about itself.

    Raises:
        VideoError: it cannot be read, holds no video, or one of a kind that cannot be taken.
    """
    words = [tools.ffprobe, "-v", "error", "-print_format", "json", "-show_format"]
    told = ask([*words, "-show_streams", named(path)], f"{path}: cannot be read as a video")
    try:
        facts = json.loads(told)
    except ValueError as error:
        raise VideoError(f"{path}: {tools.ffprobe} answers with something unknown") from error
    streams = facts.get("streams", [])
    stream = next((s for s in streams if _is_video(s)), None)
    if stream is None:
        held = ", ".join(s.get("codec_type", "unknown") for s in streams) or "nothing"
        raise VideoError(f"{path}: holds no video stream, only {held}")
    name = stream.get("pix_fmt")
    known = pixel_formats(tools)
    if name not in known:
        raise VideoError(
            f"{path}: its video stream ({stream.get('codec_name', 'of an unknown codec')}) cannot "
            "be decoded by this ffmpeg; install a complete build, or convert the video first"
        )
    info = read_facts(path, facts, stream, known[name])
    if info.colour.get("transfer") == "smpte2084" and not info.mastering:
        return _with_first_frame(info, tools)
    return info


def read_facts(path: Path, facts: Facts, stream: Facts, pixels: PixelFormat) -> VideoInfo:
    """What ffprobe's answer means.

    Args:
        path: the file.
        facts: all of the answer.
        stream: the video stream's part.
        pixels: what its pix_fmt means.
    """
    tags = {k.lower(): str(v) for k, v in stream.get("tags", {}).items()}
    codec = stream.get("codec_name", "")
    decoder = _ALPHA_DECODERS.get(codec) if tags.get("alpha_mode") == "1" else None
    if decoder is not None:
        pixels = replace(pixels, alpha=True)
    rotation = _rotation(stream, tags)
    width, height = int(stream.get("width", 0)), int(stream.get("height", 0))
    aspect = _fraction(stream.get("sample_aspect_ratio", "")) or Fraction(1)
    if rotation % 180:
        width, height, aspect = height, width, 1 / aspect
    if width < 1 or height < 1:
        raise VideoError(f"{path}: its frames are {width}x{height}; the file is damaged")
    about = facts.get("format", {})
    has_edits = "mov" in about.get("format_name", "")
    others, left_out = _others(facts.get("streams", []), stream)
    nominal = _fraction(stream.get("avg_frame_rate", "")) or _fraction(
        stream.get("r_frame_rate", "")
    )
    frames = stream.get("nb_frames")
    return VideoInfo(
        path=path,
        index=int(stream["index"]),
        codec=codec,
        decoder=decoder,
        width=width,
        height=height,
        pixels=pixels,
        aspect=aspect,
        rotation=rotation,
        time_base=_fraction(stream.get("time_base", "")) or Fraction(1, 1000),
        rate=nominal or Fraction(25),
        start=_decimal(about.get("start_time")) or Fraction(0),
        seconds=_seconds(stream, tags, about),
        end=_end(stream),
        edited_seconds=_decimal(about.get("duration")) if has_edits else None,
        frames=int(frames) if frames and str(frames).isdigit() else None,
        fields=stream.get("field_order", "unknown"),
        colour=_colour(stream),
        mastering=tuple(_light(stream.get("side_data_list", []))),
        others=tuple(others),
        left_out=tuple(left_out),
        tags=tags,
        size=int(about.get("size", 0)),
    )


@functools.cache
def pixel_formats(tools: Tools) -> dict[str, PixelFormat]:
    """All that this ffmpeg knows, by name."""
    words = [tools.ffprobe, "-v", "error", "-print_format", "json", "-show_pixel_formats"]
    listed = json.loads(ask(words, "ffprobe: cannot list pixel formats"))
    return {f["name"]: _pixel_format(f) for f in listed.get("pixel_formats", [])}


def _pixel_format(facts: Facts) -> PixelFormat:
    flags = facts.get("flags", {})
    alpha, palette = bool(flags.get("alpha")), bool(flags.get("palette"))
    count = int(facts.get("nb_components", 3))
    depths = [int(c.get("bit_depth", 8)) for c in facts.get("components", [])]
    return PixelFormat(
        name=facts["name"],
        depth=max(depths, default=8),
        gray=not palette and count - alpha == 1,
        rgb=bool(flags.get("rgb")) or palette,
        alpha=alpha and not palette,
        chroma=(int(facts.get("log2_chroma_w", 0)), int(facts.get("log2_chroma_h", 0))),
    )


def _is_video(stream: Facts) -> bool:
    cover = stream.get("disposition", {}).get("attached_pic")
    return stream.get("codec_type") == "video" and not cover


def _others(streams: list[Facts], main: Facts) -> tuple[list[OtherStream], list[str]]:
    """Streams to copy, and those that stay behind."""
    kept: list[OtherStream] = []
    left_out: list[str] = []
    for stream in streams:
        index, kind = int(stream["index"]), stream.get("codec_type", "unknown")
        if index == main["index"]:
            continue
        codec = stream.get("codec_name", "")
        if kind in _KINDS:
            kept.append(OtherStream(index, kind, codec))
        elif kind == "video" and stream.get("disposition", {}).get("attached_pic"):
            kept.append(OtherStream(index, "picture", codec))
        else:
            tag = codec or stream.get("codec_tag_string", "")
            left_out.append(f"{kind} stream {index} ({tag or 'unknown'})")
    return kept, left_out


def _rotation(stream: Facts, tags: Facts) -> int:
    sides = stream.get("side_data_list", [])
    turned = [s["rotation"] for s in sides if "rotation" in s] or [tags.get("rotate", 0)]
    try:
        return round(float(turned[0])) % 360
    except ValueError:
        return 0


def _colour(stream: Facts) -> dict[str, str]:
    keys = {
        "range": "color_range",
        "matrix": "color_space",
        "primaries": "color_primaries",
        "transfer": "color_transfer",
        "location": "chroma_location",
    }
    said = {ours: str(stream.get(theirs, "")) for ours, theirs in keys.items()}
    nothing = ("", "unknown", "reserved", "unspecified")
    return {ours: value for ours, value in said.items() if value not in nothing}


def _light(sides: list[Facts]) -> list[Facts]:
    """The side data about light and displays."""
    wanted = ("Mastering display metadata", "Content light level metadata")
    return [s for s in sides if s.get("side_data_type") in wanted]


def _with_first_frame(info: VideoInfo, tools: Tools) -> VideoInfo:
    """Some containers leave side data to the frames."""
    words = [tools.ffprobe, "-v", "error", "-print_format", "json", "-show_frames"]
    words += ["-select_streams", str(info.index), "-read_intervals", "%+#1", named(info.path)]
    frames = json.loads(ask(words, f"{info.path}: cannot be read")).get("frames", [])
    sides = frames[0].get("side_data_list", []) if frames else []
    return replace(info, mastering=tuple(_light(sides)))


def _end(stream: Facts) -> Fraction | None:
    start, length = _decimal(stream.get("start_time")), _decimal(stream.get("duration"))
    return None if start is None or length is None else start + length


def _seconds(stream: Facts, tags: Facts, about: Facts) -> Fraction | None:
    """Length of the stream; that of the file only where no other stream can be the longer one."""
    own = _decimal(stream.get("duration"))
    if own:
        return own
    match = re.match(r"(\d+):(\d+):(\d+(?:\.\d+)?)", str(_statistic(tags, "duration") or ""))
    if match:
        return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])
    return _decimal(about.get("duration")) if about.get("nb_streams") == 1 else None


def _statistic(tags: Facts, name: str) -> str | None:
    """A tag of Matroska's, which may have its language in its name."""
    found = [v for k, v in tags.items() if k == name or k.startswith(f"{name}-")]
    return found[0] if found else None


def _fraction(text: str) -> Fraction | None:
    """A number such as 30000/1001 or 4:3; None for 0/0 and the like."""
    match = re.fullmatch(r"(\d+)[/:](\d+)", text)
    if not match or int(match[1]) == 0 or int(match[2]) == 0:
        return None
    return Fraction(int(match[1]), int(match[2]))


def _decimal(text: object) -> Fraction | None:
    return Fraction(str(text)) if re.fullmatch(r"-?\d+(\.\d+)?", str(text)) else None
