"""`restore web` before it serves: options, and what is refused in words."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest

from restore import cli
from restore.commands.web import read_auth, web_parser
from restore.errors import UsageError
from restore.web.server import Address, listen


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were there; nothing here comes to need it."""
    found = importlib.util.find_spec("json")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["web", *words]) == 2
    return capsys.readouterr().err


def test_without_the_extra_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'restore-sr[web]'" in told([], capsys)


def test_defaults_serve_this_machine_alone() -> None:
    options = web_parser().parse([])
    assert (options.host, options.port, options.auth) == ("127.0.0.1", 7860, [])
    assert Address(options.host, options.port).is_local
    assert Address().warnings() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_local_addresses(host: str) -> None:
    assert Address(host).is_local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "machine"])
def test_others_are_warned_of(host: str) -> None:
    address = Address(host)
    assert not address.is_local
    assert any("--auth USER:PASSWORD" in line for line in address.warnings())
    assert any("not encrypted" in line for line in address.warnings())
    with_password = Address(host, auth=(("me", "secret"),))
    assert not any("--auth" in line for line in with_password.warnings())


def test_addresses_for_a_browser() -> None:
    assert Address().url(7860) == "http://localhost:7860"
    assert Address("127.0.0.2").url(1) == "http://127.0.0.2:1"
    assert Address("2001:db8::1").url(1) == "http://[2001:db8::1]:1"
    assert Address("0.0.0.0").url(1) == f"http://{socket.gethostname()}:1"


def test_a_taken_port_is_told(installed: None, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        error = told(["--port", str(port)], capsys)
    assert f"port {port} of 127.0.0.1 cannot be had" in error and "another with --port" in error


def test_a_free_port() -> None:
    with listen(Address(port=0)) as sock:
        assert sock.getsockname()[1] > 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--port", "70000"], "--port 70000: expected 0 to 65535"),
        (["--host", "no.such.name.invalid"], "is no name or number of this machine"),
        (["--max-files", "0"], "expected a whole number, 1 or more"),
        (["--auth", "me"], "--auth: expected USER:PASSWORD"),
        (["--auth", "me:"], "--auth: expected USER:PASSWORD"),
        (["--auth", "@nothing"], "--auth @nothing: the file cannot be read"),
        (["--fast", "--fp32"], "--fast chooses the arithmetic"),
        (["--share"], "there is no option --share"),
    ],
)
def test_options_that_cannot_be_obeyed(
    installed: None, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in told(words, capsys)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-m", "nothing.pth"], "-m nothing.pth: no such file or folder"),
        (["-n", "swinir_builtin_x3"], "did you mean 'swinir_builtin_x"),
        (["--device", "abacus"], "device 'abacus' is not here"),
    ],
)
def test_models_that_cannot_be_had(
    installed: None, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in told(["--port", "0", *words], capsys)


def test_passwords(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("you:a:b\n\nthem:c\n", encoding="utf-8")
    assert read_auth(["me:secret", f"@{file}"]) == (("me", "secret"), ("you", "a:b"), ("them", "c"))
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(UsageError, match="the file is empty"):
        read_auth([f"@{file}"])


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(UsageError) as raised:
        read_auth(["hunter2"])
    assert "hunter2" not in str(raised.value)
