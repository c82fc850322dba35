"""A real WebSocket server on a thread, for tests; it shares no code with the client.

``EchoServer`` is what tests see. Behind it, ``_wire`` runs the asyncio server of the ``websockets`` library.
"""

from __future__ import annotations

import importlib
import ssl
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._checks import check_port, check_text, strings
from .controls import DEFAULT_TIMEOUT, Client, Route, Scope

if TYPE_CHECKING:
    from types import TracebackType

    import trustme
    from websockets.datastructures import Headers
    from websockets.http11 import Request

    from ._wire import Wire

__all__ = ["EchoServer"]

_REACHED_AT = {
    "": "127.0.0.1",
    # looked for here, not listened on
    "0.0.0.0": "127.0.0.1",  # nosec B104
    "::": "::1",
}  # every address, and one a client can use


class EchoServer(Scope):
    """A WebSocket server on this machine that sends every message back, and misbehaves when asked to.

    ::

        with EchoServer() as server:
            ws = bws.WebSocket(server.url)

    Entering the block starts it, on a thread of its own; leaving it stops it. ``start()`` and ``stop()`` do the same,
    and it may be started again. All methods may be called from any thread.

    Its controls act on all clients, those of ``at(path)`` on the clients of one path, and those of a ``Client``, which
    ``next_client()`` returns, on one. ``send``, ``send_raw``, ``close`` and ``drop`` are for the clients that are
    connected at that moment; when there is none they wait for the first one, since the constructor of a client returns
    before it is connected. ``stall``, ``slow`` and ``refuse`` are for later clients too.

    Args:
        host: The address to listen on.
        port: The TCP port; 0 takes a free one.
        tls: True serves ``wss://`` with a certificate of a throw-away authority, see ``ssl_context``. A server's
            ``ssl.SSLContext`` of your own is used as it is.
        tls_names: What the certificate is made out for. Leave the host out to test that a client minds.
        subprotocols: The subprotocols it speaks, best first: it picks the first one that the client offers, or none.
        compression: Whether it agrees to permessage-deflate.
        echo: False only listens: no message is sent but what ``send`` sends.
        keep_messages: False keeps neither ``messages`` nor ``closes``, nor clients for ``next_client``, for a server
            that runs for long.

    Raises:
        ImportError: ``websockets`` (or, with ``tls=True``, ``trustme``) is not installed.
        TypeError: An argument is of another type.
        ValueError: ``port`` is none.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        # TLS
        tls: bool | ssl.SSLContext = False,
        tls_names: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
        # WebSocket
        subprotocols: Sequence[str] = (),
        compression: bool = True,
        # behaviour
        echo: bool = True,
        keep_messages: bool = True,
    ) -> None:
        _require("websockets.asyncio.server", "websockets 14 or newer")
        from ._ledger import Ledger
        from ._wire import Behaviour

        check_text("host", host)
        check_port(port)
        if not isinstance(tls, (bool, ssl.SSLContext)):
            raise TypeError(f"tls must be True, False or an ssl.SSLContext, not {tls!r}")
        names, spoken = strings("tls_names", tls_names), strings("subprotocols", subprotocols)
        self._host = host
        self._wanted_port = port
        self._ca: trustme.CA | None = None
        context = tls if isinstance(tls, ssl.SSLContext) else self._make_certificate(names) if tls else None
        self._behaviour = Behaviour(context, spoken, compression, echo, keep_messages)
        self._whom = "client"
        self._ledger = Ledger()
        self._lifecycle = threading.Lock()  # held by start, stop and reset, first of all locks
        self._wire: Wire | None = None
        self._port: int | None = None

    def _make_certificate(self, names: Sequence[str]) -> ssl.SSLContext:
        _require("trustme", "trustme for tls=True")
        import trustme

        self._ca = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names).configure_cert(context)
        return context

    def __repr__(self) -> str:
        if self._port is None:
            return "<EchoServer not started>"
        with self._ledger.changed:
            connected = len(self._ledger.alive())
        return f"<EchoServer {self.url} {'stopped' if self._wire is None else f'{connected} connected'}>"

    # --- start and stop ---

    def start(self) -> EchoServer:
        """Start to listen; when it returns, clients can connect.

        Returns:
            The server itself.

        Raises:
            RuntimeError: It is running already.
            OSError: The address cannot be listened on; it names host and port.
        """
        from ._wire import Wire

        with self._lifecycle:
            if self._wire is not None:
                raise RuntimeError(f"{self!r} is running already")
            wire = Wire(self._host, self._wanted_port, self._behaviour, self._ledger)
            wire.start()
            self._port, self._wire = wire.port, wire
            self._ledger.set_running(True)
        return self

    def stop(self) -> None:
        """Close all connections (code 1001) and stop; a client that does not answer within 0.2 s is cut off.

        Nothing happens when it is not running. What was received stays readable, and ``stall`` is over.
        """
        with self._lifecycle:
            if self._wire is not None:
                self._ledger.set_running(False)
                self._wire.stop()
                self._wire = None
                with self._ledger.changed:
                    for rule in self._ledger.rules.values():
                        rule.stalled = False

    def reset(self) -> None:
        """Forget what the clients did, and end ``refuse``, ``stall`` and ``slow``: for a server that many tests share.

        Clients that are connected stay, and what they do from now on is noted. Of those that are closing nothing is,
        so that the end of one test is not told to the next.
        """
        with self._lifecycle:
            self._ledger.forget()
            if self._wire is not None:
                self._wire.obey()

    def __enter__(self) -> EchoServer:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> Wire:
        wire = self._wire
        if wire is None:
            raise RuntimeError(f"{self!r} is not running")
        return wire

    # --- where it is ---

    @property
    def port(self) -> int:
        """The TCP port it listens on, or listened on last.

        Raises:
            RuntimeError: It was never started.
        """
        if self._port is None:
            raise RuntimeError("the server has no port before it is started")
        return self._port

    @property
    def url(self) -> str:
        """Where to connect to: ``'ws://127.0.0.1:40123'``, or ``'wss://localhost:40123'``; without a path.

        Raises:
            RuntimeError: It was never started.
        """
        host = _REACHED_AT.get(self._host, self._host)
        if self._behaviour.ssl is not None and host == "127.0.0.1":
            host = "localhost"
        scheme = "ws" if self._behaviour.ssl is None else "wss"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """A new context for a client that trusts this server and nobody else.

        None without TLS, and with a ``tls`` context of your own: there you know what to trust.
        """
        return None if self._ca is None else ssl.create_default_context(cadata=self.ca_pem.decode())

    @property
    def ca_pem(self) -> bytes:
        """The certificate of the throw-away authority as PEM, for clients that read it from a file.

        Raises:
            RuntimeError: The server was not made with ``tls=True``.
        """
        if self._ca is None:
            raise RuntimeError("only EchoServer(tls=True) has a certificate authority")
        return self._ca.cert_pem.bytes()

    # --- who is there ---

    def at(self, path: str) -> Route:
        """The controls for the clients of one path, whatever their query is.

        Args:
            path: Such as ``'/chat'``; what a URL percent-encodes may be written either way.

        Raises:
            ValueError: It is no path.
        """
        return Route(self, path)

    @property
    def clients(self) -> list[Client]:
        """The clients that are connected now, in the order in which they came."""
        from websockets.protocol import State

        with self._ledger.changed:
            return [Client(self, c) for c in self._ledger.alive() if c.state is State.OPEN]

    def next_client(self, timeout: float | None = DEFAULT_TIMEOUT) -> Client:
        """The first client that no earlier call has returned; it may have gone since.

        Args:
            timeout: Seconds to wait for it; None for no limit.

        Raises:
            TimeoutError: None came in time.
        """
        return Client(self, self._ledger.next_of(self._ledger.unmet, timeout, "client", self._ledger.messages))

    # --- what the clients said ---

    @property
    def messages(self) -> list[str | bytes]:
        """All messages received so far, of all connections, in order."""
        with self._ledger.changed:
            return list(self._ledger.messages)

    def next_message(self, timeout: float | None = DEFAULT_TIMEOUT) -> str | bytes:
        """The first message that no earlier call has returned.

        Args:
            timeout: Seconds to wait for it; None for no limit.

        Raises:
            TimeoutError: None came in time.
        """
        return self._ledger.next_of(self._ledger.unread, timeout, "message", self._ledger.messages)

    @property
    def closes(self) -> list[tuple[int, str]]:
        """Code and reason that each client closed with, in order; ``(1006, '')`` when it sent no close frame."""
        with self._ledger.changed:
            return list(self._ledger.closes)

    def next_close(self, timeout: float | None = DEFAULT_TIMEOUT) -> tuple[int, str]:
        """The first of ``closes`` that no earlier call has returned.

        Args:
            timeout: Seconds to wait for it; None for no limit.

        Raises:
            TimeoutError: No connection ended in time.
        """
        ledger = self._ledger
        return ledger.next_of(ledger.unread_closes, timeout, "end of a connection", ledger.messages)

    @property
    def headers(self) -> Headers:
        """The request headers of the last client, refused ones too; names are case-insensitive.

        A header that was sent twice is read with ``headers.get_all(name)``.

        Raises:
            RuntimeError: Nobody has connected yet.
        """
        return self._last_request().headers

    @property
    def path(self) -> str:
        """The request target of the last client, such as ``'/chat?room=1'``.

        Raises:
            RuntimeError: Nobody has connected yet.
        """
        return self._last_request().path

    def _last_request(self) -> Request:
        with self._ledger.changed:
            if self._ledger.request is None:
                raise RuntimeError(self._ledger.nobody_has_connected())
            return self._ledger.request


def _require(module: str, package: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'EchoServer needs {package}: pip install "bws[testing]" ({error})') from error
