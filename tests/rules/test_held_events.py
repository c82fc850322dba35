"""What happens before the first handler of its type is bound waits for that handler."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import bws
from bws import _delivery, _lifetime
from bws._engine import threaded
from tests.conftest import TIMEOUT, TYPES, Entry, Mode, Recorder
from tests.wire.frames import BINARY, CLOSE, PING, PONG, TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

HELD_MESSAGES = 1000
HELD_BYTES = 16 << 20
ONE = frame(TEXT, "one")


class Late:
    """A server that sends this and then a ping, and knows when the client has read it all."""

    def __init__(self, data: bytes, then: Callable[[Connection], None] = Connection.behave) -> None:
        self.arrived = threading.Event()
        self._data, self._then = data, then

    def __call__(self, c: Connection) -> None:
        c.handshake(then=self._data)
        c.send(frame(PING, "read"))
        c.read_until(PONG)
        self.arrived.set()
        self._then(c)


class Inbox:
    """A handler that keeps what it gets, as the function sees it, and on which thread."""

    def __init__(self, view: Callable[[Any], Any] = lambda evt: evt.data) -> None:
        self.got: list[Any] = []
        self.threads: set[threading.Thread] = set()
        self._view, self._changed = view, threading.Condition()

    def __call__(self, evt: Any) -> None:
        with self._changed:
            self.got.append(self._view(evt))
            self.threads.add(threading.current_thread())
            self._changed.notify_all()

    def wait(self, count: int = 1) -> list[Any]:
        """Wait until so many have come; all of them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.got) >= count, TIMEOUT), self.got
            return self.got


def over(mode: Mode, server: ScriptedServer) -> bws.WebSocket:
    """A socket without handlers, once its connection is over."""
    ws = mode.open(server.url)
    server.result()
    assert ws.wait_closed(TIMEOUT)
    return ws


def bind(ws: bws.WebSocket, how: str, type: str, fn: Callable[[Any], object]) -> None:
    """In one of the three ways."""
    if how == "on":
        setattr(ws, "on" + type, fn)
    else:
        getattr(ws, how)(type, fn)


def test_what_the_first_handler_answers_goes_out_before_a_violation_fails_the_connection(
    mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threaded, "ANSWERS", TIMEOUT)
    sent = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=ONE + frame(3))
        sent.set()
        c.read_until(CLOSE)

    with ScriptedServer(script) as server:
        ws = mode.open(server.url)
        assert sent.wait(TIMEOUT)
        time.sleep(0.1)  # it is the same without, but the connection shall have had the time to fail
        ws.bind("message", lambda evt: ws.send(evt.data + " answered"))
        seen = server.result()
    assert seen.messages == ["one answered"]
    assert seen.close is not None
    assert seen.close[0] == 1002


@pytest.mark.parametrize("how", ["bind", "addEventListener", "on"])
@pytest.mark.parametrize("type", TYPES)
def test_an_event_of_each_type_waits_for_its_first_handler(mode: Mode, type: str, how: str) -> None:
    inbox = Inbox(lambda evt: evt)
    with ScriptedServer(lambda c: c.handshake(then=ONE + frame(3))) as server:
        ws = over(mode, server)
        bind(ws, how, type, inbox)
        (evt,) = inbox.wait()
    assert (evt.type, evt.target) == (type, ws)
    assert all(mode.is_handler_thread(thread) for thread in inbox.threads)
    assert ws.readyState == 3
    if type == "message":
        assert evt.data == "one"
    if type == "close":
        assert (evt.code, evt.reason, evt.wasClean) == (1006, "", False)


