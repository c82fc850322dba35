"""How an EchoServer starts and stops, TLS, and what it needs."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trustme
import websockets.asyncio.client
from websockets.sync.client import connect

import bws
from bws.testing import EchoServer
from tests.testing.clients import HANDSHAKE, TIMEOUT, plain_socket, reads_to_the_end, why_closed

STOP_LIMIT = 1.0  # s; stopping takes 0.2 s at most, the rest is for a busy machine


# --- TLS; with the asyncio client, as the threaded one reads and writes one TLS object at the same time ---


def echo_over_tls(url: str, context: ssl.SSLContext) -> str | bytes:
    async def talk() -> str | bytes:
        async with websockets.asyncio.client.connect(url, ssl=context) as client:
            await client.send("secret")
            reply = await asyncio.wait_for(client.recv(), TIMEOUT)
        client.transport.abort()  # it has ended, but Python 3.10 complains when a TLS transport was not told
        return reply

    return asyncio.run(talk())


def test_a_tls_server_is_trusted_with_its_own_context(echo_server_tls: EchoServer) -> None:
    assert echo_server_tls.url == f"wss://localhost:{echo_server_tls.port}"
    assert echo_server_tls.ssl_context is not None
    assert echo_over_tls(echo_server_tls.url, echo_server_tls.ssl_context) == "secret"
    assert echo_over_tls(f"wss://127.0.0.1:{echo_server_tls.port}", echo_server_tls.ssl_context) == "secret"


def test_a_tls_server_is_trusted_with_its_ca_from_a_file(echo_server_tls: EchoServer, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(echo_server_tls.ca_pem)
    assert echo_over_tls(echo_server_tls.url, ssl.create_default_context(cafile=str(ca_file))) == "secret"


def test_a_tls_server_is_not_trusted_by_anybody_else(echo_server_tls: EchoServer) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        echo_over_tls(echo_server_tls.url, ssl.create_default_context())


def test_the_names_in_the_certificate_can_be_wrong_ones() -> None:
    with EchoServer(tls=True, tls_names=["wrong.example"]) as server:
        assert server.ssl_context is not None
        with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname mismatch"):
            echo_over_tls(server.url, server.ssl_context)


def test_a_context_of_ones_own_is_served() -> None:
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    with EchoServer(tls=context) as server:
        assert server.ssl_context is None
        client_context = ssl.create_default_context(cadata=ca.cert_pem.bytes().decode())
        assert echo_over_tls(server.url, client_context) == "secret"


def test_only_a_tls_server_has_a_context_and_an_authority(echo_server: EchoServer) -> None:
    assert echo_server.ssl_context is None
    with pytest.raises(RuntimeError, match=r"only EchoServer\(tls=True\) has a certificate authority"):
        echo_server.ca_pem  # noqa: B018 - reading it is the test


# --- start and stop ---


def test_a_server_tells_where_it_is_and_who_is_there() -> None:
    server = EchoServer()
    assert repr(server) == "<EchoServer not started>"
    with server:
        assert server.url == f"ws://127.0.0.1:{server.port}"
        assert repr(server) == f"<EchoServer {server.url} 0 connected>"
        with connect(server.url):
            assert repr(server) == f"<EchoServer {server.url} 1 connected>"
    assert repr(server) == f"<EchoServer {server.url} stopped>"


@pytest.mark.parametrize("tls", [False, True])
def test_replies_do_not_wait_in_the_servers_tcp(monkeypatch: pytest.MonkeyPatch, tls: bool) -> None:
    accept, accepted = socket.socket.accept, []

    def noted(listener: socket.socket) -> Any:
        connection, address = accept(listener)
        accepted.append(connection)
        return connection, address

    monkeypatch.setattr(socket.socket, "accept", noted)
    with EchoServer(tls=tls) as server, bws.WebSocket(server.url, ssl=server.ssl_context):
        (connection,) = accepted
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_server_on_every_address_has_a_url_for_this_machine() -> None:
    with EchoServer("0.0.0.0") as server, connect(server.url) as client:
        assert server.url == f"ws://127.0.0.1:{server.port}"
        client.send("hello")
        assert client.recv(TIMEOUT) == "hello"


@pytest.mark.parametrize("name", ["url", "port"])
def test_a_server_has_no_address_before_it_is_started(name: str) -> None:
    with pytest.raises(RuntimeError, match="no port before it is started"):
        getattr(EchoServer(), name)


@pytest.mark.parametrize("method", ["stall", "resume", "close", "drop"])
def test_a_stopped_server_does_nothing_to_clients(method: str) -> None:
    server = EchoServer()
    with server:
        pass
    with pytest.raises(RuntimeError, match="is not running"):
        getattr(server, method)()


def test_a_server_starts_once_at_a_time_and_again_after_a_stop() -> None:
    server = EchoServer()
    for text in ("one", "two"):
        assert server.start() is server
        with pytest.raises(RuntimeError, match="is running already"):
            server.start()
        with connect(server.url) as client:
            client.send(text)
            assert client.recv(TIMEOUT) == text
        server.stop()
        server.stop()
    assert server.messages == ["one", "two"]


def test_a_port_in_use_is_an_error_of_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = EchoServer(port=other.getsockname()[1])
        with pytest.raises(
            OSError, match=rf"cannot serve on '127\.0\.0\.1' port {other.getsockname()[1]}: ."
        ) as caught:
            server.start()
        assert caught.value.errno == errno.EADDRINUSE
        assert repr(server) == "<EchoServer not started>"


def test_a_host_that_is_not_known_is_named_by_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    story = r"cannot serve on 'nobody\.invalid' port 80: Name or service not known"
    with pytest.raises(socket.gaierror, match=story) as caught:
        EchoServer("nobody.invalid", 80).start()
    assert caught.value.errno == socket.EAI_NONAME


def test_stopping_closes_the_clients_with_1001_and_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    with EchoServer() as server, connect(server.url) as client:
        server.stop()
        assert why_closed(client).rcvd is not None
        assert server.closes == [(1001, "")]
        with pytest.raises(OSError, match=r"."):
            socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
    assert [t for t in threading.enumerate() if t not in before and t.name.startswith("EchoServer")] == []


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("stalled", [False, True])
def test_stopping_is_quick_whatever_the_clients_do(tls: bool, stalled: bool) -> None:
    with EchoServer(tls=tls) as server, plain_socket(server, handshake=False) as silent:
        clients = [silent]
        if not tls:
            clients.append(silent_client := socket.create_connection(("127.0.0.1", server.port), TIMEOUT))
            silent_client.sendall(HANDSHAKE)  # and never answers the close frame
            server.send(b"x" * 20_000_000)  # nor reads
        if stalled:
            server.stall()
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < STOP_LIMIT
        for client in clients:
            assert reads_to_the_end(client)
            client.close()


def test_a_client_that_never_finishes_its_tls_handshake_does_not_keep_others_waiting(
    echo_server_tls: EchoServer,
) -> None:
    assert echo_server_tls.ssl_context is not None
    with plain_socket(echo_server_tls, handshake=False):
        assert echo_over_tls(echo_server_tls.url, echo_server_tls.ssl_context) == "secret"


NOISY_CLIENTS = """
import socket, ssl
from bws.testing import EchoServer

