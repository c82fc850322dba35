"""The option `proxy`: a tunnel to the server, or none."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.conftest import Mode, Recorder
from tests.wire.frames import TEXT, frame, http
from tests.wire.server import Connection, ScriptedServer

TARGET = "ws://user:pass@behind.invalid:8080/chat"
FAILED = [("error", 3), ("close", 3, 1006, "", False)]


class Tunnel:
    """A proxy which is the server behind it, too."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def __call__(self, c: Connection) -> None:
        c.request()
        self.asked.append((c.seen.request_line, dict(c.seen.headers)))
        c.send(self.answer)
        c.handshake(then=frame(TEXT, "hello"))


CLOSE = {"message": lambda r, _: r.ws.close()}


@pytest.mark.parametrize("userinfo", ["", "me:pa%20ss@"])
@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_tunnel_leads_to_the_server(mode: Mode, how: str, userinfo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tunnel = Tunnel()
    with ScriptedServer(tunnel) as server:
        url = f"http://{userinfo}127.0.0.1:{server.port}"
        if how == "environment":
            monkeypatch.setenv("http_proxy", url)
        options = {"proxy": url} if how == "option" else {}
        recorder = Recorder(mode.open(TARGET, **options), CLOSE)
        assert recorder.closed()[1] == ("message", 1, "hello")
        seen = server.result()
    ((line, headers),) = tunnel.asked
    assert line == "CONNECT behind.invalid:8080 HTTP/1.1"
    assert headers["Host"] == "behind.invalid:8080"
    pair = base64.b64encode(b"me:pa ss").decode()
    assert headers.get("Proxy-Authorization") == (f"Basic {pair}" if userinfo else None)
    assert "Authorization" not in headers  # that is for the server, and what the proxy gets is not for the server
    assert seen.request_line == "GET /chat HTTP/1.1"
    assert seen.header("Host") == "behind.invalid:8080"
    assert seen.header("Authorization") == "Basic " + base64.b64encode(b"user:pass").decode()
    assert seen.header("Proxy-Authorization") is None


@pytest.mark.parametrize(
    "answer",
    [
        http("407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="x"'),
        http("502 Bad Gateway"),
        b"this is no proxy\r\n\r\n",
        b"",
    ],
)
def test_a_proxy_that_refuses_fails_the_connection(mode: Mode, answer: bytes) -> None:
    def script(c: Connection) -> None:
        c.request()
        c.send(answer)
        c.half_close()

    with ScriptedServer(script) as server:
        recorder = Recorder(mode.open(TARGET, proxy=f"http://127.0.0.1:{server.port}"))
        assert recorder.closed() == FAILED
        assert isinstance(recorder.error, ConnectionError)
        assert "proxy" in str(recorder.error).lower()
        if answer.startswith(b"HTTP"):
            assert recorder.error.status == int(answer[9:12])  # type: ignore[attr-defined]


def test_none_goes_directly_whatever_the_environment_says(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "hello"))) as server:
        recorder = Recorder(mode.open(server.url, proxy=None), CLOSE)
        assert recorder.closed()[1] == ("message", 1, "hello")


def test_no_proxy_of_the_environment_is_heard(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "hello"))) as server:
        recorder = Recorder(mode.open(server.url), CLOSE)
        assert recorder.closed()[1] == ("message", 1, "hello")
