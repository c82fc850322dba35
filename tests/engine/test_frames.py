"""Bytes to messages and back, without a socket: each row is fed whole, byte by byte, in pieces and with a tail."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bws._engine import frames
from bws._engine.deflate import Agreement, Inflater
from bws._engine.frames import (
    CLOSE,
    LARGE_BUFFER,
    PING,
    PONG,
    FrameReader,
    close_payload,
    masking_keys,
    parse_close,
)
from bws._settings import HIGH_WATER_ITEMS
from bws.errors import ProtocolError
from tests.conftest import run_python
from tests.wire.frames import BINARY, CONTINUATION, TEXT, xor
from tests.wire.frames import frame as encode
from tests.wire.violations import COMPRESSED, MAX, TOO_LARGE, VIOLATIONS, Violation, bits

MIB = 1 << 20
TAIL = "81 04 7461696c"  # the text "tail"
# The functions under test by names of their own: websockets' extension, if it is there, and ours.
MASKS: dict[str, Callable[[bytes | memoryview, bytes], bytes]] = {
    "the fastest": frames.mask,
    "in Python": frames.mask_in_python,
}


BUFFER = memoryview(bytearray(LARGE_BUFFER))


class Fed:
    """A reader, and what came out of it; control frames stand in their place among the messages."""

    def __init__(self, max_size: int | None = None, inflater: Inflater | None = None) -> None:
        self.reader = FrameReader(max_size, self._control, inflater)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            parse_close(payload)
            self.reader.stopped = True
        self.reader.items.append((opcode, payload))

    def feed(self, *pieces: bytes) -> Fed:
        for piece in pieces:
            self.reader.feed(piece)
            self.rest(b"")
        return self

    def rest(self, follows: bytes) -> int:
        """As the engine: the beginning of a large frame is read with what of it follows; how many bytes that takes."""
        reader, buffer = self.reader, BUFFER
        if not reader.begun() and (reader.left <= frames.LARGE_REST or reader.inflating):
            return 0
        have = reader.begin(buffer)
        size = min(len(follows), reader.left - have, frames.LARGE_BUFFER - have)
        buffer[have : have + size] = follows[:size]
        reader.feed_large(buffer[: have + size])
        buffer[: have + size] = bytes(have + size)  # nothing of it may be in use
        return size

    @property
    def items(self) -> list[Any]:
        return self.reader.items


def pieces(data: bytes, size: int = 1) -> list[bytes]:
    """The data cut into pieces of that many bytes."""
    return [data[i : i + size] for i in range(0, len(data), size)]


# -- what is right

# name: (the bytes, what comes out)
RIGHT: dict[str, tuple[bytes, list[Any]]] = {
    "RFC 6455 5.7: a text": (bits("81 05 48656c6c6f"), ["Hello"]),
    "RFC 6455 5.7: a fragmented text": (bits("01 03 48656c 80 02 6c6f"), ["Hello"]),
    "RFC 6455 5.7: a ping": (bits("89 05 48656c6c6f"), [(PING, b"Hello")]),
    "RFC 6455 5.7: 256 bytes": (bits("82 7e 0100", bytes(256)), [bytes(256)]),
    "RFC 6455 5.7: 64 KiB": (bits("82 7f 0000000000010000", bytes(65536)), [bytes(65536)]),
    "an empty text": (bits("81 00"), [""]),
    "an empty binary": (bits("82 00"), [b""]),
    "a text of one byte": (bits("81 01 61"), ["a"]),
    "a text, then a binary": (bits("81 01 61 82 01 ff"), ["a", b"\xff"]),
    "many empty ones": (bits("81 00 82 00 81 00"), ["", b"", ""]),
    "125 bytes": (bits("82 7d", b"x" * 125), [b"x" * 125]),
    "126 bytes": (bits("82 7e 007e", b"x" * 126), [b"x" * 126]),
    "127 bytes of text": (bits("81 7e 007f", b"x" * 127), ["x" * 127]),
    "65,535 bytes": (bits("82 7e ffff", b"x" * 65535), [b"x" * 65535]),
    "65,536 bytes of text": (bits("81 7f 0000000000010000", b"x" * 65536), ["x" * 65536]),
    "characters of 2, 3 and 4 bytes": (bits("81 09 c3a9 e282ac f09f9880"), ["é€😀"]),
    "a byte order mark": (bits("81 03 efbbbf"), ["\ufeff"]),
    "the last code point": (bits("81 04 f48fbfbf"), ["\U0010ffff"]),
    "the code points around the surrogates": (bits("81 06 ed9fbf ee8080"), ["\ud7ff\ue000"]),
    "a NUL": (bits("81 01 00"), ["\0"]),
    "binary that is no UTF-8": (bits("82 03 ff c0 80"), [b"\xff\xc0\x80"]),
    "a fragmented binary that is no UTF-8": (bits("02 01 ff 00 01 c0 80 01 80"), [b"\xff\xc0\x80"]),
    "empty fragments": (bits("01 00 00 00 00 01 61 80 00"), ["a"]),
    "a fragmented message of nothing": (bits("02 00 80 00"), [b""]),
    "fragments inside a character": (bits("01 01 f0 00 01 9f 00 01 98 80 01 80"), ["😀"]),
    "a ping and a pong between fragments": (
        bits("01 01 61 89 01 31 00 01 62 8a 00 80 01 63"),
        [(PING, b"1"), (PONG, b""), "abc"],
    ),
    "a ping inside a character": (bits("01 01 c3 89 00 80 01 a9"), [(PING, b""), "é"]),
    "control frames of 125 bytes": (
        bits("89 7d", b"p" * 125, "8a 7d", b"q" * 125),
        [(PING, b"p" * 125), (PONG, b"q" * 125)],
    ),
    "a fragmented message, then another": (bits("01 01 61 80 01 62 02 01 63 80 01 64"), ["ab", b"cd"]),
    "a fragment of 64 KiB": (bits("02 7f 0000000000010000", bytes(65536), "80 01 61"), [bytes(65536) + b"a"]),
    "fragments that have a long length": (
        bits("01 7e 0100", b"x" * 256, "80 7e 0100", b"y" * 256),
        ["x" * 256 + "y" * 256],
    ),
}

# name: (the bytes up to and with a close frame, what comes out): nothing that follows does
LAST: dict[str, tuple[bytes, list[Any]]] = {
    "a close frame": (bits("81 01 61 88 02 03e8"), ["a", (CLOSE, b"\x03\xe8")]),
    "an empty close frame": (bits("88 00"), [(CLOSE, b"")]),
    "a close frame inside a message": (bits("01 01 61 88 05 03e9 627965"), [(CLOSE, b"\x03\xe9bye")]),
    "a close frame of 125 bytes": (bits("88 7d 03e8", b"x" * 123), [(CLOSE, b"\x03\xe8" + b"x" * 123)]),
}
# what may follow: a message, a second close frame, the rest of a message, nonsense
BEHIND = [bits(TAIL), bits("88 02 03e9"), bits("80 01 62"), bits("f3 ff 00 ff"), b"\x81"]


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("size", [1, 2, 3, 1000, MIB])
def test_valid_frames_become_messages_in_whatever_pieces_they_come(name: str, size: int) -> None:
    data, items = RIGHT[name]
    fed = Fed().feed(*pieces(data, size))
    assert fed.items == items
    assert fed.reader.left == 0


@pytest.mark.parametrize("name", RIGHT)
def test_what_follows_a_frame_is_read_too(name: str) -> None:
    data, items = RIGHT[name]
    tail = bits(TAIL)
    for cut in range(len(tail) + 1):
        fed = Fed().feed(data + tail[:cut])
        assert fed.items == items + (["tail"] if cut == len(tail) else [])
        assert fed.feed(tail[cut:]).items == [*items, "tail"]


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("size", [1, 3, MIB])
@pytest.mark.parametrize("behind", BEHIND)
def test_what_follows_a_close_frame_is_ignored(name: str, size: int, behind: bytes) -> None:
    data, items = LAST[name]
    assert Fed().feed(*pieces(data, size)).feed(*pieces(behind, size)).items == items
    assert Fed().feed(data + behind).items == items


def test_every_way_to_cut_a_stream_in_two_gives_the_same() -> None:
    data = bits(
        "81 03 e282ac 01 02 c3a9 89 02 7069 00 01 e2 80 02 82ac 82 7e 007e", bytes(126), "8a 00 81 00 02 00 80 01 7a"
    )
    items = ["€", (PING, b"pi"), "é€", bytes(126), (PONG, b""), "", b"z"]
    for cut in range(len(data) + 1):
        assert Fed().feed(data[:cut], data[cut:]).items == items


def test_the_list_of_items_may_be_taken_away_between_two_pieces() -> None:
    fed = Fed()
    got = []
    for byte in pieces(bits("81 01 61 01 01 62 80 01 63 82 01 64")):
        fed.feed(byte)
        got += fed.items
        fed.reader.items = []
    assert got == ["a", "bc", b"d"]


def test_it_says_how_much_of_a_frame_is_still_to_come() -> None:
    fed = Fed()
    assert [fed.feed(piece).reader.left for piece in (bits("82 7e"), bits("0100"), bytes(100), bytes(156))] == [
        0,
        256,
        156,
        0,
    ]


# -- what is wrong

SLOW = 1000  # bytes from which not every byte is fed by itself


def last_byte_tells(fed: Fed, data: bytes) -> ProtocolError:
    """Feed all but the last byte, which must be fine, and then the last one, which must not."""
    for piece in pieces(data[:-1], 1 if len(data) < SLOW else 1000):
        fed.feed(piece)
    with pytest.raises(ProtocolError) as caught:
        fed.feed(data[-1:])
    return caught.value


def wrong() -> dict[str, tuple[Violation, Callable[[], Fed]]]:
    """Every row of the tables, and the reader that it is for."""

    def compressed() -> Fed:
        return Fed(MAX, Inflater(Agreement()))

    return {
        **{name: (row, Fed) for name, row in VIOLATIONS.items()},
        **{f"max_size: {name}": (row, lambda: Fed(MAX)) for name, row in TOO_LARGE.items()},
        **{f"compressed: {name}": (row, compressed) for name, row in COMPRESSED.items()},
    }


WRONG = wrong()


def messages_of(fed: Fed) -> list[Any]:
    """What came out but control frames."""
    return [item for item in fed.items if not isinstance(item, tuple)]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_frame_is_told_at_its_first_wrong_byte(name: str) -> None:
    row, reader = WRONG[name]
    fed = reader()
    fed.feed(bits(TAIL))
    error = last_byte_tells(fed, row.data)
    assert error.close_code == row.code
    assert messages_of(fed) == ["tail", *row.delivered]
    assert 10 < len(str(error)) < 123


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("tail", [b"", bits(TAIL), bytes(200_000), b"\xff" * 10])
def test_a_wrong_frame_is_told_when_it_comes_with_others(name: str, tail: bytes) -> None:
    row, reader = WRONG[name]
    before = bits("81 03 e282ac 82 00 89 01 70")
    alone, together = reader(), reader()
    last_byte_tells(alone, row.data)
    with pytest.raises(ProtocolError) as caught:
        together.feed(before + row.data + tail)
    assert caught.value.close_code == row.code
    # what came before the violation is there, and nothing of what came with it
    assert together.items == ["€", b"", (PING, b"p"), *alone.items]


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_message_over_max_size_is_told_with_that_size(name: str) -> None:
    with pytest.raises(ProtocolError, match="max_size=200"):
        Fed(MAX).feed(TOO_LARGE[name].data + bytes(1000))


@pytest.mark.parametrize(
    "data",
    [
        bits("82 7e 00c8", bytes(200)),
        bits("02 7e 0082", bytes(130), "00 00 89 7d", bytes(125), "80 46", bytes(70)),
    ],
)
def test_a_message_of_exactly_max_size_is_fine_again_and_again(data: bytes) -> None:
    items = Fed(MAX).feed(data, data, data).items
    assert [item for item in items if isinstance(item, bytes)] == [bytes(200)] * 3


# the first and last byte of every range in the table of RFC 3629 section 4
RANGES = bytes.fromhex("00 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 ff")


def can_become_utf8(data: bytes) -> bool:
    """Whether `data` is the beginning of some UTF-8."""
    for count in range(4):
        for rest in itertools.product(b"\x80\x8f\x90\xa0\xbf", repeat=count):
            with contextlib.suppress(UnicodeDecodeError):
                (data + bytes(rest)).decode()
                return True
    return False


@pytest.mark.parametrize("first", RANGES, ids=lambda first: f"{first:02x}")
def test_text_fails_at_the_first_byte_after_which_it_cannot_become_utf8(first: int) -> None:
    longest = 2 if first >= 0xE0 else 1  # bytes behind the first
    rests = [rest for count in range(longest + 1) for rest in itertools.product(RANGES, repeat=count)]
    for rest in rests:
        row, fed, failed = bytes((first, *rest)), Fed(), False
        try:
            fed.feed(encode(TEXT, row, fin=False, length=0x1000))
        except ProtocolError as exc:
            failed = exc.close_code == 1007
        assert failed != can_become_utf8(row), row.hex()


def test_control_frames_are_not_bounded_by_max_size() -> None:
    assert Fed(1).feed(bits("89 02 6162 81 01 61")).items == [(PING, b"ab"), "a"]


def test_without_max_size_any_length_is_waited_for() -> None:
    fed = Fed(None).feed(bits("82 7f 7fffffffffffffff 00"))
    assert fed.reader.left == (1 << 63) - 2
    assert fed.reader.items == []


# -- arbitrary streams in arbitrary pieces

controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
payloads = st.one_of(
    st.text(max_size=300),
    st.binary(max_size=300),
    st.integers(0, 3).flatmap(lambda n: st.binary(min_size=65534 + n, max_size=65534 + n)),
)
# a message, where it is cut into fragments, and the control frames behind each
messages = st.tuples(payloads, st.lists(st.tuples(st.integers(0, 1 << 17), st.lists(controls, max_size=2)), max_size=4))


def fragments(opcode: int, payload: bytes, cuts: Iterable[tuple[int, list[tuple[int, bytes]]]], rsv: int = 0) -> bytes:
    """A message as frames, cut at these places (modulo its length), with control frames between."""
    places = sorted((place % (len(payload) + 1), between) for place, between in cuts)
    out, start = b"", 0
    for place, between in places:
        out += encode(opcode, payload[start:place], fin=False, rsv=rsv)
        out += b"".join(encode(*control) for control in between)
        opcode, start, rsv = CONTINUATION, place, 0
    return out + encode(opcode, payload[start:], rsv=rsv)


@given(st.lists(st.one_of(controls, messages), max_size=8), st.lists(st.integers(1, 70_000), min_size=1), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_stream_in_any_pieces_gives_its_messages(script: list[Any], sizes: list[int], compressed: bool) -> None:
    stream, items = b"", []
    deflate = zlib.compressobj(wbits=-15)
    for first, second in script:
        if isinstance(first, int):
            stream += encode(first, second)
            items.append((first, second))
            continue
        opcode, payload = (TEXT, first.encode()) if isinstance(first, str) else (BINARY, first)
        if compressed:
            payload = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        stream += fragments(opcode, payload, second, rsv=4 if compressed else 0)
        places = sorted((place % (len(payload) + 1), between) for place, between in second)
        items += [control for _, between in places for control in between]
        items.append(first)
    inflater = Inflater(Agreement()) if compressed else None
    fed = Fed(inflater=inflater)
    position, turn = 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        fed.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert fed.items == items
    assert [type(item) for item in fed.items] == [type(item) for item in items]


@given(st.binary(max_size=100), st.integers(1, 9))
@settings(max_examples=300)
def test_any_nonsense_gives_the_same_in_one_piece_and_in_many(data: bytes, size: int) -> None:
    def outcome(*fed: bytes) -> tuple[list[Any], object]:
        it = Fed(MAX)
        try:
            it.feed(*fed)
        except ProtocolError as exc:
            return it.items, (exc.close_code, str(exc))
        return it.items, None

    assert outcome(data) == outcome(*pieces(data, size))


# -- large frames, which are read into a buffer

SMALL_PART, SMALL_REST, SMALL_BUFFER = 100, 300, 1000  # bytes: what is large is less here, so that more is tried
LETTERS = "aé€😀"


def large_message(opcode: int, size: int) -> bytes:
    return ((LETTERS * (size // 4))[: size // 4].encode() + b"x" * size)[:size] if opcode == TEXT else os.urandom(size)


@given(
    st.lists(
        st.tuples(st.sampled_from([TEXT, BINARY]), st.integers(SMALL_REST - 2, 3 * SMALL_BUFFER)),
        min_size=1,
        max_size=3,
    ),
    st.lists(st.integers(1, 3 * SMALL_BUFFER), max_size=2),
    st.lists(st.integers(1, SMALL_BUFFER), min_size=1, max_size=20),
)
@settings(max_examples=300, deadline=None)
def test_large_frames_give_their_messages_however_they_come(
    script: list[tuple[int, int]], cuts: list[int], sizes: list[int]
) -> None:
    sent = [(opcode, large_message(opcode, size)) for opcode, size in script]
    stream = b"".join(fragments(opcode, payload, [(cut, []) for cut in cuts]) + bits(TAIL) for opcode, payload in sent)
    fed, position, turns = Fed(), 0, itertools.cycle(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "LARGE_REST", SMALL_REST)
        patch.setattr(frames, "LARGE_BUFFER", SMALL_BUFFER)
        patch.setattr(frames, "_PART", SMALL_PART)
        while position < len(stream):
            position += fed.rest(stream[position : position + next(turns)])
            piece = stream[position : position + next(turns)]
            fed.reader.feed(piece)
            position += len(piece)
    messages = [payload.decode() if opcode == TEXT else payload for opcode, payload in sent]
    assert fed.items == [item for message in messages for item in (message, "tail")]
    assert all(type(item) in (str, bytes) for item in fed.items)


@pytest.mark.parametrize("here", [1, 10, 1000])
@pytest.mark.parametrize("behind", [0, 1, 70_000])
def test_a_bad_byte_in_a_large_frame_is_told_as_soon_as_it_is_there(here: int, behind: int) -> None:
    fed = Fed().feed(bits(TAIL) + encode(TEXT, b"x" * here, length=1 << 40))
    fed.rest(b"y" * behind + "é".encode()[:1])
    assert fed.items == ["tail"]
    with pytest.raises(ProtocolError, match="not UTF-8: invalid") as caught:
        fed.rest(b"\xff")
    assert caught.value.close_code == 1007
    assert fed.items == ["tail"]


# -- cost


def seconds(data: list[bytes]) -> float:
    """How long reading takes, at best."""
    best = 1e9
    for _ in range(3):
        fed = Fed()
        start = time.thread_time()
        fed.feed(*data)
        best = min(best, time.thread_time() - start)
        assert len(fed.items) == 1
    return best


def tiny_fragments(count: int, opcode: int) -> list[bytes]:
    """A message in so many fragments of two bytes, as recv() gives them."""
    body = encode(CONTINUATION, b"\xc3\xa9", fin=False)
    return pieces(encode(opcode, b"", fin=False) + body * count + encode(CONTINUATION), 65536)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_tiny_fragments_cost_linear_time(opcode: int) -> None:
    few, many = (seconds(tiny_fragments(count, opcode)) for count in (16_384, 65_536))
    assert many < 10 * few + 0.05  # four times as many; with copies at each it would be sixteen times


def test_a_large_frame_in_tiny_pieces_costs_linear_time() -> None:
    few, many = (seconds(pieces(encode(TEXT, b"x" * size), 4)) for size in (65_536, 4 * 65_536))
    assert many < 10 * few + 0.05


def test_tiny_fragments_cost_no_multiple_of_their_size() -> None:
    stream = tiny_fragments(65_536, BINARY)
    tracemalloc.start()
    try:
        (message,) = Fed().feed(*stream).items
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(message) == MIB // 8
    assert peak < 3 * MIB // 4


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_parts_of_a_message_keep_at_most_as_much_again_in_memory(opcode: int) -> None:
    def read(part: bytes, beside: bytes) -> int:
        fed = Fed().feed(encode(opcode, fin=False))
        tracemalloc.start()
        try:
            for _ in range(10):
                fed.feed(beside + encode(CONTINUATION, part, fin=False))
                fed.reader.items.clear()
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        (got,) = fed.feed(encode(CONTINUATION)).items
        assert got == (part * 10 if opcode == BINARY else part.decode() * 10)
        return kept

    pings = encode(PING, bytes(125)) * 1000
    for size in (20_000, 60_000, 120_000, 360_000, 400_000):  # the last one is most of what is fed
        assert read(b"x" * size, pings) < 10 * 1.4 * size


def test_a_large_part_of_a_message_is_copied_when_it_is_joined_and_not_before() -> None:
    data = os.urandom(MIB)
    pieces = [encode(BINARY, data, fin=False), encode(CONTINUATION, data, fin=False)]
    fed = Fed()
    tracemalloc.start()
    try:
        fed.feed(*pieces)
        kept = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert kept < MIB
    assert fed.feed(encode(CONTINUATION)).items == [2 * data]


def test_messages_that_are_too_many_to_wait_are_read_later() -> None:
    fed = Fed()
    stream = encode(BINARY) * (MIB // 2) + encode(TEXT, "last")
    assert fed.reader.feed(stream)
    assert 2 * HIGH_WATER_ITEMS < len(fed.items) < 9 * HIGH_WATER_ITEMS
    read = fed.items
    while fed.reader.items:
        fed.reader.items = []
        fed.reader.feed(b"")
        read += fed.items
    assert read == [b""] * (MIB // 2) + ["last"]


def test_reading_goes_on_however_much_waits_already() -> None:
    fed = Fed()
    fed.reader.items = [(PONG, b"")] * (3 * HIGH_WATER_ITEMS)
    stream = encode(PONG, b"x") * 1000 + encode(TEXT) * 1000 + encode(PING) + encode(BINARY, fin=False)
    more = fed.reader.feed(stream + encode(CONTINUATION))
    for _ in range(10):
        if not more:
            break
        more = fed.reader.feed(b"")
    assert not more
    assert len(fed.items) == 3 * HIGH_WATER_ITEMS + 2002


@pytest.mark.parametrize("size", [1, 16_385, 100_000])
def test_binary_messages_in_parts_are_bytes(size: int) -> None:
    data = os.urandom(size)
    whole, half = encode(BINARY, data), size // 2
    fed = Fed().feed(encode(BINARY, data, fin=False) + encode(CONTINUATION), whole[:half], whole[half:])
    fed.feed(encode(BINARY, fin=False), encode(CONTINUATION, data), encode(BINARY, data, fin=False)[:-1], data[-1:])
    fed.feed(encode(CONTINUATION))
    assert fed.items == [data] * 4
    assert {type(item) for item in fed.items} == {bytes}


def test_a_frame_that_only_announces_its_size_costs_nothing() -> None:
    tracemalloc.start()
    try:
        Fed().feed(encode(BINARY, b"x", length=1 << 40))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MIB // 10


# -- closing


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999])
def test_a_close_frame_has_its_code_and_reason(code: int) -> None:
    head = struct.pack("!H", code)
    assert parse_close(head) == (code, "")
    assert parse_close(head + "tschüß".encode()) == (code, "tschüß")
    assert parse_close(close_payload(code, b"x" * 123)) == (code, "x" * 123)


def test_an_empty_close_frame_has_1005() -> None:
    assert parse_close(b"") == (1005, "")
    assert close_payload(None) == b""


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", 1002),
        *((struct.pack("!H", n), 1002) for n in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535)),
        (b"\x03\xe8\xff", 1007),
        (b"\x03\xe8\xed\xa0\x80", 1007),
        (b"\x03\xe8abc\xc3", 1007),
    ],
)
def test_a_close_frame_that_is_wrong_is_a_violation(payload: bytes, code: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_close(payload)
    assert caught.value.close_code == code


# -- sending


def decode(data: bytes) -> tuple[int, bool, bool, bytes, bytes]:
    """Opcode, FIN, RSV1, key and payload of the one masked frame that `data` is."""
    first, size = data[0], data[1]
    assert size & 0x80, "it is not masked"
    assert not first & 0x30
    size &= 0x7F
    width = {126: 2, 127: 8}.get(size, 0)
    if width:
        size = int.from_bytes(data[2 : 2 + width], "big")
        assert size >= {2: 126, 8: 65536}[width], "the length is not in its shortest form"
    key, payload = data[2 + width : 6 + width], data[6 + width :]
    assert len(payload) == size
    return first & 15, bool(first & 0x80), bool(first & 0x40), key, xor(payload, key)


@pytest.mark.parametrize("size", [0, 1, 4, 125, 126, 127, 1000, 65535, 65536, 65537, 200_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_a_frame_is_masked_and_has_its_length_in_the_shortest_form(opcode: int, size: int) -> None:
    payload = bytes(i % 251 for i in range(size))
    for data in (payload, memoryview(payload)):
        assert decode(frames.frame(opcode, data, b"\x12\x34\x56\x78")) == (
            opcode,
            True,
            False,
            b"\x12\x34\x56\x78",
            payload,
        )


def test_a_compressed_frame_has_rsv1() -> None:
    assert decode(frames.frame(TEXT, b"zip", b"abcd", rsv1=True)) == (TEXT, True, True, b"abcd", b"zip")


EDGES = [*range(301), *(128 * 1024 + n for n in range(-5, 6)), 65535, 65536, 1_000_003]


@pytest.mark.parametrize("name", MASKS)
def test_masking_is_xor_at_every_size(name: str) -> None:
    mask = MASKS[name]
    source = bytes(i * 7 % 256 for i in range(1_000_004))
    for size in EDGES:
        for key in (b"\x00\x00\x00\x00", b"\xff\x00\x80\x01", b"\x12\x34\x56\x78"):
            expected = xor(source[:size], key)
            assert mask(source[:size], key) == expected
            # not aligned, and a part of something larger
            assert mask(memoryview(source)[1 : size + 1], key) == xor(source[1 : size + 1], key)


@pytest.mark.parametrize("name", MASKS)
@given(data=st.binary(max_size=400), key=st.binary(min_size=4, max_size=4))
@settings(max_examples=200)
def test_masking_twice_changes_nothing(name: str, data: bytes, key: bytes) -> None:
    mask = MASKS[name]
    assert mask(data, key) == xor(data, key)
    assert mask(memoryview(bytearray(data)), key) == xor(data, key)
    assert mask(mask(data, key), key) == data


def test_a_masking_key_is_fresh_for_each_frame() -> None:
    got = list(islice(masking_keys(), 10_000))
    assert {len(key) for key in got} == {4}
    # Of 10,000 random keys of 32 bits two are equal by chance in one run of a hundred, six never.
    assert len(set(got)) > 9_995
    assert len({next(masking_keys()) for _ in range(100)}) > 95


def test_the_system_is_asked_for_no_more_than_it_gives_without_looking_for_signals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    monkeypatch.setattr(os, "urandom", urandom)
    assert list(islice(masking_keys(), 100)) == [bytes(4)] * 100
    assert asked
    assert max(asked) <= 256  # getrandom(2): "will not be interrupted by signals"


def test_the_fastest_masking_is_that_of_websockets_when_it_is_installed() -> None:
    from websockets import speedups

    assert frames.mask is not frames.mask_in_python
    assert frames.mask(b"Hello", b"\x37\xfa\x21\x3d") == speedups.apply_mask(b"Hello", b"\x37\xfa\x21\x3d")
    assert frames.mask(b"Hello", b"\x37\xfa\x21\x3d").hex() == "7f9f4d5158"  # RFC 6455 section 5.7


SLOWER = """
import sys
from bws._engine import frames
assert "websockets" not in sys.modules
print(frames.mask is frames.mask_in_python, frames.mask(b"Hello", bytes.fromhex("37fa213d")).hex())
"""


@pytest.mark.parametrize(
    "files",
    [
        {"__init__.py": "raise RuntimeError('is not imported')"},
        {"__init__.py": "", "speedups.py": ""},
        {"__init__.py": "", "speedups.py": "raise ImportError('built for another Python')"},
    ],
)
def test_without_the_extension_masking_is_done_in_python(tmp_path: pathlib.Path, files: dict[str, str]) -> None:
    (tmp_path / "websockets").mkdir()
    for name, source in files.items():
        (tmp_path / "websockets" / name).write_text(source)
    done = run_python(SLOWER, paths=[tmp_path])
    assert (done.stdout.split(), done.stderr) == (["True", "7f9f4d5158"], "")


def test_a_module_named_websockets_is_no_package_and_no_harm(tmp_path: pathlib.Path) -> None:
    (tmp_path / "websockets.py").write_text("raise RuntimeError('is not imported')")
    done = run_python(SLOWER, paths=[tmp_path])
    assert (done.stdout.split(), done.stderr) == (["True", "7f9f4d5158"], "")
