"""The attributes onopen, onmessage, onerror and onclose, beside other handlers."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import bws
from tests.conftest import TYPES, Mode, Play, Recorder
from tests.wire.frames import TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

# what is done one after the other: "h1" adds a listener, "=a" sets onmessage, "=" sets it to None
ORDERS = [
    ("h1 =a h2", "h1 a h2"),
    ("=a h1 =b", "b h1"),  # a new function takes the old one's place
    ("=a h1 = =b", "h1 b"),  # after None the next one comes last
    ("=a = h1", "h1"),
    ("=a =", ""),
    ("=a =a h1", "a h1"),
    ("= h1 =a", "h1 a"),
    ("h1 = = h2", "h1 h2"),
]


def greet(c: Connection) -> None:
    """A message and the end."""
    c.handshake(then=frame(TEXT, "hello") + close_frame(1000, "done"))


@pytest.mark.parametrize(("done", "called"), ORDERS)
@pytest.mark.parametrize("method", ["bind", "addEventListener"])
def test_the_attributes_function_has_its_place_among_the_handlers(
    play: Play, done: str, called: str, method: str
) -> None:
    def start(r: Recorder) -> None:
        def handler(name: str) -> Any:
            return lambda evt: r.note(name, evt.data)

        for step in done.split(" "):
            if step.startswith("="):
                r.ws.onmessage = handler(step[1:]) if step[1:] else None
            else:
                getattr(r.ws, method)("message", handler(step))

    played = play(greet, start=start)
    assert played.entries[1] == ("message", 1, "hello")
    assert played.entries[2:-1] == [(name, "hello") for name in called.split()]


def test_removing_a_listener_leaves_the_attribute_with_the_same_function_alone(play: Play) -> None:
    def start(r: Recorder) -> None:
        def handler(evt: Any) -> None:
            r.note("called", evt.data)

        r.ws.onmessage = handler
        r.ws.addEventListener("message", handler)
        for _ in range(2):
            r.ws.removeEventListener("message", handler)
        r.note("kept", r.ws.onmessage is handler)

    played = play(greet, start=start)
    assert [entry for entry in played.entries if entry[0] in ("kept", "called")] == [
        ("kept", True),
        ("called", "hello"),
    ]


@pytest.mark.parametrize("type", TYPES)
def test_an_attribute_is_none_until_it_is_set_and_then_what_was_set(mode: Mode, type: str) -> None:
    def handler(evt: bws.DOMEvent) -> None:
        pass

    with ScriptedServer(greet) as server:
        ws = mode.open(server.url)
        assert getattr(ws, "on" + type) is None
        setattr(ws, "on" + type, handler)
        assert getattr(ws, "on" + type) is handler
        setattr(ws, "on" + type, None)
        assert getattr(ws, "on" + type) is None
        assert ws.wait_closed(10)


def test_all_four_attributes_are_called(mode: Mode) -> None:
    seen: list[Any] = []
    gate = threading.Event()
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "hello") + frame(3)), gate=gate) as server:
        ws = mode.open(server.url)
        ws.onopen = lambda: seen.append("open")
        ws.onmessage = lambda evt: seen.append(evt.data)
        ws.onerror = lambda evt: seen.append(evt.type)
        ws.onclose = lambda evt: seen.append(evt.code)
        gate.set()
        assert ws.wait_closed(10)
        server.result()
    assert seen == ["open", "hello", "error", 1006]


def test_a_new_socket_has_no_handler(mode: Mode) -> None:
    with ScriptedServer(greet) as server:
        ws, other = mode.open(server.url), mode.open(server.url)
        ws.onmessage = print
        assert other.onmessage is None
        ws.onmessage = None
        assert ws.wait_closed(10)
        assert other.wait_closed(10)
