"""What the extra [large] adds: Zarr both ways, libvips' formats, TIFF with pictures as tiles."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from restore.errors import ImageError, OutputError
from restore.image_io import Picture, probe, read_picture, write_picture
from restore.image_io.foreign import foreign_format, is_foreign_name, open_rows
from restore.image_io.sinks import Carried, Raster
from restore.image_io.tile_sink import halved
from restore.image_io.zarr_rows import ZarrTileWriter, is_zarr

DTYPES = (np.uint8, np.uint16, np.float32)


def samples(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def write_zarr(path: Path, picture: np.ndarray, **more: Any) -> None:
    height, width, channels = picture.shape
    with ZarrTileWriter(
        path, Raster(height, width, channels, picture.dtype), tile=32, **more
    ) as sink:
        for y0, y1 in pairwise([0, 20, 57, height]):
            sink.write(picture[y0:y1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("pyramid", [False, True])
def test_zarr_both_ways(dtype: Any, channels: int, pyramid: bool, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    path, picture = tmp_path / "a.zarr", samples((70, 50, channels), dtype)
    carried = Carried(b"i" * 99, b"II*\0", b"<x/>", (300.0, 72.0))
    write_zarr(path, picture, pyramid=pyramid, carried=carried)
    assert is_zarr(path) and foreign_format(path) == "zarr"
    with open_rows(path) as rows:
        assert (rows.height, rows.width, rows.channels) == picture.shape
        assert rows.has_alpha == (channels in (2, 4))
        got = np.concatenate([rows.read(0, 33), rows.read(33, 70)])
        np.testing.assert_array_equal(got, picture, strict=True)
        assert Carried(rows.icc, rows.exif, rows.xmp, rows.dpi) == carried
    info = probe(path)
    assert (info.width, info.height, info.fmt) == (50, 70, "zarr")
    node = zarr.open(store=str(path), mode="r")
    if not pyramid:
        assert node.shape == picture.shape if channels > 1 else picture.shape[:2]
        return
    described = node.attrs["ome"]["multiscales"][0]
    assert [axis["name"] for axis in described["axes"]] == (["c"] if channels > 1 else []) + [
        "y",
        "x",
    ]
    assert [level["path"] for level in described["datasets"]] == ["0", "1", "2"]
    for name in "012":
        stored = np.asarray(node[name])
        stored = np.moveaxis(stored, 0, 2) if channels > 1 else stored[..., None]
        np.testing.assert_array_equal(stored, picture)
        picture = halved(picture)


def test_zarr_of_other_programs(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    picture = samples((40, 30, 3), np.uint16)
    path = tmp_path / "a.zarr"
    for fmt in (2, 3):
        array = zarr.create_array(
            store=str(path),
            shape=picture.shape,
            chunks=(16, 16, 3),
            dtype="u2",
            zarr_format=fmt,
            overwrite=True,
        )
        array[:] = picture
        np.testing.assert_array_equal(read_picture(path).pixels, picture)
    # NGFF 0.4 with time and depth of one
    group = zarr.create_group(store=str(tmp_path / "b.zarr"), zarr_format=2)
    stored = group.create_array("s0", shape=(1, 3, 1, 40, 30), chunks=(1, 1, 1, 16, 16), dtype="u2")
    stored[:] = np.moveaxis(picture, 2, 0)[None, :, None]
    axes = [{"name": name} for name in "tczyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "s0"}]}]
    np.testing.assert_array_equal(read_picture(tmp_path / "b.zarr").pixels, picture)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((4, 5, 6), "u1", "expected .H, W. or .H, W, C. with C = 1"),
        ((2, 4, 5, 3), "u1", "its axes are"),
        ((4,), "u1", "its axes are"),
        ((4, 5), "i4", "dtype is int32; expected one of uint8"),
    ],
)
def test_zarr_that_is_no_picture(
    shape: tuple[int, ...], dtype: str, message: str, tmp_path: Path
) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.create_array(store=str(tmp_path / "a.zarr"), shape=shape, chunks=shape, dtype=dtype)
    with pytest.raises(ImageError, match=message):
        probe(tmp_path / "a.zarr")


def test_broken_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.create_group(store=str(tmp_path / "g.zarr"))
    with pytest.raises(ImageError, match="is a Zarr group without an image"):
        probe(tmp_path / "g.zarr")
    write_zarr(tmp_path / "a.zarr", samples((70, 50, 3), np.uint8))
    (tmp_path / "a.zarr" / "c" / "1" / "0" / "0").write_bytes(b"nonsense")
    with open_rows(tmp_path / "a.zarr") as rows, pytest.raises(ImageError, match="damaged"):
        rows.read(0, 70)
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps({"shape": 1}))
    with pytest.raises(ImageError, match=r"a\.zarr: "):
        probe(tmp_path / "a.zarr")


def test_a_zarr_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    path, picture = tmp_path / "a.zarr", samples((70, 50, 3), np.uint8)
    write_zarr(path, picture)
    before = sorted(p.relative_to(path) for p in path.rglob("*"))
    with (
        pytest.raises(KeyboardInterrupt),
        ZarrTileWriter(path, Raster(70, 50, 3, np.uint8)) as sink,
    ):
        sink.write(picture[:40])
        raise KeyboardInterrupt
    with (
        pytest.raises(OutputError, match="of 3500 pixels never came"),
        ZarrTileWriter(path, Raster(70, 50, 3, np.uint8)) as sink,
    ):
        sink.write(picture[:40])
    assert sorted(p.relative_to(path) for p in path.rglob("*")) == before
    write_zarr(path, 255 - picture)
    np.testing.assert_array_equal(read_picture(path).pixels, 255 - picture)
    assert list(tmp_path.iterdir()) == [path]
    # a folder of something else is not replaced
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "photo.jpg").touch()
    with pytest.raises(OutputError, match="holds other things than a Zarr array"):
        write_zarr(tmp_path / "b.zarr", picture)


def test_names_in_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zarr").mkdir()
    assert not is_foreign_name(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "zarr.json").touch()
    assert is_foreign_name(tmp_path / "a.zarr")
    for there in (True, False):
        monkeypatch.setattr("restore.image_io.foreign.has_package", lambda _, there=there: there)
        assert is_foreign_name(tmp_path / "a.SVS") == there
    assert not is_foreign_name(tmp_path / "a.pdf")


@pytest.mark.parametrize("package", ["pyvips", "zarr"])
def test_a_missing_package_is_named_with_its_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if package == "zarr":
        path = tmp_path / "a.zarr"
        path.mkdir()
        (path / "zarr.json").touch()
    else:
        path = tmp_path / "a.jp2"
        path.write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60))
    for read in (probe, read_picture, open_rows):
        with pytest.raises(ImageError) as caught:
            read(path)
        told = str(caught.value)
        assert str(path) in told and f"package {package}, which is not installed" in told
        assert "pip install 'restore-sr[large]'" in told
        assert ("is a JPEG 2000 file" in told) == (package == "pyvips")


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_libvips_reads_the_same_rows(mode: str, tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    from restore.image_io.vips_rows import VipsRows

    path = tmp_path / "a.png"
    if mode == "I;16":
        image = Image.fromarray(samples((300, 30), np.uint16))
    else:
        image = Image.fromarray(samples((300, 30, 4), np.uint8)).convert(mode)
    image.save(path, dpi=(300, 300))
    want = read_picture(path)
    with VipsRows(path) as rows:
        got = np.concatenate([rows.read(0, 100), rows.read(100, 300)])
        np.testing.assert_array_equal(rows.read(0, 3), got[:3])  # back to the top
        assert rows.dpi == pytest.approx((300, 300), rel=1e-3)
    both = want.pixels if want.alpha is None else np.dstack([want.pixels, want.alpha])
    np.testing.assert_array_equal(got, both, strict=True)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_libvips_turns_pictures_upright(orientation: int, tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    path = tmp_path / "a.jpg"
    image = Image.fromarray(samples((48, 32, 3), np.uint8).repeat(8, 0).repeat(8, 1))
    exif = Image.Exif()
    exif[274] = orientation
    image.save(path, exif=exif, quality=95, subsampling=0)
    want = read_picture(path).pixels
    with open_rows(path) as rows:
        got = rows.read(0, rows.height)
    assert got.shape == want.shape
    # two decoders may round differently
    assert np.abs(got.astype(int) - want).max() <= 2


def test_of_a_slide_the_first_page_is_taken(tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    path, picture = tmp_path / "a.svs", samples((90, 70, 3), np.uint8)
    with tifffile.TiffWriter(path) as writer:
        for page in (picture, picture[:30, :20], picture[::4, ::4]):
            writer.write(page, photometric="rgb", tile=(32, 32))
    assert probe(path).fmt == "slide"
    np.testing.assert_array_equal(read_picture(path).pixels, picture)
    shutil.copy(path, tmp_path / "a.tif")
    with pytest.raises(ImageError, match="holds 3 pages; split it"):
        open_rows(tmp_path / "a.tif")


def test_a_damaged_file_is_an_error_to_libvips_too(tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    path = tmp_path / "a.jpg"
    Image.fromarray(samples((400, 400, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(ImageError, match=r"a\.jpg: "), open_rows(path) as rows:
        for y in range(0, 400, 50):
            rows.read(y, y + 50)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp", "zstd", "lzw", "jpegxl"])
@pytest.mark.parametrize("tile", [None, (32, 48)])
def test_tiffs_that_imagecodecs_decodes(compression: str, tile: Any, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    y, x = np.mgrid[:100, :70]
    picture = np.stack([y * 2, x * 3, 255 - y * 2], axis=2).astype(np.uint8)
    path = tmp_path / "a.tif"
    exact = {"jpeg2000": {"level": 0}, "webp": {"lossless": True}, "jpegxl": {"lossless": True}}
    tifffile.imwrite(
        path,
        picture,
        photometric="rgb",
        tile=tile,
        rowsperstrip=None if tile else 24,
        compression=compression,
        compressionargs=exact.get(compression),
    )
    want = tifffile.imread(path)
    with open_rows(path) as rows:
        got = np.concatenate([rows.read(0, 30), rows.read(30, 100)])
    np.testing.assert_array_equal(got, want, strict=True)
    if compression != "jpeg":
        np.testing.assert_array_equal(got, picture)
    np.testing.assert_array_equal(read_picture(path).pixels, want)


def test_a_tiff_of_jpegs_without_imagecodecs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(samples((64, 64, 3), np.uint8)).save(path, compression="jpeg")
    monkeypatch.setattr("restore.image_io.tiff.has_package", lambda _: False)
    monkeypatch.setattr("restore.image_io.foreign.has_package", lambda _: False)
    with pytest.raises(ImageError, match=r"JPEG cannot be decoded in parts .*restore-sr\[large\]"):
        open_rows(path)
    assert read_picture(path).pixels.shape == (64, 64, 3)  # as a whole, by Pillow


def test_a_tile_that_claims_gigabytes(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    path = tmp_path / "a.tif"
    picture = samples((64, 64, 3), np.uint8)
    tifffile.imwrite(path, picture, photometric="rgb", tile=(64, 64), compression="jpeg")
    data = path.read_bytes()
    size = (64).to_bytes(2, "big") * 2
    at = data.index(size, data.index(b"\xff\xd8\xff"))
    path.write_bytes(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :])
    with (
        pytest.raises(ImageError, match="claims 65535 x 65535 pixels"),
        open_rows(path) as rows,
    ):
        rows.read(0, 64)


def test_pictures_of_one_format_are_written_as_before(tmp_path: Path) -> None:
    """Foreign formats are read, and a Picture of one is written like any other."""
    pytest.importorskip("zarr")
    write_zarr(tmp_path / "a.zarr", samples((70, 50, 4), np.uint8))
    picture = read_picture(tmp_path / "a.zarr")
    assert isinstance(picture, Picture) and picture.alpha is not None
    write_picture(tmp_path / "b.png", picture, fmt="png")
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png").pixels, picture.pixels)
