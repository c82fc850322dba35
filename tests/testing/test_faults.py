"""Faults for all clients of an EchoServer, for those of one path, and for one of them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import websocket
from websockets.asyncio.client import connect as asyncio_connect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import bws
from bws.testing import Client, EchoServer, Route, record
from tests.testing.clients import HANDSHAKE, TIMEOUT, plain_socket, why_closed

QUIET = 0.1  # s in which nothing may come

TEXT_HI = b"\x81\x02hi"


# --- send_raw ---


def test_raw_bytes_come_as_they_are(echo_server: EchoServer) -> None:
    with plain_socket(echo_server) as sock:
        for data in (b"\xff", bytearray(b"\x00"), memoryview(b"half a frame")):
            echo_server.send_raw(data)
        assert sock.recv(14, 0x100) == b"\xff\x00half a frame"  # MSG_WAITALL


def test_a_raw_frame_is_a_message_and_a_wrong_one_fails_the_connection(echo_server: EchoServer) -> None:
    seen = record(bws.WebSocket(echo_server.url))
    echo_server.send_raw(TEXT_HI)
    assert seen.wait_for("message").data == "hi"
    echo_server.send_raw(b"\x83\x00")  # a reserved opcode
    assert "opcode" in seen.wait_for("error").message
    assert seen.wait_for("close").code == 1006
    assert echo_server.next_close()[0] == 1002


def test_a_stalled_handshake_can_be_answered_with_raw_bytes(echo_server: EchoServer) -> None:
    echo_server.stall()
    seen = record(bws.WebSocket(echo_server.url))
    echo_server.send_raw(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    assert seen.wait_for("close").code == 1006
    assert seen.types == ["error", "close"]


# --- slow ---


@pytest.mark.parametrize("tls", [False, True])
def test_a_slow_server_reads_and_writes_no_faster_than_that(tls: bool) -> None:
    # With the asyncio client, as the threaded one reads and writes one TLS object at the same time.
    async def talk(server: EchoServer) -> tuple[float, float]:
        async with asyncio_connect(server.url, ssl=server.ssl_context, compression=None) as client:
            server.slow(10_000)
            start = time.monotonic()
            await client.send(b"x" * 3000)
            assert await asyncio.to_thread(server.next_message, TIMEOUT) == b"x" * 3000
            read = time.monotonic() - start
            server.send(b"y" * 3000)
            assert [await client.recv(), await client.recv()] == [b"x" * 3000, b"y" * 3000]
            both = time.monotonic() - start
        client.transport.abort()  # it has ended, but Python 3.10 complains when a TLS transport was not told
        return read, both

    with EchoServer(tls=tls, compression=False) as server:
        read, both = asyncio.run(asyncio.wait_for(talk(server), 2 * TIMEOUT))
    assert read > 0.25
    assert both > 0.85  # what was read came back, and the other message after it


def test_a_slow_server_closes_after_what_it_has_still_to_write(echo_server: EchoServer) -> None:
    with plain_socket(echo_server) as sock:
        echo_server.slow(1000)
        echo_server.send("x" * 100)
        echo_server.close(4001)
        sock.sendall(b"\x88\x82\x00\x00\x00\x00\x0f\xa1")
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
        assert received == b"\x81\x64" + b"x" * 100 + b"\x88\x02\x0f\xa1"


def test_without_a_limit_all_that_has_waited_comes_at_once(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as client:
        echo_server.slow(1)  # a day for this message
        client.send(b"x" * 100_000)
        with pytest.raises(TimeoutError):
            client.recv(QUIET)
        echo_server.slow(None)
        assert client.recv(TIMEOUT) == b"x" * 100_000


def test_a_slow_client_can_be_dropped_and_does_not_hold_up_stop() -> None:
    with EchoServer() as server, connect(server.url) as client, connect(server.url) as other:
        server.slow(1)
        client.send(b"x" * 100_000)
        server.next_client().drop()
        assert why_closed(client).rcvd is None
        other.send(b"x" * 100_000)
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < TIMEOUT
        assert why_closed(other).rcvd is None


def test_a_client_that_slow_and_stall_are_for_is_both(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as client:
        echo_server.slow(1000)
        echo_server.stall()
        client.send("waits")
        with pytest.raises(TimeoutError):
            client.recv(QUIET)
        echo_server.slow(None)
        with pytest.raises(TimeoutError):
            client.recv(QUIET)
        echo_server.resume()
        assert client.recv(TIMEOUT) == "waits"


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_slow_takes_only_positive_rates(echo_server: EchoServer, rate: float) -> None:
    with pytest.raises(ValueError, match="bytes_per_s must be a positive number or None"):
        echo_server.slow(rate)


# --- refuse, a few times ---


def test_a_client_that_tries_again_is_refused_only_so_often(echo_server: EchoServer) -> None:
    echo_server.refuse(503, times=2)
    for _ in range(2):
        with pytest.raises(InvalidStatus), connect(echo_server.url):
            pass
    with connect(echo_server.url) as client:
        client.send("third time lucky")
        assert client.recv(TIMEOUT) == "third time lucky"


def test_refusing_no_times_is_refused(echo_server: EchoServer) -> None:
    with pytest.raises(ValueError, match="times must be a positive number or None, not 0"):
        echo_server.refuse(503, times=0)


# --- one path, one client: the fault is there and nowhere else ---


@pytest.fixture(params=["path", "client"])
def scope(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def one_of(echo_server: EchoServer, scope: str) -> Callable[[], Route | Client]:
    """The scope that has the client of /bad, the first one, and not that of /good."""
    return lambda: echo_server.at("/bad") if scope == "path" else echo_server.next_client(TIMEOUT)


def test_a_fault_is_for_its_clients_only(echo_server: EchoServer, one_of: Callable[[], Route | Client]) -> None:
    with connect(f"{echo_server.url}/bad?room=1") as bad, connect(f"{echo_server.url}/good") as good:
        faulty = one_of()
        faulty.send("only you")
        faulty.send_raw(TEXT_HI)
        assert [bad.recv(TIMEOUT), bad.recv(TIMEOUT)] == ["only you", "hi"]
        faulty.stall()
        bad.send("one")
        with pytest.raises(TimeoutError):
            bad.recv(QUIET)
        good.send("unharmed")
        assert good.recv(TIMEOUT) == "unharmed"
        faulty.resume()
        assert bad.recv(TIMEOUT) == "one"
        faulty.slow(1)
        bad.send(b"x" * 100_000)
        good.send(b"y" * 100_000)
        assert good.recv(TIMEOUT) == b"y" * 100_000
        faulty.slow(None)
        assert bad.recv(TIMEOUT) == b"x" * 100_000
        faulty.close(4001, "only you")
        closed = why_closed(bad).rcvd
        assert closed is not None
        assert (closed.code, closed.reason) == (4001, "only you")
        good.send("unharmed")
        assert good.recv(TIMEOUT) == "unharmed"


def test_a_drop_is_for_its_clients_only(echo_server: EchoServer, one_of: Callable[[], Route | Client]) -> None:
    with connect(f"{echo_server.url}/bad") as bad, connect(f"{echo_server.url}/good") as good:
        one_of().drop()
        assert why_closed(bad).rcvd is None
        good.send("unharmed")
        assert good.recv(TIMEOUT) == "unharmed"


def test_a_path_is_refused_before_and_instead_of_the_others(echo_server: EchoServer) -> None:
    echo_server.at("/private").refuse(401)
    with pytest.raises(InvalidStatus, match="401"), connect(f"{echo_server.url}/private?token=1"):
        pass
    with connect(f"{echo_server.url}/private/too"):
        pass
    echo_server.refuse(503)
    for path, status in (("/private", "401"), ("/", "503")):
        with pytest.raises(InvalidStatus, match=status), connect(echo_server.url + path):
            pass
    echo_server.at("/private").refuse(None)
    with pytest.raises(InvalidStatus, match="503"), connect(f"{echo_server.url}/private"):
        pass


@pytest.mark.parametrize("path", ["/grüße an alle", "/gr%C3%BC%C3%9Fe%20an%20alle", "/a~b/(c)@d:e;f=g,h!$&'*+[]|"])
def test_a_path_is_written_as_in_a_url_or_in_a_request(echo_server: EchoServer, path: str) -> None:
    echo_server.at(path).refuse(404)
    seen = record(bws.WebSocket(f"{echo_server.url}{path}?a=b"))
    assert "404" in seen.wait_for("error").message


def test_a_stalled_path_answers_no_handshake_until_it_resumes(echo_server: EchoServer) -> None:
    stalled = echo_server.at("/")
    stalled.stall()
    echo_server.resume()  # is for what the server itself has stalled
    with plain_socket(echo_server, handshake=False) as sock, connect(f"{echo_server.url}/other"):
        sock.sendall(HANDSHAKE)
        sock.settimeout(QUIET)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        stalled.resume()
        sock.settimeout(TIMEOUT)
        assert sock.recv(12) == b"HTTP/1.1 101"


def test_a_path_waits_for_its_first_client(echo_server: EchoServer) -> None:
    with connect(f"{echo_server.url}/other"), pytest.raises(TimeoutError, match=r"^no client of /x connected within 0"):
        echo_server.at("/x").send("hello", timeout=0.01)
    ws = bws.WebSocket(f"{echo_server.url}/x")
    echo_server.at("/x").send("hello")
    assert record(ws).wait_for("message").data == "hello"
    ws.close()
    assert ws.wait_closed(TIMEOUT)


@pytest.mark.parametrize("path", ["chat", "", "/chat?room=1", "/chat#top"])
def test_what_is_no_path_is_refused(echo_server: EchoServer, path: str) -> None:
    with pytest.raises(ValueError, match="path must start with a slash and have no query"):
        echo_server.at(path)


def test_a_client_tells_what_it_has_sent(echo_server: EchoServer) -> None:
    with (
        connect(f"{echo_server.url}/1?a=b", additional_headers={"X-Who": "first"}) as one,
        connect(f"{echo_server.url}/2") as two,
    ):
        first, second = echo_server.next_client(), echo_server.next_client()
        assert (first.path, first.headers["x-who"], second.path) == ("/1?a=b", "first", "/2")
        assert [client.path for client in echo_server.clients] == ["/1?a=b", "/2"]
        two.send("from two")
        assert second.next_message() == "from two"
        one.send("from one")
        assert first.next_message() == "from one"
        assert (first.messages, second.messages) == (["from one"], ["from two"])
        assert echo_server.messages == ["from two", "from one"]
        with pytest.raises(TimeoutError, match=r"no further message of the client of /2 within 0\.01 s"):
            second.next_message(0.01)
        assert repr(second) == "<Client /2 OPEN>"
        assert repr(echo_server.at("/2")) == f"<Route /2 of <EchoServer {echo_server.url} 2 connected>>"
    echo_server.next_close()
    echo_server.next_close()
    assert echo_server.clients == []
    with pytest.raises(TimeoutError, match=r"^the client of /2 is not connected any more$"):
        second.send("too late", timeout=None)
    with pytest.raises(TimeoutError, match=r"^the client of /2 is not connected any more$"):
        second.drop(timeout=None)
    with pytest.raises(TimeoutError, match=r"no further client within 0\.01 s"):
        echo_server.next_client(0.01)


def test_a_stop_ends_stall_for_the_next_start() -> None:
    with EchoServer() as server:
        server.stall()
        server.at("/").stall()
    with server, connect(server.url) as client:
        client.send("hello")
        assert client.recv(TIMEOUT) == "hello"


# --- a server for many tests ---


def test_a_reset_forgets_what_the_clients_did(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as client:
        client.send("of an earlier test")
        client.recv(TIMEOUT)
    echo_server.reset()
    assert (echo_server.messages, echo_server.closes, echo_server.clients) == ([], [], [])
    for forgotten in (echo_server.next_message, echo_server.next_close, echo_server.next_client):
        with pytest.raises(TimeoutError, match=r"nobody has connected since reset\(\); so far 0 messages"):
            forgotten(timeout=0)
    with pytest.raises(RuntimeError, match=r"^nobody has connected since reset\(\)$"):
        _ = echo_server.headers
    with connect(f"{echo_server.url}/new") as client:
        client.send("of this one")
        assert echo_server.next_message() == "of this one"
        assert echo_server.next_client().messages == ["of this one"]
    assert echo_server.next_close() == (1000, "")


def test_a_reset_ends_all_faults(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as stays:
        client = echo_server.next_client()
        for one in (echo_server, echo_server.at("/"), client):
            one.stall()
            one.slow(1)
        echo_server.refuse(503)
        echo_server.at("/").refuse(404)
        echo_server.reset()
        stays.send("x" * 1000)
        assert stays.recv(TIMEOUT) == "x" * 1000
        assert client.messages == ["x" * 1000]
        with connect(echo_server.url):
            pass


def test_the_end_of_a_client_is_not_told_after_a_reset(echo_server: EchoServer) -> None:
    for number in range(50):
        seen = record(ws := bws.WebSocket(f"{echo_server.url}/{number}"))
        ws.wait_open(TIMEOUT)
        ws.close(4000)
        seen.wait_for("close")
        echo_server.reset()
    with connect(echo_server.url):
        pass
    echo_server.next_close()
    assert echo_server.closes == [(1000, "")]


def test_a_server_that_is_stopped_can_be_reset_and_started_again() -> None:
    server = EchoServer()
    server.reset()
    with server, connect(server.url) as client:
        client.send("hello")
        client.recv(TIMEOUT)
    server.reset()
    assert server.messages == []
    with server, connect(server.url) as client:
        client.send("again")
        assert server.next_message() == "again"


# --- with another client, and without pytest ---


def test_every_fault_reaches_websocket_client(echo_server: EchoServer) -> None:
    @contextmanager
    def client(path: str = "/") -> Iterator[websocket.WebSocket]:
        ws = websocket.create_connection(echo_server.url + path, timeout=TIMEOUT)
        try:
            yield ws
        finally:
            ws.shutdown()  # type: ignore[no-untyped-call]

    with client() as ws:
        ws.send("hello")
        assert ws.recv() == "hello"
        echo_server.send_raw(TEXT_HI)
        assert ws.recv() == "hi"
        echo_server.slow(1000)
        ws.send_binary(b"x" * 20)
        assert ws.recv() == b"x" * 20
        echo_server.slow(None)
        echo_server.stall()
        ws.send("anybody there?")
        ws.settimeout(QUIET)
        with pytest.raises(websocket.WebSocketTimeoutException):
            ws.recv()
        ws.settimeout(TIMEOUT)
        echo_server.resume()
        assert ws.recv() == "anybody there?"
        echo_server.close(4001, "go away")
        assert ws.recv_data() == (8, b"\x0f\xa1go away")
    echo_server.next_close()
    with client() as ws:
        echo_server.drop()
        with pytest.raises(ConnectionResetError):
            ws.recv()
    echo_server.at("/no").refuse(403)
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"), client("/no"):
        pass


def test_all_of_it_works_without_pytest() -> None:
    code = """
import sys
sys.modules["pytest"] = None  # whoever imports it fails
import bws
from bws.testing import EchoServer, record

with EchoServer() as server, EchoServer(tls=True) as safe:
    seen = record(bws.WebSocket(server.url))
    server.next_client().send("hello")
    print(seen.wait_for("message").data)
    server.at("/").close(4001)
    print(seen.wait_for("close").code)
    with bws.WebSocket(safe.url, ssl=safe.ssl_context) as ws:
        ws.send("secret")
        print(safe.next_message())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout, done.stderr) == ("hello\n4001\nsecret\n", "")
