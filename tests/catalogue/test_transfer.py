"""Downloads from servers that stall, cut, lie and answer otherwise than they should."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import random
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Server, endless, garbage, running, serve, silence, stall, status

from restore.catalogue import transfer as module
from restore.catalogue.transfer import Limits, Transfer
from restore.errors import DownloadError, OutputError

BODY = random.Random(0).randbytes(300_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
OTHER = random.Random(1).randbytes(300_000)
QUICK = Limits(
    stall=0.3, window=0.4, least_rate=50_000, tries=3, progress=20_000, pause=0.01, most_pause=0.02
)
KNOWN: dict[str, Any] = {"size": len(BODY), "sha256": DIGEST}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")  # this machine's proxies know nothing of the server
    with running() as told:
        yield told


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth.part"


class Fetch:
    """A download with what it told on the way."""

    def __init__(self, url: str, part: Path, limits: Limits = QUICK, **known: Any) -> None:
        self.said: list[str] = []
        self.steps: list[tuple[int, int | None]] = []
        self._transfer = Transfer(
            url,
            part,
            limits=limits,
            progress=lambda done, total: self.steps.append((done, total)),
            say=self.said.append,
            **known,
        )

    def run(self) -> str:
        return self._transfer.run()


def kept(part: Path) -> list[str]:
    return sorted(path.name for path in part.parent.iterdir())


@pytest.mark.parametrize("known", [KNOWN, {}, {"size": len(BODY)}], ids=["all", "none", "size"])
def test_a_file_comes_whole(server: Server, part: Path, known: dict[str, Any]) -> None:
    server.answers = [serve(BODY)]
    fetch = Fetch(server.url(), part, **known)
    assert fetch.run() == DIGEST
    assert part.read_bytes() == BODY
    assert fetch.said == []
    assert fetch.steps[0] == (0, len(BODY)) and fetch.steps[-1] == (len(BODY), len(BODY))
    ((_, headers),) = server.requests
    assert headers["User-Agent"].startswith("restore-sr/")
    assert headers["Accept-Encoding"] == "identity"
    # nothing of this machine or its user
    assert set(headers) <= {"Accept-Encoding", "Host", "User-Agent", "Connection"}


@pytest.mark.parametrize("known", [KNOWN, {}], ids=["checksum", "tag alone"])
def test_a_cut_connection_goes_on_where_it_stopped(
    server: Server, part: Path, known: dict[str, Any]
) -> None:
    server.answers = [serve(BODY, most=100_000), serve(BODY, most=50_000), serve(BODY)]
    fetch = Fetch(server.url(), part, **known)
    assert fetch.run() == DIGEST
    assert server.ranges() == [None, "bytes=100000-", "bytes=150000-"]
    assert [headers.get("If-Range") for _, headers in server.requests] == [None, '"one"', '"one"']
    assert "the connection ended after 100,000 of 300,000 bytes; trying again" in fetch.said[0]


def test_many_cuts_are_no_reason_to_give_up_while_it_goes_on(server: Server, part: Path) -> None:
    server.answers = [serve(BODY, most=30_000)]
    assert Fetch(server.url(), part, **KNOWN).run() == DIGEST
    assert len(server.requests) == 10


def test_a_later_command_goes_on(server: Server, part: Path) -> None:
    server.answers = [serve(BODY, most=100_000), status(503)]
    with pytest.raises(DownloadError, match=r"503 .*tried 3 times; 100,000 bytes are kept, and th"):
        Fetch(server.url(), part).run()
    server.answers, server.requests[:] = [serve(BODY)], []
    fetch = Fetch(server.url(), part)
    assert fetch.run() == DIGEST
    assert server.ranges() == ["bytes=100000-"]
    assert fetch.steps[0] == (100_000, len(BODY))


def test_an_interruption_before_the_last_check_asks_for_nothing(server: Server, part: Path) -> None:
    server.answers = [serve(BODY)]
    Fetch(server.url(), part).run()
    server.requests.clear()
    assert Fetch(server.url(), part).run() == DIGEST
    assert Fetch(server.url(), part, **KNOWN).run() == DIGEST
    assert server.requests == []


def test_a_stall_is_given_up_and_tried_again(server: Server, part: Path) -> None:
    server.answers = [stall(BODY, 100_000, 2.0), serve(BODY)]
    fetch = Fetch(server.url(), part, **KNOWN)
    assert fetch.run() == DIGEST
    assert fetch.said == ["no byte came for 0 s; trying again in 0 s"]
    server.answers = [silence(2.0)]
    with pytest.raises(DownloadError, match="no answer came in time; tried 3 times; is there a ne"):
        Fetch(server.url(), part.with_name("other.part"), **KNOWN).run()


def test_a_drip_is_as_good_as_a_stall(server: Server, part: Path) -> None:
    server.answers = [serve(BODY, step=100, pause=0.02)]
    with pytest.raises(DownloadError, match=r"only [\d,]+ bytes came in 0 s; tried 3 times"):
        Fetch(server.url(), part, **KNOWN).run()
    assert 0 < part.stat().st_size < len(BODY)


def test_a_server_that_ignores_ranges_begins_again(server: Server, part: Path) -> None:
    server.answers = [serve(BODY, most=100_000), serve(BODY, ranges=False)]
    fetch = Fetch(server.url(), part)
    assert fetch.run() == DIGEST
    assert fetch.said[-1] == "the server sends all of it again; from the beginning"


def test_a_file_that_changed_meanwhile_begins_again(server: Server, part: Path) -> None:
    server.answers = [serve(OTHER, tag='"old"', most=100_000), serve(BODY, tag='"new"')]
    assert Fetch(server.url(), part).run() == DIGEST
    assert part.read_bytes() == BODY


@pytest.mark.parametrize("known", [KNOWN, {}], ids=["checksum", "tag alone"])
def test_nor_is_it_mixed_by_a_server_that_ignores_the_question(
    server: Server, part: Path, known: dict[str, Any]
) -> None:
    changed = serve(BODY, tag='"new"', obeys_if_range=False)
    server.answers = [serve(OTHER, tag='"old"', most=100_000), changed]
    fetch = Fetch(server.url(), part, **known)
    assert fetch.run() == DIGEST
    assert any("a part of another file" in line for line in fetch.said)


def test_parts_that_do_not_fit_are_fetched_again_once(server: Server, part: Path) -> None:
    """No tag tells that the file changed: the checksum does."""
    server.answers = [serve(OTHER, tag="", most=100_000), serve(BODY, tag="")]
    fetch = Fetch(server.url(), part, **KNOWN)
    assert fetch.run() == DIGEST
    assert "do not fit; from the beginning" in fetch.said[-1]
    assert server.ranges() == [None, "bytes=100000-", None]


def test_without_tag_and_checksum_nothing_is_continued(server: Server, part: Path) -> None:
    server.answers = [serve(BODY, tag="", most=100_000), serve(BODY, tag="")]
    assert Fetch(server.url(), part).run() == DIGEST
    assert server.ranges() == [None, None]


def test_another_part_than_asked_for_is_refused(server: Server, part: Path) -> None:
    server.answers = [serve(BODY, most=100_000), serve(BODY, shift=7), serve(BODY)]
    fetch = Fetch(server.url(), part, **KNOWN)
    assert fetch.run() == DIGEST
    assert server.ranges() == [None, "bytes=100000-", None]


def test_a_file_that_became_shorter_begins_again(server: Server, part: Path) -> None:
    short = OTHER[:50_000]
    server.answers = [serve(BODY, most=100_000), serve(short, obeys_if_range=False)]
    assert Fetch(server.url(), part).run() == hashlib.sha256(short).hexdigest()


@pytest.mark.parametrize("known", [KNOWN, {"sha256": DIGEST}], ids=["size", "no size"])
def test_wrong_bytes_are_not_kept(server: Server, part: Path, known: dict[str, Any]) -> None:
    server.answers = [serve(OTHER)]
    with pytest.raises(DownloadError, match=rf"SHA-256 \w+, expected {DIGEST}: the file there was"):
        Fetch(server.url(), part, **known).run()
    assert kept(part) == []
    assert len(server.requests) == 1


def test_a_length_that_is_not_the_known_one_is_refused_at_once(server: Server, part: Path) -> None:
    server.answers = [serve(BODY + b"more")]
    with pytest.raises(DownloadError, match="has 300,004 bytes, expected 300,000: it was replaced"):
        Fetch(server.url(), part, **KNOWN).run()
    assert kept(part) == []


@pytest.mark.parametrize("claimed", [100_000, 400_000, -1], ids=["less", "more", "none"])
def test_a_server_that_lies_about_the_length(server: Server, part: Path, claimed: int) -> None:
    server.answers = [serve(BODY, length=claimed, ranges=False)]
    if claimed < 0:  # it says nothing, and the end is the end
        assert Fetch(server.url(), part, **KNOWN).run() == DIGEST
        return
    with pytest.raises(DownloadError, match=f"{claimed:,} bytes"):
        Fetch(server.url(), part, **KNOWN).run()
    if claimed < len(BODY):  # nothing tells, until what came is opened
        assert Fetch(server.url(), part).run() == hashlib.sha256(BODY[:claimed]).hexdigest()
    else:
        with pytest.raises(DownloadError, match="ended after 300,000 of 400,000 bytes; tried 3"):
            Fetch(server.url(), part).run()


def test_a_short_answer_without_a_length_is_continued(server: Server, part: Path) -> None:
    server.answers = [serve(BODY[:100_000], length=-1), serve(BODY)]
    assert Fetch(server.url(), part, **KNOWN).run() == DIGEST


@pytest.mark.parametrize("known", [KNOWN, {}], ids=["known", "unknown"])
def test_an_endless_stream_ends(server: Server, part: Path, known: dict[str, Any]) -> None:
    server.answers = [endless(BODY)]
    limits = Limits(stall=1, most_bytes=1_000_000)
    most = "300,000" if known else "1,000,000"
    with pytest.raises(
        DownloadError, match=f"sends more than {most} bytes, the most that is taken"
    ):
        Fetch(server.url(), part, limits, **known).run()
    assert kept(part) == []
    server.answers = [serve(b"", length=2_000_000)]
    with pytest.raises(DownloadError, match=r"sends more than 1,000,000 bytes|has 2,000,000 bytes"):
        Fetch(server.url(), part, limits, **known).run()


PAGE = b"\n<!DOCTYPE html><html><title>Sign in</title>" + b" " * 1000


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_page_is_no_file(server: Server, part: Path, kind: str) -> None:
    server.answers = [serve(PAGE, kind=kind)]
    with pytest.raises(DownloadError, match="a web page, not the file: to log in, or of a network"):
        Fetch(server.url(), part).run()
    assert not part.exists()


def test_a_page_does_not_cost_what_came_before(server: Server, part: Path) -> None:
    server.answers = [serve(BODY, most=100_000), serve(PAGE, kind="text/html", ranges=False)]
    with pytest.raises(DownloadError, match="a web page, not the file"):
        Fetch(server.url(), part).run()
    assert part.stat().st_size == 100_000


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (401, "wants a login"),
        (403, "too many downloads, or a proxy"),
        (404, "not there any more"),
        (407, "HTTPS_PROXY=http://USER"),
        (410, "taken away"),
        (418, "expected the file"),
        (204, "expected the file"),
        (304, "redirects in a circle, or to where nothing may lead"),
    ],
)
def test_final_answers_are_asked_once(server: Server, part: Path, code: int, told: str) -> None:
    server.answers = [status(code)]
    with pytest.raises(DownloadError, match=f"answered {code} .*{told}"):
        Fetch(server.url(), part, **KNOWN).run()
    assert len(server.requests) == 1
    assert kept(part) == []


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_passing_answers_are_tried_again(server: Server, part: Path, code: int) -> None:
    server.answers = [status(code), status(code, Retry_After="0"), serve(BODY)]
    assert Fetch(server.url(), part, **KNOWN).run() == DIGEST


def test_a_server_that_is_busy_for_long_is_not_waited_for(server: Server, part: Path) -> None:
    server.answers = [status(429, Retry_After="3600")]
    with pytest.raises(DownloadError, match="asks to come back in 3600 s"):
        Fetch(server.url(), part, **KNOWN).run()


def test_redirects_are_followed_with_what_was_asked(server: Server, part: Path) -> None:
    server.answers = [serve(BODY, most=100_000), status(302, Location="/there"), serve(BODY)]
    assert Fetch(server.url(), part, **KNOWN).run() == DIGEST
    assert [path for path, _ in server.requests] == ["/weights.pth", "/weights.pth", "/there"]
    assert server.ranges()[-1] == "bytes=100000-"


@pytest.mark.parametrize(
    "where",
    ["/weights.pth", "file:///etc/passwd", "ftp://127.0.0.1/weights.pth", "data:,weights", ""],
)
def test_redirects_lead_nowhere_else(server: Server, part: Path, where: str) -> None:
    server.answers = [status(302, **({"Location": where} if where else {}))]
    with pytest.raises(
        DownloadError,
        match=r"302 .*redirects in a circle, or to where nothing may|, which is not followed",
    ):
        Fetch(server.url(), part, **KNOWN).run()
    assert kept(part) == []


def test_no_redirect_takes_protection_away() -> None:
    follow = module._Redirects().redirect_request
    request = urllib.request.Request("https://example.org/a")
    with pytest.raises(
        DownloadError, match=r"redirects from https to http://example.org/b, which is n"
    ):
        follow(request, None, 302, "Found", {}, "http://example.org/b")
    assert follow(request, None, 302, "Found", {}, "https://example.org/b") is not None


def test_an_answer_that_was_packed_is_refused(server: Server, part: Path) -> None:
    server.answers = [status(200, Content_Encoding="gzip")]
    with pytest.raises(DownloadError, match=r"sends it packed \(gzip\)"):
        Fetch(server.url(), part, **KNOWN).run()


def test_what_is_no_http_is_told(server: Server, part: Path) -> None:
    server.answers = [garbage]
    with pytest.raises(DownloadError, match=r"no connection .*tried 3 times; is there a network"):
        Fetch(server.url(), part, **KNOWN).run()


def test_without_a_server_or_network(
    part: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        with pytest.raises(
            DownloadError, match=r"no connection \(.*refused\); tried 3 times; is th"
        ):
            Fetch(url, part, **KNOWN).run()

    def no_names(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    told = r"github.test cannot be found \(Name or .*restore models add FILE"
    with pytest.raises(DownloadError, match=told):
        Fetch("https://github.test/x", part, **KNOWN).run()
    assert kept(part) == []


def test_a_network_that_goes_while_it_downloads_is_waited_for(server: Server, part: Path) -> None:
    limits = dataclasses.replace(QUICK, tries=6)
    gone = [garbage] * 4
    server.answers = [*gone, serve(BODY)]
    with pytest.raises(DownloadError, match="tried 3 times"):
        Fetch(server.url(), part, limits, **KNOWN).run()
    server.answers = [serve(BODY, most=100_000), *gone, serve(BODY)]
    assert Fetch(server.url(), part, limits, **KNOWN).run() == DIGEST


def test_proxies_of_the_environment_are_asked(
    server: Server, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    server.answers = [serve(BODY)]
    assert Fetch("http://files.test/weights.pth", part, **KNOWN).run() == DIGEST
    assert server.requests[0][0] == "http://files.test/weights.pth"


def test_a_full_disk_is_told_and_what_came_is_kept(
    server: Server, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [serve(BODY)]
    usage = shutil.disk_usage(part.parent)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(OutputError, match="1,000 bytes are free and 300,000 more are needed"):
            Fetch(server.url(), part, **KNOWN).run()

    steps = 0

    def full(self: object, answer: Any) -> bytes:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise OutputError("full")
        return bytes(answer.read1(50_000))

    monkeypatch.setattr(Transfer, "_read", full)
    with pytest.raises(OutputError):
        Fetch(server.url(), part, **KNOWN).run()
    assert part.stat().st_size > 0
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    assert Fetch(server.url(), part, **KNOWN).run() == DIGEST
    assert server.ranges()[-1] is not None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs a device that is always full")
def test_a_device_without_room(server: Server, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    part = tmp_path / "weights.part"
    part.symlink_to(full)
    server.answers = [serve(BODY)]
    with pytest.raises(
        OutputError, match=f"cannot be written: {os.strerror(errno.ENOSPC)}; free s"
    ):
        Fetch(server.url(), part, **KNOWN).run()


def test_an_interruption_keeps_what_came(server: Server, part: Path) -> None:
    server.answers = [serve(BODY)]
    transfer = Transfer(server.url(), part, limits=QUICK, progress=_interrupt, **KNOWN)
    with pytest.raises(KeyboardInterrupt):
        transfer.run()
    assert part.stat().st_size >= 100_000
    server.requests.clear()
    assert Fetch(server.url(), part, **KNOWN).run() == DIGEST
    assert server.ranges() != [None]


def _interrupt(done: int, _: int | None) -> None:
    if done >= 100_000:
        raise KeyboardInterrupt


def test_a_damaged_note_is_no_note(server: Server, part: Path) -> None:
    server.answers = [serve(BODY, most=100_000), status(404)]
    with pytest.raises(DownloadError):
        Fetch(server.url(), part).run()
    note = part.with_name(f"{part.name}.json")
    for text in ("", "[]", "{", '{"url": 1}', note.read_text().replace("127.0.0.1", "other")):
        note.write_text(text)
        server.answers, server.requests[:] = [status(404)], []
        with pytest.raises(DownloadError):
            Fetch(server.url(), part).run()
        assert server.ranges() == [None]
        part.write_bytes(BODY[:1000])
