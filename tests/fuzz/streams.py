"""Streams of frames: right ones with what they mean, odd frames, and damage."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

from hypothesis import strategies as st

from bws._engine.deflate import Agreement
from tests.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from tests.wire.violations import VIOLATIONS

GOOD = [b"", b"a", b"hello", "é".encode(), "€".encode(), "😀".encode(), b"\xed\x9f\xbf", b"\xf4\x8f\xbf\xbf", b"\x00"]
BAD = [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xed", b"\xe2\x82", b"\xf0\x9f", b"\xf4\x90\x80\x80", b"\x80", b"\xf5"]
SIZES = [124, 125, 126, 127, 128, 200, 201, 65535, 65536]
CODES = [0, 999, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1011, 1014, 1015, 1016, 2999, 3000, 4999, 5000, 65535]

valid_text = st.one_of(st.lists(st.sampled_from(GOOD), max_size=5).map(b"".join), st.text(max_size=20).map(str.encode))
any_bytes = st.one_of(
    st.lists(st.sampled_from(GOOD + BAD), max_size=5).map(b"".join),
    st.binary(max_size=30),
    st.sampled_from(SIZES[:7]).map(lambda n: b"x" * n),
)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=8) | st.just(b"c" * 125))


class Message(NamedTuple):
    """A message, where it is cut, and the control frames behind each cut."""

    data: str | bytes
    cuts: list[tuple[int, list[tuple[int, bytes]]]]

    def encode(self, compress: Callable[[bytes], bytes] | None = None) -> bytes:
        """As frames."""
        opcode, payload = (TEXT, self.data.encode()) if isinstance(self.data, str) else (BINARY, self.data)
        rsv = 0
        if compress:
            payload, rsv = compress(payload), 4
        places = [(place % (len(payload) + 1), between) for place, between in self.cuts]
        out, start = b"", 0
        for place, between in sorted(places):
            out += frame(opcode, payload[start:place], fin=False, rsv=rsv)
            out += b"".join(frame(*control) for control in between)
            opcode, start, rsv = CONTINUATION, place, 0
        return out + frame(opcode, payload[start:], rsv=rsv)


def messages(between: int = 2) -> st.SearchStrategy[Message]:
    """Messages in fragments, with up to so many control frames behind each."""
    data = st.one_of(
        st.text(max_size=30),
        st.binary(max_size=30),
        st.sampled_from(SIZES).map(lambda n: "x" * n),
        st.sampled_from(SIZES).map(bytes),
    )
    return st.builds(
        Message, data, st.lists(st.tuples(st.integers(0, 1 << 17), st.lists(controls, max_size=between)), max_size=3)
    )


def _close(code: int, reason: bytes, size: int) -> bytes:
    return frame(CLOSE, (code.to_bytes(2, "big") + reason)[:size])


closes = st.builds(
    _close, st.sampled_from(CODES) | st.integers(0, 65535), valid_text | any_bytes, st.sampled_from([125, 125, 0, 1, 2])
)


def _odd(opcode: int, payload: bytes, fin: bool, rsv: int, mask: bytes | None, width: int | None) -> bytes:
    payload = payload[:125] if width == 1 else payload
    return frame(opcode, payload, fin=fin, rsv=rsv, mask=mask, length_bytes=width)


odd_frames = st.builds(
    _odd,
    st.sampled_from([0, 0, 1, 1, 1, 2, 2, 8, 9, 10]) | st.integers(0, 15),
    valid_text | any_bytes,
    st.booleans(),
    st.sampled_from([0] * 60 + [1, 2, 4, 7]),
    st.sampled_from([None] * 30 + [b"mask"]),
    st.sampled_from([None] * 20 + [1, 2, 8]),
)
# a frame that announces what does not come, or not so
liars = st.builds(
    lambda opcode, payload, length: frame(opcode, payload, length=length, length_bytes=8),
    st.sampled_from([TEXT, BINARY, CONTINUATION]),
    any_bytes,
    st.integers(0, (1 << 64) - 1) | st.sampled_from([65535, 65536, (1 << 63) - 1, 1 << 63]),
)

Damage = tuple[str, int, int]
damages = st.tuples(
    st.sampled_from(["flip", "flip", "set", "insert", "delete", "truncate", "repeat"]),
    st.integers(0, 1 << 16),
    st.integers(0, 255),
)


def damaged(data: bytes, damage: Damage) -> bytes:
    """The data with one thing done to it."""
    kind, place, value = damage
    place %= len(data) + 1
    if kind == "flip":
        return data[:place] + bytes(byte ^ 1 << value % 8 for byte in data[place : place + 1]) + data[place + 1 :]
    if kind == "set":
        return data[:place] + bytes([value]) + data[place + 1 :]
    if kind == "insert":
        return data[:place] + bytes([value]) + data[place:]
    if kind == "delete":
        return data[:place] + data[place + 1 + value % 4 :]
    if kind == "truncate":
        return data[:place]
    return data[:place] + data[place : place + value] * 2 + data[place + value :]


def _damage_all(parts: list[bytes], what: list[Damage]) -> bytes:
    data = b"".join(parts)
    for damage in what:
        data = damaged(data, damage)
    return data


# one rule broken, and nothing else
violations = st.sampled_from([row.data for row in VIOLATIONS.values() if len(row.data) < 1000])

right = messages().map(Message.encode) | controls.map(lambda control: frame(*control))
# any stream, most of them right for a while
streams = st.one_of(
    st.builds(_damage_all, st.lists(right, max_size=4), st.lists(damages, max_size=1)),
    st.builds(lambda before, last: b"".join([*before, last]), st.lists(right, max_size=3), closes | violations),
    st.builds(
        _damage_all, st.lists(st.one_of(right, odd_frames, closes, liars), max_size=6), st.lists(damages, max_size=2)
    ),
    st.binary(max_size=60),
)

pieces = st.lists(st.integers(1, 40) | st.sampled_from([100, 1000, 70_000]), max_size=30)

agreements = st.builds(
    Agreement,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=st.integers(9, 15),
    client_max_window_bits=st.integers(9, 15),
)


class Compressor:
    """A server's side of permessage-deflate, with every kind of block."""

    def __init__(self, agreement: Agreement, level: int, final: bool = False) -> None:
        self._agreement, self._level, self._final = agreement, level, final
        self._zlib = self._new()

    def _new(self) -> zlib._Compress:
        return zlib.compressobj(self._level, zlib.DEFLATED, -self._agreement.server_max_window_bits)

    def __call__(self, data: bytes) -> bytes:
        if self._final:  # a block with BFINAL, and the empty stored block that section 7.2.3.4 asks for
            out = self._zlib.compress(data) + self._zlib.flush(zlib.Z_FINISH) + b"\x00"
            self._zlib = self._new()
            return out
        half = len(data) // 2
        out = self._zlib.compress(data[:half]) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
        out += self._zlib.compress(data[half:]) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
        if self._agreement.server_no_context_takeover:
            self._zlib = self._new()
        return out.removesuffix(b"\x00\x00\xff\xff") or b"\x00"
