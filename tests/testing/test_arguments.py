"""The test kit tells a wrong argument where it is written, and in a time-out what came instead."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.sync.client import connect

import bws
from bws.dispatch import Queue
from bws.testing import EchoServer, record
from tests.testing.clients import TIMEOUT

Call = Callable[[Any], object]  # of a running server; Any, since what is wrong is not of the right type


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"host": None}, TypeError, "host must be a str, not None"),
        ({"port": "80"}, TypeError, "port must be an int, not '80'"),
        ({"port": True}, TypeError, "port must be an int, not True"),
        ({"port": -1}, ValueError, "port must be from 0 to 65535, not -1"),
        ({"port": 65536}, ValueError, "port must be from 0 to 65535, not 65536"),
        ({"tls": "yes"}, TypeError, r"tls must be True, False or an ssl\.SSLContext, not 'yes'"),
        ({"tls": True, "tls_names": "localhost"}, TypeError, "tls_names must be a sequence of str, not 'localhost'"),
        ({"subprotocols": b"chat"}, TypeError, "subprotocols must be a sequence of str, not b'chat'"),
        ({"subprotocols": ["chat", 2]}, TypeError, r"subprotocols must be a sequence of str, not \['chat', 2\]"),
        ({"subprotocols": None}, TypeError, "subprotocols must be a sequence of str, not None"),
    ],
)
def test_the_constructor_refuses(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        EchoServer(**options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.next_message("1"), TypeError, "timeout must be a number of seconds or None, not '1'"),
        (lambda s: s.next_message(True), TypeError, "timeout must be a number of seconds or None, not True"),
        (lambda s: s.next_close(-1), ValueError, "timeout must not be negative, is -1"),
        (lambda s: s.next_client(float("nan")), ValueError, "timeout must not be negative, is nan"),
        (lambda s: s.send("x", timeout=[]), TypeError, r"timeout must be a number of seconds or None, not \[\]"),
        (lambda s: s.send(None), TypeError, "data must be str or bytes, not None; .*"),
        (
            lambda s: s.send({"a": 1}),
            TypeError,
            r"data must be .*, not {'a': 1}; for other values send json\.dumps\(value\)",
        ),
        (lambda s: s.send([0] * 1000), TypeError, "data must be .{,100}; .{,50}"),
        (lambda s: s.send_raw("text"), TypeError, "data must be bytes, not 'text'"),
        (lambda s: s.close("1000"), TypeError, "code must be an int or None, not '1000'"),
        (lambda s: s.close(True), TypeError, "code must be an int or None, not True"),
        (
            lambda s: s.close(1005),
            ValueError,
            r"code 1005 may not .*; expected 1000-1003, 1007-1014 or 3000-4999, or None for .*; drop\(\) ends .*",
        ),
        (lambda s: s.close(1000, b"bye"), TypeError, "reason must be a str, not b'bye'"),
        (lambda s: s.slow("fast"), TypeError, "bytes_per_s must be a positive number or None, not 'fast'"),
        (lambda s: s.slow(float("inf")), ValueError, "bytes_per_s must be a positive number or None, not inf"),
        (lambda s: s.refuse("403"), ValueError, "status must be an HTTP status from 200 to 599, not '403'"),
        (lambda s: s.refuse(403, body=b"no"), TypeError, "body must be a str, not b'no'"),
        (lambda s: s.refuse(403, headers=["A"]), TypeError, r"headers must be a mapping .*, not \['A'\]"),
        (lambda s: s.refuse(403, times=1.5), TypeError, "times must be a positive number or None, not 1.5"),
        (lambda s: s.at(None), TypeError, "path must be a str, not None"),
    ],
)
def test_a_control_refuses(echo_server: EchoServer, call: Call, error: type[Exception], message: str) -> None:
    with connect(echo_server.url) as client:
        with pytest.raises(error, match=f"^{message}$"):
            call(echo_server)
        client.send("goes on")
        assert client.recv(TIMEOUT) == "goes on"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.wait_for("open", "1"), TypeError, "n must be an int, not '1'"),
        (lambda s: s.wait_for("open", True), TypeError, "n must be an int, not True"),
        (lambda s: s.wait_for("open", 0), ValueError, "n must be at least 1, not 0: .*"),
        (lambda s: s.wait_for("open", timeout="1"), TypeError, "timeout must be a number of seconds or None, not '1'"),
    ],
)
def test_a_record_refuses(echo_server: EchoServer, call: Call, error: type[Exception], message: str) -> None:
    with bws.WebSocket(echo_server.url) as ws, pytest.raises(error, match=f"^{message}$"):
        call(record(ws))


@pytest.mark.parametrize("ws", [5, "ws://127.0.0.1/", None])
def test_only_a_socket_is_recorded(ws: Any) -> None:
    with pytest.raises(TypeError, match=f"^ws must be a bws.WebSocket, not {re.escape(repr(ws))}$"):
        record(ws)


def test_ws_connect_refuses_a_wait_that_is_no_time(ws_connect: Any, echo_server: EchoServer) -> None:
    with pytest.raises(TypeError, match=r"^wait must be a number of seconds or None, not 'long'$"):
        ws_connect(echo_server.url, wait="long")
    assert echo_server.clients == []


def test_none_is_no_limit(echo_server: EchoServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        client = pool.submit(echo_server.next_client, None)
        message = pool.submit(echo_server.next_message, timeout=None)
        close = pool.submit(echo_server.next_close, None)
        pool.submit(echo_server.send, "hello", None)
        with bws.WebSocket(echo_server.url) as ws:
            ws.send("one")
            seen = record(ws)
            assert {seen.wait_for("message", n, timeout=None).data for n in (1, 2)} == {"hello", "one"}
            ws.close(3000)
            assert seen.wait_for("close", timeout=None).code == 3000
        assert client.result(TIMEOUT).path == "/"
        assert message.result(TIMEOUT) == "one"
        assert close.result(TIMEOUT) == (3000, "")


def test_more_seconds_than_a_lock_can_wait_are_as_many_as_it_can(echo_server: EchoServer) -> None:
    with bws.WebSocket(echo_server.url) as ws:
        ws.send("one")
        assert echo_server.next_message(timeout=1e300) == "one"
        assert record(ws).wait_for("message", timeout=float("inf")).data == "one"


# --- what came instead ---


def test_a_timeout_tells_what_came(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as client:
        for text in ("first", "x" * 1000):
            client.send(text)
            client.recv(TIMEOUT)
            echo_server.next_message()
    echo_server.next_close()
    with pytest.raises(TimeoutError) as caught:
        echo_server.next_message(0)
    story = str(caught.value)
    assert story.startswith("no further message within 0 s; so far 2 messages came: 'first', 'xxxx")
    assert story.endswith("..., and 1 connection ended: (1000, '')")
    assert len(story) < 250


def test_a_timeout_tells_the_last_of_many_messages(echo_server: EchoServer) -> None:
    with connect(echo_server.url) as client:
        for number in range(30):
            client.send(str(number))
            client.recv(TIMEOUT)  # a client that has too much to read does not read the close frame either
            echo_server.next_message()
        with pytest.raises(TimeoutError, match=r"so far 30 messages came: 10 more, '10', '11', .*, '29', and 0 conn"):
            echo_server.next_message(0)


def test_a_timeout_tells_that_nobody_has_connected(echo_server: EchoServer) -> None:
    with pytest.raises(TimeoutError, match=r"^no further client within 0 s; nobody has connected; so far 0 messages"):
        echo_server.next_client(0)


def test_a_timeout_tells_that_the_server_is_not_running() -> None:
    with pytest.raises(TimeoutError, match=r"^no further message within 0 s; the server is not running; nobody has"):
        EchoServer().next_message(0)


def test_a_path_tells_who_is_there_instead(echo_server: EchoServer) -> None:
    story = r"^no client of /x connected within 0 s; there are clients of: /a, /b$"
    with (
        connect(f"{echo_server.url}/a"),
        connect(f"{echo_server.url}/b?c=d"),
        pytest.raises(TimeoutError, match=story),
    ):
        echo_server.at("/x").send("hello", 0)
    for _ in range(2):
        echo_server.next_close()
    with pytest.raises(TimeoutError, match=r"^no client of /x connected within 0 s; nobody is$"):
        echo_server.at("/x").send("hello", 0)


def test_waiting_for_a_client_ends_when_the_server_is_stopped() -> None:
    with EchoServer() as server, ThreadPoolExecutor(1) as pool:
        started = threading.Event()

        def send() -> None:
            started.set()
            server.send("hello", None)

        waiting = pool.submit(send)
        assert started.wait(TIMEOUT)
        server.stop()
        with pytest.raises(RuntimeError, match="is not running"):
            waiting.result(TIMEOUT)


def test_wait_for_on_the_thread_of_the_handlers_says_so_at_once(echo_server: EchoServer) -> None:
    queue = Queue()
    ws = bws.WebSocket(echo_server.url, dispatch=queue)
    seen = record(ws)
    errors: list[BaseException] = []

    def wait_for_more(_event: object) -> None:
        try:
            seen.wait_for("message", 2, timeout=None)
        except BaseException as error:
            errors.append(error)

    ws.bind("message", wait_for_more)
    echo_server.send("one")
    assert queue.run_until(lambda: bool(errors), TIMEOUT)
    assert isinstance(errors[0], RuntimeError)
    assert "what came: open, message('one'). With bws.dispatch.Queue call its run_until(" in str(errors[0])
    assert seen.wait_for("message").data == "one"  # what has come is returned here, too
    ws.close()
    assert queue.run_until(lambda: ws.readyState == ws.CLOSED, TIMEOUT)
