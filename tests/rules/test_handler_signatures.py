"""A handler takes the event, or nothing; which, is decided when it is bound."""

from __future__ import annotations

import collections
import functools
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import bws
from tests.conftest import TYPES, Mode
from tests.wire.frames import TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

Calls = list[tuple[Any, ...]]
NOTHING = ()  # called without an argument; otherwise with the event


class Owner:
    """Handlers that are bound to something."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def none(self) -> None:
        self.calls.append(())

    def one(self, evt: Any) -> None:
        self.calls.append((evt,))

    def optional(self, evt: Any = None) -> None:
        self.calls.append((evt,))

    def any(self, *args: Any) -> None:
        self.calls.append(args)

    def one_or_more(self, evt: Any, *more: Any) -> None:
        self.calls.append((evt, *more))

    def anything(*args: Any) -> None:  # self is among them
        args[0].calls.append(args[1:])

    @staticmethod
    def static(calls: Calls, evt: Any) -> None:
        calls.append((evt,))

    @classmethod
    def of_class(cls, calls: Calls) -> None:
        calls.append(())


class Callable0(Owner):
    def __call__(self) -> None:
        self.calls.append(())


class Callable1(Owner):
    def __call__(self, evt: Any) -> None:
        self.calls.append((evt,))


def keyword_only(calls: Calls) -> Callable[..., None]:
    def handler(*, flag: bool = False) -> None:
        calls.append(())

    return handler


def positional_only(calls: Calls) -> Callable[..., None]:
    def handler(evt: Any, /, *, flag: bool = False) -> None:
        calls.append((evt,))

    return handler


def star(calls: Calls) -> Callable[..., None]:
    def handler(*args: Any) -> None:
        calls.append(args)

    return handler


def double_star(calls: Calls) -> Callable[..., None]:
    def handler(**options: Any) -> None:
        calls.append(())

    return handler


def second_optional(calls: Calls) -> Callable[..., None]:
    def handler(evt: Any, other: Any = None) -> None:
        calls.append((evt, other) if other else (evt,))

    return handler


def wrapped(calls: Calls) -> Callable[..., None]:
    @functools.wraps(Owner(calls).none)
    def handler(*args: Any) -> None:
        calls.append(args)

    return handler


class Kept:
    """A class is a callable too."""

    calls: Calls

    def __init__(self, evt: Any) -> None:
        self.calls.append((evt,))


def a_class(calls: Calls) -> Callable[..., Any]:
    return type("Kept", (Kept,), {"calls": calls})


# name: (makes the handler, whether it gets the event)
FORMS: dict[str, tuple[Callable[[Calls], Callable[..., Any]], bool]] = {
    "a wrapped function of nothing": (wrapped, False),
    "a lambda of nothing": (lambda calls: lambda: calls.append(()), False),
    "a lambda of the event": (lambda calls: lambda evt: calls.append((evt,)), True),
    "a method of nothing": (lambda calls: Owner(calls).none, False),
    "a method of the event": (lambda calls: Owner(calls).one, True),
    "an optional argument": (lambda calls: Owner(calls).optional, True),
    "a second, optional argument": (second_optional, True),
    "keyword-only arguments": (keyword_only, False),
    "a positional-only argument": (positional_only, True),
    "any positional arguments": (star, True),
    "a method of any arguments": (lambda calls: Owner(calls).any, True),
    "a method of the event and more": (lambda calls: Owner(calls).one_or_more, True),
    "a method of any arguments, self among them": (lambda calls: Owner(calls).anything, True),
    "any keyword arguments": (double_star, False),
    "a callable of nothing": (lambda calls: Callable0(calls), False),
    "a callable of the event": (lambda calls: Callable1(calls), True),
    "a partial of the event": (lambda calls: functools.partial(Owner.static, calls), True),
    "a partial of nothing": (lambda calls: functools.partial(Owner.of_class, calls), False),
    "a partial with a keyword": (lambda calls: functools.partial(Owner(calls).one, evt="fixed"), False),
    "a class": (a_class, True),
}


def one_message(c: Connection) -> None:
    """A message, and a failure: all four events."""
    c.handshake(then=frame(TEXT, "hello") + frame(3))


def three_messages(c: Connection) -> None:
    c.handshake(then=frame(TEXT, "1") + frame(TEXT, "2") + frame(TEXT, "3") + close_frame(1000))


def attach(ws: bws.WebSocket, how: str, type: str, fn: Callable[..., Any]) -> None:
    """Bind in one of the four ways."""
    if how == "on":
        setattr(ws, "on" + type, fn)
    elif how == "decorator":
        ws.bind(type)(fn)
    else:
        getattr(ws, how)(type, fn)


HOWS = ["bind", "decorator", "addEventListener", "on"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("form", FORMS)
def test_a_handler_gets_the_event_if_it_takes_one(mode: Mode, form: str, how: str) -> None:
    make, takes_event = FORMS[form]
    calls: dict[str, Calls] = {type: [] for type in TYPES}
    gate = threading.Event()
    with ScriptedServer(one_message, gate=gate) as server:
        ws = mode.open(server.url)
        for type in TYPES:
            attach(ws, how, type, make(calls[type]))
        gate.set()
        assert ws.wait_closed(10)
        server.result()
    for type in TYPES:
        assert len(calls[type]) == 1
        if form == "a partial with a keyword":
            assert calls[type] == [("fixed",)]
        elif takes_event:
            assert [evt.type for evt in calls[type][0]] == [type]
        else:
            assert calls[type] == [NOTHING]


@pytest.mark.parametrize("how", HOWS)
def test_builtins_are_handlers(mode: Mode, how: str) -> None:
    listed: list[Any] = []
    kept: collections.deque[Any] = collections.deque()
    put: queue.SimpleQueue[Any] = queue.SimpleQueue()
    happened, counted = threading.Event(), threading.Event()
    gate = threading.Event()
    with ScriptedServer(one_message, gate=gate) as server:
        ws = mode.open(server.url)
        attach(ws, how, "open", happened.set)
        attach(ws, how, "message", listed.append)
        attach(ws, how, "error", kept.append)
        attach(ws, how, "close", put.put)
        ws.addEventListener("close", counted.set)
        gate.set()
        assert ws.wait_closed(10)
        server.result()
    assert happened.is_set()
    assert counted.is_set()
    assert [evt.data for evt in listed] == ["hello"]
    assert [evt.type for evt in kept] == ["error"]
    assert put.get_nowait().code == 1006


@pytest.mark.parametrize("how", HOWS)
def test_a_builtin_that_does_not_tell_what_it_takes_may_take_nothing(mode: Mode, how: str) -> None:
    # Before 3.13 these methods have no signature, as the methods of Qt's objects have none.
    waiting = collections.deque("abcd")
    gate = threading.Event()
    with ScriptedServer(three_messages, gate=gate) as server:
        ws = mode.open(server.url)
        attach(ws, how, "message", waiting.popleft)
        attach(ws, how, "open", waiting.reverse)
        gate.set()
        assert ws.wait_closed(10)
        server.result()
    assert list(waiting) == ["a"]


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What handlers let out."""
    reported: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_value))
    monkeypatch.setattr(sys, "excepthook", lambda kind, exc, traceback: reported.append(exc))
    return reported


