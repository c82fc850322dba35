"""A WebSocket server made of plain bytes, so that it can be wrong in every way a test needs.

A *script* is a function of the connection; it runs on a thread of its own for every client that connects::

    def script(c: Connection) -> None:
        c.handshake()
        c.send_text("hi")
        c.close(1000, "bye")

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url)
        ...
        seen = server.result()      # what the server saw; raises what the script raised

When the script returns the connection behaves well: pings and the client's close frame are answered, TCP is
ended once both close frames were exchanged, and what the client sends is noted until it ends TCP. A client
that goes away in the middle of a script ends that script quietly. Shares no code with bws.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from tests.wire import frames
from tests.wire.frames import Data, Frame, Seen, close_frame, frame, xor
from tests.wire.tls import contexts

PATIENCE = 15.0  # seconds a script may wait for anything
_RIGHT = "<the right one>"  # stands for the header value a correct server sends
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Script = Callable[["Connection"], None]


class Gone(Exception):
    """The client's end of the TCP connection is over, or the server is being stopped."""


class Connection:
    """One client, as a script sees it."""

    def __init__(self, sock: socket.socket, number: int, stop: threading.Event) -> None:
        self.sock, self.number, self.seen = sock, number, Seen()
        self.error: BaseException | None = None
        self.done = threading.Event()
        self.upgraded = self.close_sent = False
        self._stop, self._half_closed = stop, False
        self._buffer, self._parts, self._opcode = bytearray(), bytearray(), frames.CONTINUATION
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # -- the opening handshake

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands as TLS does."""
        try:
            tls = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
            self.sock = tls
            if self._stop.is_set():  # what was shut down then was perhaps the socket that this is made of
                raise Gone
            tls.do_handshake()
        except OSError:  # the client did not like the certificate, or is gone
            raise Gone from None

    def request(self) -> None:
        """Read the client's request head."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        self.seen.request_line, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        self.seen.headers = [(name, value.strip()) for name, _, value in pairs]

    @property
    def accept(self) -> str:
        """The right value of Sec-WebSocket-Accept."""
        return accept_value(self.seen.header("Sec-WebSocket-Key") or "")

    def offered(self) -> list[str]:
        """The subprotocols the client asked for."""
        asked = self.seen.header("Sec-WebSocket-Protocol")
        return [name.strip() for name in asked.split(",")] if asked else []

    def response(
        self,
        *extra: str,
        status: str = "HTTP/1.1 101 Switching Protocols",
        upgrade: str | None = "websocket",
        connection: str | None = "Upgrade",
        accept: str | None = _RIGHT,
        protocol: str | None = _RIGHT,
    ) -> bytes:
        """The right answer unless told otherwise (None leaves a header out, `extra` are more lines)."""
        if protocol == _RIGHT:
            protocol = next(iter(self.offered()), None)
        fields = {
            "Upgrade": upgrade,
            "Connection": connection,
            "Sec-WebSocket-Accept": self.accept if accept == _RIGHT else accept,
            "Sec-WebSocket-Protocol": protocol,
        }
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        return "\r\n".join([status, *lines, *extra, "", ""]).encode("latin-1")

    def handshake(self, *extra: str, then: bytes = b"", protocol: str | None = _RIGHT) -> None:
        """Read the request and accept it; `then` travels in the same TCP segment."""
        self.request()
        self.upgrade(self.response(*extra, protocol=protocol) + then)

    def upgrade(self, response: bytes) -> None:
        """Answer with these bytes; from now on the client's bytes are frames."""
        self.send(response)
        self.upgraded = True

    # -- sending

    def send(self, data: bytes) -> None:
        """Send any bytes."""
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise AssertionError(f"the client did not take {len(data)} bytes") from None
        except OSError:
            raise Gone from None

    def send_text(self, text: str) -> None:
        """Send one unfragmented text."""
        self.send(frame(frames.TEXT, text))

    def send_message(self, data: Data) -> None:
        """Send a str as text, bytes as binary."""
        self.send(frame(frames.TEXT if isinstance(data, str) else frames.BINARY, data))

    def close(self, code: int | None = None, reason: Data = "") -> None:
        """Send a close frame."""
        self.close_sent = True
        self.send(close_frame(code, reason))

    def half_close(self) -> None:
        """End our direction of TCP; the client's stays readable."""
        if not self._half_closed:
            self._half_closed = True
            try:  # not SSLSocket.shutdown, after which nothing could be decrypted any more
                socket.socket.shutdown(self.sock, socket.SHUT_WR)
            except OSError:
                raise Gone from None

    def reset(self) -> None:
        """Cut TCP with a reset."""
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.seen.end = "reset by server"
        self.sock.close()
        raise Gone

    # -- reading

    def _more(self) -> None:
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise AssertionError(f"nothing came from the client within {PATIENCE} s") from None
        except (OSError, ValueError):
            self._end("reset")
        if not data:
            self._end("eof")
        self._buffer += data

    def _end(self, how: str) -> None:
        self.seen.end = how
        raise Gone

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def read_frame(self) -> Frame:
        """The client's next frame."""
        first, second = self._take(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
        key = self._take(4) if second & 0x80 else b""
        payload = xor(self._take(size), key) if key else self._take(size)
        got = Frame(first & 0x0F, payload, bool(first & 0x80), first >> 4 & 7, bool(key), key)
        self.seen.note(got)
        return got

    def read(self) -> Frame:
        """The client's next whole message or control frame."""
        while True:
            got = self.read_frame()
            if got.opcode >= frames.CLOSE:
                return got
            self._opcode = got.opcode or self._opcode
            self._parts += got.payload
            if got.fin:
                whole = Frame(self._opcode, bytes(self._parts))
                self._parts = bytearray()
                self.seen.messages.append(whole.data)
                return whole

    def read_until(self, opcode: int) -> Frame:
        """Read, without answering, up to the first frame of that kind."""
        while (got := self.read()).opcode != opcode:
            pass
        return got

    def readable(self) -> bool:
        """Whether the client has sent something (or its end) that was not read."""
        return bool(self._buffer or select.select([self.sock], [], [], 0)[0])

    def wait_for(self, event: threading.Event) -> None:
        """Do nothing, not even read, until the test sets the event."""
        while not event.wait(0.02):
            self.pause(0)

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        if self._stop.wait(seconds):
            raise Gone

    def drain(self) -> None:
        """Note what comes until the client ends TCP; answer nothing."""
        while self.upgraded:
            self.read()
        while True:
            self.seen.raw += bytes(self._buffer)
            self._buffer.clear()
            self._more()

    def behave(self, on_message: Callable[[Data], None] | None = None) -> None:
        """Do as a correct server does until the client ends TCP."""
        while True:
            if self.close_sent and self.seen.close:
                self.half_close()
            got = self.read()
            if got.opcode == frames.CLOSE:
                if not self.close_sent:
                    self.close_sent = True
                    self.send(frame(frames.CLOSE, got.payload))
            elif got.opcode == frames.PING and not self.close_sent:
                self.send(frame(frames.PONG, got.payload))
            elif got.opcode in (frames.TEXT, frames.BINARY) and on_message is not None and not self.close_sent:
                on_message(got.data)

    def echo(self) -> None:
        """Accept the handshake unless that was done, then behave and send every message back."""
        if not self.upgraded:
            self.handshake()
        self.behave(self.send_message)


class ScriptedServer:
    """Listens on a free port of loopback and runs the script for every client.

    `gate` keeps the scripts from starting until it is set. `receive_buffer` (bytes) makes our side of TCP
    small, a client soon feels that nobody reads. `tls`: names of a certificate that `ssl_context` trusts.
    """

    def __init__(
        self,
        script: Script,
        *,
        tls: Sequence[str] = (),
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
        gate: threading.Event | None = None,
    ) -> None:
        self._script, self._gate, self._stop = script, gate, threading.Event()
        self._changed = threading.Condition()
        self.connections: list[Connection] = []
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls, self.ssl_context = contexts(*tls)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family)
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind((host, 0))
        self._listener.listen(256)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.host, self.port = self.address
        self._threads = [threading.Thread(target=self._accept, name="scripted server", daemon=True)]
        self._threads[0].start()

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self._tls else 'ws'}://{host}:{self.port}"

    @property
    def url(self) -> str:
        """The server's root."""
        return self.origin + "/"

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        with socket.socket(self._listener.family) as knock:  # accept() returns for this, on every system
            knock.settimeout(PATIENCE)
            knock.connect(self.address)
            self._threads[0].join(PATIENCE)
        self._listener.close()
        for c in self.connections:
            if not c.done.is_set():
                _shut(c.sock)
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(t.is_alive() for t in self._threads), "a script did not end"
        if kind is None:
            self._raise(self.connections)

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._stop.is_set():
                return sock.close()
            c = Connection(sock, len(self.connections), self._stop)
            thread = threading.Thread(target=self._serve, args=[c], name=f"script {c.number}", daemon=True)
            self._threads.append(thread)
            thread.start()
            with self._changed:
                self.connections.append(c)
                self._changed.notify_all()

    def _serve(self, c: Connection) -> None:
        try:
            if self._tls:
                c.start_tls(self._tls)
            if self._gate:
                c.wait_for(self._gate)
            self._script(c)
            if c.upgraded:
                c.behave()
            else:
                c.drain()
        except Gone:
            pass
        except BaseException as exc:
            c.error = exc
        finally:
            _shut(c.sock)
            c.sock.close()
            c.done.set()

    @staticmethod
    def _raise(connections: Iterable[Connection]) -> None:
        for c in connections:
            if c.error is not None:
                error, c.error = c.error, None
                raise AssertionError(f"the script of connection {c.number} failed: {error!r}") from error

    def wait_connected(self, count: int = 1, timeout: float = PATIENCE) -> None:
        """Wait until so many clients have connected."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.connections) >= count, timeout), "no client came"

    def results(self, count: int, timeout: float = PATIENCE) -> list[Seen]:
        """What the server saw of the first `count` clients, once their connections have ended."""
        end = time.monotonic() + timeout
        self.wait_connected(count, timeout)
        for c in self.connections[:count]:
            assert c.done.wait(max(0.0, end - time.monotonic())), f"connection {c.number} goes on: {c.seen}"
        self._raise(self.connections[:count])
        return [c.seen for c in self.connections[:count]]

    def result(self, timeout: float = PATIENCE) -> Seen:
        """What the server saw of the first client, once its connection has ended."""
        return self.results(1, timeout)[0]


def accept_value(key: str) -> str:
    """The Sec-WebSocket-Accept that answers this key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
