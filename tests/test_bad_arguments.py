"""Every wrong argument raises in the caller: the right exception, with its name, the value and what is accepted."""

from __future__ import annotations

import array
import math
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

import bws
from tests.wire.server import Connection, ScriptedServer

URL = "ws://127.0.0.1:9/"  # nobody connects: every row raises before
LONG = "x" * 500

Row = tuple[str, Any, type[Exception], str, str]  # option, value, exception, how the value shows, what is accepted


def rows(option: str, error: type[Exception], accepted: str, *values: Any) -> Iterator[Row]:
    """One row for each value, which shows as its repr, cut."""
    return ((option, value, error, repr(value)[:40], accepted) for value in values)


def headers(error: type[Exception], accepted: str, *values: tuple[Any, str]) -> Iterator[Row]:
    """Rows for headers: of these only the part that is wrong is shown."""
    return (("headers", value, error, shown, accepted) for value, shown in values)


TIMES = ("open_timeout", "close_timeout", "ping_interval")
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

CONSTRUCTOR: list[Row] = [
    *rows("url", TypeError, "str", None, 123),
    ("url", b"ws://u:secret@h/", TypeError, "bytes of length 16", "str"),
    ("url", ["ws://u:secret@h/"], TypeError, "list of length 1", "str"),
    *rows(
        "url", bws.DOMSyntaxError, "absolute URL", "", "//example.com", "/chat", "ws://", "ws://a b/", "ws://h:99999/"
    ),
    *rows("url", bws.DOMSyntaxError, "ws, wss, http or https", "ftp://h/", "file:///x", "data:,x"),
    *rows("url", bws.DOMSyntaxError, "absolute URL such as 'wss://example.com/chat'", "wss//h", "1.2.3.4.5"),
    ("url", "h/a@b", bws.DOMSyntaxError, "'b'", "absolute URL"),
    *rows("url", bws.DOMSyntaxError, "as in 'ws://localhost:8765'", "localhost:8765"),
    *rows("url", bws.DOMSyntaxError, "as in 'ws://h:8765/chat'", "h:8765/chat"),
    *rows("url", bws.DOMSyntaxError, "such as 'ws://127.0.0.1:8765'", "127.0.0.1:8765"),
    *rows("url", bws.DOMSyntaxError, "such as 'ws://example.com/a?b'", "example.com/a?b"),
    *rows("url", bws.DOMSyntaxError, "fragment", "ws://h/#", "ws://h/a#b"),
    *rows("protocols", TypeError, "str", 123, b"chat", object(), {"chat": 1}),
    ("protocols", ["chat", 1], TypeError, "1", "str"),
    ("protocols", ["chat", None], TypeError, "None", "str"),
    *rows("protocols", bws.DOMSyntaxError, "letters", "", "a b", "a,b", "é", "a\r\nX: y", LONG + " "),
    ("protocols", ["a", "a"], bws.DOMSyntaxError, "'a'", "once"),
    *rows("dispatch", TypeError, "callable", "tk", 1, object()),
    *headers(
        TypeError,
        "pairs",
        (5, "5"),
        ("X: secret", "str of length 9"),
        (b"X: secret", "bytes of length 9"),
        (["X: secret"], "str of length 9"),
        ([("X", "secret", "2")], "tuple of length 3"),
        ({1: "x"}, "got 1 and str of length 1"),
        ({"a secret": None}, "got str of length 8 and None"),
        ({b"X": 5}, "got bytes of length 1 and int"),
    ),
    *headers(
        TypeError,
        "must be a str, not",
        ({"X-A": "1", "X-B": None, "X-C": None}, "headers['X-B'] must be a str, not None"),
        ([("X-A", "1"), ("X-B", 4711)], "headers['X-B'] must be a str, not int"),
        ({"X": b"secret"}, "headers['X'] must be a str, not bytes of length 6"),
        ({"X": ["secret"]}, "headers['X'] must be a str, not list of length 1"),
        ({"X": object()}, "headers['X'] must be a str, not object"),
        ({"X" * 500: None}, "(500 characters)] must be a str, not None"),
    ),
    *headers(
        ValueError,
        "header name",
        ({"": "x"}, "''"),
        ({"X Y": "x"}, "'X Y'"),
        ({"X:": "x"}, "'X:'"),
        ({"X: secret": ""}, "'X:'"),
        ({"X\r\nY": "x"}, r"'X\r\nY'"),
        ({"X\0": "x"}, r"'X\x00'"),
        ({"é": "x"}, "'é'"),
    ),
    *headers(
        ValueError,
        "control character",
        ({"X": "secret\r\nY: b"}, r"headers['X']: character 7 of 12 is the control character '\r'"),
        ({"X": "secret\n"}, r"headers['X']: character 7 of 7 is the control character '\n'"),
        ({"X": "\rsecret"}, r"headers['X']: character 1 of 7 is the control character '\r'"),
        ({"X": "secret\0"}, r"headers['X']: character 7 of 7 is the control character '\x00'"),
    ),
    *headers(ValueError, "Latin-1", ({"X": "secret✓"}, "headers['X']: character 7 of 7")),
    *headers(
        ValueError,
        "handshake",
        ({"Upgrade": "h2c"}, "'Upgrade'"),
        ({"connection": "close"}, "'connection'"),
        ({"Content-Length": "0"}, "'Content-Length'"),
        ({"Transfer-Encoding": "chunked"}, "'Transfer-Encoding'"),
        ([("SEC-WebSocket-Key", "x")], "'SEC-WebSocket-Key'"),
        ({"Sec-WebSocket-Protocol": "secret"}, "'Sec-WebSocket-Protocol'"),
        ({"sec-websocket-extensions": "x"}, "'sec-websocket-extensions'"),
    ),
    *rows("origin", TypeError, "str", 1, b"http://h", True),
    *rows("origin", ValueError, "control character", "http://h\r\nX: y", "a\0"),
    *rows("origin", ValueError, "Latin-1", "http://✓"),
    ("cookie", 1, TypeError, "not 1", "str"),
    ("cookie", {"a": "secret"}, TypeError, "not dict", "str"),
    ("cookie", b"a=secret", TypeError, "bytes of length 8", "str"),
    ("cookie", "secret\r\nX: y", ValueError, "character 7 of 12", "control character"),
    ("cookie", "secret\n", ValueError, "character 7 of 7", "control character"),
    ("cookie", "\0", ValueError, "character 1 of 1", "control character"),
    ("cookie", "secret✓", ValueError, "character 7 of 7", "Latin-1"),
    *rows("user_agent", TypeError, "str", 1, b"x"),
    *rows("user_agent", ValueError, "control character", "x\r\n", "x\0"),
    *rows("ssl", TypeError, "SSLContext", True, False, {}, "cert.pem"),
    *rows("ssl", ValueError, "wss", CONTEXT),  # the URL is not encrypted
    *rows("proxy", TypeError, "True", 8080, False),
    ("proxy", b"http://u:secret@h:1", TypeError, "bytes of length 19", "True"),
    ("proxy", ["http://u:secret@h:1"], TypeError, "list of length 1", "True"),
    *rows("proxy", ValueError, "http", "", "host:8080", "http://", "ftp://h:1", "http://h:0", "http://h:1\r\nX: y"),
    *(row for option in TIMES for row in rows(option, TypeError, "seconds", "1", True, False, [1], 1j)),
    *(
        row
        for option in TIMES
        for row in rows(option, ValueError, "positive", 0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf)
    ),
    ("ping_timeout", 1, ValueError, "1", "ping_interval"),
    *rows("max_size", TypeError, "bytes", "1", 1.5, True, math.inf),
    *rows("max_size", ValueError, "positive", 0, -1),
    *rows("compression", TypeError, "True", 1, 0, None, "yes"),
]


