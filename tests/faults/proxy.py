"""A TCP proxy on loopback that does to a connection what networks do; it knows nothing of WebSocket.

Each connection has a `Link` with a port of its own, so that whoever connects there gets the faults meant for it::

    with FaultProxy(server_address) as proxy:
        link = proxy.link(down=Fault(at=140, act=RESET))
        ...                           # have a client connect to link.port
        proxy.serve(link)
        link.over.wait(TIMEOUT)
        link.down.passed              # the bytes that were passed on to the client

One thread serves all links: what it notes and what it does to a connection are one step.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType

PATIENCE = 15.0  # s for the proxy's own thread to end
QUEUE = 256 * 1024  # bytes that one direction holds; then the sender feels that nobody reads

RESET = "reset"  # both ends are reset
END = "TCP end"  # both ends get a FIN, as from a process that exits
HALF_CLOSE = "half-close"  # the receiver gets a FIN; the other direction goes on
BLACKHOLE = "blackhole"  # this direction falls silent
VANISH = "blackhole in both directions"
CORRUPT = "corrupt"  # one bit of the byte at this place is flipped
PAUSE = "pause"  # this direction is silent for a time


@dataclass(frozen=True)
class Fault:
    """What happens to one direction of a connection.

    Attributes:
        at: Bytes that are passed on before `act` happens; None: it never does.
        act: One of the constants above.
        bit: Which one CORRUPT flips, 0 to 7.
        pause: Seconds that PAUSE lasts.
        latency: Seconds that every byte is late.
        jitter: Seconds, at most, that come on top by chance; the order stays.
        rate: Bytes a second, or None for no limit; after each piece comes the time that it takes.
        piece: Bytes in one send() at most.
    """

    at: int | None = None
    act: str = ""
    bit: int = 0
    pause: float = 0.0
    latency: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    piece: int = 64 * 1024


NOTHING = Fault()


class Lane:
    """One direction of a link.

    Attributes:
        passed: What was passed on.
        ended: Whether the sender's FIN is in.
        silent: Whether all that comes is dropped.
        shut: Whether the receiver was given a FIN.
        full: Whether the receiver takes nothing now.
    """

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.passed = bytearray()
        self.ended = self.silent = self.shut = self.full = False
        self._taken = 0  # bytes that came
        self._waiting: deque[tuple[float, bytes]] = deque()  # with the time when they may go
        self._size = 0
        self._free = 0.0  # when the next send() may be
        self._pending = fault.at is not None and fault.act != CORRUPT

    @property
    def wants(self) -> bool:
        """Whether there is room for more."""
        return not self.ended and (self.silent or self._size < QUEUE)

    @property
    def due(self) -> float | None:
        """When there is something to pass on, in monotonic time."""
        return None if not self._waiting or self.full else max(self._waiting[0][0], self._free)

    @property
    def empty(self) -> bool:
        return not self._waiting

    def take(self, data: bytes) -> None:
        """Some bytes came; none at the sender's FIN."""
        if not data:
            self.ended = True
            return
        fault, at = self.fault, self.fault.at
        if at is not None and fault.act == CORRUPT and self._taken <= at < self._taken + len(data):
            damaged = bytearray(data)
            damaged[at - self._taken] ^= 1 << fault.bit
            data = bytes(damaged)
        self._taken += len(data)
        if not self.silent:
            late = fault.latency + (random.uniform(0, fault.jitter) if fault.jitter else 0.0)
            last = self._waiting[-1][0] if self._waiting else 0.0
            self._waiting.append((max(last, time.monotonic() + late), data))
            self._size += len(data)

    def give(self, drain: socket.socket) -> str:
        """Pass on what may go; the act that has to happen now, or ''."""
        self.full = False
        while True:
            room = sys.maxsize
            if self._pending and self.fault.at is not None:
                room = self.fault.at - len(self.passed)
                if room <= 0:
                    self._pending = False
                    if self.fault.act != PAUSE:
                        return self.fault.act
                    self._free = time.monotonic() + self.fault.pause
                    continue
            due = self.due
            if self.silent or due is None or due > time.monotonic():
                return ""
            when, data = self._waiting[0]
            try:
                sent = drain.send(data[: min(self.fault.piece, room)])
            except BlockingIOError:
                self.full = True
                return ""
            self.passed += data[:sent]
            self._size -= sent
            if sent == len(data):
                self._waiting.popleft()
            else:
                self._waiting[0] = (when, data[sent:])
            if self.fault.rate is not None:
                self._free = time.monotonic() + sent / self.fault.rate

    def hush(self) -> None:
        """From now on all is dropped."""
        self.silent, self.full = True, False
        self._waiting.clear()
        self._size = 0


