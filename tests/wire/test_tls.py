"""Connections over TLS: the certificate is checked, and a failure says what was wrong."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import trustme
import truststore
from cryptography.hazmat.primitives import serialization

import bws
from bws.errors import HandshakeError
from tests.conftest import TIMEOUT, Mode, Recorder, run_python
from tests.wire.frames import CLOSE, TEXT, close_frame, frame
from tests.wire.server import Connection, Gone, ScriptedServer, accept_value
from tests.wire.tls import authority, authority_pem, contexts, lowered, self_signed, server_context

if sys.platform != "win32":
    import tty

FAILED = [("error", 3), ("close", 3, 1006, "", False)]
NAMES = "localhost", "127.0.0.1"


def tls_server(context: ssl.SSLContext) -> ScriptedServer:
    """An echo server with a context of the test's own."""

    def script(c: Connection) -> None:
        c.start_tls(context)
        c.echo()

    return ScriptedServer(script)


def failure(url: str, **options: Any) -> BaseException:
    """Why this connection cannot be made."""
    recorder = Recorder(bws.WebSocket(url, **options))
    assert recorder.closed() == FAILED
    return recorder.error


@pytest.mark.parametrize("host", NAMES)
def test_a_trusted_server_is_talked_to_as_without_tls(mode: Mode, host: str) -> None:
    text = "é" * 300_000
    on = {"open": lambda r, _: r.ws.send(text), "message": lambda r, _: r.ws.close(1000, "bye")}
    with ScriptedServer(Connection.echo, tls=NAMES) as server:
        url = f"wss://{host}:{server.port}/"
        recorder = Recorder(mode.open(url, ssl=server.ssl_context), on)
        assert recorder.closed() == [("open", 1), ("message", 1, text), ("close", 3, 1000, "bye", True)]
        assert recorder.events[1].origin == url[:-1]
        seen = server.result()
    assert seen.messages == [text]
    assert seen.close == (1000, "bye")


# what is wrong with the certificate: the server's context, what the error says
BAD_CERTIFICATES: dict[str, tuple[Callable[[], ssl.SSLContext], str]] = {
    "self-signed": (self_signed, "self.signed certificate"),
    "expired": (lambda: server_context("localhost", days=(-9, -2)), "certificate has expired"),
    "not yet valid": (lambda: server_context("localhost", days=(2, 9)), "not yet valid"),
    "another host": (lambda: server_context("example.com"), "not valid for 'localhost'"),
    "a longer name": (lambda: server_context("localhost.example.com"), "not valid for 'localhost'"),
    "an IP address": (lambda: server_context("127.0.0.1"), "not valid for 'localhost'"),
}


@pytest.mark.parametrize("what", BAD_CERTIFICATES)
def test_a_certificate_that_does_not_hold_fails_the_connection(mode: Mode, what: str) -> None:
    make, message = BAD_CERTIFICATES[what]
    with tls_server(make()) as server:
        recorder = Recorder(mode.open(f"wss://localhost:{server.port}/", ssl=contexts("x")[1]))
        assert recorder.closed() == FAILED
        assert server.result().request_line == ""  # nothing was sent, no credentials above all
    assert isinstance(recorder.error, ssl.SSLCertVerificationError)
    assert re.search(f"TLS handshake with host 'localhost' failed: .*{message}", str(recorder.error))


def test_an_unknown_authority_fails_the_connection(mode: Mode) -> None:
    with ScriptedServer(Connection.handshake, tls=NAMES) as server:
        recorder = Recorder(mode.open(f"wss://localhost:{server.port}/"))
        assert recorder.closed() == FAILED
    assert isinstance(recorder.error, ssl.SSLCertVerificationError)
    assert "TLS handshake with host 'localhost' failed" in str(recorder.error)
    assert "unable to get local issuer certificate" in str(recorder.error)


@pytest.mark.parametrize(("host", "names"), [("127.0.0.1", ["localhost"]), ("127.0.0.1", ["127.0.0.2"])])
def test_an_ip_address_has_to_be_in_the_certificate(host: str, names: list[str]) -> None:
    with tls_server(server_context(*names)) as server:
        error = failure(f"wss://{host}:{server.port}/", ssl=contexts("x")[1])
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in str(error)


