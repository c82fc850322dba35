"""What seldom comes together: Ctrl-C in the constructor, no memory at a bad moment, loops that go while waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import bws
from bws._engine import proxies, relief, threaded
from bws._engine.frames import FrameReader
from bws._engine.handshake import HeadReader
from bws._engine.outbox import Outbox
from bws._engine.patience import Patience, write
from bws._engine.relay import relayed
from bws._engine.wire import Stream
from bws._system import Condition, Waker
from bws.dispatch import aio
from tests.conftest import TIMEOUT, Recorder, eventually, run_python
from tests.wire.frames import CLOSE, PING, PONG, TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer
from tests.wire.tls import contexts


def greet(c: Connection) -> None:
    """A message, and then what is expected of a server."""
    c.handshake(then=frame(TEXT, "hello"))
    c.behave()


# -- flush() and wait_...() come back


@pytest.mark.parametrize("dispatched", [False, True])
def test_flush_comes_back_when_the_connection_ends_while_nothing_is_read(dispatched: bool) -> None:
    events = bws.dispatch.Queue()
    flushed: list[tuple[bool, float]] = []
    errors: list[BaseException | None] = []
    reset = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "x") * 20_000)  # more than are read while a handler does not return
        c.wait_for(reset)
        c.reset()

    def on_message(evt: bws.MessageEvent) -> None:
        if flushed:
            return
        for _ in range(40):
            ws.send(bytes(1 << 20))  # more than the operating system takes
        threading.Timer(0.2, reset.set).start()
        start = time.monotonic()
        flushed.append((ws.flush(TIMEOUT), time.monotonic() - start))

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, dispatch=events if dispatched else None)
        ws.bind("message", on_message)
        ws.bind("close", lambda evt: errors.append(evt.error))
        if dispatched:
            assert events.run_until(lambda: errors, TIMEOUT)
        assert ws.wait_closed(TIMEOUT)
    ((whole, seconds),) = flushed
    assert not whole
    assert seconds < TIMEOUT / 2
    assert isinstance(errors[0], OSError)
    assert "the connection was lost" in str(errors[0])


def test_wait_closed_comes_back_when_the_loop_goes_with_what_was_held() -> None:
    loop = asyncio.new_event_loop()
    came: list[bool] = []
    with ScriptedServer(lambda c: c.handshake(then=close_frame(1000))) as server:
        ws = bws.WebSocket(server.url, dispatch=bws.dispatch.asyncio(loop))
        while not ws._close_done:  # then the event is held
            loop.run_until_complete(asyncio.sleep(0.005))
        ws.bind("close", lambda: None)  # and nobody runs the loop
        waiter = threading.Thread(target=lambda: came.append(ws.wait_closed(TIMEOUT)))
        waiter.start()
        eventually(lambda: ws._changed is not None and bool(ws._changed._waiting))
        start = time.monotonic()
        loop.close()
        waiter.join(TIMEOUT)
    assert came == [True]
    assert time.monotonic() - start < TIMEOUT / 2


def test_wait_open_does_not_wait_for_the_handler_of_a_message() -> None:
    leave = threading.Event()
    with ScriptedServer(greet) as server:
        ws = bws.WebSocket(server.url)
        eventually(ws._holds_messages)
        ws.bind("message", lambda: leave.wait(TIMEOUT))
        start = time.monotonic()
        assert ws.wait_open(TIMEOUT)
        leave.set()
        assert time.monotonic() - start < TIMEOUT / 2
        ws.close()
        assert ws.wait_closed(TIMEOUT)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no timer that sends signals")
def test_ctrl_c_is_all_that_comes_out_of_a_wait() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    lock = threading.RLock()
    condition = Condition(lock)
    came: list[type[BaseException]] = []
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(3_000):
            try:
                try:
                    with lock:
                        signal.setitimer(signal.ITIMER_REAL, 1e-6 * (number % 60 + 1))
                        condition.wait_for(lambda: False, 0.001)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except BaseException as exc:
                came.append(type(exc))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert came
    assert set(came) == {KeyboardInterrupt}


def test_wait_closed_comes_back_when_a_loop_that_tells_nobody_was_closed() -> None:
    loop = asyncio.new_event_loop()
    with ScriptedServer(greet) as server:
        ws = bws.WebSocket(server.url, dispatch=loop.call_soon_threadsafe)
        eventually(lambda: ws._delivery._scheduled)  # type: ignore[union-attr]
        timer = threading.Timer(0.1, loop.close)
        timer.start()
        start = time.monotonic()
        assert ws.wait_closed(TIMEOUT)
        assert time.monotonic() - start < TIMEOUT / 2
        timer.join()
        assert ws.wait_closed(0)


def test_flush_comes_back_when_a_close_frame_takes_the_rest_along() -> None:
    def filled(size: int) -> tuple[Outbox, socket.socket, socket.socket]:
        pair, far = socket.socketpair()
        near = Stream(fileno=pair.detach())
        near.setblocking(False)
        far.setblocking(False)
        outbox = Outbox()
        outbox.open(near, None)
        outbox.send(2, bytes(size))
        return outbox, near, far

    much = 900_000
    outbox, near, far = filled(much)
    taken = much - outbox.pending()
    near.close()
    far.close()
    outbox, near, far = filled(taken + 10_000)
    assert outbox.pending()
    came: list[bool] = []
    waiter = threading.Thread(target=lambda: came.append(outbox.wait(TIMEOUT)))
    waiter.start()
    eventually(lambda: outbox._drained is not None and outbox._drained._waiting)
    start = time.monotonic()
    with contextlib.suppress(BlockingIOError):
        while True:
            far.recv(1 << 20)
    outbox.send(8, b"", message=False)
    assert not outbox.pending()
    waiter.join(TIMEOUT)
    near.close()
    far.close()
    assert came == [True]
    assert time.monotonic() - start < TIMEOUT / 2


def test_close_at_the_same_time_as_the_peers_leaves_no_timer_that_is_due_for_ever() -> None:
    leave = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(CLOSE)
        c.send(close_frame(1000))
        c.wait_for(leave)

    with ScriptedServer(script) as server, bws.WebSocket(server.url, close_timeout=TIMEOUT) as ws:
        engine: Any = ws._engine
        ws.close()
        eventually(lambda: engine._peer_close is not None)
        with engine._io:
            engine._close_due = time.monotonic() - 1  # as by a close() that was held up behind its look
            engine._check_timers()
            assert engine._close_due is None
        leave.set()


# -- starting


@pytest.mark.parametrize("begun", [False, True], ids=["before the thread is there", "when it is"])
@pytest.mark.parametrize("cut", [False, True], ids=["told", "with a lock amiss"])
def test_ctrl_c_in_the_constructor_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, begun: bool, cut: bool
) -> None:
    start = threading.Thread.start
    interrupted: list[threading.Thread] = []

    def start_and_raise(self: threading.Thread) -> None:
        if self.name.startswith("bws ws") and not interrupted:
            interrupted.append(self)
            if begun:
                start(self)
            if cut:
                try:
                    raise KeyboardInterrupt
                finally:
                    threading.Lock().release()
            raise KeyboardInterrupt
        start(self)

    with (
        ScriptedServer(Connection.behave) as silent,
        ScriptedServer(Connection.echo) as server,
        bws.WebSocket(server.url),
    ):
        present = relief._present
        assert present is not None
        before = present.engines
        monkeypatch.setattr(threading.Thread, "start", start_and_raise)
        with pytest.raises(KeyboardInterrupt):
            bws.WebSocket(silent.url)
        monkeypatch.undo()
        eventually(lambda: not interrupted[0].is_alive())
        assert (relief._present, present.engines) == (present, before)


def test_no_memory_when_it_opens_fails_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory() -> None:
        raise MemoryError

    monkeypatch.setattr(threaded, "keep_freed_memory", no_memory)
    with ScriptedServer(greet) as server:
        recorder = Recorder(bws.WebSocket(server.url))
        assert recorder.closed() == [("error", 3), ("close", 3, 1006, "", False)]
    assert isinstance(recorder.error, MemoryError)


def test_no_memory_for_what_comes_in_a_conversation_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def feed(reader: FrameReader, data: bytes) -> bool:
        if b"large" in data:
            raise MemoryError
        return read(reader, data)

    def script(c: Connection) -> None:
        c.handshake()
        for text in ("small", "small", "large"):
            c.send_text(text)
            if text == "small":
                c.read_until(TEXT)
        c.drain()

    read = FrameReader.feed
    monkeypatch.setattr(FrameReader, "feed", feed)
    with ScriptedServer(script) as server:
        recorder = Recorder(bws.WebSocket(server.url), {"message": lambda r, evt: r.ws.send(evt.data)})
        small = ("message", 1, "small")
        assert recorder.closed() == [("open", 1), small, small, ("error", 3), ("close", 3, 1006, "", False)]
    assert isinstance(recorder.error, MemoryError)


def test_websocket_clients_own_reconnecting_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("websocket._app.RECONNECT", 1)  # what its setReconnect() sets
    monkeypatch.setattr(threaded.ThreadedEngine, "_turn", no_memory)
    bound = threading.Event()
    with ScriptedServer(Connection.echo, gate=bound) as server:
        recorder = Recorder(bws.WebSocket(server.url))
        bound.set()
        assert recorder.closed() == [("open", 1), ("error", 3), ("close", 3, 1006, "", False)]
    assert isinstance(recorder.error, MemoryError)


# -- the way there


@pytest.mark.parametrize("how", ["close", "open_timeout"])
def test_what_asks_the_system_for_a_proxy_can_be_given_up(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    asked, leave = threading.Event(), threading.Event()

    def look_up(_: object) -> None:
        asked.set()
        leave.wait(TIMEOUT)

    monkeypatch.setattr(proxies, "proxy_possible", lambda: True)
    monkeypatch.setattr(proxies, "proxy_asks_dns", lambda: True)
    monkeypatch.setattr(proxies, "_environments", look_up)
    recorder = Recorder(bws.WebSocket("ws://127.0.0.1:9/", open_timeout=0.1 if how == "open_timeout" else None))
    assert asked.wait(TIMEOUT)
    if how == "close":
        recorder.ws.close()
    assert recorder.closed() == [("error", 3), ("close", 3, 1006, "", False)]
    if how == "open_timeout":
        assert "asking the system for a proxy" in str(recorder.error)
    leave.set()


def test_localhost_needs_no_table_of_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with ScriptedServer(Connection.echo) as server:
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        with bws.WebSocket(f"ws://localhost:{server.port}/") as ws:
            assert ws.readyState == 1


def test_a_peer_that_aborts_while_the_request_goes_out_may_have_answered() -> None:
    class Aborted:
        def send(self, data: bytes) -> int:
            raise ConnectionAbortedError  # what Windows says of a reset

    with contextlib.closing(Waker()) as waker:
        write(Aborted(), b"GET", Patience(waker, bool, None))  # type: ignore[arg-type]
    assert HeadReader().feed(b"HTTP/1.1 400 Bad\r\n\r\n") is not None


def test_behind_an_https_proxy_what_is_half_closed_still_reads() -> None:
    server, client = contexts("localhost")
    outside, inside = socket.socketpair()
    done = threading.Event()

    def serve() -> None:
        with server.wrap_socket(inside, server_side=True) as tls:
            assert tls.recv(100) == b"bye"
            for _ in range(50):
                tls.send(bytes(1 << 16))
            done.set()
            with contextlib.suppress(OSError):
                tls.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    tls = client.wrap_socket(outside, server_hostname="localhost")
    tls.setblocking(False)
    plain = relayed(tls)
    plain.setblocking(True)
    plain.sendall(b"bye")
    plain.shutdown(socket.SHUT_WR)
    got = 0
    while got < 50 << 16:
        data = plain.recv(1 << 16)
        assert data
        got += len(data)
    assert done.wait(TIMEOUT)
    plain.close()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    eventually(lambda: not any(thread.name == "bws relay" for thread in threading.enumerate()))


# -- the threads that stand in


def test_the_thread_that_stands_in_is_followed_by_another_when_it_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = relief.Relief._turn
    failed: list[type[BaseException] | None] = []
    died, answered, leave = threading.Event(), threading.Event(), threading.Event()

    def fail_once(self: relief.Relief, *args: Any) -> None:
        if not failed:
            failed.append(None)
            raise RuntimeError("from the test")
        turn(self, *args)

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "first"))
        c.wait_for(died)
        c.send(frame(TEXT, "second") + frame(PING, "still there?"))
        c.read_until(PONG)
        answered.set()
        c.behave()

    def on_message(evt: bws.MessageEvent) -> None:
        (died if evt.data == "first" else leave).wait(TIMEOUT)

    def hook(args: threading.ExceptHookArgs) -> None:
        failed[0] = args.exc_type
        died.set()

    monkeypatch.setattr(relief.Relief, "_turn", fail_once)
    monkeypatch.setattr(threading, "excepthook", hook)
    with ScriptedServer(script) as server, bws.WebSocket(server.url) as ws:
        ws.bind("message", on_message)
        assert answered.wait(TIMEOUT)
        leave.set()
    assert failed == [RuntimeError]


def test_a_wake_in_the_middle_of_clearing_does_not_stop_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(Waker()) as waker:
        if not hasattr(os, "eventfd"):
            pytest.skip("there is a socket pair instead, whose recv() cannot be replaced")
        read = os.eventfd_read

        def wake_and_read(descriptor: int) -> int:
            waker.wake()  # as a signal handler may
            return read(descriptor)

        waker.wake()
        monkeypatch.setattr(os, "eventfd_read", wake_and_read)
        waker.clear()
        monkeypatch.undo()
        waker.wake()
        assert read(waker.fileno())


def test_reading_that_waits_to_write_is_not_polled_for_while_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(Connection.echo) as server, bws.WebSocket(server.url) as ws:
        engine: Any = ws._engine
        with monkeypatch.context() as patch:
            patch.setattr(threaded.ThreadedEngine, "_may_read", lambda _: False)
            engine._write_to_read = True  # as after SSLWantWriteError
            assert engine.interest()[1:3] == (False, False)
            engine._write_to_read = False


def test_reading_that_waits_to_write_waits_for_nothing_else() -> None:
    """What lies there and cannot be read would be found again and again."""
    with ScriptedServer(Connection.echo) as server, bws.WebSocket(server.url) as ws:
        assert ws.wait_open(TIMEOUT)
        engine: Any = ws._engine
        assert engine.interest()[1:3] == (True, False)
        engine._write_to_read = True  # as after SSLWantWriteError
        assert engine.interest()[1:3] == (False, True)
        engine._write_to_read = False


def test_who_writes_tells_reading_that_waits_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been the sender who has written what was waited for, and has filled the network again."""
    with ScriptedServer(Connection.handshake) as server, bws.WebSocket(server.url) as ws:
        assert ws.wait_open(TIMEOUT)
        engine: Any = ws._engine
        woken: list[bool] = []
        with monkeypatch.context() as patch:
            patch.setattr(threaded.ThreadedEngine, "wake", lambda self: woken.append(self._write_to_read))
            engine._polls_write = engine._outbox.waiting = True  # as when the system takes no more
            engine._outbox._at_most = -1  # which looks after what waits
            ws.send("one")
            engine._write_to_read = True
            engine._outbox._at_most = -1
            ws.send("two")
            engine._write_to_read = engine._polls_write = engine._outbox.waiting = False
        assert woken == [True]


