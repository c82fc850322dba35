"""The order of events and the readyState that their handlers see, on both kinds of thread."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import bws
from tests.conftest import TIMEOUT, Mode, Play, Recorder
from tests.wire.frames import PING, PONG, TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

OPEN = ("open", 1)
TEXTS = [frame(TEXT, text) for text in ("one", "two", "three")]


def test_the_states_have_the_browsers_names_and_numbers() -> None:
    cls = bws.WebSocket
    assert (cls.CONNECTING, cls.OPEN, cls.CLOSING, cls.CLOSED) == (0, 1, 2, 3)
    with ScriptedServer(Connection.echo) as server, bws.WebSocket(server.url) as ws:
        assert (ws.CONNECTING, ws.OPEN, ws.CLOSING, ws.CLOSED) == (0, 1, 2, 3)
        assert ws.readyState == ws.OPEN


STATES = ["CONNECTING", "OPEN", "CLOSING", "CLOSED"]


@pytest.mark.parametrize("name", ["readyState", "url", "protocol", "extensions", "bufferedAmount", *STATES])
def test_what_a_browser_lets_nobody_set_cannot_be_set(name: str) -> None:
    with ScriptedServer(Connection.echo) as server, bws.WebSocket(server.url) as ws:
        with pytest.raises(AttributeError):
            setattr(ws, name, "x")
        assert ws.readyState == ws.OPEN == 1


def test_a_new_socket_is_connecting_and_has_the_browsers_defaults(play: Play) -> None:
    def start(r: Recorder) -> None:
        ws = r.ws
        r.note(ws.readyState, ws.protocol, ws.extensions, ws.bufferedAmount, ws.binaryType)

    played = play(Connection.handshake, start=start, on={"open": lambda r, _: r.ws.close()})
    assert played.entries[0] == (0, "", "", 0, "blob")
    assert played.recorder.ws.url == played.server.url


@pytest.mark.parametrize(
    ("script", "entries"),
    [
        (
            lambda c: c.handshake(then=b"".join(TEXTS) + close_frame(1000, "done")),
            [*(("message", 1, text) for text in ("one", "two", "three")), ("close", 3, 1000, "done", True)],
        ),
        (lambda c: c.handshake(then=close_frame()), [("close", 3, 1005, "", True)]),
        (lambda c: c.handshake(then=frame(3)), [("error", 3), ("close", 3, 1006, "", False)]),
    ],
)
def test_each_event_has_its_state_and_close_is_last(play: Play, script: Any, entries: list[Any]) -> None:
    assert play(script).entries == [OPEN, *entries]


def test_the_state_stays_while_handlers_work_and_the_rest_has_arrived(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=TEXTS[0] + TEXTS[1] + frame(PING, "read"))
        c.read_until(PONG)
        c.close(1000, "done")
        c.half_close()
        arrived.set()

    def at_work(r: Recorder, _: object) -> None:
        arrived.wait(TIMEOUT)
        r.look()

    arrived = threading.Event()
    played = play(script, on={"open": at_work, "message": at_work})
    assert played.entries == [
        OPEN,
        ("look", 1),
        ("message", 1, "one"),
        ("look", 1),
        ("message", 1, "two"),
        ("look", 1),
        ("close", 3, 1000, "done", True),
    ]


@pytest.mark.parametrize("where", ["open", "message"])
def test_after_close_no_message_comes_though_it_has_arrived(play: Play, where: str) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=b"".join(TEXTS) + frame(PING, "read"))
        c.read_until(PONG)
        arrived.set()

    def close(r: Recorder, _: object) -> None:
        arrived.wait(TIMEOUT)
        r.ws.close()
        r.look()

    arrived = threading.Event()
    played = play(script, on={where: close})
    before = [OPEN] if where == "open" else [OPEN, ("message", 1, "one")]
    assert played.entries == [*before, ("look", 2), ("close", 3, 1005, "", True)]


def test_a_close_from_another_thread_stops_the_messages_too(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=TEXTS[0] + TEXTS[1] + frame(PING, "read"))
        c.read_until(PONG)

    def on_message(r: Recorder, _: object) -> None:
        closer = threading.Thread(target=r.ws.close, args=[3000, "elsewhere"])
        closer.start()
        closer.join()
        r.look()

    played = play(script, on={"message": on_message})
    assert played.entries == [OPEN, ("message", 1, "one"), ("look", 2), ("close", 3, 3000, "elsewhere", True)]


def test_in_the_close_handler_close_and_send_do_nothing(play: Play) -> None:
    def on_close(r: Recorder, _: object) -> None:
        r.ws.close()
        r.ws.send("x")
        r.note("buffered", r.ws.bufferedAmount, r.ws.readyState)

    played = play(lambda c: c.handshake(then=close_frame(1000)), on={"close": on_close})
    assert played.entries == [OPEN, ("close", 3, 1000, "", True), ("buffered", 1, 3)]
    assert (played.recorder.ws.bufferedAmount, played.seen.messages) == (1, [])


def test_a_handler_that_blocks_costs_no_connection(play: Play) -> None:
    """The server's pings are answered, and its close frame too, while a handler works."""
    pings = [str(n).encode() for n in range(20)]
    answered = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=TEXTS[0])
        for payload in pings:
            c.send(frame(PING, payload))
            c.read_until(PONG)
        answered.set()
        c.send_text("two")
        c.close(1000, "done")

    played = play(script, on={"message": lambda r, _: r.note("answered", answered.wait(TIMEOUT))})
    assert played.entries == [
        OPEN,
        ("message", 1, "one"),
        ("answered", True),
        ("message", 1, "two"),
        ("answered", True),
        ("close", 3, 1000, "done", True),
    ]
    assert played.seen.pongs == pings