def say(server, data):
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        try:
            while sock.recv(4096):
                pass
        except ConnectionError:
            pass

for tls in (False, True):
    with EchoServer(tls=tls) as server:
        say(server, b"")
        say(server, b"no HTTP at all\\r\\n\\r\\n")
        say(server, b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        if not tls:
            say(server, HANDSHAKE + b"\\xff\\xff\\xff\\xff")
            say(server, HANDSHAKE + b"\\x81\\x85")
        left = socket.create_connection(("127.0.0.1", server.port), 10)
        left.sendall(HANDSHAKE)
    left.close()
"""


def run_python(program: str, *options: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_server_with_bad_clients_prints_nothing_and_leaves_no_socket_open() -> None:
    program = f"HANDSHAKE = {HANDSHAKE!r}\n{NOISY_CLIENTS}"
    assert run_python(program, "-X", "dev", "-W", "error") == (0, "", "")


def test_a_server_that_nobody_stops_does_not_keep_the_program_alive() -> None:
    assert run_python("from bws.testing import EchoServer; EchoServer().start()") == (0, "", "")


# --- what it needs ---


def test_without_websockets_the_constructor_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.asyncio.server", None)
    with pytest.raises(ImportError, match=r'needs websockets 14 or newer: pip install "bws\[testing\]"'):
        EchoServer()


def test_without_trustme_only_tls_fails_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(ImportError, match=r'needs trustme for tls=True: pip install "bws\[testing\]"'):
        EchoServer(tls=True)
    with EchoServer() as server, connect(server.url) as client:
        client.send("hello")
        assert client.recv(TIMEOUT) == "hello"


def test_bws_testing_is_importable_without_its_extra() -> None:
    program = (
        "import sys\n"
        "sys.modules.update({name: None for name in ('websockets', 'trustme', 'pytest')})\n"
        "import bws.testing\n"
        "bws.testing.record, bws.testing.EchoServer\n"
    )
    assert run_python(program) == (0, "", "")
