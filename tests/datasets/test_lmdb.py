"""LMDB data bases: what is stored comes back, in BasicSR's layout, whole or not at all."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from restore.datasets.images import header_size, read_entry
from restore.datasets.listing import Entry, database_entries, folder_entries
from restore.datasets.lmdb_store import stored_value, write_database
from restore.datasets.netpbm import netpbm_bytes, netpbm_view
from restore.errors import ImageError, UsageError

lmdb = pytest.importorskip("lmdb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random, where = np.random.default_rng(0), tmp_path / "pictures"
    where.mkdir()
    Image.fromarray(random.integers(0, 256, (7, 5, 3), np.uint8)).save(where / "colour.png")
    Image.fromarray(random.integers(0, 256, (6, 9), np.uint8)).save(where / "gray.png")
    Image.fromarray(random.integers(0, 256, (4, 4, 4), np.uint8)).save(where / "alpha.png")
    deep = random.integers(0, 65536, (3, 8, 3), np.uint16)
    assert cv2.imwrite(str(where / "deep.png"), deep)
    return where


@pytest.mark.parametrize("raw", [False, True], ids=["png", "raw"])
def test_what_is_stored_comes_back(folder: Path, tmp_path: Path, raw: bool) -> None:
    seen: list[int] = []
    files = [entry.path for entry in folder_entries(folder)]
    place = tmp_path / "x.lmdb"
    stored = write_database(place, files, raw=raw, progress=lambda: seen.append(1))
    assert (stored.pictures, len(seen)) == (4, 4)
    for entry, source in zip(database_entries(place), folder_entries(folder), strict=True):
        kept, original = read_entry(entry), read_entry(source)
        assert kept.dtype == original.dtype
        np.testing.assert_array_equal(kept, original)


@pytest.mark.parametrize("raw", [False, True], ids=["png", "raw"])
def test_the_layout_is_basicsrs(folder: Path, tmp_path: Path, raw: bool) -> None:
    """Key: the name without suffix; value: what OpenCV decodes; a line: name, shape, level."""
    place = tmp_path / "x.lmdb"
    write_database(place, [folder / "colour.png"], raw=raw, level=3)
    assert (place / "meta_info.txt").read_text() == "colour.png (7,5,3) 3\n"
    environment = lmdb.open(str(place), readonly=True, lock=False)
    with environment.begin() as transaction:
        value = transaction.get(b"colour")
    environment.close()
    decoded = cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded, cv2.imread(str(folder / "colour.png")))


@pytest.mark.parametrize("raw", [False, True])
def test_sizes_are_those_of_the_headers(folder: Path, tmp_path: Path, raw: bool) -> None:
    files = folder_entries(folder)
    place = tmp_path / "x.lmdb"
    write_database(place, [entry.path for entry in files], raw=raw)
    np.save(tmp_path / "x.npy", np.zeros((5, 7), np.uint8))
    for entry in (*files, *database_entries(place), Entry(tmp_path / "x.npy")):
        assert header_size(entry) == read_entry(entry).shape[:2]
    (tmp_path / "cut.png").write_bytes(files[0].path.read_bytes()[:10])
    assert header_size(Entry(tmp_path / "cut.png")) is None


def test_more_than_the_first_room_fits(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    files = []
    for name in "abcd":
        Image.fromarray(picture).save(tmp_path / f"{name}.png", compress_level=0)
        files.append(tmp_path / f"{name}.png")
    assert write_database(tmp_path / "x.lmdb", files, raw=True).bytes > 2**24
    np.testing.assert_array_equal(read_entry(database_entries(tmp_path / "x.lmdb")[3]), picture)


def test_nothing_is_left_of_one_that_failed(folder: Path, tmp_path: Path) -> None:
    (folder / "torn.png").write_bytes((folder / "colour.png").read_bytes()[:60])
    before = set(tmp_path.iterdir())
    with pytest.raises(ImageError, match=r"torn\.png"):
        write_database(tmp_path / "x.lmdb", [entry.path for entry in folder_entries(folder)])
    assert set(tmp_path.iterdir()) == before


def test_what_cannot_be_stored_is_refused(folder: Path, tmp_path: Path) -> None:
    file = folder / "colour.png"
    with pytest.raises(UsageError, match=r"named NAME\.lmdb"):
        write_database(tmp_path / "x", [file])
    with pytest.raises(UsageError, match="no picture"):
        write_database(tmp_path / "x.lmdb", [])
    with pytest.raises(UsageError, match="the same key"):
        write_database(tmp_path / "x.lmdb", [file, folder / "inner" / "colour.jpg"])
    with pytest.raises(UsageError, match="no point and only ASCII"):
        write_database(tmp_path / "x.lmdb", [folder / "a.b.png"])
    (tmp_path / "x.lmdb").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        write_database(tmp_path / "x.lmdb", [file])


def test_a_data_base_that_is_cut_short_is_told(folder: Path, tmp_path: Path) -> None:
    """Reading pages that are not there would end the process by SIGBUS."""
    for size in (0, 4096, 5000, 8192):
        place = tmp_path / f"{size}.lmdb"
        write_database(place, [folder / "colour.png", folder / "gray.png"], raw=True)
        with (place / "data.mdb").open("r+b") as file:
            file.truncate(size)
        with pytest.raises(
            ImageError, match=r"data\.mdb: is cut short: it has.*`restore data lmdb"
        ):
            stored_value(place, "gray")
    place = tmp_path / "none.lmdb"
    place.mkdir()
    with pytest.raises(ImageError, match=r"data\.mdb: cannot be opened: No such file"):
        stored_value(place, "gray")


def test_a_damaged_data_base_is_told(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "x.lmdb"
    write_database(place, [folder / "colour.png", folder / "gray.png"])
    data = (place / "data.mdb").read_bytes()
    (place / "data.mdb").write_bytes(data[:8192] + bytes(len(data) - 8192))
    with pytest.raises(ImageError, match=r"x\.lmdb: is damaged: .*make it anew"):
        stored_value(place, "gray")
    (place / "data.mdb").write_bytes(bytes(len(data)))
    other = place.rename(tmp_path / "y.lmdb")
    with pytest.raises(ImageError, match=r"y\.lmdb: cannot be opened as a data base"):
        stored_value(other, "gray")


def test_threads_open_a_data_base_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "x.lmdb"
    write_database(place, [folder / "colour.png"])
    opened = lmdb.open

    def slowly(*words: object, **named: object) -> object:
        environment = opened(*words, **named)
        time.sleep(0.05)
        return environment

    monkeypatch.setattr(lmdb, "open", slowly)
    with ThreadPoolExecutor(4) as threads:
        values = list(threads.map(lambda _: bytes(stored_value(place, "colour")), range(8)))
    assert len(set(values)) == 1


def test_a_missing_key_is_named(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "x.lmdb"
    write_database(place, [folder / "colour.png"])
    with pytest.raises(ImageError, match="no picture 'other'"):
        stored_value(place, "other")
    (tmp_path / "empty.lmdb").mkdir()
    with pytest.raises(ImageError, match="cannot be opened"):
        stored_value(tmp_path / "empty.lmdb", "a")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_netpbm_round_trip(channels: int, dtype: type[np.generic]) -> None:
    white = np.iinfo(dtype).max
    picture = np.random.default_rng(1).integers(0, white, (3, 5, channels), dtype, endpoint=True)
    data = netpbm_bytes(picture)
    view = netpbm_view(data)
    assert view is not None and view.dtype == dtype
    np.testing.assert_array_equal(view, picture)
    assert netpbm_view(data[:-1]) is None
    assert netpbm_view(b"\x89PNG") is None
