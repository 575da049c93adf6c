"""Videos through ffmpeg: frames, colours, times, sound, what goes along, and going on after a kill.

Clips are drawn by ffmpeg's own sources. Where it is not installed, all of this is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _fake_models import Fake
from small_models import tiny

from restore import cli
from restore.errors import OutputError, UsageError, VideoError
from restore.image_io import Picture, write_picture
from restore.video.computing import Choices
from restore.video.planning import choose
from restore.video.probing import probe_video
from restore.video.programs import Tools, find_tools
from restore.video.run import Report, Step, Wishes, plan, restore_video
from restore.video.writing import first_time, packet_times

pytestmark = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="needs ffmpeg and ffprobe"
)
LOSSLESS = ("-c:v", "ffv1")
X264 = ("-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv420p")
AAC = ("-c:a", "aac")


@pytest.fixture(scope="module")
def tools() -> Tools:
    return find_tools()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ffmpeg(*words: str) -> bytes:
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-nostdin", "-y", *words], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def clip(
    name: str,
    *more: str,
    frames: int = 12,
    rate: str = "25",
    size: str = "64x48",
    sound: bool = False,
    filters: str = "null",
) -> Path:
    """A moving test picture, no frame like another; `more` are options of the output.

    Its colours are pale: RGB cannot hold what 4:2:0 makes of borders between saturated ones.
    """
    moving = f"testsrc2=size={size}:rate={rate},hue=s=0.3,scroll=horizontal=0.05"
    words = ["-f", "lavfi", "-i", f"{moving},{filters}"]
    if sound:
        words += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]
    words += ["-frames:v", str(frames)]
    words += ["-t", "0.48"] if sound else []
    ffmpeg(*words, *(more or LOSSLESS), f"file:{name}")
    return Path(name)


def decoded(path: Path, pixel_format: str = "rgb24") -> np.ndarray:
    """All frames as a player's own conversion gives them, [frames, bytes]."""
    words = ["-i", f"file:{path}", "-map", "0:v:0", "-f", "rawvideo", "-pix_fmt", pixel_format]
    raw = ffmpeg(*words, "-sws_flags", "accurate_rnd+full_chroma_int+full_chroma_inp", "pipe:1")
    count = len(packet_times(path, find_tools()))
    return np.frombuffer(raw, np.uint8).reshape(count, -1).astype(int)


def luma_difference(one: Path, other: Path, frames: slice = slice(None)) -> float:
    """Mean over frames, of 255; the frames of `one` are picked."""
    return float(np.abs(decoded(one, "gray")[frames] - decoded(other, "gray")).mean())


def asked(path: Path, *entries: str) -> str:
    words = ["ffprobe", "-v", "error", "-of", "csv=p=0", *entries, f"file:{path}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def restored(
    source: Path,
    target: str,
    model: Any = None,
    wishes: Wishes | None = None,
    progress: Callable[[Step], None] = lambda step: None,
) -> Report:
    tools, wishes, choices = find_tools(), wishes or Wishes(), Choices()
    how = plan(source, Path(target), wishes, tools)
    model = model or Fake()
    return restore_video(how, wishes, model, choices, tools, made_by="fake", progress=progress)


def test_rgb_through_an_identity_is_exact() -> None:
    source = clip("in.mkv", *LOSSLESS, "-pix_fmt", "bgr0")
    report = restored(source, "out.mkv", wishes=Wishes(codec="ffv1"))
    assert np.array_equal(decoded(source), decoded(Path("out.mkv")))
    assert (report.frames, report.codec) == (12, "ffv1")


def test_what_the_network_gives_is_kept_exactly_by_ffv1() -> None:
    source = clip("in.mkv", *LOSSLESS, "-pix_fmt", "bgr0")
    restored(source, "out.mkv", Fake(scale=2), Wishes(codec="ffv1", segment=5))
    before = decoded(source).reshape(12, 48, 64, 3)
    after = decoded(Path("out.mkv")).reshape(12, 96, 128, 3)
    assert np.array_equal(before.repeat(2, 1).repeat(2, 2), after)


