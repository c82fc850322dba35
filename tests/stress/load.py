"""Open thousands of sockets at the same time, talk on all, close all: ``python -m tests.stress.load [--sockets 5000]``.

It prints what each step took and what this process has then. A socket needs two descriptors and a thread.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator

import bws
from tests.stress.messages import Action, check_reply, request
from tests.stress.peer import Server, sample, server, settle

PATIENCE = 300.0  # s for each step; only what fails waits so long
SPARE = 100  # descriptors for everything else
troubles: list[str] = []


class Count:
    """Counts what happens on many threads, and tells when it is enough."""

    def __init__(self, enough: int) -> None:
        self._left, self._lock, self._done = enough, threading.Lock(), threading.Event()

    def one(self) -> None:
        with self._lock:
            self._left -= 1
            if not self._left:
                self._done.set()

    def wait(self, what: str) -> None:
        """Wait for all of them."""
        if not self._done.wait(PATIENCE):
            raise SystemExit(f"{self._left} sockets did not {what} within {PATIENCE:g} s")


class Many:
    """The sockets."""

    def __init__(self, peer: Server, count: int) -> None:
        self._peer, self._count = peer, count
        self._opened, self._replied, self._closed = Count(count), Count(2 * count), Count(count)
        self._sockets: list[bws.WebSocket] = []

    def open(self) -> None:
        for number in range(self._count):
            ws = bws.WebSocket(f"{self._peer.url}/{number}", open_timeout=PATIENCE, close_timeout=PATIENCE)
            ws.bind("open", self._opened.one)
            ws.bind("message", functools.partial(self._message, itertools.count()))
            ws.bind("error", lambda evt: troubles.append(repr(evt.error)))
            ws.bind("close", self._close)
            self._sockets.append(ws)
        self._opened.wait("open")

    def talk(self) -> None:
        """Send one message on each; each gets two."""
        for ws in self._sockets:
            ws.send(request(0, 0, Action.TEXT, 2, 100, b""))
        self._replied.wait("reply")

    def close(self) -> None:
        for ws in self._sockets:
            ws.close(1000, "bye")
        self._closed.wait("close")
        for number, ws in enumerate(self._sockets):
            assert ws.wait_closed(PATIENCE)
            seen = self._peer.ended(f"/{number}", PATIENCE)
            if seen != (1, 2, "ok"):
                troubles.append(f"the server saw {seen}")
        self._sockets.clear()
        settle()

    def _message(self, number: Iterator[int], evt: bws.MessageEvent) -> None:
        check_reply(evt.data, next(number))
        self._replied.one()

    def _close(self, evt: bws.CloseEvent) -> None:
        if (evt.code, evt.reason, evt.wasClean) != (1000, "bye", True):
            troubles.append(f"closed with {evt.code} {evt.reason!r} {evt.error!r}")
        self._closed.one()


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Print what a step took and what there is then."""
    start, used = time.perf_counter(), time.process_time()
    yield
    has = sample()
    print(
        f"{name:10} {time.perf_counter() - start:7.2f} s, {time.process_time() - used:7.2f} s of CPU; "
        f"{has.memory / 2**20:7.1f} MiB, {has.files:6,} descriptors, {has.threads:6,} threads",
        flush=True,
    )


def raise_limit(count: int) -> None:
    """Allow so many descriptors.

    Raises:
        SystemExit: The system does not.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise SystemExit(f"{count} descriptors are needed, and the hard limit is {hard}: see `ulimit -Hn`")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def load(count: int) -> None:
    """Do it."""
    raise_limit(2 * count + SPARE)
    with server() as peer:
        before = sample()
        many = Many(peer, count)
        steps: dict[str, Callable[[], None]] = {"open": many.open, "talk": many.talk, "close": many.close}
        for name, do in steps.items():
            with step(name):
                do()
        after = sample()
        if after.files > before.files or after.threads > before.threads:
            troubles.append(f"left behind: {before} became {after}")


def main() -> int:
    """Run it; 0 when nothing was wrong."""
    faulthandler.enable()
    faulthandler.dump_traceback_later(4 * PATIENCE, exit=True)
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0] + ".")
    arguments.add_argument("--sockets", type=int, default=5000, help="how many (5000)")
    count = arguments.parse_args().sockets
    load(count)
    print(f"{count} sockets:", "FAILED" if troubles else "passed", *troubles[:20], flush=True)
    return bool(troubles)


if __name__ == "__main__":
    sys.exit(main())
