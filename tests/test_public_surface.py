"""What a program may rely on: the names, their signatures, what they look like in a log or a debugger."""

from __future__ import annotations

import copy
import inspect
import pathlib
import pickle
import threading
from typing import Any

import pytest

import bws
import bws.testing
from bws import errors
from bws.testing import EchoServer, record
from tests.conftest import TIMEOUT, Recorder
from tests.wire.frames import close_frame
from tests.wire.server import Connection, ScriptedServer

NAMES = [
    "CloseEvent",
    "DOMEvent",
    "DOMException",
    "DOMSyntaxError",
    "InvalidAccessError",
    "InvalidStateError",
    "MessageEvent",
    "WebSocket",
    "__version__",
    "dispatch",
    "supported",
]

# public name of the class: parameters (after self), where the browser's own come first
METHODS = {
    "addEventListener": "(type, listener, *, once=False)",
    "bind": "(event, fn=...)",
    "close": "(code=None, reason=None)",
    "dispatchEvent": "(event)",
    "flush": "(timeout=None)",
    "ping": "(payload=b'', callback=None)",
    "removeEventListener": "(type, listener)",
    "send": "(data)",
    "unbind": "(event, *fns)",
    "wait_closed": "(timeout=None)",
    "wait_open": "(timeout=None)",
}
ATTRIBUTES = ["binaryType", "bufferedAmount", "extensions", "protocol", "readyState", "url"]
CONSTANTS = {"CONNECTING": 0, "OPEN": 1, "CLOSING": 2, "CLOSED": 3}
ON = {"onopen", "onmessage", "onerror", "onclose"}

CONSTRUCTORS: dict[Any, str] = {
    bws.WebSocket: "(url, protocols=None, *, dispatch=None, headers=None, origin=None, cookie=None, user_agent=None, "
    "ssl=None, proxy=True, open_timeout=30.0, close_timeout=10.0, ping_interval=None, ping_timeout=None, "
    "max_size=134217728, compression=True)",
    bws.DOMEvent: "(type, *, bubbles=False, cancelable=False, composed=False, error=None)",
    bws.MessageEvent: "(type='message', data=None, origin=None, lastEventId='', *, bubbles=False, cancelable=False, "
    "composed=False)",
    bws.CloseEvent: "(type='close', code=0, reason='', wasClean=False, *, bubbles=False, cancelable=False, "
    "composed=False, error=None)",
    bws.DOMException: "(message='', name=None)",
    bws.DOMSyntaxError: "(message='', name=None)",
    bws.InvalidStateError: "(message='', name=None)",
    bws.InvalidAccessError: "(message='', name=None)",
    errors.HandshakeError: "(message, status=None, headers=())",
    errors.ProxyError: "(message, status=None)",
    errors.ProtocolError: "(message, close_code=1002)",
}


def parameters(function: Any) -> str:
    """A signature without its types and `self`; a default that has no readable repr is ``...``."""
    signature = inspect.signature(function)
    plain = []
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if type(parameter.default) is object:
            parameter = parameter.replace(default=...)
        plain.append(parameter.replace(annotation=inspect.Parameter.empty))
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty)).replace(
        "Ellipsis", "..."
    )


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


# -- names


def test_the_module_has_exactly_these_names_sorted() -> None:
    assert bws.__all__ == NAMES
    assert sorted(bws.__all__) == bws.__all__
    modules = {name for name in public(bws) if inspect.ismodule(getattr(bws, name))}
    assert public(bws) - modules == {name for name in NAMES if not name.startswith("_")} - modules
    assert modules <= {"errors", "events", "testing", "dispatch"}


@pytest.mark.parametrize(
    "module", [bws.dispatch, bws.errors, bws.events, bws.testing], ids=lambda module: module.__name__
)
def test_every_public_module_says_what_it_offers(module: Any) -> None:
    assert sorted(module.__all__) == module.__all__
    assert all(hasattr(module, name) for name in module.__all__)


def test_star_import_brings_these_names_and_no_other() -> None:
    names: dict[str, Any] = {}
    exec("from bws import *", names)
    assert set(names) - {"__builtins__"} == set(NAMES)


def test_the_class_has_exactly_these_names() -> None:
    assert public(bws.WebSocket) == {*METHODS, *ATTRIBUTES, *CONSTANTS, *ON}
    for name, value in CONSTANTS.items():
        assert getattr(bws.WebSocket, name) == value


def test_the_events_have_exactly_these_names() -> None:
    common = {"NONE", "CAPTURING_PHASE", "AT_TARGET", "BUBBLING_PHASE"}
    common |= {"type", "target", "currentTarget", "timeStamp", "eventPhase", "composedPath", "isTrusted"}
    common |= {"bubbles", "cancelable", "composed", "defaultPrevented", "error", "message"}
    common |= {"preventDefault", "stopPropagation", "stopImmediatePropagation"}
    assert public(bws.DOMEvent("x")) == common
    assert public(bws.MessageEvent()) == common | {"data", "origin", "lastEventId", "source", "ports"}
    assert public(bws.CloseEvent()) == common | {"code", "reason", "wasClean"}


