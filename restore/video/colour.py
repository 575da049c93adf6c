"""Colours of videos: which matrix and range samples have, and how they are said again.

Names are ffprobe's, numbers those of ITU-T H.273, which every version of ffmpeg takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from restore.errors import VideoError
from restore.video.probing import VideoInfo

UNSPECIFIED = 2
_HD_ROWS, _HD_COLUMNS = 720, 1280  # from here on players take unlabelled video for BT.709

_RANGES = {"tv": 1, "mpeg": 1, "limited": 1, "pc": 2, "jpeg": 2, "full": 2}
_PRIMARIES = {
    "bt709": 1,
    "bt470m": 4,
    "bt470bg": 5,
    "smpte170m": 6,
    "smpte240m": 7,
    "film": 8,
    "bt2020": 9,
    "smpte428": 10,
    "smpte431": 11,
    "smpte432": 12,
    "ebu3213": 22,
    "jedec-p22": 22,
}
_TRANSFERS = {
    "bt709": 1,
    "gamma22": 4,
    "bt470m": 4,
    "gamma28": 5,
    "bt470bg": 5,
    "smpte170m": 6,
    "smpte240m": 7,
    "linear": 8,
    "log100": 9,
    "log316": 10,
    "iec61966-2-4": 11,
    "bt1361e": 12,
    "iec61966-2-1": 13,
    "bt2020-10": 14,
    "bt2020-12": 15,
    "smpte2084": 16,
    "smpte428": 17,
    "arib-std-b67": 18,
}
# number, and the name that ffmpeg's filter `scale` has for it
_MATRICES = {
    "bt709": (1, "bt709"),
    "fcc": (4, "fcc"),
    "bt470bg": (5, "bt470"),
    "smpte170m": (6, "smpte170m"),
    "smpte240m": (7, "smpte240m"),
    "bt2020nc": (9, "bt2020"),
}
_RGB_NAMES, _RGB_NUMBER = ("gbr", "rgb"), 0
# where chroma samples lie among those of luma, in 256ths of a pixel; the codecs' default is left
_PLACES = {
    "left": (0, 128),
    "center": (128, 128),
    "topleft": (0, 0),
    "top": (128, 0),
    "bottomleft": (0, 256),
    "bottom": (128, 256),
}
# the defaults of `scale` round down, and take each chroma sample for its neighbours too
PRECISE = "flags=lanczos+accurate_rnd+full_chroma_int+full_chroma_inp"


@dataclass(frozen=True)
class Colour:
    """What the samples of a video mean; the same before and after."""

    matrix: str  # as `scale` calls it
    matrix_number: int
    full_range: bool
    primaries: int
    transfer: int
    comes_as_rgb: bool = False  # then matrix and range are those of the result alone
    place: str = "left"  # of chroma samples; results have the default
    chroma: tuple[int, int] = (0, 0)  # of the video, see PixelFormat

    def to_rgb(self, width: int, height: int, pixel_format: str) -> list[str]:
        """Filters from the video's samples to full-range RGB or gray."""
        coming = "pc" if self.full_range or self.comes_as_rgb else "tv"
        return [
            f"scale=w={width}:h={height}:in_color_matrix={self.matrix}:in_range={coming}"
            f":out_range=pc{_placed('in', self.place, self.chroma)}:{PRECISE}",
            f"format=pix_fmts={pixel_format}",
        ]

    def from_rgb(
        self, pixel_format: str, *, rgb: bool, chroma: tuple[int, int] = (0, 0)
    ) -> list[str]:
        """Filters from full-range RGB or gray to what is encoded, labelled.

        Args:
            pixel_format: of the encoder.
            rgb: whether that is RGB or gray of the full range, so that nothing is converted.
            chroma: of that format.
        """
        matrix, full = (_RGB_NUMBER, True) if rgb else (self.matrix_number, self.full_range)
        going = "pc" if full else "tv"
        return [
            f"scale=in_range=pc:out_color_matrix={self.matrix}:out_range={going}"
            f"{_placed('out', 'left', chroma)}:{PRECISE}",
            f"format=pix_fmts={pixel_format}",
            f"setparams=range={2 if full else 1}:color_primaries={self.primaries}"
            f":color_trc={self.transfer}:colorspace={matrix}",
        ]


def colour_of(info: VideoInfo) -> Colour:
    """What the samples of a video mean, with the usual guess where it does not say.

    Raises:
        VideoError: a matrix that ffmpeg's filters do not convert.
    """
    said = info.colour
    large = info.height >= _HD_ROWS or info.width >= _HD_COLUMNS
    name = said.get("matrix", "")
    if name in ("", *_RGB_NAMES):
        name = "bt709" if large else "smpte170m"
    if name not in _MATRICES:
        raise VideoError(
            f"{info.path}: its colour matrix is {name}; expected one of {', '.join(_MATRICES)}; "
            "convert it first: ffmpeg -i INPUT -vf zscale=matrix=709 -c:v ffv1 OUTPUT.mkv"
        )
    number, filter_name = _MATRICES[name]
    # samples of RGB and the old yuvj formats have the full range, whatever is said
    full = info.pixels.name.startswith("yuvj") or _RANGES.get(said.get("range", ""), 1) == 2
    return Colour(
        matrix=filter_name,
        matrix_number=number,
        full_range=full and not info.pixels.rgb,
        primaries=_PRIMARIES.get(said.get("primaries", ""), UNSPECIFIED),
        transfer=_TRANSFERS.get(said.get("transfer", ""), UNSPECIFIED),
        comes_as_rgb=info.pixels.rgb,
        place=said.get("location", "left"),
        chroma=info.pixels.chroma,
    )


def _placed(side: str, place: str, chroma: tuple[int, int]) -> str:
    """The options of `scale` for where chroma lies along the axes that have less of it."""
    across, down = _PLACES.get(place, _PLACES["left"])
    options = [f":{side}_h_chr_pos={across}"] if chroma[0] else []
    return "".join([*options, f":{side}_v_chr_pos={down}"] if chroma[1] else options)


def raw_format(info: VideoInfo) -> tuple[str, int, int]:
    """How frames come through a pipe: pixel format, channels, bytes of a sample."""
    deep = info.pixels.depth > 8
    if info.pixels.alpha:
        return ("rgba64le" if deep else "rgba"), 4, 1 + deep
    if info.pixels.gray:
        return ("gray16le" if deep else "gray"), 1, 1 + deep
    return ("rgb48le" if deep else "rgb24"), 3, 1 + deep
