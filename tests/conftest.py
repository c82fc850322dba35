"""What the tests share: both ways of running handlers, a recorder of events, a check of what is left."""

from __future__ import annotations

import gc
import os
import pathlib
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

import bws
from tests.wire.frames import Seen
from tests.wire.server import Script, ScriptedServer

pytest_plugins = ["bws.testing.pytest_plugin", "pytester"]

if not hasattr(os, "fork"):
    collect_ignore = ["test_fork.py"]

# A shell has Ctrl-C ignored in what it runs in the background, and so would the programs that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Take what pytest has made of 6,000 tests out of every later gc.collect(): they take 0.1 s otherwise."""
    gc.collect()
    gc.freeze()


TYPES = ("open", "message", "error", "close")
TIMEOUT = 15.0  # seconds; only a test that fails waits so long

Entry = tuple[Any, ...]
Action = Callable[["Recorder", Any], object]


class Recorder:
    """Notes the events of a socket, with the readyState that their handlers see.

    The entries are `("open", readyState)`, `("message", readyState, data)`, `("error", readyState)`,
    `("close", readyState, code, reason, wasClean)` and what the test notes. `on` has what the handlers do.
    """

    def __init__(self, ws: bws.WebSocket, on: Mapping[str, Action] | None = None) -> None:
        self.ws, self._on = ws, dict(on or {})
        self.entries: list[Entry] = []
        self.events: list[Any] = []
        self.threads: set[threading.Thread] = set()
        self._changed = threading.Condition()
        for type in TYPES:
            ws.bind(type, self._take)

    def note(self, *entry: Any) -> None:
        """Add an entry of the test's own."""
        with self._changed:
            self.entries.append(entry)
            self._changed.notify_all()

    def look(self, *_: object) -> None:
        """Note the readyState."""
        self.note("look", self.ws.readyState)

    def _take(self, evt: Any) -> None:
        details = {"message": ["data"], "close": ["code", "reason", "wasClean"]}.get(evt.type, [])
        self.events.append(evt)
        self.threads.add(threading.current_thread())
        self.note(evt.type, self.ws.readyState, *(getattr(evt, name) for name in details))
        if evt.type in self._on:
            self._on[evt.type](self, evt)

    def of(self, *kinds: str) -> list[Entry]:
        """The entries of these kinds."""
        return [entry for entry in self.entries if entry[0] in kinds]

    @property
    def types(self) -> list[str]:
        """The first part of every entry."""
        return [entry[0] for entry in self.entries]

    @property
    def data(self) -> list[Any]:
        """The data of the messages."""
        return [entry[2] for entry in self.of("message")]

    @property
    def error(self) -> BaseException:
        """What the error event has as its cause."""
        (error,) = (evt.error for evt in self.events if evt.type == "error")
        assert isinstance(error, BaseException)
        return error

    def wait_for(self, kind: str, count: int = 1) -> list[Entry]:
        """Wait until so many entries of that kind are there."""
        with self._changed:
            done = self._changed.wait_for(lambda: len(self.of(kind)) >= count, TIMEOUT)
        assert done, f"no {kind} number {count} within {TIMEOUT} s: {self.entries}"
        return self.of(kind)

    def closed(self) -> list[Entry]:
        """Wait until all close handlers have returned; all entries."""
        self.wait_for("close")
        assert self.ws.wait_closed(TIMEOUT)
        return self.entries