def test_the_default_context_trusts_the_systems_store(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    # A process of its own: OpenSSL reads the store once, and SSL_CERT_FILE names it on every system.
    store = tmp_path / "store.pem"
    store.write_text(authority_pem())
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    with ScriptedServer(Connection.echo, tls=NAMES) as server:
        done = run_python(
            """
            import sys, bws
            with bws.WebSocket(sys.argv[1]) as ws:
                print(ws.readyState)
            """,
            f"wss://localhost:{server.port}/",
        )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_configuration_of_openssl_does_not_lower_the_default_context(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    # Python sets TLS 1.2 itself, unless it was built to leave that to this file, as Debian's is.
    conf, store = tmp_path / "openssl.cnf", tmp_path / "store.pem"
    conf.write_text(
        "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n"
        "[c]\nMinProtocol = TLSv1\nCipherString = DEFAULT@SECLEVEL=0\n"
    )
    store.write_text(authority_pem())
    monkeypatch.setenv("OPENSSL_CONF", str(conf))
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    with tls_server(lowered(server_context("localhost"), ssl.TLSVersion.TLSv1_1)) as server:
        done = run_python(
            """
            import sys, bws
            ws = bws.WebSocket(sys.argv[1])
            ws.bind("error", lambda evt: print("1.2 or newer is needed" in str(evt.error)))
            ws.wait_closed(20)
            """,
            f"wss://localhost:{server.port}/",
        )
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_a_server_whose_tls_is_too_old_fails_the_connection(mode: Mode, version: str) -> None:
    newest = ssl.TLSVersion[version]
    with tls_server(lowered(server_context("localhost"), newest)) as server:
        url = f"wss://localhost:{server.port}/"
        recorder = Recorder(mode.open(url, ssl=contexts("x")[1]))
        assert recorder.closed() == FAILED
        assert isinstance(recorder.error, ssl.SSLError)
        assert "TLS handshake with host 'localhost' failed" in str(recorder.error)
        assert "TLS is too old: 1.2 or newer is needed" in str(recorder.error)
        # The server is a real one: who asks for it reaches it.
        on = {"open": lambda r, _: r.ws.close()}
        assert Recorder(mode.open(url, ssl=lowered(contexts("x")[1])), on).closed()[0] == ("open", 1)


def test_a_server_that_speaks_no_tls_fails_the_connection(mode: Mode) -> None:
    def script(c: Connection) -> None:
        c.sock.recv(1)
        c.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        c.half_close()

    with ScriptedServer(script) as server:
        recorder = Recorder(mode.open(f"wss://127.0.0.1:{server.port}/", ssl=contexts(*NAMES)[1]))
        assert recorder.closed() == FAILED
    assert isinstance(recorder.error, ssl.SSLError)
    assert "TLS handshake with host '127.0.0.1' failed" in str(recorder.error)
    assert "what came is not TLS; does the server speak plain ws:?" in str(recorder.error)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x46", r"it looks like TLS; is it a wss: server\?"),
        (b"", r"looks like TLS|TCP end before it \(is it a wss: server\?\)"),
    ],
)
def test_a_tls_server_behind_a_ws_url_fails_the_connection(mode: Mode, answer: bytes, message: str) -> None:
    def script(c: Connection) -> None:
        with contextlib.suppress(Gone):
            c.start_tls(server_context("localhost"))  # as far as it gets with a request in clear
        with contextlib.suppress(OSError):  # the client may be gone already
            if answer:  # some send an alert, Python's does not
                socket.socket.send(c.sock, answer)
            socket.socket.shutdown(c.sock, socket.SHUT_WR)

    with ScriptedServer(script) as server:
        recorder = Recorder(mode.open(f"ws://localhost:{server.port}/"))
        assert recorder.closed() == FAILED
    assert isinstance(recorder.error, HandshakeError)
    assert f"host 'localhost' port {server.port}" in str(recorder.error)
    assert re.search(message, str(recorder.error))


