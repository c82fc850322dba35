"""One connection of an ``EchoServer``, as it is on the loop's thread: it can be slowed down and stalled.

Importing this module needs ``websockets``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

TICK = 0.01  # s between two pieces of a slow stream


class Faucet:
    """Bytes that are handed on in order, at most so many a second.

    Args:
        loop: Its loop; all calls are made on its thread.
        deliver: What takes them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._rate: float | None = None  # bytes per second
        self._waiting = bytearray()
        self._afterwards: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def empty(self) -> bool:
        return not self._waiting

    def set_rate(self, rate: float | None) -> None:
        self._rate = rate
        if rate is None:
            self._stop_timer()
            self._open()

    def give(self, data: bytes) -> None:
        if self._rate is None:
            self._deliver(data)
        else:
            self._waiting += data
            if self._timer is None:
                self._drip()

    def afterwards(self, action: Callable[[], None]) -> None:
        """Call that once all that has been given so far is delivered."""
        if self._timer is None:
            action()
        else:
            self._afterwards.append(action)

    def shut(self) -> None:
        """Nobody is there any more."""
        self._stop_timer()
        self._waiting.clear()
        self._afterwards.clear()

    def _drip(self) -> None:
        self._timer = None
        if self._rate is None or not self._waiting:
            self._open()
            return
        tick = max(TICK, 1 / self._rate)
        size = max(1, int(self._rate * tick))
        piece = bytes(self._waiting[:size])
        del self._waiting[:size]
        # Also after the last piece: the next one has to wait for its time.
        self._timer = self._loop.call_later(tick, self._drip)
        self._deliver(piece)

    def _open(self) -> None:
        if self._waiting:
            data = bytes(self._waiting)
            self._waiting.clear()
            self._deliver(data)
        actions, self._afterwards = self._afterwards, []
        for action in actions:
            action()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class SlowTransport:
    """A transport that writes through a ``Faucet``; all else is the transport's own."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.inner = transport
        self.faucet = Faucet(loop, self._pass_on)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def write(self, data: bytes) -> None:
        self.faucet.give(data)

    def write_eof(self) -> None:
        self.faucet.afterwards(self.inner.write_eof)

    def close(self) -> None:
        self.faucet.afterwards(self.inner.close)

    def _pass_on(self, data: bytes) -> None:
        if not self.inner.is_closing():
            self.inner.write(data)


class Connection(ServerConnection):
    """A connection that does what ``obey`` says.

    Attributes:
        flowing: Not set while it is stalled.
        messages: What the client has sent; guarded by the ledger's lock, like ``unread``.
        unread: Those that no ``Client.next_message()`` has returned.
        stalled_itself: What ``Client.stall`` says; guarded by the ledger's lock, like ``own_rate``.
        own_rate: What ``Client.slow`` says, bytes per second.
        era: When it was there, see ``Ledger.forget``; guarded likewise.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.messages: list[str | bytes] = []
        self.unread: deque[str | bytes] = deque()
        self.stalled_itself = False
        self.own_rate: float | None = None
        self.era = 0
        self._rate: float | None = None
        self._arriving = Faucet(self.loop, self._take)
        self._held = bytearray()  # what came while it is stalled
        self._paused_here = False  # the library pauses too, when messages pile up; reading on a bit is no harm

    def obey(self, stalled: bool, rate: float | None) -> None:
        """Be stalled or not, and as slow as that; on the loop's thread."""
        if rate != self._rate:
            self._rate = rate
            self._arriving.set_rate(rate)
            if not isinstance(self.transport, SlowTransport):
                self.transport = cast(asyncio.Transport, SlowTransport(self.transport, self.loop))
            cast(SlowTransport, self.transport).faucet.set_rate(rate)
        if stalled:
            self.flowing.clear()
        elif not self.flowing.is_set():
            self.flowing.set()
            held, self._held = bytes(self._held), bytearray()
            if held:
                super().data_received(held)
        self._read_on_or_not()

    def data_received(self, data: bytes) -> None:
        if self._rate is None and self.flowing.is_set():
            super().data_received(data)
        else:
            self._arriving.give(data)
            self._read_on_or_not()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arriving.shut()
        if isinstance(self.transport, SlowTransport):
            self.transport.faucet.shut()
        super().connection_lost(exc)

    def _take(self, data: bytes) -> None:
        if self._silent:
            self._held += data
        else:
            super().data_received(data)
        self._read_on_or_not()

    @property
    def _silent(self) -> bool:
        # A handshake is read all the same, so that the test sees it; it is not answered.
        return not self.flowing.is_set() and self.state is not State.CONNECTING

    def _read_on_or_not(self) -> None:
        if self._silent or not self._arriving.empty:
            self._paused_here = True
            self.transport.pause_reading()
        elif self._paused_here:
            self._paused_here = False
            self.transport.resume_reading()
