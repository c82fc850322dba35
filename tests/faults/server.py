"""The server behind the faults: the one of the `websockets` library, on a thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
from collections import defaultdict
from types import TracebackType

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.wire.frames import Data
from tests.wire.tls import contexts

PATIENCE = 15.0  # s for the thread to start and to end
GREETING = ("welcome", ("frag", "men", "ted ✓"))  # a message, and one of three fragments
BYE = (4001, "enough ✓")  # the server's close
QUIET = (
    4002,
    "",
)  # the same when nothing came for a time; shorter than anything else it sends, so that TLS hides no mistake

_log = logging.getLogger("tests.faults.server")
_log.addHandler(logging.NullHandler())
_log.propagate = False  # connections that break are what it is here for


class Server:
    """Greets, sends every message back, and closes after the text "end" if the path begins with ``/server``.

    Args:
        tls: Whether it speaks TLS.
        compression: Whether it agrees to permessage-deflate.
        host: Where it listens.
        idle: Seconds after which it ends a session in which nothing comes any more.
        patience: Seconds that it waits for the answer to its close frame.

    Attributes:
        got: The messages of each client, by path.
    """

    def __init__(
        self,
        *,
        tls: bool = False,
        compression: bool = True,
        host: str = "127.0.0.1",
        idle: float = 60.0,
        patience: float = 30.0,
    ) -> None:
        self.got: dict[str, list[Data]] = defaultdict(list)
        self.client_context: ssl.SSLContext | None = None
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context, self.client_context = contexts("127.0.0.1")
        self._compression = "deflate" if compression else None
        self._host = host
        self._idle = idle
        self._patience = patience
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="websockets server", daemon=True)
        self.address = (host, 0)

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server's thread did not end"

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())

    async def _serve(self) -> None:
        async with serve(
            self._handle,
            self._host,
            0,
            ssl=self._context,
            compression=self._compression,
            ping_interval=None,
            open_timeout=self._idle,
            close_timeout=self._patience,
            logger=_log,
            ssl_handshake_timeout=self._idle if self._context else None,
        ) as server:
            self.address = next(iter(server.sockets)).getsockname()[:2]
            self._ready.set()
            await self._stop.wait()

    async def _handle(self, client: ServerConnection) -> None:
        assert client.request is not None
        path = client.request.path
        if path.startswith("/quiet"):
            await client.wait_closed()
            return
        with contextlib.suppress(ConnectionClosed):
            if path.startswith("/news"):
                await self._tell(client)
                return
            try:
                await self._talk(client, path)
            except asyncio.TimeoutError:
                await client.close(*QUIET)

    async def _talk(self, client: ServerConnection, path: str) -> None:
        await client.send(GREETING[0])
        if path.startswith("/hasty"):
            await client.close(*BYE)
            return
        await client.send(GREETING[1])
        await client.ping(b"there?")
        while True:
            message = await asyncio.wait_for(client.recv(), self._idle)
            self.got[path].append(message)
            if message == "end" and path.startswith("/server"):
                await client.close(*BYE)
                return
            await client.send(message)

    async def _tell(self, client: ServerConnection) -> None:
        """Send something now and then, then close."""
        for number in range(30):
            await client.send(str(number))
            await asyncio.sleep(0.05)
        await client.close(*BYE)
