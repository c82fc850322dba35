"""How a connection ends: who closes, with which code, and what is left undone."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

import bws
from tests.conftest import TIMEOUT, Mode, Play, Recorder
from tests.wire.frames import CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

OPEN = ("open", 1)
LOST = ("close", 3, 1006, "", False)
SECONDS_FOR_TCP = 2.0  # that a peer has to end TCP once both close frames are exchanged


def close_at(event: str, *args: Any) -> dict[str, Any]:
    """Handlers that call close() when that event comes."""
    return {event: lambda r, _: r.ws.close(*args)}


# -- the server closes


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1000, ""),
        (1000, "done"),
        (1001, "going away"),
        *((code, "why") for code in (1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014)),
        (3000, ""),
        (3999, "x" * 123),
        (4000, "nul\0in"),
        (4999, "réason ✓ 😀"),
        (None, ""),
    ],
)
@pytest.mark.parametrize("end", ["waits for the client", "ends TCP at once"])
def test_the_servers_code_and_reason_are_delivered_and_echoed(
    play: Play, code: int | None, reason: str, end: str
) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "hello"))
        c.close(code, reason)
        if end == "ends TCP at once":
            c.half_close()

    played = play(script)
    assert played.entries == [OPEN, ("message", 1, "hello"), ("close", 3, code or 1005, reason, True)]
    assert played.seen.close == (code, reason)
    assert (played.seen.after_close, played.seen.end) == ([], "eof")
    assert played.recorder.events[-1].error is None


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_code_that_is_not_for_the_wire_fails_with_1002(play: Play, code: int) -> None:
    played = play(lambda c: c.handshake(then=frame(TEXT, "hello") + close_frame(code, "odd")))
    assert played.entries == [OPEN, ("message", 1, "hello"), ("error", 3), LOST]
    assert played.seen.close is not None
    assert played.seen.close[0] == 1002


@pytest.mark.parametrize("late", [frame(TEXT, "late"), frame(PING, "late"), close_frame(1001, "second"), frame(3)])
def test_what_follows_the_servers_close_frame_is_ignored(play: Play, late: bytes) -> None:
    played = play(lambda c: c.handshake(then=close_frame(1000, "bye") + late))
    assert played.entries == [OPEN, ("close", 3, 1000, "bye", True)]
    assert (played.seen.close, played.seen.pongs) == ((1000, "bye"), [])


def test_a_server_that_keeps_tcp_open_is_given_two_seconds(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.close(1000, "bye")
        c.read_until(CLOSE)
        closing.set()
        c.drain()

    def start(r: Recorder) -> None:
        r.ws.addEventListener("open", opened.set)
        threading.Thread(target=look, args=[r], daemon=True).start()

    def look(r: Recorder) -> None:
        opened.wait(TIMEOUT)
        closing.wait(TIMEOUT)
        while r.ws.readyState == 1:  # the frame was answered; where handlers run it is only just noted
            threading.Event().wait(0.01)
        r.look()
        r.ws.send("dropped")
        r.ws.close(3001, "mine")
        r.note("buffered", r.ws.bufferedAmount)

    opened, closing = threading.Event(), threading.Event()
    played = play(script, start=start)
    assert played.entries == [OPEN, ("look", 2), ("buffered", 7), ("close", 3, 1000, "bye", True)]
    assert (played.seen.close, played.seen.messages) == ((1000, "bye"), [])
    waited = played.recorder.events[-1].timeStamp - played.recorder.events[0].timeStamp
    assert waited > 1000 * (SECONDS_FOR_TCP - 0.3)


def test_a_server_that_closes_in_a_conversation_and_keeps_tcp_open_is_given_two_seconds() -> None:
    def script(c: Connection) -> None:
        c.handshake()
        for _ in range(3):
            c.send_text("how do you do")
            c.read_until(TEXT)
        c.close(1000, "bye")
        c.read_until(CLOSE)
        c.drain()

    with ScriptedServer(script) as server:
        recorder = Recorder(bws.WebSocket(server.url), {"message": lambda r, evt: r.ws.send(evt.data)})
        said = ("message", 1, "how do you do")
        assert recorder.closed() == [OPEN, said, said, said, ("close", 3, 1000, "bye", True)]
        server.result()
    waited = recorder.events[-1].timeStamp - recorder.events[-2].timeStamp
    assert waited > 1000 * (SECONDS_FOR_TCP - 0.3)


# -- the client closes


@pytest.mark.parametrize(
    ("args", "sent", "event"),
    [
        ((), (None, ""), (1005, "")),
        ((1000,), (1000, ""), (1000, "")),
        ((1000, "bye"), (1000, "bye"), (1000, "bye")),
        ((1000, None), (1000, ""), (1000, "")),
        ((3000, ""), (3000, ""), (3000, "")),
        ((4999, "é" * 61), (4999, "é" * 61), (4999, "é" * 61)),
        ((3000, "nul\0in"), (3000, "nul\0in"), (3000, "nul\0in")),
        ((3000, "\ud800"), (3000, "\ufffd"), (3000, "\ufffd")),
    ],
)
def test_the_clients_code_and_reason_are_sent_and_come_back(
    play: Play, args: tuple[Any, ...], sent: tuple[int | None, str], event: tuple[int, str]
) -> None:
    played = play(Connection.handshake, on=close_at("open", *args))
    assert played.entries == [OPEN, ("close", 3, *event, True)]
    assert (played.seen.close, played.seen.after_close) == (sent, [])


@pytest.mark.parametrize(
    ("answer", "event"),
    [
        (close_frame(4321, "server's"), [("close", 3, 4321, "server's", True)]),
        (close_frame(), [("close", 3, 1005, "", True)]),
        (close_frame(999), [("error", 3), LOST]),
        (frame(CLOSE, b"\3"), [("error", 3), LOST]),
        (frame(3, "bad") + close_frame(1000, "ok"), [("error", 3), LOST]),
        (
            frame(TEXT, "late") + frame(TEXT, "later") + close_frame(1000, "ok"),
            [("close", 3, 1000, "ok", True)],
        ),
        (frame(PING, "late") + close_frame(1000, "ok"), [("close", 3, 1000, "ok", True)]),
        (frame(CONTINUATION, "late") + close_frame(1000, "ok"), [("error", 3), LOST]),
        (b"", [LOST]),
        (frame(TEXT, "cut", length=10), [LOST]),
        (close_frame(1000, "cut")[:-1], [LOST]),
    ],
)
def test_the_servers_answer_to_the_close_decides(play: Play, answer: bytes, event: list[tuple[Any, ...]]) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(CLOSE)
        c.send(answer)
        c.half_close()
        c.drain()

    played = play(script, on=close_at("open", 3000, "mine"))
    assert played.entries == [OPEN, *event]
    assert (played.seen.close, played.seen.after_close) == ((3000, "mine"), [])
    assert (played.recorder.events[-1].error is None) is event[-1][-1]


def test_a_reset_instead_of_an_answer_is_a_lost_connection(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(CLOSE)
        c.reset()

    played = play(script, on=close_at("open"))
    assert played.entries == [OPEN, LOST]


def test_a_server_that_answers_but_keeps_tcp_open_is_given_two_seconds(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(CLOSE)
        c.close(3000, "mine")
        c.drain()

    played = play(script, on=close_at("open", 3000, "mine"))
    assert played.entries == [OPEN, ("close", 3, 3000, "mine", True)]
    waited = played.recorder.events[-1].timeStamp - played.recorder.events[0].timeStamp
    assert waited > 1000 * (SECONDS_FOR_TCP - 0.3)


def test_a_server_that_never_answers_is_given_close_timeout(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.drain()

    played = play(script, on=close_at("open", 3000, "mine"), close_timeout=0.3)
    assert played.entries == [OPEN, LOST]
    assert played.seen.close == (3000, "mine")
    assert isinstance(played.recorder.events[-1].error, TimeoutError)


def test_between_the_call_and_the_answer_only_the_first_close_counts(play: Play) -> None:
    asked = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(CLOSE)
        c.wait_for(asked)
        c.close(1000, "ok")

    def in_open(r: Recorder, _: object) -> None:
        r.ws.close(3001, "mine")
        r.look()
        r.ws.close(3002, "other")
        r.ws.send("12345")
        r.note("buffered", r.ws.bufferedAmount)
        asked.set()

    played = play(script, on={"open": in_open, "close": lambda r, _: r.note("buffered", r.ws.bufferedAmount)})
    assert played.entries == [
        OPEN,
        ("look", 2),
        ("buffered", 5),
        ("close", 3, 1000, "ok", True),
        ("buffered", 5),
    ]
    assert (played.seen.close, played.seen.messages) == ((3001, "mine"), [])


def test_what_was_sent_before_close_goes_out_first(play: Play) -> None:
    def in_open(r: Recorder, _: object) -> None:
        for data in ("1", b"2", "x" * (1 << 20)):
            r.ws.send(data)
        r.ws.close(1000, "bye")

    played = play(Connection.handshake, on={"open": in_open})
    assert played.entries == [OPEN, ("close", 3, 1000, "bye", True)]
    assert played.seen.messages == ["1", b"2", "x" * (1 << 20)]
    assert played.seen.close == (1000, "bye")


# -- both close


def test_a_close_that_crosses_the_servers_gives_the_servers_code(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "one") + frame(TEXT, "two") + close_frame(1000, "done"))
        c.close_sent = True

    played = play(script, on=close_at("message", 3001, "mine"))
    assert played.entries == [OPEN, ("message", 1, "one"), ("close", 3, 1000, "done", True)]
    assert played.seen.close in [(3001, "mine"), (1000, "done")]
    assert played.seen.after_close == []


def test_a_handler_at_work_does_not_see_the_servers_close_before_its_turn(play: Play) -> None:
    closed = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "one") + frame(TEXT, "two") + frame(PING, "alive"))
        c.read_until(PONG)  # the client reads on while its handler works
        c.close(1000, "done")
        closed.set()

    def at_work(r: Recorder, evt: Any) -> None:
        if evt.data == "one":
            closed.wait(TIMEOUT)
            r.look()

    played = play(script, on={"message": at_work})
    assert played.entries == [
        OPEN,
        ("message", 1, "one"),
        ("look", 1),
        ("message", 1, "two"),
        ("close", 3, 1000, "done", True),
    ]


def test_in_a_stream_the_messages_end_with_the_clients_close(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        n = 0
        while not c.readable():
            c.send_text(f"n{n}")
            n += 1
        c.read_until(CLOSE)
        c.close(1000)
        c.half_close()

    def fifth(r: Recorder, evt: Any) -> None:
        if evt.data == "n4":
            r.ws.close()

    played = play(script, on={"message": fifth})
    assert played.entries == [
        OPEN,
        *(("message", 1, f"n{n}") for n in range(5)),
        ("close", 3, 1000, "", True),
    ]


@pytest.mark.parametrize("args", [(), (3001, "early")])
def test_a_close_while_connecting_ends_in_an_error_and_1006(play: Play, args: tuple[Any, ...]) -> None:
    def start(r: Recorder) -> None:
        r.ws.close(*args)
        r.note("called", r.ws.readyState in (2, 3))

    played = play(Connection.request, start=start)
    assert sorted(played.entries, key=lambda entry: entry[0] != "called") == [
        ("called", True),
        ("error", 3),
        LOST,
    ]
    assert played.seen.raw == b""


# -- TCP is lost


def _with_message(c: Connection) -> None:
    c.handshake(then=frame(TEXT, "hello"))


def _mid_frame(c: Connection) -> None:
    c.handshake(then=frame(TEXT, "hello") + frame(TEXT, "hel", length=10))


def _mid_header(c: Connection) -> None:
    c.handshake(then=frame(TEXT, "hello") + b"\x81")


def _mid_message(c: Connection) -> None:
    c.handshake(then=frame(TEXT, "hello") + frame(TEXT, "hel", fin=False))


@pytest.mark.parametrize("before", [_with_message, _mid_header, _mid_frame, _mid_message])
def test_the_end_of_tcp_without_a_close_frame_gives_close_1006_alone(play: Play, before: Any) -> None:
    def script(c: Connection) -> None:
        before(c)
        c.half_close()

    played = play(script)
    assert played.entries == [OPEN, ("message", 1, "hello"), LOST]
    assert isinstance(played.recorder.events[-1].error, ConnectionError)
    assert played.seen.end == "eof"


@pytest.mark.parametrize("before", [_with_message, _mid_header, _mid_frame, _mid_message])
def test_a_reset_gives_close_1006_alone(play: Play, before: Any) -> None:
    def script(c: Connection) -> None:
        before(c)
        c.wait_for(delivered)
        c.reset()

    delivered = threading.Event()
    played = play(script, on={"message": lambda *_: delivered.set()})
    assert played.entries == [OPEN, ("message", 1, "hello"), LOST]
    assert isinstance(played.recorder.events[-1].error, ConnectionError)


def test_a_message_sent_into_a_lost_connection_is_dropped(play: Play) -> None:
    lost = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "hello"))
        c.half_close()
        lost.set()

    def in_open(r: Recorder, _: object) -> None:
        lost.wait(TIMEOUT)
        r.look()
        r.ws.send("x")

    played = play(script, on={"open": in_open})
    assert played.entries == [OPEN, ("look", 1), ("message", 1, "hello"), LOST]


@pytest.mark.parametrize("tls", [(), ("127.0.0.1",)], ids=["tcp", "tls"])
def test_a_connection_that_can_only_be_read_is_lost_when_something_is_sent(mode: Mode, tls: tuple[str, ...]) -> None:
    broken, sent, over = threading.Event(), threading.Event(), threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(broken)
        c.send_text("hello")
        sent.set()
        c.wait_for(over)  # nothing that the client reads tells that it cannot write

    def in_open(r: Recorder, _: object) -> None:
        engine: Any = r.ws._engine
        socket.socket.shutdown(engine._sock, socket.SHUT_WR)
        broken.set()
        assert sent.wait(TIMEOUT)
        r.ws.send("x")
        r.note("flush", r.ws.flush(TIMEOUT))

    with ScriptedServer(script, tls=tls) as server:
        ws = mode.open(server.url, ssl=server.ssl_context if tls else None)
        recorder = Recorder(ws, {"open": in_open})
        entries = recorder.closed()
        over.set()
    assert sorted(entries[1:3]) == [("flush", False), ("message", 1, "hello")]
    assert entries[3:] == [LOST]
    assert isinstance(recorder.events[-1].error, OSError)
    assert ws.bufferedAmount == 1