def test_sixteen_bits_through_an_identity_are_exact() -> None:
    source = clip("in.mkv", *LOSSLESS, "-pix_fmt", "gbrp16le")
    restored(source, "out.mkv", wishes=Wishes(codec="ffv1"))
    pixels = [decoded(path, "gbrp16le") for path in (source, Path("out.mkv"))]
    assert np.array_equal(*pixels)


COLOURS = ("0x3366cc", "0xf0e020", "0x808080", "0x10c040")


@pytest.mark.parametrize(
    ("matrix", "span"),
    [("bt709", "tv"), ("smpte170m", "pc"), ("smpte170m", "tv"), ("bt2020nc", "tv")],
)
def test_colours_come_back(matrix: str, span: str) -> None:
    """YUV to RGB of 8 bits and back: two roundings, of half a step each, and the codec's own."""
    name = {"bt2020nc": "bt2020"}.get(matrix, matrix)
    chain = f"scale=out_color_matrix={name}:out_range={span},format=yuv420p"
    plain = [f"color=c={c}:size=32x32:rate=25:duration=0.04[{n}]" for n, c in enumerate(COLOURS)]
    graph = f"{';'.join(plain)};[0][1][2][3]concat=n=4,{chain}"
    tags = ("-colorspace", matrix, "-color_range", span)
    ffmpeg("-f", "lavfi", "-i", graph, "-c:v", "libx264", "-qp", "0", *tags, "in.mp4")
    restored(Path("in.mp4"), "out.mp4", wishes=Wishes(crf=1))
    before, after = decoded(Path("in.mp4"), "yuv420p"), decoded(Path("out.mp4"), "yuv420p")
    assert np.abs(before - after).max() <= 2
    said = asked(Path("out.mp4"), "-show_entries", "stream=color_range,color_space")
    assert said == f"{span},{matrix}"


def test_small_videos_that_do_not_say_their_colours_are_labelled() -> None:
    """Players take an unlabelled large result for BT.709, and the small source for BT.601."""
    source = clip("in.mp4", *X264)
    restored(source, "out.mp4", Fake(scale=4))
    assert asked(Path("out.mp4"), "-show_entries", "stream=color_space") == "smpte170m"


def test_ten_bits_stay_ten_bits() -> None:
    source = clip("in.mkv", *LOSSLESS, "-pix_fmt", "yuv420p10le", "-colorspace", "bt709")
    report = restored(source, "out.mkv", wishes=Wishes(crf=4))
    assert report.codec == "hevc"
    assert asked(Path("out.mkv"), "-show_entries", "stream=pix_fmt") == "yuv420p10le"


def test_gray_stays_gray() -> None:
    source = clip("in.mkv", *LOSSLESS, "-pix_fmt", "gray")
    model = Fake(in_channels=1)
    restored(source, "out.mkv", model, Wishes(codec="ffv1"))
    assert asked(Path("out.mkv"), "-show_entries", "stream=pix_fmt") == "gray"
    assert np.abs(decoded(source, "gray") - decoded(Path("out.mkv"), "gray")).max() <= 1


@pytest.mark.parametrize("rate", ["25", "30000/1001"])
def test_times_and_sound_are_the_sources(rate: str, tools: Tools) -> None:
    source = clip("in.mp4", *X264, *AAC, rate=rate, sound=True)
    report = restored(source, "out.mp4", wishes=Wishes(segment=5))
    assert packet_times(Path("out.mp4"), tools) == packet_times(source, tools)
    sums = [
        ffmpeg("-i", p, "-map", "0:a", "-c", "copy", "-f", "md5", "-")
        for p in ("in.mp4", "out.mp4")
    ]
    assert sums[0] == sums[1]
    assert report.notes == []


