"""The other end of the stress programs, in a process of its own: ``python -m tests.stress.server [CERTIFICATE]``.

It prints its ports, without and with TLS (0 if there is no certificate), and then, for each connection that has
ended, ``path received sent how``, where *how* says what was wrong, or "ok". It ends with its standard input.
The protocol is that of the package websockets; only uncompressed replies are framed here, many at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import struct
import sys
from collections import Counter

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.protocol import State
from websockets.server import ServerProtocol

from tests.stress.messages import Action, Damaged, Request, body, parse, replies

STALL = 0.2  # s


class Peer(asyncio.Protocol):
    """One client."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        deflate = ServerPerMessageDeflateFactory(compress_settings={"level": 1})
        self.protocol = ServerProtocol(extensions=[deflate], max_size=None)
        self.path = ""
        self.received: Counter[int] = Counter()  # of each sender
        self.sent = 0
        self.trouble = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Handshake):
                self.path = event.path
                self.protocol.send_response(self.protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                assert event.fin  # the client does not fragment
                try:
                    self._take(parse(bytes(event.data)))
                except Damaged as exc:
                    self._note(str(exc))
        if isinstance(self.protocol.parser_exc, Exception) and not isinstance(self.protocol.parser_exc, EOFError):
            self._note(repr(self.protocol.parser_exc))
        self._flush()

    def eof_received(self) -> bool:
        self.protocol.receive_eof()
        self._flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.path:
            print(self.path, self.received.total(), self.sent, self.trouble or "ok", flush=True)

    def _note(self, trouble: str) -> None:
        self.trouble = self.trouble or trouble.replace("\n", " ")

    def _flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self.transport.close()

    def _take(self, asked: Request) -> None:
        if asked.seq != self.received[asked.sender]:
            self._note(f"sender {asked.sender}: number {asked.seq} came as {self.received[asked.sender]}")
        self.received[asked.sender] += 1
        if self.protocol.state is not State.OPEN:
            return
        if asked.action is Action.PING:
            for n in range(3):
                self.protocol.send_ping(b"%d" % n)
        self._reply(asked)
        self._act(asked.action)

    def _reply(self, asked: Request) -> None:
        text = asked.action is Action.TEXT
        if asked.want and not self.protocol.extensions:
            self._flush()
            first = b"\x81" if text else b"\x82"
            self.transport.write(
                b"".join(first + _length(len(one)) + one for one in replies(self.sent, asked.want, body(asked.size)))
            )
        elif asked.want:
            send = self.protocol.send_text if text else self.protocol.send_binary
            for one in replies(self.sent, asked.want, body(asked.size)):
                send(one)
        self.sent += asked.want

    def _act(self, action: Action) -> None:
        if action is Action.SUMMARY:
            self.protocol.send_text(b"%d %d" % (self.received.total(), self.sent))
        elif action is Action.CLOSE:
            self.protocol.send_close(4000, "as asked")
        elif action is Action.RESET:
            self._flush()
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
        elif action is Action.END:
            self._flush()
            self.transport.close()
        elif action is Action.GARBAGE:
            self._flush()
            self.transport.write(b"\xff" * 100)
        elif action is Action.STALL:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(STALL, self._go_on)

    def _go_on(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is closing
            self.transport.resume_reading()


def _length(size: int) -> bytes:
    """The second part of a frame's header."""
    if size < 126:
        return bytes([size])
    return b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8, "big")


async def serve(certificate: str | None) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Peer, "127.0.0.1", 0, backlog=4096)]
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        servers.append(await loop.create_server(Peer, "127.0.0.1", 0, backlog=4096, ssl=context))
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    print(*ports, *[0] * (2 - len(ports)), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve(sys.argv[1] if sys.argv[1:] else None))
