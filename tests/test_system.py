"""What differs between operating systems: each variant is tested wherever it can run."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import itertools
import os
import pathlib
import select
import signal
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from bws import _system
from bws._engine import tcp
from bws._engine.wire import Stream
from tests.conftest import TIMEOUT, run_python
from tests.interrupt import Interrupt, Interruption, everywhere

VARIANTS = ["this system's", "a system without poll and eventfd"]


@pytest.fixture(params=VARIANTS)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as it is on this system, and as it is on one like Windows."""
    if request.param == VARIANTS[0]:
        return _system
    monkeypatch.delattr(select, "poll", raising=False)
    monkeypatch.delattr(os, "eventfd", raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    spec = importlib.util.spec_from_file_location("bws._system_elsewhere", _system.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.Poller is not _system.Poller or not hasattr(select, "poll")
    return module


@pytest.fixture
def waker(system: ModuleType) -> Iterator[Any]:
    """One that is closed again."""
    it = system.Waker()
    yield it
    it.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname(), TIMEOUT)
        other, _ = listener.accept()
    with one, other:
        yield one, other


def is_set(waker: Any) -> bool:
    return bool(select.select([waker], [], [], 0)[0])


# -- the waker


def test_a_waker_is_readable_between_wake_and_clear(waker: Any) -> None:
    for _ in range(3):
        assert not is_set(waker)
        waker.wake()
        waker.wake()
        assert is_set(waker)
        waker.clear()
        waker.clear()
    assert not is_set(waker)


def test_a_waker_gives_its_descriptors_back_and_may_be_woken_afterwards(system: ModuleType) -> None:
    waker = system.Waker()
    fd = waker.fileno()
    assert fd >= 0
    waker.wake()
    for _ in range(2):
        waker.close()
        waker.wake()
        waker.clear()
        assert waker.fileno() == -1
    with pytest.raises(OSError, match=r"."):
        os.fstat(fd)


def test_a_waker_can_be_forgotten_while_another_thread_holds_its_lock(system: ModuleType) -> None:
    waker = system.Waker()
    waker._lock.acquire()  # as another thread of the parent may have at a fork
    waker.forget()
    assert waker.fileno() == -1
    waker.wake()


def test_a_waker_can_be_cleared_wherever_its_waking_was_interrupted(waker: Any) -> None:
    def interrupt() -> None:
        raise Interrupt

    def scene(interruption: Interruption) -> None:
        with contextlib.suppress(Interrupt), interruption():
            waker.wake()
        waker.clear()
        assert not is_set(waker), interruption.place
        waker.wake()
        assert is_set(waker), interruption.place
        waker.clear()

    assert everywhere(scene, interrupt) > 2


def test_a_waker_may_be_woken_from_many_threads(waker: Any) -> None:
    threads = [threading.Thread(target=lambda: [waker.wake() for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(500):
        waker.clear()
    for thread in threads:
        thread.join(TIMEOUT)
    waker.wake()
    assert is_set(waker)
    waker.clear()
    assert not is_set(waker)


# -- pacing


class Tcp:
    """A socket with a congestion control, and where it is connected from and to."""

    def __init__(self, control: bytes, here: str, there: str) -> None:
        self.control, self._here, self._there = control, here, there
        self.asked = 0

    def getsockname(self) -> tuple[str, int]:
        return self._here, 50_000

    def getpeername(self) -> tuple[str, int]:
        return self._there, 80

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        self.asked += 1
        assert (level, option) == (socket.IPPROTO_TCP, 13)
        return self.control.ljust(size, b"\0")

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        assert (level, option) == (socket.IPPROTO_TCP, 13)
        self.control = value


@pytest.mark.parametrize(
    ("here", "there", "before", "after"),
    [
        ("127.0.0.1", "127.0.0.1", b"bbr", b"reno"),
        ("::1", "::1", b"bbr2", b"reno"),
        ("192.0.2.1", "192.0.2.1", b"bbr", b"reno"),
        ("127.0.0.1", "127.0.1.1", b"bbr", b"reno"),
        ("127.0.0.1", "127.0.0.1", b"cubic", b"cubic"),
        ("192.0.2.1", "192.0.2.2", b"bbr", b"bbr"),
    ],
)
def test_only_to_this_machine_nothing_is_paced(
    monkeypatch: pytest.MonkeyPatch, here: str, there: str, before: bytes, after: bytes
) -> None:
    monkeypatch.setattr(socket, "TCP_CONGESTION", 13, raising=False)
    sock: Any = Tcp(before, here, there)
    assert _system.stop_pacing(sock) is (before != after)
    assert sock.control == after


def test_without_a_choice_of_congestion_controls_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_CONGESTION", raising=False)
    sock: Any = Tcp(b"bbr", "::1", "::1")
    assert not _system.stop_pacing(sock)
    assert sock.asked == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has this option")
def test_a_connection_to_this_machine_is_not_paced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Stream() as client:
        client.connect(server.getsockname())
        with contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")  # if there is one
        before = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        tcp.tune(client)
        after = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        assert after.rstrip(b"\0") == (b"reno" if before.startswith(b"bbr") else before.rstrip(b"\0"))
        assert client.paced is before.startswith(b"bbr")
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has this option")
def test_what_was_read_is_acknowledged_at_once_when_asked(pair: tuple[socket.socket, socket.socket]) -> None:
    client, peer = pair
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else the next byte waits for the acknowledgement
    seen = set()
    for _ in range(20):  # Linux' own acknowledgement, after 40 ms, may come in between
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        peer.send(b"x")
        assert client.recv(1) == b"x"
        before = _system.acknowledged(peer)[1]
        _system.acknowledge_now(client)
        seen.add((before, _system.acknowledged(peer)[1]))
    assert (1, 0) in seen


def test_where_nothing_can_be_acknowledged_at_once_asking_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = socket.socketpair()
    with one, other:
        _system.acknowledge_now(one)  # it may be no TCP
    monkeypatch.delattr(socket, "TCP_QUICKACK", raising=False)
    _system.acknowledge_now(pair[0])
    pair[0].send(b"still there")
    assert pair[1].recv(20) == b"still there"


# -- the poller


def test_a_poller_waits_for_the_waker_without_a_socket(system: ModuleType, waker: Any) -> None:
    poller = system.Poller(waker)
    assert poller.wait(-1, False, False, 0) == (False, False, False)
    waker.wake()
    assert poller.wait(-1, False, False, None) == (False, False, True)
    waker.clear()
    assert poller.wait(-1, False, False, -5) == (False, False, False)


def test_a_poller_tells_what_was_asked_for(
    system: ModuleType, waker: Any, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    poller = system.Poller(waker)
    fd = one.fileno()
    assert poller.wait(fd, True, False, 0) == (False, False, False)
    assert poller.wait(fd, True, True, None) == (False, True, False)
    other.sendall(b"x")
    assert poller.wait(fd, True, False, TIMEOUT) == (True, False, False)
    assert poller.wait(fd, True, True, TIMEOUT) == (True, True, False)
    assert poller.wait(fd, False, True, TIMEOUT) == (False, True, False)
    waker.wake()
    assert poller.wait(fd, False, False, TIMEOUT) == (False, False, True)
    assert poller.wait(fd, True, False, TIMEOUT) == (True, False, True)
    waker.clear()
    one.recv(1)
    assert poller.wait(fd, True, False, 0) == (False, False, False)


def test_a_poller_that_waits_as_before_tells_only_that_the_socket_can_be_read(
    system: ModuleType, waker: Any, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    poller = system.Poller(waker)
    poller.wait(one.fileno(), True, False, 0)
    other.sendall(b"x")
    assert poller.readable() == hasattr(select, "poll")  # Windows: `wait` has to be asked
    waker.wake()
    assert not poller.readable()
    waker.clear()
    one.recv(1)
    other.close()
    assert poller.wait(one.fileno(), True, False, TIMEOUT) == (True, False, False)


def test_a_poller_follows_from_one_socket_to_another(
    system: ModuleType, waker: Any, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    poller = system.Poller(waker)
    one.sendall(b"x")
    assert poller.wait(one.fileno(), True, False, 0) == (False, False, False)
    assert poller.wait(other.fileno(), True, False, TIMEOUT) == (True, False, False)
    assert poller.wait(-1, False, False, 0) == (False, False, False)
    assert poller.wait(other.fileno(), True, False, TIMEOUT) == (True, False, False)


@pytest.mark.parametrize("first", [False, True])
def test_a_connection_that_hung_up_does_not_wake_who_asks_for_nothing(
    system: ModuleType, waker: Any, pair: tuple[socket.socket, socket.socket], first: bool
) -> None:
    one, other = pair
    poller = system.Poller(waker)
    if not first:
        poller.wait(one.fileno(), True, False, 0)
    other.close()
    one.shutdown(socket.SHUT_WR)
    select.select([one], [], [], TIMEOUT)
    for _ in range(2):
        start = time.monotonic()
        assert poller.wait(one.fileno(), False, False, 0.05) == (False, False, False)
        assert time.monotonic() - start > 0.04
    assert poller.wait(one.fileno(), True, False, TIMEOUT) == (True, False, False)


# -- waiting


@pytest.mark.parametrize("notified", [True, False])
def test_waiting_for_a_condition_ends_with_it_or_in_time(system: ModuleType, notified: bool) -> None:
    lock = threading.RLock()
    condition = system.Condition(lock)
    done: list[bool] = []

    def finish() -> None:
        with lock:
            done.append(True)
            if notified:
                condition.notify_all()

    timer = threading.Timer(0.02, finish)
    with lock:
        assert condition.wait_for(lambda: True, 0)
        assert not condition.wait_for(lambda: False, 0)
        start = time.monotonic()
        assert not condition.wait_for(lambda: False, 0.06)
        assert 0.05 < time.monotonic() - start < TIMEOUT
        timer.start()
        # Not notified, it looks again when a slice of the time is up.
        if notified or system.WINDOWS:
            assert condition.wait_for(lambda: bool(done), TIMEOUT)
    timer.join()
    assert done == [True]


def test_what_a_signal_handler_does_between_the_look_and_the_wait_is_seen() -> None:
    lock = threading.RLock()
    condition = _system.Condition(lock)
    done: list[bool] = []
    limit = 0.2
    waited: list[str] = []

    def scene(interruption: Interruption) -> None:
        done.clear()
        start = time.monotonic()
        with interruption(), lock:
            met = condition.wait_for(lambda: bool(done), limit)
        assert met or time.monotonic() - start >= limit
        if interruption.place and time.monotonic() - start >= limit:
            waited.append(interruption.place)

    def signal_handler() -> None:
        with lock:
            done.append(True)
            condition.notify_all()

    assert everywhere(scene, signal_handler) > 8
    # Only when it came behind the wait, and that had taken its time.
    assert waited
    assert "c_return <built-in method acquire" in waited[0]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="Windows gives signals to no thread")
def test_a_signal_that_does_not_end_the_wait_is_noticed_however_often_it_was_woken_before() -> None:
    lock = threading.RLock()
    condition = _system.Condition(lock)
    looks = threading.Semaphore(0)

    def look() -> bool:
        looks.release()
        return False

    def other() -> None:
        for _ in range(30):
            assert looks.acquire(timeout=TIMEOUT)
            with lock:
                condition.notify_all()
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    thread = threading.Thread(target=other)
    thread.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), lock:
        condition.wait_for(look, None)
    assert time.monotonic() - start < TIMEOUT
    thread.join()


def test_where_waiting_cannot_be_interrupted_it_is_cut_into_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_system, "WINDOWS", True)
    lock = threading.RLock()
    condition = _system.Condition(lock)
    looks: list[float] = []

    def look() -> bool:
        looks.append(time.monotonic())
        return len(looks) > 4

    with lock:
        assert condition.wait_for(look, None)
    assert all(after - before < 5 for before, after in itertools.pairwise(looks))


# -- options and proxies


def test_every_keepalive_option_is_one_of_this_system(pair: tuple[socket.socket, socket.socket]) -> None:
    for level, name, value in _system.KEEPALIVE:
        pair[0].setsockopt(level, name, value)
        assert pair[0].getsockopt(level, name) != 0
    assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in _system.KEEPALIVE


def test_what_this_system_does_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
        monkeypatch.delattr(socket, name, raising=False)
    assert _system._keepalive() == [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", 16, raising=False)  # macOS
    assert _system._keepalive()[1:] == [(socket.IPPROTO_TCP, 16, 30)]


@pytest.mark.parametrize(
    ("platform", "variable", "possible"),
    [
        ("linux", None, False),
        ("linux", "http_proxy", True),
        ("linux", "ALL_PROXY", True),
        ("darwin", None, True),
        ("win32", None, True),
    ],
)
def test_a_proxy_is_possible_where_one_can_be_configured(
    platform: str, variable: str | None, possible: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "platform", platform)
    if variable is not None:
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert _system.proxy_possible() is possible


def test_closing_a_descriptor_says_nothing_on_the_wire(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    copy = one.dup()
    _system.close_descriptor(copy)
    assert copy.fileno() == -1
    one.sendall(b"still there")
    assert other.recv(100) == b"still there"
    _system.close_descriptor(copy)  # nothing is left to close


LONG = _system.LONG_TEXT


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("size", [0, 1, LONG - 1, LONG, 3 * LONG + 1])
@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (1, None), (0, 5), (LONG - 2, LONG + 2), (3, 2 * LONG), (LONG, LONG), (0, 9 * LONG)]
)
def test_the_bytes_of_a_text_are_those_of_its_encoding(
    monkeypatch: pytest.MonkeyPatch, copied: bool, size: int, start: int, stop: int | None
) -> None:
    if copied:
        monkeypatch.setattr(_system, "_view_of", None)
    text = ("".join(map(chr, range(128))) * (size // 128 + 1))[:size]
    assert bytes(_system.ascii_bytes(text, start, stop)) == text[start:stop].encode()


def test_the_bytes_of_a_long_text_are_no_copy_cannot_be_changed_and_keep_the_text() -> None:
    size = 8 << 20
    tracemalloc.start()
    try:
        text = "x" * size
        tracemalloc.reset_peak()
        seen = _system.ascii_bytes(text, 1)
        assert tracemalloc.get_traced_memory()[1] < size + 10_000
        assert isinstance(seen, memoryview)
        assert (seen.readonly, seen.itemsize, len(seen)) == (True, 1, size - 1)
        part = seen[-1_000:]
        del text, seen  # as a tracer or a debugger may keep a view that it has seen
        assert tracemalloc.get_traced_memory()[0] > size
        assert bytes(part) == b"x" * 1_000
        del part
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("error", [MemoryError, ctypes.ArgumentError, RuntimeError])
def test_where_no_look_at_a_text_is_to_be_had_it_is_copied(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refused(text: str) -> memoryview:
        raise error

    monkeypatch.setattr(_system, "_view_of", refused)
    assert _system.ascii_bytes("x" * LONG, 1, 4) == b"xxx"


def test_what_a_signal_handler_raises_in_a_look_at_a_text_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    look, raised = _system._view_of, [TimeoutError("the handler's")]
    assert look is not None

    def interrupted(text: str) -> memoryview:
        if raised:
            raise raised.pop()
        return look(text)

    monkeypatch.setattr(_system, "_view_of", interrupted)
    with pytest.raises(TimeoutError, match="the handler's"):
        _system.ascii_bytes("x" * LONG)
    assert bytes(_system.ascii_bytes("x" * LONG)) == b"x" * LONG


FORBID = """
import sys

def forbid(event, args):
    if event.startswith("ctypes"):
        raise RuntimeError(event + " is not allowed here")
"""


def test_where_an_audit_hook_forbids_it_text_is_copied() -> None:
    done = run_python(
        FORBID
        + """
sys.addaudithook(forbid)
from bws import _system
print(_system._view_of, _system.ascii_bytes("x" * 100_000) == b"x" * 100_000)
"""
    )
    assert (done.stdout.split(), done.stderr) == (["None", "True"], "")


@pytest.mark.parametrize("compression", [False, True])
def test_where_an_audit_hook_comes_to_forbid_it_text_is_copied(compression: bool) -> None:
    """In the program's thread, and for what waits, on the socket's."""
    done = run_python(
        FORBID
        + f"""
import bws
from bws.testing import EchoServer

with EchoServer() as server, bws.WebSocket(server.url, max_size=None, compression={compression}) as ws:
    server.stall()
    ws.send("x" * 50_000_000)
    sys.addaudithook(forbid)
    ws.send("y" * 200_000)
    server.resume()
    got = [server.next_message(30) for _ in range(2)]
print(got == ["x" * 50_000_000, "y" * 200_000])
"""
    )
    assert (done.stdout.split(), done.stderr) == (["True"], "")


WITHOUT_CTYPES = """
import threading

import bws
from bws import _system
from bws.testing import EchoServer

with EchoServer() as server, bws.WebSocket(server.url, max_size=None) as ws:
    got = []
    ws.bind("message", lambda evt: got.append(evt.data))
    assert ws.wait_open(10)
    sent = ["x" * 1_000_000, "y" * 10_000_000]
    for text in sent:
        ws.send(text)
    while len(got) < 2:
        threading.Event().wait(0.01)
print(got == sent, _system._view_of)
"""


def test_where_python_has_no_ctypes_text_is_copied(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ctypes.py").write_text("raise ImportError('built without libffi')")
    done = run_python(WITHOUT_CTYPES, paths=[tmp_path])
    assert (done.stdout.split(), done.stderr) == (["True", "None"], "")


ELSEWHERE = """
import os, select, selectors, sys, threading
for module, name in ((select, "poll"), (os, "eventfd"), (selectors, "PollSelector")):
    if hasattr(module, name):
        delattr(module, name)
selectors.DefaultSelector = selectors.SelectSelector

import bws
from bws.testing import EchoServer

assert not hasattr(bws._system.Poller, "_poll")
with EchoServer() as server:
    got = []
    blocked, more = threading.Event(), threading.Event()
    ws = bws.WebSocket(server.url)

    @ws.bind("message")
    def on_message(evt):
        got.append(len(evt.data))
        if len(got) == 1:
            ws.send(bytes(5_000_000))       # more than the operating system takes
            assert ws.flush(10)             # by the thread that stands in for this one

    closed = []
    ws.bind("close", lambda evt: closed.append((evt.code, evt.wasClean)))
    assert ws.wait_open(10)
    ws.send("hello")
    while len(got) < 2:
        threading.Event().wait(0.01)
    ws.close(1000)
    assert ws.wait_closed(10)
    print(got, closed)

    refused = bws.WebSocket("ws://127.0.0.1:1/")
    errors = []
    refused.bind("error", lambda evt: errors.append(type(evt.error).__name__))
    assert refused.wait_closed(10)
    print(errors)
"""


def test_all_of_it_works_on_a_system_without_poll_and_eventfd() -> None:
    done = run_python(ELSEWHERE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["[5, 5000000] [(1000, True)]", "['ConnectionRefusedError']"]
