"""The server's side of the wire: an asyncio server of the ``websockets`` library on a thread of its own.

``Wire`` lives for one start and stop of an ``EchoServer``. Its coroutines run on the loop's thread; what the clients
said goes to a ``Ledger``, which tests read from theirs. Importing this module needs ``websockets``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from http.client import responses
from ssl import SSLContext
from typing import Any, TypeVar, cast

from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, ProtocolError
from websockets.frames import Close
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import Subprotocol

from ._checks import check_text
from ._connection import Connection
from ._ledger import Ledger

T = TypeVar("T")

GOODBYE = 0.2  # s that clients are given for the closing handshake when the server stops
CALL_TIMEOUT = 10.0  # s; what is asked of the loop never waits there, so this only turns a bug into an exception
BACKLOG = 1024  # connections that may wait for accept()

# Two 16-bit numbers on Windows, two ints elsewhere: lingering is on, for 0 seconds, so that closing resets.
_LINGER_0 = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)

# Whose values are no secrets, in a request or an answer.
_SHOWN = frozenset(
    [
        "host",
        "upgrade",
        "connection",
        "user-agent",
        "origin",
        "date",
        "server",
        "content-type",
        "content-length",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "sec-websocket-accept",
    ]
)


def without_secrets(record: logging.LogRecord) -> bool:
    """Take the values of other header fields out of what websockets logs: names and values, one field a record."""
    if isinstance(record.args, tuple) and len(record.args) == 2 and str(record.msg)[1:] == " %s: %s":
        name, _ = record.args
        if str(name).lower() not in _SHOWN:
            record.args = (name, "...")
    return True


_log = logging.getLogger("bws.testing")
_log.addFilter(without_secrets)
_log.addHandler(logging.NullHandler())  # else logging prints the errors of bad handshakes to stderr


@dataclass(frozen=True)
class Behaviour:
    """What an ``EchoServer`` was asked to be, as its constructor says."""

    ssl: SSLContext | None
    subprotocols: Sequence[str]
    compression: bool
    echo: bool
    keep_messages: bool


class Wire:
    """One listening socket and the thread with the loop that serves it.

    Args:
        host: The address to listen on.
        port: The TCP port, 0 for a free one.
        behaviour: The options.
        ledger: Where to write down what clients do.

    Raises:
        OSError: The address cannot be listened on.
    """

    def __init__(self, host: str, port: int, behaviour: Behaviour, ledger: Ledger) -> None:
        self._behaviour = behaviour
        self._ledger = ledger
        self._listener = Listener.bound_to(host, port)
        self.port: int = self._listener.getsockname()[1]
        # A selector loop on Windows too: closing its sockets can reset them.
        self._loop = asyncio.SelectorEventLoop()
        self._loop.set_exception_handler(_note_quietly)
        self._loop.set_debug(False)  # python -X dev would report slow callbacks on stderr
        self._calls = threading.Lock()  # guards the next one: what is asked of the loop is done before it is closed
        self._ended = False
        # These belong to the loop's thread.
        self._stop_asked = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()  # the loop itself has only weak references to tasks
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"EchoServer :{self.port}", daemon=True)

    def start(self) -> None:
        try:
            self._thread.start()
            self._started.result(CALL_TIMEOUT)
        except BaseException:  # Ctrl-C, or no thread: nothing is left behind
            if self._thread.ident is None:
                self._listener.close()
                self._loop.close()
            else:
                self.stop()
            raise

    def stop(self) -> None:
        with suppress(RuntimeError):  # Ctrl-C has interrupted an earlier stop(), and the loop is closed by now
            self._loop.call_soon_threadsafe(self._stop_asked.set)
        self._thread.join()

    def call(self, action: Callable[[], T]) -> T:
        """Run a function, one that does not wait, on the loop's thread; returns what it returns.

        Raises:
            RuntimeError: The server has been stopped meanwhile.
        """
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(action())
            except BaseException as error:
                done.set_exception(error)

        with self._calls:
            if self._ended:
                raise RuntimeError(f"the server on port {self.port} is not running any more")
            self._loop.call_soon_threadsafe(run)
        return done.result(CALL_TIMEOUT)

    # --- asked for by tests ---

    def send(self, clients: Sequence[Connection], data: str | bytes) -> None:
        self.call(lambda: broadcast(clients, data))

    def close(self, clients: Sequence[Connection], code: int | None, reason: str) -> None:
        def begin() -> None:
            for client in clients:
                # None, an empty frame, is not in the signature of close() but in that of send_close() behind it
                task = self._loop.create_task(client.close(cast(int, code), reason))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

        self.call(begin)

    def drop(self, clients: Sequence[Connection]) -> None:
        def reset() -> None:
            for client in clients:
                with suppress(OSError):  # the client was faster
                    client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
                client.transport.abort()

        self.call(reset)

    def send_raw(self, clients: Sequence[Connection], data: bytes) -> None:
        def write() -> None:
            for client in clients:
                client.transport.write(data)

        self.call(write)

    def obey(self) -> None:
        """The rules have changed."""

        def tell_all() -> None:
            for connection in self._connections():
                connection.obey(*self._ledger.orders_for(connection))

        self.call(tell_all)

    # --- on the loop's thread ---

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._listener.close()
            if self._started.done():
                raise
            self._started.set_exception(error)
        finally:
            with self._calls:
                self._ended = True
            self._loop.run_until_complete(_cancel_all())  # and all that was asked for before that
            self._loop.close()

    async def _serve(self) -> None:
        behaviour = self._behaviour
        server = await serve(
            self._handle,
            sock=self._listener,
            backlog=BACKLOG,
            ssl=behaviour.ssl,
            select_subprotocol=self._select_subprotocol,
            compression="deflate" if behaviour.compression else None,
            process_request=self._handshake,
            create_connection=Connection,
            # A test server sends and ends nothing by itself, and takes everything.
            open_timeout=None,
            ping_interval=None,
            max_size=None,
            logger=_log,
        )
        self._started.set_result(None)
        await self._stop_asked.wait()
        await self._say_goodbye(server)

    async def _handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        assert isinstance(connection, Connection)
        refusal = self._ledger.arrived(connection, request)
        connection.obey(*self._ledger.orders_for(connection))
        await connection.flowing.wait()
        # A copy: websockets adds its own headers to it.
        return refusal and Response(refusal.status_code, refusal.reason_phrase, refusal.headers.copy(), refusal.body)

    def _select_subprotocol(self, connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        # Unlike websockets itself, without a common one the client is let in: it is to find out.
        return next((Subprotocol(known) for known in self._behaviour.subprotocols if known in offered), None)

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)
        keep = self._behaviour.keep_messages
        self._ledger.opened(connection, keep=keep)
        # What was asked for during the handshake counts from here for reading, too.
        connection.obey(*self._ledger.orders_for(connection))
        try:
            while True:
                await connection.flowing.wait()
                message = await connection.recv()
                if keep:
                    self._ledger.received(connection, message)
                await connection.flowing.wait()
                # While it is closing send() would wait for the end of TCP, which is not read behind unread messages.
                if self._behaviour.echo and connection.state is State.OPEN:
                    await connection.send(message)
        except ConnectionClosed:
            pass
        finally:
            self._ledger.ended(connection, keep=keep)

    def _connections(self) -> list[Connection]:
        with self._ledger.changed:
            return self._ledger.alive()

    async def _say_goodbye(self, server: Server) -> None:
        """Close everything: politely for ``GOODBYE`` seconds, then by force."""
        connections = self._connections()
        polite = [c for c in connections if c.flowing.is_set() and c.state in (State.OPEN, State.CLOSING)]
        self._cut_off(polite)
        for connection in connections:
            connection.flowing.set()  # the handlers of those that are cut off end
        # asyncio loses a connection that is accepted already while its transport is made after close()
        self._loop.remove_reader(self._listener)
        await asyncio.sleep(0)
        server.close()
        closed = asyncio.ensure_future(server.wait_closed())
        await asyncio.wait([closed], timeout=GOODBYE)
        self._cut_off([])
        deadline = self._loop.time() + GOODBYE
        while self._listener.open_connections() and self._loop.time() < deadline:
            await asyncio.sleep(0.001)
        await asyncio.wait([closed], timeout=GOODBYE)

    def _cut_off(self, spared: list[Connection]) -> None:
        """End all connections but those, also the ones that have not sent a request yet."""
        for connection in self._connections():
            if connection not in spared:
                connection.transport.abort()
        self._listener.shut_down({c.transport.get_extra_info("socket").fileno() for c in spared})


class Listener(socket.socket):
    """A listening socket that knows what it has accepted.

    asyncio cannot name the connections that are still in their TLS handshake, and they too have to end with the server.
    """

    def __init__(self, family: int) -> None:
        # Without the protocol asyncio leaves TCP_NODELAY off: a reply waits until the one before is acknowledged.
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._accepted: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    @classmethod
    def bound_to(cls, host: str, port: int) -> Listener:
        """One that listens there; ``OSError``, which names host and port, when it cannot."""
        try:
            return cls._bound_to(host, port)
        except OSError as error:
            error.strerror = f"cannot serve on {host!r} port {port}: {error.strerror}"
            raise

    @classmethod
    def _bound_to(cls, host: str, port: int) -> Listener:
        everywhere = "0.0.0.0"
        try:
            infos = socket.getaddrinfo(host or everywhere, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except UnicodeError as error:  # the codec for host names refuses it
            raise socket.gaierror(socket.EAI_NONAME, f"this is no host name: {error}") from None
        family, _, _, _, address = infos[0]
        listener = cls(family)
        try:
            # On Windows the same option would let two servers share a port.
            if sys.platform != "win32":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        self._accepted.add(connection)
        return connection, address

    def open_connections(self) -> list[socket.socket]:
        return [connection for connection in self._accepted if connection.fileno() != -1]

    def shut_down(self, spared: set[int]) -> None:
        """End the connections with other descriptors than those; asyncio then notices and closes them."""
        for connection in self.open_connections():
            if connection.fileno() not in spared:
                with suppress(OSError):  # the peer was faster
                    connection.shutdown(socket.SHUT_RDWR)


def refusal(status: int, headers: Mapping[str, str], body: str) -> Response:
    """An HTTP response instead of the handshake."""
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"status must be an HTTP status from 200 to 599, not {status!r}")
    check_text("body", body)
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping of names to values, not {headers!r}")
    content = body.encode()
    fields = Headers({"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(content))})
    fields["Connection"] = "close"
    for name, value in headers.items():
        _check_header(name, value)
        if name in fields:
            del fields[name]  # assigning adds a second one
        fields[name] = value
    return Response(status, responses.get(status, "Refused"), fields, content)


def _check_header(name: Any, value: Any) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"headers must be a mapping of str to str; {name!r}: {value!r} is not")
    if not re.fullmatch("[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError(f"{name!r} is no header name: letters, digits and !#$%&'*+.^_`|~- are allowed")
    if not re.fullmatch("[\t\x20-\x7e\x80-\xff]*", value):
        raise ValueError(f"headers[{name!r}] must be one line of Latin-1, not {value!r}")


def check_close(code: int | None, reason: str) -> None:
    """Raise ``ValueError`` for what cannot be in a close frame, ``TypeError`` for what is no code or reason at all."""
    check_text("reason", reason)
    if code is not None and (isinstance(code, bool) or not isinstance(code, int)):
        raise TypeError(f"code must be an int or None, not {code!r}")
    if code is None:
        if reason:
            raise ValueError("an empty close frame (code None) has no reason")
        return
    try:
        Close(code, reason).check()
    except ProtocolError as error:
        raise ValueError(
            f"code {code!r} may not be sent in a close frame; expected 1000-1003, 1007-1014 or 3000-4999, or None for "
            "an empty frame; drop() ends a connection without one"
        ) from error
    if len(reason.encode()) > 123:
        raise ValueError("reason is longer than 123 bytes of UTF-8")


def _note_quietly(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Asyncio's own handler prints to stderr what clients do wrong, such as a failed TLS handshake."""
    _log.debug("%s: %r", context.get("message"), context.get("exception"))


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {cast("asyncio.Task[Any]", asyncio.current_task())}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