# (a builtin that takes something else than the event, how its error begins); some can be called without, too
MISFITS: list[tuple[Any, str]] = [
    (collections.deque().extend, "'MessageEvent' object is not iterable"),
    ({}.update, "'MessageEvent' object is not iterable"),
    (int, "int() argument must be "),
    (getattr, "getattr expected at least 2 arguments, got 1"),
]


@pytest.mark.parametrize(("fn", "error"), MISFITS)
def test_a_builtin_that_the_event_does_not_fit_says_so_at_every_event(
    mode: Mode, hooked: list[BaseException | None], fn: Any, error: str
) -> None:
    with ScriptedServer(three_messages) as server:
        ws = mode.open(server.url)
        ws.bind("message", fn)
        assert ws.wait_closed(10)
        server.result()
    assert [type(exc) for exc in hooked] == [TypeError] * 3
    assert [str(exc)[: len(error)] for exc in hooked] == [error] * 3
    for exc in hooked:
        if "handler" in str(exc):  # some have a signature since 3.13, and are just called
            assert "got the event" in str(exc)
            assert str(exc.__cause__).startswith(error)  # type: ignore[union-attr]


def test_a_callback_of_ping_that_the_seconds_do_not_fit_is_named(
    mode: Mode, hooked: list[BaseException | None]
) -> None:
    extend: Any = collections.deque().extend

    def on_open(evt: bws.DOMEvent) -> None:
        assert isinstance(evt.target, bws.WebSocket)
        evt.target.ping(b"", extend)
        evt.target.ping(b"", lambda seconds: evt.target.close())

    with ScriptedServer(Connection.echo) as server:
        ws = mode.open(server.url)
        ws.bind("open", on_open)
        assert ws.wait_closed(10)
    (exc,) = hooked
    assert str(exc).startswith("'float' object is not iterable")
    if sys.version_info < (3, 13):  # since then it has a signature, and is just called
        assert "callback" in str(exc)
        assert "got the seconds" in str(exc)


