"""The promises that have a number. Quick by default; with BWS_STRESS=1 the full numbers, printed."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import pathlib
import random
import socket
import statistics
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bws
from tests.conftest import TIMEOUT, Mode, Recorder, settle
from tests.wire.frames import TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

FULL = os.environ.get("BWS_STRESS") == "1"
RACES = 10_000 if FULL else 300
CLOSES = 1_000 if FULL else 50
CYCLES = 1_000 if FULL else 100
CONSTRUCTORS = 200 if FULL else 30
SENDS = 50 if FULL else 10  # of a mebibyte each

# Seconds. On a machine that does other things at the same time only the generous ones hold for sure.
CLOSE_LIMIT = 0.05 if FULL else 1.0
CALL_LIMIT = 0.005 if FULL else 0.5
CLOSE_TIMEOUT, TOLERANCE = 0.5, (0.2 if FULL else 1.0)

pytestmark = pytest.mark.timeout(900 if FULL else 60)
FAILED = [("error", 3), ("close", 3, 1006, "", False)]


def report(what: str, seconds: list[float]) -> float:
    """Print the figures of a full run; the largest."""
    if FULL:
        ms = sorted(1000 * s for s in seconds)
        p99 = ms[int(len(ms) * 0.99) - 1]
        median = statistics.median(ms)
        print(
            f"\n{what}: {len(ms)} times, median {median:.2f} ms, p99 {p99:.2f} ms, max {ms[-1]:.2f} ms", file=sys.stderr
        )
    return max(seconds)


def timed(call: Callable[[], object]) -> float:
    """How long a call takes, in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# -- the race


class Story:
    """What the handlers of one socket saw; they hold no reference to the socket."""

    def __init__(self, ws: bws.WebSocket) -> None:
        self.seen: list[Any] = []
        self.closed = threading.Event()
        ws.bind("open", lambda: self.seen.append("open"))
        ws.bind("message", lambda evt: self.seen.append(evt.data))
        ws.bind("error", lambda: self.seen.append("error"))
        ws.bind("close", self._close)

    def _close(self, evt: bws.CloseEvent) -> None:
        self.seen.append((evt.code, evt.reason, evt.wasClean))
        self.closed.set()


def greet_and_close(c: Connection) -> None:
    """A message and a close frame in the same segment as the handshake."""
    c.handshake(then=frame(TEXT, "hello") + close_frame(1000, "done"))


def test_no_event_is_lost_between_the_constructor_and_bind() -> None:
    chance = random.Random(42)
    pause = threading.Event()  # never set
    with ScriptedServer(greet_and_close) as server:
        for start in range(0, RACES, 100):
            stories = []
            for _ in range(min(100, RACES - start)):
                ws = bws.WebSocket(server.url)
                pause.wait(chance.uniform(0, 0.005))
                stories.append(Story(ws))
            for story in stories:
                assert story.closed.wait(TIMEOUT)
                assert story.seen == ["open", "hello", (1000, "done", True)]


