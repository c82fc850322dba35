"""Writing by operators: whatever a signal handler raises, it is known how much is out."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from bws._engine.outbox import Outbox
from bws._engine.wire import NOWHERE, Stream, wire_of
from bws._system import Lock, held_here
from tests.wire.frames import TEXT


class Sigio(Exception):
    """What the handler raises."""


class Armed:
    """A connection whose far end raises SIGIO in this process while a write to the near end is under way."""

    def __init__(self, near: Stream, far: socket.socket) -> None:
        self.near, self.far, self.raises, self.came = near, far, False, 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.raises:
            self.raises = False
            self.came += 1
            raise Sigio

    def call(self) -> None:
        """Python looks for signals where this begins."""

    def read(self) -> bytes:
        """All that is there."""
        got = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                got += self.far.recv(1 << 20)
        return got


@pytest.fixture
def armed() -> Iterator[Armed]:
    fcntl = pytest.importorskip("fcntl", reason="Windows raises no signal when a socket can be read")
    pair, far = socket.socketpair()
    with Stream(fileno=pair.detach()) as near, far:
        near.setblocking(False)
        it = Armed(near, far)
        before = signal.signal(signal.SIGIO, it.handle)
        fcntl.fcntl(far, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(far, fcntl.F_GETFL)
        fcntl.fcntl(far, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
        try:
            yield it
        finally:
            it.raises = False
            signal.signal(signal.SIGIO, before)


class Box:
    """Where a result is stored."""

    result = 0


@pytest.mark.parametrize("operator", ["<<", "@"])
def test_the_result_of_an_operator_is_stored_before_a_signal_handler_can_raise(armed: Armed, operator: str) -> None:
    near, box = armed.near, Box()
    for _ in range(2_000):
        box.result = 0
        pieces = b"ab", b"c"
        armed.raises = True
        try:
            if operator == "<<":
                box.result = near << b"abc"
            else:
                box.result = near @ pieces
            armed.call()
        except Sigio:
            pass
        assert (box.result, armed.read()) == (3, b"abc")
    assert armed.came == 2_000


def test_a_call_would_lose_it(armed: Armed) -> None:
    """So the test above can fail."""
    box = Box()
    armed.raises = True
    with pytest.raises(Sigio):
        box.result = armed.near.send(b"abc")
    assert (box.result, armed.read()) == (0, b"abc")


def test_a_lock_that_an_operator_takes_is_given_back_whatever_a_signal_handler_raises(armed: Armed) -> None:
    lock = Lock()
    for _ in range(2_000):
        armed.raises = True
        with contextlib.suppress(Sigio):
            armed.near << b"a"  # the signal comes, and Python has not looked yet
            -lock  # noqa: B018
            try:
                armed.call()
            finally:
                ~lock  # noqa: B018
        assert armed.read() == b"a"
        assert not held_here(lock)
    assert armed.came == 2_000


def test_a_call_would_leave_it_locked(armed: Armed) -> None:
    """So the test above can fail."""
    lock = Lock()

    def call() -> None:
        armed.raises = True
        armed.near << b"a"
        lock.acquire()
        try:
            armed.call()
        finally:
            lock.release()

    with pytest.raises(Sigio):
        call()
    assert held_here(lock)


@pytest.mark.parametrize("size", [5, 200, 30_000])
def test_no_message_is_torn_lost_or_doubled_by_real_signals(armed: Armed, size: int) -> None:
    box = Outbox()
    box.open(wire_of(armed.near), None)
    head = 6 if size < 126 else 8
    for number in range(1_000):
        armed.raises = True
        try:
            box.send(TEXT, f"{number:05}" + "x" * (size - 5))
            armed.call()
        except Sigio:
            pass
        assert len(armed.read()) == head + size
    assert armed.came == 1_000
    assert (box.pending(), box.failed) == (0, None)


@pytest.mark.parametrize("write", [lambda: NOWHERE << b"x", lambda: NOWHERE @ [b"x"]])
def test_nowhere_takes_nothing(write: Any) -> None:
    with pytest.raises(ConnectionAbortedError, match="the connection is over"):
        write()