# -- odd callables


def test_what_only_a_type_checker_imports_may_be_in_annotations(tmp_path: Any) -> None:
    future = "" if sys.version_info >= (3, 14) else "from __future__ import annotations\n"
    program = f"""{future}
import bws, functools
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from elsewhere import Event, Call
class Handler:
    def __call__(self, evt: Event) -> None: ...
def handler(evt: Event, *, option: Event = None) -> None: ...
def dispatch(call: Call) -> None: call()
ws = bws.WebSocket("ws://127.0.0.1:9/", dispatch=dispatch)
for one in (Handler(), handler, functools.partial(handler, option=1)):
    ws.bind("close", one)
ws.close()
print("done")
"""
    file = tmp_path / "program.py"
    file.write_text(program)
    assert run_python(f"import runpy; runpy.run_path({str(file)!r})").stdout == "done\n"


def test_a_function_that_no_module_has_may_be_dispatch() -> None:
    names: dict[str, Any] = {"__name__": None}
    exec("def post(call): call()", names)
    with ScriptedServer(Connection.echo) as server, bws.WebSocket(server.url, dispatch=names["post"]) as ws:
        assert ws.readyState == 1


def test_an_adapter_may_be_made_while_one_is_made() -> None:
    loop = asyncio.new_event_loop()
    made: list[Callable[..., object]] = []
    with aio._lock:  # as in a signal handler
        made.append(bws.dispatch.asyncio(loop))
    assert made
    loop.close()


