"""Many sockets at a time, each over a link with a fault of its own, and what each of them must have seen."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import pytest

import bws
from bws import dispatch
from tests.conftest import TIMEOUT, Entry, Recorder
from tests.faults import judge
from tests.faults.proxy import NOTHING, Fault, FaultProxy, Link
from tests.faults.server import BYE, GREETING, Server
from tests.wire.frames import Data

FULL = os.environ.get("BWS_STRESS") == "1"
AT_ONCE = 60  # sockets
SENT: list[Data] = ["héllo ✓", bytes(range(64)), "x" * 130, "end"]
MINE = (3001, "done")  # the client's close
CLOSERS = ["server", "client"]
MODES = ["threads", "queue"]
PONG_SIZE = 10  # bytes of the frame that answers a keepalive ping of bws; no other frame of a session has as many

both_modes = pytest.mark.parametrize("mode", MODES)
plain_and_tls = pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])

Check = Callable[["Case"], object]


class QueueThread:
    """A thread that runs a `bws.dispatch.Queue`."""

    def __init__(self) -> None:
        self.queue = dispatch.Queue()
        self._stop = False
        self.thread = threading.Thread(target=self._run, name="queue", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self._stop:
            self.queue.run_until(lambda: self._stop)

    def stop(self) -> None:
        """End it."""
        self._stop = True
        self.queue(lambda: None)
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()


def converse(recorder: Recorder, _: Any) -> None:
    """On open: say it all."""
    for data in SENT:
        recorder.ws.send(data)


def finish(recorder: Recorder, evt: Any) -> None:
    """On a message: close at the last one, where that is the client's part."""
    if evt.data == "end":
        recorder.ws.close(*MINE)


@dataclass
class Case:
    """One socket and its link."""

    name: str
    link: Link
    recorder: Recorder
    path: str
    heard: judge.Heard = field(default_factory=judge.Heard)
    mute: bool = False  # it calls close() before the server is done: what comes after that is not told of


class Campaign:
    """A server, a proxy and a way to run handlers; a context manager.

    Args:
        mode: "threads": handlers run on the sockets' own; "queue": on the thread of a `bws.dispatch.Queue`.
        tls: Whether the sockets speak TLS, end to end: the proxy sees nothing but records.
        compression: Whether the server agrees to permessage-deflate.
    """

    idle = 60.0  # s: see Server

    def __init__(self, mode: str, tls: bool = False, compression: bool = True) -> None:
        self.tls, self.compression = tls, compression
        self._stack = contextlib.ExitStack()
        self.mode = mode
        self._numbers = itertools.count()
        self.cases: list[Case] = []
        self.ends: set[tuple[str, bool]] = set()  # with what a socket began, and whether its end was clean

    def __enter__(self) -> Campaign:
        with self._stack:
            self.server = self._stack.enter_context(
                Server(tls=self.tls, compression=self.compression, idle=self.idle, patience=self.idle / 2)
            )
            self.proxy = self._stack.enter_context(FaultProxy(self.server.address))
            self._queue = QueueThread() if self.mode == "queue" else None
            if self._queue:
                self._stack.callback(self._queue.stop)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for case in self.cases:
            case.recorder.ws.close()
            assert case.recorder.ws.wait_closed(TIMEOUT)
        self._stack.close()

    def add(
        self,
        who_closes: str,
        name: str = "",
        up: Fault = NOTHING,
        down: Fault = NOTHING,
        on: dict[str, Any] | None = None,
        receive_buffer: int | None = None,
        **options: Any,
    ) -> Case:
        """Open a socket over a new link; `who_closes`: "server", "client", or another path of the server."""
        link = self.proxy.link(up, down, receive_buffer)
        path = f"/{who_closes}/{next(self._numbers)}"
        if self.tls:
            options["ssl"] = self.server.client_context
        if self._queue:
            options["dispatch"] = self._queue.queue
        options = {"open_timeout": 60, "close_timeout": 60, **options}
        ws = bws.WebSocket(f"{'wss' if self.tls else 'ws'}://127.0.0.1:{link.port}{path}", **options)
        recorder = Recorder(ws, {"open": converse, "message": finish} if on is None else on)
        self.proxy.serve(link)  # the handlers are bound: from here on all stories are the same
        self.cases.append(Case(name, link, recorder, path))
        return self.cases[-1]

    @property
    def scheme(self) -> str:
        """For the table."""
        return "wss" if self.tls else "ws"

    def hear(self, case: Case) -> judge.Heard:
        """What the client of this link may have heard."""
        passed = bytes(case.link.down.passed)
        if self.tls:
            plain, before = reference(case.path.split("/")[1], self.compression)
            # Pongs are not in the reference: the client pings when it likes.
            passed = plain[: sum(size for size in judge.records(passed)[before:] if size != PONG_SIZE)]
        return judge.hear(passed)

    def verify(self, case: Case) -> None:
        """Wait for the end of a socket; its events are those that the bytes ask for, and no others."""
        entries = case.recorder.closed()
        assert case.link.over.wait(TIMEOUT), "the link goes on"
        case.heard = self.hear(case)
        assert entries in self.allowed(case), f"{entries}, and not {self.allowed(case)}"
        close = case.recorder.events[-1]
        self.ends.add((entries[0][0], close.wasClean))
        assert (close.error is None) is close.wasClean
        if self._queue:
            assert case.recorder.threads == {self._queue.thread}
        if not self.tls and case.link.up.fault.act != "corrupt":
            self.verify_sent(case)

    def allowed(self, case: Case) -> list[list[Entry]]:
        """The stories that the contract allows for what was heard."""
        if case.mute:
            told = case.recorder.data
            assert told == case.heard.messages[: len(told)]
            case.heard.messages = told
        return [case.heard.entries()]

    def verify_sent(self, case: Case) -> None:
        """What was sent is the beginning of what it should be, in whole frames, with nothing after a close frame."""
        messages, closing = judge.said(bytes(case.link.up.passed), self.compression)
        assert messages == SENT[: len(messages)]
        assert len(closing) <= 1, f"{closing}"
        assert self.server.got[case.path] == SENT[: len(self.server.got[case.path])]

    @staticmethod
    def verify_whole(case: Case) -> None:
        """The fault changed nothing: all was said and heard, and the end is clean."""
        who = case.path.split("/")[1]
        echoed = SENT if who == "client" else SENT[:-1]
        entries = [("message", 1, data) for data in (GREETING[0], "".join(GREETING[1]), *echoed)]
        whole = [("open", 1), *entries, ("close", 3, *(MINE if who == "client" else BYE), True)]
        assert case.recorder.entries == whole, f"{case.recorder.entries}"
        assert case.recorder.ws.bufferedAmount == 0, f"bufferedAmount {case.recorder.ws.bufferedAmount}"

    def finish(self, check: Check | None = None) -> tuple[int, list[str]]:
        """Wait for all sockets; how many there were, and what is wrong with which."""
        wrong = []
        for case in self.cases:
            try:
                self.verify(case)
                if check is not None:
                    check(case)
            except AssertionError as exc:
                wrong.append(f"{case.name}: {exc}")
        for case in self.cases:
            if case.recorder.types.count("close") != 1 or case.recorder.types[-1] != "close":
                wrong.append(f"{case.name}: {case.recorder.entries}")
        count, self.cases = len(self.cases), []
        return count, wrong


