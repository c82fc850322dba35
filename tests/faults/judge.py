"""What a client may have heard: bytes from the server to the events that the contract asks for.

It reads the whole stream at once, slowly and in plain words, and shares no code with bws.
"""

from __future__ import annotations

import codecs
import re
import zlib
from dataclasses import dataclass, field

from tests.conftest import Entry
from tests.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Data, Frame, xor

FAILED: list[Entry] = [("error", 3), ("close", 3, 1006, "", False)]
LOST: list[Entry] = [("close", 3, 1006, "", False)]


class Broken(Exception):
    """A rule of RFC 6455 is broken."""


@dataclass
class Heard:
    """What was heard: `end` is code and reason of the close frame, "failed" for a broken rule, or None."""

    opened: bool = False
    messages: list[Data] = field(default_factory=list)
    end: tuple[int, str] | str | None = None

    def entries(self) -> list[Entry]:
        """The events that a `Recorder` must have noted."""
        if not self.opened:
            return FAILED
        story: list[Entry] = [("open", 1), *(("message", 1, data) for data in self.messages)]
        if self.end is None:
            return story + LOST
        return story + (FAILED if isinstance(self.end, str) else [("close", 3, *self.end, True)])


def hear(stream: bytes) -> Heard:
    """Read what came from the server, the answer to the handshake first, which is taken for a right one."""
    head, *rest = re.split(rb"\r?\n\r?\n", stream, maxsplit=1)  # bare line feeds do, as in browsers
    if not rest or head[8:13] != b" 101 ":
        return Heard()
    heard = Heard(True)
    inflater = zlib.decompressobj(-15) if b"permessage-deflate" in head else None
    try:
        _hear(rest[0], heard, inflater)
    except (Broken, UnicodeDecodeError):
        heard.end = "failed"
    return heard


def _hear(rest: bytes, heard: Heard, inflater: zlib._Decompress | None) -> None:
    kind, packed, payload = CONTINUATION, False, b""
    while rest and heard.end is None:
        frame, rest, whole = next_frame(rest, from_server=True, deflate=inflater is not None)
        if frame.opcode < CLOSE:
            if (frame.opcode == CONTINUATION) != (kind != CONTINUATION):
                raise Broken("continuation")
            if frame.opcode:
                kind, packed, payload = frame.opcode, bool(frame.rsv), b""
            payload += frame.payload
            if kind == TEXT and not packed:
                codecs.getincrementaldecoder("utf-8")().decode(payload, whole and frame.fin)
        if not whole:
            return
        if frame.opcode == CLOSE:
            heard.end = _closed(frame.payload)
        elif frame.opcode < CLOSE and frame.fin:
            if packed:
                assert inflater is not None
                payload = inflater.decompress(payload + b"\0\0\xff\xff")
            heard.messages.append(payload.decode() if kind == TEXT else payload)
            kind = CONTINUATION


def next_frame(data: bytes, *, from_server: bool, deflate: bool = False) -> tuple[Frame, bytes, bool]:
    """The first frame, what follows it, and whether it is whole; of one that is not, as much as there is."""
    first, second = data[0], (data[1:2] or b"\0" if from_server else data[1:2] or b"\x80")[0]
    opcode, fin, rsv = first & 15, bool(first & 0x80), first >> 4 & 7
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        raise Broken("opcode")
    if rsv and not (rsv == 4 and deflate and opcode in (TEXT, BINARY)):
        raise Broken("reserved bits")
    if bool(second & 0x80) == from_server:
        raise Broken("mask")
    size = second & 0x7F
    if opcode >= CLOSE and (not fin or size > 125):
        raise Broken("control frame")
    width = {126: 2, 127: 8}.get(size, 0)
    start = 2 + width + (0 if from_server else 4)
    if width and len(data) >= 2 + width:
        size = int.from_bytes(data[2 : 2 + width], "big")
        if size < (126 if width == 2 else 65536) or size >> 63:
            raise Broken("length")
    elif width == 8 and data[2:3] >= b"\x80":
        raise Broken("length")
    whole = len(data) >= max(2, 2 + width, start) and len(data) >= start + size
    payload = data[start : start + size] if len(data) >= start else b""
    if not from_server:
        payload = xor(payload, data[start - 4 : start]) if payload else b""
    return Frame(opcode, payload, fin, rsv, not from_server), data[start + size :], whole


def _closed(payload: bytes) -> tuple[int, str]:
    if not payload:
        return 1005, ""
    code = int.from_bytes(payload[:2], "big")
    known = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    if len(payload) == 1 or not known:
        raise Broken("close code")
    return code, payload[2:].decode()


def said(stream: bytes, deflate: bool) -> tuple[list[Data], list[Frame]]:
    """The whole messages that the client sent after its request, and its frames from the first close frame on."""
    _, _, rest = stream.partition(b"\r\n\r\n")
    inflater = zlib.decompressobj(-15)
    messages: list[Data] = []
    closing: list[Frame] = []
    while rest:
        frame, rest, whole = next_frame(rest, from_server=False, deflate=deflate)
        if not whole:
            break
        if closing or frame.opcode == CLOSE:
            closing.append(frame)
        elif frame.opcode < CLOSE:
            if not frame.fin or not frame.opcode:
                raise Broken("bws sends no fragments")
            payload = inflater.decompress(frame.payload + b"\0\0\xff\xff") if frame.rsv else frame.payload
            messages.append(payload.decode() if frame.opcode == TEXT else payload)
    return messages, closing


# -- TLS: what was passed on is encrypted, but the lengths of its records tell how much of it was whole


ALERT = 2  # bytes: "close notify", the end of a session


def records(stream: bytes) -> list[int]:
    """Bytes of plain text in each whole record of TLS 1.3 that says it is application data."""
    sizes = []
    while len(stream) >= 5:
        size = int.from_bytes(stream[3:5], "big")
        if len(stream) < 5 + size:
            break
        if stream[0] == 23:
            sizes.append(max(size - 17, 0))  # a tag of 16 bytes, one that tells what is inside; 0 if it was damaged
        stream = stream[5 + size :]
    return sizes


def unfinished(stream: bytes) -> bool:
    """Whether the stream ends inside a record, as it does for a receiver whose record was made longer."""
    while len(stream) >= 5 and len(stream) >= (size := 5 + int.from_bytes(stream[3:5], "big")):
        stream = stream[size:]
    return bool(stream)


def handshake_records(stream: bytes, plain: int) -> int:
    """How many records of a whole session came before those that hold its `plain` bytes of plain text."""
    sizes = records(stream)
    for start in range(len(sizes)):
        if sum(sizes[start:]) in (plain, plain + ALERT):
            return start
    raise AssertionError(f"the records {sizes} do not end in {plain} bytes")
