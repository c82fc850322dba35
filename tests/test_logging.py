"""What the logger "bws" says: states, frames, and never a credential."""

from __future__ import annotations

import base64
import logging
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import bws
from bws.testing import EchoServer
from tests.conftest import Recorder
from tests.engine.proxy import Proxy, Socks
from tests.engine.test_connect import closed_port
from tests.wire.frames import PING, TEXT, close_frame, frame, http
from tests.wire.server import Connection, ScriptedServer

USER, PASSWORD, BEARER, COOKIE = "log-user", "log-p@ssword", "log-bearer", "log-cookie"
PAIR = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
USERINFO = f"{USER}:log-p%40ssword@"
SECRETS = [PASSWORD, "log-p%40ssword", PAIR, BEARER, COOKIE]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All records of all loggers."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="bws")
    return caplog


def ours(log: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in log.records if record.name == "bws"]


def too_long(log: pytest.LogCaptureFixture) -> list[str]:
    return [text[:80] for text in (record.getMessage() for record in log.records) if len(text) > 400]


def talk(url: str, data: Any = "hello", **options: Any) -> Recorder:
    """Open, have something echoed, close."""
    on: dict[str, Callable[[Recorder, Any], object]] = {
        "open": lambda r, _: r.ws.send(data),
        "message": lambda r, _: r.ws.close(3000, "bye"),
    }
    recorder = Recorder(bws.WebSocket(url, **options), on)
    recorder.closed()
    return recorder


def ok(c: Connection) -> None:
    c.echo()


def refused(c: Connection) -> None:
    c.request()
    c.send(http("401 Unauthorized", "WWW-Authenticate: Basic"))


def garbage(c: Connection) -> None:
    c.request()
    c.send(b"SSH-2.0-nothing\r\n")


def broken(c: Connection) -> None:
    c.handshake(then=frame(TEXT, b"\xff"))


def lost(c: Connection) -> None:
    c.request()
    c.reset()


