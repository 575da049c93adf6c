"""A server on this machine that answers as it is told: well, badly, or not at all."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]
BLOCK = 4096


@dataclass
class Server:
    """Answers requests by `answers` in turn, the last of them again and again."""

    port: int
    answers: list[Answer] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def url(self, name: str = "weights.pth") -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def ranges(self) -> list[str | None]:
        """What each request asked for."""
        return [headers.get("Range") for _, headers in self.requests]


@contextlib.contextmanager
def running() -> Iterator[Server]:
    told = Server(0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.requests.append((self.path, dict(self.headers)))
            answer = told.answers.pop(0) if len(told.answers) > 1 else told.answers[0]
            with contextlib.suppress(OSError):  # the client has gone
                answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def serve(
    body: bytes,
    *,
    tag: str = '"one"',
    ranges: bool = True,
    obeys_if_range: bool = True,
    most: int | None = None,
    length: int | None = None,
    shift: int = 0,
    pause: float = 0.0,
    step: int = BLOCK,
    kind: str = "application/octet-stream",
) -> Answer:
    """Send a file, from where the request says.

    Args:
        body: all of it.
        tag: its ETag.
        ranges: whether a Range is obeyed.
        obeys_if_range: whether If-Range is looked at.
        most: bytes after which the connection is closed, whatever was promised.
        length: what Content-Length says; None: the truth.
        shift: by how much a range begins elsewhere.
        pause: seconds between pieces.
        step: bytes of a piece.
        kind: Content-Type.
    """

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        same = not obeys_if_range or request.headers.get("If-Range") in (None, tag)
        start = 0
        if ranges and asked and same:
            start = int(asked.removeprefix("bytes=").rstrip("-")) + shift
            if start >= len(body):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(body)}")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(200)
        request.send_header("Content-Type", kind)
        if tag:
            request.send_header("ETag", tag)
        told = len(body) - start if length is None else length
        if told >= 0:
            request.send_header("Content-Length", str(told))
        request.end_headers()
        sent = body[start:] if most is None else body[start : start + most]
        for at in range(0, len(sent), step):
            request.wfile.write(sent[at : at + step])
            request.wfile.flush()
            time.sleep(pause)

    return answer


def stall(body: bytes, after: int, seconds: float, tag: str = '"one"') -> Answer:
    """Begin well, then send nothing more."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        serve(body, tag=tag, most=after)(request)
        time.sleep(seconds)

    return answer


def status(code: int, **headers: str) -> Answer:
    """Only a status, with headers (Retry_After for Retry-After)."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()

    return answer


def endless(piece: bytes) -> Answer:
    """Never stop, and tell no length."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(piece)

    return answer


def silence(seconds: float) -> Answer:
    """Take the request and answer nothing."""
    return lambda request: time.sleep(seconds)


def garbage(request: BaseHTTPRequestHandler) -> None:
    """Answer what is no HTTP."""
    request.wfile.write(b"220 smtp.example ready\r\n")
