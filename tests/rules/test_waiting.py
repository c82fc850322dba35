"""wait_open(), wait_closed() and `with`: for programs that want to wait."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import bws
from tests.conftest import TIMEOUT, Mode, Play, Recorder
from tests.engine.test_outbox import Signal
from tests.wire.frames import TEXT, close_frame, frame, http
from tests.wire.server import Connection, ScriptedServer


def not_found(c: Connection) -> None:
    """Refuse."""
    c.request()
    c.send(http("404 Not Found"))
    c.half_close()


def test_wait_open_is_true_once_the_open_handlers_were_called(mode: Mode) -> None:
    called: list[str] = []
    gate = threading.Event()
    with ScriptedServer(Connection.echo, gate=gate) as server:
        ws = mode.open(server.url)
        ws.bind("open", lambda: called.append("open"))
        assert not ws.wait_open(0)
        assert not ws.wait_open(0.02)
        gate.set()
        assert ws.wait_open(TIMEOUT)
        assert called == ["open"]
        assert ws.readyState == 1
        assert ws.wait_open(0)
        ws.close()
        assert ws.wait_closed(TIMEOUT)
        assert ws.wait_open(0)  # it was open


def test_wait_open_is_false_if_the_connection_failed(mode: Mode) -> None:
    with ScriptedServer(not_found) as server:
        ws = mode.open(server.url)
        assert not ws.wait_open(TIMEOUT)
        assert ws.wait_closed(TIMEOUT)
        assert not ws.wait_open()


def test_wait_closed_is_true_once_the_close_handlers_have_returned(mode: Mode) -> None:
    returned: list[str] = []
    in_handler, leave = threading.Event(), threading.Event()

    def on_close() -> None:
        in_handler.set()
        leave.wait(TIMEOUT)
        returned.append("close")

    with ScriptedServer(Connection.echo) as server:
        ws = mode.open(server.url)
        ws.bind("close", on_close)
        assert ws.wait_open(TIMEOUT)
        assert not ws.wait_closed(0)
        assert not ws.wait_closed(0.02)
        ws.close()
        assert in_handler.wait(TIMEOUT)
        assert ws.readyState == 3
        assert not ws.wait_closed(0.02)
        leave.set()
        assert ws.wait_closed(TIMEOUT)
        assert returned == ["close"]
        assert ws.wait_closed(0)
        assert ws.wait_closed()


@pytest.mark.parametrize("type", ["open", "message", "close"])
@pytest.mark.parametrize("method", ["wait_open", "wait_closed"])
def test_in_a_handler_waiting_raises_instead_of_never_ending(play: Play, type: str, method: str) -> None:
    def wait(r: Recorder, _: object) -> None:
        try:
            getattr(r.ws, method)()
        except RuntimeError as exc:
            r.note("raised", method in str(exc))

    played = play(lambda c: c.handshake(then=frame(TEXT, "x") + close_frame()), on={type: wait})
    assert ("raised", True) in played.entries
    assert played.recorder.of("open", "message", "close") == [
        ("open", 1),
        ("message", 1, "x"),
        ("close", 3, 1005, "", True),
    ]


def test_any_number_of_threads_may_wait(mode: Mode) -> None:
    results: list[bool] = []

    def wait() -> None:
        results.append(ws.wait_open())
        results.append(ws.wait_closed())

    gate = threading.Event()
    with ScriptedServer(lambda c: c.handshake(then=close_frame()), gate=gate) as server:
        ws = mode.open(server.url)
        threads = [threading.Thread(target=wait) for _ in range(5)]
        for thread in threads:
            thread.start()
        gate.set()
        for thread in threads:
            thread.join()
    assert results == [True] * 10


def test_with_waits_for_open_and_closes(request: pytest.FixtureRequest) -> None:
    with ScriptedServer(Connection.echo) as server:
        with bws.WebSocket(server.url) as ws:
            assert ws.readyState == 1
            recorder = Recorder(ws)
            ws.send("hi")
            assert recorder.wait_for("message") == [("message", 1, "hi")]
        assert ws.readyState == 3
        assert recorder.closed()[-1][2] in (1000, 1005)
        assert server.result().messages == ["hi"]


def test_with_waits_for_open_handlers_that_take_long(mode: Mode) -> None:
    """open_timeout is for the connection."""
    done: list[bool] = []

    def slow() -> None:
        threading.Event().wait(2.7)
        done.append(True)

    with ScriptedServer(Connection.echo) as server:
        ws = mode.open(server.url, open_timeout=1.5)
        ws.bind("open", slow)
        with ws:
            assert done == [True]
            assert ws.readyState == ws.OPEN


def test_open_handlers_that_are_bound_late_are_waited_for_too(mode: Mode) -> None:
    runs, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        runs.set()
        assert go_on.wait(TIMEOUT)
        done.set()

    with ScriptedServer(Connection.echo) as server:
        ws = mode.open(server.url, open_timeout=1.5)
        assert ws.wait_open(TIMEOUT)
        ws.bind("open", slow)
        assert runs.wait(TIMEOUT)
        assert not ws.wait_open(0)
        assert not ws.wait_open(0.05)
        threading.Timer(2.7, go_on.set).start()  # when `with` has given up, had it a limit
        with ws:
            assert done.is_set()
            assert ws.wait_open(0)


def test_leaving_with_by_an_exception_closes_and_lets_it_through() -> None:
    with ScriptedServer(Connection.echo) as server:
        with pytest.raises(KeyError, match="mine"), bws.WebSocket(server.url) as ws:
            raise KeyError("mine")
        assert ws.readyState == 3
        assert server.result().close is not None


def test_in_with_the_program_may_close_itself() -> None:
    with ScriptedServer(Connection.echo) as server:
        with bws.WebSocket(server.url) as ws:
            ws.close(3000, "done")
        assert server.result().close == (3000, "done")


def _refused(url: str) -> bws.WebSocket:
    with ScriptedServer(Connection.reset) as server:
        port = server.port
    return bws.WebSocket(f"ws://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (bws.WebSocket, ConnectionError),
        (_refused, ConnectionRefusedError),
        (lambda url: bws.WebSocket(url, open_timeout=0.0001), (TimeoutError, ConnectionError)),
    ],
)
def test_with_raises_connection_error_from_the_real_cause(make: Callable[[str], bws.WebSocket], cause: Any) -> None:
    with ScriptedServer(not_found) as server:
        ws = make(server.url)
        with pytest.raises(ConnectionError) as caught, ws:
            raise AssertionError("it must not open")
        real = caught.value.__cause__ or caught.value
        assert isinstance(real, cause)
        assert ws.wait_closed(TIMEOUT)
        assert ws.readyState == 3


def _interrupt() -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _interrupt_unnoticed() -> None:
    """As where the system gives the signal to another thread, or it comes just before the wait begins."""
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


HOW = [_interrupt, *([_interrupt_unnoticed] if hasattr(signal, "pthread_kill") else [])]


@pytest.mark.parametrize("interrupt", HOW)
@pytest.mark.parametrize("timeout", [None, TIMEOUT])
@pytest.mark.parametrize("method", ["wait_open", "wait_closed", "flush"])
def test_ctrl_c_interrupts_what_waits(
    mode: Mode, method: str, timeout: float | None, interrupt: Callable[[], None]
) -> None:
    reads = threading.Event()

    def script(c: Connection) -> None:
        if method != "wait_open":
            c.handshake()
        c.wait_for(reads)

    with ScriptedServer(script, receive_buffer=4096) as server:
        ws = mode.open(server.url, close_timeout=0.2)
        if method != "wait_open":
            assert ws.wait_open(TIMEOUT)
        if method == "flush":
            ws.send(b"x" * (8 << 20))
        timer = threading.Timer(0.1, interrupt)
        timer.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            getattr(ws, method)(timeout)
        assert time.monotonic() - start < TIMEOUT / 2
        timer.join()
        ws.close()
        reads.set()
        assert ws.wait_closed(TIMEOUT)


def test_waiting_in_a_signal_handler_that_interrupted_send_returns_at_once() -> None:
    """The frame that was interrupted, and the close frame behind it, go out when the handler has returned."""
    results: list[bool] = []

    def handler() -> None:
        ws.close()
        results.append(ws.wait_closed())

    with ScriptedServer(lambda c: c.handshake()) as server:
        ws = bws.WebSocket(server.url)
        assert ws.wait_open(TIMEOUT)
        with Signal(3, handler):
            ws.send("x")
        assert results == [False]
        assert ws.wait_closed(TIMEOUT)
        assert server.result().messages == ["x"]
