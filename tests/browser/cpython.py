"""The frame of the scenarios in CPython: `import bws as websocket`, with and without `dispatch=`."""

from __future__ import annotations

import contextlib
import functools
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import bws as websocket
from tests.browser import scenarios

PATIENCE = 20.0  # seconds; the scenarios have a shorter limit of their own


class Environment:
    """See scenarios.py.

    Args:
        refused: A URL where nobody listens.
        loop: Takes what is to be run on its thread, if handlers run there and not on the sockets' threads.
    """

    def __init__(self, refused: str, loop: queue.SimpleQueue[Callable[[], object]] | None) -> None:
        self.refused, self._loop = refused, loop
        self.WebSocket: Callable[..., websocket.WebSocket] = websocket.WebSocket
        if loop is not None:
            self.WebSocket = functools.partial(websocket.WebSocket, dispatch=loop.put)

    def later(self, ms: float, fn: Callable[[], object]) -> None:
        timer = threading.Timer(
            ms / 1000, fn if self._loop is None else self._loop.put, [] if self._loop is None else [fn]
        )
        timer.daemon = True
        timer.start()

    def shown(self, data: str | bytes, brief: Callable[[str], Any]) -> Any:
        if isinstance(data, str):
            return brief(data)
        return "bytes " + " ".join(map(str, data))

    def buffer(self, octets: list[int]) -> bytearray:
        return bytearray(octets)

    def name_of(self, exc: BaseException) -> str:
        return exc.name if isinstance(exc, websocket.DOMException) else type(exc).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What handlers raise on purpose is not printed."""

    def ignore(*_: object) -> None: ...

    hooks = threading.excepthook, sys.excepthook
    threading.excepthook = sys.excepthook = ignore
    try:
        yield
    finally:
        threading.excepthook, sys.excepthook = hooks


def run(name: str, base: str, refused: str, bound: Callable[[], object], dispatch: bool) -> Any:
    """The trace of one scenario; `bound` is called when its program has returned."""
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    loop: queue.SimpleQueue[Callable[[], object]] | None = queue.SimpleQueue() if dispatch else None
    with _quiet():
        scenarios.SCENARIOS[name](scenarios.Run(Environment(refused, loop), base, done.put))
        bound()
        while loop is not None and done.empty():
            try:
                loop.get(timeout=PATIENCE)()
            except ValueError as exc:
                if str(exc) != "on purpose":
                    raise
        return done.get(timeout=PATIENCE)
