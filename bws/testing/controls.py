"""What a test does to the clients of an ``EchoServer``: to all, to those of one path, or to one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from ._checks import brief, check_number, check_text

if TYPE_CHECKING:
    from websockets.datastructures import Headers
    from websockets.http11 import Request

    from ._connection import Connection
    from ._ledger import Ledger
    from ._wire import Wire

__all__ = ["Client", "Controls", "Route"]

DEFAULT_TIMEOUT = 5.0  # s, for what a test waits for

_PLAIN = "%/:@!$&'()*+,;=[]|"  # besides letters and digits, what stands in a request as it is in the URL


class Controls(ABC):
    """What an ``EchoServer``, a ``Route`` and a ``Client`` can do.

    ``send``, ``send_raw``, ``close`` and ``drop`` act on the clients that are connected at that moment. When there is
    none they wait for the first one, since the constructor of a client returns before it is connected.

    ``stall`` and ``slow`` of a server, a route and a client do not undo each other: of what was asked for at the
    three, the strictest counts.
    """

    _ledger: Ledger
    _whom: str

    @abstractmethod
    def _running(self) -> Wire:
        """The wire; ``RuntimeError`` when the server is not running."""

    @abstractmethod
    def _has(self, connection: Connection) -> bool:
        """Whether that is one of the clients."""

    def _gone(self) -> bool:
        """Whether no client can be one of them any more; called with ``changed`` held."""
        return False

    @abstractmethod
    def _set_stalled(self, stalled: bool) -> None:
        """Note it; called with ``changed`` held, like the next one."""

    @abstractmethod
    def _set_rate(self, rate: float | None) -> None:
        """Note it."""

    def send(self, data: str | bytes, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Send a message to every client, text as text and bytes as binary; one that does not read blocks nothing.

        Args:
            data: The message.
            timeout: Seconds to wait for a client when none is connected; None for no limit.

        Raises:
            TimeoutError: No client is connected.
            RuntimeError: The server is not running.
            TypeError: It is no message.
            ValueError: It is a text with a lone surrogate.
        """
        if not isinstance(data, (str, bytes, bytearray, memoryview)):
            shown = brief(repr(data))
            raise TypeError(f"data must be str or bytes, not {shown}; for other values send json.dumps(value)")
        if isinstance(data, str):
            check_text("data", data)
        wire = self._running()
        wire.send(self._open_clients(timeout), data)

    def send_raw(self, data: bytes | bytearray | memoryview, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Send bytes as they are, so that a client can be tested with what breaks the protocol.

        They go to every client that is connected, and to those whose handshake is stalled: these get their answer so.

        Args:
            data: What to put on the wire, such as a reserved opcode, or half a frame.
            timeout: Seconds to wait for a client when none is connected; None for no limit.

        Raises:
            TimeoutError: No client is connected.
            RuntimeError: The server is not running.
            TypeError: It is something else.
        """
        from websockets.protocol import State

        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, not {data!r}")

        def listens(connection: Connection) -> bool:
            waits = connection.state is State.CONNECTING and not connection.flowing.is_set()
            return self._has(connection) and (waits or connection.state is State.OPEN)

        wire = self._running()
        wire.send_raw(self._clients(timeout, listens), bytes(data))

    def close(self, code: int | None = 1000, reason: str = "", timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Send a close frame to every client. The handshake goes on by itself, see ``EchoServer.next_close``.

        Args:
            code: The close code, or None for an empty close frame.
            reason: At most 123 bytes of UTF-8.
            timeout: Seconds to wait for a client when none is connected; None for no limit.

        Raises:
            ValueError: The code may not be in a close frame (1000-1003, 1007-1014 and 3000-4999 may), or the reason is
                too long.
            TimeoutError: No client is connected.
            RuntimeError: The server is not running.
        """
        from ._wire import check_close

        check_close(code, reason)
        wire = self._running()
        wire.close(self._open_clients(timeout), code, reason)

    def drop(self, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Cut every client off with a TCP reset, without a close frame; also those that still shake hands.

        Args:
            timeout: Seconds to wait for a client when none is connected; None for no limit.

        Raises:
            TimeoutError: No client is connected.
            RuntimeError: The server is not running.
        """
        wire = self._running()
        wire.drop(self._clients(timeout, self._has))

    def stall(self) -> None:
        """Stop reading and answering, pings and handshakes too, until ``resume``; connections stay.

        Later clients get their TCP (and TLS) connection but no answer. The other methods still work.

        Raises:
            RuntimeError: The server is not running.
        """
        wire = self._running()
        with self._ledger.changed:
            self._set_stalled(True)
        wire.obey()

    def resume(self) -> None:
        """End ``stall``: read what has come meanwhile, and answer.

        Raises:
            RuntimeError: The server is not running.
        """
        wire = self._running()
        with self._ledger.changed:
            self._set_stalled(False)
        wire.obey()

    def slow(self, bytes_per_s: float | None) -> None:
        """Read and write at most so many bytes a second from now on, of every connection; None for no limit.

        That is payload, frame heads and the answer to the handshake, before encryption and after compression: a
        server with ``compression=False`` is as slow as the length of a message says.

        Args:
            bytes_per_s: For each direction; they come in pieces, up to a hundred a second.

        Raises:
            ValueError: It is not a positive number.
            RuntimeError: The server is not running.
        """
        if bytes_per_s is not None:
            check_number("bytes_per_s", bytes_per_s, (int, float), "a positive number or None")
        wire = self._running()
        with self._ledger.changed:
            self._set_rate(bytes_per_s)
        wire.obey()

    def _open_clients(self, timeout: float | None) -> list[Connection]:
        from websockets.protocol import State

        def is_open(connection: Connection) -> bool:
            return connection.state is State.OPEN and self._has(connection)

        return self._clients(timeout, is_open)

    def _clients(self, timeout: float | None, choice: Callable[[Connection], bool]) -> list[Connection]:
        return self._ledger.clients(timeout, choice, self._whom, self._gone)


class Scope(Controls):
    """All clients, or those of one path; later ones too."""

    _path: str | None = None  # None is for all

    def refuse(
        self, status: int | None, headers: Mapping[str, str] | None = None, body: str = "", *, times: int | None = None
    ) -> None:
        """Answer handshakes from now on with an HTTP status instead; None accepts again.

        What is refused at a route counts before what is refused at the server.

        Args:
            status: An HTTP status from 200 to 599, such as 401, 302 or 503.
            headers: Headers to add, such as ``{"Location": "/elsewhere"}``.
            body: The text that goes with it.
            times: How many handshakes, to test a client that tries again; None for all.

        Raises:
            TypeError: A header's name or value is no str.
            ValueError: The status, or the number of times, is not one of those; or a header cannot be sent.
        """
        from ._wire import refusal

        if times is not None:
            check_number("times", times, int, "a positive number or None")
        response = None if status is None else refusal(status, headers or {}, body)
        with self._ledger.changed:
            rule = self._ledger.rules[self._path]
            rule.refusal, rule.refusals = response, times

    def _has(self, connection: Connection) -> bool:
        return True

    def _set_stalled(self, stalled: bool) -> None:
        self._ledger.rules[self._path].stalled = stalled

    def _set_rate(self, rate: float | None) -> None:
        self._ledger.rules[self._path].rate = rate


class Route(Scope):
    """The clients of one path of an ``EchoServer``, present and future ones; made by ``server.at("/path")``."""

    def __init__(self, server: Scope, path: str) -> None:
        check_text("path", path)
        if not path.startswith("/") or "?" in path or "#" in path:
            raise ValueError(f"path must start with a slash and have no query, not {path!r}")
        self._server = server
        self._ledger = server._ledger
        self._path: str = quote(path, safe=_PLAIN)
        self._whom = f"client of {path}"

    def __repr__(self) -> str:
        return f"<Route {self._path} of {self._server!r}>"

    def _running(self) -> Wire:
        return self._server._running()

    def _has(self, connection: Connection) -> bool:
        from ._ledger import path_of

        return connection.request is not None and path_of(connection.request) == self._path


class Client(Controls):
    """One client of an ``EchoServer``, from its handshake to its end; see ``server.next_client()``."""

    def __init__(self, server: Scope, connection: Connection) -> None:
        self._server = server
        self._ledger = server._ledger
        self._connection = connection
        self._whom = f"client of {self.path}"

    def __repr__(self) -> str:
        return f"<Client {self.path} {self._connection.state.name}>"

    @property
    def path(self) -> str:
        """Its request target, such as ``'/chat?room=1'``."""
        return self._request.path

    @property
    def headers(self) -> Headers:
        """Its request headers; names are case-insensitive."""
        return self._request.headers

    @property
    def messages(self) -> list[str | bytes]:
        """All messages received from it so far, in order."""
        with self._ledger.changed:
            return list(self._connection.messages)

    def next_message(self, timeout: float | None = DEFAULT_TIMEOUT) -> str | bytes:
        """Its first message that no earlier call has returned; ``server.next_message()`` returns it once more.

        Args:
            timeout: Seconds to wait for it; None for no limit.

        Raises:
            TimeoutError: None came in time.
        """
        mine = self._connection
        return self._ledger.next_of(mine.unread, timeout, f"message of the client of {self.path}", mine.messages)

    @property
    def _request(self) -> Request:
        request = self._connection.request
        assert request is not None  # it has shaken hands
        return request

    def _running(self) -> Wire:
        return self._server._running()

    def _has(self, connection: Connection) -> bool:
        return connection is self._connection

    def _gone(self) -> bool:
        from websockets.protocol import State

        return self._connection.state is State.CLOSED

    def _set_stalled(self, stalled: bool) -> None:
        self._connection.stalled_itself = stalled

    def _set_rate(self, rate: float | None) -> None:
        self._connection.own_rate = rate
