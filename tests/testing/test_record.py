"""record(ws): what a test sees of a socket's events."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import bws
from bws.testing import EchoServer, record

TIMEOUT = 10.0  # s, only a test that fails waits so long


def test_events_are_kept_in_order_with_their_types_and_data(echo_server: EchoServer) -> None:
    ws = bws.WebSocket(echo_server.url)
    seen = record(ws)
    seen.wait_for("open")
    ws.send("one")
    ws.send(b"two")
    seen.wait_for("message", 2)
    ws.close(4000, "done")
    seen.wait_for("close")
    assert seen.types == ["open", "message", "message", "close"]
    assert [type for type, _ in seen.events] == [event.type for _, event in seen.events]
    assert seen.messages == ["one", b"two"]


def test_wait_for_returns_the_event_that_was_counted(echo_server: EchoServer) -> None:
    with bws.WebSocket(echo_server.url) as ws:
        seen = record(ws)
        for text in ("a", "b", "c"):
            ws.send(text)
        assert seen.wait_for("message", 3).data == "c"
        assert seen.wait_for("message").data == "a"
        assert seen.wait_for("open").type == "open"


def test_events_that_were_held_since_the_constructor_are_recorded(echo_server: EchoServer) -> None:
    with bws.WebSocket(echo_server.url) as ws:
        ws.send("early")
        echo_server.next_message()
        assert record(ws).wait_for("message").data == "early"


def test_close_event_is_none_until_the_socket_is_closed(echo_server: EchoServer) -> None:
    ws = bws.WebSocket(echo_server.url)
    seen = record(ws)
    seen.wait_for("open")
    assert seen.close_event is None
    echo_server.close(4001, "bye")
    seen.wait_for("close")
    assert seen.close_event is not None
    assert (seen.close_event.code, seen.close_event.reason, seen.close_event.wasClean) == (4001, "bye", True)


def test_a_failed_connection_is_an_error_and_a_close(echo_server: EchoServer) -> None:
    echo_server.refuse(503)
    seen = record(bws.WebSocket(echo_server.url))
    seen.wait_for("close")
    assert seen.types == ["error", "close"]
    assert "503" in seen.wait_for("error").message


def test_wait_for_tells_what_came_instead(echo_server: EchoServer) -> None:
    with bws.WebSocket(echo_server.url) as ws:
        seen = record(ws)
        ws.send("x" * 1000)
        seen.wait_for("message")
        with pytest.raises(AssertionError) as caught:
            seen.wait_for("message", 2, timeout=0.05)
    story = str(caught.value)
    assert story.startswith("1 of 2 'message' events within 0.05 s; what came: open, message('xxxx")
    assert len(story) < 200


def test_wait_for_tells_why_the_connection_failed_or_was_lost(
    echo_server: EchoServer, echo_server_tls: EchoServer
) -> None:
    with pytest.raises(AssertionError, match=r"came: error\(TLS .*: unable to get local .*\), close\(1006, ''\)$"):
        record(bws.WebSocket(echo_server_tls.url)).wait_for("open")
    seen = record(bws.WebSocket(echo_server.url))
    echo_server.drop()
    with pytest.raises(AssertionError, match=r"came: open, close\(1006, '', .*lost: .+\)$"):
        seen.wait_for("message")


def test_wait_for_tells_that_nothing_came() -> None:
    with EchoServer() as server:
        server.stall()
        ws = bws.WebSocket(server.url)
        seen = record(ws)
        with pytest.raises(AssertionError, match=r"^no 'open' event within 0\.05 s; what came: nothing$"):
            seen.wait_for("open", timeout=0.05)
        ws.close()
        assert ws.wait_closed(TIMEOUT)


def test_wait_for_does_not_wait_on_after_the_close(echo_server: EchoServer) -> None:
    ws = bws.WebSocket(echo_server.url)
    seen = record(ws)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(seen.wait_for, "message", timeout=1000.0)
        echo_server.close(4001, "no message for you")
        with pytest.raises(
            AssertionError, match=r"no 'message' event before the socket closed; .* close\(4001, 'no me"
        ):
            waiting.result(TIMEOUT)


def test_wait_for_wakes_up_when_the_event_comes(echo_server: EchoServer) -> None:
    with bws.WebSocket(echo_server.url) as ws, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(record(ws).wait_for, "message", timeout=1000.0)
        start = time.monotonic()
        echo_server.send("news")
        assert waiting.result(TIMEOUT).data == "news"
        assert time.monotonic() - start < TIMEOUT


def test_only_the_last_events_are_told(echo_server: EchoServer) -> None:
    with bws.WebSocket(echo_server.url) as ws:
        seen = record(ws)
        for number in range(100):
            ws.send(str(number))
        seen.wait_for("message", 100)
        assert repr(seen).startswith("<Record 81 more, message('80'), ")
        assert repr(seen).endswith(", message('99')>")


def test_an_unknown_type_is_refused(echo_server: EchoServer) -> None:
    with (
        bws.WebSocket(echo_server.url) as ws,
        pytest.raises(ValueError, match="type must be one of open, message, error, close, not 'opened'"),
    ):
        record(ws).wait_for("opened")


def test_two_records_of_one_socket_do_not_disturb_each_other(echo_server: EchoServer) -> None:
    with bws.WebSocket(echo_server.url) as ws:
        first, second = record(ws), record(ws)
        ws.send("hello")
        assert [seen.wait_for("message").data for seen in (first, second)] == ["hello", "hello"]
