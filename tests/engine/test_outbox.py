"""The send queue, on a socket that takes as much as the test allows."""

from __future__ import annotations

import array
import contextlib
import dis
import errno
import functools
import os
import random
import socket
import ssl
import sys
import threading
import tracemalloc
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bws._engine import frames as frames_module
from bws._engine import outbox as outbox_module
from bws._engine.deflate import Agreement, Deflater, DeflateStream, Inflater
from bws._engine.frames import CLOSE, PING, PONG
from bws._engine.outbox import WOULD_BLOCK, Outbox
from bws._engine.wire import Wire, wire_of
from tests.conftest import TIMEOUT
from tests.wire.frames import BINARY, TEXT, xor


class Narrow:
    """A wire that takes `room` bytes and then blocks."""

    gathers = False

    def __init__(self, room: int = 0, step: int = 1 << 30) -> None:
        self.room, self.step = room, step
        self.taken = bytearray()
        self.calls = 0
        self.error: OSError | None = None
        self.blocks: type[OSError] = BlockingIOError

    def send(self, data: bytes | memoryview) -> int:
        self.calls += 1
        if self.error is not None:
            raise self.error
        size = min(len(data), self.room, self.step)
        if not size:
            raise self.blocks
        self.room -= size
        self.taken += data[:size]
        return size

    def __lshift__(self, data: bytes | memoryview) -> int:
        return self.send(data)

    def __matmul__(self, pieces: Sequence[bytes | memoryview]) -> int:
        assert self.gathers
        return self.send(b"".join(pieces))


class Gathering(Narrow):
    """A wire that takes several buffers at once."""

    gathers = True
    most = 0  # buffers that it was given at once

    def __matmul__(self, pieces: Sequence[bytes | memoryview]) -> int:
        self.most = max(self.most, len(pieces))
        return super().__matmul__(pieces)


class Frames:
    """The frames in what the socket took; the last one may be incomplete."""

    def __init__(self, data: bytes) -> None:
        self.whole: list[tuple[int, bytes]] = []  # opcode and payload
        self.payload = 0  # bytes of messages that are there
        self.compressed = 0  # messages with RSV1
        self.payloads: list[tuple[bool, bytes]] = []  # whether it has RSV1, and the payload
        while len(data) > 1:
            first, size = data[0], data[1] & 0x7F
            assert data[1] & 0x80
            assert first & 0x80
            width = {126: 2, 127: 8}.get(size, 0)
            start = 6 + width
            if width:
                size = int.from_bytes(data[2 : 2 + width], "big")
            if len(data) < start:
                break
            payload = data[start : start + size]
            if first & 15 < CLOSE:
                self.payload += len(payload)
            if len(payload) < size:
                break
            payload = xor(payload, data[start - 4 : start])
            self.compressed += bool(first & 0x40)
            self.payloads.append((bool(first & 0x40), payload))
            self.whole.append((first & 15, payload))
            data = data[start + size :]


def outbox(sock: Wire, deflater: Deflater | None = None) -> Outbox:
    """An outbox that is open on this socket."""
    box = Outbox()
    box.open(sock, deflater)
    return box


def frames(sock: Narrow) -> list[tuple[int, bytes]]:
    return Frames(bytes(sock.taken)).whole


def test_what_the_socket_takes_is_sent_at_once_in_one_call() -> None:
    sock = Narrow(1 << 20)
    box = outbox(sock)
    assert box.send(TEXT, b"hello")
    assert box.send(BINARY, memoryview(bytes(100_000)))
    assert frames(sock) == [(TEXT, b"hello"), (BINARY, bytes(100_000))]
    assert (sock.calls, box.pending(), box.waiting, box.pongs, box.closed) == (2, 0, False, 0, False)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 200, 70_000])
def test_pending_is_exact_after_every_byte(size: int) -> None:
    sock = Narrow()
    box = outbox(sock)
    head = 2 + 4 + (0 if size < 126 else 2 if size < 65536 else 8)
    payload = bytes(i % 256 for i in range(size))
    assert box.send(BINARY, payload)
    assert box.pending() == size
    assert box.waiting
    sent = 0
    for step in [1] * (head + 3) + [size // 3 + 1] * 3:
        sock.room = step
        box.write()
        sent = min(head + size, sent + step)
        assert len(sock.taken) == sent
        assert box.pending() == size - max(0, sent - head)
        assert box.waiting == (sent < head + size)
    assert frames(sock) == [(BINARY, payload)]
    assert box.pending() == 0


@pytest.mark.parametrize("room", range(12))
def test_pending_is_exact_when_the_first_try_is_cut(room: int) -> None:
    sock = Narrow(room)
    box = outbox(sock)
    box.send(TEXT, b"hello")
    assert box.pending() == 5 - max(0, min(5, room - 6))
    sock.room = 1000
    box.write()
    assert frames(sock) == [(TEXT, b"hello")]
    assert (box.pending(), box.waiting) == (0, False)


def test_of_many_pongs_that_wait_the_last_one_is_enough() -> None:
    sock = Narrow(3)  # the first one is cut
    box = outbox(sock)
    payloads = [str(number).encode() for number in range(3_000)]
    for payload in payloads:
        box.send(PONG, payload, message=False)
    assert box.pongs == 1_000
    box.send(TEXT, b"between")
    box.send(PONG, b"behind", message=False)
    box.send(PONG, b"last", message=False)
    assert box.pending() == 7
    sock.room = 1 << 20
    box.write()
    expected = [(PONG, payload) for payload in [*payloads[:999], payloads[-1]]]
    assert frames(sock) == [*expected, (TEXT, b"between"), (PONG, b"last")]
    assert (box.pending(), box.pongs, box.waiting) == (0, 0, False)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["text", "binary"]), st.binary(max_size=300)),
            st.tuples(st.sampled_from(["ping", "pong"]), st.binary(max_size=125)),
            st.tuples(st.just("room"), st.integers(0, 400)),
        ),
        max_size=30,
    ),
    st.integers(1, 200),
)
@settings(max_examples=200, deadline=None)
def test_whatever_the_socket_takes_order_and_counters_are_right(script: list[tuple[str, object]], step: int) -> None:
    opcodes = {"text": TEXT, "binary": BINARY, "ping": PING, "pong": PONG}
    sock = Narrow(step=step)
    box = outbox(sock)
    expected: list[tuple[int, bytes]] = []
    total = 0
    for what, value in script:
        if what == "room":
            sock.room += cast(int, value)
            box.write()
        else:
            payload = cast(bytes, value)
            expected.append((opcodes[what], payload))
            if opcodes[what] < CLOSE:
                total += len(payload)
                assert box.send(opcodes[what], payload)
            else:
                assert box.send(opcodes[what], payload, message=False)
        seen = Frames(bytes(sock.taken))
        assert box.pending() == total - seen.payload
        assert box.waiting == (len(seen.whole) < len(expected))
        assert seen.whole == expected[: len(seen.whole)]
        assert box.pongs == sum(opcode == PONG for opcode, _ in expected[len(seen.whole) :])
    sock.room = 1 << 20
    box.write()
    assert frames(sock) == expected
    assert (box.pending(), box.pongs, box.waiting) == (0, 0, False)


