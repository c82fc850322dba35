"""Which proxy is taken, what its URL may be, and the kinds that are not everyday: https:, IPv6, odd ones."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import ssl
import sys
import threading
from typing import Any

import pytest

import bws
from bws._engine import relay
from bws._engine.patience import Patience
from bws._engine.proxies import choose
from bws._proxy import parse
from bws._rules import parse_url
from bws._system import Waker
from bws.errors import ProxyError
from tests.conftest import TIMEOUT, Recorder, run_python
from tests.engine.proxy import Proxy, Socks
from tests.wire.server import Connection, ScriptedServer
from tests.wire.tls import authority_pem, server_context

FAILED = [("error", 3), ("close", 3, 1006, "", False)]
NAMES = "localhost", "127.0.0.1"

# -- the environment

P = "http://proxy.example:3128"
Q = "http://other.example:3128"

# the environment, the URL: the proxy's host, or None
ENVIRONMENTS: list[tuple[dict[str, str], str, str | None]] = [
    ({}, "ws://a.example/", None),
    # which variable
    ({"http_proxy": P}, "ws://a.example/", "proxy.example"),
    ({"http_proxy": P}, "wss://a.example/", None),
    ({"https_proxy": P}, "wss://a.example/", "proxy.example"),
    ({"https_proxy": P}, "ws://a.example/", None),
    ({"ws_proxy": P, "http_proxy": Q}, "ws://a.example/", "proxy.example"),
    ({"wss_proxy": P, "https_proxy": Q}, "wss://a.example/", "proxy.example"),
    ({"all_proxy": P}, "ws://a.example/", "proxy.example"),
    ({"all_proxy": P}, "wss://a.example/", "proxy.example"),
    ({"all_proxy": P, "http_proxy": Q}, "ws://a.example/", "other.example"),
    ({"socks_proxy": "socks5://proxy.example:1080", "all_proxy": Q}, "ws://a.example/", "proxy.example"),
    ({"socks_proxy": "proxy.example:1080"}, "ws://a.example/", "proxy.example"),
    ({"ftp_proxy": P}, "ws://a.example/", None),
    # spelling
    ({"HTTPS_PROXY": P}, "wss://a.example/", "proxy.example"),
    ({"ALL_PROXY": P}, "ws://a.example/", "proxy.example"),
    ({"HTTP_PROXY": P}, "ws://a.example/", "proxy.example"),
    ({"HTTP_PROXY": Q, "http_proxy": P}, "ws://a.example/", "proxy.example"),
    ({"HTTP_PROXY": Q, "http_proxy": ""}, "ws://a.example/", None),
    ({"HTTP_PROXY": P, "REQUEST_METHOD": "GET"}, "ws://a.example/", None),  # CGI: that is the client's header Proxy:
    ({"http_proxy": P, "REQUEST_METHOD": "GET"}, "ws://a.example/", "proxy.example"),
    ({"http_proxy": "proxy.example"}, "ws://a.example/", "proxy.example"),
    ({"http_proxy": "http://proxy.example/"}, "ws://a.example/", "proxy.example"),
    ({"http_proxy": "http://[2001:db8::1]:3128"}, "ws://a.example/", "2001:db8::1"),
    # exceptions
    ({"http_proxy": P, "no_proxy": "a.example"}, "ws://a.example/", None),
    ({"http_proxy": P, "NO_PROXY": "a.example"}, "ws://a.example/", None),
    ({"http_proxy": P, "no_proxy": "A.Example"}, "ws://a.example/", None),
    ({"http_proxy": P, "no_proxy": "example"}, "ws://a.example/", None),
    ({"http_proxy": P, "no_proxy": ".example"}, "ws://a.example/", None),
    ({"http_proxy": P, "no_proxy": "b.example , a.example"}, "ws://a.example/", None),
    ({"http_proxy": P, "no_proxy": "*"}, "ws://a.example/", None),
    ({"http_proxy": P, "no_proxy": "a.example:80"}, "ws://a.example/", None),
    ({"http_proxy": P, "no_proxy": "a.example:81"}, "ws://a.example/", "proxy.example"),
    ({"http_proxy": P, "no_proxy": "a.example:81"}, "ws://a.example:81/", None),
    ({"http_proxy": P, "no_proxy": "ample"}, "ws://a.example/", "proxy.example"),
    ({"http_proxy": P, "no_proxy": "a.example"}, "ws://ba.example/", "proxy.example"),
    ({"http_proxy": P, "no_proxy": ""}, "ws://a.example/", "proxy.example"),
    ({"http_proxy": P, "no_proxy": "127.0.0.1"}, "ws://127.0.0.1/", None),
    ({"http_proxy": P, "no_proxy": "127.0.0.1"}, "ws://127.0.0.2/", "proxy.example"),
    ({"http_proxy": P, "no_proxy": "10.1.0.0/16, 127.0.0.0/8"}, "ws://127.9.9.9:99/", None),
    ({"http_proxy": P, "no_proxy": "10.1.2.3/16"}, "ws://10.1.9.9/", None),
    ({"http_proxy": P, "no_proxy": "10.1.0.0/16"}, "ws://10.2.0.1/", "proxy.example"),
    ({"http_proxy": P, "no_proxy": "10.1.0.0/16"}, "ws://10.1.example/", "proxy.example"),
    ({"http_proxy": P, "no_proxy": "2001:db8::/32"}, "ws://[2001:db8::7]:99/", None),
    ({"http_proxy": P, "no_proxy": "::1"}, "ws://[::1]:99/", None),
    ({"http_proxy": P, "no_proxy": "[::1]"}, "ws://[::1]/", None),
    ({"http_proxy": P, "no_proxy": "10.0.0.0/99,nonsense/,/8"}, "ws://10.0.0.1/", "proxy.example"),
]


@pytest.mark.parametrize(("environment", "url", "host"), ENVIRONMENTS)
def test_the_environment_names_the_proxy(
    environment: dict[str, str], url: str, host: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if os.name == "nt" and {"http_proxy", "HTTP_PROXY"} <= set(environment):
        pytest.skip("there the names of variables have no case")
    with contextlib.closing(Waker()) as waker:
        patience = Patience(waker, bool, None)
        proxy = choose(True, parse_url(url), patience)
        assert (None if proxy is None else proxy.host) == host
        assert choose(None, parse_url(url), patience) is None


def test_another_thread_may_change_the_environment_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pytest does with a variable of its own."""
    monkeypatch.setenv("http_proxy", P)
    monkeypatch.setenv("BWS_COMES_AND_GOES", "")
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            os.environ.pop("BWS_COMES_AND_GOES", None)
            os.environ["BWS_COMES_AND_GOES"] = ""

    other = threading.Thread(target=change)
    interval = sys.getswitchinterval()
    address = parse_url("ws://a.example/")
    with contextlib.closing(Waker()) as waker:
        patience = Patience(waker, bool, None)
        sys.setswitchinterval(1e-6)
        other.start()
        try:
            proxies = [choose(True, address, patience) for _ in range(500)]
        finally:
            sys.setswitchinterval(interval)
            over.set()
            other.join()
    assert {proxy and proxy.host for proxy in proxies} == {"proxy.example"}