IRREGULAR = "settb=1/90000,setpts='N*3003+gte(N,4)*7001+gte(N,9)*40'"


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv", "out.webm"])
def test_irregular_times_are_kept(target: str, tools: Tools) -> None:
    words = [*tools.every_frame, "-enc_time_base", "1:90000", "-video_track_timescale", "90000"]
    source = clip("in.mp4", *X264, *words, filters=IRREGULAR)
    before = packet_times(source, tools)
    assert len({b - a for a, b in pairwise(before)}) > 1
    restored(source, target, wishes=Wishes(segment=5))
    after = packet_times(Path(target), tools)
    tolerance = 0 if target == "out.mp4" else Fraction(1, 1000)
    assert len(after) == len(before)
    assert max(abs(a - b) for a, b in zip(after, before, strict=True)) <= tolerance


def test_a_video_that_begins_after_its_sound_does_so_in_the_result(tools: Tools) -> None:
    clip("plain.mp4", *X264, *AAC, sound=True)
    words = ["-i", "plain.mp4", "-itsoffset", "0.2", "-i", "plain.mp4"]
    ffmpeg(*words, "-map", "1:v", "-map", "0:a", "-c", "copy", "in.mkv")
    restored(Path("in.mkv"), "out.mkv", wishes=Wishes(segment=4))
    lags = [
        packet_times(path, tools)[0] - (first_time(path, "a:0", tools) or 0)
        for path in (Path("in.mkv"), Path("out.mkv"))
    ]
    # Matroska cannot say that sound begins before 0: then all begins later, to the millisecond
    assert abs(lags[1] - lags[0]) <= Fraction(2, 1000)
    assert lags[0] > Fraction(1, 10)


def test_a_transport_stream_begins_where_it_likes(tools: Tools) -> None:
    source = clip("in.ts", *X264, *AAC, sound=True)
    restored(source, "out.mkv", wishes=Wishes(segment=4))
    start = Fraction(asked(source, "-show_entries", "format=start_time"))
    before = [t - start for t in packet_times(source, tools)]
    after = packet_times(Path("out.mkv"), tools)
    assert max(abs(a - b) for a, b in zip(after, before, strict=True)) <= Fraction(1, 1000)


def test_subtitles_chapters_cover_and_tags_go_along() -> None:
    clip("plain.mkv", *X264, *AAC, sound=True)
    Path("s.srt").write_text("1\n00:00:00,100 --> 00:00:00,400\nWords\n\n")
    Path("m.txt").write_text(
        ";FFMETADATA1\ntitle=A title\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=100\nEND=300\ntitle=One\n"
    )
    Path("font.ttf").write_bytes(b"no font")
    words = ["-i", "plain.mkv", "-i", "s.srt", "-i", "m.txt", "-map", "0", "-map", "1"]
    words += ["-map_metadata", "2", "-map_chapters", "2", "-c", "copy", "-c:s", "srt"]
    words += ["-metadata:s:a:0", "language=fra", "-metadata:s:v:0", "language=deu"]
    words += ["-attach", "font.ttf", "-metadata:s:t", "mimetype=application/x-truetype-font"]
    ffmpeg(*words, "in.mkv")
    restored(Path("in.mkv"), "out.mkv")
    out = Path("out.mkv")
    kinds = asked(out, "-show_entries", "stream=codec_type").split()
    assert kinds == ["video", "audio", "subtitle", "attachment"]
    assert asked(out, "-show_entries", "format_tags=title") == "A title"
    assert asked(out, "-show_entries", "stream_tags=language").split()[:2] == ["deu", "fra"]
    begun = [
        Fraction(asked(path, "-show_entries", "chapter=start_time").split(",")[0])
        - packet_times(path, find_tools())[0]
        for path in (Path("in.mkv"), out)
    ]
    assert abs(begun[0] - begun[1]) <= Fraction(2, 1000)


def test_subtitles_become_those_of_another_container() -> None:
    clip("plain.mkv", *X264)
    Path("s.srt").write_text("1\n00:00:00,100 --> 00:00:00,400\nWords\n\n")
    ffmpeg("-i", "plain.mkv", "-i", "s.srt", "-map", "0", "-map", "1", "-c", "copy", "in.mkv")
    report = restored(Path("in.mkv"), "out.mp4")
    assert "subtitle stream 1 (subrip) becomes mov_text" in report.notes
    assert "mov_text" in asked(Path("out.mp4"), "-show_entries", "stream=codec_name")


