"""One file over HTTP into a part file, which a later call goes on with.

Nothing that a server says is taken on trust: lengths, ranges and types are compared with what was
asked for and with what comes, and the caller gets the SHA-256 of what lies on the disk.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from restore import __version__
from restore.atomic import atomic_output, writing
from restore.catalogue.answers import (
    Again,
    Begun,
    NoAnswer,
    check_content,
    first_and_total,
    looks_like_a_page,
    refused,
    retry_after,
    validator_of,
)
from restore.catalogue.cache import digest_of
from restore.errors import DownloadError, OutputError

Progress = Callable[[int, int | None], None]  # bytes that are there, of how many if that is known
AGENT = f"restore-sr/{__version__}"
_BLOCK = 2**16


@dataclass(frozen=True)
class Limits:
    """How long to wait and how much to take.

    Attributes:
        stall: seconds without a byte after which a connection is given up.
        window: seconds over which at least `least_rate` has to come.
        least_rate: bytes a second; slower is as good as a stall.
        tries: in a row that may bring no progress.
        progress: bytes that make a try count as progress.
        pause: seconds before the second try; doubled before each further one.
        most_pause: seconds.
        most_bytes: of a file whose length nobody told.
    """

    stall: float = 30.0
    window: float = 30.0
    least_rate: float = 1024.0
    tries: int = 6
    progress: int = 2**18
    pause: float = 1.0
    most_pause: float = 30.0
    most_bytes: int = 2**32


class Transfer:
    """One file on its way.

    Args:
        url: http or https.
        part: file for what came so far; what it needs to go on lies beside it.
        size: bytes that it must have; None where unknown.
        sha256: that it must have; None where unknown.
        limits: see there.
        progress: told of every piece.
        say: told of what goes wrong and is tried again.
    """

    def __init__(
        self,
        url: str,
        part: Path,
        *,
        size: int | None = None,
        sha256: str | None = None,
        limits: Limits | None = None,
        progress: Progress | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._url = url
        self._part = part
        self._size = size
        self._sha256 = sha256
        self._limits = limits or Limits()
        self._progress = progress or (lambda done, total: None)
        self._say = say or (lambda text: None)
        self._opener = _opener()
        self._in_one = False  # whether all that is there came in one answer

    def run(self) -> str:
        """Bring the file, in as many tries as make progress.

        Returns:
            SHA-256 of the part file, which is then whole.

        Raises:
            DownloadError: it cannot be brought, or is not what it should be; what came is kept
                where it can be of use.
            OutputError: it cannot be written; what came is kept.
        """
        failures, again, came = 0, False, False
        while True:
            before = self._kept()
            try:
                self._attempt(before)
            except Again as problem:
                gained = self._kept() - before
                came = came or gained > 0
                failures = 1 if gained >= self._limits.progress else failures + 1
                # a network that was there a minute ago is waited for longer
                if failures >= (self._limits.tries if came else problem.most(self._limits.tries)):
                    self._give_up(problem, failures)
                self._rest(problem, failures)
                continue
            digest = digest_of(self._part)
            if self._sha256 in (None, digest):
                return digest
            self.forget()
            if self._in_one or again:
                raise DownloadError(
                    f"{self._url}: what it sent has SHA-256 {digest}, expected {self._sha256}: the "
                    "file there was replaced, or changed on its way; nothing of it is kept"
                )
            self._say("the parts that came at different times do not fit; from the beginning")
            again = True

    def forget(self) -> None:
        """Remove what came so far."""
        with writing(self._part):
            self._part.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self._part.with_name(f"{self._part.name}.json")

    def _kept(self) -> int:
        return self._part.stat().st_size if self._part.is_file() else 0

    def _give_up(self, problem: Again, failures: int) -> NoReturn:
        kept = self._kept()
        told = f"{kept:,} bytes are kept, and the same command goes on from there" if kept else ""
        tried = f"tried {failures} times" if failures > 1 else ""
        after = "; ".join(filter(None, (tried, problem.advice, told)))
        raise DownloadError(f"{self._url}: {problem}; {after}") from problem

    def _rest(self, problem: Again, failures: int) -> None:
        doubled = self._limits.pause * 2 ** (failures - 1)
        pause = min(self._limits.most_pause, max(doubled, problem.pause))
        self._say(f"{problem}; trying again in {pause:.0f} s")
        time.sleep(pause)

    def _attempt(self, at: int) -> None:
        """Bring what is missing, over one connection."""
        known = self._known() if at else Begun("", None)
        size = known.size if self._size is None else self._size
        if at and at == size:
            return  # an interruption came between the last byte and the check
        if (at and not (known.validator or self._sha256)) or (size is not None and at > size):
            self.forget()  # nothing would tell whether the rest belongs to it
            at = 0
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        if at:
            headers["Range"] = f"bytes={at}-"
            if known.validator:
                headers["If-Range"] = known.validator
        with self._answer(headers, at) as answer:
            start, total = self._place(answer, at, known)
            if self._size is not None and total not in (None, self._size):
                self.forget()
                raise DownloadError(
                    f"{self._url}: the file there has {total:,} bytes, expected {self._size:,}: it "
                    "was replaced, or something between here and there answers in its place"
                )
            total = total if self._size is None else self._size
            self._make_room(start, total)
            self._write_note(answer, total)
            self._copy(answer, start, total)

    def _answer(self, headers: Mapping[str, str], at: int) -> http.client.HTTPResponse:
        request = urllib.request.Request(self._url, headers=dict(headers))
        try:
            answer: http.client.HTTPResponse = self._opener.open(
                request, timeout=self._limits.stall
            )
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and at:
                    self.forget()  # the file there is shorter than what is here
                    raise Again("the file there is not the one that was begun") from error
                wait = retry_after(error.headers)
                raise refused(self._url, error.code, wait) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise _connection_problem(self._url, reason) from error
        return answer

    def _place(
        self, answer: http.client.HTTPResponse, at: int, known: Begun
    ) -> tuple[int, int | None]:
        """Where the answer begins in the file, and how long that is if the server says it."""
        check_content(self._url, answer.headers)
        if answer.status == 200:
            if at:
                self._say("the server sends all of it again; from the beginning")
            return 0, first_and_total(answer)[1]
        if answer.status != 206:
            raise refused(self._url, answer.status, None)
        first, total = first_and_total(answer)
        if first == at and known.fits(validator_of(answer.headers), total):
            return at, total
        self.forget()
        raise Again("the server sent another part, or a part of another file, than was asked for")

    def _make_room(self, start: int, total: int | None) -> None:
        """OutputError where the rest has no room, DownloadError where it is beyond all bounds."""
        if total is None:
            return
        if total > self._limits.most_bytes and self._size is None:
            raise self._too_long(self._limits.most_bytes)
        free = shutil.disk_usage(self._part.parent).free
        if free < total - start:
            raise OutputError(
                f"{self._part.parent}: {free:,} bytes are free and {total - start:,} more are "
                "needed; free some space, or name another folder with --to or RESTORE_CACHE"
            )

    def _too_long(self, most: int) -> DownloadError:
        return DownloadError(
            f"{self._url}: sends more than {most:,} bytes, the most that is taken; nothing is kept"
        )

    def _copy(self, answer: http.client.HTTPResponse, at: int, total: int | None) -> None:
        most = self._limits.most_bytes if total is None else total
        window, there = time.monotonic(), at
        self._in_one = at == 0
        with writing(self._part), self._part.open("ab" if at else "wb") as file:
            self._progress(at, total)
            while block := self._read(answer):
                is_page = at == 0 and looks_like_a_page(block)
                at += len(block)
                if is_page or at > most:
                    file.close()
                    self.forget()
                    page = refused(self._url, 200, None)
                    raise page if is_page else self._too_long(most)
                file.write(block)
                file.flush()
                self._progress(at, total)
                if (now := time.monotonic()) - window >= self._limits.window:
                    if at - there < self._limits.least_rate * (now - window):
                        raise Again(f"only {at - there:,} bytes came in {now - window:.0f} s")
                    window, there = now, at
        if total is not None and at < total:
            raise Again(f"the connection ended after {at:,} of {total:,} bytes")

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        """What has come, up to a block; empty at the end."""
        try:
            return answer.read1(_BLOCK)
        except TimeoutError as error:
            raise Again(f"no byte came for {self._limits.stall:.0f} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise Again(f"the connection broke ({_words(error)})") from error

    def _known(self) -> Begun:
        """What was written down of the file that was begun, if it is this one."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            url, validator, size = note["url"], note["validator"], note["bytes"]
        except (OSError, ValueError, KeyError, TypeError):
            return Begun("", None)
        if url != self._url or not isinstance(validator, str):
            return Begun("", None)
        return Begun(validator, size if isinstance(size, int) else None)

    def _write_note(self, answer: http.client.HTTPResponse, total: int | None) -> None:
        note = {"url": self._url, "validator": validator_of(answer.headers), "bytes": total}
        with atomic_output(self._note) as file, writing(self._note):
            file.write(json.dumps(note).encode())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https alone, and never from https to http."""

    max_redirections = 10

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        kind = newurl.partition(":")[0].lower()
        if kind not in ("http", "https") or (req.type == "https" and kind == "http"):
            raise DownloadError(
                f"{req.full_url}: redirects from {req.type} to {newurl}, which is not followed"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """What opens addresses: proxies of the environment, certificates of the system, no files."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _connection_problem(url: str, reason: object) -> Exception:
    """What to raise where no answer came."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(
            f"{url}: its certificate cannot be verified ({reason.verify_message}); behind a proxy "
            "that decrypts, name its certificates in SSL_CERT_FILE; with Python from python.org on "
            "macOS, run its Install Certificates.command"
        )
    if isinstance(reason, socket.gaierror):
        host = urllib.request.Request(url).host
        return NoAnswer(f"{host} cannot be found ({reason.strerror or reason})")
    if isinstance(reason, TimeoutError):
        return NoAnswer("no answer came in time")
    return NoAnswer(f"no connection ({_words(reason)})")


def _words(error: object) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
