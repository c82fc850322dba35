"""Large frames of the server: they come in many pieces, are read into one buffer, and are looked at as they come."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sequence

import pytest

import bws
from bws._engine import threaded
from bws._engine.frames import LARGE_BUFFER, LARGE_REST, FrameReader
from tests.conftest import TIMEOUT, Mode, Play, Recorder
from tests.wire.frames import BINARY, CONTINUATION, TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

PAUSE = 0.002  # s, in which the client reads what is there
# bytes of a message, around all limits
SIZES = [1000, LARGE_REST, 2 * LARGE_REST + 1, LARGE_BUFFER - 1, LARGE_BUFFER, LARGE_BUFFER + 1, 3 * LARGE_BUFFER]
# bytes that come at once, and then a pause
PIECES = [LARGE_REST + 2, 200_001, LARGE_BUFFER]


def message(kind: type, size: int) -> str | bytes:
    """One of that many bytes, no two alike."""
    if kind is bytes:
        return os.urandom(size)
    letters = "".join(random.choices("aé€😀", k=1000))
    return (letters * (size // 2000) + "x" * size)[:size].encode()[:size].decode("utf-8", "ignore")


def pause(c: Connection, data: bytes, pieces: Sequence[int]) -> None:
    """Send the data in pieces of these sizes in turn."""
    position, turn = 0, 0
    while position < len(data):
        size = pieces[turn % len(pieces)]
        c.send(data[position : position + size])
        c.pause(PAUSE)
        position, turn = position + size, turn + 1


@pytest.mark.parametrize("kind", [str, bytes])
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_large_messages_come_whole_in_whatever_pieces(mode: Mode, kind: type, tls: bool) -> None:
    messages = [message(kind, size) for size in SIZES]
    opcode = TEXT if kind is str else BINARY

    def script(c: Connection) -> None:
        c.handshake()
        for each in messages:
            pause(c, frame(opcode, each), PIECES)
        c.send(b"".join(frame(opcode, each) for each in messages))
        half = len(messages[-1]) // 2
        c.send(frame(opcode, messages[-1][:half], fin=False) + frame(CONTINUATION, messages[-1][half:]))
        c.close(1000)

    with ScriptedServer(script, tls=["localhost"] if tls else ()) as server:
        url = f"wss://localhost:{server.port}/" if tls else server.url
        recorder = Recorder(mode.open(url, ssl=server.ssl_context if tls else None))
        assert recorder.closed()[-1] == ("close", 3, 1000, "", True)
    assert recorder.data == [*messages, *messages, messages[-1]]


@pytest.mark.parametrize("good", [1, LARGE_REST + 1, 3 * LARGE_BUFFER])
def test_a_bad_byte_in_a_large_frame_fails_the_connection_when_it_comes(play: Play, good: int) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "before") + frame(TEXT, b"x" * good, length=1 << 30))
        c.pause(PAUSE)
        c.send(b"\xff")  # and nothing more

    played = play(script, max_size=None)
    assert played.entries == [("open", 1), ("message", 1, "before"), ("error", 3), ("close", 3, 1006, "", False)]
    assert played.seen.close is not None
    assert played.seen.close[0] == 1007


@pytest.mark.parametrize("ends", [Connection.half_close, Connection.reset], ids=["end of TCP", "reset"])
def test_an_end_inside_a_large_frame_loses_nothing_before_it(play: Play, ends: object) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "before"))
        c.read_until(TEXT)
        c.send(frame(BINARY, b"x" * 300_000, length=1 << 20))
        c.pause(PAUSE)
        assert callable(ends)
        ends(c)

    played = play(script, on={"message": lambda r, evt: r.ws.send(evt.data)})
    assert played.entries == [("open", 1), ("message", 1, "before"), ("close", 3, 1006, "", False)]


def test_a_large_frame_behind_the_close_frame_is_ignored(play: Play) -> None:
    played = play(lambda c: c.handshake(then=close_frame(1000, "bye") + frame(TEXT, b"\xff" * 300_000)))
    assert played.entries == [("open", 1), ("close", 3, 1000, "bye", True)]


def test_a_message_in_progress_at_close_is_of_no_use(play: Play) -> None:
    def script(c: Connection) -> None:
        text = frame(TEXT, "x" * LARGE_BUFFER)
        c.handshake(then=text[:-10])
        while c.readable() is False:
            c.pause(PAUSE)
        c.send(text[-10:])
        c.behave()

    played = play(script, on={"open": lambda r, _: r.ws.close(4000, "enough")})
    assert played.entries == [("open", 1), ("close", 3, 4000, "enough", True)]


def test_messages_of_many_sockets_at_once_are_not_mixed_up(mode: Mode) -> None:
    count, times = 8, 10
    letters = "abcdefgh"

    def script(c: Connection) -> None:
        c.handshake()
        letter = letters[c.number % count]
        for i in range(times):
            pause(c, frame(TEXT, letter * (LARGE_BUFFER - i)), [400_000])
        c.close(1000)

    with ScriptedServer(script) as server:
        recorders = [Recorder(mode.open(server.url)) for _ in range(count)]
        for recorder in recorders:
            assert recorder.closed()[-1] == ("close", 3, 1000, "", True)
    got = []
    for recorder in recorders:
        (letter,) = {data[0] for data in recorder.data}
        assert recorder.data == [letter * (LARGE_BUFFER - i) for i in range(times)]
        got.append(letter)
    assert sorted(got) == list(letters)
    assert len(threaded._buffers) <= threaded.BUFFERS


@pytest.mark.parametrize("where", ["buffer", "message"])
def test_no_memory_for_a_large_frame_ends_the_connection_behind_what_came_before(
    play: Play, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def no_memory(*_: object) -> memoryview:
        raise MemoryError

    if where == "buffer":
        monkeypatch.setattr(threaded, "_a_buffer", no_memory)
    else:
        monkeypatch.setattr(FrameReader, "feed_large", no_memory)
    played = play(lambda c: c.handshake(then=frame(TEXT, "before") + frame(TEXT, "x" * LARGE_BUFFER)))
    assert played.entries == [("open", 1), ("message", 1, "before"), ("error", 3), ("close", 3, 1006, "", False)]
    assert isinstance(played.recorder.error, MemoryError)


def test_a_server_whose_large_frame_trickles_is_not_waited_for_longer_than_it_says() -> None:
    """The timers of this side are looked at between the pieces."""
    stop = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(BINARY, b"x", length=1 << 30))
        while not stop.is_set():
            c.send(b"x")
            c.pause(PAUSE)

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, close_timeout=0.2, max_size=None)
        assert ws.wait_open(TIMEOUT)
        start = time.monotonic()
        ws.close()
        assert ws.wait_closed(TIMEOUT)
        stop.set()
        assert time.monotonic() - start < TIMEOUT / 2