class Pump:
    """A user's thread that runs what `dispatch` is given, first in first out."""

    def __init__(self) -> None:
        self.raised: list[BaseException] = []
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.put = self._queue.put
        self.thread = threading.Thread(target=self._run, name="pump", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while (fn := self._queue.get()) is not None:
            try:
                fn()
            except BaseException as exc:
                self.raised.append(exc)

    def stop(self) -> None:
        """End the thread when all is run; nothing may have been raised out of a callable."""
        self.put(None)
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()
        assert self.raised == []


class Mode:
    """One of the two ways to run handlers: on the socket's own thread, or with `dispatch` on a pump's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pump = Pump() if name == "dispatch" else None
        self._sockets: list[bws.WebSocket] = []

    def open(self, url: str, protocols: Any = None, **options: Any) -> bws.WebSocket:
        """Make a socket that is closed at the end of the test."""
        if self.pump:
            options["dispatch"] = self.pump.put
        ws = bws.WebSocket(url, protocols, **options)
        self._sockets.append(ws)
        return ws

    def is_handler_thread(self, thread: threading.Thread) -> bool:
        """Whether handlers may run on that thread."""
        return thread is self.pump.thread if self.pump else thread.name.startswith("bws")

    def end(self) -> None:
        """Close every socket, and the pump."""
        for ws in self._sockets:
            ws.close()
        for ws in self._sockets:
            assert ws.wait_closed(TIMEOUT)
        if self.pump:
            self.pump.stop()


@pytest.fixture(params=["threaded", "dispatch"])
def mode(request: pytest.FixtureRequest) -> Iterator[Mode]:
    """Both ways to run handlers, one after the other."""
    it = Mode(request.param)
    yield it
    it.end()


@dataclass
class Played:
    """What `play` gives back."""

    recorder: Recorder
    server: ScriptedServer
    seen: Seen
    entries: list[Entry] = field(default_factory=list)


Play = Callable[..., Played]


@pytest.fixture
def play(mode: Mode) -> Play:
    """Run one connection from its constructor to its close event against a scripted server.

    `play(script, on=None, start=None, path="", protocols=None, receive_buffer=None, **options)`: the script
    begins when the handlers are bound and `start(recorder)` has returned: the entries are always the same.
    """

    def run(
        script: Script,
        *,
        on: Mapping[str, Action] | None = None,
        start: Callable[[Recorder], object] | None = None,
        path: str = "",
        protocols: Any = None,
        receive_buffer: int | None = None,
        **options: Any,
    ) -> Played:
        gate = threading.Event()
        with ScriptedServer(script, gate=gate, receive_buffer=receive_buffer) as server:
            recorder = Recorder(mode.open(server.url + path, protocols, **options), on)
            if start:
                start(recorder)
            gate.set()
            entries = recorder.closed()
            return Played(recorder, server, server.result(), entries)

    return run


def is_open(descriptor: int) -> bool:
    """Whether this process has it open."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def run_python(
    code: str, *args: str, paths: Sequence[pathlib.Path] = (), measured: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program that finds bws, and before it what is in `paths`; whether it failed is for the caller to see.

    One that is interrupted everywhere must not be `measured`: coverage.py would keep a lock of its own for ever.
    """
    path = os.pathsep.join(map(str, [*paths, pathlib.Path(bws.__file__).parents[1]]))
    # By name: os.environ.items() raises when pytest, on the main thread, takes away a variable of its own meanwhile.
    found = {name: os.environ.get(name) for name in list(os.environ)}
    inherited = {
        name: value
        for name, value in found.items()
        if value is not None and (measured or not name.startswith("COVERAGE_"))
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code), *args],
        env={**inherited, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's environment says, loopback is reached directly."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """After a test the library's threads have ended; only the one that serves the whole process may stay."""
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + TIMEOUT
    for thread in left_threads(before):
        thread.join(max(0.0, end - time.monotonic()))
    assert left_threads(before) == []


def settle() -> None:
    """Wait for the library's threads; the one that stands in for the others ends soon after the last socket."""
    for thread in threading.enumerate():
        if thread.name.startswith("bws"):
            thread.join(TIMEOUT)


def left_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    """The library's threads that were not there before."""
    new = (t for t in threading.enumerate() if t not in before)
    return [t for t in new if t.name.startswith("bws") and t.name != "bws relief"]


def eventually(predicate: Callable[[], object]) -> None:
    """Wait until something is so that nothing tells of."""
    end = time.monotonic() + TIMEOUT
    while not predicate():
        assert time.monotonic() < end
        time.sleep(0.005)
