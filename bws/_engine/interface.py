"""The seam between the browser's object and the network: what is asked of an engine, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from .._state import Ending

__all__ = ["CloseFrame", "Ending", "Engine", "Item", "Listener", "Opened", "Pong"]


class Opened(NamedTuple):
    """The opening handshake is done."""

    protocol: str
    extensions: str


class CloseFrame:
    """The peer's close frame is in, and no closing handshake had begun."""


class Pong(NamedTuple):
    """The answer to a ping of the program's."""

    callback: Callable[[float], object]
    seconds: float


# What an engine reports, in wire order. A message is its bare data: no object is made beside the event's.
Item = Any  # str | bytes | Opened | CloseFrame | Pong | Ending


class Listener(Protocol):
    """Whom an engine reports to; every method is called from the engine's own threads."""

    def deliver(self, items: Sequence[Item], size: int) -> None:
        """Take `items`, of `size` bytes in all, one batch after the other; may run handlers, and so may last."""

    def woken(self) -> None:
        """The engine's thread was woken by `Engine.wake`, and is not inside `deliver`."""

    def congested(self) -> bool:
        """Whether so much waits to be taken that nothing more should be read now."""

    def idle(self) -> bool:
        """Whether the handlers of all that was delivered have returned, as far as it is known."""


class Engine(Protocol):
    """One connection; every method may be called from any thread and returns without waiting for the network."""

    def start(self) -> None:
        """Begin to connect."""

    def give_up(self) -> None:
        """After a `start` that raised, or before it: leave nothing behind."""

    def send(self, opcode: int, payload: bytes | memoryview | str, /) -> bool:
        """Send one message; a str has ASCII only. False when it came too late and was dropped."""

    def ping(self, payload: bytes, callback: Callable[[float], object] | None) -> None:
        """Send a ping; its pong is reported if there is a callback."""

    def close(self, code: int | None, reason: bytes) -> None:
        """Begin the closing handshake behind what is queued."""

    def abort(self) -> None:
        """Give up: cut the connection, with a word to the peer if it is open already."""

    def buffered(self) -> int:
        """Payload bytes of messages that the operating system has not taken yet."""

    def flush(self, timeout: float | None) -> bool:
        """Wait until `buffered` is 0; False when the time is up or the connection over before."""

    def interrupted(self) -> bool:
        """Whether the caller is a signal handler that came where the engine waits for its own thread."""

    def wake(self) -> None:
        """Have `Listener.woken` called, and congestion looked at again."""

    def on_thread(self) -> bool:
        """Whether the caller runs on the engine's thread."""

    def join(self, timeout: float) -> bool:
        """Wait for the engine's thread to end."""

    def tidy(self, timeout: float) -> None:
        """Wait for the thread's last steps after the end was reported, unless the peer is waited for."""

    def forget(self) -> None:
        """After a fork, in the child: let go of everything without a word on the wire."""