def test_what_a_blocked_handler_sends_goes_out_at_once(play: Play) -> None:
    came = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(TEXT)
        came.set()

    def in_open(r: Recorder, _: object) -> None:
        r.ws.send("x" * 3_000_000)
        r.note("came", came.wait(TIMEOUT))
        r.ws.close()

    assert play(script, on={"open": in_open}).entries[:2] == [OPEN, ("came", True)]


def test_every_call_works_from_every_handler(play: Play) -> None:
    def everything(r: Recorder, evt: Any) -> None:
        ws = r.ws
        ws.bind("message", print)
        ws.unbind("message", print)
        ws.addEventListener("custom", print)
        ws.removeEventListener("custom", print)
        ws.dispatchEvent(bws.DOMEvent("custom"))
        ws.send("x")
        ws.binaryType = "arraybuffer"
        r.note("repr", repr(ws).startswith("<WebSocket"), ws.flush(TIMEOUT) or ws.readyState != 1)
        if evt.type == "message":
            ws.close(1000, "enough")

    on = dict.fromkeys(("open", "message", "close"), everything)
    played = play(Connection.echo, on=on)
    assert [entry for entry in played.entries if entry[0] != "repr"] == [
        OPEN,
        ("message", 1, "x"),
        ("close", 3, 1000, "enough", True),
    ]
    assert played.recorder.of("repr") == [("repr", True, True)] * 3
    assert played.seen.messages[:1] == ["x"]


def test_sockets_may_be_made_in_handlers(mode: Mode) -> None:
    done: list[str] = []
    finished = threading.Event()

    def again() -> None:
        done.append("closed")
        if len(done) == 5:
            finished.set()
        else:
            connect()

    def connect() -> None:
        ws = mode.open(server.url)
        ws.bind("open", lambda evt: evt.target.close())
        ws.bind("close", again)

    with ScriptedServer(Connection.handshake) as server:
        connect()
        assert finished.wait(TIMEOUT)
        assert [seen.close for seen in server.results(5)] == [(None, "")] * 5


def test_events_keep_their_order_under_a_flood(play: Play) -> None:
    count = 20_000
    data = b"".join(frame(TEXT, str(n)) for n in range(count)) + close_frame(1000, "done")
    played = play(lambda c: c.handshake(then=data))
    assert played.recorder.data == [str(n) for n in range(count)]
    assert played.entries[-1] == ("close", 3, 1000, "done", True)


@pytest.mark.parametrize("mode", ["dispatch"], indirect=True)
def test_with_dispatch_every_handler_runs_on_the_users_thread(mode: Mode, play: Play) -> None:
    assert mode.pump
    played = play(lambda c: c.handshake(then=TEXTS[0] + close_frame()))
    assert played.recorder.threads == {mode.pump.thread}


@pytest.mark.parametrize("mode", ["threaded"], indirect=True)
def test_without_dispatch_every_handler_runs_on_the_sockets_thread(mode: Mode, play: Play) -> None:
    played = play(lambda c: c.handshake(then=TEXTS[0]), on={"message": lambda r, _: r.ws.close()})
    (thread,) = played.recorder.threads
    assert mode.is_handler_thread(thread)
    assert thread.daemon
