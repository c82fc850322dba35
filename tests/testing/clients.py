"""Clients that the tests of EchoServer share."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from bws.testing import EchoServer

TIMEOUT = 10.0  # s, only a test that fails waits so long

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@contextmanager
def plain_socket(server: EchoServer, *, handshake: bool = True) -> Iterator[socket.socket]:
    """A TCP connection of which the test sees every byte; it has done the handshake or sent nothing."""
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock:
        if handshake:
            sock.sendall(HANDSHAKE)
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(1)
            assert head.startswith(b"HTTP/1.1 101 ")
        yield sock


def reads_to_the_end(sock: socket.socket) -> bool:
    """Whether the server has ended the connection, with or without a reset."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def why_closed(client: ClientConnection) -> ConnectionClosed:
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(TIMEOUT)
    return caught.value
