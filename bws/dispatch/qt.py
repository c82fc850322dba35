"""For programs with a Qt window: PySide6, PyQt6 or PyQt5."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import weakref
from typing import Any

from .._system import Waker
from ._pump import Adapter, Pump

__all__ = ["qt"]

BINDINGS = ("PySide6", "PyQt6", "PyQt5")

_lock = threading.RLock()  # guards the dictionary; reentrant for the sake of signal handlers
# The last one of each binding, also when its application is gone: Qt objects should not die on any thread.
_pumps: dict[str, QtPump] = {}


def qt() -> Adapter:
    """Have handlers run on the GUI thread of Qt, for PySide6, PyQt6 or PyQt5, whichever the program has imported.

    ::

        app = QApplication(sys.argv)
        ws = bws.WebSocket(url, dispatch=bws.dispatch.qt())

    When the application quits, delivery ends quietly and the sockets are closed with code 1001. An exception in a
    handler goes to ``sys.excepthook``. Events are delivered while Qt runs an event loop, that of a dialog too, but
    those of a socket not while a handler of its own has opened one: they come one at a time. A flood of them leaves
    time for timers and painting.

    Returns:
        What to give to ``dispatch=``; any number of sockets may share it.

    Raises:
        RuntimeError: None of the three is imported, or there is no QApplication or QCoreApplication yet.
    """
    binding, QtCore, app = _application()
    with _lock:
        pump = _pumps.get(binding)
        if pump is None or pump.closed or pump.app() is not app:
            pump = _pumps[binding] = QtPump(QtCore, app)
    return QtAdapter(pump, f"qt() of {binding}")


def _application() -> tuple[str, Any, Any]:
    """Name, QtCore and application of the binding that the program uses."""
    imported = []
    for name in BINDINGS:
        module = sys.modules.get(f"{name}.QtCore")
        if module is not None:
            imported.append(name)
            app = module.QCoreApplication.instance()
            if app is not None:
                return name, module, app
    if imported:
        raise RuntimeError(f"bws.dispatch.qt() needs the QApplication ({imported[0]}), which must be made before")
    raise RuntimeError(f"bws.dispatch.qt() works with {', '.join(BINDINGS)}, none of which the program has imported")


class QtAdapter(Adapter):
    """Runs handlers on the GUI thread."""

    _pump: QtPump

    @property
    def thread_ident(self) -> int | None:
        """The GUI thread; known from the start, also when another thread made the adapter."""
        if self._pump.thread_ident is None and self._pump.lives_here():
            self._pump.thread_ident = threading.get_ident()
        return self._pump.thread_ident

    def report_exception(self, exc: BaseException) -> None:
        sys.excepthook(type(exc), exc, exc.__traceback__)


class QtPump(Pump):
    """Wakes Qt through a descriptor that it waits for.

    No other thread calls Qt for that: one that posts an event while the application or the receiver is being deleted
    would crash the process.
    """

    def __init__(self, QtCore: Any, app: Any) -> None:
        super().__init__()
        self.app = weakref.ref(app)  # it ends when the program lets go of it
        self.waker = Waker()
        if self.waker.error is not None:
            raise self.waker.error
        self._closing_down = QtCore.QCoreApplication.closingDown
        self._current_thread = QtCore.QThread.currentThread
        self._gui_thread = app.thread()
        self._bridge = _bridge_class(QtCore)(self, app)
        if self.lives_here():
            self.thread_ident = threading.get_ident()
            self._bridge.listen()
        else:
            self._bridge.moveToThread(self._gui_thread)
            queued = QtCore.Qt.ConnectionType.QueuedConnection
            QtCore.QMetaObject.invokeMethod(self._bridge, "listen", queued)

    def lives_here(self) -> bool:
        """Whether the caller runs on the GUI thread."""
        return bool(self._current_thread() == self._gui_thread)

    def close(self) -> None:
        super().close()
        if self.lives_here():
            with contextlib.suppress(RuntimeError):  # PySide6 may have deleted it already
                self._bridge.deafen()
        self.waker.close()

    def _wake(self) -> None:
        if self._closing_down():
            raise RuntimeError("the QApplication is gone")
        self.waker.wake()

    def _rest(self, seconds: float) -> None:
        self._bridge.timer.start(int(seconds * 1000))

    def _stop_rest(self) -> None:
        self._bridge.timer.stop()


@functools.cache
def _bridge_class(QtCore: Any) -> Any:
    """The class of the object that Qt calls."""
    slot = QtCore.Slot if hasattr(QtCore, "Slot") else QtCore.pyqtSlot

    class Bridge(QtCore.QObject):  # type: ignore[misc]
        def __init__(self, pump: QtPump, app: Any) -> None:
            super().__init__()  # without a parent: the pump may still use it when the application is gone
            self._pump = pump
            self._notifier: Any = None
            self.timer = QtCore.QTimer(self)
            self.timer.setSingleShot(True)
            self.timer.timeout.connect(self.rested)
            app.aboutToQuit.connect(self.gone)
            app.destroyed.connect(lambda *_: pump.close())  # at that moment no slot of a QObject is called any more

        @slot()  # type: ignore[untyped-decorator]
        def listen(self) -> None:
            if not self._pump.closed:
                reading = QtCore.QSocketNotifier.Type.Read
                self._notifier = QtCore.QSocketNotifier(self._pump.waker.fileno(), reading, self)
                self._notifier.activated.connect(self.readable)

        def deafen(self) -> None:
            """Wait no more for the descriptor, which is about to be closed."""
            if self._notifier is not None:
                self._notifier.setEnabled(False)

        @slot()  # type: ignore[untyped-decorator]
        def readable(self) -> None:
            self._pump.waker.clear()
            self._pump.woken()

        @slot()  # type: ignore[untyped-decorator]
        def rested(self) -> None:
            self._pump.rested()

        @slot()  # type: ignore[untyped-decorator]
        def gone(self) -> None:
            self._pump.close()

    return Bridge
