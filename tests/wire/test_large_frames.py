"""Large frames of the server: they come in many pieces, are read into one buffer, and are looked at as they come."""

from __future__ import annotations

import gc
import os
import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest

import bws
from bws._engine import frames, relief, threaded
from bws._engine.buffers import BUFFERS, Buffers
from bws._engine.frames import LARGE_BUFFER, LARGE_REST, FrameReader
from tests.conftest import TIMEOUT, Mode, Play, Recorder
from tests.wire.frames import BINARY, CLOSE, CONTINUATION, TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

PAUSE = 0.002  # s, in which the client reads what is there
# bytes of a message, around all limits
SIZES = [1000, LARGE_REST, 2 * LARGE_REST + 1, LARGE_BUFFER - 1, LARGE_BUFFER, LARGE_BUFFER + 1, 3 * LARGE_BUFFER]
# bytes that come at once, and then a pause
PIECES = [LARGE_REST + 2, 200_001, LARGE_BUFFER]


def message(kind: type, size: int) -> str | bytes:
    """One of that many bytes."""
    if kind is bytes:
        return os.urandom(size)
    letters = "".join(random.choices("aé€😀", k=100)) * (size // 400)  # none has more than four bytes
    return letters + "x" * (size - len(letters.encode()))


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
    assert "not UTF-8" in str(played.recorder.error)
    assert played.recorder.error.__context__ is None  # it would keep what was read
    assert played.seen.close is not None
    assert played.seen.close[0] == 1007


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_a_bad_byte_in_a_large_frame_is_told_on_the_wire_although_tcp_ends_behind_it(
    mode: Mode, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through TLS nothing can be written any more when that end was read."""
    ended = threading.Event()

    class Late(Buffers):
        def borrow(self) -> memoryview | None:
            assert ended.wait(TIMEOUT)
            return super().borrow()

    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(TEXT)  # nothing waits to be delivered any more
        c.send(frame(TEXT, b"x" * 1000 + b"\xff", length=LARGE_BUFFER))
        c.half_close()
        ended.set()
        c.drain()

    monkeypatch.setattr(threaded, "BUFFERS", Late(1, LARGE_BUFFER))
    with ScriptedServer(script, tls=["localhost"] if tls else ()) as server:
        url = f"wss://localhost:{server.port}/" if tls else server.url
        ws = mode.open(url, ssl=server.ssl_context if tls else None)
        recorder = Recorder(ws, {"open": lambda r, _: r.ws.send("go on")})
        assert recorder.closed() == [("open", 1), ("error", 3), ("close", 3, 1006, "", False)]
        close = server.result().close
    assert close is not None
    assert close[0] == 1007


@pytest.mark.parametrize("size", [0, 1000, 300_000])
@pytest.mark.parametrize("with_handshake", [True, False])
def test_an_end_inside_a_large_frame_loses_nothing_before_it(
    play: Play, mode: Mode, monkeypatch: pytest.MonkeyPatch, size: int, with_handshake: bool
) -> None:
    monkeypatch.setattr(relief.Relief, "serves", lambda *_: False)  # nobody else reads while the handler runs
    data = frame(TEXT, "before") + frame(BINARY, b"x" * size, length=1 << 20)

    def script(c: Connection) -> None:
        c.handshake(then=data if with_handshake else b"")
        if not with_handshake:
            c.send(data)
        c.half_close()
        c.drain()

    played = play(script, on={"message": lambda r, evt: r.ws.send(evt.data)})
    assert played.entries == [("open", 1), ("message", 1, "before"), ("close", 3, 1006, "", False)]
    if mode.name == "threaded":  # elsewhere the answer may come too late
        assert played.seen.messages == ["before"]


def test_a_reset_inside_a_large_frame_is_one_of_the_connection(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(TEXT)
        c.send(frame(BINARY, b"x" * 300_000, length=1 << 20))
        c.pause(PAUSE)
        c.reset()

    played = play(script, on={"open": lambda r, _: r.ws.send("go on")})
    assert played.entries == [("open", 1), ("close", 3, 1006, "", False)]
    error = played.recorder.events[-1].error
    assert isinstance(error, ConnectionError)
    assert "without a close frame" not in str(error)  # as a plain end of TCP would be


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
    assert len(BUFFERS) == 4


def test_no_memory_for_a_large_frame_ends_the_connection_behind_what_came_before(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(FrameReader, "feed_large", no_memory)
    played = play(lambda c: c.handshake(then=frame(TEXT, "before") + frame(TEXT, "x" * LARGE_BUFFER)))
    assert played.entries == [("open", 1), ("message", 1, "before"), ("error", 3), ("close", 3, 1006, "", False)]
    assert isinstance(played.recorder.error, MemoryError)


@pytest.mark.parametrize(
    "buffers", [Buffers(0, LARGE_BUFFER), Buffers(1, 1 << 62)], ids=["all are in use", "no memory"]
)
def test_without_a_buffer_large_frames_come_all_the_same(
    play: Play, monkeypatch: pytest.MonkeyPatch, buffers: Buffers
) -> None:
    count = len(buffers)
    monkeypatch.setattr(threaded, "BUFFERS", buffers)
    text = "é" * LARGE_BUFFER

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, text))
        pause(c, frame(TEXT, text), PIECES)
        c.close(1000)

    assert play(script).recorder.data == [text, text]
    assert len(buffers) == count


def test_large_messages_after_close_do_not_wait_behind_a_slow_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave, sent = (threading.Event() for _ in range(3))
    waiting: list[int] = []

    def note(reader: FrameReader, data: memoryview) -> None:
        waiting.append(reader.waiting)
        feed(reader, data)

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "first"))
        c.read_until(CLOSE)
        for _ in range(20):
            c.send(frame(TEXT, "x" * LARGE_BUFFER))
        sent.set()
        c.close(1000)

    def handler(evt: object) -> None:
        entered.set()
        assert leave.wait(TIMEOUT)

    feed = FrameReader.feed_large
    monkeypatch.setattr(FrameReader, "feed_large", note)
    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url)
        ws.bind("message", handler)
        assert entered.wait(TIMEOUT)
        ws.close()
        assert sent.wait(TIMEOUT)
        leave.set()
        assert ws.wait_closed(TIMEOUT)
    assert len(waiting) > 9
    assert set(waiting) == {0}


DEFLATE = ["Sec-WebSocket-Extensions: permessage-deflate"]


@pytest.mark.parametrize(
    ("size", "extra", "later"),
    [
        pytest.param(100, [], 12_000, id="small messages"),
        pytest.param(1500, [], 20_000, id="larger ones"),
        pytest.param(58_000, [], 12_000, id="a large one"),
        pytest.param(1500, DEFLATE, 4096, id="what may be compressed"),
    ],
)
def test_where_much_comes_more_is_read_at_a_time(
    monkeypatch: pytest.MonkeyPatch, size: int, extra: list[str], later: int
) -> None:
    for name, value in {"MUCH": 2048, "RECEIVE": 4096, "LARGE": 12_000, "HUGE": 20_000}.items():
        monkeypatch.setattr(threaded, name, value)
    monkeypatch.setattr(relief, "PATIENCE", TIMEOUT)
    sent, reads = threading.Event(), []
    messages = [bytes(size)] * (60_000 // size)

    def note(reader: FrameReader, data: bytes) -> bool:
        reads.append(len(data))
        return feed(reader, data)

    def script(c: Connection) -> None:
        c.handshake(*extra)
        c.read_until(TEXT)
        c.send(b"".join(frame(BINARY, each) for each in messages))
        sent.set()
        c.close(1000)

    def on_open(evt: object) -> None:
        ws.send("go")
        assert sent.wait(TIMEOUT)

    got: list[Any] = []
    feed = FrameReader.feed
    monkeypatch.setattr(FrameReader, "feed", note)
    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url)
        ws.bind("message", lambda evt: got.append(evt.data))
        ws.bind("open", on_open)
        assert ws.wait_closed(TIMEOUT)
    assert got == messages
    assert 4096 in reads
    assert max(reads) == later


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize(
    ("end", "closed"),
    [
        (close_frame(3000, "enough"), (3000, "enough", True)),
        (b"", (1006, "", False)),
        (frame(3), (1006, "", False)),
    ],
    ids=["close", "end of TCP", "violation"],
)
def test_what_is_read_later_as_too_much_waits_comes_before_the_end(
    play: Play, monkeypatch: pytest.MonkeyPatch, blocked: bool, end: bytes, closed: tuple[int, str, bool]
) -> None:
    monkeypatch.setattr(frames, "_STEP", 1000)
    monkeypatch.setattr(frames, "_TOO_MANY", 10)
    monkeypatch.setattr(relief, "PATIENCE", 0.01)
    ended = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.send(frame(TEXT, "x") * 5000 + end)
        c.half_close()
        ended.set()

    def on_message(recorder: Recorder, _: object) -> None:
        if blocked and len(recorder.data) == 1:
            assert ended.wait(TIMEOUT)
            threading.Event().wait(0.1)  # in which the relief thread reads

    played = play(script, on={"message": on_message})
    assert played.recorder.data == ["x"] * 5000
    assert played.entries[-1] == ("close", 3, *closed)


class Slow:
    """A socket that gives one byte at a time, and notes how many reads there were in a row."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.reads = 0

    def recv_into(self, buffer: memoryview) -> int:
        self.reads += 1
        return int(self._sock.recv_into(buffer[:1]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_a_large_frame_that_comes_faster_than_it_is_read_stops_no_timer(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    socks: list[Slow] = []
    rows: list[int] = []

    def note(reader: FrameReader, data: memoryview) -> None:
        rows.append(sum(sock.reads for sock in socks))
        for sock in socks:
            sock.reads = 0
        feed(reader, data)

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "first"))
        c.read_until(TEXT)
        c.send(frame(BINARY, bytes(LARGE_BUFFER), length=1 << 30))
        while True:
            c.send(bytes(LARGE_BUFFER))

    feed = FrameReader.feed_large
    monkeypatch.setattr(FrameReader, "feed_large", note)

    def on_message(r: Recorder, evt: Any) -> None:
        engine: Any = r.ws._engine
        engine._sock = Slow(engine._sock)
        socks.append(engine._sock)
        r.ws.send("go")
        r.ws.close()

    played = play(script, on={"message": on_message}, close_timeout=0.5, max_size=None)
    assert played.entries[-1] == ("close", 3, 1006, "", False)
    assert max(rows) == threaded.READS


def test_a_large_frame_that_comes_in_small_pieces_leaves_nothing_to_the_garbage_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = threading.Semaphore(0)

    def note(reader: FrameReader, data: memoryview) -> None:
        feed(reader, data)
        seen.release()

    def script(c: Connection) -> None:
        c.handshake(then=frame(BINARY, b"x", length=LARGE_BUFFER))
        c.read_until(TEXT)
        for _ in range(200):
            c.send(b"x")
            assert seen.acquire(timeout=TIMEOUT)
        c.half_close()

    feed = FrameReader.feed_large
    monkeypatch.setattr(FrameReader, "feed_large", note)
    gc.collect()
    gc.disable()
    try:
        with ScriptedServer(script) as server:
            recorder = Recorder(bws.WebSocket(server.url), {"open": lambda r, _: r.ws.send("go on")})
            assert recorder.closed()[-1] == ("close", 3, 1006, "", False)
        kept = sum(type(each) is BlockingIOError for each in gc.get_objects())
    finally:
        gc.enable()
    assert kept < 10
