"""The edges: hooks that raise, threads that cannot start, loops that are not there, slow peers."""

from __future__ import annotations

import contextlib
import logging
import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from types import FrameType
from typing import Any

import pytest

import bws
from bws import _target
from bws._engine import tcp, threaded
from bws._engine.deflate import DeflateStream
from bws._engine.outbox import Outbox
from bws.testing import EchoServer
from tests.conftest import TIMEOUT, Mode, Recorder, eventually, is_open, run_python, settle
from tests.wire.frames import BINARY, CLOSE, PING, PONG, TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

Call = Callable[[], None]
HELLO = frame(TEXT, "hello") + close_frame(1000)


def greet(c: Connection) -> None:
    """A message, and a close frame."""
    c.handshake(then=HELLO)


def bad(*_: object) -> None:
    raise ValueError("from a handler")


def greeted(on: dict[str, Callable[[Recorder, Any], object]]) -> list[Any]:
    """The events of a socket that such a server greets when the handlers are bound."""
    gate = threading.Event()
    with ScriptedServer(greet, gate=gate) as server:
        recorder = Recorder(bws.WebSocket(server.url), on)
        gate.set()
        return recorder.closed()


# -- the hooks that hear of a handler's exception


class Loop:
    """What `dispatch` may be a method of: a loop that runs things on the test's thread, and has a hook."""

    def __init__(self, hook: Callable[[Any], object]) -> None:
        self.calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._hook = hook

    def put(self, call: Call) -> None:
        self.calls.put(call)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._hook(context["exception"])

    def run(self, recorder: Recorder) -> list[Any]:
        """Run what comes until the socket has closed."""
        while not recorder.of("close"):
            self.calls.get(timeout=TIMEOUT)()
        return recorder.entries


class Put:
    """A `dispatch` that has a hook of its own."""

    def __init__(self, loop: Loop, hook: Callable[[BaseException], object]) -> None:
        self._put = loop.put
        self.report_exception = hook

    def __call__(self, call: Call) -> None:
        self._put(call)


