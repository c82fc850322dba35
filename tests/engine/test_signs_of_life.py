"""Keep-alive: what counts as a sign of life, and when a peer is given up."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

import bws
import tests.faults.proxy
from bws._engine import threaded_engine
from bws._engine.interface import Ending, Engine, Opened
from bws._rules import check_settings
from tests.conftest import TIMEOUT, Play, Recorder, run_python
from tests.faults.proxy import Fault, FaultProxy
from tests.wire.frames import BINARY, PING, PONG, frame
from tests.wire.server import Connection, ScriptedServer

MIB = 1 << 20


def test_a_peer_that_is_silent_ends_at_ping_timeout(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.drain()

    start = time.monotonic()
    played = play(script, ping_interval=0.1, ping_timeout=0.2)
    assert played.entries == [("open", 1), ("error", 3), ("close", 3, 1006, "", False)]
    assert time.monotonic() - start > 0.29
    error = played.recorder.error
    assert isinstance(error, TimeoutError)
    assert "ping_timeout=0.2 s" in str(error)
    assert len(played.seen.pings) >= 1


def test_a_peer_that_talks_is_alive_even_if_it_answers_no_ping() -> None:
    def script(c: Connection) -> None:
        c.handshake()
        for _ in range(40):
            c.send_text("talk")
            c.pause(0.05)
        c.close(1000)

    with ScriptedServer(script) as server:
        recorder = Recorder(bws.WebSocket(server.url, ping_interval=0.05, ping_timeout=1.0))
        recorder.closed()
        assert recorder.entries[-1] == ("close", 3, 1000, "", True)
        assert len(recorder.data) == 40
        assert len(server.result().pings) > 5


def test_a_peer_that_answers_pings_is_alive(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        for _ in range(5):
            c.send(frame(PONG, c.read_until(PING).payload))
        c.close(1000)

    played = play(script, ping_interval=0.05, ping_timeout=5)
    assert played.entries == [("open", 1), ("close", 3, 1000, "", True)]


def test_ping_interval_alone_pings_and_never_gives_up() -> None:
    def script(c: Connection) -> None:
        c.handshake()
        for _ in range(5):
            c.read_until(PING)
        c.close(1000)

    with ScriptedServer(script) as server:
        assert Recorder(bws.WebSocket(server.url, ping_interval=0.02)).closed()[-1] == ("close", 3, 1000, "", True)


class Busy:
    """Whom an engine reports to: one that is congested for `seconds`, beginning `after` seconds since open."""

    def __init__(self, seconds: float, after: float = 0.0) -> None:
        self.seconds, self.after = seconds, after
        self.items: list[Any] = []
        self.opened, self.ended = threading.Event(), threading.Event()
        self.start = self.until = 0.0
        self.engine: Engine | None = None

    def run(self, url: str, ping_interval: float, ping_timeout: float) -> None:
        """Connect, and wait for the end."""
        self.engine = threaded_engine(check_settings(url, ping_interval=ping_interval, ping_timeout=ping_timeout), self)
        self.engine.start()
        assert self.ended.wait(TIMEOUT)

    def deliver(self, items: Sequence[Any], size: int) -> None:
        self.items += items
        if isinstance(items[0], Opened):
            self.start = time.monotonic() + self.after
            self.until = self.start + self.seconds
            for moment in (self.after, self.after + self.seconds):
                threading.Timer(moment + 0.001, self.wake).start()
            self.opened.set()
        if isinstance(items[-1], Ending):
            self.ended.set()

    def wake(self) -> None:
        assert self.engine is not None
        self.engine.wake()

    def woken(self) -> None: ...

    def congested(self) -> bool:
        return self.start <= time.monotonic() < self.until

    def idle(self) -> bool:
        return True


def test_a_peer_is_not_given_up_in_the_moment_that_begins_to_listen_again() -> None:
    listener = Busy(0.8)

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(listener.opened)
        c.send_text("there")
        c.read_until(PING)
        c.close(1000)

    with ScriptedServer(script) as server:
        # The ping goes out at 0.6 s, its pong is due at 1 s; nothing is read before 0.8 s.
        listener.run(server.url, ping_interval=0.6, ping_timeout=0.4)
    assert listener.items[1] == "there"
    assert listener.items[-1] == Ending(1000)


@pytest.mark.parametrize("interval", [0.1, 2.5], ids=["pings in the pause", "no ping in the pause"])
def test_a_peer_that_tcp_lets_speak_late_after_we_did_not_read_is_not_given_up(interval: float) -> None:
    listener = Busy(2)

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(listener.opened)
        c.send_text("waits in the system's buffer")
        silence = listener.until + 1.2 - time.monotonic()  # goes on when it is read again, for longer than ping_timeout
        threading.Event().wait(silence)
        c.send_text("sent again by TCP")
        c.close(1000)

    with ScriptedServer(script) as server:
        listener.run(server.url, ping_interval=interval, ping_timeout=0.2)
    assert listener.items[1:3] == ["waits in the system's buffer", "sent again by TCP"]
    assert listener.items[-1] == Ending(1000)


@pytest.mark.parametrize(
    ("seconds", "after", "interval", "at_least", "at_most"),
    [
        (2, 0, 0.1, 1.5, 6),  # as long again as nothing was read
        (0.1, 2.95, 3, 0, 3),  # a moment around a ping: not as long as all that came before
    ],
)
def test_a_peer_that_stays_silent_after_we_did_not_read_is_given_up(
    seconds: float, after: float, interval: float, at_least: float, at_most: float
) -> None:
    listener = Busy(seconds, after)

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(listener.ended)

    with ScriptedServer(script) as server:
        listener.run(server.url, ping_interval=interval, ping_timeout=0.2)
    took = time.monotonic() - listener.until
    assert at_least <= took < at_most
    assert "ping_timeout" in str(listener.items[-1].error)


def take_all(c: Connection) -> None:
    """Read, and understand nothing of it, until the client is gone."""
    with contextlib.suppress(ConnectionResetError):
        while c.sock.recv(65536):
            pass


def fill(ws: bws.WebSocket) -> None:
    """Send until the operating system takes no more."""
    while not ws.bufferedAmount:
        ws.send(bytes(8000))


def test_a_peer_that_read_nothing_for_a_while_finds_the_ping_of_that_time() -> None:
    interval, timeout = 1.5, 1.2
    first, full = threading.Event(), threading.Event()
    opened = 0.0

    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(PING)
        c.send(frame(PONG, ""))
        first.set()
        c.wait_for(full)
        # The second ping waits behind what was not read. It is wanted in time, and the third would be too late.
        threading.Event().wait(max(0.0, opened + 2 * interval + 0.3 - time.monotonic()))
        c.read_until(PING)
        c.send(frame(PONG, ""))
        c.close(1000)

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, ping_interval=interval, ping_timeout=timeout, compression=False)
        recorder = Recorder(ws)
        recorder.wait_for("open")
        opened = time.monotonic()
        assert first.wait(TIMEOUT)
        fill(ws)
        full.set()
        assert recorder.closed()[-1] == ("close", 3, 1000, "", True), recorder.error


@pytest.mark.parametrize("flushes", [False, True])
def test_a_peer_that_takes_what_is_sent_is_not_given_up_before_it_comes_to_the_ping(flushes: bool) -> None:
    full = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(full)
        for _ in range(10):  # for longer than ping_timeout it only reads, and never comes to the ping
            for _ in range(MIB // 65536):
                c.read_until(BINARY)
            c.pause(0.25)
        c.read_until(PING)
        c.send(frame(PONG, ""))
        c.close(1000)

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, ping_interval=0.2, ping_timeout=1.5, compression=False)
        recorder = Recorder(ws)
        recorder.wait_for("open")
        for _ in range(32 * MIB // 65536):
            ws.send(bytes(65536))
        full.set()
        # This takes all the room there is, so that the socket's own thread is never told of any.
        while flushes and not ws.flush(0.02) and ws.readyState == 1:
            pass
        assert recorder.closed()[-1] == ("close", 3, 1000, "", True), recorder.error


def test_a_peer_that_takes_nothing_any_more_is_given_up_although_the_program_sends_on() -> None:
    ended = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(ended)

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, ping_interval=0.1, ping_timeout=0.3, compression=False)
        recorder = Recorder(ws)
        recorder.wait_for("open")
        while not ws.wait_closed(0.005):
            ws.send(bytes(20_000))
        ended.set()
        assert recorder.closed()[-1] == ("close", 3, 1006, "", False)
    assert "ping_timeout" in str(recorder.error)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what the peer's system has acknowledged")
@pytest.mark.parametrize(
    ("size", "rate", "buffer"),
    [(2 * MIB, MIB, 64 * 1024), (5 * MIB, MIB, 64 * 1024), (60_000, 20_000, 2048)],
    ids=["the ping in the system's buffer", "behind a full one", "very slow"],
)
def test_a_network_that_takes_its_time_for_what_the_system_has_in_its_buffer_is_no_dead_peer(
    size: int, rate: int, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tests.faults.proxy, "QUEUE", buffer)

    def script(c: Connection) -> None:
        c.handshake()
        c.behave(lambda data: c.close(1000) if data == "done" else None)

    with ScriptedServer(script) as server, FaultProxy(server.address) as proxy:
        link = proxy.link(up=Fault(rate=rate, piece=rate // 64), receive_buffer=buffer)
        ws = bws.WebSocket(f"ws://127.0.0.1:{link.port}/", ping_interval=0.2, ping_timeout=1, compression=False)
        recorder = Recorder(ws)
        proxy.serve(link)
        recorder.wait_for("open")
        start = time.monotonic()
        for _ in range(20):
            ws.send(bytes(size // 20))
        ws.send("done")
        assert recorder.closed()[-1] == ("close", 3, 1000, "", True), recorder.error
    assert time.monotonic() - start > 1.5  # longer than ping_timeout


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what the peer's system has acknowledged")
@pytest.mark.parametrize("size", [2 * MIB, 5 * MIB], ids=["all in the system's buffer", "more than that"])
def test_a_network_that_takes_its_time_loses_nothing_that_was_sent_before_close(size: int) -> None:
    with ScriptedServer(Connection.handshake) as server, FaultProxy(server.address) as proxy:
        link = proxy.link(up=Fault(rate=MIB, piece=16 * 1024), receive_buffer=64 * 1024)
        ws = bws.WebSocket(f"ws://127.0.0.1:{link.port}/", close_timeout=1, compression=False)
        recorder = Recorder(ws)
        proxy.serve(link)
        recorder.wait_for("open")
        for _ in range(20):
            ws.send(bytes(size // 20))
        ws.close(3000, "done")
        assert recorder.closed()[-1] == ("close", 3, 3000, "done", True)
        assert [len(message) for message in server.result().messages] == [size // 20] * 20


def test_a_peer_that_takes_all_and_does_not_answer_close_is_cut() -> None:
    def script(c: Connection) -> None:
        c.handshake()
        take_all(c)

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, close_timeout=0.5, compression=False)
        recorder = Recorder(ws)
        recorder.wait_for("open")
        for _ in range(20):
            ws.send(bytes(MIB // 10))
        ws.close()
        assert recorder.closed()[-1] == ("close", 3, 1006, "", False)


def test_a_peer_that_only_takes_is_given_up_in_the_end() -> None:
    """As a proxy does when what is behind it is dead."""

    def script(c: Connection) -> None:
        c.handshake()
        take_all(c)

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, ping_interval=0.1, ping_timeout=0.3, compression=False)
        recorder = Recorder(ws)
        recorder.wait_for("open")
        data = bytes(MIB)
        while not ws.wait_closed(0):
            ws.send(data)
            ws.flush(0.001)
        assert recorder.closed()[-1] == ("close", 3, 1006, "", False)
    assert "ping_timeout" in str(recorder.error)


@pytest.mark.parametrize("tls", [(), ("127.0.0.1",)], ids=["tcp", "tls"])
def test_every_byte_is_a_sign_of_life(tls: tuple[str, ...]) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.send(frame(BINARY, bytes(16_000)))  # one record of TLS, which yields nothing before it is whole
        c.close(1000)

    with ScriptedServer(script, tls=tls) as server, FaultProxy(server.address) as proxy:
        link = proxy.link(down=Fault(rate=8000, piece=400))
        url = f"{'wss' if tls else 'ws'}://127.0.0.1:{link.port}/"
        ws = bws.WebSocket(url, ssl=server.ssl_context if tls else None, ping_interval=0.2, ping_timeout=1)
        recorder = Recorder(ws)
        proxy.serve(link)
        assert recorder.closed()[-1] == ("close", 3, 1000, "", True), recorder.error
    assert [len(data) for data in recorder.data] == [16_000]


@pytest.mark.parametrize("pings", [500, 1_500])
def test_a_peer_that_pinged_much_and_is_dead_is_given_up(pings: int) -> None:
    full, ended = threading.Event(), threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(full)
        c.send(frame(PING, "x" * 100) * pings)
        c.wait_for(ended)

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, ping_interval=0.2, ping_timeout=0.5, compression=False)
        recorder = Recorder(ws)
        recorder.wait_for("open")
        fill(ws)
        full.set()
        closed = recorder.closed()
        ended.set()
    assert closed[-1] == ("close", 3, 1006, "", False)
    assert "ping_timeout" in str(recorder.error)


def test_a_peer_that_pinged_much_and_goes_on_talking_is_alive() -> None:
    full = threading.Event()
    texts = [str(number) for number in range(15)]

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(full)
        c.send(frame(PING, "x" * 100) * 1_500)
        for text in texts:
            c.send_text(text)
            c.pause(0.1)
        c.read_until(PONG)
        c.close(1000)

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, ping_interval=0.2, ping_timeout=0.8, compression=False)
        recorder = Recorder(ws)
        recorder.wait_for("open")
        fill(ws)
        full.set()
        assert recorder.closed()[-1] == ("close", 3, 1000, "", True), recorder.error
    assert recorder.data == texts


HOGGED = """
import ctypes, sys, threading, time
import bws

