"""The option `dispatch`: handlers run where the program wants them."""

from __future__ import annotations

import asyncio
import gc
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import bws
from bws.testing import EchoServer
from tests.conftest import TIMEOUT, Mode, Recorder
from tests.wire.frames import PING, PONG, TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

Call = Callable[[], None]


def test_what_has_arrived_is_handed_over_in_few_calls() -> None:
    """10,000 messages that are there already take at most 2,500 calls of dispatch; handlers cannot tell."""
    count = 10_000
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    arrived = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=b"".join(frame(TEXT, str(n)) for n in range(count)) + frame(PING, "read"))
        c.read_until(PONG)
        arrived.set()
        c.close(1000)

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, dispatch=calls.put)
        recorder = Recorder(ws)
        assert arrived.wait(TIMEOUT)
        assert ws.readyState == 0  # nothing changes until the program runs what it was given
        handed_over = 0
        while not recorder.of("close"):
            calls.get(timeout=TIMEOUT)()
            handed_over += 1
        assert ws.wait_closed(TIMEOUT)
    assert recorder.entries[0] == ("open", 1)
    assert recorder.data == [str(n) for n in range(count)]
    assert handed_over <= 2500


def test_asyncio_runs_handlers_and_hears_of_exceptions() -> None:
    seen: list[Any] = []

    def bad() -> None:
        raise ValueError("from a handler")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: seen.append(str(context["exception"])))
        closed = asyncio.Event()
        ws = bws.WebSocket(server.url, dispatch=loop.call_soon_threadsafe)
        ws.bind("open", lambda: seen.append(threading.current_thread() is threading.main_thread()))
        ws.bind("message", bad)
        ws.bind("message", lambda evt: seen.append(evt.data))
        ws.bind("close", closed.set)
        await asyncio.wait_for(closed.wait(), TIMEOUT)

    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "hello") + close_frame())) as server:
        asyncio.run(main())
    assert seen == [True, "from a handler", "hello"]


@pytest.mark.parametrize("who", ["the server", "the program"])
def test_a_loop_that_is_closed_with_a_call_in_it_ends_the_connection(who: str) -> None:
    loop = asyncio.new_event_loop()
    opened = loop.create_future()
    with EchoServer(echo=False) as server:
        ws = bws.WebSocket(server.url, dispatch=loop.call_soon_threadsafe)
        ws.bind("open", lambda: opened.set_result(None))
        loop.run_until_complete(opened)
        server.send("while the loop rests")
        delivery: Any = ws._delivery
        end = time.monotonic() + TIMEOUT
        while not delivery._scheduled:
            assert time.monotonic() < end
            time.sleep(0.001)
        loop.close()
        if who == "the server":
            server.close(4000)
        else:
            ws.close()
        assert ws.wait_closed(TIMEOUT)
        assert ws.readyState == 3


def test_a_close_before_open_was_run_ends_the_connection() -> None:
    """The handshake is done, only the program has not heard of it: that is CONNECTING."""
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    arrived = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "hello") + frame(PING, "read"))
        c.read_until(PONG)
        arrived.set()

    with ScriptedServer(script) as server:
        recorder = Recorder(bws.WebSocket(server.url, dispatch=calls.put))
        assert arrived.wait(TIMEOUT)
        recorder.ws.close(3000, "mine")
        recorder.look()
        assert server.result().close in [(1001, ""), None]
        while not recorder.of("close"):
            calls.get(timeout=TIMEOUT)()
    assert recorder.entries == [("look", 2), ("error", 3), ("close", 3, 1006, "", False)]


def test_a_close_before_open_was_run_is_the_last_word_even_if_all_is_over() -> None:
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "hello") + close_frame(1000, "done"))) as server:
        recorder = Recorder(bws.WebSocket(server.url, dispatch=calls.put))
        server.result()
        recorder.ws.close()
        while not recorder.of("close"):
            calls.get(timeout=TIMEOUT)()
    assert recorder.entries == [("error", 3), ("close", 3, 1006, "", False)]


