"""What users do that nobody thought of."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import queue
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

import bws
from tests.conftest import run_python
from tests.wire.frames import PING, PONG, TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

TIMEOUT = 20.0


def greet(c: Connection) -> None:
    c.handshake(then=frame(TEXT, "hello"))
    c.behave()


@dataclass(frozen=True)
class Counter:
    """Equal to every other counter of the same name, and yet another one."""

    name: str

    def __call__(self, evt: bws.MessageEvent) -> None:
        COUNTED.append(id(self))


COUNTED: list[int] = []


def test_a_decorated_handler_is_judged_by_what_is_called() -> None:
    got: list[tuple[str, str]] = []
    done = threading.Event()

    def inject(fn: Callable[[str, bws.MessageEvent], None]) -> Callable[[bws.MessageEvent], None]:
        @functools.wraps(fn)
        def wrapper(evt: bws.MessageEvent) -> None:
            fn("db", evt)

        return wrapper

    @inject
    def handler(db: str, evt: bws.MessageEvent) -> None:
        got.append((db, evt.data))
        done.set()

    with ScriptedServer(greet) as server, bws.WebSocket(server.url) as ws:
        ws.bind("message", handler)
        assert done.wait(TIMEOUT)
    assert got == [("db", "hello")]


def test_handlers_that_are_equal_and_not_the_same_are_two() -> None:
    COUNTED.clear()
    first, second = Counter("x"), Counter("x")
    done = threading.Event()
    with ScriptedServer(greet) as server:
        ws = bws.WebSocket(server.url)
        ws.addEventListener("open", lambda: None)
        ws.addEventListener("message", first)
        ws.addEventListener("message", second)
        ws.unbind("message", first)
        ws.bind("message", done.set)
        assert done.wait(TIMEOUT)
        ws.close()
        assert ws.wait_closed(TIMEOUT)
    assert [id(second)] == COUNTED


async def coroutine(evt: bws.MessageEvent) -> None: ...


def generator(evt: bws.MessageEvent) -> Iterator[None]:
    yield


class Awaitable:
    """What it is called for never happens either."""

    async def __call__(self, evt: bws.MessageEvent) -> None: ...


async def asynchronous_generator(evt: bws.MessageEvent) -> AsyncIterator[None]:
    yield


COROUTINES = [coroutine, Awaitable(), functools.partial(Awaitable()), functools.partial(coroutine), mock.AsyncMock()]
STARTED = (
    r"coroutine function.* never run; give a plain function, such as .*create_task.* dispatch=bws\.dispatch\.asyncio"
)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        *((fn, STARTED) for fn in COROUTINES),
        (generator, "is a generator function, whose body would never run; give a plain function, without yield"),
        (asynchronous_generator, "is a generator function"),
    ],
)
def test_a_handler_whose_body_would_never_run_is_refused(fn: Any, message: str) -> None:
    with ScriptedServer(Connection.echo) as server, bws.WebSocket(server.url) as ws:
        with pytest.raises(TypeError, match=f"^handler .*{message}"):
            ws.bind("message", fn)
        with pytest.raises(TypeError, match=f"^callback .*{message}"):
            ws.ping(b"", fn)


class Handlers:
    """What a test may make a mock of."""

    def on_message(self, evt: bws.MessageEvent) -> None: ...


def on_message(evt: bws.MessageEvent) -> None: ...


MOCKS: dict[str, Callable[[], Any]] = {
    "Mock": mock.Mock,
    "MagicMock": mock.MagicMock,
    "Mock of a function": lambda: mock.Mock(spec=on_message),
    "MagicMock of a function": lambda: mock.MagicMock(spec=on_message),
    "Mock around a function": lambda: mock.Mock(wraps=on_message),
    "autospec of a function": lambda: mock.create_autospec(on_message),
    "method of an autospec": lambda: mock.create_autospec(Handlers, instance=True).on_message,
}


@pytest.mark.parametrize("kind", MOCKS)
def test_a_mock_is_a_handler(kind: str) -> None:
    fn = MOCKS[kind]()
    done = threading.Event()
    with ScriptedServer(greet) as server, bws.WebSocket(server.url) as ws:
        ws.bind("message", fn)
        ws.bind("message", done.set)
        assert done.wait(TIMEOUT)
    ((evt,), _), *others = fn.call_args_list
    assert evt.data == "hello"
    assert others == []


class Equal(bws.WebSocket):
    """One whose sockets are equal, and cannot be hashed."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)