# -- fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork()")
def test_a_child_keeps_no_connection_that_lingers() -> None:
    program = """
import os, sys, bws
ws = bws.WebSocket(sys.argv[1])
ws.bind("close", lambda: None)
ws.wait_closed(20)
descriptor = ws._engine._sock.fileno()
child = os.fork()
if not child:
    try:
        os.fstat(descriptor)
    except OSError:
        os._exit(7)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=bytes.fromhex("8f 00"))  # a reserved opcode
        c.wait_for(done)  # TCP stays open

    with ScriptedServer(script) as server:
        result = run_python(program, server.url)
        done.set()
    assert (result.stdout, result.stderr) == ("7\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork()")
def test_a_handler_that_forks_gets_nothing_more_in_the_child() -> None:
    program = """
import os, sys, time, bws
events, children = bws.dispatch.Queue(), []
ws = bws.WebSocket(sys.argv[1], dispatch=events)
ws.bind("message", lambda: children.append(os.fork()))
while ws._delivery._count < 3:  # the close frame is in, too
    time.sleep(0.005)
events.run_pending()
if not children[0]:
    sys.stderr.flush()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
"""
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "hello") + close_frame(1000))) as server:
        result = run_python(program, server.url)
    assert (result.stdout, result.stderr) == ("7\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork()")
def test_a_child_may_use_a_queue_that_another_thread_was_filling() -> None:
    program = """
import os, threading
import bws
events = bws.dispatch.Queue()
held, forked = threading.Event(), threading.Event()
def hold():
    with events._lock:
        held.set()
        forked.wait(20)
threading.Thread(target=hold, daemon=True).start()
held.wait(20)
child = os.fork()
if not child:
    events(lambda: os._exit(7))
    events.run_pending()
    os._exit(1)
forked.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(program).stdout == "7\n"
