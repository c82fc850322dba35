"""The client's side of the opening handshake: what the server is asked."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

import bws
from tests.conftest import Mode, Play, Recorder
from tests.wire.frames import Seen
from tests.wire.server import Connection, ScriptedServer


def _hosts() -> list[str]:
    """The addresses of loopback that this machine has."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return ["127.0.0.1", "::1"]
    except OSError:
        return ["127.0.0.1"]


def ask(play: Play, path: str = "", protocols: Any = None, **options: Any) -> Seen:
    """What the server saw of one connection that was opened and closed."""
    on = {"open": lambda r, _: r.ws.close()}
    seen = play(Connection.handshake, on=on, path=path, protocols=protocols, **options).seen
    assert isinstance(seen, Seen)
    return seen


def test_the_request_is_that_of_rfc_6455(play: Play) -> None:
    seen = ask(play)
    names = [name.lower() for name, _ in seen.headers]
    assert seen.request_line == "GET / HTTP/1.1"
    assert (seen.header("Host") or "").startswith("127.0.0.1:")
    assert (seen.header("Upgrade") or "").lower() == "websocket"
    assert (seen.header("Connection") or "").lower() == "upgrade"
    assert seen.header("Sec-WebSocket-Version") == "13"
    assert len(base64.b64decode(seen.header("Sec-WebSocket-Key") or "", validate=True)) == 16
    assert len(names) == len(set(names))
    assert not {"authorization", "cookie", "sec-websocket-protocol"} & set(names)


def test_every_connection_has_a_key_of_its_own(mode: Mode) -> None:
    with ScriptedServer(Connection.handshake) as server:
        for _ in range(3):
            Recorder(mode.open(server.url), {"open": lambda r, _: r.ws.close()}).closed()
        keys = [seen.header("Sec-WebSocket-Key") for seen in server.results(3)]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", "/"),
        ("chat", "/chat"),
        ("?a=1", "/?a=1"),
        ("a/../b/./c", "/b/c"),
        ("a b", "/a%20b"),
        ("a\\b", "/a/b"),
        ("?q=1%20 2&b=é", "/?q=1%20%202&b=%C3%A9"),
        ("%2e%2e/x", "/x"),
        ("a?", "/a?"),
    ],
)
def test_the_target_is_the_urls_path_and_query(play: Play, path: str, target: str) -> None:
    assert ask(play, path).target == target


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({}, "Origin", "http://{host}"),
        ({"origin": ""}, "Origin", None),
        ({"origin": "https://example.com"}, "Origin", "https://example.com"),
        ({"cookie": "a=1; b=2"}, "Cookie", "a=1; b=2"),
        ({"user_agent": "tests/1.0"}, "User-Agent", "tests/1.0"),
        ({"headers": {"X-Token": "t"}}, "X-Token", "t"),
        ({"headers": [("X-Token", "é"), ("x-token", "u")]}, "X-Token", "é, u"),
        ({"headers": {"Authorization": "Bearer b"}}, "Authorization", "Bearer b"),
        ({"compression": False}, "Sec-WebSocket-Extensions", None),
        ({"protocols": "chat"}, "Sec-WebSocket-Protocol", "chat"),
        ({"protocols": ["b", "a"]}, "Sec-WebSocket-Protocol", "b, a"),
        ({"protocols": ("a", "A")}, "Sec-WebSocket-Protocol", "a, A"),
        ({"protocols": []}, "Sec-WebSocket-Protocol", None),
        ({"protocols": (name for name in ["a", "b"])}, "Sec-WebSocket-Protocol", "a, b"),
    ],
)
def test_an_option_becomes_a_header(
    options: dict[str, Any], name: str, value: str | None, request: pytest.FixtureRequest
) -> None:
    mode = Mode("threaded")
    request.addfinalizer(mode.end)
    with ScriptedServer(Connection.handshake) as server:
        Recorder(mode.open(server.url, **options), {"open": lambda r, _: r.ws.close()}).closed()
        expected = value and value.format(host=f"127.0.0.1:{server.port}")
        assert server.result().header(name) == expected


@pytest.mark.parametrize(
    ("userinfo", "pair"),
    [
        ("user:pass", "user:pass"),
        ("user:pa%20ss", "user:pa ss"),
        ("user", "user:"),
        (":pass", ":pass"),
        ("us%3Aer:p%C3%A4ss", "us:er:päss"),
    ],
)
def test_userinfo_becomes_basic_authorization(mode: Mode, userinfo: str, pair: str) -> None:
    with ScriptedServer(Connection.handshake) as server:
        url = f"ws://{userinfo}@127.0.0.1:{server.port}/"
        Recorder(mode.open(url), {"open": lambda r, _: r.ws.close()}).closed()
        seen = server.result()
    assert seen.header("Authorization") == "Basic " + base64.b64encode(pair.encode()).decode()
    assert seen.header("Host") == f"127.0.0.1:{server.port}"


def test_no_cookie_of_one_connection_reaches_another(mode: Mode) -> None:
    def script(c: Connection) -> None:
        c.handshake("Set-Cookie: a=1; Path=/", "Set-Cookie: b=2; Domain=127.0.0.1")

    with ScriptedServer(script) as server:
        for _ in range(2):
            Recorder(mode.open(server.url, cookie="mine=1"), {"open": lambda r, _: r.ws.close()}).closed()
        Recorder(mode.open(server.url), {"open": lambda r, _: r.ws.close()}).closed()
        assert [seen.header("Cookie") for seen in server.results(3)] == ["mine=1", "mine=1", None]