def test_a_server_that_stalls_in_the_tls_handshake_fails_at_open_timeout(mode: Mode) -> None:
    def script(c: Connection) -> None:
        c.sock.recv(1)
        c.send(b"\x16\x03\x03")  # the start of an answer
        c.drain()

    with ScriptedServer(script) as server:
        recorder = Recorder(mode.open(f"wss://localhost:{server.port}/", open_timeout=0.3))
        assert recorder.closed() == FAILED
    assert isinstance(recorder.error, TimeoutError)
    assert "open_timeout=0.3 s; last: TLS handshake with host 'localhost'" in str(recorder.error)


@pytest.mark.parametrize("end", [Connection.half_close, Connection.reset])
def test_tcp_that_ends_in_the_tls_handshake_fails_the_connection(mode: Mode, end: Callable[[Connection], None]) -> None:
    def script(c: Connection) -> None:
        c.sock.recv(1)
        end(c)

    with ScriptedServer(script) as server:
        recorder = Recorder(mode.open(f"wss://127.0.0.1:{server.port}/", ssl=contexts(*NAMES)[1]))
        assert recorder.closed() == FAILED
    assert isinstance(recorder.error, (ssl.SSLError, ConnectionResetError))
    assert "TLS handshake with host '127.0.0.1' failed" in str(recorder.error)
    hung_up = isinstance(recorder.error, ssl.SSLEOFError)
    assert ("the server hung up; does it speak plain ws:?" in str(recorder.error)) == hung_up


# -- names


@pytest.mark.parametrize(
    ("host", "asked", "certificate"),
    [
        ("LOCALHOST", "localhost", "localhost"),
        ("bücher.localhost", "xn--bcher-kva.localhost", "xn--bcher-kva.localhost"),
        ("a.b.localhost", "a.b.localhost", "*.b.localhost"),
        ("sub.localhost.", "sub.localhost", "sub.localhost"),
        ("127.0.0.1", None, "127.0.0.1"),  # RFC 6066 section 3: no IP addresses
    ],
)
def test_the_server_is_told_the_name_that_its_certificate_is_checked_for(
    host: str, asked: str | None, certificate: str
) -> None:
    context = server_context(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda sock, name, of: names.append(name)
    with tls_server(context) as server:
        ws = bws.WebSocket(f"wss://{host}:{server.port}/", ssl=contexts("x")[1])
        assert Recorder(ws, {"open": lambda r, _: r.ws.close()}).closed()[0] == ("open", 1)
    assert names == [asked]


# -- client certificates


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("given", ["none", "a wrong one", "the right one", "one with a password"])
def test_a_server_may_want_a_client_certificate(given: str, version: ssl.TLSVersion, tmp_path: pathlib.Path) -> None:
    context = server_context("localhost")
    context.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(context)
    context.maximum_version = version
    client = contexts("x")[1]
    if given == "one with a password":
        cert = authority().issue_cert("me@example.com")
        key = serialization.load_pem_private_key(cert.private_key_pem.bytes(), None)
        locked = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        (tmp_path / "client.pem").write_bytes(cert.cert_chain_pems[0].bytes() + locked)
        client.load_cert_chain(tmp_path / "client.pem", password="secret")
    elif given != "none":
        issuer = authority() if given == "the right one" else trustme.CA()
        issuer.issue_cert("me@example.com").configure_cert(client)

    def script(c: Connection) -> None:
        try:
            c.start_tls(context)
        except Gone:
            while socket.socket.recv(c.sock, 4096):  # no reset, the alert arrives
                pass
            raise
        assert isinstance(c.sock, ssl.SSLSocket)
        certificate = c.sock.getpeercert() or {}
        assert certificate["subjectAltName"] == (("email", "me@example.com"),)
        c.handshake()

    with ScriptedServer(script) as server:
        url = f"wss://localhost:{server.port}/"
        if "password" in given or "right" in given:
            ws = bws.WebSocket(url, ssl=client)
            assert Recorder(ws, {"open": lambda r, _: r.ws.close()}).closed()[0] == ("open", 1)
            return
        error = failure(url, ssl=client)
    assert isinstance(error, ssl.SSLError)
    assert "host 'localhost'" in str(error)
    assert "alert" in str(error)
    if given == "none" and version is ssl.TLSVersion.TLSv1_3:
        assert "the server wants a client certificate" in str(error)


# -- contexts of other makes


class Late(ssl.SSLContext):
    """Verifies behind the handshake, in wrap_socket(), as truststore once did on macOS and Windows."""

    good: bytes | None = None
    calls = 0

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        self.check_hostname = False
        self.verify_mode = ssl.CERT_NONE
        self.calls += 1
        sock = super().wrap_socket(*args, **options)
        found = sock.getpeercert(True)
        if found is not None and found != self.good:  # as careless as can be about a handshake that has not been
            sock.close()
            raise ssl.SSLCertVerificationError(1, "I do not know this certificate")
        return sock


def test_a_context_that_verifies_in_wrap_socket_is_not_got_round(mode: Mode) -> None:
    context = server_context("localhost")
    with tls_server(context) as server:
        url = f"wss://localhost:{server.port}/"
        late = Late(ssl.PROTOCOL_TLS_CLIENT)
        recorder = Recorder(mode.open(url, ssl=late))
        assert recorder.closed() == FAILED
        assert isinstance(recorder.error, ssl.SSLCertVerificationError)
        assert str(recorder.error).endswith(
            "TLS handshake with host 'localhost' failed: I do not know this certificate"
        )
        assert server.result().request_line == ""
        late.good = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("localhost", server.port)))
        on = {"open": lambda r, _: r.ws.send("x" * 300_000), "message": lambda r, _: r.ws.close()}
        assert Recorder(mode.open(url, ssl=late), on).closed()[1][0] == "message"
        assert late.calls == 2


