"""`restore models` as people and programs use it, and models by name in other commands."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from servers import Server, running, serve, status

from restore import cli
from restore.catalogue import entries as catalogue_module
from restore.catalogue import getting
from restore.catalogue.entries import Entry, catalogue, find
from restore.commands.screen import BytesBar
from restore.image_io import Picture, write_picture

NAME = "SRFormer-light-x3"
FILE = "SRFormerLight_SRx3_DIV2K.pth"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def body() -> bytes:
    model = find(NAME).model
    torch.manual_seed(0)
    file = io.BytesIO()
    torch.save({"params": model.spec.build(model.config).state_dict()}, file)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as told:
        yield told


@pytest.fixture
def entry(server: Server, body: bytes, monkeypatch: pytest.MonkeyPatch) -> Entry:
    server.answers = [serve(body)]
    digest = hashlib.sha256(body).hexdigest()
    known = dataclasses.replace(find(NAME), url=server.url(FILE), size=len(body), sha256=digest)
    changed = tuple(known if e.name == NAME else e for e in catalogue_module.catalogue())
    for module in (catalogue_module, getting):
        monkeypatch.setattr(module, "catalogue", lambda: changed)
    return known


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def words(*given: str) -> tuple[int, str, str]:
        return cli.main([*given]), *capsys.readouterr()

    return words


def test_the_list(run: Run) -> None:
    code, out, err = run("models")
    assert (code, err) == (0, "")
    assert "swinir_builtin_x2" in out
    lines = out.splitlines()
    for entry in catalogue():
        (line,) = [line for line in lines if line.split()[:1] == [entry.name]]
        assert ("unknown" in line) == (entry.size is None or entry.sha256 is None)
        assert line.endswith("to download" if entry.url else "by browser")
    heading = (
        "SwinIR, super-resolution (Apache-2.0; https://github.com/JingyunLiang/SwinIR/releases"
    )
    assert sum(line.startswith(heading) for line in lines) == 1
    assert f"{len(catalogue())} official models. To download: restore models get NAME" in out
    assert max(map(len, lines)) <= 130


def test_a_part_of_the_list(run: Run, entry: Entry, folder: Path) -> None:
    _, out, _ = run("models", "--family", "hit-sr", "--scale", "2")
    assert "swinir_builtin" not in out and "4 official models" in out
    assert "38.22, Urban100 33.02" in out
    code, out, _ = run("models", "--family", "cat", "--task", "deblur")
    assert (code, out) == (0, "no official model of that kind is there\n")
    _, out, _ = run("models", "--cached")
    assert f"no official model is there in the cache ({folder})" in out
    run("models", "get", NAME, "-q")
    _, out, _ = run("models", "--cached", "--scale", "3")
    assert f"  {NAME}" in out and "in the cache" in out and "1 official model." in out
    (folder / FILE).write_bytes(b"x")
    (folder / "SRFormerLight_SRx2_DIV2K.pth.part").write_bytes(bytes(2048))
    _, out, _ = run("models", "--family", "srformer")
    assert "damaged: of another size" in out and "interrupted at 2.0 KiB" in out


def test_the_list_for_programs(run: Run) -> None:
    found = {facts["name"]: facts for facts in json.loads(run("models", "--json")[1])}
    assert found["swinir_builtin_x2"]["kind"] == "built-in"
    facts = found["HAT-x4"]
    assert facts["published"]["Set5"] == {"psnr_y": 33.04, "ssim_y": 0.9056}
    assert (facts["family"], facts["scale"], facts["licence"]) == ("HAT", 4, "Apache-2.0")
    assert (facts["file"], facts["bytes"], facts["cached"]) == ("HAT_SRx4.pth", 85137601, None)
    assert facts["page"].startswith("https://drive.google.com") and facts["url"] is None
    assert found["CAT-Unet-real-denoising"]["file"] is None
    assert (
        json.loads(run("models", "--json", "--task", "deblur")[1])[0]["name"] == "Uformer-B-GoPro"
    )


def test_all_of_one(run: Run, entry: Entry) -> None:
    _, out, _ = run("models", "show", "hat_srx4", NAME)
    for words in (
        "HAT x4 (HAT, arXiv:2205.04437)",
        "02dabea478",
        "85,137,601 bytes",
        "Set5: psnr_y",
    ):
        assert words in out
    assert "then: restore models add HAT_SRx4.pth --as HAT-x4" in out
    assert f"restore models get {NAME}" in out and str(entry.url) in out
    run("models", "get", NAME, "-q")
    assert f"restore upscale PICTURE -n {NAME}" in run("models", "show", NAME)[1]
    (facts,) = json.loads(run("models", "show", NAME, "--json")[1])
    assert facts["sha256"] == entry.sha256 and Path(facts["cached"]).is_file()


def test_get_and_use(run: Run, entry: Entry, server: Server, folder: Path) -> None:
    write_picture("a.png", Picture(np.full((20, 24, 3), 99, np.uint8)), fmt="png")
    code, _, err = run("upscale", "a.png", "-n", NAME)
    assert code == 2
    assert f"is not in the cache ({folder}); restore models get {NAME} downloads it" in err
    assert server.requests == [] and not Path("results").exists()
    code, out, err = run("models", "get", NAME, FILE.lower())
    assert code == 0
    assert f"{NAME}: downloaded: {folder / FILE}" in out
    assert err == f"{NAME}: from {entry.url}\n"
    assert len(server.requests) == 1
    assert "is there: " in run("models", "get", NAME)[1]
    for name in (NAME, FILE):
        code, out, _ = run("upscale", "a.png", "-n", name)
        assert code == 0
        assert (
            "model: SRFormerLight_SRx3_DIV2K (SRFormer-light x3)" in out and "24x20 -> 72x60" in out
        )
    assert run("models", "where", NAME)[1] == f"{folder / FILE}\n"
    assert run("models", "verify")[1] == f"{NAME}: ok (SHA-256 of the catalogue)\n"


@pytest.mark.slow  # counts multiplications
def test_info_by_name(run: Run, entry: Entry) -> None:
    assert "restore models get" in run("info", NAME)[2]
    run("models", "get", NAME, "-q")
    assert "variant        SRFormer-light x3" in run("info", NAME)[1]


def test_get_tells_what_failed_and_goes_on(run: Run, entry: Entry, server: Server) -> None:
    server.answers = [status(404)]
    code, out, err = run("models", "get", NAME, "HAT-x4", "-q")
    assert (code, out) == (1, "")
    assert "answered 404 Not Found: the file is not there any more" in err
    assert "https://drive.google.com" in err and "2 of 2 models failed" in err
    server.requests.clear()
    assert "--offline forbids" in run("models", "get", NAME, "--offline")[2]
    assert server.requests == []


def test_without_a_published_checksum_that_is_said(
    run: Run, entry: Entry, body: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = (dataclasses.replace(entry, sha256=None),)
    monkeypatch.setattr(catalogue_module, "catalogue", lambda: known)
    code, out, _ = run("models", "get", NAME, "--to", str(tmp_path / "mine"))
    assert code == 0
    assert "note: nobody publishes its SHA-256; it holds SRFormer-light x3" in out
    assert "-n" not in out  # -n looks into the cache alone


def test_add(run: Run, entry: Entry, body: bytes, folder: Path) -> None:
    Path("down.pth").write_bytes(body)
    code, out, _ = run("models", "add", "down.pth")
    assert code == 0
    assert out.startswith(f"down.pth: {NAME}: {folder / FILE}\n")
    Path("bad.pth").write_text("no weights")
    code, _, err = run("models", "add", "bad.pth", "none.pth", "down.pth", "-q")
    assert code == 1
    assert "bad.pth: is no whole weight file" in err and "none.pth: cannot be read" in err


def test_verify_finds_damage(run: Run, entry: Entry, folder: Path) -> None:
    assert f"no official model is in the cache, {folder}" in run("models", "verify")[1]
    run("models", "get", NAME, "-q")
    (folder / FILE).write_bytes(b"damaged")
    code, _, err = run("models", "verify")
    assert code == 1
    assert f"get {NAME} --force" in err
    assert run("models", "get", NAME, "--force", "-q") == (0, "", "")
    assert run("models", "verify", NAME)[0] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["gte", "HAT-x4"],
            "there is no action 'gte' of models; expected get, add, show, where, v",
        ),
        (["HAT-x4"], "did you mean: restore models show HAT-x4?"),
        (["get"], "the following arguments are required: NAME"),
        (["get", "HTA-x4"], "no official model is called 'HTA-x4'; did you mean HAT-x4"),
        (["get", "Uformer_B.pth"], "is the name of Uformer-B-SIDD"),
        (["get", NAME, "--force", "--offline"], "--force downloads and --offline forbids it"),
        (["add", "a", "b", "--as", NAME], "--as names one model; give one file with it"),
        (["--family", "resnet"], "--family: no official model is of 'resnet'"),
        (["--scale", "x"], "expected a whole number, 1 or more"),
        (["--famly", "hat"], "did you mean --family"),
    ],
    ids=str,
)
def test_what_cannot_be_obeyed_is_told(run: Run, words: list[str], told: str) -> None:
    code, out, err = run("models", *words)
    assert (code, out) == (2, "")
    assert told in err


def test_where(run: Run, folder: Path) -> None:
    assert run("models", "where") == (0, f"{folder}\n", "")
    code, out, err = run("models", "where", "HAT-x4")
    assert (code, out) == (1, "")
    assert "HAT-x4: is not in the cache" in err


def test_a_typo_of_a_model_is_told_where_it_is_used(run: Run) -> None:
    write_picture("a.png", Picture(np.zeros((8, 8, 3), np.uint8)), fmt="png")
    code, _, err = run("upscale", "a.png", "-n", "HTA-x4")
    assert code == 2
    assert "no built-in model is called 'HTA-x4'; did you mean 'HAT-x4'?" in err


@pytest.mark.slow  # starts PyTorch once more
@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_keeps_what_came(server: Server, body: bytes, folder: Path) -> None:
    server.answers = [serve(body, pause=0.05, step=len(body) // 200)]
    code = (
        "import dataclasses, sys\n"
        "from restore import cli\n"
        "from restore.catalogue import entries\n"
        f"known = dataclasses.replace(entries.find('{NAME}'), url='{server.url()}')\n"
        "entries.catalogue = lambda: (known,)\n"
        f"raise SystemExit(cli.main(['models', 'get', '{NAME}']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    part = folder / f"{FILE}.part"
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert f"interrupted; {part.stat().st_size:,} bytes of {NAME} are kept" in err
    assert part.stat().st_size > 0 and "Traceback" not in err


def test_a_terminal_sees_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with BytesBar("HAT-x4", quiet=False) as bar:
        bar.progress(2**20, 2**22)
        bar.say("trying again")
        bar.progress(2**22, 2**22)
        bar.progress(0, None)  # from the beginning
    told = capsys.readouterr().err
    assert "HAT-x4:  25%" in told and "1.00M/4.00M" in told
    assert "HAT-x4: trying again\n" in told
    with BytesBar("HAT-x4", quiet=True) as bar:
        bar.progress(1, 2)
        bar.say("trying again")
    assert capsys.readouterr().err == ""