def dispatched(kind: str, hook: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The events of a socket whose message handler raises, with this hook in this place."""
    other: list[BaseException] = []
    loop = Loop(hook if kind == "loop" else other.append)
    dispatch: Callable[[Call], object] = loop.put
    if kind == "dispatch":
        dispatch = Put(loop, hook)
    elif kind == "sys":
        dispatch = loop.calls.put
        monkeypatch.setattr(sys, "excepthook", lambda _type, exc, _traceback: hook(exc))
    with ScriptedServer(greet) as server:
        entries = loop.run(Recorder(bws.WebSocket(server.url, dispatch=dispatch), {"message": bad}))
    assert other == []
    return entries


@pytest.mark.parametrize("kind", ["loop", "dispatch", "sys"])
def test_an_exception_goes_to_the_nearest_hook(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[BaseException] = []
    entries = dispatched(kind, raised.append, monkeypatch)
    assert [str(exc) for exc in raised] == ["from a handler"]
    assert entries == [("open", 1), ("message", 1, "hello"), ("close", 3, 1000, "", True)]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("loop", KeyError),
        ("dispatch", KeyError),
        ("sys", KeyError),
        ("threading", KeyError),
        ("threading", KeyboardInterrupt),  # the socket's thread is none that Ctrl-C reaches
    ],
)
def test_a_hook_that_raises_is_logged_and_ends_nothing(
    kind: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(_: object) -> None:
        raise error("from the hook")

    if kind == "threading":
        monkeypatch.setattr(threading, "excepthook", hook)
        entries = greeted({"message": bad})
    else:
        entries = dispatched(kind, hook, monkeypatch)
    assert entries == [("open", 1), ("message", 1, "hello"), ("close", 3, 1000, "", True)]
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.name for record in errors] == ["bws"]
    assert errors[0].exc_info is not None
    assert isinstance(errors[0].exc_info[1], error)


def test_ctrl_c_in_a_hook_on_the_main_thread_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def hook(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading, "excepthook", hook)
    with ScriptedServer(greet) as server:
        ws = bws.WebSocket(server.url)
        ws.addEventListener("mine", lambda: 1 / 0)
        with pytest.raises(KeyboardInterrupt):
            ws.dispatchEvent(bws.DOMEvent("mine"))
        ws.close()
        assert ws.wait_closed(TIMEOUT)


def test_system_exit_of_one_handler_does_not_keep_the_others_from_running() -> None:
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    left: list[object] = []
    with ScriptedServer(greet) as server:
        ws = bws.WebSocket(server.url, dispatch=calls.put)
        ws.bind("message", lambda: sys.exit(3))
        recorder = Recorder(ws)
        while not recorder.of("close"):
            try:
                calls.get(timeout=TIMEOUT)()
            except SystemExit as exc:
                left.append(exc.code)
    assert left == [3]
    assert recorder.types == ["open", "message", "close"]


def test_system_exit_where_dispatch_runs_things_at_once_ends_the_socket() -> None:
    gate = threading.Event()  # what came before bind() would be delivered in there, and leave through it
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "hello")), gate=gate) as server:
        recorder = Recorder(
            bws.WebSocket(server.url, dispatch=lambda call: call()), {"message": lambda *_: sys.exit(3)}
        )
        gate.set()
        assert recorder.closed()[-1][:2] == ("close", 3)
        assert server.result().close == (1001, "")


class Leave(BaseException):
    """As KeyboardInterrupt, or what pytest.fail() raises."""


def test_what_a_handler_raises_where_dispatch_runs_things_at_once_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the connection stays, as without `dispatch`."""
    gate = threading.Event()
    hooked: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, exc, traceback: hooked.append(str(exc)))

    def raises(r: Recorder, evt: Any) -> None:
        if evt.data != "still there":
            raise Leave(evt.data)
        r.ws.close(1000)

    script = lambda c: c.handshake(then=frame(TEXT, "a") + frame(TEXT, "b") + frame(TEXT, "still there"))  # noqa: E731
    with ScriptedServer(script, gate=gate) as server:
        recorder = Recorder(bws.WebSocket(server.url, dispatch=lambda call: call()), {"message": raises})
        recorder.ws.bind("message", lambda evt: raises(recorder, evt))
        gate.set()
        entries = recorder.closed()
    assert entries == [
        ("open", 1),
        ("message", 1, "a"),
        ("message", 1, "b"),
        ("message", 1, "still there"),
        ("close", 3, 1000, "", True),
    ]
    assert sorted(hooked) == ["a", "a", "b", "b"]


