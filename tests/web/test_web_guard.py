"""What stands before every request of the page."""

from __future__ import annotations

import asyncio
import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from restore.web import guard
from restore.web.guard import MOST_JSON, Guard
from restore.web.limits import Limits

LIMITS = Limits(max_files=2, max_megabytes=1)
PAGE = (
    b"<html><head>"
    b'<link rel="preconnect" href="https://fonts.googleapis.com" />'
    b'<link rel="stylesheet" href="./theme.css">'
    b'<script src="https://cdnjs.example.com/x.js" async></script>'
    b'<script type="module" src="./assets/index.js"></script>'
    b'<meta property="og:url" content="https://gradio.app/">'
    b"</head><a href='https://example.org'>elsewhere</a></html>"
)


class Inner:
    """Answers with a page, and keeps what it was given."""

    def __init__(self, body: bytes = b"ok", kind: bytes = b"text/plain") -> None:
        self.body, self.kind = body, kind
        self.seen: list[bytes] = []
        self.scope: dict[str, Any] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            self.seen.append(message["body"])
            if not message["more_body"]:
                break
        headers = [(b"Content-Type", self.kind), (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        half = len(self.body) // 2
        await send({"type": "http.response.body", "body": self.body[:half], "more_body": True})
        await send({"type": "http.response.body", "body": self.body[half:]})


def ask(
    inner: Inner,
    base: Path,
    path: str = "/",
    *,
    method: str = "GET",
    headers: dict[bytes, bytes] | None = None,
    chunks: tuple[bytes, ...] = (b"",),
    hosts: tuple[str, ...] | None = ("localhost", "127.0.0.1", "::1"),
) -> tuple[int, dict[bytes, bytes], bytes]:
    pairs = {b"host": b"localhost:7860", **(headers or {})}
    scope = {"type": "http", "method": method, "path": path, "headers": list(pairs.items())}
    waiting = [
        {"type": "http.request", "body": chunk, "more_body": i < len(chunks) - 1}
        for i, chunk in enumerate(chunks)
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(Guard(inner, LIMITS, base, hosts)(scope, receive, send))
    (start,) = (m for m in sent if m["type"] == "http.response.start")
    body = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    return start["status"], dict(start["headers"]), body


def test_a_page_asks_nobody_else(tmp_path: Path) -> None:
    inner = Inner(PAGE, b"text/html; charset=utf-8")
    wanted = {b"accept": b"text/html,*/*", b"accept-encoding": b"br"}
    status, headers, body = ask(inner, tmp_path, headers=wanted)
    assert status == 200
    assert b"googleapis" not in body and b"cdnjs" not in body
    assert b"./theme.css" in body and b"./assets/index.js" in body
    assert b"href='https://example.org'" in body  # a link is for people to follow
    assert int(headers[b"content-length"]) == len(body)
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"accept-encoding" not in dict(inner.scope["headers"])


def test_other_answers_pass_as_they_are(tmp_path: Path) -> None:
    status, headers, body = ask(Inner(b"picture", b"image/png"), tmp_path, "/gradio_api/file=x")
    assert (status, body, headers[b"content-type"]) == (200, b"picture", b"image/png")
    assert b"content-security-policy" in headers


@pytest.mark.parametrize("host", [b"localhost", b"127.0.0.1:7860", b"[::1]:7860", b"LOCALHOST:1"])
def test_this_machine_is_answered(tmp_path: Path, host: bytes) -> None:
    assert ask(Inner(), tmp_path, headers={b"host": host})[0] == 200


@pytest.mark.parametrize(
    "host", [b"evil.example", b"localhost.evil.example:7860", b"", b"10.0.0.1"]
)
def test_names_that_were_made_to_lead_here_are_not(tmp_path: Path, host: bytes) -> None:
    inner = Inner()
    status, _, body = ask(inner, tmp_path, headers={b"host": host})
    assert status == 421
    assert b"start it with --host" in body
    assert inner.scope == {}
    assert ask(Inner(), tmp_path, headers={b"host": host}, hosts=None)[0] == 200


def test_an_upload_that_says_it_is_too_large_is_not_read(tmp_path: Path) -> None:
    inner = Inner()
    length = b"%d" % (LIMITS.request_bytes + 1)
    status, _, body = ask(
        inner, tmp_path, "/gradio_api/upload", method="POST", headers={b"content-length": length}
    )
    assert status == 413
    assert b"larger than 2 files of 1 MB" in body
    assert inner.scope == {}


def test_an_upload_that_turns_out_too_large_is_ended(tmp_path: Path) -> None:
    inner = Inner()
    chunks = (bytes(2**20),) * 3
    status, _, body = ask(inner, tmp_path, "/gradio_api/upload", method="POST", chunks=chunks)
    assert status == 413
    assert b"the upload is larger than" in body
    assert len(inner.seen) < 3


def test_an_upload_within_limits_passes(tmp_path: Path) -> None:
    inner = Inner()
    chunks = (b"a" * 2**20, b"b")
    assert ask(inner, tmp_path, "/gradio_api/upload", method="POST", chunks=chunks)[0] == 200
    assert tuple(inner.seen) == chunks


def test_an_upload_leaves_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(guard.shutil, "disk_usage", lambda _: usage(2**40, 2**40, 2**30 + 10))
    for length, status in ((b"10", 200), (b"11", 507)):
        headers = {b"content-length": length}
        got = ask(Inner(), tmp_path, "/gradio_api/upload", method="POST", headers=headers)
        assert got[0] == status


def join(inner: Inner, base: Path, data: object) -> tuple[int, bytes]:
    body = json.dumps({"data": data}).encode()
    status, _, answer = ask(
        inner, base, "/gradio_api/queue/join", method="POST", chunks=(body[:7], body[7:])
    )
    return status, answer


def test_a_request_may_name_uploads(tmp_path: Path) -> None:
    inner = Inner()
    path = str(tmp_path / "hash" / "photo.png")
    data = [[{"path": path, "url": f"http://localhost:7860/file={path}", "size": 3}], "x2", None]
    assert join(inner, tmp_path, data)[0] == 200
    assert json.loads(b"".join(inner.seen))["data"] == data


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "http://example.org/a.png", "../up.png", "photo.png", "\\\\host\\a.png"]
)
def test_a_request_may_name_nothing_else(tmp_path: Path, path: str) -> None:
    inner = Inner()
    for data in ([{"path": path}], [[{"a": {"b": [{"path": path}]}}]]):
        status, answer = join(inner, tmp_path, data)
        assert status == 400
        assert b"is no file that was uploaded here" in answer
    assert inner.scope == {}


def test_a_path_cannot_hide_behind_escapes(tmp_path: Path) -> None:
    body = rb'{"data": [{"\u0070ath": "/etc/passwd"}]}'
    status, _, _ = ask(Inner(), tmp_path, "/gradio_api/queue/join", method="POST", chunks=(body,))
    assert status == 400


@pytest.mark.parametrize("body", [b'{"path": ', b'{"path": ' + b"[" * 10**5])
def test_what_is_no_json_is_refused(tmp_path: Path, body: bytes) -> None:
    status, _, _ = ask(Inner(), tmp_path, "/gradio_api/queue/join", method="POST", chunks=(body,))
    assert status == 400


def test_other_requests_are_short(tmp_path: Path) -> None:
    chunks = (bytes(MOST_JSON), b"x")
    status, _, _ = ask(Inner(), tmp_path, "/gradio_api/queue/join", method="POST", chunks=chunks)
    assert status == 413


def test_what_is_open_ends_with_the_page(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []

    async def listens_on(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        raise AssertionError("nobody reads")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def end() -> None:
        guarded = Guard(listens_on, LIMITS, tmp_path)
        scopes = [
            {"type": "http", "method": "GET", "path": path, "headers": []}
            for path in ("/begun", "/waits")
        ]
        tasks = [asyncio.ensure_future(guarded(scope, receive, send)) for scope in scopes]
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        guarded.end()
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(end(), 20))
    ends = [m for m in sent if m["type"] == "http.response.body" and not m.get("more_body")]
    assert sorted(m["body"] for m in ends) == [b"", b"the page was closed"]


def test_passwords_cannot_be_tried_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LOGIN_SECONDS", 0.05)
    at: list[float] = []

    class Login(Inner):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            at.append(asyncio.get_running_loop().time())

    guarded = Guard(Login(), LIMITS, tmp_path)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"username=me&password=x"}

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError(message)

    async def all_at_once() -> float:
        scope = {"type": "http", "method": "POST", "path": "/login", "headers": []}
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(guarded(scope, receive, send) for _ in range(4)))
        return began

    began = asyncio.run(all_at_once())
    # a clock's step less at each
    assert all(then - began > 0.04 * (i + 1) for i, then in enumerate(sorted(at)))


def test_requests_are_not_passed_on_to_other_machines(tmp_path: Path) -> None:
    inner = Inner()
    assert ask(inner, tmp_path, "/gradio_api/proxy=https://example.org/")[0] == 404
    assert inner.scope == {}
