"""Sending: frames are written in the caller's thread when the socket takes them, and wait here when it does not."""

from __future__ import annotations

import socket
import ssl
import threading
from collections import deque

from .._system import wait_for
from .deflate import Deflater
from .frames import CLOSE, Keys, frame

__all__ = ["WOULD_BLOCK", "Outbox"]

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError)


class Outbox:
    """The sending half of a connection. Every method may be called from any thread; none waits but `wait`.

    Attributes:
        lock: Whoever holds it writes. With TLS whoever reads takes it too, for the single call: an SSL object
            allows one thread at a time.
        pending: Payload bytes of messages that the operating system has not taken: ``bufferedAmount``.
        controls: Frames without a message in the queue: a peer that pings and does not read must not fill it.
        waiting: Whether the socket is to be polled for writing.
        closed: Whether a close frame has been sent or queued: nothing is sent after it.
        progress: Counts the writes that emptied some of the queue.
    """

    __slots__ = (
        "_deflater",
        "_drained",
        "_frames",
        "_keys",
        "_sock",
        "closed",
        "controls",
        "lock",
        "pending",
        "progress",
        "waiting",
    )

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._drained: threading.Condition | None = None  # said when nothing is pending, and when nothing more goes
        self._frames: deque[tuple[memoryview, int, int]] = deque()  # what is left of a frame; see _transmit
        self._keys = Keys()
        self._sock: socket.socket | None = None
        self._deflater: Deflater | None = None
        self.pending = self.controls = self.progress = 0
        self.waiting = self.closed = False

    def open(self, sock: socket.socket, deflater: Deflater | None) -> None:
        """The opening handshake is done: `sock` is non-blocking."""
        with self.lock:
            self._sock, self._deflater = sock, deflater

    def message(self, opcode: int, payload: bytes | memoryview) -> bool:
        """Send a message; False when a close frame has gone before."""
        size = len(payload)
        with self.lock:
            if self.closed:
                return False
            data = None if self._deflater is None else self._deflater.deflate(payload)
            if data is None:
                self._transmit(frame(opcode, payload, self._keys.next()), size)
            else:
                packed = frame(opcode, data, self._keys.next(), rsv1=True)
                self._transmit(packed, size, len(packed))
        return True

    def control(self, opcode: int, payload: bytes) -> bool:
        """Send a control frame; False when a close frame has gone before."""
        with self.lock:
            if self.closed:
                return False
            self.closed = opcode == CLOSE
            self._transmit(frame(opcode, payload, self._keys.next()), -1)
        return True

    def write(self) -> None:
        """The socket takes more: give it what waits."""
        with self.lock:
            frames = self._frames
            try:
                while frames and self._sock is not None:
                    left, payload, packed = frames[0]
                    sent = self._sock.send(left)
                    self.progress += 1
                    self.pending -= _share(len(left), payload, packed) - _share(len(left) - sent, payload, packed)
                    if sent < len(left):
                        frames[0] = (left[sent:], payload, packed)
                    else:
                        frames.popleft()
                        self.controls -= payload < 0
            except WOULD_BLOCK:
                pass
            except OSError:
                self._sock = None  # reading tells why
            self.waiting = bool(frames) and self._sock is not None
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
        """Nothing more is sent."""
        with self.lock:
            self._sock = None
            self.closed = True
            self.waiting = False
            self._notify()

    def forget(self) -> None:
        """As `close`, in the child of a fork, where another thread may have held the lock."""
        self.lock = threading.Lock()
        self._drained = None
        self._frames.clear()
        self.pending = 0
        self.close()

    def _notify(self) -> None:
        if self._drained is not None:
            self._drained.notify_all()

    def _transmit(self, data: bytes, payload: int, packed: int = 0) -> None:
        """With the lock held: send a frame, or what the operating system takes of it; the rest is queued.

        Args:
            data: The frame.
            payload: Bytes of the message that it carries; they are at its end. -1: it is a control frame.
            packed: Its size, when the message is compressed.
        """
        sent = 0
        if not self._frames and self._sock is not None:
            try:
                sent = self._sock.send(data)
            except WOULD_BLOCK:
                pass
            except OSError:
                self._sock = None  # reading tells why
            if sent == len(data):
                return
        left = memoryview(data)[sent:]
        self._frames.append((left, payload, packed))
        self.pending += _share(len(left), payload, packed)
        self.controls += payload < 0
        self.waiting = self._sock is not None


def _share(left: int, payload: int, packed: int) -> int:
    """Bytes of a message's payload in the last `left` bytes of its frame; see `Outbox._transmit`."""
    if payload < 0:
        return 0
    # Of a compressed message nobody can tell: it shrinks in proportion, rounded up.
    return -(-payload * left // packed) if packed else min(payload, left)