def refuse(sock: ssl.SSLSocket) -> NoReturn:
    sock.close()
    raise ssl.SSLCertVerificationError(1, "I do not know this certificate")


class Wrapping(ssl.SSLContext):
    """Its method says that it is Python's own."""

    @functools.wraps(ssl.SSLContext.wrap_socket)
    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:  # type: ignore[override]
        refuse(super().wrap_socket(*args, **options))


class Refusing(ssl.SSLSocket):
    """A socket that knows nobody."""

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        refuse(self)


class OfRefusing(ssl.SSLContext):
    sslsocket_class = Refusing


class ByProperty(ssl.SSLContext):
    @property
    def sslsocket_class(self) -> type[ssl.SSLSocket]:  # type: ignore[override]
        return Refusing


def test_a_socket_class_that_a_program_has_changed_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", lambda sock, block=False: refuse(sock))
    with ScriptedServer(Connection.drain) as server:
        error = failure(f"wss://localhost:{server.port}/")
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert "I do not know this certificate" in str(error)


def with_an_attribute(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    wrap_socket = context.wrap_socket
    if name == "sslsocket_class":
        context.sslsocket_class = Refusing
    else:
        context.wrap_socket = lambda *args, **options: refuse(wrap_socket(*args, **options))  # type: ignore[method-assign]
    return context


@pytest.mark.parametrize(
    "make",
    [
        lambda: Wrapping(ssl.PROTOCOL_TLS_CLIENT),
        lambda: OfRefusing(ssl.PROTOCOL_TLS_CLIENT),
        lambda: ByProperty(ssl.PROTOCOL_TLS_CLIENT),
        lambda: with_an_attribute("wrap_socket"),
        lambda: with_an_attribute("sslsocket_class"),
    ],
    ids=["functools.wraps", "class attribute", "property", "its own wrap_socket", "its own sslsocket_class"],
)
def test_who_verifies_the_certificate_is_asked_wherever_it_hides(make: Callable[[], ssl.SSLContext]) -> None:
    context = make()
    authority().configure_trust(context)
    with tls_server(server_context("localhost")) as server:
        error = failure(f"wss://localhost:{server.port}/", ssl=context)
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert "I do not know this certificate" in str(error)
        assert server.result().request_line == ""


@pytest.mark.parametrize("how", ["open_timeout", "close"])
def test_a_context_that_shakes_hands_itself_is_given_up_like_any_other(mode: Mode, how: str) -> None:
    with ScriptedServer(Connection.drain) as server:
        ws = mode.open(
            f"wss://localhost:{server.port}/",
            ssl=Late(ssl.PROTOCOL_TLS_CLIENT),
            open_timeout=0.3 if how == "open_timeout" else None,
        )
        recorder = Recorder(ws)
        server.wait_connected()
        if how == "close":
            ws.close()
        assert recorder.closed() == FAILED
        assert isinstance(recorder.error, TimeoutError if how == "open_timeout" else ConnectionAbortedError)
        server.result()  # TCP has ended too, and so does the thread


@pytest.mark.parametrize("how", ["open_timeout", "close"])
def test_a_handshake_that_goes_on_and_on_is_given_up_like_any_other(mode: Mode, how: str) -> None:
    flooded = threading.Event()

    def script(c: Connection) -> None:
        hello_request = b"\x16\x03\x03\x00\x04\x00\x00\x00\x00"  # which a client may ignore (RFC 5246, 7.4.1.1)
        assert c.sock.recv(4096)
        with contextlib.suppress(OSError):
            while True:
                c.sock.sendall(hello_request * 1000)
                flooded.set()

    with ScriptedServer(script) as server:
        timeout = 0.3 if how == "open_timeout" else None
        recorder = Recorder(mode.open(f"wss://localhost:{server.port}/", open_timeout=timeout))
        assert flooded.wait(TIMEOUT)
        if how == "close":
            recorder.ws.close()
        assert recorder.closed() == FAILED
        assert isinstance(recorder.error, TimeoutError if how == "open_timeout" else ConnectionAbortedError)
        server.result()  # TCP has ended too, and so does the thread


class Broken(ssl.SSLContext):
    """Raises what is no OSError, and exceptions with constructors of their own."""

    error: BaseException = ValueError("no, thank you")

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        raise self.error


class Odd(OSError):
    def __init__(self, one: int, two: int, three: int) -> None:
        super().__init__(f"{one} {two} {three}")


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (ValueError("no, thank you"), "TLS with host 'localhost' is not possible: no, thank you"),
        (Odd(1, 2, 3), "TLS handshake with host 'localhost' failed: 1 2 3"),
    ],
)
def test_whatever_a_context_raises_is_an_error_event(raised: BaseException, message: str) -> None:
    context = Broken(ssl.PROTOCOL_TLS_CLIENT)
    context.error = raised
    with ScriptedServer(Connection.drain) as server:
        error = failure(f"wss://localhost:{server.port}/", ssl=context)
    assert isinstance(error, OSError)
    assert message in str(error)