def test_a_close_at_any_moment_leads_to_one_of_two_ends(mode: Mode) -> None:
    chance = random.Random(42)
    pause = threading.Event()  # never set
    ends = set()
    with ScriptedServer(Connection.handshake) as server:
        for _ in range(RACES // 3):
            ws = mode.open(server.url)
            recorder = Recorder(ws)
            pause.wait(chance.choice([0, chance.uniform(0, 0.003)]))
            ws.close(3000, "done")
            ends.add(tuple(recorder.closed()))
    done = ("close", 3, 3000, "done", True)
    # In the middle: close() was called when the open event was on its way to its handlers.
    assert ends <= {tuple(FAILED), (("open", 1), done), (("open", 2), done)}


# -- closing


def test_a_close_from_another_thread_is_answered_at_once() -> None:
    until_event, until_return = [], []
    with ScriptedServer(Connection.handshake) as server:
        for n in range(CLOSES):
            ws = bws.WebSocket(server.url)
            assert ws.wait_open(TIMEOUT)
            ends: list[tuple[float, Any]] = []
            ws.bind("close", lambda evt, *, ends=ends: ends.append((time.perf_counter(), evt)))
            start = time.perf_counter()
            ws.close(3000 + n % 2000, f"number {n}")
            until_return.append(time.perf_counter() - start)
            assert ws.wait_closed(TIMEOUT)
            ((end, evt),) = ends
            assert (evt.code, evt.reason, evt.wasClean) == (3000 + n % 2000, f"number {n}", True)
            until_event.append(end - start)
    assert report("close() to the close event", until_event) < CLOSE_LIMIT
    assert report("close() itself", until_return) < CALL_LIMIT


def test_a_server_that_never_answers_costs_close_timeout() -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.drain()

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, close_timeout=CLOSE_TIMEOUT)
        recorder = Recorder(ws)
        recorder.wait_for("open")
        start = time.perf_counter()
        ws.close(1000)
        recorder.closed()
        took = time.perf_counter() - start
    assert recorder.entries[1:] == [("close", 3, 1006, "", False)]
    report("close() that is not answered", [took])
    assert CLOSE_TIMEOUT - 0.2 < took < CLOSE_TIMEOUT + TOLERANCE


# -- CONNECTING: at every stage something that makes a socket which is stuck there

Make = Callable[..., bws.WebSocket]


@contextlib.contextmanager
def in_dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """The system's resolver cannot be made slow; one that waits stands in its place."""
    asked, answer = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> list[Any]:
        asked.set()
        answer.wait(TIMEOUT)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def make(**options: Any) -> bws.WebSocket:
        ws = bws.WebSocket("ws://slow.invalid/", **options)
        assert asked.wait(TIMEOUT)
        return ws

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        yield make
    finally:
        answer.set()


@contextlib.contextmanager
def in_tcp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A port whose queue of connections is full and that nobody serves."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())

        def make(**options: Any) -> bws.WebSocket:
            ws = bws.WebSocket(f"ws://127.0.0.1:{listener.getsockname()[1]}/", **options)
            assert not ws.wait_open(0.05)
            return ws

        yield make


@contextlib.contextmanager
def in_talk(script: Callable[[Connection], None], how: str = "") -> Iterator[Make]:
    """A server that accepts TCP and does what the script says, then nothing more."""
    stuck = threading.Event()

    def then_nothing(c: Connection) -> None:
        script(c)
        stuck.set()
        c.drain()

    def make(**options: Any) -> bws.WebSocket:
        if how == "proxy":
            ws = bws.WebSocket("ws://behind-the-proxy.invalid/", proxy=server.url.replace("ws:", "http:"), **options)
        else:
            ws = bws.WebSocket(server.url.replace("ws:", "wss:") if how == "TLS" else server.url, **options)
        assert stuck.wait(TIMEOUT)
        return ws

    with ScriptedServer(then_nothing) as server:
        yield make


def _first_byte(c: Connection) -> None:
    assert c.sock.recv(1)


def _half_an_answer(c: Connection) -> None:
    c.request()
    c.send(c.response()[:40])