def test_a_handler_bound_meanwhile_does_not_make_it_a_failure_of_dispatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As here, where `dispatch` takes its time before it lets through what the handler let out."""
    hooked: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, exc, traceback: hooked.append(str(exc)))
    left, bound, reported = threading.Event(), threading.Event(), threading.Event()

    def dispatch(call: Call) -> None:
        try:
            call()
        except Leave:
            left.set()
            assert bound.wait(TIMEOUT)
            raise

    def on_message(evt: bws.MessageEvent) -> None:
        if evt.data == "leave":
            raise Leave("the handler's")
        reported.set()

    def on_open() -> None:
        bound.set()
        assert reported.wait(TIMEOUT)  # until then the drain is under way on another thread

    with ScriptedServer(Connection.echo) as server:
        ws = bws.WebSocket(server.url, dispatch=dispatch)
        assert ws.wait_open(TIMEOUT)
        ws.bind("message", on_message)
        ws.send("leave")
        assert left.wait(TIMEOUT)
        late = threading.Thread(target=ws.bind, args=("open", on_open))
        late.start()
        eventually(lambda: hooked)
        assert hooked == ["the handler's"]
        assert ws.readyState == ws.OPEN
        reported.set()
        late.join(TIMEOUT)
        ws.send("go on")
        ws.close()
        assert ws.wait_closed(TIMEOUT)
        assert server.result().messages == ["leave", "go on"]


class Trampoline:
    """A dispatch that runs what it is given at once, one after the other: what is given meanwhile is next."""

    def __init__(self) -> None:
        self._calls: dict[int, list[Call]] = {}  # of each thread

    def __call__(self, call: Call) -> None:
        me = threading.get_ident()
        if me in self._calls:
            self._calls[me].append(call)
            return
        calls = self._calls[me] = [call]
        raised: list[BaseException] = []
        while calls:
            try:
                calls.pop(0)()
            except BaseException as exc:
                raised.append(exc)
        del self._calls[me]
        if raised:
            raise raised[0]


class Worker:
    """A dispatch that has it done by another thread, and waits for the result."""

    def __init__(self) -> None:
        self._pool = futures.ThreadPoolExecutor(1)
        self._worker = self._pool.submit(threading.get_ident).result()

    def __call__(self, call: Call) -> None:
        if threading.get_ident() == self._worker:
            call()
        else:
            self._pool.submit(call).result()


@pytest.mark.parametrize("kind", [Trampoline, Worker])
@pytest.mark.parametrize("at", [0, 20])
@pytest.mark.parametrize("leaves", [KeyboardInterrupt, SystemExit])
def test_what_a_handler_lets_out_comes_back_by_any_dispatch_as_what_it_is(
    kind: Callable[[], Callable[[Call], None]], at: int, leaves: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    hooked: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, exc, traceback: hooked.append(kind))
    gate = threading.Event()
    got: list[str] = []
    codes: list[int] = []

    def on_message(evt: bws.MessageEvent) -> None:
        got.append(evt.data)
        threading.Event().wait(0.003)  # so that they take several turns of the loop
        if evt.data == str(at):
            raise leaves
        if evt.data == "49" and leaves is KeyboardInterrupt:
            ws.close(1000)

    script = lambda c: c.handshake(then=b"".join(frame(TEXT, str(n)) for n in range(50)))  # noqa: E731
    with ScriptedServer(script, gate=gate) as server:
        ws = bws.WebSocket(server.url, dispatch=kind())
        ws.bind("message", on_message)
        ws.bind("close", lambda evt: codes.append(evt.code))
        gate.set()
        assert ws.wait_closed(TIMEOUT)
        seen = server.result().close
    if leaves is SystemExit:
        assert (seen, codes, hooked) == ((1001, ""), [1001], [])
    else:
        assert got == [str(n) for n in range(50)]
        assert (seen, codes, hooked) == ((1000, ""), [1000], [KeyboardInterrupt])


@pytest.mark.parametrize("leaves", [KeyboardInterrupt, SystemExit])
def test_what_a_handler_let_out_ends_the_connection_once_dispatch_runs_nothing_any_more(
    leaves: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And raises the same from then on, as a pool whose worker has ended by it may."""
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    ended: list[BaseException] = []

    def dispatch(call: Call) -> None:
        if ended:
            raise ended[0]
        try:
            call()
        except BaseException as exc:
            ended.append(exc)
            raise

    def on_message() -> None:
        raise leaves

    with ScriptedServer(Connection.echo) as server:
        ws = bws.WebSocket(server.url, dispatch=dispatch)
        assert ws.wait_open(TIMEOUT)
        ws.bind("message", on_message)
        ws.send("leave")
        eventually(lambda: ended)
        ws.send("too late")
        ws.close()
        assert ws.wait_closed(TIMEOUT)


