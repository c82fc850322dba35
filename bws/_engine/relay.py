"""A thread that carries bytes between a TLS connection and a plain socket: for TLS in TLS.

Both ways to speak TLS here need a socket of the operating system under them. Behind an https: proxy there is a TLS
connection instead; what it decrypts goes through a socket pair.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import ssl
import threading
import weakref

from .._system import close_descriptor
from .wire import Stream

__all__ = ["relayed"]

PATIENCE = 1.0  # s in which TLS takes or says nothing, until it is looked whether anybody still waits for it
_CHUNK = 64 * 1024  # bytes
_TELLS = hasattr(select, "poll")  # Windows has nothing that tells
_relays: weakref.WeakSet[_Relay] = weakref.WeakSet()


def relayed(tls: socket.socket) -> Stream:
    """A non-blocking socket that speaks through `tls`, which is closed when either end is."""
    near, far = socket.socketpair()
    try:
        near = Stream(fileno=near.detach())
        near.paced = False
        near.setblocking(False)
        far.setblocking(False)
        relay = _Relay(tls, far)
        _relays.add(relay)
        threading.Thread(target=relay.run, name="bws relay", daemon=True).start()
    except BaseException:
        near.close()
        far.close()
        raise
    return near


class _Relay:
    """Both directions, on one thread: each has at most one chunk under way, so either end slows the other down."""

    def __init__(self, tls: socket.socket, plain: socket.socket) -> None:
        self.ends = (tls, plain)
        self._waiting: dict[socket.socket, memoryview] = {}  # what an end has not taken yet
        self._ended: set[socket.socket] = set()  # who has nothing more to say

    def run(self) -> None:
        """Carry until both have ended, or one is gone."""
        tls, plain = self.ends
        try:
            while len(self._ended) < 2:
                moved = [self._move(tls, plain), self._move(plain, tls)]
                if not any(moved):
                    self._wait()
        except (OSError, ValueError):
            pass  # an end is gone: so is the other one
        finally:
            tls.close()
            plain.close()

    def _move(self, source: socket.socket, drain: socket.socket) -> bool:
        """Carry one chunk in one direction; whether anything moved."""
        try:
            if not self._waiting.get(drain):
                if source in self._ended:
                    return False
                data = source.recv(_CHUNK)
                if not data:
                    self._end(source, drain)
                    return True
                self._waiting[drain] = memoryview(data)
            self._waiting[drain] = self._waiting[drain][drain.send(self._waiting[drain]) :]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True

    def _end(self, source: socket.socket, drain: socket.socket) -> None:
        self._ended.add(source)
        tls, plain = self.ends
        if source is tls:
            with contextlib.suppress(OSError):
                plain.shutdown(socket.SHUT_WR)
        elif _abandoned(plain) or not _TELLS:
            self._ended.add(tls)
        # Else the owner says nothing more, and still reads. TLS in Python has no half-closed connection to tell that.

    def _wait(self) -> None:
        tls, plain = self.ends
        with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
            for sock, other in ((tls, plain), (plain, tls)):
                events = selectors.EVENT_WRITE if self._waiting.get(sock) else 0
                if sock not in self._ended and not self._waiting.get(other):
                    events |= selectors.EVENT_READ
                if events:
                    selector.register(sock, events)
            # A peer that reads or says nothing must not keep this alive for a socket that was closed.
            alone = self._waiting.get(tls) or plain in self._ended
            if not selector.select(PATIENCE if alone else None) and _abandoned(plain):
                raise BrokenPipeError


def _abandoned(plain: socket.socket) -> bool:
    """Whether the other end was closed; reading would tell only when all that was written to it is read."""
    if not _TELLS:
        return False
    poll = select.poll()
    poll.register(plain, select.POLLOUT)  # macOS tells of hang-ups only to whoever asks for something
    return any(got & (select.POLLHUP | select.POLLERR) for _, got in poll.poll(0))


def _after_fork() -> None:
    """The child has no thread that carries; what it closes says nothing on the wire."""
    for relay in list(_relays):
        for sock in relay.ends:
            close_descriptor(sock)
    _relays.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
