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

__all__ = ["relief"]

PATIENCE = 0.05  # s that a handler may take before its socket is relieved


class Relieved(Protocol):
    """An engine whose thread is inside a handler."""

    def interest(self) -> tuple[int, bool, bool, float | None]:
        """Descriptor, whether to read, whether to write, and when (monotonic time) something is due."""

    def service(self, readable: bool, writable: bool) -> None:
        """Do what the socket's thread would, unless it is back."""


class Relief:
    """See the module."""

    def __init__(self) -> None:
        # Who is inside a handler, and since when. Single steps on a dict: no lock on the way of a message.
        self._busy: dict[Relieved, float] = {}
        self._entered = False  # since the thread looked last
        self._asleep = True
        self._wakeup = threading.Event()
        self._start_lock = threading.Lock()  # guards the thread's start
        self._thread: threading.Thread | None = None
        self._waker: Waker | None = None

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

    def _rouse(self) -> None:
        with self._start_lock:
            self._asleep = False
            if self._thread is None:
                self._waker = Waker()
                self._thread = threading.Thread(target=self._run, name="bws relief", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the interpreter is going away
                    self._thread = None
                    return
        self._wakeup.set()

    def _run(self) -> None:
        while True:
            busy = list(self._busy.items())
            if not busy and not self._entered:
                self._asleep = True
                if not self._busy:
                    self._wakeup.wait()
                self._asleep = False
                self._wakeup.clear()
                continue
            self._entered = False
            now = time.monotonic()
            late = [engine for engine, since in busy if now - since >= PATIENCE]
            if late:
                self._turn(late, now)
            else:
                time.sleep(PATIENCE)

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
            except OSError:
                ready = []  # Windows: a socket was closed meanwhile
        got = {key.data: events for key, events in ready}
        if None in got:
            self._waker.clear()
        for engine in late:
            events = got.get(engine, 0)
            engine.service(bool(events & selectors.EVENT_READ), bool(events & selectors.EVENT_WRITE))


relief = Relief()


def _after_fork() -> None:
    """The child has no relief thread, and its copies of the descriptors are of no use."""
    if relief._waker is not None:
        relief._waker.forget()
    relief.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
