"""Short waits without falling asleep: where the next bytes are about to come, they are watched for."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

__all__ = ["Watch"]

T = TypeVar("T")

LONGEST = 100e-6  # s that one wait is watched
SHORT = 150e-6  # s of a wait that the next one is watched after: more, as a thread that slept was woken first
LOOK = 30e-6  # s that one look may take; longer: somebody else wants the processor, or the GIL
REST = 0.5e-3  # s without watching after a watch in vain, four times as long after the next one
LONGEST_REST = 0.25
FORGIVES = 0.9  # of the rest is left after each watch that was not in vain


class _Turn:
    """Who watches: one thread of the process."""

    __slots__ = ("watcher",)

    def __init__(self) -> None:
        self.watcher: Watch | None = None


_turn = _Turn()


class Watch:
    """The waits of one thread.

    A thread that sleeps is woken some 50 us after its bytes have come, and the peer's `send` pays for waking it. A
    server on the same machine answers sooner. So a wait that follows a short one begins with asking again and again,
    and sleeps only after `LONGEST`: a processor is kept busy by a connection that keeps it busy anyway.

    What that costs others is bounded:

    - Only what follows a short wait is watched for: an idle connection sleeps, and one with fewer than thousands of
      messages a second wastes `LONGEST` a burst at most.
    - Each watch in vain is followed by a rest, the more, the longer: soon less than 0.1 % of the time is wasted.
    - One thread of the process watches. When two would, both rest, as each would take the GIL from the other.
    - A look that takes long tells that another thread wants the GIL, or another program the processor: that is a
      watch in vain. With a single processor there is none.

    Not thread-safe: each thread that waits has its own.

    Args:
        possible: Whether there is a second processor, so that what is watched for can happen.
    """

    __slots__ = ("_possible", "_rest", "_rests_until", "_soon")

    def __init__(self, possible: bool) -> None:
        self._possible = possible
        self._soon = False  # the last wait was short
        self._rest = REST
        self._rests_until = 0.0

    def wait(self, poll: Callable[[float | None], T], timeout: float | None) -> T:
        """What `poll(timeout)` returns; where that may pay, `poll(0)` is asked before, until it tells something."""
        start = perf_counter()
        if self._soon and timeout != 0 and start >= self._rests_until:
            polled = poll(0) or self._watch(poll, start)
            if polled:
                return polled
        polled = poll(timeout)
        self._soon = self._possible and perf_counter() - start <= SHORT
        return polled

    def _watch(self, poll: Callable[[float | None], T], start: float) -> T | None:
        # No lock: two that take their turn at the same moment do no harm, and neither does one that a fork has left
        # behind. The next one takes it away.
        turn, last, end = _turn, start, start + LONGEST
        if turn.watcher is None:
            turn.watcher = self
            while last < end and turn.watcher is self:
                if polled := poll(0):
                    turn.watcher = None
                    self._rest = max(self._rest * FORGIVES, REST)
                    return polled
                now = perf_counter()
                if now - last > LOOK:
                    break
                last = now
        rest = self._rest if turn.watcher is self else LONGEST_REST  # it is another's
        turn.watcher = None
        self._rests_until = last + rest
        self._rest = min(rest * 4, LONGEST_REST)
        return None
