"""Where a frame of ours is that wants an answer."""

from __future__ import annotations

import socket

from .._system import acknowledged
from .outbox import Outbox

__all__ = ["Trail"]

BEYOND = 16 * 1024 * 1024  # bytes behind a frame that a peer may have in its buffers before it comes to that frame


class Trail:
    """What is before a frame of ours that wants an answer: while the peer takes that, the answer cannot be there yet.

    The frame may wait in the outbox; then, on Linux, in the system's buffer, behind bytes that the peer's system has
    not acknowledged. Made before the frame is sent; elsewhere than on Linux it knows of the outbox only.
    """

    __slots__ = ("_acknowledged", "_end", "_goal", "_outbox", "_sock")

    def __init__(self, sock: socket.socket, outbox: Outbox) -> None:
        self._sock, self._outbox = sock, outbox
        self._acknowledged, left, _ = acknowledged(sock)  # of all bytes of TCP
        self._goal: int | None = self._acknowledged + left  # where the frame is among them; None: not there yet
        self._end = 0  # where it ends in the stream of the outbox

    def sent(self) -> None:
        """The frame was sent, or queued."""
        self._end = self._outbox.stream()[1]
        if self._outbox.waiting:
            self._goal = None

    def followed(self) -> bool:
        """The outbox went on; whether who took that may not have come to the frame yet.

        That was so in any case until the frame was out, and for a while after: what goes out makes place for more.
        """
        gone = self._outbox.stream()[0]
        if self._goal is None and gone >= self._end:
            self._acknowledged, left, _ = acknowledged(self._sock)
            self._goal = self._acknowledged + left
        return gone <= self._end + BEYOND

    def taken(self, now: float) -> float | None:
        """When the peer's system last took something that is before the frame, if it did since the last look."""
        before = self._acknowledged
        if self._goal is not None and before >= self._goal:
            return None
        self._acknowledged, _, ago = acknowledged(self._sock)
        return now - ago if self._acknowledged > before else None
