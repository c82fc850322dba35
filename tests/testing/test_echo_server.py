"""EchoServer, seen by the client of the websockets library and by plain sockets."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from bws.testing import EchoServer
from tests.testing.clients import HANDSHAKE, TIMEOUT, plain_socket, reads_to_the_end, why_closed

QUIET = 0.1  # s in which nothing must come


# --- echo and record ---


@pytest.mark.parametrize(
    "message",
    ["hello", "", "żółw \U0001f422 \x00\x1b", b"\x00\xff", b"", "x" * 5_000_000, b"y" * 5_000_000],
    ids=["text", "empty text", "unicode", "binary", "empty binary", "5 MB text", "5 MB binary"],
)
def test_a_message_comes_back_with_its_type(echo_server: EchoServer, message: str | bytes) -> None:
    with connect(echo_server.url, max_size=None) as client:
        client.send(message)
        assert client.recv(TIMEOUT) == message
    assert echo_server.messages == [message]


def test_messages_of_all_clients_are_kept_in_order_and_next_message_gives_each_once(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as first, connect(echo_server.url) as second:
        for client, text in [(first, "1"), (second, "2"), (first, "3")]:
            client.send(text)
            client.recv(TIMEOUT)
    assert [echo_server.next_message() for _ in range(3)] == ["1", "2", "3"]
    assert echo_server.messages == ["1", "2", "3"]


def test_next_message_waits_for_a_message_that_is_still_to_come(echo_server: EchoServer) -> None:
    with ThreadPoolExecutor(1) as pool, connect(echo_server.url) as client:
        waiting = pool.submit(echo_server.next_message, TIMEOUT)
        client.send("late")
        assert waiting.result(TIMEOUT) == "late"


def test_next_message_says_in_its_timeout_what_came_so_far(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as client:
        client.send("only")
        client.recv(TIMEOUT)
    assert echo_server.next_message() == "only"
    with pytest.raises(TimeoutError, match=r"no further message within 0\.05 s; so far 1 message came: 'only', "):
        echo_server.next_message(0.05)


def test_a_server_that_keeps_no_messages_still_echoes() -> None:
    with EchoServer(keep_messages=False) as server, connect(server.url) as client:
        client.send("hello")
        assert client.recv(TIMEOUT) == "hello"
        client.close()
    assert (server.messages, server.closes) == ([], [])


def test_a_server_without_echo_sends_only_what_it_is_told_to() -> None:
    with EchoServer(echo=False) as server, connect(server.url) as client:
        client.send("question")
        assert server.next_message() == "question"
        server.send("answer")
        assert client.recv(TIMEOUT) == "answer"


# --- send ---


def test_send_reaches_every_client_as_text_or_binary(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as first, connect(echo_server.url) as second:
        echo_server.send("text")
        echo_server.send(b"binary")
        assert [c.recv(TIMEOUT) for c in (first, second) for _ in range(2)] == ["text", b"binary"] * 2


def test_send_waits_for_the_first_client(echo_server: EchoServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(echo_server.send, "welcome", TIMEOUT)
        with connect(echo_server.url) as client:
            assert client.recv(TIMEOUT) == "welcome"
            sending.result(TIMEOUT)


@pytest.mark.parametrize("method", ["close", "drop"])
def test_close_and_drop_time_out_when_nobody_is_connected(echo_server: EchoServer, method: str) -> None:
    with pytest.raises(TimeoutError, match=r"no client connected within 0\.05 s"):
        getattr(echo_server, method)(timeout=0.05)


def test_send_times_out_when_nobody_is_connected_any_more(echo_server: EchoServer) -> None:
    with connect(echo_server.url):
        pass
    echo_server.next_close()
    with pytest.raises(TimeoutError, match="no client connected"):
        echo_server.send("into the void", timeout=0.05)


def test_send_refuses_what_is_no_message(echo_server: EchoServer) -> None:
    with connect(echo_server.url), pytest.raises(TypeError):
        echo_server.send(17)  # type: ignore[arg-type]


def test_send_returns_although_the_client_reads_nothing(echo_server: EchoServer) -> None:
    with plain_socket(echo_server):
        start = time.monotonic()
        echo_server.send(b"x" * 20_000_000)
        assert time.monotonic() - start < 5


# --- the end of a connection ---


def test_close_carries_code_and_reason_and_notes_the_answer(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as client:
        echo_server.close(4001, "bye")
        received = why_closed(client).rcvd
    assert received is not None
    assert (received.code, received.reason) == (4001, "bye")
    assert echo_server.next_close() == (4001, "bye")


def test_close_without_a_code_sends_an_empty_frame(echo_server: EchoServer) -> None:
    with plain_socket(echo_server) as sock:
        echo_server.close(None)
        assert sock.recv(100) == b"\x88\x00"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(0, ""), (999, ""), (1004, ""), (1005, ""), (1006, ""), (1015, ""), (5000, ""), (None, "why"), (1000, "é" * 62)],
)
def test_close_refuses_what_no_close_frame_can_hold(echo_server: EchoServer, code: int | None, reason: str) -> None:
    with pytest.raises(ValueError, match=r"code|reason"):
        echo_server.close(code, reason)


def test_what_clients_close_with_is_kept_in_order(echo_server: EchoServer) -> None:
    for code, reason in [(1000, ""), (4002, "enough")]:
        with connect(echo_server.url) as client:
            client.close(code, reason)
        assert echo_server.next_close() == (code, reason)
    with plain_socket(echo_server):
        pass  # ends without a close frame
    assert echo_server.next_close() == (1006, "")
    assert echo_server.closes == [(1000, ""), (4002, "enough"), (1006, "")]


def test_a_close_frame_right_behind_many_messages_ends_the_connection_without_delay(echo_server: EchoServer) -> None:
    message, close = b"\x81\x81\x00\x00\x00\x00x", b"\x88\x82\x00\x00\x00\x00\x03\xe9"
    with plain_socket(echo_server) as sock:
        sock.sendall(message * 100 + close)
        assert reads_to_the_end(sock)
    # Otherwise after 10 s, the close_timeout of websockets.
    assert echo_server.next_close(8) == (1001, "")
    assert echo_server.messages == ["x"] * 100


def test_next_close_times_out_while_the_client_stays(echo_server: EchoServer) -> None:
    with connect(echo_server.url), pytest.raises(TimeoutError, match="no further end of a connection within"):
        echo_server.next_close(0.05)


def test_drop_resets_the_connection(echo_server: EchoServer) -> None:
    with plain_socket(echo_server) as sock:
        echo_server.drop()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert echo_server.next_close() == (1006, "")


def test_drop_resets_a_client_that_is_still_shaking_hands(echo_server: EchoServer) -> None:
    echo_server.stall()
    with plain_socket(echo_server, handshake=False) as sock:
        sock.sendall(HANDSHAKE)
        echo_server.drop()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


# --- stall and refuse ---


def test_a_stalled_server_answers_neither_messages_nor_pings_until_it_resumes(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as client:
        echo_server.stall()
        client.send("anybody there?")
        pong = client.ping()
        with pytest.raises(TimeoutError):
            client.recv(QUIET)
        assert not pong.is_set()
        assert echo_server.messages == []
        echo_server.resume()
        assert client.recv(TIMEOUT) == "anybody there?"
        assert pong.wait(TIMEOUT)


def test_a_stalled_server_accepts_tcp_but_answers_the_handshake_only_when_it_resumes(echo_server: EchoServer) -> None:
    echo_server.stall()
    with plain_socket(echo_server, handshake=False) as sock:
        sock.sendall(HANDSHAKE)
        sock.settimeout(QUIET)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        echo_server.resume()
        sock.settimeout(TIMEOUT)
        assert sock.recv(12) == b"HTTP/1.1 101"


def test_a_stalled_server_still_sends_and_closes_when_told_to(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as client:
        echo_server.stall()
        echo_server.send("still here")
        assert client.recv(TIMEOUT) == "still here"
        echo_server.close(4003)
        echo_server.drop()
        received = why_closed(client).rcvd
    assert received is not None
    assert received.code == 4003


@pytest.mark.parametrize("status", [200, 302, 401, 404, 418, 499, 503])
def test_refuse_answers_with_the_status_until_told_otherwise(echo_server: EchoServer, status: int) -> None:
    echo_server.refuse(status, {"X-Why": "test", "Content-Type": "text/html"}, "no entry")
    for _ in range(2):
        with pytest.raises(InvalidStatus) as caught, connect(f"{echo_server.url}/somewhere"):
            pass
        response = caught.value.response
        assert (response.status_code, response.body) == (status, b"no entry")
        assert response.headers["X-Why"] == "test"
        assert response.headers.get_all("Content-Type") == ["text/html"]
    assert echo_server.path == "/somewhere"
    echo_server.refuse(None)
    with connect(echo_server.url) as client:
        client.send("hello")
        assert client.recv(TIMEOUT) == "hello"


@pytest.mark.parametrize("status", [101, 199, 600, 0, -1])
def test_refuse_takes_only_a_status_that_refuses(status: int) -> None:
    with pytest.raises(ValueError, match="status must be an HTTP status from 200 to 599"):
        EchoServer().refuse(status)


# --- the handshake ---


@pytest.mark.parametrize(
    ("headers", "error", "named"),
    [
        ({"X": "a\r\nb"}, ValueError, "'X'"),
        ({"X": "€"}, ValueError, "Latin-1"),
        ({"a b": "x"}, ValueError, "'a b'"),
        ({"": "x"}, ValueError, "''"),
        ({5: "x"}, TypeError, "5"),
        ({"X": 5}, TypeError, "5"),
    ],
)
def test_refuse_takes_only_headers_that_can_be_sent(
    echo_server: EchoServer, headers: Any, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=re.escape(named)):
        echo_server.refuse(503, headers)


def test_half_a_character_is_refused(echo_server: EchoServer) -> None:
    with pytest.raises(ValueError, match="data has a lone surrogate"):
        echo_server.send("\ud800")
    with pytest.raises(ValueError, match="reason has a lone surrogate"):
        echo_server.close(1000, "\ud800")


def test_a_host_that_cannot_be_one_is_an_os_error() -> None:
    with pytest.raises(socket.gaierror, match=r"cannot serve on 'a{300}' port 0: this is no host name") as caught:
        EchoServer("a" * 300).start()
    assert caught.value.errno == socket.EAI_NONAME


def test_everywhere_is_ipv4() -> None:
    with EchoServer("") as server, connect(server.url) as client:
        assert server.url.startswith("ws://127.0.0.1:")
        assert client.ping().wait(TIMEOUT)


def test_a_start_that_is_interrupted_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = set(threading.enumerate())
    with monkeypatch.context() as patch:
        patch.setattr("concurrent.futures.Future.result", interrupted)
        server = EchoServer()
        with pytest.raises(KeyboardInterrupt):
            server.start()
    assert set(threading.enumerate()) <= before
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            server.start()
    with server, connect(server.url) as client:
        assert client.ping().wait(TIMEOUT)


def test_headers_and_path_are_those_of_the_last_client(echo_server: EchoServer) -> None:
    with connect(f"{echo_server.url}/first", additional_headers={"X-Who": "first"}):
        pass
    with connect(f"{echo_server.url}/second?a=b", additional_headers=[("X-Who", "second"), ("X-Who", "third")]):
        assert echo_server.headers.get_all("x-WHO") == ["second", "third"]
        assert echo_server.headers["host"] == f"127.0.0.1:{echo_server.port}"
        assert echo_server.path == "/second?a=b"


@pytest.mark.parametrize("name", ["headers", "path"])
def test_headers_and_path_say_so_when_nobody_has_connected(echo_server: EchoServer, name: str) -> None:
    with pytest.raises(RuntimeError, match=r"^nobody has connected$"):
        getattr(echo_server, name)


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["b", "a"], "a"), (["b"], "b"), (["c"], None), (["A"], None), ([], None)]
)
def test_the_server_picks_the_best_subprotocol_it_shares_with_the_client(
    offered: list[str], chosen: str | None
) -> None:
    protocols = [Subprotocol(name) for name in offered] or None
    with EchoServer(subprotocols=["a", "b"]) as server, connect(server.url, subprotocols=protocols) as client:
        assert client.subprotocol == chosen


def test_subprotocols_given_as_one_str_are_refused() -> None:
    with pytest.raises(TypeError, match="subprotocols must be a sequence of str, not 'chat'"):
        EchoServer(subprotocols="chat")


@pytest.mark.parametrize("compression", [True, False])
def test_compression_can_be_turned_off(compression: bool) -> None:
    with EchoServer(compression=compression) as server, connect(server.url) as client:
        assert client.response is not None
        assert ("permessage-deflate" in client.response.headers.get("Sec-WebSocket-Extensions", "")) is compression


# --- clients that misbehave ---


def test_a_client_that_goes_away_during_an_echo_is_only_noted(echo_server: EchoServer) -> None:
    with plain_socket(echo_server) as sock:  # what it has not read makes its end a reset
        sock.sendall(b"\x82\x81\x00\x00\x00\x00x" * 100)
    assert echo_server.next_close() == (1006, "")
    with connect(echo_server.url) as client:
        client.send("next")
        assert client.recv(TIMEOUT) == "next"


def test_protocol_errors_of_a_client_end_only_its_own_connection(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as good, plain_socket(echo_server) as bad:
        bad.sendall(b"\xff\xff")
        assert reads_to_the_end(bad)
        good.send("unharmed")
        assert good.recv(TIMEOUT) == "unharmed"


def test_what_may_be_a_secret_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "bws.testing")
    headers = {"Authorization": "Basic s3cret", "Cookie": "id=s3cret", "X-Api-Key": "s3cret"}
    with EchoServer() as server:
        server.refuse(401, {"Set-Cookie": "id=s3cret"}, times=1)
        with pytest.raises(InvalidStatus):
            connect(server.url, additional_headers=headers)
        with connect(server.url, additional_headers=headers, subprotocols=[Subprotocol("chat")]) as client:
            client.send("hello")
            assert client.recv() == "hello"
        assert server.headers["X-Api-Key"] == "s3cret"
    lines = [record.getMessage() for record in caplog.records if record.name == "bws.testing"]
    assert {"< Authorization: ...", "< Cookie: ...", "< X-Api-Key: ...", "> Set-Cookie: ..."} <= set(lines)
    assert "< Sec-WebSocket-Protocol: chat" in lines
    assert not [line for line in lines if "s3cret" in line]
