"""What servers answer, and what each answer means for a download: try again, or give up and why."""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass
from email.message import Message

from restore.errors import DownloadError, RestoreError

_PAGE = ("text/html", "application/xhtml")
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # may be otherwise in a minute
_MOST_WAIT = 60.0  # s that a server may ask for
_OFFLINE = (
    "is there a network? Behind a proxy set HTTPS_PROXY; or download it elsewhere and take it in: "
    "restore models add FILE"
)


class Again(RestoreError):
    """A problem that may pass.

    Attributes:
        pause: seconds to wait at least.
        advice: for whom it does not pass.
    """

    advice = ""

    def __init__(self, text: str, pause: float = 0.0) -> None:
        super().__init__(text)
        self.pause = pause

    def most(self, tries: int) -> int:
        """Tries that it is worth before a byte came, of those that are allowed."""
        return tries


class NoAnswer(Again):
    """No connection at all: where there is no network, many tries are long and of no use."""

    advice = _OFFLINE

    def most(self, tries: int) -> int:
        """Few."""
        return min(tries, 3)


@dataclass(frozen=True)
class Begun:
    """What a server said of a file of which a part is here.

    Attributes:
        validator: see `validator_of`.
        size: bytes of all of it; None where it did not say.
    """

    validator: str
    size: int | None

    def fits(self, validator: str, size: int | None) -> bool:
        """Whether what it says now is of the same file, as far as both times tell."""
        same = not (validator and self.validator) or validator == self.validator
        return same and (None in (size, self.size) or size == self.size)


def refused(url: str, code: int, wait: float | None) -> Exception:
    """What to raise for an answer that is no file.

    Args:
        url: that was asked for.
        code: of the answer; 200: a web page in place of the file.
        wait: seconds that the server asks to wait, if it does.
    """
    named = f"{code} {http.client.responses.get(code, '')}".strip()
    if code in _PASSING:
        if wait is not None and wait > _MOST_WAIT:
            return DownloadError(
                f"{url}: the server is busy and asks to come back in {wait:.0f} s ({named})"
            )
        return Again(f"the server answered {named}", wait or 0.0)
    told = {
        200: "a web page, not the file: to log in, or of a network that wants you to; open the "
        "address in a browser",
        401: "it wants a login; open the address in a browser",
        403: "it gives the file to nobody here: too many downloads, or a proxy that forbids it",
        404: "the file is not there any more; look for it on the authors' page",
        407: "the proxy wants a login: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
        410: "the file was taken away; look for it on the authors' page",
    }
    what = told.get(code, "expected the file")
    if 300 <= code < 400:
        what = "it redirects in a circle, or to where nothing may lead"
    return DownloadError(f"{url}: the server answered {named}: {what}")


def check_content(url: str, headers: Message) -> None:
    """Refuse what cannot be weights by what the server calls it.

    Raises:
        DownloadError: a web page, or a compressed answer, which was not asked for.
    """
    kind = headers.get("Content-Type", "").lower()
    if kind.startswith(_PAGE):
        raise refused(url, 200, None)
    if (packed := headers.get("Content-Encoding", "identity").lower()) != "identity":
        raise DownloadError(
            f"{url}: the server sends it packed ({packed}), which was not asked for; something "
            "between here and there changes answers"
        )


def looks_like_a_page(block: bytes) -> bool:
    """Whether a file begins as web pages do."""
    return block[:64].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))


def first_and_total(answer: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where an answer begins in its file, and how long that is; None where nothing tells it."""
    if answer.status == 206:
        told = answer.headers.get("Content-Range", "")
        match = re.fullmatch(r"\s*bytes\s+(\d+)-(\d+)/(\d+|\*)\s*", told)
        if match is None:
            return -1, None
        return int(match[1]), None if match[3] == "*" else int(match[3])
    length = answer.headers.get("Content-Length", "").strip()
    return 0, int(length) if length.isascii() and length.isdigit() else None


def retry_after(headers: Message) -> float | None:
    """Seconds that a server asks to wait; None where it does not say, or names a date."""
    text = headers.get("Retry-After", "").strip()
    return float(text) if text.isascii() and text.isdigit() else None


def validator_of(headers: Message) -> str:
    """What tells a file from a later one at the same address; "" where the server gives nothing."""
    tag: str = headers.get("ETag", "")
    # a weak tag does not promise the same bytes
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
