"""Any stream, right or damaged, in any pieces: read as wsproto reads it, and the same however it is cut."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from bws._engine.deflate import Agreement
from tests.fuzz import streams
from tests.fuzz.budget import count, examples
from tests.fuzz.readers import Bws, Outcome, bws, completed, cut, differs, first_wrong_byte, wsproto
from tests.fuzz.streams import Compressor, Message
from tests.wire.frames import frame

LONG = 1500  # bytes; of a longer stream not every byte is fed by itself


def the_same_in_any_pieces(
    data: bytes, sizes: list[int], max_size: int | None = None, agreement: Agreement | None = None
) -> tuple[Outcome, int | None]:
    """Feed a stream whole, cut and byte by byte.

    Returns:
        What came of it, and where the first wrong byte is.
    """
    whole = bws([data], max_size, agreement)
    assert bws(cut(data, sizes), max_size, agreement)[:2] == whole[:2]
    if len(data) > LONG:
        return whole, None
    wrong = first_wrong_byte(data, max_size, agreement)
    single = bws((data[i : i + 1] for i in range(len(data))), max_size, agreement)
    assert single[:2] == whole[:2]
    assert (wrong is None) == (whole.code is None)
    if wrong is not None:
        # The byte that tells is the same, whatever came with it.
        assert bws([data[:wrong]], max_size, agreement).code is None
        assert bws([data[: wrong + 1]], max_size, agreement)[:2] == whole[:2]
    return whole, wrong


@given(streams.streams, streams.pieces)
@examples(0.4)
def test_any_stream_is_read_as_wsproto_reads_it(data: bytes, sizes: list[int]) -> None:
    count()
    mine, wrong = the_same_in_any_pieces(data, sizes)
    if mine.code is None:
        theirs = wsproto(data)
        if not differs(data, mine, theirs):
            assert (mine.items, [type(i) for i in mine.items]) == (theirs.items, [type(i) for i in theirs.items])
            # bws is never later than wsproto
            assert theirs.code is None
    elif wrong is not None:
        before = wsproto(data[:wrong])
        assert (before.items, before.code) == (mine.items, None)
        # and never too early: however it goes on, wsproto refuses it too, for the same reason
        reader = Bws()
        reader.feed([data[:wrong]])
        theirs = wsproto(completed(data[: wrong + 1], mine.code, max(0, reader.reader.left - 1)))
        assert theirs.items == mine.items
        assert theirs.code == mine.code or differs(data, mine, theirs)
    else:
        theirs = wsproto(data)
        assert theirs.items == mine.items
        # None: the stream ends before wsproto would tell
        assert theirs.code in (mine.code, None) or differs(data, mine, theirs)


@given(streams.streams, streams.pieces, st.sampled_from([1, 5, 30, 125, 126, 200, 65535]))
@examples(0.15)
def test_max_size_changes_nothing_but_what_is_too_large(data: bytes, sizes: list[int], max_size: int) -> None:
    count()
    mine, wrong = the_same_in_any_pieces(data, sizes, max_size)
    assert all(size_of(item) <= max_size for item in mine.items)
    if mine.code != 1009:
        assert mine == bws([data])
    elif wrong is not None:
        # Without a limit the same bytes are right, and announce a message that is larger than that.
        unlimited = Bws()
        code = unlimited.feed([data[: wrong + 1]]).code
        assert code in (None, 1009)  # 1009: fragments of more than 2**63 bytes, which no reader can count
        rest = unlimited.reader.left
        if code is None and rest < LONG:
            done = unlimited.feed([b"x" * rest, frame(0)] if unlimited.reader.left else [frame(0)])
            assert done.code is not None or size_of(done.items[-1]) > max_size


def size_of(item: Any) -> int:
    """Bytes of a message; 0 of a control frame."""
    return 0 if isinstance(item, tuple) else len(item.encode() if isinstance(item, str) else item)


@given(
    st.lists(streams.messages(between=0) | streams.controls, max_size=5),
    streams.pieces,
    streams.agreements,
    st.sampled_from([0, 1, 6, 9]),
)
@examples(0.08)
def test_compressed_messages_are_read_as_wsproto_reads_them(
    script: list[Any], sizes: list[int], agreement: Agreement, level: int
) -> None:
    count()
    compress = Compressor(agreement, level)
    data = b"".join(part.encode(compress) if isinstance(part, Message) else frame(*part) for part in script)
    mine, _ = the_same_in_any_pieces(data, sizes, None, agreement)
    assert mine == Outcome([part.data if isinstance(part, Message) else part for part in script])
    assert mine.items == wsproto(data, agreement=agreement).items


@given(st.lists(streams.messages(), max_size=4), streams.pieces, streams.agreements, st.sampled_from([0, 1, 6]))
@examples(0.05)
def test_what_wsproto_does_not_read_of_compression_is_read(
    script: list[Message], sizes: list[int], agreement: Agreement, level: int
) -> None:
    count()
    # blocks with BFINAL, and control frames between the fragments: RFC 7692 sections 7.2.3.4 and 6.1
    compress = Compressor(agreement, level, final=True)
    data, items = b"", []
    for message in script:
        data += message.encode(compress)
        items.append(message.data)
    mine, _ = the_same_in_any_pieces(data, sizes, None, agreement)
    assert mine.code is None
    assert [item for item in mine.items if not isinstance(item, tuple)] == items
    assert mine.items.count((9, b"c" * 125)) == data.count(b"\x89\x7d" + b"c" * 125)


@given(
    st.lists(streams.messages(), min_size=1, max_size=3),
    st.lists(streams.damages, min_size=1, max_size=3),
    streams.pieces,
    streams.agreements,
    st.booleans(),
    st.sampled_from([None, 20, 200, 70_000]),
)
@examples(0.1)
def test_damaged_compression_never_ends_in_anything_but_a_violation(
    script: list[Message],
    damage: list[streams.Damage],
    sizes: list[int],
    agreement: Agreement,
    final: bool,
    max_size: int | None,
) -> None:
    count()
    compress = Compressor(agreement, 6, final)
    data = b"".join(message.encode(compress) for message in script)
    for one in damage:
        data = streams.damaged(data, one)
    whole = bws([data], max_size, agreement)
    pieces = bws(cut(data, sizes), max_size, agreement)
    assert all(size_of(item) <= (max_size or 1 << 30) for item in whole.items)
    assert (whole.items, whole.code is None) == (pieces.items, pieces.code is None)
    # zlib keeps back what it has inflated when the same piece ends in corrupt data: what is wrong with the text or the
    # size before that shows only if it came earlier. Otherwise the reason is the same.
    assert whole.code == pieces.code or "corrupt" in whole.text + pieces.text


RULES = [
    "reserved bits", "opcode", "is fragmented", "continuation frame without", "new message inside", "is masked",
    "over 125 bytes", "top bit", "shortest form", "surrogate", "invalid start byte", "invalid continuation byte",
    "inside a character", "has one byte", "may not be sent", "the reason",
]  # fmt: skip


@pytest.mark.timeout(240)  # it computes for ten seconds, and others may want the machine too
def test_the_streams_break_every_rule_and_many_break_none() -> None:
    seen: dict[str, int] = dict.fromkeys([*RULES, "fine", "closed"], 0)

    def look(data: bytes) -> None:
        got = bws(cut(data, [1] * LONG))
        for rule in RULES:
            seen[rule] += bool(re.search(rule, got.text))
        seen["fine"] += got.code is None and len(got.items) > 1
        seen["closed"] += got.closed

    # As many as it takes, at most 5,000: the same ones each time.
    batch = settings(examples(1), max_examples=500, derandomize=False)
    for number in range(10):
        seed(number)(batch(given(streams.streams)(look)))()
        if min(seen.values()) > 0 and seen["fine"] > 100:
            break
    assert min(seen.values()) > 0, seen
    assert seen["fine"] > 100