def test_sockets_that_are_equal_are_two() -> None:
    got: list[object] = []
    gate, closed = threading.Event(), threading.Semaphore(0)

    def make(number: int) -> None:
        ws = Equal(server.url)
        ws.bind("message", lambda evt: got.append((number, evt.data)))
        ws.bind("close", lambda evt: got.append((number, evt.code)))
        ws.bind("close", lambda: closed.release())

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "hello"))
        c.close(1000)

    with ScriptedServer(script, gate=gate) as server:
        for number in range(2):
            make(number)
        gc.collect()  # an open socket with handlers is not forgotten
        gate.set()
        for _ in range(2):
            assert closed.acquire(timeout=TIMEOUT)
    assert sorted(got, key=repr) == [(0, "hello"), (0, 1000), (1, "hello"), (1, 1000)]


def test_another_thread_with_the_ident_of_one_that_ran_handlers_may_wait() -> None:
    calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    idents: list[int] = []
    raised: list[BaseException] = []

    def run_handlers() -> None:
        idents.append(threading.get_ident())
        calls.get(timeout=TIMEOUT)()

    def wait() -> None:
        idents.append(threading.get_ident())
        try:
            ws.wait_closed(0)
        except RuntimeError as exc:
            raised.append(exc)

    with ScriptedServer(Connection.echo) as server:
        ws = bws.WebSocket(server.url, dispatch=calls.put)
        for target in [run_handlers] + [wait] * 200:
            thread = threading.Thread(target=target)
            thread.start()
            thread.join(TIMEOUT)
        if idents[0] not in idents[1:]:
            pytest.skip("this system gives an ident to no second thread")
        ws.close()
    assert raised == []


def test_an_event_is_not_dispatched_while_it_is_dispatched() -> None:
    raised: list[BaseException] = []
    copies: list[bws.DOMEvent] = []

    def again(evt: bws.DOMEvent) -> None:
        try:
            ws.dispatchEvent(evt)
        except bws.InvalidStateError as exc:
            raised.append(exc)

    event = bws.DOMEvent("ready")
    with ScriptedServer(greet) as server, bws.WebSocket(server.url) as ws:
        ws.addEventListener("ready", again)
        assert ws.dispatchEvent(event)
        assert ws.dispatchEvent(event)  # but it may be afterwards
        original = bws.DOMEvent("original")
        ws.addEventListener("original", lambda evt: ws.dispatchEvent(copy.copy(evt)), once=True)
        ws.addEventListener("original", lambda evt: copies.append(evt))
        ws.dispatchEvent(original)
    assert [str(exc) for exc in raised] == ["the 'ready' event is being dispatched already; make a new one"] * 2
    assert [(evt.type, evt is original) for evt in copies] == [("original", False), ("original", True)]


@pytest.mark.parametrize("single", [True, False], ids=["a single handler", "several"])
def test_an_event_of_the_network_is_not_dispatched_inside_its_handler(single: bool) -> None:
    raised: list[str] = []
    kept: list[Any] = []

    def again(evt: bws.DOMEvent) -> None:
        try:
            ws.dispatchEvent(evt)
        except bws.InvalidStateError:
            raised.append(evt.type)
        kept.append(evt)

    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "hello") + close_frame())) as server:
        ws = bws.WebSocket(server.url)
        for type in ("open", "message", "close"):
            ws.bind(type, again)
            if not single:
                ws.bind(type, lambda evt: None)
        assert ws.wait_closed(TIMEOUT)
        assert raised == [evt.type for evt in kept] == ["open", "message", "close"]
        ws.unbind("message")
        assert ws.dispatchEvent(kept[1])  # afterwards it may be