class Link:
    """One connection through the proxy, before, while and after it is there.

    Attributes:
        port: Where the client connects to.
        up: From the client to the server.
        down: From the server to the client.
        over: Set when both ends are closed.
    """

    def __init__(self, target: tuple[str, int], up: Fault, down: Fault, receive_buffer: int | None) -> None:
        self._target = target
        self.up, self.down = Lane(up), Lane(down)
        self.over = threading.Event()
        self.listener = socket.socket()
        if receive_buffer is not None:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1)
        self.port: int = self.listener.getsockname()[1]
        self.client: socket.socket | None = None
        self.server: socket.socket | None = None
        self.hushed: tuple[Lane, ...] = ()  # set by `FaultProxy.silence`

    # -- on the proxy's thread

    def accept(self) -> None:
        """The client is there."""
        self.client, _ = self.listener.accept()
        self.listener.close()
        self.server = socket.create_connection(self._target, PATIENCE)
        for sock in (self.client, self.server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def work(self) -> None:
        """Take what is there and pass it on."""
        client, server = self.client, self.server
        if client is None or server is None:
            return
        for lane in self.hushed:
            lane.hush()
        for lane, back, source, drain in (
            (self.up, self.down, client, server),
            (self.down, self.up, server, client),
        ):
            try:
                self._move(lane, source, drain)
            except OSError:
                # An end was reset: so is the other, unless nothing passes from there any more.
                if not (lane.silent or back.silent):
                    self._reset()
                elif lane.silent:
                    lane.ended = True
                else:
                    lane.hush()
            if self.over.is_set():
                return
        left = self.up.ended and self.up.silent and not self.up.shut  # nobody else tells the server
        if left or all(lane.ended and (lane.shut or lane.silent) for lane in (self.up, self.down)):
            self.close()

    def _move(self, lane: Lane, source: socket.socket, drain: socket.socket) -> None:
        if lane.wants:
            with contextlib.suppress(BlockingIOError):
                lane.take(source.recv(64 * 1024))
        self._act(lane, lane.give(drain), drain)
        if not self.over.is_set() and lane.ended and lane.empty and not lane.shut and not lane.silent:
            self._shut(lane, drain)

    def _act(self, lane: Lane, act: str, drain: socket.socket) -> None:
        assert self.client is not None
        assert self.server is not None
        if act == RESET:
            self._reset()
        elif act == END:
            for other, end in ((self.up, self.server), (self.down, self.client)):
                other.hush()
                self._shut(other, end)
        elif act == HALF_CLOSE:
            lane.hush()
            self._shut(lane, drain)
        elif act:
            for other in (self.up, self.down) if act == VANISH else (lane,):
                other.hush()

    @staticmethod
    def _shut(lane: Lane, drain: socket.socket) -> None:
        if not lane.shut:
            lane.shut = True
            drain.shutdown(socket.SHUT_WR)

    def _reset(self) -> None:
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        for sock in (self.client, self.server):
            assert sock is not None
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()

    def close(self) -> None:
        """Close whatever is open."""
        for sock in (self.listener, self.client, self.server):
            if sock is not None:
                sock.close()
        self.over.set()

    def interests(self) -> list[tuple[socket.socket, int]]:
        """What is to be polled for."""
        if self.client is None or self.server is None:
            return [(self.listener, selectors.EVENT_READ)]
        read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
        return [
            (self.client, (read if self.up.wants else 0) | (write if self.down.full else 0)),
            (self.server, (read if self.down.wants else 0) | (write if self.up.full else 0)),
        ]


class FaultProxy:
    """The proxy, on a thread of its own; `target`: where the server listens."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._fresh: deque[Link] = deque()
        self._links: list[Link] = []
        self._known: dict[socket.socket, int] = {}
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop = True
        self.wake()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the proxy's thread did not end"
        self._wake.close()
        self._woken.close()

    def link(self, up: Fault = NOTHING, down: Fault = NOTHING, receive_buffer: int | None = None) -> Link:
        """A port for one connection, which waits for `serve`.

        Args:
            up: What happens to what the client sends.
            down: What happens to what the server sends.
            receive_buffer: Bytes; makes the proxy's end of the client's connection small.
        """
        return Link(self._target, up, down, receive_buffer)

    def serve(self, link: Link) -> None:
        """Accept the client of this link; until then the operating system does."""
        self._fresh.append(link)
        self.wake()

    def wake(self) -> None:
        """Have every link looked at."""
        self._wake.send(b"\0")

    def silence(self, link: Link, *lanes: Lane) -> None:
        """These directions fall silent, by default both."""
        link.hushed = lanes or (link.up, link.down)
        self.wake()

    def _run(self) -> None:
        while not self._stop:
            now = time.monotonic()
            dues = [due for link in self._links for due in (link.up.due, link.down.due) if due is not None]
            ready = self._selector.select(max(0.0, min(dues) - now) if dues else None)
            links = {key.data for key, _ in ready}
            if None in links:
                links = set(self._links)
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
                while self._fresh:
                    self._links.append(self._fresh.popleft())
                    self._poll_for(self._links[-1])
            now = time.monotonic()
            late = {link for link in self._links if any((x.due or now + 1) <= now for x in (link.up, link.down))}
            for link in links | late:
                self._serve(link)
        for link in self._links:
            link.close()
        self._selector.close()

    def _serve(self, link: Link) -> None:
        socks = [link.listener, link.client, link.server]
        if link.client is None:
            try:
                link.listener.setblocking(False)
                link.accept()
            except BlockingIOError:
                return
        if not link.over.is_set():
            link.work()
        if link.over.is_set():
            for sock in socks:
                self._forget(sock)
            self._links.remove(link)
        else:
            self._forget(link.listener)
            self._poll_for(link)

    def _poll_for(self, link: Link) -> None:
        for sock, events in link.interests():
            known = self._known.get(sock, 0)
            if events and not known:
                self._selector.register(sock, events, link)
            elif known and not events:
                self._selector.unregister(sock)
            elif events != known:
                self._selector.modify(sock, events, link)
            self._known[sock] = events

    def _forget(self, sock: socket.socket | None) -> None:
        if sock is not None and self._known.pop(sock, 0):
            self._selector.unregister(sock)
