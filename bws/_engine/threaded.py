"""One connection on a daemon thread of its own: connects, receives, sends what its callers could not, closes."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable

from .._settings import HIGH_WATER_ITEMS, LIGHT, Settings
from .._state import Ending
from .._system import (
    Poller,
    Waker,
    acknowledge_now,
    close_descriptor,
    forget_at_fork,
    importing,
    keep_freed_memory,
    processors,
)
from .._text import brief, printable
from ..errors import ProtocolError
from . import handshake
from .buffers import BUFFERS
from .connect import connect
from .deflate import Deflater, Inflater
from .frames import CLOSE, LARGE_BUFFER, LARGE_REST, PING, PONG, FrameReader, Payload, close_payload, parse_close
from .interface import CloseFrame, Item, Listener, Opened, Pong
from .outbox import WOULD_BLOCK, Outbox
from .patience import Aborted, Patience, explained, read, write
from .relief import dismiss, hire
from .tls_stream import TlsStream
from .trail import Trail
from .watch import Watch
from .wire import Stream, wire_of

__all__ = ["ThreadedEngine"]

RECEIVE = 64 * 1024  # bytes a recv()
MUCH = 32 * 1024  # bytes that one brings: the next one may bring more; not always, as malloc() may be slow with that
LARGE = 256 * 1024  # then
HUGE = 1024 * 1024  # and when that was messages of 1 to 32 KiB; of smaller ones fewer bytes are faster
READS = 64  # in a row, inside a frame; then timers, what waits to be sent and the program have their turn
MAX_PINGS = 1_000  # without a callback that wait for a peer's pongs, or for nothing: then no more are noted
ANSWERS = 0.25  # s that handlers have for their answers to what came before a violation
LINGER = 2.0  # s that the peer has to end TCP when the closing handshake is done, or the connection failed
BACKOFF = 120.0  # s that TCP waits at most before it sends again what did not arrive
LATE = 0.1  # s that a timer may be late before it means that this program stood still

DEBUG = logging.DEBUG
log = logging.getLogger("bws")


class Ping(bytes):
    """The payload of a ping of the program's."""

    callback: Callable[[float], object] | None = None
    noted = False


