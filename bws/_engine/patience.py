"""Waiting while a connection is made: every wait can be aborted and has an end, every failure says where it was."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from .._system import Poller, Waker, capped
from .handshake import HeadReader

__all__ = ["Aborted", "Patience", "explained", "read", "write"]

_T = TypeVar("_T")


class Aborted(ConnectionAbortedError):
    """close() was called before the connection was open."""

    def __init__(self) -> None:
        super().__init__("close() was called before the connection was open")


class Patience:
    """Waits for the network until something comes, the time is up, or the program gives up.

    Args:
        waker: Set by whoever wants the wait looked at again.
        given_up: Whether the program has given up.
        timeout: Seconds from now, or None.

    Attributes:
        stage: What is being waited for, for the time-out's message.
        peer: Who is at the other end of the connection, for messages.
        socks: The sockets in the making; a fork's child lets go of its copies.
    """

    def __init__(self, waker: Waker, given_up: Callable[[], bool], timeout: float | None) -> None:
        self.waker = waker
        self.stage = "starting"
        self.peer = "the server"
        self.socks: list[socket.socket] = []
        self._given_up = given_up
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout
        self._poller = Poller(waker)

    def left(self) -> float | None:
        """Seconds that are left, or None for no limit.

        Raises:
            Aborted: The program has given up.
            TimeoutError: Nothing is left.
        """
        if self._given_up():
            raise Aborted
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(
                f"the connection was not open within open_timeout={self._timeout:g} s; last: {self.stage}"
            )
        return left

    def limit(self) -> float | None:
        """Seconds for a single call that blocks, `capped`: a little more than are left, so that `wait` comes first."""
        return None if self._end is None else capped(self._end - time.monotonic()) + 1.0

    def over(self) -> bool:
        """Whether nothing is left, as `left` would raise."""
        return self._given_up() or (self._end is not None and time.monotonic() >= self._end)

    def wait(self, sock: socket.socket | None, read: bool = False, write: bool = False) -> None:
        """Wait until `sock` is ready, or (without one) until the waker is set.

        Raises:
            Aborted: The program has given up.
            TimeoutError: The time is up.
        """
        fd = -1 if sock is None else sock.fileno()
        while True:
            readable, writable, woken = self._poller.wait(fd, read, write, self.left())
            if woken:
                self.waker.clear()
                self.left()
            if readable or writable or (woken and sock is None):
                return

    def background(self, call: Callable[[], _T], discard: Callable[[_T], object] = lambda result: None) -> _T:
        r"""Run a call that cannot be interrupted on a thread of its own, and wait for it here.

        Raises:
            Aborted, TimeoutError: As `wait`; the thread ends when the call comes back, and `discard`\\ s its result.
        """
        lock = threading.Lock()  # guards `outcome` and `abandoned`
        outcome: list[Any] = []
        abandoned = False

        def run() -> None:
            try:
                entry: tuple[bool, Any] = (True, call())
            except BaseException as exc:
                entry = (False, exc)
            with lock:
                if not abandoned:
                    outcome.append(entry)
            if not outcome and entry[0]:
                discard(entry[1])
            self.waker.wake()

        threading.Thread(target=run, name=f"bws {self.stage}", daemon=True).start()
        try:
            while not outcome:
                self.wait(None)
        except BaseException:
            with lock:
                abandoned = True
            if outcome and outcome[0][0]:
                discard(outcome[0][1])
            raise
        done, result = outcome[0]
        if not done:
            raise result
        return result  # type: ignore[no-any-return]


# reason of an ssl.SSLError: what a user can do about it
_NOT_TLS = "what came is not TLS; does the server speak plain ws:?"
_TOO_OLD = "the server's TLS is too old: 1.2 or newer is needed"
_HINTS = {
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": _NOT_TLS,
    "RECORD_LAYER_FAILURE": _NOT_TLS,
    "UNSUPPORTED_PROTOCOL": _TOO_OLD,
    "TLSV1_ALERT_PROTOCOL_VERSION": _TOO_OLD,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server wants a client certificate; load_cert_chain() of ssl= adds one",
}


def explained(exc: OSError, what: str, hint: str = "") -> OSError:
    """An exception of the same class whose message also says to which host it happened, and what to do about it."""
    reason = exc.strerror if isinstance(exc.strerror, str) else str(exc) or type(exc).__name__
    hint = hint or _HINTS.get(getattr(exc, "reason", ""), "")
    message = f"{what}: {reason}" + (f" ({hint})" if hint else "")
    try:
        new = type(exc)(message) if exc.errno is None else type(exc)(exc.errno, message)
    except TypeError:  # a class with a constructor of its own
        new = OSError(message)
    for name in ("verify_code", "verify_message", "reason", "library"):
        if hasattr(exc, name):
            with contextlib.suppress(AttributeError):
                setattr(new, name, getattr(exc, name))
    new.__cause__ = exc
    return new


def read(sock: socket.socket, reader: HeadReader, patience: Patience) -> bytes:
    """What comes next.

    Raises:
        HandshakeError: The connection ended.
    """
    while True:
        try:
            data = sock.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            patience.wait(sock, read=True)
        except ssl.SSLWantWriteError:
            patience.wait(sock, write=True)
        except OSError as exc:
            raise explained(exc, f"{patience.peer}: the connection was lost during the opening handshake") from exc
        else:
            if not data:
                raise reader.eof()
            return data


def write(sock: socket.socket, data: bytes, patience: Patience) -> None:
    """Send all of `data`, unless the peer does not listen any more: its answer, if there is one, says why."""
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            patience.wait(sock, write=True)
        except ssl.SSLWantReadError:
            patience.wait(sock, read=True)
        except (BrokenPipeError, ConnectionResetError, ConnectionAbortedError, ssl.SSLEOFError):
            return
        except OSError as exc:
            raise explained(exc, f"{patience.peer}: the connection was lost during the opening handshake") from exc
