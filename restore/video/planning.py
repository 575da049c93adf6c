"""Which codec, sample format and container a result gets, and what that costs it.

"auto" may choose; a codec that was named is taken or refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from restore.errors import UsageError, VideoError
from restore.video.probing import VideoInfo
from restore.video.programs import Tools, install_hint

Codec = Literal["auto", "h264", "hevc", "av1", "vp9", "prores", "ffv1"]
CODECS: tuple[Codec, ...] = ("auto", "h264", "hevc", "av1", "vp9", "prores", "ffv1")
# what is read, by the names of files; those of CONTAINERS are also written
SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".ts", ".mts", ".m2ts"),
    *(".mpg", ".mpeg", ".vob", ".ogv", ".3gp", ".mxf", ".y4m"),
)
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
INSTEAD = ".mkv"  # for containers that are read only; it takes any sound and subtitles
MOST_CRF = 63
_ENCODERS: dict[str, tuple[str, ...]] = {
    "h264": ("libx264",),
    "hevc": ("libx265",),
    "av1": ("libsvtav1", "libaom-av1"),
    "vp9": ("libvpx-vp9",),
    "prores": ("prores_ks",),
    "ffv1": ("ffv1",),
}
_HOLDS: dict[str, tuple[str, ...]] = {
    "mp4": ("h264", "hevc", "av1", "vp9"),
    "mov": ("h264", "hevc", "prores"),
    "matroska": ("h264", "hevc", "av1", "vp9", "prores", "ffv1"),
    "webm": ("vp9", "av1"),
}
_ALPHA = ("vp9", "prores", "ffv1")
_DEFAULT_CRF = {"h264": 16, "hevc": 18, "av1": 22, "vp9": 20}
_LARGEST_CRF = {"h264": 51, "hevc": 51, "av1": 63, "vp9": 63}


@dataclass(frozen=True)
class Encoding:
    """How frames become a stream."""

    codec: str
    encoder: str
    pixel_format: str
    rgb: bool  # that format is RGB or full-range gray, so what the network gives is kept exactly
    even: bool  # sides have to be even
    options: tuple[str, ...]
    segment: str  # format and suffix of segment files, one that keeps times to the tick
    crf: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def chroma(self) -> tuple[int, int]:
        """How often width and height of chroma are halved."""
        return (
            int("420p" in self.pixel_format or "422p" in self.pixel_format),
            int("420p" in self.pixel_format),
        )


def is_video_name(path: Path) -> bool:
    """Whether a file is called like a video; .ts and .mts also look like one inside.

    The same endings stand for programs in TypeScript and for translations.
    """
    suffix = path.suffix.lower()
    if suffix not in (".ts", ".mts"):
        return suffix in SUFFIXES
    try:
        with path.open("rb") as file:
            head = file.read(400)
    except OSError:
        return False
    # packets of 188 bytes begin with 0x47, in .mts after four bytes of their own
    return head[:1] + head[188:189] == b"GG" or head[4:5] + head[196:197] == b"GG"


def target_suffix(source: Path) -> str:
    """The container of a result whose name is not given: the source's where it is written."""
    suffix = source.suffix.lower()
    return source.suffix if suffix in CONTAINERS else INSTEAD


def choose(info: VideoInfo, target: Path, codec: Codec, crf: int | None, tools: Tools) -> Encoding:
    """How the result of a video is encoded.

    Args:
        info: the video.
        target: of its result; the suffix says the container.
        codec: "auto" takes what the container holds and the video needs: H.264 for 8 bits, HEVC
            for more, VP9 in WebM; for transparency ProRes 4444 in MOV, FFV1 in Matroska.
        crf: quality, lower is better and larger; None takes the codec's own.
        tools: whose encoders count.

    Raises:
        UsageError: codec, crf and container contradict each other, or this ffmpeg lacks the
            encoder.
        VideoError: what was named cannot hold the video's transparency.
    """
    container = CONTAINERS[target.suffix.lower()]
    name = _automatic(info, container) if codec == "auto" else codec
    if name is None:
        raise VideoError(
            f"{info.path}: has transparency ({info.pixels.name}), and {target.suffix} holds none "
            "that is widely read; name a result in .mov (ProRes 4444), .webm (VP9) or .mkv (FFV1)"
        )
    if name not in _HOLDS[container]:
        raise UsageError(
            f"--codec {name}: does not go into {target.suffix}, which takes "
            f"{', '.join(_HOLDS[container])}; .mkv takes all"
        )
    if info.pixels.alpha and name not in _ALPHA:
        raise VideoError(
            f"{info.path}: has transparency ({info.pixels.name}), which {name} cannot hold; give "
            "--codec prores (.mov), vp9 (.webm) or ffv1 (.mkv)"
        )
    built = tools.encoders()
    encoder = next((e for e in _ENCODERS[name] if e in built), None)
    if encoder is None:
        wanted = " or ".join(_ENCODERS[name])
        others = [c for c in _HOLDS[container] if any(e in built for e in _ENCODERS[c])]
        instead = f"--codec {others[0]}, or " if others else ""
        raise UsageError(
            f"{tools.ffmpeg}: this build has no encoder {wanted}, which {name} needs; give "
            f"{instead}install a complete one ({install_hint()})"
        )
    return _encoding(info, name, encoder, _checked_crf(name, crf))