def test_state_changes_are_logged_at_info_or_below(log: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(Connection.echo) as server:
        talk(server.url)
    records = ours(log)
    assert all(record.levelno <= logging.INFO for record in records)
    text = "\n".join(record.getMessage() for record in records if record.levelno == logging.INFO)
    places = [text.find(word) for word in ("connecting", "OPEN", "CLOSING", "CLOSED")]
    assert -1 not in places
    assert places == sorted(places)
    assert "3000" in text
    assert "'bye'" in text
    assert server.origin in text


def test_the_peers_close_is_a_state_change_too(log: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(lambda c: c.handshake(then=close_frame(3001, "enough"))) as server:
        Recorder(bws.WebSocket(server.url)).closed()
    text = log.text
    assert text.index("OPEN") < text.index("CLOSING") < text.index("CLOSED")


def test_a_failure_is_logged_with_its_cause(log: pytest.LogCaptureFixture) -> None:
    with closed_port() as port:
        Recorder(bws.WebSocket(f"ws://127.0.0.1:{port}/")).closed()
    records = ours(log)
    assert all(record.levelno <= logging.INFO for record in records)
    last = records[-1].getMessage()
    assert "1006" in last
    assert f"'127.0.0.1' port {port}" in last


def test_no_logger_cries_when_a_connection_fails(log: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(refused) as server:
        Recorder(bws.WebSocket(server.url)).closed()
        ws = bws.WebSocket(server.url)
        ws.close()
        Recorder(ws).closed()
    assert [record.getMessage() for record in log.records if record.levelno > logging.INFO] == []


def test_frames_are_logged_at_debug_and_their_payload_is_cut(log: pytest.LogCaptureFixture) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(PING, b"p" * 125))
        c.echo()

    with ScriptedServer(script) as server:
        talk(server.url, "0123456789" * 10_000)
        talk(server.url, bytes(100_000), headers={"X-Long": "h" * 10_000})
    frames = [record.getMessage() for record in ours(log) if record.levelno == logging.DEBUG]
    sent = [line for line in frames if " > " in line]
    received = [line for line in frames if " < " in line]
    assert any("0123456789" in line and "100000 bytes" in line for line in sent)
    assert any("0123456789" in line for line in received)
    assert any("\\x00" in line and "100000 bytes" in line for line in sent)
    assert too_long(log) == []


def test_a_servers_text_is_cut_and_has_no_control_characters(log: pytest.LogCaptureFixture) -> None:
    def script(c: Connection) -> None:
        c.request()
        c.send(http("404 \x1b[31mred" + "x" * 10_000, "Set-Cookie: " + COOKIE))

    with ScriptedServer(script) as server:
        recorder = Recorder(bws.WebSocket(server.url))
        recorder.closed()
    for text in (log.text, str(recorder.error), repr(recorder.events[0])):
        assert "\x1b" not in text
        assert COOKIE not in text
        assert len(text) < 2000
    assert too_long(log) == []


def test_nothing_is_logged_when_it_is_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    caplog.set_level(logging.WARNING, logger="bws")
    with ScriptedServer(Connection.echo) as server, closed_port() as port:
        talk(server.url)
        Recorder(bws.WebSocket(f"ws://127.0.0.1:{port}/")).closed()
    assert caplog.records == []


def test_at_info_no_frame_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.INFO, logger="bws")
    with ScriptedServer(Connection.echo) as server:
        talk(server.url, "the payload")
    assert "the payload" not in caplog.text
    assert 3 <= len(ours(caplog)) <= 6


# -- credentials


def everything(log: pytest.LogCaptureFixture, recorder: Recorder) -> str:
    """All that a user may put on a screen: records with their arguments, reprs, errors with what caused them."""
    lines = []
    for record in log.records:
        lines += [record.getMessage(), record.msg, repr(record.args), record.threadName or "", record.exc_text or ""]
    lines += [repr(recorder.ws), *map(repr, recorder.events)]
    lines += [thread.name for thread in {*threading.enumerate(), *recorder.threads}]
    for event in recorder.events:
        if event.error is not None:
            lines += [event.message, *traceback.format_exception(event.error)]
    return "\n".join(lines)


OPTIONS: dict[str, Any] = {"headers": {"X-Api-Key": BEARER}, "cookie": f"session={COOKIE}"}


@pytest.mark.parametrize("script", [ok, refused, garbage, broken, lost])
def test_no_credential_of_a_request_is_ever_shown(
    script: Callable[[Connection], None], log: pytest.LogCaptureFixture
) -> None:
    with ScriptedServer(script) as server:
        recorder = talk(f"ws://{USERINFO}127.0.0.1:{server.port}/path", **OPTIONS)
        seen = server.result()
    assert seen.header("Authorization") == f"Basic {PAIR}"  # it was sent
    assert (seen.header("X-Api-Key"), seen.header("Cookie")) == (BEARER, f"session={COOKIE}")
    shown = everything(log, recorder)
    assert f"ws://127.0.0.1:{server.port}/path" in shown
    assert [secret for secret in [*SECRETS, USER] if secret in shown] == []


def test_no_authorization_header_is_ever_shown(log: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(refused) as server:
        recorder = talk(server.url, headers={"Authorization": f"Bearer {BEARER}"})
        assert server.result().header("Authorization") == f"Bearer {BEARER}"
    assert BEARER not in everything(log, recorder)


@pytest.mark.parametrize("kind", [Proxy, Socks])
@pytest.mark.parametrize("right", [True, False])
def test_no_credential_of_a_proxy_is_ever_shown(
    kind: type[Proxy], right: bool, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = f"{USER}:{PASSWORD}"
    with ScriptedServer(Connection.echo) as server, kind(credentials=pair if right else "a:b") as proxy:
        recorder = talk(server.url, proxy=proxy.url(USERINFO))
        shown = everything(log, recorder)
        monkeypatch.setenv("all_proxy", proxy.url(USERINFO))
        shown += everything(log, talk(server.url))
        assert proxy.offered == [pair, pair] or (kind is Socks and not right)
    assert recorder.types[0] == ("open" if right else "error")
    assert [secret for secret in SECRETS if secret in shown] == []


@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks4a"])
def test_a_proxy_that_cannot_be_reached_is_named_without_its_credentials(
    scheme: str, log: pytest.LogCaptureFixture
) -> None:
    with closed_port() as port:
        recorder = talk("ws://server.example/", proxy=f"{scheme}://{USERINFO}127.0.0.1:{port}")
    shown = everything(log, recorder)
    assert str(port) in shown
    assert [secret for secret in SECRETS if secret in shown] == []


def test_tls_that_fails_shows_no_credential(log: pytest.LogCaptureFixture) -> None:
    with EchoServer(tls=True) as server:
        recorder = talk(server.url.replace("//", f"//{USERINFO}"), **OPTIONS)
    assert recorder.types == ["error", "close"]
    assert [secret for secret in SECRETS if secret in everything(log, recorder)] == []


def test_with_says_what_failed_without_the_credentials() -> None:
    with (
        closed_port() as port,
        pytest.raises(ConnectionError) as caught,
        bws.WebSocket(f"ws://{USERINFO}127.0.0.1:{port}/"),
    ):
        pass
    shown = "".join(traceback.format_exception(caught.value))
    assert f"ws://127.0.0.1:{port}/" in shown
    assert [secret for secret in SECRETS if secret in shown] == []


@pytest.mark.parametrize(
    "options",
    [
        {"cookie": f"session={COOKIE}\r\n"},
        {"headers": {"Authorization": f"Bearer {BEARER}\n"}},
        {"proxy": f"gopher://{USERINFO}127.0.0.1:1"},
        {"proxy": f"http://{USERINFO}"},
        {"headers": {"Authorization": f"Bearer {BEARER}", "authorization": f"Bearer {BEARER}"}},
    ],
)
def test_what_the_program_gave_is_shown_to_the_program_only(
    options: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"cookie|headers|proxy") as caught:
        bws.WebSocket("ws://server.example/", **options)
    assert "log-p%40ssword" not in str(caught.value)
    assert log.records == []
