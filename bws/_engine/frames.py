"""Bytes to messages, many at a time, and messages to masked frames (RFC 6455 section 5)."""

from __future__ import annotations

import importlib.util
import os
import sys
from codecs import utf_8_decode
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from itertools import chain, repeat
from struct import Struct
from typing import Any

from .._settings import HIGH_WATER_BYTES, HIGH_WATER_ITEMS, LIGHT, in_memory
from ..errors import ProtocolError
from .deflate import Inflater
from .interface import Item

__all__ = [
    "CLOSE",
    "LARGE_BUFFER",
    "LARGE_REST",
    "PING",
    "PONG",
    "SMALL_HEADS",
    "FrameReader",
    "Payload",
    "close_payload",
    "frame",
    "head",
    "mask",
    "masking_keys",
    "parse_close",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV = 0x80, 0x40, 0x70
MAX_CONTROL = 125  # bytes, section 5.5
LARGE_REST = 256 * 1024  # payload bytes that are still to come, over which a frame is large
LARGE_BUFFER = 1024 * 1024  # of those, what is looked at in one piece; see `FrameReader.begin`
_STEP = 128 * 1024  # bytes after which it is looked how many messages there are,
_TOO_MANY = 2 * HIGH_WATER_ITEMS  # and over how many the rest is read later: so many only when they are tiny
_PART = 16 * 1024  # bytes of a frame's part over which it is large
_BLOCK = 1024  # fragments that are joined at a time, so that tiny ones do not cost 50 times their size
_SMALL = 1024 * 1024  # bytes in such a block from which joining it saves nothing, and takes them twice meanwhile
_NAMES = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}