def name(value: object) -> str | None:
    """A test is called the same in each run."""
    return value.partition(" at 0x")[0] if isinstance(value, str) else None


@pytest.mark.parametrize(("option", "value", "error", "shown", "accepted"), CONSTRUCTOR, ids=name)
def test_a_wrong_argument_of_the_constructor_raises(
    option: str, value: Any, error: type[Exception], shown: str, accepted: str
) -> None:
    arguments = {"url": URL, option: value}
    with pytest.raises(error) as caught:
        bws.WebSocket(**arguments)
    check(caught, error, option, shown, accepted)


def check(caught: pytest.ExceptionInfo[Exception], error: type[Exception], *parts: str) -> None:
    """The exception is exactly that one, its message has all the parts and is not endless."""
    assert type(caught.value) is error
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "secret" not in message
    assert len(message) < 400
    assert "\n" not in message
    assert "\r" not in message


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"ping_interval": 1, "ping_timeout": 0}, ["ping_timeout", "0", "positive"]),
        ({"ping_interval": 1, "ping_timeout": -2.5}, ["ping_timeout", "-2.5", "positive"]),
        ({"ping_interval": 1, "ping_timeout": math.nan}, ["ping_timeout", "nan", "positive"]),
        ({"headers": {"Origin": "a"}, "origin": "b"}, ["headers", "'Origin'", "origin="]),
        ({"headers": {"ORIGIN": "a"}, "origin": ""}, ["headers", "'Origin'", "origin="]),
        ({"headers": {"Cookie": "secret"}, "cookie": "secret"}, ["headers", "'Cookie'", "cookie="]),
        ({"headers": {"user-agent": "a"}, "user_agent": "b"}, ["headers", "'User-Agent'", "user_agent="]),
        ({"url": "ws://u:p@h/", "headers": {"Authorization": "a"}}, ["headers", "'Authorization'", "url"]),
    ],
)
def test_arguments_that_contradict_each_other_raise(arguments: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError, match=parts[0]) as caught:
        bws.WebSocket(**{"url": URL, **arguments})
    check(caught, ValueError, *parts)