STAGES: dict[str, Callable[[pytest.MonkeyPatch], contextlib.AbstractContextManager[Make]]] = {
    "DNS": in_dns,
    "TCP": in_tcp,
    "TLS": lambda _: in_talk(_first_byte, "TLS"),
    "proxy": lambda _: in_talk(Connection.request, "proxy"),
    "handshake": lambda _: in_talk(Connection.request),
    "half an answer": lambda _: in_talk(_half_an_answer),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_close_while_connecting_ends_at_once(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with STAGES[stage](monkeypatch) as make:
        ws = make()
        recorder = Recorder(ws)
        assert ws.readyState == 0
        start = time.perf_counter()
        ws.close()
        returned = time.perf_counter() - start
        recorder.closed()
        took = time.perf_counter() - start
    assert recorder.entries == FAILED
    assert report(f"close() in {stage} to the close event", [took]) < CLOSE_LIMIT
    assert report(f"close() in {stage}", [returned]) < CALL_LIMIT


@pytest.mark.parametrize("stage", STAGES)
def test_open_timeout_ends_what_hangs_at_every_stage(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with STAGES[stage](monkeypatch) as make:
        recorder = Recorder(make(open_timeout=0.3))
        recorder.closed()
    assert recorder.entries == FAILED
    assert isinstance(recorder.error, TimeoutError)


# -- calls that never wait


def test_the_constructor_does_not_wait_for_a_slow_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    with in_dns(monkeypatch):
        sockets: list[bws.WebSocket] = []
        times = [timed(lambda: sockets.append(bws.WebSocket("ws://slow.invalid/"))) for _ in range(CONSTRUCTORS)]
        for ws in sockets:
            ws.close()
        assert all(ws.wait_closed(TIMEOUT) for ws in sockets)
    slowest = report("the constructor", times)
    assert times[0] < CALL_LIMIT  # the first one of a process has the same promise
    assert statistics.quantiles(times, n=100)[-1] < CALL_LIMIT
    assert slowest < 4 * CALL_LIMIT  # another thread may have had its turn, 5 ms long, meanwhile


def test_send_and_close_do_not_wait_for_a_peer_that_reads_nothing() -> None:
    reads = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(reads)

    with ScriptedServer(script, receive_buffer=4096) as server:
        ws = bws.WebSocket(server.url)
        assert ws.wait_open(TIMEOUT)
        data = b"x" * (1 << 20)
        times = [timed(lambda: ws.send(data)) for _ in range(SENDS)]
        assert ws.bufferedAmount > (SENDS - 8) << 20
        closing = timed(ws.close)
        reads.set()
        assert server.result().messages == [data] * SENDS
        assert ws.wait_closed(TIMEOUT)
    assert report("send() of a mebibyte", times) < CALL_LIMIT
    assert report("close() behind it", [closing]) < CALL_LIMIT


# -- nothing is left behind


def descriptors() -> list[str]:
    """The open files of this process, where the system tells."""
    found = pathlib.Path("/proc/self/fd")
    return sorted(os.listdir(found)) if found.exists() else []


def opened_and_closed(ws: bws.WebSocket) -> None:
    """As most programs do."""
    assert ws.wait_open(TIMEOUT)
    ws.close()


def ways_to_end() -> Iterator[tuple[Callable[[Connection], None], Callable[[bws.WebSocket], object]]]:
    """What the server does and what the program does, one after the other."""
    return itertools.cycle(
        [
            (greet_and_close, lambda ws: None),
            (Connection.handshake, opened_and_closed),
            (lambda c: c.handshake(then=frame(3)), lambda ws: None),
            (Connection.reset, lambda ws: None),
            (Connection.request, lambda ws: ws.close()),
        ]
    )


def cycle(count: int) -> list[weakref.ref[bws.WebSocket]]:
    """Open and close sockets, in every way in turn."""
    ways = ways_to_end()
    current: list[Callable[[Connection], None]] = []
    refs = []
    with ScriptedServer(lambda c: current[0](c)) as server:
        for _ in range(count):
            script, act = next(ways)
            current[:] = [script]
            ws = bws.WebSocket(server.url)
            story = Story(ws)
            act(ws)
            assert story.closed.wait(TIMEOUT)
            assert ws.wait_closed(TIMEOUT)
            refs.append(weakref.ref(ws))
            del ws
    return refs


def test_no_thread_no_file_and_no_object_is_left() -> None:
    cycle(5)  # what is made once for the whole process is made now
    settle()
    threads, before = set(threading.enumerate()), descriptors()
    gc.collect()
    gc.disable()
    try:
        refs = cycle(CYCLES)
        settle()
        alive = [ref() for ref in refs if ref() is not None]
    finally:
        gc.enable()
    assert set(threading.enumerate()) <= threads
    assert descriptors() == before
    assert alive == []
