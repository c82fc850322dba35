"""The far end of every job: a WebSocket server that costs as little as possible, in a process of its own.

    /echo                        answers each message with itself
    /flood/KIND/SIZE/COUNT       waits for one message, then sends COUNT of them as fast as they are taken
    /flood/KIND/SIZE/COUNT/PIECE the same in fragments of PIECE bytes
    /sink/bytes/COUNT            swallows COUNT bytes of frames, then answers with one message
    /sink/messages/COUNT         the same for COUNT messages (whose size is not known: they are compressed)

`?deflate` accepts permessage-deflate. On loopback only. One line of JSON on stdout says where; end of stdin ends it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import socket
import ssl
import sys
import threading
import zlib
from collections.abc import Callable
from typing import Any, cast

from . import payloads
from .limits import raise_descriptor_limit

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
TEXT, BINARY, CLOSE, COMPRESSED = 1, 2, 8, 0x40
MAX_HEAD = 16 * 1024  # bytes of a request
MAX_SIZE, MAX_COUNT = 16 * 1024 * 1024, 10_000_000  # bytes and messages that a flood may be asked for
CHUNK = 256 * 1024  # bytes written at a time
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"


def frame(first: int, payload: bytes) -> bytes:
    """A server's frame: not masked, not fragmented."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | first, size])
    elif size < 65536:
        head = bytes([0x80 | first, 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | first, 127]) + size.to_bytes(8, "big")
    return head + payload


def fragmented(one: bytes, piece: int) -> bytes:
    """A frame, of over 64 KiB, as a message in fragments of `piece` bytes."""
    payload = one[10:]
    parts = [payload[at : at + piece] for at in range(0, len(payload), piece)]
    frames = [frame(0, part) for part in parts]
    frames = [bytes([first[0] & 0x7F]) + first[1:] for first in frames[:-1]] + frames[-1:]
    frames[0] = bytes([one[0] & 0x7F]) + frames[0][1:]
    return b"".join(frames)


def head_of(data: bytes) -> tuple[int, int] | None:
    """The size of a client's frame's head with its key, and that of its payload; None while the head is cut."""
    if len(data) < 2:
        return None
    size, end = data[1] & 127, 2
    if size > 125:
        end = 4 if size == 126 else 10
        size = int.from_bytes(data[2:end], "big")
    return (end + 4, size) if len(data) >= end + 4 else None