# -- a proxy's URL

# the URL: scheme, host, port, credentials
URLS: dict[str, tuple[str, str, int, tuple[str, str] | None]] = {
    "http://h": ("http", "h", 80, None),
    "HTTP://H:8080/": ("http", "h", 8080, None),
    "https://h": ("https", "h", 443, None),
    "socks4://h": ("socks4", "h", 1080, None),
    "socks4a://u@h": ("socks4a", "h", 1080, ("u", "")),
    "socks5://h:9": ("socks5", "h", 9, None),
    "socks5h://u:p@[::1]:9": ("socks5h", "::1", 9, ("u", "p")),
    "socks://h": ("socks5h", "h", 1080, None),
    "http://u:p@h": ("http", "h", 80, ("u", "p")),
    "http://u@h": ("http", "h", 80, ("u", "")),
    "http://:p@h": ("http", "h", 80, ("", "p")),
    "http://u%3A:p%40%C3%9F@h": ("http", "h", 80, ("u:", "p@ß")),
    "http://u:p@ss@h": ("http", "h", 80, ("u", "p@ss")),
}


@pytest.mark.parametrize("url", URLS)
def test_a_proxys_url_is_taken_apart(url: str) -> None:
    assert tuple(parse(url)) == URLS[url]


def test_a_proxy_is_shown_without_its_credentials() -> None:
    assert repr(parse("http://user:secret@h:8080")) == str(parse("http://user:secret@h:8080")) == "proxy 'h' port 8080"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "expected SCHEME://HOST:PORT"),
        ("h:8080", "expected SCHEME://HOST:PORT"),
        ("ftp://user:secret@h", "expected SCHEME://HOST:PORT"),
        ("http://user:secret@h:99999", "expected SCHEME://HOST:PORT"),
        ("http://user:sec/ret@h", "expected SCHEME://HOST:PORT"),
        ("http://user:secret@", "expected SCHEME://HOST:PORT"),
        ("http://user:secret%0D%0AX:1@h", "control character"),
        ("socks5h://user:secr%C3%A9t@h", "ASCII"),
        ("socks5h://user:" + "secret" * 50 + "@h", "255"),
        ("socks4://us%C3%A9r@h", "ASCII"),
        ("socks5://user@h", "needs a user name and a password"),
        ("socks5://:secret@h", "needs a user name and a password"),
    ],
)
def test_a_proxys_url_that_cannot_be_used_is_refused_without_its_secret(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        bws.WebSocket("ws://server.example/", proxy=url)
    if url in ("", "h:8080"):
        return  # in the environment, the one is none, and the other one is an http proxy
    monkeypatch.setenv("http_proxy", url)
    recorder = Recorder(bws.WebSocket("ws://server.example/"))
    assert recorder.closed() == FAILED
    assert isinstance(recorder.error, ProxyError)
    assert message in str(recorder.error)
    for error in (caught.value, recorder.error):
        assert "secr" not in str(error)
        assert "sec/" not in str(error)


# -- kinds of proxies


def echoed(url: str, **options: Any) -> None:
    """A connection that an echo has come over, and that was closed."""
    recorder = Recorder(
        bws.WebSocket(url, **options),
        {"open": lambda r, _: r.ws.send("x" * 400_000), "message": lambda r, _: r.ws.close(1000)},
    )
    assert [entry[0] for entry in recorder.closed()] == ["open", "message", "close"]
    assert recorder.entries[-1] == ("close", 3, 1000, "", True)


HTTPS = """
    import sys, threading
    import bws

    url, proxy, authority = sys.argv[1:]
    import ssl
    context = ssl.create_default_context() if url.startswith("wss:") else None  # of this process's store
    done = []
    ws = bws.WebSocket(url, proxy=proxy, ssl=context)
    ws.bind("open", lambda: ws.send("x" * 2_000_000))
    ws.bind("message", lambda evt: (done.append(len(evt.data)), len(done) == 3 and ws.close(1000), ws.send(evt.data)))
    ws.bind("error", lambda evt: print(type(evt.error).__name__, evt.error))
    ws.bind("close", lambda evt: print(done, evt.code, evt.wasClean))
    ws.wait_closed(40)
    for thread in threading.enumerate():
        if thread.name.startswith("bws") and thread.name != "bws relief":
            thread.join(10)
            assert not thread.is_alive(), thread
    """


def through_https(url: str, proxy: str, monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path) -> str:
    """What a program sees that trusts the tests' authority as it trusts the system's store."""
    store = folder / "store.pem"
    store.write_text(authority_pem())
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    done = run_python(HTTPS, url, proxy, str(store))
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_an_https_proxy_is_asked_over_tls(
    secure: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    with (
        Proxy(tls=server_context("127.0.0.1"), credentials="user:secret", names={"localhost": "127.0.0.1"}) as proxy,
        ScriptedServer(Connection.echo, tls=NAMES if secure else ()) as server,
    ):
        url = server.url.replace("127.0.0.1", "localhost")
        seen = through_https(url, proxy.url("user:secret@"), monkeypatch, tmp_path)
        assert seen == "[2000000, 2000000, 2000000] 1000 True"
        assert proxy.asked == [("localhost", server.port)]
        assert proxy.ended.wait(15)
        assert server.result().close == (1000, "")


def test_an_https_proxy_is_verified(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    with Proxy(tls=server_context("proxy.example")) as proxy:
        seen = through_https("ws://server.example/", proxy.url("user:secret@"), monkeypatch, tmp_path)
        assert proxy.asked == []
    assert seen.startswith("SSLCertVerificationError")
    assert f"proxy '127.0.0.1' port {proxy.port}: TLS handshake with host '127.0.0.1' failed" in seen
    assert "secret" not in seen


@pytest.mark.parametrize("end", [Connection.half_close, Connection.reset])
def test_a_server_behind_an_https_proxy_that_goes_away_is_noticed(
    end: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        end(c)

    with (
        Proxy(tls=server_context("127.0.0.1"), names={"localhost": "127.0.0.1"}) as proxy,
        ScriptedServer(script, tls=NAMES) as server,
    ):
        url = server.url.replace("127.0.0.1", "localhost")
        assert through_https(url, proxy.url(), monkeypatch, tmp_path) == "[] 1006 False"


@pytest.mark.skipif(sys.platform == "win32", reason="nothing tells there that the socket was closed")
def test_what_a_proxy_does_not_read_keeps_no_connection_that_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "PATIENCE", 0.1)
    given_up = threading.Event()

    def script(c: Connection) -> None:
        c.wait_for(given_up)
        c.drain()

    with ScriptedServer(script, tls=NAMES) as server:
        tcp = socket.create_connection(("127.0.0.1", server.port))
        tls = server.ssl_context.wrap_socket(tcp, server_hostname="localhost")
        tls.setblocking(False)
        near = relay.relayed(tls)
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "bws relay")
        near.settimeout(0.5)
        with pytest.raises(TimeoutError):
            near.sendall(bytes(64 << 20))
        assert thread.is_alive()  # as long as somebody waits
        near.close()
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        assert tls.fileno() < 0
        given_up.set()


def test_an_https_proxy_that_speaks_no_tls_says_so() -> None:
    with ScriptedServer(lambda c: c.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as proxy:
        recorder = Recorder(bws.WebSocket("ws://server.example/", proxy=f"https://127.0.0.1:{proxy.port}"))
        assert recorder.closed() == FAILED
    assert isinstance(recorder.error, ssl.SSLError)
    assert "proxy '127.0.0.1'" in str(recorder.error)
    assert "what came is not TLS" in str(recorder.error)


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")
@pytest.mark.parametrize("kind", [Proxy, Socks])
def test_a_proxy_may_have_an_ipv6_address(kind: type[Proxy]) -> None:
    with ScriptedServer(Connection.echo) as server, kind(host="::1") as proxy:
        echoed(server.url, proxy=proxy.url())
        assert proxy.asked == [("127.0.0.1", server.port)]


def test_an_endless_answer_of_a_proxy_fails_at_64_kib() -> None:
    def script(c: Connection) -> None:
        c.request()
        c.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            c.send(b"X-A: 1\r\n" * 1000)

    with ScriptedServer(script) as proxy:
        recorder = Recorder(bws.WebSocket("ws://server.example/", proxy=f"http://127.0.0.1:{proxy.port}"))
        assert recorder.closed() == FAILED
    assert isinstance(recorder.error, ProxyError)
    assert "over 64 KiB" in str(recorder.error)


@pytest.mark.parametrize("pieces", [1, 60])
def test_a_proxys_interim_answers_are_passed_over(pieces: int) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: y\r\n\r\nHTTP/1.1 407 No\r\n\r\n"

    def script(c: Connection) -> None:
        c.request()
        size = -(-len(answer) // pieces)
        for start in range(0, len(answer), size):
            c.send(answer[start : start + size])

    with ScriptedServer(script) as proxy:
        recorder = Recorder(bws.WebSocket("ws://server.example/", proxy=f"http://127.0.0.1:{proxy.port}"))
        assert recorder.closed() == FAILED
    assert isinstance(recorder.error, ProxyError)
    assert recorder.error.status == 407


@pytest.mark.parametrize("end", [Connection.half_close, Connection.reset])
@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks4a"])
def test_a_proxy_that_ends_before_it_answers_is_named(scheme: str, end: Any) -> None:
    def script(c: Connection) -> None:
        c.sock.recv(1)
        end(c)

    with ScriptedServer(script) as proxy:
        recorder = Recorder(bws.WebSocket("ws://server.example/", proxy=f"{scheme}://127.0.0.1:{proxy.port}"))
        assert recorder.closed() == FAILED
    assert isinstance(recorder.error, ConnectionError)
    assert f"proxy '127.0.0.1' port {proxy.port}" in str(recorder.error)


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 64, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x05\xff", b"\x05\x02\x01\x01"]
)
@pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
def test_a_socks_proxy_that_talks_nonsense_is_named(scheme: str, garbage: bytes) -> None:
    def script(c: Connection) -> None:
        c.send(garbage)
        c.half_close()

    with ScriptedServer(script) as proxy:
        userinfo = "user:secret@"
        recorder = Recorder(bws.WebSocket("ws://server.example/", proxy=f"{scheme}://{userinfo}127.0.0.1:{proxy.port}"))
        assert recorder.closed() == FAILED
    assert isinstance(recorder.error, ProxyError)
    assert f"proxy '127.0.0.1' port {proxy.port} failed" in str(recorder.error)
    assert "secret" not in repr(recorder.error)


def test_socks4_takes_no_ipv6_address() -> None:
    with Socks() as proxy:
        recorder = Recorder(bws.WebSocket("ws://[::1]:1/", proxy=proxy.url(scheme="socks4")))
        assert recorder.closed() == FAILED
    assert isinstance(recorder.error, ProxyError)
    assert "proxy '127.0.0.1'" in str(recorder.error)
