"""What bws sends, read by wsproto as a server does; and both kinds of masking."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bws._engine import frames
from bws._engine.deflate import Agreement, Deflater
from bws._engine.frames import close_payload, frame
from tests.fuzz import streams
from tests.fuzz.budget import count, examples
from tests.fuzz.readers import wsproto
from tests.wire.frames import BINARY, CLOSE, PING, PONG, TEXT

keys = st.binary(min_size=4, max_size=4)
data = st.one_of(
    st.text(max_size=100),
    st.binary(max_size=100),
    st.builds(lambda n, text: "é" * n if text else bytes(n), st.sampled_from([*streams.SIZES, 70_000]), st.booleans()),
)
sent = st.lists(
    st.tuples(data, keys) | st.tuples(st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)), keys),
    max_size=6,
)


@given(
    sent,
    st.none() | streams.agreements,
    st.none() | st.tuples(st.sampled_from([1000, 3000, 4999]), st.text(max_size=30)),
)
@examples(0.04)
def test_what_is_sent_is_read_by_wsproto(script: list[Any], agreement: Agreement | None, close: Any) -> None:
    count()
    deflater = Deflater(agreement) if agreement else None
    stream = b""
    for what, key in script:
        if isinstance(what, tuple):
            stream += frame(what[0], what[1], key)
            continue
        opcode, payload = (TEXT, what.encode()) if isinstance(what, str) else (BINARY, what)
        small = deflater.deflate(payload) if deflater else None
        stream += frame(opcode, payload, key) if small is None else frame(opcode, small, key, rsv1=True)
    items = [what for what, _ in script]
    if close:
        code, reason = close
        stream += frame(CLOSE, close_payload(code, reason.encode()), b"\x01\x02\x03\x04")
        items.append((CLOSE, code, reason))
    got = wsproto(stream, client=False, agreement=agreement)
    assert (got.code, got.items) == (None, items)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda n, seed: (seed * (n // len(seed) + 1))[:n],
            st.integers(0, 20).map(lambda n: 128 * 1024 - 10 + n),
            st.binary(min_size=1, max_size=9),
        ),
    ),
    keys,
    st.integers(0, 9),
    st.sampled_from([bytes, bytearray, memoryview]),
)
@examples(0.016)
def test_masking_in_c_and_in_python_are_the_same(plain: bytes, key: bytes, start: int, kind: Any) -> None:
    count()
    part = kind(plain)[start:]
    masked = frames.mask(part, key)
    assert masked == frames.mask_in_python(part, key)
    assert frames.mask(masked, key) == plain[start:]