class Serial:
    """A dispatch for several sockets that runs one call at a time, on the thread of whoever came first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._running = False

    def __call__(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)
            if self._running:
                return
            self._running = True
        raised: list[BaseException] = []
        while True:
            with self._lock:
                if not self._calls:
                    self._running = False
                    break
                call = self._calls.pop(0)
            try:
                call()
            except BaseException as exc:
                raised.append(exc)
        if raised:
            raise raised[0]


@pytest.mark.parametrize("leaves", [KeyboardInterrupt, SystemExit])
def test_what_a_handler_lets_out_is_its_own_socket_s_also_on_the_thread_of_another_one(
    leaves: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    hooked: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, exc, traceback: hooked.append(kind))
    runs, go_on = threading.Event(), threading.Event()
    codes: list[int] = []

    def slowly(evt: bws.MessageEvent) -> None:
        runs.set()
        assert go_on.wait(TIMEOUT)

    def on_message(evt: bws.MessageEvent) -> None:
        raise leaves

    with ScriptedServer(Connection.echo) as one, ScriptedServer(Connection.echo) as other:
        dispatch = Serial()
        mine, theirs = bws.WebSocket(one.url, dispatch=dispatch), bws.WebSocket(other.url, dispatch=dispatch)
        assert mine.wait_open(TIMEOUT)
        assert theirs.wait_open(TIMEOUT)
        mine.bind("message", slowly)
        theirs.bind("message", on_message)
        theirs.bind("close", lambda evt: codes.append(evt.code))
        mine.send("x")
        assert runs.wait(TIMEOUT)
        theirs.send("y")
        eventually(lambda: dispatch._calls)  # it waits behind the other's
        go_on.set()
        if leaves is SystemExit:
            assert theirs.wait_closed(TIMEOUT)
            assert codes == [1001]
        else:
            eventually(lambda: hooked)
            assert theirs.readyState == theirs.OPEN
        assert mine.readyState == mine.OPEN
        mine.send("still there")
        for ws in (mine, theirs):
            ws.close()
            assert ws.wait_closed(TIMEOUT)
        assert one.result().messages == ["x", "still there"]


def test_ctrl_c_on_the_way_to_dispatch_leaves_the_thread_the_handlers_one() -> None:
    """`wait_closed` tells there that it would wait for ever."""
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    came = False

    def look(code: FrameType, kind: str, arg: Any) -> None:
        nonlocal came
        if kind == "c_return" and getattr(arg, "__name__", "") == "add" and not came:
            came = True
            raise KeyboardInterrupt

    looked = threading.Event()

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "held"))
        c.wait_for(looked)  # and does not answer a close frame before that

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, dispatch=calls.put)
        while not ws._held.get("message"):
            calls.get(timeout=TIMEOUT)()
        sys.setprofile(look)
        try:
            with pytest.raises(KeyboardInterrupt):
                ws.bind("message", lambda: ws.close())
        finally:
            sys.setprofile(None)
        assert came
        ws.bind("error", print)
        ws.unbind("message")
        ws.bind("message", lambda: ws.close())
        calls.get(timeout=TIMEOUT)()
        assert ws.readyState == ws.CLOSING
        with pytest.raises(RuntimeError, match="on the thread that runs this socket's handlers"):
            ws.wait_closed(TIMEOUT)
        looked.set()
        while ws.readyState != ws.CLOSED:
            calls.get(timeout=TIMEOUT)()


def test_a_dispatch_that_raises_when_all_is_delivered_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def dispatch(call: Call) -> None:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(TIMEOUT)
        raise Leave("dispatch's")

    caplog.set_level(logging.INFO, "bws")
    with ScriptedServer(Connection.handshake) as server:
        ws = bws.WebSocket(server.url, dispatch=dispatch)
        assert ws.wait_closed(TIMEOUT)
        assert server.result().close == (1001, "")
    assert [record.levelname for record in caplog.records if "dispatch raised Leave" in record.message] == ["WARNING"]


class ShutDown(Exception):
    """As that of `queue` in Python 3.13."""


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (TypeError("a mistake"), "WARNING"),
        (KeyboardInterrupt(), "WARNING"),
        (SystemExit(3), "WARNING"),
        (RecursionError(), "WARNING"),
        (NotImplementedError(), "WARNING"),
        (RuntimeError("the loop is closed"), "INFO"),
        (AssertionError("No wx.App created yet"), "INFO"),
        (ShutDown(), "INFO"),
    ],
)
def test_a_dispatch_that_raises_is_named(caplog: pytest.LogCaptureFixture, error: BaseException, level: str) -> None:
    def dispatch(call: Call) -> None:
        raise error

    caplog.set_level(logging.INFO, "bws")
    with ScriptedServer(Connection.handshake) as server:
        with (
            pytest.raises(ConnectionError, match="dispatch raised") as caught,
            bws.WebSocket(server.url, dispatch=dispatch),
        ):
            pytest.fail("is not entered")
        assert caught.value.__cause__ is error
    told = [record for record in caplog.records if "dispatch raised" in record.message]
    assert [(record.levelname, repr(error) in record.message) for record in told] == [(level, True)]


# -- calls from several threads


def test_of_two_threads_that_close_the_first_one_s_code_goes_out(caplog: pytest.LogCaptureFixture) -> None:
    """However late it comes to the network: here a log handler holds it up."""
    second = threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "close() was called" in record.getMessage() and not second.is_set():
                closer = threading.Thread(target=ws.close, args=(3001, "second"))
                closer.start()
                closer.join(TIMEOUT)
                second.set()

    slow = Slow()
    caplog.set_level(logging.INFO, "bws")
    logging.getLogger("bws").addHandler(slow)
    try:
        with ScriptedServer(Connection.handshake) as server:
            ws = bws.WebSocket(server.url)
            assert ws.wait_open(TIMEOUT)
            ws.close(1000, "first")
            assert ws.wait_closed(TIMEOUT)
            assert server.result().close == (1000, "first")
    finally:
        logging.getLogger("bws").removeHandler(slow)
    assert second.is_set()


def test_pings_are_noted_in_the_order_in_which_they_go_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the pong of one would be told to the other's callback."""
    told: list[str] = []
    both = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        first, second = c.read_frame().payload, c.read_frame().payload
        assert (first, second) == (b"second", b"first")
        c.send(frame(PONG, first) + frame(TEXT, "between") + frame(PONG, second))
        c.behave()

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url)
        ws.bind("message", lambda: told.append("message"))
        assert ws.wait_open(TIMEOUT)
        send = Outbox.send

        def overtaken(box: Outbox, opcode: int, payload: Any, message: bool = True) -> bool:
            if payload == b"first":  # another thread's gets in between
                other = threading.Thread(target=ws.ping, args=(b"second", lambda seconds: told.append("second")))
                other.start()
                other.join(TIMEOUT)
            return send(box, opcode, payload, message)

        def first(seconds: float) -> None:
            told.append("first")
            both.set()

        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "send", overtaken)
            ws.ping(b"first", first)
        assert both.wait(TIMEOUT)
        ws.close()
        assert ws.wait_closed(TIMEOUT)
        server.result()
    assert told == ["second", "message", "first"]


