"""Connections over TLS: the certificate is checked, and a failure says what was wrong."""

from __future__ import annotations

import ssl

import pytest

from tests.conftest import Mode, Recorder
from tests.wire.frames import CLOSE, TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer
from tests.wire.tls import contexts

FAILED = [("error", 3), ("close", 3, 1006, "", False)]
NAMES = "localhost", "127.0.0.1"


@pytest.mark.parametrize("host", NAMES)
def test_a_trusted_server_is_talked_to_as_without_tls(mode: Mode, host: str) -> None:
    text = "é" * 300_000
    on = {"open": lambda r, _: r.ws.send(text), "message": lambda r, _: r.ws.close(1000, "bye")}
    with ScriptedServer(Connection.echo, tls=NAMES) as server:
        url = f"wss://{host}:{server.port}/"
        recorder = Recorder(mode.open(url, ssl=server.ssl_context), on)
        assert recorder.closed() == [("open", 1), ("message", 1, text), ("close", 3, 1000, "bye", True)]
        assert recorder.events[1].origin == url[:-1]
        seen = server.result()
    assert seen.messages == [text]
    assert seen.close == (1000, "bye")


def test_an_unknown_authority_fails_the_connection(mode: Mode) -> None:
    with ScriptedServer(Connection.handshake, tls=NAMES) as server:
        recorder = Recorder(mode.open(f"wss://localhost:{server.port}/"))
        assert recorder.closed() == FAILED
        assert isinstance(recorder.error, ssl.SSLCertVerificationError)
        assert "localhost" in str(recorder.error)
        assert "certificate" in str(recorder.error).lower()


def test_a_certificate_for_another_host_fails_the_connection(mode: Mode) -> None:
    with ScriptedServer(Connection.handshake, tls=["example.com"]) as server:
        recorder = Recorder(mode.open(f"wss://localhost:{server.port}/", ssl=server.ssl_context))
        assert recorder.closed() == FAILED
        assert isinstance(recorder.error, ssl.SSLCertVerificationError)
        assert "localhost" in str(recorder.error)


def test_a_server_that_speaks_no_tls_fails_the_connection(mode: Mode) -> None:
    def script(c: Connection) -> None:
        c.sock.recv(1)
        c.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        c.half_close()

    with ScriptedServer(script) as server:
        recorder = Recorder(mode.open(f"wss://127.0.0.1:{server.port}/", ssl=contexts(*NAMES)[1]))
        assert recorder.closed() == FAILED
        assert isinstance(recorder.error, ssl.SSLError)


def test_tcp_that_ends_in_the_tls_handshake_fails_the_connection(mode: Mode) -> None:
    def script(c: Connection) -> None:
        c.sock.recv(1)
        c.half_close()

    with ScriptedServer(script) as server:
        recorder = Recorder(mode.open(f"wss://127.0.0.1:{server.port}/", ssl=contexts(*NAMES)[1]))
        assert recorder.closed() == FAILED
        assert isinstance(recorder.error, OSError)


@pytest.mark.parametrize(
    ("then", "event"),
    [
        (close_frame(1000, "done"), [("close", 3, 1000, "done", True)]),
        (frame(TEXT, "x", rsv=2), [("error", 3), ("close", 3, 1006, "", False)]),
        (b"", [("close", 3, 1006, "", False)]),
    ],
)
def test_the_end_of_a_connection_is_the_same_as_without_tls(
    mode: Mode, then: bytes, event: list[tuple[object, ...]]
) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "hello") + then)
        if then:
            c.read_until(CLOSE)
        c.half_close()

    with ScriptedServer(script, tls=NAMES) as server:
        recorder = Recorder(mode.open(server.url, ssl=server.ssl_context))
        assert recorder.closed()[1:] == [("message", recorder.entries[1][1], "hello"), *event]
