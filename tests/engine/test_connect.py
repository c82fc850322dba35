"""The way to the server: addresses, TLS and proxies."""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bws
from bws import _settings
from bws._engine import tls
from bws._engine.patience import Patience
from bws._system import WINDOWS, Waker
from bws.errors import HandshakeError, ProxyError
from bws.testing import EchoServer
from tests.conftest import TIMEOUT, Recorder, settle
from tests.engine.proxy import Proxy, Socks
from tests.wire.frames import http
from tests.wire.server import Connection, ScriptedServer

FAILED = [("error", 3), ("close", 3, 1006, "", False)]
TCP = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")


def failure(url: str, **options: Any) -> BaseException:
    """Why this connection cannot be made."""
    recorder = Recorder(bws.WebSocket(url, **options))
    assert recorder.closed() == FAILED
    error = recorder.error
    assert [(evt.error, evt.message) for evt in recorder.events] == [(error, str(error))] * 2
    return error


def echoed(url: str, **options: Any) -> bws.WebSocket:
    """A connection that an echo has come over, and that was closed."""
    ws = bws.WebSocket(url, **options)
    on: dict[str, Callable[[Recorder, Any], object]] = {
        "open": lambda r, _: r.ws.send("there"),
        "message": lambda r, _: r.ws.close(1000),
    }
    assert Recorder(ws, on).closed() == [("open", 1), ("message", 1, "there"), ("close", 3, 1000, "", True)]
    return ws


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """An echo server."""
    with ScriptedServer(Connection.echo) as it:
        yield it


@contextlib.contextmanager
def closed_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port where nobody listens, and nobody can until the block ends."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        yield sock.getsockname()[1]


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


# -- addresses

Address = tuple[int, tuple[Any, ...]]
V4, V6 = socket.AF_INET, socket.AF_INET6


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: Address) -> list[str]:
    """Have every name lead to these addresses; the names that are asked for."""
    asked = []

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        return [(family, *TCP, address) for family, address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@contextlib.contextmanager
def dead(host: str = "127.0.0.1") -> Iterator[tuple[Any, ...]]:
    """An address that does not answer: a listener that has more clients than it wants.

    Where a system refuses them instead, or has no IPv6, it is one that fails at once.
    """
    family = V6 if ":" in host else V4
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.socket(family))
            listener.bind((host, 0))
        except OSError:
            yield (host, 9)
            return
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(8):
            client = stack.enter_context(socket.socket(family))
            client.setblocking(False)
            client.connect_ex(address)
        yield address


def seconds_to_open(url: str) -> float:
    start = time.perf_counter()
    with bws.WebSocket(url):
        return time.perf_counter() - start


