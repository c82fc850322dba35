"""For programs that look after their events now and then: game loops, scripts, tests."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

from .._settings import check_wait
from .._system import Condition, capped, forget_at_fork
from .._text import brief
from ._pump import Attached

__all__ = ["Queue"]


class Queue:
    """A queue of events, whose handlers run in `run_pending` and `run_until`, on the thread that calls them.

    ::

        events = bws.dispatch.Queue()
        ws = bws.WebSocket(url, dispatch=events)
        while playing:
            events.run_pending(100)
            draw()

    One queue may serve any number of sockets. One thread at a time runs it.

    Attributes:
        thread_ident: The thread that ran it last, at first the one that made it: there `wait_open` and its like
            raise RuntimeError instead of waiting for what could not happen.
    """

    def __init__(self) -> None:
        self._calls: deque[Callable[[], object]] = deque()
        self._attached: weakref.WeakSet[Attached] = weakref.WeakSet()
        self._forget()
        forget_at_fork(self)
        self._left: int | None = None  # events that may still be delivered by the present run; None for all
        self._done = 0  # events that it has delivered
        self._asked = False  # whether a socket has called `spend`
        self._depth = 0  # of runs inside handlers
        self._cut_short = False  # whether a run was, and what it had taken may be lost
        self.thread_ident = threading.get_ident()

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._arrived = Condition(self._lock)  # said when something comes

    def __call__(self, call: Callable[[], object]) -> None:
        """Take a callable to run; may be called from any thread.

        Raises:
            TypeError: It is not callable.
        """
        if not callable(call):
            raise TypeError(f"call must be a callable that takes no argument, not {brief(call)}")
        with self._lock:
            self._calls.append(call)
            self._arrived.notify_all()

    def __len__(self) -> int:
        """Callables that wait; each may deliver several events."""
        return len(self._calls)

    def __bool__(self) -> bool:
        """True, also when nothing waits."""
        return True

    def run_pending(self, max_events: int | None = None) -> int:
        """Deliver what has arrived, without waiting.

        Args:
            max_events: How many events at most; None for all that are there when it is called, and what comes
                while their handlers run: without an end, where it comes faster than they return.

        Returns:
            How many were delivered.

        Raises:
            TypeError: `max_events` is no int.
            ValueError: `max_events` is negative.
        """
        if max_events is not None and (isinstance(max_events, bool) or not isinstance(max_events, int)):
            raise TypeError(f"max_events must be a number of events (int) or None, not {brief(max_events)}")
        if max_events is not None and max_events < 0:
            raise ValueError(f"max_events={brief(max_events)} must be 0, a positive number of events, or None")
        self.thread_ident = threading.get_ident()
        if self._cut_short and not self._depth:
            self._resume()
        before, depth = self._left, self._depth
        start = self._done
        try:
            self._left, self._depth = max_events, depth + 1
            while True:  # not the condition: Python 3.13 looks for signals in its jump back, and goes past the `except`
                if not self._calls or self._left == 0:
                    break
                self._asked = False
                call = self._calls.popleft()
                call()
                if not self._asked:
                    self.spend(1)  # a callable of the program's own counts as one event
        except BaseException:
            if not depth:  # Ctrl-C may have come when a call was taken and had not begun
                self._cut_short = True
                self._resume()
            raise
        finally:
            self._left, self._depth = before, depth
        return self._done - start

    def run_until(self, predicate: Callable[[], object], timeout: float | None = None) -> bool:
        """Deliver events as they come, until `predicate` is true; Ctrl-C interrupts it.

        Args:
            predicate: Looked at before the first event and after each.
            timeout: Seconds, or None for no limit; one event is delivered in any case, if it is there.

        Returns:
            Whether `predicate` was true before the time was up.

        Raises:
            TypeError: `predicate` is not callable, or `timeout` is not a number.
            ValueError: `timeout` is negative or not finite.
        """
        if not callable(predicate):
            raise TypeError(
                f"predicate must be a callable, such as lambda: ws.readyState == 3, not its value {brief(predicate)}"
            )
        limit = check_wait("timeout", timeout)
        end = None if limit is None else time.monotonic() + limit
        delivered = 0
        while not predicate():
            left = None if end is None else end - time.monotonic()
            over = left is not None and left <= 0
            if self._calls and not (over and delivered):
                # may return 0 and yet have called handlers: events that were held do not count
                delivered += self.run_pending(1)
                continue
            if over:
                return False
            with self._lock:
                self._arrived.wait_for(lambda: bool(self._calls), None if left is None else capped(left))
        return True

    def _resume(self) -> None:
        """Have what was taken and not delivered come again."""
        with self._lock:
            attached = list(self._attached)
        for each in attached:
            each.resume()
        self._cut_short = False  # only now: when Ctrl-C comes again, the next run does it

    def spend(self, events: int) -> int:
        """How many of `events` may be delivered now; a negative number gives back what was not there.

        Called by the sockets.
        """
        self._asked = True
        if self._left is not None:
            events = min(events, self._left)
            self._left -= events
        self._done += events
        return events

    def tell_when_gone(self, attached: Attached) -> None:
        """Note a socket's delivery, which is told when a run of the queue was cut short; it is not kept alive.

        Called by the sockets.
        """
        with self._lock:
            self._attached.add(attached)

    def __repr__(self) -> str:
        return f"<bws.dispatch.Queue {len(self._calls)} waiting>"