def inside(thread: threading.Thread, function: Any) -> bool:
    """Whether the thread is in a call of the function."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


def test_a_signal_handler_that_pings_inside_send_waits_for_nobody() -> None:
    """As it may have interrupted what another thread's ping waits for."""
    with ScriptedServer(Connection.echo) as server:
        ws = bws.WebSocket(server.url)
        assert ws.wait_open(TIMEOUT)
        engine: Any = ws._engine
        with engine._outbox.lock:
            other = threading.Thread(target=ws.ping, args=(b"other",))
            other.start()
            eventually(lambda: inside(other, Outbox.send))  # where it waits for the lock
            ws.ping(b"mine")
        other.join(TIMEOUT)
        assert not other.is_alive()
        ws.close()
        assert ws.wait_closed(TIMEOUT)


@pytest.mark.parametrize("payload", ["large " * 40_000, b"large " * 40_000])
def test_a_large_message_is_compressed_while_others_may_send(
    payload: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress = DeflateStream.deflate
    free: list[bool] = []

    def while_others_send(self: DeflateStream, data: bytes | memoryview) -> bytes | None:
        if len(data) > 1_000:
            other = threading.Thread(target=ws.send, args=("other",), daemon=True)
            other.start()
            other.join(TIMEOUT)
            free.append(not other.is_alive())
        return compress(self, data)

    with EchoServer() as server, bws.WebSocket(server.url) as ws:
        assert ws.extensions.startswith("permessage-deflate")
        monkeypatch.setattr(DeflateStream, "deflate", while_others_send)
        ws.send(payload)
        assert [server.next_message(TIMEOUT) for _ in range(2)] == ["other", payload]
    assert free == [True]


# -- what is sent when it is too late


@pytest.mark.parametrize("how", ["end", "reset", "violation"])
def test_what_is_sent_before_the_handlers_hear_of_the_end_is_not_counted_and_flush_tells(how: str) -> None:
    """As Chromium was seen to do when TCP had ended meanwhile."""
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    sent = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.wait_for(sent)
        if how == "end":
            c.half_close()
        elif how == "reset":
            c.reset()
        else:
            c.send(frame(3))

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url, dispatch=calls.put)
        recorder = Recorder(ws)
        while ws.readyState != ws.OPEN:
            calls.get(timeout=TIMEOUT)()
        sent.set()
        engine: Any = ws._engine
        engine._thread.join(TIMEOUT)  # it knows the end
        assert ws.readyState == ws.OPEN
        ws.send("x" * 100)
        assert ws.bufferedAmount == 0
        assert not ws.flush(0)
        while not recorder.of("close"):
            calls.get(timeout=TIMEOUT)()
        ws.send("x")
    assert ws.bufferedAmount == 1