class FrameReader:
    """Turns what `recv` returned into messages, checked as it comes: a violation shows at its first byte.

    Not thread-safe: used by the thread that owns the connection's reading.

    Args:
        max_size: Bytes of one message, after decompression.
        control: Called with opcode and payload of each control frame, in order; may append to `items`.
        inflater: The decompressor, when permessage-deflate was agreed.

    Attributes:
        items: What has been read so far; the owner takes the list away and puts an empty one in its place.
        waiting: Bytes of the messages in `items`, decompressed; the owner sets it back with the list,
        weighed: and this: of how many of `items` it is known what they take in memory, and what that is.
        left: Payload bytes of the present data frame that are still to be read.
        inflating: Whether those are compressed.
        stopped: Set by `control` at the peer's close frame: what follows it is ignored (section 5.5.1).
    """

    __slots__ = (
        "_blocks", "_control", "_fin", "_inflater", "_max_size", "_most", "_opcode", "_parts", "_rest", "_size",
        "_tail", "inflating", "items", "left", "stopped", "waiting", "weighed",
    )  # fmt: skip

    def __init__(
        self, max_size: int | None, control: Callable[[int, bytes], None], inflater: Inflater | None = None
    ) -> None:
        self.items: list[Item] = []
        self.waiting = 0
        self.weighed = 0, 0
        self.left = 0
        self.inflating = False
        self.stopped = False
        self._max_size = sys.maxsize if max_size is None else max_size
        self._most = min(self._max_size, 125)  # bytes of a message whose length is in one byte
        self._control = control
        self._inflater = inflater
        self._rest = b""  # an incomplete header or control frame, what has begun, or what is to be read later
        # The message in progress:
        self._opcode = 0  # TEXT or BINARY; 0: none
        self._fin = False  # whether the present frame is its last
        self._size = 0  # bytes, as announced or inflated
        self._tail = b""  # of text: the incomplete character at the end
        self._parts: list[Any] = []  # str | bytes | memoryview
        self._blocks: list[Any] = []

    def feed(self, data: bytes) -> bool:
        """Read `data`.

        Returns:
            Whether something is left for the next call, as what is there would be more than should wait.

        Raises:
            ProtocolError: The peer broke a rule; `items` has what came before.
        """
        pos = 0
        if self._rest:
            data, self._rest = self._rest + data, b""
        end = len(data)
        look = LIGHT  # bytes that wait from which it is looked what they are in memory
        try:
            size = end - 2
            if 0 < size <= self._most and data[1] == size and not (self._opcode or self.stopped):
                # One small message and nothing else, as when two sides talk: _whole() in short.
                first = data[0]
                if first == 0x81 or first == 0x82:
                    self.items.append(data[2:].decode() if first == 0x81 else data[2:])
                    self.waiting += end
                    return False
            if self.left:
                pos = self._payload(data, 0, end)
            while pos < end and not self.stopped:
                if not self._opcode:
                    begin = pos
                    pos = self._whole(data, begin, min(begin + _STEP, end))
                    if begin < pos < end and len(self.items) > _TOO_MANY:
                        self._rest = data[pos:]
                        return True
                if pos < end:
                    pos = self._frame(data, pos, end)
                    if self._inflater is not None and self.waiting > look and pos < end:
                        # 64 KiB may be 64 MiB of messages.
                        if self.full():
                            self._rest = data[pos:]
                            return True
                        look = self.waiting + _STEP
        except UnicodeDecodeError as exc:
            raise _not_utf_8(exc) from None
        return False

    def full(self) -> bool:
        """Whether as many messages have been read as should wait."""
        items = self.items
        if len(items) > HIGH_WATER_ITEMS or self.waiting > HIGH_WATER_BYTES:
            return True
        if self.waiting <= LIGHT:
            return False
        number, size = self.weighed
        size += in_memory(items[number:])
        self.weighed = len(items), size
        return size > HIGH_WATER_BYTES

    def begun(self) -> bool:
        """Whether the first bytes of a large frame's payload are here, and nobody has looked at them; see `begin`."""
        return self.left > 0 and self._rest != b""

    def begin(self, buffer: memoryview) -> int:
        """Put those bytes into `buffer`; what follows is read behind them, and given to `feed_large` with them.

        Returns:
            How many they are: none when nothing has begun, at most half of LARGE_BUFFER.
        """
        start, self._rest = self._rest, b""
        buffer[: len(start)] = start
        return len(start)

    def feed_large(self, data: memoryview) -> None:
        """Read `data`, which is payload of the present data frame, uncompressed; it is not kept.

        Raises:
            ProtocolError: As `feed`.
        """
        try:
            self._payload(data, 0, len(data))
        except UnicodeDecodeError as exc:
            raise _not_utf_8(exc) from None

    def _whole(self, data: bytes, pos: int, end: int) -> int:
        """Read unfragmented messages that are all there: the common case, in one tight loop.

        Returns:
            The position of the first frame that is something else.
        """
        append, max_size = self.items.append, self._max_size
        begin = pos
        limit = end - 3  # so that two bytes of length are there
        while pos < limit:
            first = data[pos]
            if first != 0x81 and first != 0x82:
                break
            size = data[pos + 1]
            start = pos + 2
            if size > 125:
                if size == 126:
                    size = data[start] << 8 | data[pos + 3]
                    start = pos + 4
                    if size < 126:
                        break
                elif size == 127:
                    size = int.from_bytes(data[start : pos + 10], "big")
                    start = pos + 10
                    if size < 65536:
                        break
                else:
                    break
            stop = start + size
            if stop > end or size > max_size:
                break
            if first == 0x81:
                append(data[start:stop].decode())
            else:
                append(data[start:stop])
            pos = stop
        self.waiting += pos - begin
        return pos

    def _frame(self, data: bytes, pos: int, end: int) -> int:
        """Read the frame at `pos`, checking each byte as soon as it is there; the position after what was read."""
        first = data[pos]
        opcode, fin = first & 15, first >= FIN
        if first or not self._opcode:  # else it is one of many fragments
            self._check_first(first, opcode, fin)
        if end - pos < 2:
            return self._keep(data, pos, end)
        size = data[pos + 1]
        if size & 0x80:
            raise ProtocolError("a frame from the server is masked (RFC 6455 section 5.1)")
        if opcode >= CLOSE and size > MAX_CONTROL:
            raise ProtocolError(f"a {_NAMES[opcode]} frame has over 125 bytes (RFC 6455 section 5.5)")
        start = pos + 2
        if size > 125:
            start += 2 if size == 126 else 8
            if size == 127 and end - pos > 2 and data[pos + 2] & 0x80:
                raise ProtocolError("a 64-bit length has its top bit set (RFC 6455 section 5.2)")
            # six zeros are enough to tell that 16 bits would have done
            if size == 127 and data[pos + 2 : pos + 8] == bytes(6):
                raise ProtocolError("a length is not in its shortest form (RFC 6455 section 5.2)")
            if start > end:
                return self._keep(data, pos, end)
            size = int.from_bytes(data[pos + 2 : start], "big")
            if size < 126:
                raise ProtocolError("a length is not in its shortest form (RFC 6455 section 5.2)")
        if opcode >= CLOSE:
            if start + size > end:
                if opcode == CLOSE:
                    _check_close(data[start:end], size)
                return self._keep(data, pos, end)
            self._control(opcode, data[start : start + size])
            return start + size
        if opcode:
            self._opcode = opcode
            self.inflating = bool(first & RSV1)
            self._size = 0
        if size > self._max_size - (0 if self.inflating else self._size):
            raise ProtocolError(
                f"a message of {self._size + size:,} bytes or more is over max_size={self._max_size:,}", 1009
            )
        self.left, self._fin = size, fin
        if size > LARGE_REST + end - start and end - start <= LARGE_BUFFER // 2 and not self.inflating:
            # Looked at with what follows, in one piece, as many would have to be joined: see begin(). More than half a
            # buffer comes only where there were many smaller messages before.
            return self._keep(data, start, end)
        return self._payload(data, start, end)

    def _check_first(self, first: int, opcode: int, fin: bool) -> None:
        """The rules for a frame's first byte (RFC 6455 sections 5.2, 5.4, 5.5; RFC 7692 section 6)."""
        reserved = first & RSV
        if reserved and not (reserved == RSV1 and self._inflater is not None and opcode in (TEXT, BINARY)):
            raise ProtocolError(
                f"reserved bits are set (first byte 0x{first:02x}) and no extension gives them a meaning"
            )
        if opcode not in _NAMES:
            raise ProtocolError(f"opcode {opcode} is reserved (RFC 6455 section 5.2)")
        if opcode >= CLOSE:
            if not fin:
                raise ProtocolError(f"a {_NAMES[opcode]} frame is fragmented (RFC 6455 section 5.5)")
        elif opcode == CONTINUATION:
            if not self._opcode:
                raise ProtocolError("a continuation frame without a message to continue (RFC 6455 section 5.4)")
        elif self._opcode:
            raise ProtocolError("a new message inside a fragmented one (RFC 6455 section 5.4)")

    def _keep(self, data: bytes, pos: int, end: int) -> int:
        self._rest = data[pos:]
        return end

    # -- the payload of data frames ---------------------------------------------------------------

    def _payload(self, data: bytes | memoryview, pos: int, end: int) -> int:
        """Take what is there of the present frame's payload; the position after it."""
        stop = pos + self.left
        if stop > end:
            stop = end
        size = stop - pos
        self.left -= size
        # A large part is copied when it is joined, and not before; a view keeps at most a third more than its size.
        chunk = memoryview(data)[pos:stop] if size > _PART and 4 * size > 3 * end else data[pos:stop]
        if self.inflating and self._inflater is not None:
            self._inflate(self._inflater, bytes(chunk), last=self._fin and not self.left)
        else:
            self._size += size
            self._store(chunk)
        if not self.left and self._fin:
            self._finish()
        return stop

    def _inflate(self, inflater: Inflater, chunk: bytes, last: bool) -> None:
        for piece in inflater.inflate(chunk, last):
            self._size += len(piece)
            if self._size > self._max_size:
                raise ProtocolError(f"a message inflates to more than max_size={self._max_size:,} bytes", 1009)
            self._store(piece)
            del piece  # see Inflater.inflate

    def _store(self, chunk: bytes | memoryview) -> None:
        if not chunk:
            return
        part: str | bytes | memoryview
        if self._opcode == TEXT:
            # Decoded as it comes, so that a bad byte shows at once; only a character's end is waited for.
            if self._tail:
                chunk = self._tail + chunk
            part, used = utf_8_decode(chunk, "strict", False)
            self._tail = bytes(chunk[used:]) if used < len(chunk) else b""
            if self._tail and _is_surrogate(self._tail):
                raise ProtocolError("a text message is not UTF-8: it has an encoded surrogate", 1007)
            if self.inflating and self._size > 2 * _SMALL and sys.getsizeof(part) > used + used // 8:
                # One emoji makes a str of ASCII four times as large: kept as it came until all is known to be no bomb.
                part = bytes(chunk[:used])
        else:
            # Views are of what was read, which nobody changes, or of a buffer, which others will.
            part = chunk if isinstance(chunk, bytes) or isinstance(chunk.obj, bytes) else bytes(chunk)
        self._parts.append(part)
        if len(self._parts) == _BLOCK:
            if sum(map(len, self._parts)) < _SMALL:
                self._blocks.append(self._compact(self._parts))
            else:
                self._blocks += self._parts
            self._parts = []

    def _compact(self, parts: list[Any]) -> str | bytes:
        if self._opcode == TEXT and self.inflating:
            return b"".join([part.encode() if isinstance(part, str) else part for part in parts])
        return self._join(parts)

    def _join(self, parts: list[Any]) -> str | bytes:
        if self._opcode != TEXT:
            return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
        if self.inflating:
            parts = [part.decode() if isinstance(part, bytes) else part for part in parts]
        return parts[0] if len(parts) == 1 else "".join(parts)

    def _finish(self) -> None:
        if self._tail:
            raise ProtocolError("a text message is not UTF-8: it ends inside a character", 1007)
        self.waiting += self._size
        self.items.append(self._join([*self._blocks, *self._parts]))
        self._opcode = 0
        self._parts, self._blocks = [], []