def _automatic(info: VideoInfo, container: str) -> str | None:
    if info.pixels.alpha:
        return {"mov": "prores", "webm": "vp9", "matroska": "ffv1"}.get(container)
    if container == "webm":
        return "vp9"
    return "hevc" if info.pixels.depth > 8 else "h264"


def _checked_crf(codec: str, crf: int | None) -> int | None:
    most = _LARGEST_CRF.get(codec)
    if crf is None:
        return _DEFAULT_CRF.get(codec)
    if most is None:
        raise UsageError(f"--crf {crf}: {codec} has no such quality; leave it out")
    if crf > most:
        raise UsageError(f"--crf {crf}: {codec} takes 0 (best) to {most}")
    return crf


def _encoding(info: VideoInfo, codec: str, encoder: str, crf: int | None) -> Encoding:
    depth, alpha = info.pixels.depth, info.pixels.alpha
    notes: list[str] = []
    quality = [] if crf is None else ["-crf", str(crf)]
    if codec == "ffv1":
        options = ["-level", "3", "-g", "1", "-slicecrc", "1"]
        return Encoding(codec, encoder, _lossless_format(info), True, False, tuple(options), "mov")
    most, segment = 8, "mov"
    if codec == "h264":
        pixel_format, options = "yuv420p", ["-preset", "medium", *quality]
    elif codec == "hevc":
        most = 12
        pixel_format = _deeper("yuv420p", depth, most)
        options = ["-preset", "medium", *quality, "-tag:v", "hvc1"]
    elif codec == "prores":
        most = 10
        pixel_format = "yuva444p10le" if alpha else "yuv422p10le"
        options = ["-profile:v", "4" if alpha else "3", "-vendor", "apl0"]
    elif codec == "vp9":
        most, segment = (8 if alpha else 10), "webm" if alpha else "mp4"
        pixel_format = "yuva420p" if alpha else _deeper("yuv420p", depth, most)
        options = [*quality, "-b:v", "0", "-row-mt", "1", "-cpu-used", "2"]
        options += ["-auto-alt-ref", "0"] if alpha else []
    else:
        most, segment = 10, "mp4"
        pixel_format = _deeper("yuv420p", depth, most)
        speed = ["-preset", "6"] if encoder == "libsvtav1" else ["-b:v", "0", "-cpu-used", "4"]
        options = [*quality, *speed]
    if depth > most:
        more = "; --codec hevc keeps them" if codec == "h264" else "; --codec ffv1 keeps them"
        notes.append(f"{depth} bits become {most}{more}")
    return Encoding(
        codec, encoder, pixel_format, False, True, tuple(options), segment, crf, tuple(notes)
    )


def _deeper(name: str, depth: int, most: int) -> str:
    """A planar format with at least so many bits, as far as the encoder goes."""
    kept = min(depth, most)
    if kept <= 8:
        return name
    return f"{name}{10 if kept <= 10 else 12}le"


def _lossless_format(info: VideoInfo) -> str:
    """Where every value that the network gives has its place."""
    deep = info.pixels.depth > 8
    if info.pixels.alpha:
        return "gbrap16le" if deep else "bgra"
    if info.pixels.gray:
        return "gray16le" if deep else "gray"
    return "gbrp16le" if deep else "bgr0"


def even_size(width: int, height: int, even: bool) -> tuple[int, int]:
    """The size that is encoded: sides grow by one pixel where they have to be even."""
    return (width + width % 2, height + height % 2) if even else (width, height)
