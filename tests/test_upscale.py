"""The engine: tiles leave no trace, memory may run out, every kind of picture keeps its kind."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from _fake_models import Blur, Fake, Windows, out_of_memory_above
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from restore.archs import ARCHS
from restore.errors import ImageError, OutOfMemoryError, RestoreError, UsageError
from restore.image_io import Picture
from restore.model import Model
from restore.resizing import imresize
from restore.upscaling import (
    Progress,
    RunReport,
    engine,
    output_size,
    upscale,
    upscale_picture,
    upscale_rows,
    verify_tiles,
)
from restore.upscaling.engine import Blocks
from restore.upscaling.network import Network
from restore.upscaling.pixels import ArraySource
from restore.upscaling.progress import Tracker
from restore.upscaling.resize_rows import resized
from restore.upscaling.rows import whole_bands
from restore.upscaling.workers import PlainWorker

# Up to four shares of a value in 0..1, each a product rounded once, and three sums rounded once.
BLEND_ERROR = 8 * 2.0**-25


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Float32 multiples of 1/256 in 0..1, [H, W, C]."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 257, (height, width, channels)) / 256).astype(np.float32)


def direct(model: Fake, image: np.ndarray) -> np.ndarray:
    """The model over a whole picture, without the engine."""
    x = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
    return model(x)[0].numpy().transpose(1, 2, 0)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_whole_picture_is_the_model_bit_for_bit(scale: int) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 3 * scale**2, 3, padding=1)

    class Conv(Fake):
        def enlarge(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pixel_shuffle(conv(x), self.scale).sigmoid()

    image = picture(37, 53)
    with torch.inference_mode():
        want = direct(Conv(scale=scale), image)
    assert (upscale(image, Conv(scale=scale), tile=0) == want).all()


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    scale=st.integers(1, 3),
    tile=st.integers(20, 70),
    pad=st.integers(4, 20),
    align=st.sampled_from([1, 7, 8, 12]),
)
def test_tiles_with_enough_context_leave_no_trace(
    height: int, width: int, scale: int, tile: int, pad: int, align: int
) -> None:
    model = Blur(scale=scale, align=align)
    image = picture(height, width)
    got = upscale(image, model, tile=tile, tile_pad=pad)
    assert np.abs(got - direct(model, image)).max() <= BLEND_ERROR


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile=st.integers(20, 70),
    pad=st.integers(0, 20),
    align=st.sampled_from([2, 4, 8]),
)
def test_tiles_see_the_windows_of_the_whole_picture(
    height: int, width: int, tile: int, pad: int, align: int
) -> None:
    model = Windows(scale=2, align=align)
    image = picture(height, width)
    got = upscale(image, model, tile=tile, tile_pad=pad)
    assert np.abs(got - direct(model, image)).max() <= BLEND_ERROR


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    tile=st.just(0) | st.integers(12, 40),
    pad=st.integers(0, 12),
)
@settings(max_examples=60, deadline=None)
def test_bytes_pass_through_tiles_unchanged(height: int, width: int, tile: int, pad: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    got = upscale(image, Fake(scale=2), tile=tile, tile_pad=pad)
    assert got.dtype == np.uint8
    assert (got == image.repeat(2, 0).repeat(2, 1)).all()


def test_tiles_that_disagree_meet_in_a_ramp_not_in_an_edge() -> None:
    class Moody(Fake):
        def compute(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
            return x + (len(self.sizes) % 2) / 8

    image = np.full((128, 128, 3), 0.5, np.float32)
    got = upscale(image, Moody(scale=2), tile=32, tile_pad=16)
    # 16 output pixels of ramp between values 1/8 apart, and a level of rounding
    step = 1 / 8 / 16 + 1 / 8 / 256 + BLEND_ERROR
    assert np.abs(np.diff(got, axis=0)).max() <= step
    assert np.abs(np.diff(got, axis=1)).max() <= step
    assert np.ptp(got) == pytest.approx(1 / 8, abs=BLEND_ERROR)


def test_all_tiles_of_a_picture_have_one_shape() -> None:
    model = Fake(align=8)
    upscale(picture(200, 304), model, tile=64, tile_pad=16)
    assert len(set(model.sizes)) == 1


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(33, 140),
    width=st.integers(33, 140),
    scale=st.integers(1, 2),
    tile=st.integers(33, 140) | st.just(0),
    pad=st.integers(4, 12),
    align=st.sampled_from([1, 8, 12, 96]),
    pixels=st.integers(96**2, 140**2),  # 96: a tile of 32 and a halo of 12 rounded up to 32,
)
def test_tiles_shrink_until_they_fit(
    height: int, width: int, scale: int, tile: int, pad: int, align: int, pixels: int
) -> None:
    model = Blur(scale=scale, align=align, before=out_of_memory_above(pixels))
    image = picture(height, width)
    got = upscale(image, model, tile=tile, tile_pad=pad)
    assert np.abs(got - direct(Blur(scale=scale), image)).max() <= BLEND_ERROR


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(33, 200),
    width=st.integers(33, 100),
    scale=st.integers(1, 2),
    tile=st.integers(33, 90),
    pad=st.integers(4, 40),
    align=st.sampled_from([1, 8, 48]),
    fails=st.sets(st.integers(1, 30), min_size=1, max_size=2),
    error=st.sampled_from(
        [
            torch.OutOfMemoryError("CUDA out of memory"),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
            MemoryError(),
        ]
    ),
)
def test_memory_may_run_out_at_any_call(
    height: int,
    width: int,
    scale: int,
    tile: int,
    pad: int,
    align: int,
    fails: set[int],
    error: Exception,
) -> None:
    model = Blur(scale=scale, align=align)

    def at_some_calls(x: torch.Tensor) -> None:
        if len(model.sizes) in fails:
            raise error

    model.before = at_some_calls
    image = picture(height, width)
    steps: list[Progress] = []
    try:
        got = upscale(image, model, tile=tile, tile_pad=pad, progress=steps.append)
    except OutOfMemoryError:
        # tiles that cannot become smaller: every failure but the last was answered
        reached = [n for n in fails if n <= len(model.sizes)]
        assert len([s for s in steps if s.message]) == len(reached) - 1
        return
    # a tile in parts is blended from parts of its own first
    assert np.abs(got - direct(Blur(scale=scale), image)).max() <= 2 * BLEND_ERROR
    assert steps[-1].done == steps[-1].total
    reached = [n for n in fails if n <= len(model.sizes)]
    assert len([s for s in steps if s.message]) == len(reached)


def test_the_report_tells_of_smaller_tiles() -> None:
    model = Blur(align=8, before=out_of_memory_above(100**2))
    report = RunReport()
    source = _picture_of(picture(256, 256))
    upscale_picture(source, model, tile=128, tile_pad=8, report=report)
    assert (report.tile, report.tile_pad, report.halvings) == (64, 8, 1)
    assert report.tiles == 16
    assert report.notes == ["out of memory; going on with tiles of 64 pixels"]
    assert report.seconds > 0


def test_no_room_for_the_smallest_tile() -> None:
    model = Fake(before=out_of_memory_above(100), name="big.pth")
    with pytest.raises(OutOfMemoryError, match=r"big\.pth: cpu has no room for a tile of 32 pix"):
        upscale(picture(96, 96), model, tile=0, tile_pad=4)


def test_other_errors_are_not_taken_for_a_shortage() -> None:
    def broken(x: torch.Tensor) -> None:
        raise RuntimeError("expected scalar type Half")

    with pytest.raises(RuntimeError, match="expected scalar type Half"):
        upscale(picture(8, 8), Fake(before=broken))


@pytest.mark.parametrize(("most", "batches", "halvings"), [(9, {4, 1}, 0), (3, {2, 1}, 1)])
def test_tiles_of_a_row_may_go_in_batches(most: int, batches: set[int], halvings: int) -> None:
    model = Blur(scale=2, align=8, before=out_of_memory_above(most * 48 * 48))
    image = picture(64, 5 * 32)
    tracker = Tracker()
    blocks = Blocks(
        ArraySource(image),
        PlainWorker(Network(model, 3, tta=False, tracker=tracker)),
        tile=32,
        tile_pad=8,
        batch=4,
        tracker=tracker,
    )
    bands = whole_bands(blocks, 2 * 5 * 32, 3)
    got = np.concatenate([rows for _, rows in bands])
    assert np.abs(got - direct(Blur(scale=2), image)).max() <= BLEND_ERROR
    assert {size[0] for size in model.sizes[halvings:]} == batches
    assert (tracker.report.halvings, tracker.report.tile) == (halvings, 32)


def test_rows_go_through_with_a_band_in_memory() -> None:
    image = picture(1000, 40)

    class Source:
        height, width, channels = image.shape
        dtype = image.dtype
        most = 0

        def read(self, y0: int, y1: int) -> np.ndarray:
            self.most = max(self.most, y1 - y0)
            return image[y0:y1]

    class Sink:
        pieces: list[np.ndarray] = []  # noqa: RUF012

        def write(self, rows: np.ndarray) -> None:
            self.pieces.append(rows)

    source, sink = Source(), Sink()
    report = upscale_rows(source, sink, Blur(scale=2), tile=40, tile_pad=8)
    assert source.most == 40 + 2 * 8
    assert max(map(len, sink.pieces)) <= 2 * (40 + 2)
    assert (np.concatenate(sink.pieces) == upscale(image, Blur(scale=2), tile=40, tile_pad=8)).all()
    assert (report.tiles, report.tile) == (25, 40)


class Pieces:
    """A sink of blocks, which keeps them."""

    def __init__(self) -> None:
        self.blocks: list[tuple[int, int, np.ndarray]] = []

    def write_block(self, top: int, left: int, pixels: np.ndarray) -> None:
        self.blocks.append((top, left, pixels))


@pytest.mark.parametrize("outscale", [2, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_blocks_cover_the_result_once(channels: int, outscale: int) -> None:
    image = picture(150, 130, channels)
    sink = Pieces()
    arguments: dict[str, Any] = {"tile": 40, "tile_pad": 8, "outscale": outscale}
    upscale_rows(ArraySource(image), sink, Blur(scale=2), **arguments)
    want = upscale(image, Blur(scale=2), **arguments)
    got, times = np.zeros_like(want), np.zeros(want.shape[:2], int)
    for top, left, pixels in sink.blocks:
        part = slice(top, top + pixels.shape[0]), slice(left, left + pixels.shape[1])
        got[part], times[part] = pixels, times[part] + 1
    assert (times == 1).all()
    assert (got == want).all()
    if outscale == 2:
        # blocks of about a tile, not of a row of tiles
        assert max(pixels.shape[1] for _, _, pixels in sink.blocks) <= 2 * (40 + 2)


def test_tiles_are_lower_where_a_row_of_them_would_hold_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = picture(300, 200)
    model = Blur(scale=2, align=8)
    want = upscale(image, model, tile=96, tile_pad=8)
    held = []

    class Source(ArraySource):
        def read(self, y0: int, y1: int) -> np.ndarray:
            held.append(3 * (y1 - y0) * 200 * 3 * 4)
            return super().read(y0, y1)

    monkeypatch.setattr(engine, "ROW_BYTES", 600_000)
    sink = Pieces()
    upscale_rows(Source(image), sink, model, tile=96, tile_pad=8)
    # of 83 rows that 600,000 bytes hold, the halos take 16, and cores are multiples of 8
    assert max(held) == 3 * (64 + 16) * 200 * 3 * 4
    got = np.zeros_like(want)
    for top, left, pixels in sink.blocks:
        got[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    assert np.abs(got - want).max() <= 2 * BLEND_ERROR


class Plus(Fake):
    """Adds a constant."""

    amount: float = 0.0

    def compute(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return x + self.amount


@pytest.mark.parametrize(("part", "want"), [(0.4, 0), (0.6, 1), (-0.4, 0), (-0.6, -1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=str)
def test_integers_are_rounded_not_truncated(dtype: Any, part: float, want: int) -> None:
    largest = np.iinfo(dtype).max
    image = np.arange(1, 256, dtype=dtype)[None, :, None] * np.ones((1, 1, 3), dtype)
    model = Plus()
    model.amount = part / largest
    expected = np.clip(image.astype(int) + want, 0, largest)
    assert (upscale(image, model, tile=0) == expected).all()


def test_every_16_bit_value_survives() -> None:
    image = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    assert (upscale(image, Fake(in_channels=1), tile=0) == image).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=str)
def test_floats_keep_their_type_and_are_clipped(dtype: Any) -> None:
    model = Plus()
    model.amount = 0.75
    got = upscale(picture(9, 5).astype(dtype), model)
    assert got.dtype == dtype
    assert got.max() == 1
    assert got.min() >= 0.75


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 1), (6, 7, 2), (6, 7, 3), (6, 7, 4)], ids=str)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_every_channel_count_through_every_network(
    shape: tuple[int, ...], in_channels: int
) -> None:
    image = np.random.default_rng(0).integers(1, 256, shape, np.uint8)
    if shape[-1] in (2, 4):
        image[..., -1] |= 128  # visible everywhere, so that no colour is filled in
    got = upscale(image, Fake(scale=2, in_channels=in_channels))
    assert (got == image.repeat(2, 0).repeat(2, 1)).all()


def test_big_endian_and_strided_arrays() -> None:
    image = np.arange(48, dtype=np.uint16).reshape(4, 4, 3)
    assert (upscale(image.astype(">u2"), Fake()) == image).all()
    assert (upscale(image[::-1, ::-2], Fake()) == image[::-1, ::-2]).all()


def test_gray_is_the_mean_of_three_outputs() -> None:
    class Tint(Fake):
        def compute(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
            return x * torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1)

    got = upscale(np.full((4, 4), 0.5, np.float32), Tint())
    assert (got == 0.25).all()


def test_tta_is_the_mean_over_flips_and_turns() -> None:
    class Leaning(Fake):
        def enlarge(self, x: torch.Tensor) -> torch.Tensor:
            return super().enlarge(x.roll(1, 3) / 2)

    image = picture(6, 9)
    want = np.zeros((12, 18, 3))
    for turns in range(4):
        for flip in (False, True):
            seen = np.rot90(image, turns)
            seen = seen[:, ::-1] if flip else seen
            y = direct(Leaning(scale=2), seen)
            want += np.rot90(y[:, ::-1] if flip else y, -turns) / 8
    model = Leaning(scale=2)
    assert (upscale(image, model, tile=0, tta=True) == want.astype(np.float32)).all()
    assert len(model.sizes) == 8


@pytest.mark.parametrize(
    ("mode", "becomes"),
    [
        *((mode, mode) for mode in ("L", "LA", "RGB", "RGBA", "F", "I;16")),
        ("1", "L"),
        ("P", "RGB"),
    ],
)
def test_pillow_images(mode: str, becomes: str) -> None:
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (5, 8), np.uint16))
    elif mode == "F":
        image = Image.fromarray(picture(5, 8, 1)[:, :, 0])
    else:
        pixels = rng.integers(128, 256, (5, 8, 4), np.uint8)
        image = Image.fromarray(pixels).convert("RGB" if mode == "P" else mode).convert(mode)
    image.info["dpi"] = (300, 300)
    image.info["icc_profile"] = b"profile"
    got = upscale(image, Fake(scale=2))
    assert (got.mode, got.size) == (becomes, (16, 10))
    assert got.info == {"dpi": (300, 300), "icc_profile": b"profile"}
    want = np.asarray(image if mode == becomes else image.convert(becomes))
    assert (np.asarray(got) == want.repeat(2, 0).repeat(2, 1)).all()


def test_a_transparent_colour_of_a_pillow_image_becomes_alpha() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 9, 9, 200, 100, 50])
    image.putpixel((0, 0), 0)
    image.info["transparency"] = 0
    got = upscale(image, Fake(scale=1))
    assert got.mode == "RGBA"
    assert np.asarray(got)[..., 3].tolist() == [[0, 255, 255, 255], *[[255] * 4] * 3]
    assert (np.asarray(got)[..., :3] == (200, 100, 50)).all()


def _picture_of(pixels: np.ndarray, alpha: np.ndarray | None = None, **more: Any) -> Picture:
    return Picture(pixels=pixels, alpha=alpha, **more)


def test_a_picture_keeps_what_it_carries() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    alpha = np.full((5, 6), 200, np.uint8)
    source = _picture_of(pixels, alpha, icc=b"x", dpi=(72.0, 72.0), source_format="tiff")
    for got in (upscale_picture(source, Fake(scale=2)), upscale(source, Fake(scale=2))):
        assert (got.icc, got.dpi, got.source_format) == (b"x", (72.0, 72.0), "tiff")
        assert (got.pixels == pixels.repeat(2, 0).repeat(2, 1)).all()
        assert got.alpha is not None
        assert got.alpha.shape == (10, 12)
        assert (got.alpha == 200).all()
    assert source.pixels is pixels


def test_a_path_gives_a_picture(tmp_path: Any) -> None:
    image = Image.new("RGB", (6, 4), (10, 20, 30))
    image.save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        got = upscale(path, Fake(scale=2))
        assert got.pixels.shape == (8, 12, 3)
        assert (got.pixels == (10, 20, 30)).all()


@pytest.mark.parametrize("outscale", [0.01, 0.5, 1, 1.37, 2, 3.3])
@pytest.mark.parametrize("tile", [0, 16])
def test_any_outscale_is_the_models_result_resized(outscale: float, tile: int) -> None:
    image = picture(37, 50)
    model = Blur(scale=2)
    full = np.clip(upscale(image, model, tile=tile, tile_pad=4), 0, 1)
    got = upscale(image, model, tile=tile, tile_pad=4, outscale=outscale)
    size = output_size(37, 50, outscale)
    assert got.shape[:2] == size == (max(1, round(37 * outscale)), max(1, round(50 * outscale)))
    want = full if outscale == 2 else np.clip(imresize(full, size=size), 0, 1)
    assert (got == want).all()


@settings(max_examples=60, deadline=None)
@given(
    old=st.tuples(st.integers(1, 60), st.integers(1, 30)),
    new=st.tuples(st.integers(1, 90), st.integers(1, 60)),
    cuts=st.sets(st.integers(1, 59)),
)
def test_resizing_rows_is_resizing_the_picture(
    old: tuple[int, int], new: tuple[int, int], cuts: set[int]
) -> None:
    image = picture(*old)
    edges = [0, *sorted(c for c in cuts if c < old[0]), old[0]]
    bands = [(a, image[a:b]) for a, b in itertools.pairwise(edges)]
    got = list(resized(bands, old, new))
    starts = np.cumsum([0, *(len(rows) for _, rows in got)])
    assert [top for top, _ in got] == starts[:-1].tolist()
    assert (np.concatenate([rows for _, rows in got]) == imresize(image, size=new)).all()


class Overflowing(Fake):
    """Infinite in half precision where the picture is bright."""

    def compute(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return (x.to(dtype) * 60000 * 2).float() / 120000


def test_half_precision_that_overflows_is_computed_again() -> None:
    image = np.zeros((64, 64, 3), np.float32)
    image[40, 40] = 1  # 120000 is no float16
    model = Overflowing(dtype=torch.float16, halo=0)
    report = RunReport()
    got = upscale_picture(_picture_of(image), model, tile=32, report=report)
    assert np.abs(got.pixels - image).max() <= 2**-10
    assert report.fp32_reruns == 1
    assert report.notes == ["float16 overflowed; tiles where it does are computed again in float32"]


def test_values_that_are_no_numbers_stop_the_run() -> None:
    class Broken(Fake):
        def compute(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
            return torch.where(x == 1, torch.nan, x)

    image = np.zeros((64, 64, 3), np.float32)
    image[40, 10, 1] = 1
    message = r"bad\.pth: 1 values .* in the tile at rows 32\.\.63, columns 0\.\.31"
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(RestoreError, match=message):
            upscale(image, Broken(name="bad.pth", dtype=dtype), tile=32, tile_pad=4)


def test_a_model_of_another_scale_than_it_says() -> None:
    class Liar(Fake):
        def enlarge(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(RestoreError, match=r"\(1, 3, 8, 8\) became \(1, 3, 8, 8\).*scale 2"):
        upscale(picture(8, 8), Liar(scale=2))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 8, 9), np.uint8), r"shape is \(3, 8, 9\).*channels come last"),
        (np.zeros((1, 8, 9, 3), np.uint8), "one image at a time"),
        (np.zeros(5, np.uint8), r"shape is \(5,\); expected \[H, W\]"),
        (np.zeros((0, 5, 3), np.uint8), "it has no pixels"),
        (np.zeros((5, 5, 3), bool), "dtype is bool; expected one of uint8"),
        (np.zeros((5, 5, 3), np.int32), "dtype is int32"),
        (np.full((5, 5, 3), 255.0), "from 255 to 255; expected 0..1; .*divide by 255"),
        (np.full((5, 5), -0.1), "from -0.1 to -0.1; expected 0..1"),
        (np.full((5, 5), np.nan), "values go from nan to nan"),
        (np.full((5, 5), np.inf), "values go from inf to inf"),
        (torch.zeros(3, 5, 5), "is a Tensor; expected a NumPy array"),
        ([[1, 2]], "is a list"),
        (Image.new("CMYK", (4, 4)), 'mode is CMYK; .*image.convert\\("RGB"\\)'),
        (Image.new("I", (4, 4)), "mode is I; expected"),
    ],
    ids=lambda v: str(v)[:20] if isinstance(v, str) else "",
)
def test_pictures_that_cannot_be_taken(image: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        upscale(image, Fake())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outscale": 0}, "outscale: is 0; expected above 0, at most 1024"),
        ({"outscale": float("nan")}, "outscale: is nan"),
        ({"outscale": float("inf")}, "outscale: is inf"),
        ({"outscale": -2}, "outscale: is -2"),
        ({"tile": -1}, "tile: is -1"),
        ({"tile": "big"}, "tile: is 'big'; expected \"auto\""),
        ({"tile": 1.5}, "tile: is 1.5"),
        ({"tile": True}, "tile: is True"),
        ({"tile_pad": -3}, "tile_pad: is -3"),
        ({"tile": 1}, "tile: is 1; the least for fake with a tile_pad of 8 is 8 pixels: "),
        ({"tile": 31, "tile_pad": 99}, "with a tile_pad of 99 is 32 pixels"),
        ({"tile": 11, "tile_pad": 0, "model": Fake(align=12)}, "of 0 is 12 .* multiples of 12,"),
        ({"tile": 31, "model": Fake(align=192)}, "a tile_pad of 8 is 32 pixels"),
        ({"model": "a.pth"}, "is the path a.pth; load it first"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_obeyed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        upscale(picture(4, 4), **{"model": Fake(), **arguments})


def test_without_a_model_the_built_in_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def built_in(scale: float) -> Fake:
        asked.append(scale)
        return Fake(scale=2)

    # by import_module: the attribute restore.load is the function of that name
    monkeypatch.setattr(importlib.import_module("restore.loading"), "load_builtin", built_in)
    image = np.zeros((6, 8), np.uint8)
    assert upscale(image).shape == (12, 16)
    assert upscale(image, outscale=3).shape == (18, 24)
    assert asked == [4.0, 3]
    with pytest.raises(UsageError, match="outscale: is -1"):
        upscale(image, outscale=-1)


def test_a_network_of_other_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"fake: makes 6 channels of 6; pictures have 1 \(gray\)"):
        upscale(picture(4, 4), Fake(in_channels=6))
    monkeypatch.setattr(Fake, "out_channels", 3)
    with pytest.raises(UsageError, match="fake: makes 3 channels of 1"):
        upscale(picture(4, 4), Fake(in_channels=1))


def test_a_source_may_not_lie_about_its_range() -> None:
    class Source:
        height, width, channels = 64, 8, 3
        dtype = np.dtype(np.float32)

        def read(self, y0: int, y1: int) -> np.ndarray:
            return np.full((y1 - y0, 8, 3), 2.0 if y1 > 40 else 1.0, np.float32)

    class Sink:
        def write(self, rows: np.ndarray) -> None:
            pass

    with pytest.raises(ImageError, match=r"rows 28\.\.63: values go from 2 to 2"):
        upscale_rows(Source(), Sink(), Fake(), tile=32, tile_pad=4)


def test_verify_tiles_finds_agreement_and_disagreement() -> None:
    image = (picture(80, 80) * 255).astype(np.uint8)
    good = verify_tiles(image, Blur(align=8), tile=32, tile_pad=8)
    assert good.rounded_db == np.inf
    assert good.largest_difference <= BLEND_ERROR
    bad = verify_tiles(image, Blur(align=8), tile=32, tile_pad=0)
    assert bad.rounded_db < 40
    assert bad.unrounded_db < 40
    assert bad.largest_difference > 0.05


def test_verify_tiles_of_a_picture_with_alpha() -> None:
    rng = np.random.default_rng(0)
    pixels, alpha = rng.random((40, 40, 3), np.float32), rng.random((40, 40), np.float32)
    got = verify_tiles(_picture_of(pixels, alpha), Blur(scale=2), tile=16, tile_pad=8)
    assert got.largest_difference <= 1e-5  # the pyramid's means are not exact


@pytest.mark.parametrize(
    ("arch", "settings_"),
    [
        ("SwinIR", {"embed_dim": 12, "depths": [2], "num_heads": [2], "upscale": 2}),
        ("HiT_SIR", {"depths": [2], "num_heads": [6], "upscale": 2}),
    ],
)
def test_tiles_of_a_real_network_agree_with_the_whole(arch: str, settings_: dict[str, Any]) -> None:
    """Two blocks and the convolutions see fewer than the 24 pixels that are sure to be there."""
    torch.manual_seed(0)
    spec = next(spec for spec in ARCHS if spec.name == arch)
    config = spec.config().replaced(settings_, "test")
    model = Model(spec, config, spec.build(config).eval(), name=arch)
    image = (picture(150, 131) * 255).astype(np.uint8)
    result = verify_tiles(image, model, tile=48, tile_pad=32)
    assert result.largest_difference <= 1e-5  # float32 sums in another order


def test_array_subclasses_are_arrays() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (9, 8), np.uint8)
    model = Blur()
    assert np.array_equal(upscale(gray.view(np.matrix), model), upscale(gray, model))
    with pytest.raises(ImageError, match="is a masked array"):
        upscale(np.ma.masked_array(gray), model)


@pytest.mark.parametrize("outscale", ["2", [2], 1e300, True])
def test_an_outscale_that_is_no_number_is_told(outscale: object) -> None:
    with pytest.raises(UsageError, match="expected above 0, at most"):
        upscale(np.zeros((4, 4), np.uint8), Blur(), outscale=outscale)