def test_an_address_that_does_not_answer_costs_less_than_half_a_second(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dead() as first:
        asked = resolve(monkeypatch, (V4, first), (V4, server.address))
        took = [seconds_to_open(f"ws://two.example:{server.port}/") for _ in range(3)]
    assert asked == ["two.example"] * 3
    assert min(took) < 0.5


def test_the_first_address_has_a_head_start(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with dead() as first:
        resolve(monkeypatch, (V4, first), (V4, server.address))
        took = seconds_to_open("ws://two.example/")
        assert took > (0.2 if sys.platform == "linux" else 0)  # elsewhere it may refuse at once


def test_an_address_that_answers_is_the_only_one_that_is_asked(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(Connection.echo) as other:
        resolve(monkeypatch, (V4, server.address), (V4, other.address))
        for _ in range(5):
            echoed("ws://two.example/")
        server.results(5)
        assert other.connections == []


def test_the_families_take_turns(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with dead("::1") as first, dead("::1") as second:
        resolve(monkeypatch, (V6, first), (V6, second), (V6, second), (V4, server.address))
        # The fourth address is the second one to be tried.
        assert min(seconds_to_open("ws://four.example/") for _ in range(3)) < 0.5


def test_an_address_that_answers_late_still_wins_when_the_others_fail(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dead() as first, closed_port() as port:
        resolve(monkeypatch, (V4, first), (V4, ("127.0.0.1", port)), (V4, server.address), (V4, first))
        echoed("ws://four.example/")


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
def test_an_address_that_refuses_costs_nothing(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    with contextlib.ExitStack() as stack:
        try:
            port = stack.enter_context(closed_port(host))
        except OSError:  # there is no IPv6: that address fails too
            port = 9
        resolve(monkeypatch, (V6 if ":" in host else V4, (host, port)), (V4, server.address))
        assert min(seconds_to_open("ws://two.example/") for _ in range(3)) < 0.2


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost.", "some.name.localhost"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_localhost_is_reached_at_either_address(host: str, name: str) -> None:
    try:
        server = ScriptedServer(Connection.echo, host=host)
    except OSError:
        assert host == "::1"
        return  # this machine has no IPv6
    with server:
        echoed(f"ws://{name}:{server.port}/")


def test_names_under_localhost_are_asked_nobody_for(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolve(monkeypatch, (V4, server.address))
    echoed("ws://a.localhost/")
    echoed("ws://notlocalhost/")
    assert asked == ["localhost", "notlocalhost"]


def test_who_is_refused_is_told_by_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_port() as port:
        error = failure(f"ws://127.0.0.1:{port}/")
        assert isinstance(error, ConnectionRefusedError)
        assert "'127.0.0.1'" in str(error)
        assert str(port) in str(error)
        resolve(monkeypatch, (V4, ("127.0.0.1", port)), (V4, ("127.0.0.1", port)))
        error = failure("ws://some.example:4321/")
        assert isinstance(error, ConnectionRefusedError)
        assert "'some.example' port 4321" in str(error)


def test_a_family_that_there_is_not_is_passed_over(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, (12345, ("x", 1)), (V4, server.address))
    echoed("ws://two.example/")


def test_an_unknown_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    error = failure("ws://nowhere.example/")
    assert isinstance(error, socket.gaierror)
    assert error.errno == socket.EAI_NONAME
    assert "'nowhere.example' was not found: Name or service not known" in str(error)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "two..dots.example"])
def test_a_host_that_cannot_be_asked_for_was_not_found(host: str) -> None:
    error = failure(f"ws://{host}/")
    assert isinstance(error, socket.gaierror)
    assert f"host {host!r} was not found" in str(error)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_an_address_in_the_url_is_not_looked_up_on_another_thread(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    real = socket.getaddrinfo

    def getaddrinfo(*args: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return real(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    failure(f"ws://{host}:1/")
    assert [name.startswith("bws ws://") for name in threads] == [True]


def test_open_timeout_says_what_was_last_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with dead() as address:
        resolve(monkeypatch, (V4, address))
        error = failure("ws://dead.example:81/", open_timeout=0.2)
    if not isinstance(error, ConnectionRefusedError):  # a system that refuses instead of being silent
        assert isinstance(error, TimeoutError)
        assert "open_timeout=0.2 s" in str(error)
        assert "connecting to host 'dead.example' port 81" in str(error)


def test_a_lookup_that_takes_too_long_ends_at_open_timeout_and_is_left_to_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer, done = threading.Event(), threading.Event()

    def getaddrinfo(*_: object, **__: object) -> Any:
        answer.wait(TIMEOUT)
        done.set()
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    error = failure("ws://slow.example/", open_timeout=0.1)
    assert "looking up host 'slow.example'" in str(error)
    assert not done.is_set()
    answer.set()
    assert done.wait(TIMEOUT)


# -- TLS


def test_tls_with_a_server_that_says_nothing_ends_at_open_timeout() -> None:
    with silent() as port:
        error = failure(f"wss://127.0.0.1:{port}/", open_timeout=0.2)
    assert isinstance(error, TimeoutError)
    assert "TLS handshake with host '127.0.0.1'" in str(error)


def test_tls_with_a_server_that_speaks_none_names_the_host() -> None:
    def script(c: Connection) -> None:
        c.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        c.drain()

    with ScriptedServer(script) as server:
        error = failure(f"wss://127.0.0.1:{server.port}/")
    assert isinstance(error, ssl.SSLError)
    assert "TLS handshake with host '127.0.0.1' failed" in str(error)


def test_tls_with_a_server_that_hangs_up_names_the_host() -> None:
    with ScriptedServer(Connection.half_close) as server:
        error = failure(f"wss://127.0.0.1:{server.port}/")
    assert isinstance(error, OSError)
    assert "'127.0.0.1'" in str(error)


def test_a_name_that_tls_cannot_check_is_an_error_like_any_other(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, (V4, server.address))
    error = failure("wss://.example/")
    assert isinstance(error, ssl.SSLError)
    assert "TLS with host '.example' is not possible" in str(error)


def test_the_default_context_verifies_and_is_made_once() -> None:
    with EchoServer(tls=True) as server:
        errors = [failure(server.url) for _ in range(2)]
    for error in errors:
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert "'localhost'" in str(error)
        assert error.verify_code
        assert "self" in error.verify_message or "issuer" in error.verify_message


def test_a_trailing_dot_of_the_host_is_not_part_of_the_certificates_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with EchoServer(tls=True) as server:
        resolve(monkeypatch, (V4, ("127.0.0.1", server.port)))
        echoed(f"wss://localhost.:{server.port}/", ssl=server.ssl_context)


def test_a_large_handshake_is_written_while_the_server_reads_slowly(server: ScriptedServer) -> None:
    gate = threading.Event()

    def script(c: Connection) -> None:
        c.wait_for(gate)
        c.echo()

    with ScriptedServer(script, receive_buffer=4096) as slow:
        ws = bws.WebSocket(slow.url, headers=[(f"X-{n}", "x" * 60_000) for n in range(30)])
        slow.wait_connected()
        assert not ws.wait_open(0.1)
        gate.set()
        assert ws.wait_open(TIMEOUT)
        ws.close()
        assert ws.wait_closed(TIMEOUT)
        assert len(slow.result().headers) > 30


def test_a_server_that_resets_instead_of_answering_is_a_lost_handshake() -> None:
    def script(c: Connection) -> None:
        c.request()
        c.reset()

    with ScriptedServer(script) as server:
        error = failure(server.url)
    assert isinstance(error, ConnectionResetError)
    assert "during the opening handshake" in str(error)


def test_a_reset_just_before_tls_names_the_host_and_leaves_nothing_open() -> None:
    address = _settings.Address("wss://localhost/", True, "localhost", 443, "localhost", "wss://localhost", "/")
    waker = Waker()
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.closing(waker):
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if WINDOWS else "ii", 1, 0))
        server.close()
        assert select.select([client], [], [], TIMEOUT)[0]  # the reset is here
        client.setblocking(False)
        descriptor = client.fileno()
        with client, pytest.raises(OSError, match="TLS handshake with host 'localhost' failed"):
            tls.secure(client, address.host, None, Patience(waker, lambda: False, None))
        with pytest.raises(OSError, match=r"."):
            socket.close(descriptor)


# -- an HTTP proxy


def test_an_http_proxy_is_asked_for_a_tunnel(server: ScriptedServer) -> None:
    with Proxy() as proxy:
        echoed(server.url, proxy=proxy.url())
        assert proxy.asked == [("127.0.0.1", server.port)]
        assert proxy.offered == [None]
    assert server.result().header("Proxy-Authorization") is None


def test_a_proxy_looks_up_the_name_itself(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(names={"only.proxy.example": "127.0.0.1"}) as proxy:
        asked = resolve(monkeypatch, (V4, ("127.0.0.1", proxy.port)))
        echoed(f"ws://only.proxy.example:{server.port}/", proxy=f"http://proxy.example:{proxy.port}")
        assert asked[:1] == ["proxy.example"]
        assert "only.proxy.example" not in asked
        assert proxy.asked == [("only.proxy.example", server.port)]


def test_an_ipv6_address_is_asked_for_in_brackets(server: ScriptedServer) -> None:
    with Proxy(names={"[2001:db8::1]": "127.0.0.1"}) as proxy:
        echoed(f"ws://[2001:db8::1]:{server.port}/", proxy=proxy.url())
        assert proxy.asked == [("[2001:db8::1]", server.port)]


def test_a_proxy_gets_its_credentials_and_the_server_does_not(server: ScriptedServer) -> None:
    with Proxy(credentials="us:er:p@ß") as proxy:
        echoed(server.url, proxy=proxy.url("us%3Aer:p%40%C3%9F@"))
        assert proxy.offered == ["us:er:p@ß"]
    assert "p@ß" not in str(server.result().headers)


@pytest.mark.parametrize("userinfo", ["", "user:wrong-secret@", "user@"])
def test_a_proxy_that_wants_other_credentials_is_named(server: ScriptedServer, userinfo: str) -> None:
    with Proxy(credentials="user:secret") as proxy:
        error = failure(server.url, proxy=proxy.url(userinfo))
    assert isinstance(error, ProxyError)
    assert error.status == 407
    assert str(error) == f"proxy '127.0.0.1' port {proxy.port} answered HTTP 407 Proxy Authentication Required"


def test_tls_goes_through_the_tunnel_to_the_server() -> None:
    with EchoServer(tls=True) as server, Proxy(names={"localhost": "127.0.0.1"}) as proxy:
        echoed(server.url, proxy=proxy.url(), ssl=server.ssl_context)
        assert proxy.asked == [("localhost", server.port)]


def test_a_proxy_that_cannot_reach_the_server_says_so() -> None:
    with Proxy() as proxy, closed_port() as port:
        error = failure(f"ws://127.0.0.1:{port}/", proxy=proxy.url())
    assert isinstance(error, ProxyError)
    assert error.status == 502
    assert "502 Bad Gateway" in str(error)


def test_a_proxy_that_is_not_there_is_named() -> None:
    with closed_port() as port:
        error = failure("ws://server.example/", proxy=f"http://127.0.0.1:{port}")
    assert isinstance(error, ConnectionRefusedError)
    assert f"'127.0.0.1' port {port}" in str(error)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"SSH-2.0-nothing\r\n", "is not HTTP/1.x: b'SSH-2.0-nothing"),
        (b"\x05\x00", "is not HTTP/1.x"),
        (b"HTTP/1.1 OK\r\n\r\n", "has no HTTP status"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "over 64 KiB"),
        (b"HTTP/1.1 200 OK\r\n\r\n\x81\x00", "sent 2 bytes before the server could"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\n\r\n", "answered HTTP 302 Found"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "answered HTTP 101"),
    ],
)
def test_a_proxy_that_talks_nonsense_is_named(reply: bytes, message: str) -> None:
    with Proxy(reply=reply) as proxy:
        error = failure("ws://server.example/", proxy=proxy.url())
    assert isinstance(error, ProxyError)
    assert message in str(error)
    assert f"proxy '127.0.0.1' port {proxy.port}" in str(error)


def test_a_proxy_that_hangs_up_is_named() -> None:
    def script(c: Connection) -> None:
        c.request()
        c.send(b"HTTP/1.1 200")
        c.half_close()

    with ScriptedServer(script) as proxy:
        error = failure("ws://server.example/", proxy=f"http://127.0.0.1:{proxy.port}")
    assert isinstance(error, ProxyError)
    assert "TCP end after 12 bytes of it" in str(error)


@pytest.mark.parametrize("kind", [Proxy, Socks])
def test_a_proxy_that_is_silent_ends_at_open_timeout(kind: type[Proxy]) -> None:
    with kind(gate=threading.Event()) as proxy:
        error = failure("ws://server.example/", proxy=proxy.url(), open_timeout=0.3)
    assert type(error) is TimeoutError
    assert "open_timeout=0.3 s" in str(error)
    assert f"waiting for proxy '127.0.0.1' port {proxy.port}" in str(error)


def test_a_proxy_that_does_not_take_the_connection_ends_at_open_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with dead() as address:
        resolve(monkeypatch, (V4, address))
        error = failure("ws://server.example/", proxy="http://dead.example:81", open_timeout=0.2)
    if not isinstance(error, ConnectionRefusedError):  # a system that refuses instead of being silent
        assert isinstance(error, TimeoutError)
    assert "'dead.example' port 81" in str(error)


@pytest.mark.parametrize("kind", [Proxy, Socks])
def test_close_gives_up_on_a_proxy_at_once_and_on_its_late_answer(server: ScriptedServer, kind: type[Proxy]) -> None:
    gate = threading.Event()
    with kind(gate=gate) as proxy:
        ws = bws.WebSocket(server.url, proxy=proxy.url())
        recorder = Recorder(ws)
        assert proxy.reached.wait(TIMEOUT)
        ws.close()
        assert recorder.closed() == FAILED
        assert isinstance(recorder.error, ConnectionAbortedError)
        gate.set()
        assert proxy.ended.wait(TIMEOUT)  # nobody holds the tunnel that was made too late


@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks4a"])
@pytest.mark.parametrize("how", ["close", "open_timeout"])
def test_nothing_is_left_of_a_talk_with_a_silent_proxy(scheme: str, how: str) -> None:
    reached, ended = threading.Event(), threading.Event()

    def script(c: Connection) -> None:
        c.sock.recv(1)
        reached.set()
        with contextlib.suppress(ConnectionResetError):
            while c.sock.recv(65536):
                pass
        ended.set()

    with ScriptedServer(script) as proxy:
        timeout = 1.0 if how == "open_timeout" else None
        url = f"{scheme}://127.0.0.1:{proxy.port}"
        ws = bws.WebSocket("ws://server.example/", proxy=url, open_timeout=timeout)
        recorder = Recorder(ws)
        assert reached.wait(TIMEOUT)
        if how == "close":
            ws.close()
        assert recorder.closed() == FAILED
        assert ended.wait(TIMEOUT)
    settle()
    assert not [thread for thread in threading.enumerate() if "waiting for proxy" in thread.name]


def test_a_socks_proxy_whose_thread_does_not_start_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def script(c: Connection) -> None:
        assert c.sock.recv(1) == b""
        ended.set()

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Patience, "background", no_thread)
    with ScriptedServer(script) as proxy:
        error = failure("ws://server.example/", proxy=f"socks5h://127.0.0.1:{proxy.port}")
        assert ended.wait(TIMEOUT)
    assert str(error) == "can't start new thread"


# -- the environment's proxy


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ws_proxy"])
def test_the_environments_proxy_is_used(name: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(credentials="user:secret") as proxy:
        monkeypatch.setenv(name, proxy.url("user:secret@"))
        echoed(server.url)
        assert proxy.asked == [("127.0.0.1", server.port)]


@pytest.mark.parametrize("names", [["ws_proxy", "http_proxy"], ["http_proxy", "all_proxy"]])
def test_the_more_exact_variable_wins(
    names: list[str], server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv(names[0], proxy.url())
        monkeypatch.setenv(names[1], "http://127.0.0.1:1")
        echoed(server.url)
        assert len(proxy.asked) == 1


@pytest.mark.parametrize("name", ["https_proxy", "all_proxy", "wss_proxy"])
def test_wss_has_the_proxy_of_https(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with EchoServer(tls=True) as server, Proxy(names={"localhost": "127.0.0.1"}) as proxy:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv(name, proxy.url())
        echoed(server.url, ssl=server.ssl_context)
        assert len(proxy.asked) == 1


def test_a_proxy_without_a_scheme_is_an_http_proxy(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
        echoed(server.url)
        assert len(proxy.asked) == 1


@pytest.mark.parametrize("exceptions", ["127.0.0.1", "*", "other.example, 127.0.0.1", "127.0.0.1:{port}"])
def test_no_proxy_names_who_is_reached_directly(
    exceptions: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("all_proxy", proxy.url())
        monkeypatch.setenv("no_proxy", exceptions.format(port=server.port))
        echoed(server.url)
        assert proxy.asked == []


def test_no_proxy_for_others_changes_nothing(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url())
        monkeypatch.setenv("no_proxy", f"other.example,127.0.0.1:{server.port + 1}")
        echoed(server.url)
        assert len(proxy.asked) == 1


def test_proxy_none_is_really_none(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy() as proxy:
        for name in ("http_proxy", "all_proxy", "ws_proxy"):
            monkeypatch.setenv(name, proxy.url())
        echoed(server.url, proxy=None)
        assert not proxy.reached.is_set()


def test_a_proxy_of_the_program_beats_the_environments(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Proxy() as proxy:
        echoed(server.url, proxy=proxy.url())
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    "value",
    [
        "ftp://user:secret@127.0.0.1:1",
        "http://",
        "socks5h://",
        "http://[::1",
        "http://user:secret@127.0.0.1:99999",
        "127.0.0.1:port",
    ],
)
def test_an_environments_proxy_that_cannot_be_used_is_an_error(
    value: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", value)
    error = failure(server.url)
    assert isinstance(error, ProxyError)
    assert "expected SCHEME://HOST:PORT with one of http, https, socks4, socks4a, socks5, socks5h" in str(error)
    assert "secret" not in str(error)


# -- SOCKS


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a"])
def test_a_socks_proxy_looks_up_the_name_itself(
    scheme: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Socks(names={"only.proxy.example": "127.0.0.1"}) as proxy:
        echoed(f"ws://only.proxy.example:{server.port}/", proxy=proxy.url(scheme=scheme))
        assert proxy.asked == [("only.proxy.example", server.port)]


@pytest.mark.parametrize("scheme", ["socks5", "socks4"])
def test_a_socks_proxy_gets_an_address(scheme: str, server: ScriptedServer) -> None:
    with Socks() as proxy:
        echoed(server.url, proxy=proxy.url(scheme=scheme))
        assert proxy.asked == [("127.0.0.1", server.port)]


def test_a_socks_proxy_gets_its_credentials(server: ScriptedServer) -> None:
    with Socks(credentials="us:er:p@ss") as proxy:
        echoed(server.url, proxy=proxy.url("us%3Aer:p%40ss@"))
        assert proxy.offered == ["us:er:p@ss"]


@pytest.mark.parametrize("userinfo", ["", "user:wrong-secret@"])
def test_a_socks_proxy_that_wants_other_credentials_is_named(server: ScriptedServer, userinfo: str) -> None:
    with Socks(credentials="user:secret") as proxy:
        error = failure(server.url, proxy=proxy.url(userinfo))
    assert isinstance(error, ProxyError)
    assert f"proxy '127.0.0.1' port {proxy.port} failed" in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a"])
def test_a_socks_proxy_that_cannot_reach_the_server_says_so(scheme: str) -> None:
    with Socks() as proxy, closed_port() as port:
        error = failure(f"ws://127.0.0.1:{port}/", proxy=proxy.url(scheme=scheme))
    assert isinstance(error, ProxyError)
    assert f"proxy '127.0.0.1' port {proxy.port} failed" in str(error)
    assert error.__cause__ is not None


def test_a_socks_proxy_that_is_not_there_is_named() -> None:
    with closed_port() as port:
        error = failure("ws://server.example/", proxy=f"socks5h://127.0.0.1:{port}")
    assert isinstance(error, ProxyError)
    assert f"proxy '127.0.0.1' port {port} failed" in str(error)


def test_a_socks_proxy_of_the_environment_is_used(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with Socks() as proxy:
        monkeypatch.setenv("all_proxy", proxy.url())
        echoed(server.url)
        assert len(proxy.asked) == 1


def test_tls_goes_through_a_socks_proxy() -> None:
    with EchoServer(tls=True) as server, Socks(names={"localhost": "127.0.0.1"}) as proxy:
        echoed(server.url, proxy=proxy.url(), ssl=server.ssl_context)
        assert proxy.asked == [("localhost", server.port)]


def test_without_python_socks_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    error = failure("ws://server.example/", proxy="socks5h://127.0.0.1:1")
    assert isinstance(error, ProxyError)
    assert "pip install 'bws[socks]'" in str(error)


# -- dispatch


def test_a_failure_is_the_same_with_dispatch() -> None:
    calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def script(c: Connection) -> None:
        c.request()
        c.send(http("404 Not Found"))

    with ScriptedServer(script) as server:
        recorder = Recorder(bws.WebSocket(server.url, dispatch=calls.put))
        while len(recorder.entries) < 2:
            calls.get(timeout=TIMEOUT)()
    assert recorder.entries == FAILED
    assert isinstance(recorder.error, HandshakeError)
    assert recorder.error.status == 404
