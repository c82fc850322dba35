"""While handlers are slow: the connection lives, memory is bounded, nothing is lost. And keep-alive."""

from __future__ import annotations

import contextlib
import errno
import itertools
import queue
import select
import socket
import struct
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest

import bws
from bws import _delivery, _settings
from bws._engine import frames, threaded
from bws._engine.deflate import Agreement, Inflater
from bws._engine.frames import FrameReader
from tests.conftest import TIMEOUT, Mode, Play, Recorder, settle
from tests.wire.frames import BINARY, CLOSE, PING, PONG, TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

MIB = 1 << 20
Call = Callable[[], None]


class Hold:
    """A handler of messages that blocks until it is told to go on."""

    def __init__(self) -> None:
        self.entered, self.release, self.left = threading.Event(), threading.Event(), threading.Event()
        self.data: list[Any] = []

    def __call__(self, evt: bws.MessageEvent) -> None:
        self.data.append(evt.data)
        self.entered.set()
        assert self.release.wait(TIMEOUT)
        self.left.set()

    @property
    def blocks(self) -> bool:
        """Whether it is inside."""
        return self.entered.is_set() and not self.left.is_set()


@pytest.fixture
def hold() -> Iterator[Hold]:
    """One that does not outlive the test."""
    it = Hold()
    yield it
    it.release.set()


# -- the connection lives


@pytest.mark.parametrize("tls", [(), ("127.0.0.1",)], ids=["tcp", "tls"])
def test_pings_are_answered_while_a_handler_blocks(hold: Hold, tls: tuple[str, ...]) -> None:
    answered = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "block"))
        c.wait_for(hold.entered)
        for n in range(3):
            c.send(frame(PING, str(n)))
            c.read_until(PONG)
        answered.set()

    with ScriptedServer(script, tls=tls) as server:
        ws = bws.WebSocket(server.url, ssl=server.ssl_context if tls else None)
        ws.bind("message", hold)
        assert answered.wait(TIMEOUT)
        assert hold.blocks
        hold.release.set()
        ws.close()
        assert ws.wait_closed(TIMEOUT)
        assert server.result().pongs == [b"0", b"1", b"2"]


@pytest.mark.parametrize("tls", [(), ("127.0.0.1",)], ids=["tcp", "tls"])
@pytest.mark.parametrize("where", ["in the handler", "outside"])
def test_what_is_queued_goes_out_while_a_handler_blocks(hold: Hold, tls: tuple[str, ...], where: str) -> None:
    flushed: list[bool] = []
    payload = bytes(range(256)) * (8 * 4096)  # 8 MiB, more than the operating system takes

    def send() -> None:
        for _ in range(2):
            ws.send(payload)
        assert ws.bufferedAmount > 0
        reading.set()
        flushed.append(ws.flush(TIMEOUT))

    def handler(evt: bws.MessageEvent) -> None:
        if where == "in the handler":
            send()
        hold(evt)

    reading = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "block"))
        c.wait_for(reading)

    with ScriptedServer(script, tls=tls, receive_buffer=65536) as server:
        ws = bws.WebSocket(server.url, ssl=server.ssl_context if tls else None)
        ws.bind("message", handler)
        assert hold.entered.wait(TIMEOUT)
        if where == "outside":
            send()
        assert flushed == [True]
        assert ws.bufferedAmount == 0
        assert hold.blocks
        hold.release.set()
        ws.close()
        assert ws.wait_closed(TIMEOUT)
        assert server.result().messages == [payload] * 2


def test_the_peers_close_is_answered_while_a_handler_blocks(hold: Hold) -> None:
    answered = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "block"))
        c.wait_for(hold.entered)
        c.close(3001, "bye")
        c.read_until(CLOSE)
        answered.set()

    with ScriptedServer(script) as server:
        recorder = Recorder(bws.WebSocket(server.url), {"message": lambda _, evt: hold(evt)})
        assert answered.wait(TIMEOUT)
        assert hold.blocks
        assert recorder.ws.readyState == 1  # it changes when the close event's handlers run
        hold.release.set()
        assert recorder.closed() == [("open", 1), ("message", 1, "block"), ("close", 3, 3001, "bye", True)]
        assert server.result().close == (3001, "bye")


