"""Where events are delivered: on the socket's thread, or on a thread of the program's choice."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import length_hint
from types import TracebackType
from typing import Any, Protocol

from ._engine.interface import Engine, Item
from ._lifetime import exiting
from ._settings import HIGH_WATER_BYTES, HIGH_WATER_ITEMS, LIGHT, in_memory

__all__ = ["Direct", "Dispatch", "Dispatched"]

# Attribute of an exception that a handler let out: a weak reference to the delivery it came through.
_LET_OUT = "_bws_let_out"
SLICE_ITEMS = 4  # at least so many events a call of dispatch
LOOK = 1.0  # s, while somebody waits, between two looks whether a loop that tells nobody has been closed
SLICE_TIME = 0.008  # s; then the loop behind dispatch gets its turn (a GUI draws 60 times a second)

Dispatch = Callable[[Callable[[], None]], object]
log = logging.getLogger("bws")


class _Identity(threading.local):
    """Tells threads apart, also one from another that gets its ident when it has ended."""

    def __init__(self) -> None:
        self.token = object()


_identity = _Identity()


class Target(Protocol):
    """What delivery needs of a WebSocket."""

    @property
    def _engine(self) -> Engine: ...

    def _take(self, items: Iterable[Item]) -> None:
        """Deliver `items`, all of them, whatever a handler lets out."""

    def _deliver_held(self) -> None:
        """Deliver what was held for handlers that are bound now."""

    def _paid(self) -> bool:
        """Whether handlers that were bound late have got what was held for them; a look without the lock."""

    def _holds_messages(self) -> bool:
        """Whether messages are held that may yet get a handler."""

    def _leave(self) -> None:
        """Close with 1001."""

    def _abandon(self) -> None:
        """No handler can be called any more: close the connection."""


class Direct:
    """Handlers run on the socket's own thread."""

    __slots__ = ("_again", "_late", "_lock", "_ref")

    failure: BaseException | None = None  # see `Dispatched`; this needs none

    def __init__(self, target: Target) -> None:
        # Weak, so that nothing has to wait for the garbage collector: an open socket is kept in _lifetime.
        self._ref = weakref.ref(target)
        self._lock = threading.Lock()  # guards the two below; taken by those threads alone, see wake_handlers
        self._late: threading.Thread | None = None  # delivers what is held when the socket's thread has ended
        self._again = False  # there is something that it may have missed

    def attach(self) -> None:
        """See `Dispatched`; there is no loop that may go."""

    def look(self) -> None:
        """See `Dispatched`."""

    def deliver(self, items: Sequence[Item], size: int) -> None:
        target = self._ref()
        if target is not None:
            target._take(items)

    def woken(self) -> None:
        target = self._ref()
        if target is not None:
            target._deliver_held()

    def congested(self) -> bool:
        return False  # nothing waits here: deliver() comes back when all is taken

    def idle(self) -> bool:
        target = self._ref()
        return target is None or not target._holds_messages()

    def wake_handlers(self, over: bool) -> None:
        """Have held events delivered; `over`: the socket's thread has settled and delivers no more."""
        target = self._ref()
        assert target is not None
        if not over:
            target._engine.wake()
        elif not exiting():
            # No lock, as a signal handler may come in and bind too; and nothing that a start() which fails, for want of
            # threads or by Ctrl-C, would leave undone: the thread notes itself.
            self._again = True
            threading.Thread(target=self._deliver_late, args=(target,), name="bws held events", daemon=True).start()

    def _deliver_late(self, target: Target) -> None:
        me = threading.current_thread()
        while True:
            with self._lock:
                if self._late is not None and self._late is not me:
                    return  # that one does it
                self._late = me if self._again else None
                if self._late is None:
                    return
                self._again = False
            try:
                target._deliver_held()
            except BaseException:  # no memory, say
                with self._lock:
                    self._late = None
                raise

    def on_thread(self) -> bool:
        """Whether the caller runs on the thread that runs the handlers."""
        target = self._ref()
        return (target is not None and target._engine.on_thread()) or threading.current_thread() is self._late

    def forget(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()

    def raised(self, exc: BaseException) -> None:
        """Report what a handler let out, as a thread does."""
        args = (type(exc), exc, exc.__traceback__, threading.current_thread())
        try:
            threading.excepthook(threading.ExceptHookArgs(args))
        except BaseException as raised:
            if not isinstance(raised, Exception) and args[3] is threading.main_thread():
                raise  # Ctrl-C, say
            log.exception("threading.excepthook raised")


class Dispatched:
    """Handlers run where `dispatch` runs what it is given.

    Attributes:
        failure: What `dispatch` raised, when it could not be used any more.
    """

    __slots__ = (
        "__weakref__",
        "_again",
        "_batches",
        "_bytes",
        "_count",
        "_current",
        "_dispatch",
        "_entered",
        "_gone",
        "_handing",
        "_inside",
        "_kept",
        "_lock",
        "_owes_wake",
        "_ref",
        "_scheduled",
        "_thread",
        "failure",
    )

    def __init__(self, target: Target, dispatch: Dispatch) -> None:
        self._ref = weakref.ref(target)  # see Direct
        self._dispatch = dispatch
        # Guards all below. Reentrant, as a signal handler that binds may come in while its own thread holds it.
        self._lock = threading.RLock()
        self._batches: deque[tuple[Sequence[Item], int]] = deque()
        # The batch that is being delivered, which stays in `_batches` until it is, and what is left of it: in one word,
        # so that nothing that raises in between, as Ctrl-C may, can lose or double it.
        self._current: tuple[Sequence[Item], Iterator[Item]] = ((), iter(()))
        self._count = self._bytes = 0  # of all batches, the current one included
        self._owes_wake = False  # the engine has stopped reading, or is about to, and is to be told when it may go on
        self._scheduled = False
        self._gone = False
        self._kept: Target | None = None
        self._thread: object = None  # the one that ran handlers last; see _Identity
        self._entered = 0  # how often _drain was called
        self._handing: set[int] = set()  # the threads that are in `dispatch`
        self._inside: int | None = None  # the thread that is in _drain
        self._again = False  # _drain was called while a thread was in it
        self.failure: BaseException | None = None

    def attach(self) -> None:
        """The target is complete: from now on it can be told that the loop is gone."""
        tell_when_gone = getattr(self._dispatch, "tell_when_gone", None)  # the adapters of bws.dispatch
        if tell_when_gone is not None:
            tell_when_gone(self)

    def look(self) -> float | None:
        """See whether the loop is still there; in how many seconds that is to be done again, if nobody tells."""
        loop = self._loop()
        if loop is None or self._gone:
            return None
        if loop.is_closed():
            self.loop_gone()
            return None
        return LOOK

    # -- on the network's thread ------------------------------------------------------------------

    def deliver(self, items: Sequence[Item], size: int) -> None:
        if self._bytes > LIGHT:
            size = in_memory(items)
        with self._lock:
            self._batches.append((items, size))
            self._count += len(items)
            self._bytes += size
            waits = self._scheduled
            self._scheduled = True
        if not waits:
            self._schedule(patient=True)
        elif not self._gone and self._loop_closed():
            self.loop_gone()  # it has taken a call, and will never run it

    def woken(self) -> None: ...

    def congested(self) -> bool:
        return self._count > HIGH_WATER_ITEMS or self._bytes > HIGH_WATER_BYTES

    def idle(self) -> bool:
        target = self._ref()
        # In this order: what is not held any more is being delivered by the thread inside.
        held = target is not None and target._holds_messages()
        return not held and not self._count and self._inside is None

    # -- on any thread ----------------------------------------------------------------------------

    def wake_handlers(self, over: bool) -> None:
        """Have held events delivered."""
        try:
            with self._lock:
                self._kept = self._ref()  # it is owed something, also when the program lets go of it now
                if self._scheduled:
                    return
                self._scheduled = True
            self._schedule(patient=False)
        except BaseException:
            self._scheduled = False  # Ctrl-C came before it was; the next event is told, once too often at worst
            raise

    def _schedule(self, patient: bool) -> None:
        """Hand the drain to `dispatch`; `patient`: wait here when its queue is full."""
        me = threading.get_ident()
        nested = me in self._handing
        while not self._gone:
            entered = self._entered
            try:
                try:
                    self._handing.add(me)
                    self._dispatch(self._drain)
                finally:
                    if not nested:
                        self._handing.discard(me)
                return
            except queue.Full:
                if not patient:
                    # This may be the thread that empties the queue: it must not wait.
                    retry = threading.Thread(target=self._schedule, args=(True,), name="bws dispatch", daemon=True)
                    retry.start()
                    return
                time.sleep(0.005)
                if exiting():
                    return
            except BaseException as exc:
                if not isinstance(exc, Exception):
                    if not patient:
                        raise
                    let_out = getattr(exc, _LET_OUT, None)
                    if let_out is not None and self._entered != entered:
                        # A handler's, as dispatch runs what it is given at once, or waits for it: it is on the
                        # network's thread. It is as without dispatch: reported, and the connection stays; but
                        # SystemExit ends it. It may be another socket's, whose calls dispatch runs here too.
                        (let_out() or self)._let_out(exc)
                        return
                self._failed(exc)
        # Nobody is there to see events: take them as they come, so that the states go on.
        self._drain()

    def _let_out(self, exc: BaseException) -> None:
        """A handler has let this out on the network's thread."""
        target = self._ref()
        if not isinstance(exc, SystemExit):
            self.raised(exc)
        elif target is not None:
            target._leave()

    def _failed(self, exc: BaseException) -> None:
        """`dispatch` raised: nothing can be run there."""
        # What it raises when a window, a loop or a queue is gone is no news; a mistake of the program's is.
        ended = isinstance(exc, (RuntimeError, AssertionError, ReferenceError))
        ended = ended and not isinstance(exc, (NotImplementedError, RecursionError))
        expected = ended or type(exc).__name__ in ("TclError", "ShutDown")
        text = "dispatch raised %r: no handler can be called, so the connection is closed"
        log.log(logging.INFO if expected else logging.WARNING, text, exc, exc_info=None if expected else exc)
        self.failure = exc.with_traceback(None)  # which refers to this
        self._gone = True
        target = self._ref()
        if target is not None:
            target._abandon()

    def _loop(self) -> Any:
        """The asyncio loop that `dispatch` is a method of, or None."""
        loop = getattr(self._dispatch, "__self__", None)
        asyncio = sys.modules.get("asyncio")
        return loop if asyncio is not None and isinstance(loop, asyncio.AbstractEventLoop) else None

    def _loop_closed(self) -> bool:
        loop = self._loop()
        return loop is not None and bool(loop.is_closed())

    def loop_gone(self) -> None:
        """The loop behind `dispatch` runs nothing any more, not even what it has taken."""
        with self._lock:
            if self._gone:
                return
            self._gone = True
            waiting = self._scheduled
        log.info("the loop behind dispatch is gone, so the connection is closed")
        target = self._ref()
        if target is not None:
            target._abandon()
        if waiting:
            self._drain()

    # -- on the program's thread ------------------------------------------------------------------

    def _drain(self) -> None:
        """Deliver a slice of what waits; schedule itself again if more is left."""
        nested = self._inside is not None
        try:
            self._deliver_slices()
        except BaseException:
            if not nested and self._inside == threading.get_ident():
                self.resume()  # it was cut short
            raise

    def _deliver_slices(self) -> None:
        with self._lock:
            self._entered += 1
            if self._inside is not None:
                # By this thread, as dispatch runs what it is given at once: go on below instead of ever deeper.
                # Or by another one, as the loop went away meanwhile: one takes what is left.
                self._again = True
                return
            me = threading.get_ident()
            # A dispatch that runs what it is given at once has no thread of its own to run handlers on.
            self._thread = None if me in self._handing else _identity.token
            self._inside = me
        leaving: BaseException | None = None
        going = True
        while going:
            more = True
            try:
                more = self._slice()
            except BaseException as exc:
                leaving = exc  # SystemExit and the like go where the program's own loop sends them
            if more:
                self._schedule(patient=False)
            with self._lock:
                going, self._again = self._again, False
                if not going:
                    self._inside = None
        if leaving is not None:
            BaseException.__setattr__(leaving, _LET_OUT, weakref.ref(self))  # for _schedule, on whatever thread
            raise leaving

    def resume(self) -> None:
        """Something that ran handlers on this thread was cut short, by Ctrl-C say: have what is left delivered.

        Called by what runs them, when nothing of it is under way any more; once too often does no harm.
        """
        with self._lock:
            if self._inside == threading.get_ident():
                self._inside = None
            self._scheduled = True
        self._schedule(patient=False)

    def _slice(self) -> bool:
        """Deliver for some milliseconds; whether more is left."""
        target = self._ref()
        if target is None:
            return False
        end = time.perf_counter() + SLICE_TIME
        target._deliver_held()
        spend = getattr(self._dispatch, "spend", None)  # bws.dispatch.Queue counts
        while True:
            allowed = SLICE_ITEMS if spend is None else spend(SLICE_ITEMS)
            if not allowed:
                return True
            items = self._current[1]
            number = min(allowed, length_hint(items))
            if spend is not None:
                spend(number - allowed)
            if number:
                target._take(islice(items, number))
            elif not self._next(target):
                return False
            elif not target._paid():
                target._deliver_held()
            if time.perf_counter() > end and not self._gone:
                return True

    def _next(self, target: Target) -> bool:
        """Go to the next batch, if there is one; whether there is, or a handler was bound that is owed something."""
        with self._lock:
            if self.congested():
                self._owes_wake = True
            if self._batches and self._batches[0][0] is self._current[0]:
                self._count -= len(self._batches[0][0])
                self._bytes -= self._batches[0][1]
                self._batches.popleft()
            if self._batches:
                items = self._batches[0][0]
                self._current = items, iter(items)
            else:
                self._current = (), iter(())
                # Who bound a handler before this found that the drain was scheduled, and left it to that.
                self._scheduled = False
                if target._paid():  # after the line before, as a signal handler of this thread may bind, too
                    self._kept = None
                else:
                    self._scheduled = True
            more = self._scheduled
        if self._owes_wake and not self.congested():
            self._wake_engine()
            self._owes_wake = False  # only now: when Ctrl-C comes before this, the next one does it
        return more

    def _wake_engine(self) -> None:
        target = self._ref()
        if target is not None:
            target._engine.wake()

    def on_thread(self) -> bool:
        """Whether the caller runs on the thread that runs the handlers, as far as it is known."""
        if self._inside == threading.get_ident():
            return True
        if self._gone or getattr(self._dispatch, "gone", False) is True or self._loop_closed():
            return False  # no thread runs them any more
        loop = getattr(self._dispatch, "__self__", None)
        asyncio = sys.modules.get("asyncio")
        if loop is not None and asyncio is not None and asyncio._get_running_loop() is loop:
            return True
        known = getattr(self._dispatch, "thread_ident", None)
        return self._thread is _identity.token if known is None else known == threading.get_ident()

    def forget(self) -> None:
        """After a fork, in the child: what was handed over comes to nothing."""
        self._lock = threading.RLock()
        self._batches.clear()
        self._current = (), iter(())
        self._scheduled = True

    def raised(self, exc: BaseException) -> None:
        """Report what a handler let out, where the loop behind `dispatch` reports such things."""
        hook = getattr(self._dispatch, "report_exception", None)
        handler = getattr(getattr(self._dispatch, "__self__", None), "call_exception_handler", None)
        try:
            if hook is not None:
                hook(exc)
            elif handler is not None:
                handler({"message": "Exception in a bws event handler", "exception": exc})
            else:
                traceback: TracebackType | None = exc.__traceback__
                sys.excepthook(type(exc), exc, traceback)
        except Exception:
            log.exception("the exception hook raised")