class Fleet:
    """A campaign for each of the ways to run handlers, with and without TLS, all at the same time."""

    def __init__(self, make: type[Campaign] = Campaign) -> None:
        self._stack = contextlib.ExitStack()
        self._make = make
        self.campaigns: list[Campaign] = []

    def __enter__(self) -> Fleet:
        with self._stack:
            for mode, tls in itertools.product(MODES, (False, True)):
                self.campaigns.append(self._stack.enter_context(self._make(mode, tls)))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    @property
    def cases(self) -> list[tuple[Campaign, Case]]:
        """All sockets, and whose they are."""
        return [(campaign, case) for campaign in self.campaigns for case in campaign.cases]


@functools.cache
def reference(who_closes: str, compression: bool = True) -> tuple[bytes, int]:
    """A recorded session: the server's bytes, and how many TLS records come before those that hold them."""
    with Campaign("threads", compression=compression) as plain:
        case = plain.add(who_closes)
        plain.verify(case)
    recorded = bytes(case.link.down.passed)
    with Campaign("threads", tls=True, compression=compression) as secure:
        case = secure.add(who_closes)
        case.recorder.closed()
        assert case.link.over.wait(TIMEOUT)
    stream = bytes(case.link.down.passed)
    before = judge.handshake_records(stream, len(recorded))
    assert PONG_SIZE not in judge.records(stream)[before:]
    return recorded, before


@functools.cache
def lengths(who_closes: str, tls: bool = False, compression: bool = True) -> tuple[int, int]:
    """Bytes of a whole session: from the client, from the server."""
    with Campaign("threads", tls, compression) as campaign:
        case = campaign.add(who_closes)
        case.recorder.closed()
        assert case.link.over.wait(TIMEOUT)
    return len(case.link.up.passed), len(case.link.down.passed)


def batches(items: Sequence[Any], size: int = AT_ONCE) -> Iterator[Sequence[Any]]:
    """As many as run at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def offsets(length: int, step: int) -> list[int]:
    """The offsets to try in a stream: all of them in a full run; both ends always."""
    return list(range(length + 1)) if FULL else sorted({*range(0, length, step), length - 1, length})
