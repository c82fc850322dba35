"""send(): what may be sent, in which order it arrives, and that it never waits for the peer."""

from __future__ import annotations

import array
import ctypes
import mmap
import threading
from typing import Any

import pytest

import bws
from tests.conftest import TIMEOUT, Mode, Play, Recorder
from tests.wire.frames import BINARY, TEXT, Data
from tests.wire.server import Connection, ScriptedServer

RAW = b"\0\1\xfd\xfe\xff"
SMALL = 4096  # bytes of a receive buffer: a server that does not read is soon felt
BIG = 8 << 20  # bytes that no buffer of loopback takes


def _mapped() -> mmap.mmap:
    memory = mmap.mmap(-1, len(RAW))
    memory.write(RAW)
    return memory


class Text(str):
    """A str that says other things than it holds."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"something else"

    def __len__(self) -> int:
        return 3

    def __str__(self) -> str:
        return "something else"


class Bytes(bytes):
    """The same for bytes."""

    def __len__(self) -> int:
        return 3

    def __bytes__(self) -> bytes:
        return b"something else"


@pytest.mark.parametrize(
    ("data", "arrives"),
    [
        ("a", "a"),
        ("", ""),
        ("hé ✓ 😀 \0 end", "hé ✓ 😀 \0 end"),
        ("x" * 65536, "x" * 65536),
        ("a\ud800b", "a\ufffdb"),
        ("\udfff", "\ufffd"),
        ("\udc00\ud800", "\ufffd\ufffd"),
        ("\ud83d\ude00", "😀"),  # a pair, as JavaScript writes it
        (RAW, RAW),
        (b"", b""),
        (bytearray(RAW), RAW),
        (memoryview(b"ab" + RAW + b"cd")[2:-2], RAW),
        (array.array("H", [1, 2]), array.array("H", [1, 2]).tobytes()),
        (array.array("d"), b""),
        ((ctypes.c_ubyte * 5)(*RAW), RAW),
        (_mapped(), RAW),
        (memoryview(bytes(range(12))).cast("B", (3, 4)), bytes(range(12))),
        (b"x" * 70_000, b"x" * 70_000),
        (Text("héllo"), "héllo"),
        (Text("x" * 70_000), "x" * 70_000),
        (Bytes(RAW), RAW),
        (Bytes(b"x" * 70_000), b"x" * 70_000),
    ],
)
def test_text_and_buffers_arrive_as_they_were(play: Play, data: Any, arrives: Data) -> None:
    def on_message(r: Recorder, _: object) -> None:
        r.ws.close()

    played = play(Connection.echo, on={"open": lambda r, _: r.ws.send(data), "message": on_message})
    assert played.seen.messages == [arrives]
    assert played.recorder.data == [arrives]
    assert [f.opcode for f in played.seen.frames[:1]] == [TEXT if isinstance(arrives, str) else BINARY]
    assert played.seen.unmasked == []


@pytest.mark.parametrize("data", [None, 1, 1.5, True, {}, [1, 2], object(), ("x",), {"x"}, iter("x"), Exception()])
@pytest.mark.parametrize("when", ["connecting", "open", "closed"])
def test_what_is_neither_raises_and_names_json(mode: Mode, data: Any, when: str) -> None:
    with ScriptedServer(Connection.drain if when == "connecting" else Connection.echo) as server:
        ws = mode.open(server.url)
        if when != "connecting":
            assert ws.wait_open(TIMEOUT)
        if when == "closed":
            ws.close()
            assert ws.wait_closed(TIMEOUT)
        with pytest.raises(TypeError, match=r"json\.dumps") as caught:
            ws.send(data)
        assert type(data).__name__ in str(caught.value)
        assert ws.bufferedAmount == 0


def test_a_buffer_that_is_not_contiguous_raises(mode: Mode) -> None:
    with ScriptedServer(Connection.echo) as server:
        ws = mode.open(server.url)
        assert ws.wait_open(TIMEOUT)
        with pytest.raises(TypeError, match="contiguous"):
            ws.send(memoryview(b"abcdef")[::2])


def test_before_open_it_raises_and_nothing_is_kept(play: Play) -> None:
    def start(r: Recorder) -> None:
        with pytest.raises(bws.InvalidStateError) as caught:
            r.ws.send("early")
        r.note(caught.value.name, r.ws.bufferedAmount, r.ws.readyState)

    played = play(Connection.handshake, start=start, on={"open": lambda r, _: r.ws.close()})
    assert played.entries[0] == ("InvalidStateError", 0, 0)
    assert played.seen.messages == []


def test_after_close_it_is_dropped_and_counted(play: Play) -> None:
    def in_open(r: Recorder, _: object) -> None:
        r.ws.close()
        for data in ("12345", "é", b"x" * 200, ""):
            r.ws.send(data)
            r.note("buffered", r.ws.bufferedAmount)

    def on_close(r: Recorder, _: object) -> None:
        r.ws.send("abc")
        r.note("buffered", r.ws.bufferedAmount)

    played = play(Connection.echo, on={"open": in_open, "close": on_close})
    assert [amount for _, amount in played.recorder.of("buffered")] == [5, 7, 207, 207, 210]
    assert played.seen.messages == []
    assert played.recorder.ws.bufferedAmount == 210


def test_a_server_that_does_not_read_delays_nobody(mode: Mode) -> None:
    """Neither send() nor close() waits; what the system does not take is counted, and goes out in the end."""
    reads = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(reads)

    with ScriptedServer(script, receive_buffer=SMALL) as server:
        ws = mode.open(server.url)
        recorder = Recorder(ws)
        recorder.wait_for("open")
        ws.send(b"x" * BIG)
        for n in range(100):
            ws.send(str(n))
        waiting = ws.bufferedAmount
        assert 0 < waiting <= BIG + 190
        assert not ws.flush(0.05)
        ws.close(1000, "bye")
        ws.send("late")
        assert server.connections[0].seen.frames == []  # all calls came back although nobody has read a byte
        assert ws.readyState == 2
        reads.set()
        assert recorder.closed()[1:] == [("close", 3, 1000, "bye", True)]
        seen = server.result()
    assert seen.messages == [b"x" * BIG, *(str(n) for n in range(100))]
    assert ws.bufferedAmount == len("late")


def test_flush_returns_when_the_system_has_taken_all(mode: Mode) -> None:
    reads = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(reads)

    with ScriptedServer(script, receive_buffer=SMALL) as server:
        ws = mode.open(server.url)
        assert ws.wait_open(TIMEOUT)
        assert ws.flush(0)  # nothing waits
        ws.send(b"x" * BIG)
        assert not ws.flush(0)
        reads.set()
        assert ws.flush()
        assert ws.bufferedAmount == 0


def test_flush_says_when_the_connection_ended_with_something_unsent(mode: Mode) -> None:
    cut = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(cut)
        c.reset()

    with ScriptedServer(script, receive_buffer=SMALL) as server:
        ws = mode.open(server.url)
        assert ws.wait_open(TIMEOUT)
        ws.send(b"x" * BIG)
        cut.set()
        assert not ws.flush(TIMEOUT)
        assert ws.wait_closed(TIMEOUT)
        assert ws.bufferedAmount > 0


def test_a_buffer_that_changes_after_send_changes_nothing(mode: Mode) -> None:
    reads = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(reads)

    with ScriptedServer(script, receive_buffer=SMALL) as server:
        ws = mode.open(server.url)
        assert ws.wait_open(TIMEOUT)
        data = bytearray(b"x" * BIG)
        for view in (data, memoryview(data)):
            ws.send(view)
        data[:] = b"y" * BIG
        reads.set()
        ws.close()
        assert server.result().messages == [b"x" * BIG] * 2


def test_messages_of_many_threads_arrive_whole_and_in_each_threads_order(mode: Mode) -> None:
    threads, count = 8, 50

    def body(thread: int, n: int) -> str:
        return f"{thread} {n} " + str(n % 10) * (n * 997 % 30_000)

    with ScriptedServer(Connection.handshake, receive_buffer=SMALL) as server:
        ws = mode.open(server.url)
        assert ws.wait_open(TIMEOUT)
        start = threading.Barrier(threads)

        def work(thread: int) -> None:
            start.wait()
            for n in range(count):
                ws.send(body(thread, n))

        workers = [threading.Thread(target=work, args=[n]) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert ws.flush(TIMEOUT)
        ws.close()
        messages = server.result().messages
    assert len(messages) == threads * count
    for thread in range(threads):
        own = [text for text in messages if str(text).startswith(f"{thread} ")]
        assert own == [body(thread, n) for n in range(count)]


@pytest.mark.parametrize("where", ["message", "elsewhere"])
def test_what_is_sent_where_ever_comes_back_in_order(mode: Mode, where: str) -> None:
    texts = [str(n) for n in range(300)]

    def on_message(r: Recorder, evt: Any) -> None:
        if where == "message" and len(r.data) < len(texts):
            r.ws.send(texts[len(r.data)])

    with ScriptedServer(Connection.echo) as server:
        recorder = Recorder(mode.open(server.url), {"message": on_message})
        recorder.wait_for("open")
        for text in texts[:1] if where == "message" else texts:
            recorder.ws.send(text)
        recorder.wait_for("message", len(texts))
        assert recorder.data == texts


def test_a_ping_gets_its_round_trip_time_where_handlers_run(mode: Mode) -> None:
    times: list[tuple[float, threading.Thread]] = []
    ponged = threading.Event()

    def on_pong(seconds: float) -> None:
        times.append((seconds, threading.current_thread()))
        if len(times) == 2:
            ponged.set()

    with ScriptedServer(Connection.echo) as server:
        recorder = Recorder(mode.open(server.url))
        recorder.wait_for("open")
        recorder.ws.ping(b"x" * 125, on_pong)
        recorder.ws.ping(callback=on_pong)
        recorder.ws.ping(bytearray(b"nobody waits"))
        assert ponged.wait(TIMEOUT)
        recorder.ws.close()
        recorder.closed()
        recorder.ws.ping(b"late")
        assert server.result().pings[0] == b"x" * 125
    assert all(0 < seconds < TIMEOUT for seconds, _ in times)
    assert all(mode.is_handler_thread(thread) for _, thread in times)