def test_close_in_a_handler_completes_on_the_wire_before_the_handler_returns(hold: Hold) -> None:
    def handler(r: Recorder, evt: bws.MessageEvent) -> None:
        r.ws.send("last")
        r.ws.close(3000, "enough")
        hold(evt)

    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "block") + frame(TEXT, "dropped"))) as server:
        recorder = Recorder(bws.WebSocket(server.url), {"message": handler})
        seen = server.result()  # TCP has ended
        assert hold.blocks
        assert (seen.messages, seen.close, seen.end) == (["last"], (3000, "enough"), "eof")
        assert recorder.ws.readyState == 2
        hold.release.set()
        assert recorder.closed()[1:] == [("message", 1, "block"), ("close", 3, 3000, "enough", True)]


def violate(c: Connection) -> None:
    c.send(b"\xf1\x00")


def begin_to_close(c: Connection) -> None:
    c.close(1000)


def fall_silent(c: Connection) -> None: ...


@pytest.mark.parametrize(
    ("what", "options", "at_least", "at_most", "code"),
    [
        (violate, {}, 2.2, 5, 1006),  # 0.25 s for answers of handlers, 2 s for the peer to end TCP
        (begin_to_close, {}, 1.9, 5, 1000),
        # These two clocks began before ours did.
        (fall_silent, {"ping_interval": 0.2, "ping_timeout": 0.2}, 0, 3, 1006),
        (Connection.drain, {"close_timeout": 0.4}, 0, 3, 1006),
    ],
)
def test_tcp_ends_in_time_while_a_handler_blocks(
    hold: Hold, what: Callable[[Connection], None], options: dict[str, Any], at_least: float, at_most: float, code: int
) -> None:
    took: list[float] = []
    ended = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "block"))
        c.wait_for(hold.entered)
        start = time.monotonic()
        if what is not Connection.drain:
            what(c)
        with contextlib.suppress(OSError):
            while c.sock.recv(65536):
                pass
        took.append(time.monotonic() - start)
        ended.set()

    def handler(recorder: Recorder, evt: bws.MessageEvent) -> None:
        if what is Connection.drain:
            recorder.ws.close()
        hold(evt)

    with ScriptedServer(script) as server:
        recorder = Recorder(bws.WebSocket(server.url, compression=False, **options), {"message": handler})
        assert ended.wait(TIMEOUT)
        assert hold.blocks
        assert recorder.of("close") == []
        hold.release.set()
        assert recorder.closed()[-1][2] == code
    assert at_least < took[0] < at_most


def test_a_socket_that_cannot_be_closed_takes_no_other_with_it(hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()
    close = socket.socket.close

    def failing(sock: socket.socket) -> None:
        close(sock)
        if threading.current_thread().name == "bws relief" and not failed.is_set():
            failed.set()
            raise OSError(errno.EIO, "Input/output error")

    def silent(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "block"))
        c.wait_for(hold.left)

    def lives(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "block"))
        c.wait_for(failed)
        c.send(frame(PING, "still there?"))
        c.read_until(PONG)
        hold.release.set()
        c.close(1000)

    with ScriptedServer(silent) as one, ScriptedServer(lives) as other:
        first = Recorder(
            bws.WebSocket(one.url, compression=False, ping_interval=0.2, ping_timeout=0.2),
            {"message": lambda _, evt: hold(evt)},
        )
        second = Recorder(bws.WebSocket(other.url), {"message": lambda *_: hold.release.wait(TIMEOUT)})
        monkeypatch.setattr(socket.socket, "close", failing)
        try:
            assert second.closed()[-1] == ("close", 3, 1000, "", True)
        finally:
            monkeypatch.undo()
        assert first.closed()[-1] == ("close", 3, 1006, "", False)


def test_messages_that_come_meanwhile_are_delivered_in_order(hold: Hold) -> None:
    arrived = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "0"))
        c.wait_for(hold.entered)
        for n in range(1, 1000):
            c.send_text(str(n))
        c.send(frame(PING))
        c.read_until(PONG)
        c.close(1000)
        c.read_until(CLOSE)
        arrived.set()

    with ScriptedServer(script) as server:
        recorder = Recorder(bws.WebSocket(server.url), {"message": lambda _, evt: hold(evt)})
        assert arrived.wait(TIMEOUT)
        assert hold.data == ["0"]
        hold.release.set()
        recorder.closed()
    assert recorder.data == [str(n) for n in range(1000)]
    assert recorder.entries[-1] == ("close", 3, 1000, "", True)
    assert len(recorder.threads) == 1