def test_the_package_says_that_it_has_types() -> None:
    assert (pathlib.Path(bws.__file__).parent / "py.typed").is_file()


# -- signatures and documentation


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_these_parameters(name: str) -> None:
    assert parameters(getattr(bws.WebSocket, name)) == METHODS[name]


@pytest.mark.parametrize("thing", CONSTRUCTORS, ids=lambda thing: thing.__name__)
def test_a_constructor_has_these_parameters(thing: Any) -> None:
    assert parameters(thing) == CONSTRUCTORS[thing]


@pytest.mark.parametrize("name", [*METHODS, *ATTRIBUTES])
def test_every_method_and_attribute_is_documented_with_its_parameters(name: str) -> None:
    thing = getattr(bws.WebSocket, name)
    text = inspect.getdoc(thing)
    assert text is not None
    if name in METHODS:
        wanted = [n for n in inspect.signature(thing).parameters if n not in ("self", "fns")]
        missing = [n for n in wanted if f"{n}:" not in text]
        assert missing == []
        assert "Raises:" in text


def test_every_option_of_the_constructor_is_documented() -> None:
    text = inspect.getdoc(bws.WebSocket) or ""
    assert [name for name in inspect.signature(bws.WebSocket).parameters if f"{name}: " not in text] == []
    assert "Raises:" in text


@pytest.mark.parametrize("name", [name for name in NAMES if name[0].isupper()])
def test_every_public_class_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(bws, name))


# -- exceptions


@pytest.mark.parametrize(
    ("kind", "name", "python"),
    [
        (bws.DOMException, "Error", Exception),
        (bws.DOMSyntaxError, "SyntaxError", ValueError),
        (bws.InvalidAccessError, "InvalidAccessError", ValueError),
        (bws.InvalidStateError, "InvalidStateError", RuntimeError),
    ],
)
def test_an_exception_has_the_browsers_name_and_is_one_of_pythons(
    kind: type[bws.DOMException], name: str, python: type[Exception]
) -> None:
    exc = kind("what was wrong")
    assert isinstance(exc, bws.DOMException)
    assert isinstance(exc, python)
    assert (exc.name, exc.message, str(exc)) == (name, "what was wrong", "what was wrong")
    assert repr(exc) == f"{kind.__name__}('what was wrong')"
    assert kind().message == ""
    assert kind("x", "OtherError").name == "OtherError"


