"""Frames of the server: what is delivered, and what fails the connection with which code on the wire."""

from __future__ import annotations

import struct

import pytest

from tests.conftest import Play, Recorder
from tests.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame
from tests.wire.server import Connection

TAIL = frame(TEXT, "tail")

# how the same bytes may arrive
FEEDS = ["with the handshake", "in one piece", "byte by byte", "with a tail"]


def feed(c: Connection, how: str, data: bytes) -> None:
    """Accept the handshake and send the bytes."""
    c.handshake(then=data if how == "with the handshake" else data + TAIL if how == "with a tail" else b"")
    if how == "in one piece":
        c.send(data)
    elif how == "byte by byte":
        for byte in data:
            c.send(bytes([byte]))


# name: (what the server sends, the code the client's close frame must have)
WRONG: dict[str, tuple[bytes, int]] = {
    "a masked text": (frame(TEXT, "masked", mask=b"\1\2\3\4"), 1002),
    "a masked ping": (frame(PING, "x", mask=b"\1\2\3\4"), 1002),
    "RSV1 without an extension": (frame(TEXT, "x", rsv=4), 1002),
    "RSV2": (frame(TEXT, "x", rsv=2), 1002),
    "RSV3": (frame(BINARY, "x", rsv=1), 1002),
    "RSV3 in a ping": (frame(PING, "x", rsv=1), 1002),
    "RSV1 in a close frame": (frame(CLOSE, struct.pack("!H", 1000), rsv=4), 1002),
    **{f"opcode {n}": (frame(n, b"x"), 1002) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a ping without FIN": (frame(PING, "x", fin=False), 1002),
    "a ping of 126 bytes": (frame(PING, "x" * 126), 1002),
    "a pong of 126 bytes": (frame(PONG, "x" * 126), 1002),
    "a ping with a long length": (frame(PING, "x", length_bytes=2), 1002),
    "a continuation of nothing": (frame(CONTINUATION, "x"), 1002),
    "a continuation of nothing, without FIN": (frame(CONTINUATION, "x", fin=False), 1002),
    "a continuation of a whole message": (frame(TEXT, "one") + frame(CONTINUATION, "x"), 1002),
    "a text inside a fragmented one": (frame(TEXT, "one", fin=False) + frame(TEXT, "two"), 1002),
    "bytes inside a fragmented text": (frame(TEXT, "one", fin=False) + frame(BINARY, "two", fin=False), 1002),
    "5 bytes in 16-bit form": (frame(TEXT, "hello", length_bytes=2), 1002),
    "5 bytes in 64-bit form": (frame(TEXT, "hello", length_bytes=8), 1002),
    "125 bytes in 16-bit form": (frame(TEXT, "x" * 125, length_bytes=2), 1002),
    "65,535 bytes in 64-bit form": (frame(TEXT, length=65535, length_bytes=8), 1002),
    "a length with the top bit": (frame(BINARY, length=1 << 63, length_bytes=8), 1002),
    "text that is not UTF-8": (frame(TEXT, b"\xc3\x28"), 1007),
    "text with an encoded surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "text in overlong UTF-8": (frame(TEXT, b"\xc0\xaf"), 1007),
    "text above U+10FFFF": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "text cut in a character": (frame(TEXT, b"abc\xe2\x82"), 1007),
    "fragmented text cut in a character": (
        frame(TEXT, b"abc\xe2", fin=False) + frame(CONTINUATION, b"\x82"),
        1007,
    ),
    "a first fragment that is not UTF-8": (frame(TEXT, b"abc\xff", fin=False), 1007),
    "a later fragment that is not UTF-8": (
        frame(TEXT, b"abc\xe2\x82", fin=False) + frame(PING, "x") + frame(CONTINUATION, b"(", fin=False),
        1007,
    ),
    "half a frame whose beginning is not UTF-8": (frame(TEXT, b"abc\xff", length=1000), 1007),
    "a close frame of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a close frame without FIN": (frame(CLOSE, struct.pack("!H", 1000), fin=False), 1002),
    "a close frame of 126 bytes": (frame(CLOSE, struct.pack("!H", 1000) + b"x" * 124), 1002),
    "a close reason that is not UTF-8": (close_frame(1000, b"\xff\xfe"), 1007),
    "more than max_size in one frame": (frame(BINARY, b"x" * 70_001), 1009),
    "a frame that announces more than max_size": (frame(TEXT, length=70_001), 1009),
    "a frame that announces 2**63-1 bytes": (frame(TEXT, b"hello", length=(1 << 63) - 1), 1009),
    "more than max_size in two fragments": (
        frame(BINARY, b"x" * 40_000, fin=False) + frame(CONTINUATION, b"x" * 40_000),
        1009,
    ),
    "more than max_size announced in fragments": (
        frame(TEXT, b"x" * 70_000, fin=False) + frame(CONTINUATION, length=1),
        1009,
    ),
}
SLOW = {name for name, (data, _) in WRONG.items() if len(data) > 1000}  # not byte by byte

# what was whole before the wrong frame is delivered
BEFORE = {"a continuation of a whole message": ["before", "one"]}


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, how) for name in WRONG for how in FEEDS if how != "byte by byte" or name not in SLOW],
)
def test_a_frame_that_is_wrong_fails_the_connection(play: Play, name: str, how: str) -> None:
    data, code = WRONG[name]
    played = play(lambda c: feed(c, how, frame(TEXT, "before") + data), max_size=70_000)
    assert played.entries == [
        ("open", 1),
        *(("message", 1, text) for text in BEFORE.get(name, ["before"])),
        ("error", 3),
        ("close", 3, 1006, "", False),
    ]
    assert played.seen.close is not None
    assert played.seen.close[0] == code
    assert (played.seen.after_close, played.seen.unmasked, played.seen.end) == ([], [], "eof")
    error = played.recorder.error
    assert isinstance(error, ConnectionError)
    assert error.close_code == code  # type: ignore[attr-defined]
    assert played.recorder.events[-1].error is error


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


def test_a_wrong_frame_is_told_before_the_frame_has_ended(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.send(frame(TEXT, b"\xff", length=100))
        c.read_until(CLOSE)  # the server sends nothing more

    close = play(script).seen.close
    assert close is not None
    assert close[0] == 1007


def test_the_code_of_a_failure_is_not_lost_while_the_server_goes_on_sending(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "x", rsv=2))
        for _ in range(200):  # unread bytes would turn the client's end of TCP into a reset
            c.send(frame(BINARY, b"x" * 10_000))

    played = play(script)
    assert played.entries == [("open", 1), ("error", 3), ("close", 3, 1006, "", False)]
    assert played.seen.close is not None
    assert (played.seen.close[0], played.seen.end) == (1002, "eof")


def test_what_the_client_does_in_its_error_handler_changes_nothing(play: Play) -> None:
    def in_error(r: Recorder, _: object) -> None:
        r.ws.close(3000, "too late")
        r.ws.send("x")
        r.note("buffered", r.ws.bufferedAmount)

    played = play(lambda c: c.handshake(then=frame(3)), on={"error": in_error})
    assert played.entries == [("open", 1), ("error", 3), ("buffered", 1), ("close", 3, 1006, "", False)]
    assert played.seen.close is not None
    assert (played.seen.close[0], played.seen.messages) == (1002, [])
