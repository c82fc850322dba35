"""permessage-deflate (RFC 7692)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .._text import printable
from ..errors import HandshakeError, ProtocolError

__all__ = ["OFFER", "Agreement", "Deflater", "Inflater", "agree"]

OFFER = "permessage-deflate; client_max_window_bits"
_STEP = 128 * 1024  # bytes of output at a time
_WINDOW = 32 * 1024  # bytes that a stream may refer back to, at most
_TAIL = b"\x00\x00\xff\xff"  # what the sender leaves away, section 7.2.1
_SMALLEST = 64  # bytes of a message from which compressing pays
_LEVEL = 1  # as fast as the network allows: level 6 gains little on JSON and takes three times as long


class Agreement(NamedTuple):
    """What client and server agreed on (section 7.1)."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15


def agree(extensions: Sequence[tuple[str, Sequence[tuple[str, str | None]]]]) -> Agreement:
    """Check the extensions that the server accepted against `OFFER`.

    Args:
        extensions: Name and parameters of each.

    Raises:
        HandshakeError: They are not exactly permessage-deflate with legal parameters.
    """
    if others := [name for name, _ in extensions if name != "permessage-deflate"]:
        raise HandshakeError(f"the server accepted extensions that were not offered: {printable(', '.join(others))}")
    if len(extensions) != 1:
        raise HandshakeError("the server accepted permessage-deflate twice; it was offered once")
    chosen: dict[str, bool | int] = {}
    for name, value in extensions[0][1]:
        if name in chosen:
            raise HandshakeError(f"permessage-deflate: the parameter {printable(name)} is there twice")
        if name in ("server_no_context_takeover", "client_no_context_takeover") and value is None:
            chosen[name] = True
        elif (
            name in ("server_max_window_bits", "client_max_window_bits")
            and value in ("8", "9", "10", "11", "12", "13", "14", "15")
        ):  # fmt: skip
            chosen[name] = int(value)
        else:
            shown = name if value is None else f"{name}={value}"
            raise HandshakeError(f"permessage-deflate: the parameter {printable(shown)} is not legal")
    return Agreement(**chosen)  # type: ignore[arg-type]


class Inflater:
    """Decompresses the messages of one connection, in bounded steps."""

    __slots__ = ("_bits", "_fed", "_keep", "_recent", "_recent_size", "_zlib")

    def __init__(self, agreement: Agreement) -> None:
        # A window that is larger than the sender's does no harm; zlib has no 8 for raw streams.
        self._bits = -max(9, agreement.server_max_window_bits)
        self._keep = not agreement.server_no_context_takeover
        self._zlib = zlib.decompressobj(self._bits)
        self._fed = False  # whether the present message, or what followed BFINAL in it, has any bytes
        self._recent: list[bytes] = []  # the last output, a window at least; zlib does not give its own away
        self._recent_size = 0

    def inflate(self, data: bytes, last: bool) -> Iterator[bytes]:
        """Decompress a piece of a message; `last`: the message ends with it.

        Raises:
            ProtocolError: The data is corrupt.
        """
        self._fed = self._fed or bool(data)
        if last and self._fed:
            data += _TAIL
        try:
            while data:
                piece = self._zlib.decompress(data, _STEP)
                full = len(piece) == _STEP
                if piece:
                    self._remember(piece)
                    yield piece
                del piece  # it need not be there while the next one is made
                if self._zlib.eof:
                    # A block with BFINAL ended the stream; what follows is a new one (section 7.2.3.4).
                    data = self._zlib.unused_data
                    self._restart()
                    self._fed = bool(data)
                    if last and data == _TAIL:
                        break
                else:
                    data = self._zlib.unconsumed_tail
                    if not data and full:
                        # Output may be left inside zlib although the input is used up.
                        while piece := self._zlib.decompress(b"", _STEP):
                            self._remember(piece)
                            yield piece
        except zlib.error as exc:
            raise ProtocolError(f"a compressed message is corrupt: {exc}") from None
        if last:
            self._fed = False
            if not self._keep:
                self._recent, self._recent_size = [], 0
                self._zlib = zlib.decompressobj(self._bits)

    def _remember(self, piece: bytes) -> None:
        if len(piece) >= _WINDOW:
            self._recent, self._recent_size = [piece[-_WINDOW:]], _WINDOW
            return
        self._recent.append(piece)
        self._recent_size += len(piece)
        if self._recent_size > 2 * _WINDOW or len(self._recent) > 1000:
            self._recent = [b"".join(self._recent)[-_WINDOW:]]
            self._recent_size = len(self._recent[0])

    def _restart(self) -> None:
        """A new stream; the sliding window goes on, within a message and with context takeover (section 7.2.3.2)."""
        window = b"".join(self._recent)[-_WINDOW:]
        self._zlib = zlib.decompressobj(self._bits, zdict=window) if window else zlib.decompressobj(self._bits)


class DeflateStream:
    """What compresses, and refers to what it compressed before."""

    __slots__ = ("_zlib",)

    def __init__(self, bits: int) -> None:
        self._zlib = zlib.compressobj(_LEVEL, zlib.DEFLATED, -bits)

    def deflate(self, data: bytes | memoryview) -> bytes | None:
        """`data` compressed, or None when that is no smaller."""
        out = self._zlib.compress(data) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
        return out[: -len(_TAIL)] if len(out) - len(_TAIL) < len(data) else None


class Deflater:
    """Compresses the messages of one connection, when it pays. Used with the send lock held, but for one method."""

    __slots__ = ("_bits", "_keep", "_stream")

    def __init__(self, agreement: Agreement) -> None:
        self._bits = agreement.client_max_window_bits
        self._keep = not agreement.client_no_context_takeover
        self._stream = self._new() if self._bits > 8 else None  # zlib cannot write with a window of 256 bytes

    def _new(self) -> DeflateStream:
        return DeflateStream(self._bits)

    def restart(self) -> None:
        """Refer to nothing that went before: it may not have reached the peer."""
        if self._stream is not None:
            self._stream = self._new()

    def deflate(self, data: bytes | memoryview) -> bytes | None:
        """`data` compressed, or None when it is to be sent as it is."""
        if self._stream is None or len(data) < _SMALLEST:
            return None
        out = self._stream.deflate(data)
        if not self._keep or out is None:
            # A new stream refers to nothing that the peer has not seen.
            self._stream = self._new()
        return out

    def deflate_alone(self, data: bytes | memoryview) -> tuple[bytes | None, DeflateStream | None]:
        """`data` compressed without the lock, referring to nothing that went before; None when it is to go as it is.

        And the stream that did it: `go_on_with` that when it has been sent.
        """
        if self._bits <= 8:
            return None, None
        stream = self._new()
        out = stream.deflate(data)
        return out, None if out is None else stream

    def go_on_with(self, stream: DeflateStream) -> bool:
        """What `stream` has compressed was sent: what follows may refer to that; False when no context is kept."""
        if self._keep:
            self._stream = stream
        return self._keep