def test_a_lost_connection_is_noted_after_the_handler(hold: Hold) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "block"))
        c.wait_for(hold.entered)
        c.send_text("behind")
        c.reset()

    with ScriptedServer(script) as server:
        recorder = Recorder(bws.WebSocket(server.url), {"message": lambda _, evt: hold(evt)})
        server.result()
        hold.release.set()
        assert recorder.closed()[-1] == ("close", 3, 1006, "", False)


def test_no_memory_while_a_handler_blocks_fails_that_connection_and_no_other(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, failed, answered = FrameReader.feed, threading.Event(), threading.Event()

    def without_memory(reader: FrameReader, data: bytes) -> bool:
        if b"too much" in data:
            failed.set()
            raise MemoryError
        return feed(reader, data)

    def fails(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "block"))
        c.wait_for(hold.entered)
        c.send_text("too much")
        c.wait_for(answered)
        c.send_text("nothing may come after what was lost")
        hold.release.set()

    def lives(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "block"))
        c.wait_for(failed)
        c.send(frame(PING, "still there?"))
        c.read_until(PONG)
        answered.set()
        c.behave()

    monkeypatch.setattr(FrameReader, "feed", without_memory)
    with ScriptedServer(fails) as one, ScriptedServer(lives) as other:
        first = Recorder(bws.WebSocket(one.url), {"message": lambda _, evt: hold(evt)})
        second = Recorder(bws.WebSocket(other.url), {"message": lambda *_: hold.release.wait(TIMEOUT)})
        assert answered.wait(TIMEOUT)
        assert first.closed() == [("open", 1), ("message", 1, "block"), ("error", 3), ("close", 3, 1006, "", False)]
        assert isinstance(first.error, MemoryError)
        second.ws.close()
        assert second.closed()[-1] == ("close", 3, 1005, "", True)


def test_the_thread_that_stands_in_is_started_again_when_it_could_not_be(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = threading.Thread.start, threading.Event()

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name == "bws relief" and not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(refused)  # for the handlers of "open"
        c.send_text("block")
        c.wait_for(hold.entered)
        c.send(frame(PING, "still there?"))
        c.read_until(PONG)
        assert hold.blocks
        hold.release.set()
        c.close(1000)

    settle()
    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    with ScriptedServer(script) as server:
        recorder = Recorder(bws.WebSocket(server.url), {"message": lambda _, evt: hold(evt)})
        assert recorder.closed()[-1] == ("close", 3, 1000, "", True)
        server.result()


def test_the_thread_that_stands_in_waits_a_little_for_the_next_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, list[threading.Thread]()

    def note(thread: threading.Thread) -> None:
        if thread.name == "bws relief":
            started.append(thread)
        start(thread)

    def one_connection() -> None:
        assert Recorder(bws.WebSocket(server.url)).closed()[-1] == ("close", 3, 1000, "", True)

    def script(c: Connection) -> None:
        c.handshake()
        c.close(1000)

    settle()
    monkeypatch.setattr(threading.Thread, "start", note)
    with ScriptedServer(script) as server:
        for _ in range(50):
            one_connection()
        assert 1 <= len(started) < 50  # one, unless the machine is very busy
        settle()
        assert not any(thread.is_alive() for thread in started)
        started.clear()
        one_connection()
        assert len(started) == 1


def test_many_blocked_sockets_are_all_served(hold: Hold) -> None:
    count = 20
    all_in = threading.Event()
    entered, answered = (threading.Semaphore(0) for _ in range(2))

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "block"))
        c.wait_for(all_in)
        c.send(frame(PING, "alive?"))
        c.read_until(PONG)
        answered.release()

    def handler(evt: bws.MessageEvent) -> None:
        entered.release()
        hold(evt)

    with ScriptedServer(script) as server:
        sockets = [bws.WebSocket(server.url) for _ in range(count)]
        for ws in sockets:
            ws.bind("message", handler)
        assert all(entered.acquire(timeout=TIMEOUT) for _ in sockets)
        all_in.set()
        assert all(answered.acquire(timeout=TIMEOUT) for _ in sockets)
        assert hold.blocks
        hold.release.set()
        for ws in sockets:
            ws.close()
        assert all(ws.wait_closed(TIMEOUT) for ws in sockets)


