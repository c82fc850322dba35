"""Handlers: in which order they are called, and what happens when they come, go or raise meanwhile."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

import bws
from tests.conftest import TYPES, Mode, Play, Recorder
from tests.wire.frames import TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

OPEN, DONE = ("open", 1), ("close", 3, 1000, "done", True)


def three(c: Connection) -> None:
    """Three messages and the end."""
    c.handshake(then=b"".join(frame(TEXT, text) for text in ("one", "two", "three")) + close_frame(1000, "done"))


def names(played: Any) -> list[str]:
    """The messages, and the names that other handlers noted."""
    return [entry[2] if entry[0] == "message" else entry[0] for entry in played.entries[1:-1]]


def test_handlers_are_called_in_the_order_in_which_they_were_bound(play: Play) -> None:
    def start(r: Recorder) -> None:  # after the recorder's own
        for name in ("a", "b", "c"):
            r.ws.bind("message", lambda evt, name=name: r.note(name))

    assert names(play(three, start=start)) == [
        "one",
        "a",
        "b",
        "c",
        "two",
        "a",
        "b",
        "c",
        "three",
        "a",
        "b",
        "c",
    ]


def test_a_function_that_is_bound_twice_is_called_twice(play: Play) -> None:
    def start(r: Recorder) -> None:
        def a() -> None:
            r.note("a")

        r.ws.bind("message", a)
        r.ws.bind("message", a)

    assert names(play(three, start=start)) == ["one", "a", "a", "two", "a", "a", "three", "a", "a"]


def test_a_listener_that_is_added_twice_is_called_once(play: Play) -> None:
    def start(r: Recorder) -> None:
        def a() -> None:
            r.note("a")

        r.ws.addEventListener("message", a)
        r.ws.addEventListener("message", a)

    assert names(play(three, start=start)) == ["one", "a", "two", "a", "three", "a"]


def test_a_listener_that_is_added_once_is_called_once(play: Play) -> None:
    def start(r: Recorder) -> None:
        r.ws.addEventListener("message", lambda: r.note("a"), once=True)

    assert names(play(three, start=start)) == ["one", "a", "two", "three"]


def test_bind_returns_none_and_its_decorator_the_function(play: Play) -> None:
    def start(r: Recorder) -> None:
        def plain() -> None:
            r.note("plain")

        @r.ws.bind("message")
        def decorated(evt: bws.MessageEvent) -> None:
            r.note("decorated " + evt.data)

        r.note("start", r.ws.bind("message", plain), callable(decorated))

    played = play(three, start=start)
    assert played.entries[0] == ("start", None, True)
    assert played.recorder.types.count("plain") == 3
    assert "decorated two" in played.recorder.types


@pytest.mark.parametrize("how", ["unbind", "unbind several", "unbind all", "remove"])
def test_a_handler_that_was_removed_is_not_called(play: Play, how: str) -> None:
    class Owner:
        def method(self) -> None:
            calls.append("method")

    calls: list[str] = []
    owner = Owner()

    def start(r: Recorder) -> None:
        def a() -> None:
            calls.append("a")

        for fn in (a, owner.method):
            r.ws.bind("message", fn)
        if how == "unbind":
            r.ws.unbind("message", owner.method)
            r.ws.unbind("message", a)
        elif how == "unbind several":
            r.ws.unbind("message", owner.method, a)
        elif how == "unbind all":
            r.ws.unbind("message")
            r.ws.bind("message", lambda evt: r.note(evt.data))
        else:
            r.ws.removeEventListener("message", owner.method)
            r.ws.removeEventListener("message", a)

    played = play(three, start=start)
    assert calls == []
    assert played.entries[-1] == DONE
    assert names(played) == ["one", "two", "three"]
    assert bool(played.recorder.of("message")) is (how != "unbind all")


def test_removing_what_was_never_bound_is_no_error(play: Play) -> None:
    def start(r: Recorder) -> None:
        r.ws.unbind("message", print)
        r.ws.unbind("error", print, len)
        r.ws.removeEventListener("message", print)
        r.ws.removeEventListener("custom", print)

    assert names(play(three, start=start)) == ["one", "two", "three"]


def test_a_handler_may_remove_itself(play: Play) -> None:
    def start(r: Recorder) -> None:
        def a() -> None:
            r.ws.unbind("message", a)
            r.note("a")

        r.ws.bind("message", a)
        r.ws.bind("message", lambda: r.note("b"))

    assert names(play(three, start=start)) == ["one", "a", "b", "two", "b", "three", "b"]


def test_a_handler_that_is_removed_while_the_event_is_delivered_is_not_called(play: Play) -> None:
    def start(r: Recorder) -> None:
        r.ws.bind("message", lambda: r.ws.unbind("message", b))

        def b() -> None:
            r.note("b")

        r.ws.bind("message", b)

    assert names(play(three, start=start)) == ["one", "two", "three"]


def test_a_handler_that_is_added_while_the_event_is_delivered_waits_for_the_next(play: Play) -> None:
    def first(r: Recorder, evt: Any) -> None:
        if evt.data == "one":
            r.ws.bind("message", lambda: r.note("late"))

    assert names(play(three, on={"message": first})) == ["one", "two", "late", "three", "late"]


def test_the_other_handlers_are_called_for_the_event_in_which_one_closes(play: Play) -> None:
    played = play(
        lambda c: c.handshake(then=b"".join(frame(TEXT, text) for text in ("one", "two"))),
        on={"message": lambda r, _: r.ws.close()},
        start=lambda r: r.ws.bind("message", r.look),
    )
    assert played.entries == [OPEN, ("message", 1, "one"), ("look", 2), ("close", 3, 1005, "", True)]


class Boom(Exception):
    pass


Raised = list[tuple[type[BaseException], "threading.Thread | None"]]


@pytest.fixture
def raised(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> Raised:
    """What handlers let out, as the hook of the thread that runs them gets it."""
    found: Raised = []

    def of_threads(args: threading.ExceptHookArgs) -> None:
        assert args.exc_traceback is not None
        found.append((args.exc_type, args.thread))

    if mode.name == "threaded":
        monkeypatch.setattr(threading, "excepthook", of_threads)
    else:
        monkeypatch.setattr(sys, "excepthook", lambda kind, *_: found.append((kind, threading.current_thread())))
    return found


@pytest.mark.parametrize("where", TYPES)
def test_a_handler_that_raises_is_reported_and_changes_nothing(
    play: Play, mode: Mode, where: str, raised: Raised
) -> None:
    def bad() -> None:
        raise Boom("boom")

    def start(r: Recorder) -> None:
        r.ws.bind(where, bad)
        for type in TYPES:
            r.ws.bind(type, lambda *, type=type: r.note("after " + type))

    def script(c: Connection) -> None:
        three(c) if where != "error" else c.handshake(then=frame(3))

    played = play(script, start=start)
    events = ["open", "error", "close"] if where == "error" else ["open", *["message"] * 3, "close"]
    assert played.recorder.types == [name for type in events for name in (type, "after " + type)]
    assert [kind for kind, _ in raised] == [Boom] * (3 if where == "message" else 1)
    assert all(thread is not None and mode.is_handler_thread(thread) for _, thread in raised)


@pytest.mark.parametrize("method", ["bind", "addEventListener", "on"])
def test_handlers_run_one_at_a_time_on_one_thread(mode: Mode, method: str) -> None:
    busy, overlaps, threads = threading.Lock(), [], set()

    def handler() -> None:
        if not busy.acquire(blocking=False):
            overlaps.append(1)
        threads.add(threading.current_thread())
        busy.release()

    gate = threading.Event()
    with ScriptedServer(three, gate=gate) as server:
        ws = mode.open(server.url)
        for type in TYPES:
            if method == "on":
                setattr(ws, "on" + type, handler)
            else:
                getattr(ws, method)(type, handler)
        gate.set()
        assert ws.wait_closed(10)
        server.result()
    assert overlaps == []
    assert all(mode.is_handler_thread(thread) for thread in threads)
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("mode", ["threaded"], indirect=True)
def test_system_exit_in_a_handler_on_the_sockets_thread_ends_that_socket_only(mode: Mode) -> None:
    with ScriptedServer(Connection.echo) as server:
        other = Recorder(mode.open(server.url))
        other.wait_for("open")
        one = Recorder(mode.open(server.url), {"open": lambda *_: sys.exit(3)})
        assert one.ws.wait_closed(10)
        server.wait_connected(2)
        assert server.connections[1].done.wait(10)
        assert server.connections[1].seen.close == (1001, "")
        other.ws.send("still here")
        assert other.wait_for("message") == [("message", 1, "still here")]
