"""What waits to be sent, and how much of it the program's messages are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

__all__ = ["Outbox"]


class Outbox:
    """Frames in order, the first one perhaps half sent. Used with the send lock held.

    Attributes:
        pending: Payload bytes of messages that are still to be sent: ``bufferedAmount``.
        controls: Control frames among them: a peer that pings and does not read must not fill the memory.
    """

    __slots__ = ("_frames", "controls", "pending")

    def __init__(self) -> None:
        self._frames: deque[tuple[memoryview, int]] = deque()  # what is left of a frame, its payload's length
        self.pending = 0
        self.controls = 0

    def __bool__(self) -> bool:
        return bool(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, left: memoryview, payload: int) -> None:
        """Queue a frame, or what is left of it; `payload`: bytes of a message's payload in the whole frame."""
        self._frames.append((left, payload))
        self.pending += min(payload, len(left))  # the payload is the frame's end
        self.controls += not payload

    def write(self, send: Callable[[memoryview], int]) -> None:
        """Give `send` the frames until it takes no more (it raises BlockingIOError, or takes a part)."""
        frames = self._frames
        while frames:
            left, payload = frames[0]
            sent = send(left)
            self.pending -= min(payload, len(left)) - min(payload, len(left) - sent)
            if sent < len(left):
                frames[0] = (left[sent:], payload)
            else:
                frames.popleft()
                self.controls -= not payload
