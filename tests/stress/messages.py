"""Messages that tell whether they arrived whole, once and in order. Shared by the stress programs and their server.

Both directions number their messages, the client for each of its threads, and end each with its CRC-32::

    request: sender (4 hex digits) seq (8) action (2) want (4) size (8) body crc (8)
    reply:   body seq (8 hex digits) crc (8)

All is ASCII but for the bodies, so that any message may travel as text and as binary.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

_HEAD = 26  # bytes of a request before its body
_POOL = bytes(random.Random(1).choices(b"abcdefghijklmnopqrstuvwxyz0123456789", k=8 << 20))
_NOT_ASCII = "éß€語😀".encode()


class Action(IntEnum):
    """What a request asks of the server, beside `want` replies of `size` bytes."""

    BINARY = 0  # the replies are binary
    TEXT = 1
    SUMMARY = 2  # tell what came and what was sent, as text
    CLOSE = 3  # close with 4000
    RESET = 4  # cut TCP
    END = 5  # end TCP without a close frame
    GARBAGE = 6  # break the protocol
    STALL = 7  # read nothing for a moment
    PING = 8  # send pings before the replies


class Request(NamedTuple):
    sender: int
    seq: int
    action: Action
    want: int
    size: int


class Damaged(Exception):
    """A message is not what was sent."""


def body(size: int) -> bytes:
    """A body of about `size` bytes, not always the same, always UTF-8."""
    start = random.randrange(len(_POOL) - size) if size < len(_POOL) else 0
    return _NOT_ASCII + _POOL[start : start + size] if size % 5 == 1 else _POOL[start : start + size]


def request(sender: int, seq: int, action: Action, want: int, size: int, body: bytes) -> bytes:
    """A message of the client."""
    data = b"%04x%08x%02x%04x%08x%b" % (sender, seq, action, want, size, body)
    return b"%b%08x" % (data, zlib.crc32(data))


def parse(data: bytes) -> Request:
    """Read a request.

    Raises:
        Damaged: It is not as it was sent.
    """
    _check(data)
    head = data[:_HEAD]
    sender, seq, action, want, size = (int(head[a:b], 16) for a, b in ((0, 4), (4, 12), (12, 14), (14, 18), (18, 26)))
    return Request(sender, seq, Action(action), want, size)


def replies(first: int, count: int, body: bytes) -> Iterator[bytes]:
    """Messages of the server, numbered from `first`."""
    crc = zlib.crc32(body)
    for seq in range(first, first + count):
        number = b"%08x" % seq
        yield b"%b%b%08x" % (body, number, zlib.crc32(number, crc))


def check_reply(data: str | bytes, expected: int) -> None:
    """See that a reply is whole, and the next one.

    Raises:
        Damaged: It is not.
    """
    if data.__class__ is str:
        data = data.encode()
    # in one step: this runs millions of times
    if data[-16:] != b"%08x%08x" % (expected, zlib.crc32(data[:-8])):  # type: ignore[arg-type]
        raise Damaged(f"expected number {expected}, got {len(data)} bytes ending in {data[-16:]!r}")


def _check(data: bytes) -> None:
    if data[-8:] != b"%08x" % zlib.crc32(data[:-8]):
        raise Damaged(f"wrong checksum: {len(data)} bytes, {data[:40]!r} ... {data[-8:]!r}")
