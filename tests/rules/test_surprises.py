"""What users do that nobody thought of."""

from __future__ import annotations

import copy
import functools
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import bws
from tests.conftest import run_python
from tests.wire.frames import TEXT, frame
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


@pytest.mark.parametrize("fn", [coroutine, generator])
def test_a_handler_whose_body_would_never_run_is_refused(fn: Any) -> None:
    with ScriptedServer(greet) as server:
        ws = bws.WebSocket(server.url)
        with pytest.raises(TypeError, match="would never run"):
            ws.bind("message", fn)
        ws.close()
        assert ws.wait_closed(TIMEOUT)


def test_a_program_may_hang_its_data_on_the_socket_and_cannot_copy_it() -> None:
    with ScriptedServer(greet) as server, bws.WebSocket(server.url) as ws:
        ws.room = "lobby"  # type: ignore[attr-defined]
        assert ws.room == "lobby"  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="cannot be copied"):
            copy.copy(ws)
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(ws)


MISTYPED = ["ws:/u:secret@h:bad", "ws:\\\\u:secret@h:bad", "ws://u:secret@h:bad/", " ws:u:secret@h:bad"]


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
            ws.send(Broken())
        with pytest.raises(bws.InvalidAccessError, match="int"):
            ws.close(10**5000)
        view = memoryview(b"x")
        view.release()
        with pytest.raises(ValueError, match="data"):
            ws.send(view)
        with pytest.raises(TypeError, match=r"payload must be bytes-like, not int 5$"):
            ws.ping(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="handler"):
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