class ThreadedEngine:
    """See `interface.Engine`.

    Whoever holds `_io` reads: the socket's thread, or, while that is inside a handler, the relief thread. Whoever
    holds the outbox's lock writes: any thread.
    """

    __slots__ = (
        "__weakref__",
        "_accepted",
        "_acknowledges",
        "_arrivals",
        "_calm",
        "_changed",
        "_close",
        "_close_due",
        "_closing",
        "_draining",
        "_ending",
        "_excused",
        "_indulgent_until",
        "_io",
        "_keepalive",
        "_listener",
        "_next_ping",
        "_next_read",
        "_not_begun",
        "_outbox",
        "_patience",
        "_peer_close",
        "_ping",
        "_pinged",
        "_pings",
        "_polls_write",
        "_pong_due",
        "_progress",
        "_reader",
        "_reads",
        "_relief",
        "_reported",
        "_rest",
        "_settings",
        "_shares",
        "_sock",
        "_stop",
        "_thread",
        "_tls",
        "_unread",
        "_violation",
        "_waker",
        "_watch",
        "_write_to_read",
        "send",
    )  # fmt: skip

    send: Callable[[int, Payload], bool]  # an attribute: a method would be a call more for each message

    def __init__(self, settings: Settings, listener: Listener) -> None:
        self._settings = settings
        self._listener: Listener = listener
        self._waker = Waker()
        self._watch = Watch()
        name = f"bws {settings.address.origin}"
        self._outbox = Outbox(name, self._watch, self._pinging, self._look)
        self.send = self._outbox.send
        self._sock: socket.socket | None = None
        self._patience: Patience | None = None  # while connecting
        self._tls = False
        self._shares = False  # whether who reads needs the outbox's lock; a TlsStream takes it for each record
        self._acknowledges = False  # whether large messages come sooner when reads are acknowledged at once
        self._unread = False  # whether the reader has more than it has read, see FrameReader.feed
        self._next_read = RECEIVE  # bytes that the next recv() may bring
        self._polls_write = False  # whether the thread, when it waits, waits until the socket is writable, too
        self._write_to_read = False  # TLS has to write something before it can read on
        # Whether there is nothing to look after but bytes that come: TCP alone, which is read, nothing that waits to be
        # written, no timer, violation, ending, unread rest or call of close(); and the poller waited last for that
        # socket to be read. The thread says so before it looks, with _io held. Who makes something takes it back behind
        # that, without a call in between that a signal handler could interrupt: what the look misses leaves it False.
        self._calm = False
        # Reading; guarded by _io.
        self._io = threading.Lock()
        self._reader = FrameReader(settings.max_size, self._control)
        self._rest = b""  # frames that came with the answer to the handshake
        self._arrivals = 0  # of bytes: signs of life
        self._accepted = handshake.Accepted()
        self._peer_close: tuple[int, str] | None = None
        self._violation: tuple[ProtocolError, float] | None = None  # and when it is acted upon at the latest
        self._ending: Ending | None = None
        # Timers, in monotonic time; looked at by whoever holds _io.
        self._close_due: float | None = None  # the peer has to answer our close frame
        self._draining: float | None = None  # the peer has to end TCP
        self._next_ping: float | None = None
        self._keepalive = os.urandom(8)  # payload of our own pings: tells their pongs from those of the program's
        self._pinged = -1  # progress of the outbox when our last ping had to wait in it
        self._pong_due: tuple[float, int] | None = None  # when, and the arrivals before the ping
        self._ping: Trail | None = None  # of the ping whose pong is due
        self._close: Trail | None = None  # of our close frame
        self._excused = 0.0  # s that a timer was late and the peer was not blamed for
        self._reads, self._changed = True, 0.0  # whether anything is read, and since when; see _note_reading
        self._indulgent_until = 0.0  # until then the peer may be silent without fault
        self._progress = 0  # of the outbox, when it was looked at last
        self._pings: list[tuple[bytes, Callable[[float], object] | None, float]] = []  # sent by the program
        # Single words, written once.
        self._closing = False  # the program called close(): messages are of no use any more
        self._stop = False  # abort() or kill() was called
        self._reported = False
        self._not_begun = [True]  # a list, as it can be emptied once only
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        forget_at_fork(self)
        self._relief = hire()  # last: it counts

    # -- called from any thread -------------------------------------------------------------------

    def start(self) -> None:
        if sys.is_finalizing():  # Python before 3.12 would wait for ever for a thread that never runs
            raise RuntimeError("can't create new thread at interpreter shutdown")
        self._watch.possible = processors() > 1  # its thread inherits that
        try:
            self._thread.start()
        except RuntimeError as exc:
            # Where a signal handler raises inside that, Python may say that a lock is missing, which it has let go of.
            if exc.__context__ is not None:
                raise exc.__context__ from None
            raise

    def give_up(self) -> None:
        # Ctrl-C may come when the thread is there already: then that is told, and tidies up itself.
        if self._begin():
            self._waker.close()
            dismiss(self._relief)
        else:
            self.abort()

    def _begin(self) -> bool:
        """Whether the caller is the first: the thread, or who has failed to start it."""
        try:
            return self._not_begun.pop()
        except IndexError:
            return False

    def ping(self, payload: bytes, callback: Callable[[float], object] | None) -> None:
        self._watch.expects = True
        ping = Ping(payload)
        ping.callback = callback
        self._outbox.send(PING, ping, message=False)

    def _pinging(self, payload: bytes) -> None:
        """See `Outbox`: so that pings are noted in the order of the wire."""
        if isinstance(payload, Ping) and not payload.noted:
            payload.noted = True
            # Without a callback too: the first pong with a payload answers the first ping with it.
            if payload.callback is not None or len(self._pings) < MAX_PINGS:
                self._pings.append((payload, payload.callback, time.perf_counter()))

    def _look(self, interrupted: bool) -> None:
        """See `Outbox`."""
        outbox = self._outbox
        if interrupted:
            outbox.write()
        if (outbox.waiting and (self._write_to_read or not self._polls_write)) or outbox.failed is not None:
            self.wake()

    def close(self, code: int | None, reason: bytes) -> None:
        self._closing = True
        self._calm = False
        timeout = self._settings.close_timeout
        if timeout is not None and not self._outbox.closed:
            self._progress = self._outbox.progress
            sock = self._sock
            self._close = None if sock is None else Trail(sock, self._outbox)
            self._close_due = time.monotonic() + timeout
        try:
            self._outbox.send(CLOSE, close_payload(code, reason), message=False)
            if self._close is not None:
                self._close.sent()
        finally:
            self.wake()

    def abort(self) -> None:
        self._stop = True
        self._calm = False
        self.wake()

    def buffered(self) -> int:
        return self._outbox.pending()

    def flush(self, timeout: float | None) -> bool:
        if self._outbox.pending():
            # An interruption at the wrong moment may have kept the socket's thread from hearing of it.
            self._outbox.write()
            self._calm = False
            self.wake()
        return self._outbox.wait(timeout)

    def interrupted(self) -> bool:
        return self._outbox.interrupted() or self._waker.interrupted()

    def wake(self) -> None:
        self._calm = False
        if threading.get_ident() != self._thread.ident:
            self._waker.wake()
        self._relief.wake(self)

    def on_thread(self) -> bool:
        # Another thread gets its ident when it has ended.
        return threading.get_ident() == self._thread.ident and self._thread.is_alive()

    def join(self, timeout: float) -> bool:
        if self._thread.ident is None:
            return False  # another thread is about to start it
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def tidy(self, timeout: float) -> None:
        if self._draining is None and not self.on_thread():
            self._thread.join(timeout)

    def forget(self) -> None:
        self._stop = self._reported = True
        self._ending = Ending()
        self._io = threading.Lock()
        self._outbox.forget()
        sock, self._sock = self._sock, None
        if sock is not None:
            close_descriptor(sock)
        for other in [] if self._patience is None else self._patience.socks:
            close_descriptor(other)
        self._waker.forget()

    _forget = forget  # also of a connection whose end has been reported, and which lingers

    # -- the thread's life ------------------------------------------------------------------------

    def _run(self) -> None:
        if not self._begin():
            return
        try:
            with importing:
                from . import wrap  # imports websocket-client, once for the process; see _engine/__init__.py
            log.info("%s: connecting", self._thread.name)
            if self._waker.error is not None:
                raise self._waker.error
            patience = Patience(self._waker, lambda: self._stop, self._settings.open_timeout)
            self._patience = patience
            sock = connect(self._settings, patience)
            self._tls = isinstance(sock, (ssl.SSLSocket, TlsStream))
            self._shares = isinstance(sock, ssl.SSLSocket)
            self._sock, self._patience = sock, None
            wrap.run(self, patience)
        except BaseException as exc:
            self.ended(exc)
        finally:
            self.ended(None)
            try:
                self._linger()
            finally:
                with self._io:  # the relief thread may be about to read
                    self._drop()
                self._waker.close()
                dismiss(self._relief)
                # What refers back to this object goes, so that nothing has to wait for the garbage collector.
                self._reader = FrameReader(None, _ignore)
                self._listener = _NOBODY
                self._patience = None

    def shake_hands(self, key: str, patience: Patience) -> None:
        """See `wrap.Connection`."""
        sock = self._sock
        assert sock is not None
        patience.stage = "waiting for the answer to the opening handshake"
        write(sock, handshake.request(self._settings, key), patience)
        reader = handshake.HeadReader(f"the answer of {patience.peer}", "" if self._tls else "a wss: server")
        while (head := reader.feed(read(sock, reader, patience))) is None:
            pass
        log.debug("%s: the server answered %d %s", self._thread.name, head.status, printable(head.reason))
        self._accepted = handshake.check(head, self._settings, key)
        self._rest = reader.rest

    def opened(self) -> None:
        """See `wrap.Connection`."""
        agreed = self._accepted
        deflater = None
        if agreed.deflate is not None:
            self._reader = FrameReader(self._settings.max_size, self._control, Inflater(agreed.deflate))
            deflater = Deflater(agreed.deflate)
        assert self._sock is not None
        self._acknowledges = isinstance(self._sock, Stream) and self._sock.paced
        keep_freed_memory()
        self._outbox.open(wire_of(self._sock), deflater)
        if deflater is not None:
            self.send = self._outbox.send_deflating
        if self._settings.ping_interval is not None:
            self._next_ping = time.monotonic() + self._settings.ping_interval
        self._reader.items.append(Opened(agreed.protocol, agreed.extensions))

    def receive(self) -> None:
        """See `wrap.Connection`: poll, receive, deliver, until the end is known."""
        poller = Poller(self._waker, self._watch.wait)
        self._io.acquire()
        try:
            self._feed(self._rest)
            self._rest = b""
            while True:
                if self._reader.items:
                    self._deliver()
                elif self._calm and not self._listener.congested() and poller.readable():
                    self._receive()  # `_turn` for nearly all messages
                elif self._violation is not None:
                    self._fail_soon(poller)
                elif self._ending is not None:
                    return
                elif self._stop:
                    self._give_up()
                else:
                    self._turn(poller)
        finally:
            self._io.release()

    def ended(self, error: BaseException | None) -> None:
        """See `wrap.Connection`: report the end, once."""
        if self._reported:
            return
        if self._ending is None:
            error = error or ConnectionError("the connection ended for an unknown reason")
            self._ending = Ending(error=error, failed=True)
        log.debug("%s: over, %r", self._thread.name, self._ending)
        self._reported = True
        if self._draining is None:
            self._drop()  # before the handlers run: what they find is closed
        _forget_frames(self._ending.error)
        try:
            self._relief.enter(self)
            self._listener.deliver([self._ending], 0)
        finally:
            self._relief.leave(self)

    def _deliver(self) -> None:
        """With _io held: hand over what was read; _io is free meanwhile."""
        reader = self._reader
        items, reader.items = reader.items, []
        self._watch.expects = False  # before the handlers run, which may send
        size, reader.waiting, reader.weighed = reader.waiting, 0, (0, 0)
        self._io.release()
        try:
            self._relief.enter(self)
            self._listener.deliver(items, size)
        finally:
            self._relief.leave(self)
            self._io.acquire()

    def _turn(self, poller: Poller) -> None:
        """With _io held: wait for the network, a caller or a timer, and do what there is to do."""
        self._calm = True  # before interest() looks: who makes something later takes it back
        fd, read, write, due = self.interest()
        reads = read or (self._write_to_read and self._may_read())
        if reads is not self._reads:
            self._note_reading(reads)
        # Only here: what the relief thread waits for does not count, as it may be about to be done with this socket.
        self._polls_write = write
        timeout = None if due is None else due - time.monotonic()
        if reads and (self._outbox.failed is not None or (self._tls and self._buffered())):
            timeout = 0
        if write or not read or timeout is not None or self._tls or self._closing or self._stop:
            self._calm = False
        readable, writable, woken = poller.wait(fd, read, write, timeout)
        if due is None and readable and not (writable or woken or self._stop or self._outbox.failed is not None):
            # `_work` for nearly all turns: there is nothing else to look after.
            self._arrivals += 1
            self._receive()
            if self._outbox.stalled:
                self._outbox.write()
            return
        if woken:
            self._calm = False
            self._woken()
            reads = self._may_read()  # the relief thread may have found meanwhile that nothing more is to be read
            writable = writable or self._write_to_read  # a sender may have written what TLS had to
        self._work(reads and (readable or self._unread or (self._tls and self._buffered())), writable)

    def _woken(self) -> None:
        """With _io held: somebody wants the listener to have a look; _io is free meanwhile."""
        self._waker.clear()
        self._io.release()
        try:
            self._relief.enter(self)
            self._listener.woken()
        finally:
            self._relief.leave(self)
            self._io.acquire()

    # -- one step of the network: on the socket's thread, or the relief thread --------------------

    def interest(self) -> tuple[int, bool, bool, float | None]:
        """See `relief.Relieved`."""
        sock = self._sock
        if sock is None:
            return -1, False, False, None
        due = None
        if self._close_due is not None or self._draining is not None or self._next_ping is not None:
            pong = self._pong_due
            timers = (self._close_due, self._draining, self._next_ping, None if pong is None else pong[0])
            due = min((timer for timer in timers if timer is not None), default=None)
        read = self._may_read()
        # In this order: who queues something after the second line finds that nobody waits for the socket, and wakes.
        self._polls_write = False
        write = self._outbox.waiting or (self._write_to_read and read)
        if read and self._unread:
            due = 0.0
        # What cannot be read yet is not waited for.
        return sock.fileno(), read and not self._write_to_read, write, due

    def _may_read(self) -> bool:
        """Backpressure: whether what was read is being taken."""
        if self._violation is not None:
            return False  # the end of TCP behind it would be taken for the end of the connection
        # After close() what waits is of no use any more, and the peer's close frame is wanted.
        reader = self._reader
        return self._closing or not (
            ((reader.waiting > LIGHT or len(reader.items) > HIGH_WATER_ITEMS) and reader.full())
            or self._listener.congested()
        )

    def _buffered(self) -> bool:
        """Whether TLS has something, or the end, that poll does not tell of."""
        sock = self._sock
        if isinstance(sock, TlsStream):
            return sock.pending() > 0
        with self._outbox.lock:
            return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def service(self, readable: bool, writable: bool) -> None:
        """See `relief.Relieved`."""
        if not self._io.acquire(blocking=False):
            return
        try:
            if self._relief.serves(self) and self._sock is not None:
                self._calm = False
                reads = self._may_read()
                if reads is not self._reads:
                    self._note_reading(reads)
                writable = writable or self._write_to_read  # as in `_turn`
                self._work(reads and (readable or self._unread or (self._tls and self._buffered())), writable)
                if self._ending is not None and self._draining is None:
                    self._drop()  # the events wait for the handler, and the peer does not
        except BaseException as exc:
            # It ends this connection, as it would on its own thread, and not the thread that all others need.
            self._finish(Ending(error=exc, failed=True))
        finally:
            self._io.release()

    def _work(self, readable: bool, writable: bool) -> None:
        """With _io held."""
        if self._violation is not None and time.monotonic() >= self._violation[1]:
            self._fail(self._violation[0])
        if self._stop:
            self._give_up()
        if writable:
            self._outbox.write()
        if readable or ((self._outbox.failed is not None or (writable and self._write_to_read)) and self._may_read()):
            self._arrivals += readable  # also when it is a part of a TLS record, which yields nothing yet
            if self._unread:
                self._feed(b"")
            else:
                self._receive()
            if self._outbox.stalled:
                self._outbox.write()
        if self._close_due is not None or self._draining is not None or self._next_ping is not None:
            self._check_timers()

    def _receive(self) -> None:
        """Read once; inside a frame while there is something, without asking poll in between, `READS` times."""
        left = READS
        reader = self._reader
        while True:
            sock = self._sock
            if sock is None:
                return
            if reader.left > LARGE_REST and self._reads_ahead() and self._receive_large():
                return
            try:
                if self._shares:
                    with self._outbox.lock:
                        data = sock.recv(self._next_read)
                else:
                    data = sock.recv(self._next_read)
                if self._tls:
                    self._write_to_read = False
            except OSError as exc:
                self._not_received(exc)
                return
            if not data:
                self._not_received(None)
                return
            if self._feed(data):
                return
            size = len(data)
            if size < MUCH or self._accepted.deflate is not None:  # which may take long, see `reader.inflating` below
                self._next_read = RECEIVE
            else:
                count = len(reader.items)
                self._next_read = HUGE if count and 1024 < size // count < MUCH else LARGE
                if self._acknowledges and count * MUCH <= size:
                    acknowledge_now(sock)
            left -= 1
            if reader.items or not (reader.left and left) or self._violation is not None or reader.inflating:
                return  # some bytes take a thousand times as long to inflate as to read

    def _reads_ahead(self) -> bool:
        """Whether what is there of a large frame is read before it is looked at.

        Not through TLS, where nothing can be written any more when the end of TCP was read, not even the close frame
        for a bad byte before it; and where the rest of a record would stay unread, of which poll does not know.
        """
        return not (self._tls or self._reader.inflating or self._violation is not None or self._ending is not None)

    def _receive_large(self) -> bool:
        """Inside a large frame: read what is there of it into a buffer, and have that looked at in one piece.

        Returns:
            False: nothing was done, as there is no buffer to be had.
        """
        reader, sock = self._reader, self._sock
        assert sock is not None
        buffer = BUFFERS.borrow()
        if buffer is None:
            return False
        trouble: OSError | None = None
        try:
            have = begun = reader.begin(buffer)
            size, got = min(reader.left, LARGE_BUFFER), -1
            try:
                for _ in range(READS):
                    got = sock.recv_into(buffer[have:size])
                    have += got
                    if have == size or not got:
                        break
            except OSError as exc:
                trouble = exc.with_traceback(None)  # which refers to this frame, and this to it
            self._next_read = RECEIVE  # the less comes with the next header, the more is read into a buffer
            if have:
                try:
                    reader.feed_large(buffer[:have])
                except (ProtocolError, MemoryError) as exc:
                    self._cannot_read(exc)
        finally:
            BUFFERS.give_back(buffer)
        if have > begun:
            self._arrivals += 1
            self._received(have - begun)
        if (trouble is not None or not got) and self._violation is None:
            self._not_received(trouble)
        return True

    def _not_received(self, error: OSError | None) -> None:
        """A read has failed, or there is nothing yet; None: TCP has ended."""
        blocked = isinstance(error, WOULD_BLOCK)
        if blocked:
            self._write_to_read = isinstance(error, ssl.SSLWantWriteError)
        if error is not None and not blocked:
            self._lost(explained(error, "the connection was lost"))
        elif self._outbox.failed is not None:  # what had come is read
            self._lost(explained(self._outbox.failed, "the connection was lost"))
        elif not blocked:
            self._lost(ConnectionResetError("the server ended TCP without a close frame"))

    def _feed(self, data: bytes) -> bool:
        """Look at what was read; whether that was the beginning of a large frame, and more of it may have been read."""
        self._arrivals += 1
        if not self._calm:  # else there is nothing of all this
            self._unread = False
            if self._ending is not None or self._violation is not None or self._peer_close is not None:
                return False  # what follows is ignored, RFC 6455 sections 5.5.1 and 7.1.7
        try:
            if self._reader.feed(data):
                self._unread = True
                self._calm = False
        except (ProtocolError, MemoryError) as exc:
            self._cannot_read(exc)
        if self._closing or log.isEnabledFor(DEBUG):
            self._received(len(data))
        if self._reader.left and self._reader.begun():
            # What came before it is delivered before the next read, which may be the last.
            return (not self._reader.items and self._reads_ahead() and self._receive_large()) or self._feed(b"")
        return False

    def _cannot_read(self, error: ProtocolError | MemoryError) -> None:
        _forget_frames(error)
        error.__context__ = None  # of text that is not UTF-8 it is one that keeps what was read
        if isinstance(error, ProtocolError):
            # What the handlers answer to the messages before it shall still go out.
            self._violation = error, time.monotonic() + ANSWERS
            self._calm = False
        else:
            self._finish(Ending(error=error, failed=True))  # what was read is lost; what came before it is not

    def _received(self, size: int) -> None:
        """So many bytes were read."""
        reader = self._reader
        if size and log.isEnabledFor(DEBUG):
            last = brief(reader.items[-1]) if reader.items else ""
            log.debug("%s < %d bytes, %d items: %s", self._thread.name, size, len(reader.items), last)
        if self._closing:
            # Nobody is told of messages any more: do not let them fill the memory behind a slow handler.
            reader.items = [item for item in reader.items if not isinstance(item, (str, bytes))]
            reader.waiting, reader.weighed = 0, (0, 0)

    def _control(self, opcode: int, payload: bytes) -> None:
        """A control frame, in its place among the messages."""
        if opcode == PING:
            self._outbox.send(PONG, payload, message=False)
        elif opcode == PONG:
            self._pong(payload)
        else:
            self._peer_close = parse_close(payload)
            self._reader.stopped = True
            self._close_due = None
            self._begin_draining()
            self._calm = False
            if self._outbox.send(CLOSE, payload, message=False):
                self._reader.items.append(CloseFrame())

    def _pong(self, payload: bytes) -> None:
        """A pong answers its ping, and the ones before it (RFC 6455 section 5.5.3)."""
        now = time.perf_counter()
        if all(payload != sent for sent, _, _ in list(self._pings)):
            return
        sent = None
        while sent != payload:
            sent, callback, start = self._pings.pop(0)
            if callback is not None:
                self._reader.items.append(Pong(callback, now - start))

    def _check_timers(self) -> None:
        now = time.monotonic()
        settings = self._settings
        if self._peer_close is not None:
            self._close_due = None  # it may have been set at the same time, by close()
        if self._outbox.progress != self._progress:
            # What is queued goes out first, however long it takes: the peer is reading.
            self._progress = self._outbox.progress
            if self._close_due is not None and settings.close_timeout is not None:
                self._close_due = now + settings.close_timeout
            if self._draining is not None:
                self._draining = now + LINGER
            if self._close is not None:
                self._close.followed()
            if self._ping is not None and self._ping.followed():
                self._wait_longer(now)
        if self._draining is not None and now >= self._draining:
            self._draining = None
            if self._peer_close is not None:
                self._finish(Ending(*self._peer_close))
        elif self._close_due is not None and now >= self._close_due and self._peer_close is None:
            self._end_closing(now)
        if self._next_ping is not None and self._ending is None:
            self._keep_alive(now, self._next_ping)

    def _end_closing(self, now: float) -> None:
        """The time for the peer's close frame is up, unless it had something to take before ours."""
        timeout = self._settings.close_timeout
        start = None if self._close is None else self._close.taken(now)
        if timeout is None:
            self._close_due = None
        elif start is not None and start + timeout > now:
            self._close_due = start + timeout
        else:
            error = TimeoutError(f"the server did not answer the close frame within close_timeout={timeout:g} s")
            self._finish(Ending(error=error))

    def _keep_alive(self, now: float, next_ping: float) -> None:
        interval, timeout = self._settings.ping_interval, self._settings.ping_timeout
        assert interval is not None
        if self._outbox.closed:
            self._next_ping = self._pong_due = None  # closing has a timer of its own
            return
        late = now - (next_ping if self._pong_due is None else min(next_ping, self._pong_due[0]))
        if late > max(LATE, 2 * self._excused):
            # The program was stopped, or a handler let no other thread run, not even the relief thread. One that is so
            # all the time shall notice a dead peer too: the same is no excuse twice.
            self._excused = late
            self._be_indulgent(now, late)
        if self._pong_due is not None:
            due, arrivals = self._pong_due
            if self._arrivals != arrivals:
                self._pong_due = None  # any frame is a sign of life
            elif not self._reads:
                self._wait_longer(now)  # it is we who do not listen
            elif now < due:
                pass
            elif self._hears_something(arrivals):
                self._pong_due = None
            elif self._ping is not None and (start := self._ping.taken(now)) is not None:
                self._wait_longer(start)
            else:
                limit = f"ping_timeout={timeout:g} s"
                error = TimeoutError(f"nothing came from the server within {limit} after a ping")
                self._finish(Ending(error=error, failed=True))
            if self._ending is not None:
                return
        if now >= next_ping:
            progress = self._outbox.progress
            if not self._outbox.waiting or progress != self._pinged:
                # Else the one before waits still, behind what the peer does not read.
                first = timeout is not None and self._pong_due is None
                if first and self._sock is not None:
                    self._ping = Trail(self._sock, self._outbox)
                self._outbox.send(PING, self._keepalive, message=False)
                self._pinged = progress if self._outbox.waiting else -1
                if first and self._ping is not None:
                    self._ping.sent()
            self._next_ping = now + interval
            if timeout is not None and self._pong_due is None:
                self._pong_due = (max(now, self._indulgent_until) + timeout, self._arrivals)
                self._excused = 0.0

    def _wait_longer(self, start: float) -> None:
        """If a pong is due, its time begins at `start`, if that is later."""
        timeout = self._settings.ping_timeout
        if self._pong_due is not None and timeout is not None:
            due, arrivals = self._pong_due
            self._pong_due = max(due, start + timeout), arrivals

    def _note_reading(self, reads: bool) -> None:
        """With _io held: reading pauses, or goes on."""
        now = time.monotonic()
        pause = now - self._changed
        self._reads, self._changed = reads, now
        if reads:
            self._be_indulgent(now, pause)

    def _be_indulgent(self, now: float, pause: float) -> None:
        """Nothing was read for so many seconds.

        What came may have been thrown away when the system's buffers were full. TCP sends it again, but the longer
        that was in vain, the longer it waits: at worst about as long again. So does the peer's time to answer.
        """
        self._indulgent_until = max(self._indulgent_until, now + min(pause, BACKOFF))
        self._wait_longer(self._indulgent_until)

    def _hears_something(self, arrivals: int) -> bool:
        """Look once more: until this moment it may have been we who did not listen."""
        self._receive()
        return self._arrivals != arrivals or self._ending is not None

    # -- endings ----------------------------------------------------------------------------------

    def _finish(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
        self._calm = False
        self._close_due = self._next_ping = self._pong_due = None

    def _lost(self, error: OSError) -> None:
        """TCP is over: cleanly if the peer's close frame had come."""
        self._draining = None
        self._drop()
        self._finish(Ending(error=error) if self._peer_close is None else Ending(*self._peer_close))

    def _fail(self, error: ProtocolError) -> None:
        """Fail the WebSocket connection (RFC 6455 section 7.1.7)."""
        self._violation = None
        self._begin_draining()
        reason = str(error).partition(" (")[0].encode()[:100].decode("utf-8", "ignore").encode()
        self._outbox.send(CLOSE, close_payload(error.close_code, reason), message=False)
        self._finish(Ending(error=error, failed=True))

    def _fail_soon(self, poller: Poller) -> None:
        """With _io held: fail, but give handlers the time for their answers to what came before."""
        while self._violation is not None:
            error, due = self._violation
            left = due - time.monotonic()
            if self._stop or left <= 0 or self._listener.idle():
                self._fail(error)
            elif poller.wait(-1, False, False, min(left, 0.005))[2]:
                self._woken()

    def _begin_draining(self) -> None:
        """From now on the peer has some time to end TCP."""
        self._progress = self._outbox.progress
        self._draining = time.monotonic() + LINGER

    def _give_up(self) -> None:
        """close() was called before open was reported, or the interpreter exits."""
        self._outbox.send(CLOSE, close_payload(1001), message=False)
        self._draining = None
        self._finish(Ending(error=Aborted(), failed=True))

    def _linger(self) -> None:
        """The connection failed and that was reported: let the close frame arrive before TCP ends.

        A socket that is closed with unread data resets the connection, which may eat what was sent.
        """
        if self._draining is None or self._sock is None:
            return
        poller = Poller(self._waker)
        half_closed = False
        with self._io:
            while self._draining is not None and self._sock is not None and not self._stop:
                if not self._outbox.waiting and not half_closed:
                    half_closed = True
                    with contextlib.suppress(OSError):
                        self._sock.shutdown(socket.SHUT_WR)
                blocked = self._write_to_read
                left = 0.0 if self._tls and self._buffered() else self._draining - time.monotonic()
                readable, writable, woken = poller.wait(
                    self._sock.fileno(), not blocked, self._outbox.waiting or blocked, left
                )
                if woken:
                    self._waker.clear()
                self._work(readable or (self._tls and self._buffered()), writable)

    def _drop(self) -> None:
        """Close the socket."""
        self._outbox.close()
        sock, self._sock = self._sock, None
        if sock is not None:
            with contextlib.suppress(OSError):  # EIO, say; it is closed all the same
                sock.close()


class _Nobody:
    """The listener of an engine that is over."""

    def deliver(self, items: list[Item], size: int) -> None: ...

    def woken(self) -> None: ...

    def congested(self) -> bool:
        return False

    def idle(self) -> bool:
        return True


_NOBODY: Listener = _Nobody()  # type: ignore[assignment]


def _ignore(opcode: int, payload: bytes) -> None: ...


def _forget_frames(error: BaseException | None) -> None:
    """Let go of the frames that an exception came through: they refer to everything, and say nothing to a user."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
