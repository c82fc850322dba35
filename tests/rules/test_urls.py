"""The constructor's URL: the WHATWG algorithm, as browsers apply it to WebSockets."""

from __future__ import annotations

import re
import socket
from typing import NoReturn

import pytest

import bws


@pytest.fixture(autouse=True)
def no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """These sockets must not reach out: every host is unknown."""

    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


HOST = "ws://example.com/"
LONG = "a" * 64  # too long for a label of DNS; the URL is valid all the same

VALID = [
    # scheme
    ("ws://example.com", HOST),
    ("wss://example.com/a?b=c", "wss://example.com/a?b=c"),
    ("https://example.com/x", "wss://example.com/x"),
    ("HTTP://EXAMPLE.com/X", "ws://example.com/X"),
    ("WS://EXAMPLE.COM/Path", "ws://example.com/Path"),
    # port
    ("ws://example.com:80/", HOST),
    ("ws://example.com:443/", "ws://example.com:443/"),
    ("wss://example.com:443/", "wss://example.com/"),
    ("wss://example.com:80/", "wss://example.com:80/"),
    ("http://example.com:80/", HOST),
    ("https://example.com:443/x", "wss://example.com/x"),
    ("ws://example.com:/", HOST),
    ("ws://example.com:0/", "ws://example.com:0/"),
    ("ws://example.com:65535/", "ws://example.com:65535/"),
    ("ws://example.com:080/", HOST),
    ("ws://example.com:8080", "ws://example.com:8080/"),
    ("ws://localhost:6667/x", "ws://localhost:6667/x"),  # ports that browsers block are allowed
    ("ws://example.com:22", "ws://example.com:22/"),
    # slashes
    ("ws:///path", "ws://path/"),
    ("ws:example.com", HOST),
    ("ws:/example.com", HOST),
    ("ws:\\\\example.com\\a\\b", "ws://example.com/a/b"),
    ("ws://example.com\\a", "ws://example.com/a"),
    # user and password
    ("ws://user@example.com/", "ws://user@example.com/"),
    ("ws://user:pw@example.com/", "ws://user:pw@example.com/"),
    ("ws://:@example.com/", HOST),
    # addresses
    ("ws://[::1]/", "ws://[::1]/"),
    ("ws://[::1]:8080/x", "ws://[::1]:8080/x"),
    ("ws://[0:0:0:0:0:0:0:1]/", "ws://[::1]/"),
    ("ws://127.0.0.1/", "ws://127.0.0.1/"),
    ("ws://127.1/", "ws://127.0.0.1/"),
    ("ws://0x7f.1/", "ws://127.0.0.1/"),
    ("ws://2130706433/", "ws://127.0.0.1/"),
    # names
    ("ws://bücher.example/", "ws://xn--bcher-kva.example/"),
    ("ws://BÜCHER.example/", "ws://xn--bcher-kva.example/"),
    ("ws://xn--bcher-kva.example/", "ws://xn--bcher-kva.example/"),
    ("ws://日本.example/", "ws://xn--wgv71a.example/"),
    ("ws://%E2%98%83.example/", "ws://xn--n3h.example/"),
    ("ws://ｅxample.com/", HOST),  # noqa: RUF001 - a full-width letter
    ("ws://ex%61mple.com/", HOST),
    ("ws://。/", "ws://./"),
    ("ws://example.com./", "ws://example.com./"),
    ("ws://example..com/", "ws://example..com/"),
    ("ws://-a-/", "ws://-a-/"),
    (f"ws://{LONG}.example/", f"ws://{LONG}.example/"),
    # path and query
    ("ws://example.com/a b", "ws://example.com/a%20b"),
    ("ws://example.com/%zz", "ws://example.com/%zz"),
    ("ws://example.com/%23", "ws://example.com/%23"),
    ("ws://example.com/?q=✓&x='\"<>`", "ws://example.com/?q=%E2%9C%93&x=%27%22%3C%3E`"),
    ('ws://example.com/{a}|\\`"<>', "ws://example.com/%7Ba%7D|/%60%22%3C%3E"),
    ("ws://example.com/a/../b/./c", "ws://example.com/b/c"),
    ("ws://example.com/%2e%2e/x", "ws://example.com/x"),
    ("ws://example.com/a//b", "ws://example.com/a//b"),
    ("ws://example.com?", "ws://example.com/?"),
    # what is stripped or replaced
    (" ws://example.com/ ", HOST),
    ("ws://exam\nple.com/a\tb", "ws://example.com/ab"),
    ("\x00ws://example.com/", HOST),
    ("ws://example.com/\ud800", "ws://example.com/%EF%BF%BD"),
]

