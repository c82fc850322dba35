"""Frames and answers as bytes, right and wrong ones, and notes of what a client sent."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

Data = str | bytes


def octets(data: Data) -> bytes:
    """A str as UTF-8."""
    return data.encode() if isinstance(data, str) else data


def xor(data: bytes, key: bytes) -> bytes:
    """Mask or unmask."""
    pad = (key * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(data), "big")


def frame(
    opcode: int,
    payload: Data = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = None,
    length: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """One frame; `length` lies about the payload's length, `length_bytes` (1, 2, 8) forces its form."""
    payload = octets(payload)
    size = len(payload) if length is None else length
    width = length_bytes or (1 if size < 126 else 2 if size < 65536 else 8)
    flag = 0x80 if mask else 0
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    head = bytes([first, flag | {1: size, 2: 126, 8: 127}[width]])
    if width > 1:
        head += size.to_bytes(width, "big")
    return head + (mask + xor(payload, mask) if mask else payload)


def close_frame(code: int | None = None, reason: Data = "") -> bytes:
    """A close frame; without a code its payload is empty."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + octets(reason))


def http(status: str, *headers: str, body: bytes = b"no\n") -> bytes:
    """An HTTP answer that is not the one a WebSocket client hopes for."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/plain", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass(frozen=True)
class Frame:
    """A frame of the client, or a whole message of its fragments."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    masked: bool = True
    key: bytes = b""

    @property
    def data(self) -> Data:
        """The payload as the client meant it: str of a text."""
        return self.payload.decode() if self.opcode == TEXT else self.payload


@dataclass
class Seen:
    """What the server saw of one client."""

    request_line: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)  # all of them, in order
    messages: list[Data] = field(default_factory=list)  # whole ones
    pings: list[bytes] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    close: tuple[int | None, str] | None = None  # of the first close frame
    raw: bytes = b""  # what came on a connection that was not upgraded, after the request
    end: str = "open"  # then "eof", "reset", "reset by server"

    def note(self, got: Frame) -> None:
        """Another frame came."""
        self.frames.append(got)
        if got.opcode == CLOSE and self.close is None:
            code = struct.unpack("!H", got.payload[:2])[0] if got.payload else None
            self.close = code, got.payload[2:].decode()
        elif got.opcode in (PING, PONG):
            (self.pings if got.opcode == PING else self.pongs).append(got.payload)

    def header(self, name: str) -> str | None:
        """The header's values, joined with a comma; None if it is missing."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def target(self) -> str:
        """The request target: path and query."""
        return self.request_line.split(" ")[1]

    @property
    def unmasked(self) -> list[Frame]:
        """Frames a client must not send."""
        return [f for f in self.frames if not f.masked]

    @property
    def after_close(self) -> list[Frame]:
        """Frames that followed the client's close frame; there must be none."""
        opcodes = [f.opcode for f in self.frames]
        return self.frames[opcodes.index(CLOSE) + 1 :] if CLOSE in opcodes else []
