"""Official models into the cache: checked before they get their names, and found there."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from servers import Server, running, serve, status

from restore.archs._spec import ArchSpec
from restore.catalogue import cache, getting
from restore.catalogue import entries as catalogue_module
from restore.catalogue.cache import digest_of, models_folder, part_path, recorded, stored_path
from restore.catalogue.entries import Entry, find
from restore.catalogue.getting import add, cached, get, verify
from restore.catalogue.lock import locked
from restore.errors import CheckpointError, DownloadError, OutputError, UsageError
from restore.loading import load

NAME = "SRFormer-light-x3"
FILE = "SRFormerLight_SRx3_DIV2K.pth"


def weights(spec: ArchSpec, config: object, seed: int = 0) -> bytes:
    torch.manual_seed(seed)
    file = io.BytesIO()
    torch.save({"params": spec.build(config).state_dict()}, file)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.fixture(scope="module")
def body() -> bytes:
    """A checkpoint of the official network, with weights that nobody trained."""
    model = find(NAME).model
    return weights(model.spec, model.config)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "models"


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as told:
        yield told


@pytest.fixture
def entry(server: Server, body: bytes, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """An entry of the catalogue whose file the server has."""
    server.answers = [serve(body)]
    known = dataclasses.replace(
        find(NAME),
        url=server.url(find(NAME).file),
        size=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
    )
    changed = tuple(known if e.name == NAME else e for e in catalogue_module.catalogue())
    for module in (catalogue_module, getting):
        monkeypatch.setattr(module, "catalogue", lambda: changed)
    return known


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_model_is_downloaded_once_and_then_there(
    entry: Entry, server: Server, folder: Path
) -> None:
    path, is_new = get(entry)
    assert (path, is_new) == (folder / FILE, True)
    assert names(folder) == [FILE, f"{FILE}.sha256"]
    assert recorded(path) == entry.sha256 == digest_of(path)
    assert load(path, device="cpu").variant == "SRFormer-light x3"
    assert get(entry) == (path, False)
    assert len(server.requests) == 1
    assert get(entry, force=True) == (path, True)
    assert len(server.requests) == 2


def test_it_can_go_elsewhere(entry: Entry, tmp_path: Path, folder: Path) -> None:
    path, _ = get(entry, tmp_path / "mine" / "weights")
    assert path == tmp_path / "mine" / "weights" / FILE
    assert path.is_file() and not folder.exists()


def test_without_a_checksum_the_network_has_to_be_the_published_one(
    entry: Entry, server: Server, folder: Path
) -> None:
    unknown = dataclasses.replace(entry, size=None, sha256=None)
    other = find("SRFormer-light-x4").model
    for body, told in (
        (
            weights(other.spec, other.config),
            "SRFormerLight_SRx3_DIV2K.pth: holds SRFormer-light x4, and SRFormer-light-x3 is S",
        ),
        (b"PK\3\4 damaged", "is no whole weight file"),
        (b"", "the file is empty"),
    ):
        server.answers = [serve(body)]
        with pytest.raises(DownloadError, match=f"nothing of it is kept: .*{told}"):
            get(unknown)
        assert names(folder) == []
    server.answers = [serve(weights(entry.model.spec, entry.model.config, seed=1))]
    path, _ = get(unknown)
    assert recorded(path) == digest_of(path)


def test_pickles_that_want_more_than_tensors_are_refused(
    entry: Entry, server: Server, folder: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, ("run",)

    file = io.BytesIO()
    torch.save({"params": Evil()}, file)
    server.answers = [serve(file.getvalue())]
    with pytest.raises(DownloadError, match=r"holds more than tensors \(it wants \w+.mkdir\)"):
        get(dataclasses.replace(entry, size=None, sha256=None))
    assert names(folder) == [] and not Path("run").exists()


def test_offline_opens_no_connection(entry: Entry, server: Server) -> None:
    with pytest.raises(DownloadError, match="is not there, and --offline forbids"):
        get(entry, offline=True)
    assert server.requests == []
    path, _ = get(entry)
    assert get(entry, offline=True) == (path, False)
    assert len(server.requests) == 1


def test_what_needs_a_browser_is_told(server: Server) -> None:
    told = r"HAT-x4: download HAT_SRx4.pth in a browser from https://drive.google.com/.*, then: "
    with pytest.raises(DownloadError, match=told + "restore models add HAT_SRx4.pth --as HAT-x4"):
        get(find("HAT-x4"))
    with pytest.raises(DownloadError, match="whose name is not recorded, in a browser from"):
        get(find("CAT-Unet-real-denoising"))


def test_an_old_copy_stays_until_the_new_one_is_whole(entry: Entry, server: Server) -> None:
    path, _ = get(entry)
    before = path.stat()
    server.answers = [status(404)]
    with pytest.raises(DownloadError):
        get(entry, force=True)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_two_at_a_time_download_once(entry: Entry, server: Server, body: bytes) -> None:
    server.answers = [serve(body, pause=0.01, step=len(body) // 20)]
    said: list[str] = []
    found: list[tuple[Path, bool]] = []
    threads = [
        threading.Thread(target=lambda: found.append(get(entry, say=said.append))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert sorted(is_new for _, is_new in found) == [False, False, True]
    assert sum("another process downloads it" in line for line in said) == 2
    assert names(models_folder()) == [FILE, f"{FILE}.sha256"]


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import time\n"
        "from pathlib import Path\n"
        "from restore.catalogue.lock import locked\n"
        "with locked(Path('lock'), lambda: None):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    waited: list[bool] = []
    threading.Timer(0.5, holder.kill).start()
    with locked(tmp_path / "lock", lambda: waited.append(True)):
        pass
    holder.communicate()
    assert waited == [True]
    assert not (tmp_path / "lock").exists()


def test_names_find_the_copy(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in (NAME, FILE.lower()):
        with pytest.raises(
            UsageError,
            match=r"not in the cache .*; restore models get SRFormer-light-x3 downloads it$",
        ):
            cached(word)
    with pytest.raises(
        CheckpointError, match="SRFormer-light-x3: no such file; SRFormer-light-x3 is an official"
    ):
        load(NAME, device="cpu")
    with pytest.raises(
        UsageError, match=r"HAT-x4 is an official model .*\); download HAT_SRx4.pth"
    ):
        cached("HAT-x4")
    assert cached("nothing") is None
    path, _ = get(entry)
    for word in (NAME, FILE.lower()):
        assert cached(word) == path
        model = load(word, device="cpu")
        assert (model.variant, model.name) == ("SRFormer-light x3", FILE[:-4])


def test_a_copy_that_was_put_there_by_hand_is_checked_once(
    entry: Entry, body: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir(parents=True)
    path = folder / entry.stored
    path.write_bytes(body[:-1] + b"?")
    with pytest.raises(CheckpointError, match=rf"has SHA-256 \w+, expected .* get {NAME} --force"):
        cached(NAME)
    path.write_bytes(body[:-1])
    with pytest.raises(
        CheckpointError, match=f"has {len(body) - 1:,} bytes, expected {len(body):,}"
    ):
        cached(NAME)
    path.write_bytes(body)
    assert cached(NAME) == path
    monkeypatch.setattr(getting, "digest_of", None)
    assert cached(NAME) == path


def test_later_damage_is_found(entry: Entry, body: bytes) -> None:
    path, _ = get(entry)
    steps: list[tuple[int, int]] = []
    told = verify(path, entry, lambda done, size: steps.append((done, size)))
    assert told == "SHA-256 of the catalogue"
    assert steps[-1] == (len(body), len(body))
    unknown = dataclasses.replace(entry, sha256=None)
    assert verify(path, unknown) == "SHA-256 of when it came"
    path.write_bytes(body[:1000] + b"?" + body[1001:])
    for known, words in ((entry, "expected"), (unknown, "but had")):
        with pytest.raises(CheckpointError, match=f"SHA-256 .*{words} {entry.sha256}"):
            verify(path, known)
    path.write_bytes(body)
    (folder_record,) = path.parent.glob("*.sha256")
    for text in ("", "none", "\0", "12 x"):
        folder_record.write_text(text)
        assert recorded(path) is None
    assert verify(path, unknown) == "network alone; its SHA-256 is recorded now"
    assert folder_record.read_text() == f"{entry.sha256}  SRFormerLight_SRx3_DIV2K.pth\n"
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        verify(path.with_name("none.pth"), entry)


def test_a_file_by_hand_is_recognised(entry: Entry, body: bytes, tmp_path: Path) -> None:
    mine = tmp_path / "download (1).pth"
    mine.write_bytes(body)
    found, path = add(mine, None)  # by its checksum
    assert (found.name, path) == (NAME, stored_path(entry))
    assert path.read_bytes() == body and mine.exists() and recorded(path) == entry.sha256
    assert add(path, NAME)[1] == path  # it lies there already
    assert cached(NAME) == path


def test_a_file_by_hand_is_recognised_by_name_or_network(entry: Entry, tmp_path: Path) -> None:
    def file(name: str, of: str) -> Path:
        path = tmp_path / name
        path.write_bytes(weights(find(of).model.spec, find(of).model.config))
        return path

    assert add(file("HiT-SNG-3x.pth", "HiT-SNG-x3"), None)[0].name == "HiT-SNG-x3"
    assert add(file("mine.pth", "HiT-SIR-x3"), None)[0].name == "HiT-SIR-x3"
    both = file("mine.pth", "HiT-SRF-x3")
    with pytest.raises(
        UsageError, match="any of HiT-SRF-x3, HiT-SRF-x3-DF2K; say which: --as NAME"
    ):
        add(both, None)
    assert add(both, "HiT-SRF-x3-DF2K")[1].name == "HiT-SRF-3x-DF2K.pth"
    with pytest.raises(
        CheckpointError, match="mine: holds HiT-SRF x3, and HiT-SRF-x2 is HiT-SRF x2"
    ):
        add(both, "HiT-SRF-x2")
    with pytest.raises(
        CheckpointError, match=r"has [\d,]+ bytes, and SRFormer-light-x3 has [\d,]+; downl"
    ):
        add(both, NAME)
    changed = tmp_path / "changed.pth"
    changed.write_bytes(bytes(entry.size or 0))
    with pytest.raises(
        CheckpointError, match=r"has SHA-256 \w+, and SRFormer-light-x3 has .*--model_path"
    ):
        add(changed, NAME)


def test_a_file_of_other_settings_is_told(tmp_path: Path) -> None:
    model = find("HAT-S-x2").model
    small = model.config.replaced({"depths": [1], "num_heads": [6]}, "test")
    (tmp_path / "mine.pth").write_bytes(weights(model.spec, small))
    with pytest.raises(
        UsageError, match="is no official model that the catalogue has; use it with"
    ):
        add(tmp_path / "mine.pth", None)
    with pytest.raises(
        CheckpointError, match="mine: holds HAT-dim144, 1 groups, x2, and HAT-x2 is"
    ):
        add(tmp_path / "mine.pth", "HAT-x2")
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        add(tmp_path / "none.pth", None)


def test_a_cache_that_cannot_be_made_is_told(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="models: cannot be written: Not a directory"):
        get(entry)


@pytest.mark.parametrize(
    ("platform", "given", "expected"),
    [
        ("linux", {}, "home/.cache/restore-sr"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/restore-sr"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "home/.cache/restore-sr"),
        ("linux", {"RESTORE_CACHE": "~/models"}, "home/models"),
        ("linux", {"RESTORE_CACHE": "/data", "XDG_CACHE_HOME": "/xdg"}, "/data"),
        ("linux", {"RESTORE_CACHE": ""}, "home/.cache/restore-sr"),
        ("darwin", {}, "home/Library/Caches/restore-sr"),
        ("win32", {}, "home/AppData/Local/restore-sr/Cache"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/restore-sr/Cache"),
    ],
    ids=str,
)
@pytest.mark.skipif(sys.platform == "win32", reason="whole paths begin otherwise there")
def test_where_the_cache_lies(
    platform: str,
    given: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RESTORE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cache.sys, "platform", platform)
    assert models_folder() == tmp_path / expected / "models"


def test_a_cache_of_no_place_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_CACHE", "models")
    with pytest.raises(UsageError, match="RESTORE_CACHE is 'models'; expected a whole path"):
        models_folder()

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("RESTORE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    if sys.platform != "win32":
        with pytest.raises(UsageError, match=r"no home folder is known .*; name a folder"):
            models_folder()


def test_a_part_is_beside_its_file(entry: Entry, folder: Path) -> None:
    assert part_path(stored_path(entry)) == folder / f"{FILE}.part"