@pytest.mark.parametrize("ended", [False, True])
def test_a_handler_that_is_bound_when_the_drain_is_about_to_end_gets_what_is_held(
    monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    mode = Mode("dispatch")
    inbox = Inbox()
    end = _delivery.Dispatched._next

    def bind_before(self: _delivery.Dispatched, target: Any) -> bool:
        # What has been taken is held, and the drain is still scheduled.
        if ws.readyState == (3 if ended else 1) and ws._holds_messages() and not inbox.got:
            ws.bind("message", inbox)
        return end(self, target)

    def script(c: Connection) -> None:
        c.handshake(then=ONE + (frame(3) if ended else b""))
        if not ended:
            c.behave()

    gate = threading.Event()
    with ScriptedServer(script, gate=gate) as server:
        ws = mode.open(server.url)
        monkeypatch.setattr(_delivery.Dispatched, "_next", bind_before)
        gate.set()
        assert inbox.wait() == ["one"]
        mode.end()


def test_what_is_held_comes_one_at_a_time_when_it_is_bound_as_the_socket_settles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settled, bound = threading.Event(), threading.Event()
    discard = _lifetime.discard
    texts = [str(n) for n in range(20)]
    inside: list[int] = []
    together: list[int] = []
    got: list[str] = []

    def slowly(resident: _lifetime.Resident) -> None:
        discard(resident)
        settled.set()
        bound.wait(TIMEOUT)

    def handler(evt: bws.MessageEvent) -> None:
        inside.append(1)
        together.append(len(inside))
        time.sleep(0.001)  # so that another thread could come in
        inside.pop()
        got.append(evt.data)

    monkeypatch.setattr(_lifetime, "discard", slowly)
    data = b"".join(frame(TEXT, text) for text in texts) + close_frame(1000)
    with ScriptedServer(lambda c: c.handshake(then=data)) as server:
        ws = bws.WebSocket(server.url)
        assert settled.wait(TIMEOUT)
        ws.bind("message", handler)
        bound.set()
        assert ws.wait_closed(TIMEOUT)
    assert got == texts
    assert set(together) == {1}


def test_what_is_held_comes_although_the_program_has_let_go_of_the_socket() -> None:
    events = bws.dispatch.Queue()
    got: list[str] = []

    def make(url: str) -> None:
        ws = bws.WebSocket(url, dispatch=events)
        assert events.run_until(lambda: ws.readyState == 3, TIMEOUT)
        ws.bind("message", lambda evt: got.append(evt.data))

    with ScriptedServer(lambda c: c.handshake(then=ONE + close_frame(1000))) as server:
        make(server.url)
        assert events.run_until(lambda: got, TIMEOUT)
    assert got == ["one"]


def test_each_of_several_handlers_of_what_was_held_may_leave_its_loop() -> None:
    events = bws.dispatch.Queue()
    got: list[str] = []

    def leave(evt: bws.MessageEvent) -> None:
        got.append(evt.data)
        raise SystemExit

    data = b"".join(frame(TEXT, text) for text in "123") + close_frame(1000)
    with ScriptedServer(lambda c: c.handshake(then=data)) as server:
        ws = bws.WebSocket(server.url, dispatch=events)
        ws.bind("close", lambda: ws.bind("message", leave))
        while not ws._close_done:
            with contextlib.suppress(SystemExit):
                events.run_until(lambda: False, 0.01)
    assert got == ["1", "2", "3"]


@pytest.mark.parametrize("how", ["bind", "addEventListener", "on"])
def test_bound_in_the_order_of_the_wire_they_come_in_the_order_of_the_wire(mode: Mode, how: str) -> None:
    texts = [str(n) for n in range(50)]
    data = b"".join(frame(TEXT, text) for text in texts) + close_frame(1000, "done")
    inbox = Inbox(lambda evt: getattr(evt, "data", evt.type))
    with ScriptedServer(lambda c: c.handshake(then=data)) as server:
        ws = over(mode, server)
        for type in ("open", "message", "close"):
            bind(ws, how, type, inbox)
        assert inbox.wait(52) == ["open", *texts, "close"]


def test_held_messages_come_ahead_of_newer_ones(mode: Mode) -> None:
    bound = threading.Event()

    def then(c: Connection) -> None:
        for n in range(5, 200):
            c.send_text(str(n))
            if n == 100:
                bound.set()
        c.close(1000)

    script = Late(b"".join(frame(TEXT, str(n)) for n in range(5)), then)
    with ScriptedServer(script) as server:
        ws = mode.open(server.url)
        assert bound.wait(TIMEOUT)  # messages arrive while the handler is bound
        inbox = Inbox()
        ws.bind("message", inbox)
        assert inbox.wait(200) == [str(n) for n in range(200)]


def test_only_the_first_handler_gets_what_was_held(mode: Mode) -> None:
    bound = threading.Event()

    def then(c: Connection) -> None:
        c.wait_for(bound)
        c.send_text("two")

    script, first, second = Late(ONE, then), Inbox(), Inbox()
    with ScriptedServer(script) as server:
        ws = mode.open(server.url)
        assert script.arrived.wait(TIMEOUT)
        ws.bind("message", first)
        first.wait()
        ws.bind("message", second)
        bound.set()
        assert second.wait() == ["two"]
    assert first.got == ["one", "two"]


@pytest.mark.parametrize("arrived", [True, False])
def test_the_users_own_close_drops_held_messages(mode: Mode, arrived: bool) -> None:
    """Also those that come between the close frames."""

    def in_between(c: Connection) -> None:
        c.read_until(8)
        c.send_text("late")
        c.close(1000, "done")

    script = Late(ONE if arrived else b"", in_between)
    with ScriptedServer(script) as server:
        ws = mode.open(server.url)
        assert script.arrived.wait(TIMEOUT)
        assert ws.wait_open(TIMEOUT)
        ws.close()
        server.result()
        assert ws.wait_closed(TIMEOUT)
        assert Recorder(ws).closed() == [("open", 3), ("close", 3, 1000, "done", True)]


def test_a_handler_may_be_bound_in_a_handler(mode: Mode) -> None:
    closes = Inbox(lambda evt: evt.code)

    def on_message(evt: Any) -> None:
        if evt.data == "two":
            evt.target.bind("close", closes)

    with ScriptedServer(lambda c: c.handshake(then=ONE + frame(TEXT, "two") + close_frame())) as server:
        over(mode, server).bind("message", on_message)
        assert closes.wait() == [1005]


def test_with_once_the_rest_waits_for_the_next_handler(mode: Mode) -> None:
    first, rest = Inbox(), Inbox()
    with ScriptedServer(lambda c: c.handshake(then=ONE + frame(TEXT, "two") + close_frame())) as server:
        ws = over(mode, server)
        ws.addEventListener("message", first, once=True)
        first.wait()
        ws.bind("message", rest)
        assert rest.wait() == ["two"]
    assert first.got == ["one"]


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("bws") and r.levelno >= logging.WARNING]


