"""The floor: the same bytes over a blocking socket. No frame is parsed, nothing is masked, nobody is called."""

from __future__ import annotations

import base64
import os
import socket
from time import perf_counter as now
from urllib.parse import urlsplit

from .. import payloads
from ..limits import WAIT
from . import base

CHUNK = 256 * 1024
CLOSE = b"\x88\x80\0\0\0\0"


def frame(message: str | bytes) -> bytes:
    first, data = (b"\x81", message.encode()) if isinstance(message, str) else (b"\x82", message)
    size = len(data)
    if size < 126:
        head = bytes([0x80 | size])
    elif size < 65536:
        head = b"\xfe" + size.to_bytes(2, "big")
    else:
        head = b"\xff" + size.to_bytes(8, "big")
    return first + head + b"\0\0\0\0" + data  # a key of zeros leaves the payload as it is


class Client(base.Client):
    def __init__(self, target: base.Target) -> None:
        super().__init__(target)
        self.parts = urlsplit(target.url)
        self.held: list[socket.socket] = []

    def connect(self) -> socket.socket:
        host, port = self.parts.hostname or "", self.parts.port or 0
        sock = socket.create_connection((host, port), WAIT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.target.ssl:
            sock = self.target.ssl.wrap_socket(sock, server_hostname=host)
        key = base64.b64encode(os.urandom(16)).decode()
        sock.sendall(
            f"GET {self.parts.path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.read(sock)
        return sock

    @staticmethod
    def read(sock: socket.socket) -> bytes:
        if data := sock.recv(CHUNK):
            return data
        raise ConnectionError("the server has closed")

    def echo(self, message: str | bytes, count: int) -> float:
        sock, out, size = self.connect(), frame(message), len(frame(message)) - 4  # an answer has no key
        begin = now()
        for _ in range(count):
            sock.sendall(out)
            got = 0
            while got < size:
                got += len(self.read(sock))
        return now() - begin

    def receive(self, count: int) -> float:
        kind, size = self.parts.path.split("/")[2:4]
        left = count * (len(frame(payloads.make(kind, int(size)))) - 4)
        sock, into = self.connect(), bytearray(CHUNK)
        begin = now()
        sock.sendall(frame("go"))
        while left > 0:
            got = sock.recv_into(into)
            if not got:
                raise ConnectionError("the server has closed")
            left -= got
        return now() - begin

    def send(self, message: str | bytes, count: int) -> float:
        sock, out = self.connect(), frame(message)
        begin = now()
        for _ in range(count):
            sock.sendall(out)
        self.read(sock)
        return now() - begin

    def open_all(self, count: int) -> None:
        for _ in range(count):
            self.held.append(self.connect())

    def close_all(self) -> None:
        for sock in self.held:
            sock.sendall(CLOSE)
        for sock in self.held:
            while sock.recv(CHUNK):
                pass
            sock.close()
        self.held.clear()
