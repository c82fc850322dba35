"""websocket-client's `WebSocketApp`, driven through its own extension points.

`WebSocketApp` keeps the lifecycle (connect, opening handshake, open, close) on our thread. The *prepared socket* it
is given is a `Port`: what it writes and reads passes through bws, so that the request is ours (its own follows
redirects, joins a cookie jar of the whole process, and loses ``;x`` and ``?`` of a path) and the answer is read
strictly. The *dispatcher* owns the receive loop, and what the library would send after that is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import websocket

from .handshake import Accepted, accept_value

__all__ = ["Connection", "run"]

log = logging.getLogger("bws")


class Connection(Protocol):
    """What `run` needs of an engine; all is called on its thread."""

    def shake_hands(self, key: str) -> Accepted:
        """Send the request with this key, and read and check the answer."""

    def opened(self) -> None:
        """The opening handshake is done."""

    def receive(self) -> None:
        """Read and deliver until the connection is over."""

    def ended(self, error: BaseException | None) -> None:
        """The connection is over; `error`: what came out of connecting."""


class Port:
    """The prepared socket: `WebSocketApp` shakes hands with it."""

    _closed = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._key = ""
        self._answer = b""

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
            self._connection.shake_hands(self._key)
            self._answer = (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept_value(self._key)}\r\n\r\n"
            ).encode("ascii")
            self._key = ""
        data, self._answer = self._answer[:size], self._answer[size:]
        return data

    def gettimeout(self) -> None:
        """No time-out: the engine has its own."""

    def settimeout(self, seconds: float | None) -> None:
        """Not needed: `gettimeout`."""

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


def run(connection: Connection) -> None:
    """Run one connection on this thread, from the request to its end."""
    errors: list[BaseException] = []
    dispatcher = Dispatcher(connection)
    app = dispatcher.app = websocket.WebSocketApp(
        "ws://bws/",  # parsed by the library and used for nothing: the request is written by the engine
        socket=Port(connection),  # type: ignore[arg-type] # it is used as one
        on_open=lambda app: connection.opened(),
        on_error=lambda app, error: errors.append(error),
        on_close=lambda app, code, reason: connection.ended(errors[0] if errors else None),
    )
    app.run_forever(dispatcher=dispatcher, suppress_origin=True)
