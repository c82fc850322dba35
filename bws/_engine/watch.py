"""Short waits without falling asleep: where the next bytes are about to come, they are watched for."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

__all__ = ["Watch"]

T = TypeVar("T")

LONGEST = 100e-6  # s that one wait is watched
MOST = 1000  # looks in that time, should the clock stand still
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
    and sleeps only after a while: after `LONGEST` when an answer is expected, else after as long as the thread was away
    since the last wait, so that a stream which nobody answers costs at most twice its time.

    What that costs others is bounded further:

    - An idle connection sleeps, as only what follows a short wait is watched for.
    - Each watch in vain is followed by a rest, the more in a row, the longer: then 0.1 % of the time is wasted.
    - One thread of the process watches. When two would, both rest, as each would take the GIL from the other.
    - A look that takes long tells that another thread wants the GIL, or another program the processor: that is a
      watch in vain. With a single processor there is none.

    Not thread-safe, but for `expects`: each thread that waits has its own.

    Attributes:
        possible: Whether there is a second processor, so that what is watched for can happen.
        expects: Whether a message or a ping was sent since something came.
    """

    __slots__ = ("_rest", "_rests_until", "_soon", "_woke", "expects", "possible")

    def __init__(self) -> None:
        self.possible = self.expects = False
        self._soon = False  # the last wait was short
        self._woke = 0.0  # when it ended
        # With `expects` False and True: they are watched for so differently that one says nothing about the other.
        self._rest = [REST, REST]
        self._rests_until = [0.0, 0.0]

    def wait(self, poll: Callable[[float | None], T], timeout: float | None) -> T:
        """What `poll(timeout)` returns; where that may pay, `poll(0)` is asked before, until it tells something."""
        start = perf_counter()
        expects = self.expects
        if self._soon and timeout != 0 and start >= self._rests_until[expects]:
            longest = LONGEST if expects else min(LONGEST, start - self._woke)
            if polled := poll(0) or self._watch(poll, expects, start, start + longest):
                self._woke = perf_counter()
                return polled
        polled = poll(timeout)
        self._woke = perf_counter()
        self._soon = self.possible and bool(polled) and timeout != 0 and self._woke - start <= SHORT
        return polled

    def _watch(self, poll: Callable[[float | None], T], expects: bool, start: float, end: float) -> T | None:
        # No lock: two that take their turn at the same moment do no harm, and neither does one that a fork has left
        # behind. The next one takes it away.
        turn, last, rest = _turn, start, self._rest[expects]
        if turn.watcher is None:
            turn.watcher = self
            try:
                for _ in range(MOST):
                    now = perf_counter()
                    if turn.watcher is not self:
                        rest = LONGEST_REST
                        break
                    if now > end or now - last > LOOK:
                        break
                    last = now
                    if polled := poll(0):
                        self._rest[expects] = max(rest * FORGIVES, REST)
                        return polled
            finally:
                if turn.watcher is self:
                    turn.watcher = None
        else:
            turn.watcher, rest = None, LONGEST_REST  # which tells the other
        self._rests_until[expects] = last + rest
        self._rest[expects] = min(rest * 4, LONGEST_REST)
        return None
