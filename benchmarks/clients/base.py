"""What every client can be asked for. All times are in seconds."""

from __future__ import annotations

import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter as now

from ..limits import WAIT

Post = Callable[[Callable[[], object]], object]  # has a callable run on another thread
Handler = Callable[[str | bytes], object]


@dataclass(frozen=True)
class Target:
    """Where to connect, and how."""

    url: str
    ssl: ssl.SSLContext | None = None
    deflate: bool = False


class Stretch:
    """A time that begins on one thread and ends on any."""

    def __init__(self) -> None:
        self._begin = self._end = 0.0
        self._over = threading.Event()

    def begin(self) -> None:
        self._begin = now()

    def end(self) -> None:
        self._end = now()
        self._over.set()

    def seconds(self) -> float:
        """Wait for the end."""
        if not self._over.wait(WAIT):
            raise TimeoutError(f"not done within {WAIT:g} s")
        return self._end - self._begin


class Gate:
    """Waits until something has happened a number of times, on any threads."""

    def __init__(self) -> None:
        self._passed = threading.Semaphore(0)

    def one(self, *_: object) -> None:
        self._passed.release()

    def wait(self, count: int) -> None:
        for done in range(count):
            if not self._passed.acquire(timeout=WAIT):
                raise TimeoutError(f"only {done} of {count} within {WAIT:g} s")


class Client(ABC):
    """A client under measurement, connected to one target."""

    def __init__(self, target: Target) -> None:
        self.target = target

    @abstractmethod
    def echo(self, message: str | bytes, count: int) -> float:
        """Send a message, wait for its echo, and so on."""

    @abstractmethod
    def receive(self, count: int) -> float:
        """Take messages that are sent as fast as they are taken, from the word "go"."""

    @abstractmethod
    def send(self, message: str | bytes, count: int) -> float:
        """Send messages until the server says that it has them all."""

    def hand_over(self, connections: int, post: Post, begin: Callable[[], object], handler: Handler) -> None:
        """Open connections, say "go" on each and `begin`, and have `handler` called by `post` with what comes.

        Returns without waiting for anything.
        """
        raise NotImplementedError

    def open_all(self, count: int) -> None:
        """Open connections and keep them."""
        raise NotImplementedError

    def close_all(self) -> None:
        """Close them, until each has said so."""
        raise NotImplementedError

    def idle(self, seconds: float) -> None:
        """Let time pass, with nothing to do."""
        time.sleep(seconds)