ws = bws.WebSocket(sys.argv[1], ping_interval=0.5, ping_timeout=1)
assert ws.wait_open(20)
start = time.monotonic()
usleep = ctypes.PyDLL(None).usleep  # which does not let go of the interpreter's lock
while not ws.wait_closed(0.01) and time.monotonic() - start < 15:
    usleep(300_000)
print(ws.readyState)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="usleep() is a function of POSIX")
def test_a_program_that_stands_still_all_the_time_notices_a_dead_peer() -> None:
    ended = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(ended)

    with ScriptedServer(script) as server:
        done = run_python(HOGGED, server.url)
        ended.set()
    assert (done.stderr, done.stdout) == ("", "3\n")


STOPPED = """
import sys
import bws

ws = bws.WebSocket(sys.argv[1], ping_interval=0.2, ping_timeout=0.4)
ws.bind("error", lambda evt: print(evt.error))
ws.bind("close", lambda evt: print(evt.code))
ws.wait_closed(20)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a program")
def test_a_program_that_was_stopped_gives_its_peer_as_long_again() -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(PING)
        os.kill(program.pid, signal.SIGSTOP)
        try:
            c.pause(2)
        finally:
            os.kill(program.pid, signal.SIGCONT)
        c.pause(1)  # longer than ping_timeout: TCP may have to send again
        c.close(1000)

    with ScriptedServer(script) as server:
        program = subprocess.Popen(
            [sys.executable, "-c", STOPPED, server.url],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(pathlib.Path(bws.__file__).parents[1])},
        )
        with program:
            assert program.communicate(timeout=TIMEOUT)[0] == "1000\n"


class Late(Busy):
    """One whose thread is called for, and finds when it is back that the relief thread has read a violation."""

    def deliver(self, items: Sequence[Any], size: int) -> None:
        super().deliver(items, size)
        if isinstance(items[0], Opened):
            time.sleep(0.03)  # what comes meanwhile and the call are seen at the same time

    def woken(self) -> None:
        time.sleep(0.25)

    def idle(self) -> bool:
        return False


def test_what_the_relief_thread_found_is_not_read_over() -> None:
    listener = Late(0)

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(listener.opened)
        c.send_text("a")
        c.pause(0.17)
        c.send(b"\xf1\x00")
        c.pause(0.05)
        c.half_close()
        c.drain()

    with ScriptedServer(script) as server:
        listener.run(server.url, ping_interval=20, ping_timeout=20)
    assert listener.items[1] == "a"
    assert listener.items[-1].failed
    assert "reserved bits" in str(listener.items[-1].error)
