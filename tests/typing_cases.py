"""What a type checker must understand: read by mypy, never run.

With `warn_unused_ignores` (part of `strict`) an ignore that is not needed is an error: so each one is the
assertion that the line is wrong.
"""

from __future__ import annotations

import array
import asyncio
import functools
import queue
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import bws
import bws as websocket

if TYPE_CHECKING:
    from typing_extensions import assert_type  # in typing since Python 3.11


def nothing() -> None: ...


def for_event(evt: bws.DOMEvent) -> None: ...


def for_message(evt: bws.MessageEvent) -> str:
    data: str | bytes = evt.data
    return str(data) + evt.origin + evt.lastEventId


def for_close(evt: bws.CloseEvent) -> int:
    assert_type(evt.reason, str)
    assert_type(evt.wasClean, bool)
    return evt.code


def needs_two(evt: bws.DOMEvent, more: int) -> None: ...


class Program:
    def on_open(self) -> None: ...

    def on_message(self, evt: bws.MessageEvent) -> None: ...

    def on_close(self, evt: bws.CloseEvent) -> None: ...

    @staticmethod
    def on_error(evt: bws.DOMEvent) -> None: ...


def binding(ws: bws.WebSocket, program: Program) -> None:
    """Each event with what its handlers may take."""
    assert_type(ws.bind("open", nothing), None)
    ws.bind("open", for_event)
    ws.bind("open", program.on_open)
    ws.bind("open", lambda: ws.send("hello"))
    ws.bind("open", lambda evt: print(evt.timeStamp))
    ws.bind("error", nothing)
    ws.bind("error", for_event)
    ws.bind("error", program.on_error)
    ws.bind("error", lambda evt: print(evt.error, evt.message))
    ws.bind("message", nothing)
    ws.bind("message", for_event)
    ws.bind("message", for_message)
    ws.bind("message", program.on_message)
    ws.bind("message", lambda evt: print(evt.data))
    ws.bind("message", print)
    ws.bind("close", nothing)
    ws.bind("close", for_event)
    ws.bind("close", for_close)
    ws.bind("close", program.on_close)
    ws.bind("close", lambda evt: print(evt.code, evt.reason, evt.wasClean))
    ws.bind("close", functools.partial(needs_two, more=1))
    name: str = "message"
    ws.bind(name, nothing)


def decorating(ws: bws.WebSocket) -> None:
    """The decorator returns the function as it is."""

    @ws.bind("open")
    def on_open() -> None: ...

    @ws.bind("message")
    def on_message(evt: bws.MessageEvent) -> int:
        return len(evt.data)

    @ws.bind("close")
    def on_close(evt: bws.CloseEvent) -> None: ...

    @ws.bind("error")
    def on_error(evt: bws.DOMEvent) -> None: ...

    assert_type(on_message(bws.MessageEvent()), int)
    on_open()
    on_close(bws.CloseEvent())
    on_error(bws.DOMEvent("error"))


def assigning(ws: bws.WebSocket) -> None:
    """The attributes of the four events."""
    ws.onopen = nothing
    ws.onopen = lambda evt: None
    ws.onmessage = for_message
    ws.onmessage = lambda evt: print(evt.data)
    ws.onerror = for_event
    ws.onclose = for_close
    ws.onclose = None
    ws.onmesage = nothing  # type: ignore[attr-defined]
    ws.onopen = "no function"  # type: ignore[assignment]


def reading(ws: bws.WebSocket) -> None:
    """What was assigned."""
    assert_type(ws.onclose, Callable[..., object] | None)


def listening(ws: bws.WebSocket) -> None:
    """The DOM's own way."""
    ws.addEventListener("message", for_message)
    ws.addEventListener("mine", for_event, once=True)
    ws.removeEventListener("message", for_message)
    ws.unbind("message")
    ws.unbind("message", for_message, nothing)
    assert_type(ws.dispatchEvent(bws.DOMEvent("mine")), bool)
    ws.dispatchEvent("mine")  # type: ignore[arg-type]