def test_sound_that_does_not_fit_is_told_before_anything_is_computed() -> None:
    source = clip("in.mkv", *X264, "-c:a", "pcm_s16le", sound=True)
    model = Fake()
    with pytest.raises(VideoError, match=r"audio stream 1 \(pcm_s16le\) does not go into \.webm"):
        restored(source, "out.webm", model)
    assert model.sizes == []
    assert not Path("out.webm.parts").exists()


def test_a_few_frames_with_their_sound(tools: Tools) -> None:
    source = clip("in.mp4", *X264, *AAC, sound=True)
    report = restored(source, "out.mp4", wishes=Wishes(crf=1, first=4, last=9))
    assert report.frames == 6
    assert luma_difference(source, Path("out.mp4"), slice(3, 9)) < 1
    times = packet_times(Path("out.mp4"), tools)
    assert times == [Fraction(n, 25) for n in range(6)]
    length = float(
        asked(Path("out.mp4"), "-select_streams", "a", "-show_entries", "stream=duration")
    )
    assert abs(length - 0.24) < 0.05  # sound is cut at its own packets of 21 ms
    with pytest.raises(UsageError, match=r"--frames 4-99: in\.mp4 has 12 frames"):
        restored(source, "more.mp4", wishes=Wishes(first=4, last=99))


def test_odd_sides_grow_and_pixels_keep_their_shape() -> None:
    source = clip("in.mkv", *LOSSLESS, "-pix_fmt", "bgr0", filters="scale=33:27,setsar=4/3")
    report = restored(source, "out.mp4")
    assert asked(Path("out.mp4"), "-show_entries", "stream=width,height") == "34,28"
    assert asked(Path("out.mp4"), "-show_entries", "stream=sample_aspect_ratio") == "4:3"
    assert report.after == (34, 28)
    assert "33x27 grew to 34x28" in report.notes[0]
    restored(source, "out.mkv", wishes=Wishes(codec="ffv1"))
    assert asked(Path("out.mkv"), "-show_entries", "stream=width,height") == "33,27"


def test_a_turned_video_comes_out_upright(tools: Tools) -> None:
    clip("plain.mp4", *X264)
    if tools.number is not None and tools.number < (6, 0):
        turn = ["-i", "plain.mp4", "-c", "copy", "-metadata:s:v:0", "rotate=90"]
    else:
        turn = ["-display_rotation", "270", "-i", "plain.mp4", "-c", "copy"]
    ffmpeg(*turn, "in.mp4")
    report = restored(Path("in.mp4"), "out.mp4", wishes=Wishes(crf=1))
    assert (report.before, report.after) == ((48, 64), (48, 64))
    assert "turned upright" in report.notes[0]
    assert luma_difference(Path("in.mp4"), Path("out.mp4")) < 1
    assert probe_video(Path("out.mp4"), tools).rotation == 0


@pytest.mark.slow
def test_transparency_is_kept_or_refused() -> None:
    filters = "format=rgba,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='255*gt(X,32)'"
    source = clip("in.mkv", *LOSSLESS, "-pix_fmt", "bgra", filters=filters)
    restored(source, "out.mkv")
    before, after = (decoded(p, "rgba").reshape(-1, 4) for p in (source, Path("out.mkv")))
    assert np.array_equal(before[:, 3], after[:, 3])
    seen = before[:, 3] > 0  # where nothing is seen, colours of neighbours are spread
    assert np.array_equal(before[seen], after[seen])
    with pytest.raises(VideoError, match="has transparency"):
        restored(source, "out.mp4")
    restored(source, "out.mov")
    assert asked(Path("out.mov"), "-show_entries", "stream=pix_fmt") == "yuva444p12le"
    restored(source, "out.webm")
    info = probe_video(Path("out.webm"), find_tools())
    assert info.pixels.alpha
    restored(Path("out.webm"), "again.webm")
    assert probe_video(Path("again.webm"), find_tools()).pixels.alpha


