"""For programs that run an asyncio loop."""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._pump import Adapter, Pump

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle

__all__ = ["asyncio"]

DAY = 86_400.0  # s; a loop on Qt takes no timer of 25 days

_lock = threading.RLock()  # guards the dictionary; reentrant for the sake of signal handlers
_pumps: weakref.WeakKeyDictionary[AbstractEventLoop, LoopPump] = weakref.WeakKeyDictionary()


def asyncio(loop: AbstractEventLoop | None = None) -> Adapter:
    """Have handlers run on the thread of an asyncio loop, uvloop's too.

    ::

        async def main():
            ws = bws.WebSocket(url, dispatch=bws.dispatch.asyncio())

    Handlers are plain functions; they see the context variables of the moment when this was called. When the loop
    is closed, delivery ends quietly and the sockets are closed with code 1001. An exception in a handler goes to the
    loop's exception handler.

    Args:
        loop: The loop; None for the one that is running. A given one need not run yet.

    Returns:
        What to give to ``dispatch=``; any number of sockets may share it.

    Raises:
        RuntimeError: `loop` is None and no loop is running on this thread, or `loop` is closed.
        TypeError: `loop` is not a loop.
    """
    import asyncio as library

    if loop is None:
        try:
            loop = library.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "no loop is running on this thread: call bws.dispatch.asyncio() in a coroutine, or give it a loop"
            ) from None
    elif not isinstance(loop, library.AbstractEventLoop):
        raise TypeError(f"loop must be an asyncio event loop or None, not {type(loop).__name__}")
    with _lock:
        pump = _pumps.get(loop)
        if pump is None or pump.closed:
            pump = _pumps[loop] = LoopPump(loop)
    return LoopAdapter(pump)


class LoopAdapter(Adapter):
    """Runs handlers in a loop, in the context of its maker."""

    _pump: LoopPump

    def __init__(self, pump: LoopPump) -> None:
        super().__init__(pump, "asyncio()")
        self._context = contextvars.copy_context()

    @property
    def thread_ident(self) -> int | None:
        """The loop's thread: the one that asks, if the loop is running there, else the one that ran it last."""
        from asyncio import _get_running_loop

        running = _get_running_loop()
        if running is not None and running is self._pump.loop():
            return threading.get_ident()
        return self._pump.thread_ident

    def run(self, call: Callable[[], object]) -> None:
        self._context.copy().run(call)  # a copy, as one cannot be entered twice by a loop in a loop

    def report_exception(self, exc: BaseException) -> None:
        loop = self._pump.loop()
        if loop is None:
            sys.excepthook(type(exc), exc, exc.__traceback__)
        else:
            loop.call_exception_handler({"message": "Exception in a bws event handler", "exception": exc})


class LoopPump(Pump):
    """Wakes a loop in the one way that other threads may."""

    REST = 0.0  # a turn of the loop is enough: it serves everything else before

    def __init__(self, loop: AbstractEventLoop) -> None:
        super().__init__()
        self._timer: TimerHandle | None = None  # while there is one: it refers to the loop
        self.loop = weakref.ref(loop)  # weak, as it is what this object is found by
        loop.call_soon_threadsafe(self._keep, _Guest(self))

    def _keep(self, guest: _Guest) -> None:
        self.thread_ident = threading.get_ident()
        loop = self.loop()
        if loop is not None:
            loop.call_later(DAY, self._keep, guest)

    def _wake(self) -> None:
        loop = self.loop()
        if loop is None or loop.is_closed():  # qasync's loop itself says nothing when it is closed
            raise RuntimeError("the loop is gone")
        loop.call_soon_threadsafe(self.woken)

    def _rest(self, seconds: float) -> None:
        self._stop_rest()
        loop = self.loop()
        if loop is not None:
            self._timer = loop.call_later(seconds, self.rested)

    def _stop_rest(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def rested(self) -> None:
        self._timer = None
        super().rested()

    def close(self) -> None:
        self._timer = None  # the loop has dropped it
        super().close()


class _Guest:
    """Stays in the loop's timers, and is thrown out when the loop is closed: nothing else tells of that."""

    def __init__(self, pump: LoopPump) -> None:
        self._pump = pump

    def __del__(self) -> None:
        self._pump.closed = True
        if sys.is_finalizing():
            return
        # This may be the garbage collector, at any point of any thread, so locks are left to another thread. A
        # threading.Thread takes a lock itself when it starts.
        with contextlib.suppress(RuntimeError):  # the interpreter exits, which closes the sockets as well
            _thread.start_new_thread(self._pump.close, ())
