"""The threaded client of websockets, reading in a straight line; with a thread of the program's where one is needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from time import perf_counter as now

os.environ.setdefault("WEBSOCKETS_MAX_FRAGMENTS", "1000000")  # no limit, as with the others; read when it is imported

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from ..limits import WAIT
from . import base
from .base import Handler, Post


class Client(base.Client):
    def __init__(self, target: base.Target) -> None:
        super().__init__(target)
        self.held: list[tuple[ClientConnection, threading.Thread]] = []

    def connect(self) -> ClientConnection:
        # as with the others: no limit, and no pings of its own
        return connect(
            self.target.url,
            ssl=self.target.ssl,
            compression="deflate" if self.target.deflate else None,
            max_size=None,
            ping_interval=None,
        )

    def echo(self, message: str | bytes, count: int) -> float:
        ws = self.connect()
        begin = now()
        for _ in range(count):
            ws.send(message)
            ws.recv()
        return now() - begin

    def receive(self, count: int) -> float:
        ws = self.connect()
        begin = now()
        ws.send("go")
        for _ in range(count):
            ws.recv()
        return now() - begin

    def send(self, message: str | bytes, count: int) -> float:
        ws = self.connect()
        begin = now()
        for _ in range(count):
            ws.send(message)
        ws.recv()
        return now() - begin

    def hand_over(self, connections: int, post: Post, begin: Callable[[], object], handler: Handler) -> None:
        def read() -> None:
            ws = self.connect()
            begin()
            ws.send("go")
            for message in ws:
                post(partial(handler, message))

        for _ in range(connections):
            threading.Thread(target=read, daemon=True).start()

    def open_all(self, count: int) -> None:
        def read(ws: ClientConnection) -> None:
            try:
                for _ in ws:
                    pass
            except ConnectionClosed:
                pass

        for _ in range(count):
            ws = self.connect()
            thread = threading.Thread(target=read, args=(ws,), daemon=True)
            thread.start()
            self.held.append((ws, thread))

    def close_all(self) -> None:
        # close() waits for the server's answer, so that a program with many closes them side by side
        closers = [threading.Thread(target=ws.close, daemon=True) for ws, _ in self.held]
        for closer in closers:
            closer.start()
        for thread in [*closers, *(thread for _, thread in self.held)]:
            thread.join(WAIT)
        self.held.clear()