def test_the_last_frame_is_shown_as_long(tools: Tools) -> None:
    if tools.number is not None and tools.number < (5, 1):
        pytest.skip("needs an option of ffmpeg 5.1")
    words = [
        *tools.every_frame,
        "-enc_time_base",
        "1:1000",
        "-bf",
        "0",
        "-video_track_timescale",
        "10000",
    ]
    # in the tick of the muxer or the encoder, which depends on the version: 3 s or 30
    words += ["-bsf:v", "setts=pts=PTS:dts=DTS:duration=if(eq(N\\,11)\\,30000\\,DURATION)"]
    slow = "settb=1/1000,setpts='N*40+gte(N,4)*7'"
    source = clip("in.mp4", *X264, *words, filters=slow)
    restored(source, "out.mp4")
    lengths = [
        float(asked(p, "-show_entries", "format=duration")) for p in (source, Path("out.mp4"))
    ]
    assert lengths[0] > 3
    assert abs(lengths[1] - lengths[0]) < 0.01


def test_interlaced_videos_are_refused_or_deinterlaced() -> None:
    interlaced = ("-c:v", "libx264", "-flags", "+ildct+ilme", "-x264-params", "tff=1")
    source = clip("in.mp4", *interlaced, "-pix_fmt", "yuv420p", filters="setfield=tff")
    with pytest.raises(VideoError, match=r"is interlaced \(tt\).*--interlaced deinterlace"):
        restored(source, "out.mp4")
    report = restored(source, "out.mp4", wishes=Wishes(fields="deinterlace"))
    assert (report.frames, "bwdif" in report.notes[0]) == (12, True)
    assert asked(Path("out.mp4"), "-show_entries", "stream=field_order") == "progressive"
    assert restored(source, "same.mp4", wishes=Wishes(fields="ignore")).frames == 12


def test_equal_frames_are_computed_once() -> None:
    source = clip("in.mkv", frames=12, rate="5", filters="fps=20")
    model = Fake()
    report = restored(source, "out.mkv", model)
    assert (report.frames, report.repeated, len(model.sizes)) == (12, 9, 3)


def test_several_segments_are_one_video(tools: Tools) -> None:
    source = clip("in.mkv", *LOSSLESS, "-pix_fmt", "bgr0", frames=23)
    restored(source, "out.mkv", wishes=Wishes(codec="ffv1", segment=4))
    assert np.array_equal(decoded(source), decoded(Path("out.mkv")))
    assert packet_times(Path("out.mkv"), tools) == packet_times(source, tools)
    assert sorted(os.listdir()) == ["in.mkv", "out.mkv"]


def stop_at(frame: int) -> Callable[[Step], None]:
    def progress(step: Step) -> None:
        if step.stage == "restoring" and step.done == frame:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_run_goes_on() -> None:
    source = clip("in.mkv", *LOSSLESS, "-pix_fmt", "bgr0", frames=23)
    wishes = Wishes(codec="ffv1", segment=4)
    with pytest.raises(KeyboardInterrupt):
        restored(source, "out.mkv", wishes=wishes, progress=stop_at(10))
    assert not Path("out.mkv").exists()
    work = Path("out.mkv.parts")
    assert sorted(p.name for p in work.iterdir()) == [
        *("journal.json", "lock", "segment-000000.mov", "segment-000001.mov")
    ]
    with pytest.raises(OutputError, match="--codec was ffv1"):
        restored(source, "out.mkv", wishes=Wishes(codec="h264", segment=4))
    (work / "segment-000000.mov").unlink()
    model = Fake()
    report = restored(source, "out.mkv", model, wishes)
    assert (report.resumed, len(model.sizes)) == (4, 19)
    assert np.array_equal(decoded(source), decoded(Path("out.mkv")))
    assert not work.exists()


