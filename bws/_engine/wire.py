"""Writing so that no signal handler can take the result away.

A write is an operator here, not a call. When a call has returned, Python looks for signals: a handler that raises, as
Ctrl-C does, would lose how many bytes are out, and the stream would be torn. CPython 3.10 to 3.14 looks in calls, at
the beginning of functions and in jumps; the operator of a class goes to a method of C without any of these.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = ["NOWHERE", "Stream", "TlsWire", "Wire", "refuse", "wire_of"]


class Wire(Protocol):
    """What an outbox writes to; non-blocking."""

    @property
    def gathers(self) -> bool:
        """Whether it takes several buffers at once."""

    def __lshift__(self, data: bytes | memoryview, /) -> int:
        """Write a buffer; how many bytes were taken."""

    def __matmul__(self, pieces: Sequence[bytes | memoryview], /) -> int:
        """Write several buffers, where it gathers; how many bytes were taken."""


def refuse(wire: Wire, pieces: Sequence[bytes | memoryview], /) -> int:
    raise TypeError(f"{wire!r} takes one buffer at a time")


class Stream(socket.socket):
    """A TCP socket that is a wire: C alone runs in its operators.

    Who replaces `socket.socket` or its methods after this was imported does not reach it.

    Attributes:
        paced: Whether the server is on this machine, and what it sends is spread over time; see `stop_pacing`.
    """

    __slots__ = ("paced",)
    paced: bool
    gathers = hasattr(socket.socket, "sendmsg")  # not on Windows
    __lshift__ = socket.socket.send
    __matmul__ = getattr(socket.socket, "sendmsg", refuse)


class TlsWire:
    """TLS as a wire. Python looks for signals inside its write, too, when something has been written already.

    Attributes:
        torn: Whether nobody can tell what the last write has written.
        told: What it raised, if that is TLS' own and no signal handler's.
    """

    __slots__ = ("_write", "told", "torn")
    gathers = False

    def __init__(self, sock: ssl.SSLSocket) -> None:
        # SSLSocket.send() is Python around this: an interruption in there would lose the result.
        self._write: Callable[[bytes | memoryview], int]
        self._write = getattr(getattr(sock, "_sslobj", None), "write", sock.send)
        self.torn = False
        self.told: OSError | None = None

    def __lshift__(self, data: bytes | memoryview, /) -> int:
        writing = map(self._write, (data,))
        self.torn = True
        try:
            # One instruction writes and unpacks the result.
            (taken,) = writing
        except OSError as exc:
            # What came through a frame of Python is a signal handler's, TimeoutError for example.
            if exc.__traceback__ is not None and exc.__traceback__.tb_next is None:
                self.torn, self.told = False, exc
            raise
        self.torn = False
        return taken

    __matmul__ = refuse


class _Nowhere:
    """The wire before there is one, and when there is none any more."""

    __slots__ = ()
    gathers = False

    def __lshift__(self, data: bytes | memoryview, /) -> int:
        raise ConnectionAbortedError("the connection is over")

    def __matmul__(self, pieces: Sequence[bytes | memoryview], /) -> int:
        raise ConnectionAbortedError("the connection is over")


NOWHERE = _Nowhere()


def wire_of(sock: socket.socket) -> Wire:
    """How to write to a connected socket."""
    if isinstance(sock, ssl.SSLSocket):
        return TlsWire(sock)
    assert isinstance(sock, Stream)
    return sock