# -- waiting where it cannot succeed


class Known:
    """A `dispatch` that knows its thread."""

    def __init__(self) -> None:
        self.thread_ident = threading.get_ident()
        self.calls: queue.SimpleQueue[Call] = queue.SimpleQueue()

    def __call__(self, call: Call) -> None:
        self.calls.put(call)


def test_with_on_the_thread_of_the_loop_is_an_error_and_leaves_nothing_behind() -> None:
    dispatch = Known()
    with ScriptedServer(Connection.handshake) as server:
        ws = bws.WebSocket(server.url, dispatch=dispatch)
        with pytest.raises(RuntimeError, match="on the thread that runs"), ws:
            pass
        closed = threading.Event()
        ws.bind("close", closed.set)
        while not closed.is_set():
            dispatch.calls.get(timeout=TIMEOUT)()
        assert ws.readyState == 3


def test_with_says_when_nobody_runs_what_is_dispatched() -> None:
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    with ScriptedServer(Connection.handshake) as server:
        ws = bws.WebSocket(server.url, dispatch=calls.put, open_timeout=0.1)
        with pytest.raises(ConnectionError, match="'open' event was not delivered"), ws:
            pass
        assert server.result().close == (1001, "")
        while ws.readyState != 3:
            calls.get(timeout=TIMEOUT)()


def test_waiting_is_over_when_the_handlers_have_run_that_were_owed_an_event(mode: Mode) -> None:
    got: list[Any] = []

    def slow(evt: bws.MessageEvent) -> None:
        threading.Event().wait(0.05)
        got.append(evt.data)

    with ScriptedServer(greet) as server:
        ws = mode.open(server.url)
        assert ws.wait_closed(TIMEOUT)  # nobody has been told
        ws.bind("message", slow)
        assert ws.wait_open(TIMEOUT)
        ws.bind("close", lambda evt: got.append(evt.code))
        assert ws.wait_closed(TIMEOUT)
        assert got == ["hello", 1000]


def test_a_loop_that_goes_while_a_socket_is_made_takes_it_along() -> None:
    class Gone:
        def __call__(self, call: object) -> None:
            raise RuntimeError("nothing is run there any more")

        def tell_when_gone(self, attached: Any) -> None:
            attached.loop_gone()  # as another thread may at any time from now on

    with ScriptedServer(greet) as server:
        ws = bws.WebSocket(server.url, dispatch=Gone())
        assert ws.wait_closed(TIMEOUT)
        assert ws.readyState == 3


def test_a_ping_before_open_is_refused() -> None:
    gate = threading.Event()
    with ScriptedServer(Connection.handshake, gate=gate) as server:
        ws = bws.WebSocket(server.url)
        with pytest.raises(bws.InvalidStateError, match="before open"):
            ws.ping()
        gate.set()
        ws.close()
        assert ws.wait_closed(TIMEOUT)