def test_a_damaged_segment_is_found_and_made_again() -> None:
    source = clip("in.mkv", *LOSSLESS, "-pix_fmt", "bgr0", frames=12)
    wishes = Wishes(codec="ffv1", segment=4)
    with pytest.raises(KeyboardInterrupt):
        restored(source, "out.mkv", wishes=wishes, progress=stop_at(10))
    work = Path("out.mkv.parts")
    fewer = ["-i", str(work / "segment-000000.mov"), "-frames:v", "2", "-c", "copy"]
    ffmpeg(*fewer, "-f", "mov", str(work / "segment-000001.mov"))
    with pytest.raises(OutputError, match="segments 2 were damaged and are removed"):
        restored(source, "out.mkv", wishes=wishes)
    restored(source, "out.mkv", wishes=wishes)
    assert np.array_equal(decoded(source), decoded(Path("out.mkv")))


def test_a_video_that_is_cut_short_is_not_taken_for_whole() -> None:
    source = clip("whole.mkv", *X264, frames=60)
    Path("in.mkv").write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    model = Fake()
    with pytest.raises(VideoError, match=r"in\.mkv: .*--frames 1-\d+ restores these") as caught:
        restored(Path("in.mkv"), "out.mkv", model)
    assert model.sizes == []
    last = int(str(caught.value).split("--frames 1-")[1].split()[0])
    assert 10 < last < 60
    assert restored(Path("in.mkv"), "out.mkv", wishes=Wishes(last=last)).frames == last


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cannot be read as a video"),
        (b"no video at all, just words" * 100, "cannot be read as a video"),
    ],
)
def test_files_that_are_no_videos(content: bytes, told: str) -> None:
    Path("in.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=told):
        restored(Path("in.mp4"), "out.mp4")


def test_sound_alone_is_no_video() -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.2", "-c:a", "aac", "in.mp4")
    with pytest.raises(VideoError, match="holds no video stream, only audio"):
        restored(Path("in.mp4"), "out.mp4")


AWKWARD = ["-dash.mp4", "a b'c\"d.mp4", "per%03dcent.mp4", "new\nline.mp4", "emo\U0001f600ji.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such names there")
@pytest.mark.parametrize("name", [*AWKWARD, "a:b,c;[d].mp4", "\\back.mp4"])
def test_any_name_works(name: str) -> None:
    clip("plain.mp4", *X264)
    os.makedirs("in", exist_ok=True)
    Path("plain.mp4").rename(Path("in") / name)
    os.chdir("in")
    restored(Path(name), f"../out/{name}", wishes=Wishes(segment=5))
    assert (Path("../out") / name).is_file()


@pytest.mark.slow
def test_every_codec_that_is_there_writes_a_video(tools: Tools) -> None:
    source = clip("in.mp4", *X264, size="128x96")  # AV1's encoder wants 64 pixels
    info = probe_video(source, tools)
    targets = {
        "h264": "mp4",
        "hevc": "mp4",
        "av1": "mkv",
        "vp9": "webm",
        "prores": "mov",
        "ffv1": "mkv",
    }
    made = []
    for codec, suffix in targets.items():
        target = f"{codec}.{suffix}"
        try:
            choose(info, Path(target), codec, None, tools)  # type: ignore[arg-type]
        except UsageError:
            continue
        restored(source, target, wishes=Wishes(codec=codec, segment=5))  # type: ignore[arg-type]
        assert luma_difference(source, Path(target)) < 6, codec
        made.append(codec)
    assert "ffv1" in made


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny_x2.safetensors"
    tiny(2).save(path)
    return path


def upscale(weights: Path, *words: str) -> int:
    return cli.main(["upscale", "--model_path", str(weights), "--threads", "1", *words])


def test_the_command_takes_videos_and_pictures(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in").mkdir()
    clip("in/clip.mp4", *X264, *AAC, sound=True)
    write_picture(Path("in/a.png"), Picture(np.zeros((9, 9, 3), np.uint8)), fmt="png")
    assert upscale(weights, "in") == 0
    told = capsys.readouterr().out
    assert "clip.mp4 64x48 -> 128x96, 12 frames, h264" in told
    assert sorted(os.listdir("results")) == ["a.png", "clip.mp4"]
    assert upscale(weights, "in/clip.mp4", "--skip-existing") == 0
    assert "skipped: results/clip.mp4 is there" in capsys.readouterr().out
    assert upscale(weights, "in/clip.mp4", "-o", "new.mkv", "-s", "1.5", "--codec", "ffv1") == 0
    assert asked(Path("new.mkv"), "-show_entries", "stream=width,height").split()[0] == "96,72"


def test_a_video_that_fails_does_not_stop_the_others(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip("good.mp4", *X264)
    Path("bad.mp4").write_bytes(b"broken")
    assert upscale(weights, "bad.mp4", "good.mp4") == 1
    told = capsys.readouterr()
    assert "[1/2] failed: bad.mp4: cannot be read as a video" in told.err
    assert os.listdir("results") == ["good.mp4"]


def test_a_dry_run_lists_videos(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip("clip.mp4", *X264)
    Path("bad.mp4").write_bytes(b"broken")
    assert upscale(weights, "clip.mp4", "bad.mp4", "--dry-run") == 1
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("clip.mp4"))
    assert row.split()[1:4] == ["64x48", "128x96", "12"]
    assert any("cannot be restored: bad.mp4" in line for line in lines)
    assert sorted(os.listdir()) == ["bad.mp4", "clip.mp4"]


def test_options_of_pictures_are_refused_for_videos_alone(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip("clip.mp4", *X264)
    assert upscale(weights, "clip.mp4", "--compare") == 2
    assert "--compare is for pictures" in capsys.readouterr().err


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, tools: Tools) -> None:
    """/dev/full takes nothing; a link to it stands for a disk."""
    from restore.video import programs

    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    words = programs.ffmpeg_words(tools, "-f", "lavfi", "-i", "testsrc2=size=640x480:duration=2")
    words += ["-f", "rawvideo", "-y", "file:/dev/full"]
    full = pytest.raises(OutputError, match="the disk is full; free some space")
    with programs.Running(words) as program, full:
        programs.check_written(program, "clip.mp4")


def test_much_on_standard_error_does_not_block(tools: Tools) -> None:
    from restore.video import programs

    words = [tools.ffmpeg, "-nostdin", "-f", "lavfi", "-i"]
    words += ["testsrc2=size=32x32:duration=40,showinfo", "-f", "null", "-"]
    with programs.Running(words) as program:
        assert program.finish() == 0
    assert program.complaints > 1000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_a_killed_command_goes_on_to_the_same_frames(weights: Path, root: Path) -> None:
    source = clip("in.mkv", *LOSSLESS, "-pix_fmt", "bgr0", frames=60, size="128x96")
    command = [
        sys.executable,
        "-m",
        "restore",
        "upscale",
        str(source),
        "--model_path",
        str(weights),
    ]
    command += ["--codec", "ffv1", "--segment", "4", "--threads", "1", "-q", "-o"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([*command, "whole.mkv"], check=True, env=environment)
    random = np.random.default_rng(0)
    done, kills = 0, 0
    for _ in range(4):
        process = subprocess.Popen([*command, "killed.mkv"], env=environment)
        want = done + int(random.integers(1, 4))
        while process.poll() is None and segments() < want:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))
        kills += process.poll() is None
        process.kill()
        process.wait()
        assert segments() >= done
        done = segments()
    assert kills >= 2
    subprocess.run([*command, "killed.mkv"], check=True, env=environment)
    assert np.array_equal(decoded(Path("whole.mkv")), decoded(Path("killed.mkv")))
    assert sorted(os.listdir()) == ["in.mkv", "killed.mkv", "whole.mkv"]


def segments() -> int:
    return len(list(Path("killed.mkv.parts").glob("segment-*.mov")))
