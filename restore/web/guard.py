"""What stands before every request: sizes, addresses, paths; and what every answer says.

The page works without the internet: answers forbid the browser to ask anybody else, and what the
toolkit's own page would fetch from elsewhere is taken out of it.

Source: the ASGI specification 3.0 (asgi.readthedocs.io); CSP level 3 (w3.org/TR/CSP3).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from restore.errors import UsageError
from restore.web.limits import Limits, check_inside

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MOST_JSON = 2**20  # bytes of a request that is no upload
KEPT_FREE = 2**30  # bytes of the disk that uploads leave
LOGIN_SECONDS = 0.5  # that each try of a password takes
POLICY = "; ".join(
    (
        "default-src 'self'",
        # the toolkit's page holds scripts and compiles templates
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Headers = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_ELSEWHERE = re.compile(
    rb"<(?:link|script|meta)\b[^>]*\b(?:href|src|content)=[\"'](?:https?:)?//[^>]*>"
    rb"(?:\s*</script>)?",
    re.I,
)
_UPLOAD = re.compile(r"/upload/?$")
# forwards requests to other machines
_NEVER = re.compile(r"/proxy=")


class Guard:
    """An application around another.

    Args:
        app: what answers.
        limits: of uploads.
        base: the folder of uploads.
        hosts: names that requests may be addressed to, against pages elsewhere whose name is made
            to lead here; None: any.
    """

    def __init__(
        self, app: App, limits: Limits, base: Path, hosts: Iterable[str] | None = None
    ) -> None:
        self._app = app
        self._limits = limits
        self._base = base
        self._hosts = None if hosts is None else frozenset(hosts)
        self._login = asyncio.Lock()
        self._open: set[asyncio.Future[None]] = set()
        self._ending = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it in words."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            # who still sends does not listen
            await _drain(receive, 2 * self._limits.request_bytes)
            await _refuse(send, *refusal)
            return
        answer = _Answer(send)
        if scope["method"] == "GET" and b"text/html" in _header(scope, b"accept"):
            # a page is read on its way, so it must come as it is
            scope = {**scope, "headers": _without(scope["headers"], b"accept-encoding")}
        if scope["method"] == "POST" and not _UPLOAD.search(scope["path"]):
            body = await _whole_body(receive, MOST_JSON)
            if body is None:
                await _refuse(send, 413, f"a request has at most {MOST_JSON:,} bytes")
                return
            try:
                self._check_paths(body)
            except UsageError as error:
                await _refuse(send, 400, str(error))
                return
            receive = _again(body, receive)
            if scope["path"].endswith("/login"):
                # one after the other, whoever asks: passwords cannot be guessed quickly
                async with self._login:
                    await asyncio.sleep(LOGIN_SECONDS)
        elif scope["method"] == "POST":
            receive = _counted(receive, self._limits.request_bytes, answer)
        await self._answer(scope, receive, answer)

    async def _answer(self, scope: Message, receive: Receive, answer: _Answer) -> None:
        task = asyncio.ensure_future(self._app(scope, receive, answer.send))
        self._open.add(task)
        try:
            await task
        except asyncio.CancelledError:
            task.cancel()
            if not self._ending:
                raise
            await answer.finish()
        finally:
            self._open.discard(task)

    def end(self) -> None:
        """End what is open: pages listen until they are closed, and would hold up the end."""
        self._ending = True
        for task in self._open:
            task.cancel()

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Why a request is refused by its headers: a status and a sentence; None if it is not."""
        if self._hosts is not None:
            host = _header(scope, b"host").decode("latin-1").rsplit("@", 1)[-1]
            name = re.sub(r":\d+$", "", host).strip("[]").lower()
            if name not in self._hosts:
                return 421, (
                    f"this page answers to {' and '.join(sorted(self._hosts))} only, and was asked "
                    f"as {name!r}; start it with --host to serve other machines"
                )
        if _NEVER.search(scope["path"]):
            return 404, "there is nothing here"
        length = _header(scope, b"content-length")
        if not length.isdigit() or not _UPLOAD.search(scope["path"]):
            return None
        if int(length) > self._limits.request_bytes:
            most = f"{self._limits.max_files} files of {self._limits.max_megabytes} MB"
            return 413, f"the upload is larger than {most}; send fewer or smaller pictures"
        if int(length) > shutil.disk_usage(self._base).free - KEPT_FREE:
            return 507, "there is no room on the server's disk; try again later"
        return None

    def _check_paths(self, body: bytes) -> None:
        """UsageError where a request names a file that is none of the uploads and results."""
        if b'"path"' not in body and b"\\u" not in body:
            return
        try:
            values = [json.loads(body)]
        except (ValueError, RecursionError):
            raise UsageError("the request is no JSON") from None
        while values:
            value = values.pop()
            if isinstance(value, dict):
                path = value.get("path")
                if isinstance(path, str) and path:
                    check_inside(path, self._base)
                values += value.values()
            elif isinstance(value, list):
                values += value