@pytest.mark.parametrize("type", ["open", "close"])
def test_other_handlers_may_be_slow_too(type: str) -> None:
    inside, go_on, answered, gate = (threading.Event() for _ in range(4))

    def script(c: Connection) -> None:
        c.handshake()
        if type == "open":
            c.wait_for(inside)
            c.send(frame(PING, "alive?"))
            c.read_until(PONG)
        c.close(1000)
        c.read_until(CLOSE)
        answered.set()

    def handler(r: Recorder, _: Any) -> None:
        inside.set()
        assert go_on.wait(TIMEOUT)

    with ScriptedServer(script, gate=gate) as server:
        recorder = Recorder(bws.WebSocket(server.url), {type: handler})
        gate.set()
        assert inside.wait(TIMEOUT)
        assert answered.wait(TIMEOUT)
        assert not recorder.ws.wait_closed(0)
        go_on.set()
        assert recorder.closed() == [("open", 1), ("close", 3, 1000, "", True)]


# -- memory is bounded


class Flood:
    """A script that pushes numbered messages, and tells when they are not taken any more."""

    def __init__(self, total: int, size: int = 65536) -> None:
        self.stalled, self.sent, self.count = threading.Event(), 0, total // size
        self._body = bytes(size - 8)

    def __call__(self, c: Connection) -> None:
        c.handshake()
        for n in range(self.count):
            view = memoryview(frame(BINARY, struct.pack("!Q", n) + self._body))
            while view:
                if not select.select([], [c.sock], [], 0.5)[1]:
                    self.stalled.set()
                    continue
                done = c.sock.send(view)
                self.sent += done
                view = view[done:]
        c.close(1000, "all")

    def check(self, recorder: Recorder) -> None:
        """Everything came, in order."""
        assert recorder.entries[-1] == ("close", 3, 1000, "all", True), recorder.events[-1].error
        assert [struct.unpack_from("!Q", data)[0] for data in recorder.data] == list(range(self.count))
        assert {len(data) for data in recorder.data} == {len(self._body) + 8}


def test_a_peer_that_pushes_at_a_blocked_handler_is_stopped_and_nothing_is_lost(hold: Hold) -> None:
    flood = Flood(200 * MIB)
    with ScriptedServer(flood) as server:
        recorder = Recorder(bws.WebSocket(server.url), {"message": lambda _, evt: hold(evt)})
        assert flood.stalled.wait(TIMEOUT)
        assert MIB < flood.sent < 64 * MIB
        hold.release.set()
        recorder.closed()
        flood.check(recorder)


def test_a_peer_that_pushes_at_an_undrained_queue_is_stopped_and_nothing_is_lost() -> None:
    flood = Flood(200 * MIB)
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    with ScriptedServer(flood) as server:
        recorder = Recorder(bws.WebSocket(server.url, dispatch=calls.put))
        assert flood.stalled.wait(TIMEOUT)
        assert MIB < flood.sent < 64 * MIB
        assert recorder.entries == []
        while not recorder.of("close"):
            calls.get(timeout=TIMEOUT)()
        flood.check(recorder)


SMALL = [str(n) for n in range(60_000)]
WIDE = ["0"] + [f"{n} \N{GRINNING FACE} " + "x" * 65_536 for n in range(1, 128)]  # 8 MiB of UTF-8, 32 of UCS-4


@pytest.mark.parametrize("dispatched", [False, True])
@pytest.mark.parametrize("texts", [SMALL, WIDE], ids=["small", "wide"])
def test_messages_are_bounded_by_their_number_and_as_they_are_in_memory(
    hold: Hold, texts: list[str], dispatched: bool
) -> None:
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    looked, stopped = threading.Event(), False

    def script(c: Connection) -> None:
        nonlocal stopped
        c.handshake(then=frame(TEXT, "0"))
        if not dispatched:
            c.wait_for(hold.entered)
        wire = b"".join(frame(TEXT, text) for text in texts[1:]) + frame(PING)
        sender = threading.Thread(target=c.send, args=(wire,))
        sender.start()
        stopped = not select.select([c.sock], [], [], 0.5)[0]
        looked.set()
        c.read_until(PONG)
        sender.join()
        c.close(1000)

    got: list[str] = []

    def handler(evt: bws.MessageEvent) -> None:
        got.append(evt.data)
        if len(got) == 1 and not dispatched:
            hold(evt)
        elif len(got) == len(texts):
            weighed.append(engine._reader.weighed)

    weighed: list[tuple[int, int]] = []
    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, dispatch=calls.put if dispatched else None)
        engine: Any = ws._engine
        ws.bind("message", handler)
        assert looked.wait(TIMEOUT)
        assert stopped  # it did not read as far as the ping
        hold.release.set()
        while dispatched and len(got) < len(texts):
            calls.get(timeout=TIMEOUT)()
        server.result()
        while dispatched and ws.readyState != 3:
            calls.get(timeout=TIMEOUT)()
        assert ws.wait_closed(TIMEOUT)
    assert got == texts
    assert weighed == [(0, 0)]  # what comes next is weighed from its beginning


