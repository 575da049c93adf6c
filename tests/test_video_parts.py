"""What is settled about videos without running ffmpeg: facts, times, names, command lines."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _fake_models import Fake, out_of_memory_above

from restore import cli
from restore.commands.video import frame_range
from restore.errors import OutputError, UsageError, VideoError
from restore.image_io import Picture, write_picture
from restore.video import assembly, journal
from restore.video.colour import colour_of, raw_format
from restore.video.computing import Choices, Restorer
from restore.video.finding import name_results, split_inputs
from restore.video.planning import choose, is_video_name
from restore.video.probing import PixelFormat, VideoInfo, read_facts
from restore.video.programs import Tools, install_hint, quoted, version_number
from restore.video.reading import ahead, reading_words
from restore.video.run import runs_of
from restore.video.scanning import FrameTimes, missing_part, read_listing
from restore.video.writing import Stream, nearest_rate, ticks_of_number, writing_words, wrong_time

YUV = PixelFormat("yuv420p", 8, gray=False, rgb=False, alpha=False)
YUV_10 = PixelFormat("yuv420p10le", 10, gray=False, rgb=False, alpha=False)
YUVA = PixelFormat("yuva444p10le", 10, gray=False, rgb=False, alpha=True)
GRAY = PixelFormat("gray", 8, gray=True, rgb=False, alpha=False)
RGB = PixelFormat("bgr0", 8, gray=False, rgb=True, alpha=False)
ALL_ENCODERS = frozenset({"libx264", "libx265", "libsvtav1", "libvpx-vp9", "prores_ks", "ffv1"})


class SomeTools(Tools):
    """Programs that are never run."""

    built = ALL_ENCODERS

    def encoders(self) -> frozenset[str]:
        return self.built


TOOLS = SomeTools("ffmpeg", "ffprobe", "7.1")
OLD_TOOLS = SomeTools("ffmpeg", "ffprobe", "4.4.2-0ubuntu0.22.04.1")


def video_stream(**more: Any) -> dict[str, Any]:
    facts = {
        "index": 0,
        "codec_name": "h264",
        "codec_type": "video",
        "width": 640,
        "height": 360,
        "sample_aspect_ratio": "1:1",
        "pix_fmt": "yuv420p",
        "avg_frame_rate": "30000/1001",
        "time_base": "1/30000",
        "nb_frames": "300",
        "duration": "10.01",
    }
    return {**facts, **more}


def info_of(
    pixels: PixelFormat = YUV, *, others: Any = (), about: Any = None, **more: Any
) -> VideoInfo:
    stream = video_stream(**more)
    facts = {
        "streams": [stream, *others],
        "format": about or {"duration": "10.01", "nb_streams": 1},
    }
    return read_facts(Path("clip.mp4"), facts, stream, pixels)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5.1.6-0+deb12u1", (5, 1)),
        ("n7.1", (7, 1)),
        ("4.4.2-0ubuntu0.22.04.1", (4, 4)),
        ("N-109444-geef763c705", None),
        ("2024-05-20-git-127ded5078", None),
    ],
)
def test_versions(text: str, number: tuple[int, int] | None) -> None:
    assert version_number(text) == number


def test_old_programs_get_the_option_that_they_know() -> None:
    assert TOOLS.every_frame == ["-fps_mode", "passthrough"]
    assert OLD_TOOLS.every_frame == ["-vsync", "passthrough"]


def test_how_to_install_is_said_for_each_platform() -> None:
    assert "brew install ffmpeg" in install_hint("darwin")
    assert "winget install" in install_hint("win32")
    assert "apt install ffmpeg" in install_hint("linux")


def test_what_a_program_said_is_quoted_short() -> None:
    lines = ["one", "[h264] broken", "[h264] broken", "two", "three"]
    assert quoted("ffmpeg", lines) == "; ffmpeg says: [h264] broken | two | three"
    assert quoted("ffmpeg", []) == ""


def test_missing_programs_are_told_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["upscale", "clip.mp4"]) == 2
    error = capsys.readouterr().err
    assert "videos need the program ffmpeg" in error
    assert "install" in error
    assert os.listdir(tmp_path) == ["clip.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a script that the system runs")
def test_a_program_that_is_too_old_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ffmpeg", "ffprobe"):
        script = tmp_path / name
        script.write_text("#!/bin/sh\necho 'ffmpeg version 4.2.7-0ubuntu0.1 Copyright'\n")
        script.chmod(0o755)
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["upscale", "clip.mp4"]) == 2
    assert "is version 4.2.7-0ubuntu0.1; expected 4.4 or newer" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--codec", "hevc"], ["--crf", "20"], ["--frames", "1-2"]])
def test_options_of_videos_want_a_video(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "a.png"
    write_picture(picture, Picture(np.zeros((4, 4, 3), np.uint8)), fmt="png")
    assert cli.main(["upscale", str(picture), *words, "-o", str(tmp_path / "out")]) == 2
    assert f"{words[0]} is for videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "frames"), [("100-200", (100, 200)), ("7", (7, 7)), ("5-", (5, None))]
)
def test_ranges_of_frames(text: str, frames: tuple[int, int | None]) -> None:
    assert frame_range(text) == frames


@pytest.mark.parametrize("text", ["0-5", "9-3", "-4", "a", "1-2-3", ""])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(Exception, match="expected frames counted from 1"):
        frame_range(text)


def test_facts_of_a_plain_video() -> None:
    info = info_of()
    assert (info.width, info.height, info.aspect) == (640, 360, 1)
    assert info.rate == Fraction(30000, 1001)
    assert info.frames == 300
    assert info.seconds == Fraction("10.01")
    assert not info.interlaced


@pytest.mark.parametrize(
    "turned",
    [
        {"side_data_list": [{"side_data_type": "Display Matrix", "rotation": -90}]},
        {"tags": {"rotate": "90"}},
    ],
)
def test_a_turned_video_is_upright(turned: dict[str, Any]) -> None:
    info = info_of(sample_aspect_ratio="4:3", **turned)
    assert (info.width, info.height) == (360, 640)
    assert info.aspect == Fraction(3, 4)


def test_other_streams_are_sorted() -> None:
    others = [
        {"index": 1, "codec_type": "audio", "codec_name": "aac"},
        {"index": 2, "codec_type": "subtitle", "codec_name": "subrip"},
        {"index": 3, "codec_type": "attachment"},
        {
            "index": 4,
            "codec_type": "video",
            "codec_name": "png",
            "disposition": {"attached_pic": 1},
        },
        {"index": 5, "codec_type": "data", "codec_tag_string": "tmcd"},
    ]
    info = info_of(others=others)
    assert [s.kind for s in info.others] == ["audio", "subtitle", "attachment", "picture"]
    assert info.left_out == ("data stream 5 (tmcd)",)


def test_lengths_that_matroska_keeps_in_tags() -> None:
    tags = {"DURATION-eng": "00:01:02.500000000", "NUMBER_OF_FRAMES": "1500"}
    stream = {"tags": tags, "nb_frames": None, "duration": None}
    # NUMBER_OF_FRAMES is not believed: programs that cut files copy it
    info = info_of(about={"duration": "62.5"}, **stream)
    assert info.seconds == Fraction("62.5")
    assert info.frames is None


def test_the_transparency_of_vp9_needs_another_decoder() -> None:
    info = info_of(codec_name="vp9", tags={"alpha_mode": "1"})
    assert info.decoder == "libvpx-vp9"
    assert info.pixels.alpha


LISTING = [
    "#format: frame checksums\n",
    "#tb 0: 1/1000\n",
    "#dimensions 0: 64x48\n",
    "#stream#, dts,        pts, duration,     size, hash\n",
    "0,          0,          0,       42,     4608, aa\n",
    "0,         42,         42,       41,     4608, aa\n",
    "0,         83,         83,       42,     4608, bb\n",
]


def test_a_listing_of_frames() -> None:
    times = read_listing(LISTING, info_of())
    assert times.time_base == Fraction(1, 1000)
    assert times.pts == (0, 42, 83)
    assert times.step is None
    assert times.repeats == 1


def test_a_frame_of_another_size_is_named() -> None:
    with pytest.raises(VideoError, match="change their size or format at frame 4"):
        read_listing([*LISTING, "0, 125, 125, 42, 9216, cc\n"], info_of())


def test_times_that_run_backwards() -> None:
    jitter = read_listing([*LISTING, "0, 83, 83, 42, 4608, cc\n"], info_of())
    assert jitter.pts == (0, 42, 83, 84)
    assert "1 frames were not later" in jitter.notes[0]
    with pytest.raises(VideoError, match=r"frame 4 is shown 9\.917 s before frame 3"):
        read_listing([*LISTING, "0, 0, -9834, 42, 4608, cc\n"], info_of())


def times_of(frames: int, cut_short: str = "") -> FrameTimes:
    return FrameTimes(Fraction(1, 30000), tuple(range(0, frames * 1001, 1001)), cut_short=cut_short)


def test_a_video_that_is_all_there() -> None:
    assert missing_part(info_of(), times_of(300)) is None


def test_a_few_frames_less_are_told_and_many_refused() -> None:
    told = missing_part(info_of(), times_of(290))
    assert told is not None
    assert told[0].endswith(
        "promises about 10 frames more than can be read; 290 frames (9.7 s) can be read"
    )
    assert not told[1]
    refused = missing_part(info_of(), times_of(200))
    assert refused is not None
    assert refused[1]
    assert "--frames 1-200 restores these" in refused[0]


def test_frames_that_an_edit_list_hides_are_not_missing() -> None:
    about = {"duration": "6.673", "format_name": "mov,mp4,m4a,3gp,3g2,mj2"}
    assert missing_part(info_of(about=about), times_of(200)) is None
    assert missing_part(info_of(about={"duration": "6.673", "format_name": "avi"}), times_of(200))


def test_what_ffmpeg_says_of_the_end_counts() -> None:
    refused = missing_part(info_of(), times_of(300, "File ended prematurely at pos. 12"))
    assert refused is not None
    assert refused[1]


def test_colours_that_are_not_said_are_those_of_the_size() -> None:
    assert colour_of(info_of()).matrix == "smpte170m"
    assert colour_of(info_of(width=1280)).matrix == "bt709"
    assert colour_of(info_of(width=1280, color_space="smpte170m")).matrix_number == 6
    assert colour_of(info_of(color_range="pc")).full_range
    assert not colour_of(info_of(RGB, color_range="pc", color_space="gbr")).full_range


def test_a_matrix_that_nobody_converts_is_refused() -> None:
    with pytest.raises(VideoError, match="colour matrix is ictcp; expected one of bt709"):
        colour_of(info_of(color_space="ictcp"))


def test_how_frames_come_through_a_pipe() -> None:
    formats = [raw_format(info_of(pixels)) for pixels in (YUV, YUV_10, GRAY, YUVA)]
    assert [name for name, _, _ in formats] == ["rgb24", "rgb48le", "gray", "rgba64le"]


def test_the_command_that_reads() -> None:
    info = info_of()
    words = reading_words(info, TOOLS, colour_of(info), (), 40, 10)
    chain = words[words.index("-vf") + 1]
    assert chain.startswith("select=gte(n\\,40),scale=w=640:h=360:in_color_matrix=smpte170m")
    assert words[words.index("-frames:v") + 1] == "10"
    assert words[words.index("-i") + 1] == "file:clip.mp4"


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_the_expression_gives_each_frame_its_time(count: int) -> None:
    ticks = [number * number + 3 * (number > 4) for number in range(count)]
    text = ticks_of_number(ticks).replace("if(", "choose(")
    names = {"choose": lambda a, b, c: b if a else c, "lt": lambda a, b: a < b}
    assert [eval(text, names, {"N": n}) for n in range(count)] == ticks


@pytest.mark.parametrize(
    ("rate", "nearest"),
    [("23.976", "24000/1001"), ("25", "25"), ("29.97002", "30000/1001"), ("17.31", "1731/100")],
)
def test_rates_of_files_are_inexact(rate: str, nearest: str) -> None:
    assert nearest_rate(Fraction(rate)) == Fraction(nearest)


def stream_of(info: VideoInfo, target: str, step: int | None = 1001, codec: Any = "auto") -> Stream:
    encoding = choose(info, Path(target), codec, None, TOOLS)
    return Stream(
        width=641,
        height=361,
        raw_format=raw_format(info)[0],
        encoding=encoding,
        colour=colour_of(info),
        aspect=info.aspect,
        rate=Fraction(30000, 1001),
        time_base=Fraction(1, 30000),
        step=step,
        mastering=info.mastering,
    )


def test_the_command_that_writes_at_a_constant_rate() -> None:
    words = writing_words(stream_of(info_of(), "a.mp4"), TOOLS, [0, 1001], Path("-x %d.part"))
    assert words[words.index("-video_size") + 1] == "642x362"
    assert words[words.index("-framerate") + 1] == "30000/1001"
    assert words[words.index("-enc_time_base") + 1] == "1001:30000"
    assert words[words.index("-crf") + 1] == "16"
    assert "setpts" not in words[words.index("-vf") + 1]
    assert words[-1] == "file:-x %d.part"


def test_the_command_that_writes_at_irregular_times() -> None:
    stream = stream_of(info_of(), "a.mkv", step=None)
    words = writing_words(stream, TOOLS, [500, 1501, 4000], Path("x"))
    assert (
        "settb=1/30000,setpts='if(lt(N,1),0,if(lt(N,2),1001,3500))'"
        in words[words.index("-vf") + 1]
    )
    assert words[words.index("-x264-params") + 1] == "fps=30000/1001"


def test_hdr_says_what_display_it_was_made_on() -> None:
    mastering = {
        "side_data_type": "Mastering display metadata",
        "red_x": "35400/50000",
        "red_y": "14600/50000",
        "green_x": "8500/50000",
        "green_y": "39850/50000",
        "blue_x": "6550/50000",
        "blue_y": "2300/50000",
        "white_point_x": "15635/50000",
        "white_point_y": "16450/50000",
        "min_luminance": "50/10000",
        "max_luminance": "10000000/10000",
    }
    light = {
        "side_data_type": "Content light level metadata",
        "max_content": 1000,
        "max_average": 400,
    }
    info = info_of(YUV_10, color_transfer="smpte2084", side_data_list=[mastering, light])
    assert info.is_hdr
    words = writing_words(stream_of(info, "a.mp4"), TOOLS, [0], Path("x"))
    said = words[words.index("-x265-params") + 1]
    assert (
        "master-display=G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L(10000000,50)"
        in said
    )
    assert "max-cll=1000,400" in said
    assert "hdr10=1" in said


@pytest.mark.parametrize(
    ("pixels", "target", "codec", "pixel_format"),
    [
        (YUV, "a.mp4", "h264", "yuv420p"),
        (YUV_10, "a.mkv", "hevc", "yuv420p10le"),
        (YUV_10, "a.webm", "vp9", "yuv420p10le"),
        (YUVA, "a.mov", "prores", "yuva444p10le"),
        (YUVA, "a.mkv", "ffv1", "gbrap16le"),
        (YUVA, "a.webm", "vp9", "yuva420p"),
        (GRAY, "a.mkv", "h264", "yuv420p"),
    ],
)
def test_what_auto_chooses(pixels: PixelFormat, target: str, codec: str, pixel_format: str) -> None:
    encoding = choose(info_of(pixels), Path(target), "auto", None, TOOLS)
    assert (encoding.codec, encoding.pixel_format) == (codec, pixel_format)


def test_what_a_codec_loses_is_told() -> None:
    encoding = choose(info_of(YUV_10), Path("a.mp4"), "h264", None, TOOLS)
    assert encoding.notes == ("10 bits become 8; --codec hevc keeps them",)


@pytest.mark.parametrize(
    ("pixels", "target", "codec", "crf", "told"),
    [
        (YUV, "a.mp4", "ffv1", None, "does not go into .mp4, which takes h264"),
        (YUV, "a.mkv", "ffv1", 10, "ffv1 has no such quality"),
        (YUV, "a.mkv", "h264", 60, "h264 takes 0 (best) to 51"),
        (YUVA, "a.mp4", "auto", None, "name a result in .mov (ProRes 4444)"),
        (YUVA, "a.mov", "h264", None, "has transparency (yuva444p10le), which h264 cannot hold"),
    ],
)
def test_what_cannot_be_encoded(
    pixels: PixelFormat, target: str, codec: Any, crf: int | None, told: str
) -> None:
    with pytest.raises((UsageError, VideoError)) as caught:
        choose(info_of(pixels), Path(target), codec, crf, TOOLS)
    assert told in str(caught.value)


def test_an_encoder_that_a_build_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SomeTools, "built", frozenset({"libvpx-vp9"}))
    with pytest.raises(UsageError, match="no encoder libx264, which h264 needs; give --codec vp9"):
        choose(info_of(), Path("a.mp4"), "auto", None, TOOLS)


def folder(tmp_path: Path, pts: Any, length: int) -> journal.Folder:
    return journal.Folder(tmp_path, ".mov", tuple(pts), length)


def test_segments_are_missing_until_their_files_are_there(tmp_path: Path) -> None:
    work = folder(tmp_path, range(25), 10)
    assert [list(work.frames(n))[-1] for n in range(work.segments)] == [9, 19, 24]
    work.file(1).touch()
    assert work.missing() == [0, 2]
    assert runs_of([0, 2, 3, 7]) == [[0], [2, 3], [7]]


def test_segments_begin_to_the_microsecond(tmp_path: Path) -> None:
    """Lengths that were each rounded would add up to the wrong beginnings."""
    work = folder(tmp_path, range(0, 1001 * 300, 1001), 7)
    path = assembly.write_listing(work, Fraction(1, 30000), Fraction(30000, 1001))
    lengths = [int(line[9:-2]) for line in path.read_text().splitlines() if "duration" in line]
    for number in range(work.segments):
        exact = Fraction(work.pts[work.frames(number)[0]], 30000)
        assert abs(Fraction(sum(lengths[:number]), 1_000_000) - exact) <= Fraction(1, 2_000_000)


def test_the_journal_knows_what_it_is_for(tmp_path: Path) -> None:
    target, settings, times = tmp_path / "a.mp4", {"--crf": "16", "model": "x"}, times_of(5)
    assert journal.stored(target, settings) is None
    with journal.working_folder(target, settings, times, times.pts, ".mov", 2) as work:
        work.file(0).touch()
    assert journal.stored(target, settings) == times
    with pytest.raises(OutputError, match=r"holds 1 finished segments.*--crf was 16 and is 20"):
        journal.stored(target, {**settings, "--crf": "20"})
    (tmp_path / "a.mp4.parts" / "journal.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        journal.stored(target, settings)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    times = times_of(5)

    def folder() -> Any:
        return journal.working_folder(tmp_path / "a.mp4", {}, times, times.pts, ".mov", 2)

    refused = pytest.raises(VideoError, match="another process is at work")
    with folder(), refused, folder():
        pass


def test_half_written_files_of_a_killed_run_go(tmp_path: Path) -> None:
    times = times_of(5)
    (tmp_path / "a.mp4.parts").mkdir()
    (tmp_path / "a.mp4.parts" / ".segment-000001.mov.12ab.part").touch()
    with journal.working_folder(tmp_path / "a.mp4", {}, times, times.pts, ".mov", 2) as work:
        assert sorted(os.listdir(work.path)) == ["journal.json", "lock"]


def test_text_subtitles_go_into_any_container() -> None:
    others = [{"index": 1, "codec_type": "subtitle", "codec_name": "subrip"}]
    info = info_of(others=others)
    codecs = [assembly.passengers(info, Path(f"a{s}"))[0].codec for s in (".mp4", ".mkv", ".webm")]
    assert codecs == ["mov_text", None, "webvtt"]


def test_the_command_that_joins() -> None:
    others = [{"index": 1, "codec_type": "audio", "codec_name": "aac"}]
    info = info_of(others=others, about={"start_time": "1.4"}, tags={"language": "deu"})
    along = assembly.passengers(info, Path("a.mp4"))
    part = assembly.Part(Fraction("1.48"), Fraction(3), whole=True)
    words = assembly.joining_words(info, TOOLS, Path("list"), part, along, Path("a.mp4"), Path("x"))
    offsets = [words[at + 1] for at, word in enumerate(words) if word == "-itsoffset"]
    assert offsets == ["80000us", "-1400000us"]
    assert "language=deu" in words
    assert words.count("-map") == 2


def test_times_are_compared() -> None:
    want = [Fraction(0), Fraction(1, 25)]
    assert wrong_time(want, want, Fraction(0)) is None
    assert wrong_time([Fraction(0)], want, Fraction(0)) == "it holds 1 frames; expected 2"
    late = [Fraction(0), Fraction(41, 1000)]
    assert wrong_time(late, want, Fraction(1, 1000)) is None
    assert (
        wrong_time(late, want, Fraction(0)) == "frame 2 is shown at 0.041000 s; expected 0.040000"
    )


def test_names_of_videos(tmp_path: Path) -> None:
    assert is_video_name(Path("a.MP4"))
    assert not is_video_name(Path("a.png"))
    (tmp_path / "app.ts").write_text("const a = 1;\n" * 50)
    (tmp_path / "tv.ts").write_bytes((b"G" + bytes(187)) * 3)
    (tmp_path / "cam.mts").write_bytes((bytes(4) + b"G" + bytes(187)) * 3)
    assert [is_video_name(tmp_path / n) for n in ("app.ts", "tv.ts", "cam.mts")] == [
        False,
        True,
        True,
    ]


def test_videos_are_split_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.mp4", "in/b.png", "in/sub/c.mkv", "only/d.mov", "in/old.mp4.parts/s.mov"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    split = split_inputs(["in", "only", "x.png", "in/a.mp4"], recursive=True, output=Path("out"))
    assert [s.path.as_posix() for s in split.videos] == ["in/a.mp4", "in/sub/c.mkv", "only/d.mov"]
    assert split.others == ["in", "x.png"]
    assert split.in_folders == 2
    found = split_inputs(["in/*"], output=Path("out")).videos
    assert [s.path.name for s in found] == ["a.mp4", "c.mkv"]


def test_results_of_videos_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.avi", "b.mkv"):
        Path(name).touch()

    def results(
        inputs: list[str], output: str, suffix: str = "", pictures: bool = False
    ) -> list[str]:
        split = split_inputs(inputs, output=Path(output))
        _, pairs, _ = name_results(split.videos, output, suffix, with_pictures=pictures)
        return [target.as_posix() for _, target in pairs]

    assert results(["a.mp4", "b.avi"], "out", "_x2") == ["out/a_x2.mp4", "out/b_x2.mkv"]
    assert results(["a.mp4"], "new.mkv") == ["new.mkv"]
    for inputs, output, told in (
        (["a.mp4"], "new.avi", "videos are not written as .avi"),
        (["a.mp4", "b.avi"], "new.mp4", "names one file, but 2 videos"),
        (["a.mp4"], ".", "a.mp4: would be replaced"),
        (["b.avi", "b.mkv"], "out", "would both be written to"),
        (["a.mp4"], "new.gif", "cannot write .gif"),
    ):
        with pytest.raises(UsageError, match=told):
            results(inputs, output)
    Path("a_x2.mp4").touch()
    split = split_inputs(["."], output=Path("."))
    _, pairs, left_out = name_results(split.videos[:2], ".", "_x2", with_pictures=False)
    assert ([s.name for s, _ in pairs], [p.name for p in left_out]) == (["a.mp4"], ["a_x2.mp4"])


def drawn(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)


def test_equal_frames_are_computed_once() -> None:
    model = Fake(scale=2)
    restorer = Restorer(model, Choices())
    order = [0, 0, 0, 1, 1, 0]
    results = list(restorer([drawn(n) for n in order]))
    assert (len(model.sizes), restorer.computed, restorer.repeated) == (3, 3, 3)
    for number, result in zip(order, results, strict=True):
        assert np.array_equal(result, drawn(number).repeat(2, 0).repeat(2, 1))


def test_frames_at_a_time_give_what_each_gives_alone() -> None:
    order = [0, 1, 1, 2, 3, 3, 3, 4]
    alone = list(Restorer(Fake(scale=2), Choices())([drawn(n) for n in order]))
    model = Fake(scale=2)
    restorer = Restorer(model, Choices())
    restorer._at_once = 3
    together = list(restorer([drawn(n) for n in order]))
    assert all(map(np.array_equal, alone, together))
    assert restorer.repeated == 3
    assert max(size[0] for size in model.sizes) > 1


def test_memory_that_runs_out_makes_fewer_at_a_time() -> None:
    model = Fake(scale=2, before=out_of_memory_above(2 * 48))
    restorer = Restorer(model, Choices())
    restorer._at_once = 4
    results = list(restorer([drawn(n) for n in range(8)]))
    assert len(results) == 8
    assert restorer.notes == ["out of memory; going on with 2 frames at a time"]
    assert max(size[0] for size in model.sizes if size[0] <= 2) == 2


def test_tiles_that_fitted_once_are_kept() -> None:
    model = Fake(scale=2, before=out_of_memory_above(64 * 64))
    restorer = Restorer(model, Choices(tile_pad=0))
    frames = [np.full((80, 80, 4), n, np.uint8) for n in (9, 20, 30)]
    results = list(restorer(frames))
    assert [r.shape for r in results] == [(160, 160, 4)] * 3
    assert all((r == frame[0, 0, 0]).all() for r, frame in zip(results, frames, strict=True))
    assert sum(size[2] == 80 and size[3] == 80 for size in model.sizes) <= 2  # colours and alpha
    assert any("out of memory" in note for note in restorer.notes)


def test_what_is_fetched_ahead_comes_in_order_and_so_do_errors() -> None:
    def items() -> Any:
        yield from range(20)
        raise VideoError("broken")

    fetched = ahead(items())
    assert [next(fetched) for _ in range(20)] == list(range(20))
    with pytest.raises(VideoError, match="broken"):
        next(fetched)
    closed = []

    def endless() -> Any:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    fetched = ahead(endless())
    assert next(fetched) == 1
    fetched.close()
    assert closed == [True]
