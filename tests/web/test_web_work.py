"""What is behind the page, without it: pictures in, results, reasons and progress out."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from small_models import tiny

from restore.errors import CheckpointError, UsageError
from restore.image_io import Picture, probe, read_picture, write_picture
from restore.loading import builtin_names, load
from restore.model import Model
from restore.upscaling import upscale_picture
from restore.web.desk import Ticket
from restore.web.limits import Limits
from restore.web.service import Service
from restore.web.shelf import Entry, Shelf, find_weights, make_entries
from restore.web.work import Following, Order, Standing, Work

PATIENCE = 120.0
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def tiny_again(source: str, told: Callable[[str], None]) -> Model:
    return tiny(int(source[-1]), name=source)


def shelf() -> Shelf:
    entries = [Entry(f"tiny_x{s}", f"tiny_x{s}", s, "tiny", "Enlarges.") for s in (1, 2)]
    return Shelf(entries, tiny_again)


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def service(tmp_path: Path, complaints: list[str]) -> Iterator[Service]:
    base = tmp_path / "base"
    base.mkdir()
    made = Service(shelf(), Limits(max_files=3, max_pixels=5000), base, complaints.append)
    yield made
    made.close()
    assert complaints == []


def uploaded(service: Service, name: str, picture: Picture | bytes, suffix: str = "png") -> str:
    path = service.base / f"hash of {name}" / name
    path.parent.mkdir(exist_ok=True)
    if isinstance(picture, bytes):
        path.write_bytes(picture)
    else:
        fmt = {"png": "png", "jpg": "jpg", "tif": "tiff"}[name.rsplit(".", 1)[1]]
        write_picture(path, picture, fmt=fmt)  # type: ignore[arg-type]
    return str(path)


def samples(height: int = 12, width: int = 15, dtype: type = np.uint8, **more: object) -> Picture:
    random = np.random.default_rng(height * width)
    pixels = random.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)
    return Picture(pixels, **more)  # type: ignore[arg-type]


def run(service: Service, uploads: list[str], order: Order, visitor: str = "me") -> Work:
    ticket = service.start(visitor, uploads, order)
    assert ticket.wait(PATIENCE)
    assert ticket.error is None
    return ticket.task


def test_one_picture_keeps_what_it_has(service: Service) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a bridge at dusk"
    picture = samples(
        dtype=np.uint16,
        alpha=np.random.default_rng(1).integers(0, 65536, (12, 15), np.uint16),
        icc=ICC,
        exif=exif.tobytes().removeprefix(b"Exif\0\0"),
        dpi=(300.0, 300.0),
    )
    work = run(service, [uploaded(service, "dusk.png", picture)], Order("tiny_x2", 2.0))
    (done,) = work.finished
    assert done.reason == "" and done.result is not None
    assert done.result.name == "dusk_x2.png"
    assert (done.before, done.after) == ((15, 12), (30, 24))
    assert work.archive is None
    got = read_picture(done.result)
    source = read_picture(service.base / "hash of dusk.png" / "dusk.png")
    want = upscale_picture(source, tiny(2), outscale=2.0)
    assert np.array_equal(got.pixels, want.pixels) and got.depth == 16
    assert got.alpha is not None and want.alpha is not None
    assert np.array_equal(got.alpha, want.alpha)
    assert got.icc == ICC
    assert got.exif is not None and b"a bridge at dusk" in got.exif
    assert done.views is not None and done.views.whole.after.is_file()
    assert work.standing.share == 1.0


@pytest.mark.parametrize(
    ("order", "name", "size", "fmt"),
    [
        (Order("tiny_x2", 1.5), "a_x1.5.jpg", (22, 18), "jpg"),
        (Order("tiny_x1", 1.0), "a_restored.jpg", (15, 12), "jpg"),
        (Order("tiny_x2", 3.0, "webp", 80), "a_x3.webp", (45, 36), "webp"),
        (Order("tiny_x2", 2.0, "tiff", tile=32), "a_x2.tiff", (30, 24), "tiff"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_scales_and_formats(
    service: Service, order: Order, name: str, size: tuple[int, int], fmt: str
) -> None:
    work = run(service, [uploaded(service, "a.jpg", samples())], order)
    (done,) = work.finished
    assert done.result is not None and done.result.name == name
    assert done.after == size
    info = probe(done.result)
    assert (info.width, info.height, info.fmt) == (*size, fmt)


def test_many_give_a_zip_and_one_failure_costs_no_other(service: Service) -> None:
    uploads = [
        uploaded(service, "a.png", samples()),
        uploaded(service, "broken.png", b"\x89PNG\r\n\x1a\nnothing more"),
        uploaded(service, "text.png", b"no picture at all"),
    ]
    work = run(service, uploads, Order("tiny_x2", 2.0))
    assert [done.result is not None for done in work.finished] == [True, False, False]
    reasons = [done.reason for done in work.finished[1:]]
    assert reasons[0].startswith("broken.png: ")
    assert reasons[1].startswith("text.png: is no picture but text")
    assert not any(str(service.base) in reason for reason in reasons)
    assert work.archive is None  # one result needs none
    more = run(service, [uploads[0], uploaded(service, "b.jpg", samples(9, 9))], work.order)
    assert more.archive is not None
    with zipfile.ZipFile(more.archive) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a_x2.png", "b_x2.jpg"]
        assert archive.read("a_x2.png") == more.finished[0].result.read_bytes()  # type: ignore[union-attr]


def test_equal_names_give_different_results(service: Service) -> None:
    uploads = []
    for folder, side in (("one", 8), ("two", 10)):
        path = service.base / folder / "a.png"
        path.parent.mkdir()
        write_picture(path, samples(side, side), fmt="png")
        uploads.append(str(path))
    work = run(service, uploads, Order("tiny_x2", 2.0))
    assert [done.result and done.result.name for done in work.finished] == [
        "a_x2.png",
        "a_2_x2.png",
    ]
    assert [done.after for done in work.finished] == [(16, 16), (20, 20)]


def test_what_is_beyond_the_limits_is_told_and_not_computed(service: Service) -> None:
    uploads = [
        uploaded(service, "large.png", samples(80, 80)),
        uploaded(service, "a.png", samples()),
    ]
    work = run(service, uploads, Order("tiny_x2", 2.0))
    assert work.finished[0].reason.startswith("large.png: 80 x 80 is 6,400 pixels, above the 5,000")
    assert work.finished[1].result is not None
    small = run(service, [uploads[1]], Order("tiny_x2", 16.0))
    assert small.finished[0].result is not None  # 180 pixels become 46,080
    wide = uploaded(service, "wide.png", samples(60, 80))
    too_large = run(service, [wide], Order("tiny_x2", 4.1))
    assert "its result would be 328 x 246" in too_large.finished[0].reason


def test_the_list_tells_before_anything_is_computed(service: Service) -> None:
    uploads = [
        uploaded(service, "a.png", samples()),
        uploaded(service, "large.png", samples(80, 80)),
        uploaded(service, "text.png", b"no picture"),
        "/etc/passwd",
    ]
    rows = service.listed("me", uploads, 2.5)
    assert [row.name for row in rows] == ["a.png", "large.png", "text.png", "passwd"]
    assert (rows[0].after, rows[0].problem) == ((38, 30), "")
    assert "above the 5,000" in rows[1].problem
    assert rows[2].problem.startswith("text.png: is no picture but text")
    assert "is no file that was uploaded here" in rows[3].problem


def test_what_cannot_be_begun_is_told(service: Service) -> None:
    upload = uploaded(service, "a.png", samples())
    for uploads, order, words in (
        ([], Order("tiny_x2", 2.0), "there is no picture yet"),
        ([upload] * 4, Order("tiny_x2", 2.0), "there are 4 pictures, and at most 3"),
        ([upload], Order("other", 2.0), "there is no model 'other' here"),
        (["/etc/passwd"], Order("tiny_x2", 2.0), "is no file that was uploaded here"),
        ([upload + "x"], Order("tiny_x2", 2.0), "is no longer here"),
    ):
        with pytest.raises(UsageError, match=words):
            service.start("me", uploads, order)
    with pytest.raises(UsageError, match="open the page in a browser"):
        service.start(None, [upload], Order("tiny_x2", 2.0))
    tile = run(service, [upload], Order("tiny_x2", 2.0, tile=3))
    assert tile.problem.startswith("tile: is 3; the least for tiny_x2")


class Slow:
    """A model that waits at each picture until it is told to go on."""

    def __init__(self) -> None:
        self.arrived, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def load(self, source: str, told: Callable[[str], None]) -> Model:
        model = tiny(2, name=source)

        def wait(module: torch.nn.Module, args: tuple[object, ...]) -> None:
            self.arrived.release()
            assert self.go.acquire(timeout=PATIENCE)

        model.module.register_forward_pre_hook(wait)
        return model


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def slow_service(tmp_path: Path, slow: Slow) -> Iterator[Service]:
    base = tmp_path / "base"
    base.mkdir()
    entries = [Entry("slow", "slow", 2, "slow", "Waits.")]
    made = Service(Shelf(entries, slow.load), Limits(), base, pytest.fail)
    yield made
    for _ in range(9):
        slow.go.release()
    made.close()


def test_a_stop_keeps_what_is_finished(slow_service: Service, slow: Slow) -> None:
    uploads = [uploaded(slow_service, f"{c}.png", samples(8 + i, 8)) for i, c in enumerate("abc")]
    ticket = slow_service.start("me", uploads, Order("slow", 2.0))
    assert slow.arrived.acquire(timeout=PATIENCE)
    with pytest.raises(UsageError, match="under way already"):
        slow_service.start("me", uploads, Order("slow", 2.0))
    slow.go.release()
    assert slow.arrived.acquire(timeout=PATIENCE)  # the second picture
    assert slow_service.stop("me")
    slow.go.release()
    assert ticket.wait(PATIENCE)
    assert [done.name for done in ticket.task.finished] == ["a.png"]
    assert ticket.task.finished[0].result.is_file()  # type: ignore[union-attr]
    left = {path.name for path in (ticket.task.folder / "results").iterdir()}
    assert left == {"a_x2.png"}  # nothing half written
    assert not slow_service.stop("me")


def test_others_wait_and_leave(slow_service: Service, slow: Slow) -> None:
    upload = uploaded(slow_service, "a.png", samples())
    mine = slow_service.start("me", [upload], Order("slow", 2.0))
    assert slow.arrived.acquire(timeout=PATIENCE)
    yours = slow_service.start("you", [upload], Order("slow", 2.0))
    theirs = slow_service.start("they", [upload], Order("slow", 2.0))
    assert [slow_service.ahead(ticket) for ticket in (mine, yours, theirs)] == [0, 1, 2]
    assert slow_service.waiting() == 3
    slow_service.leave("you")
    assert yours.done and not yours.task.folder.exists()
    slow_service.leave("me")
    slow.go.release()
    assert mine.wait(PATIENCE)
    assert slow.arrived.acquire(timeout=PATIENCE)
    slow.go.release()
    assert theirs.wait(PATIENCE)
    assert theirs.task.finished[0].result is not None
    assert not mine.task.folder.exists()  # written to until its end, and then deleted


def test_a_defect_is_told_and_logged(tmp_path: Path) -> None:
    def broken(source: str, told: Callable[[str], None]) -> Model:
        raise ZeroDivisionError("of all things")

    told: list[str] = []
    entries = [Entry("broken", "broken", 2, "v", "p")]
    service = Service(Shelf(entries, broken), Limits(), tmp_path, told.append)
    work = run(service, [uploaded(service, "a.png", samples())], Order("broken", 2.0))
    assert work.problem.startswith("internal error: ZeroDivisionError: of all things")
    assert len(told) == 1 and "Traceback" in told[0]


def test_a_model_that_vanished_is_told(tmp_path: Path) -> None:
    def gone(source: str, told: Callable[[str], None]) -> Model:
        raise CheckpointError(f"{source}: no such file")

    service = Service(
        Shelf([Entry("m", "m.pth", 2, "v", "p")], gone), Limits(), tmp_path, pytest.fail
    )
    work = run(service, [uploaded(service, "a.png", samples())], Order("m", 2.0))
    assert work.problem == "m.pth: no such file"


def test_progress_never_goes_back_and_ends_whole() -> None:
    from restore.upscaling import Progress

    standing, ticket = Standing(2), Ticket(Work(Order("m", 2.0), Path(), [], Standing(2)))
    following = Following(standing, ticket, [300, 100])
    seen = []
    following.begin(1, "a.png")
    for done in range(3):
        following.progress(Progress(done, 3))
        seen.append(standing.share)
        if done < 3:
            for share in (0.0, 0.5, 0.0, 0.5):  # two passes over a tile
                following.step(share)
                seen.append(standing.share)
    following.progress(Progress(3, 3))
    seen.append(standing.share)
    following.end()
    following.begin(2, "b.png")
    following.progress(Progress(0, 1))
    following.progress(Progress(1, 1))
    following.end()
    seen.append(standing.share)
    assert seen == sorted(seen)
    assert seen[:3] == [0.0, 0.0, 0.125]  # half of a third of three quarters
    assert seen[-2:] == [0.75, 1.0]


def test_the_shelf_keeps_two_models() -> None:
    loaded: list[str] = []

    def counted(source: str, told: Callable[[str], None]) -> Model:
        loaded.append(source)
        return tiny(1)

    models = Shelf([Entry(c, c, 1, c, c) for c in "abc"], counted)
    for name in "abacabca":
        models.model(name)
    assert loaded == ["a", "b", "c", "b", "c", "a"] or len(loaded) <= 6
    assert loaded[:3] == ["a", "b", "c"]
    with pytest.raises(UsageError, match="there is no model 'd' here"):
        models.model("d")
    with pytest.raises(UsageError, match="there is no model to offer"):
        Shelf([], counted)


def real(source: str, told: Callable[[str], None]) -> Model:
    return load(source, device="cpu")


def test_models_from_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    tiny(2).save(tmp_path / "named.pth")
    tiny(1).save(tmp_path / "folder" / "cleans.safetensors")
    tiny(2, channels=1).save(tmp_path / "folder" / "named.pth")
    (tmp_path / "folder" / "damaged.pth").write_bytes(b"x")
    (tmp_path / "folder" / "readme.txt").write_text("no weights")
    named, found = find_weights([str(tmp_path / "named.pth"), str(tmp_path / "folder")])
    said: list[str] = []
    entries = make_entries(builtin_names(), named, found, real, said.append)
    assert [entry.name for entry in entries] == [
        *builtin_names(),
        "named",
        "cleans",
        "named (2)",
    ]
    assert [entry.scale for entry in entries[-3:]] == [2, 1, 2]
    assert all("comes with the program" in entry.purpose for entry in entries if entry.builtin)
    assert any(line.startswith("note: left out:") and "damaged.pth" in line for line in said)


def test_a_model_file_that_was_named_has_to_load(tmp_path: Path) -> None:
    (tmp_path / "damaged.pth").write_bytes(b"x")
    named, found = find_weights([str(tmp_path / "damaged.pth")])
    with pytest.raises(CheckpointError, match=r"damaged\.pth"):
        make_entries([], named, found, real, pytest.fail)
    with pytest.raises(UsageError, match="no such file or folder"):
        find_weights([str(tmp_path / "nothing")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="the folder holds no weight file"):
        find_weights([str(tmp_path / "empty")])
