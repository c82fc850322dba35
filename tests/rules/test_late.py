"""A program that binds, waits and ends loses nothing, however quickly the connection was over."""

from __future__ import annotations

import threading

import bws
from tests.wire.frames import TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

TIMEOUT = 20.0


def test_wait_closed_waits_for_handlers_that_were_bound_after_the_end() -> None:
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "hello") + close_frame(1000, "done"))) as server:
        for _ in range(50):
            ws = bws.WebSocket(server.url)
            assert ws.wait_closed(TIMEOUT)
            got: list[str] = []

            def slow(evt: bws.DOMEvent, got: list[str] = got) -> None:
                threading.Event().wait(0.002)  # a handler that takes its time
                got.append(evt.type)

            for name in ("open", "message", "close"):
                ws.bind(name, slow)
            assert ws.wait_closed(TIMEOUT)
            assert got == ["open", "message", "close"]


def test_wait_open_waits_for_a_handler_that_was_bound_after_open() -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.behave()

    with ScriptedServer(script) as server:
        for _ in range(50):
            ws = bws.WebSocket(server.url)
            assert ws.wait_open(TIMEOUT)
            got: list[str] = []
            ws.bind("open", lambda evt, got=got: got.append(evt.type))
            assert ws.wait_open(TIMEOUT)
            assert got == ["open"]
            ws.close()
            assert ws.wait_closed(TIMEOUT)