def test_a_message_may_be_dispatched_again_in_the_callback_of_a_pong() -> None:
    kept: list[Any] = []
    again: list[bool] = []
    done = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(PING)
        c.send(frame(TEXT, "hello") + frame(PONG, b"p"))
        c.behave()

    def pong(_: float) -> None:
        again.append(ws.dispatchEvent(kept[0]))
        done.set()

    with ScriptedServer(script) as server, bws.WebSocket(server.url) as ws:
        ws.bind("message", kept.append)
        ws.ping(b"p", pong)
        assert done.wait(TIMEOUT)
    assert again == [True]
    assert len(kept) == 2


def test_a_listener_for_one_event_gets_one_of_two_that_come_at_the_same_time() -> None:
    calls: list[str] = []
    rounds = 2_000
    meet = threading.Barrier(2)

    def dispatch() -> None:
        for number in range(rounds):
            meet.wait(TIMEOUT)
            ws.dispatchEvent(bws.DOMEvent(f"ready {number}"))

    with ScriptedServer(greet) as server, bws.WebSocket(server.url) as ws:
        for number in range(rounds):
            ws.addEventListener(f"ready {number}", lambda evt: calls.append(evt.type), once=True)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=dispatch) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(TIMEOUT)
        finally:
            sys.setswitchinterval(interval)
    assert calls == [f"ready {number}" for number in range(rounds)]


def test_a_program_may_hang_its_data_on_the_socket_and_cannot_copy_it() -> None:
    with ScriptedServer(greet) as server, bws.WebSocket(server.url) as ws:
        ws.room = "lobby"  # type: ignore[attr-defined]
        assert ws.room == "lobby"  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="cannot be copied"):
            copy.copy(ws)
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(ws)


MISTYPED = [
    "ws:/u:secret@h:bad",
    "ws:\\\\u:secret@h:bad",
    "ws://u:secret@h:bad/",
    " ws:u:secret@h:bad",
    "ws//u:secret@h:bad",
    "ws://u:#secret@h:bad",
    "ws://u:1#secret@h:bad",
    "ws://u:secret/@h:bad",
    "ws://u:secret?@h:bad",
]


@pytest.mark.parametrize("url", MISTYPED)
def test_a_mistyped_url_does_not_show_its_password(url: str) -> None:
    with pytest.raises(bws.DOMSyntaxError) as caught:
        bws.WebSocket(url)
    assert "secret" not in str(caught.value)
    assert "h:bad" in str(caught.value)


class Broken:
    """A value whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_a_value_that_cannot_be_shown_is_named_by_its_type() -> None:
    with ScriptedServer(greet) as server, bws.WebSocket(server.url) as ws:
        with pytest.raises(TypeError, match="Broken"):
            ws.send(Broken())  # type: ignore[arg-type]
        with pytest.raises(bws.InvalidAccessError, match="int"):
            ws.close(10**5000)
        view = memoryview(b"x")
        view.release()
        with pytest.raises(ValueError, match="data"):
            ws.send(view)
        with pytest.raises(TypeError, match=r"payload must be bytes-like, not int 5$"):
            ws.ping(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^callback .* must accept the seconds or no argument"):
            ws.ping(b"", lambda a, b: None)  # type: ignore[arg-type,misc]


def test_a_dispatch_that_takes_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match="dispatch must be a callable"):
        bws.WebSocket("ws://127.0.0.1:1/", dispatch=lambda: None)  # type: ignore[arg-type,misc]


NO_DESCRIPTORS = """
import resource, sys, threading
import bws
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
files = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
try:
    while True:
        files.append(open(sys.executable, "rb"))
except OSError:
    pass
ws = bws.WebSocket(sys.argv[1])
for file in files:
    file.close()
errors = []
ws.bind("error", lambda evt: errors.append(evt.error))
assert ws.wait_closed(20)
print(type(errors[0]).__name__, errors[0].errno)
"""


if sys.platform != "win32":  # which has no limit of descriptors that could be set

    def test_without_a_descriptor_left_the_connection_fails_as_any_other() -> None:
        with ScriptedServer(greet) as server:
            done = run_python(NO_DESCRIPTORS, server.url)
        assert (done.stdout, done.stderr, done.returncode) == ("OSError 24\n", "", 0)
