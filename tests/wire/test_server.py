"""The scripted server, asked by a client that is not ours: what it says it saw is what was sent."""

from __future__ import annotations

import socket
import threading

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from tests.wire.frames import BINARY, CLOSE, PING, TEXT, Frame, close_frame, frame, http
from tests.wire.server import Connection, ScriptedServer

LOOPBACK = "localhost", "127.0.0.1"


@pytest.mark.parametrize(
    ("made", "wire"),
    [
        (frame(TEXT, "hi"), "8102 6869"),
        (frame(BINARY, b"\0", fin=False), "0201 00"),
        (frame(TEXT, "hi", mask=b"\1\2\3\4"), "8182 01020304 696b"),
        (frame(TEXT, "hi", rsv=4), "c102 6869"),
        (frame(TEXT, "hi", length=9), "8109 6869"),
        (frame(TEXT, "hi", length_bytes=2), "817e 0002 6869"),
        (frame(TEXT, "hi", length_bytes=8), "817f 0000000000000002 6869"),
        (frame(BINARY, b"x" * 126)[:5], "827e 007e 78"),
        (frame(BINARY, b"x" * 65536)[:11], "827f 0000000000010000 78"),
        (close_frame(), "8800"),
        (close_frame(1000, "é"), "8804 03e8 c3a9"),
    ],
)
def test_a_frame_is_made_of_the_bytes_it_should(made: bytes, wire: str) -> None:
    assert made == bytes.fromhex(wire)


def test_messages_go_both_ways_and_are_noted() -> None:
    with ScriptedServer(Connection.echo) as server:
        with connect(server.url + "path?q=1", compression=None) as ws:
            ws.send("hé")
            ws.send([b"in ", b"parts"])
            ws.ping(b"alive?").wait(5)
            assert (ws.recv(5), ws.recv(5)) == ("hé", b"in parts")
        seen = server.result()
    assert seen.target == "/path?q=1"
    assert seen.header("host") == f"127.0.0.1:{server.port}"
    assert seen.messages == ["hé", b"in parts"]
    assert seen.pings == [b"alive?"]
    assert seen.close == (1000, "")
    assert (seen.unmasked, seen.after_close, seen.end) == ([], [], "eof")


def test_over_tls_it_is_the_same() -> None:
    with ScriptedServer(Connection.echo, tls=LOOPBACK) as server:
        with connect(server.url, ssl=server.ssl_context) as ws:
            ws.send("hi")
            assert ws.recv(5) == "hi"
        assert server.result().close == (1000, "")
    assert server.url.startswith("wss://")


def test_a_server_that_closes_sees_the_answer() -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "hello"))
        c.close(4321, "bye")

    with ScriptedServer(script) as server:
        with connect(server.url) as ws:
            assert ws.recv(5) == "hello"
            with pytest.raises(ConnectionClosedError) as caught:
                ws.recv(5)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4321, "bye")
        assert server.result().close == (4321, "bye")


def test_a_reset_is_a_reset() -> None:
    with ScriptedServer(Connection.reset) as server, socket.create_connection(server.address) as client:
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert server.result().end == "reset by server"


def test_an_http_answer_refuses() -> None:
    def script(c: Connection) -> None:
        c.request()
        c.send(http("404 Not Found"))
        c.half_close()

    with ScriptedServer(script) as server:
        with pytest.raises(InvalidStatus) as caught, connect(server.url):
            pass
        assert caught.value.response.status_code == 404
        assert server.result().raw == b""


def test_the_clients_bytes_are_noted_as_they_were() -> None:
    with ScriptedServer(Connection.handshake) as server, socket.create_connection(server.address) as client:
        client.sendall(b"GET /x HTTP/1.1\r\nSec-WebSocket-Protocol: a, b\r\nX: 1\r\nx: 2\r\n\r\n")
        client.sendall(frame(TEXT, "plain") + frame(PING, "p", mask=b"abcd") + close_frame() + frame(TEXT, "late"))
        client.shutdown(socket.SHUT_WR)
        seen = server.result()
    assert seen.headers == [("Sec-WebSocket-Protocol", "a, b"), ("X", "1"), ("x", "2")]
    assert seen.header("x") == "1, 2"
    assert seen.close == (None, "")
    assert seen.unmasked == [Frame(o, p, masked=False) for o, p in [(TEXT, b"plain"), (CLOSE, b""), (TEXT, b"late")]]
    assert seen.after_close == [Frame(TEXT, b"late", masked=False)]


def test_a_script_waits_for_the_test_and_tells_whether_something_came() -> None:
    seen: list[bool] = []
    sent, looked = threading.Event(), threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        seen.append(c.readable())
        looked.set()
        c.wait_for(sent)
        c.read_until(TEXT)
        seen.append(True)

    with ScriptedServer(script) as server, connect(server.url) as ws:
        assert looked.wait(5)
        ws.send("x")
        sent.set()
        ws.close()
        assert server.result().messages == ["x"]
    assert seen == [False, True]


def test_what_a_script_raises_is_raised_in_the_test() -> None:
    def script(c: Connection) -> None:
        raise ValueError("from the script")

    server = ScriptedServer(script)
    with socket.create_connection(server.address), pytest.raises(AssertionError, match="from the script"):
        server.result()
    server.__exit__(None, None, None)
    server = ScriptedServer(script)
    socket.create_connection(server.address).close()
    server.wait_connected()
    with pytest.raises(AssertionError, match="from the script"):
        server.__exit__(None, None, None)


@pytest.mark.parametrize("tls", [(), LOOPBACK])
def test_no_thread_is_left_even_if_the_client_never_ends(tls: tuple[str, ...]) -> None:
    before = set(threading.enumerate())
    with ScriptedServer(Connection.echo, tls=tls) as server:
        clients = [socket.create_connection(server.address) for _ in range(3)]
        server.wait_connected(3)
    for client in clients:
        client.close()
    assert set(threading.enumerate()) <= before