@pytest.mark.parametrize(
    "exc",
    [
        bws.DOMSyntaxError("m"),
        bws.DOMException("m", "OtherError"),
        errors.HandshakeError("m", 404, [("A", "1")]),
        errors.ProxyError("m", 407),
        errors.ProtocolError("m", 1009),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_an_exception_can_be_copied_and_sent_to_another_process(exc: Exception) -> None:
    for other in (copy.copy(exc), pickle.loads(pickle.dumps(exc))):
        assert type(other) is type(exc)
        assert (str(other), vars(other)) == (str(exc), vars(exc))


@pytest.mark.parametrize("kind", [errors.HandshakeError, errors.ProxyError, errors.ProtocolError])
def test_what_the_network_does_is_a_connection_error(kind: type[ConnectionError]) -> None:
    assert issubclass(kind, ConnectionError)
    assert not issubclass(kind, bws.DOMException)


# -- reprs

LONG = "x" * 10_000

# (the event, its repr)
EVENTS: list[tuple[bws.DOMEvent, str]] = [
    (bws.DOMEvent("open"), "<DOMEvent 'open'>"),
    (bws.DOMEvent("error", error=OSError("boom")), "<DOMEvent 'error' error=OSError('boom')>"),
    (bws.MessageEvent("message", "hello", "ws://x"), "<MessageEvent 'message' data='hello'>"),
    (bws.MessageEvent(data=b"\0\1"), "<MessageEvent 'message' data=b'\\x00\\x01'>"),
    (bws.MessageEvent(), "<MessageEvent 'message' data=None>"),
    (bws.MessageEvent(data=LONG), f"<MessageEvent 'message' data='{'x' * 40}'... (10,000 characters)>"),
    (bws.MessageEvent(data=LONG.encode()), f"<MessageEvent 'message' data=b'{'x' * 40}'... (10,000 bytes)>"),
    (bws.MessageEvent(data=[LONG]), f"<MessageEvent 'message' data=['{'x' * 78}...>"),
    (bws.CloseEvent("close", 1000, "bye", True), "<CloseEvent 'close' code=1000 reason='bye' wasClean=True>"),
    (
        bws.CloseEvent(code=1006, error=TimeoutError("late")),
        "<CloseEvent 'close' code=1006 reason='' wasClean=False error=TimeoutError('late')>",
    ),
]


@pytest.mark.parametrize(("event", "shown"), EVENTS)
def test_an_event_is_shown_in_one_line_and_its_payload_is_cut(event: bws.DOMEvent, shown: str) -> None:
    assert repr(event) == shown


def test_an_event_of_a_program_s_own_class_is_shown_as_what_it_says_it_is() -> None:
    class Late(bws.DOMEvent):
        type = "late"

        def __init__(self) -> None: ...

    assert repr(Late()) == "<Late 'late'>"


def test_an_event_of_a_program_has_its_defaults() -> None:
    event = bws.MessageEvent("mine", 1, lastEventId="7")
    assert (event.type, event.data, event.origin, event.lastEventId) == ("mine", 1, "", "7")
    assert (event.target, event.currentTarget, event.error, event.message) == (None, None, None, "")
    assert event.timeStamp <= bws.DOMEvent("later").timeStamp
    assert bws.MessageEvent("mine", origin="ws://other").origin == "ws://other"
    assert bws.DOMEvent("error", error=ValueError()).message == "ValueError"
    with pytest.raises(TypeError, match="type must be a str"):
        bws.DOMEvent(None)  # type: ignore[arg-type]


def test_a_socket_shows_its_url_without_password_and_its_state() -> None:
    shown: list[str] = []

    def look(r: Recorder, _: Any) -> None:
        shown.append(repr(r.ws))

    def leave(r: Recorder, _: Any) -> None:
        look(r, _)
        r.ws.close()
        look(r, _)

    gate = threading.Event()
    with ScriptedServer(Connection.handshake, gate=gate) as server:
        ws = bws.WebSocket(f"ws://user:secret@127.0.0.1:{server.port}/chat?x=1@2")
        recorder = Recorder(ws, {"open": leave, "close": look})
        look(recorder, None)
        gate.set()
        recorder.closed()
    url = f"ws://127.0.0.1:{server.port}/chat?x=1@2"
    assert shown == [f"<WebSocket {url} {state}>" for state in CONSTANTS]
    assert "secret" in ws.url  # as in the browser


def test_what_bws_testing_offers_is_shown_in_one_line() -> None:
    server = EchoServer()
    assert repr(server) == "<EchoServer not started>"
    with server, bws.WebSocket(server.url) as ws:
        seen = record(ws)
        ws.send(LONG)
        seen.wait_for("message")
        assert repr(server) == f"<EchoServer {server.url} 1 connected>"
        assert repr(seen).startswith("<Record open, message('xxx")
        assert len(repr(seen)) < 200
    assert repr(server) == f"<EchoServer {server.url} stopped>"


# -- the object


def test_what_is_read_only_cannot_be_set() -> None:
    with ScriptedServer(lambda c: c.handshake(then=close_frame())) as server:
        ws = bws.WebSocket(server.url)
        for name in ("readyState", "url", "protocol", "extensions", "bufferedAmount"):
            with pytest.raises(AttributeError):
                setattr(ws, name, None)
        assert ws.wait_closed(TIMEOUT)


def test_what_cannot_be_deleted_says_so_and_stays() -> None:
    with ScriptedServer(lambda c: c.handshake(then=close_frame())) as server:
        ws = bws.WebSocket(server.url)
        ws.onopen = print
        for name in CONSTANTS:
            with pytest.raises(AttributeError, match=rf"{name} is a constant, \d, and cannot be deleted"):
                delattr(ws, name)
        for name in sorted(ON):
            with pytest.raises(AttributeError, match=rf"{name} cannot be deleted; set ws\.{name} = None to remove"):
                delattr(ws, name)
        assert ws.onopen is print
        ws.onopen = None
        assert ws.wait_closed(TIMEOUT)
        assert ws.CLOSED == 3


def test_it_may_be_subclassed() -> None:
    class Client(bws.WebSocket):
        def __init__(self, url: str) -> None:
            self.got: list[Any] = []
            super().__init__(url)
            self.bind("message", self.on_message)

        def on_message(self, evt: bws.MessageEvent) -> None:
            self.got.append(evt.data)
            self.close()

    with EchoServer() as server:
        client = Client(server.url)
        assert client.wait_open(TIMEOUT)
        client.send("hello")
        assert client.wait_closed(TIMEOUT)
    assert client.got == ["hello"]
    assert isinstance(client, bws.WebSocket)


def test_every_instance_has_the_constants_and_they_are_the_readystates() -> None:
    with ScriptedServer(lambda c: c.handshake(then=close_frame())) as server:
        ws = bws.WebSocket(server.url)
        assert [getattr(ws, name) for name in CONSTANTS] == [0, 1, 2, 3]
        assert ws.wait_closed(TIMEOUT)
        assert ws.readyState == ws.CLOSED
