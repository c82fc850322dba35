"""websocket-client's WebSocketApp on a thread, as its documentation shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import websocket

from ..limits import WAIT
from . import base
from .base import Gate, Handler, Post, Stretch


class Client(base.Client):
    def __init__(self, target: base.Target) -> None:
        super().__init__(target)
        self.held: list[tuple[Any, threading.Thread]] = []

    def connect(self, **handlers: Callable[..., object]) -> tuple[Any, threading.Thread]:
        app: Any = websocket.WebSocketApp(self.target.url, **handlers)  # type: ignore[arg-type]
        options = {"context": self.target.ssl} if self.target.ssl else None
        thread = threading.Thread(target=partial(app.run_forever, sslopt=options), daemon=True)
        thread.start()
        return app, thread

    @staticmethod
    def sender(app: Any, message: str | bytes) -> Callable[[], object]:
        opcode = websocket.ABNF.OPCODE_TEXT if isinstance(message, str) else websocket.ABNF.OPCODE_BINARY
        return partial(app.send, message, opcode)

    def echo(self, message: str | bytes, count: int) -> float:
        stretch, left = Stretch(), count

        def opened(app: Any) -> None:
            stretch.begin()
            self.sender(app, message)()

        def received(app: Any, data: str | bytes) -> None:
            nonlocal left
            left -= 1
            if left:
                app.send(message)
            else:
                stretch.end()

        self.connect(on_open=opened, on_message=received)
        return stretch.seconds()

    def receive(self, count: int) -> float:
        stretch, left = Stretch(), count

        def opened(app: Any) -> None:
            stretch.begin()
            app.send("go")

        def received(app: Any, data: str | bytes) -> None:
            nonlocal left
            left -= 1
            if not left:
                stretch.end()

        self.connect(on_open=opened, on_message=received)
        return stretch.seconds()

    def send(self, message: str | bytes, count: int) -> float:
        stretch, opened = Stretch(), Gate()
        app, _ = self.connect(on_open=opened.one, on_message=lambda app, data: stretch.end())
        opened.wait(1)
        send = self.sender(app, message)
        stretch.begin()
        for _ in range(count):
            send()
        return stretch.seconds()

    def hand_over(self, connections: int, post: Post, begin: Callable[[], object], handler: Handler) -> None:
        def opened(app: Any) -> None:
            begin()
            app.send("go")

        def received(app: Any, data: str | bytes) -> None:
            post(partial(handler, data))

        for _ in range(connections):
            self.held.append(self.connect(on_open=opened, on_message=received))

    def open_all(self, count: int) -> None:
        opened = Gate()
        for _ in range(count):
            self.held.append(self.connect(on_open=opened.one, on_message=lambda app, data: None))
        opened.wait(count)

    def close_all(self) -> None:
        # close() blocks for up to three seconds, so that a program with many closes them side by side
        closers = [threading.Thread(target=app.close, daemon=True) for app, _ in self.held]
        for closer in closers:
            closer.start()
        for thread in [*closers, *(thread for _, thread in self.held)]:
            thread.join(WAIT)
        self.held.clear()