def _not_utf_8(error: UnicodeDecodeError) -> ProtocolError:
    return ProtocolError(f"a text message is not UTF-8: {error.reason} (0x{error.object[error.start]:02x})", 1007)


# -- closing ------------------------------------------------------------------------------------------


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame; an empty one has 1005 (RFC 6455 sections 5.5.1, 7.4).

    Raises:
        ProtocolError: The payload has one byte, a code that may not be sent, or a reason that is not UTF-8.
    """
    _check_close(payload, len(payload))
    if not payload:
        return 1005, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode("utf-8")


def _check_close(part: bytes, size: int) -> None:
    """Check what is there of a close frame's payload, which has `size` bytes when it is complete.

    Raises:
        ProtocolError: However it goes on, it is wrong.
    """
    if size == 1:
        raise ProtocolError("a close frame has one byte, which is no close code (RFC 6455 section 5.5.1)")
    if len(part) < 2:
        return
    code = int.from_bytes(part[:2], "big")
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ProtocolError(f"close code {code} may not be sent (RFC 6455 section 7.4)")
    reason = part[2:]
    try:
        used = utf_8_decode(reason, "strict", len(part) == size)[1]
    except UnicodeDecodeError:
        used = -1
    if used < 0 or _is_surrogate(reason[used:]):
        raise ProtocolError("the reason in a close frame is not UTF-8", 1007)


def _is_surrogate(tail: bytes) -> bool:
    """Whether an incomplete character is an encoded surrogate, of which decoders wait for the end to complain."""
    return tail[:1] == b"\xed" and tail[1:2] >= b"\xa0"


def close_payload(code: int | None, reason: bytes = b"") -> bytes:
    """The payload of a close frame; empty without a code."""
    return b"" if code is None else code.to_bytes(2, "big") + reason[: MAX_CONTROL - 2]


# -- sending ------------------------------------------------------------------------------------------


Payload = bytes | memoryview | str  # of a frame to be sent; a str has ASCII only: it needs no copy while it waits

_HEAD_16, _HEAD_64 = Struct("!BBH"), Struct("!BBQ")


_KEYS = Struct("4s" * 64)  # Linux is never interrupted by a signal with 256 bytes or less, getrandom(2)


def masking_keys() -> Iterator[bytes]:
    """Masking keys: fresh for each frame and unpredictable (RFC 6455 section 5.3), bought 64 at a time.

    No line of Python runs for each, so a signal handler that raises cannot end the iterator where the system has
    getrandom(2); what ends it is a MemoryError for 256 bytes.
    """
    return chain.from_iterable(map(_KEYS.unpack, map(os.urandom, repeat(_KEYS.size))))


def frame(opcode: int, payload: bytes | memoryview, key: bytes, rsv1: bool = False) -> bytes:
    """One masked frame with FIN set.

    Args:
        opcode: 1 text, 2 binary, 8 close, 9 ping, 10 pong.
        payload: The unmasked payload.
        key: The four bytes of the masking key.
        rsv1: Whether the payload is compressed.
    """
    size = len(payload)
    if size < 126 and not rsv1:
        return SMALL_HEADS[opcode][size] + key + mask(payload, key)
    return head(opcode, size, key, rsv1) + mask(payload, key)


# The first two bytes of small frames, which are most.
SMALL_HEADS = {opcode: tuple(bytes((FIN | opcode, 0x80 | size)) for size in range(126)) for opcode in (1, 2, 8, 9, 10)}


def head(opcode: int, size: int, key: bytes, rsv1: bool = False) -> bytes:
    """The header of such a frame with a payload of `size` bytes."""
    first = FIN | RSV1 | opcode if rsv1 else FIN | opcode
    if size < 126:
        return bytes((first, 0x80 | size)) + key
    if size < 65536:
        return _HEAD_16.pack(first, 0xFE, size) + key
    return _HEAD_64.pack(first, 0xFF, size) + key


_SLICES = 128 * 1024  # bytes from which four translations beat one long integer
_tables: dict[int, bytes] = {}


def mask_in_python(data: bytes | memoryview, key: bytes) -> bytes:
    """`data` with the repeated `key` xored in (RFC 6455 section 5.3)."""
    size = len(data)
    if size < _SLICES:
        mask = int.from_bytes((key * (size // 4 + 1))[:size], "little")
        return (int.from_bytes(data, "little") ^ mask).to_bytes(size, "little")
    data, out = bytes(data), bytearray(size)
    for i, byte in enumerate(key):
        table = _tables.get(byte)
        if table is None:
            table = _tables[byte] = bytes(byte ^ other for other in range(256))
        out[i::4] = data[i::4].translate(table)
    return bytes(out)


def _mask_in_c() -> Callable[[bytes | memoryview, bytes], bytes] | None:
    """The masking function of the package websockets (``bws[speed]``), if that is installed.

    Only its extension module is loaded: the package itself takes longer to import than all of bws.
    """
    package = importlib.util.find_spec("websockets")
    places = None if package is None else package.submodule_search_locations
    spec = PathFinder.find_spec("websockets.speedups", places) if places else None
    if spec is None or spec.loader is None:
        return None
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        function: Callable[[bytes | memoryview, bytes], bytes] = module.apply_mask
    except (ImportError, AttributeError):
        return None
    return function


mask = _mask_in_c() or mask_in_python
