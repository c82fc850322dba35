"""For programs with a Tkinter window."""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._system import Waker
from ._pump import Adapter, Pump

if TYPE_CHECKING:
    import tkinter

__all__ = ["tk"]

POLL = (1.0, 16.0, 100.0)  # ms between two looks: when something has come, when nothing comes, when nobody is there
SELECTABLE = 1024  # FD_SETSIZE: Tcl waits with select(), and a descriptor from here on ends the process

_number = itertools.count(1)
_adapters: weakref.WeakKeyDictionary[tkinter.Misc, TkAdapter] = weakref.WeakKeyDictionary()
_pumps: weakref.WeakKeyDictionary[tkinter.Misc, TkPump] = weakref.WeakKeyDictionary()  # one an interpreter
_kept: list[TkPump] = []  # see TkPump.release


def tk(widget: tkinter.Misc) -> Adapter:
    """Have handlers run on the thread of a Tkinter window: they may do there what any callback of Tk may.

    ::

        ws = bws.WebSocket(url, dispatch=bws.dispatch.tk(root))

    When the widget is destroyed, delivery ends quietly and the socket is closed with code 1001. An exception in a
    handler goes to the root's ``report_callback_exception``. Events are delivered while Tk runs its loop, in
    ``mainloop``, ``update``, dialogs, but those of a socket not while a handler of its own has opened one: they come
    one at a time. A flood of them leaves time for timers and drawing.

    Args:
        widget: The window, or any widget in it, that the sockets belong to.

    Returns:
        What to give to ``dispatch=``; any number of sockets may share it.

    Raises:
        TypeError: `widget` is not a widget.
        RuntimeError: It was called on another thread than the one that made the root, or the widget is destroyed.
    """
    import tkinter

    if not isinstance(widget, tkinter.Misc) or not hasattr(widget, "_w"):
        raise TypeError(f"widget must be a Tkinter widget, such as the root window; not {type(widget).__name__}")
    try:
        # Tk itself answers another thread only when its loop runs, and late; this one looks at the thread first.
        widget.tk.createtimerhandler(0, _nothing).deletetimerhandler()
        if threading.current_thread() is threading.main_thread():
            for pump in [pump for pump in _kept if pump.closed and pump.idle()]:
                pump.release()
        adapter = _adapters.get(widget)
        if adapter is None or adapter.gone:
            adapter = _adapters[widget] = TkAdapter(widget)
    except RuntimeError as exc:
        raise RuntimeError(f"bws.dispatch.tk() must be called on the thread that made the Tk root ({exc})") from None
    except tkinter.TclError as exc:
        raise RuntimeError(f"the widget is destroyed ({exc})") from None
    return adapter


def _nothing() -> None: ...


class TkAdapter(Adapter):
    """Runs handlers for as long as a widget is there."""

    def __init__(self, widget: tkinter.Misc) -> None:
        root: tkinter.Tk = widget._root()  # type: ignore[attr-defined]  # what tkinter itself uses
        pump = _pumps.get(root)
        if pump is None or pump.closed:
            pump = _pumps[root] = TkPump(root)
        self._root = weakref.ref(root)
        super().__init__(pump, f"tk({widget})")
        _when_destroyed(widget, self.lose)

    def report_exception(self, exc: BaseException) -> None:
        root = self._root()
        if root is None:
            sys.excepthook(type(exc), exc, exc.__traceback__)
        else:
            root.report_callback_exception(type(exc), exc, exc.__traceback__)


def _when_destroyed(widget: tkinter.Misc, call: Any) -> None:
    """Have `call` called when the widget is destroyed, however that is done.

    A trace of its Tcl command is used, which is deleted with it: a binding of <Destroy> could be replaced by the
    program, and calls of `destroy` do not tell when the window manager closes the window.

    Raises:
        TclError: It is destroyed already.
    """
    interp = widget.tk
    name = f"bws_destroyed_{next(_number)}"

    def destroyed(*_: object) -> None:
        interp.deletecommand(name)
        call()

    interp.createcommand(name, destroyed)
    try:
        interp.call("trace", "add", "command", str(widget), "delete", name)
    except BaseException:
        interp.deletecommand(name)
        raise


class TkPump(Pump):
    """Wakes Tk through a descriptor that it waits for; where it cannot wait for one, it looks now and then."""

    def __init__(self, root: tkinter.Misc, *, polling: bool = False) -> None:
        super().__init__()
        import tkinter

        self.thread_ident = threading.get_ident()
        self._interp = root.tk
        self._timer: Any = None  # a reference keeps it
        self._pause = POLL[0]
        self._waker: Waker | None = None
        _when_destroyed(root, self.close)
        # The last reference to the window may be a socket's, in a handler, and be dropped on the network's thread. Tcl
        # aborts the process when its interpreter ends on another thread than its own: so it keeps itself alive.
        self._keeps_itself = f"bws_keep_{next(_number)}"
        self._interp.createcommand(self._keeps_itself, self._interp.quit)
        if threading.current_thread() is threading.main_thread():
            _kept.append(self)
        if polling or not hasattr(self._interp, "createfilehandler"):  # Windows
            self._poll()
            return
        waker = Waker()
        if waker.error is not None:
            raise waker.error
        if waker.fileno() >= SELECTABLE:
            waker.close()
            self._poll()
            return
        self._waker = waker
        self._interp.createfilehandler(waker.fileno(), tkinter.READABLE, self._readable)

    def _wake(self) -> None:
        # Tk is not called from other threads: `after` and `event_generate` may stall there, or never return.
        waker = self._waker  # the window may be closed at any moment
        if waker is not None:
            waker.wake()

    def _readable(self, *_: object) -> None:
        if self._waker is not None:
            self._waker.clear()
        self.woken()

    def _rest(self, seconds: float) -> None:
        # Tk draws when nothing else is to be done, and a descriptor that is always ready would not let it.
        if self._waker is not None:
            self._call_in(seconds * 1000, self.rested)

    def _stop_rest(self) -> None:
        if self._waker is not None and self._timer is not None:
            self._timer.deletetimerhandler()

    def _poll(self) -> None:
        shortest, longest, unused = POLL
        if not self._calls:
            self._pause = unused if self.idle() else min(self._pause * 1.25, longest)
            self._call_in(self._pause, self._poll)
            return
        self._pause = shortest
        self._call_in(longest, self._poll)  # a handler may run a loop of its own: a dialog
        try:
            self.rested()
        finally:
            self._call_in(shortest, self._poll)

    def _call_in(self, milliseconds: float, call: Callable[[], object]) -> None:
        """Set the timer anew."""
        if self._timer is not None:
            self._timer.deletetimerhandler()
        if not self.closed:
            self._timer = self._interp.createtimerhandler(int(milliseconds), call)

    def release(self) -> None:
        """Let the interpreter end with its last reference; on its thread, when no socket is left that has one."""
        _kept.remove(self)
        self._interp.deletecommand(self._keeps_itself)

    def close(self) -> None:
        waker, self._waker = self._waker, None
        if waker is not None:
            self._interp.deletefilehandler(waker.fileno())
            waker.close()
        if self._timer is not None:
            self._timer.deletetimerhandler()
        super().close()