def unmask(key: bytes, payload: bytes) -> bytes:
    """The payload of a client's frame."""
    size = len(payload)
    stream = int.from_bytes((key * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(payload, "little") ^ stream).to_bytes(size, "little")


class Peer(asyncio.Protocol):
    """A connection. What it does, it does inside data_received: there is no switch between reading and writing."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.take: Callable[[bytes], None] = self.on_request
        self.rest = b""  # the beginning of something that is not complete
        self.left = self.skip = 0
        self.writable = asyncio.Event()
        self.writable.set()
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.take(data)

    # -- the handshake

    def on_request(self, data: bytes) -> None:
        self.rest += data
        if len(self.rest) > MAX_HEAD:
            self.transport.abort()
        elif b"\r\n\r\n" in self.rest:
            head, _, data = self.rest.partition(b"\r\n\r\n")
            self.rest = b""
            self.answer(head.decode("latin-1"))
            if data and not self.transport.is_closing():
                self.take(data)

    def answer(self, head: str) -> None:
        request, *lines = head.split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path, _, query = request.split(" ")[1].partition("?")
        deflate = query == "deflate"
        try:
            if deflate and "permessage-deflate" not in fields.get("sec-websocket-extensions", ""):
                raise ValueError("permessage-deflate was not offered")
            self.take = self.route(path.strip("/").split("/"), deflate)
            key = fields["sec-websocket-key"].encode()
        except (KeyError, TypeError, ValueError) as exc:
            self.transport.write(f"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nX-Why: {exc}\r\n\r\n".encode())
            self.transport.close()
            return
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        self.transport.write(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{DEFLATE if deflate else ''}\r\n".encode()
        )

    def route(self, parts: list[str], deflate: bool) -> Callable[[bytes], None]:
        name, *rest = parts
        if name == "echo":
            return self.on_echo
        if name == "sink":
            self.left = int(rest[1])
            return self.on_bytes if rest[0] == "bytes" else self.on_messages
        if name == "flood":
            kind, size, count = rest[0], int(rest[1]), int(rest[2])
            piece = int(rest[3]) if len(rest) > 3 else 0
            if not (0 < size <= MAX_SIZE and 0 < count <= MAX_COUNT and (not piece or 0 < piece < 65536 <= size)):
                raise ValueError("too much")
            one = self.frame_of(kind, size, deflate)
            if piece:
                one = fragmented(one, piece)
            return lambda data: self.on_go(one, count)
        raise ValueError(f"no {name}")

    @staticmethod
    def frame_of(kind: str, size: int, deflate: bool) -> bytes:
        message = payloads.make(kind, size)
        first, data = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        if deflate:
            packer = zlib.compressobj(wbits=-15)
            data = (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
            first |= COMPRESSED
        return frame(first, data)

    # -- the jobs

    def on_echo(self, data: bytes) -> None:
        data, at = self.rest + data, 0
        while head := head_of(data[at : at + 14]):
            start, end = at + head[0], at + sum(head)
            if end > len(data):
                break
            self.transport.write(frame(data[at] & 15, unmask(data[start - 4 : start], data[start:end])))
            if data[at] & 15 == CLOSE:
                self.transport.close()
                return
            at = end
        self.rest = data[at:]

    def on_go(self, one: bytes, count: int) -> None:
        self.take = self.on_end
        self.task = asyncio.get_running_loop().create_task(self.flood(one, count))

    async def flood(self, one: bytes, count: int) -> None:
        batch = max(1, CHUNK // len(one))
        chunk = one * batch
        while count > 0:
            self.transport.write(chunk if count >= batch else one * count)
            count -= batch
            await self.writable.wait()
            await asyncio.sleep(0)

    def on_bytes(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left <= 0:
            self.done()

    def on_messages(self, data: bytes) -> None:
        while True:
            step = min(self.skip, len(data))
            self.skip -= step
            data = self.rest + data[step:]
            self.rest = b""
            head = head_of(data)
            if head is None or self.skip:
                self.rest = data
                return
            self.skip, data = head[1], data[head[0] :]
            self.left -= 1
            if not self.left:
                # The last message has begun; its end is what the client waits for.
                self.left, self.take = self.skip, self.on_bytes
                self.on_bytes(data)
                return

    def done(self) -> None:
        self.take = self.on_end
        self.transport.write(frame(TEXT, b"done"))

    def on_end(self, data: bytes) -> None:
        if data[0] & 15 == CLOSE:
            self.transport.write(frame(CLOSE, b""))
            self.transport.close()


def certificate() -> tuple[ssl.SSLContext, str]:
    """A context for 127.0.0.1 from a throw-away authority, and that authority's certificate."""
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context, authority.cert_pem.bytes().decode()


async def serve(tls: bool) -> None:
    """Serve until stdin ends."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def watch() -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock the end of the interpreter would wait for
            pass
        with contextlib.suppress(RuntimeError):  # the loop has ended first
            loop.call_soon_threadsafe(over.set)

    servers = [await loop.create_server(Peer, "127.0.0.1", 0, backlog=1024)]
    where: dict[str, Any] = {"ca": None, "tls": None}
    if tls:
        context, where["ca"] = certificate()
        servers.append(await loop.create_server(Peer, "127.0.0.1", 0, backlog=1024, ssl=context))
        where["tls"] = servers[1].sockets[0].getsockname()[1]
    where["plain"] = servers[0].sockets[0].getsockname()[1]
    print(json.dumps(where), flush=True)
    threading.Thread(target=watch, daemon=True).start()
    await over.wait()
    for server in servers:
        server.close()


if __name__ == "__main__":
    raise_descriptor_limit()
    asyncio.run(serve("--tls" in sys.argv))