def test_what_a_builtin_of_nothing_raises_is_reported_alone(mode: Mode, hooked: list[BaseException | None]) -> None:
    lock = threading.Lock()
    with ScriptedServer(three_messages) as server:
        ws = mode.open(server.url)
        ws.bind("message", lock.release)
        assert ws.wait_closed(10)
        server.result()
    assert [str(exc) for exc in hooked] == ["release unlocked lock"] * 3
    assert [exc.__context__ for exc in hooked if exc] == [None] * 3


class Picky:
    """Something that a builtin fails on, in Python code."""

    calls = 0

    def __call__(self, evt: Any) -> None:
        raise AssertionError

    def __eq__(self, other: object) -> bool:
        self.calls += 1
        raise TypeError("not comparable")

    __hash__ = None  # type: ignore[assignment]


def test_a_type_error_inside_a_builtin_is_one_of_the_handler(mode: Mode, hooked: list[BaseException | None]) -> None:
    picky = Picky()
    events: collections.deque[Any] = collections.deque([picky])
    with ScriptedServer(three_messages) as server:
        ws = mode.open(server.url)
        ws.bind("message", events.remove)
        assert ws.wait_closed(10)
        server.result()
    assert picky.calls == 3
    assert [str(exc) for exc in hooked] == ["not comparable"] * 3


def _two(evt: Any, other: Any) -> None:
    pass


def _needs_keyword(*, flag: bool) -> None:
    pass


def _needs_keyword_too(evt: Any, *, flag: bool) -> None:
    pass


WRONG: list[Any] = [
    _two,
    lambda a, b: None,
    functools.partial(_two),
    _needs_keyword,
    _needs_keyword_too,
    "on_open",
    42,
    object(),
]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("fn", WRONG)
@pytest.mark.parametrize("type", TYPES)
def test_what_cannot_be_called_with_an_event_raises_when_it_is_bound(
    ws: bws.WebSocket, type: str, fn: Any, how: str
) -> None:
    with pytest.raises(TypeError, match="handler"):
        attach(ws, how, type, fn)
    assert getattr(ws, "on" + type) is None


@pytest.fixture(scope="module")
def ws() -> Any:
    """A socket whose state does not matter."""
    with ScriptedServer(Connection.echo) as server, bws.WebSocket(server.url) as ws:
        yield ws