def test_truststore_verifies_like_the_default_context(mode: Mode) -> None:
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with tls_server(server_context("localhost")) as server:
        url = f"wss://localhost:{server.port}/"
        recorder = Recorder(mode.open(url, ssl=context))
        assert recorder.closed() == FAILED
        assert isinstance(recorder.error, ssl.SSLCertVerificationError)
        assert "TLS handshake with host 'localhost' failed" in str(recorder.error)
        assert server.result().request_line == ""
        if sys.platform == "linux":  # elsewhere the system's own store decides alone
            authority().configure_trust(context)
            on = {"open": lambda r, _: r.ws.close()}
            assert Recorder(mode.open(url, ssl=context), on).closed()[0] == ("open", 1)


def test_truststore_does_not_wait_for_one_server_to_talk_to_another() -> None:
    # It holds a lock while it verifies: a handshake that stalls must not be inside.
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with ScriptedServer(Connection.drain) as silent, tls_server(server_context("localhost")) as server:
        stalled = bws.WebSocket(f"wss://localhost:{silent.port}/", ssl=context)
        silent.wait_connected()
        error = failure(f"wss://localhost:{server.port}/", ssl=context)
        stalled.close()
        assert stalled.wait_closed(TIMEOUT)
    assert isinstance(error, ssl.SSLCertVerificationError)


