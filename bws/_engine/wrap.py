"""websocket-client's `WebSocketApp`, driven through its own extension points.

`WebSocketApp` keeps the lifecycle (opening handshake, open, close, teardown) on our thread. The *prepared socket* it
is given is a `Port`: what it writes and reads passes through bws, so that the request is ours (its own follows
redirects, joins a cookie jar of the whole process, and loses ``;x`` and ``?`` of a path) and the answer is read
strictly. The *dispatcher* owns the receive loop, and what the library would send after that is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol

import websocket

from .handshake import accept_value
from .patience import Patience

__all__ = ["Connection", "run"]


class Connection(Protocol):
    """What `run` needs of an engine; all is called on its thread."""

    def shake_hands(self, key: str, patience: Patience) -> None:
        """Send the request with this key, and read and check the answer."""

    def opened(self) -> None:
        """The opening handshake is done."""

    def receive(self) -> None:
        """Read and deliver until the connection is over."""

    def ended(self, error: BaseException | None) -> None:
        """The connection is over; `error`: what came out of connecting."""


class _Quiet(KeyboardInterrupt):
    """Ends `run_forever` by way of `on_error` and `on_close`.

    It logs every other exception as an error, which a failed connection is not: the program gets an event.
    """


class Port:
    """The prepared socket: `WebSocketApp` shakes hands with it."""

    _closed = False

    def __init__(self, connection: Connection, patience: Patience) -> None:
        self._connection = connection
        self._patience = patience
        self._key = ""
        self._answer: list[bytes] = []
        self.error: BaseException | None = None  # the library turns some exceptions into its own

    def send(self, data: bytes | str) -> int:
        """Take the request. Only its key is used."""
        text = data if isinstance(data, str) else bytes(data).decode("latin-1")
        for line in text.split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "sec-websocket-key":
                self._key = value
        return len(data)

    def recv(self, size: int) -> bytes:
        """Give the library an answer it accepts, once the server's own has been accepted."""
        if self._key:
            # What the server sent is not passed on: no redirect, no cookie reaches the library.
            try:
                self._connection.shake_hands(self._key, self._patience)
            except BaseException as exc:
                self.error = exc
                raise _Quiet from None
            lines = (
                "HTTP/1.1 101 Switching Protocols",
                "Upgrade: websocket",
                "Connection: Upgrade",
                f"Sec-WebSocket-Accept: {accept_value(self._key)}",
                "",
            )
            self._key = ""
            # The library asks for one byte at a time, and joins the pieces until one is a line feed. What a line is
            # before that may come at once: that spares 120 calls, and they are a tenth of the time of connecting.
            self._answer = [piece for line in reversed(lines) for piece in (b"\n", f"{line}\r".encode("ascii"))]
        return self._answer.pop() if self._answer else b""

    def gettimeout(self) -> None:
        """No time-out: the engine has its own."""

    def settimeout(self, seconds: float | None) -> None:
        """Not needed: see `gettimeout`."""

    def fileno(self) -> int:
        """There is nothing to poll here."""
        return -1

    def shutdown(self, how: int) -> None:
        """The engine ends TCP itself."""

    def close(self) -> None:
        """The engine closes the real socket itself."""


class Dispatcher:
    """`run_forever(dispatcher=...)`: what the library calls."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.app: Any = None

    def read(self, sock: object, callback: Callable[[], object]) -> None:
        """Own the receive loop; then have the app torn down in its own way, which calls `on_close`."""
        self._connection.receive()
        self.app.keep_running = False
        callback()

    def buffwrite(self, sock: Port, data: bytes | str, send: Callable[..., int], on_disconnect: object) -> None:
        """Drop it: after the handshake, this is the close frame of the app's teardown, and ours has gone out."""

    def signal(self, number: int, handler: object) -> None:
        """Signals are the program's own."""

    def abort(self) -> None:
        """See `signal`."""

    def timeout(self, seconds: float, callback: Callable[..., object], *args: object) -> None:
        """Timers are the engine's own."""


class App(websocket.WebSocketApp):
    """Notes one of the functions that `run_forever` makes, to be able to take them apart."""

    inner: object = None

    def create_dispatcher(self, *args: Any, **kwargs: Any) -> Any:
        """See `_untie`."""
        self.inner = next((arg for arg in (*args, *kwargs.values()) if isinstance(arg, FunctionType)), None)
        return super().create_dispatcher(*args, **kwargs)


def run(connection: Connection, patience: Patience) -> None:
    """Run one connection on this thread, from the request to its end."""
    errors: list[BaseException] = []
    inner: list[object] = []
    port = Port(connection, patience)
    dispatcher = Dispatcher(connection)

    def on_open(app: Any) -> None:
        inner.append(app.sock)
        try:
            connection.opened()
        except BaseException as exc:  # no memory, say; the library would go on
            port.error = exc
            raise _Quiet from None

    def on_error(app: Any, error: BaseException) -> None:
        inner.append(app.sock)
        errors.append(error)

    def on_close(app: Any, code: object, reason: object) -> None:
        connection.ended(port.error or next(iter(errors), None))

    app = dispatcher.app = App(
        "ws://bws/",  # parsed by the library and used for nothing: the request is written by the engine
        socket=port,  # type: ignore[arg-type] # it is used as one
        on_open=on_open,
        on_error=on_error,
        on_close=on_close,
    )
    try:
        # reconnect: a program that uses the library beside bws may have set another default
        app.run_forever(dispatcher=dispatcher, suppress_origin=True, reconnect=0)
    finally:
        _untie(app.inner)
        for owner in (app, dispatcher, port, *inner):
            if owner is not None:
                vars(owner).clear()
        errors.clear()


def _untie(function: object) -> None:
    """Take apart the functions that `run_forever` made: they refer to each other, and so to this connection.

    Otherwise each connection would stay in memory until the garbage collector comes by; the same goes for the
    library's objects, which `run` empties.
    """
    for cell in getattr(function, "__closure__", None) or ():
        try:
            value = cell.cell_contents
        except ValueError:
            continue  # it is empty already
        if isinstance(value, FunctionType):
            del cell.cell_contents
            _untie(value)