def test_no_cookie_of_connections_that_are_made_together_reaches_another(mode: Mode) -> None:
    gate = threading.Event()

    def script(c: Connection) -> None:
        c.request()
        c.wait_for(gate)  # all requests are in before the first answer
        c.upgrade(c.response(f"Set-Cookie: from={c.number}; Path=/"))

    with ScriptedServer(script) as server:
        on = {"open": lambda r, _: r.ws.close()}
        first = [Recorder(mode.open(server.url, cookie=f"mine={n}"), on) for n in range(8)]
        server.wait_connected(8)
        gate.set()
        second = [Recorder(mode.open(server.url), on) for _ in range(8)]
        for recorder in first + second:
            assert recorder.closed()[0] == ("open", 1)
        found = [seen.header("Cookie") or "" for seen in server.results(16)]
    assert sorted(found) == [""] * 8 + [f"mine={n}" for n in range(8)]


# where a program may put what a user typed
FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "a header's value": lambda text: {"headers": {"X-A": text}},
    "a header's name": lambda text: {"headers": {text: "1"}},
    "a header in pairs": lambda text: {"headers": [("X-A", text)]},
    "the Host header": lambda text: {"headers": {"Host": text}},
    "origin": lambda text: {"origin": text},
    "cookie": lambda text: {"cookie": text},
    "user_agent": lambda text: {"user_agent": text},
    "protocols": lambda text: {"protocols": text},
    "protocols in a list": lambda text: {"protocols": ["a", text]},
    "proxy": lambda text: {"proxy": f"http://{text}:8080"},
    "the proxy's user": lambda text: {"proxy": f"http://{text}:x@127.0.0.1:1"},
    "the proxy's password": lambda text: {"proxy": f"http://x:{text}@127.0.0.1:1"},
    "the proxy's password, encoded": lambda text: {"proxy": f"http://x:{quote(text)}@127.0.0.1:1"},
    "the SOCKS proxy's user, encoded": lambda text: {"proxy": f"socks5h://{quote(text)}:x@127.0.0.1:1"},
    "the user in the URL, encoded": lambda text: {"url": f"ws://{quote(text)}:x@127.0.0.1:1/"},
    "the password in the URL, encoded": lambda text: {"url": f"wss://x:{quote(text)}@127.0.0.1:1/"},
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("text", ["a\r\nX-Injected: 1", "a\nb", "a\rb", "a\0b", "\r", "\0", "a\x1fb", "a\x7fb"])
def test_no_field_takes_what_would_split_the_request(field: str, text: str) -> None:
    options = {"url": "ws://127.0.0.1:1/", **FIELDS[field](text)}
    with pytest.raises(ValueError, match=r"control character|not a header name|subprotocol|proxy must be") as caught:
        bws.WebSocket(**options)
    assert not set("\r\n\0") & set(str(caught.value))


@pytest.mark.parametrize("url", ["ws://127.0.0.1:{}/a\r\nX-Injected:\t1", "ws://127.0.0.1:{}/a%0D%0AX-Injected:%201"])
def test_a_url_cannot_split_the_request(mode: Mode, url: str) -> None:
    with ScriptedServer(Connection.handshake) as server:
        Recorder(mode.open(url.format(server.port)), {"open": lambda r, _: r.ws.close()}).closed()
        seen = server.result()
    assert seen.target in ("/aX-Injected:1", "/a%0D%0AX-Injected:%201")
    assert seen.header("X-Injected") is None


@pytest.mark.parametrize("spelling", ["http://{}/x", "  WS://{}/x\n", "ws:\\\\{}\\x", "ws:{}/x"])
def test_a_url_that_is_spelled_differently_leads_to_the_same_place(mode: Mode, spelling: str) -> None:
    with ScriptedServer(Connection.handshake) as server:
        ws = mode.open(spelling.format(f"127.0.0.1:{server.port}"))
        Recorder(ws, {"open": lambda r, _: r.ws.close()}).closed()
        assert server.result().target == "/x"
        assert ws.url == f"ws://127.0.0.1:{server.port}/x"


@pytest.mark.parametrize("host", _hosts())
def test_an_address_of_either_family_is_reached(mode: Mode, host: str) -> None:
    with ScriptedServer(Connection.echo, host=host) as server:
        recorder = Recorder(
            mode.open(server.url), {"open": lambda r, _: r.ws.send("x"), "message": lambda r, _: r.ws.close()}
        )
        assert recorder.closed()[1] == ("message", 1, "x")
        assert recorder.events[1].origin == server.origin


def test_the_next_address_of_a_name_is_tried_if_one_fails(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    def both(host: str, port: int, *_: object, **__: object) -> list[Any]:
        tcp = socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
        return [
            (socket.AF_INET6, *tcp, ("::1", port, 0, 0)),  # there nobody listens
            (socket.AF_INET, *tcp, ("127.0.0.1", port)),
        ]

    with ScriptedServer(Connection.handshake) as server:
        monkeypatch.setattr(socket, "getaddrinfo", both)
        url = f"ws://two-addresses.invalid:{server.port}/"
        recorder = Recorder(mode.open(url), {"open": lambda r, _: r.ws.close()})
        assert recorder.closed()[0][0] == "open"
        assert server.result().header("Host") == f"two-addresses.invalid:{server.port}"
