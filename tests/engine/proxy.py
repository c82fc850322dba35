"""Real proxies on loopback, on threads: HTTP CONNECT, SOCKS 4a and SOCKS 5. They share no code with bws."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
import threading
from types import TracebackType

PATIENCE = 15.0  # seconds a proxy waits for anything


class Proxy:
    """Listens on a free port and relays what its clients ask for.

    `names` says where host names lead; any other is taken as an address. `credentials` ("user:password") are
    asked for. With `reply` the client gets these bytes instead of a connection, and then nothing more until it
    goes. `gate` keeps the answer back until it is set. `tls` makes it an https: proxy.

    Attributes:
        asked: Host and port of each request.
        offered: The credentials that came with each, as "user:password", or None.
        ended: Set when a connection of a client has ended.
    """

    scheme = "http"

    def __init__(
        self,
        *,
        names: dict[str, str] | None = None,
        credentials: str | None = None,
        reply: bytes | None = None,
        gate: threading.Event | None = None,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.asked: list[tuple[str, int]] = []
        self.offered: list[str | None] = []
        self.reached = threading.Event()  # a client has connected
        self.ended = threading.Event()
        self._names, self._credentials, self._reply, self._gate = names or {}, credentials, reply, gate
        self._stop = False
        self._lock = threading.Lock()  # guards _sockets
        self._sockets: list[socket.socket] = []
        self._host, self._tls = host, tls
        if tls is not None:
            self.scheme = "https"
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._threads[0].start()

    def url(self, userinfo: str = "", scheme: str = "") -> str:
        """What a client is told; `userinfo` as in ``user:password@``."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme or self.scheme}://{userinfo}{host}:{self.port}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop = True
        with socket.create_connection((self._host, self.port), PATIENCE):  # accept() returns for this
            self._threads[0].join(PATIENCE)
        self._listener.close()
        if self._gate is not None:
            self._gate.set()
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a proxy's thread did not end"

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._stop:
                client.close()
                return
            self._spawn(self._serve, client)

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="proxy connection", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _keep(self, sock: socket.socket) -> socket.socket:
        with self._lock:
            self._sockets.append(sock)
        sock.settimeout(PATIENCE)
        return sock

    def _serve(self, client: socket.socket) -> None:
        self._keep(client)
        if self._tls is not None:
            try:
                client = self._keep(self._tls.wrap_socket(client, server_side=True))
            except OSError:
                client.close()
                return
        self.reached.set()
        with client, contextlib.suppress(OSError, EOFError):
            host, port, offered = self.request(client)
            self.asked.append((host, port))
            self.offered.append(offered)
            if self._gate is not None:
                self._gate.wait(PATIENCE)
            if self._reply is not None:
                client.sendall(self._reply)
                while client.recv(65536):
                    pass
            elif self._credentials not in (None, offered):
                self.deny(client, "credentials")
            else:
                self._relay(client, self._names.get(host, host), port)
        self.ended.set()

    def _relay(self, client: socket.socket, host: str, port: int) -> None:
        # not create_connection: a test may have its own idea of getaddrinfo
        server = self._keep(socket.socket())
        with server:
            try:
                server.connect((host, port))
            except OSError:
                self.deny(client, "connection")
                return
            self.accept(client)
            with contextlib.suppress(OSError):
                self._carry(client, server)

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket) -> None:
        """Both ways on this thread: two threads in one TLS connection at a time damage what it sends."""
        ways = [(one, other), (other, one)]
        waiting = {one: b"", other: b""}  # what an end has not taken yet
        ended: set[socket.socket] = set()  # who says no more
        for sock in waiting:
            sock.setblocking(False)
        while len(ended) < 2 or any(waiting.values()):
            moved = False
            for source, drain in ways:
                with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    if not waiting[drain] and source not in ended:
                        waiting[drain] = source.recv(65536)
                        moved = True
                        if not waiting[drain]:
                            ended.add(source)
                            socket.socket.shutdown(drain, socket.SHUT_WR)  # after SSLSocket's nothing could be read
                    if waiting[drain]:
                        waiting[drain] = waiting[drain][drain.send(waiting[drain]) :]
                        moved = True
            if not moved:
                reading = [source for source, drain in ways if source not in ended and not waiting[drain]]
                if not any(select.select(reading, [sock for sock in waiting if waiting[sock]], [], PATIENCE)):
                    return

    # -- what the protocol is

    def request(self, client: socket.socket) -> tuple[str, int, str | None]:
        """Read where to, and the credentials."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += take(client, 1)
        line, *fields = head[:-4].decode("latin-1").split("\r\n")
        method, target, version = line.split(" ")
        named = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        assert (method, version, named["host"]) == ("CONNECT", "HTTP/1.1", target)
        host, _, port = target.rpartition(":")
        kind, _, value = named.get("proxy-authorization", "").partition(" ")
        return host, int(port), base64.b64decode(value).decode() if kind == "Basic" else None

    def accept(self, client: socket.socket) -> None:
        """Say that there is a connection."""
        client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: tests\r\n\r\n")

    def deny(self, client: socket.socket, what: str) -> None:
        """Say that there is none."""
        status = "407 Proxy Authentication Required" if what == "credentials" else "502 Bad Gateway"
        client.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())


class Socks(Proxy):
    """SOCKS 4, 4a and 5, whichever the client speaks."""

    scheme = "socks5h"

    def request(self, client: socket.socket) -> tuple[str, int, str | None]:
        self._version = take(client, 1)[0]
        return self._request_4(client) if self._version == 4 else self._request_5(client)

    @staticmethod
    def _request_4(client: socket.socket) -> tuple[str, int, str | None]:
        assert take(client, 1) == b"\x01"
        port = int.from_bytes(take(client, 2), "big")
        address = take(client, 4)
        user = until_nul(client)
        named = address[:3] == b"\0\0\0" and address[3]
        return until_nul(client) if named else socket.inet_ntoa(address), port, user or None

    def _request_5(self, client: socket.socket) -> tuple[str, int, str | None]:
        methods = take(client, take(client, 1)[0])
        offered = None
        if 2 in methods and self._credentials is not None:
            client.sendall(b"\x05\x02")
            assert take(client, 1) == b"\x01"
            user, password = (take(client, take(client, 1)[0]).decode() for _ in range(2))
            offered = f"{user}:{password}"
            client.sendall(b"\x01\x00" if offered == self._credentials else b"\x01\x01")
        elif self._credentials is not None:
            client.sendall(b"\x05\xff")
        else:
            client.sendall(b"\x05\x00")
        assert take(client, 3) == b"\x05\x01\x00"
        kind = take(client, 1)[0]
        if kind == 3:
            host = take(client, take(client, 1)[0]).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, take(client, size))
        return host, int.from_bytes(take(client, 2), "big"), offered

    def accept(self, client: socket.socket) -> None:
        client.sendall(b"\x00\x5a" + bytes(6) if self._version == 4 else b"\x05\x00\x00\x01" + bytes(6))

    def deny(self, client: socket.socket, what: str) -> None:
        client.sendall(b"\x00\x5b" + bytes(6) if self._version == 4 else b"\x05\x05\x00\x01" + bytes(6))


def take(sock: socket.socket, size: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def until_nul(sock: socket.socket) -> str:
    """A string that ends with NUL."""
    data = b""
    while (byte := take(sock, 1)) != b"\0":
        data += byte
    return data.decode()