def test_truststore_may_stand_in_for_all_contexts(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    code = """
        import sys
        import truststore
        truststore.inject_into_ssl()
        import ssl, bws
        for context in (None, ssl.create_default_context()):
            ws = bws.WebSocket(sys.argv[1], ssl=context)
            ws.bind("error", lambda evt: print(type(evt.error).__name__))
            ws.bind("open", lambda: (print("open"), ws.close()))
            ws.wait_closed(20)
        """
    store = tmp_path / "store.pem"
    store.write_text(authority_pem())
    with ScriptedServer(Connection.handshake, tls=NAMES) as server:
        url = f"wss://localhost:{server.port}/"
        done = run_python(code, url)
        assert (done.stdout.split(), done.stderr) == (["SSLCertVerificationError"] * 2, "")
        if sys.platform == "linux":
            monkeypatch.setenv("SSL_CERT_FILE", str(store))
            done = run_python(code, url)
            assert (done.stdout.split(), done.stderr) == (["open"] * 2, "")


# -- after the handshake


@pytest.mark.skipif(sys.platform == "win32", reason="openssl s_server tells what it does on a terminal only")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl")
@pytest.mark.parametrize(
    ("version", "commands"), [("tls1_3", ["k", "K"]), ("tls1_2", ["r"])], ids=["new keys", "renegotiation"]
)
def test_new_keys_in_the_middle_change_nothing(version: str, commands: list[str]) -> None:
    """`openssl s_server` is the only server at hand that can be told to (k, K: new keys; r: shake hands again)."""
    primary, secondary = os.openpty()
    tty.setraw(secondary)
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", f"-{version}"]
    with contextlib.ExitStack() as stack:
        pem = stack.enter_context(authority().issue_cert("localhost").private_key_and_cert_chain_pem.tempfile())
        server = stack.enter_context(
            subprocess.Popen(
                [*command, "-cert", pem, "-key", pem], stdin=subprocess.PIPE, stdout=secondary, stderr=secondary
            )
        )
        stack.callback(server.kill)
        os.close(secondary)
        out = stack.enter_context(open(primary, "rb", buffering=0))

        def until(pattern: bytes) -> bytes:
            while not (found := re.search(pattern, out.readline())):
                pass
            return found[1]

        def say(data: bytes) -> None:
            assert server.stdin is not None
            server.stdin.write(data)
            server.stdin.flush()

        port = int(until(rb"ACCEPT .*:(\d+)"))
        ws = bws.WebSocket(f"wss://localhost:{port}/", ssl=contexts("x")[1], compression=False)
        recorder = Recorder(ws)
        key = until(rb"Sec-WebSocket-Key: (\S+)").decode()
        say(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        say(f"Sec-WebSocket-Accept: {accept_value(key)}\r\n\r\n".encode())
        recorder.wait_for("open")
        for count, letter in enumerate(commands, 1):
            say(letter.encode() + b"\n")
            assert until(rb"SSL_do_handshake -> (\S+)") == b"1"
            ws.send("under new keys")
            say(b"\x81\x03hi\n")
            recorder.wait_for("message", count)
        say(close_frame(1000, "bye"))
        assert recorder.closed()[-1] == ("close", 3, 1000, "bye", True)


@pytest.mark.parametrize("notified", [True, False], ids=["close_notify", "bare TCP end"])
@pytest.mark.parametrize("close", [True, False], ids=["close frame", "no close frame"])
def test_only_the_close_frame_makes_an_end_clean(mode: Mode, close: bool, notified: bool) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=close_frame(1000, "done") if close else b"")
        if close:
            c.read_until(CLOSE)
        if notified:
            assert isinstance(c.sock, ssl.SSLSocket)
            with contextlib.suppress(OSError):
                c.sock.unwrap()  # sends close_notify, and waits for the client's, which only closes
        c.half_close()

    with ScriptedServer(script, tls=NAMES) as server:
        recorder = Recorder(mode.open(server.url, ssl=server.ssl_context))
        end = ("close", 3, 1000, "done", True) if close else ("close", 3, 1006, "", False)
        assert recorder.closed()[1:] == [end]


@pytest.mark.parametrize(
    ("then", "event"),
    [
        (close_frame(1000, "done"), [("close", 3, 1000, "done", True)]),
        (frame(TEXT, "x", rsv=2), [("error", 3), ("close", 3, 1006, "", False)]),
        (b"", [("close", 3, 1006, "", False)]),
    ],
)
def test_the_end_of_a_connection_is_the_same_as_without_tls(
    mode: Mode, then: bytes, event: list[tuple[object, ...]]
) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "hello") + then)
        if then:
            c.read_until(CLOSE)
        c.half_close()

    with ScriptedServer(script, tls=NAMES) as server:
        recorder = Recorder(mode.open(server.url, ssl=server.ssl_context))
        assert recorder.closed()[1:] == [("message", recorder.entries[1][1], "hello"), *event]
