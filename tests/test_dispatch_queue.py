"""bws.dispatch.Queue: handlers run when the program says so."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable

import pytest

import bws
from tests.wire.frames import TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

TIMEOUT = 20.0
TEN = b"".join(frame(TEXT, f"m{i}") for i in range(10))


def greet(c: Connection) -> None:
    c.handshake(then=TEN)
    c.behave()


def test_nothing_runs_until_it_is_asked_for_and_then_on_the_asking_thread() -> None:
    events = bws.dispatch.Queue()
    seen: list[tuple[str, int]] = []
    with ScriptedServer(lambda c: c.handshake(then=TEN + close_frame(1000, "done"))) as server:
        ws = bws.WebSocket(server.url, dispatch=events)
        for type in ("open", "message", "close"):
            ws.bind(type, lambda evt: seen.append((evt.type, threading.get_ident())))
        assert ws.readyState == bws.WebSocket.CONNECTING
        assert events.run_until(lambda: ws.readyState == bws.WebSocket.CLOSED, TIMEOUT)
    assert [type for type, _ in seen] == ["open", *["message"] * 10, "close"]
    assert {thread for _, thread in seen} == {threading.get_ident()}


def test_run_until_stops_at_the_event_that_makes_it_true() -> None:
    events = bws.dispatch.Queue()
    got: list[str] = []
    with ScriptedServer(greet) as server:
        ws = bws.WebSocket(server.url, dispatch=events)
        ws.bind("message", lambda evt: got.append(evt.data))
        assert events.run_until(lambda: len(got) == 3, TIMEOUT)
        assert got == ["m0", "m1", "m2"]
        assert events.run_pending(2) == 2
        assert got[3:] == ["m3", "m4"]
        assert events.run_pending(0) == 0
        assert events.run_pending() == 5
        assert got[-1] == "m9"
        ws.close()
        assert events.run_until(lambda: ws.readyState == bws.WebSocket.CLOSED, TIMEOUT)


def test_run_until_looks_after_events_that_were_held_for_a_handler_bound_late() -> None:
    events = bws.dispatch.Queue()
    got: list[str] = []
    with ScriptedServer(lambda c: c.handshake(then=TEN + close_frame(1000, "done"))) as server:
        ws = bws.WebSocket(server.url, dispatch=events)
        assert events.run_until(lambda: ws.readyState == bws.WebSocket.CLOSED, TIMEOUT)
        ws.bind("message", lambda evt: got.append(evt.data))
        start = time.monotonic()
        assert events.run_until(lambda: len(got) == 10, TIMEOUT)
        assert time.monotonic() - start < TIMEOUT / 2  # nothing more comes that would wake it


def test_run_until_gives_up_in_time_although_more_comes() -> None:
    events = bws.dispatch.Queue()
    calls: list[int] = []

    def again() -> None:
        calls.append(len(calls))
        events(again)

    events(again)
    assert not events.run_until(lambda: False, 0.05)
    assert not events.run_until(lambda: len(calls) < 0, 0)
    before = len(calls)
    assert not events.run_until(lambda: False, 0)
    assert len(calls) == before + 1  # one in any case


def test_run_until_gives_up_when_the_time_is_over() -> None:
    events = bws.dispatch.Queue()
    assert not events.run_until(lambda: False, 0.01)
    assert events.run_until(lambda: True, 0)
    assert events.run_pending() == 0


def test_a_function_of_the_programs_own_may_be_put_too() -> None:
    events = bws.dispatch.Queue()
    ran: list[int] = []
    for i in range(3):
        events(functools.partial(ran.append, i))
    assert len(events) == 3
    assert events
    assert repr(events) == "<bws.dispatch.Queue 3 waiting>"
    assert events.run_pending(2) == 2
    assert events.run_pending() == 1
    assert ran == [0, 1, 2]
    events(ran.clear)  # a bound method counts as well
    assert events.run_pending() == 1


def test_waiting_on_the_thread_that_runs_the_queue_is_refused() -> None:
    events = bws.dispatch.Queue()
    with ScriptedServer(Connection.echo) as server:
        ws = bws.WebSocket(server.url, dispatch=events)
        with pytest.raises(RuntimeError, match="wait_open"):
            ws.wait_open(TIMEOUT)
        ws.close()
        assert events.run_until(lambda: ws.readyState == bws.WebSocket.CLOSED, TIMEOUT)


WRONG: list[tuple[Callable[[bws.dispatch.Queue], object], type[Exception], str]] = [
    (lambda events: events.run_pending(1.5), TypeError, "max_events"),  # type: ignore[arg-type]
    (lambda events: events.run_pending("1"), TypeError, "max_events"),  # type: ignore[arg-type]
    (lambda events: events.run_pending(True), TypeError, "max_events"),
    (lambda events: events.run_until(bool, math.nan), ValueError, "timeout=nan must be 0 or a positive"),
    (lambda events: events.run_until(bool, math.inf), ValueError, "timeout=inf"),
    (lambda events: events.run_until(bool, -1), ValueError, "timeout=-1"),
    (lambda events: events.run_until(bool, 10**400), ValueError, "timeout="),
    (lambda events: events.run_until(bool, "1"), TypeError, "timeout"),  # type: ignore[arg-type]
    (lambda events: events.run_until(bool, True), TypeError, "timeout"),
    (
        lambda events: events.run_until(1 == 3, 5),  # type: ignore[arg-type,comparison-overlap]
        TypeError,
        "predicate must be a callable, such as lambda: ws.readyState == 3, not its value False",
    ),
    (lambda events: events("no callable"), TypeError, "call must be a callable"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_wrong_argument_is_named(number: int) -> None:
    call, error, message = WRONG[number]
    with pytest.raises(error) as caught:
        call(bws.dispatch.Queue())
    assert message in str(caught.value)


def test_a_negative_number_of_events_is_refused() -> None:
    with pytest.raises(ValueError, match="max_events=-1"):
        bws.dispatch.Queue().run_pending(-1)