def held(mode: Mode, data: bytes) -> list[Any]:
    """The messages that are still there when a handler is bound after the connection."""
    with ScriptedServer(lambda c: c.handshake(then=data + close_frame())) as server:
        recorder = Recorder(over(mode, server))
        entries: list[Entry] = recorder.closed()
    assert entries[0] == ("open", 3)
    return recorder.data


def test_a_thousand_messages_are_held_and_the_oldest_go_with_one_warning(
    mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    count = HELD_MESSAGES + 200
    data = held(mode, b"".join(frame(TEXT, str(n)) for n in range(count)))
    assert data == [str(n) for n in range(200, count)]
    assert len(_warnings(caplog)) == 1


def test_sixteen_mebibytes_are_held_and_the_oldest_go_with_one_warning(
    mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    size = 1 << 20
    data = held(mode, b"".join(frame(BINARY, bytes([n]) * size) for n in range(20)))
    kept = HELD_BYTES // size
    assert [bytes(one[:1]) for one in data] == [bytes([n]) for n in range(20 - kept, 20)]
    assert len(_warnings(caplog)) == 1


def test_the_bound_is_for_bytes_also_where_a_character_has_several(
    mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [letter * (5 << 20) for letter in "aaäa"]  # the third has twice as many bytes
    assert held(mode, b"".join(frame(TEXT, text) for text in texts)) == texts[2:]
    assert len(_warnings(caplog)) == 1


def test_within_the_bound_there_is_no_warning(mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    assert len(held(mode, ONE * HELD_MESSAGES)) == HELD_MESSAGES
    assert _warnings(caplog) == []


def test_without_any_handler_a_connection_ends_all_the_same(mode: Mode) -> None:
    with ScriptedServer(lambda c: c.handshake(then=ONE + close_frame(1000, "done"))) as server:
        ws = over(mode, server)
    assert ws.readyState == 3


class Window:
    """A loop that tells when it is gone, as those of `bws.dispatch` do."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._attached: list[Any] = []

    def __call__(self, call: Callable[[], object]) -> None:
        self._calls.put(call)

    def tell_when_gone(self, attached: Any) -> None:
        self._attached.append(attached)

    def destroy(self) -> None:
        """Nothing is run there any more."""
        for each in self._attached:
            each.loop_gone()

    def run_until(self, predicate: Callable[[], bool]) -> None:
        """Run what comes."""
        while not predicate():
            self._calls.get(timeout=TIMEOUT)()


def test_what_is_held_is_not_delivered_when_the_handler_before_it_has_destroyed_the_window() -> None:
    window = Window()
    got: list[str] = []
    with ScriptedServer(lambda c: c.handshake(then=ONE + close_frame(1000))) as server:
        ws = bws.WebSocket(server.url, dispatch=window)
        window.run_until(lambda: ws.readyState == 3)

        def opened() -> None:
            got.append("open")
            window.destroy()

        ws.bind("open", opened)
        ws.bind("message", lambda: got.append("message"))
        ws.bind("close", lambda: got.append("close"))
        window.run_until(lambda: bool(got))
        assert ws.wait_closed(TIMEOUT)
    assert got == ["open"]
