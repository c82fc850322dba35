"""The project, through its public API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import bws

from . import base
from .base import Gate, Handler, Post, Stretch


class Client(base.Client):
    def __init__(self, target: base.Target) -> None:
        super().__init__(target)
        self.held: list[bws.WebSocket] = []
        self.closed = Gate()

    def connect(self, dispatch: Post | None = None) -> bws.WebSocket:
        return bws.WebSocket(
            self.target.url, ssl=self.target.ssl, compression=self.target.deflate, dispatch=dispatch, max_size=None
        )

    def echo(self, message: str | bytes, count: int) -> float:
        stretch, left = Stretch(), count
        ws = self.connect()

        def opened() -> None:
            stretch.begin()
            ws.send(message)

        def received(evt: bws.MessageEvent) -> None:
            nonlocal left
            left -= 1
            if left:
                ws.send(message)
            else:
                stretch.end()

        ws.bind("message", received)
        ws.bind("open", opened)
        return stretch.seconds()

    def receive(self, count: int) -> float:
        stretch, left = Stretch(), count
        ws = self.connect()

        def opened() -> None:
            stretch.begin()
            ws.send("go")

        def received(evt: bws.MessageEvent) -> None:
            nonlocal left
            _ = evt.data
            left -= 1
            if not left:
                stretch.end()

        ws.bind("message", received)
        ws.bind("open", opened)
        return stretch.seconds()

    def send(self, message: str | bytes, count: int) -> float:
        stretch, ws = Stretch(), self.connect()
        ws.bind("message", lambda: stretch.end())
        if not ws.wait_open(10):
            raise ConnectionError("not open")
        stretch.begin()
        for _ in range(count):
            ws.send(message)
        return stretch.seconds()

    def hand_over(self, connections: int, post: Post, begin: Callable[[], object], handler: Handler) -> None:
        def opened(ws: bws.WebSocket) -> None:
            begin()
            ws.send("go")

        def received(evt: bws.MessageEvent) -> None:
            handler(evt.data)

        for _ in range(connections):
            ws = self.connect(post)
            ws.bind("message", received)
            ws.bind("open", partial(opened, ws))
            self.held.append(ws)

    def open_all(self, count: int) -> None:
        opened = Gate()
        for _ in range(count):
            ws = self.connect()
            ws.bind("close", self.closed.one)
            ws.bind("open", opened.one)
            self.held.append(ws)
        opened.wait(count)

    def close_all(self) -> None:
        for ws in self.held:
            ws.close()
        self.closed.wait(len(self.held))
        self.held.clear()