@pytest.mark.parametrize("ping_timeout", ["1", True, [1]])
def test_a_ping_timeout_of_a_wrong_type_raises(ping_timeout: Any) -> None:
    with pytest.raises(TypeError) as caught:
        bws.WebSocket(URL, ping_interval=1, ping_timeout=ping_timeout)
    check(caught, TypeError, "ping_timeout", repr(ping_timeout), "seconds")


@pytest.mark.parametrize(
    "arguments",
    [(), ("ws://h/", None, None), ("ws://h/", "chat", print)],
)
def test_options_are_named(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        bws.WebSocket(*arguments)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(ValueError, match="proxy") as caught:
        bws.WebSocket(URL, proxy="ftp://user:secret@host:1")
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module")
def ws() -> Iterator[bws.WebSocket]:
    """An open socket; no row changes it."""
    with ScriptedServer(Connection.echo) as server, bws.WebSocket(server.url) as ws:
        yield ws


def two(a: Any, b: Any) -> None:
    """Not a handler: it needs two arguments."""


Call = Callable[[Any], Any]

METHODS: list[tuple[Call, type[Exception], list[str]]] = [
    # send
    *(
        (lambda ws, value=value: ws.send(value), TypeError, ["data", type(value).__name__, repr(value), "json.dumps"])
        for value in (None, 42, 1.5, True, {"a": 1}, ["a"], ("a",), {"a"})
    ),
    (lambda ws: ws.send(memoryview(b"abcd")[::2]), TypeError, ["data", "not memoryview <", "bytes(...)"]),
    (lambda ws: ws.send(memoryview(array.array("i", [1, 2, 3]))[::-1]), TypeError, ["data", "C-contiguous"]),
    # close
    *(
        (lambda ws, code=code: ws.close(code), bws.InvalidAccessError, ["code", repr(code), "1000", "3000-4999"])
        for code in (0, 999, 1001, 1005, 2999, 5000, -1, 1 << 70)
    ),
    (lambda ws: ws.close(1000, 42), TypeError, ["reason", "42", "str"]),
    (lambda ws: ws.close(1000, b"bye"), TypeError, ["reason", "b'bye'", "str"]),
    (lambda ws: ws.close(None, "bye"), bws.InvalidAccessError, ["reason", "'bye'", "code"]),
    (lambda ws: ws.close(reason="bye"), bws.InvalidAccessError, ["reason", "'bye'", "code"]),
    (lambda ws: ws.close(1000, LONG), bws.DOMSyntaxError, ["reason", "xxx", "500", "123"]),
    # ping
    (lambda ws: ws.ping("text"), TypeError, ["payload", "'text'", "bytes"]),
    (lambda ws: ws.ping(1), TypeError, ["payload", "1", "bytes"]),
    (lambda ws: ws.ping(None), TypeError, ["payload", "None", "bytes"]),
    (lambda ws: ws.ping(b"x" * 126), ValueError, ["payload", "b'xxx", "126", "125"]),
    (lambda ws: ws.ping(b"", "callback"), TypeError, ["callback", "'callback'", "callable"]),
    (lambda ws: ws.ping(callback=1), TypeError, ["callback", "1", "callable"]),
    (lambda ws: ws.ping(memoryview(b"abcd")[::2]), TypeError, ["payload", "C-contiguous", "bytes(...)"]),
    (lambda ws: ws.ping(b"", two), TypeError, ["callback", "two", "(a", "must accept the seconds"]),
    # bind, unbind
    (lambda ws: ws.bind("opened", print), ValueError, ["'opened'", "'open', 'error', 'message' or 'close'"]),
    (lambda ws: ws.bind("Open", print), ValueError, ["'Open'", "'open'"]),
    *(
        (lambda ws, event=event: ws.bind(event, print), ValueError, [repr(event), "'close'; did you mean 'open'?"])
        for event in ("Open", "onopen", "on_open", "onOpen", "OPEN", "open ")
    ),
    (lambda ws: ws.bind(two), ValueError, ["two", "'close', as in @ws.bind(\"message\")"]),
    (lambda ws: ws.bind(two, "open"), ValueError, ["two", "'close', as in ws.bind(\"message\", handler)"]),
    (lambda ws: ws.unbind("onmessage", two), ValueError, ["'onmessage'", "did you mean 'message'?"]),
    (lambda ws: ws.unbind(two), ValueError, ["two", "'close', as in ws.unbind(\"message\", handler)"]),
    (lambda ws: ws.bind("", print), ValueError, ["''", "'open'"]),
    (lambda ws: ws.bind("custom"), ValueError, ["'custom'", "'open'"]),
    (lambda ws: ws.bind(None, print), ValueError, ["None", "'open'"]),
    (lambda ws: ws.bind(["open"], print), ValueError, ["['open']", "'open'"]),
    (lambda ws: ws.bind("open", "print"), TypeError, ["handler", "'print'", "callable"]),
    (lambda ws: ws.bind("open", None), TypeError, ["handler", "None", "callable"]),
    (lambda ws: ws.bind("open", two), TypeError, ["handler", "two", "(a", "event"]),
    (lambda ws: ws.bind("open")(5), TypeError, ["handler", "5", "callable"]),
    (lambda ws: ws.unbind("opened"), ValueError, ["'opened'", "'open'"]),
    (lambda ws: ws.unbind("opened", print), ValueError, ["'opened'", "'open'"]),
    # the DOM's names
    (lambda ws: ws.addEventListener("open", 5), TypeError, ["handler", "5", "callable"]),
    (lambda ws: ws.addEventListener("open", two), TypeError, ["handler", "two", "event"]),
    *(
        (lambda ws, given=given: ws.addEventListener("open", print, given), TypeError, ["once=True", repr(given)])
        for given in ({"once": True}, {}, True)
    ),
    *(
        (lambda ws, once=once: ws.addEventListener("open", print, once=once), TypeError, ["once", repr(once), "True"])
        for once in (5, 1, None, "yes", {"once": True})
    ),
    (lambda ws: ws.addEventListener(5, print), TypeError, ["type", "5", "str"]),
    (lambda ws: ws.removeEventListener(5, print), TypeError, ["type", "5", "str"]),
    (lambda ws: setattr(ws, "onopen", 5), TypeError, ["handler", "5", "callable"]),
    (lambda ws: setattr(ws, "onclose", two), TypeError, ["handler", "two", "event"]),
    (lambda ws: ws.dispatchEvent("open"), TypeError, ["event", "'open'", "DOMEvent"]),
    (lambda ws: ws.dispatchEvent(None), TypeError, ["event", "None", "DOMEvent"]),
    (lambda ws: bws.DOMEvent(cast("str", 5)), TypeError, ["type", "5", "str"]),
    # waiting
    *(
        (lambda ws, name=name, value=value: getattr(ws, name)(value), error, ["timeout", repr(value), "seconds"])
        for name in ("flush", "wait_open", "wait_closed")
        for value, error in [
            ("1", TypeError),
            (True, TypeError),
            ([1], TypeError),
            (-1, ValueError),
            (math.nan, ValueError),
            (-math.inf, ValueError),
        ]
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "parts"), METHODS, ids=lambda value: str(value) if isinstance(value, list) else ""
)
def test_a_wrong_argument_of_a_method_raises_and_changes_nothing(
    ws: bws.WebSocket, call: Call, error: type[Exception], parts: list[str]
) -> None:
    with pytest.raises(error) as caught:
        call(ws)
    check(caught, error, *parts)
    assert (ws.readyState, ws.bufferedAmount) == (1, 0)


def test_there_are_at_least_eighty_rows() -> None:
    assert len(CONSTRUCTOR) + len(METHODS) >= 80


def test_a_wrong_argument_starts_no_thread() -> None:
    before = set(threading.enumerate())
    for option, value, error, *_ in CONSTRUCTOR:
        with pytest.raises(error):
            bws.WebSocket(**{"url": URL, option: value})
    assert set(threading.enumerate()) <= before
