"""One thread for the process that stands in for socket threads whose handlers take long.

While a handler blocks, its socket's thread cannot answer pings, empty the outbox or note the peer's close. After
50 ms this thread does, until the handler returns. It sleeps while no handler runs, so idle costs nothing.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from typing import Protocol

from .._system import Waker

__all__ = ["Relief", "dismiss", "hire"]

PATIENCE = 0.05  # s that a handler may take before its socket is relieved
LINGER = 0.1  # s that the thread waits for another socket: starting it takes a third of the time of a connection


class Relieved(Protocol):
    """An engine whose thread is inside a handler."""

    def interest(self) -> tuple[int, bool, bool, float | None]:
        """Descriptor, whether to read, whether to write, and when (monotonic time) something is due."""

    def service(self, readable: bool, writable: bool) -> None:
        """Do what the socket's thread would, unless it is back."""


class Relief:
    """The thread, and what it knows. It is started when it is needed first, and ends soon after the last socket."""

    def __init__(self) -> None:
        # Who is inside a handler, and since when. Single steps on a dict: no lock on the way of a message.
        self._busy: dict[Relieved, float] = {}
        self._entered = False  # since the thread looked last
        self._asleep = True
        self._wakeup = threading.Event()
        self._thread: threading.Thread | None = None
        self._waker: Waker | None = None
        self.engines = 0  # that may need it; guarded by _lock below

    def enter(self, engine: Relieved) -> None:
        """`engine`'s thread is about to run handlers."""
        self._busy[engine] = time.monotonic()
        self._entered = True
        # The thread sets _asleep before its last look at _busy, and this looks after it has written: one of the
        # two sees the other.
        if self._asleep:
            self._rouse()

    def leave(self, engine: Relieved) -> None:
        """The handlers have returned."""
        self._busy.pop(engine, None)

    def serves(self, engine: Relieved) -> bool:
        """Whether `engine`'s thread is inside a handler."""
        return engine in self._busy

    def wake(self, engine: Relieved) -> None:
        """Something about `engine` has changed: look at it again, if it is being relieved."""
        if engine in self._busy and self._waker is not None:
            self._waker.wake()

    def forget(self) -> None:
        """After a fork, in the child: there is no thread."""
        if self._waker is not None:
            self._waker.forget()
        self._busy.clear()
        self._asleep = False  # nobody rouses it

    def _rouse(self) -> None:
        with _lock:
            self._asleep = False
            if self._thread is None:
                try:
                    self._waker = self._waker or Waker()
                    if self._waker.error is not None:
                        error, self._waker = self._waker.error, None
                        raise error
                    self._thread = threading.Thread(target=self._run, name="bws relief", daemon=True)
                    self._thread.start()
                except (RuntimeError, OSError):
                    # The interpreter is going away, or there are no descriptors or threads left: a connection
                    # without relief is better than none. The next handler may have more luck.
                    self._thread = None
                    self._asleep = True
                    return
        self._wakeup.set()

    def look(self) -> None:
        """The last socket is gone: have the thread note it."""
        if self._asleep:
            self._wakeup.set()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException:
            with _lock:  # the next handler has another one started
                self._thread = None
                self._asleep = True
            raise

    def _serve(self) -> None:
        while True:
            busy = list(self._busy.copy().items())  # a copy is a single step, during which nobody comes or goes
            if not busy and not self._entered:
                self._asleep = True
                if not self._busy:
                    # The last socket is counted out before it looks whether this sleeps: one of the two sees the other.
                    quiet = not self._wakeup.wait(None if self.engines else LINGER)
                    if quiet and _retire(self):
                        break
                self._asleep = False
                self._wakeup.clear()
                continue
            self._entered = False
            now = time.monotonic()
            late = [engine for engine, since in busy if now - since >= PATIENCE]
            if late:
                self._turn(late, now)
            else:
                self._wakeup.wait(PATIENCE)
                self._wakeup.clear()
        assert self._waker is not None
        self._waker.close()

    def _turn(self, late: list[Relieved], now: float) -> None:
        """Wait until one of `late` has something to do, and do it."""
        assert self._waker is not None
        timeout = PATIENCE if len(self._busy) > len(late) else None
        with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
            selector.register(self._waker, selectors.EVENT_READ)
            for engine in late:
                fd, read, write, due = engine.interest()
                events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
                if fd >= 0 and events:
                    # Two engines have one descriptor when one has just closed it.
                    with contextlib.suppress(KeyError, ValueError):
                        selector.register(fd, events, engine)
                if due is not None:
                    timeout = max(0.0, due - now) if timeout is None else min(timeout, max(0.0, due - now))
            try:
                ready = selector.select(min(PATIENCE, timeout) if timeout is not None else PATIENCE)
            except (OSError, ValueError):
                # Windows: a socket was closed meanwhile, or there are more than select() takes
                ready = []
                time.sleep(0.01)
        got = {key.data: events for key, events in ready}
        if None in got:
            self._waker.clear()
        for engine in late:
            events = got.get(engine, 0)
            engine.service(bool(events & selectors.EVENT_READ), bool(events & selectors.EVENT_WRITE))


# Guards the start of threads, and which of them is the present one. Reentrant, as a signal handler that makes a socket
# may come in while its own thread holds it.
_lock = threading.RLock()
_present: Relief | None = None


def hire() -> Relief:
    """The present relief; to be given back with `dismiss`."""
    global _present
    with _lock:
        if _present is None:
            _present = Relief()
        _present.engines += 1
        return _present


def dismiss(relief: Relief) -> None:
    """An engine needs `relief` no more."""
    with _lock:
        relief.engines -= 1
        last = not relief.engines
    if last:
        relief.look()


def _retire(relief: Relief) -> bool:
    """Whether nobody needs `relief` any more; then nobody will."""
    global _present
    with _lock:
        if relief.engines:
            return False
        if _present is relief:
            _present = None
        return True


def _after_fork() -> None:
    """The child has no relief thread, and its copies of the descriptors are of no use."""
    global _lock, _present
    _lock = threading.RLock()
    if _present is not None:
        _present.forget()
    _present = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
