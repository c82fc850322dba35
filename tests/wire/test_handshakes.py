"""The server's answer to the opening handshake: what is accepted, what fails with error and close 1006."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from tests.conftest import Mode, Play, Recorder
from tests.wire.frames import TEXT, frame, http
from tests.wire.server import Connection, ScriptedServer

FAILED = [("error", 3), ("close", 3, 1006, "", False)]

Build = Callable[[Connection], bytes]

# what a server may answer that is no WebSocket; it goes on reading, or ends TCP, the client must not care
REFUSED: dict[str, Build] = {
    "a wrong Sec-WebSocket-Accept": lambda c: c.response(accept=base64.b64encode(b"0" * 20).decode()),
    "no Sec-WebSocket-Accept": lambda c: c.response(accept=None),
    "an empty Sec-WebSocket-Accept": lambda c: c.response(accept=""),
    "Sec-WebSocket-Accept in another case": lambda c: c.response(accept=c.accept.swapcase()),
    "Sec-WebSocket-Accept twice": lambda c: c.response(f"Sec-WebSocket-Accept: {c.accept}"),
    "no Upgrade": lambda c: c.response(upgrade=None),
    "another Upgrade": lambda c: c.response(upgrade="h2c"),
    "two tokens in Upgrade": lambda c: c.response(upgrade="websocket, h2c"),
    "no Connection": lambda c: c.response(connection=None),
    "another Connection": lambda c: c.response(connection="keep-alive"),
    "bytes that are not HTTP": lambda c: b"\x00\x01\x02 this is not HTTP\r\n\r\n" + b"z" * 64,
    "a WebSocket frame": lambda c: frame(TEXT, "hello"),
    "another protocol's status line": lambda c: c.response(status="ICY 101 Switching Protocols"),
    "a status that is no number": lambda c: c.response(status="HTTP/1.1 1O1 Switching Protocols"),
    "NUL in a header": lambda c: c.response("X-A: a\0b"),
    "two spaces for a colon": lambda c: c.response(upgrade=None).replace(
        b"\r\n\r\n", b"\r\nUpgrade  websocket\r\n\r\n"
    ),
    "a redirect in the headers of a 200": lambda c: http("200 OK", "Location: ws://127.0.0.1/", "Refresh: 0"),
    "a chunked body that does not end": lambda c: (
        http("401 Unauthorized", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n"
    ),
    "a body that is shorter than it says": lambda c: http("503 Unavailable", "Content-Length: 1000") + b"short",
    "102, then 101": lambda c: b"HTTP/1.1 102 Processing\r\n\r\n" + c.response(),
    "a head of 300 kB": lambda c: c.response("X-Big: " + "x" * 300_000),
    "100, then 101": lambda c: b"HTTP/1.1 100 Continue\r\n\r\n" + c.response(),
    "an extension nobody offered": lambda c: c.response("Sec-WebSocket-Extensions: x-foo"),
    "an empty extension": lambda c: c.response("Sec-WebSocket-Extensions: "),
    "a wrong parameter of the extension": lambda c: c.response(
        "Sec-WebSocket-Extensions: permessage-deflate; nonsense=1"
    ),
}

STATUSES = {
    200: "200 OK",
    204: "204 No Content",
    302: "302 Found",
    307: "307 Temporary Redirect",
    401: "401 Unauthorized",
    403: "403 Forbidden",
    404: "404 Not Found",
    407: "407 Proxy Authentication Required",
    426: "426 Upgrade Required",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}

# odd answers that a browser accepts all the same
ACCEPTED: dict[str, Build] = {
    "as it should be": lambda c: c.response(),
    "HTTP/1.0": lambda c: c.response(status="HTTP/1.0 101 Switching Protocols"),
    "no reason phrase": lambda c: c.response(status="HTTP/1.1 101"),
    "another reason phrase": lambda c: c.response(status="HTTP/1.1 101 Whatever You Like"),
    "tokens in another case": lambda c: c.response(upgrade="WebSocket", connection="upgrade"),
    "Connection with two tokens": lambda c: c.response(connection="keep-alive, Upgrade"),
    "a folded header": lambda c: c.response("X-A: 1", "  folded", "\tagain"),
    "a folded Sec-WebSocket-Accept": lambda c: c.response(accept=f"\r\n {c.accept}"),
    "white space around colons": lambda c: c.response(upgrade=None).replace(
        b"\r\n\r\n", b"\r\nUpgrade \t: \t websocket \r\n\r\n"
    ),
    "no white space": lambda c: c.response().replace(b": ", b":"),
    "names in another case": lambda c: c.response().replace(b"Sec-WebSocket-Accept", b"SEC-WEBSOCKET-ACCEPT"),
    "another header twice": lambda c: c.response("Server: a", "Server: b", "Set-Cookie: a=1", "Set-Cookie: a=2"),
    "Connection twice": lambda c: c.response("Connection: keep-alive"),
    "a Content-Length": lambda c: c.response("Content-Length: 5"),
    "a line without a colon": lambda c: c.response("this line has no colon"),
    "bytes above 127": lambda c: c.response("X-A: \xe9\xff"),
    "bare line feeds": lambda c: c.response().replace(b"\r\n", b"\n"),
    "a head of 60 kB": lambda c: c.response("X-Big: " + "x" * 60_000),
}


@pytest.mark.parametrize("ends", [False, True], ids=["TCP stays open", "TCP ends"])
@pytest.mark.parametrize("answer", REFUSED)
def test_an_answer_that_is_wrong_fails_the_connection(play: Play, answer: str, ends: bool) -> None:
    def script(c: Connection) -> None:
        c.request()
        c.send(REFUSED[answer](c))
        if ends:
            c.half_close()

    played = play(script)
    assert played.entries == FAILED
    assert str(played.recorder.error)
    assert played.seen.raw == b""


@pytest.mark.parametrize("status", STATUSES)
def test_any_status_but_101_fails_and_the_error_has_it(play: Play, status: int) -> None:
    def script(c: Connection) -> None:
        c.request()
        c.send(http(STATUSES[status], f"X-Status: {status}", "Location: /elsewhere"))
        c.half_close()

    played = play(script)
    assert played.entries == FAILED
    error = played.recorder.error
    assert isinstance(error, ConnectionError)
    assert error.status == status  # type: ignore[attr-defined]
    assert ("X-Status", str(status)) in error.headers  # type: ignore[attr-defined]
    assert str(status) in str(error)
    close = played.recorder.events[-1]
    assert close.error is error
    assert len(played.server.connections) == 1  # no redirect is followed, no credentials are tried


@pytest.mark.parametrize("answer", ACCEPTED)
def test_an_answer_that_a_browser_accepts_opens(play: Play, answer: str) -> None:
    def script(c: Connection) -> None:
        c.request()
        c.upgrade(ACCEPTED[answer](c) + frame(TEXT, "hello"))

    played = play(script, on={"message": lambda r, _: r.ws.close()})
    assert played.entries == [("open", 1), ("message", 1, "hello"), ("close", 3, 1005, "", True)]


def test_an_answer_may_come_byte_by_byte(play: Play) -> None:
    def script(c: Connection) -> None:
        c.request()
        for byte in c.response() + frame(TEXT, "hello"):
            c.upgrade(bytes([byte]))

    played = play(script, on={"message": lambda r, _: r.ws.close()})
    assert played.entries == [("open", 1), ("message", 1, "hello"), ("close", 3, 1005, "", True)]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("credentials", ["headers", "url"])
def test_a_redirect_to_another_host_is_not_followed(mode: Mode, status: int, credentials: str) -> None:
    options: dict[str, Any] = {"cookie": "session=secret"}
    userinfo = "user:secret@" if credentials == "url" else ""
    if credentials == "headers":
        options["headers"] = {"Authorization": "Bearer secret"}
    with ScriptedServer(Connection.echo) as other:

        def script(c: Connection) -> None:
            c.request()
            c.send(http(f"{status} Moved", f"Location: {other.url}", f"Location: http://127.0.0.1:{other.port}/"))

        with ScriptedServer(script) as server:
            url = f"ws://{userinfo}127.0.0.1:{server.port}/"
            recorder = Recorder(mode.open(url, **options))
            assert recorder.closed() == FAILED
            assert getattr(recorder.error, "status", None) == status
            seen = server.result()
        assert seen.header("Cookie") == "session=secret"
        assert seen.header("Authorization")
        assert other.connections == []


CHAT = ["chat", "superchat"]


@pytest.mark.parametrize(
    ("asked", "answered", "agreed"),
    [
        (None, [], ""),
        ([], [], ""),
        (CHAT, ["chat"], "chat"),
        (CHAT, ["superchat"], "superchat"),
        ("chat", ["chat"], "chat"),
        (["a", "A"], ["A"], "A"),
        # and what fails
        (None, ["chat"], None),
        (None, [""], None),
        (CHAT, [], None),
        ("chat", [], None),
        (CHAT, [""], None),
        (CHAT, ["other"], None),
        (CHAT, ["CHAT"], None),
        (CHAT, ["chat", "superchat"], None),
        (CHAT, ["chat", "chat"], None),
        (CHAT, ["chat, superchat"], None),
    ],
)
def test_the_subprotocol_is_one_that_was_asked_for(
    play: Play, asked: list[str] | str | None, answered: list[str], agreed: str | None
) -> None:
    def script(c: Connection) -> None:
        c.request()
        answer = c.response(*[f"Sec-WebSocket-Protocol: {name}" for name in answered], protocol=None)
        if agreed is None:
            c.send(answer)
        else:
            c.upgrade(answer)

    def look(r: Recorder, _: object) -> None:
        r.note("protocol", r.ws.protocol)
        r.ws.close()

    played = play(script, protocols=asked, on={"open": look})
    if agreed is None:
        assert played.entries == FAILED
        assert played.seen.raw == b""
    else:
        assert played.entries == [("open", 1), ("protocol", agreed), ("close", 3, 1005, "", True)]
        assert played.recorder.ws.protocol == agreed


def test_the_subprotocol_is_unknown_before_open(play: Play) -> None:
    played = play(
        Connection.handshake,
        protocols="chat",
        start=lambda r: r.note("protocol", r.ws.protocol, r.ws.extensions),
        on={"open": lambda r, _: r.ws.close()},
    )
    assert played.entries[0] == ("protocol", "", "")


def _half(c: Connection) -> None:
    c.request()
    c.send(c.response()[:40])


@pytest.mark.parametrize("script", [Connection.drain, Connection.request, _half])
def test_a_server_that_does_not_answer_fails_at_open_timeout(play: Play, script: Callable[[Connection], None]) -> None:
    played = play(script, open_timeout=0.3)
    assert played.entries == FAILED
    assert isinstance(played.recorder.error, TimeoutError)
    assert "0.3" in str(played.recorder.error)


@pytest.mark.parametrize("line", [b"X-A: 1\r\n", b"x" * 4096])
def test_an_endless_answer_fails_at_64_kib(play: Play, line: bytes) -> None:
    def script(c: Connection) -> None:
        c.request()
        c.send(c.response()[:-2])
        while True:
            c.send(line)

    assert play(script).entries == FAILED


def test_a_slow_endless_answer_fails_at_open_timeout(play: Play) -> None:
    def script(c: Connection) -> None:
        c.request()
        c.send(c.response()[:-2])
        while True:
            c.pause(0.02)
            c.send(b"X")

    assert play(script, open_timeout=0.3).entries == FAILED


@pytest.mark.parametrize("end", [Connection.half_close, Connection.reset])
@pytest.mark.parametrize("before", [Connection.request, _half])
def test_tcp_that_ends_in_the_handshake_fails_the_connection(
    play: Play, before: Callable[[Connection], None], end: Callable[[Connection], None]
) -> None:
    def script(c: Connection) -> None:
        before(c)
        end(c)

    played = play(script)
    assert played.entries == FAILED
    assert isinstance(played.recorder.error, ConnectionError)


def test_a_port_where_nobody_listens_fails_the_connection(mode: Mode) -> None:
    with ScriptedServer(Connection.reset) as server:
        url = server.url
    recorder = Recorder(mode.open(url))
    assert recorder.closed() == FAILED
    assert isinstance(recorder.error, ConnectionRefusedError)


def test_a_host_that_does_not_exist_fails_the_connection(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> NoReturn:  # no resolver of the network is asked
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    recorder = Recorder(mode.open("ws://nowhere.invalid/"))
    assert recorder.closed() == FAILED
    assert isinstance(recorder.error, OSError)
    assert "nowhere.invalid" in str(recorder.error)


def test_a_host_that_cannot_be_encoded_fails_the_connection(mode: Mode) -> None:
    recorder = Recorder(mode.open(f"ws://{'a' * 64}.invalid/"))  # a valid URL, but a label has 63 characters
    assert recorder.closed() == FAILED
    assert "a" * 64 in str(recorder.error)
