"""What a server must not send, in hexadecimal, each row up to the first byte that is wrong.

Both kinds of test read this table: the frame reader by itself, and a connection over a real socket.
"""

from __future__ import annotations

from typing import NamedTuple

MAX = 200  # the max_size that the rows of TOO_LARGE are meant for


class Violation(NamedTuple):
    """A row.

    Attributes:
        rule: The sections that say so.
        code: What the client's close frame must have.
        data: The bytes; the last one is the first that is wrong.
        delivered: The messages that are complete before that.
    """

    rule: str
    code: int
    data: bytes
    delivered: tuple[str | bytes, ...] = ()


def bits(*parts: str | bytes) -> bytes:
    """Hexadecimal digits and bytes, joined."""
    return b"".join(part if isinstance(part, bytes) else bytes.fromhex(part) for part in parts)


def row(rule: str, code: int, *parts: str | bytes, delivered: tuple[str | bytes, ...] = ()) -> Violation:
    """A row; sections without a name are those of RFC 6455."""
    return Violation(rule, code, bits(*parts), delivered)


VIOLATIONS: dict[str, Violation] = {
    # -- the first byte
    "RSV1 without an extension": row("5.2", 1002, "c1"),
    "RSV1 in a binary": row("5.2", 1002, "c2"),
    "RSV2": row("5.2", 1002, "a1"),
    "RSV3": row("5.2", 1002, "92"),
    "all of them": row("5.2", 1002, "f2"),
    "RSV3 in a ping": row("5.2", 1002, "99"),
    "RSV2 in a pong": row("5.2", 1002, "aa"),
    "RSV1 in a close frame": row("5.2", 1002, "c8"),
    "RSV1 in a continuation": row("5.2", 1002, "01 01 61 c0"),
    **{f"opcode {n}": row("5.2", 1002, bytes([0x80 | n])) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"opcode {n} without FIN": row("5.2", 1002, bytes([n])) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "opcode 3 inside a message": row("5.2", 1002, "01 01 61 83"),
    "a ping without FIN": row("5.5", 1002, "09"),
    "a pong without FIN": row("5.5", 1002, "0a"),
    "a close frame without FIN": row("5.5", 1002, "08"),
    "a ping without FIN inside a message": row("5.5", 1002, "01 01 61 09"),
    # -- fragments
    "a continuation of nothing": row("5.4", 1002, "80"),
    "a continuation of nothing without FIN": row("5.4", 1002, "00"),
    "a continuation of a whole message": row("5.4", 1002, "81 03 6f6e65 80", delivered=("one",)),
    "a continuation of an empty message": row("5.4", 1002, "82 00 80", delivered=(b"",)),
    "a continuation of a finished message": row("5.4", 1002, "01 01 61 80 01 62 80", delivered=("ab",)),
    "a continuation behind a ping": row("5.4", 1002, "89 00 80"),
    "a text inside a text": row("5.4", 1002, "01 01 61 81"),
    "a binary inside a text": row("5.4", 1002, "01 01 61 02"),
    "a text inside an empty fragment's message": row("5.4", 1002, "02 00 01"),
    "a text inside a message behind a ping": row("5.4", 1002, "01 00 89 00 81"),
    # -- the length
    "a masked text": row("5.1", 1002, "81 85"),
    "a masked empty text": row("5.1", 1002, "81 80"),
    "a masked ping": row("5.1", 1002, "89 80"),
    "a masked close frame": row("5.1", 1002, "88 82"),
    "a masked continuation": row("5.1", 1002, "01 01 61 80 81"),
    "a masked text of 126 bytes": row("5.1", 1002, "81 fe"),
    "a masked text of 64 KiB": row("5.1", 1002, "81 ff"),
    "a ping of 126 bytes": row("5.5", 1002, "89 7e"),
    "a pong of 126 bytes": row("5.5", 1002, "8a 7e"),
    "a pong with a 64-bit length": row("5.5", 1002, "8a 7f"),
    "a close frame of 126 bytes": row("5.5", 1002, "88 7e"),
    "0 bytes in 16 bits": row("5.2", 1002, "81 7e 0000"),
    "5 bytes in 16 bits": row("5.2", 1002, "81 7e 0005"),
    "125 bytes in 16 bits": row("5.2", 1002, "82 7e 007d"),
    "a fragment of 125 bytes in 16 bits": row("5.2", 1002, "01 01 61 80 7e 007d"),
    # With six zeros less than 65,536 is left, whatever the other two bytes are.
    "0 bytes in 64 bits": row("5.2", 1002, "81 7f 000000000000"),
    "5 bytes in 64 bits": row("5.2", 1002, "81 7f 000000000000"),
    "a fragment with less than 64 KiB in 64 bits": row("5.2", 1002, "02 7f 000000000000"),
    "a length with the top bit": row("5.2", 1002, "82 7f 80"),
    "a length with all bits": row("5.2", 1002, "82 7f ff"),
    # -- UTF-8
    "a byte that starts no character": row("8.1", 1007, "81 05 61 ff"),
    "a continuation byte without a start": row("8.1", 1007, "81 05 80"),
    "a character cut by another": row("8.1", 1007, "81 05 e282 61"),
    "two bytes of which the second is ASCII": row("8.1", 1007, "81 02 c3 28"),
    "an overlong slash": row("RFC 3629 3", 1007, "81 05 c0"),
    "an overlong slash in 3 bytes": row("RFC 3629 3", 1007, "81 05 e0 80"),
    "an overlong slash in 4 bytes": row("RFC 3629 3", 1007, "81 05 f0 80"),
    "a surrogate": row("RFC 3629 3", 1007, "81 05 ed a0"),
    "a surrogate of the second kind": row("RFC 3629 3", 1007, "81 05 ed b0"),
    "a surrogate over two fragments": row("RFC 3629 3", 1007, "01 01 ed 00 02 a0"),
    "a code point above U+10FFFF": row("RFC 3629 3", 1007, "81 05 f4 90"),
    "a start byte above F4": row("RFC 3629 3", 1007, "81 05 f5"),
    "a text that ends inside a character": row("8.1", 1007, "81 02 61 c3"),
    "a long text that ends inside a character": row("8.1", 1007, "81 7e 007e", b"x" * 125, "e2"),
    "bad bytes in the first fragment": row("8.1", 1007, "01 05 61 ff"),
    "bad bytes in a later fragment": row("8.1", 1007, "01 01 61 00 05 62 ff"),
    "bad bytes in the last fragment": row("8.1", 1007, "01 01 61 80 05 62 ff"),
    "a character cut by a fragment's next byte": row("8.1", 1007, "01 01 e2 00 02 61"),
    "a character cut behind a ping": row("8.1", 1007, "01 01 e2 89 00 80 01 61"),
    "a message that ends inside a character": row("8.1", 1007, "01 01 c3 80 00"),
    "a fragmented message that ends inside a character": row("8.1", 1007, "01 01 f0 00 01 9f 80 01 98"),
    "bad bytes at the start of an endless frame": row("8.1", 1007, "81 7f 7fffffffffffffff 61 ff"),
    "bad bytes deep inside a large frame": row("8.1", 1007, "81 7f 0000000000020000", b"x" * 70000, "ff"),
    # -- close frames
    "a close frame of one byte": row("5.5.1", 1002, "88 01"),
    **{
        f"close code {code}": row("7.4", 1002, "88 02", code.to_bytes(2, "big"))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "a wrong close code before its reason": row("7.4", 1002, "88 7d 03e7"),
    "a close reason that is not UTF-8": row("5.5.1", 1007, "88 04 03e8 ff"),
    "a close reason with a surrogate": row("5.5.1", 1007, "88 7d 03e8 6279 ed a0"),
    "an overlong close reason": row("5.5.1", 1007, "88 04 03e8 c0"),
    "a close reason that ends inside a character": row("5.5.1", 1007, "88 05 03e8 6279 c3"),
    "a wrong close frame inside a message": row("7.4", 1002, "01 01 61 88 02 03ed"),
}

# for a client with max_size=MAX: told by the length alone
TOO_LARGE: dict[str, Violation] = {
    "one byte too many": row("7.4.1", 1009, "82 7e 00c9"),
    "a text of one byte too many": row("7.4.1", 1009, "81 7e 00c9"),
    "64 KiB": row("7.4.1", 1009, "82 7f 0000000000010000"),
    "the largest length there is": row("7.4.1", 1009, "82 7f 7fffffffffffffff"),
    "a first fragment": row("7.4.1", 1009, "02 7e 00c9"),
    "two fragments": row("7.4.1", 1009, "02 7e 0082", bytes(130), "80 47"),
    "a last fragment of one byte": row("7.4.1", 1009, "01 7e 00c8", b"x" * 200, "80 01"),
    "a fragment behind an empty one and a ping": row("7.4.1", 1009, "02 00 89 00 00 7e 00c8", bytes(200), "80 01"),
    "a frame behind one of just that size": row(
        "7.4.1", 1009, "81 7e 00c8", b"x" * 200, "82 7e 00c9", delivered=("x" * 200,)
    ),
}

# for a client that has agreed to permessage-deflate, as above with max_size=MAX
COMPRESSED: dict[str, Violation] = {
    "RSV1 in a ping": row("RFC 7692 6", 1002, "c9"),
    "RSV1 in a close frame": row("RFC 7692 6", 1002, "c8"),
    "RSV1 in a continuation": row("RFC 7692 6.1", 1002, "41 00 c0"),
    "RSV2 beside RSV1": row("RFC 7692 6", 1002, "e1"),
    "RSV3 beside RSV1": row("RFC 7692 6", 1002, "d2"),
    "a block of the type that is reserved": row("RFC 7692 7.2.2", 1002, "c1 05 07"),
    "a stored block whose length is wrong": row("RFC 7692 7.2.2", 1002, "c2 05 00 0500 fa 00"),
    "a frame that announces more than max_size": row("7.4.1", 1009, "c2 7e 00c9"),
    # A stored block: one zero, its length twice, and the bytes as they are.
    "text that is not UTF-8": row("8.1", 1007, "c1 07 00 0200 fdff 61 ff"),
    "text that ends inside a character": row("8.1", 1007, "c1 07 00 0100 feff c3 00"),
    # A block with the fixed codes: an 'a' and 200 times the one before it.
    "more than max_size when inflated": row("7.4.1", 1009, "c2 05 4a4c1c2600"),
}