INVALID = [
    # port
    "ws://example.com:65536/",
    "ws://example.com:abc/",
    "ws://example.com:-1/",
    # a fragment, also an empty one
    "ws://example.com/#",
    "ws://example.com/a#b",
    "http://example.com/#x",
    "ws://example.com/?a#b",
    # no host
    "",
    " ",
    "ws:",
    "ws:/",
    "ws://",
    "ws://?q",
    "ws://:8080/",
    "ws://user@/",
    # addresses
    "ws://[::1",
    "ws://::1/",
    "ws://[fe80::1%25eth0]/",
    "ws://256.256.256.256/",
    "ws://1.2.3.4.5/",
    # names
    "ws://ex ample.com/",
    "ws://ex%20ample.com/",
    "ws://a<b/",
    "ws://a^b/",
    "ws://a|b/",
    # scheme
    "wſ://example.com/",  # noqa: RUF001 - a long s
    "ws ://example.com/",
    "ftp://example.com/",
    "file:///etc/x",
    "about:blank",
    "data:,x",
    "javascript:1",
    "blob:ws://example.com/",
    "ws+unix://x",
    "localhost:8080",
    "example.com:8080",
    # relative: a program has no base URL
    "/chat",
    "chat",
    "?q",
    "//example.com/x",
    "//",
    ".",
    "..",
    "ws//example.com",
]


@pytest.mark.parametrize(("url", "serialized"), VALID)
def test_a_url_is_serialized_as_the_standard_says(url: str, serialized: str) -> None:
    ws = bws.WebSocket(url)
    assert ws.url == serialized
    ws.close()
    assert ws.wait_closed(10)
    assert ws.url == serialized


PORT = "its port must be a number in 0-65535"
NO_HOST = "it has no host"
BAD_HOST = "its host is not a valid name or address"
BRACKETS = f"{BAD_HOST} (an IPv6 address has brackets around it"
ENCODE = "its host or port is not valid; in a user name or password, /, ? and # must be percent-encoded"

# (a URL, the mistake that is named); the secret is not shown
MISTAKES = [
    ("ws://a:65536", PORT),
    ("ws://a:80a", PORT),
    ("http://a:-1/x", PORT),
    ("WSS:\\\\a:1x\\", PORT),
    (" ws://exam\nple.com:99999 ", PORT),
    ("ws://[::1]:80x", PORT),
    ("ws://u:secret@a:99999/", PORT),
    ("ws://", NO_HOST),
    ("ws://:8080/", NO_HOST),
    ("ws://u:secret@/", NO_HOST),
    ("ws://256.1.1.1", f"{BAD_HOST};"),
    ("ws://ex ample", f"{BAD_HOST};"),
    ("ws://u:secret@ex ample:80", f"{BAD_HOST};"),
    ("ws://[::1", BRACKETS),
    ("ws://fe80::1:8080/", BRACKETS),
    ("ws://u:secret/secret@a:80/", ENCODE),
    ("ws://u:p?secret@a/", ENCODE),
]


@pytest.mark.parametrize(("url", "mistake"), MISTAKES)
def test_what_is_wrong_with_a_url_is_named(url: str, mistake: str) -> None:
    with pytest.raises(bws.DOMSyntaxError, match=f"cannot be parsed: {re.escape(mistake)}") as caught:
        bws.WebSocket(url)
    assert "expected an absolute URL" in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("url", INVALID)
def test_a_url_that_is_no_websocket_url_raises_at_once(url: str) -> None:
    with pytest.raises(bws.DOMSyntaxError) as caught:
        bws.WebSocket(url)
    assert caught.value.name == "SyntaxError"
    assert isinstance(caught.value, (bws.DOMException, ValueError))
    assert "url" in caught.value.message
    assert repr(url.replace("user@", "")) in caught.value.message  # credentials are not shown
