"""picows: Cython on asyncio, callbacks on frames. Not a threaded client: everything runs on one event loop."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from time import perf_counter as now
from typing import Any

from ..limits import WAIT
from . import base
from .base import Handler, Post

# without its types, so that the project can be checked where it is not installed
picows: Any = importlib.import_module("picows")
TEXT, BINARY = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY


class Client(base.Client):
    def __init__(self, target: base.Target) -> None:
        super().__init__(target)
        self.loop = asyncio.new_event_loop()
        self.held: list[tuple[Any, Any]] = []

    async def connect(
        self, on_connected: Callable[[Any], object] | None, on_frame: Callable[[Any, Any], object]
    ) -> tuple[Any, Any]:
        class Listener(picows.WSListener):  # type: ignore[misc]
            def on_ws_connected(self, transport: Any) -> None:
                if on_connected:
                    on_connected(transport)

            def on_ws_frame(self, transport: Any, frame: Any) -> None:
                on_frame(transport, frame)

        pair: tuple[Any, Any] = await picows.ws_connect(Listener, self.target.url, ssl_context=self.target.ssl)
        return pair

    def run(self, on_connected: Callable[[Any], object], on_frame: Callable[[Any, Any], object]) -> float:
        """Seconds from the connection to the frame for which `on_frame` returns True."""
        begin, end = 0.0, self.loop.create_future()

        def connected(transport: Any) -> None:
            nonlocal begin
            begin = now()
            on_connected(transport)

        def taken(transport: Any, frame: Any) -> None:
            if on_frame(transport, frame):
                end.set_result(now())

        async def main() -> float:
            await self.connect(connected, taken)
            return float(await asyncio.wait_for(end, WAIT)) - begin

        return self.loop.run_until_complete(main())

    @staticmethod
    def data(frame: Any) -> str | bytes:
        """What the other clients hand to a program: an object of its own."""
        taken: str | bytes
        taken = frame.get_payload_as_utf8_text() if frame.msg_type == TEXT else frame.get_payload_as_bytes()
        return taken

    @staticmethod
    def sender(message: str | bytes) -> Callable[[Any], object]:
        if isinstance(message, str):
            return lambda transport: transport.send(TEXT, message.encode())
        return lambda transport: transport.send(BINARY, message)

    def echo(self, message: str | bytes, count: int) -> float:
        left, send = count, self.sender(message)

        def received(transport: Any, frame: Any) -> bool:
            nonlocal left
            self.data(frame)
            left -= 1
            if left:
                send(transport)
            return not left

        return self.run(send, received)

    def receive(self, count: int) -> float:
        left, data = count, self.data
        parts: list[str | bytes] = []

        def received(transport: Any, frame: Any) -> bool:
            nonlocal left
            part = data(frame)
            if not frame.fin:
                parts.append(part)  # picows leaves it to the program to put fragments together
                return False
            if parts:
                parts.append(part)
                b"".join(parts)  # type: ignore[arg-type] # the job with fragments has binary messages
                parts.clear()
            left -= 1
            return not left

        return self.run(self.sender("go"), received)

    def send(self, message: str | bytes, count: int) -> float:
        send = self.sender(message)

        def all_of_them(transport: Any) -> None:
            for _ in range(count):
                send(transport)

        return self.run(all_of_them, lambda transport, frame: True)

    def hand_over(self, connections: int, post: Post, begin: Callable[[], object], handler: Handler) -> None:
        # `post` puts something on the loop: once there, nothing has to be handed over
        def connected(transport: Any) -> None:
            begin()
            transport.send(TEXT, b"go")

        def received(transport: Any, frame: Any) -> None:
            handler(self.data(frame))

        def start() -> None:
            for _ in range(connections):
                self.held.append((asyncio.ensure_future(self.connect(connected, received)), None))

        post(start)

    def open_all(self, count: int) -> None:
        async def main() -> None:
            for _ in range(count):
                self.held.append(await self.connect(None, lambda transport, frame: None))

        self.loop.run_until_complete(main())

    def close_all(self) -> None:
        async def main() -> None:
            for transport, _ in self.held:
                transport.send_close(picows.WSCloseCode.OK)
            for transport, _ in self.held:
                await asyncio.wait_for(transport.wait_disconnected(), WAIT)

        self.loop.run_until_complete(main())
        self.held.clear()

    def idle(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
