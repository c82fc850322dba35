"""One connection on a daemon thread of its own: connects, receives, sends what the callers could not, closes."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable

from .._settings import Settings
from .._state import Ending
from .._system import Poller, Waker, close_descriptor, wait_for
from ..errors import ProtocolError
from ..events import brief
from . import connect, handshake, wrap
from .deflate import Deflater, Inflater
from .frames import CLOSE, PING, PONG, FrameReader, Keys, close_payload, frame, parse_close
from .interface import CloseFrame, Listener, Opened, Pong
from .outbox import Outbox
from .relief import relief

__all__ = ["ThreadedEngine"]

RECEIVE = 65536  # bytes a recv(); a larger frame is read in larger pieces
LARGE = 1 << 20
HIGH_WATER_ITEMS = 10_000  # messages that wait for a slow handler
HIGH_WATER_BYTES = 16 * 1024 * 1024
MAX_CONTROLS = 1_000  # pongs that wait for a peer that pings and does not read
LINGER = 2.0  # s that the peer has to end TCP when the closing handshake is done, or the connection failed
_WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError)

log = logging.getLogger("bws")


class ThreadedEngine:
    """See `interface.Engine`.

    Whoever holds `_io` reads: the socket's thread, or, while that is inside a handler, the relief thread. Whoever
    holds `_lock` writes: any thread. With TLS reading takes `_lock` too, for the single call: an SSL object
    allows one thread at a time.
    """

    def __init__(self, settings: Settings, listener: Listener) -> None:
        self._settings = settings
        self._listener = listener
        self._waker = Waker()
        self._sock: socket.socket | None = None
        self._tls = False
        # Reading; guarded by _io.
        self._io = threading.Lock()
        self._reader = FrameReader(settings.max_size, self._control)
        self._rest = b""  # frames that came with the answer to the handshake
        self._size = 0  # bytes that the items in the reader came in
        self._arrivals = 0  # of bytes: signs of life
        self._accepted = handshake.Accepted()
        self._peer_close: tuple[int, str] | None = None
        self._ending: Ending | None = None
        self._draining: float | None = None  # until when (monotonic) the peer may end TCP
        self._half_closed = False
        self._next_ping: float | None = None
        self._pong_due: tuple[float, int] | None = None  # when, and the arrivals before the ping
        # Writing; guarded by _lock, which _sent belongs to.
        self._lock = threading.Lock()
        self._sent = threading.Condition(self._lock)  # said when the outbox is empty, and at the end
        self._outbox = Outbox()
        self._keys = Keys()
        self._deflater: Deflater | None = None
        self._pings: deque[tuple[bytes, Callable[[float], object] | None, float]] = deque()
        self._close_sent = False  # or queued
        self._close_due: float | None = None  # until when (monotonic) the peer may answer it
        self._broken = False  # the socket takes no more
        # Single words, written once.
        self._closing = False  # the program called close(): messages are of no use any more
        self._aborted = False
        self._killed = False
        self._reported = False
        self._thread = threading.Thread(
            target=self._run, name=f"bws {settings.address.origin}", daemon=True
        )  # it starts last

    # -- called from any thread -------------------------------------------------------------------

    def start(self) -> None:
        try:
            self._thread.start()
        except BaseException:
            self._waker.close()
            raise

    def send(self, opcode: int, payload: bytes | memoryview) -> bool:
        size = len(payload)
        with self._lock:
            if self._close_sent:
                return False
            data = None if self._deflater is None else self._deflater.deflate(payload)
            if data is None:
                self._transmit(frame(opcode, payload, self._keys.next()), size)
            else:
                self._transmit(frame(opcode, data, self._keys.next(), rsv1=True), size)
            waiting = bool(self._outbox)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s > %s, %d bytes: %s", self._thread.name, opcode, size, brief(bytes(payload[:64])))
        if waiting:
            self.wake()
        return True

    def ping(self, payload: bytes, callback: Callable[[float], object] | None) -> None:
        with self._lock:
            if self._close_sent:
                return
            self._pings.append((payload, callback, time.perf_counter()))
            self._transmit(frame(PING, payload, self._keys.next()), 0)
            waiting = bool(self._outbox)
        if waiting:
            self.wake()

    def close(self, code: int | None, reason: bytes) -> None:
        timeout = self._settings.close_timeout
        with self._lock:
            self._closing = True
            if not self._close_sent:
                self._send_close(close_payload(code, reason))
                self._close_due = None if timeout is None else time.monotonic() + timeout
        self.wake()

    def abort(self) -> None:
        self._aborted = True
        self.wake()

    def kill(self) -> None:
        self._killed = True
        self.wake()

    def buffered(self) -> int:
        return self._outbox.pending

    def flush(self, timeout: float | None) -> bool:
        with self._sent:
            wait_for(self._sent, lambda: not self._outbox.pending or self._reported or self._broken, timeout)
            return not self._outbox.pending

    def wake(self) -> None:
        if threading.get_ident() != self._thread.ident:
            self._waker.wake()
        relief.wake(self)

    def on_thread(self) -> bool:
        return threading.get_ident() == self._thread.ident

    def join(self, timeout: float) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def forget(self) -> None:
        self._killed = self._aborted = self._reported = self._broken = self._close_sent = True
        self._lock, self._io = threading.Lock(), threading.Lock()
        self._sent = threading.Condition(self._lock)
        self._outbox = Outbox()
        sock, self._sock = self._sock, None
        if sock is not None:
            close_descriptor(sock)
        self._waker.forget()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._open()
            wrap.run(self)
        except BaseException as exc:
            self.ended(exc)
        finally:
            self.ended(None)
            try:
                self._linger()
            finally:
                self._drop()
                self._waker.close()

    def _open(self) -> None:
        settings = self._settings
        self._patience = connect.Patience(self._waker, lambda: self._aborted or self._killed, settings.open_timeout)
        log.info("%s: connecting", self._thread.name)
        sock = connect.connect(settings, self._patience)
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._sock = sock

    def shake_hands(self, key: str) -> handshake.Accepted:
        """See `wrap.Connection`."""
        sock, patience = self._sock, self._patience
        assert sock is not None
        patience.stage = "waiting for the answer to the opening handshake"
        connect.write(sock, handshake.request(self._settings, key), patience)
        reader = handshake.HeadReader()
        while (head := reader.feed(connect.read(sock, reader, patience))) is None:
            pass
        log.debug("%s: answer %d %s", self._thread.name, head.status, head.reason)
        self._accepted = handshake.check(head, self._settings, key)
        self._rest = reader.rest
        return self._accepted

    def opened(self) -> None:
        """See `wrap.Connection`."""
        if self._aborted or self._killed:
            return
        agreed = self._accepted
        if agreed.deflate is not None:
            self._reader = FrameReader(self._settings.max_size, self._control, Inflater(agreed.deflate))
            self._deflater = Deflater(agreed.deflate)
        if self._settings.ping_interval is not None:
            self._next_ping = time.monotonic() + self._settings.ping_interval
        self._reader.items.append(Opened(agreed.protocol, agreed.extensions))

    def receive(self) -> None:
        """See `wrap.Connection`: poll, receive, deliver, until the end is known."""
        poller = Poller(self._waker)
        self._io.acquire()
        try:
            if self._rest:
                self._feed(self._rest)
                self._rest = b""
            while True:
                if self._reader.items:
                    self._deliver()
                elif self._ending is not None:
                    return
                else:
                    self._turn(poller)
        finally:
            with contextlib.suppress(RuntimeError):  # a fork gave this process another lock
                self._io.release()

    def ended(self, error: BaseException | None) -> None:
        """See `wrap.Connection`: report the end, once."""
        if self._reported:
            return
        if self._ending is None:
            error = error or ConnectionError("the connection ended for an unknown reason")
            self._ending = Ending(error=error, failed=True)
        if self._draining is None:
            self._drop()  # before the handlers run: what they find is closed
        with self._sent:
            self._reported = self._close_sent = True
            self._sent.notify_all()
        relief.enter(self)
        try:
            self._listener.deliver([self._ending], 0)
        finally:
            relief.leave(self)

    def _deliver(self) -> None:
        """With _io held: hand over what was read; _io is free meanwhile."""
        items, self._reader.items = self._reader.items, []
        size, self._size = self._size, 0
        io = self._io
        io.release()
        relief.enter(self)
        try:
            self._listener.deliver(items, size)
        finally:
            relief.leave(self)
            io.acquire()

    def _turn(self, poller: Poller) -> None:
        """With _io held: wait for the network, a caller or a timer, and do what there is to do."""
        fd, read, write, due = self.interest()
        timeout = None if due is None else due - time.monotonic()
        if self._tls and read and self._sock.pending():  # type: ignore[union-attr]
            timeout = 0
        readable, writable, woken = poller.wait(fd, read, write, timeout)
        if woken:
            self._waker.clear()
            self._io.release()
            relief.enter(self)
            try:
                self._listener.woken()
            finally:
                relief.leave(self)
                self._io.acquire()
        self._work(readable or bool(timeout == 0 and read), writable)

    # -- one step of the network: on the socket's thread, or the relief thread --------------------

    def interest(self) -> tuple[int, bool, bool, float | None]:
        """See `relief.Relieved`."""
        sock = self._sock
        if sock is None:
            return -1, False, False, None
        timers = [t for t in (self._draining, self._close_due, self._next_ping) if t is not None]
        if self._pong_due is not None:
            timers.append(self._pong_due[0])
        return (
            sock.fileno(),
            self._may_read(),
            bool(self._outbox) and not self._broken,
            min(timers) if timers else None,
        )

    def _may_read(self) -> bool:
        """Backpressure: whether what was read is being taken."""
        return (
            self._size <= HIGH_WATER_BYTES
            and len(self._reader.items) <= HIGH_WATER_ITEMS
            and self._outbox.controls <= MAX_CONTROLS
            and not self._listener.congested()
        )

    def service(self, readable: bool, writable: bool) -> None:
        """See `relief.Relieved`."""
        if not self._io.acquire(blocking=False):
            return
        try:
            if relief.serves(self) and self._sock is not None:
                self._work(readable, writable)
        finally:
            self._io.release()

    def _work(self, readable: bool, writable: bool) -> None:
        """With _io held."""
        if self._killed or self._aborted:
            self._give_up()
        if writable:
            with self._lock:
                self._write_outbox()
        if readable:
            self._receive()
        if self._close_due is not None or self._draining is not None or self._next_ping is not None:
            self._check_timers()

    def _receive(self) -> None:
        sock, left = self._sock, self._reader.left
        if sock is None:
            return
        try:
            if self._tls:
                with self._lock:
                    data = sock.recv(RECEIVE)
            else:
                data = sock.recv(RECEIVE if left <= RECEIVE else min(left, LARGE))
        except _WAIT:
            return
        except OSError as exc:
            self._lost(connect.explained(exc, "the connection was lost"))
            return
        if data:
            self._feed(data)
        else:
            self._lost(ConnectionResetError("the server ended TCP without a close frame"))

    def _feed(self, data: bytes) -> None:
        self._arrivals += 1
        if self._ending is not None or self._peer_close is not None:
            return  # "ignore any further data", RFC 6455 section 5.5.1 and 7.1.7
        self._size += len(data)
        try:
            self._reader.feed(data)
        except ProtocolError as exc:
            self._fail(exc)
        if self._closing:
            # Nobody is told of messages any more: do not let them fill the memory behind a slow handler.
            self._reader.items = [item for item in self._reader.items if not isinstance(item, (str, bytes))]
            self._size = 0
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s < %d bytes, %d items wait", self._thread.name, len(data), len(self._reader.items))

    def _control(self, opcode: int, payload: bytes) -> None:
        """A control frame, in its place among the messages."""
        if opcode == PING:
            with self._lock:
                if not self._close_sent:
                    self._transmit(frame(PONG, payload, self._keys.next()), 0)
        elif opcode == PONG:
            self._pong(payload)
        else:
            self._peer_close = parse_close(payload)
            self._reader.stopped = True
            self._draining = time.monotonic() + LINGER
            with self._lock:
                if not self._close_sent:
                    self._send_close(payload)
                    self._reader.items.append(CloseFrame())

    def _pong(self, payload: bytes) -> None:
        """A pong answers its ping, and the ones before it (RFC 6455 section 5.5.3)."""
        now = time.perf_counter()
        with self._lock:
            if all(payload != sent for sent, _, _ in self._pings):
                return
            while True:
                sent, callback, start = self._pings.popleft()
                if callback is not None:
                    self._reader.items.append(Pong(callback, now - start))
                if sent == payload:
                    return

    def _check_timers(self) -> None:
        now = time.monotonic()
        if self._draining is not None and now >= self._draining:
            self._draining = None
            if self._peer_close is not None:
                self._finish(Ending(*self._peer_close))
        elif self._close_due is not None and now >= self._close_due and self._peer_close is None:
            self._finish(Ending(error=TimeoutError(
                f"the server did not answer the close frame within close_timeout={self._settings.close_timeout:g} s"
            )))  # fmt: skip
        if self._ending is None and self._next_ping is not None:
            self._keep_alive(now)

    def _keep_alive(self, now: float) -> None:
        interval, timeout = self._settings.ping_interval, self._settings.ping_timeout
        assert interval is not None
        assert self._next_ping is not None
        if self._pong_due is not None:
            due, arrivals = self._pong_due
            if self._arrivals != arrivals:
                self._pong_due = None  # any frame is a sign of life
            elif now >= due and self._may_read():
                self._finish(Ending(error=TimeoutError(
                    f"nothing came from the server within ping_timeout={timeout:g} s after a ping"
                ), failed=True))  # fmt: skip
                return
        if now >= self._next_ping:
            self._next_ping = now + interval
            with self._lock:
                if self._close_sent:
                    self._next_ping = None
                    return
                self._transmit(frame(PING, b"", self._keys.next()), 0)
            if timeout is not None and self._pong_due is None:
                self._pong_due = (now + timeout, self._arrivals)

    # -- endings ----------------------------------------------------------------------------------

    def _finish(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
        self._close_due = self._next_ping = self._pong_due = None

    def _lost(self, error: OSError) -> None:
        """TCP is over: cleanly if the peer's close frame had come."""
        self._draining = None
        self._drop()
        self._finish(Ending(error=error) if self._peer_close is None else Ending(*self._peer_close))

    def _fail(self, error: ProtocolError) -> None:
        """Fail the WebSocket connection (RFC 6455 section 7.1.7)."""
        self._draining = time.monotonic() + LINGER
        with self._lock:
            if not self._close_sent:
                reason = str(error).partition(" (")[0].encode()[:100].decode("utf-8", "ignore").encode()
                self._send_close(close_payload(error.close_code, reason))
        self._finish(Ending(error=error, failed=True))

    def _give_up(self) -> None:
        """close() was called before open was reported, or the interpreter exits."""
        with self._lock:
            if not self._close_sent:
                self._send_close(close_payload(1001))
        self._draining = None
        self._finish(Ending(error=connect.Aborted(), failed=self._aborted))

    def _linger(self) -> None:
        """The connection failed and that was reported: let the close frame arrive before TCP ends.

        A socket that is closed with unread data resets the connection, which may eat what was sent.
        """
        if self._draining is None or self._sock is None:
            return
        poller = Poller(self._waker)
        with self._io:
            while self._draining is not None and self._sock is not None and not self._killed:
                if not self._outbox and not self._half_closed:
                    self._half_closed = True
                    with contextlib.suppress(OSError):
                        self._sock.shutdown(socket.SHUT_WR)
                fd, _, write, _ = self.interest()
                readable, writable, woken = poller.wait(fd, True, write, self._draining - time.monotonic())
                if woken:
                    self._waker.clear()
                if writable:
                    with self._lock:
                        self._write_outbox()
                if readable:
                    self._receive()
                self._check_timers()

    def _drop(self) -> None:
        """Close the socket."""
        with self._lock:
            sock, self._sock = self._sock, None
            self._broken = True
            self._sent.notify_all()
        if sock is not None:
            sock.close()

    # -- writing, with _lock held -----------------------------------------------------------------

    def _send_close(self, payload: bytes) -> None:
        self._close_sent = True
        self._transmit(frame(CLOSE, payload, self._keys.next()), 0)

    def _transmit(self, data: bytes, payload: int) -> None:
        """Send a frame, or what the operating system takes of it; the rest is queued."""
        sent = 0
        if not self._outbox and not self._broken and self._sock is not None:
            try:
                sent = self._sock.send(data)
            except _WAIT:
                pass
            except OSError:
                self._broken = True  # reading tells why
        if sent < len(data):
            self._outbox.add(memoryview(data)[sent:], payload)

    def _write_outbox(self) -> None:
        if self._broken or self._sock is None:
            return
        try:
            self._outbox.write(self._sock.send)
        except _WAIT:
            pass
        except OSError:
            self._broken = True
        if not self._outbox.pending or self._broken:
            self._sent.notify_all()
