"""A real WebSocket server on a thread, for tests; it shares no code with the client.

``EchoServer`` is what tests see. Behind it, ``_wire`` runs the asyncio server of the ``websockets`` library.
"""

from __future__ import annotations

import importlib
import ssl
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    import trustme
    from websockets.datastructures import Headers
    from websockets.http11 import Request

    from ._wire import Wire

__all__ = ["EchoServer"]

DEFAULT_TIMEOUT = 5.0  # s, for what a test waits for
_REACHED_AT = {
    "": "127.0.0.1",
    # looked for here, not listened on
    "0.0.0.0": "127.0.0.1",  # nosec B104
    "::": "::1",
}  # every address, and one a client can use


class EchoServer:
    """A WebSocket server on this machine that sends every message back, and misbehaves when asked to.

    ::

        with EchoServer() as server:
            ws = bws.WebSocket(server.url)

    Entering the block starts it, on a thread of its own; leaving it stops it. ``start()`` and ``stop()`` do the same,
    and it may be started again. All methods may be called from any thread.

    ``send``, ``close`` and ``drop`` act on all clients that are connected at that moment. When there is none they
    wait for the first one, since the constructor of a client returns before it is connected.

    Args:
        host: The address to listen on.
        port: The TCP port; 0 takes a free one.
        tls: True serves ``wss://`` with a certificate of a throw-away authority, see ``ssl_context``. A server's
            ``ssl.SSLContext`` of your own is used as it is.
        tls_names: What the certificate is made out for. Leave the host out to test that a client minds.
        subprotocols: The subprotocols it speaks, best first: it picks the first one that the client offers, or none.
        compression: Whether it agrees to permessage-deflate.
        echo: False only listens: no message is sent but what ``send`` sends.
        keep_messages: False keeps neither ``messages`` nor ``closes``, for a server that runs for long.

    Raises:
        ImportError: ``websockets`` (or, with ``tls=True``, ``trustme``) is not installed.
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
        from ._wire import Behaviour, Ledger

        if isinstance(subprotocols, str):
            raise TypeError(f"subprotocols must be a sequence of str, not {subprotocols!r}")
        self._host = host
        self._wanted_port = port
        self._ca: trustme.CA | None = None
        context = tls if isinstance(tls, ssl.SSLContext) else self._make_certificate(tls_names) if tls else None
        self._behaviour = Behaviour(context, tuple(subprotocols), compression, echo, keep_messages)
        self._ledger = Ledger()
        self._lifecycle = threading.Lock()  # guards start and stop; nothing else takes it
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
            OSError: The address cannot be listened on.
        """
        from ._wire import Wire

        with self._lifecycle:
            if self._wire is not None:
                raise RuntimeError(f"{self!r} is running already")
            wire = Wire(self._host, self._wanted_port, self._behaviour, self._ledger)
            wire.start()
            self._port, self._wire = wire.port, wire
        return self

    def stop(self) -> None:
        """Close all connections (code 1001) and stop; a client that does not answer within 0.2 s is cut off.

        Nothing happens when it is not running. What was received stays readable.
        """
        with self._lifecycle:
            if self._wire is not None:
                self._wire.stop()
                self._wire = None

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

    # --- what the clients said ---

    @property
    def messages(self) -> list[str | bytes]:
        """All messages received so far, of all connections, in order."""
        with self._ledger.changed:
            return list(self._ledger.messages)

    def next_message(self, timeout: float = DEFAULT_TIMEOUT) -> str | bytes:
        """The first message that no earlier call has returned.

        Args:
            timeout: Seconds to wait for it.

        Raises:
            TimeoutError: None came in time.
        """
        return self._ledger.next_of(self._ledger.unread, timeout, "message")

    @property
    def closes(self) -> list[tuple[int, str]]:
        """Code and reason that each client closed with, in order; ``(1006, '')`` when it sent no close frame."""
        with self._ledger.changed:
            return list(self._ledger.closes)

    def next_close(self, timeout: float = DEFAULT_TIMEOUT) -> tuple[int, str]:
        """The first of ``closes`` that no earlier call has returned.

        Args:
            timeout: Seconds to wait for it.

        Raises:
            TimeoutError: No connection ended in time.
        """
        return self._ledger.next_of(self._ledger.unread_closes, timeout, "end of a connection")

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
                raise RuntimeError("no client has connected yet")
            return self._ledger.request

    # --- what it does to the clients ---

    def send(self, data: str | bytes, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Send a message to every client, text as text and bytes as binary; one that does not read blocks nothing.

        Args:
            data: The message.
            timeout: Seconds to wait for a client when none is connected.

        Raises:
            TimeoutError: No client is connected.
            RuntimeError: The server is not running.
        """
        wire = self._running()
        wire.send(self._ledger.clients(timeout), data)

    def close(self, code: int | None = 1000, reason: str = "", timeout: float = DEFAULT_TIMEOUT) -> None:
        """Send a close frame to every client. The handshake goes on by itself, see ``next_close``.

        Args:
            code: The close code, or None for an empty close frame.
            reason: At most 123 bytes of UTF-8.
            timeout: Seconds to wait for a client when none is connected.

        Raises:
            ValueError: The code may not be in a close frame, or the reason is too long.
            TimeoutError: No client is connected.
            RuntimeError: The server is not running.
        """
        from ._wire import check_close

        check_close(code, reason)
        wire = self._running()
        wire.close(self._ledger.clients(timeout), code, reason)

    def drop(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Cut every client off with a TCP reset, without a close frame; also those that still shake hands.

        Args:
            timeout: Seconds to wait for a client when none is connected.

        Raises:
            TimeoutError: No client is connected.
            RuntimeError: The server is not running.
        """
        wire = self._running()
        wire.drop(self._ledger.clients(timeout, state=None))

    def stall(self) -> None:
        """Stop reading and answering, pings and handshakes too, until ``resume``; connections stay.

        Later clients get their TCP (and TLS) connection but no answer. ``send``, ``close`` and ``drop`` still work.

        Raises:
            RuntimeError: The server is not running.
        """
        self._running().stall()

    def resume(self) -> None:
        """End ``stall``: read what has come meanwhile, and answer.

        Raises:
            RuntimeError: The server is not running.
        """
        self._running().resume()

    def refuse(self, status: int | None, headers: Mapping[str, str] | None = None, body: str = "") -> None:
        """Answer all handshakes from now on with an HTTP status instead; None accepts again.

        Args:
            status: An HTTP status from 200 to 599, such as 401, 302 or 503.
            headers: Headers to add, such as ``{"Location": "/elsewhere"}``.
            body: The text that goes with it.

        Raises:
            ValueError: The status is not one of those.
        """
        from ._wire import refusal

        response = None if status is None else refusal(status, headers or {}, body)
        with self._ledger.changed:
            self._ledger.refusal = response


def _require(module: str, package: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'EchoServer needs {package}: pip install "bws[testing]" ({error})') from error