@pytest.mark.parametrize("when", ["at once", "later"])
def test_when_the_loop_is_gone_the_connection_ends_quietly(when: str) -> None:
    loop_is_gone = threading.Event()
    opened = threading.Event()

    def dispatch(call: Call) -> None:
        if loop_is_gone.is_set():
            raise RuntimeError("Event loop is closed")
        call()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(loop_is_gone)
        c.send_text("nobody is there")

    if when == "at once":
        loop_is_gone.set()
    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, dispatch=dispatch)
        ws.bind("open", opened.set)
        if when == "later":
            assert opened.wait(TIMEOUT)
            loop_is_gone.set()
        server.result()
        assert ws.wait_closed(TIMEOUT)
        assert ws.readyState == 3


def test_a_full_queue_delays_events_and_loses_none() -> None:
    calls: queue.Queue[Call] = queue.Queue(maxsize=1)
    texts = [str(n) for n in range(200)]

    def script(c: Connection) -> None:
        c.handshake()
        for text in texts:
            c.send_text(text)
        c.close(1000, "done")

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, dispatch=calls.put_nowait)
        recorder = Recorder(ws)
        server.result()
        while not recorder.of("close"):
            calls.get(timeout=TIMEOUT)()
        assert recorder.data == texts
        assert ws.wait_closed(TIMEOUT)


def test_a_dispatch_that_runs_at_once_lets_the_thread_wait_that_bound_a_handler_late() -> None:
    """What was held is delivered where it is bound, which is not where handlers run from then on."""
    arrived = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(PING, "read"))
        c.read_until(PONG)
        arrived.set()

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, dispatch=lambda call: call())
        assert arrived.wait(TIMEOUT)
        while ws.readyState != ws.OPEN:
            threading.Event().wait(0.001)
        threads: list[int] = []
        ws.bind("open", lambda: threads.append(threading.get_ident()))
        assert threads == [threading.get_ident()]
        assert ws.wait_open(TIMEOUT)
        ws.close()
        assert ws.wait_closed(TIMEOUT)


def test_system_exit_goes_to_the_programs_loop_and_later_events_still_come() -> None:
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "hello") + close_frame())) as server:
        recorder = Recorder(bws.WebSocket(server.url, dispatch=calls.put), {"message": lambda *_: sys.exit(3)})
        left: list[int] = []
        while not recorder.of("close"):
            try:
                calls.get(timeout=TIMEOUT)()
            except SystemExit as exc:
                left.append(exc.code)  # type: ignore[arg-type]
    assert left == [3]
    assert recorder.types == ["open", "message", "close"]


def test_a_socket_nobody_refers_to_goes_on_while_it_has_handlers(mode: Mode) -> None:
    got: list[Any] = []
    closed = threading.Event()
    collected = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(collected)
        c.send_text("still there")
        c.close(1000)

    def connect() -> None:
        ws = bws.WebSocket(server.url, dispatch=mode.pump.put if mode.pump else None)
        ws.bind("message", lambda evt: got.append(evt.data))
        ws.bind("close", closed.set)

    with ScriptedServer(script) as server:
        connect()
        gc.collect()
        collected.set()
        assert closed.wait(TIMEOUT)
    assert got == ["still there"]


def test_a_handler_that_is_slow_makes_the_server_wait(mode: Mode) -> None:
    """Memory stays bounded: past some 16 MiB nothing more is read until the handlers have caught up."""
    size, count = 1 << 20, 100
    sent: list[int] = []
    taken: list[int] = []
    go_on = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        data = frame(2, b"x" * size)
        for n in range(count):
            c.send(data)
            sent.append(n)
        c.close(1000, "done")

    def on_message(evt: Any) -> None:
        go_on.wait(TIMEOUT)
        taken.append(len(evt.data))

    def settled() -> int:
        """The number of messages sent, once it grows no more."""
        before = -1
        while before != len(sent):
            before = len(sent)
            threading.Event().wait(0.3)
        return before

    with ScriptedServer(script) as server:
        ws = mode.open(server.url)
        ws.bind("message", on_message)
        assert settled() < 50
        go_on.set()
        assert ws.wait_closed(TIMEOUT)
        assert server.result().close == (1000, "done")
    assert taken == [size] * count
