"""Frames of the server: what is delivered, and what fails the connection with which code on the wire."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from bws._engine import relief, threaded
from bws._engine.buffers import Buffers
from tests.conftest import TIMEOUT, Action, Play, Recorder
from tests.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame
from tests.wire.server import Connection
from tests.wire.violations import COMPRESSED, MAX, TOO_LARGE, VIOLATIONS, Violation

TAIL = frame(TEXT, "tail")

# how the same bytes may arrive
FEEDS = ["with the handshake", "in one piece", "byte by byte", "with a tail"]


def feed(c: Connection, how: str, data: bytes, *extra: str) -> None:
    """Accept the handshake, with these extra headers, and send the bytes."""
    c.handshake(*extra, then=data if how == "with the handshake" else data + TAIL if how == "with a tail" else b"")
    if how == "in one piece":
        c.send(data)
    elif how == "byte by byte":
        for byte in data:
            c.send(bytes([byte]))


NO_LIMIT = (1 << 63) - 1

# name: (the row, the answer's extra header, what the client's max_size is)
WRONG: dict[str, tuple[Violation, list[str], int]] = {
    **{name: (row, [], NO_LIMIT) for name, row in VIOLATIONS.items()},
    **{f"max_size: {name}": (row, [], MAX) for name, row in TOO_LARGE.items()},
    **{
        f"compressed: {name}": (row, ["Sec-WebSocket-Extensions: permessage-deflate"], MAX)
        for name, row in COMPRESSED.items()
    },
}
SLOW = {name for name, (row, *_) in WRONG.items() if len(row.data) > 1000}  # not byte by byte


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, how) for name in WRONG for how in FEEDS if how != "byte by byte" or name not in SLOW],
)
def test_a_frame_that_is_wrong_fails_the_connection_at_its_first_wrong_byte(play: Play, name: str, how: str) -> None:
    row, extra, max_size = WRONG[name]
    # The row ends with the wrong byte: without a tail the server then says nothing more, and only listens.
    played = play(lambda c: feed(c, how, frame(TEXT, "before") + row.data, *extra), max_size=max_size)
    assert played.entries == [
        ("open", 1),
        *(("message", 1, text) for text in ["before", *row.delivered]),
        ("error", 3),
        ("close", 3, 1006, "", False),
    ]
    assert played.seen.close is not None
    assert played.seen.close[0] == row.code
    assert (played.seen.after_close, played.seen.unmasked, played.seen.end) == ([], [], "eof")
    error = played.recorder.error
    assert isinstance(error, ConnectionError)
    assert error.close_code == row.code  # type: ignore[attr-defined]
    assert played.recorder.events[-1].error is error


def test_messages_before_a_violation_are_answered_before_the_connection_fails(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threaded, "ANSWERS", TIMEOUT)

    def script(c: Connection) -> None:
        c.handshake()
        c.send(frame(TEXT, "one") + frame(BINARY, b"two") + frame(TEXT, "x", rsv=2) + TAIL)

    played = play(script, on={"message": lambda it, evt: it.ws.send(evt.data)})
    assert played.recorder.data == ["one", b"two"]
    assert played.recorder.types[-2:] == ["error", "close"]
    assert played.seen.messages == ["one", b"two"]
    assert played.seen.close is not None
    assert played.seen.close[0] == 1002


def test_a_violation_that_comes_while_a_handler_is_slow_waits_for_its_answer(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threaded, "ANSWERS", TIMEOUT)
    entered, violated = threading.Event(), threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.send_text("slow")
        c.wait_for(entered)
        c.send(frame(TEXT, "x", rsv=2))
        violated.set()

    def slow(it: Recorder, evt: Any) -> None:
        entered.set()
        it.note("violated", violated.wait(TIMEOUT))
        time.sleep(3 * relief.PATIENCE)  # so that the relief thread reads
        it.ws.send("answer")

    played = play(script, on={"message": slow})
    assert played.recorder.types == ["open", "message", "violated", "error", "close"]
    assert played.seen.messages == ["answer"]
    assert played.seen.close is not None
    assert played.seen.close[0] == 1002


def test_a_slow_handler_of_a_message_before_a_violation_does_not_keep_the_connection_from_failing(play: Play) -> None:
    told = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.send(frame(TEXT, "slow") + frame(TEXT, "x", rsv=2))
        c.read_until(CLOSE)
        told.set()

    played = play(script, on={"message": lambda it, evt: it.note("told", told.wait(TIMEOUT))})
    assert ("told", True) in played.entries
    assert played.recorder.types == ["open", "message", "told", "error", "close"]
    assert played.seen.close is not None
    assert played.seen.close[0] == 1002


@pytest.mark.parametrize("end", [Connection.half_close, Connection.reset], ids=["FIN", "RST"])
def test_an_end_of_tcp_behind_a_violation_does_not_hide_it_from_a_slow_handler(
    play: Play, end: Callable[[Connection], None]
) -> None:
    entered = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.send(frame(TEXT, "slow") + frame(TEXT, "x", rsv=2))
        c.wait_for(entered)
        end(c)

    def slow(it: Recorder, evt: object) -> None:
        entered.set()
        time.sleep(3 * relief.PATIENCE)  # so that the relief thread reads
        it.ws.send("answer")

    played = play(script, on={"message": slow})
    assert played.entries == [("open", 1), ("message", 1, "slow"), ("error", 3), ("close", 3, 1006, "", False)]
    if end is Connection.half_close:
        assert played.seen.messages == ["answer"]
        assert played.seen.close is not None
        assert played.seen.close[0] == 1002


# name: (what the server sends, the messages, the pongs)
RIGHT: dict[str, tuple[bytes, list[str | bytes], list[bytes]]] = {
    "an empty text": (frame(TEXT), [""], []),
    "an empty binary": (frame(BINARY), [b""], []),
    "non-ASCII text": (frame(TEXT, "héllo ✓ 😀"), ["héllo ✓ 😀"], []),
    "a byte order mark is kept": (frame(TEXT, "\ufeffbom"), ["\ufeffbom"], []),
    "noncharacters": (frame(TEXT, "\ufffe\uffff"), ["\ufffe\uffff"], []),
    "a NUL": (frame(TEXT, "a\0b"), ["a\0b"], []),
    "bytes": (frame(BINARY, b"\x00\x01\x02\xfd\xfe\xff"), [b"\x00\x01\x02\xfd\xfe\xff"], []),
    "bytes that are no UTF-8": (
        frame(BINARY, b"\xff", fin=False) + frame(CONTINUATION, b"\xc3"),
        [b"\xff\xc3"],
        [],
    ),
    "texts and bytes in turn": (
        frame(TEXT, "1") + frame(BINARY, b"2") + frame(TEXT, "3") + frame(BINARY, b"4"),
        ["1", b"2", "3", b"4"],
        [],
    ),
    "a text in fragments": (
        frame(TEXT, "one ", fin=False) + frame(CONTINUATION, "two ", fin=False) + frame(CONTINUATION, "three"),
        ["one two three"],
        [],
    ),
    "empty fragments": (
        frame(TEXT, fin=False)
        + frame(CONTINUATION, fin=False)
        + frame(CONTINUATION, "x", fin=False)
        + frame(CONTINUATION),
        ["x"],
        [],
    ),
    "a character split over fragments": (
        frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION, b"\xac!"),
        ["€!"],
        [],
    ),
    "a ping": (frame(PING, b"p\x00\xff"), [], [b"p\x00\xff"]),
    "pings in order": (
        frame(PING, "1") + frame(TEXT, "between") + frame(PING, "2") + frame(PING),
        ["between"],
        [b"1", b"2", b""],
    ),
    "the largest ping": (frame(PING, "x" * 125), [], [b"x" * 125]),
    "a ping between fragments": (
        frame(TEXT, "one ", fin=False) + frame(PING, "mid") + frame(CONTINUATION, "two"),
        ["one two"],
        [b"mid"],
    ),
    "a pong nobody asked for": (frame(PONG, "hi") + frame(TEXT, "after"), ["after"], []),
    **{
        f"{size:,} bytes": (frame(BINARY, b"x" * size), [b"x" * size], [])
        for size in (125, 126, 127, 65535, 65536, 1 << 20)
    },
    "a megabyte of text": (frame(TEXT, "é" * (1 << 19)), ["é" * (1 << 19)], []),
    "a thousand at once": (
        b"".join(frame(TEXT, str(n)) for n in range(1000)),
        [str(n) for n in range(1000)],
        [],
    ),
}


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, feed) for name in RIGHT for feed in FEEDS if feed != "byte by byte" or len(RIGHT[name][0]) < 1000],
)
def test_a_frame_that_is_right_is_delivered(play: Play, name: str, how: str) -> None:
    data, messages, pongs = RIGHT[name]
    expected = [*messages, "tail"] if how == "with a tail" else messages

    def script(c: Connection) -> None:
        feed(c, how, data)
        c.send(frame(PING, "last"))
        while c.read_until(PONG).payload != b"last":
            pass
        c.close(1000, "bye")

    played = play(script)
    assert played.recorder.data == expected
    assert [type(data) for data in played.recorder.data] == [type(data) for data in expected]
    assert played.entries[0] == ("open", 1)
    assert played.entries[1:-1] == [("message", 1, data) for data in expected]
    assert played.entries[-1] == ("close", 3, 1000, "bye", True)
    assert played.seen.pongs == [*pongs, b"last"]
    assert (played.seen.close, played.seen.unmasked) == ((1000, "bye"), [])


@pytest.mark.parametrize("data", [frame(TEXT, "x" * 1000), frame(TEXT, "x", fin=False) + frame(0, "y" * 999)])
def test_a_message_of_exactly_max_size_is_delivered(play: Play, data: bytes) -> None:
    played = play(lambda c: c.handshake(then=data + close_frame()), max_size=1000)
    assert [len(text) for text in played.recorder.data] == [1000]
    assert played.entries[-1] == ("close", 3, 1005, "", True)


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, "x" * 1001),
        frame(BINARY, b"x" * 1001),
        frame(TEXT, "x" * 1000, fin=False) + frame(CONTINUATION, "x"),
        frame(TEXT, "é" * 501),
    ],
)
def test_a_message_of_one_byte_more_than_max_size_fails_the_connection(play: Play, data: bytes) -> None:
    played = play(lambda c: c.handshake(then=frame(TEXT, "x" * 1000) + data), max_size=1000)
    assert played.recorder.types == ["open", "message", "error", "close"]
    assert played.seen.close is not None
    assert played.seen.close[0] == 1009


def test_the_code_of_a_failure_is_not_lost_while_the_server_goes_on_sending(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "x", rsv=2))
        for _ in range(200):  # unread bytes would turn the client's end of TCP into a reset
            c.send(frame(BINARY, b"x" * 10_000))

    played = play(script)
    assert played.entries == [("open", 1), ("error", 3), ("close", 3, 1006, "", False)]
    assert played.seen.close is not None
    assert (played.seen.close[0], played.seen.end) == (1002, "eof")


@pytest.mark.parametrize(
    ("start", "on"),
    [
        pytest.param(b"x", {"open": lambda it, _: it.ws.close()}, id="close"),
        pytest.param(b"\xff", {}, id="failure"),
    ],
)
def test_a_frame_that_comes_faster_than_it_is_read_stops_no_timer(
    play: Play, monkeypatch: pytest.MonkeyPatch, start: bytes, on: dict[str, Action]
) -> None:
    monkeypatch.setattr(threaded, "RECEIVE", 1)  # byte
    monkeypatch.setattr(threaded, "LARGE", 1)
    monkeypatch.setattr(threaded, "BUFFERS", Buffers(0, 0))
    monkeypatch.setattr(threaded, "LINGER", 0.2)
    ended = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.pause(0.05)  # so that a close frame goes first
        c.send(bytes.fromhex("81 7f 0000 0000 0600 0000") + start)
        try:
            while True:
                c.send(bytes(1 << 20))
        finally:
            ended.set()

    played = play(script, on=on, close_timeout=0.2)
    assert played.entries[-1] == ("close", 3, 1006, "", False)
    assert ended.wait(5)  # the frame alone would take minutes


def test_a_frame_that_takes_long_to_inflate_stops_no_timer(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake("Sec-WebSocket-Extensions: permessage-deflate")
        c.send(bytes.fromhex("c1 7f 0000 0000 0600 0000"))
        while True:
            c.send(b"\3\0" * (1 << 19))  # final blocks without content

    start = time.monotonic()
    played = play(script, on={"open": lambda r, _: r.ws.close()}, close_timeout=0.2)
    assert played.entries[-1] == ("close", 3, 1006, "", False)
    assert time.monotonic() - start < 10  # in a row it would take 40 s


def test_what_the_client_does_in_its_error_handler_changes_nothing(play: Play) -> None:
    def in_error(r: Recorder, _: object) -> None:
        r.ws.close(3000, "too late")
        r.ws.send("x")
        r.note("buffered", r.ws.bufferedAmount)

    played = play(lambda c: c.handshake(then=frame(3)), on={"error": in_error})
    assert played.entries == [("open", 1), ("error", 3), ("buffered", 1), ("close", 3, 1006, "", False)]
    assert played.seen.close is not None
    assert (played.seen.close[0], played.seen.messages) == (1002, [])


# -- the masking key (RFC 6455 section 5.3)

SENT = 2000  # messages of one connection


def test_the_masking_key_is_fresh_for_each_frame_and_unpredictable(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(PING, "p"))
        while len(c.seen.messages) < SENT:
            c.read()
        c.close(1000)

    def send(r: Recorder, _: object) -> None:
        for _ in range(SENT):
            r.ws.send("the same text")

    frames = [f for _ in range(2) for f in play(script, on={"open": send}).seen.frames]
    assert {f.opcode for f in frames} == {TEXT, PONG, CLOSE}  # each kind of frame has its own
    assert all(f.masked for f in frames)
    keys = [int.from_bytes(f.key, "big") for f in frames]
    # Of 4,000 random numbers of 32 bits, two are equal by chance in one run of 500, four pairs in one of 10**12.
    fresh = len(keys) - 4
    assert len(set(keys)) > fresh
    # Neither a counter nor a walk: the steps from key to key are as different.
    assert len({b - a for a, b in pairwise(keys)}) > fresh
    assert len({a ^ b for a, b in pairwise(keys)}) > fresh
    # Every bit is set in about a half of them: 40 % are twelve standard deviations away.
    assert all(0.4 < sum(key >> bit & 1 for key in keys) / len(keys) < 0.6 for bit in range(32))
