"""Do everything from many threads at once: ``python -m tests.stress.threads one|many [--seconds 60] [options]``.

*one*: 32 threads send on one socket, bind, unbind and read its state, and at the end all close it, at the same time.
*many*: 8 threads open, use and close 200 places for sockets at random, each socket by whichever thread comes by.
The interpreter switches threads as often as it can. What hangs is ended with a stack of every thread.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import bws
from bws.dispatch import Queue
from tests.stress.messages import Action, check_reply, request
from tests.stress.peer import TIMEOUT, Server, server, settle

SWITCH = 1e-6  # s: sys.setswitchinterval
SENDERS, CLOSERS, PLACES = 32, 8, 200
WINDOW = 2_000  # replies that may be on their way: what the server has to hold
TYPES = ("open", "message", "error", "close")

troubles: list[str] = []


def trouble(what: str) -> None:
    troubles.append(what)


class Watched:
    """A socket whose every event is counted and checked."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.received = 0
        self.senders = itertools.count()
        self.seen: list[str] = []  # types of events but message
        self.end: tuple[int, str, bool] | None = None
        self._inside = threading.Lock()
        self.ws = bws.WebSocket(url, **options)
        self.ws.bind("open", lambda: self._note("open"))
        self.ws.bind("error", lambda: self._note("error"))
        self.ws.bind("message", self._message)
        self.ws.bind("close", self._close)

    def _note(self, type: str) -> None:
        if not self._inside.acquire(blocking=False):
            trouble(f"{self.ws.url}: two handlers at the same time")
        else:
            self._inside.release()
        self.seen.append(type)

    def _message(self, evt: bws.MessageEvent) -> None:
        if not self._inside.acquire(blocking=False):
            trouble(f"{self.ws.url}: two handlers at the same time")
        else:
            try:
                if self.seen != ["open"]:
                    trouble(f"{self.ws.url}: a message after {self.seen}")
                check_reply(evt.data, self.received)
                self.received += 1
            finally:
                self._inside.release()

    def _close(self, evt: bws.CloseEvent) -> None:
        self.end = (evt.code, evt.reason, evt.wasClean)
        self._note("close")


class Threads:
    """Starts threads that do something until the time is up."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self._threads: list[threading.Thread] = []

    def start(self, count: int, do: Callable[[int], object]) -> None:
        """`do(n)` again and again on each of `count` threads; n is the thread's number."""

        def run(number: int) -> None:
            try:
                while time.monotonic() < self.end:
                    do(number)
            except BaseException as exc:
                trouble(f"{do.__name__}: {exc!r}")
                raise

        self._threads += [threading.Thread(target=run, args=[n], name=f"{do.__name__} {n}") for n in range(count)]

    def join(self) -> None:
        """Run them all, to their ends."""
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()


def one(peer: Server, base: str, options: dict[str, Any], seconds: float) -> str:
    """32 threads, one socket."""
    it = Watched(f"{base}/one", options)
    ws = it.ws
    assert ws.wait_open(TIMEOUT)
    threads = Threads(seconds)
    sent: Counter[int] = Counter()
    calls: Counter[int] = Counter()
    asked = itertools.count()
    requested = [0]

    def send(number: int) -> None:
        want = 1 if requested[0] - it.received < WINDOW else 0
        size = random.choice([0, 10, 100, 100, 1000, 20_000 if number < 4 else 10])
        action = Action.PING if random.random() < 0.01 else random.choice([Action.BINARY, Action.TEXT])
        data = request(number, sent[number], action, want, size, b"x" * size)
        ws.send(data.decode() if sent[number] % 2 else data)
        sent[number] += 1
        requested[0] = next(asked) if want else requested[0]

    def meddle(number: int) -> None:
        def handler(evt: bws.DOMEvent) -> None:
            calls[number] += 1

        type = random.choice(TYPES)
        ws.bind(type, handler)
        if random.random() < 0.5:
            ws.addEventListener(type, handler)
        ws.ping(b"%d" % number, None)
        if not (0 <= ws.readyState <= 3 and ws.bufferedAmount >= 0 and repr(ws) and ws.url and not ws.protocol):
            trouble(repr(ws))
        ws.flush(0)
        ws.unbind(type, handler)
        ws.removeEventListener(type, handler)

    def both(number: int) -> None:
        send(number)
        if number % 4 == 3:
            meddle(number)

    threads.start(SENDERS, both)
    threads.join()
    everything = sum(sent.values())
    assert ws.flush(TIMEOUT), f"{ws.bufferedAmount} bytes are left"
    # All close at once: one of them wins.
    gate = threading.Barrier(SENDERS)

    def close(number: int) -> None:
        gate.wait()
        ws.close(3000 + number, "bye")

    closers = [threading.Thread(target=close, args=[n]) for n in range(SENDERS)]
    for thread in closers:
        thread.start()
    for thread in closers:
        thread.join()
    assert ws.wait_closed(TIMEOUT)
    seen = peer.ended("/one")
    if seen.trouble != "ok" or seen.received != everything:
        trouble(f"sent {everything}, the server saw {seen}")
    if it.seen != ["open", "close"] or it.end is None or it.end[0] - 3000 not in range(SENDERS) or not it.end[2]:
        trouble(f"events {it.seen}, end {it.end}")
    return f"{everything:,} messages sent, {it.received:,} received, {calls.total():,} calls of passing handlers"


