"""Starts the page, keeps it clean, and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from restore.errors import UsageError
from restore.web.guard import Guard
from restore.web.limits import Limits
from restore.web.service import Service
from restore.web.shelf import Shelf
from restore.web.visits import own_folder

SWEEP_SECONDS = 60.0
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Address:
    """Where the page is served, and to whom.

    Attributes:
        host: a name or number of this machine; 0.0.0.0 for all of its networks.
        port: 0 for any that is free.
        auth: names and passwords; empty: nobody is asked.
        browser: whether to open it in one.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    auth: tuple[tuple[str, str], ...] = ()
    browser: bool = True

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def url(self, port: int) -> str:
        """For a browser, with the port that was taken."""
        name = "localhost" if self.host in _LOCAL_NAMES else self.host
        if name in ("0.0.0.0", "::"):
            name = socket.gethostname()
        return f"http://{f'[{name}]' if ':' in name else name}:{port}"

    def warnings(self) -> list[str]:
        """What whoever starts the page has to know."""
        if self.is_local:
            return []
        told = [
            "warning: whoever reaches this machine over the network can send it pictures and "
            "computations, and what they send is not encrypted; safer from another machine: "
            f"ssh -L {self.port}:localhost:{self.port} THIS-MACHINE, without --host"
        ]
        if not self.auth:
            told.append("warning: nobody is asked for a password; give --auth USER:PASSWORD")
        return told


def listen(address: Address) -> socket.socket:
    """A socket at an address; UsageError where there is none to be had."""
    host, port = address.host, address.port
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(
            f"--host {host}: is no name or number of this machine ({error.strerror or error}); "
            "127.0.0.1 serves this machine alone, 0.0.0.0 all networks"
        ) from error
    sock = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two programs share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        # taken now: whoever else wants the port is to be told at once
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise UsageError(
            f"port {port} of {host} cannot be had: {error.strerror or error}; choose another with "
            "--port, or 0 for any that is free"
        ) from error
    return sock


def serve(
    sock: socket.socket,
    address: Address,
    shelf: Shelf,
    limits: Limits,
    *,
    chosen: str,
    device: str,
    say: Callable[[str], None],
    log: Callable[[str], None],
) -> None:
    """Serve the page until somebody ends it (Ctrl-C, SIGTERM).

    Args:
        sock: from `listen`.
        address: what it listens on.
        shelf: the models.
        limits: what is taken.
        chosen: name of the model that is chosen at first.
        device: what computes, in words.
        say: is told where the page is.
        log: is told of defects.
    """
    with contextlib.ExitStack() as stack:
        leaving = stack.enter_context(_Leaving())
        base = stack.enter_context(own_folder())
        stack.enter_context(_toolkit_settings(base))
        service = Service(shelf, limits, base, log)
        guard = _application(service, address, chosen, device)
        url = address.url(sock.getsockname()[1])
        ended = threading.Event()
        sweeper = threading.Thread(target=_sweep, args=(service, ended), daemon=True)
        sweeper.start()
        try:
            _run(guard, service, sock, lambda: _ready(url, address, say))
        finally:
            ended.set()
            leaving.at_once = not service.close()


class _Leaving:
    """At the end of all, ends the process where a network is still at work.

    Its threads cannot be stopped, and would abort the process when Python takes itself down.
    """

    def __init__(self) -> None:
        self.at_once = False

    def __enter__(self) -> _Leaving:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.at_once and (error is None or isinstance(error, SystemExit)):
            code = 0 if error is None else error.code
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 1)


def _ready(url: str, address: Address, say: Callable[[str], None]) -> None:
    say(f"the page is at {url} (Ctrl-C ends it)")
    if address.browser and address.is_local and _has_screen():
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _has_screen() -> bool:
    """Whether a browser would open a window, and not take over the terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _sweep(service: Service, ended: threading.Event) -> None:
    while not ended.wait(SWEEP_SECONDS):
        service.sweep()


@contextlib.contextmanager
def _toolkit_settings(base: Path) -> Iterator[None]:
    """What Gradio reads of the environment and no argument tells it, while it lasts."""
    wanted = {
        "GRADIO_TEMP_DIR": str(base),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",  # or browsers would keep names of pictures
        "GRADIO_MCP_SERVER": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    # uploads that break off lie there, and are to go with the rest
    kept, tempfile.tempdir = tempfile.tempdir, str(base)
    try:
        yield
    finally:
        tempfile.tempdir = kept
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _application(service: Service, address: Address, chosen: str, device: str) -> Guard:
    """The page behind its guard."""
    import fastapi
    import gradio as gr

    from restore.web.page import Page, style, theme

    machine = "on this computer" if address.is_local else f"by {socket.gethostname()}"
    page = Page(service, chosen, f"{machine} ({device})").blocks()
    outer = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = gr.mount_gradio_app(
        outer,
        page,
        path="/",
        auth=list(address.auth) or None,
        auth_message="The name and password for restore on this machine:" if address.auth else None,
        max_file_size=service.limits.upload_bytes,
        # tracebacks go to the terminal, not to visitors
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        footer_links=[],
        favicon_path=str(Path(__file__).with_name("icon.svg")),
        theme=theme(),
        css=style(),
    )
    hosts: Sequence[str] | None = None
    if address.is_local:
        hosts = sorted({*_LOCAL_NAMES, address.host.strip("[]").lower()})
    return Guard(app, service.limits, service.base, hosts)


def _run(guard: Guard, service: Service, sock: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until a signal comes."""
    import uvicorn

    class Server(uvicorn.Server):  # type: ignore[misc]
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            ready()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if service.waiting():
                # pages that wait look again and again, and are to say what became of it
                service.ending = True
                await asyncio.sleep(1.0)
            guard.end()
            await super().shutdown(sockets=sockets)

    config = uvicorn.Config(
        guard,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    # how most people end it; no failure
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[sock])