def test_without_open_timeout_it_waits_for_as_long_as_it_takes(mode: Mode) -> None:
    gate = threading.Event()
    with ScriptedServer(greet, gate=gate) as server:
        recorder = Recorder(mode.open(server.url, open_timeout=None, close_timeout=None))
        server.wait_connected()
        gate.set()
        assert recorder.closed()[0] == ("open", 1)


# -- what the system has not


def count_descriptors() -> int:
    """Descriptors of this process, or of the first 200 numbers that there are."""
    return sum(map(is_open, range(200)))


def no_start(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Threads whose name begins so cannot be started, as when there are too many."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(name):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)


def test_a_thread_that_cannot_start_raises_in_the_constructor_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ScriptedServer(greet) as server:
        settle()
        before = count_descriptors()
        with monkeypatch.context() as patch:
            no_start(patch, "bws ws:")
            for _ in range(3):
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    bws.WebSocket(server.url)
        assert count_descriptors() == before
        assert Recorder(bws.WebSocket(server.url)).closed()[-1] == ("close", 3, 1000, "", True)


def test_a_connection_works_without_the_thread_that_stands_in_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settle()
    no_start(monkeypatch, "bws relief")
    entries = greeted({"message": lambda *_: threading.Event().wait(0.1)})
    assert entries == [("open", 1), ("message", 1, "hello"), ("close", 3, 1000, "", True)]


NO_DESCRIPTORS = """
import resource, socket, threading
import bws

def story():
    errors, closes, closed = [], [], threading.Event()
    ws = bws.WebSocket("ws://127.0.0.1:1/")
    ws.bind("error", lambda evt: errors.append(type(evt.error).__name__))
    ws.bind("close", lambda evt: (closes.append(evt.code), closed.set()))
    assert closed.wait(10)
    return errors, closes

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
socks = []
try:
    while True:
        socks.append(socket.socket())
except OSError:
    pass
print(story())
for sock in socks:
    sock.close()
print(story())
"""

if sys.platform != "win32":  # there is no such limit

    def test_without_descriptors_a_connection_fails_like_any_other_and_the_next_one_works() -> None:
        done = run_python(NO_DESCRIPTORS)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["(['OSError'], [1006])", "(['ConnectionRefusedError'], [1006])"]


@pytest.mark.parametrize(
    "module",
    [
        "import sys, types; sys.modules['websocket'] = types.ModuleType('websocket')",
        "import sys; sys.modules['websocket'] = None",
        """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == 'websocket':
            raise ImportError('broken')
sys.meta_path.insert(0, Finder())
""",
    ],
)
def test_a_module_named_websocket_that_is_another_is_not_taken_for_it(module: str) -> None:
    done = run_python(f"{module}\nimport bws\nprint(bws.supported)")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_websocket_client_that_is_loaded_already_is_used() -> None:
    done = run_python("import websocket, bws\nprint(bws.supported)")
    assert (done.stdout, done.stderr) == ("True\n", "")


# -- slow peers


def test_what_is_queued_goes_out_before_the_close_however_long_it_takes() -> None:
    """A peer that reads on, slowly, is not cut off at close_timeout: that begins when the queue is empty."""
    count = 300

    def script(c: Connection) -> None:
        c.handshake()
        for _ in range(count):
            c.read_frame()
            c.pause(0.005)

    with ScriptedServer(script, receive_buffer=65536) as server:
        recorder = Recorder(bws.WebSocket(server.url, close_timeout=1, compression=False))
        recorder.wait_for("open")
        for _ in range(count):
            recorder.ws.send(bytes(100_000))
        recorder.ws.ping(b"behind")
        assert recorder.ws.bufferedAmount > 0
        start = time.monotonic()
        recorder.ws.close(3000, "done")
        assert recorder.closed()[1:] == [("close", 3, 3000, "done", True)]
        assert time.monotonic() - start > 1
        seen = server.result()
    assert [got.opcode for got in seen.frames] == [2] * count + [PING, CLOSE]


def test_the_peers_close_waits_for_what_is_queued() -> None:
    """The peer has sent its close frame and goes on reading: it gets everything, however slowly."""
    count = 40

    def script(c: Connection) -> None:
        c.handshake()
        c.read_frame()
        c.close(1000, "bye")
        for _ in range(count - 1):
            c.read_frame()
            c.pause(0.01)
        c.read_until(CLOSE)

    with ScriptedServer(script, receive_buffer=65536) as server:
        recorder = Recorder(bws.WebSocket(server.url, compression=False), {"open": send_all(count)})
        assert recorder.closed() == [("open", 1), ("close", 3, 1000, "bye", True)]
        assert [got.opcode for got in server.result().frames] == [2] * count + [CLOSE]


def send_all(count: int) -> Callable[[Recorder, Any], None]:
    """A handler that sends so many messages of 100 kB."""

    def handler(r: Recorder, _: Any) -> None:
        for _n in range(count):
            r.ws.send(bytes(100_000))

    return handler


# -- handlers as attributes


def test_an_attribute_whose_handler_was_unbound_is_none_again() -> None:
    gate = threading.Event()
    with ScriptedServer(greet, gate=gate) as server:
        ws = bws.WebSocket(server.url)
        ws.onmessage = bad
        ws.unbind("message", bad)
        gate.set()
        assert ws.onmessage is None
        assert isinstance(bws.WebSocket.onmessage, _target._On)
        assert "onmessage" in (bws.WebSocket.onmessage.__doc__ or "")
        assert ws.wait_closed(TIMEOUT)


@pytest.mark.skipif(not hasattr(select, "poll"), reason="it looks after everything each time")
def test_what_the_system_did_not_take_goes_out_whenever_the_thread_has_looked_for_the_last_time() -> None:
    """While nothing but messages comes, the thread looks after nothing else; another one has it to, 2,000 times."""

    def script(c: Connection) -> None:
        c.handshake()
        with contextlib.suppress(OSError):
            while c.sock.recv(1 << 18):
                c.sock.sendall(b"\x81\x01.")

    waited = 0
    with ScriptedServer(script) as server, bws.WebSocket(server.url, close_timeout=0.1) as ws:
        ws.bind("message", lambda evt: None)
        assert ws.wait_open(TIMEOUT)
        engine: Any = ws._engine
        engine._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        data = bytes(20_000)
        for _ in range(100_000):
            if waited == 2_000:
                break
            ws.send(data)
            waited += ws.bufferedAmount > 0
            end = time.monotonic() + TIMEOUT
            while ws.bufferedAmount:  # looking at it wakes nobody
                assert time.monotonic() < end, f"after {waited}"
                time.sleep(0.000_01)
    assert waited == 2_000


@pytest.mark.parametrize(
    ("paced", "size", "secure", "expected"),
    [
        (True, 65_536, False, True),
        (True, 100, False, False),
        (False, 65_536, False, False),
        (True, 65_536, True, False),
    ],
)
def test_large_messages_of_a_server_that_paces_are_acknowledged_at_once(
    paced: bool, size: int, secure: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (frame(BINARY, bytes(size)) * (4 * 1024 * 1024 // size)) + close_frame(1000)
    asked: list[object] = []
    monkeypatch.setattr(tcp, "stop_pacing", lambda sock: paced)
    monkeypatch.setattr(threaded, "acknowledge_now", asked.append)
    monkeypatch.setattr(threaded, "MUCH", 1024)  # which a single read brings, of TLS and on every system
    with ScriptedServer(lambda c: c.handshake(then=data), tls=["127.0.0.1"] if secure else ()) as server:
        recorder = Recorder(bws.WebSocket(server.url, ssl=server.ssl_context if secure else None))
        assert recorder.closed()[-1] == ("close", 3, 1000, "", True)
    assert len(recorder.data) == 4 * 1024 * 1024 // size
    assert bool(asked) is expected
