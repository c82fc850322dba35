"""The events' attributes, and events that a program dispatches itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

import bws
from bws import _target
from bws.events import DISPATCHING
from tests.conftest import Mode, Play, Recorder
from tests.wire.frames import BINARY, CLOSE, TEXT, frame
from tests.wire.server import Connection, ScriptedServer


def test_the_events_have_the_browsers_attributes(play: Play) -> None:
    played = play(lambda c: c.handshake(then=frame(TEXT, "hello") + frame(BINARY, b"\0\1") + frame(3)))
    ws, events = played.recorder.ws, played.recorder.events
    opened, text, binary, error, closed = events
    assert [evt.type for evt in events] == ["open", "message", "message", "error", "close"]
    assert all(isinstance(evt, bws.DOMEvent) for evt in events)
    assert all(evt.target is ws for evt in events)
    assert [evt.timeStamp for evt in events] == sorted(evt.timeStamp for evt in events)
    assert isinstance(opened.timeStamp, float)
    assert 0 <= closed.timeStamp - opened.timeStamp < 60_000  # milliseconds
    assert isinstance(text, bws.MessageEvent)
    assert (text.data, binary.data, type(binary.data)) == ("hello", b"\0\1", bytes)
    assert (text.origin, text.lastEventId) == (played.server.origin, "")
    assert isinstance(closed, bws.CloseEvent)
    assert (closed.code, closed.reason, closed.wasClean) == (1006, "", False)
    assert isinstance(error.error, ConnectionError)
    assert closed.error is error.error
    assert error.message
    assert error.message in str(error.error)


PLAIN = [
    *("type", "target", "currentTarget", "timeStamp", "eventPhase", "isTrusted", "bubbles", "cancelable", "composed"),
    *("defaultPrevented", "error", "message", "NONE", "CAPTURING_PHASE", "AT_TARGET", "BUBBLING_PHASE"),
]
READ_ONLY = [
    *(("open", name) for name in PLAIN),
    *(("message", name) for name in ["origin", "lastEventId", "source", "ports"]),
    *(("close", name) for name in ["code", "reason", "wasClean"]),
]


@pytest.mark.parametrize(("type", "name"), READ_ONLY)
def test_no_handler_changes_what_the_next_one_sees(play: Play, type: str, name: str) -> None:
    raised: list[str] = []

    def first(r: Recorder, evt: Any) -> None:
        before = getattr(evt, name)
        with pytest.raises(AttributeError) as caught:
            setattr(evt, name, "mine")
        raised.append(str(caught.value))
        evt.mine = name  # others may be added
        r.note(type, getattr(evt, name) == before, evt.mine)

    played = play(lambda c: c.handshake(then=frame(TEXT, "x") + frame(CLOSE)), on={type: first})
    assert (type, True, name) in played.entries
    assert len(raised) == 1


NETWORK: dict[str, Any] = {  # what every event of the network says of itself while its handlers run
    "eventPhase": 2, "isTrusted": True, "bubbles": False, "cancelable": False, "composed": False,
    "defaultPrevented": False, "NONE": 0, "CAPTURING_PHASE": 1, "AT_TARGET": 2, "BUBBLING_PHASE": 3,
}  # fmt: skip


def test_events_are_trusted_at_their_target_and_neither_bubble_nor_can_be_cancelled(play: Play) -> None:
    events: list[Any] = []

    def look(r: Recorder, evt: Any) -> None:
        evt.preventDefault()
        evt.stopPropagation()
        r.note("says", evt.type, {name: getattr(evt, name) for name in NETWORK}, evt.composedPath() == [r.ws])
        events.append(evt)

    def look_again(r: Recorder, evt: Any) -> None:
        r.note("still", evt.type, evt.eventPhase, evt.currentTarget is r.ws)

    def start(r: Recorder) -> None:
        for type in ("open", "message", "error", "close"):
            r.ws.bind(type, lambda evt: look_again(r, evt))

    every: Any = dict.fromkeys(["open", "message", "error", "close"], look)
    two = frame(TEXT, "x") + frame(BINARY, b"y")
    played = play(lambda c: c.handshake(then=two + frame(3)), start=start, on=every)
    order = ["open", "message", "message", "error", "close"]
    assert [entry for entry in played.entries if entry[0] == "says"] == [
        ("says", type, NETWORK, True) for type in order
    ]
    assert [entry for entry in played.entries if entry[0] == "still"] == [("still", type, 2, True) for type in order]
    assert [(evt.type, evt.eventPhase, evt.currentTarget, evt.composedPath()) for evt in events] == [
        (type, 0, None, []) for type in order
    ]  # when its handlers have run
    assert all(evt.target is played.recorder.ws and evt.isTrusted for evt in events)
    assert (events[1].source, events[1].ports) == (None, ())


def test_the_only_handler_s_message_is_at_its_target_while_it_runs(play: Play) -> None:
    """It goes by a shorter way."""
    events: list[Any] = []

    def on_message(r: Recorder, evt: Any) -> None:
        r.note([each.eventPhase for each in [*events, evt]], evt.currentTarget is r.ws, evt.isTrusted)
        events.append(evt)
        if len(events) == 3:
            r.ws.close()

    played = play(lambda c: c.handshake(then=frame(TEXT, "x") * 3), on={"message": on_message})
    assert [entry for entry in played.entries if isinstance(entry[0], list)] == [
        ([2], True, True),
        ([0, 2], True, True),
        ([0, 0, 2], True, True),
    ]
    assert [evt.currentTarget for evt in events] == [None] * 3


def test_an_event_of_one_s_own_is_at_its_target_while_it_is_dispatched_and_not_trusted(mode: Mode) -> None:
    with ScriptedServer(Connection.handshake) as server:
        ws = mode.open(server.url)
        event = bws.DOMEvent("mine", bubbles=True, cancelable=True, composed=True)
        seen: list[Any] = []

        def look(evt: bws.DOMEvent) -> None:
            seen.append((evt.eventPhase, evt.currentTarget is ws, evt.composedPath() == [ws], evt.isTrusted))

        def says() -> tuple[object, ...]:
            return event.eventPhase, event.currentTarget, event.composedPath(), event.target, event.isTrusted

        assert says() == (0, None, [], None, False)
        ws.addEventListener("mine", look)
        assert ws.dispatchEvent(event)
        assert says() == (0, None, [], ws, False)
        assert ws.dispatchEvent(event)
        assert seen == [(2, True, True, False)] * 2
        assert (event.bubbles, event.cancelable, event.composed) == (True, True, True)


@pytest.mark.parametrize("kind", [bws.DOMEvent, bws.MessageEvent, bws.CloseEvent])
def test_every_event_can_be_made_with_what_the_standard_has_for_all(kind: Any) -> None:
    plain, other = kind("mine"), kind("mine", bubbles=True, cancelable=True, composed=True)
    assert (plain.bubbles, plain.cancelable, plain.composed) == (False, False, False)
    assert (other.bubbles, other.cancelable, other.composed) == (True, True, True)


@pytest.mark.parametrize("cancelable", [False, True])
def test_only_what_is_cancelable_can_be_prevented(mode: Mode, cancelable: bool) -> None:
    with ScriptedServer(Connection.handshake) as server:
        ws = mode.open(server.url)
        ws.addEventListener("mine", bws.DOMEvent.preventDefault)
        event = bws.DOMEvent("mine", cancelable=cancelable)
        assert ws.dispatchEvent(event) is not cancelable
        assert event.defaultPrevented is cancelable


def test_a_handler_can_keep_an_event_from_those_behind_it(play: Play) -> None:
    def start(r: Recorder) -> None:
        r.ws.bind("message", lambda evt: r.note("second", evt.data))

    def first(r: Recorder, evt: Any) -> None:
        if evt.data == "mine alone":
            evt.stopImmediatePropagation()
        elif evt.data == "last":
            r.ws.close()

    script = lambda c: c.handshake(then=b"".join(frame(TEXT, each) for each in ["a", "mine alone", "last"]))  # noqa: E731
    played = play(script, start=start, on={"message": first})
    assert [entry[1] for entry in played.entries if entry[0] == "second"] == ["a", "last"]


@pytest.mark.parametrize("stop", [bws.DOMEvent.stopPropagation, bws.DOMEvent.stopImmediatePropagation])
def test_an_event_that_is_stopped_before_goes_to_nobody_that_time(
    mode: Mode, stop: Callable[[bws.DOMEvent], None]
) -> None:
    with ScriptedServer(Connection.handshake) as server:
        ws = mode.open(server.url)
        calls: list[str] = []
        ws.addEventListener("mine", lambda: calls.append("called"))
        event = bws.DOMEvent("mine")
        stop(event)
        assert ws.dispatchEvent(event)
        assert (calls, event.target) == ([], ws)
        ws.dispatchEvent(event)
        assert calls == ["called"]


def test_an_event_that_its_only_handler_stopped_can_be_dispatched_again(play: Play) -> None:
    events: list[Any] = []

    def on_message(r: Recorder, evt: Any) -> None:
        evt.stopPropagation()
        evt.stopImmediatePropagation()
        events.append(evt)
        if len(events) == 2:
            r.ws.close()

    played = play(lambda c: c.handshake(then=frame(TEXT, "a") + frame(TEXT, "b")), on={"message": on_message})
    assert [evt.data for evt in events] == ["a", "b"]
    assert played.recorder.ws.dispatchEvent(events[0])
    assert [evt.data for evt in events] == ["a", "b", "a"]


def test_a_signal_that_comes_while_an_event_is_dispatched_leaves_nothing_behind(mode: Mode) -> None:
    """In particular no id of an event, which the next one that is made would have."""
    left = 0

    def look(code: FrameType, kind: str, arg: object) -> None:
        nonlocal left
        if kind in ("call", "c_call", "c_return") and code.f_code.co_filename == _target.__file__:
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

    with ScriptedServer(Connection.handshake) as server:
        ws = mode.open(server.url)
        calls: list[int] = []
        ws.addEventListener("mine", lambda: calls.append(1))
        places = 0
        for at in range(1, 1_000):
            event, left = bws.DOMEvent("mine"), at
            sys.setprofile(look)
            try:
                ws.dispatchEvent(event)
            except KeyboardInterrupt:
                places += 1
            else:
                break
            finally:
                sys.setprofile(None)
            assert not DISPATCHING
            assert event.eventPhase == 0
            ws.dispatchEvent(event)
        assert places > 5


def test_an_event_that_was_stopped_can_be_dispatched_again(mode: Mode) -> None:
    with ScriptedServer(Connection.handshake) as server:
        ws = mode.open(server.url)
        calls: list[str] = []

        def first(evt: bws.DOMEvent) -> None:
            calls.append("first")
            if len(calls) == 1:
                evt.stopImmediatePropagation()

        ws.addEventListener("mine", first)
        ws.addEventListener("mine", lambda: calls.append("second"))
        event = bws.DOMEvent("mine")
        ws.dispatchEvent(event)
        ws.dispatchEvent(event)
        assert calls == ["first", "first", "second"]


def test_the_current_target_is_the_socket_while_a_handler_runs(play: Play) -> None:
    def on_message(r: Recorder, evt: Any) -> None:
        r.note("same", evt.currentTarget is r.ws)
        r.ws.close()

    played = play(lambda c: c.handshake(then=frame(TEXT, "x")), on={"message": on_message})
    assert ("same", True) in played.entries


@pytest.mark.parametrize("binary_type", ["blob", "arraybuffer"])
def test_bytes_are_bytes_with_either_binary_type(play: Play, binary_type: str) -> None:
    def start(r: Recorder) -> None:
        r.ws.binaryType = binary_type

    played = play(
        lambda c: c.handshake(then=frame(BINARY, b"\xff")),
        start=start,
        on={"message": lambda r, _: r.ws.close()},
    )
    assert played.recorder.data == [b"\xff"]
    assert played.recorder.ws.binaryType == binary_type


def test_unknown_binary_types_are_ignored(mode: Mode) -> None:
    with ScriptedServer(Connection.echo) as server:
        ws: Any = mode.open(server.url)
        assert ws.binaryType == "blob"
        ws.binaryType = "arraybuffer"
        for unknown in ("nonsense", "", "ARRAYBUFFER", "Blob", None, 1):
            ws.binaryType = unknown
            assert ws.binaryType == "arraybuffer"
        ws.binaryType = "blob"
        assert ws.binaryType == "blob"


def test_an_event_of_ones_own_goes_to_its_listeners_at_once(play: Play) -> None:
    def start(r: Recorder) -> None:
        r.ws.addEventListener("custom", lambda evt: r.note("custom", evt.type, evt.target is r.ws))
        r.note("returned", r.ws.dispatchEvent(bws.DOMEvent("custom")))
        r.ws.dispatchEvent(bws.DOMEvent("nobody listens"))

    played = play(Connection.handshake, start=start, on={"open": lambda r, _: r.ws.close()})
    assert played.entries[:3] == [("custom", "custom", True), ("returned", True), ("open", 1)]


def test_a_dispatched_message_is_delivered_before_open_and_changes_nothing(play: Play) -> None:
    def start(r: Recorder) -> None:
        evt: Any = bws.DOMEvent("message")
        evt.data = "mine"
        r.ws.dispatchEvent(evt)
        r.ws.dispatchEvent(bws.MessageEvent("message", "mine too"))
        r.look()

    def on_message(r: Recorder, evt: Any) -> None:
        if evt.data == "hello":
            r.ws.close()

    played = play(lambda c: c.handshake(then=frame(TEXT, "hello")), start=start, on={"message": on_message})
    assert played.entries == [
        ("message", 0, "mine"),
        ("message", 0, "mine too"),
        ("look", 0),
        ("open", 1),
        ("message", 1, "hello"),
        ("close", 3, 1005, "", True),
    ]


def test_after_a_dispatched_close_event_the_connection_stays(play: Play) -> None:
    def in_open(r: Recorder, _: object) -> None:
        r.ws.dispatchEvent(bws.CloseEvent("close", 4000, "fake", True))
        r.ws.send("x")

    played = play(Connection.echo, on={"open": in_open, "message": lambda r, _: r.ws.close()})
    assert played.entries == [
        ("open", 1),
        ("close", 1, 4000, "fake", True),
        ("message", 1, "x"),
        ("close", 3, 1005, "", True),
    ]


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (bws.DOMEvent("open"), "<DOMEvent 'open'>"),
        (bws.MessageEvent("message", "hi"), "<MessageEvent 'message' data='hi'>"),
        (
            bws.CloseEvent("close", 1000, "bye", True),
            "<CloseEvent 'close' code=1000 reason='bye' wasClean=True>",
        ),
    ],
)
def test_events_show_what_they_hold(event: bws.DOMEvent, shown: str) -> None:
    assert repr(event) == shown


def test_a_long_message_is_cut_in_the_events_repr() -> None:
    assert len(repr(bws.MessageEvent("message", "x" * 10_000))) < 200


def test_a_socket_shows_its_url_without_password_and_its_state(mode: Mode) -> None:
    with ScriptedServer(Connection.handshake) as server:
        host = f"127.0.0.1:{server.port}"
        recorder = Recorder(mode.open(f"ws://user:secret@{host}/x"), {"open": lambda r, _: r.note(repr(r.ws))})
        recorder.wait_for(f"<WebSocket ws://{host}/x OPEN>")
        recorder.ws.close()
        recorder.closed()
        assert repr(recorder.ws) == f"<WebSocket ws://{host}/x CLOSED>"
        assert recorder.ws.url == f"ws://user:secret@{host}/x"