def many(peer: Server, base: str, options: dict[str, Any], seconds: float) -> str:
    """8 threads, 200 places."""
    names = itertools.count()
    places: list[Watched | None] = [None] * PLACES
    taken: list[Watched] = []
    ends: Counter[str] = Counter()

    def act(number: int) -> None:
        place = random.randrange(PLACES)
        it = places[place]
        if it is None:
            it = places[place] = Watched(f"{base}/{next(names)}", options)
            taken.append(it)
        elif it.ws.readyState == bws.WebSocket.CLOSED or random.random() < (0.3 if it.ws.readyState else 0.05):
            it.ws.close(3000, "bye")
            places[place] = None
        elif it.ws.readyState == bws.WebSocket.OPEN:
            # No sequence: several threads may do this at the same time, so each message is a sender of its own.
            it.ws.send(request(next(it.senders) % 65536, 0, Action.BINARY, 2, 50, b"x"))

    threads = Threads(seconds)
    threads.start(CLOSERS, act)
    threads.join()
    for it in taken:
        it.ws.close(3000, "bye")
    for it in taken:
        if not it.ws.wait_closed(TIMEOUT):
            trouble(f"{it.ws} did not close")
        story = " ".join(it.seen)
        ends[story] += 1
        right = {"open close": (3000, "bye", True), "error close": (1006, "", False)}
        if right.get(story) != it.end and (story, it.end) != ("close", (3000, "bye", True)):
            trouble(f"{it.ws.url}: {story}, {it.end}")
        if "open" in story:
            seen = peer.ended(f"/{it.ws.url.rpartition('/')[2]}")
            if seen.trouble != "ok" or it.received > seen.sent or seen.received > next(it.senders):
                trouble(f"{it.ws.url}: received {it.received}, the server saw {seen}")
    return f"{len(taken):,} sockets, {dict(ends)}"


def drained(queue: Queue, do: Callable[[], str]) -> str:
    """Run `do` on another thread and the queue here, as dispatch asks for."""
    results: list[str] = []

    def run() -> None:
        try:
            results.append(do())
        except BaseException as exc:
            trouble(repr(exc))
            raise

    thread = threading.Thread(target=run, name="the program")
    thread.start()
    while thread.is_alive():
        queue.run_until(lambda: not thread.is_alive(), 0.1)
    return "".join(results)


def main() -> int:
    """Run it; 0 when nothing was wrong."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0] + ".")
    arguments.add_argument("what", choices=["one", "many"])
    arguments.add_argument("--seconds", type=float, default=60, help="how long (60)")
    arguments.add_argument("--tls", action="store_true")
    arguments.add_argument("--compress", action="store_true")
    arguments.add_argument("--dispatch", action="store_true", help="handlers run on the main thread")
    arguments.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"), help="of what is random")
    asked = arguments.parse_args()
    random.seed(asked.seed)
    faulthandler.enable()
    faulthandler.dump_traceback_later(asked.seconds + 5 * TIMEOUT, exit=True)
    sys.setswitchinterval(SWITCH)
    scene = {"one": one, "many": many}[asked.what]
    queue = Queue()
    with server() as peer:
        options: dict[str, Any] = {"compression": asked.compress, "open_timeout": TIMEOUT, "close_timeout": TIMEOUT}
        if asked.tls:
            options["ssl"] = peer.context
        if asked.dispatch:
            options["dispatch"] = queue
        base = peer.tls_url if asked.tls else peer.url

        def do() -> str:
            return scene(peer, base, options, asked.seconds)

        said = drained(queue, do) if asked.dispatch else do()
        if left := settle():
            trouble(f"left: {left}")
    print(" ".join(sys.argv[1:]), f"seed {asked.seed}: {said}", "FAILED" if troubles else "passed")
    print(*troubles[:20], sep="\n", end="", flush=True)
    return bool(troubles)


if __name__ == "__main__":
    sys.exit(main())