def constructing(loop: asyncio.AbstractEventLoop) -> None:
    """Every option."""
    calls: queue.Queue[Callable[[], None]] = queue.Queue()
    bws.WebSocket("ws://x")
    bws.WebSocket("ws://x", "chat")
    bws.WebSocket("ws://x", ["a", "b"])
    bws.WebSocket("ws://x", ("a",), dispatch=calls.put)
    bws.WebSocket("ws://x", dispatch=loop.call_soon_threadsafe)
    bws.WebSocket("ws://x", dispatch=lambda call: call())
    bws.WebSocket("ws://x", headers={"A": "b"}, origin="", cookie="a=b", user_agent="x")
    bws.WebSocket("ws://x", headers=[("A", "b")], ssl=ssl.create_default_context(), proxy=None)
    bws.WebSocket("ws://x", proxy="http://proxy:1", open_timeout=1, close_timeout=None)
    bws.WebSocket("ws://x", ping_interval=0.5, ping_timeout=2, max_size=None, compression=False)
    bws.WebSocket(b"ws://x")  # type: ignore[arg-type]
    bws.WebSocket("ws://x", 1)  # type: ignore[arg-type]
    bws.WebSocket("ws://x", None, nothing)  # type: ignore[call-arg, arg-type]
    bws.WebSocket("ws://x", headers={"A": 1})  # type: ignore[arg-type]
    bws.WebSocket("ws://x", open_timeout="1")  # type: ignore[arg-type]
    bws.WebSocket("ws://x", max_size=1.5)  # type: ignore[arg-type]
    bws.WebSocket("ws://x", ssl=True)  # type: ignore[arg-type]
    bws.WebSocket("ws://x", timeout=1)  # type: ignore[call-arg]
    bws.WebSocket()  # type: ignore[call-arg]


class Chat(bws.WebSocket):
    room = "lobby"


def to_target(evt: bws.MessageEvent) -> None:
    evt.target.send("to the socket")


def using(ws: bws.WebSocket) -> None:
    """Everything else."""
    ws.send("text")
    ws.send(b"bytes")
    ws.send(bytearray(1))
    ws.send(memoryview(b""))
    ws.send(array.array("B"))
    ws.send(5)  # type: ignore[arg-type]
    ws.send(None)  # type: ignore[arg-type]
    ws.send({"a": 1})  # type: ignore[arg-type]
    ws.bind("message", lambda evt: evt.target.send(evt.data))
    with Chat("ws://x") as chat:
        assert_type(chat, Chat)
        assert_type(chat.room, str)
    ws.ping()
    ws.ping(b"x", lambda seconds: print(seconds * 1000))
    ws.ping("x")  # type: ignore[arg-type]
    ws.close()
    ws.close(1000, "bye")
    ws.close("bye")  # type: ignore[arg-type]
    assert_type(ws.wait_open(), bool)
    assert_type(ws.wait_closed(1.5), bool)
    assert_type(ws.flush(timeout=1), bool)
    assert_type(ws.readyState, int)
    assert_type(ws.url, str)
    assert_type(ws.protocol, str)
    assert_type(ws.extensions, str)
    assert_type(ws.bufferedAmount, int)
    assert_type(ws.binaryType, str)
    ws.binaryType = "arraybuffer"
    ws.readyState = 1  # type: ignore[misc]
    ws.url = "x"  # type: ignore[misc]
    assert_type(bws.supported, bool)
    assert_type(bws.__version__, str)
    assert_type(bws.WebSocket.OPEN, int)


def entering() -> None:
    """`with` gives the socket itself."""
    with bws.WebSocket("ws://x") as ws:
        assert_type(ws, bws.WebSocket)


def events(evt: bws.CloseEvent, message: bws.MessageEvent) -> None:
    """What they carry."""
    assert_type(evt.type, str)
    assert_type(evt.code, int)
    assert_type(evt.timeStamp, float)
    assert_type(evt.error, BaseException | None)
    assert_type(evt.message, str)
    assert_type(message.data, Any)
    assert_type(message.origin, str)
    bws.MessageEvent("message", b"data", "ws://x", "1")
    bws.CloseEvent("close", 1000, "bye", True)
    bws.DOMEvent()  # type: ignore[call-arg]


def mistakes(ws: bws.WebSocket) -> None:
    """A handler that cannot be called with the event is told before the program runs."""
    ws.bind("open", for_close)  # type: ignore[type-var]
    ws.bind("message", for_close)  # type: ignore[type-var]
    ws.bind("close", needs_two)  # type: ignore[type-var]
    ws.bind("open", "no function")  # type: ignore[call-overload]
    ws.bind(1, nothing)  # type: ignore[call-overload]
    ws.sent("x")  # type: ignore[attr-defined]


def exceptions() -> None:
    """They are Python's too."""
    value: ValueError = bws.DOMSyntaxError("x")
    runtime: RuntimeError = bws.InvalidStateError("x")
    access: ValueError = bws.InvalidAccessError("x")
    base: bws.DOMException = bws.DOMSyntaxError("x")
    assert_type(base.name, str)
    assert_type(base.message, str)
    print(value, runtime, access)


def as_in_brython() -> None:
    """Code that was written for ``from browser import websocket``."""

    def on_open(evt: Any) -> None:
        ws.send("hello")

    if not websocket.supported:
        return
    ws = websocket.WebSocket("wss://example.com/")
    ws.bind("open", on_open)
    ws.bind("message", lambda evt: print(evt.data))
    ws.bind("close", on_open)
    ws.close()
