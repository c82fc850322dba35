"""TLS with memory between it and the network: against OpenSSL at the other end, in the same thread."""

from __future__ import annotations

import contextlib
import gc
import select
import socket
import ssl
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bws._engine.outbox import Outbox
from bws._engine.tls_stream import ANSWERS, MOST, RECORD, SLICE, TlsStream
from bws._engine.wire import Stream, wire_of
from tests.conftest import TIMEOUT
from tests.engine.test_outbox import Frames
from tests.interrupt import Interrupt, Interruption, everywhere
from tests.wire.frames import BINARY, TEXT
from tests.wire.tls import authority, contexts

LARGE = bytes(range(256)) * 2048  # 512 KiB


class Peer:
    """The server's end; what it reads and writes is decrypted and encrypted when it is told to."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.got = b""

    def take(self, size: int = 1 << 20) -> None:
        """Take what is on its way: at most so many bytes."""
        with contextlib.suppress(BlockingIOError):
            data = self.sock.recv(size)
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()

    def read(self) -> bytes:
        """All that has come, decrypted."""
        self.take()
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := self.tls.read(1 << 16):
                self.got += data
        return self.got

    def give(self) -> None:
        """Send what is encrypted."""
        self.sock.sendall(self.outgoing.read())

    def write(self, data: bytes) -> None:
        self.tls.write(data)
        self.give()


def shake_hands(stream: TlsStream, peer: Peer) -> None:
    """Both sides of it, in turn."""
    ours = theirs = False
    for _ in range(20):
        if ours and theirs:
            peer.give()  # what TLS 1.3 has to say behind the handshake
            return
        if not ours:
            with contextlib.suppress(ssl.SSLWantReadError):
                ours = stream.do_handshake()
        peer.take()
        if not theirs:
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.do_handshake()
                theirs = True
        peer.give()
    raise AssertionError("no end of the handshake")


class Full(TlsStream):
    """A stream whose system takes nothing while it is `full`."""

    full = False

    def __rshift__(self, data: Any, /) -> int:  # type: ignore[override]
        if self.full:
            raise BlockingIOError
        return socket.socket.send(self, data)


@contextlib.contextmanager
def connected(
    room: int = 1 << 20,
    given: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    kind: type[TlsStream] = TlsStream,
) -> Iterator[tuple[TlsStream, Peer]]:
    """A stream, whose system takes about `room` bytes, and its peer."""
    server, client = given or contexts("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if room < 1 << 20:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        near = Stream()
        near.paced = False
        near.connect(listener.getsockname())
        near.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        far, _ = listener.accept()
    with near, far, kind(near, client, "127.0.0.1") as stream:
        far.setblocking(False)
        peer = Peer(far, server)
        shake_hands(stream, peer)
        peer.write(b"ready")  # behind what TLS 1.3 has to say after the handshake
        assert receive(stream) == b"ready"
        yield stream, peer


@pytest.fixture
def both() -> Iterator[tuple[TlsStream, Peer]]:
    with connected() as pair:
        yield pair


def receive(stream: TlsStream, size: int = 1 << 16) -> bytes:
    """What recv() returns when something is there."""
    while True:
        assert stream.pending() or select.select([stream], [], [], TIMEOUT)[0]
        with contextlib.suppress(ssl.SSLWantReadError):  # it was something of TLS alone
            return stream.recv(size)


def nothing(stream: TlsStream) -> None:
    """There is nothing to be read; what TLS alone has to know is not told."""
    with pytest.raises(ssl.SSLWantReadError):
        stream.recv(1)
    assert not stream.pending()


def test_the_descriptor_belongs_to_the_stream(both: tuple[TlsStream, Peer]) -> None:
    stream, peer = both
    assert stream.getpeername() == peer.sock.getsockname()
    assert (stream.gettimeout(), stream.gathers, stream.torn, wire_of(stream)) == (0.0, False, False, stream)
    nothing(stream)
    stream.close()
    assert stream.fileno() == -1


@pytest.mark.parametrize("size", [1, RECORD, RECORD + 1, SLICE, 3 * SLICE + 17, MOST + RECORD + 5])
def test_bytes_arrive_in_both_directions(both: tuple[TlsStream, Peer], size: int) -> None:
    stream, peer = both
    data = LARGE[:size]
    sent = 0
    while sent < size:
        part = data[sent : sent + 65_536]
        with contextlib.suppress(BlockingIOError):
            sent += stream << part
        peer.read()
    while len(peer.read()) < size:
        assert select.select([peer.sock], [], [], TIMEOUT)[0]
    assert peer.got == data
    got = b""
    peer.tls.write(data)
    while len(got) < size:
        left = peer.outgoing.read(100_000)
        peer.sock.setblocking(True)
        peer.sock.sendall(left)
        got += receive(stream)
    assert got == data
    nothing(stream)


def test_one_call_brings_many_records(both: tuple[TlsStream, Peer]) -> None:
    stream, peer = both
    for number in range(20):
        peer.tls.write(b"%d," % number)
    peer.give()
    assert receive(stream) == b"".join(b"%d," % number for number in range(20))
    nothing(stream)


def test_what_the_system_does_not_take_is_given_again_and_more_with_it() -> None:
    with connected(room=4096) as (stream, peer):
        first = blocked(stream)
        told = stream.told
        assert isinstance(told, BlockingIOError)
        more = first + b"more"
        for _ in range(1000):
            peer.read()
            with contextlib.suppress(BlockingIOError):
                taken = stream << more
                break
            assert select.select([], [stream], [], TIMEOUT)[1]
        assert taken == len(first)
        assert stream << more[taken:] == 4
        while not peer.read().endswith(first + b"more"):
            assert select.select([peer.sock], [], [], TIMEOUT)[0]
        assert peer.got.count(b"more") == 1
        assert set(peer.got.replace(b"more", b"")) == {ord("x")}


def test_who_sends_may_come_in_between_two_records(both: tuple[TlsStream, Peer]) -> None:
    stream, peer = both
    nothing(stream)

    class Counting:
        count = 0
        held = False

        def __enter__(self) -> None:
            self.count += 1
            self.held = True

        def __exit__(self, *exc: object) -> None:
            self.held = False

    lock = Counting()
    stream.lock = lock
    for number in range(20):
        peer.write(b"%d," % number)
    got = b""
    while got.count(b",") < 20:
        got += receive(stream)
    assert lock.count >= 20
    assert not lock.held


def test_what_is_no_data_leaves_others_their_turn(both: tuple[TlsStream, Peer]) -> None:
    stream, peer = both
    nothing(stream)
    peer.tls.write(bytes(RECORD))
    record = peer.outgoing.read()
    peer.sock.sendall(record[:8000])
    for rest in (record[8000:16_000], record[16_000:]):
        assert select.select([stream], [], [], TIMEOUT)[0]
        nothing(stream)
        peer.sock.sendall(rest)
    assert receive(stream) == bytes(RECORD)


def blocked(stream: TlsStream) -> bytes:
    """Fill the network; what was not taken of that, and has to be given again."""
    data = b"x" * 60_000
    for _ in range(1000):
        try:
            stream << data
        except BlockingIOError:
            return data
    raise AssertionError("no end of the buffers")


def test_what_came_before_a_broken_record_is_returned_first(both: tuple[TlsStream, Peer]) -> None:
    stream, peer = both
    peer.tls.write(b"good")
    good = peer.outgoing.read()
    peer.tls.write(b"bad")
    bad = bytearray(peer.outgoing.read())
    bad[-1] ^= 1
    peer.sock.sendall(good + bad)
    assert receive(stream) == b"good"
    assert stream.pending()
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match=r"(?i)decryption failed or bad record mac"):
            stream.recv(100)
    peer.take()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
        peer.tls.read(100)


def test_a_broken_record_alone_is_an_error(both: tuple[TlsStream, Peer]) -> None:
    stream, peer = both
    peer.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError, match=r"(?i)decryption failed or bad record mac"):
        receive(stream)


def test_at_the_end_of_tls_one_can_still_write(both: tuple[TlsStream, Peer]) -> None:
    stream, peer = both
    peer.tls.write(b"last")
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.give()
    assert receive(stream) == b"last"
    assert (receive(stream), receive(stream)) == (b"", b"")
    assert stream << b"bye" == 3
    assert select.select([peer.sock], [], [], TIMEOUT)[0]
    peer.take()
    assert peer.tls.read(10) == b"bye"


def test_the_end_of_tcp_without_that_of_tls_is_an_end(both: tuple[TlsStream, Peer]) -> None:
    stream, peer = both
    peer.tls.write(b"last and half of the next")
    peer.sock.sendall(peer.outgoing.read() + b"\x17\x03\x03\x40\x00half")
    peer.sock.shutdown(socket.SHUT_WR)
    assert receive(stream) == b"last and half of the next"
    assert (receive(stream), receive(stream)) == (b"", b"")


def reset(peer: Peer) -> None:
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.sock.close()


@pytest.mark.skipif(sys.platform == "win32", reason="its SO_LINGER has another form")
def test_a_reset_is_told_by_reading_and_by_writing(both: tuple[TlsStream, Peer]) -> None:
    stream, peer = both
    peer.write(b"last")
    assert receive(stream) == b"last"
    reset(peer)
    with pytest.raises(ConnectionResetError):
        receive(stream)
    with pytest.raises(BrokenPipeError) as failed:
        stream << b"hello"
    assert stream.told is failed.value


# -- what TLS itself has to say; the request for a certificate behind the handshake is what it answers in recv()


def asked_for_a_certificate(**options: Any) -> contextlib.AbstractContextManager[tuple[TlsStream, Peer]]:
    server, client = contexts("127.0.0.1")
    server.verify_mode = ssl.CERT_OPTIONAL
    authority().configure_trust(server)
    authority().issue_cert("me@example.com").configure_cert(client)
    server.post_handshake_auth = client.post_handshake_auth = True
    return connected(given=(server, client), **options)


def ask(peer: Peer) -> None:
    inner: Any = peer.tls
    inner._sslobj.verify_client_post_handshake()
    peer.tls.write(b"who are you?")
    peer.give()


def certified(peer: Peer) -> bool:
    return bool((peer.tls.getpeercert() or {}).get("subjectAltName"))


def test_an_answer_of_tls_goes_out_when_something_is_read() -> None:
    with asked_for_a_certificate() as (stream, peer):
        ask(peer)
        assert receive(stream) == b"who are you?"
        assert select.select([peer.sock], [], [], TIMEOUT)[0]
        peer.read()
        assert certified(peer)
        nothing(stream)


def test_an_answer_of_tls_waits_until_the_system_takes_it() -> None:
    with asked_for_a_certificate(kind=Full) as (stream, peer):
        assert isinstance(stream, Full)
        ask(peer)
        stream.full = True
        assert receive(stream) == b"who are you?"
        assert stream.pending()  # so that the next call tells
        for _ in range(2):
            with pytest.raises(ssl.SSLWantWriteError):
                stream.recv(1)
            assert not stream.pending()
        with pytest.raises(BlockingIOError):
            stream << b"hello"
        stream.full = False
        nothing(stream)
        assert stream << b"hello" == 5
        assert select.select([peer.sock], [], [], TIMEOUT)[0]
        assert peer.read() == b"hello"
        assert certified(peer)


def test_an_answer_of_tls_goes_out_behind_what_is_given_again() -> None:
    with asked_for_a_certificate(room=4096) as (stream, peer):
        data = blocked(stream)
        ask(peer)
        assert receive(stream) == b"who are you?"
        nothing(stream)  # whoever has the data waits until the socket is writable
        taken = 0
        while not taken:
            peer.read()
            with contextlib.suppress(BlockingIOError):
                taken = stream << data
        assert taken == len(data)  # it was encrypted before, and is not again
        while not certified(peer):
            assert select.select([peer.sock], [], [], TIMEOUT)[0]
            peer.read()
        assert set(peer.got) == {ord("x")}
        assert len(peer.got) % len(data) == 0


def test_what_came_before_a_question_is_not_lost_when_the_answer_has_to_wait() -> None:
    with asked_for_a_certificate(kind=Full) as (stream, peer):
        assert isinstance(stream, Full)
        nothing(stream)
        stream.full = True
        inner: Any = peer.tls
        peer.tls.write(b"precious")
        inner._sslobj.verify_client_post_handshake()
        peer.tls.do_handshake()
        peer.give()
        assert receive(stream) == b"precious"
        assert stream.pending()
        with pytest.raises(ssl.SSLWantWriteError):
            receive(stream)


def test_a_peer_that_asks_on_and_on_and_reads_nothing_is_not_read_any_more() -> None:
    with connected(kind=Full) as (stream, peer):
        assert isinstance(stream, Full)
        stream._taken, stream.full = 5, True
        stream._outgoing.write(b"on its way")
        nothing(stream)
        stream._outgoing.write(bytes(ANSWERS))
        peer.write(b"hello")
        assert receive(stream) == b"hello"
        stream._outgoing.write(b"1")
        peer.write(b"unread")
        with pytest.raises(ssl.SSLWantWriteError):
            receive(stream)
        stream._outgoing.read()
        assert receive(stream) == b"unread"


class Watched:
    """A BIO that notes whether another thread could have the lock when it is asked how much is in it."""

    def __init__(self, bio: ssl.MemoryBIO, lock: Any) -> None:
        self._bio, self._lock = bio, lock
        self.free: list[bool] = []
        self.write = bio.write

    @property
    def pending(self) -> int:
        thread = threading.Thread(target=self._look)
        thread.start()
        thread.join()
        return self._bio.pending

    def _look(self) -> None:
        self.free.append(self._lock.acquire(blocking=False))
        if self.free[-1]:
            self._lock.release()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_nobody_comes_in_between_where_a_write_may_read(version: ssl.TLSVersion) -> None:
    server, client = contexts("127.0.0.1")
    client.maximum_version = version
    with connected(given=(server, client)) as (stream, peer):
        watched: Any = Watched(stream._incoming, stream.lock)
        stream._incoming = watched
        for number in range(20):
            peer.tls.write(b"%d," % number)
        peer.give()
        assert receive(stream).count(b",") == 20
        assert len(watched.free) >= 20
        assert set(watched.free) == {version is ssl.TLSVersion.TLSv1_3}


def test_an_answer_of_tls_does_not_pass_for_a_message_that_was_interrupted() -> None:
    with asked_for_a_certificate() as (stream, peer):
        ask(peer)
        write: Callable[[Any], int] = stream._write

        def interrupted(data: Any) -> int:
            stream._write = write
            raise Interrupt

        stream._write = interrupted
        with pytest.raises(Interrupt):
            stream << b"hello"
        assert receive(stream) == b"who are you?"
        assert stream << b"hello" == 5
        while peer.read() != b"hello":
            assert select.select([peer.sock], [], [], TIMEOUT)[0]
        assert certified(peer)


@pytest.mark.skipif(sys.platform == "win32", reason="there it is another error")
def test_an_answer_of_tls_that_nobody_takes_ends_nothing() -> None:
    with asked_for_a_certificate() as (stream, peer):
        ask(peer)
        peer.sock.shutdown(socket.SHUT_WR)
        stream.shutdown(socket.SHUT_WR)
        assert receive(stream) == b"who are you?"
        assert receive(stream) == b""
        with pytest.raises(BrokenPipeError):
            stream << b"hello"


# -- signal handlers


RAISED = [Interrupt, TimeoutError, ssl.SSLError, ssl.SSLWantReadError]


def all_of(box: Outbox, peer: Peer) -> list[tuple[int, bytes]]:
    """The frames at the other end, when the last one is there."""
    while True:
        box.write()
        got = Frames(peer.read()).whole
        if got and got[-1] == (TEXT, b"last"):
            return got
        if not box.waiting:
            assert select.select([peer.sock], [], [], TIMEOUT)[0], got


@pytest.mark.parametrize("room", [4096, 1 << 20])
@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("data", [b"hello", LARGE[:150_000]], ids=["small", "large"])
def test_a_signal_handler_that_raises_takes_nothing_away(data: bytes, room: int, raised: type[BaseException]) -> None:
    """At any place: the message is whole, or not there, and what follows arrives."""

    def act() -> None:
        raise raised

    def scene(interruption: Interruption) -> None:
        peer.got = b""
        with contextlib.suppress(raised), interruption():
            box.send(BINARY, data)
        box.send(TEXT, b"last")
        got = all_of(box, peer)
        assert got in ([(BINARY, data), (TEXT, b"last")], [(TEXT, b"last")]), interruption.place
        assert (box.failed, box.pending()) == (None, 0), interruption.place

    with connected(room) as (stream, peer):
        box = Outbox()
        box.open(stream, None)
        assert everywhere(scene, act) > 5


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_signal_handler_that_raises_inside_openssls_write_takes_nothing_away(
    both: tuple[TlsStream, Peer], raised: type[BaseException], when: str
) -> None:
    def act() -> None:
        raise raised

    assert interrupted_inside(both, when, act, raised) == [(TEXT, b"hello"), (TEXT, b"last")]


def interrupted_inside(
    both: tuple[TlsStream, Peer],
    when: str,
    act: Callable[[], None],
    raised: type[BaseException],
) -> list[tuple[int, bytes]]:
    """What arrives of a message whose write is interrupted, and of another one."""
    stream, peer = both
    write: Callable[[Any], int] = stream._write

    def interrupted(data: Any) -> int:
        stream._write = write
        if when == "behind":
            write(data)
        act()
        raise AssertionError("nothing has raised")

    box = Outbox()
    box.open(stream, None)
    stream._write = interrupted
    with pytest.raises(raised):
        box.send(TEXT, b"hello")
    assert box.pending() == 5
    nothing(stream)  # which sends what TLS itself has to say, and is not to be misled
    box.send(TEXT, b"last")
    got = all_of(box, peer)
    assert box.failed is None
    return got


def test_what_was_closed_is_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        with connected(room=4096) as (stream, peer):
            blocked(stream)
            assert stream.told is not None
            peer.write(b"good")
            peer.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            assert receive(stream) == b"good"
            for _ in range(2):
                with pytest.raises(ssl.SSLError):
                    receive(stream)
            kept = weakref.ref(stream)
            del stream, peer
        assert kept() is None
    finally:
        gc.enable()


def test_sending_from_the_thread_that_reads_keeps_nothing_of_what_was_refused() -> None:
    with connected(room=4096) as (stream, _):
        with contextlib.suppress(BlockingIOError):
            while True:
                stream.send(b"x" * 60_000)
        assert stream.told is None
