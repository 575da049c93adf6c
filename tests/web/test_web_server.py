"""The page as its process: what it answers, what it refuses, and what it leaves behind."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_server import Running, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM cannot be caught there"),
]


@pytest.fixture(scope="module", autouse=True)
def toolkit() -> None:
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("needs Gradio: pip install 'restore-sr[web]'")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with served(tmp_path_factory.mktemp("page"), "--max-files", "2", "--max-megabytes", "1") as it:
        yield it


def ask(
    url: str, data: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, str, bytes]:
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, str(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, str(error.headers), error.read()


def listening(page: Running) -> str:
    """What an open page listens to until it is closed."""
    return f"{page.url}/gradio_api/heartbeat/abc"


def upload(page: Running, *bodies: bytes) -> tuple[int, bytes]:
    mark = "xxBOUNDARYxx"
    parts = b"".join(
        f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="p{i}.png"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + body
        + b"\r\n"
        for i, body in enumerate(bodies)
    )
    status, _, answer = ask(
        f"{page.url}/gradio_api/upload",
        parts + f"--{mark}--\r\n".encode(),
        {"Content-Type": f"multipart/form-data; boundary={mark}"},
    )
    return status, answer


def test_the_page_names_no_other_machine(page: Running) -> None:
    status, headers, body = ask(page.url, headers={"Accept": "text/html"})
    assert status == 200
    assert "default-src 'self'" in headers
    fetched = re.findall(rb"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']([^\"']+)", body)
    assert fetched
    assert [address for address in fetched if re.match(rb"(https?:)?//", address)] == []


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "{root}/setup.cfg", "{root}/restore/weights/swinir_builtin_x2.safetensors"],
)
def test_files_of_the_machine_are_not_given(page: Running, root: Path, path: str) -> None:
    for prefix in ("/gradio_api/file=", "/file="):
        status, _, body = ask(page.url + prefix + path.format(root=root))
        assert status in (403, 404)
        assert b"root:" not in body and b"[metadata]" not in body


def test_an_upload_is_given_back_to_who_knows_it(page: Running) -> None:
    status, answer = upload(page, b"x" * 10)
    assert status == 200
    (path,) = json.loads(answer)
    assert Path(path).is_relative_to(page.folder)
    assert Path(path).parents[1].stat().st_mode & 0o077 == 0
    assert ask(f"{page.url}/gradio_api/file={path}")[2] == b"x" * 10


def test_large_uploads_are_refused(page: Running) -> None:
    assert upload(page, bytes(1_000_001))[0] >= 400
    status, answer = upload(page, *([bytes(900_000)] * 3))
    assert (status, b"larger than 2 files of 1 MB" in answer) == (413, True)
    assert upload(page, bytes(1_000_000))[0] == 200


def test_paths_of_others_are_refused(page: Running) -> None:
    for path in ("/etc/passwd", "https://example.org/a.png"):
        body = {"data": [[{"path": path, "meta": {"_type": "gradio.FileData"}}]], "fn_index": 0}
        status, _, answer = ask(
            f"{page.url}/gradio_api/queue/join",
            json.dumps({**body, "session_hash": "abc"}).encode(),
            {"Content-Type": "application/json"},
        )
        assert (status, b"is no file that was uploaded here" in answer) == (400, True)


def test_other_names_of_this_machine_are_refused(page: Running) -> None:
    status, _, answer = ask(page.url, headers={"Host": "evil.example"})
    assert (status, b"start it with --host" in answer) == (421, True)


def test_a_password_is_asked_for(tmp_path: Path) -> None:
    with served(tmp_path / "tmp", "--auth", "me:secret") as page:
        status, _, _ = ask(f"{page.url}/config")
        assert status == 401
        assert upload(page, b"x")[0] == 401
        assert ask(f"{page.url}/gradio_api/file=/etc/passwd")[0] in (401, 403)
        _, _, body = ask(page.url, headers={"Accept": "text/html"})
        assert b"swinir" not in body


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)], ids=["SIGTERM", "Ctrl-C"]
)
def test_nothing_is_left_behind(tmp_path: Path, number: int, code: int) -> None:
    folder = tmp_path / "tmp"
    with served(folder) as page, urllib.request.urlopen(listening(page), timeout=60):
        assert upload(page, b"x")[0] == 200
        assert any(path.name == "p0.png" for path in folder.rglob("*"))
        began = time.monotonic()
        page.process.send_signal(number)
        assert page.process.wait(30) == code
        assert time.monotonic() - began < 15
        assert page.process.stdout is not None
        assert "Traceback" not in page.process.stdout.read()
    assert [path for path in folder.iterdir() if path.name.startswith("restore-web-")] == []