class _Answer:
    """Passes an answer on with what every answer says; nothing more once it was refused."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._page: Message | None = None  # the start of an answer that is a page
        self._body = b""
        self._ended = False
        self.begun = False
        self.refused = False

    async def send(self, message: Message) -> None:
        if self.refused:
            return
        if message["type"] == "http.response.start":
            headers = [(k.lower(), v) for k, v in message.get("headers", [])]
            added = [pair for pair in _HEADERS if pair[0] not in dict(headers)]
            message = {**message, "headers": [*headers, *added]}
            plain = b"content-encoding" not in dict(headers)
            if plain and dict(headers).get(b"content-type", b"").startswith(b"text/html"):
                self._page = message
                return
            self.begun = True
            await self._send(message)
        elif message["type"] == "http.response.body" and self._page is None:
            self._ended = not message.get("more_body", False)
            await self._send(message)
        elif self._page is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._finish_page(self._page)
        else:
            await self._send(message)

    async def _finish_page(self, start: Message) -> None:
        self.begun, self._ended, self._page = True, True, None
        body = _ELSEWHERE.sub(b"", self._body)
        length = (b"content-length", str(len(body)).encode())
        headers = [*_without(start["headers"], b"content-length"), length]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def finish(self) -> None:
        """Say no more, so that what was begun is whole for the server."""
        if self.begun and not self._ended:
            # a file that is cut short has no good end
            with contextlib.suppress(Exception):
                await self._send({"type": "http.response.body", "body": b""})
        await self.refuse(503, "the page was closed")

    async def refuse(self, status: int, text: str) -> None:
        """Say no, where nothing was said yet, and let nothing follow."""
        if not self.refused and not self.begun:
            self.refused = True
            await _refuse(self._send, status, text)
        self.refused = True


async def _refuse(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        # what was not read of the request is not to be taken for the next one
        (b"connection", b"close"),
        *_HEADERS,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _header(scope: Message, name: bytes) -> bytes:
    found: bytes = next((v for k, v in scope["headers"] if k.lower() == name), b"")
    return found


def _without(headers: Headers, name: bytes) -> Headers:
    return [(k, v) for k, v in headers if k.lower() != name]


async def _whole_body(receive: Receive, most: int) -> bytes | None:
    """All of a request's body; None where it is longer."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return bytes(body)


async def _drain(receive: Receive, most: int) -> None:
    """Read a body for nothing, so much of it at most."""
    while most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read once more, then what comes after it."""
    given = False

    async def once_more() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once_more


def _counted(receive: Receive, most: int, answer: _Answer) -> Receive:
    """Passes a body on as it arrives, and ends the request where it is longer than allowed."""
    arrived = 0

    async def counted() -> Message:
        nonlocal arrived
        message = await receive()
        arrived += len(message.get("body", b""))
        if arrived > most:
            await answer.refuse(413, f"the upload is larger than {most:,} bytes")
            return {"type": "http.disconnect"}
        return message

    return counted
