"""What the adapters of the loops have in common: calls come from any thread and run on the loop's, a slice a turn."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .._system import forget_at_fork

__all__ = ["Adapter", "Attached", "Pump"]

SLICE = 0.008  # s of handlers, then the loop gets a rest, in which it draws and runs its timers
DIALOG = 0.016  # s; then what waits behind a handler is run within it, in case it runs a loop of its own


class Attached(Protocol):
    """The delivery of a socket."""

    def loop_gone(self) -> None:
        """What was given to the adapter and has not begun will never run."""

    def resume(self) -> None:
        """What was given to the adapter may have been cut short, or may not have begun."""


class Adapter:
    """What `bws.dispatch.tk` and its like return, to be given to ``dispatch=``.

    Any number of sockets may share one.
    """

    def __init__(self, pump: Pump, name: str) -> None:
        self._lost = False
        self._pump = pump
        self._name = name
        self._attached: weakref.WeakSet[Attached] = weakref.WeakSet()
        pump.add(self)

    def __call__(self, call: Callable[[], object]) -> None:
        """Have a callable run on the loop's thread; may be called from any thread.

        Raises:
            RuntimeError: The loop is gone.
        """
        self._pump.put(self, call)

    @property
    def gone(self) -> bool:
        """Whether the window or the loop is gone, so that nothing is run any more."""
        return self._lost or self._pump.closed

    @property
    def thread_ident(self) -> int | None:
        """The loop's thread, None while it is unknown."""
        return self._pump.thread_ident

    def report_exception(self, exc: BaseException) -> None:
        """Report what a handler let out as the loop reports such things."""
        raise NotImplementedError

    def run(self, call: Callable[[], object]) -> None:
        """Run a call; on the loop's thread."""
        call()

    def tell_when_gone(self, attached: Attached) -> None:
        """Have `attached.loop_gone()` called when the loop is gone; it is not kept alive."""
        with self._pump.lock:
            self._attached.add(attached)

    def idle(self) -> bool:
        """Whether no socket uses it."""
        return not self._attached

    def resume(self) -> None:
        """Ctrl-C has come in between: have the sockets give what they have again."""
        with self._pump.lock:
            attached = list(self._attached)
        for each in attached:
            each.resume()

    def lose(self) -> None:
        """The window or the loop is gone: let the sockets know."""
        with self._pump.lock:
            if self._lost:
                return
            self._lost = True
            attached = list(self._attached)
        for each in attached:
            each.loop_gone()

    def __repr__(self) -> str:
        return f"<bws.dispatch.{self._name}{' gone' if self.gone else ''}>"


class Pump:
    """The queue in front of one loop.

    A subclass says how the loop is woken, and given a rest: without one a flood of messages would leave no turn for
    what the loop does when nothing else is to be done, such as drawing.

    Attributes:
        REST: Its length in seconds.
    """

    REST = 0.001

    def __init__(self) -> None:
        self._forget()
        forget_at_fork(self)
        self.closed = False
        self.thread_ident: int | None = None
        self._calls: deque[tuple[Adapter, Callable[[], object]]] = deque()
        self._due = False  # `woken` or `rested` is about to be called
        self._adapters: weakref.WeakSet[Adapter] = weakref.WeakSet()
        self._spent = 0.0  # s since the last rest; used on the loop's thread
        self._depth = 0  # of turns inside handlers; used on the loop's thread

    def _forget(self) -> None:
        # Guards all but `_spent` and `_depth`. Reentrant for the sake of signal handlers.
        self.lock = threading.RLock()

    # -- of the subclass --------------------------------------------------------------------------

    def _wake(self) -> None:
        """Have `woken` called on the loop's thread; called on any thread, raises when the loop is gone."""
        raise NotImplementedError

    def _rest(self, seconds: float) -> None:
        """Have `rested` called then, and not at the time that was said before; called on the loop's thread."""
        raise NotImplementedError

    def _stop_rest(self) -> None:
        """Have `rested` not called after all; called on the loop's thread."""
        raise NotImplementedError

    # -- on any thread ----------------------------------------------------------------------------

    def add(self, adapter: Adapter) -> None:
        """Note an adapter that uses this; it is not kept alive."""
        with self.lock:
            self._adapters.add(adapter)

    def idle(self) -> bool:
        """Whether no socket uses it."""
        with self.lock:
            return all(adapter.idle() for adapter in self._adapters)

    def put(self, owner: Adapter, call: Callable[[], object]) -> None:
        """Take a call.

        Raises:
            RuntimeError: The loop is gone.
        """
        with self.lock:
            if owner.gone:
                raise RuntimeError(f"{owner!r}: nothing is run there any more")
            self._calls.append((owner, call))
            if self._due:
                return
            self._due = True
        try:
            self._wake()
        except Exception:
            self.close()
            raise
        except BaseException:
            self._due = False  # Ctrl-C, on a loop that is well: the next call wakes it
            raise

    def close(self) -> None:
        """The loop is gone."""
        with self.lock:
            self.closed = True
            self._calls.clear()
            adapters = list(self._adapters)
        for adapter in adapters:
            adapter.lose()

    # -- on the loop's thread ---------------------------------------------------------------------

    def woken(self) -> None:
        """Run what waits, unless a rest is due."""
        try:
            if self._spent >= SLICE and not self.closed:
                self._rest(self.REST)
            else:
                self._turn()
        except BaseException:
            self._resume()
            raise

    def rested(self) -> None:
        """Run what waits, after a rest."""
        try:
            self._spent = 0.0
            self._turn()
        except BaseException:
            self._resume()
            raise

    def _resume(self) -> None:
        """Ctrl-C, say, may have come when a call was taken and had not begun: have the sockets give theirs again."""
        if self._depth or self.closed:
            return  # what is around this goes on
        with self.lock:
            self._due = False
            adapters = list(self._adapters)
        for adapter in adapters:
            adapter.resume()

    def _turn(self) -> None:
        start = time.perf_counter()
        guarded = False
        depth = self._depth
        try:
            self._depth = depth + 1
            with self.lock:
                self._due = False
                self.thread_ident = threading.get_ident()
            while True:
                try:
                    owner, call = self._calls.popleft()
                except IndexError:  # none is left, or another thread found the loop gone
                    break
                if self._calls and not guarded:
                    guarded = True
                    self._rest(DIALOG)
                if not owner.gone:
                    owner.run(call)
                if time.perf_counter() - start > SLICE:
                    break
        finally:
            self._depth = depth
            self._spent += time.perf_counter() - start
            with self.lock:
                self._due = bool(self._calls)
            if self._due:
                # From now on: a timer that ran during the handlers would be due at once, and leave no rest.
                self._rest(self.REST)
            elif guarded and not self.closed:
                self._stop_rest()