LARGE = st.sampled_from([0, 5, 16 * 1024, 16 * 1024 + 1, 65_537, 300_001, (1 << 20) + 3])  # bytes
KINDS: dict[str, Callable[[bytes], bytes | memoryview | str]] = {
    "str": lambda data: data.decode("ascii"),
    "bytes": lambda data: data,
    "part of bytes": lambda data: memoryview(b"<" + data + b">")[1:-1],
    "changed afterwards": lambda data: memoryview(bytearray(data)),
}


@pytest.mark.parametrize("kind", [Narrow, Gathering])
@given(
    script=st.lists(st.one_of(st.tuples(st.sampled_from(list(KINDS)), LARGE), st.integers(0, 900_000)), max_size=12),
    step=st.sampled_from([1 << 30, 100_000, 16_001]),
)
@settings(max_examples=60, deadline=None)
def test_large_messages_are_right_wherever_the_socket_cuts_them(
    kind: type[Narrow], script: list[tuple[str, int] | int], step: int
) -> None:
    sock = kind(step=step)
    box = outbox(sock)
    expected: list[tuple[int, bytes]] = []
    for number, entry in enumerate(script):
        if isinstance(entry, int):
            sock.room += entry
            box.write()
        else:
            what, size = entry
            data = (b"%d abcdefghijklmnopqrstuvw" % number * (size // 24 + 1))[:size]
            payload = KINDS[what](data)
            assert box.send(TEXT if what == "str" else BINARY, payload)
            if what == "changed afterwards" and isinstance(payload, memoryview):
                payload[:] = bytes(size)
            expected.append((TEXT if what == "str" else BINARY, data))
        seen = Frames(bytes(sock.taken))
        assert seen.whole == expected[: len(seen.whole)]
        assert box.pending() == sum(len(data) for _, data in expected) - seen.payload
        assert box.waiting == (len(seen.whole) < len(expected))
    sock.room = 1 << 30
    box.write()
    assert frames(sock) == expected
    assert (box.pending(), box.waiting) == (0, False)


def test_messages_that_wait_cost_no_memory_beside_the_program_s_own() -> None:
    sock = Gathering(1_000_000)
    box = outbox(sock)
    text, data = "x" * (8 << 20), bytes(8 << 20)
    tracemalloc.start()
    try:
        for _ in range(100):
            box.send(TEXT, text)
            box.send(BINARY, memoryview(data))
        held = tracemalloc.get_traced_memory()[0] - len(sock.taken)
    finally:
        tracemalloc.stop()
    assert held < 2 << 20
    assert box.pending() > 1_500 << 20


def test_however_much_the_system_takes_others_have_their_turn() -> None:
    """Who sends a large message does not write all of it himself; the socket's thread goes on."""
    sock = Gathering(1 << 30)
    box = outbox(sock)
    data = bytes(40 << 20)
    assert box.send(BINARY, data)
    for turn in range(1, 3):
        assert turn * 16 << 20 <= len(sock.taken) < (turn * 17 << 20)
        assert box.waiting
        assert box.pending() == len(data) + 14 - len(sock.taken)
        box.write()
    assert (box.waiting, box.pending()) == (False, 0)
    assert frames(sock) == [(BINARY, data)]


def test_only_what_is_bytes_itself_waits_without_a_copy() -> None:
    sock = Narrow()
    box = outbox(sock)
    for payload in (b"a" * 20_000, array.array("B", b"a" * 20_000), bytearray(b"a" * 20_000)):
        view = memoryview(payload)
        box.send(BINARY, view)
        if not view.readonly:
            view[:] = b"b" * 20_000
    sock.room = 1 << 20
    box.write()
    assert frames(sock) == [(BINARY, b"a" * 20_000)] * 3


@pytest.mark.parametrize("how", ["written", "over"])
def test_what_was_written_last_is_not_kept(how: str) -> None:
    sock = Gathering()
    box = outbox(sock)
    data = b"x" * 1_200_000  # so that the last write has 150,000 bytes
    tracemalloc.start()
    try:
        for _ in range(4):
            box.send(BINARY, data)
        sock.room = 1_500_000
        box.write()
        assert tracemalloc.get_traced_memory()[0] > 200_000  # which the system has not taken
        if how == "written":
            sock.room = 1 << 30
            box.write()
        else:
            box.close()
        assert tracemalloc.get_traced_memory()[0] - sys.getsizeof(sock.taken) < 100_000
    finally:
        tracemalloc.stop()


def test_what_is_out_is_not_pending_before_it_is_removed() -> None:
    sock = Narrow()
    box = outbox(sock)
    for _ in range(10):
        box.send(TEXT, b"x" * 100)
    sock.room = 1 << 20
    with box.lock:
        assert box._write_pieces(box._position())
        # A signal handler may come in here and ask.
        assert box.pending() == 0
    box.write()
    assert (box.pending(), len(frames(sock))) == (0, 10)


def test_compressing_a_large_message_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    sock = Gathering(1 << 30)
    agreement = Agreement()
    box = outbox(sock, Deflater(agreement))
    box.send_deflating(TEXT, "first " * 100)
    compresses, others = threading.Event(), threading.Event()
    alone = Deflater.deflate_alone

    def slowly(self: Deflater, data: bytes | memoryview) -> tuple[bytes | None, DeflateStream | None]:
        compresses.set()
        assert others.wait(TIMEOUT)  # all of them are done meanwhile
        return alone(self, data)

    monkeypatch.setattr(Deflater, "deflate_alone", slowly)
    large = "large " * 40_000
    thread = threading.Thread(target=box.send_deflating, args=(TEXT, large), daemon=True)
    thread.start()
    assert compresses.wait(TIMEOUT)
    assert box.pending() == 0
    assert box.wait(0)
    box.write()
    assert box.send(PONG, b"", message=False)
    assert box.send_deflating(TEXT, "first " * 100)
    others.set()
    thread.join(TIMEOUT)
    assert box.send_deflating(TEXT, "large " * 40)  # refers to nothing that the peer does not have there
    inflater = Inflater(agreement)
    got = Frames(bytes(sock.taken))
    texts = [b"".join(inflater.inflate(payload, True)) for packed, payload in got.payloads if packed]
    assert [text.decode() for text in texts] == ["first " * 100] * 2 + [large, "large " * 40]
    assert [opcode for opcode, _ in got.whole] == [TEXT, PONG, TEXT, TEXT, TEXT]


@pytest.mark.parametrize("takeover", [True, False])
def test_what_follows_a_large_message_refers_to_it(takeover: bool) -> None:
    """Unless the server keeps no context."""
    sock = Gathering(1 << 30)
    agreement = Agreement(client_no_context_takeover=not takeover)
    box = outbox(sock, Deflater(agreement))
    small = "".join(random.Random(1).choices("0123456789abcdef", k=2_000))
    messages = ["before " * 100, small * 100, small, small]
    for message in messages:
        assert box.send_deflating(TEXT, message)
    inflater = Inflater(agreement)
    payloads = [payload for _, payload in Frames(bytes(sock.taken)).payloads]
    assert [b"".join(inflater.inflate(payload, True)).decode() for payload in payloads] == messages
    assert all((len(payload) < 50) is takeover for payload in payloads[2:])


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("interrupted", ["small", "large"])
@pytest.mark.parametrize("when", ["compressed", "about to be sent", "sent"])
def test_what_follows_a_message_whose_sending_was_interrupted_is_right(
    monkeypatch: pytest.MonkeyPatch, when: str, interrupted: str, takeover: bool
) -> None:
    sock = Gathering(1 << 30)
    agreement = Agreement(client_no_context_takeover=not takeover)
    box = outbox(sock, Deflater(agreement))
    texts = {"small": "and small " * 100, "large": "large " * 40_000}
    deflate, message = DeflateStream.deflate, Outbox._message

    def compress(*args: Any) -> None:
        deflate(*args)
        raise KeyboardInterrupt

    def send(*args: Any) -> None:
        if when == "sent":
            message(*args)
        raise KeyboardInterrupt

    expected = [texts["small"]]
    assert box.send_deflating(TEXT, texts["small"])
    with monkeypatch.context() as patch:
        if when == "compressed":
            patch.setattr(DeflateStream, "deflate", compress)
        else:
            patch.setattr(Outbox, "_message", send)
        with pytest.raises(KeyboardInterrupt):
            box.send_deflating(TEXT, texts[interrupted])
    if when == "sent":
        expected.append(texts[interrupted])
    for size in ("large", "small", "small"):
        assert box.send_deflating(TEXT, texts[size])
        expected.append(texts[size])
    inflater = Inflater(agreement)
    payloads = [payload for _, payload in Frames(bytes(sock.taken)).payloads]
    assert [b"".join(inflater.inflate(payload, True)).decode() for payload in payloads] == expected


@pytest.mark.parametrize("takeover", [True, False])
def test_a_large_message_that_is_out_needs_no_more_memory(monkeypatch: pytest.MonkeyPatch, takeover: bool) -> None:
    """`send` would raise, and who sends it again sends it twice."""
    sock = Gathering(1 << 30)
    box = outbox(sock, Deflater(Agreement(client_no_context_takeover=not takeover)))
    message = Outbox._message

    def last(*args: Any) -> None:
        message(*args)
        patch.setattr(Deflater, "_new", no_memory)

    def no_memory(self: Deflater) -> DeflateStream:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "_message", last)
        assert box.send_deflating(TEXT, "large " * 40_000)
    assert box.send_deflating(TEXT, "small " * 100)
    assert Frames(bytes(sock.taken)).compressed == 2


@pytest.mark.parametrize("room", [0, 100, 1 << 30])
@pytest.mark.parametrize("mutable", [False, True])
def test_a_large_message_that_does_not_shrink_goes_as_it_is(room: int, mutable: bool) -> None:
    sock = Gathering(room)
    box = outbox(sock, Deflater(Agreement()))
    noise = random.Random(1).randbytes(200_000)
    payload = bytearray(noise)
    assert box.send_deflating(BINARY, memoryview(payload) if mutable else noise)
    payload[:] = bytes(len(payload))
    sock.room = 1 << 30
    box.write()
    assert Frames(bytes(sock.taken)).payloads == [(False, noise)]


def test_a_signal_handler_may_send_a_large_message_that_was_compressed() -> None:
    """It waits with what else handlers sent, and counts with its own size."""
    agreement, large = Agreement(), "large " * 40_000
    counted: list[int] = []

    def handler() -> None:
        box.send_deflating(TEXT, large)
        counted.append(box.pending())

    sock = Interrupted(1 << 30, handler)
    box = outbox(sock, Deflater(agreement))
    assert box.send_deflating(TEXT, "small " * 100)
    inflater = Inflater(agreement)
    texts = [b"".join(inflater.inflate(payload, True)) for _, payload in Frames(bytes(sock.taken)).payloads]
    assert [text.decode() for text in texts] == ["small " * 100, large]
    assert counted[0] >= len(large)
    assert box.pending() == 0


class Counting:
    """A wire that takes all and keeps nothing."""

    gathers = True
    taken = 0

    def __lshift__(self, data: bytes | memoryview) -> int:
        self.taken += len(data)
        return len(data)

    def __matmul__(self, pieces: Sequence[bytes | memoryview]) -> int:
        return sum(self << piece for piece in pieces)


@pytest.mark.parametrize(
    ("size", "compressed", "most"), [(1 << 20, False, 1 << 20), (8 << 20, False, 256 << 10), (8 << 20, True, 256 << 10)]
)
def test_a_long_text_is_sent_without_a_copy_beside_what_is_masked(size: int, compressed: bool, most: int) -> None:
    sock = Counting()
    box = outbox(sock, Deflater(Agreement()) if compressed else None)
    text = "x" * size
    tracemalloc.start()
    try:
        assert (box.send_deflating if compressed else box.send)(TEXT, text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert box.pending() == 0
    assert sock.taken == size + 14 or (compressed and 0 < sock.taken < size // 100)
    assert peak < most + 100_000


def test_messages_that_wait_are_masked_and_written_a_quarter_of_a_mebibyte_at_a_time() -> None:
    sock = Gathering()
    box = outbox(sock)
    texts = [str(n % 10) * 65_536 for n in range(64)]
    for text in texts:
        box.send(TEXT, text)
    sock.room, sock.calls = 1 << 30, 0
    box.write()
    assert [payload.decode() for _, payload in frames(sock)] == texts
    assert sock.calls == len(sock.taken) // (256 * 1024) + 1


def test_a_buffer_that_is_changed_after_sending_changes_nothing() -> None:
    sock = Narrow()
    box = outbox(sock)
    payload = bytearray(b"before")
    box.send(BINARY, memoryview(payload))
    payload[:] = b"after!"
    sock.room = 100
    box.write()
    assert frames(sock) == [(BINARY, b"before")]


def test_a_close_frame_goes_behind_what_is_queued_and_nothing_goes_behind_it() -> None:
    sock = Narrow(3)
    box = outbox(sock)
    box.send(TEXT, b"one")
    box.send(PING, b"two", message=False)
    assert box.send(CLOSE, b"\x03\xe8", message=False)
    assert box.closed
    assert not box.send(TEXT, b"late")
    assert not box.send(PONG, b"late", message=False)
    assert not box.send(CLOSE, b"\x03\xe9", message=False)
    assert (box.pending(), box.pongs) == (3, 0)
    sock.room = 1000
    box.write()
    assert frames(sock) == [(TEXT, b"one"), (PING, b"two"), (CLOSE, b"\x03\xe8")]


def test_before_it_is_open_a_frame_waits_and_needs_no_polling() -> None:
    box = Outbox()
    box.send(TEXT, b"early")
    assert (box.waiting, box.pending()) == (False, 5)
    sock = Narrow(100)
    box.open(sock, None)
    box.write()
    assert frames(sock) == [(TEXT, b"early")]
    assert box.pending() == 0


@pytest.mark.parametrize("kind", [Narrow, Gathering])
@pytest.mark.parametrize("size", [20_000, 700_000])
def test_nothing_is_masked_twice_however_little_of_it_the_system_takes(
    kind: type[Narrow], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked: list[int] = []

    def mask(data: bytes | memoryview, key: bytes) -> bytes:
        masked.append(len(data))
        return xor(bytes(data), key)

    monkeypatch.setattr(outbox_module, "mask", mask)
    sock = kind()
    box = outbox(sock)
    sent = [bytes((number,)) * size for number in range(5)]
    for payload in sent:
        box.send(BINARY, payload)
    while box.pending():
        sock.room = 9_973
        box.write()
    assert frames(sock) == [(BINARY, payload) for payload in sent]
    assert sum(masked) == 5 * size


@pytest.mark.parametrize("step", [1, 200, 9_973])
@pytest.mark.parametrize("size", [100, 20_000, 700_000])
def test_the_system_gets_few_buffers_at_once_however_little_it_takes(size: int, step: int) -> None:
    """It refuses more than 1,024, and looking through many takes long."""
    sock = Gathering()
    box = outbox(sock)
    sent = [bytes((number,)) * size for number in range(200 if size == 100 else 3)]
    for payload in sent:
        box.send(BINARY, payload)
    for _ in range(3_000):
        sock.room = step
        box.write()
    sock.room = 1 << 30
    box.write()
    assert frames(sock) == [(BINARY, payload) for payload in sent]
    assert sock.most <= 130


@pytest.mark.parametrize("blocks", WOULD_BLOCK)
def test_everything_that_means_later_leaves_it_in_the_queue(blocks: type[OSError]) -> None:
    sock = Narrow()
    sock.blocks = blocks
    box = outbox(sock)
    box.send(TEXT, b"hello")
    box.write()
    # TLS that has to read first is not polled for writing.
    assert (box.pending(), box.stalled, box.waiting) == (5, blocks is ssl.SSLWantReadError, not box.stalled)
    sock.room = 100
    box.write()
    assert frames(sock) == [(TEXT, b"hello")]
    assert (box.pending(), box.stalled, box.waiting) == (0, False, False)


class Interrupted(Narrow):
    """A socket in whose `send` a signal comes, whose handler sends too: on the same thread, in the middle."""

    def __init__(self, room: int, handler: Callable[[], object]) -> None:
        super().__init__(room)
        self._handler: Callable[[], object] | None = handler

    def send(self, data: bytes | memoryview) -> int:
        if self._handler is not None:
            handler, self._handler = self._handler, None
            handler()
        return super().send(data)


@pytest.mark.parametrize("room", [0, 3, 1000])
def test_what_a_signal_handler_sends_goes_behind_the_frame_it_interrupted(room: int) -> None:
    def handler() -> None:
        assert box.send(TEXT, b"from the handler")
        assert box.send(PING, b"too", message=False)

    sock = Interrupted(room, handler)
    box = outbox(sock)
    assert box.send(TEXT, b"outer")
    assert box.pending() == max(0, 5 + 16 - max(0, room - 12))
    sock.room = 1000
    box.write()
    assert frames(sock) == [(TEXT, b"outer"), (TEXT, b"from the handler"), (PING, b"too")]
    assert (box.pending(), box.waiting) == (0, False)


def test_a_signal_handler_may_close() -> None:
    sock = Interrupted(1000, lambda: box.send(CLOSE, b"", message=False))
    box = outbox(sock)
    box.send(TEXT, b"outer")
    assert not box.send(TEXT, b"late")
    assert frames(sock) == [(TEXT, b"outer"), (CLOSE, b"")]


@pytest.mark.parametrize("size", [5, 50_000, 200_000])
@pytest.mark.parametrize("room", [0, 3, 1 << 20])
def test_a_signal_handler_that_asks_what_is_pending_changes_nothing(size: int, room: int) -> None:
    asked: list[object] = []

    def handler() -> None:
        asked.extend((box.pending(), box.wait(None)))
        box.write()

    sock = Interrupted(room, handler)
    box = outbox(sock)
    assert box.send(BINARY, bytes(size))
    assert asked == [size, False]
    sock.room = 1 << 20
    box.write()
    assert frames(sock) == [(BINARY, bytes(size))]
    assert (box.pending(), box.waiting) == (0, False)


@pytest.mark.parametrize("then", [TEXT, CLOSE])
def test_what_a_signal_handler_sends_is_sent_although_it_raises_then(then: int) -> None:
    def handler() -> None:
        assert box.send(TEXT, b"last words")
        raise KeyboardInterrupt

    sock = Interrupted(1000, handler)
    box = outbox(sock)
    with pytest.raises(KeyboardInterrupt):
        box.send(TEXT, b"outer")
    assert box.pending() == len(b"outer" + b"last words")
    box.send(then, b"", message=then == TEXT)
    box.write()
    assert frames(sock) == [(TEXT, b"outer"), (TEXT, b"last words"), (then, b"")]
    assert (box.pending(), box.waiting) == (0, False)


def test_a_write_sends_too_what_a_signal_handler_sent_before_it_raised() -> None:
    def handler() -> None:
        assert box.send(TEXT, b"last words")
        raise KeyboardInterrupt

    sock = Interrupted(1000, handler)
    box = outbox(sock)
    with pytest.raises(KeyboardInterrupt):
        box.send(TEXT, b"outer")
    box.write()
    assert frames(sock) == [(TEXT, b"outer"), (TEXT, b"last words")]


class Failing(Deflater):
    """Runs out of memory when a message is compressed, and again when the stream is to be made anew."""

    failures = 0

    def deflate(self, data: bytes | memoryview) -> bytes | None:
        packed = super().deflate(data)
        self._fail()
        return packed

    def restart(self) -> None:
        self._fail()
        super().restart()

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise MemoryError


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_no_message_refers_to_one_that_was_compressed_and_not_sent(failures: int) -> None:
    sock = Narrow(1 << 20)
    deflater = Failing(Agreement())
    box = outbox(sock, deflater)
    lines = [b"a line that is like the one before, and that is compressed well, number %d" % n for n in range(9)]
    box.send(TEXT, lines[0])
    deflater.failures = failures
    for _ in range(failures):
        with pytest.raises(MemoryError):
            box.send(TEXT, lines[1])
    for line in lines[2:]:
        box.send(TEXT, line)
    inflater = Inflater(Agreement())
    seen = Frames(bytes(sock.taken))
    assert [b"".join(inflater.inflate(payload, True)) for _, payload in seen.whole] == [lines[0], *lines[2:]]
    assert box.pending() == 0


class Signal:
    """Calls `handler` once, after so many points of the outbox's code at which Python may run signal handlers.

    Such are the beginning of a function and the return of C code, and where nothing is raised a call of C code stands
    for the making of its arguments.
    """

    def __init__(self, points: int, handler: Callable[[], object], *more: str) -> None:
        self.points, self.came = points, False
        self.handler, self._events = handler, ("call", "c_return", *more)

    def __enter__(self) -> Signal:
        sys.setprofile(self._look)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)

    def _look(self, code: FrameType, event: str, arg: object) -> None:
        if event in self._events and code.f_code.co_filename == outbox_module.__file__ and not self.came:
            self.points -= 1
            if self.points < 0:
                self.came = True
                self.handler()


SIZES = (5, 100, 20_000)  # bytes: in one piece with the header, and not
ROOMS = (0, 3, 7, 1 << 20)  # bytes that a socket takes at once


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("kind", [Narrow, Gathering])
def test_a_signal_handler_may_look_and_send_at_any_point(kind: type[Narrow], size: int, room: int) -> None:
    for points in range(1000):
        sock = kind(room)
        box = outbox(sock)

        def handler(box: Outbox = box) -> None:
            assert 0 <= box.pending() <= size
            box.send(TEXT, b"handler")
            assert box.wait(0) == (not box.pending())

        with Signal(points, handler, "c_call") as signal:
            box.send(TEXT, b"x" * size)
            sock.room += 10
            box.write()
        sock.room = 1 << 20
        box.write()
        sent = sorted(payload for _, payload in frames(sock))
        assert sent == [b"handler", b"x" * size][not signal.came :], f"a signal at point {points}"
        assert (box.pending(), box.waiting) == (0, False)
        if not signal.came:
            break
    assert 5 < points < 999


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("kind", [Narrow, Gathering])
def test_a_signal_handler_may_send_and_raise_at_any_point(kind: type[Narrow], size: int, room: int) -> None:
    def handler() -> None:
        box.send(TEXT, b"handler")
        raise KeyboardInterrupt

    for points in range(1000):
        sock = kind(room)
        box = outbox(sock)
        with Signal(points, handler) as signal:
            try:
                box.send(TEXT, b"x" * size)
                box.send(TEXT, b"y" * size)
            except KeyboardInterrupt:
                box.write()
        box.send(CLOSE, b"", message=False)
        sock.room = 1 << 20
        box.write()
        sent = [payload for _, payload in frames(sock)]
        assert sent.pop() == b"", f"a signal at point {points}"
        assert sent.count(b"handler") == signal.came, f"a signal at point {points}"
        assert sent.count(b"x" * size) <= 1, f"a signal at point {points}"
        assert sent.count(b"y" * size) <= sent.count(b"x" * size), f"a signal at point {points}"
        assert len(sent) == len(set(sent))
        assert (box.pending(), box.waiting) == (0, False)
        if not signal.came:
            break
    assert 5 < points < 999


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("kind", [Narrow, Gathering])
def test_a_time_limit_that_a_signal_handler_raises_is_no_failure_of_the_network(
    kind: type[Narrow], size: int, room: int
) -> None:
    def handler() -> None:
        raise TimeoutError("the program's own")  # an OSError, as those of the network

    for points in range(1000):
        sock = kind(room)
        box = outbox(sock)
        raised = False
        with Signal(points, handler) as signal:
            try:
                box.send(TEXT, b"x" * size)
                sock.room += 10
                box.write()
            except TimeoutError:
                raised = True
        assert raised == signal.came, f"a signal at point {points}"
        box.send(TEXT, b"last")
        sock.room = 1 << 20
        box.write()
        assert box.failed is None, f"a signal at point {points}"
        assert frames(sock)[-1] == (TEXT, b"last"), f"a signal at point {points}"
        if not signal.came:
            break
    assert 5 < points < 999


def every_pair(scene: Callable[[int, int], bool]) -> int:
    """Play the scene for each point, and each of how many more to a second one; of how many first ones there are.

    Args:
        scene: Tells whether both came.
    """
    first = 0
    while scene(first, 0):
        gap = 1
        while scene(first, gap):
            gap += 1
        first += 1
    return first


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("room", [0, 7, 1 << 20])
def test_what_one_signal_handler_has_sent_is_not_lost_when_another_one_raises(room: int, compressed: bool) -> None:
    ours, theirs = b"ours " * 5, b"theirs " * 5

    def scene(first: int, gap: int) -> bool:
        """A handler sends at one point, and another one raises some points later; whether there are so many."""
        sock = Narrow(room)
        box = outbox(sock, Deflater(Agreement()) if compressed else None)

        def send() -> None:
            box.send(TEXT, theirs)
            signal.points, signal.came, signal.handler = gap, False, throw

        with Signal(first, send) as signal:
            try:
                box.send(TEXT, ours)
            except KeyboardInterrupt:
                box.write()
            sock.room += 10
            with contextlib.suppress(KeyboardInterrupt):
                box.write()
        if signal.handler is send:
            return False
        box.send(TEXT, b"last")
        sock.room = 1 << 20
        box.write()
        inflater = Inflater(Agreement())
        seen = Frames(bytes(sock.taken))
        got = [b"".join(inflater.inflate(payload, True)) if rsv1 else payload for rsv1, payload in seen.payloads]
        assert got in ([ours, theirs, b"last"], [theirs, ours, b"last"], [theirs, b"last"]), (first, gap)
        assert (box.pending(), box.waiting) == (0, False), (first, gap)
        return signal.came

    def throw() -> None:
        raise KeyboardInterrupt

    assert every_pair(scene) > 3


def test_what_is_lost_when_the_connection_ends_behind_two_signals_is_counted_once() -> None:
    ours, theirs = b"ours", b"theirs"

    def scene(first: int, gap: int) -> bool:
        box = outbox(Narrow())

        def send() -> None:
            box.send(TEXT, theirs)
            signal.points, signal.came, signal.handler = gap, False, throw

        with Signal(first, send) as signal, contextlib.suppress(KeyboardInterrupt):
            box.send(TEXT, ours)
        box.close()
        if signal.handler is send:
            return False
        assert box.pending() in (len(theirs), len(ours) + len(theirs)), (first, gap)
        return signal.came

    def throw() -> None:
        raise KeyboardInterrupt

    assert every_pair(scene) > 3


class Walk:
    """Calls `handler` at place number `at` of the outbox's code where this Python looks for signals, jumps included.

    See CHECK_EVAL_BREAKER in CPython's ceval.c: in 3.10 it stands in calls and in jumps that are taken (POP_JUMP_IF_*,
    JUMP_ABSOLUTE), but not before a `try` or `with`; since 3.11 in calls, in RESUME and in jumps backwards.
    """

    def __init__(self, at: int, handler: Callable[[], object]) -> None:
        self.came = ""
        self._left, self._handler = at, handler
        self._before: dict[FrameType, dis.Instruction] = {}
        self._instructions: dict[CodeType, dict[int, dis.Instruction]] = {}

    def __enter__(self) -> Walk:
        self._outer = sys.gettrace()  # that of a measurement of coverage
        sys.settrace(self._enter)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(self._outer)

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename != outbox_module.__file__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if sys.version_info < (3, 11):
            self._look(frame)
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            code = frame.f_code
            if code not in self._instructions:
                self._instructions[code] = {each.offset: each for each in dis.get_instructions(code)}
            here = self._instructions[code].get(frame.f_lasti)
            before = self._before.pop(frame, None)
            if here is not None:
                self._before[frame] = here
                if before is not None and _looks(before, here):
                    self._look(frame)
        return self._step

    def _look(self, frame: FrameType) -> None:
        self._left -= 1
        if self._left == 0:
            self.came = f"{frame.f_code.co_name}, line {frame.f_lineno}"
            self._handler()


def _looks(before: dis.Instruction, here: dis.Instruction) -> bool:
    taken = here.offset == before.argval
    if sys.version_info >= (3, 11):
        called = before.opname in ("CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME")
        return called or (taken and "JUMP_BACKWARD" in before.opname)
    if here.opname in ("SETUP_FINALLY", "SETUP_WITH"):
        return False
    called = before.opname in ("CALL_FUNCTION", "CALL_METHOD", "CALL_FUNCTION_KW", "CALL_FUNCTION_EX")
    return called or before.opname == "JUMP_ABSOLUTE" or (taken and before.opname.startswith("POP_JUMP"))


@pytest.mark.parametrize("room", [0, 30, 1 << 20], ids=["and waits", "and something goes out", "and all goes out"])
@pytest.mark.parametrize("waiting", [0, 1, 3])
@pytest.mark.parametrize("look", ["pending", "wait", "write"])
def test_whoever_looks_what_waits_is_told_so_when_a_signal_handler_sends_meanwhile(
    look: str, waiting: int, room: int
) -> None:
    def handler() -> None:
        before.append(box.pending())
        assert box.send(TEXT, b"from the handler")
        sock.room = room
        box.write()

    def looks() -> object:
        return box.wait(0) if look == "wait" else getattr(box, look)()

    with Walk(0, handler):
        outbox(Narrow(0)).send(TEXT, b"")  # Python 3.12 begins to tell of instructions with the second frame,
    at, came = 0, "first"
    while came:
        at += 1
        sock = Narrow(0)
        box = outbox(sock)
        before: list[int] = []
        for _ in range(waiting):
            box.send(TEXT, b"x" * 20)
        with Walk(at, handler) as walk:
            told = looks(), looks()  # and of a function's when it is called again
        came = walk.came
        now = box.pending()
        if look == "pending":
            assert set(told) <= {*before, now}, came
        elif look == "wait":
            assert set(told) <= {not now, *(not pending for pending in before)}, came
        sock.room = 1 << 20
        box.write()
        assert [payload for _, payload in frames(sock)] == [b"x" * 20] * waiting + [b"from the handler"] * bool(came)
        assert box.pending() == 0
    assert at > 3


@pytest.mark.parametrize("size", [5, 20_000])
@pytest.mark.parametrize("room", [3, 1 << 20])
@pytest.mark.parametrize("act", ["sends", "closes", "raises", "sends and raises"])
def test_no_message_is_torn_lost_or_doubled_wherever_this_python_looks_for_signals(
    act: str, room: int, size: int
) -> None:
    first, other, their, last = (word * (size // 5) for word in (b"first", b"other", b"their", b"last "))

    def handler() -> None:
        assert 0 <= box.pending() <= 2 * size
        if "sends" in act:
            box.send(TEXT, their)
            sock.room += 5
        if act == "closes":
            box.send(CLOSE, b"", message=False)
        if "raises" in act:
            raise KeyboardInterrupt

    with Walk(0, handler):
        outbox(Gathering(room)).send(TEXT, first)  # Python 3.12 begins to tell of instructions with the second frame
    at, came = 0, "first"
    while came:
        at += 1
        sock = Gathering(room)
        box = outbox(sock)
        sure: list[bytes] = []
        with contextlib.suppress(KeyboardInterrupt), Walk(at, handler) as walk:
            for payload in (first, other):
                box.send(TEXT, payload)
                sure.append(payload)
        came = walk.came
        box.write()
        sock.room = 1 << 20
        box.write()
        box.send(TEXT, last)
        got = [payload for opcode, payload in frames(sock) if opcode == TEXT]
        assert len(got) == len(set(got)), came
        assert set(got) <= {first, other, their, last}, came
        if act == "closes" and came:
            assert frames(sock)[-1] == (CLOSE, b""), came
        else:
            expected = [*sure, last]
            assert [payload for payload in got if payload in expected] == expected, came
            assert (their in got) == ("sends" in act and came != ""), came
        heads = {0: 6, 5: 6, 20_000: 8}  # bytes, by size of the payload
        assert len(sock.taken) == sum(heads[len(payload)] + len(payload) for _, payload in frames(sock)), came
        assert (box.pending(), box.waiting) == (0, False), came
    assert at > 5


# -- TLS, where Python looks for signals inside a write, too


def tls_outbox(write: Callable[[bytes], int]) -> Outbox:
    """An outbox that is open on a TLS socket whose write this is."""
    sock = ssl.SSLSocket.__new__(ssl.SSLSocket)
    sock._sslobj = types.SimpleNamespace(write=write)  # type: ignore[attr-defined]
    return outbox(wire_of(sock))


def test_what_tls_may_have_written_is_not_written_again_however_often_signal_handlers_raise() -> None:
    def write(data: bytes) -> int:
        written.append(data)
        raise KeyboardInterrupt

    def throw() -> None:
        raise KeyboardInterrupt

    for points in range(1000):
        written: list[bytes] = []
        box = tls_outbox(write)
        with Signal(points, throw) as signal, contextlib.suppress(KeyboardInterrupt):
            box.send(TEXT, b"hello")
        for _ in range(3):
            with contextlib.suppress(KeyboardInterrupt):
                box.write()
        with contextlib.suppress(KeyboardInterrupt):
            box.send(TEXT, b"again")  # the first one, if that was interrupted before it was one
        box.write()
        assert len(written) == 1, f"a signal at point {points}"
        assert "a signal handler raised inside a TLS write" in str(box.failed), f"a signal at point {points}"
        if not signal.came:
            break
    assert 5 < points < 999


def test_a_time_limit_inside_a_tls_write_is_raised_and_named() -> None:
    def write(data: bytes) -> int:
        raise TimeoutError("the program's own")

    box = tls_outbox(write)
    with pytest.raises(TimeoutError, match="the program's own"):
        box.send(TEXT, b"hello")
    assert "a signal handler raised inside a TLS write" in str(box.failed)
    assert box.pending() == 5


def test_a_time_limit_around_a_tls_write_harms_nothing() -> None:
    def throw() -> None:
        raise TimeoutError("the program's own")

    def write(data: bytes) -> int:
        written.append(bytes(data))
        return len(data)

    for points in range(1000):
        written: list[bytes] = []
        box = tls_outbox(write)
        with Signal(points, throw) as signal, contextlib.suppress(TimeoutError):
            box.send(TEXT, b"hello")
            box.send(TEXT, b"there")
        box.write()
        box.send(TEXT, b"last")
        *before, last = [payload for _, payload in Frames(b"".join(written)).whole]
        assert before in ([], [b"hello"], [b"hello", b"there"]), f"a signal at point {points}"
        assert last == b"last", f"a signal at point {points}"
        assert (box.failed, box.pending()) == (None, 0), f"a signal at point {points}"
        if not signal.came:
            break
    assert 5 < points < 999


@contextlib.contextmanager
def refusing() -> Iterator[Callable[[bytes], int]]:
    """A write in C, as that of OpenSSL is, which would block; behind the block it fails."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(bytes(4096))
        yield ours.send


def test_what_tls_itself_refuses_is_queued_or_the_end() -> None:
    with refusing() as write:
        box = tls_outbox(write)
        assert box.send(TEXT, b"hello")
        assert (box.failed, box.waiting, box.pending()) == (None, True, 5)
    box.write()
    assert (box.waiting, box.pending()) == (False, 5)
    assert box.failed is not None
    assert box.failed.errno == errno.EBADF


def test_what_has_ended_keeps_nothing_of_tls() -> None:
    write = functools.partial(len)
    kept = weakref.ref(write)
    box = tls_outbox(write)
    box.send(TEXT, b"hello")
    box.close()
    del write
    assert kept() is None


def test_two_signals_around_a_refusal_of_tls_leave_the_next_time_limit_the_programs() -> None:
    def throw() -> None:
        raise TimeoutError("the program's own")

    def scene(first: int, second: int) -> bool:
        box = tls_outbox(write)
        with Signal(first, throw) as sending, contextlib.suppress(TimeoutError):
            box.send(TEXT, b"hello")
        with Signal(second, throw) as writing, contextlib.suppress(TimeoutError):
            box.write()
        assert box.failed is None, (first, second)
        assert box.pending() in (0, 5), (first, second)
        return sending.came and writing.came

    with refusing() as write:
        assert every_pair(scene) > 5


def test_a_signal_handler_can_tell_that_it_has_interrupted_sending() -> None:
    told: list[bool] = []

    def handler() -> None:
        told.append(box.interrupted())
        thread = threading.Thread(target=lambda: told.append(box.interrupted()))
        thread.start()
        thread.join(TIMEOUT)

    box = outbox(Interrupted(1000, handler))
    assert not box.interrupted()
    box.send(TEXT, b"outer")
    assert told == [True, False]
    assert not box.interrupted()


def two_signals(box: Outbox) -> None:
    """CPython 3.10 skips a `finally` when the second one raises where it begins."""
    box._busy = True
    box._at_most = -1


def test_what_two_signals_close_to_each_other_left_is_made_good() -> None:
    sock = Narrow(1 << 20)
    box = outbox(sock)
    two_signals(box)
    assert box.send(TEXT, b"one")
    two_signals(box)
    assert box.wait(1)
    two_signals(box)
    box.write()
    assert box.send(TEXT, b"two")
    assert frames(sock) == [(TEXT, b"one"), (TEXT, b"two")]
    assert box.pending() == 0


def test_what_two_signals_left_is_made_good_by_a_handler_that_interrupts_another_connection_s_send() -> None:
    sock = Narrow(1 << 20)
    left = outbox(sock)
    seen: list[list[tuple[int, bytes]]] = []

    def handler() -> None:
        two_signals(left)
        assert left.send(TEXT, b"at once")
        seen.append(frames(sock))

    other = outbox(Interrupted(1 << 20, handler))
    assert other.send(TEXT, b"interrupted")
    assert seen == [[(TEXT, b"at once")]]


def test_what_is_left_is_made_good_by_the_send_that_two_signals_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not take itself for one that goes on."""
    sock = Narrow(1 << 20)
    box = Outbox(look=lambda interrupted: box.write() if interrupted else None)
    box.open(sock, Deflater(Agreement()))

    def twice(self: Outbox, opcode: int, payload: Any, message: bool) -> bool:
        two_signals(box)
        box._later.append((TEXT, b"from the first handler", True))
        raise KeyboardInterrupt  # from the second; and CPython 3.10 has skipped the `finally`

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "_send", twice)
        with pytest.raises(KeyboardInterrupt):
            box.send(TEXT, b"interrupted")
    assert frames(sock) == [(TEXT, b"from the first handler")]


@pytest.mark.parametrize("deflater", [None, Deflater(Agreement())])
def test_sending_goes_on_after_there_was_no_memory_for_masking_keys(
    monkeypatch: pytest.MonkeyPatch, deflater: Deflater | None
) -> None:
    sock = Narrow(1 << 20)
    box = Outbox(look=lambda interrupted: box.write() if interrupted else None)  # as the engine does
    box.open(sock, deflater)

    urandom, memory = os.urandom, False

    def random_bytes(size: int) -> bytes:
        if memory:
            return urandom(size)
        raise MemoryError

    monkeypatch.setattr(os, "urandom", random_bytes)
    box._key = frames_module.masking_keys().__next__
    for _ in range(3):
        with pytest.raises(MemoryError):
            box.send(TEXT, b"lost")
    memory = True
    for message in (b"one", b"two"):
        assert box.send(TEXT, message)
    assert frames(sock) == [(TEXT, b"one"), (TEXT, b"two")]


def test_the_queue_goes_out_after_there_was_no_memory_for_masking_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(size: int) -> bytes:
        raise MemoryError

    def handler() -> None:
        box.send(TEXT, b"from the handler")
        with monkeypatch.context() as patch:
            patch.setattr(os, "urandom", no_memory)
            box._key = frames_module.masking_keys().__next__
            with pytest.raises(MemoryError):
                box._key()

    sock = Interrupted(1 << 20, handler)
    box = outbox(sock)
    assert box.send(TEXT, b"outer")
    box.write()
    assert frames(sock) == [(TEXT, b"outer"), (TEXT, b"from the handler")]


@pytest.mark.parametrize("taken", [0, 1_000_000])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [Narrow, Gathering])
@pytest.mark.parametrize("where", ["mask", "write"])
def test_a_message_that_there_is_no_memory_for_is_sent_wholly_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, where: str, kind: type[Narrow], taken: int, compressed: bool
) -> None:
    """`send` raises when it is not, so that it may be sent again."""
    size = 4_000_000
    sock = kind(1 << 30)
    box = outbox(sock, Deflater(Agreement()) if compressed else None)
    noise = random.Random(1)
    payload, other = noise.randbytes(size), noise.randbytes(size)
    left = [taken]

    def need(data: bytes | memoryview) -> None:
        left[0] -= len(data)
        if left[0] < 0:
            raise MemoryError

    def mask(data: bytes | memoryview, key: bytes) -> bytes:
        need(data)
        return xor(bytes(data), key)

    def write(self: Narrow, data: bytes | memoryview) -> int:
        need(data)
        return Narrow.send(self, data)

    assert box.send_deflating(BINARY, b"before")
    with monkeypatch.context() as patch:
        if where == "mask":
            patch.setattr(outbox_module, "mask", mask)
        else:
            patch.setattr(kind, "__lshift__", write)
            patch.setattr(kind, "__matmul__", lambda self, pieces: write(self, b"".join(pieces)))
        if taken:
            assert box.send_deflating(BINARY, payload)
            assert size - taken <= box.pending() < size
        else:
            with pytest.raises(MemoryError):
                box.send_deflating(BINARY, payload)
            assert box.pending() == 0
    assert box.send_deflating(BINARY, other)
    assert box.send_deflating(BINARY, b"after")
    box.write()
    sent = [b"before", *([payload] if taken else []), other, b"after"]
    assert [data for _, data in frames(sock)] == sent
    assert not box.waiting


def test_progress_counts_the_writes_that_emptied_some_of_the_queue() -> None:
    sock = Narrow()
    box = outbox(sock)
    box.send(TEXT, b"hello")
    box.write()
    assert box.progress == 0
    sock.room = 3
    box.write()
    assert box.progress == 1
    sock.room = 100
    box.write()
    assert box.progress == 2


@pytest.mark.parametrize("error", [ConnectionResetError(), BrokenPipeError(), ssl.SSLError(1, "bad"), OSError(9, "x")])
@pytest.mark.parametrize("when", ["at the first try", "later"])
def test_a_socket_that_is_broken_raises_nothing_and_keeps_what_is_pending(error: OSError, when: str) -> None:
    sock = Narrow()
    box = outbox(sock)
    if when == "later":
        box.send(TEXT, b"hello")
    sock.error = error
    if when == "later":
        box.write()
    else:
        box.send(TEXT, b"hello")
    assert (box.pending(), box.waiting) == (5, False)
    calls = sock.calls
    assert box.send(TEXT, b"again")  # not closed yet: reading tells why
    box.write()
    assert (box.pending(), sock.calls, box.waiting) == (10, calls, False)
    box.close()
    assert not box.send(TEXT, b"too late")
    assert box.pending() == 10


# -- waiting


def waiting(box: Outbox, timeout: float | None = None) -> Callable[[], bool]:
    """Wait on another thread; the function that is returned gives the result."""
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(box.wait(timeout)))
    thread.start()

    def result() -> bool:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        return results[0]

    return result


def test_waiting_ends_when_nothing_is_pending() -> None:
    sock = Narrow()
    box = outbox(sock)
    assert box.wait(None)
    box.send(TEXT, b"hello")
    assert not box.wait(0)
    assert not box.wait(0.01)
    waiters = [waiting(box) for _ in range(3)]
    sock.room = 8
    box.write()
    assert box.pending() == 3
    sock.room = 100
    box.write()
    assert [result() for result in waiters] == [True, True, True]


def test_waiting_does_not_wait_for_control_frames() -> None:
    box = outbox(Narrow())
    box.send(PING, b"x", message=False)
    assert box.waiting
    assert box.wait(None)


def test_who_waits_is_told_when_control_frames_alone_are_left() -> None:
    sock = Narrow()
    box = outbox(sock)
    box.send(TEXT, b"hello")
    box.send(PONG, b"x", message=False)
    result = waiting(box)
    while box._drained is None or not box._drained._waiting:
        threading.Event().wait(0.001)
    sock.room = 12
    with box.lock:
        box.write()
        assert not box._drained._waiting  # not only when it looks again
    assert result()
    assert box.waiting  # for the rest of the pong


def test_waiting_ends_when_the_connection_does() -> None:
    box = outbox(Narrow())
    box.send(TEXT, b"hello")
    result = waiting(box)
    box.close()
    assert not result()
    assert not box.wait(None)
    assert box.pending() == 5


def test_waiting_goes_on_while_a_broken_socket_has_not_been_noticed() -> None:
    sock = Narrow()
    box = outbox(sock)
    sock.error = BrokenPipeError()
    box.send(TEXT, b"hello")
    result = waiting(box)
    assert not box.wait(0.05)
    box.close()
    assert not result()


def test_forgetting_needs_no_lock_and_leaves_nothing() -> None:
    sock = Narrow()
    box = outbox(sock)
    box.send(TEXT, b"hello")
    box.lock.acquire()  # as another thread of the parent may have
    box.forget()
    sock.room = 100
    box.write()
    assert (box.pending(), box.closed, box.waiting, len(sock.taken)) == (0, True, False, 0)
    assert box.wait(None)
    assert not box.send(TEXT, b"late")


# -- from many threads, and compressed


def test_messages_of_many_threads_are_whole_and_in_order() -> None:
    sock = Narrow(1 << 30, step=7)
    box = outbox(sock)
    count = 200

    def send(name: int) -> None:
        for n in range(count):
            box.send(TEXT, f"{name} {n}".encode())
            if n % 10 == name:
                box.write()

    threads = [threading.Thread(target=send, args=[name]) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    while box.waiting:
        box.write()
    got = [payload.decode().split() for _, payload in frames(sock)]
    assert len(got) == 4 * count
    for name in range(4):
        assert [int(n) for who, n in got if int(who) == name] == list(range(count))


def test_pending_of_a_compressed_message_is_what_the_caller_sent() -> None:
    sock = Narrow()
    box = outbox(sock, Deflater(Agreement()))
    text = b"a" * 1000
    for payload in (text, text, b"tiny"):
        box.send(TEXT, payload)
    assert box.pending() == 2004
    before = box.pending()
    while box.waiting:
        sock.room = 1
        box.write()
        assert 0 <= box.pending() <= before
        before = box.pending()
    assert box.pending() == 0
    seen = Frames(bytes(sock.taken))
    assert seen.compressed == 2
    inflater = Inflater(Agreement())
    assert [b"".join(inflater.inflate(payload, True)) for _, payload in seen.whole[:2]] == [text, text]
    assert seen.whole[2] == (TEXT, b"tiny")
