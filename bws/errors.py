"""The exceptions of bws.

::

    DOMException                 name, message: the browser's own
    ├── DOMSyntaxError           "SyntaxError"         (also a ValueError)
    ├── InvalidAccessError       "InvalidAccessError"  (also a ValueError)
    └── InvalidStateError        "InvalidStateError"   (also a RuntimeError)

    ConnectionError (Python's)   what ``event.error`` holds beside OSError, ssl.SSLError and TimeoutError
    ├── HandshakeError           the server's answer to the opening handshake was not acceptable
    ├── ProxyError               the proxy refused, or did not speak its protocol
    └── ProtocolError            the peer broke RFC 6455 or RFC 7692, or a limit; ``close_code`` went out
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "DOMException",
    "DOMSyntaxError",
    "HandshakeError",
    "InvalidAccessError",
    "InvalidStateError",
    "ProtocolError",
    "ProxyError",
]


class DOMException(Exception):
    """Base of the exceptions that the browser's ``WebSocket`` raises.

    Args:
        message: What was wrong, what was expected, and the fix.
        name: The browser's name of the exception; subclasses have one of their own.

    See https://webidl.spec.whatwg.org/#idl-DOMException.
    """

    _name: ClassVar[str] = "Error"

    def __init__(self, message: str = "", name: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.name = self._name if name is None else name


class DOMSyntaxError(DOMException, ValueError):
    """A URL, a subprotocol or a close reason is not acceptable (the browser's ``SyntaxError``)."""

    _name = "SyntaxError"


class InvalidAccessError(DOMException, ValueError):
    """A close code is neither 1000 nor in 3000-4999."""

    _name = "InvalidAccessError"


class _InvalidAccessTypeError(InvalidAccessError, TypeError):
    """A close code is no int at all: the browser's exception for it, and Python's."""


class InvalidStateError(DOMException, RuntimeError):
    """The call is not possible in this ``readyState``: ``send()`` before ``open``."""

    _name = "InvalidStateError"


class HandshakeError(ConnectionError):
    """The server's answer to the opening handshake was not acceptable (RFC 6455 section 4.1).

    Attributes:
        status: The HTTP status of the answer, or None when it was not HTTP.
        headers: The answer's header fields, as ``(name, value)`` pairs in wire order.
    """

    def __init__(self, message: str, status: int | None = None, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = tuple(headers)


class ProxyError(ConnectionError):
    """The proxy refused the connection or did not speak its protocol.

    Attributes:
        status: The proxy's HTTP status, or None.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ProtocolError(ConnectionError):
    """The peer broke the protocol or a limit; the connection was failed (RFC 6455 section 7.1.7).

    Attributes:
        close_code: The code of the close frame that told the peer (1002, 1007, 1009).
    """

    def __init__(self, message: str, close_code: int = 1002) -> None:
        super().__init__(message)
        self.close_code = close_code