def test_each_message_is_weighed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are that a few bytes inflate to."""
    weighed: list[int] = []

    def in_memory(messages: Sequence[object]) -> int:
        weighed.append(len(messages))
        return _settings.in_memory(messages)

    monkeypatch.setattr(frames, "in_memory", in_memory)
    peer = zlib.compressobj(wbits=-15)
    packed = [(peer.compress(bytes(1_000)) + peer.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(20_000)]
    wire = b"".join(frame(BINARY, each, rsv=4) for each in packed)
    reader = FrameReader(None, lambda opcode, payload: None, Inflater(Agreement()))
    assert reader.feed(wire)
    assert sum(weighed) <= len(reader.items) < len(packed)
    assert len(weighed) < 200


@pytest.mark.parametrize("dispatched", [False, True])
def test_what_compresses_well_is_counted_as_it_is_in_memory(hold: Hold, dispatched: bool) -> None:
    plain = 60  # large enough for a recv() to take much at a time
    count = 200  # MiB in memory, 200 KiB on the wire
    peer = zlib.compressobj(wbits=-15)
    packed = (peer.compress(bytes(MIB)) + peer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    sent, closed = threading.Event(), threading.Event()

    def script(c: Connection) -> None:
        c.handshake("Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover")
        c.send_text("block")
        if not dispatched:
            c.wait_for(hold.entered)
        c.send(frame(BINARY, bytes(60_000)) * plain + frame(BINARY, packed, rsv=4) * count)
        sent.set()
        c.close(1000)

    got: list[int] = []

    def handler(evt: bws.MessageEvent) -> None:
        got.append(len(evt.data))
        if len(got) == 1 and not dispatched:
            hold(evt)

    tracemalloc.start()
    try:
        with ScriptedServer(script) as server:
            ws = bws.WebSocket(server.url, dispatch=calls.put if dispatched else None)
            ws.bind("message", handler)
            ws.bind("close", closed.set)
            assert sent.wait(TIMEOUT)
            peak = -1
            while peak != (now := tracemalloc.get_traced_memory()[1]):
                peak = now
                threading.Event().wait(0.3)
            hold.release.set()
            while dispatched and not closed.is_set():
                calls.get(timeout=TIMEOUT)()
            assert ws.wait_closed(TIMEOUT)
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert got == [5] + [60_000] * plain + [MIB] * count
    assert peak < 48 * MIB  # twice the high-water mark: what is being delivered, and what waits behind it


ENDS = {
    "close": (close_frame(1000), [("close", 3, 1000, "", True)]),
    "TCP end": (b"", [("close", 3, 1006, "", False)]),
    "reserved bits": (b"\xf1\x00", [("error", 3), ("close", 3, 1006, "", False)]),
    "bad UTF-8": (frame(TEXT, b"\xff"), [("error", 3), ("close", 3, 1006, "", False)]),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("seed", range(6))
def test_what_is_inflated_later_comes_in_order_and_before_the_end(
    end: str, seed: int, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (frames, _delivery):
        monkeypatch.setattr(module, "HIGH_WATER_BYTES", 20_000)
    for module in (frames, threaded, _delivery):
        monkeypatch.setattr(module, "LIGHT", 5_000)
    left: list[bool] = []
    feed = FrameReader.feed

    def noting(reader: FrameReader, data: bytes) -> bool:
        left.append(feed(reader, data))
        return left[-1]

    monkeypatch.setattr(FrameReader, "feed", noting)
    random = Random(seed)
    peer = zlib.compressobj(wbits=-15)
    data, messages, pings = b"", [], 0
    for number in range(40):
        message = struct.pack("!I", number) + bytes(random.choice([0, 10, 3_000, 15_000, 40_000]))
        messages.append(message)
        packed = (peer.compress(message) + peer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        if random.random() < 0.3:
            cut = random.randrange(1, len(packed))
            data += frame(BINARY, packed[:cut], fin=False, rsv=4) + frame(PING, str(pings)) + frame(0, packed[cut:])
            pings += 1
        else:
            data += frame(BINARY, packed, rsv=4)
    last, ending = ENDS[end]
    ponged = threading.Event()

    def script(c: Connection) -> None:
        c.handshake("Sec-WebSocket-Extensions: permessage-deflate", then=data)
        while len(c.seen.pongs) < pings:
            c.read()
        ponged.set()
        c.send(frame(TEXT, "not compressed") + last)
        c.close_sent = end == "close"
        if not last:
            c.half_close()
        c.behave()

    calls = itertools.count()
    with ScriptedServer(script) as server:
        recorder = Recorder(mode.open(server.url), {"message": lambda *_: time.sleep(0.06 * (next(calls) % 15 == 7))})
        recorder.closed()
        assert server.result().pongs == [str(number).encode() for number in range(pings)]
    assert recorder.data == [*messages, "not compressed"]
    assert recorder.of("error", "close") == ending
    assert any(left)


@pytest.mark.parametrize("size", [17 * MIB, 40 * MIB])
def test_a_message_above_the_high_water_mark_arrives(mode: Mode, size: int) -> None:
    with ScriptedServer(lambda c: c.handshake(then=frame(BINARY, bytes(size)) + close_frame())) as server:
        recorder = Recorder(mode.open(server.url))
        recorder.closed()
    assert [len(data) for data in recorder.data] == [size]


def test_control_frames_are_read_however_many_there_are(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        for _ in range(180):
            c.send(frame(PONG, b"x" * 125) * 1000)
        c.close(1000)

    assert play(script).entries == [("open", 1), ("close", 3, 1000, "", True)]


def test_a_peer_that_pings_and_does_not_read_fills_no_memory() -> None:
    full, ended = threading.Event(), threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(full)
        data = frame(PING, b"x" * 125) * 1_000
        for _ in range(40):
            c.send(data)
        c.send_text("done")
        c.wait_for(ended)

    tracemalloc.start()
    try:
        with ScriptedServer(script) as server:
            ws = bws.WebSocket(server.url, close_timeout=0.2, compression=False)
            recorder = Recorder(ws)
            recorder.wait_for("open")
            while not ws.bufferedAmount:
                ws.send(bytes(8_000))  # the pongs have to wait
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            full.set()
            recorder.wait_for("message")
            peak = tracemalloc.get_traced_memory()[1] - before
            ws.close()
            recorder.closed()
            ended.set()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MIB  # of 5


# -- dispatch


def test_a_hundred_thousand_small_messages_take_few_calls() -> None:
    count = 100_000
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    numbers: list[str] = []

    def script(c: Connection) -> None:
        c.handshake()
        c.send(b"".join(frame(TEXT, str(n)) for n in range(count)))
        c.close(1000)

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, dispatch=calls.put)
        closed = threading.Event()
        ws.bind("message", lambda evt: numbers.append(evt.data))
        ws.bind("close", closed.set)
        handed_over = 0
        while not closed.is_set():
            calls.get(timeout=TIMEOUT)()
            handed_over += 1
    assert numbers == [str(n) for n in range(count)]
    assert handed_over <= count // 4


def test_a_slow_handler_gives_the_loop_its_turn() -> None:
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "x") * 40 + close_frame())) as server:
        recorder = Recorder(
            bws.WebSocket(server.url, dispatch=calls.put), {"message": lambda *_: threading.Event().wait(0.005)}
        )
        turns = 0
        while not recorder.of("close"):
            calls.get(timeout=TIMEOUT)()
            turns += 1
    assert turns >= 5
    assert len(recorder.data) == 40


def test_a_dispatch_that_runs_things_at_once_gets_no_deeper_with_every_slice() -> None:
    depths = []

    def depth(*_: object) -> None:
        frame, deep = sys._getframe(), 0
        while frame.f_back is not None:
            frame, deep = frame.f_back, deep + 1
        depths.append(deep)
        threading.Event().wait(0.005)

    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "x") * 80 + close_frame())) as server:
        recorder = Recorder(bws.WebSocket(server.url, dispatch=lambda call: call()), {"message": depth})
        recorder.closed()
    assert len(depths) == 80
    assert max(depths) - min(depths) < 20


@pytest.mark.parametrize("when", ["before open", "after open"])
def test_when_the_loop_is_gone_the_server_hears_1001(when: str) -> None:
    gone, opened = threading.Event(), threading.Event()
    handlers: list[str] = []

    def dispatch(call: Call) -> None:
        if gone.is_set():
            raise RuntimeError("Event loop is closed")
        call()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(gone)
        c.send_text("nobody is there")

    with ScriptedServer(script) as server:
        if when == "before open":
            gone.set()
        ws = bws.WebSocket(server.url, dispatch=dispatch)
        ws.bind("open", opened.set)
        if when == "after open":
            assert opened.wait(TIMEOUT)
            gone.set()
        for type in ("message", "error", "close"):
            ws.bind(type, lambda evt: handlers.append(evt.type))
        assert ws.wait_closed(TIMEOUT)
        assert ws.readyState == 3
        assert server.result().close == (1001, "")
    assert handlers == []
    assert opened.is_set() == (when == "after open")


class Full:
    """A dispatch whose queue is full at every second try."""

    def __init__(self, pattern: str = "10") -> None:
        self.calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._pattern = itertools.cycle(pattern)
        self.refused = 0

    def __call__(self, call: Call) -> None:
        if next(self._pattern) == "1":
            self.refused += 1
            raise queue.Full
        self.calls.put(call)

    def run(self, until: Callable[[], object]) -> None:
        while not until():
            self.calls.get(timeout=TIMEOUT)()


@pytest.mark.parametrize("pattern", ["10", "01", "1110", "0001111"])
def test_a_queue_that_is_full_now_and_then_loses_nothing(pattern: str) -> None:
    dispatch = Full(pattern)
    texts = [str(n) for n in range(60)]

    def script(c: Connection) -> None:
        c.handshake(then=b"".join(frame(TEXT, text) for text in texts[:30]))
        for text in texts[30:]:
            c.send_text(text)
        c.close(1000, "done")

    with ScriptedServer(script) as server:
        recorder = Recorder(
            bws.WebSocket(server.url, dispatch=dispatch), {"message": lambda *_: threading.Event().wait(0.003)}
        )
        server.result()  # the network's thread has nothing more to do
        dispatch.run(lambda: recorder.of("close"))
    assert recorder.data == texts
    assert recorder.entries[-1] == ("close", 3, 1000, "done", True)
    assert dispatch.refused > 2


def test_held_events_survive_a_full_queue() -> None:
    dispatch = Full("0")
    got: list[str] = []
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "held") + close_frame())) as server:
        ws = bws.WebSocket(server.url, dispatch=dispatch)
        dispatch.run(lambda: ws.readyState == 3)
        server.result()
        dispatch._pattern = itertools.cycle("1110")
        ws.bind("message", lambda evt: got.append(evt.data))
        dispatch.run(lambda: got)
        ws.bind("close", lambda evt: got.append(evt.code))
        dispatch.run(lambda: len(got) == 2)
    assert got == ["held", 1005]
    assert dispatch.refused == 6


# -- keep-alive; see also test_signs_of_life.py


def test_keep_alive_goes_on_while_a_handler_blocks(hold: Hold) -> None:
    kept_alive = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "block"))
        c.wait_for(hold.entered)
        for _ in range(10):
            c.send(frame(PONG, c.read_until(PING).payload))
        kept_alive.set()

    with ScriptedServer(script) as server:
        recorder = Recorder(
            bws.WebSocket(server.url, ping_interval=0.05, ping_timeout=2), {"message": lambda _, evt: hold(evt)}
        )
        assert kept_alive.wait(TIMEOUT)
        assert hold.blocks
        hold.release.set()
        recorder.ws.close()
        assert recorder.closed()[-1][2:] == (1005, "", True)


def test_a_peer_is_not_given_up_while_it_is_we_who_do_not_read(hold: Hold) -> None:
    flood = Flood(64 * MIB)
    with ScriptedServer(flood) as server:
        # A busy machine may keep the server's thread from running for a second, which does count.
        ws = bws.WebSocket(server.url, ping_interval=0.1, ping_timeout=3)
        recorder = Recorder(ws, {"message": lambda _, evt: hold(evt)})
        assert flood.stalled.wait(TIMEOUT)
        threading.Event().wait(3.3)  # for longer than ping_timeout
        hold.release.set()
        recorder.closed()
        flood.check(recorder)


# -- ping()


def test_a_ping_has_its_payload_and_its_callback_the_time(mode: Mode) -> None:
    times: list[float] = []
    threads: set[threading.Thread] = set()

    def callback(seconds: float) -> None:
        times.append(seconds)
        threads.add(threading.current_thread())
        recorder.note("pong", len(times))

    with ScriptedServer(Connection.handshake) as server:
        recorder = Recorder(mode.open(server.url))
        recorder.wait_for("open")
        payloads = [b"", b"one", bytes(range(125)), b"one"]
        for payload in payloads:
            recorder.ws.ping(payload, callback)
        recorder.ws.ping(memoryview(b"nobody asks"))
        recorder.wait_for("pong", 4)
        recorder.ws.close()
        recorder.closed()
        assert server.result().pings == [*payloads, b"nobody asks"]
    assert all(0 < seconds < TIMEOUT for seconds in times)
    assert all(map(mode.is_handler_thread, threads))


def test_the_time_of_a_ping_is_its_own_also_when_one_before_it_was_the_same(mode: Mode) -> None:
    second = threading.Event()
    times: list[float] = []

    def script(c: Connection) -> None:
        c.handshake()
        first = c.read_until(PING)
        c.wait_for(second)
        c.send(frame(PONG, first.payload))
        c.pause(0.3)
        c.send(frame(PONG, c.read_until(PING).payload))
        c.close(1000)

    with ScriptedServer(script) as server:
        recorder = Recorder(mode.open(server.url))
        recorder.wait_for("open")
        recorder.ws.ping()
        recorder.ws.ping(callback=times.append)
        second.set()
        recorder.closed()
    assert len(times) == 1
    assert times[0] >= 0.29


def test_pings_that_nobody_answers_and_nobody_asks_for_fill_no_memory() -> None:
    """What is noted of them is bounded; one with a callback is always noted."""
    done = threading.Event()
    payloads = [number.to_bytes(4, "big") for number in range(3_000)]

    def script(c: Connection) -> None:
        c.handshake()
        while c.read_until(PING).payload != b"last":
            pass
        c.send(frame(PONG, "last"))

    with ScriptedServer(script) as server, bws.WebSocket(server.url) as ws:
        for payload in payloads:
            ws.ping(payload)
        engine: Any = ws._engine
        assert len(engine._pings) == 1_000
        ws.ping(b"last", lambda seconds: done.set())
        assert done.wait(TIMEOUT)
        assert engine._pings == []


def test_a_pong_answers_the_pings_before_it_too_and_others_mean_nothing(mode: Mode) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        for _ in range(3):
            c.read_until(PING)
        for payload in ("unknown", "2", "1", "2", "", "3"):
            c.send(frame(PONG, payload))
        c.close(1000)

    with ScriptedServer(script) as server:
        recorder = Recorder(mode.open(server.url))
        recorder.wait_for("open")
        for payload in (b"1", b"2", b"3"):
            recorder.ws.ping(payload, lambda seconds, payload=payload: recorder.note("pong", payload))  # type: ignore[misc]
        recorder.closed()
    assert recorder.of("pong") == [("pong", b"1"), ("pong", b"2"), ("pong", b"3")]


def test_a_callback_that_raises_is_reported_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)

    def callback(seconds: float) -> None:
        raise ValueError("from a callback")

    with ScriptedServer(Connection.echo) as server:
        recorder = Recorder(bws.WebSocket(server.url), {"message": lambda r, _: r.ws.close(1000)})
        recorder.wait_for("open")
        recorder.ws.ping(b"", callback)
        recorder.ws.send("after")
        assert recorder.closed()[1:] == [("message", 1, "after"), ("close", 3, 1000, "", True)]
    assert [str(args.exc_value) for args in raised] == ["from a callback"]


def test_a_ping_after_close_is_dropped(mode: Mode) -> None:
    with ScriptedServer(Connection.handshake) as server:
        recorder = Recorder(mode.open(server.url))
        recorder.wait_for("open")
        recorder.ws.close()
        recorder.ws.ping(b"late", lambda seconds: recorder.note("pong"))
        recorder.closed()
        recorder.ws.ping(b"later", lambda seconds: recorder.note("pong"))
        assert server.result().pings == []
    assert recorder.of("pong") == []
