"""Sending: frames are written in the caller's thread when the socket takes them, and wait here when it does not."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections import deque

from .._system import wait_for
from .deflate import Deflater
from .frames import CLOSE, PONG, Keys, frame

__all__ = ["WOULD_BLOCK", "Outbox"]

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError)
TLS_PIECE = 64 * 1024  # bytes: an SSL object takes all of what it is given or nothing


class Outbox:
    """The sending half of a connection. Every method may be called from any thread; none waits but `wait`.

    Attributes:
        lock: Whoever holds it writes. With TLS whoever reads takes it too, for the single call: an SSL object
            allows one thread at a time. A signal handler may come in while its own thread holds it: what that
            sends goes out behind the frame that was interrupted.
        pending: Payload bytes of messages that the operating system has not taken: ``bufferedAmount``.
        pongs: Pongs in the queue: a peer that pings and does not read must not fill the memory.
        waiting: Whether the socket is to be polled for writing.
        stalled: Whether TLS has to read something before it can write on.
        closed: Whether a close frame has been sent or queued: nothing is sent after it.
        progress: Counts the writes that emptied some of the queue.
    """

    __slots__ = (
        "_busy", "_deflater", "_drained", "_frames", "_keys", "_later", "_over", "_piece", "_sock", "closed", "lock",
        "pending", "pongs", "progress", "stalled", "waiting",
    )  # fmt: skip

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._drained: threading.Condition | None = None  # said when nothing is pending, and when nothing more goes
        self._busy = False  # whether a frame is being made and sent: then a signal handler has to queue
        self._later: list[tuple[int, bytes, bool]] = []
        self._frames: deque[tuple[memoryview, int, int]] = deque()  # what is left of a frame; see _transmit
        self._keys = Keys()
        self._sock: socket.socket | None = None
        self._over = False  # the socket was there, and is gone
        self._piece = sys.maxsize
        self._deflater: Deflater | None = None
        self.pending = self.pongs = self.progress = 0
        self.waiting = self.stalled = self.closed = False

    def open(self, sock: socket.socket, deflater: Deflater | None) -> None:
        """The opening handshake is done: `sock` is non-blocking."""
        with self.lock:
            self._sock, self._deflater = sock, deflater
            if isinstance(sock, ssl.SSLSocket):
                self._piece = TLS_PIECE

    def message(self, opcode: int, payload: bytes | memoryview) -> bool:
        """Send a message; False when a close frame has gone before."""
        return self._send(opcode, payload, True)

    def control(self, opcode: int, payload: bytes) -> bool:
        """Send a control frame; False when a close frame has gone before."""
        return self._send(opcode, payload, False)

    def _send(self, opcode: int, payload: bytes | memoryview, message: bool) -> bool:
        with self.lock:
            if self.closed:
                return False
            if self._busy:
                self._later.append((opcode, bytes(payload), message))
                return True
            self._busy = True
            try:
                self._frame(opcode, payload, message)
                while self._later:
                    self._frame(*self._later.pop(0))
            finally:
                self._busy = False
        return True

    def _frame(self, opcode: int, payload: bytes | memoryview, message: bool) -> None:
        if self.closed:
            return
        key = self._keys.next()
        if not message:
            self.closed = opcode == CLOSE
            self._transmit(frame(opcode, payload, key), -1 if opcode == PONG else 0)
            return
        packed = None if self._deflater is None else self._deflater.deflate(payload)
        if packed is None:
            self._transmit(frame(opcode, payload, key), len(payload))
        else:
            data = frame(opcode, packed, key, rsv1=True)
            self._transmit(data, len(payload), len(data))

    def write(self) -> None:
        """The socket takes more: give it what waits."""
        with self.lock:
            self._write()
            if not self.pending or self._sock is None:
                self._notify()

    def wait(self, timeout: float | None) -> bool:
        """Wait until nothing is pending; False when the time is up, or the connection over before."""
        with self.lock:
            if self._drained is None:
                self._drained = threading.Condition(self.lock)
            wait_for(self._drained, lambda: not self.pending or (self._sock is None and self.closed), timeout)
            return not self.pending

    def close(self) -> None:
        """Nothing more is sent; `pending` tells what was not."""
        with self.lock:
            self._end()
            self.closed = True
            self._notify()

    def forget(self) -> None:
        """As `close`, in the child of a fork, where another thread may have held the lock."""
        self.lock = threading.RLock()
        self._drained = None
        self.pending = 0
        self.close()

    # -- with the lock held -----------------------------------------------------------------------

    def _transmit(self, data: bytes, payload: int, packed: int = 0) -> None:
        """Send a frame, or what the operating system takes of it; the rest is queued.

        Args:
            data: The frame.
            payload: Bytes of the message that it carries; they are at its end. -1: it is a pong.
            packed: Its size, when the message is compressed.
        """
        sent = 0
        if not self._frames and self._sock is not None and len(data) <= self._piece:
            try:
                sent = self._sock.send(data)
            except WOULD_BLOCK as exc:
                self.stalled = isinstance(exc, ssl.SSLWantReadError)
            except OSError:
                self._end()  # reading tells why
            if sent == len(data):
                return
        self.pending += _share(len(data) - sent, payload, packed)
        if not self._over:
            self._frames.append((memoryview(data)[sent:], payload, packed))
            self.pongs += payload < 0
            self.waiting = self._sock is not None and not self.stalled
            if len(data) > self._piece and len(self._frames) == 1:
                self._write()

    def _write(self) -> None:
        frames = self._frames
        self.stalled = False
        try:
            while frames and self._sock is not None:
                left, payload, packed = frames[0]
                sent = self._sock.send(left[: self._piece])
                self.progress += 1
                self.pending -= _share(len(left), payload, packed) - _share(len(left) - sent, payload, packed)
                if sent < len(left):
                    frames[0] = (left[sent:], payload, packed)
                else:
                    frames.popleft()
                    self.pongs -= payload < 0
        except WOULD_BLOCK as exc:
            self.stalled = isinstance(exc, ssl.SSLWantReadError)
        except OSError:
            self._end()  # reading tells why
        self.waiting = bool(frames) and self._sock is not None and not self.stalled

    def _end(self) -> None:
        self._sock = None
        self._over = True
        self._frames.clear()  # `pending` stays: it was never sent
        self.pongs = 0
        self.waiting = False

    def _notify(self) -> None:
        if self._drained is not None:
            self._drained.notify_all()


def _share(left: int, payload: int, packed: int) -> int:
    """Bytes of a message's payload in the last `left` bytes of its frame; see `Outbox._transmit`."""
    if payload <= 0:
        return 0
    # Of a compressed message nobody can tell: it shrinks in proportion, rounded up.
    return -(-payload * left // packed) if packed else min(payload, left)
