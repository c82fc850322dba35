"""Streams read by bws and by wsproto, with what came out in one form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from bws._engine.deflate import Agreement, Inflater
from bws._engine.frames import CLOSE, LARGE_BUFFER, FrameReader, parse_close
from bws.errors import ProtocolError


class Outcome(NamedTuple):
    """What came of a stream.

    Attributes:
        items: Texts as str, binaries as bytes, control frames as opcode and payload, closes as opcode, code, reason.
        code: Of the violation, or None.
        text: What the violation is.
    """

    items: list[Any]
    code: int | None = None
    text: str = ""

    @property
    def closed(self) -> bool:
        """Whether there was a close frame."""
        return bool(self.items) and isinstance(self.items[-1], tuple) and self.items[-1][0] == CLOSE


BUFFER = memoryview(bytearray(LARGE_BUFFER))


class Bws:
    """The reader under test, used as the engine does."""

    def __init__(self, max_size: int | None = None, agreement: Agreement | None = None) -> None:
        self.reader = FrameReader(max_size, self._control, Inflater(agreement) if agreement else None)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            code, reason = parse_close(payload)
            self.reader.stopped = True
            self.reader.items.append((CLOSE, code, reason))
        else:
            self.reader.items.append((opcode, payload))

    def feed(self, pieces: Iterable[bytes]) -> Outcome:
        """Read all the pieces, up to a violation; anything raised but a `ProtocolError` goes through."""
        try:
            for piece in pieces:
                self.reader.feed(piece)
                if self.reader.begun():
                    self.reader.feed_large(BUFFER[: self.reader.begin(BUFFER)])
        except ProtocolError as exc:
            return Outcome(self.reader.items, exc.close_code, str(exc))
        return Outcome(self.reader.items)


def bws(pieces: Iterable[bytes], max_size: int | None = None, agreement: Agreement | None = None) -> Outcome:
    """What a new reader makes of the pieces."""
    return Bws(max_size, agreement).feed(pieces)


def cut(data: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    """The data in pieces of these sizes; the rest is the last piece."""
    start = 0
    for size in sizes:
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size
    yield data[start:]


def first_wrong_byte(data: bytes, max_size: int | None = None, agreement: Agreement | None = None) -> int | None:
    """Where a reader that is fed byte by byte complains; None: nowhere."""
    it = Bws(max_size, agreement)
    for i in range(len(data)):
        if it.feed([data[i : i + 1]]).code:
            return i
    return None


def wsproto(data: bytes, client: bool = True, agreement: Agreement | None = None) -> Outcome:
    """What wsproto makes of the stream.

    It differs from the standards in this, which `differs` and the strategies know:

    - It refuses close code 1014, which IANA's registry has had since 2016 (RFC 6455 section 7.4.2 leaves it to the
      registry).
    - It takes a control frame between the fragments of a compressed message for the end of the compression
      (against RFC 7692 section 6.1, "control frames MAY be injected in the middle of a fragmented message").
    - It drops what follows a block with BFINAL (against RFC 7692 section 7.2.3.4).
    - It says a thing later than it could be told: a frame's first byte when the header is whole, a surrogate when
      the character is, a close frame when its payload is. The standards set no moment; bws promises the first byte.
    """
    extensions = []
    if agreement:
        extension = PerMessageDeflate(
            server_no_context_takeover=agreement.server_no_context_takeover,
            client_no_context_takeover=agreement.client_no_context_takeover,
            server_max_window_bits=max(9, agreement.server_max_window_bits),
            client_max_window_bits=max(9, agreement.client_max_window_bits),
        )
        extension.finalize("permessage-deflate")
        extensions.append(extension)
    protocol = FrameProtocol(client, list(extensions))
    protocol.receive_bytes(data)
    items: list[Any] = []
    parts: list[Any] = []
    try:
        for frame in protocol.received_frames():
            payload: Any = frame.payload
            if frame.opcode is Opcode.CLOSE:
                items.append((CLOSE, int(payload[0]), payload[1]))
                break
            if frame.opcode.iscontrol():
                items.append((int(frame.opcode), bytes(payload)))
                continue
            parts.append(payload)
            if frame.message_finished:
                joined: Any = ("" if frame.opcode is Opcode.TEXT else b"").join(parts)
                items.append(joined)
                parts = []
    except ParseFailed as exc:
        return Outcome(items, int(exc.code), str(exc))
    return Outcome(items)


def completed(data: bytes, code: int, left: int) -> bytes:
    """A stream that has gone wrong at its last byte, continued until wsproto must have seen that too.

    Args:
        data: The stream up to its first wrong byte.
        code: What bws said of it.
        left: Payload bytes of its last frame that are missing.
    """
    if code == 1007 and left <= 64:
        data += bytes(left) + b"\x80\x01\x00"  # the rest of the frame, and a last fragment
    return data + bytes(160)  # the rest of a header, or of a control frame, or much of the payload


def differs(data: bytes, mine: Outcome, theirs: Outcome) -> bool:
    """Whether this is a close frame with code 1014, which wsproto refuses at once; bws has the registry on its side."""
    return theirs.code == 1002 and b"\x03\xf6" in data and (mine.closed or "reason" in mine.text)
